"""An extraction killed at random moments, again and again, and its unbroken twin."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import write_crop
from tests.runs.test_extraction import content
from vidface.runs.run_folder import RunFolder
from vidface.runs.staging import ABOUT

KILLS = 30
CLIPS = 48

pytestmark = pytest.mark.slow


@pytest.fixture
def pipeline(tmp_path: Path, colour_network: Path) -> Path:
    """48 clips of one to five faces; every seventh is broken, one is missing."""
    colours = ("red", "green", "blue", "yellow")
    lines = ["clip_id,path,identity,split"]
    for number in range(CLIPS):
        for k in range(1 + number % 5):
            write_crop(tmp_path / "set" / str(number) / f"{k}.png", colours[number % 4], seed=k)
        if number % 7 == 3:
            (tmp_path / "set" / str(number) / "0.png").write_bytes(b"broken")
        lines.append(f"c{number},{number if number != 20 else 'gone'},p{number % 4},val")
    (tmp_path / "set" / "m.csv").write_text("\n".join(lines))
    path = tmp_path / "kills.toml"
    path.write_text(
        f"""
[manifest]
path = "set/m.csv"
allow_missing = true
[faces]
source = "aligned"
keep_crops = true
[backbone]
weights = "{colour_network.as_posix()}"
color = "rgb"
mean = 127.5
std = 127.5
[run]
shard_clips = 3
workers = 2
"""
    )
    return path


def start(pipeline: Path, run: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vidface", "extract", "--pipeline", pipeline, "--run", run]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=pipeline.parent,
        text=True,
    )


def test_thirty_kills_change_nothing(pipeline: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    whole = start(pipeline, tmp_path / "whole")
    whole.communicate(timeout=120)
    seconds = time.monotonic() - begun
    assert whole.returncode == 3  # some clips failed
    drawn = random.Random(0)
    folder = tmp_path / "killed"
    kills, finished, resumed = 0, 0, 0
    while kills < KILLS:
        process = start(pipeline, folder)
        # From before anything is there to a little after all of it is.
        time.sleep(drawn.uniform(0.2, 1.05) * seconds)
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        if process.returncode == -signal.SIGKILL:
            kills += 1
        else:
            assert process.returncode == 3, said
        resumed += "going on with an extraction that was begun" in said
        if (folder / "clips.parquet").is_file():
            finished += 1
            assert content(RunFolder(folder)) == content(RunFolder(tmp_path / "whole"))
            for path in (folder / "clips.parquet", folder / "run.json"):
                path.unlink(missing_ok=True)  # and from the beginning
    last = start(pipeline, folder)
    last.communicate(timeout=120)
    assert last.returncode == 3
    assert content(RunFolder(folder)) == content(RunFolder(tmp_path / "whole"))
    assert not list(folder.rglob("*.part"))
    assert resumed > 0


def test_kills_between_edits_of_the_manifest_mix_nothing(pipeline: Path, tmp_path: Path) -> None:
    """Clips go and come back elsewhere while an extraction is made, or extended, and killed."""
    manifest, folder = tmp_path / "set" / "m.csv", tmp_path / "edited"
    header, *lines = manifest.read_text().splitlines()
    drawn = random.Random(1)
    begun = time.monotonic()
    start(pipeline, folder).communicate(timeout=120)
    seconds, kills = time.monotonic() - begun, 0
    for _ in range(6):
        some = drawn.sample(lines, drawn.randint(20, len(lines)))
        manifest.write_text("\n".join([header, *some]))
        process = start(pipeline, folder)
        time.sleep(drawn.uniform(0.4, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
    last, fresh = start(pipeline, folder), start(pipeline, tmp_path / "fresh")
    for process in (last, fresh):
        process.communicate(timeout=120)
    assert content(RunFolder(folder)) == content(RunFolder(tmp_path / "fresh"))
    assert not list(folder.glob(".extracting*"))
    assert kills > 1


def test_the_workers_of_a_killed_run_end_with_it(pipeline: Path, tmp_path: Path) -> None:
    process = start(pipeline, tmp_path / "run")
    deadline = time.monotonic() + 60
    while not (children := children_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert children
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))


def children_of(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_second_process_is_refused_while_the_first_works(pipeline: Path, tmp_path: Path) -> None:
    first = start(pipeline, tmp_path / "run")
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / ".extracting" / ABOUT).is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = start(pipeline, tmp_path / "run")
        _, said = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"in use by process {first.pid} on " in said
        assert len(said.strip().splitlines()) == 1
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.communicate(timeout=120)
    assert first.returncode == 3
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["run"]["shard_clips"] == 3
