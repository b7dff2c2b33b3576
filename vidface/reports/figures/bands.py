"""Precision against recall, and CMC: curves of ranked galleries with their 95 % bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vidface.reports.figures import style
from vidface.reports.figures.options import FigureData, FigureOptions, find_section

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINEAR = 20  # ranks up to which the axis is linear


def draw_precision_recall(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Interpolated precision, the mean over identities."""
    axes = figure.subplots()
    sections = [find_section(label, document, "retrieval") for label, document in data]
    curves = [section["precision_recall"] for section in sections]
    axes.set_xlim(0, 1)
    lines = _draw_curves(axes, curves, "recall", "precision")
    axes.set_ylabel("precision")
    labels = [
        f"{label}{label and ', '}mAP {section['map']:.4f}"
        for (label, _), section in zip(data, sections, strict=True)
    ]
    style.add_legend(figure, lines, labels)


def draw_cmc(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Ranks on a logarithmic axis where there are many."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    curves = [find_section(label, document, "identification")["cmc"] for label, document in data]
    lines = _draw_curves(axes, curves, "rank", "value", markers=style.MARKERS)
    last = max(max(curve["rank"]) for curve in curves)
    if last > _LINEAR:
        axes.set_xscale("log")
        style.set_log_ticks(axes.xaxis)
        axes.set_xlim(0.93, last * 1.07)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.5, last + 0.5)
    axes.set_ylabel("identified (CMC)")
    style.add_run_legend(figure, lines, [label for label, _ in data])


def _draw_curves(
    axes: Axes,
    curves: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    markers: Sequence[str] = ("",) * len(style.MARKERS),
) -> list[Artist]:
    """The line of each run over its band, the axes' grid and names; gives the lines."""
    lines = []
    for number, curve in enumerate(curves):
        look = {"marker": markers[number], "markersize": 2.2}
        lines.append(style.plot_run(axes, number, curve[x], curve[y], **look))
        style.draw_band(axes, number, curve[x], curve)
    style.set_rate_axis(axes, curves, y)
    axes.set_xlabel(x)
    style.add_grid(axes)
    return lines
