"""Tables fit 80 columns where they are piped; what people copy is never cut."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.cells import cell_len

from vidface.cli import score_tables
from vidface.cli.cache import format_cache
from vidface.cli.cache_listing import CacheEntry
from vidface.cli.run_tables import format_clips, format_verified
from vidface.cli.text_tables import grid, render, shorten_middle, wrap_lines
from vidface.metrics.figures import describe_points
from vidface.metrics.operating_points import OperatingPoint
from vidface.metrics.pairs import PairScore
from vidface.runs.clips import ClipLine, ClipList


def widest_row(text: str) -> int:
    """Of the lines that are no prose, in columns of a terminal."""
    return max(cell_len(line) for line in text.splitlines() if not line.startswith("lowest:"))


@pytest.mark.parametrize(
    "person", ["A long name of a person, with titles", "欧阳" * 12, "e\u0301" * 30]
)
def test_clips_fit_and_an_id_is_never_cut(person: str) -> None:
    clip_id = "a_clip_with_a_long_0012"
    lines = [
        ClipLine(clip_id, person, "train", "ok", "", 12000, 12000, 11000, 3, 1000, 0.21, 0.52, 0.3,
                 flags=("contested",)),
        ClipLine("torn", person, "val", "no_face", "the file ends in the middle of a picture " * 2,
                 0, 0),
    ]  # fmt: skip
    text = format_clips(ClipList(tuple(lines), 2, None))
    message = f"torn: {lines[1].message.strip()}\n"
    assert widest_row(text.replace(message, "")) <= 80
    assert message in text  # a sentence, whole
    assert f" {clip_id}\n" in text
    assert "left out: cosine, dropped, clusters, " in text
    assert "…" in text


def test_a_wide_terminal_shows_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    line = ClipLine("fine", "ann", "val", "ok", "", 8, 8, 8, 1, 0, 0.5, 0.1, 0.2)
    monkeypatch.setenv("COLUMNS", "200")
    assert "left out" in format_clips(ClipList((line,), 1, None))  # piped: 80, whatever it says
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    shown = format_clips(ClipList((line,), 1, None))
    assert "left out" not in shown
    assert "cosine" in shown


def test_an_empty_list_is_one_line() -> None:
    assert format_clips(ClipList((), 156, None, "is corrupt ")) == "no clip is corrupt (156 clips)"
    assert format_clips(ClipList((), 0, None)) == "no clip (0 clips)"


def test_models_and_cache_fit(tmp_path: Path) -> None:
    entry = CacheEntry("an-encoder-with-a-long-name-0001", tmp_path / "weights" / "x.onnx", 10**9,
                       "recogniser's weights, InsightFace: non-commercial research")  # fmt: skip
    text = format_cache(tmp_path, [entry])
    assert max(map(cell_len, text.splitlines()[1:])) <= 80
    assert " weights/x.onnx" in text


@pytest.mark.parametrize("rest", range(20))
def test_a_table_is_as_wide_as_it_may_be(rest: int) -> None:
    """From just too narrow to just too wide, by a column at a time."""
    text = render(grid(("name", "n"), [("x" * (60 + rest), "1" * 10)]))
    assert max(map(len, text.splitlines())) == min(80, 60 + rest + 10 + 3)
    assert ("…" in text) == (60 + rest + 13 > 80)
    assert "1" * 10 in text


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "李四王五", "e\u0301x" * 4, "a" * 100])
@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_the_middle_is_cut(text: str, width: int) -> None:
    cut = shorten_middle(text, width)
    assert cell_len(cut) <= width
    assert (cut == text) == (cell_len(text) <= width)


def point(far: str, impostor: int, needs: int | None) -> OperatingPoint:
    tar = None if needs else 0.5
    return OperatingPoint(far, tar, 0.1, None if needs else 0.0, 10, impostor, needs)


def test_targets_that_need_more_pairs_are_one_line() -> None:
    points = [point("1e-3", 7560, None), point("1e-4", 7560, 10_000), point("1e-5", 7560, 100_000)]
    table, line = describe_points("TAR", "FAR", points, "impostor pairs")
    assert [row[0] for row in table.rows] == ["1e-3"]
    assert line == "FAR ≤ 1e-4 needs ≥ 10,000 impostor pairs; there are 7,560"
    assert len(describe_points("TAR", "FAR", points[1:], "impostor pairs")) == 1  # and no table
    assert len(describe_points("TAR", "FAR", points[:1], "impostor pairs")) == 1  # and no line


def test_a_sweep_in_which_nothing_changes_is_one_line(vidface, colour_pipeline: Path) -> None:
    """Three persons' plain colours: at 0 and below every face is joined to every other."""
    flags = ("--pipeline", colour_pipeline)
    assert vidface("extract", *flags).code == 0
    same = vidface("sweep", *flags, "--thresholds", "-0.9,-0.8").out
    assert "no threshold from -0.9 to -0.8 changes anything; every face of every clip stays" in same
    assert [line.split()[0] for line in same.splitlines() if "0.0%" in line] == ["none"]
    assert "FAR ≤ 1e-1 needs ≥ 10 impostor pairs" in same
    differs = vidface("sweep", *flags, "--thresholds", "-1,0.5").out
    assert "changes anything" not in differs
    assert len([line for line in differs.splitlines() if "%" in line]) == 2
    empty = vidface("clips", *flags, "--status", "corrupt", "--status", "missing")
    assert empty.out == "no clip is corrupt or missing (7 clips)\n"


def test_a_comparison_and_verified_pairs_fit() -> None:
    difference = SimpleNamespace(a=0.9, b=0.8, value=-0.1, ci95=(-0.2, -0.1), note="held fixed",
                                 p_value=0.00123, real=True)  # fmt: skip
    compared = SimpleNamespace(
        a="a", b="b", split="val", against=" against train", clips=4, identities=100,
        bootstrap=SimpleNamespace(resamples=1000, seed=0),
        differences={f"cross_tar_at_far.1e-{k}": difference for k in range(1, 7)},
    )  # fmt: skip
    rows = score_tables.comparison(cast(Any, compared)).splitlines()
    assert max(cell_len(row) for row in rows if "…" in row or "─" in row) <= 80
    assert sum("[-0.2000, -0.1000]*" in row and row.endswith("yes") for row in rows) == 6
    points = (point("1e-1", 100, None), point("1e-3", 100, 1000))
    score = PairScore(None, None, (), (None,), 0.9, None, points, (0.1, None), 10, 100)
    verified = SimpleNamespace(score=score, flip=False, recogniser="x", pairs="p", images=3,
                               origin="", failed=())  # fmt: skip
    text = format_verified(cast(Any, verified))
    assert max(map(cell_len, text.splitlines()[4:])) <= 80  # above it is prose
    assert "FAR ≤ 1e-3 needs ≥ 1,000 impostor pairs; there are 100" in text


def test_long_sentences_wrap_between_words_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "  corrupt  clip: " + "of a message " * 12
    assert wrap_lines(text) == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    wrapped = wrap_lines(text)
    assert max(map(len, wrapped.splitlines())) <= 80
    assert wrapped.split() == text.split()
