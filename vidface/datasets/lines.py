"""The lines of lists that people pass around: numbered, UTF-8, none longer than it should be."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vidface.core.errors import VidfaceError

LONGEST_LINE_BYTES = 2**16


def open_list(path: Path, what: str) -> BinaryIO:
    """The file, to be read in binary; VidfaceError where there is none."""
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # a NUL byte in the name is a ValueError
        raise VidfaceError(f"{what}: {getattr(error, 'strerror', None) or error}") from None


def numbered_lines(file: BinaryIO, what: str) -> Iterator[tuple[int, str]]:
    """(line number from 1, stripped text) of every line that is not blank.

    Raises:
        VidfaceError: a line that is not UTF-8 or longer than `LONGEST_LINE_BYTES`.

    >>> import io
    >>> list(numbered_lines(io.BytesIO(b"a b\\r\\n\\n  c\\n"), "list"))
    [(1, 'a b'), (3, 'c')]
    """
    number = 0
    try:
        while data := file.readline(LONGEST_LINE_BYTES + 1):
            number += 1
            if len(data) > LONGEST_LINE_BYTES:
                raise VidfaceError(
                    f"{what}, line {number}: longer than {LONGEST_LINE_BYTES} bytes; "
                    "is it a text file, with a pair or an image a line?"
                )
            text = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield number, text
    except UnicodeDecodeError:
        raise VidfaceError(f"{what}, line {number}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise VidfaceError(f"{what}: {error.strerror or error}") from None


def numbered_rows(file: BinaryIO, what: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, stripped fields) of every line that is not blank.

    The first line tells what separates the fields: commas if it has two or more, else white space.
    In comma-separated lines quotes work as in CSV, within a line.

    >>> import io
    >>> list(numbered_rows(io.BytesIO(b'a, "b, c",1\\nd ,e,0'), "list"))
    [(1, ['a', 'b, c', '1']), (2, ['d', 'e', '0'])]
    """
    lines = numbered_lines(file, what)
    for number, text in lines:
        if text.count(",") < 2:
            yield number, text.split()
            yield from ((number, text.split()) for number, text in lines)
            return
        yield number, comma_fields(text, number, what)
        yield from ((number, comma_fields(text, number, what)) for number, text in lines)


def comma_fields(text: str, number: int, what: str) -> list[str]:
    """The stripped fields of one comma-separated line, with quotes as in CSV."""
    if '"' not in text:
        return [field.strip() for field in text.split(",")]
    try:
        fields = next(csv.reader([text], strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise VidfaceError(f"{what}, line {number}: {error}") from None
    return [field.strip() for field in fields]
