"""Threshold sweeps: the paper's Table 5 for any model. Nothing is extracted again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vidface.core.errors import UsageError
from vidface.core.files import write_json
from vidface.core.progress import Notify, quiet
from vidface.metrics.protocols import PROTOCOLS
from vidface.metrics.settings import ScoreSettings
from vidface.noise.truth import NoiseRemoval
from vidface.runs import artefacts
from vidface.runs.denoising import Denoising
from vidface.runs.noise_removal import denoise_all
from vidface.runs.run import Run
from vidface.runs.score_tasks import name_score_file
from vidface.runs.score_writing import can_be_stored
from vidface.runs.scoring import Score, check_splits, recorded_settings, score_descriptors
from vidface.runs.selection import SelectionPlan, plan_folds, plan_splits
from vidface.runs.selection_results import Selection
from vidface.settings.run_settings import choose_executor


@dataclass(frozen=True)
class Sweep:
    """The scores of one split over thresholds; the first row is "none"."""

    split: str
    gallery: str | None  # None: no protocol needed one
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


def sweep(
    run: Run,
    thresholds: Sequence[float | None],
    *,
    split: str | None = None,
    gallery: str | None = None,
    notify: Notify = quiet,
) -> Sweep:
    """Score a split at many thresholds; nothing is extracted again.

    Returns:
        A row for each threshold, "none" first; also written to `sweeps/` of the run directory.
    """
    settings = _sweep_settings(run)
    split = split or settings.split
    gallery = gallery or settings.gallery
    check_splits(run, split, gallery, settings)
    wanted = _with_none_first(thresholds)
    against = gallery if settings.needs_gallery else None
    name = f"sweeps/{name_score_file(split, against, _name_removal(run), settings)}"
    with run.writing("sweep", replaces=[name]):
        rows = []
        for denoised in denoise_all(run, wanted):
            scored = score_descriptors(run, denoised, split, gallery, settings=settings)
            rows.append((scored, denoised.summary()))
        result = Sweep(split, against, tuple(rows))
        if can_be_stored(run.folder.folder, notify):
            write_json(run.folder.folder / name, result.to_dict(), digest=True)
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
    select_by: str | None = None,
    seed: int = 0,
    notify: Notify = quiet,
) -> StoredSelection:
    """Choose a threshold honestly: on one split for another, or over folds of one split.

    Args:
        thresholds: the candidates; "none" is always one of them.
        select_on: the split to choose on; None for folds of `report_on`.
        report_on: the split to report (default: the pipeline's).
        gallery: the split whose identities are enrolled (default: the pipeline's, where retrieval
            is one of its protocols; otherwise none, and no mAP).
        folds: parts of the identities, where `select_on` is None.
        select_by: "map", or "tar" or "tar@FAR", which need no gallery (default: "map" where there
            is a gallery).
        seed: of the folds.

    Raises:
        VidfaceError: as `vidface.runs.selection.plan_splits` and `plan_folds`.
    """
    settings = _sweep_settings(run)
    report_on = report_on or settings.split
    if gallery is None and "retrieval" in settings.protocol_names:
        gallery = settings.gallery
    select_by = select_by or ("tar" if gallery is None else "map")
    if select_on is not None:
        if folds is not None:
            raise UsageError("--folds chooses within one split: leave --select-on out")
        plan = plan_splits(run.manifest, select_on, report_on, gallery, select_by, settings)
        name = f"selected_on_{select_on}_reported_on_{report_on}"
    else:
        folds = 5 if folds is None else folds
        plan = plan_folds(
            run.manifest, report_on, gallery, select_by, settings, folds=folds, seed=seed
        )
        name = f"selected_over_{len(plan.rounds)}_folds_of_{report_on}_seed_{seed}"
    wanted = _with_none_first(thresholds)
    with run.writing("sweep", replaces=[f"sweeps/{name}"]):
        return _select(run, wanted, plan, name, report_on, gallery, notify)


def _select(
    run: Run,
    wanted: Sequence[float | None],
    plan: SelectionPlan,
    name: str,
    report_on: str,
    gallery: str | None,
    notify: Notify,
) -> StoredSelection:
    settings = _sweep_settings(run)
    executor = choose_executor(run.pipeline.run)
    observed, removals = [], {}
    for denoised in denoise_all(run, wanted):
        observed.append(plan.observe(denoised, executor))
        if denoised.removal is not None:
            removals[denoised.threshold] = denoised.removal
    selection = plan.choose(observed)
    scored = {**recorded_settings(plan.settings, report_on, ""), "gallery": gallery}
    made = artefacts.provenance(
        "select",
        {
            **run.extraction_settings,
            **Denoising.of_run(run).settings,
            "cluster.threshold": wanted,
            **{f"score.{key}": value for key, value in scored.items()},
        },
        manifest=run.manifest.path.name,
        manifest_sha256=run.manifest.sha256,
        weights=run.weights_name,
    )
    result = StoredSelection(selection, made, removals)
    how = (
        selection.criterion if selection.criterion_far is None else f"tar_{selection.criterion_far}"
    )
    how = "_".join(filter(None, (f"by_{how}", _name_removal(run))))
    name = name_score_file(name, gallery, how, settings)
    if can_be_stored(run.folder.folder, notify):
        write_json(run.folder.folder / "sweeps" / name, result.to_dict(), digest=True)
    return result


def _with_none_first(thresholds: Sequence[float | None]) -> list[float | None]:
    """Each threshold once, behind "none", with which all are compared."""
    return [None, *(t for t in dict.fromkeys(thresholds) if t is not None)]


def _sweep_settings(run: Run) -> ScoreSettings:
    """The settings of scores, for the curves of Table 5.

    Identification and intervals, a threshold each, are `score`'s.
    """
    settings = run.pipeline.score
    names = [name for name in settings.protocol_names if PROTOCOLS[name].in_sweeps]
    return replace(settings, protocols=",".join(names) or settings.protocols, bootstrap=0)


def _name_removal(run: Run) -> str:
    """The noise removal, for a file's name; "" where it is the usual one."""
    denoising = Denoising.of_run(run).with_threshold(None)
    return "" if denoising.name == "threshold_none" else denoising.name
