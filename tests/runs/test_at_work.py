"""Two commands on one run directory at once: which go side by side, and which are refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_colour_clips, write_colour_pipeline
from vidface.core.errors import VidfaceError
from vidface.reports.page import write_report
from vidface.runs.clips import list_clips
from vidface.runs.exports import export_lfrc
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.runs.run_folder import RunFolder
from vidface.runs.scoring import score
from vidface.runs.sweeps import sweep
from vidface.settings.pipeline import load_pipeline

COMMANDS: dict[str, Callable[[Run], Any]] = {
    "extract": lambda run: extract(run, force=True),
    "cluster 0.5": lambda run: cluster(run, 0.5),
    "cluster 0.9": lambda run: cluster(run, 0.9),
    "score 0.5": lambda run: score(run, 0.5),
    "score 0.9": lambda run: score(run, 0.9),
    "sweep": lambda run: sweep(run, [0.5, 0.9]),
    "clips": lambda run: list_clips(run),
    "export": lambda run: export_lfrc(run, run.folder.folder.parent / "a.bin"),
    "report": lambda run: write_report(
        [run.folder.folder], run.folder.folder.parent / "report.html"
    ),
}
WRITERS = ("extract", "cluster 0.5", "cluster 0.9", "score 0.5", "score 0.9", "sweep")


def clash(at_work: str, second: str) -> bool:
    """What docs/running.md says: the table, as a rule."""
    if second not in WRITERS:
        return False
    if "extract" in (at_work, second) or at_work == second:
        return True
    return {at_work.split()[0], second.split()[0]} == {"cluster", "score"} and (
        at_work.split()[1] == second.split()[1]
    )


@pytest.fixture(scope="module")
def run(colour_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("at_work")
    clips = write_colour_clips(folder / "set")
    pipeline = load_pipeline(write_colour_pipeline(folder / "a.toml", clips, colour_network))
    opened = open_run(replace(pipeline, run=replace(pipeline.run, dir=folder / "run")))
    extract(opened)
    for threshold in (0.5, 0.9):
        cluster(opened, threshold)
    return opened


@contextmanager
def paused(command: Callable[[Run], Any], run: Run, monkeypatch) -> Iterator[None]:
    """Let a command stand still in the middle of its work, until the end."""
    begun, go_on, failures = threading.Event(), threading.Event(), []
    at_work = RunFolder.at_work

    @contextmanager
    def stop(self: RunFolder, what: str, **named: Any) -> Iterator[None]:
        with at_work(self, what, **named):
            if threading.current_thread() is thread:
                begun.set()
                assert go_on.wait(60)
            yield

    def work() -> None:
        try:
            command(run)
        except BaseException as error:
            failures.append(error)
            begun.set()

    monkeypatch.setattr(RunFolder, "at_work", stop)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        go_on.set()
        thread.join(60)
    assert failures == []


@pytest.mark.parametrize("at_work", WRITERS)
def test_every_pair(run: Run, monkeypatch: pytest.MonkeyPatch, at_work: str) -> None:
    refusals: dict[str, str] = {}
    with paused(COMMANDS[at_work], run, monkeypatch):
        for second, command in COMMANDS.items():
            try:
                command(run)
            except VidfaceError as error:
                refusals[second] = str(error)
    assert {second: second in refusals for second in COMMANDS} == {
        second: clash(at_work, second) for second in COMMANDS
    }
    for message in refusals.values():
        assert f"in use by process {os.getpid()} on" in message
        assert f"({at_work.split()[0]}); wait for it to end" in message
    if at_work == "extract":  # it went on, and took the clusterings with it
        for threshold in (0.5, 0.9):
            cluster(run, threshold)


def test_the_table_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "running.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1:-1] for row in text.splitlines() if row.startswith("| at work: ")]
    short = {
        "extract": "extract",
        "cluster X": "cluster 0.5",
        "score X": "score 0.5",
        "cluster Y": "cluster 0.9",
        "sweep": "sweep",
        "readers": "clips",
    }
    columns = list(short)
    assert len(rows) == 4
    for (head, *cells), (number, name) in product(rows, enumerate(columns)):
        at_work = short[head.strip().removeprefix("at work: ")]
        word = "refused" if clash(at_work, short[name]) else "beside"
        assert cells[number].strip() == word, (head, name)


def replace_extraction(run: Run) -> None:
    copy = run.folder.clips_path.with_name("copy")
    copy.write_bytes(run.folder.clips_path.read_bytes())
    copy.replace(run.folder.clips_path)


class TestReaders:
    def test_what_was_replaced_while_it_was_read(self, run: Run) -> None:
        changed = r"clips\.parquet was replaced while it was read; run the command again"
        with pytest.raises(VidfaceError, match=changed), run.folder.reading():
            replace_extraction(run)

    def test_an_error_in_a_mixture_is_the_mixtures(self, run: Run) -> None:
        def read_mixture() -> None:
            replace_extraction(run)
            raise VidfaceError("shard-00000: of another extraction")

        with pytest.raises(VidfaceError, match="replaced while it was read"), run.folder.reading():
            read_mixture()

    def test_a_report_of_two_extractions_is_none(self, run: Run, monkeypatch, tmp_path) -> None:
        from vidface.reports import page

        write_page = page._write_page

        def replace_then_write(file, contents):
            replace_extraction(run)
            return write_page(file, contents)

        monkeypatch.setattr(page, "_write_page", replace_then_write)
        with pytest.raises(VidfaceError, match="run the command again"):
            write_report([run.folder.folder], tmp_path / "a.html")
        assert list(tmp_path.iterdir()) == []

    def test_others_clusterings_may_come(self, run: Run) -> None:
        with run.folder.reading():
            cluster(run, 0.7)

    def test_who_makes_what_is_not_there_yet(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path / "run")
        with folder.at_work("extract"):
            at_it = rf"no finished extraction; process {os.getpid()} on .* \(extract\) is at it"
            with pytest.raises(VidfaceError, match=at_it):
                folder.read_clips()
        first = pytest.raises(VidfaceError, match="run `vidface extract` first")
        with folder.at_work("cluster", replaces=["a"]), first:  # not who only asks
            folder.read_clips()

    def test_nothing_is_made_where_nothing_is(self, tmp_path: Path) -> None:
        with RunFolder(tmp_path / "run").at_work("cluster", replaces=["a"]):
            assert list(tmp_path.iterdir()) == []


def test_what_a_killed_command_was_writing_goes(run: Run) -> None:
    """With the next command that is alone there; what is being written now stays."""
    old, new = (run.folder.folder / f".{name}.1a2b3c4d.part" for name in ("old", "new"))
    with run.folder.at_work("sweep", replaces=["sweeps/x"]):
        for path in (old, new):
            path.write_text("half")
        os.utime(old, (1e9, 1e9))
        score(run, 0.5)
        assert old.exists()  # it may be the sweep's
    score(run, 0.5)
    assert (old.exists(), new.exists()) == (False, True)
    new.unlink()
