"""Tables are coloured on a terminal, plain where piped, and NO_COLOR is respected."""

import re

import pytest

from vidface.cli.run_tables import format_clips
from vidface.cli.text_tables import grid, render
from vidface.runs.clips import ClipLine, ClipList

LINES = [
    ClipLine("fine", "ann", "val", "ok", "", 8, 8),
    ClipLine("both", "ann", "val", "ok", "", 8, 8, flags=("contested",)),
    ClipLine("nobody", "ann", "val", "no_face", "", 8, 0),
    ClipLine("torn", "ann", "val", "corrupt", "no header", 0, 0),
]
COLOUR = r"\x1b\[[0-9;]*3[1-7]m"  # 31 to 37, alone or with others


def printed(monkeypatch, *, terminal, no_color=None):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    best = render(grid(["threshold", "mAP"], [["0.4", "0.9"], ["0.5", "0.8"]], best=0))
    return format_clips(ClipList(tuple(LINES), 4, None)) + "\n" + best


def colours(text, name):
    """The colours of the line that has a word."""
    [line] = [line for line in text.splitlines() if name in line and f"{name}: " not in line]
    return set(re.findall(COLOUR, line))


def test_on_a_terminal_rows_say_by_colour_what_they_are(monkeypatch):
    text = printed(monkeypatch, terminal=True)
    assert colours(text, "fine") == set()
    assert colours(text, "both") == colours(text, "nobody") == {"\x1b[33m"}
    assert colours(text, "torn") == {"\x1b[31m"}
    assert colours(text, "0.9") == {"\x1b[1;32m"}
    assert colours(text, "0.8") == set()


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color_takes_the_colours_away(monkeypatch, value, coloured):
    text = printed(monkeypatch, terminal=True, no_color=value)
    assert bool(re.search(COLOUR, text)) == coloured
    assert "\x1b[1m" in text  # bold is no colour


def test_piped_text_is_plain_and_the_same_whatever_no_color_says(monkeypatch):
    plain = printed(monkeypatch, terminal=False)
    assert "\x1b" not in plain
    assert printed(monkeypatch, terminal=False, no_color="1") == plain
    on_terminal = printed(monkeypatch, terminal=True)
    bare = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal)
    assert bare.split() == plain.split()  # a terminal wraps long sentences
