"""ROC: TAR against FAR on a logarithmic axis, with the 95 % intervals of the operating points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidface.reports.figures.documents import Roc, roc_of
from vidface.reports.figures.style import COLOURS, DASHES, MARKERS, decade_below, grid, legend
from vidface.reports.figures.style import log_ticks as log_ticks_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vidface.reports.figures import Data, FigureOptions


def draw(figure: Figure, data: Data, options: FigureOptions) -> None:
    """Curves from the last point without a false accept on; markers at the target FARs."""
    runs = [roc_of(label, document, options.protocol) for label, document in data]
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
        legend(figure, handles, [run.label for run in runs])


def mark_points(
    axes: Axes, runs: list[Roc], number: int, run: Roc, left: float, errors: bool = False
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
    log_ticks_of(axes.xaxis)
    axes.set_xlabel("false accept rate (FAR)")
    grid(axes)


def lower_end(lowest: float) -> float:
    """Where an axis of rates begins, so that a curve near 1 has room.

    >>> lower_end(0.95), lower_end(0.52), lower_end(0.0)
    (0.9, 0.5, 0.0)
    """
    return float(max(0, min(9, np.floor(lowest * 10 - 1e-9)))) / 10
