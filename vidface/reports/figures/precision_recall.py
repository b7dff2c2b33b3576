"""Precision against recall of retrieval, with 95 % bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidface.reports.figures.documents import Block
from vidface.reports.figures.roc import lower_end
from vidface.reports.figures.style import COLOURS, DASHES, grid, legend

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from vidface.reports.figures import Data, FigureOptions


def draw(figure: Figure, data: Data, options: FigureOptions) -> None:
    """Interpolated precision, the mean over identities."""
    axes = figure.subplots()
    handles: list[Artist] = []
    labels = []
    lowest = 1.0
    for number, (label, document) in enumerate(data):
        found = Block(label, document).block("retrieval", "score with --protocols retrieval")
        curve = found.block("precision_recall")
        recall = curve.numbers("recall", 0, 1)
        precision = curve.numbers("precision", 0, 1, len(recall))
        [line] = axes.plot(recall, precision, color=COLOURS[number], linestyle=DASHES[number])
        handles.append(line)
        band = curve.band(len(recall))
        if band is not None:
            axes.fill_between(recall, *band, color=COLOURS[number], alpha=0.15, linewidth=0)
        lowest = min(lowest, float(precision.min()), *(float(b.min()) for b in band or ()))
        labels.append(f"{label}{label and ', '}mAP {found.number('map', 0, 1):.4f}")
    axes.set_xlim(0, 1)
    low = lower_end(lowest)
    axes.set_ylim(low, 1 + 0.02 * (1 - low))
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    grid(axes)
    legend(figure, handles, labels)
