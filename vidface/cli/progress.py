"""Progress bars on standard error; where that is no terminal, nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vidface.core.progress import ClipProgress, CountProgress

if TYPE_CHECKING:
    from vidface.runs.run import Run
    from vidface.training.stage_run import StepReport


@contextmanager
def _open_bar(*columns: Any, **options: Any) -> Iterator[Any]:
    """A bar of `rich` with these columns; the usual ones if none are named."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(*columns, console=Console(stderr=True), **options) as bar:
        yield bar


@contextmanager
def extraction_bar(run: Run) -> Iterator[ClipProgress | None]:
    """A bar with clips, frames/s, faces/s and the time left."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    start_seconds = time.monotonic()
    frames = faces = 0
    rates = "clips  {task.fields[rates]}  ETA"
    columns = ("extract", BarColumn(), MofNCompleteColumn(), rates, TimeRemainingColumn())
    with _open_bar(*columns) as bar:
        task = bar.add_task("extract", total=len(run.manifest.clips), rates="")

        def advance(n_clips: int, n_frames: int, n_faces: int) -> None:
            nonlocal frames, faces
            frames, faces = frames + n_frames, faces + n_faces
            seconds = max(time.monotonic() - start_seconds, 1e-9)
            rates = f"{frames / seconds:.0f} frames/s  {faces / seconds:.0f} faces/s"
            bar.update(task, advance=n_clips, rates=rates)

        yield advance


@contextmanager
def images_bar(images: int) -> Iterator[CountProgress | None]:
    """A bar that counts images."""
    if not sys.stderr.isatty():
        yield None
        return
    with _open_bar() as bar:
        task = bar.add_task("embed", total=images)
        yield lambda n: bar.update(task, advance=n)


@contextmanager
def pairs_bar() -> Iterator[CountProgress | None]:
    """A count of pairs, for splits that take a while."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import SpinnerColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), "{task.completed:,.0f} pairs", TimeElapsedColumn())
    with _open_bar(*columns, transient=True) as bar:
        task = bar.add_task("pairs", total=None)
        yield lambda n: bar.update(task, advance=n)


@contextmanager
def training_progress(*, enabled: bool) -> Iterator[Callable[[StepReport], None] | None]:
    """A bar with stage, loss, images/s and the time left; None if it is not enabled."""
    if not enabled:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    stage = TextColumn("{task.fields[stage]}", markup=False)
    rates = "loss {task.fields[loss]}  {task.fields[rate]} images/s  ETA"
    columns = (stage, BarColumn(), MofNCompleteColumn(), rates, TimeRemainingColumn())
    with _open_bar(*columns, speed_estimate_period=300) as bar:
        task = bar.add_task("train", total=None, stage="train", loss="", rate="")

        def advance(report: StepReport) -> None:
            bar.update(
                task,
                completed=report.done,
                total=report.total,
                stage=report.stage.name,
                loss=f"{report.loss:.4g}",
                rate=f"{report.images_per_second:.1f}",
            )

        yield advance
