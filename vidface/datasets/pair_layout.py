"""How a list of pairs is laid out, and what its words mean: told from its first line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.datasets.lines import (
    comma_fields,
    named_columns,
    numbered_lines,
    single_places,
    word_fields,
)

SAME_WORDS: dict[str, bool] = {
    **dict.fromkeys(("1", "true", "same", "yes", "genuine"), True),
    **dict.fromkeys(("0", "false", "different", "no", "impostor", "diff"), False),
}
"""How a list may say whether a pair is one person, in any case."""

COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "first": (
        *("a", "first", "first name", "template_1", "enroll", "enroll_template_id"),
        *("img1", "image1", "path1", "file1", "img_1", "image_1", "path_1", "file_1"),
    ),
    "second": (
        *("b", "second", "second name", "template_2", "verif", "verif_template_id"),
        *("img2", "image2", "path2", "file2", "img_2", "image_2", "path_2", "file_2"),
    ),
    "same": ("same", "label", "is same", "is_same", "issame"),
    "fold": ("fold", "split", "split number"),
}
"""What a header may call the columns, in any case; `fold` may be missing."""


@dataclass(frozen=True)
class PairLayout:
    """Where a line has what; told from the first line."""

    first: int
    second: int
    same: int
    fold: int | None
    width: int  # fields a line
    separator: str  # what it is if it is always the same: "," or " " or a tab
    header: list[str] | None
    header_line: int  # its number
    named: bool  # the header names the columns
    data_start: int  # bytes before the first pair


def read_layout(file: BinaryIO, what: str) -> PairLayout:
    """What the first line that is not blank says of the others; the file stands behind it then."""
    line, text = next(numbered_lines(file, what), (0, ""))
    if not line:
        raise VidfaceError(f"{what}: the file is empty; there should be a pair a line")
    after = file.tell()
    comma = text.count(",") >= 2
    fields = comma_fields(text, line, what) if comma else text.split()
    between_tabs = word_fields(text, text.count("\t") + 1)  # names may hold spaces
    if not comma and (len(between_tabs) == 3 or names_columns(between_tabs)):
        fields = between_tabs
    by_tabs = "\t" in text and (" " not in text or fields != text.split())
    separator = "," if comma else "\t" if by_tabs else " "
    width = len(fields)
    if names_columns(fields):
        columns = named_columns(fields, COLUMN_NAMES)
        place = single_places(columns, fields, f"{what}, line {line}")
        first, second, same = place["first"], place["second"], place["same"]
        fold = place.get("fold")
        return PairLayout(first, second, same, fold, width, separator, fields, line, True, after)
    if width != 3:
        known = "; ".join(f"{field}: {', '.join(names)}" for field, names in COLUMN_NAMES.items())
        raise VidfaceError(
            f"{what}, line {line}: {width} field(s) where a pair is due as three, 'a b same'; "
            f"other columns need a header that names first, second and same ({known})"
        )
    # A number may be a label that we don't know, like "-1", and so is no header.
    if fields[2].lower() in SAME_WORDS or re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", fields[2]):
        return PairLayout(0, 1, 2, None, 3, separator, None, line, False, 0)
    return PairLayout(0, 1, 2, None, 3, separator, fields, line, False, after)


def names_columns(fields: Sequence[str]) -> bool:
    """Whether a line is a header that names the columns a pair needs."""
    return {"first", "second", "same"} <= named_columns(fields, COLUMN_NAMES).keys()


PairColumns = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.bool_],
    NDArray[np.int64] | None,
    Iterable[str],
]
"""first, second, same, the list's own fold numbers, and the names that it found."""


def parse_same(word: str) -> bool | None:
    """Whether a word says that a pair is one person; None for a word that is not known."""
    return SAME_WORDS.get(word.lower())


def unknown_word(word: str, line: int, what: str) -> VidfaceError:
    """The error for a word that says neither."""
    return VidfaceError(
        f"{what}, line {line}: {quote_name(word)} does not say whether the pair is one person "
        f"(known: {', '.join(SAME_WORDS)})"
    )


def quote_name(name: str) -> str:
    """A stranger's name as messages show it: quoted, and cut."""
    return repr(name[:80])
