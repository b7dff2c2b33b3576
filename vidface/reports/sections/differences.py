"""The paired differences of runs, each as `vidface compare` has it, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidface.metrics.uncertainty import few_people_note
from vidface.reports.contents import ReportContents
from vidface.reports.templating import format_rate
from vidface.runs.comparison import Comparison


def describe_differences(contents: ReportContents) -> Mapping[str, Any] | None:
    """The values of the template; None where one run stands alone."""
    if not contents.comparisons:
        return None
    return {
        "comparisons": [
            {"refusal": comparison} if isinstance(comparison, str) else _describe(comparison)
            for comparison in contents.comparisons
        ]
    }


def _describe(comparison: Comparison) -> Mapping[str, Any]:
    rows = []
    for name, d in comparison.differences.items():
        ends = "n/a" if d.ci95 is None else f"[{d.ci95[0]:+.4f}, {d.ci95[1]:+.4f}]"
        p_value = "n/a" if d.p_value is None else f"{d.p_value:.3g}"
        rows.append((name, format_rate(d.a), format_rate(d.b), f"{d.value:+.4f}",
                     ends + ("*" if d.note else ""), p_value,
                     "n/a" if d.real is None else ("yes" if d.real else "no")))  # fmt: skip
    return {
        "refusal": "",
        "rows": rows,
        "caption": (
            f"A: {comparison.a}; B: {comparison.b}. {comparison.split}{comparison.against}: "
            f"{comparison.clips} clips, {comparison.identities} identities, "
            f"{comparison.bootstrap.resamples} paired resamples"
            + (f"; {few}" if (few := few_people_note(comparison.identities)) else "")
        ),
        "notes": sorted({d.note for d in comparison.differences.values() if d.note}),
    }
