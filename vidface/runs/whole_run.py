"""All stages of a run, one after the other: what `vidface run` and `vidface demo` do."""

from __future__ import annotations

from collections import Counter
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
    score: Score | None
    not_scored: str = ""  # why, where there is no score

    def to_dict(self) -> dict[str, Any]:
        scored = {"not_scored": self.not_scored} if self.score is None else self.score.to_dict()
        return {
            "extraction": self.extraction.to_dict(),
            "cluster": self.denoised.summary(),
            **scored,
        }


def run_stages(
    run: Run,
    denoising: Denoising | None = None,
    *,
    split: str | None = None,
    gallery: str | None = None,
    force: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
    watcher: Watcher | None = None,
) -> WholeRun:
    """Extract, remove noise and score; stages done already with these settings are skipped.

    Args:
        denoising: which faces are noise (default: as the run's pipeline says).

    Raises:
        VidfaceError: what cannot be scored is refused before anything is extracted.
    """
    watcher = watcher or Watcher()
    not_scored = "" if split or gallery else find_what_lacks(run)
    split, gallery = split or run.pipeline.score.split, gallery or run.pipeline.score.gallery
    if not not_scored:
        check_splits(run, split, gallery)
    with watcher.extraction_bar(run) as progress:
        extraction = extract(
            run,
            force=force,
            retry_failed=retry_failed,
            verify=verify,
            notify=watcher.notify,
            progress=progress,
        )
    watcher.on_extracted(extraction)
    denoised = cluster_once(run, denoising or Denoising.of_run(run), notify=watcher.notify)
    watcher.on_clustered(denoised)
    if not_scored:
        return WholeRun(extraction, denoised, None, not_scored)
    with watcher.pairs_bar() as pairs_progress:
        scores = score(
            run, denoised.denoising, split=split, gallery=gallery, progress=pairs_progress
        )
    return WholeRun(extraction, denoised, scores)


def find_what_lacks(run: Run) -> str:
    """Why a manifest of clips without two of one person cannot be scored; "" where it can be."""
    clips = Counter(clip.identity for clip in run.manifest.clips if clip.identity)
    if not clips:
        return f"no clip has an identity; write who is in them into {run.manifest.path}"
    if max(clips.values()) == 1:
        return (
            "nobody has two clips, one to enrol and one to look for; add some, or correct "
            f"identities in {run.manifest.path}"
        )
    return ""


def find_unenrolled(run: Run, results: WholeRun) -> list[str]:
    """People whose clips are looked for in vain, for none of the gallery has a descriptor."""
    if results.score is None or results.score.gallery is None:
        return []
    has_descriptor = results.denoised.has_descriptor.tolist()  # (n_clips,), as the manifest's
    clips = [clip for clip in run.manifest.clips if clip.identity]
    usable = dict(zip(results.denoised.clip_ids, has_descriptor, strict=True))
    enrolled = {
        clip.identity
        for clip in clips
        if clip.split == results.score.gallery and usable.get(clip.clip_id)
    }
    looked_for = {clip.identity: None for clip in clips if clip.split == results.score.split}
    return [identity for identity in looked_for if identity not in enrolled]


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
