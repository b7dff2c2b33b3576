"""The lines of lists that people pass around: numbered, UTF-8, none longer than it should be."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors

LONGEST_LINE_BYTES = 2**16

LISTED_PROBLEMS = 20

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")  # a tab may separate


@dataclass
class Problems:
    """What is wrong on which lines of a stranger's file; raises once there are many."""

    what: str
    listed: list[str] = field(default_factory=list)

    def add(self, line: int, text: str) -> None:
        """Note a problem; raises VidfaceError once there are `LISTED_PROBLEMS`."""
        self.listed.append(f"line {line}: {text}")
        if len(self.listed) == LISTED_PROBLEMS:
            self.refuse("; the rest was not read")

    def refuse(self, tail: str = "") -> None:
        """Raises VidfaceError if there are any."""
        if self.listed:
            text = "; ".join(self.listed)
            raise VidfaceError(f"{self.what}: {len(self.listed)} problem(s): {text}{tail}")


class FirstProblem(Problems):
    """Raises at the first problem, so that what follows may rely on the lines before."""

    def add(self, line: int, text: str) -> None:
        raise VidfaceError(f"{self.what}, line {line}: {text}")


def open_list(path: Path, what: str) -> BinaryIO:
    """The file, to be read in binary; VidfaceError where there is none."""
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # a NUL byte in the name is a ValueError
        raise VidfaceError(f"{what}: {getattr(error, 'strerror', None) or error}") from None


def decoded_lines(
    file: BinaryIO, problems: Problems, longest_bytes: int = LONGEST_LINE_BYTES
) -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its end) of every line; one that is not UTF-8 is a problem.

    Raises:
        VidfaceError: a line of more than `longest_bytes`, or the file can't be read.
    """
    number = 0
    with named_errors(problems.what):
        while data := file.readline(longest_bytes + 1):
            number += 1
            if len(data) > longest_bytes:
                raise VidfaceError(
                    f"{problems.what}, line {number}: longer than {longest_bytes} bytes; "
                    "is it a text file, with a pair or an image a line?"
                )
            try:
                text = data.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                problems.add(number, "not UTF-8; save it as UTF-8")
                continue
            yield number, text.rstrip("\r\n")


def numbered_lines(file: BinaryIO, what: str) -> Iterator[tuple[int, str]]:
    """(line number from 1, stripped text) of every line that is not blank.

    Raises:
        VidfaceError: a line that is not UTF-8 or longer than `LONGEST_LINE_BYTES`.

    >>> list(numbered_lines(io.BytesIO(b"a b\\r\\n\\n  c\\n"), "list"))
    [(1, 'a b'), (3, 'c')]
    """
    for number, line in decoded_lines(file, FirstProblem(what)):
        if text := line.strip():
            yield number, text


def numbered_words(
    path: Path, problems: Problems, most_bytes: int
) -> Iterator[tuple[int, list[str]]]:
    """(line number, its words, at least one) of the lines of a small file that are not blank.

    White space of any kind separates words. Lines with control characters and words that can't be
    printed are problems.

    Raises:
        VidfaceError: a file of more than `most_bytes`, or one that can't be read.
    """
    with open_list(path, problems.what) as file, named_errors(problems.what):
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise VidfaceError(f"{problems.what}: more than {most_bytes:,} bytes; is this the list?")
    for number, text in decoded_lines(io.BytesIO(data), problems, most_bytes):
        words = text.split()
        if control := _CONTROL.search(text):
            problems.add(number, f"control character {control[0]!r}")
        elif unprintable := [word for word in words if not word.isprintable()]:
            problems.add(
                number, f"{ascii(unprintable[0])[:80]} has characters that can't be printed"
            )
        elif words:
            yield number, words


def numbered_rows(
    file: BinaryIO, what: str, width: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """(line number, stripped fields) of every line that is not blank.

    The first line tells what separates the fields: commas if it has two or more, else white space,
    or tabs alone where they give `width` fields. In comma-separated lines quotes work as in CSV,
    within a line.

    >>> list(numbered_rows(io.BytesIO(b'a, "b, c",1\\nd ,e,0'), "list"))
    [(1, ['a', 'b, c', '1']), (2, ['d', 'e', '0'])]
    """
    has_commas = None
    for number, text in numbered_lines(file, what):
        if has_commas is None:
            has_commas = text.count(",") >= 2
        yield number, comma_fields(text, number, what) if has_commas else word_fields(text, width)


def word_fields(text: str, width: int | None) -> list[str]:
    """Fields between white space, or between tabs if those make `width`: names may hold spaces.

    >>> word_fields("ann lee\\t1\\t2", 3), word_fields("ann 1\\t2", 3)
    (['ann lee', '1', '2'], ['ann', '1', '2'])
    """
    if "\t" in text:
        fields = [field.strip() for field in text.split("\t")]
        if len(fields) == width and all(fields):
            return fields
    return text.split()


def comma_fields(text: str, number: int, what: str) -> list[str]:
    """The stripped fields of one comma-separated line, with quotes as in CSV."""
    if '"' not in text:
        return [field.strip() for field in text.split(",")]
    try:
        fields = next(csv.reader([text], strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise VidfaceError(f"{what}, line {number}: {error}") from None
    return [field.strip() for field in fields]


def parse_whole_number(text: str) -> int | None:
    """A whole number in plain digits; None for '-1', '1_0', '²' and more than nine digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def named_columns(
    fields: Sequence[str], known: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """The places of each column that a header names, in any case, under one of its known names."""
    places: dict[str, list[int]] = {}
    for i, text in enumerate(fields):
        for column, names in known.items():
            if text.lower() in names:
                places.setdefault(column, []).append(i)
    return places


def single_places(
    places: Mapping[str, Sequence[int]], fields: Sequence[str], where: str
) -> dict[str, int]:
    """The one place of each column; VidfaceError where a header names one twice."""
    for column, numbers in places.items():
        if len(numbers) > 1:
            twice = " and ".join(f"'{fields[i][:80]}'" for i in numbers)
            raise VidfaceError(f"{where}: the header names '{column}' twice, {twice}")
    return {column: numbers[0] for column, numbers in places.items()}
