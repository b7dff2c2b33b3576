"""Precision against recall of retrieval, with 95 % bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidface.reports.figures import style
from vidface.reports.figures.options import FigureData, FigureOptions, find_section

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_precision_recall(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Interpolated precision, the mean over identities."""
    axes = figure.subplots()
    sections = [find_section(label, document, "retrieval") for label, document in data]
    curves = [section["precision_recall"] for section in sections]
    lines = []
    for number, curve in enumerate(curves):
        lines.append(style.plot_run(axes, number, curve["recall"], curve["precision"]))
        style.draw_band(axes, number, curve["recall"], curve)
    axes.set_xlim(0, 1)
    style.set_rate_axis(axes, curves, "precision")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    style.add_grid(axes)
    labels = [
        f"{label}{label and ', '}mAP {section['map']:.4f}"
        for (label, _), section in zip(data, sections, strict=True)
    ]
    style.add_legend(figure, lines, labels)
