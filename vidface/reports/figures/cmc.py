"""CMC: how often the right identity is among the first r, with 95 % bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidface.reports.figures import style
from vidface.reports.figures.options import FigureData, FigureOptions, find_section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINEAR = 20  # ranks up to which the axis is linear


def draw_cmc(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Ranks on a logarithmic axis where there are many."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    curves = [find_section(label, document, "identification")["cmc"] for label, document in data]
    lines = []
    for number, curve in enumerate(curves):
        look = {"marker": style.MARKERS[number], "markersize": 2.2}
        lines.append(style.plot_run(axes, number, curve["rank"], curve["value"], **look))
        style.draw_band(axes, number, curve["rank"], curve)
    last = max(max(curve["rank"]) for curve in curves)
    if last > _LINEAR:
        axes.set_xscale("log")
        style.set_log_ticks(axes.xaxis)
        axes.set_xlim(0.93, last * 1.07)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, last + 0.5)
    style.set_rate_axis(axes, curves, "value")
    axes.set_xlabel("rank")
    axes.set_ylabel("identified (CMC)")
    style.add_grid(axes)
    style.add_run_legend(figure, lines, [label for label, _ in data])
