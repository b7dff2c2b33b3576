"""The threshold sweep: mAP and TAR against threshold, and the share of faces that is dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import exact_rate
from vidface.reports.figures import style
from vidface.reports.figures.options import FigureData, FigureOptions
from vidface.reports.published import TABLE_5

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SOLID: Any = "-"
_DASHED: Any = (0, (4, 1.5))
_DOTTED: Any = (0, (1, 1.2))


@dataclass(frozen=True, eq=False)
class SweepSeries:
    """The rows of one sweep, thresholds rising; NaN where a row has no figure. Rates in [0, 1]."""

    label: str
    thresholds: NDArray[np.float64]  # (n,) NaN: no clustering, the first
    map_at_k: NDArray[np.float64] | None  # (n,)
    tars: dict[str, NDArray[np.float64]]  # by target FAR, (n,) each
    dropped: NDArray[np.float64]  # (n,)


def read_series(label: str, document: Mapping[str, Any]) -> SweepSeries:
    """What a sweep file says, as columns."""
    rows = document["rows"]
    tars = [row.get("verification", {}).get("tar_at_far", {}) for row in rows]
    targets = dict.fromkeys(
        target for points in tars for target, point in points.items() if point["tar"] is not None
    )
    # null becomes NaN; "no clustering", which is null, stands first.
    thresholds = np.array([row["threshold"] for row in rows], dtype=float)  # (n,)
    order = np.argsort(np.nan_to_num(thresholds, nan=-2.0), kind="stable")
    means = np.array([_map_at_k(row) for row in rows], dtype=float)[order]
    return SweepSeries(
        label,
        thresholds[order],
        None if np.isnan(means).all() else means,
        {
            target: np.array([t.get(target, {}).get("tar") for t in tars], dtype=float)[order]
            for target in targets
        },
        np.array([row["denoised"]["dropped_share"] for row in rows], dtype=float)[order],
    )


def _map_at_k(row: Mapping[str, Any]) -> float | None:
    figures: Mapping[str, Any] = row.get("retrieval", {})
    return next((v for k, v in figures.items() if k.startswith("map_at_") and v is not None), None)


def draw_sweep(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """Rates on the left axis, the dropped share on the right; Table 5 in a panel of its own."""
    runs = [read_series(label, document) for label, document in data]
    far = options.far or _lowest_far(runs)
    if options.far is not None and not any(options.far in run.tars for run in runs):
        known = ", ".join(dict.fromkeys(t for run in runs for t in run.tars)) or "none"
        raise VidfaceError(f"no row has a TAR at FAR {options.far} (there: {known})")
    if far is None and all(run.map_at_k is None for run in runs):
        raise VidfaceError(f"{runs[0].label}: neither mAP nor TAR in it; nothing to draw")
    if options.published:
        figure.set_size_inches(style.WIDTH_INCHES, 3.7)
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    else:
        figure.set_size_inches(style.WIDTH_INCHES, 2.7)
        above, axes = None, figure.subplots()
    places = _Places(runs)
    right = axes.twinx()
    key = _Key(len(runs) == 1)
    for number, run in enumerate(runs if len(runs) > 1 else []):
        look = {"color": style.COLOURS[number], "marker": style.MARKERS[number]}
        key.add_sample(run.label or f"run {number + 1}", repeated=True, **look)
    for number, run in enumerate(runs):
        _draw_run(axes, right, run, number, places, far, key)
    rates = [run.map_at_k for run in runs if run.map_at_k is not None]
    rates += [run.tars[far] for run in runs if far in run.tars] if far else []
    low = float(min(np.nanmin(values) for values in rates))
    high = float(max(np.nanmax(values) for values in rates))
    margin = max(0.01, 0.08 * (high - low))
    axes.set_ylim(max(0, low - margin), min(1.0 + margin / 2, high + margin))
    right.set_ylim(0, max(5.0, 110 * max(float(run.dropped.max()) for run in runs)))
    right.set_ylabel("faces dropped (%)")
    axes.set_ylabel("mAP, TAR" if rates and far else ("TAR" if far else "mAP"))
    axes.set_xlabel("threshold (cosine)")
    style.add_grid(axes)
    right.tick_params(width=0.6, length=2.5)
    axes.set_zorder(right.get_zorder() + 1)
    axes.patch.set_visible(False)
    places.draw_ticks(axes)
    _mark_chosen(axes, options.chosen, places, len(runs), key)
    if above is not None:
        _draw_published(above, key)
    style.add_legend(figure, key.handles, key.labels)


class _Key:
    """What the legend will hold."""

    def __init__(self, single: bool) -> None:
        self.single = single
        self.handles: list[Artist] = []
        self.labels: list[str] = []

    def add_sample(self, label: str, *, repeated: bool = False, **look: Any) -> None:
        """Name a look, once unless `repeated`: two runs may be called the same."""
        from matplotlib.lines import Line2D

        if repeated or label not in self.labels:
            self.handles.append(Line2D([], [], **look))
            self.labels.append(label)


class _Places:
    """Where thresholds stand: "none" a step to the left of the lowest."""

    def __init__(self, runs: list[SweepSeries]) -> None:
        thresholds = np.unique(np.concatenate([run.thresholds for run in runs]))
        self.thresholds = thresholds[~np.isnan(thresholds)]  # rising
        steps = np.diff(self.thresholds)
        first = float(self.thresholds[0]) if len(self.thresholds) else 0.0
        span = float(self.thresholds[-1]) - first if len(self.thresholds) else 0.0
        step = max(float(steps.min()) if len(steps) else 0.1, span / 10, 0.02)
        self.has_none = any(np.isnan(run.thresholds).any() for run in runs)
        self.none = first - step
        self.ends = (
            (self.none if self.has_none else first) - step / 3,
            (float(self.thresholds[-1]) if len(self.thresholds) else self.none) + step / 3,
        )

    def place(self, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where thresholds stand on the axis; NaN is no clustering."""
        return np.where(np.isnan(thresholds), self.none, thresholds)

    def draw_ticks(self, axes: Axes) -> None:
        """As many ticks as their names leave room for."""
        axes.set_xlim(*self.ends)
        for most in range(8, 0, -1):
            at, names = self._choose_ticks(most)
            if self._leave_room(at, names):
                break
        axes.set_xticks(at, names)

    def _choose_ticks(self, most: int) -> tuple[list[float], list[str]]:
        """About `most` round thresholds, and "none"."""
        from matplotlib.ticker import MaxNLocator

        if not len(self.thresholds):
            return [self.none], ["none"]
        low, high = float(self.thresholds[0]), float(self.thresholds[-1])
        round_ones = MaxNLocator(nbins=most, steps=[1, 2, 5, 10]).tick_values(low, high)
        at = [float(t) for t in round_ones if low - 1e-9 <= t <= high + 1e-9] or [low]
        names = [f"{t:g}" for t in np.round(at, 6) + 0.0]
        return ([self.none, *at], ["none", *names]) if self.has_none else (at, names)

    def _leave_room(self, at: list[float], names: list[str]) -> bool:
        """Whether the names leave room between them."""
        room = style.WIDTH_INCHES * 72 - 75  # points: about what the axes are wide
        scale = room / (self.ends[1] - self.ends[0])
        widths = [style.text_width(name, 6.5) for name in names]
        return all(
            (at[i + 1] - at[i]) * scale > (widths[i] + widths[i + 1]) / 2 + 3
            for i in range(len(at) - 1)
        )


def _draw_run(
    axes: Axes,
    right: Axes,
    run: SweepSeries,
    number: int,
    places: _Places,
    far: str | None,
    key: _Key,
) -> None:
    """One run: solid mAP, dashed TAR, dotted share; hues tell runs apart, or of one run lines."""
    x = places.place(run.thresholds)
    single_hues = (style.BLUE, style.GREEN, style.VERMILION)
    hues = single_hues if key.single else (style.COLOURS[number],) * 3

    def draw_rates(rates: NDArray[np.float64], which: int, dashes: Any, name: str) -> None:
        marker = style.MARKERS[which if key.single else number]
        axes.plot(x, rates, color=hues[which], linestyle=dashes, marker=marker)
        colour, shown_marker = (hues[which], marker) if key.single else (style.GREY, None)
        key.add_sample(name, color=colour, linestyle=dashes, marker=shown_marker)

    if run.map_at_k is not None:
        draw_rates(run.map_at_k, 0, _SOLID, "mAP")
    if far is not None and far in run.tars:
        name = f"TAR at FAR {style.power_of_ten(float(exact_rate(far) or 1))}"
        draw_rates(run.tars[far], 1, _DASHED, name)
    right.plot(x, 100 * run.dropped, color=hues[2], linestyle=_DOTTED)
    colour = hues[2] if key.single else style.GREY
    key.add_sample("dropped (right)", color=colour, linestyle=_DOTTED)


def _mark_chosen(
    axes: Axes, chosen: tuple[float | None, ...], places: _Places, runs: int, key: _Key
) -> None:
    """A line at each run's threshold, named above where it is one for all."""
    dashes: dict[str, Any] = {"linewidth": 0.7, "linestyle": (0, (6, 2))}
    for number, threshold in enumerate(chosen[:runs]):
        if threshold is None or not places.ends[0] <= threshold <= places.ends[1]:
            continue
        colour, neutral, name = style.COLOURS[number], style.GREY, "chosen"
        if runs == 1:
            colour = neutral = style.BLACK
            name = f"chosen: {threshold:g}"
        axes.axvline(threshold, color=colour, zorder=1, **dashes)
        above = axes.get_xaxis_transform()
        axes.plot(threshold, 1, "v", color=colour, transform=above, clip_on=False, markersize=4)
        key.add_sample(name, color=neutral, marker="v", **dashes)


def _draw_published(axes: Axes, key: _Key) -> None:
    """The paper's rows: another recogniser on other clips, so never on our axis."""
    looks = (("P", style.GREY, _SOLID), ("X", style.PURPLE, _DASHED))
    for curve, (marker, colour, dashes) in zip(TABLE_5, looks, strict=True):
        look = {"marker": marker, "color": colour, "linestyle": dashes, "linewidth": 0.7}
        axes.plot(curve.thresholds, curve.values, markersize=4, **look)
        key.add_sample(f"published, {curve.name}", markersize=4, **look)
    axes.set_ylabel("TAR at 10⁻⁴\n(Table 5)")
    axes.margins(y=0.15)
    style.add_grid(axes)
    axes.tick_params(labelbottom=False)


def _lowest_far(runs: list[SweepSeries]) -> str | None:
    """The lowest target whose TAR all runs' rows have."""
    targets = [
        target
        for target in runs[0].tars
        if exact_rate(target) is not None
        and all(target in run.tars and not np.isnan(run.tars[target]).any() for run in runs)
    ]
    return min(targets, key=lambda text: exact_rate(text) or 1, default=None)
