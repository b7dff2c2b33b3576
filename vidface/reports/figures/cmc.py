"""CMC: how often the right identity is among the first r, with 95 % bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidface.reports.figures.options import FigureData, FigureOptions, find_section
from vidface.reports.figures.style import (
    COLOURS,
    DASHES,
    MARKERS,
    add_grid,
    add_legend,
    draw_band,
    lower_end,
    set_log_ticks,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_LINEAR = 20  # ranks up to which the axis is linear


def draw_cmc(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Ranks on a logarithmic axis where there are many."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    handles: list[Artist] = []
    lowest, last = 1.0, 1.0
    for number, (label, document) in enumerate(data):
        curve = find_section(label, document, "identification")["cmc"]
        rank, value = curve["rank"], curve["value"]
        [line] = axes.plot(
            rank,
            value,
            color=COLOURS[number],
            linestyle=DASHES[number],
            marker=MARKERS[number],
            markersize=2.2,
        )
        handles.append(line)
        lowest = min(lowest, min(value), draw_band(axes, number, rank, curve))
        last = max(last, max(rank))
    if last > _LINEAR:
        axes.set_xscale("log")
        set_log_ticks(axes.xaxis)
        axes.set_xlim(0.93, last * 1.07)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, last + 0.5)
    low = lower_end(lowest)
    axes.set_ylim(low, 1 + 0.02 * (1 - low))
    axes.set_xlabel("rank")
    axes.set_ylabel("identified (CMC)")
    add_grid(axes)
    if len(data) > 1 or data[0][0]:
        add_legend(figure, handles, [label for label, _ in data])
