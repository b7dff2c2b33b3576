"""Contact sheets: a clip's faces as a picture of any length, by Pillow."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import output_file
from vidface.core.fitting import cut_end, fit_by_cutting
from vidface.core.values import CROP_SIZE
from vidface.runs.clip_drawing import ClipFaces, SheetLook, draw_clip_faces

MAX_FACES = 400
"""How many faces a sheet shows unless told otherwise."""

MOST_FACES = 900
"""How many it may be told to show: the sheet stays under WebP's 16,383 pixels a side."""

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""What `write_sheet` writes, by the suffix of the file's name."""

_LOOK = SheetLook(
    face=CROP_SIZE, outer=5, inner=4, gap=8, margin=20, title_size=24, text_size=16, label_size=15,
    title_line=36, text_line=25, label_line=19, legend_line=44, legend_side=28,
    min_columns=6, max_columns=11,
)  # fmt: skip
# The legend needs about six columns; eleven are 1,558 pixels wide.

_DIAGNOSTICS_LINES = 3
_LONGEST_TEXT = 600  # characters that are looked at; more fits on no sheet


def draw_sheet(faces: ClipFaces, *, max_faces: int = MAX_FACES) -> Image.Image:
    """Draw the faces of one clip, each 112 pixels large.

    What the font lacks of a text is drawn without its accent or as `?`; a name that is too long is
    cut in the middle, diagnostics are wrapped to three lines.

    Args:
        max_faces: 1 to 900; of a longer clip as many are drawn, evenly spaced.

    Returns:
        An RGB image at most 1,600 pixels wide and 16,383 high.

    Raises:
        VidfaceError: a crop that is no picture's array, max_faces out of range.

    >>> import numpy as np
    >>> crops = [np.zeros((112, 112, 3), np.uint8)] * 3
    >>> faces = ClipFaces("clip 1", crops, np.array([0, 0, 1]), np.array([0.9, 0.8, 0.1]))
    >>> sheet = draw_sheet(faces)
    >>> sheet.mode, sheet.width
    ('RGB', 860)
    """
    if not 1 <= max_faces <= MOST_FACES:
        raise VidfaceError(f"max_faces must lie in [1, {MOST_FACES}], got {max_faces}")
    canvas = _SheetCanvas()
    draw_clip_faces(canvas, faces, _LOOK, max_faces)
    return canvas.sheet


def draw_side_by_side(clips: Sequence[ClipFaces], *, most: int = 6) -> Image.Image:
    """Draw the faces of several clips that are most like their descriptor, a sheet beside a sheet.

    Args:
        most: faces of each clip: kept ones, in time order.
    """
    sheets = [draw_sheet(_choose_best(faces, most)) for faces in clips]
    size = sum(sheet.width for sheet in sheets), max(sheet.height for sheet in sheets)
    canvas = Image.new("RGB", size, "white")
    left = 0
    for sheet in sheets:
        canvas.paste(sheet, (left, 0))
        left += sheet.width
    return canvas


def _choose_best(faces: ClipFaces, most: int) -> ClipFaces:
    """The kept faces with the highest similarity."""
    kept = np.flatnonzero(np.asarray(faces.clusters) == 0)
    similarities = np.nan_to_num(faces.similarities[kept], nan=-2.0)
    chosen = np.sort(kept[np.argsort(-similarities, kind="stable")[:most]])
    captions = faces.captions
    return replace(
        faces,
        crops=[faces.crops[face] for face in chosen],
        clusters=faces.clusters[chosen],
        similarities=faces.similarities[chosen],
        captions=None if captions is None else [captions[face] for face in chosen],
    )


def write_sheet(path: Path, sheet: Image.Image) -> None:
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
    with output_file(path) as file:
        file.write(buffer.getbuffer())


def check_sheet_path(path: Path) -> None:
    """Refuse a name that `write_sheet` would refuse, before anything is drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: a sheet is written as {', '.join(SUFFIXES)}; give it one of these suffixes"
        )


class _SheetCanvas:
    """A `ClipCanvas` of pixels."""

    sheet: Image.Image
    _draw: ImageDraw.ImageDraw

    def begin(self, width: float, height: float) -> None:
        self.sheet = Image.new("RGB", (int(width), int(height)), "white")
        self._draw = ImageDraw.Draw(self.sheet)

    def fill(self, x: float, y: float, side: float, colour: str) -> None:
        self._draw.rectangle(_box(x, y, side), fill=colour)

    def outline(self, x: float, y: float, side: float, width: float, colour: str) -> None:
        self._draw.rectangle(_box(x, y, side), outline=colour, width=int(width))

    def picture(self, x: float, y: float, side: float, image: Image.Image) -> None:
        left, top = x + (side - image.width) // 2, y + (side - image.height) // 2
        self.sheet.paste(image, (int(left), int(top)))

    def text(self, x: float, y: float, text: str, size: float, ink: str, anchor: str) -> None:
        self._draw.text((int(x), int(y)), text, fill=ink, font=_font(size), anchor=anchor)

    def fit(self, text: str, size: float, width: float) -> str:
        if len(text) > 2 * _LONGEST_TEXT:
            text = text[:_LONGEST_TEXT] + text[-_LONGEST_TEXT:]
        return fit_by_cutting(_drawable(text), lambda t: self.text_width(t, size) <= width)

    def wrap(self, text: str, size: float, width: float) -> list[str]:
        """The words of a text on lines; the last one is cut where there are more."""

        def fits(line: str) -> bool:
            return self.text_width(line, size) <= width

        lines: list[str] = []
        words = _drawable(text[: 4 * _LONGEST_TEXT]).split(" ") if text.strip() else []
        for place, word in enumerate(words):
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and fits(longer):
                lines[-1] = longer
            elif len(lines) == _DIAGNOSTICS_LINES:
                rest = " ".join([lines[-1], *words[place:]])
                lines[-1] = fit_by_cutting(rest, fits, cut_end)
                break
            else:
                lines.append(fit_by_cutting(word, fits, cut_end))
        return lines

    def text_width(self, text: str, size: float) -> float:
        return _font(size).getlength(text)


def _box(x: float, y: float, size: float) -> tuple[float, float, float, float]:
    return x, y, x + size - 1, y + size - 1  # Pillow counts the last pixel in


@lru_cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise VidfaceError("this Pillow draws no text (no FreeType); install its wheel from PyPI")
    return font


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    """Whether the font draws the character itself, not the box that stands for what it lacks."""
    if not character.isprintable():
        return False
    font = _font(_LOOK.text_size)
    lacking, drawn = font.getmask("\U0010fffd"), font.getmask(character)
    return drawn.size != lacking.size or bytes(drawn) != bytes(lacking)


_LOOK_ALIKE = str.maketrans("−–—‐‑×’‘", "-----x''")


def _drawable(text: str) -> str:
    """One line of what the bundled font has, which is little beyond ASCII.

    >>> _drawable("  José–1\\n\\x00\\u202e中 \\ud800")
    'Jose-1 ??? ?'
    """
    drawable = []
    for character in " ".join(text.translate(_LOOK_ALIKE).split()):
        if _has_glyph(character):
            drawable.append(character)
        elif not unicodedata.combining(character):
            parts = unicodedata.normalize("NFKD", character)
            letters = [c for c in parts if not unicodedata.combining(c)]
            drawable.append("".join(c if _has_glyph(c) else "?" for c in letters))
    return "".join(drawable)
