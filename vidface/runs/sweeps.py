"""Threshold sweeps: the paper's Table 5 for any model. Nothing is extracted again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vidface.core.errors import UsageError
from vidface.core.files import write_json
from vidface.metrics.protocols import PROTOCOLS
from vidface.runs import artefacts
from vidface.runs.denoising import Denoising
from vidface.runs.noise_removal import denoise_all
from vidface.runs.run import Run, writing
from vidface.runs.scoring import Score, check_splits, score_descriptors
from vidface.runs.selection import plan_folds, plan_splits

if TYPE_CHECKING:
    from vidface.noise.truth import NoiseRemoval
    from vidface.runs.selection_results import Selection


@dataclass(frozen=True)
class Sweep:
    """The scores of one split over thresholds; the first row is "none"."""

    split: str
    gallery: str
    rows: tuple[tuple[Score, Mapping[str, Any]], ...]  # score, summary of the noise removal

    def to_dict(self) -> dict[str, Any]:
        first = self.rows[0][0]
        settings = dict(first.provenance["settings"])
        settings["cluster.threshold"] = [score.threshold for score, _ in self.rows]
        return {
            "split": self.split,
            "gallery": self.gallery,
            "rows": [
                {
                    "threshold": score.threshold,
                    **{name: result.to_dict() for name, result in score.protocols.items()},
                    "counts": dict(score.counts),
                    "denoised": dict(summary),
                }
                for score, summary in self.rows
            ],
            "provenance": {**first.provenance, "stage": "sweep", "settings": settings},
        }


@writing("sweep")
def sweep(
    run: Run,
    thresholds: Sequence[float | None],
    *,
    split: str | None = None,
    gallery: str | None = None,
) -> Sweep:
    """Score a split at many thresholds; nothing is extracted again.

    Returns:
        A row for each threshold, "none" first; also written to `sweeps/` of the run directory.
    """
    split = split or run.pipeline.score.split
    gallery = gallery or run.pipeline.score.gallery
    # The curves of Table 5; identification and intervals, a threshold each, are `score`'s.
    from_pipeline = run.pipeline.score
    names = [name for name in from_pipeline.protocol_names if PROTOCOLS[name].in_sweeps]
    protocols = ",".join(names) or from_pipeline.protocols
    settings = replace(from_pipeline, protocols=protocols, bootstrap=0)
    check_splits(run, split, gallery, settings)
    wanted = _with_none_first(thresholds)
    rows = []
    for denoised in denoise_all(run, wanted):
        scored = score_descriptors(run, denoised, split, gallery, settings=settings)
        rows.append((scored, denoised.summary()))
    result = Sweep(split, gallery, tuple(rows))
    name = f"{split}_against_{gallery}{_suffix(run)}.json"
    write_json(run.folder.folder / "sweeps" / name, result.to_dict())
    return result


@dataclass(frozen=True)
class StoredSelection:
    """A threshold chosen on some clips and reported on others, with its provenance."""

    selection: Selection
    provenance: Mapping[str, Any]
    removals: Mapping[float | None, NoiseRemoval]  # of each candidate, where a truth is named

    def to_dict(self) -> dict[str, Any]:
        document = {**self.selection.to_dict(), "provenance": dict(self.provenance)}
        if self.removals:
            document["noise_removal"] = [
                {"threshold": threshold, **removal.to_dict()}
                for threshold, removal in self.removals.items()
            ]
        return document


def select(
    run: Run,
    thresholds: Sequence[float | None],
    *,
    select_on: str | None = None,
    report_on: str | None = None,
    gallery: str | None = None,
    folds: int | None = None,
    select_by: str = "map",
    seed: int = 0,
) -> StoredSelection:
    """Choose a threshold honestly: on one split for another, or over folds of one split.

    Args:
        thresholds: the candidates; "none" is always one of them.
        select_on: the split to choose on; None for folds of `report_on`.
        report_on: the split to report (default: the pipeline's).
        gallery: the split whose identities are enrolled (default: the pipeline's).
        folds: parts of the identities, where `select_on` is None.
        select_by: "map", or "tar", which needs no gallery.
        seed: of the folds.

    Raises:
        VidfaceError: as `vidface.runs.selection.plan_splits` and `plan_folds`.
    """

    report_on = report_on or run.pipeline.score.split
    gallery = gallery or run.pipeline.score.gallery
    if select_on is not None:
        if folds is not None:
            raise UsageError("--folds chooses within one split: leave --select-on out")
        plan = plan_splits(run.manifest, select_on, report_on, gallery, select_by)
        name = f"selected_on_{select_on}_reported_on_{report_on}"
    else:
        plan = plan_folds(
            run.manifest,
            report_on,
            gallery,
            select_by,
            folds=5 if folds is None else folds,
            seed=seed,
        )
        name = f"selected_over_{len(plan.rounds)}_folds_of_{report_on}_seed_{seed}"
    wanted = _with_none_first(thresholds)
    observed, removals = [], {}
    for denoised in denoise_all(run, wanted):
        observed.append(plan.observe(denoised))
        if denoised.removal is not None:
            removals[denoised.threshold] = denoised.removal
    selection = plan.choose(observed)
    settings = {
        **run.extraction_settings,
        **Denoising.from_pipeline(run.pipeline).settings,
        "cluster.threshold": wanted,
    }
    made = artefacts.provenance(
        "select",
        settings,
        manifest=run.manifest.path.name,
        manifest_sha256=run.manifest.sha256,
        weights=run.weights_name,
    )
    result = StoredSelection(selection, made, removals)
    name += f"_against_{gallery}_by_{select_by}{_suffix(run)}.json"
    write_json(run.folder.folder / "sweeps" / name, result.to_dict())
    return result


def _with_none_first(thresholds: Sequence[float | None]) -> list[float | None]:
    """Each threshold once, behind "none", with which all are compared."""
    return [None, *(t for t in dict.fromkeys(thresholds) if t is not None)]


def _suffix(run: Run) -> str:
    """The end of a file's name, where the noise removal is not the default."""
    denoising = Denoising.from_pipeline(run.pipeline).with_threshold(None)
    return "" if denoising.name == "threshold_none" else f"_{denoising.name}"
