"""Precision against recall of retrieval, with 95 % bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidface.reports.figures.options import FigureData, FigureOptions, find_section
from vidface.reports.figures.style import (
    COLOURS,
    DASHES,
    add_grid,
    add_legend,
    draw_band,
    lower_end,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


def draw_precision_recall(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Interpolated precision, the mean over identities."""
    axes = figure.subplots()
    handles: list[Artist] = []
    labels = []
    lowest = 1.0
    for number, (label, document) in enumerate(data):
        retrieval = find_section(label, document, "retrieval")
        curve = retrieval["precision_recall"]
        recall, precision = curve["recall"], curve["precision"]
        [line] = axes.plot(recall, precision, color=COLOURS[number], linestyle=DASHES[number])
        handles.append(line)
        lowest = min(lowest, min(precision), draw_band(axes, number, recall, curve))
        labels.append(f"{label}{label and ', '}mAP {retrieval['map']:.4f}")
    axes.set_xlim(0, 1)
    low = lower_end(lowest)
    axes.set_ylim(low, 1 + 0.02 * (1 - low))
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    add_grid(axes)
    add_legend(figure, handles, labels)
