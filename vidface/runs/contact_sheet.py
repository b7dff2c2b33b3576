"""Contact sheets: the aligned faces of a clip in time order, and what noise removal made of them.

After Figures 3 and 4 of Chai et al., "A Progressive Learning Framework for Unconstrained Face
Recognition": kept faces stand bare, dropped ones in a red frame. Here the second cluster, which may
be a second person, has a blue frame inside of the red one, so that hue alone decides nothing, and
the two hues stay apart for colour-blind eyes.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.core.values import UNUSABLE

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont
    from PIL.Image import Image


MAX_FACES = 400
"""How many faces a sheet shows unless told otherwise."""

MOST_FACES = 900
"""How many it may be told to show: the sheet stays under WebP's 16,383 pixels a side."""

MAX_CROP_PIXELS = 4_000_000
"""A crop with more pixels is not decoded; aligned faces have 12,544."""

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""What `write_sheet` writes, by the suffix of the file's name."""

_RED, _BLUE = (204, 26, 26), (0, 130, 200)
_PAPER, _INK, _PALE_INK = (255, 255, 255), (32, 32, 32), (110, 110, 110)
_GREY = (208, 208, 208)
_FACE = 112  # pixels a side
_OUTER, _INNER = 5, 4  # widths of the frames, both outside of the face
_RIM = _OUTER + _INNER
_CELL = _FACE + 2 * _RIM
_GAP, _MARGIN = 8, 20
_TITLE_SIZE, _TEXT_SIZE, _LABEL_SIZE = 24, 16, 15
_LINE = 19  # pixels from one label to the next
_MAX_WIDTH, _MIN_COLUMNS = 1600, 6  # the legend needs about six columns
_DIAGNOSTICS_LINES = 3
_LONGEST_TEXT = 600  # characters that are looked at; more fits on no sheet


def draw_sheet(
    crops: Sequence[bytes | NDArray[np.uint8]],
    clusters: NDArray[np.integer[Any]],
    similarities: NDArray[np.floating[Any]],
    captions: Sequence[str] | None = None,
    *,
    title: str,
    diagnostics: str = "",
    max_faces: int = MAX_FACES,
) -> Image:
    """Draw the faces of one clip, in the order given, which should be time order.

    Faces outside of cluster 0 get a red frame, those of cluster 1 a blue one inside of it. Under
    each stand its cluster and its cosine to the clip's descriptor, `0  .83`, or `unusable`, and its
    caption. Of a longer clip `max_faces` are drawn, evenly spaced, the first and the last among
    them; the header counts all. Bytes that are no picture make a grey cell, "unreadable".

    Args:
        crops: n JPEG (or PNG) files as bytes, or (h, w, 3) uint8 RGB arrays; any size, drawn
            112 pixels large. Only those that are drawn are looked at.
        clusters: (n,) integers, as `vidface.noise.clusters.cluster_frames` gives them; −1 is
            unusable.
        similarities: (n,) floats in [−1, 1]; what is not finite is written `n/a`.
        captions: n texts, such as `1.25 s`; None for none.
        title: the clip's name; anything at all. What the font lacks is drawn without its accent or
            as `?`, what is too long is cut in the middle.
        diagnostics: what is to be said of the clip; wrapped to three lines at most.
        max_faces: 1 to 900.

    Returns:
        An RGB image at most 1,600 pixels wide and 16,383 high.

    Raises:
        VidfaceError: lengths that disagree, a crop that is no such array, max_faces out of range.

    >>> import numpy as np
    >>> faces = [np.zeros((112, 112, 3), np.uint8)] * 3
    >>> sheet = draw_sheet(faces, np.array([0, 0, 1]), np.array([0.9, 0.8, 0.1]), title="clip 1")
    >>> sheet.mode, sheet.width
    ('RGB', 860)
    """
    from PIL import Image, ImageDraw

    clusters, similarities = _check(crops, clusters, similarities, captions, max_faces)
    shown = _evenly(len(crops), max_faces)
    columns = _columns(len(shown))
    width = 2 * _MARGIN + columns * (_CELL + _GAP) - _GAP
    header = _header(title, _counts(clusters, len(shown)), diagnostics, width - 2 * _MARGIN)
    top = _MARGIN + sum(height for height, _ in header) + _GAP
    cell_height = _CELL + _LINE * (1 if captions is None else 2) + _GAP
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (width, top + rows * (cell_height + _GAP) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)

    y = _MARGIN
    for height, draw_line in header:
        draw_line(draw, _MARGIN, y)
        y += height
    font = _font(_LABEL_SIZE)
    for place, face in enumerate(shown):
        x = _MARGIN + place % columns * (_CELL + _GAP)
        y = top + place // columns * (cell_height + _GAP)
        cluster = int(clusters[face])
        _draw_frames(draw, x, y, _CELL, cluster)
        picture = _picture(crops[face], face)
        if picture is None:
            draw.rectangle(_box(x + _RIM, y + _RIM, _FACE), fill=_GREY)
            middle = (x + _CELL // 2, y + _CELL // 2)
            draw.text(middle, "unreadable", fill=_INK, font=font, anchor="mm")
        else:
            left = x + _RIM + (_FACE - picture.width) // 2
            sheet.paste(picture, (left, y + _RIM + (_FACE - picture.height) // 2))
        lines = [(_face_label(cluster, float(similarities[face])), _INK)]
        if captions is not None:
            lines.append((_fit(captions[face], font, _CELL), _PALE_INK))
        for number, (text, ink) in enumerate(lines):
            at = (x + _CELL // 2, y + _CELL + number * _LINE)
            draw.text(at, text, fill=ink, font=font, anchor="ma")
    return sheet


def write_sheet(path: Path, sheet: Image) -> None:
    """Write a sheet as PNG, JPEG or WebP, by the suffix of `path`; complete or not at all.

    Raises:
        VidfaceError: another suffix, or a file that cannot be written.
    """
    check_sheet_path(path)
    kind = SUFFIXES[path.suffix.lower()]
    options: dict[str, Any] = {
        "PNG": {},
        "JPEG": {"quality": 92, "subsampling": 0},  # red frames bleed with halved colours
        "WEBP": {"quality": 90},
    }[kind]
    buffer = io.BytesIO()
    sheet.save(buffer, format=kind, **options)
    with atomic_file(path) as file:
        file.write(buffer.getbuffer())


def check_sheet_path(path: Path) -> None:
    """Refuse a name that `write_sheet` would refuse, before anything is drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise VidfaceError(
            f"{path}: a sheet is written as {', '.join(SUFFIXES)}; give it one of these suffixes"
        )


def _check(
    crops: Sequence[Any],
    clusters: NDArray[np.integer[Any]],
    similarities: NDArray[np.floating[Any]],
    captions: Sequence[str] | None,
    max_faces: int,
) -> tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]:
    n = len(crops)
    clusters, similarities = np.asarray(clusters), np.asarray(similarities)
    if clusters.shape != (n,) or (n and clusters.dtype.kind not in "iu"):
        raise VidfaceError(
            f"clusters must be ({n},) integers, one a crop, "
            f"got the shape {clusters.shape} of {clusters.dtype}"
        )
    if similarities.shape != (n,) or (n and similarities.dtype.kind != "f"):
        raise VidfaceError(
            f"similarities must be ({n},) floats, one a crop, "
            f"got the shape {similarities.shape} of {similarities.dtype}"
        )
    if captions is not None and len(captions) != n:
        raise VidfaceError(f"{len(captions)} captions for {n} crops; give one a crop, or None")
    if not 1 <= max_faces <= MOST_FACES:
        raise VidfaceError(f"max_faces must lie in [1, {MOST_FACES}], got {max_faces}")
    return clusters, similarities


def _evenly(n: int, most: int) -> list[int]:
    """`most` of n rows at most, as evenly spaced as integers are, both ends among them.

    >>> _evenly(10, 4), _evenly(3, 4), _evenly(9, 1)
    ([0, 3, 6, 9], [0, 1, 2], [4])
    """
    if n <= most:
        return list(range(n))
    if most == 1:
        return [n // 2]
    return [(2 * k * (n - 1) + most - 1) // (2 * (most - 1)) for k in range(most)]


def _columns(n: int) -> int:
    fit = (_MAX_WIDTH - 2 * _MARGIN + _GAP) // (_CELL + _GAP)
    return min(fit, max(n, _MIN_COLUMNS))


def _counts(clusters: NDArray[np.integer[Any]], shown: int) -> str:
    n = len(clusters)
    if not n:
        return "no faces"
    kept, unusable = np.count_nonzero(clusters == 0), np.count_nonzero(clusters == UNUSABLE)
    faces = f"{n:,} face{'' if n == 1 else 's'}"
    faces = f"{shown:,} of {faces} shown" if shown < n else faces
    dropped = f"{n - kept:,} dropped" + (f" ({unusable:,} unusable)" if unusable else "")
    return f"{faces} · {kept:,} kept · {dropped}"


def _face_label(cluster: int, similarity: float) -> str:
    """
    >>> _face_label(0, 0.834), _face_label(2, -0.05), _face_label(1, 1.0), _face_label(-1, 0.5)
    ('0  .83', '2  -.05', '1  1.00', 'unusable')
    """
    if cluster == UNUSABLE:
        return "unusable"
    if not np.isfinite(similarity):
        return f"{cluster}  n/a"
    text = f"{similarity:.2f}".replace("-0.00", "0.00")
    short = text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
    return f"{cluster}  {short}"


_Line = tuple[int, Callable[["ImageDraw.ImageDraw", int, int], None]]  # height, what draws it


def _header(title: str, counts: str, diagnostics: str, width: int) -> list[_Line]:
    """The lines above the faces, each with its height in pixels."""

    def text_line(text: str, size: int, ink: tuple[int, int, int], height: int) -> _Line:
        def paint(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
            draw.text((x, y), text, fill=ink, font=_font(size), anchor="la")

        return height, paint

    title = _fit(title, _font(_TITLE_SIZE), width) or "(no name)"
    lines = [
        text_line(title, _TITLE_SIZE, _INK, 36),
        text_line(_fit(counts, _font(_TEXT_SIZE), width), _TEXT_SIZE, _INK, 25),
    ]
    for text in _wrap(diagnostics, _font(_TEXT_SIZE), width):
        lines.append(text_line(text, _TEXT_SIZE, _INK, 25))
    lines.append((44, _draw_legend))
    return lines


def _draw_legend(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    size, font = 28, _font(_LABEL_SIZE)
    y += 6
    for cluster, text in ((0, "kept"), (2, "dropped"), (1, "dropped, second cluster")):
        _draw_frames(draw, x, y, size, cluster)
        draw.rectangle(_box(x + _RIM, y + _RIM, size - 2 * _RIM), fill=_GREY)
        x += size + 8
        draw.text((x, y + size // 2), text, fill=_INK, font=font, anchor="lm")
        x += round(font.getlength(text)) + 24
    text = "0  .83 = cluster and cosine to the clip's descriptor"
    draw.text((x, y + size // 2), text, fill=_PALE_INK, font=font, anchor="lm")


def _draw_frames(draw: ImageDraw.ImageDraw, x: int, y: int, size: int, cluster: int) -> None:
    """The frames of a cell whose upper left corner is (x, y), outside of its face."""
    if cluster == 0:
        return
    draw.rectangle(_box(x, y, size), outline=_RED, width=_OUTER)
    if cluster == 1:
        draw.rectangle(_box(x + _OUTER, y + _OUTER, size - 2 * _OUTER), outline=_BLUE, width=_INNER)


def _box(x: int, y: int, size: int) -> tuple[int, int, int, int]:
    return x, y, x + size - 1, y + size - 1  # PIL counts the last pixel in


def _picture(crop: bytes | NDArray[np.uint8], number: int) -> Image | None:
    """A crop as an RGB image that fits a cell; None where it is no picture, or too large a one."""
    from PIL import Image, ImageOps

    if not isinstance(crop, bytes):
        crop = np.asarray(crop)
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8:
            raise VidfaceError(
                f"crop {number} must be the bytes of a picture or an (h, w, 3) uint8 RGB array, "
                f"got the shape {crop.shape} of {crop.dtype}"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged or huge pictures, which become None
            if isinstance(crop, bytes):
                image: Image.Image = Image.open(io.BytesIO(crop), formats=("JPEG", "PNG"))
            else:
                image = Image.fromarray(crop)
            if image.width * image.height > MAX_CROP_PIXELS:
                return None
            image = image.convert("RGB")
            if image.size != (_FACE, _FACE):
                image = ImageOps.contain(image, (_FACE, _FACE))
            return image if min(image.size) else None  # of a thin strip nothing may be left
    except Exception:  # a stranger's bytes never stop a sheet
        return None


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise VidfaceError("this Pillow draws no text (no FreeType); install its wheel from PyPI")
    return font


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    """Whether the font draws the character itself, not the box that stands for what it lacks."""
    if not character.isprintable():
        return False
    font = _font(_TEXT_SIZE)
    lacking, drawn = font.getmask("\U0010fffd"), font.getmask(character)
    return drawn.size != lacking.size or bytes(drawn) != bytes(lacking)


_LOOK_ALIKE = str.maketrans("−–—‐‑×’‘", "-----x''")


def _drawable(text: str) -> str:
    """One line of what the bundled font has, which is little beyond ASCII.

    >>> _drawable("  José–1\\n\\x00\\u202e中 \\ud800")
    'Jose-1 ??? ?'
    """
    text = " ".join(text.translate(_LOOK_ALIKE).split())
    found = []
    for character in text:
        if _has_glyph(character):
            found.append(character)
            continue
        parts = [
            c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)
        ]
        if not unicodedata.combining(character):
            found.append("".join(c if _has_glyph(c) else "?" for c in parts))
    return "".join(found)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, drawable, with `…` for its middle where it is wider than `width` pixels."""
    if len(text) > 2 * _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + text[-_LONGEST_TEXT:]
    text = _drawable(text)

    def cut(left: int) -> str:  # names differ mostly at their ends
        return f"{text[: left // 2]}…{text[len(text) - (left - left // 2) :]}"

    return _longest(text, cut, font, width)


def _cut_end(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    return _longest(text, lambda left: f"{text[:left]}…", font, width)


def _longest(text: str, cut: Callable[[int], str], font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or as many of its characters as `cut` may leave within `width` pixels."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # cut(low) fits, or nothing does; cut(high) does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if font.getlength(cut(middle)) <= width else (low, middle)
    return cut(low)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The words of a text on lines of `width` pixels; the last one is cut where there are more."""
    lines: list[str] = []
    words = _drawable(text[: 4 * _LONGEST_TEXT]).split(" ") if text.strip() else []
    for place, word in enumerate(words):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) == _DIAGNOSTICS_LINES:
            rest = " ".join([lines[-1], *words[place:]])
            lines[-1] = _cut_end(rest, font, width)
            break
        else:
            lines.append(_cut_end(word, font, width))
    return lines
