"""Damaged files never crash, hang or fill memory, and are never called sound where ffmpeg objects.

media_mutants.py makes the files, media_worker.py reads them in a process of its own,
media_judge.py asks ffmpeg (and says what "as ffmpeg judges it" means).
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import absent
from tests.media_judge import Verdict, judge
from tests.media_mutants import MAX_BYTES, SOURCES, Mutant, hostile, hundred, mutants
from vidface.core.errors import ClipError
from vidface.frames.sampling import sample_frames

# Formats beside SOURCES: what ffmpeg makes a clip of 18 small pictures with.
MADE = {
    "wmv": "-c:v wmv2",
    "mpg": "-c:v mpeg2video -r 24",
    "flv": "-c:v flv1",
    "ogv": "-c:v libtheora",
    "nut": "-c:v mpeg4",
    "gif": "",
    "apng": "",
    "h264": "-c:v libx264 -threads 1",
    "m2v": "-c:v mpeg2video -r 24",
    "mxf": "-c:v mpeg2video -r 25",
    "ivf": "-c:v libvpx -threads 1",
    "obu": "-c:v libaom-av1 -cpu-used 8 -threads 1",
    "hevc": "-c:v libx265 -x265-params log-level=error:pools=1:frame-threads=1",
    "webp": "-c:v libwebp_anim -lossless 1 -loop 0",
    "m4v": "-c:v mpeg4 -f m4v",
    "mjpeg": "-c:v mjpeg",
    "y4m": "",
    "rm": "-c:v rv20",
    "wtv": "-c:v mpeg2video -r 24",
    "ts": "-c:v libx264 -threads 1",
}
RAW = ("h264", "hevc", "m2v", "m4v", "mjpeg")
REPOSITORY = Path(__file__).resolve().parents[2]
WORKER = REPOSITORY / "tests" / "media_worker.py"
STATES = {"ok", "corrupt", "truncated", "no_video_stream"}
MAX_CPU_SECONDS = 20  # for one file; measured: 3.8 for the worst GIF, 0.1 for a damaged clip
MAX_BYTES_HELD = 1_300_000_000  # measured: 1.0e9 for the worst GIF
MAX_DIFFERENCE = 2  # of 255; measured 0

MAX_REFUSED = 8  # of 100 whose frames are the whole clip's; measured: 6 of HEVC, else 0
# MPEG-TS: a packet marked as damaged just before a key packet is taken for the end of a part that
# was joined. Here every sixth packet is a key packet, so a third of all lie there. Measured: 3.
MAX_TAKEN_FOR_A_JOINT = 3

# What ffmpeg reports of a film that is whole all the same: (line, why). It counts only if the
# frames, all of them, are those of the clip before the damage.
HARMLESS = [
    (r"\[IMGUTILS\] \[error\] Picture size", "the container's size; the stream states its own"),
    (r"File ended prematurely", "a length that runs past the file, which is whole"),
    (r"Duplicate element", "metadata stated twice"),
    (r"Unknown-sized element", "a length left open, as live recordings do"),
    (r"Something went wrong during header parsing", "an AVI chunk that is no picture"),
    (r"crazy start time", "AVI's start; times count from the first frame here"),
]
# Files whose pictures are those of the clip before the damage, where ffmpeg fails: name -> why.
RIGHT_WHERE_FFMPEG_FAILS = {
    "rich.mov: stsd says 8192 x 8192": "a size above the limit is not passed on; the JPEGs' counts",
}


def read_all(files: Iterable[Mutant], folder: Path, threads: int = 1) -> list[dict[str, Any]]:
    """media_worker's answers, in order; a file that kills the worker has state "died"."""
    waiting = []
    for number, mutant in enumerate(files):
        path = folder / f"{number}.{mutant.extension}"
        path.write_bytes(mutant.data)
        waiting.append((path, mutant))
    answers: list[dict[str, Any]] = []
    while waiting:
        orders = [json.dumps({"path": str(path), "threads": threads}) for path, _ in waiting]
        worker = subprocess.run(
            [sys.executable, str(WORKER)],
            input="\n".join(orders),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        done = [json.loads(line) for line in worker.stdout.splitlines()]
        if len(done) < len(waiting):
            message = f"exit code {worker.returncode}: {worker.stderr[-500:]}"
            done.append({"state": "died", "message": message, "frames": 0, "samples": []})
        for answer, (path, mutant) in zip(done, waiting, strict=False):
            answers.append(answer | {"path": path, "name": mutant.name})
        waiting = waiting[len(done) :]
    return answers


def misbehaviour(answer: dict[str, Any]) -> str | None:
    """What a reader must not do, whatever the file."""
    if answer["state"] not in STATES:
        return f"{answer['name']}: {answer['state']}, {answer['message']}"
    if answer["cpu_seconds"] > MAX_CPU_SECONDS or answer["peak_bytes"] > MAX_BYTES_HELD:
        cost = f"{answer['cpu_seconds']:.1f} s, {answer['peak_bytes'] / 1e6:.0f} MB"
        return f"{answer['name']}: {cost}"
    if answer["state"] != "ok" and (str(answer["path"]) not in answer["message"]):
        return f"{answer['name']}: does not name the file: {answer['message']}"
    return None


def same_frames(one: Verdict, other: Verdict) -> bool:
    return len(one.frames) == len(other.frames) and all(
        a_time == b_time and alike(a, b)
        for (a_time, a), (b_time, b) in zip(one.frames, other.frames, strict=True)
    )


def shows_nothing_else(damaged: Verdict, sound: Verdict) -> bool:
    """Whether every picture is one of the whole clip."""
    return all(any(alike(a, b) for _, b in sound.frames) for _, a in damaged.frames)


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(
        np.abs(one.astype(int) - other.astype(int)).max(initial=0) <= MAX_DIFFERENCE
    )


def wrongly_ok(answer: dict[str, Any], verdict: Verdict, sound: Verdict) -> str | None:
    """Why an "ok" is wrong. sound: ffmpeg's verdict on the clip before the damage."""
    if answer["name"] in RIGHT_WHERE_FFMPEG_FAILS:
        return other_frames(answer, sound)
    whole = same_frames(verdict, sound)
    for fault in verdict.faults:
        harmless = any(re.search(line, fault) for line, _ in HARMLESS)
        if not (harmless and whole):
            return f"{answer['name']}: ok, but ffmpeg: {fault}"
    return other_frames(answer, verdict)


def other_frames(answer: dict[str, Any], verdict: Verdict) -> str | None:
    """The naive rule on ffmpeg's frames, against what was yielded."""
    wanted: list[int] = []  # the frame at each k / 8 s
    times = [seconds for seconds, _ in verdict.frames]
    k, at = 0, 0
    while Fraction(k, 8) < Fraction(verdict.end_seconds):
        while at + 1 < len(times) and times[at + 1] <= Fraction(k, 8):
            at += 1
        wanted.append(at)
        k += 1
    if answer["frames"] != len(wanted):
        return f"{answer['name']}: {answer['frames']} frames, by ffmpeg {len(wanted)}"
    for index, (seconds, pixels) in zip(sorted(set(wanted)), answer["samples"], strict=False):
        time, picture = verdict.frames[index]
        mine = np.frombuffer(base64.b64decode(pixels), np.uint8)
        if abs(seconds - float(time)) > 1e-6 or not alike(mine, picture.reshape(-1)):
            return f"{answer['name']}: another frame than ffmpeg's at {float(time):.3f} s"
    return None


def complaints(files: list[Mutant], folder: Path, ffmpeg: str) -> list[str]:
    sound = {
        name: judge(ffmpeg, REPOSITORY / "tests" / "golden" / name)
        for names in SOURCES.values()
        for name in names
    }
    found = []
    for answer in read_all(files, folder):
        what = misbehaviour(answer)
        if what is None and answer["state"] == "ok":
            source = answer["name"].split(":")[0]
            what = wrongly_ok(answer, judge(ffmpeg, answer["path"]), sound[source])
        if what is not None:
            found.append(what)
    return found


def test_the_sources_are_sound_and_told_apart(ffmpeg: str) -> None:
    clip = REPOSITORY / "tests" / "golden" / "rich.mp4"
    verdict = judge(ffmpeg, clip)
    assert (verdict.faults, len(verdict.frames)) == ((), 30)
    assert same_frames(verdict, verdict)
    for (_, one), (_, other) in zip(verdict.frames, verdict.frames[1:], strict=False):
        assert not alike(one, other)


def test_the_judge_sees_damage(ffmpeg: str, tmp_path: Path) -> None:
    data = (REPOSITORY / "tests" / "golden" / "rich.mkv").read_bytes()
    for name, damaged in {
        "cut": data[: len(data) // 2],
        "zeros": data[:9000] + bytes(3000) + data[12000:],
        "text": b"no film",
    }.items():
        path = tmp_path / f"{name}.mkv"
        path.write_bytes(damaged)
        assert judge(ffmpeg, path).faults, name


def test_mutants_are_many_and_the_same_every_time() -> None:
    one, two = list(mutants(1)), list(mutants(1))
    assert one == two
    assert len({mutant.data for mutant in one}) >= 900
    assert list(mutants(2)) != one
    assert {mutant.extension for mutant in one} == set(SOURCES)
    assert max(len(mutant.data) for mutant in [*one, *hostile()]) <= MAX_BYTES


def test_twenty_mutants(ffmpeg: str, tmp_path: Path) -> None:
    chosen = list(mutants(3))
    chosen = [chosen[k * len(chosen) // 20] for k in range(20)]
    assert complaints(chosen, tmp_path, ffmpeg) == []


@pytest.mark.slow
def test_hostile_files(tmp_path: Path) -> None:
    answers = read_all(hostile(), tmp_path)
    assert [what for answer in answers if (what := misbehaviour(answer))] == []
    fine = {answer["name"] for answer in answers if answer["state"] == "ok"}
    harmless = {"GIF of 3000 x 3000, 80 frames", "GIF of 8 x 8, 4000 frames of 0 s"}
    harmless |= {"SeekHead that points to itself", "SeekHead that points to 0", "EBML version 200"}
    others = {a["name"]: (a["state"], a.get("message")) for a in answers if a["name"] in harmless}
    assert fine == harmless, others


@pytest.fixture(scope="module")
def by_name() -> dict[str, Mutant]:
    return {mutant.name: mutant for mutant in [*mutants(1), *hostile()]}


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("rich.mp4: mdhd+12 = 0x0", "corrupt", "0 ticks a second"),
        ("rich.avi: dwRate = 0xffffffff", "corrupt", "frames a second"),
        ("mpeg4.avi: first chunk's size = 0x0", "corrupt", "first one builds on is missing"),
        ("rich.mkv: Duration = 2400.0", "truncated", "1.20 s of 2.40 s"),
        ("rich.webm: Duration = 2400.0", "truncated", "1.20 s of 2.40 s"),
        ("rich.mkv: Duration = 0.0", "ok", ""),
        ("rich.mkv: Cluster of 0100000000000000", "corrupt", "first cluster is empty"),
        ("rich.mkv: Segment of 017fffffffffffff", "ok", ""),
        ("edit list of 50,000 times the same", "corrupt", "an edit list of 50000 entries"),
        ("index of 20000000 samples in no table", "corrupt", "an index of 20000000 samples"),
        (
            "compressed moov, said to be of 2147483647 bytes",
            "corrupt",
            "a compressed index of 2147",
        ),
        ("GIF of 8 x 8, 3000 frames of 655 s", "corrupt", "8 frames are said to last 4587 s"),
        ("GIF of 8192 x 8192, 12 frames", "corrupt", "damaged"),
        ("trak, 5,000 deep, in moov", "no_video_stream", "no video stream"),
        ("text", "corrupt", "not a video"),
        ("empty", "corrupt", "the file is empty"),
    ],
)
def test_states(by_name: dict[str, Mutant], name: str, state: str, message: str) -> None:
    found, text, _ = read(by_name[name].data)
    assert (found, message in text) == (state, True)


def read(data: bytes, **options: Any) -> tuple[str, str, int]:
    frames = 0
    try:
        for _ in sample_frames(io.BytesIO(data), threads=1, **options):
            frames += 1
            if frames > 50_000:
                return "endless", "", frames
    except ClipError as error:
        return error.state, str(error), frames
    return "ok", "", frames


def clip(name: str) -> bytes:
    return (REPOSITORY / "tests" / "golden" / name).read_bytes()


def test_blocks_that_a_matroska_file_lost_are_heard_of() -> None:
    """libav goes on behind them and says so in its log alone; ffmpeg: "exceeds containing …"."""
    data = clip("rich.mkv")
    for at in (1915, 14267):
        state, message, frames = read(data[:at] + data[at + 300 :])
        assert (state, frames) == ("corrupt", 10)
        assert "exceeds containing master element" in message
    damaged = data[:1915] + data[2215:]
    assert read(damaged, end_seconds=0.5)[0] == "corrupt"
    damaged = data[:24000] + data[24300:]  # behind the end that was asked for
    assert read(damaged, end_seconds=0.25)[0] == "ok"


def test_what_the_decoder_only_logs_is_heard() -> None:
    data = clip("h264.avi")
    state, message, _ = read(data[: 6464 + 400] + data[6464:])
    assert (state, "POC" in message) == ("corrupt", True)


def test_a_jpeg_that_is_painted_over_is_damage() -> None:
    data = bytearray(clip("rich.mov"))
    data[3743:3745] = b"\x5a\xa5"
    state, _, frames = read(bytes(data))
    assert state == "corrupt"
    assert frames < 5


def test_listening_leaves_the_log_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    from av import logging

    before = logging.get_level(), logging.get_skip_repeated()
    read(clip("rich.mkv")[:9000])
    assert (logging.get_level(), logging.get_skip_repeated()) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_all_mutants(ffmpeg: str, tmp_path: Path) -> None:
    assert complaints(list(mutants(1)), tmp_path, ffmpeg) == []


def make_clip(ffmpeg: str, path: Path) -> bytes:
    source = "-nostdin -v error -f lavfi -i testsrc2=size=96x64:rate=12:duration=1.5 -bitexact -g 6"
    how = MADE[path.suffix[1:]].split()
    subprocess.run([ffmpeg, *source.split(), *how, str(path)], check=True, capture_output=True)
    return path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("extension", MADE)
def test_a_hundred_mutants(ffmpeg: str, tmp_path: Path, extension: str) -> None:
    name = f"made.{extension}"
    data = make_clip(ffmpeg, tmp_path / name)
    sound = judge(ffmpeg, tmp_path / name)
    assert (sound.faults, len(sound.frames) >= 18) == ((), True)
    files = [Mutant(f"{name}: untouched", extension, data), *hundred(name, data)]
    wrong, refused, whole, joints = [], [], 0, []
    answers = read_all(files, tmp_path)
    assert answers[0]["state"] == "ok"
    for answer in answers:
        verdict = judge(ffmpeg, answer["path"])
        whole += not verdict.faults
        what = misbehaviour(answer)
        if answer["state"] == "ok" and what is None:
            what = wrongly_ok(answer, verdict, sound)
            if extension in RAW and len(verdict.frames) <= 2:
                what = None  # without times; the rate of two pictures is a guess
            if what and extension == "ts":  # a broadcast may be joined late: nothing false is shown
                if not shows_nothing_else(verdict, sound):
                    joints.append(what)
                what = None
        elif not verdict.faults and same_frames(verdict, sound):
            refused.append(f"{answer['name']}: {answer.get('message')}")
        wrong += [what] if what else []
    print(f"{extension}: ffmpeg finds {whole} of 101 whole; of them refused: {len(refused)}")
    assert wrong == []
    assert len(refused) <= MAX_REFUSED, refused
    assert len(joints) <= MAX_TAKEN_FOR_A_JOINT, joints


@pytest.mark.parametrize(
    ("name", "message"),
    [("d_02_headflip.mpg", "Invalid frame dimensions"), ("e_03_interleave.wmv", "overflow")],
)
def test_what_libav_says_before_the_first_frame_counts(data: Path, name: str, message: str) -> None:
    """WMV's first picture; MPEG-PS's first ones, of which the decoder speaks in opening only."""
    film = data / "cases" / "media_ok_but_damaged" / name
    if not film.is_file():
        absent(f"no {film}")
    state, said, _ = read(film.read_bytes())
    assert (state, message in said) == ("corrupt", True)


@pytest.mark.slow
def test_threads_change_no_frame(tmp_path: Path) -> None:
    chosen = list(mutants(1))[::10]
    alone, together = (read_all(chosen, tmp_path, threads) for threads in (1, 3))
    for one, other in zip(alone, together, strict=True):
        assert one["frames"] == other["frames"], one["name"]
        # With threads nobody listens to libav's log (vidface/frames/log.py).
        heard = one["state"] == "corrupt" and other["state"] == "ok"
        assert heard or one["state"] == other["state"], one["name"]


def test_a_file_that_kills_the_reader_costs_itself_alone(tmp_path: Path, monkeypatch) -> None:
    """The net that catches crashes and hangs has no hole: a worker that is shot is replaced."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    path = json.loads(line)['path']\n"
        "    if path.endswith('.avi'):\n"
        "        os.kill(os.getpid(), 9)\n"
        "    print(json.dumps({'path': path, 'state': 'ok'}), flush=True)\n"
    )
    monkeypatch.setattr("tests.frames.test_mutants.WORKER", script)
    files = [
        Mutant(f"file {k}", extension, b"") for k, extension in enumerate(["mp4", "avi", "mkv"])
    ]
    states = [answer["state"] for answer in read_all(files, tmp_path)]
    assert states == ["ok", "died", "ok"]
    assert misbehaviour(read_all(files, tmp_path)[1]) is not None
