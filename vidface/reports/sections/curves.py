"""ROC, DET, precision–recall, CMC and histograms, as far as there are points of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidface.reports.contents import ReportContents
from vidface.reports.gather import labelled_scores
from vidface.reports.printed_charts import Chart

_BARS = "Dots: operating points with their 95 % intervals, drawn side by side."


def describe_curves(contents: ReportContents) -> Mapping[str, Any]:
    """The values of the curves' template: one chart a curve."""
    scores, printer = labelled_scores(contents.runs), contents.printer
    sections = {section for _, _, score in scores for section in score.curves}
    charts = []
    for protocol, prefix, what in (
        ("verification", "", ""),
        ("cross_verification", "cross-", ", gallery with split"),
    ):
        if protocol in sections:
            for name, hint in (("roc", ""), ("det", " Lower is better.")):
                printed = printer.draw_curves(name, protocol=protocol)
                title = f"{name.upper()}{what}"
                charts.append(Chart(f"{prefix}{name}", title, _BARS + hint, printed))
    if "retrieval" in sections:
        title = "Precision and recall of retrieval"
        caption = "Interpolated, mean over identities; band: 95 %."
        charts.append(Chart("pr", title, caption, printer.draw_curves("pr")))
    if "identification" in sections:
        caption = "Share of probes found within a rank; band: 95 %."
        charts.append(Chart("cmc", "CMC", caption, printer.draw_curves("cmc")))
    for number, (label, _, score) in enumerate(scores):
        if "verification" in score.curves:
            caption = "All pairs; lines: thresholds of the FARs, and of the equal error rate."
            printed = printer.draw_curves("histogram", only=label)
            title = f"Scores of pairs, {label}"
            charts.append(Chart(f"histogram-{number}", title, caption, printed))
    return {"charts": charts}
