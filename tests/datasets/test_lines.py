"""Bounded, numbered lines: what is a problem, and what stops at the first."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from vidface.core.errors import VidfaceError
from vidface.datasets.lines import FirstProblem, Problems, decoded_lines, numbered_words


def words(path: Path, content: bytes, problems: Problems, most_bytes: int = 99) -> list:
    path.write_bytes(content)
    return list(numbered_words(path, problems, most_bytes))


def test_words_of_lines_that_are_not_blank(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa  b\r\n\n\tc\n"
    assert words(tmp_path / "l", content, Problems("list")) == [(1, ["a", "b"]), (3, ["c"])]


def test_problems_are_gathered_and_good_lines_given(tmp_path: Path) -> None:
    problems = Problems("list")
    content = "a\nb\x1b\n\u200bc\nd\n".encode() + b"\xff\n"
    assert words(tmp_path / "l", content, problems) == [(1, ["a"]), (4, ["d"])]
    assert problems.listed == [
        "line 2: control character '\\x1b'",
        "line 3: '\\u200bc' has characters that can't be printed",
        "line 5: not UTF-8; save it as UTF-8",
    ]
    with pytest.raises(
        VidfaceError, match=r"^list: 3 problem\(s\): line 2: .*; line 3: .*; line 5"
    ):
        problems.refuse()


@pytest.mark.parametrize("line", [b"b\x1b", b"\xff", b"b\x0bc", "\u200b".encode()])
def test_the_first_problem_stops(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(VidfaceError, match=r"^list, line 2: "):
        words(tmp_path / "l", b"a\n" + line + b"\nc\n", FirstProblem("list"))


def test_sizes_are_bounded(tmp_path: Path) -> None:
    assert len(words(tmp_path / "l", b"a\nb\n", Problems("list"), 4)) == 2
    with pytest.raises(VidfaceError, match=r"^list: more than 3 bytes"):
        words(tmp_path / "l", b"a\nb\n", Problems("list"), 3)
    assert list(decoded_lines(io.BytesIO(b"ab\nc"), Problems("list"), 3)) == [(1, "ab"), (2, "c")]
    with pytest.raises(VidfaceError, match=r"^list, line 1: longer than 2 bytes"):
        list(decoded_lines(io.BytesIO(b"ab\nc"), Problems("list"), 2))
