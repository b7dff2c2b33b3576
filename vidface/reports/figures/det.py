"""DET: false rejects against false accepts, both on logarithmic axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidface.reports.figures.options import FigureData, FigureOptions
from vidface.reports.figures.roc import finish_far_axis, mark_points, read_roc
from vidface.reports.figures.style import (
    COLOURS,
    DASHES,
    GREY,
    add_legend,
    decade_below,
    set_log_ticks,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


def draw_det(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Where no pair is wrong a curve ends at the axis, which begins below one pair of all."""
    runs = [read_roc(label, document, options.protocol) for label, document in data]
    axes = figure.subplots()
    left = decade_below(1 / max(run.impostor for run in runs))
    bottom = decade_below(1 / max(run.genuine for run in runs))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, 1)
    axes.set_ylim(bottom, 1)
    handles: list[Artist] = []
    for number, run in enumerate(runs):
        first = max(0, int(np.searchsorted(run.far, 0, side="right")) - 1)
        last = len(run.frr) - int(np.searchsorted(run.frr[::-1], 0, side="right")) + 1
        far, frr = run.far[first:last], run.frr[first:last]
        [line] = axes.plot(
            np.maximum(far, left),
            np.maximum(frr, bottom),
            color=COLOURS[number],
            linestyle=DASHES[number],
        )
        handles.append(line)
        mark_points(axes, runs, number, run, left, errors=True)
    ends = [max(left, bottom), 1]
    [equal] = axes.plot(ends, ends, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    set_log_ticks(axes.yaxis)
    finish_far_axis(axes)
    axes.set_ylabel("false reject rate (FRR = 1 − TAR)")
    add_legend(figure, [*handles, equal], [*(run.label for run in runs), "FAR = FRR"])
