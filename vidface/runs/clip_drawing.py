"""The faces of one clip in time order, laid out once for all canvases: pixels and vectors.

After Figures 3 and 4 of Chai et al., "A Progressive Learning Framework for Unconstrained Face
Recognition": kept faces stand bare, dropped ones in a red frame. Here the second cluster, which may
be a second person, has a blue frame inside of the red one, so that hue alone decides nothing, and
the two hues stay apart for colour-blind eyes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE, UNUSABLE

MAX_CROP_BYTES = 4_000_000
"""A larger file of a crop is not decoded; aligned faces have some 3 kB."""

MAX_CROP_PIXELS = 4_000_000
"""A crop with more pixels is not decoded; aligned faces have 12,544."""

RED, BLUE = "#CC1A1A", "#0082C8"
INK, PALE_INK, GREY = "#202020", "#6E6E6E", "#D0D0D0"

LABEL_NOTE = "0  .83 = cluster and cosine to the clip's descriptor"


@dataclass(frozen=True, eq=False)
class ClipFaces:
    """The faces of one clip, in the order in which they are drawn, which should be time order.

    crops: n JPEG (or PNG) files as bytes, or (h, w, 3) uint8 RGB arrays; any size. Only those that
        are drawn are looked at.
    clusters: (n,) integers, as `vidface.noise.clusters.cluster_frames` gives them; −1 is unusable.
    similarities: (n,) floats in [−1, 1]; what is not finite is written `n/a`.
    captions: n texts, such as `1.25 s`; None for none.

    Raises:
        VidfaceError: lengths that disagree, or other types.
    """

    title: str
    crops: Sequence[bytes | NDArray[np.uint8]]
    clusters: NDArray[np.integer[Any]]
    similarities: NDArray[np.floating[Any]]
    captions: Sequence[str] | None = None
    diagnostics: str = ""

    def __post_init__(self) -> None:
        n = len(self.crops)
        for name, kinds, what in (("clusters", "iu", "integers"), ("similarities", "f", "floats")):
            values = np.asarray(getattr(self, name))
            if values.shape != (n,) or (n and values.dtype.kind not in kinds):
                raise VidfaceError(
                    f"{name} must be ({n},) {what}, one a crop, "
                    f"got the shape {values.shape} of {values.dtype}"
                )
        if self.captions is not None and len(self.captions) != n:
            raise VidfaceError(
                f"{len(self.captions)} captions for {n} crops; give one a crop, or None"
            )

    def count_in_words(self, shown: int) -> str:
        """How many faces there are, are shown, kept and dropped."""
        n, clusters = len(self.crops), np.asarray(self.clusters)
        if not n:
            return "no faces"
        kept, unusable = np.count_nonzero(clusters == 0), np.count_nonzero(clusters == UNUSABLE)
        faces = f"{n:,} face{'' if n == 1 else 's'}"
        faces = f"{shown:,} of {faces} shown" if shown < n else faces
        dropped = f"{n - kept:,} dropped" + (f" ({unusable:,} unusable)" if unusable else "")
        return f"{faces} · {kept:,} kept · {dropped}"


@dataclass(frozen=True)
class SheetLook:
    """Sizes of a drawing, in the canvas's unit: pixels, or points."""

    face: float  # a side
    outer: float  # width of the red frame, outside of the face
    inner: float  # of the blue one, between them
    gap: float
    margin: float
    title_size: float
    text_size: float
    label_size: float
    title_line: float  # from a line to the next
    text_line: float
    label_line: float
    legend_line: float
    legend_side: float  # of the legend's squares
    min_columns: int
    max_columns: int
    note_line: float = 0  # of `LABEL_NOTE`; 0: it stands beside the legend

    @property
    def rim(self) -> float:
        """Around a face, for its frames."""
        return self.outer + self.inner

    @property
    def cell(self) -> float:
        """A side of a face with its frames."""
        return self.face + 2 * self.rim


class ClipCanvas(Protocol):
    """What a clip is drawn on; x goes to the right and y down, anchors are Pillow's."""

    def begin(self, width: float, height: float) -> None:
        """Take the size; nothing is drawn before."""

    def fill(self, x: float, y: float, side: float, colour: str) -> None:
        """A square."""

    def outline(self, x: float, y: float, side: float, width: float, colour: str) -> None:
        """A frame that lies within a square."""

    def picture(self, x: float, y: float, side: float, image: Image.Image) -> None:
        """A picture of at most CROP_SIZE pixels a side, in the middle of a square."""

    def text(self, x: float, y: float, text: str, size: float, ink: str, anchor: str) -> None:
        """One line."""

    def fit(self, text: str, size: float, width: float) -> str:
        """The text as it can be drawn, its middle cut where it is too wide."""

    def wrap(self, text: str, size: float, width: float) -> list[str]:
        """The text on a few lines."""

    def text_width(self, text: str, size: float) -> float:
        """How wide a line is."""


def draw_clip_faces(canvas: ClipCanvas, faces: ClipFaces, look: SheetLook, max_faces: int) -> None:
    """Draw a header and the faces in rows, each with its frames, its label and its caption.

    Faces outside of cluster 0 get a red frame, those of cluster 1 a blue one inside of it. Under
    each stand its cluster and its cosine to the clip's descriptor, `0  .83`, or `unusable`. Of a
    longer clip `max_faces` are drawn, evenly spaced; the header counts all. Bytes that are no
    picture make a grey cell, "unreadable".
    """
    shown = choose_evenly(len(faces.crops), max_faces)
    columns = min(look.max_columns, max(len(shown), look.min_columns))
    step = look.cell + look.gap
    inside = columns * step - look.gap
    header = _header_lines(canvas, faces, look, len(shown), inside)
    captions = faces.captions
    row_step = look.cell + look.label_line * (1 if captions is None else 2) + 2 * look.gap
    top = look.margin + sum(line[-1] for line in header) + look.legend_line + look.gap
    rows = -(-len(shown) // columns)
    canvas.begin(2 * look.margin + inside, top + rows * row_step + look.margin)

    y = look.margin
    for text, size, ink, height in header:
        canvas.text(look.margin, y, text, size, ink, "la")
        y += height
    _draw_legend(canvas, look, y)
    for place, face in enumerate(shown):
        x, y = look.margin + place % columns * step, top + place // columns * row_step
        cluster = int(faces.clusters[face])
        _draw_frames(canvas, look, x, y, look.cell, cluster)
        picture = decode_crop(faces.crops[face], face)
        if picture is None:
            canvas.fill(x + look.rim, y + look.rim, look.face, GREY)
            unreadable = canvas.fit("unreadable", look.label_size, look.cell)
            middle = (x + look.cell / 2, y + look.cell / 2)
            canvas.text(*middle, unreadable, look.label_size, INK, "mm")
        else:
            canvas.picture(x + look.rim, y + look.rim, look.face, picture)
        label = face_label(cluster, float(faces.similarities[face]))
        below = y + look.cell
        canvas.text(x + look.cell / 2, below, label, look.label_size, INK, "ma")
        if captions is not None:
            caption = canvas.fit(captions[face], look.label_size, look.cell)
            below += look.label_line
            canvas.text(x + look.cell / 2, below, caption, look.label_size, PALE_INK, "ma")


def choose_evenly(n: int, most: int) -> list[int]:
    """`most` of n rows at most, as evenly spaced as integers are, both ends among them.

    >>> choose_evenly(10, 4), choose_evenly(3, 4), choose_evenly(9, 1)
    ([0, 3, 6, 9], [0, 1, 2], [4])
    """
    if n <= most:
        return list(range(n))
    if most == 1:
        return [n // 2]
    return [(2 * k * (n - 1) + most - 1) // (2 * (most - 1)) for k in range(most)]


def face_label(cluster: int, similarity: float) -> str:
    """What stands under a face.

    >>> face_label(0, 0.834), face_label(2, -0.05), face_label(1, 1.0), face_label(-1, 0.5)
    ('0  .83', '2  -.05', '1  1.00', 'unusable')
    """
    if cluster == UNUSABLE:
        return "unusable"
    if not np.isfinite(similarity):
        return f"{cluster}  n/a"
    text = f"{similarity:.2f}".replace("-0.00", "0.00")
    short = text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
    return f"{cluster}  {short}"


def decode_crop(crop: bytes | NDArray[np.uint8], number: int) -> Image.Image | None:
    """A crop as an RGB picture of at most CROP_SIZE pixels a side; None for what is no picture.

    Raises:
        VidfaceError: an array that is no picture; damaged bytes raise nothing.
    """
    if isinstance(crop, bytes):
        return open_crop(crop, _fit_crop)
    crop = np.asarray(crop)
    if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
        raise VidfaceError(
            f"crop {number} must be the bytes of a picture or an (h, w, 3) uint8 RGB array, "
            f"got the shape {crop.shape} of {crop.dtype}"
        )
    if not 0 < crop.shape[0] * crop.shape[1] <= MAX_CROP_PIXELS:
        return None
    return _fit_crop(Image.fromarray(crop))


def open_crop(
    crop: bytes, convert: Callable[[Image.Image], Image.Image | None]
) -> Image.Image | None:
    """A stranger's JPEG or PNG through `convert`; None for what is damaged, or too large."""
    if len(crop) > MAX_CROP_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged or huge pictures, which become None
            image = Image.open(io.BytesIO(crop), formats=("JPEG", "PNG"))
            return convert(image) if image.width * image.height <= MAX_CROP_PIXELS else None
    except Exception:  # a stranger's bytes never stop a drawing
        return None


def _fit_crop(image: Image.Image) -> Image.Image | None:
    image = image.convert("RGB")
    if image.size != (CROP_SIZE, CROP_SIZE):
        image = ImageOps.contain(image, (CROP_SIZE, CROP_SIZE))
    return image if min(image.size) else None  # of a thin strip nothing may be left


def _header_lines(
    canvas: ClipCanvas, faces: ClipFaces, look: SheetLook, shown: int, width: float
) -> list[tuple[str, float, str, float]]:
    """(text, size, ink, height) of the lines above the legend."""
    title = canvas.fit(faces.title, look.title_size, width) or "(no name)"
    counts = canvas.fit(faces.count_in_words(shown), look.text_size, width)
    lines = [(title, look.title_size, INK, look.title_line)]
    lines += [
        (text, look.text_size, INK, look.text_line)
        for text in (counts, *canvas.wrap(faces.diagnostics, look.text_size, width))
    ]
    if look.note_line:
        lines.append((LABEL_NOTE, look.label_size, PALE_INK, look.note_line))
    return lines


def _draw_legend(canvas: ClipCanvas, look: SheetLook, y: float) -> None:
    side = look.legend_side
    x, y = look.margin, y + (look.legend_line - side) * 3 / 8
    middle = y + side / 2
    for cluster, text in ((0, "kept"), (2, "dropped"), (1, "dropped, second cluster")):
        _draw_frames(canvas, look, x, y, side, cluster)
        canvas.fill(x + look.rim, y + look.rim, side - 2 * look.rim, GREY)
        x += side + look.gap
        canvas.text(x, middle, text, look.label_size, INK, "lm")
        x += round(canvas.text_width(text, look.label_size)) + 3 * look.gap
    if not look.note_line:
        canvas.text(x, middle, LABEL_NOTE, look.label_size, PALE_INK, "lm")


def _draw_frames(
    canvas: ClipCanvas, look: SheetLook, x: float, y: float, side: float, cluster: int
) -> None:
    """The frames of a cell whose upper left corner is (x, y), outside of its face."""
    if cluster == 0:
        return
    canvas.outline(x, y, side, look.outer, RED)
    if cluster == 1:
        inset = look.outer
        canvas.outline(x + inset, y + inset, side - 2 * inset, look.inner, BLUE)
