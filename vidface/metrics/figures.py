"""What a protocol's result says of itself: named figures, JSON, and lines for the terminal.

Whoever prints, compares or sweeps scores works from this alone and knows no protocol by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidface.metrics.bands import Draws
    from vidface.metrics.uncertainty import Replicates


@dataclass(frozen=True)
class NamedFigure:
    """One figure of a result."""

    name: str  # "tar_at_far.1e-4": how `compare` and [[published]] name it
    label: str  # "TAR@FAR 1e-4": how a table names it
    value: float | None  # None where the split can't tell
    replicates: Replicates | None = None  # where a bootstrap ran
    note: str = ""  # why there is no value
    is_main: bool = True  # shown where there is room for a few: sweeps, before and after
    is_headline: bool = False  # the one that rows of a sweep are ranked by
    column: str = ""  # heading of a narrow column; "" for the label

    @property
    def text(self) -> str:
        """The value with its interval, or why there is none."""
        return self.note or with_interval(self.value, self.replicates)


@dataclass(frozen=True)
class TextTable:
    """A table for the terminal: the first column to the left, the others to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class ProtocolResult(ABC):
    """What a protocol found. Only `figures` must be written; the rest has a plain default."""

    @abstractmethod
    def figures(self) -> Sequence[NamedFigure]:
        """All figures, in the order in which they are shown."""

    def to_dict(self) -> dict[str, Any]:
        """The section of the score JSON: {figure: {"value", "ci95"}}."""
        return {f.name: figure_dict(f.value, f.replicates) for f in self.figures()}

    def describe(self, split: str, gallery: str | None) -> list[str | TextTable]:
        """Texts and tables for the terminal, one below the other."""
        return [f"{figure.label}  {figure.text}" for figure in self.figures()]

    def shortages(self) -> list[str]:
        """Lines on targets that need more than there is: their figures have a note, no value."""
        return []

    def curves(self, draws: Draws) -> dict[str, Any] | None:
        """The section of the file of curves; None where there is none."""
        return None

    def side_tables(self) -> Mapping[str, list[Sequence[Any]]]:
        """What is too long for the JSON file: name → rows, the header first."""
        return {}


@dataclass(frozen=True)
class FigureList(ProtocolResult):
    """A result that is its figures and nothing else."""

    named: tuple[NamedFigure, ...]

    def figures(self) -> Sequence[NamedFigure]:
        return self.named


def interval_dict(replicates: Replicates | None) -> dict[str, Any]:
    """`Replicates.to_dict`, empty where there was no bootstrap."""
    return {} if replicates is None else replicates.to_dict()


def figure_dict(value: float | None, replicates: Replicates | None) -> dict[str, Any]:
    """The JSON form of a figure: "value", and "ci95" where a bootstrap ran."""
    return {"value": value, **interval_dict(replicates)}


def format_rate(value: float | None) -> str:
    """A fraction with four decimals.

    >>> format_rate(0.5), format_rate(None)
    ('0.5000', 'n/a')
    """
    return "n/a" if value is None else f"{value:.4f}"


def format_interval(replicates: Replicates | None) -> str:
    """A figure's 95 % interval; empty where there was no bootstrap."""
    if replicates is None:
        return ""
    ends = replicates.ci95
    mark = "*" if replicates.note else ""
    return "n/a" if ends is None else f"[{ends[0]:.4f}, {ends[1]:.4f}]{mark}"


def with_interval(value: float | None, replicates: Replicates | None) -> str:
    """A figure and its interval, as one text."""
    interval = format_interval(replicates) if value is not None else ""
    return f"{format_rate(value)} {interval}".rstrip()


def describe_shortage(error: str, points: Sequence[Any], of: str) -> list[str]:
    """One line for all targets that need more pairs, or probes, than there are; [] without any.

    Args:
        error: name of what a target bounds, "FAR"; `target_far` of a point is its text.
        of: what there are too few of, "impostor pairs".
    """
    short = [point for point in points if point.shortage is not None]
    if not short:
        return []
    loosest = min(short, key=lambda point: point.shortage[0])
    needed, there = loosest.shortage
    target = getattr(loosest, f"target_{error.lower()}")
    return [f"{error} ≤ {target} needs ≥ {needed:,} {of}; there are {there:,}"]


def describe_points(rate: str, error: str, points: Sequence[Any], of: str) -> list[str | TextTable]:
    """The table of operating points, and a line for those that need more than there are."""
    table = tabulate_points(rate, error, points)
    return [*([table] if table.rows else []), *describe_shortage(error, points, of)]


def tabulate_points(rate: str, error: str, points: Sequence[Any]) -> TextTable:
    """Operating points as a table: target, figure, interval, threshold, achieved error rate.

    Points that need more pairs than there are have no row: see `describe_shortage`.

    Args:
        rate, error: names of the figure and of what its target bounds, "TAR" and "FAR".
        points: whose attributes are named so, `tar`, `target_far` and `far`.
    """
    has_interval = any(point.replicates is not None for point in points)
    middle = ("95 %",) if has_interval else ()
    rows = []
    for point in points:
        if point.shortage is not None:
            continue
        value, bounds = getattr(point, rate.lower()), getattr(point, "tar_bounds", None)
        target, achieved = (getattr(point, f"{kind}{error.lower()}") for kind in ("target_", ""))
        if value is None:
            rows.append((target, point.note, *("" for _ in middle), "", ""))
            continue
        threshold = "none accepted" if point.threshold is None else f"{point.threshold:.4f}"
        text = format_rate(value) + (f" to {format_rate(bounds[1])}" if bounds else "")
        interval = (format_interval(point.replicates),) if has_interval else ()
        rows.append((target, text, *interval, threshold, f"{achieved:.2e}"))
    return TextTable((error, rate, *middle, "threshold", f"achieved {error}"), tuple(rows))
