"""`vidface same`: are these two the same person, and how often is such an answer wrong?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.core.errors import UsageError
from vidface.core.progress import Notify, quiet
from vidface.core.redaction import redacted
from vidface.metrics.enrolment import Templates, exact_scores
from vidface.metrics.operating_points import OperatingPoint
from vidface.metrics.score_rates import ScoreRates, rate_score
from vidface.metrics.uncertainty import few_people_note
from vidface.metrics.verification import score_verification
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
from vidface.runs.contact_sheet import check_sheet_path, draw_side_by_side, write_sheet
from vidface.runs.denoised import Denoised
from vidface.runs.run import Run, open_run_folder
from vidface.runs.score_tasks import LabelledClips, clips_of_split, find_rows, make_bootstrap
from vidface.runs.scoring import LATEST, ClusteringChoice
from vidface.storage.media import as_location

NOTHING_CALIBRATED = "no run was asked (--run): nothing says which cosine is high, so no decision"


@dataclass(frozen=True)
class SameCalibration:
    """What a run's pairs of clips say of one cosine."""

    run: str
    split: str
    people: int
    clips: int  # with the distractors'
    left_out: tuple[str, ...]  # clips of the split that were asked about
    rates: ScoreRates | None  # of that very cosine; None without a genuine or impostor pair
    point: OperatingPoint | None  # the threshold at the target FAR; None: too few pairs for any

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        named = {} if self.point is None else {"target_far": self.point.target_far}
        return {
            "run": self.run,
            "split": self.split,
            "people": self.people,
            "clips": self.clips,
            "left_out": list(self.left_out),
            "of_this_cosine": None if self.rates is None else self.rates.to_dict(),
            "decision_at": None if self.point is None else {**named, **self.point.to_dict()},
            "means": NO_PROMISE,
        }


@dataclass(frozen=True)
class SameAnswer:
    """Whether two clips are of one person; `same` is None where nothing can be decided."""

    a: AskedClip
    b: AskedClip
    cosine: float | None  # None where one of them has no usable face
    same: bool | None
    calibration: SameCalibration | None
    recogniser: str
    denoising: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        cosine = "n/a" if self.cosine is None else f"{self.cosine:.4f}"
        return f"SameAnswer(same={self.same}, cosine={cosine}, recogniser={self.recogniser!r})"

    @property
    def failed(self) -> list[str]:
        """Why a clip can't be compared."""
        return list(dict.fromkeys(clip.problem for clip in (self.a, self.b) if clip.problem))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "same": self.same,
            "cosine": self.cosine,
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "recogniser": self.recogniser,
            "noise_removal": self.denoising,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "notes": list(self.notes),
        }


def same(
    a: str | Path,
    b: str | Path,
    run: str | Path | Run | None = None,
    *,
    far: str | None = None,
    split: str | None = None,
    threshold: ClusteringChoice = LATEST,
    weights: str | Path | Embedder = "sface",
    picture: str | Path | None = None,
    notify: Notify = quiet,
) -> SameAnswer:
    """Compare two clips: their cosine, and what a run's pairs of clips say of it.

    Args:
        a, b: clip ids of the run, or videos, pictures, folders of images or URLs, which are worked
            on exactly as the run's clips were.
        run: a run directory with a clustering, whose scored split calibrates the answer. None:
            a cosine without a decision.
        far: the decision's false accept rate as decimal text, "1e-3" (default: 1e-2, or 1e-1 where
            the split has fewer than 100 impostor pairs).
        split: the split that calibrates (default: the run's scored one).
        threshold: which clustering of the run (default: the one made last).
        weights: the recogniser without a run: a name, a file, or a loaded one.
        picture: a .png, .jpg or .webp file for the faces that were compared.

    Raises:
        VidfaceError: a run without a clustering, too few pairs for `far`, a name that leads
            nowhere. A clip without a usable face is an answer: `cosine` is None.
    """
    if run is not None and not isinstance(run, Run):
        run = open_run_folder(as_location(run), notify=notify)
    if run is None and (far is not None or split is not None):
        raise UsageError("--far and --split are a run's: name one with --run")
    picture = None if picture is None else Path(picture)
    if picture is not None:
        check_sheet_path(picture)
    if run is None:
        backbone = weights if isinstance(weights, Embedder) else load_backbone(weights)
        asking = Asking.of_recogniser(backbone, threshold)
        return _answer(asking, (a, b), far, split, picture, notify)
    with run.folder.reading():
        asking = Asking.of_run(run, read_calibration(run, threshold))
        return _answer(asking, (a, b), far, split, picture, notify)


def _answer(
    asking: Asking,
    names: tuple[str | Path, str | Path],
    far: str | None,
    split: str | None,
    picture: Path | None,
    notify: Notify,
) -> SameAnswer:
    run = asking.run
    pairs = None if run is None else _choose_pairs(asking, run, names, far, split)
    of_a, of_b = asking.read_clips(names, draws=picture is not None, notify=notify)
    answer = SameAnswer(of_a, of_b, None, None, None, asking.recogniser, str(asking.denoising))
    if not answer.failed:
        pair = Templates(of_a.descriptor[None], np.array([0, 1]))
        first = np.zeros(1, np.int64)
        cosine = float(exact_scores(pair, first, first, of_b.descriptor[None])[0])
        answer = replace(answer, cosine=cosine, notes=(NOTHING_CALIBRATED,))
        if pairs is not None:
            answer = _calibrate(answer, pairs, cosine)
    drawn = [
        replace(
            clip.drawn,
            title=redacted(clip.name),
            diagnostics=f"{describe_answer(answer)}; the most typical of {clip.kept} kept faces",
        )
        for clip in (of_a, of_b)
        if clip.drawn is not None
    ]
    if picture is not None and drawn:
        write_sheet(picture, draw_side_by_side(drawn))
    return answer


def describe_answer(answer: SameAnswer) -> str:
    """The decision and the cosine, in one line."""
    if answer.cosine is None:
        return "no answer"
    words = {True: "same person", False: "different people", None: "no decision"}
    return f"{words[answer.same]}: cosine {answer.cosine:.4f}"


@dataclass(frozen=True)
class _CalibrationPairs:
    """The pairs that say what a cosine means: of a split, without the clips asked about."""

    run: Run
    denoised: Denoised
    split: str
    clips: LabelledClips
    left_out: tuple[str, ...]
    target: str  # FAR; empty where there are too few pairs for any
    remark: str  # on the target


def _choose_pairs(
    asking: Asking, run: Run, names: Sequence[str | Path], far: str | None, split: str | None
) -> _CalibrationPairs | None:
    """Choose what calibrates; what can't is refused before anything is worked on."""
    if asking.denoised is None:
        return None
    split = check_split(run, "split", split or run.pipeline.score.split)
    whole = clips_of_split(run.manifest, split)
    clips = whole.leave_out(asking.find_own_clips(*names))
    genuine, impostor = clips.pairs
    target = choose_target(far, "FAR", impostor, "impostor pairs")
    remark = ""
    if not (target and genuine):
        remark = (
            f"no decision: split {split} has {genuine} genuine and {impostor} impostor pairs to "
            "measure with; it takes 1 and 10"
        )
    elif far is None and target != "1e-2":
        remark = f"decided at FAR {target}: 1e-2 needs ≥ 100 impostor pairs"
    left_out = tuple(sorted(set(whole.ids) - set(clips.ids)))
    return _CalibrationPairs(run, asking.denoised, split, clips, left_out, target, remark)


def _calibrate(answer: SameAnswer, pairs: _CalibrationPairs, cosine: float) -> SameAnswer:
    """The answer with what the pairs say."""
    denoised, clips = pairs.denoised, pairs.clips
    rows = find_rows(denoised, clips)
    bootstrap = make_bootstrap(pairs.run.pipeline.score)
    rates = rate_score(denoised.descriptors[rows], clips.who, cosine, bootstrap=bootstrap)
    point = None
    if pairs.target and rates is not None:
        [point] = score_verification(
            denoised.descriptors[rows], clips.who, [pairs.target], bootstrap=bootstrap
        ).points
    people = len(clips.identities)
    notes = [pairs.remark]
    if pairs.left_out:
        notes.append(f"asked about, so left out of the calibration: {', '.join(pairs.left_out)}")
    if rates is not None and not rates.accepted_impostor:
        notes.append(
            f"FAR 0 is none of {rates.impostor:,} impostor pairs: rarer than they can measure, "
            "not impossible"
        )
    asked = answer.a, answer.b
    notes += [few_people_note(people)] if rates is not None and bootstrap is not None else []
    notes += [*note_few_faces(asked, denoised.kept[rows]), *note_copies(asked, denoised)]
    return replace(
        answer,
        same=None if point is None else point.threshold is not None and cosine >= point.threshold,
        calibration=SameCalibration(
            run=str(pairs.run.folder.folder),
            split=pairs.split,
            people=people,
            clips=len(clips.ids),
            left_out=pairs.left_out,
            rates=rates,
            point=point,
        ),
        notes=tuple(filter(None, notes)),
    )
