from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import write_colour_network, write_crop
from vidface.cli import commands
from vidface.core.rules import ReadingRules
from vidface.runs.extraction import extract
from vidface.runs.run import open_run
from vidface.settings.pipeline import load_pipeline


def test_the_three_commands_and_the_sweep(vidface, colour_pipeline: Path) -> None:
    flags = ("--pipeline", colour_pipeline)
    done = vidface("extract", *flags)
    assert (done.code, done.err) == (0, "")  # quiet: standard error is no terminal
    assert "7 clips (ok 7)" in done.out
    done = vidface("cluster", *flags, "--threshold", 0.5)
    assert "20 of 26 faces kept, 6 dropped (23.1%)" in done.out
    done = vidface("score", *flags, "--split", "val")
    assert "mAP@100  1.0000 [1.0000, 1.0000]*  over 3 identities" in done.out
    assert re.search(
        r"^FAR ≤ 1e-1 needs ≥ 10 impostor pairs; there are \d$", done.out, re.MULTILINE
    )
    assert "\x1b" not in done.out  # plain text when piped
    done = vidface("sweep", *flags, "--thresholds", "0:0.7:0.05", "--split", "val")
    rows = [line.split() for line in done.out.splitlines() if line[:2] in (" 0", " n")]
    assert rows[0][:2] == ["none", "0.0%"]
    assert len(rows) == 16
    assert all(len(line) == len(line.rstrip()) for line in done.out.splitlines())


def test_json_everywhere(vidface, colour_pipeline: Path) -> None:
    flags = ("--pipeline", colour_pipeline, "--json")
    assert vidface("extract", *flags).json["states"] == {"ok": 7}
    assert vidface("cluster", *flags).json["dropped"] == 6
    scored = vidface("score", *flags).json
    assert scored["retrieval"]["map_at_100"] == 1.0
    assert scored["retrieval"]["identities"] == 3
    assert set(scored["verification"]["tar_at_far"]) == {f"1e-{i}" for i in range(1, 7)}
    assert scored["counts"]["states"] == {"ok": 4}
    assert scored["provenance"]["settings"]["cluster.threshold"] == 0.5
    unclustered = vidface("score", *flags, "--threshold", -1).json
    assert unclustered["counts"]["kept"] == 17
    assert vidface("score", *flags, "--threshold", "none").json["threshold"] is None
    swept = vidface("sweep", *flags, "--thresholds", "0.2,0.5").json
    assert [row["threshold"] for row in swept["rows"]] == [None, 0.2, 0.5]
    ran = vidface("run", colour_pipeline, "--json")
    assert "already done" in ran.err
    assert ran.json["extraction"]["clips"] == 7
    assert ran.json["retrieval"] == scored["retrieval"]


def test_files_passed_over_are_noted_and_an_older_run_keeps_its_pictures(
    vidface, colour_pipeline: Path, colour_clips: Path
) -> None:
    folder = next(path for path in colour_clips.parent.rglob("*.png")).parent
    (folder / "one.jfif").write_bytes(next(folder.glob("*.png")).read_bytes())
    (folder / "two.heic").write_bytes(b"text")
    run = open_run(load_pipeline(colour_pipeline))
    before = extract(replace(run, new_rules=ReadingRules.as_before()))
    assert not before.noted
    again = vidface("extract", "--pipeline", colour_pipeline)
    assert "already done" in again.err
    assert again.code == 0
    new = vidface("extract", "--pipeline", colour_pipeline, "--force", "--json").json
    [noted] = new["noted"]
    assert "files passed over: two.heic. Save pictures" in noted["message"]
    shown = vidface("extract", "--pipeline", colour_pipeline).out
    assert f"ok  {noted['clip_id']}: {noted['message']}" in shown
    assert new["frames"] == 27  # one more than test_extraction.py counts by hand


def test_failed_clips_are_listed_and_exit_3(vidface, colour_pipeline, colour_clips: Path) -> None:
    (colour_clips.parent / "film.mp4").write_text("this is text")
    (colour_clips.parent / "none.mp4").write_bytes(b"")
    text = colour_clips.read_text() + "film,film.mp4,red,val\nnone,none.mp4,,val\n"
    colour_clips.write_text(text + "gone,gone.mp4,,val\n")
    done = vidface("run", colour_pipeline)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert "line 11: no file or folder 'gone.mp4'" in done.err
    done = vidface("run", colour_pipeline, "--allow-missing")
    assert done.code == 3
    for clip in ("corrupt  film: ", "corrupt  none: ", "missing  gone: "):
        assert clip in done.out
    assert "3 without a descriptor" in done.out
    assert re.search(
        r"mAP@100  0.8333 \[0\.\d{4}, 1.0000\]\*  over 3 identities", done.out
    )  # red: one of its two is never found


def test_errors_are_one_line_without_traceback(vidface, colour_pipeline: Path) -> None:
    done = vidface("score", "--pipeline", colour_pipeline)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("vidface: error: run directory ")
    assert done.err.endswith("run `vidface extract` first\n")
    assert done.err.count("\n") == 1
    done = vidface("score", "--pipeline", colour_pipeline, "--debug")
    assert "Traceback" in done.err
    assert done.code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("scroe",), 2, "No such command 'scroe'"),
        (("score", "--treshold", "0.4"), 2, "No such option"),
        (("score", "--fps", "fast"), 2, "not a valid float"),
        (("run", "nowhere"), 2, "nowhere: no such folder of clips, run directory or pipeline file"),
        (("run", "x", "--pipeline", "y"), 2, "leave --pipeline out"),
        (("init", ".", "--add", "--force"), 2, "give one of them"),
        (("score", "--pipeline", "nope.toml"), 2, "shipped recipes: demo"),
        (("sweep", "--thresholds", "0:1"), 2, "START:STOP:STEP"),
        (("score", "--threshold", "2"), 2, "a cosine lies in [-1, 1]"),
        (("score", "--fps", "0"), 2, "--fps: must be above 0, not 0.0"),
        (("score", "--decoder", "foo"), 2, "--decoder: unknown value 'foo' (known: pyav, decord)"),
        (("init", "nowhere"), 1, "no such folder"),
    ],
)
def test_wrong_usage(
    vidface, colour_pipeline: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    colour_pipeline.rename(colour_pipeline.with_name("vidface.toml"))
    done = vidface(*arguments)
    assert done.code == code
    assert message in done.err
    assert done.out == ""


def test_an_internal_error_is_one_line_too(vidface, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidface.settings import initialise

    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh\nno")

    monkeypatch.setattr(initialise, "initialise", explode)
    done = vidface("init", ".")
    assert done.code == 1
    assert done.err == (
        "vidface: error: internal error: ZeroDivisionError: oh no (--debug shows where)\n"
    )


def test_init_then_the_ordinary_commands(vidface, tmp_path: Path, colour_network: Path) -> None:
    for person in ("red", "green"):
        for clip in ("1", "2", "10"):
            for k in range(3):
                write_crop(tmp_path / "my clips" / person / clip / f"{k}.png", person, seed=k)
    done = vidface("init", "my clips")
    assert done.code == 0
    assert "manifest.csv: 6 clips, 2 identities (train 2, val 4)" in done.out
    assert done.out.endswith(", then:\n  vidface run\n")
    flags = ("--source", "aligned", "--weights", colour_network, "--color", "rgb", "--mean", 127.5)
    for command in ("extract", "cluster", "score"):
        done = vidface(command, *flags)
        assert done.code == 0, done.err
    assert "mAP@100  1.0000 [1.0000, 1.0000]*  over 2 identities" in done.out
    assert (tmp_path / "runs" / "my clips" / "clips.parquet").is_file()
    done = vidface("init", "my clips")
    assert (done.code, "manifest.csv exists; --force replaces it" in done.err) == (1, True)
    done = vidface("init", "my clips", "--force")
    assert "vidface.toml was there already" in done.out


def test_init_writes_toml_for_any_folder_name(vidface, tmp_path: Path) -> None:
    folder = tmp_path / 'a "b" \\ ${HOME}'
    (folder / "ann").mkdir(parents=True)
    (folder / "ann" / "x.mp4").write_bytes(b"x")
    assert vidface("init", folder).code == 0
    from vidface.settings.pipeline import load_pipeline

    assert load_pipeline().manifest.path == tmp_path / "manifest.csv"


def test_weights_without_preprocessing_say_what_is_assumed(
    vidface, colour_clips: Path, colour_network: Path
) -> None:
    done = vidface(
        *("extract", "--manifest", colour_clips, "--source", "aligned", "--run", "r"),
        *("--weights", colour_network),
    )
    assert done.code == 0
    assert "nobody says what it is fed; assuming rgb, mean 127.5, std 127.5" in done.err


def test_text_of_strangers_does_not_steer_the_terminal(
    vidface, colour_pipeline: Path, colour_clips: Path
) -> None:
    text = colour_clips.read_text()
    colour_clips.write_text(text + "nobody,no\x07th\x1b[31ming,,val\n", encoding="utf-8")
    refused = vidface("extract", "--pipeline", colour_pipeline)
    listed = vidface("extract", "--pipeline", colour_pipeline, "--allow-missing")
    assert (refused.code, listed.code) == (1, 3)
    for output in (refused.err, listed.out, listed.err):
        assert "\x1b" not in output
        assert "\x07" not in output
    assert "no�th�[31ming" in listed.out


def test_a_console_that_knows_few_signs(vidface, colour_pipeline: Path) -> None:
    assert vidface("run", colour_pipeline).code == 0
    done = subprocess.run(
        [sys.executable, "-m", "vidface", "score", "--pipeline", str(colour_pipeline)],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    assert b"mAP@100" in done.stdout


def test_what_cannot_be_scored_is_said_before_extraction(
    vidface, colour_pipeline: Path, tmp_path: Path
) -> None:
    done = vidface("run", colour_pipeline, "--gallery", "test")
    assert (done.code, "--gallery test: no clip" in done.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_later_stages_need_no_clips(vidface, colour_pipeline: Path, colour_clips: Path) -> None:
    assert vidface("extract", "--pipeline", colour_pipeline).code == 0
    for person in ("red", "green", "blue"):
        (colour_clips.parent / person).rename(colour_clips.parent / f"{person}.moved")
    for command in ("cluster", "score", "sweep"):
        done = vidface(command, "--pipeline", colour_pipeline)
        assert done.code == 0, done.err
    assert vidface("extract", "--pipeline", colour_pipeline).code == 1


def test_results_that_cannot_be_written(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    assert vidface("run", colour_pipeline).code == 0
    for path in (tmp_path / "run" / "scores").iterdir():
        path.unlink()
    (tmp_path / "run" / "scores").rmdir()
    (tmp_path / "run" / "scores").write_text("in the way")
    done = vidface("score", "--pipeline", colour_pipeline)
    assert done.code == 1
    assert "cannot be written" in done.err
    assert "internal" not in done.err


def test_other_weights_do_not_inherit_the_files_preprocessing(
    vidface, colour_pipeline: Path, tmp_path: Path
) -> None:
    text = colour_pipeline.read_text().replace("mean = 127.5", "mean = 0")
    colour_pipeline.write_text(text)
    other = write_colour_network(tmp_path / "other.onnx", batch=1)
    done = vidface("extract", "--pipeline", colour_pipeline, "--weights", other, "--run", "r2")
    assert done.code == 0
    assert "nobody says what it is fed; assuming rgb, mean 127.5" in done.err


def test_columns_that_are_not_used_are_named(vidface, colour_pipeline, colour_clips: Path) -> None:
    lines = colour_clips.read_text().splitlines()
    lines = [f"{line},{'age' if number == 0 else 40}" for number, line in enumerate(lines)]
    colour_clips.write_text("\n".join(lines))
    assert "columns not used: age" in vidface("extract", "--pipeline", colour_pipeline).err


def test_no_help_loads_anything_heavy() -> None:
    """Of every command, in one process: torch alone would take seconds."""
    code = """
import sys, click
from vidface.cli.commands import cli

def show_help(command, path):
    with click.Context(command, info_name=path) as context:
        assert command.get_help(context), path
    for name, below in getattr(command, "commands", {}).items():
        show_help(below, f"{path} {name}")

show_help(cli, "vidface")
heavy = {"torch", "numpy", "cv2", "pyarrow", "onnxruntime", "rich", "av", "fsspec", "ssl"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "HEAVY []\n"


def test_a_command_loads_its_own_module_and_the_list_of_commands_no_settings() -> None:
    code = """
import sys, click
from vidface.cli.commands import cli

assert cli.commands["train"].name == "train"
print("vidface.cli.training" in sys.modules, "vidface.cli.scores" in sys.modules)
assert "sweep" in click.Context(cli).get_help()
print("vidface.cli.scores" in sys.modules, "vidface.settings.tables" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\nTrue False\n"


def test_help_is_quick() -> None:
    best = min(_processor_seconds_of_help() for _ in range(5))
    assert best < 0.3


def test_arguments_stand_in_the_usage_line_alone(vidface) -> None:
    usage, options = vidface("plot", "roc", "--help").out.split("Options:")
    assert "[RUN|FILE]..." in usage
    assert "RUN" not in options.splitlines()[1]


def _processor_seconds_of_help() -> float:
    """Of a process of its own; the clock on the wall would measure what else runs here."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "vidface", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_version_and_module_entry_point() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vidface", "--version"], capture_output=True, text=True, check=True
    )
    from vidface import __version__

    assert done.stdout.strip() == f"vidface, version {__version__}"


def test_a_second_interrupt_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C twice, as `timeout -s INT` sends it: the other one while the first's line is told."""

    def interrupt_again(arguments: object, interrupts: object) -> int:
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr(commands, "_run", interrupt_again)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf in a shell's background
    try:
        with pytest.raises(SystemExit) as stop:
            commands.main(["extract"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == 1
    assert "Traceback" not in capsys.readouterr().err


def test_an_interrupt_that_an_import_turns_into_its_own_error_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt_an_import(**_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(commands.cli, "main", interrupt_an_import)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf in a shell's background
    try:
        with pytest.raises(SystemExit) as stop:
            commands.main(["extract"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"vidface: error: {commands.INTERRUPTED}\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_interrupted_extraction_says_so_in_one_line(
    data: Path, weights_at_hand: None, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "vidface", "extract", "--pipeline", "wlasl", "--run"]
    for attempt, seconds in enumerate((1.5, 3.0, 5.0)):
        process = subprocess.Popen(
            [*command, str(tmp_path / str(attempt))],
            env={**os.environ, "VIDFACE_DATA": str(data)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts what runs in its background deaf to Ctrl-C; a terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        said = err.strip()  # click ends the line of the terminal's ^C first
        assert said == "vidface: error: interrupted; what was finished before stays as it was"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_extraction_is_no_extraction(
    vidface, colour_pipeline: Path, colour_clips: Path, tmp_path: Path
) -> None:
    lines = ["clip_id,path,identity,split"]
    for i in range(3000):
        lines.append(f"c{i},red/train,red,{'val' if i else 'train'}")
    colour_clips.write_text("\n".join(lines))
    flags = ["--pipeline", str(colour_pipeline), "--run"]
    extract = [sys.executable, "-m", "vidface", "extract", *flags]
    for attempt in range(3):
        folder = tmp_path / "killed"
        process = subprocess.Popen([*extract, str(folder)], stdout=subprocess.DEVNULL)
        while not list(folder.glob(".extracting/embeddings/shard-00000.arrow")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.05 * attempt)
        process.kill()
        process.wait()
        done = vidface("cluster", *flags, folder)
        assert (done.code, "no finished extraction" in done.err) == (1, True)
    assert vidface("extract", *flags, folder).code == 0
    assert vidface("extract", *flags, tmp_path / "whole").code == 0
    one, two = (
        vidface("run", colour_pipeline, "--run", tmp_path / name, "--json").json
        for name in ("killed", "whole")
    )
    assert one["retrieval"] == two["retrieval"]
    assert one["counts"] == two["counts"]
    assert not list(folder.rglob("*.part"))
    assert not (folder / ".extracting").exists()


def test_nothing_to_work_on_is_one_line_and_never_the_demo(vidface, tmp_path: Path) -> None:
    commands = ("extract", "cluster", "score", "sweep", "clips", "show x", "report",
                "plot roc --out x.pdf", "plot clip x --out x.png",
                "export lfrc --out x.bin")  # fmt: skip
    for command in commands:
        done = vidface(*command.split())
        assert done.code == 2, command
        assert done.err == (
            "vidface: error: no vidface.toml here: vidface run FOLDER, or vidface demo\n"
        )
    assert not list(tmp_path.iterdir())


def test_a_run_is_opened_by_its_path(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    """Moved elsewhere, without its pipeline file: no flag of its extraction is repeated."""
    removal = ("--pooling", "medoid", "--threshold", "0.3", "--json")
    assert vidface("extract", "--pipeline", colour_pipeline, "--which", "all").code == 0
    expected = vidface("cluster", "--pipeline", colour_pipeline, "--which", "all", *removal).json
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs" / "all")
    colour_pipeline.unlink()
    run = tmp_path / "runs" / "all"
    assert "name a run (runs/all), or vidface run FOLDER" in vidface("score").err
    for place in ((run,), ("--run", run), ("runs/all",)):
        assert vidface("cluster", *place, *removal).json["kept"] == expected["kept"]
        assert "already done" in vidface("extract", *place).err
    commands = ("score", "sweep", "clips", "report", "show red.v --run", "compare runs/all",
                "plot clip red.v --out x.png", "plot pr --out pr.svg",
                "export iqiyi --out x.txt")  # fmt: skip
    for command in commands:
        done = vidface(*command.split(), "runs/all")
        assert done.code == 0, (command, done.err)


def test_what_is_no_run_is_said(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    usage = {
        ("score", "set"): "set: no run directory, for there is no run.json in it; clips in a "
        "folder: vidface run set",
        ("score", "nope"): "nope: no such run directory or pipeline file; give a path, or one of",
        ("score", "set", "--run", "run"): "set and --run run: give one run directory",
        ("score", "demo", "--pipeline", "x.toml"): "demo: no run directory; --pipeline says",
    }
    for words, message in usage.items():
        done = vidface(*words)
        assert (done.code, message in done.err) == (2, True), (words, done.err)
    assert vidface("extract", colour_pipeline).code == 0  # a pipeline's file is a run's name, too
    done = vidface("clips", "run/run.json")
    assert (done.code, "a file of a run directory; name that: run" in done.err) == (2, True)
    (tmp_path / "run" / "run.json").unlink()  # as a program leaves it
    assert vidface("cluster", "run", "--pipeline", colour_pipeline).code == 0
    colour_pipeline.rename(tmp_path / "vidface.toml")
    assert vidface("cluster", "run").code == 0


def test_a_local_file_that_says_otherwise_is_named(vidface, colour_pipeline: Path) -> None:
    local = colour_pipeline.rename(colour_pipeline.with_name("vidface.toml"))
    assert vidface("extract").code == 0
    assert "otherwise" not in vidface("cluster", "run").err
    local.write_text(local.read_text().replace("threshold = 0.5", "threshold = 0.6"))
    done = vidface("cluster", "run", "--json")
    assert done.json["threshold"] == 0.5
    assert "vidface.toml says otherwise in cluster.threshold (leave the run" in done.err
    assert vidface("cluster", "--json").json["threshold"] == 0.6


def write_truth(path: Path, *, without: str = "") -> Path:
    """Of `colour_clips`: the frames 1 and 3 of the val clips show somebody else."""
    lines = ["clip_id,file,kind"]
    for person in ("red", "green", "blue"):
        lines += [f"{person}.t,{k}.png,own" for k in range(3)]
        lines += [f"{person}.v,{k}.png,{'own' if k % 2 == 0 else 'other'}" for k in range(5)]
    lines += [f"stranger,{k}.png,own" for k in range(2)]
    kept = [line for line in lines if not (without and line.startswith(without))]
    path.write_text("\n".join(kept), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("given", "folder", "kept"),
    [
        (("--method", "union-find"), "threshold_0.5", 20),
        (("--method", "none"), "none", 26),
        (("--method", "dbscan", "--min-samples", 2), "dbscan.threshold_0.5.min_samples_2", 20),
        (("--method", "hdbscan", "--min-cluster-size", 2), "hdbscan.min_cluster_size_2", None),
        (
            ("--method", "complete-linkage", "--threshold", 0.6),
            "complete-linkage.threshold_0.6",
            20,
        ),
        (("--method", "trim", "--trim-share", 0.5), "trim.trim_share_0.5", 3 * 3 + 3 * 2 + 1),
        (("--pooling", "norm"), "threshold_0.5.pooling_norm", 20),
        (("--pooling", "medoid", "--memory", "500MB"), "threshold_0.5.pooling_medoid", 20),
    ],
)
def test_methods_and_poolings(
    vidface, colour_pipeline: Path, tmp_path: Path, given: tuple, folder: str, kept: int | None
) -> None:
    flags = ("--pipeline", colour_pipeline)
    vidface("extract", *flags)
    vidface("cluster", *flags, "--threshold", 0.9)
    done = vidface("cluster", *flags, *given)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "clusters" / folder / "faces.parquet").is_file()
    assert done.out.splitlines()[-1].endswith("descriptors.parquet")
    stored = vidface("cluster", *flags, *given, "--json").json
    assert kept is None or stored["kept"] == kept
    scored = vidface("score", *flags, "--json").json  # of the one made last, without flags
    for key, value in stored["settings"].items():
        assert scored["provenance"]["settings"][key] == value
    assert done.out.startswith(f"{scored['denoising']}: {stored['kept']} of 26 faces kept")
    assert scored["threshold"] == stored["threshold"]
    assert f"against train, {scored['denoising']}\n" in vidface("score", *flags).out
    again = vidface("score", *flags, *given, "--json")
    assert again.json["retrieval"] == scored["retrieval"]
    assert again.err == ""  # nothing was worked out


def test_a_named_clustering_that_is_not_stored_is_worked_out(vidface, colour_pipeline) -> None:
    flags = ("--pipeline", colour_pipeline)
    vidface("extract", *flags)
    vidface("cluster", *flags)
    done = vidface("score", *flags, "--method", "trim", "--pooling", "norm", "--json")
    assert done.json["denoising"] == "trim, trim share 0.25, pooling norm"
    assert "no clustering at trim, trim share 0.25, pooling norm is stored" in done.err
    assert vidface("score", *flags, "--json").json["denoising"] == "threshold 0.5"
    assert vidface("score", *flags, "--min-samples", 9, "--json").json["threshold"] == 0.5
    vidface("cluster", *flags, "--method", "trim")
    for name, value, said in (
        ("--pooling", "norm", "threshold 0.5, pooling norm"),
        ("--trim-share", 0.1, "threshold 0.5"),
        ("--min-cluster-size", 3, "threshold 0.5"),
        ("--min-samples", 3, "threshold 0.5"),
        ("--threshold", 0.2, "threshold 0.2"),
        ("--memory", "1GiB", "trim, trim share 0.25"),  # says nothing of what is meant
    ):
        assert vidface("score", *flags, name, value, "--json").json["denoising"] == said


def test_the_oracle(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    flags = ("--pipeline", colour_pipeline)
    vidface("extract", *flags)
    done = vidface("cluster", *flags, "--method", "oracle")
    assert done.code != 0
    assert 'the method "oracle" needs a truth file' in done.err
    truth = write_truth(tmp_path / "truth.csv")
    oracle = ("--method", "oracle", "--truth", truth)
    done = vidface("cluster", *flags, *oracle)
    assert done.out.startswith("oracle: 20 of 26 faces kept, 6 dropped (23.1%)\n")
    assert "6 of 6 noise faces are among the dropped: precision 1.0000, recall 1.0000" in done.out
    scored = vidface("score", *flags, "--truth", truth, "--json").json
    assert scored["denoising"] == "oracle"
    assert len(scored["provenance"]["settings"]["cluster.truth_sha256"]) == 64
    assert scored["noise_removal"]["precision"] == scored["noise_removal"]["recall"] == 1
    done = vidface("score", *flags)  # the latest, and no word of its truth
    assert (done.code, "--truth" in done.err) == (1, True)
    # Another truth: the stored clustering is not of it, and is worked out.
    truth.write_text(truth.read_text().replace("red.v,1.png,other", "red.v,1.png,own"))
    done = vidface("score", *flags, *oracle, "--json")
    assert done.json["noise_removal"]["dropped"] == 5
    assert "working it out" in done.err
    ran = vidface("run", colour_pipeline, *oracle, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["cluster"]["dropped"] == 5
    done = vidface("cluster", *flags, "--method", "oracle", "--truth", tmp_path / "no.csv")
    assert (done.code, "no.csv: no such file" in done.err) == (1, True)
    write_truth(truth, without="green.v")
    done = vidface("cluster", *flags, *oracle)
    assert done.code == 1
    assert "says nothing of 5 of 26 faces; the first is of clip 'green.v', file 0.png" in done.err


def test_precision_and_recall(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    flags = ("--pipeline", colour_pipeline, "--truth", write_truth(tmp_path / "truth.csv"))
    vidface("extract", *flags[:2])
    done = vidface("cluster", *flags, "--method", "trim", "--trim-share", 0.5)
    assert "6 of 6 noise faces are among the dropped: precision 0.6000, recall 1.0000" in done.out
    found = vidface("cluster", *flags, "--method", "none", "--json").json["noise_removal"]
    assert found == {"dropped": 0, "noise": 6, "both": 0, "precision": None, "recall": 0.0}
    done = vidface("cluster", *flags, "--method", "none")
    assert "0 of 6 noise faces are among the dropped: precision n/a, recall 0.0000" in done.out
    swept = vidface("sweep", *flags, "--thresholds", "0.5,1", "--json").json
    rates = [row["denoised"]["noise_removal"]["recall"] for row in swept["rows"]]
    assert rates == [0.0, 1.0, 1.0]
    # At 1 each face is its own cluster, one is kept a clip: 26 - 7 are dropped, 6 rightly.
    assert swept["rows"][2]["denoised"]["noise_removal"]["precision"] == 6 / 19
    ran = [vidface("run", colour_pipeline, *flags[2:], "--json").json for _ in range(2)]
    assert ran[0]["cluster"] == ran[1]["cluster"]
    assert ran[1]["cluster"]["noise_removal"]["precision"] == 1.0


def test_worth_a_look(vidface, colour_pipeline: Path) -> None:
    flags = ("--pipeline", colour_pipeline)
    vidface("extract", *flags)
    done = vidface("cluster", *flags)
    worth = "worth a look: 0 chained, 3 contested, 1 thin, 7 still, 0 twice (vidface clips --flag"
    assert worth in done.out
    assert "lowest similarity of two kept faces 1.00, median over clips 1.00" in done.out
    again = vidface("run", colour_pipeline)  # as it is stored
    assert worth in again.out


def test_unusable_embeddings_are_named(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    """Green frames as a network would give them that divides by what is nothing there."""
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 112, 112])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", 3])
    limits = helper.make_tensor("limits", TensorProto.FLOAT, [3], [9.0, 0.4, 9.0])
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("Sub", ["limits", "mean"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["root"]),  # NaN of green above 0.4
        helper.make_node("Sub", ["root", "root"], ["nothing"]),
        helper.make_node("Add", ["mean", "nothing"], ["vector"]),
    ]
    graph = helper.make_graph(nodes, "moody", [image], [vector], [limits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "moody.onnx"))
    flags = ("--pipeline", colour_pipeline, "--weights", tmp_path / "moody.onnx")
    stopped = vidface("extract", *flags)
    assert stopped.code == 1
    assert "gives NaN or infinite numbers" in stopped.err
    flags = (*flags, "--force-recogniser")
    vidface("extract", *flags)
    done = vidface("cluster", *flags)
    said = "red.v, frame 1; red.v, frame 3; green.t, frame 0; and 7 more"
    assert f"10 unusable embeddings (NaN or zero) count as noise: {said}\n" in done.out


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (("--pooling", "det-score"), 1, "det_score is null throughout"),
        (("--pooling", "quality"), 1, "the embeddings have no column 'quality'"),
        (("--pooling", "max"), 2, "--pooling: unknown value 'max' (known: mean, det-score, norm"),
        (("--method", "kmeans"), 2, "--method: unknown value 'kmeans' (known: union-find, none"),
        (("--trim-share", "1"), 2, "--trim-share: must lie in [0, 1), not 1.0"),
        (("--min-samples", "0"), 2, "--min-samples: must be at least 1, not 0"),
        (("--min-cluster-size", "1"), 2, "--min-cluster-size: must be at least 2, not 1"),
        (("--memory", "lots"), 2, '--memory: a size such as "2GiB" or "500MB", not'),
        (("--memory", "0"), 2, "--memory: a size"),
        (("--memory", "-1GiB"), 2, "--memory: a size"),
    ],
)
def test_wrong_noise_settings(
    vidface, colour_pipeline: Path, tmp_path: Path, given: tuple, code: int, message: str
) -> None:
    flags = ("--pipeline", colour_pipeline)
    vidface("extract", *flags)
    done = vidface("cluster", *flags, *given)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not list(tmp_path.glob("run/clusters/*/*"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_clustering_is_none(vidface, colour_pipeline: Path, tmp_path: Path) -> None:
    vidface("extract", "--pipeline", colour_pipeline)
    code = (
        "import os, signal, sys\n"
        "from vidface.runs import artefacts\n"
        "from vidface.cli.commands import main\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "artefacts.write_parquet = killed\n"  # the faces are written, the descriptors are not
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "cluster", "--pipeline", str(colour_pipeline)]
    assert subprocess.run(command, cwd=tmp_path).returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "clusters" / "threshold_0.5" / "faces.parquet").is_file()
    done = vidface("score", "--pipeline", colour_pipeline)
    assert (done.code, "no clustering; run `vidface cluster` first" in done.err) == (1, True)
    assert "no clustering yet" in vidface("clips", "--pipeline", colour_pipeline).out
    assert vidface("cluster", "--pipeline", colour_pipeline).code == 0
    assert vidface("score", "--pipeline", colour_pipeline).code == 0


def test_precision_and_recall_wherever_a_truth_is_named(
    vidface, colour_pipeline: Path, tmp_path: Path
) -> None:
    flags = ("--pipeline", colour_pipeline)
    truth = ("--truth", write_truth(tmp_path / "truth.csv"))
    vidface("extract", *flags)
    stored = vidface("cluster", *flags, "--threshold", 0.5, *truth, "--json").json
    expected = stored["noise_removal"]
    assert expected["noise"] == 6
    scored = vidface("score", *flags, "--threshold", 0.5, *truth)
    figures = f"precision {expected['precision']:.4f}, recall {expected['recall']:.4f}"
    assert figures in scored.out
    assert "precision" not in vidface("score", *flags, "--threshold", 0.5).out
    swept = vidface("sweep", *flags, "--thresholds", "0.5", *truth)
    header = next(line for line in swept.out.splitlines() if "threshold" in line)
    assert header.split()[-2:] == ["precision", "recall"]
    folds = ("--folds", 3, "--thresholds", "0.5", *truth)
    document = vidface("sweep", *flags, *folds, "--json").json
    assert {"threshold": 0.5, **expected} in document["noise_removal"]
    assert "precision" in vidface("sweep", *flags, *folds).out


def test_flags_are_counted_also_where_no_clip_keeps_two_faces(
    vidface, colour_pipeline: Path
) -> None:
    vidface("extract", "--pipeline", colour_pipeline)
    done = vidface("cluster", "--pipeline", colour_pipeline, "--threshold", 1)
    assert "worth a look: 0 chained, 7 contested, 7 thin" in done.out


def test_a_threshold_that_is_not_used_is_said(vidface, colour_pipeline: Path) -> None:
    vidface("extract", "--pipeline", colour_pipeline)
    for command in ("cluster", "score"):
        done = vidface(
            command, "--pipeline", colour_pipeline, "--method", "none", "--threshold", 0.5
        )
        assert done.code == 0, done.err
        assert "the method 'none' has no threshold; --threshold 0.5 is not used" in done.err


class TestExtractOptions:
    @pytest.fixture
    def broken(self, colour_pipeline: Path, colour_clips: Path) -> Path:
        (colour_clips.parent / "green" / "val" / "2.png").write_bytes(b"no picture")
        return colour_pipeline

    def test_failed_clips_exit_with_3_or_with_1(self, vidface, broken: Path) -> None:
        assert vidface("extract", "--pipeline", broken).code == 3
        assert vidface("extract", "--pipeline", broken, "--strict").code == 1
        assert vidface("run", broken, "--strict").code == 1
        listed = vidface("clips", "--pipeline", broken, "--status", "corrupt", "--json").json
        assert [line["clip_id"] for line in listed["clips"]] == ["green.v"]

    def test_keep_damaged_uses_the_good_pictures(self, vidface, broken: Path) -> None:
        keep = ("--pipeline", broken, "--keep-damaged")
        done = vidface("extract", *keep)
        assert done.code == 3
        said = " ".join(done.out.split())
        assert "1 of 5 pictures are no good, the first: green/val/2.png: not a whole" in said
        assert "4 frames are kept" in said
        listed = vidface("clips", *keep, "--status", "damaged", "--json").json
        assert [line["clip_id"] for line in listed["clips"]] == ["green.v"]
        score = vidface("score", *keep, "--threshold", 0.5, "--json").json
        assert score["counts"]["states"] == {"ok": 3, "damaged": 1}
        assert score["counts"]["no_descriptor"] == 0
        assert score["provenance"]["settings"]["frames.keep_damaged"] is True
        assert "damaged 1" in vidface("extract", *keep, "--retry-failed").out  # the same again
        done = vidface("score", "--pipeline", broken, "--threshold", 0.5)
        assert done.code == 1
        assert "frames.keep_damaged: True (there) ≠ none (asked for)" in done.err

    def test_without_keep_damaged_nothing_is_recorded(self, vidface, broken: Path) -> None:
        vidface("extract", "--pipeline", broken)
        score = vidface("score", "--pipeline", broken, "--threshold", 0.5, "--json").json
        assert score["counts"]["states"] == {"ok": 3, "corrupt": 1}
        assert not [key for key in score["provenance"]["settings"] if "damaged" in key]

    def test_retry_failed(self, vidface, broken: Path, colour_clips: Path) -> None:
        done = vidface("extract", "--pipeline", broken, "--retry-failed")
        assert (done.code, done.out) == (1, "")
        assert "no finished extraction; leave --retry-failed out" in done.err
        vidface("extract", "--pipeline", broken)
        done = vidface("extract", "--pipeline", broken, "--retry-failed", "--force")
        assert done.code == 2
        write_crop(colour_clips.parent / "green" / "val" / "2.png", "green", seed=12)
        done = vidface("extract", "--pipeline", broken, "--retry-failed", "--json")
        assert (done.code, done.json["states"]) == (0, {"ok": 7})
        done = vidface("extract", "--pipeline", broken, "--retry-failed")
        assert done.code == 0
        assert "already done" in done.err  # none failed: nothing to do

    def test_profile(self, vidface, colour_pipeline: Path) -> None:
        done = vidface("extract", "--pipeline", colour_pipeline, "--profile")
        assert re.search(r"^decode +\d+\.\d\d s", done.out, re.MULTILINE)
        assert re.search(r"^limit: (decode|embed)$", done.out, re.MULTILINE)
        told = vidface("extract", "--pipeline", colour_pipeline, "--profile", "--json").json
        assert told["profile"]["frames"] == 26

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (("--stall-timeout", "0"), "--stall-timeout: must be above 0, not 0.0"),
            (("--clip-timeout", "-1"), "--clip-timeout: must be above 0"),
            (("--clip-memory", "much"), "--clip-memory: a size such as"),
            (("--workers", "0"), "--workers: must be at least 1, not 0"),
            (("--executor", "slurm"), "--executor: unknown value 'slurm' (known: serial, joblib"),
            (("--scheduler", "tcp://a:1"), '--scheduler: only with executor = "dask"'),
        ],
    )
    def test_wrong_values(self, vidface, colour_pipeline: Path, given, message: str) -> None:
        done = vidface("extract", "--pipeline", colour_pipeline, *given)
        assert (done.code, done.out) == (2, "")
        assert message in done.err
