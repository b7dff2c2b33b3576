"""`vidface who`: whose clip is this, of the people enrolled in a run, or nobody's?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import UsageError
from vidface.core.progress import Notify, quiet
from vidface.metrics.enrolment import enrol, exact_scores
from vidface.metrics.identification import (
    GALLERY_IS_FIXED,
    Identification,
    score_identification,
)
from vidface.metrics.protocols.identification import IdentificationProtocol
from vidface.runs.asking import Answer, Asking, Told, choose_target, note_doubts
from vidface.runs.run import Run, open_run_folder
from vidface.runs.score_tasks import LabelledClips, make_bootstrap
from vidface.runs.scoring import LATEST, ClusteringChoice
from vidface.storage.media import as_location
from vidface.vectors.descriptors import check_descriptors


@dataclass(frozen=True)
class Candidate(Told):
    """An enrolled person, and how much the clip is like them."""

    identity: str
    score: float
    clips: int  # of the gallery, the asked one left out


@dataclass(frozen=True, repr=False)
class WhoAnswer(Answer):
    """The nearest people, nearest first, and who it is.

    `is_known` is None where nothing can be decided, False where it is nobody of the gallery.
    """

    identity: str | None  # None unless it is known
    is_known: bool | None
    nearest: tuple[Candidate, ...]
    enrolled: int  # people
    identification: Identification  # of the calibration's clips

    def __repr__(self) -> str:
        return f"WhoAnswer({self}, recogniser={self.recogniser!r})"

    def __str__(self) -> str:
        if not self.nearest:
            return "no answer"
        verdict = {True: self.identity, False: "nobody of the gallery", None: "no decision"}
        return f"{verdict[self.is_known]}: nearest score {self.nearest[0].score:.4f}"


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
        asking = Asking.of_run(run, threshold)
        settings = run.pipeline.score
        gallery = gallery or settings.gallery
        if (split or settings.split) == gallery:
            raise UsageError(f"--split {gallery} is the gallery: its clips would find themselves")
        own = asking.find_own_clips(clip)
        enrolled = asking.choose_clips("gallery", gallery, gallery, own)
        probes = asking.choose_clips("split", split, settings.split, own)
        split = split or settings.split
        known = set(enrolled.identities)
        strangers = sum(identity not in known for identity in probes.who)
        target = choose_target(fpir, "FPIR", strangers, "clips of nobody enrolled")
        asked = asking.read_clips([clip], notify=notify)
        enrolment = settings.protocol(IdentificationProtocol).enrolment
        rows = asking.descriptors_of(enrolled)
        identification = score_identification(
            rows,
            enrolled.who,
            asking.descriptors_of(probes),
            probes.who,
            ranks=[1],
            fpirs=[target] if target else [],
            enrolment=enrolment,
            bootstrap=make_bootstrap(settings),
        )
    nearest: tuple[Candidate, ...] = ()
    if not asked[0].problem:
        nearest = _find_nearest(asked[0].descriptor, rows, enrolled, enrolment)[:top]
    points = identification.points
    is_known = None
    if nearest and points and points[0].tpir is not None:
        least = points[0].threshold
        is_known = least is not None and nearest[0].score >= least
    notes = []
    if len(nearest) > 1 and nearest[0].score == nearest[1].score:
        notes.append("two people score alike: the first by name stands first")
    if not points or points[0].tpir is None:
        notes.append(
            f"no decision: split {split} has {identification.mated} clips of people enrolled and "
            f"{strangers} of others to measure with; it takes 1 and 10 (strangers' clips are "
            "rows without an identity)"
        )
    elif fpir is None and target != "1e-2":
        notes.append(f"decided at FPIR {target}: 1e-2 needs ≥ 100 clips of nobody enrolled")
    notes += note_doubts(asking, asked, probes)
    if settings.bootstrap:
        notes.append(f"*: {GALLERY_IS_FIXED}")
    return WhoAnswer(
        asked,
        asking.recogniser,
        str(asking.denoising),
        asking.describe_calibration(split, probes, own, target, gallery),
        notes=tuple(notes),
        identity=nearest[0].identity if is_known else None,
        is_known=is_known,
        nearest=nearest,
        enrolled=len(enrolled.identities),
        identification=identification,
    )


def _find_nearest(
    descriptor: NDArray[np.float32],
    rows: NDArray[np.float32],
    enrolled: LabelledClips,
    enrolment: str,
) -> tuple[Candidate, ...]:
    """The enrolled people, those a descriptor is most like first, of equals the first by name.

    Args:
        rows: (n_clips, d) of the enrolled clips.
    """
    names, sizes = enrolled.identities, Counter(enrolled.who)
    templates = enrol(rows, check_descriptors(rows)[1], enrolled.who, names, enrolment)
    searched = np.flatnonzero(templates.sizes)
    scores = exact_scores(templates, searched, np.zeros_like(searched), descriptor[None])
    order = np.argsort(-scores, kind="stable").tolist()
    found = ((names[searched[i]], float(scores[i])) for i in order)
    return tuple(Candidate(name, score, sizes[name]) for name, score in found)
