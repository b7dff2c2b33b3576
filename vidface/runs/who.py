"""`vidface who`: whose clip is this, of the people enrolled in a run, or nobody's?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import UsageError
from vidface.core.progress import Notify, quiet
from vidface.metrics.enrolment import enrol, exact_scores
from vidface.metrics.identification import Identification, score_identification
from vidface.metrics.protocols.identification import IdentificationProtocol
from vidface.metrics.uncertainty import few_people_note
from vidface.runs.asking import (
    NO_PROMISE,
    AskedClip,
    Asking,
    check_split,
    choose_target,
    note_copies,
    note_few_faces,
    read_calibration,
)
from vidface.runs.denoised import Denoised
from vidface.runs.run import Run, open_run_folder
from vidface.runs.score_tasks import LabelledClips, clips_of_split, find_rows, make_bootstrap
from vidface.runs.scoring import LATEST, ClusteringChoice
from vidface.storage.media import as_location
from vidface.vectors.descriptors import check_descriptors


@dataclass(frozen=True)
class Candidate:
    """An enrolled person, and how much the clip is like them."""

    identity: str
    score: float
    clips: int  # of the gallery, the asked one left out


@dataclass(frozen=True)
class WhoCalibration:
    """What a run's probes say of the highest score of a search."""

    run: str
    gallery: str
    split: str  # whose clips were the probes
    enrolled: int
    people: int  # of the split
    left_out: tuple[str, ...]  # clips of gallery and split that were asked about
    identification: Identification | None  # None without a probe

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found = self.identification
        return {
            "run": self.run,
            "gallery": self.gallery,
            "split": self.split,
            "enrolled": self.enrolled,
            "people": self.people,
            "left_out": list(self.left_out),
            "identification": None if found is None else found.to_dict(),
            "means": NO_PROMISE,
        }


@dataclass(frozen=True)
class WhoAnswer:
    """The nearest people, nearest first, and who it is.

    `is_known` is None where nothing can be decided, False where it is nobody of the gallery.
    """

    clip: AskedClip
    nearest: tuple[Candidate, ...]
    is_known: bool | None
    calibration: WhoCalibration
    recogniser: str
    denoising: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        nearest = ", ".join(f"{c.identity} {c.score:.4f}" for c in self.nearest)
        return f"WhoAnswer(identity={self.identity!r}, is_known={self.is_known}, {nearest})"

    @property
    def identity(self) -> str | None:
        """Who it is; None where it is nobody enrolled, or that can't be decided."""
        return self.nearest[0].identity if self.is_known else None

    @property
    def failed(self) -> list[str]:
        """Why the clip can't be searched for."""
        return [self.clip.problem] if self.clip.problem else []

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "identity": self.identity,
            "is_known": self.is_known,
            "nearest": [vars(candidate) for candidate in self.nearest],
            "clip": self.clip.to_dict(),
            "recogniser": self.recogniser,
            "noise_removal": self.denoising,
            "calibration": self.calibration.to_dict(),
            "notes": list(self.notes),
        }


def who(
    clip: str | Path,
    run: str | Path | Run,
    *,
    top: int = 5,
    fpir: str | None = None,
    split: str | None = None,
    gallery: str | None = None,
    threshold: ClusteringChoice = LATEST,
    notify: Notify = quiet,
) -> WhoAnswer:
    """Search a clip among the people of a run's gallery.

    People are enrolled, and the threshold below which it is nobody is found, as `identification`
    does both: clips of the split whose people aren't enrolled, and distractors, say how high a
    stranger scores. The clip itself is left out of both, where it is one of the run's.

    Args:
        clip: a clip id of the run, or a video, picture, folder of images or URL, which is worked on
            exactly as the run's clips were.
        run: a run directory with a clustering.
        top: how many people are listed.
        fpir: the decision's false positive identification rate as decimal text (default: 1e-2, or
            1e-1 where the split has fewer than 100 non-mated probes).
        split, gallery: as the run scores them, unless given.
        threshold: which clustering of the run (default: the one made last).

    Raises:
        VidfaceError: a run without a clustering or a gallery, too few probes for `fpir`, a name
            that leads nowhere. A clip without a usable face is an answer: `nearest` is empty.
    """
    if top < 1:
        raise UsageError(f"--top: a whole number from 1, not {top}")
    if not isinstance(run, Run):
        run = open_run_folder(as_location(run), notify=notify)
    with run.folder.reading():
        denoised = read_calibration(run, threshold)
        asking = Asking.of_run(run, denoised)
        settings = run.pipeline.score
        gallery = check_split(run, "gallery", gallery or settings.gallery)
        if split is not None:
            check_split(run, "split", split)
        split = split or settings.split
        if split == gallery:
            raise UsageError(f"--split {split} is the gallery: its clips would find themselves")
        own = asking.find_own_clips(clip)
        of_gallery = clips_of_split(run.manifest, gallery)
        probes = clips_of_split(run.manifest, split)
        left_out = tuple(sorted(set(own) & {*of_gallery.ids, *probes.ids}))
        search = _Search(run, denoised, of_gallery.leave_out(own), probes.leave_out(own))
        identification = search.calibrate(fpir)
        [asked] = asking.read_clips([clip], notify=notify)
        nearest = () if asked.problem else search.find_nearest(asked.descriptor, top)
    [point] = identification.points if identification is not None else [None]
    calibration = WhoCalibration(
        run=str(run.folder.folder),
        gallery=gallery,
        split=split,
        enrolled=len(search.gallery.identities),
        people=len(search.probes.identities),
        left_out=left_out,
        identification=identification,
    )
    answer = WhoAnswer(asked, nearest, None, calibration, asking.recogniser, str(asking.denoising))
    if nearest and point is not None and point.tpir is not None:
        is_known = point.threshold is not None and nearest[0].score >= point.threshold
        answer = replace(answer, is_known=is_known)
    kept = denoised.kept[find_rows(denoised, search.probes)]
    notes = [*_list_notes(answer, of_gallery, fpir), *note_few_faces([asked], kept)]
    notes += note_copies([asked], denoised)
    return replace(answer, notes=tuple(notes))


@dataclass(frozen=True)
class _Search:
    """A gallery, and the probes that say how high strangers score in it."""

    run: Run
    denoised: Denoised
    gallery: LabelledClips
    probes: LabelledClips

    @property
    def _enrolment(self) -> str:
        return self.run.pipeline.score.protocol(IdentificationProtocol).enrolment

    def calibrate(self, fpir: str | None) -> Identification | None:
        """The identification of all probes, with one open-set point if they resolve any."""
        enrolled = set(self.gallery.identities)
        non_mated = sum(identity not in enrolled for identity in self.probes.who)
        target = choose_target(fpir, "FPIR", non_mated, "non-mated probes")
        if not self.probes.ids:
            return None
        return score_identification(
            self._rows(self.gallery),
            self.gallery.who,
            self._rows(self.probes),
            self.probes.who,
            ranks=[1],
            fpirs=[target or "1e-1"],  # where none is resolved the point says what it takes
            enrolment=self._enrolment,
            bootstrap=make_bootstrap(self.run.pipeline.score),
        )

    def find_nearest(self, descriptor: NDArray[np.float32], top: int) -> tuple[Candidate, ...]:
        """The enrolled people that a descriptor is most like, of equals the first by name."""
        rows, names = self._rows(self.gallery), self.gallery.identities
        templates = enrol(
            rows, check_descriptors(rows)[1], self.gallery.who, names, self._enrolment
        )
        enrolled = np.flatnonzero(templates.sizes)
        scores = exact_scores(templates, enrolled, np.zeros_like(enrolled), descriptor[None])
        sizes = Counter(self.gallery.who)
        return tuple(
            Candidate(names[enrolled[i]], float(scores[i]), sizes[names[enrolled[i]]])
            for i in np.argsort(-scores, kind="stable")[:top]
        )

    def _rows(self, clips: LabelledClips) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self.denoised.descriptors[find_rows(self.denoised, clips)]
        return rows


def _list_notes(answer: WhoAnswer, of_gallery: LabelledClips, fpir: str | None) -> list[str]:
    """What must be said beside the answer."""
    notes = []
    calibration, clip = answer.calibration, answer.clip
    if calibration.left_out:
        notes.append(f"asked about, so left out: {', '.join(calibration.left_out)}")
    if (
        clip.identity
        and of_gallery.who.count(clip.identity) == 1
        and clip.split == calibration.gallery
    ):
        notes.append(
            f"it was {clip.identity}'s only clip in the gallery: without it they aren't enrolled"
        )
    if len(answer.nearest) > 1 and answer.nearest[0].score == answer.nearest[1].score:
        notes.append("two people score alike: the first by name is listed first")
    identification = calibration.identification
    if identification is None:
        notes.append(
            f"no decision: split {calibration.split} has no clip to measure strangers with"
        )
        return notes
    [point] = identification.points
    if point.tpir is None:
        notes.append(
            f"no decision: of split {calibration.split}, {point.non_mated} clips are of nobody "
            f"enrolled and {point.mated} of somebody; it takes 10, and 1"
        )
    elif fpir is None and point.target_fpir != "1e-2":
        notes.append(
            f"decided at FPIR {point.target_fpir}: 1e-2 needs ≥ 100 clips of nobody enrolled"
        )
    few = few_people_note(calibration.people)
    return [*notes, few] if few else notes
