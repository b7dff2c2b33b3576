"""Histograms of genuine and impostor scores, with the thresholds of the operating points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.values import exact_rate
from vidface.reports.figures import style
from vidface.reports.figures.options import FigureData, FigureOptions, find_section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 4
_IMPOSTOR: dict[str, Any] = {
    "facecolor": style.VERMILION,
    "edgecolor": style.VERMILION,
    "alpha": 0.35,
    "hatch": "////",
}
_GENUINE: dict[str, Any] = {"facecolor": style.BLUE, "edgecolor": style.BLUE, "alpha": 0.45}
_LABEL_POINTS = 8.0  # that a threshold's name takes, turned upright


def draw_histogram(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """A panel a run, one below the other; shares of all genuine and of all impostor pairs."""
    from matplotlib.patches import Patch

    n = len(data)
    if n > MOST_PANELS:
        raise VidfaceError(f"a histogram shows at most {MOST_PANELS} runs, got {n}; give fewer")
    figure.set_size_inches(style.WIDTH_INCHES, 0.75 + 1.65 * n)
    panels = figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
    ends = []
    for axes, (label, document) in zip(panels, data, strict=True):
        section = find_section(label, document, options.protocol)
        ends.append(_draw_bars(axes, section["histogram"], label))
        name = style.fit_text(label, 90, 7)
        axes.set_ylabel(f"{name}\nshare of pairs" if name else "share of pairs")
        style.add_grid(axes)
    left, right = min(low for low, _ in ends), max(high for _, high in ends)
    margin = 0.02 * (right - left)
    panels[0].set_xlim(left - margin, right + margin)
    for axes, (_, document) in zip(panels, data, strict=True):
        _mark_thresholds(axes, document[options.protocol])
    panels[-1].set_xlabel("score (cosine)")
    handles = [Patch(**_IMPOSTOR), Patch(**_GENUINE)]
    style.add_legend(figure, handles, ["impostor pairs", "genuine pairs"])


def _draw_bars(axes: Axes, histogram: Mapping[str, Any], label: str) -> tuple[float, float]:
    """Draw both histograms; gives the scores between which they lie."""
    edges = histogram["edges"]
    if not (np.diff(edges) > 0).all():
        raise VidfaceError(f"{label}: edges must rise; not what vidface wrote")
    impostor, genuine = histogram["impostor_share"], histogram["genuine_share"]
    for shares, look in ((impostor, _IMPOSTOR), (genuine, _GENUINE)):
        axes.stairs(shares, edges, fill=True, linewidth=0, **look)
        axes.stairs(shares, edges, color=look["edgecolor"], linewidth=0.8)
    axes.set_ylim(0, 1.08 * max(*impostor, *genuine, 1e-9))
    return edges[0], edges[-1]


def _mark_thresholds(axes: Axes, section: Mapping[str, Any]) -> None:
    """A line at each threshold, named above the axes; names move aside where they would touch."""
    marks = [
        (point["threshold"], _target_name(point["target_far"]))
        for point in section["points"][:12]
        if point.get("threshold") is not None
    ]
    eer = section.get("eer") or {}
    if eer.get("threshold") is not None:
        marks.append((eer["threshold"], "EER"))
    if not marks:
        return
    marks.sort()
    left, right = axes.get_xlim()
    room = style.WIDTH_INCHES * 72 - 45  # points: about what the axes are wide
    places = spread_apart(
        [(x - left) / (right - left) * room for x, _ in marks], _LABEL_POINTS, room
    )
    for (x, name), place in zip(marks, places, strict=True):
        axes.axvline(x, color=style.BLACK, linewidth=0.6, linestyle=(0, (4, 2)))
        axes.annotate(
            name,
            xy=(x, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(place / room, 1.08),
            textcoords="axes fraction",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=5.5,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def _target_name(target: str) -> str:
    rate = exact_rate(target)
    if rate is None or len(target) >= 12:
        return style.fit_text(target, 30, 5.5)
    return f"FAR {style.power_of_ten(float(rate))}"


def spread_apart(places: list[float], apart: float, room: float) -> list[float]:
    """Rising places moved so that neighbours are `apart`, within [0, room], as little as needed.

    >>> spread_apart([10.0, 11.0, 50.0], 8, 100)
    [6.5, 14.5, 50.0]
    >>> spread_apart([99.0, 100.0], 8, 100)
    [92.0, 100.0]
    """
    groups: list[tuple[float, int]] = []  # the first place of a row of names, and how many
    for place in places:
        start, count = place, 1
        while groups and groups[-1][0] + groups[-1][1] * apart > start:
            before, n = groups.pop()
            middle = (
                (before + (n - 1) * apart / 2) * n + (start + (count - 1) * apart / 2) * count
            ) / (n + count)
            count += n
            start = middle - (count - 1) * apart / 2
        start = float(max(0, min(start, room - (count - 1) * apart)))
        groups.append((start, count))
    return [start + i * apart for start, count in groups for i in range(count)]
