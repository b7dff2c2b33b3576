"""Where `--out` writes: to files, through symlinks, to standard output, and never over a device."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from vidface.cli.commands import main
from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file, output_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links are POSIX's")


def write(path: Path, opener=output_file) -> None:
    with opener(path) as file:
        file.write(b"new")


def test_a_symlink_stays_and_its_target_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "deep" / "target", tmp_path / "link"
    target.parent.mkdir()
    link.symlink_to("deep/target")
    write(link)  # dangling still
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_symlink_among_a_runs_own_files_is_replaced(tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "run.json"
    precious.write_bytes(b"old")
    link.symlink_to(precious)
    write(link, atomic_file)
    assert precious.read_bytes() == b"old"
    assert not link.is_symlink()


@pytest.mark.parametrize("opener", [output_file, atomic_file])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_refused_and_stays(tmp_path: Path, opener, linked: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    names = {"fifo": "a device, a pipe or a socket", "socket": "a device", "folder": "a folder"}
    if os.geteuid() == 0:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        names["null"] = "a device"
    for name, kind in names.items():
        path, before = tmp_path / name, (tmp_path / name).stat().st_mode
        if linked and opener is output_file:
            path = tmp_path / f"link to {name}"
            path.symlink_to(tmp_path / name)
        with pytest.raises(VidfaceError, match=f"is {kind}.*standard output"):
            write(path, opener)
        assert (tmp_path / name).stat().st_mode == before
    listening.close()


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(VidfaceError, match="a: its symlinks lead in a circle"):
        write(tmp_path / "a")


def run_main(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_every_command_writes_to_standard_output(
    colour_pipeline: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    flags = ("--pipeline", colour_pipeline)
    assert [run_main(command, *flags) for command in ("extract", "cluster", "score")] == [0, 0, 0]

    capfdbinary.readouterr()
    begins = {
        ("export", "iqiyi", *flags): b"blue ",
        ("export", "lfrc", *flags): (7).to_bytes(4, "little"),
        ("show", "red.v", *flags): b"\x89PNG",
        ("report", colour_pipeline.parent / "run"): b"<!doctype html>",
        ("plot", "clip", "red.v", colour_pipeline.parent / "run"): b"<?xml",
    }
    for command, begin in begins.items():
        assert run_main(*command, "--out", "-") == 0
        printed, said = capfdbinary.readouterr()
        assert printed[: len(begin)].lower() == begin.lower(), (command, printed[:40])
        assert said.strip()
    assert not (Path.cwd() / "-").exists()


def test_a_folder_as_output_is_wrong_usage_before_any_work(
    colour_pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (("export", "iqiyi"), ("show", "red.v"), ("plot", "roc"), ("report",)):
        assert run_main(*command, "--out", tmp_path) == 2
        assert "is a folder; name a file, or - for standard output" in capsys.readouterr().err
