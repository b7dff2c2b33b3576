"""Answers to questions of clips, as text for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidface.cli.text_tables import grid, render
from vidface.core.redaction import redacted
from vidface.metrics.figures import format_interval, with_interval
from vidface.runs.asking import NO_PROMISE, AskedClip
from vidface.runs.same import describe_answer

if TYPE_CHECKING:
    from vidface.runs.same import SameAnswer, SameCalibration
    from vidface.runs.who import WhoAnswer

_WIDTH = 80


def format_same(answer: SameAnswer, picture: Path | None) -> str:
    """The decision, what was compared, and what it was calibrated on."""
    parts = [describe_answer(answer)]
    parts += [_describe_clip(name, clip) for name, clip in (("A", answer.a), ("B", answer.b))]
    if answer.calibration is not None:
        parts += _describe_calibration(answer.calibration)
    parts.append(f"recogniser {answer.recogniser}; noise removal: {answer.denoising}")
    if picture is not None and not answer.failed:
        parts.append(f"faces: {picture}")
    return render(*parts, *_wrap(answer.notes))


def _describe_calibration(calibration: SameCalibration) -> list[str]:
    """The rates of the cosine and of the threshold, and whose they are."""
    rates, point = calibration.rates, calibration.point
    split = f"calibrated on split {calibration.split} of {calibration.run}:"
    of_split = f"{calibration.people} people, {calibration.clips} clips"
    if rates is None:
        return [split, f"  {of_split}, without both kinds of pairs"]
    far, tar = format_interval(rates.far_replicates), format_interval(rates.tar_replicates)
    lines = [
        f"{split} {NO_PROMISE}",
        f"  {of_split}, {rates.genuine:,} genuine and {rates.impostor:,} impostor pairs",
        f"  FAR of this cosine  {' '.join(filter(None, (f'{rates.far:.2e}', far)))}"
        f"  ({rates.accepted_impostor:,} impostor pairs score as high)",
        f"  TAR of this cosine  {' '.join(filter(None, (f'{rates.tar:.4f}', tar)))}"
        f"  ({rates.accepted_genuine:,} genuine pairs score as high)",
    ]
    if point is not None and point.tar is not None:
        at = "nothing is accepted" if point.threshold is None else f"{point.threshold:.4f}"
        lines.append(
            f"  threshold {at} at FAR {point.target_far} (achieved {point.far:.2e}), "
            f"TAR {with_interval(point.tar, point.replicates)}"
        )
    return lines


def format_who(answer: WhoAnswer) -> str:
    """The decision, the nearest people, and what it was calibrated on."""
    calibration = answer.calibration
    parts = [_describe_verdict(answer), _describe_clip("clip", answer.clip)]
    if answer.nearest:
        rows = [(c.identity, f"{c.score:.4f}", f"{c.clips}") for c in answer.nearest]
        parts.append(grid(("nearest", "score", "clips enrolled"), rows))
    enrolled = f"{calibration.enrolled} people enrolled"
    parts.append(f"gallery {calibration.gallery} of {calibration.run}: {enrolled}")
    identification = calibration.identification
    if identification is not None:
        [point], [first] = identification.points, identification.cmc
        parts.append(
            f"calibrated on split {calibration.split}: {identification.mated} clips of people "
            f"enrolled, {identification.non_mated} of others; {NO_PROMISE}"
        )
        if first.value is not None:
            right = with_interval(first.value, first.replicates)
            parts.append(f"  nearest is the right one (rank 1)  {right}")
        if point.tpir is not None:
            at = "nothing is accepted" if point.threshold is None else f"{point.threshold:.4f}"
            parts.append(
                f"  threshold {at} at FPIR {point.target_fpir} (achieved {point.fpir:.2e}), "
                f"TPIR {with_interval(point.tpir, point.replicates)}"
            )
    parts.append(f"recogniser {answer.recogniser}; noise removal: {answer.denoising}")
    return render(*parts, *_wrap(answer.notes))


def _describe_verdict(answer: WhoAnswer) -> str:
    if not answer.nearest:
        return "no answer"
    score = f"nearest score {answer.nearest[0].score:.4f}"
    verdict = {True: answer.identity, False: "nobody of the gallery", None: "no decision"}
    return f"{verdict[answer.is_known]}: {score}"


def _describe_clip(label: str, clip: AskedClip) -> str:
    """Which clip it is, and what came of it."""
    if clip.problem:
        return f"{label}  {clip.problem}"
    whose = ", ".join(filter(None, (clip.identity or "nobody known", clip.split)))
    of_run = f" (clip {clip.clip_id} of the run: {whose})" if clip.clip_id is not None else ""
    return f"{label}  {redacted(clip.name)}{of_run}: {clip.kept} of {clip.faces} faces kept"


def _wrap(notes: Sequence[str]) -> list[str]:
    return [
        textwrap.fill(note, _WIDTH, initial_indent="- ", subsequent_indent="  ") for note in notes
    ]
