"""A first hour, as docs/quickstart.md has it, on a folder as people have them, line by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.messy_folder import write_messy_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("weights_at_hand")]


def judge(text: str, *expected: str) -> None:
    """Every line matches the pattern in its place, and there are no others."""
    lines = text.splitlines()
    for number, (line, pattern) in enumerate(zip(lines, expected, strict=False), start=1):
        assert re.fullmatch(pattern, line), f"line {number}: {line!r} is not {pattern!r}"
    assert len(lines) == len(expected), lines[len(expected) :] or expected[len(lines) :]


def test_a_first_hour(vidface, data: Path, tmp_path: Path) -> None:
    write_messy_folder(tmp_path / "My Videos", data)
    done = vidface("run", "My Videos")
    print(done.out, done.err, sep="\n=====\n")
    assert done.code == 3
