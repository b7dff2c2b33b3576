"""The faces of one clip in time order, a column wide, with texts and frames as vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE
from vidface.reports.figures.options import FigureData, FigureOptions
from vidface.reports.figures.style import WIDTH_INCHES, fit_text, text_width
from vidface.runs.clip_drawing import ClipFaces, SheetLook, draw_clip_faces

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FACES = 40
"""Faces of a figure, evenly chosen from a longer clip."""

_POINTS = 72  # an inch
_COLUMNS, _MARGIN, _GAP, _OUTER, _INNER = 8, 3.0, 1.8, 1.3, 1.1  # points
_CELL = (WIDTH_INCHES * _POINTS - 2 * _MARGIN + _GAP) / _COLUMNS - _GAP
_LOOK = SheetLook(
    face=_CELL - 2 * (_OUTER + _INNER), outer=_OUTER, inner=_INNER, gap=_GAP, margin=_MARGIN,
    title_size=7, text_size=6, label_size=5,
    title_line=9, text_line=8.5, label_line=7, legend_line=12, legend_side=8,
    min_columns=_COLUMNS, max_columns=_COLUMNS, note_line=7.5,
)  # fmt: skip


def draw_clip(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """The faces in rows of eight; under each its cluster and its cosine to the descriptor."""
    if len(data) != 1 or not isinstance(data[0][1], ClipFaces):
        raise VidfaceError("a figure of a clip shows one clip, given as ClipFaces")
    faces: ClipFaces = data[0][1]
    if not len(faces.crops):
        raise VidfaceError(f"clip {faces.title}: no faces to show")
    draw_clip_faces(_FigureCanvas(figure), faces, _LOOK, MOST_FACES)


class _FigureCanvas:
    """A `ClipCanvas` of points, on axes that fill the figure."""

    def __init__(self, figure: Figure) -> None:
        self._figure = figure

    def begin(self, width: float, height: float) -> None:
        self._figure.set_layout_engine("none")
        self._figure.set_size_inches(width / _POINTS, height / _POINTS)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_xlim(0, width)
        self._axes.set_ylim(height, 0)
        self._axes.axis("off")

    def fill(self, x: float, y: float, side: float, colour: str) -> None:
        self._square(x, y, side, color=colour, linewidth=0)

    def outline(self, x: float, y: float, side: float, width: float, colour: str) -> None:
        # matplotlib draws half of a line on either side of its path.
        self._square(x + width / 2, y + width / 2, side - width, fill=False, edgecolor=colour,
                     linewidth=width, joinstyle="miter", zorder=3)  # fmt: skip

    def picture(self, x: float, y: float, side: float, image: Image.Image) -> None:
        width, height = side * image.width / CROP_SIZE, side * image.height / CROP_SIZE
        left, top = x + (side - width) / 2, y + (side - height) / 2
        extent = (left, left + width, top + height, top)
        self._axes.imshow(
            np.asarray(image), extent=extent, aspect="auto", interpolation="none", zorder=2
        )

    def text(self, x: float, y: float, text: str, size: float, ink: str, anchor: str) -> None:
        across = {"l": "left", "m": "center", "r": "right"}[anchor[0]]
        upright = {"a": "top", "m": "center"}[anchor[1]]
        y += 1 if upright == "top" else 0  # matplotlib leaves no room above capitals
        self._axes.text(x, y, text, fontsize=size, color=ink, ha=across, va=upright)

    def fit(self, text: str, size: float, width: float) -> str:
        return fit_text(text, width - 4, size)  # on a screen letters are a little wider

    def wrap(self, text: str, size: float, width: float) -> list[str]:
        return [self.fit(text, size, width)] if text else []

    def text_width(self, text: str, size: float) -> float:
        return text_width(text, size)

    def _square(self, x: float, y: float, side: float, **style: Any) -> None:
        from matplotlib.patches import Rectangle

        self._axes.add_patch(Rectangle((x, y), side, side, **style))
