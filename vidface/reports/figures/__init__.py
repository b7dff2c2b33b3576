"""Figures for papers: one each, as wide as a column, from the files that scoring wrote.

    from vidface.reports.figures import figure_svg, write_figure
    write_figure(Path("roc.pdf"), "roc", [("SFace", document)])

Nothing is computed here that a file does not hold. Drawing goes through matplotlib's objects, never
through its state of figures and windows, and the same data give the same bytes again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.reports.figures.style import drawn, embeddable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES",
    "KINDS",
    "MOST_SERIES",
    "FigureOptions",
    "check_path",
    "figure_svg",
    "write_figure",
]

FIGURES = {
    "sweep": "vidface.reports.figures.sweep",
    "roc": "vidface.reports.figures.roc",
    "det": "vidface.reports.figures.det",
    "pr": "vidface.reports.figures.precision_recall",
    "cmc": "vidface.reports.figures.cmc",
    "histogram": "vidface.reports.figures.histogram",
    "clip": "vidface.reports.figures.clip",
}
"""Every figure by name: the module whose `draw(figure, data, options)` makes it."""

KINDS = {".svg": "svg", ".pdf": "pdf", ".png": "png"}
"""What is written, by the suffix of the file's name."""

MOST_SERIES = 8
"""Runs in one figure; more colours and dashes than that are not told apart in a column."""

PROTOCOLS = ("verification", "cross_verification")

Data = Sequence[tuple[str, Any]]  # label and document


@dataclass(frozen=True)
class FigureOptions:
    """What may be said of a figure beside its data.

    chosen: thresholds to mark in a sweep, one a run; None where a run has none.
    published: with the paper's Table 5, on an axis of its own (a sweep of track 3).
    far: the target whose TAR a sweep shows, "1e-3"; None for the lowest that all rows have.
    protocol: whose pairs, of PROTOCOLS (roc, det, histogram).
    """

    chosen: tuple[float | None, ...] = ()
    published: bool = False
    far: str | None = None
    protocol: str = "verification"

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise VidfaceError(
                f"unknown protocol '{self.protocol}' (known: {', '.join(PROTOCOLS)})"
            )


def figure_svg(name: str, data: Data, *, prefix: str = "", **options: Any) -> str:
    """A figure as one `<svg>` element to stand in a page.

    Its text is drawn as paths; it has neither style sheet, style attribute, comment nor link to
    anything, so a strict content-security-policy lets it through.

    Args:
        name: of `FIGURES`.
        data: (label, document) pairs, a run each: what `vidface.metrics.curves` writes, for "sweep"
            a sweep file, for "clip" one `vidface.reports.figures.clip.ClipFaces` as the document.
            Labels are shown as they are, whatever stands in them.
        prefix: of all ids; give two figures of one page two prefixes. Default: the name.
        options: fields of `FigureOptions`.

    Raises:
        VidfaceError: an unknown name, no or too many runs, data that do not hold what the figure
            shows, no matplotlib.
    """

    text = _drawn(name, data, "svg", FigureOptions(**options)).decode("utf-8")
    return embeddable(text, prefix or f"{name}-")


def write_figure(path: Path, name: str, data: Data, **options: Any) -> None:
    """Write a figure as SVG, PDF or PNG (600 dots an inch), by the suffix; complete or not at all.

    SVG holds text as paths, PDF embeds its fonts (TrueType, subsets).

    Args:
        path: ends in one of `KINDS`.
        name, data, options: as for `figure_svg`.

    Raises:
        VidfaceError: as `figure_svg`; another suffix; a file that cannot be written.
    """

    made = _drawn(name, data, check_path(path), FigureOptions(**options))
    with atomic_file(path) as file:
        file.write(made)


def check_path(path: Path) -> str:
    """The kind of a figure's file, by its suffix.

    Raises:
        VidfaceError: none of `KINDS`.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise VidfaceError(f"{path}: unknown suffix '{path.suffix}' (known: {', '.join(KINDS)})")
    return kind


def _drawn(name: str, data: Data, kind: str, options: FigureOptions) -> bytes:

    if name not in FIGURES:
        raise VidfaceError(f"unknown figure '{name}' (known: {', '.join(FIGURES)})")
    if not 1 <= len(data) <= MOST_SERIES:
        raise VidfaceError(
            f"a figure shows 1 to {MOST_SERIES} runs, got {len(data)}: more are not told apart"
        )
    draw: Callable[[Figure, Data, FigureOptions], None] = import_module(FIGURES[name]).draw
    return drawn(lambda figure: draw(figure, data, options), kind)
