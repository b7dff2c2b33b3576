"""The scores over the threshold of noise removal, a chart and a table each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidface.reports.contents import ReportContents
from vidface.reports.printed_charts import Chart
from vidface.reports.published import TABLE_5, TABLE_5_FIGURE, TABLE_5_SOURCE, TRACK_3
from vidface.reports.scores import ReportedSweep
from vidface.reports.templating import format_rate, format_share


def describe_sweeps(contents: ReportContents) -> Mapping[str, Any] | None:
    """The values of the sweeps' template; None where no run was swept."""
    swept = [(run, run.sweep) for run in contents.runs if run.sweep is not None]
    if not swept:
        return None
    caption = "Click a threshold, or press Enter, to see its row."
    return {
        "sweeps": [
            (
                Chart(f"sweep-{number}", f"{run.label}, {sweep.name.removesuffix('.json')}",
                      caption, contents.printer.draw_sweep(run)),
                _sweep_table(sweep),
            )
            for number, (run, sweep) in enumerate(swept)
        ],
        "table_5": _table_5() if any(run.prepared_by in TRACK_3 for run, _ in swept) else None,
    }  # fmt: skip


def _sweep_table(sweep: ReportedSweep) -> Mapping[str, Any]:
    """A row a threshold; its button marks the place in the chart."""
    labels = sweep.figure_labels()
    rows = []
    for row in sweep.rows:
        values = {figure.name: figure.value for figure in row.figures}
        rows.append((
            "none" if row.threshold is None else f"{row.threshold:g}",
            format_share(row.dropped_share),
            *(format_rate(values.get(name)) for name in labels),
        ))  # fmt: skip
    against = f" against {sweep.gallery}" if sweep.gallery else ""
    return {
        "heads": ["threshold", "faces dropped", *labels.values()],
        "rows": rows,
        "caption": f"{sweep.split}{against}. The best row is as optimistic as choosing on the "
        "split is",
    }


def _table_5() -> Mapping[str, Any]:
    """The paper's own sweep, clearly published."""
    rows = [
        (curve.label, f"{threshold:g}", f"{value:.5f}")
        for curve in TABLE_5
        for threshold, value in zip(curve.thresholds, curve.values, strict=True)
    ]
    heads = ("published, not measured here", "threshold", TABLE_5_FIGURE)
    return {"heads": heads, "rows": rows, "caption": TABLE_5_SOURCE}
