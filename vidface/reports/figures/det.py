"""DET: false rejects against false accepts, both on logarithmic axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidface.reports.figures import style
from vidface.reports.figures.options import FigureData, FigureOptions
from vidface.reports.figures.roc import finish_far_axis, mark_points, read_roc

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_det(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Where no pair is wrong a curve ends at the axis, which begins below one pair of all."""
    runs = [read_roc(label, document, options.protocol) for label, document in data]
    axes = figure.subplots()
    left = style.decade_below(1 / max(run.impostor for run in runs))
    bottom = style.decade_below(1 / max(run.genuine for run in runs))
    axes.set(xscale="log", yscale="log", xlim=(left, 1), ylim=(bottom, 1))
    lines = []
    for number, run in enumerate(runs):
        # FAR rises and FRR falls: from the last point without a false accept to the first one
        # without a false reject.
        first = max(0, int(np.searchsorted(run.far, 0, side="right")) - 1)
        last = len(run.frr) - int(np.searchsorted(run.frr[::-1], 0, side="right")) + 1
        far, frr = np.maximum(run.far[first:last], left), np.maximum(run.frr[first:last], bottom)
        lines.append(style.plot_run(axes, number, far, frr))
        mark_points(axes, runs, number, run, left, errors=True)
    ends, dots = [max(left, bottom), 1], (0, (1, 2))
    lines += axes.plot(ends, ends, color=style.GREY, linewidth=0.6, linestyle=dots, zorder=1)
    style.set_log_ticks(axes.yaxis)
    finish_far_axis(axes)
    axes.set_ylabel("false reject rate (FRR = 1 − TAR)")
    style.add_legend(figure, lines, [*(run.label for run in runs), "FAR = FRR"])
