"""CMC: how often the right identity is among the first r, with 95 % bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidface.reports.figures.documents import Block
from vidface.reports.figures.roc import lower_end
from vidface.reports.figures.style import COLOURS, DASHES, MARKERS, grid, legend, log_ticks

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from vidface.reports.figures import Data, FigureOptions

_LINEAR = 20  # ranks up to which the axis is linear


def draw(figure: Figure, data: Data, options: FigureOptions) -> None:
    """Ranks on a logarithmic axis where there are many."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    handles: list[Artist] = []
    lowest, last = 1.0, 1.0
    for number, (label, document) in enumerate(data):
        found = Block(label, document).block(
            "identification", "score with --protocols identification"
        )
        curve = found.block("cmc")
        rank = curve.numbers("rank", 1)
        value = curve.numbers("value", 0, 1, len(rank))
        [line] = axes.plot(
            rank,
            value,
            color=COLOURS[number],
            linestyle=DASHES[number],
            marker=MARKERS[number],
            markersize=2.2,
        )
        handles.append(line)
        band = curve.band(len(rank))
        if band is not None:
            axes.fill_between(rank, *band, color=COLOURS[number], alpha=0.15, linewidth=0)
        lowest = min(lowest, float(value.min()), *(float(b.min()) for b in band or ()))
        last = max(last, float(rank.max()))
    if last > _LINEAR:
        axes.set_xscale("log")
        log_ticks(axes.xaxis)
        axes.set_xlim(0.93, last * 1.07)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, last + 0.5)
    low = lower_end(lowest)
    axes.set_ylim(low, 1 + 0.02 * (1 - low))
    axes.set_xlabel("rank")
    axes.set_ylabel("identified (CMC)")
    grid(axes)
    if len(data) > 1 or data[0][0]:
        legend(figure, handles, [label for label, _ in data])
