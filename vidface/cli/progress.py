"""Progress bars on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vidface.core.progress import ClipProgress, CountProgress

if TYPE_CHECKING:
    from vidface.training.stage_run import StepReport


@contextmanager
def extraction_progress(clips: int, *, enabled: bool) -> Iterator[ClipProgress | None]:
    """A bar on standard error with clips, frames/s, faces/s and the time left; None if disabled."""
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("extract"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips  {task.fields[rates]}  ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    begun = time.monotonic()
    totals = [0, 0]
    with bar:
        task = bar.add_task("extract", total=clips, rates="")

        def advance(n_clips: int, n_frames: int, n_faces: int) -> None:
            totals[0] += n_frames
            totals[1] += n_faces
            seconds = max(time.monotonic() - begun, 1e-9)
            rates = f"{totals[0] / seconds:.0f} frames/s  {totals[1] / seconds:.0f} faces/s"
            bar.update(task, advance=n_clips, rates=rates)

        yield advance


@contextmanager
def image_progress(images: int, *, enabled: bool) -> Iterator[CountProgress | None]:
    """A bar on standard error that counts images; None if disabled."""
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        task = bar.add_task("embed", total=images)
        yield lambda n: bar.update(task, advance=n)


@contextmanager
def pair_progress(*, enabled: bool) -> Iterator[CountProgress | None]:
    """A count of pairs on standard error, for splits that take a while; None if disabled."""
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.fields[pairs]} pairs"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("pairs", total=None, pairs="0")
        done = 0

        def advance(pairs: int) -> None:
            nonlocal done
            done += pairs
            bar.update(task, pairs=f"{done:,}")

        yield advance


@contextmanager
def training_progress(*, enabled: bool) -> Iterator[Callable[[StepReport], None] | None]:
    """A bar on standard error with stage, loss, images/s and the time left; None if disabled."""
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.fields[stage]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} images/s  ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=300,
    )
    with bar:
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
