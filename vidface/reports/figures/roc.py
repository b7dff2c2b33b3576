"""ROC and DET: TAR, or false rejects, against FAR, with the operating points' 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import exact_rate
from vidface.reports.figures import style
from vidface.reports.figures.options import FigureData, FigureOptions, find_section

if TYPE_CHECKING:
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


def draw_roc(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Curves from the last point without a false accept on; markers at the target FARs."""
    runs = [read_roc(label, document, options.protocol) for label, document in data]
    axes = figure.subplots()
    left = style.decade_below(1 / max(run.impostor for run in runs))
    lines = []
    lowest = 1.0
    for number, run in enumerate(runs):
        first = max(0, int(np.searchsorted(run.far, 0, side="right")) - 1)
        far, tar = np.maximum(run.far[first:], left), run.tar[first:]
        lines.append(style.plot_run(axes, number, far, tar))
        ends = [end for _, _, interval in run.points for end in interval or ()]
        lowest = min(lowest, float(tar[0]), *ends)
        mark_points(axes, runs, number, run, left)
    axes.set_xscale("log")
    axes.set_xlim(left, 1)
    axes.set_ylim(style.lower_end(lowest), 1.0)
    axes.margins(0)
    finish_far_axis(axes)
    axes.set_ylabel("true accept rate (TAR)")
    style.add_run_legend(figure, lines, [run.label for run in runs])


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
        look: dict[str, Any] = {"color": style.COLOURS[number], "markeredgewidth": 0.4, "zorder": 4}
        axes.plot(x, y, style.MARKERS[number], markeredgecolor="white", clip_on=False, **look)
        if interval is None:
            continue
        low, high = (1 - interval[1], 1 - interval[0]) if errors else interval
        if errors:
            low = max(low, axes.get_ylim()[0])
        look |= {"linewidth": 0.8, "markersize": 4, "markeredgewidth": 0.8, "zorder": 3}
        axes.plot([x, x], [low, high], "_-", **look)


def finish_far_axis(axes: Axes) -> None:
    """Ticks, name and grid of a logarithmic axis of FARs."""
    style.set_log_ticks(axes.xaxis)
    axes.set_xlabel("false accept rate (FAR)")
    style.add_grid(axes)
