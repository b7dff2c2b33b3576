"""Figures for papers: one each, as wide as a column, from the files that scoring wrote.

    from vidface.reports.figures import figure_svg, write_figure
    write_figure(Path("roc.pdf"), "roc", [("SFace", document)])

Nothing is computed here that a file does not hold. Drawing goes through matplotlib's objects, never
through its state of figures and windows, and the same data give the same bytes again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import output_file
from vidface.core.values import check_name
from vidface.metrics.uncertainty import Bootstrap
from vidface.reports.figures.bands import draw_cmc, draw_precision_recall
from vidface.reports.figures.clip import draw_clip
from vidface.reports.figures.histogram import draw_histogram
from vidface.reports.figures.options import FigureData, FigureOptions
from vidface.reports.figures.roc import draw_det, draw_roc
from vidface.reports.figures.style import draw_figure, make_embeddable, render_figure
from vidface.reports.figures.sweep import draw_sweep
from vidface.runs.score_documents import check_document
from vidface.runs.score_writing import curves_document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vidface.runs.scoring import Score


@dataclass(frozen=True)
class PaperFigure:
    """How a figure is drawn, and from which kind of file."""

    draw: Callable[[Figure, FigureData, FigureOptions], None]
    document: str | None  # of `vidface.runs.score_documents.WRITTEN_BY`; None: not from a file


FIGURES = {
    "sweep": PaperFigure(draw_sweep, "sweep"),
    "roc": PaperFigure(draw_roc, "curves"),
    "det": PaperFigure(draw_det, "curves"),
    "pr": PaperFigure(draw_precision_recall, "curves"),
    "cmc": PaperFigure(draw_cmc, "curves"),
    "histogram": PaperFigure(draw_histogram, "curves"),
    "clip": PaperFigure(draw_clip, None),
}

KINDS = {".svg": "svg", ".pdf": "pdf", ".png": "png"}
"""What is written, by the suffix of the file's name."""

MOST_SERIES = 8
"""Runs in one figure; more colours and dashes than that are not told apart in a column."""


def figure_svg(name: str, data: FigureData, *, prefix: str = "", **options: Any) -> str:
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
    svg = _draw_file(name, data, "svg", FigureOptions(**options)).decode("utf-8")
    return make_embeddable(svg, prefix or f"{name}-")


def write_figure(path: Path, name: str, data: FigureData, **options: Any) -> None:
    """Write a figure as SVG, PDF or PNG (600 dots an inch), by the suffix; complete or not at all.

    SVG holds text as paths, PDF embeds its fonts (TrueType, subsets).

    Args:
        path: ends in one of `KINDS`.
        name, data, options: as for `figure_svg`.

    Raises:
        VidfaceError: as `figure_svg`; another suffix; a file that cannot be written.
    """
    drawing = _draw_file(name, data, check_path(path), FigureOptions(**options))
    with output_file(path) as file:
        file.write(drawing)


def plot_score(score: Score, figure: str | None = None, **options: Any) -> Figure:
    """Draw a figure of a score, as `vidface plot` does of its file.

    Args:
        figure: "roc", "det" or "histogram" (of verification), "pr" (of retrieval), "cmc" (of
            identification); None for the first of roc, pr and cmc that the score has points of.
        options: fields of `FigureOptions`, such as protocol="cross_verification".

    Returns:
        matplotlib's, 3.3 inches wide: `savefig` writes it, a notebook shows it.

    Raises:
        VidfaceError: an unknown figure, a score without the protocol, no matplotlib.
    """
    settings = score.provenance.get("settings", {})
    resamples, seed = settings.get("score.bootstrap"), settings.get("score.seed")
    bootstrap = Bootstrap(resamples, seed) if resamples else None
    curves = json.loads(json.dumps(curves_document(score, score.split, bootstrap)))  # as from disk
    data = [(score.split, check_document(curves, "curves", f"the score of {score.split}"))]
    drawn = {"roc": "verification", "pr": "retrieval", "cmc": "identification"}
    figure = figure or next((name for name, part in drawn.items() if curves.get(part)), "roc")
    check_name("figure", figure, [n for n, kind in FIGURES.items() if kind.document == "curves"])
    draw, chosen = FIGURES[figure].draw, FigureOptions(**options)
    return draw_figure(lambda empty: draw(empty, data, chosen))


def check_path(path: Path) -> str:
    """The kind of a figure's file, by its suffix.

    Raises:
        VidfaceError: none of `KINDS`.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: unknown suffix '{path.suffix}' (known: {', '.join(KINDS)})")
    return kind


def _draw_file(name: str, data: FigureData, kind: str, options: FigureOptions) -> bytes:
    check_name("figure", name, FIGURES)
    if not 1 <= len(data) <= MOST_SERIES:
        raise VidfaceError(
            f"a figure shows 1 to {MOST_SERIES} runs, got {len(data)}: more are not told apart"
        )
    chosen = FIGURES[name]
    if chosen.document is not None:
        data = [(label, check_document(d, chosen.document, label)) for label, d in data]
    return render_figure(lambda figure: chosen.draw(figure, data, options), kind)
