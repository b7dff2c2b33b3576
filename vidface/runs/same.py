"""`vidface same`: are these two the same person, and how often is such an answer wrong?"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.core.errors import UsageError
from vidface.core.progress import Notify, quiet
from vidface.metrics.enrolment import Templates, exact_scores
from vidface.metrics.operating_points import OperatingPoint
from vidface.metrics.score_rates import ScoreRates, rate_score
from vidface.metrics.verification import score_verification
from vidface.runs.asking import Answer, Asking, choose_target, note_doubts
from vidface.runs.contact_sheet import check_sheet_path, draw_side_by_side, write_sheet
from vidface.runs.run import Run, open_run_folder
from vidface.runs.score_tasks import LabelledClips, make_bootstrap
from vidface.runs.scoring import LATEST, ClusteringChoice
from vidface.storage.media import as_location

ONE_CLIP = "A and B are one clip: that it is like itself says nothing"
ROUNDING = 2**-21
"""By so much equal scores may differ: the pairs' float32 products are summed in another order."""
NOTHING_CALIBRATED = "no run was asked (--run): nothing says which cosine is high, so no decision"


@dataclass(frozen=True, repr=False)
class SameAnswer(Answer):
    """Whether two clips are of one person; `same` is None where nothing can be decided."""

    cosine: float | None  # None where one of them has no usable face
    same: bool | None
    rates: ScoreRates | None  # of that very cosine among the calibration's pairs
    point: OperatingPoint | None  # the threshold at the target FAR

    def __repr__(self) -> str:
        return f"SameAnswer({self}, recogniser={self.recogniser!r})"

    def __str__(self) -> str:
        if self.cosine is None:
            return "no answer"
        words = {True: "same person", False: "different people", None: "no decision"}
        return f"{words[self.same]}: cosine {self.cosine:.4f}"


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
    with nullcontext() if run is None else run.folder.reading():
        if run is None:
            backbone = weights if isinstance(weights, Embedder) else load_backbone(weights)
            asking = Asking.of_recogniser(backbone, threshold)
        else:
            asking = Asking.of_run(run, threshold)
        answer = _answer(asking, (a, b), far, split, picture is not None, notify)
    drawn = [
        replace(
            clip.drawn,
            title=clip.name,
            diagnostics=f"{answer}; the most typical of {clip.kept} kept faces",
        )
        for clip in answer.asked
        if clip.drawn is not None
    ]
    if picture is not None and drawn:
        write_sheet(picture, draw_side_by_side(drawn))
    return answer


def _answer(
    asking: Asking,
    names: tuple[str | Path, str | Path],
    far: str | None,
    split: str | None,
    draws: bool,
    notify: Notify,
) -> SameAnswer:
    """The cosine of two clips, with what the pairs of a split say of it."""
    own = asking.find_own_clips(*names)
    usual = asking.pipeline.score.split
    clips = asking.choose_clips("split", split, usual, own)
    target = ""
    if asking.run is not None:  # what can't be decided is refused before anything is worked on
        target = choose_target(far, "FAR", clips.pairs[1], "impostor pairs")
    asked = asking.read_clips(names, draws=draws, notify=notify)
    answer = SameAnswer(
        asked,
        asking.recogniser,
        str(asking.denoising),
        asking.describe_calibration(split or usual, clips, own, target),
        notes=(),
        cosine=None,
        same=None,
        rates=None,
        point=None,
    )
    if answer.can_compare:
        first = np.zeros(1, np.int64)
        template = Templates(asked[0].descriptor[None], np.array([0, 1]))
        cosine = float(exact_scores(template, first, first, asked[1].descriptor[None])[0])
        answer = replace(answer, cosine=cosine, notes=(NOTHING_CALIBRATED,))
        if asking.run is not None:
            answer = _decide(answer, asking, clips, cosine, target)
            if answer.point is not None and far is None and target != "1e-2":
                remark = f"decided at FAR {target}: 1e-2 needs ≥ 100 impostor pairs"
                answer = replace(answer, notes=(remark, *answer.notes))
        if len({clip.clip_id or clip.name for clip in asked}) == 1:
            answer = replace(answer, notes=(ONE_CLIP, *answer.notes))
    return answer


def _decide(
    answer: SameAnswer, asking: Asking, clips: LabelledClips, cosine: float, target: str
) -> SameAnswer:
    """The answer with what the pairs of some clips say of the cosine."""
    descriptors, bootstrap = asking.descriptors_of(clips), make_bootstrap(asking.pipeline.score)
    rates = rate_score(descriptors, clips.who, cosine - ROUNDING, bootstrap=bootstrap)
    point = same = None
    notes = []
    if target and rates is not None:
        [point] = score_verification(descriptors, clips.who, [target], bootstrap=bootstrap).points
        same = point.threshold is not None and cosine >= point.threshold - ROUNDING
    else:
        genuine, impostor = clips.pairs
        notes.append(
            f"no decision: there are {genuine} genuine and {impostor} impostor pairs to measure "
            "with; it takes 1 and 10"
        )
    if rates is not None and not rates.accepted_impostor:
        notes.append(
            f"FAR 0 is none of {rates.impostor:,} impostor pairs: rarer than they can measure, "
            "not impossible"
        )
    if rates is not None and bootstrap and 0 < rates.far < 1 and rates.far_replicates is None:
        notes.append("FAR has no interval: more impostor pairs score as high than are resampled")
    return replace(
        answer,
        same=same,
        rates=rates and replace(rates, score=cosine),
        point=point,
        notes=(*notes, *note_doubts(asking, answer.asked, clips)),
    )
