"""All stages of a run, one after the other: what `vidface run` and `vidface demo` do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from vidface.core.progress import ClipProgress, CountProgress, Notify, quiet
from vidface.runs.denoised import Denoised
from vidface.runs.denoising import Denoising
from vidface.runs.embedding import ExtractionSummary
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster, cluster_once
from vidface.runs.run import Run
from vidface.runs.scoring import Score, check_splits, score
from vidface.runs.sweeps import Sweep, sweep

DEMO_THRESHOLDS = tuple(number / 20 for number in range(15))  # 0, 0.05, … 0.7


@dataclass(frozen=True)
class Watcher:
    """Who is told what while stages run.

    Attributes:
        notify: told of what was resumed, assumed or left out.
        extraction_bar, pairs_bar: opened around a stage; what they give is told its progress.
        on_extracted, on_clustered: given a stage's result before the next stage begins.
    """

    notify: Notify = quiet
    extraction_bar: Callable[[Run], AbstractContextManager[ClipProgress | None]] = lambda _: (
        nullcontext()
    )
    pairs_bar: Callable[[], AbstractContextManager[CountProgress | None]] = nullcontext
    on_extracted: Callable[[ExtractionSummary], object] = lambda _: None
    on_clustered: Callable[[Denoised], object] = lambda _: None


@dataclass(frozen=True)
class WholeRun:
    """The results of all stages."""

    extraction: ExtractionSummary
    denoised: Denoised
    score: Score

    def to_dict(self) -> dict[str, Any]:
        return {
            "extraction": self.extraction.to_dict(),
            "cluster": self.denoised.summary(),
            **self.score.to_dict(),
        }


def run_stages(
    run: Run,
    denoising: Denoising | None = None,
    *,
    split: str | None = None,
    gallery: str | None = None,
    force: bool = False,
    retry_failed: bool = False,
    watcher: Watcher | None = None,
) -> WholeRun:
    """Extract, remove noise and score; stages done already with these settings are skipped.

    Args:
        denoising: which faces are noise (default: as the run's pipeline says).

    Raises:
        VidfaceError: what cannot be scored is refused before anything is extracted.
    """
    watcher = watcher or Watcher()
    split, gallery = split or run.pipeline.score.split, gallery or run.pipeline.score.gallery
    check_splits(run, split, gallery)
    with watcher.extraction_bar(run) as progress:
        extraction = extract(
            run, force=force, retry_failed=retry_failed, notify=watcher.notify, progress=progress
        )
    watcher.on_extracted(extraction)
    denoised = cluster_once(run, denoising or Denoising.of_run(run), notify=watcher.notify)
    watcher.on_clustered(denoised)
    with watcher.pairs_bar() as pairs_progress:
        scores = score(
            run, denoised.denoising, split=split, gallery=gallery, progress=pairs_progress
        )
    return WholeRun(extraction, denoised, scores)


@dataclass(frozen=True)
class DemoRun:
    """What the demo shows: scores before and after noise removal, and at many thresholds."""

    extraction: ExtractionSummary
    denoised: Denoised
    before: Score
    after: Score
    sweep: Sweep

    def to_dict(self) -> dict[str, Any]:
        names = ("extraction", "before", "after", "sweep")
        return {name: getattr(self, name).to_dict() for name in names}


def run_demo(run: Run, *, force: bool = False, watcher: Watcher | None = None) -> DemoRun:
    """Extract, remove noise, score with and without noise removal, and sweep the threshold."""
    watcher = watcher or Watcher()
    with watcher.extraction_bar(run) as progress:
        extraction = extract(run, force=force, notify=watcher.notify, progress=progress)
    denoised = cluster(run, Denoising.of_run(run))
    return DemoRun(
        extraction,
        denoised,
        before=score(run, None),
        after=score(run, denoised.threshold),
        sweep=sweep(run, DEMO_THRESHOLDS),
    )
