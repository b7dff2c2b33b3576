"""ROC: TAR against FAR on a logarithmic axis, with the 95 % intervals of the operating points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import exact_rate
from vidface.reports.figures.options import FigureData, FigureOptions, find_section
from vidface.reports.figures.style import (
    COLOURS,
    DASHES,
    MARKERS,
    add_grid,
    add_legend,
    decade_below,
    lower_end,
    set_log_ticks,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class RocCurve:
    """The points of one run's ROC, and its operating points. All rates in [0, 1]."""

    label: str
    far: NDArray[np.float64]  # (n,) rising
    tar: NDArray[np.float64]  # (n,)
    frr: NDArray[np.float64]  # (n,)
    genuine: float  # pairs
    impostor: float
    points: tuple[tuple[float, float, tuple[float, float] | None], ...]  # target, TAR, 95 %

    def __str__(self) -> str:
        return f"RocCurve({self.label}: {self.far.shape} points, {len(self.points)} targets)"


def draw_roc(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Curves from the last point without a false accept on; markers at the target FARs."""
    runs = [read_roc(label, document, options.protocol) for label, document in data]
    axes = figure.subplots()
    left = decade_below(1 / max(run.impostor for run in runs))
    handles: list[Artist] = []
    lowest = 1.0
    for number, run in enumerate(runs):
        first = max(0, int(np.searchsorted(run.far, 0, side="right")) - 1)
        far, tar = np.maximum(run.far[first:], left), run.tar[first:]
        [line] = axes.plot(far, tar, color=COLOURS[number], linestyle=DASHES[number])
        handles.append(line)
        ends = [end for _, _, interval in run.points for end in interval or ()]
        lowest = min(lowest, float(tar[0]), *ends)
        mark_points(axes, runs, number, run, left)
    axes.set_xscale("log")
    axes.set_xlim(left, 1)
    axes.set_ylim(lower_end(lowest), 1.0)
    axes.margins(0)
    finish_far_axis(axes)
    axes.set_ylabel("true accept rate (TAR)")
    if len(runs) > 1 or runs[0].label:
        add_legend(figure, handles, [run.label for run in runs])


def read_roc(label: str, document: Mapping[str, Any], protocol: str) -> RocCurve:
    """The ROC in a curves document.

    Raises:
        VidfaceError: the protocol is not in it, or a target that is no rate.
    """
    section = find_section(label, document, protocol)
    points = []
    for point in section["points"]:
        target = exact_rate(point["target_far"])
        if target is None:
            raise VidfaceError(f"{label}: {protocol}: target_far must be a rate such as '1e-3'")
        points.append((float(target), point["tar"], point.get("ci95")))
    far, tar, frr = (np.array(section["roc"][name], float) for name in ("far", "tar", "frr"))
    pairs = section["pairs"]
    return RocCurve(label, far, tar, frr, pairs["genuine"], pairs["impostor"], tuple(points))


def mark_points(
    axes: Axes, runs: list[RocCurve], number: int, run: RocCurve, left: float, errors: bool = False
) -> None:
    """The operating points, side by side where several runs have them; FRR with `errors`."""
    aside = 10 ** (0.07 * (number - (len(runs) - 1) / 2))
    for target, tar, interval in run.points:
        if target < left or (errors and tar >= 1):
            continue
        x, y = target * aside, 1 - tar if errors else tar
        axes.plot(
            x,
            y,
            MARKERS[number],
            color=COLOURS[number],
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=4,
            clip_on=False,
        )
        if interval is None:
            continue
        low, high = (1 - interval[1], 1 - interval[0]) if errors else interval
        if errors:
            low = max(low, axes.get_ylim()[0])
        axes.plot(
            [x, x],
            [low, high],
            "_-",
            color=COLOURS[number],
            linewidth=0.8,
            markersize=4,
            markeredgewidth=0.8,
            zorder=3,
        )


def finish_far_axis(axes: Axes) -> None:
    set_log_ticks(axes.xaxis)
    axes.set_xlabel("false accept rate (FAR)")
    add_grid(axes)
