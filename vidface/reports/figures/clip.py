"""The faces of one clip in time order, a column wide, dropped ones framed.

In the style of `vidface.runs.contact_sheet` (there: a picture of any length), with its text and
frames as vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.reports.figures.options import FigureData, FigureOptions
from vidface.reports.figures.style import GREY, WIDTH_INCHES, fit_text
from vidface.runs import artefacts
from vidface.runs.clusterings import latest
from vidface.runs.contact_sheet import _picture
from vidface.runs.crops import find_crops

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vidface.runs.denoising import Denoising
    from vidface.runs.run import Run

MOST_FACES = 40
"""Faces of a figure, evenly chosen from a longer clip."""

COLUMNS = 8
_MARGIN, _LABEL, _HEADER, _LEGEND = 0.04, 0.12, 0.28, 0.16  # inches
_RED, _BLUE, _PALE = "#CC1A1A", "#0082C8", "#D0D0D0"  # as the contact sheet's
_RIM = 0.045  # inches around a face, for its frames


@dataclass(frozen=True, eq=False)
class ClipFaces:
    """The faces of one clip, in time order."""

    title: str
    crops: Sequence[bytes | NDArray[np.uint8]]  # n JPEG or PNG files, or (h, w, 3) RGB
    clusters: NDArray[np.integer[Any]]  # (n,) 0 kept, −1 unusable
    similarities: NDArray[np.floating[Any]]  # (n,) cosines to the descriptor; NaN without one

    def __post_init__(self) -> None:
        n = len(self.crops)
        if np.shape(self.clusters) != (n,) or np.shape(self.similarities) != (n,):
            raise VidfaceError(
                f"{n} crops with clusters {np.shape(self.clusters)} and similarities "
                f"{np.shape(self.similarities)}; give one of each a crop"
            )

    def __str__(self) -> str:
        return f"ClipFaces({self.title}: {len(self.crops)} faces)"


def clip_faces(run: Run, clip_id: str, denoising: Denoising | None = None) -> ClipFaces:
    """The faces of a clip, as a clustering sees them.

    Args:
        denoising: whose clustering; None for the one made last.

    Raises:
        VidfaceError: no extraction, no crops, no clustering, an unknown clip or one without faces.
    """

    _, crops = find_crops(run.folder, clip_id)
    chosen = denoising or latest(run)
    path = run.folder.clustering(chosen.name) / "faces.parquet"
    faces, _ = artefacts.read_rows(path, [("clip_id", "=", clip_id)])
    keys = ("frame_index", "face_index")
    if [crops.column(k).to_pylist() for k in keys] != [faces.column(k).to_pylist() for k in keys]:
        raise VidfaceError(
            f"clip {clip_id}: crops and clusters do not fit; `vidface cluster` again"
        )
    return ClipFaces(
        clip_id,
        crops.column("jpeg").to_pylist(),
        faces.column("cluster").to_numpy(),
        faces.column("similarity").to_numpy(zero_copy_only=False).astype(np.float32),
    )


def draw_clip(figure: Figure, data: FigureData, options: FigureOptions) -> None:
    """The faces in rows of eight; under each its cosine to the descriptor."""
    if len(data) != 1 or not isinstance(data[0][1], ClipFaces):
        raise VidfaceError("a figure of a clip shows one clip, given as ClipFaces")
    faces: ClipFaces = data[0][1]
    n = len(faces.crops)
    if n == 0:
        raise VidfaceError(f"clip {faces.title}: no faces to show")
    places = np.unique(np.linspace(0, n - 1, min(n, MOST_FACES)).round().astype(int))
    rows = -(-len(places) // COLUMNS)
    cell = (WIDTH_INCHES - 2 * _MARGIN) / COLUMNS
    height = _HEADER + rows * (cell + _LABEL) + _LEGEND + _MARGIN
    figure.set_layout_engine("none")
    figure.set_size_inches(WIDTH_INCHES, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH_INCHES)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _header(axes, faces, len(places))
    for number, face in enumerate(places.tolist()):
        x = _MARGIN + number % COLUMNS * cell
        y = _HEADER + number // COLUMNS * (cell + _LABEL)
        _face(axes, faces, face, x, y, cell)
    _legend(axes, height - _LEGEND)
    axes.set_xlim(0, WIDTH_INCHES)  # imshow moved them
    axes.set_ylim(height, 0)
    axes.set_aspect("auto")


def _header(axes: Axes, faces: ClipFaces, drawn: int) -> None:
    n, kept = len(faces.crops), int(np.count_nonzero(np.asarray(faces.clusters) == 0))
    counts = f"{n:,} face{'' if n == 1 else 's'}, {kept:,} kept, {n - kept:,} dropped"
    counts = f"{drawn:,} of {counts}" if drawn < n else counts
    room = (WIDTH_INCHES - 2 * _MARGIN) * 72 - 4  # on a screen letters are a little wider
    axes.text(_MARGIN, 0.03, fit_text(faces.title, room, 7), fontsize=7, va="top")
    axes.text(_MARGIN, 0.15, counts, fontsize=6, va="top", color=GREY)
    meant = "number: cosine to the descriptor"
    right = WIDTH_INCHES - _MARGIN
    axes.text(right, 0.15, meant, fontsize=5.5, va="top", ha="right", color=GREY)


def _face(axes: Axes, faces: ClipFaces, face: int, x: float, y: float, cell: float) -> None:
    """One face with its frames and its similarity."""
    from matplotlib.patches import Rectangle

    cluster, similarity = int(faces.clusters[face]), float(faces.similarities[face])
    side = cell - 2 * _RIM
    picture = _picture(faces.crops[face], face)
    if picture is None:
        axes.add_patch(Rectangle((x + _RIM, y + _RIM), side, side, color=_PALE, linewidth=0))
    else:
        extent = (x + _RIM, x + _RIM + side, y + _RIM + side, y + _RIM)
        axes.imshow(np.asarray(picture), extent=extent, interpolation="none", zorder=2)
    _frames(axes, cluster, x, y, cell)
    text = "n/a" if cluster == UNUSABLE or not np.isfinite(similarity) else f"{similarity:.2f}"
    axes.text(
        x + cell / 2,
        y + cell + 0.005,
        text.replace("-0.00", "0.00").replace("-", "−"),
        fontsize=5,
        ha="center",
        va="top",
        color=GREY if cluster else "black",
    )


def _frames(axes: Axes, cluster: int, x: float, y: float, cell: float) -> None:
    """Red around what was dropped, blue inside of it around the second cluster."""
    from matplotlib.patches import Rectangle

    if cluster == 0:
        return
    for colour, inset, width in ((_RED, 0.012, 1.3), (_BLUE, 0.032, 1.1)):
        if colour == _RED or cluster == 1:
            side = cell - 2 * inset
            axes.add_patch(
                Rectangle(
                    (x + inset, y + inset),
                    side,
                    side,
                    fill=False,
                    edgecolor=colour,
                    linewidth=width,
                    joinstyle="miter",
                    zorder=3,
                )
            )


def _legend(axes: Axes, y: float) -> None:
    from matplotlib.patches import Rectangle

    side = 0.11
    x = _MARGIN
    for cluster, text in ((0, "kept"), (2, "dropped"), (1, "dropped, second cluster")):
        axes.add_patch(Rectangle((x + 0.03, y + 0.03), side - 0.06, side - 0.06, color=_PALE))
        _frames(axes, cluster, x, y, side)
        axes.text(x + side + 0.04, y + side / 2, text, fontsize=5.5, va="center")
        x += side + 0.04 + 0.045 * len(text) + 0.12
