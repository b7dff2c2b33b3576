"""Answers to questions of clips, as text for the terminal."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.cli.text_tables import grid, render
from vidface.metrics.figures import with_interval

if TYPE_CHECKING:
    from vidface.runs.asking import Answer
    from vidface.runs.same import SameAnswer
    from vidface.runs.who import WhoAnswer


def format_same(answer: SameAnswer, picture: Path | None) -> str:
    """The decision, what was compared, and what it was calibrated on."""
    if not answer.can_compare:
        return render(str(answer), *_list_clips(answer))
    lines = [] if picture is None else [f"faces: {picture}"]
    rates, point = answer.rates, answer.point
    if rates is not None:
        ends = None if rates.far_replicates is None else rates.far_replicates.ci95
        far = "" if ends is None else f" [{ends[0]:.2e}, {ends[1]:.2e}]"
        lines += [
            f"  FAR of this cosine  {rates.far:.2e}{far}",
            f"    {rates.accepted_impostor:,} of {rates.impostor:,} impostor pairs score as high",
            f"  TAR of this cosine  {with_interval(rates.tar, rates.tar_replicates)}",
            f"    {rates.accepted_genuine:,} of {rates.genuine:,} genuine pairs score as high",
        ]
    if point is not None and point.tar is not None:
        lines += _describe_point("FAR", "TAR", point, point.target_far, point.far, point.tar)
    return render(
        str(answer), *_list_clips(answer), *_list_calibration(answer), *lines, *_end(answer)
    )


def format_who(answer: WhoAnswer) -> str:
    """The decision, the nearest people, and what it was calibrated on."""
    if not answer.can_compare:
        return render(str(answer), *_list_clips(answer))
    rows = [(c.identity, f"{c.score:.4f}", f"{c.clips}") for c in answer.nearest]
    table = [grid(("nearest", "score", "clips enrolled"), rows)] if rows else []
    found = answer.identification
    lines = [
        f"{found.mated} clips of the {answer.enrolled} people enrolled, {found.non_mated} of others"
    ]
    if found.cmc[0].value is not None:
        right = with_interval(found.cmc[0].value, found.cmc[0].replicates)
        lines.append(f"  nearest is the right one (rank 1)  {right}")
    for p in found.points:
        if p.tpir is not None:
            lines += _describe_point("FPIR", "TPIR", p, p.target_fpir, p.fpir, p.tpir)
    head = [str(answer), *_list_clips(answer), *table]
    return render(*head, *_list_calibration(answer), *lines, *_end(answer))


def _describe_point(
    error: str, rate: str, point: Any, target: str, achieved: float | None, value: float
) -> list[str]:
    at = "nothing is accepted" if point.threshold is None else f"threshold {point.threshold:.4f}"
    return [
        f"  {at} at {error} {target} (achieved {achieved:.2e})",
        f"    {rate} there  {with_interval(value, point.replicates)}",
    ]


def _list_calibration(answer: Answer) -> list[str]:
    """On what people the answer rests."""
    calibration = answer.calibration
    if calibration is None:
        return []
    gallery = "" if calibration.gallery is None else f" against {calibration.gallery}"
    return [
        f"calibrated on {calibration.run}, split {calibration.split}{gallery}:",
        f"{calibration.people} people, {calibration.clips} clips; {calibration.means}",
    ]


def _list_clips(answer: Answer) -> Iterator[str]:
    """Which clips were asked about, and what came of them."""
    for label, clip in zip("AB" if len(answer.asked) > 1 else " ", answer.asked, strict=True):
        whose = ", ".join(filter(None, (clip.identity or "nobody known", clip.split)))
        which = "" if clip.clip_id == clip.name else f"clip {clip.clip_id} "
        of_run = "" if clip.clip_id is None else f" ({which}of the run: {whose})"
        state = "" if clip.state == "ok" else f"{clip.state} ({clip.message}), "
        kept = f"{state}{clip.kept} of {clip.faces} faces kept"
        came = clip.problem or f"{clip.name}{of_run}: {kept}"
        yield f"{label}  {came}"


def _end(answer: Answer) -> list[str]:
    """How it was worked on, and what must be said beside the figures."""
    notes = list(answer.notes)
    left_out = () if answer.calibration is None else answer.calibration.left_out
    if left_out:
        notes.append(f"asked about, so left out of the calibration: {', '.join(left_out)}")
    how = f"recogniser {answer.recogniser}; noise removal: {answer.denoising}"
    fill = functools.partial(textwrap.fill, width=80, initial_indent="- ", subsequent_indent="  ")
    return [how, *map(fill, notes)]
