"""`vidface compare`: is the difference between two runs on the same clips real?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.core.settings import table_values
from vidface.metrics.settings import ScoreSettings
from vidface.metrics.uncertainty import Bootstrap, Difference, paired_difference
from vidface.runs.run import Run, reading
from vidface.runs.score_tasks import make_bootstrap
from vidface.runs.scoring import (
    LATEST,
    ClusteringChoice,
    Score,
    WhichClustering,
    check_splits,
    load_denoised,
    score_descriptors,
)

SAME = WhichClustering.SAME  # B's clustering is A's


@dataclass(frozen=True)
class Comparison:
    """The figures of run A and run B on one split, and their paired differences."""

    a: str
    b: str
    split: str
    gallery: str | None
    clips: int
    identities: int
    bootstrap: Bootstrap
    differences: Mapping[str, Difference]  # by the figure's name, as `Score.figures` has it
    provenance: tuple[Mapping[str, Any], Mapping[str, Any]]

    @property
    def against(self) -> str:
        return "" if self.gallery is None else f" against {self.gallery}"

    def __str__(self) -> str:
        return f"Comparison({self.a} and {self.b}: {len(self.differences)} figures)"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "a": self.a,
            "b": self.b,
            "split": self.split,
            "gallery": self.gallery,
            "clips": self.clips,
            "identities": self.identities,
            "bootstrap": {"resamples": self.bootstrap.resamples, "seed": self.bootstrap.seed},
            "differences": {name: d.to_dict() for name, d in self.differences.items()},
            "provenance": {"a": dict(self.provenance[0]), "b": dict(self.provenance[1])},
        }


@reading
def compare(
    a: Run,
    b: Run,
    *,
    split: str | None = None,
    gallery: str | None = None,
    settings: ScoreSettings | None = None,
    threshold: ClusteringChoice = LATEST,
    threshold_b: ClusteringChoice = SAME,
    notify: Notify = quiet,
) -> Comparison:
    """Paired bootstrap of the differences between two runs' figures.

    Both runs are scored with the same settings, and every resample draws the same people for both.
    So what is hard for both, because of the people, cancels out in the difference.

    Args:
        a, b: runs over the same clips, with the same identities and splits.
        settings: of the scores (default: A's pipeline's); its bootstrap must not be 0.
        threshold: of the clusterings, as in `vidface.runs.scoring.score`.
        threshold_b: of B's clustering, where it is another one.

    Raises:
        VidfaceError: other clips, identities or splits, no bootstrap, or no figure to compare.
    """

    settings = settings or a.pipeline.score
    ours, others = table_values(settings), table_values(b.pipeline.score)
    shown = ("split", "gallery", "device")  # in the result, or without a figure
    unlike = [key for key in ours if ours[key] != others[key] and key not in shown]
    if unlike:
        notify(f"both are scored by A's settings; B's pipeline has another {', '.join(unlike)}")
    split, gallery = split or settings.split, gallery or settings.gallery
    bootstrap = make_bootstrap(settings)
    if bootstrap is None:
        raise UsageError("compare rests on resamples: --bootstrap must be at least 2")
    splits = {split, gallery} if settings.needs_gallery else {split}
    for run in (a, b):
        check_splits(run, split, gallery, settings)
    check_same_people(a, b, splits)
    scores = []
    clusterings = (threshold, threshold if threshold_b is SAME else threshold_b)
    for run, chosen in zip((a, b), clusterings, strict=True):
        denoised, _ = load_denoised(run, chosen, notify)
        scores.append(score_descriptors(run, denoised, split, gallery, settings=settings))
    figures_a, figures_b = (score.figures() for score in scores)
    differences = {}
    for name in [name for name in figures_a if name in figures_b]:
        (value_a, replicates_a), (value_b, replicates_b) = figures_a[name], figures_b[name]
        if replicates_a is not None and replicates_b is not None:
            differences[name] = paired_difference(value_a, value_b, replicates_a, replicates_b)
    if not differences:
        raise VidfaceError(
            f"split {split} has no figure to compare: no labelled clip, or too few pairs for the "
            "FARs asked for"
        )
    names = [_describe_run(run, score) for run, score in zip((a, b), scores, strict=True)]
    return Comparison(
        names[0],
        names[1],
        split,
        gallery if settings.needs_gallery else None,
        scores[0].counts["clips"],
        len({clip.identity for clip in a.manifest.of_split(split)} - {""}),
        bootstrap,
        differences,
        (scores[0].provenance, scores[1].provenance),
    )


def check_same_people(a: Run, b: Run, splits: set[str]) -> None:
    """Refuse to compare runs over other clips, or with other people in them.

    Raises:
        VidfaceError: naming a clip that differs.
    """
    clips_a, clips_b = (
        {
            clip.clip_id: (clip.identity, clip.split)
            for clip in run.manifest.clips
            if clip.split in splits
        }
        for run in (a, b)
    )
    for clip_id in sorted(set(clips_a) | set(clips_b)):
        if clips_a.get(clip_id) != clips_b.get(clip_id):
            places, says = zip(
                *((run.folder.folder, _describe_entry(clips.get(clip_id)))
                  for run, clips in ((a, clips_a), (b, clips_b))),
                strict=True,
            )  # fmt: skip
            raise VidfaceError(
                f"clip '{clip_id}' is not the same in {places[0]} ({says[0]}) and {places[1]} "
                f"({says[1]}): only runs over the same clips and people can be compared"
            )


def _describe_entry(entry: tuple[str, str] | None) -> str:
    return "not in it" if entry is None else f"{entry[0] or 'nobody known'}, {entry[1]}"


def _describe_run(run: Run, score: Score) -> str:
    return f"{run.weights_name}, {score.denoising} ({run.folder.folder})"
