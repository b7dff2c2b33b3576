"""Every parser holds against mutated files; the harness finds what it is there to find."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.fuzz.harness import SECONDS, Target, run_target
from tests.fuzz.targets import TARGETS
from vidface.core.errors import VidfaceError

ROOMS = sorted({target.room for target in TARGETS.values()})
INPUTS = 2000
MOST_SECONDS = 600  # for a room; measured: 95 on an idle machine. A hang is an input's finding


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_mutated_files_are_accepted_or_refused_in_words(room: str, tmp_path: Path) -> None:
    names = [name for name, target in TARGETS.items() if target.room == room]
    notes = tmp_path / "notes"
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", *names]
    try:
        done = subprocess.run(
            [*command, "--inputs", str(INPUTS), "--notes", str(notes)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"hangs, or is too slow: python -m tests.fuzz {notes.read_text()}")
    print(done.stdout)
    if done.returncode:
        last = notes.read_text() if notes.is_file() else ""
        pytest.fail(f"exit {done.returncode}, last {last}\n{done.stdout}\n{done.stderr[-2000:]}")


def make_numbers(folder: Path) -> None:
    (folder / "numbers.txt").write_text("3 4 5\n6 7 8\n")


def find(parse: object, inputs: int = 40) -> list[str]:
    target = Target("core", make_numbers, {"*.txt": "lines"}, parse)  # type: ignore[arg-type]
    outcome = run_target("numbers", target, range(inputs))
    again = run_target("numbers", target, range(inputs))
    assert outcome.findings == again.findings
    for what, number in outcome.findings.items():  # one command repeats a finding
        assert what in run_target("numbers", target, range(number, number + 1)).findings
    return sorted(outcome.findings)


def read_numbers(path: Path) -> list[int]:
    try:
        return [int(word) for word in path.read_text().split()]
    except ValueError:
        raise VidfaceError(f"{path}: not numbers") from None


def test_a_parser_without_faults_passes() -> None:
    assert find(read_numbers) == []


def test_planted_faults_are_found(tmp_path: Path) -> None:
    def look_up(path: Path) -> None:
        {number: number for number in read_numbers(path)}[5]

    def exhaust(path: Path) -> None:
        if len(read_numbers(path)) > 6:
            raise MemoryError

    def write_outside(path: Path) -> None:
        if len(read_numbers(path)) > 6:
            (tmp_path / "outside").write_text("x")

    def run_another(path: Path) -> None:
        if len(read_numbers(path)) > 6:
            subprocess.run(["true"], check=True)

    assert any(what.startswith("KeyError") for what in find(look_up))
    assert find(exhaust) == ["MemoryError at ?:0"]
    assert find(write_outside) == ["open outside of its folder"]
    assert find(run_another) == ["subprocess.Popen"]


def test_a_hang_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(path: Path) -> None:
        if len(read_numbers(path)) > 6:
            time.sleep(SECONDS)

    monkeypatch.setattr("tests.fuzz.harness.SECONDS", 0.02)
    assert find(hang) == ["_TooLongError at ?:0"]


def test_an_input_that_ends_at_the_first_check_reached_no_depth() -> None:
    def refuse(path: Path) -> None:
        if path.read_bytes() != b"3 4 5\n6 7 8\n":
            raise VidfaceError("damaged")

    target = Target("core", make_numbers, {"*.txt": "lines"}, refuse)
    assert run_target("numbers", target, range(50)).reached < 0.5
    target = Target("core", make_numbers, {"*.txt": "lines"}, read_numbers)
    assert run_target("numbers", target, range(50)).accepted > 5
