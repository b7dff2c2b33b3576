"""Decoding in worker processes: faces as a naive loop finds them, and faults that cost one clip."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.conftest import absent, crop_of, write_crop
from tests.decoding_faults import faulty, shade_of, tell_modules
from vidface.backbones.preprocessing import USUAL, Preprocessing
from vidface.core.children import open_nameless_file
from vidface.core.clips import Clip
from vidface.core.errors import ClipError, VidfaceError
from vidface.core.rules import ReadingRules
from vidface.core.states import KEPT_STATES
from vidface.faces import pool, queues, shared
from vidface.faces.clip_faces import (
    Tools,
    find_faces,
    make_one_line,
    state_after_error,
    state_at_end,
)
from vidface.faces.detector import (
    ARCFACE_TEMPLATE,
    DetectedFaces,
    DroppedFaces,
    FaceDetector,
    align_face,
)
from vidface.faces.events import ClipEnd, ClipLimits, Face, FoundFaces, Seconds
from vidface.faces.pool import decode_clips
from vidface.faces.processes import DecodingProcess
from vidface.faces.settings import FaceSettings
from vidface.frames.sampling import sample_frames
from vidface.frames.settings import FrameSettings
from vidface.storage.media import FolderRoot, TarRoot

ALIGNED = FaceSettings(source="aligned")
FRAMES = FrameSettings()
GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ClipLimits(clip_memory_bytes=64 * 2**20)


def clip(path: str) -> Clip:
    return Clip(path, path, "", "val")


class Read:
    """The events of some clips, gathered."""

    def __init__(self, events: Iterator[FoundFaces | ClipEnd]) -> None:
        self.ends: dict[int, ClipEnd] = {}
        self.faces: dict[int, list[Face]] = defaultdict(list)
        self.crops: dict[int, list[np.ndarray]] = defaultdict(list)
        for event in events:
            assert event.clip_number not in self.ends, "after the end, or a second end"
            if isinstance(event, ClipEnd):
                self.ends[event.clip_number] = event
            else:
                self.faces[event.clip_number] += event.faces
                self.crops[event.clip_number] += list(event.crops)

    @property
    def states(self) -> list[str]:
        return [self.ends[number].state for number in sorted(self.ends)]


def decoded(paths: list[str], root: Path, **more) -> Read:
    more = {"workers": 2, "work": faulty, "faces": ALIGNED, **more}
    faces = more.pop("faces")
    return Read(decode_clips([clip(p) for p in paths], FolderRoot(root), FRAMES, faces, **more))


def assert_good(read: Read, number: int, path: str, faces: int) -> None:
    """That the clip `good-N-…` came whole, its faces in order and its crops its own."""
    assert (read.ends[number].state, read.ends[number].message) == ("ok", "")
    assert read.ends[number].frames == faces
    assert [face.frame_index for face in read.faces[number]] == list(range(faces))
    shades = [int(crop[0, 0, 0]) for crop in read.crops[number]]
    assert shades == [shade_of(path, index) for index in range(faces)]
    assert all((crop == crop[0, 0, 0]).all() for crop in read.crops[number])


def children() -> list[psutil.Process]:
    """Decoding processes; other tests' pools may stand beside them."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "vidface.faces" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    descriptors, processes = psutil.Process().num_fds(), children()
    yield
    assert children() == processes
    assert not [thread for thread in threading.enumerate() if thread.name == "decoding"]
    assert psutil.Process().num_fds() <= descriptors + 1  # a library may have opened its own


# What is found.


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_aligned_folders_and_images_come_as_they_are(kind: str, tmp_path: Path) -> None:
    for name in ("10", "9", "1"):
        write_crop(tmp_path / "set" / "red" / f"{name}.png", "red", seed=int(name))
    write_crop(tmp_path / "set" / "blue.png", "blue", seed=5)
    root: FolderRoot | TarRoot = FolderRoot(tmp_path / "set")
    if kind == "tar":
        with tarfile.open(tmp_path / "set.tar", "w") as archive:
            archive.add(tmp_path / "set", ".")
        root = TarRoot(tmp_path / "set.tar")
    clips = [clip("red"), clip("blue.png"), clip("none")]
    read = Read(decode_clips(clips, root, FRAMES, ALIGNED, workers=1))
    assert read.states == ["ok", "ok", "missing"]
    assert [face.file for face in read.faces[0]] == ["1.png", "9.png", "10.png"]
    assert [face.frame_index for face in read.faces[0]] == [0, 1, 2]
    assert np.array_equal(read.crops[0], [crop_of("red", seed=seed) for seed in (1, 9, 10)])
    assert np.array_equal(read.crops[1], [crop_of("blue", seed=5)])
    [face] = read.faces[1]
    assert (face.time_seconds, face.box, face.landmarks, face.det_score) == (None,) * 4
    sizes = [sum(p.stat().st_size for p in (tmp_path / "set" / "red").iterdir()), None, 0]
    sizes[1] = (tmp_path / "set" / "blue.png").stat().st_size
    assert [read.ends[number].file.bytes for number in range(3)] == sizes
    assert read.ends[2].message == "none: no such file or folder"
    assert (read.ends[0].frames, read.ends[0].frames_without_face) == (3, 0)
    assert read.ends[0].seconds.decode > 0 == read.ends[0].seconds.detect


def test_pictures_that_a_folder_passes_over_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    for number, name in enumerate(["1.png", "2.bmp", "3.dib", "4.pnm"]):
        write_crop(folder / "0.png", "red", seed=number)
        with Image.open(folder / "0.png") as picture:
            kind = {"dib": "DIB", "pnm": "PPM"}.get(name[2:])
            picture.save(folder / name, kind)
    (folder / "0.png").unlink()
    for name in ("5.heic", "6.mp4", "notes.txt"):
        (folder / name).write_bytes(b"text")
    (tmp_path / "unread").mkdir()
    (tmp_path / "unread" / "1.heic").write_bytes(b"text")
    (tmp_path / "a.heic").write_bytes(b"text")
    names = ["mixed", "unread", "a.heic"]
    read = decoded(names, tmp_path, work=find_faces, faces=ALIGNED)
    assert read.states == ["ok", "no_video_stream", "corrupt"]
    assert [face.file for face in read.faces[0]] == ["1.png", "2.bmp", "3.dib", "4.pnm"]
    assert np.array_equal(read.crops[0], [crop_of("red", seed=seed) for seed in range(4)])
    note = "2 of 6 files passed over: 5.heic, 6.mp4. Save pictures as JPEG or PNG"
    assert read.ends[0].message.startswith(f"mixed: {note}")
    assert "no images in this folder; unread: 1 of 1 files passed over" in read.ends[1].message
    before = decoded(["mixed"], tmp_path, work=find_faces, rules=ReadingRules.as_before())
    assert [face.file for face in before.faces[0]] == ["1.png", "2.bmp"]
    assert before.ends[0].message == ""
    sizes = [
        sum((folder / face.file).stat().st_size for face in r.faces[0]) for r in (read, before)
    ]
    assert [read.ends[0].file.bytes, before.ends[0].file.bytes] == sizes


def test_an_animated_picture_is_a_clip(weights_at_hand: None, tmp_path: Path) -> None:
    """No face is in it; its pictures are counted as a film's frames."""
    pictures = [Image.new("RGB", (64, 48), (grey, 0, 0)) for grey in range(0, 250, 50)]
    path = tmp_path / "film.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=250, lossless=True)
    settings = {"work": find_faces, "faces": FaceSettings(), "workers": 1}
    read = decoded(["film.webp"], tmp_path, **settings)
    assert (read.states, read.ends[0].frames) == (["no_face"], 10)
    pictures[0].save(tmp_path / "still.webp")
    folder = decoded([""], tmp_path, **settings)
    assert (folder.states, folder.ends[0].frames) == (["no_face"], 2)
    assert "1 of 2 pictures are animations, of which the first" in folder.ends[0].message
    before = decoded(["film.webp"], tmp_path, rules=ReadingRules.as_before(), **settings)
    assert (before.states, before.ends[0].frames) == (["no_face"], 1)


def test_times_of_an_animation_and_of_a_picture(weights_at_hand: None, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 48), (grey, 0, 0)) for grey in range(0, 250, 50)]
    pictures[0].save(
        tmp_path / "film.webp", save_all=True, append_images=pictures[1:], duration=250
    )
    pictures[0].save(tmp_path / "still.png")
    clips = [Clip(p, p, "", "val", 0.5, 1.0, 1) for p in ("film.webp", "still.png")]
    read = Read(decode_clips(clips, FolderRoot(tmp_path), FRAMES, FaceSettings(), workers=1))
    assert (read.states, read.ends[0].frames) == (["no_face", "corrupt"], 4)
    assert "one picture, which has no time; leave start_seconds" in read.ends[1].message


def test_a_pipe_is_called_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    read = decoded(["pipe.mp4", "circle.mp4"], tmp_path, work=find_faces)
    assert read.states == ["corrupt", "corrupt"]
    assert read.ends[0].message.startswith("pipe.mp4: cannot be read: a named pipe (FIFO)")
    assert "symbolic links" in read.ends[1].message


def test_every_kind_of_damage_is_a_state(tmp_path: Path) -> None:
    from PIL import Image

    write_crop(tmp_path / "small" / "0.png", "red")
    Image.new("RGB", (96, 112)).save(tmp_path / "small" / "1.png")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "0.jpg").write_text("no picture")
    (tmp_path / "empty").mkdir()
    write_crop(tmp_path / "cut" / "0.png", "blue")
    data = (tmp_path / "cut" / "0.png").read_bytes()
    (tmp_path / "cut" / "0.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "film.mp4").write_bytes(b"text")
    names = ["small", "text", "empty", "cut", "film.mp4", "no"]
    read = decoded(names, tmp_path, work=find_faces)
    assert read.states == ["corrupt"] * 2 + ["no_video_stream"] + ["corrupt"] * 2 + ["missing"]
    assert "small/1.png: 96x112 pixels, but aligned" in read.ends[0].message
    assert read.ends[0].frames == 0
    assert "no images in this folder" in read.ends[2].message
    assert "a video file where aligned crops are expected" in read.ends[4].message


@pytest.mark.parametrize("keep", [False, True])
def test_keep_damaged_takes_what_is_good(keep: bool, tmp_path: Path) -> None:
    for name in ("sound", "mixed", "none"):
        (tmp_path / name).mkdir()
    write_crop(tmp_path / "sound" / "0.png", "red", seed=0)
    (tmp_path / "mixed" / "0.png").write_bytes(b"no picture")
    write_crop(tmp_path / "mixed" / "1.png", "red", seed=1)
    Image.new("RGB", (96, 112)).save(tmp_path / "mixed" / "2.png")
    write_crop(tmp_path / "mixed" / "3.png", "red", seed=3)
    (tmp_path / "none" / "0.png").write_bytes(b"")
    clips = [clip("sound"), clip("mixed"), clip("none")]
    frames = FrameSettings(keep_damaged=keep)
    read = Read(decode_clips(clips, FolderRoot(tmp_path), frames, ALIGNED, workers=1))
    assert read.states == ["ok", "damaged" if keep else "corrupt", "corrupt"]
    if keep:  # without it the faces count for nothing
        assert [(face.frame_index, face.file) for face in read.faces[1]] == [
            (1, "1.png"),
            (3, "3.png"),
        ]
        assert np.array_equal(read.crops[1], [crop_of("red", seed=seed) for seed in (1, 3)])
    message = read.ends[1].message
    assert read.ends[1].frames == (2 if keep else 0)
    assert ("2 of 4 pictures are no good" in message) is keep
    assert ("2 frames are kept" in message) is keep
    assert "mixed/0.png: not a whole picture" in message


@pytest.mark.parametrize("keep", [False, True])
def test_keep_damaged_of_a_film(keep: bool, tmp_path: Path, weights_at_hand: None) -> None:
    film = bytearray((GOLDEN / "fps25.mp4").read_bytes())
    film[2355:2383] = b"\xff" * 28  # its frame 17, at 0.68 s; the next key frame is at 0.96 s
    (tmp_path / "film.mp4").write_bytes(film)
    frames = FrameSettings(keep_damaged=keep)
    root = FolderRoot(tmp_path)
    read = Read(decode_clips([clip("film.mp4")], root, frames, FaceSettings(), workers=1))
    assert read.states == ["damaged" if keep else "corrupt"]
    assert read.ends[0].frames == read.ends[0].frames_without_face == (14 if keep else 0)


def expected_faces(
    path: Path, settings: FaceSettings, model: Path, fed: Preprocessing = USUAL
) -> list[tuple]:
    """The naive loop: sample, detect, align."""
    detector = FaceDetector(
        which=settings.which, long_side=settings.detector_long_side, model=model
    )
    rows = []
    for frame in sample_frames(path, 8, threads=1):
        found = detector.detect(frame.image)
        for number in range(len(found)):
            crop = align_face(frame.image, found.landmarks[number], fed.shape[:2])
            rows.append((frame.index, frame.time_seconds, number, found.boxes[number], crop))
    return rows


@pytest.mark.parametrize(
    ("which", "size"), [("largest", (160, 144)), pytest.param("all", 112, marks=pytest.mark.slow)]
)
def test_faces_of_films_are_those_of_a_naive_loop(
    which: str, size, data: Path, weights_at_hand: None
) -> None:
    from vidface.backbones.weights import weights_path

    folder = data / "clips"
    names = ["wlasl/01558.mp4", "hard/noface_av1.mkv"]
    settings = FaceSettings(which=which)
    fed = Preprocessing(size=size)
    read = decoded(names, folder, work=find_faces, faces=settings, fed=fed)
    for number, name in enumerate(names):
        rows = expected_faces(folder / name, settings, weights_path("yunet"), fed)
        faces, crops = read.faces[number], read.crops[number]
        assert len(faces) == len(rows)
        for face, crop, row in zip(faces, crops, rows, strict=True):
            assert (face.frame_index, face.time_seconds, face.face_index) == row[:3]
            assert face.box is not None
            assert np.array_equal(face.box, row[3])
            assert face.box.dtype == np.float32
            assert np.array_equal(crop, row[4])
    assert read.ends[0].state == "ok"
    assert read.ends[0].seconds.detect > 0 < read.ends[0].seconds.align
    assert read.ends[1].state == "no_face"
    assert read.ends[1].frames == read.ends[1].frames_without_face > 0
    assert "no face in" in read.ends[1].message


def test_a_window_of_a_film(weights_at_hand: None) -> None:
    windows = [(None, None), (0.5, 1.0), (1000.0, None)]
    clips = [Clip("a", "fps25.mp4", "", "val", start, end) for start, end in windows]
    read = Read(decode_clips(clips, FolderRoot(GOLDEN), FRAMES, FaceSettings(), workers=1))
    whole = len(list(sample_frames(GOLDEN / "fps25.mp4", 8)))
    assert [read.ends[number].frames for number in range(3)] == [whole, 4, 0]
    assert read.ends[2].message == "fps25.mp4: start_seconds lies behind the end of the clip"


def test_workers_do_without_torch_and_pyarrow(weights_at_hand: None) -> None:
    read = decoded(["fps25.mp4"], GOLDEN, work=tell_modules, faces=FaceSettings(), workers=1)
    assert read.ends[0].message == "heavy [], OpenCV threads 1"


class CountingDetector(FaceDetector):
    """One face in every picture but black ones, where two are too small and one is too faint."""

    def __init__(self) -> None:
        self.pictures = 0

    def detect(self, image: np.ndarray) -> DetectedFaces:
        self.pictures += 1
        n = int(image.any())
        boxes, landmarks = np.tile([0, 0, 9, 9.0], (n, 1)), np.tile(ARCFACE_TEMPLATE, (n, 1, 1))
        dropped = DroppedFaces(small=2 * (1 - n), faint=1 - n)
        return DetectedFaces(boxes, landmarks, np.full(n, 0.9), dropped)


def test_landmarks_that_coincide_cost_that_face_alone(tmp_path: Path) -> None:
    class Detector(CountingDetector):
        def detect(self, image: np.ndarray) -> DetectedFaces:
            landmarks = np.stack([np.zeros((5, 2)), np.array(ARCFACE_TEMPLATE)])
            boxes = np.tile(np.array([0, 0, 9, 9.0]), (2, 1))
            return DetectedFaces(boxes, landmarks, np.array([0.9, 0.8]))

    write_crop(tmp_path / "a" / "0.png", "red")
    tools = Tools(FolderRoot(tmp_path), FRAMES, FaceSettings(), Detector())
    [picture] = find_faces(clip("a"), tools)
    [face] = picture.faces
    assert (face.face_index, face.det_score) == (0, 0.8)
    assert np.abs(picture.crops[0].astype(int) - crop_of("red")).max() <= 1


def test_a_picture_that_comes_again_is_detected_once(tmp_path: Path) -> None:
    """The pictures A B A B C A are three, whatever stands between them."""
    for number, name in enumerate(["red", "green", "red", "green", "blue", "red"]):
        write_crop(tmp_path / "a" / f"{number}.png", name)
    detector = CountingDetector()
    tools = Tools(FolderRoot(tmp_path), FRAMES, FaceSettings(), detector)
    pictures = list(find_faces(clip("a"), tools))
    assert detector.pictures == 3
    assert [picture.faces[0].frame_index for picture in pictures] == list(range(6))
    assert [picture.faces[0].file for picture in pictures] == [f"{k}.png" for k in range(6)]
    for picture, name in zip(
        pictures, ["red", "green", "red", "green", "blue", "red"], strict=True
    ):
        assert np.abs(picture.crops[0].astype(int) - crop_of(name)).max() <= 1


def test_what_is_found_and_not_taken_is_counted_a_frame(tmp_path: Path) -> None:
    for number in range(3):
        black = tmp_path / "a" / f"{number}.png"
        black.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(black)
    tools = Tools(FolderRoot(tmp_path), FRAMES, FaceSettings(), CountingDetector())
    pictures = list(find_faces(clip("a"), tools))
    dropped = sum((picture.dropped for picture in pictures), DroppedFaces())
    assert dropped == DroppedFaces(small=6, faint=3)
    assert state_at_end(clip("a"), 3, 0, dropped, FaceSettings(min_face_pixels=30.5)) == (
        "no_face",
        "a: no face in 3 frames; 6 faces under 30.5 px: lower --min-face-pixels; "
        "3 faces under the score 0.7: lower --min-det-score",
    )
    assert state_at_end(clip("a"), 3, 1, dropped, FaceSettings()) == ("ok", "")


def test_faces_too_small_are_told_of_in_the_message(data: Path, weights_at_hand: None) -> None:
    """A real clip of 6 frames whose faces are about 70 px, all of them clear."""
    clips, frames = ["01377.mp4"], data / "clips" / "wlasl"
    [end] = decoded(
        clips, frames, work=find_faces, faces=FaceSettings(min_face_pixels=500)
    ).ends.values()
    assert end.state == "no_face"
    assert end.message == (
        "01377.mp4: no face in 6 frames; 6 faces under 500 px: lower --min-face-pixels"
    )
    [end] = decoded(
        clips, frames, work=find_faces, faces=FaceSettings(min_det_score=0.999)
    ).ends.values()
    assert end.message.endswith("; 6 faces under the score 0.999: lower --min-det-score")


def test_every_decoded_frame_is_a_sign_of_life() -> None:
    beats = []
    late = sample_frames(
        GOLDEN / "fps25.mp4", 8, start_seconds=0.9, on_frame=lambda: beats.append(1)
    )
    next(late)
    import av

    with av.open(str(GOLDEN / "fps25.mp4")) as film:
        rate, total = film.streams.video[0].average_rate, sum(1 for _ in film.decode(video=0))
    assert 0.9 * rate <= len(beats) <= 0.9 * rate + 3
    assert sum(1 for _ in late) > 0
    assert total <= len(beats) <= total + 1  # and the end


# Faults.

FAULTS = {
    "segfault": ("crashed", "killed by SIGSEGV"),
    "exit": ("crashed", "exit code 3"),
    "killed": ("crashed", "killed by SIGKILL"),
    "greedy": ("crashed", "more than --clip-memory (0.062 GiB); raise it"),
    "greedy_slowly": ("crashed", "more than --clip-memory"),
    "memory_in_libav": ("crashed", "more than --clip-memory"),
    "raise": ("corrupt", "ZeroDivisionError: by zero"),
    "truncated": ("truncated", "ends too early"),
    "system_exit": ("crashed", "exit code 1"),
    "nonsense": ("crashed", "nonsense"),
    "wrong_kind": ("crashed", "nonsense"),
}


def test_a_fault_costs_its_clip_alone(tmp_path: Path) -> None:
    paths = []
    for fault in FAULTS:
        paths += [f"{fault}-0", f"good-5-{fault}", f"good-70-{fault}"]
    read = decoded(paths, tmp_path, limits=SMALL)
    assert len(read.ends) == len(paths)
    for number, path in enumerate(paths):
        kind = path.split("-")[0]
        if kind == "good":
            assert_good(read, number, path, int(path.split("-")[1]))
            continue
        end = read.ends[number]
        state, message = FAULTS[kind]
        assert (kind, end.state) == (kind, state)
        assert message in end.message
        assert end.frames == (2 if state in KEPT_STATES else 0)
        if state == "crashed":
            assert end.message.startswith(f"{path}: ")
    assert len(read.faces[paths.index("truncated-0")]) == 2  # before it, and kept


def test_a_hang_costs_its_clip_alone(tmp_path: Path) -> None:
    paths = ["hang-0", "hang_in_c-0", "good-5-a", "good-5-b"]
    read = decoded(paths, tmp_path, limits=ClipLimits(stall_seconds=1.0))
    assert read.states == ["timeout", "timeout", "ok", "ok"]
    message = "no new frame for 1 s; give it more with --stall-timeout, or leave the clip out"
    assert [read.ends[n].message for n in (0, 1)] == [f"{paths[n]}: {message}" for n in (0, 1)]
    assert (read.ends[0].frames, len(read.faces[2]), len(read.faces[3])) == (0, 5, 5)


def test_time_for_a_clip(tmp_path: Path) -> None:
    """Signs of life prevent a stall, not the total limit."""
    read = decoded(["breathing-0"], tmp_path, limits=ClipLimits(stall_seconds=0.6))
    assert read.states == ["ok"]
    limits = ClipLimits(stall_seconds=0.6, clip_seconds=0.8)
    read = decoded(["endless-0", "good-1-a"], tmp_path, limits=limits, workers=1)
    assert read.states == ["timeout", "ok"]
    assert "not done after 0.8 s; give it more with --clip-timeout" in read.ends[0].message


def test_waiting_for_the_reader_is_no_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "QUEUED_FACES", 20)
    limits = ClipLimits(stall_seconds=0.5, clip_seconds=1.2)
    events = decode_clips([clip("good-400-a")], FolderRoot(tmp_path), FRAMES, ALIGNED,
                          workers=1, limits=limits, work=faulty)  # fmt: skip
    first = next(events)
    time.sleep(1.5)
    read = Read(e for part in ([first], events) for e in part)
    assert_good(read, 0, "good-400-a", 400)
    assert read.ends[0].seconds.waiting > 1.0


@pytest.mark.parametrize(
    ("path", "message"),
    [("out_of_files-0", "ulimit -n"), ("fatal-0", "decoder 'x' is not installed")],
)
def test_what_concerns_every_clip_ends_the_run(path: str, message: str, tmp_path: Path) -> None:
    events = decode_clips([clip("good-3-a"), clip(path)], FolderRoot(tmp_path), FRAMES, ALIGNED,
                          workers=1, work=faulty)  # fmt: skip
    assert isinstance(next(events), FoundFaces)
    with pytest.raises(VidfaceError, match=message):
        list(events)


@pytest.mark.slow
def test_kills_at_random_lose_no_clip(tmp_path: Path) -> None:
    """200 clips, 3 workers, each kill costs at most the clip that was worked on."""
    random_ = random.Random(0)
    paths = [f"good-{random_.randrange(1, 40)}-{i}" for i in range(200)]
    kills = 0

    def killing(events: Iterator[FoundFaces | ClipEnd]) -> Iterator[FoundFaces | ClipEnd]:
        nonlocal kills
        ends = 0
        for event in events:
            yield event
            ends += isinstance(event, ClipEnd)
            if isinstance(event, ClipEnd) and ends % 20 == 0 and (workers := children()):
                random_.choice(workers).send_signal(signal.SIGKILL)
                kills += 1

    clips = [clip(path) for path in paths]
    root = FolderRoot(tmp_path)
    read = Read(killing(decode_clips(clips, root, FRAMES, ALIGNED, workers=3, work=faulty)))
    assert sorted(read.ends) == list(range(200))
    assert kills >= 8
    counted = Counter(read.states)
    assert set(counted) <= {"ok", "crashed"}
    assert counted["crashed"] <= kills
    for number, path in enumerate(paths):
        if read.ends[number].state == "ok":
            assert_good(read, number, path, int(path.split("-")[1]))


def test_a_worker_that_keeps_memory_is_replaced(tmp_path: Path) -> None:
    read = decoded(["leaky-0-a", "leaky-0-b", "leaky-0-c"], tmp_path, limits=SMALL, workers=1)
    assert read.states == ["ok"] * 3
    assert len({read.faces[number][-1].file for number in range(3)}) == 3  # process ids


# Order and amount.


def test_clips_are_taken_as_needed_and_ahead_of_the_oldest_only_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_QUEUED_CLIPS", 0)  # none waits behind the first
    taken = []

    def clips() -> Iterator[Clip]:
        for number in range(60):
            taken.append(number)
            yield clip("until_told-0" if number == 0 else f"good-1-{number}")

    events = decode_clips(clips(), FolderRoot(tmp_path), FRAMES, ALIGNED, workers=2, ahead=10,
                          work=faulty)  # fmt: skip
    ended = []
    for event in events:
        if isinstance(event, ClipEnd):
            ended.append(event.clip_number)
            if len(ended) == 9:
                time.sleep(0.3)
                assert ended == list(range(1, 10))  # all but the first, one worker's, in order
                assert taken == list(range(10))
                (tmp_path / "go").touch()
    assert sorted(ended) == list(range(60))
    assert taken == list(range(60))


def settled(path: Path) -> int:
    """The size of a file once it has stopped growing."""
    sizes = [-1]
    while len(sizes) < 5 or len(set(sizes[-5:])) > 1:
        time.sleep(0.1)
        sizes.append(path.stat().st_size)
        assert len(sizes) < 200, "it never stops"
    return sizes[-1]


def test_workers_wait_for_a_slow_reader(tmp_path: Path) -> None:
    events = decode_clips([clip("many-0")], FolderRoot(tmp_path), FRAMES, ALIGNED, workers=1,
                          work=faulty)  # fmt: skip
    with contextlib.closing(events):
        next(events)
        made = settled(tmp_path / "count")
        assert queues.QUEUED_FACES <= made <= queues.QUEUED_FACES + 2 * shared.SLOTS
        read = sum(len(next(events).faces) for _ in range(200))
        more = settled(tmp_path / "count")
        assert read + queues.QUEUED_FACES <= more <= read + queues.QUEUED_FACES + 3 * shared.SLOTS


def test_ends_without_faces_wait_for_the_reader_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "QUEUED_FACES", 20)
    taken = []
    clips = (taken.append(n) or clip(f"good-0-{n}") for n in range(400))
    events = decode_clips(clips, FolderRoot(tmp_path), FRAMES, ALIGNED, workers=1, work=faulty,
                          ahead=400)  # fmt: skip
    next(events)
    time.sleep(0.5)
    assert len(taken) < 60
    assert len(list(events)) == 399


def test_long_paths_and_no_clips(tmp_path: Path) -> None:
    """More than a socket holds is waiting for one worker."""
    paths = ["slow-0"] + [f"good-1-{i}-" + "x" * 200_000 for i in range(12)]
    read = decoded(paths, tmp_path, workers=1)
    assert read.states == ["ok"] * 13
    assert decoded([], tmp_path).ends == {}


def test_closing_early_leaves_nothing(tmp_path: Path) -> None:
    paths = [clip("hang-0"), clip("hang_in_c-0"), clip("many-0")]
    events = decode_clips(paths, FolderRoot(tmp_path), FRAMES, ALIGNED, workers=3, work=faulty)
    next(events)
    workers = children()
    assert len(workers) == 3
    if sys.platform == "linux":  # shared memory that has no name can't be left behind
        shared_maps = {m.path for w in workers for m in w.memory_maps() if "memfd:" in m.path}
        assert len(shared_maps) == 1 == sum("/memfd:vidface" in m for m in shared_maps)
    begun = time.monotonic()
    events.close()
    assert time.monotonic() - begun < 5
    assert not any(worker.is_running() for worker in workers)
    unstarted = decode_clips(paths, FolderRoot(tmp_path), FRAMES, ALIGNED, workers=3, work=faulty)
    unstarted.close()


def test_an_error_of_the_clips_reaches_the_reader(tmp_path: Path) -> None:
    def clips() -> Iterator[Clip]:
        yield clip("good-1-a")
        raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        list(decode_clips(clips(), FolderRoot(tmp_path), FRAMES, ALIGNED, workers=2, work=faulty))


# The program around it. This script has no `if __name__ == "__main__"`, and must not need one.
SCRIPT = """
import sys
from pathlib import Path
from tests.decoding_faults import faulty
from vidface.core.clips import Clip
from vidface.faces.events import ClipEnd
from vidface.faces.pool import decode_clips
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.storage.media import FolderRoot

clips = [Clip(p, p, "", "val") for p in sys.argv[2:]]
events = decode_clips(clips, FolderRoot(Path(sys.argv[1])), FrameSettings(),
                      FaceSettings(source="aligned"), workers=len(clips), work=faulty)
for event in events:
    print(event.state if isinstance(event, ClipEnd) else "faces", flush=True)
"""


@contextlib.contextmanager
def script(folder: Path, *paths: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "script.py").write_text(SCRIPT)
    repository = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(folder), *paths],
        env={**os.environ, "PYTHONPATH": repository},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    with script(tmp_path, "good-1-a", "raise-0") as process:
        out, err = process.communicate(timeout=30)
    assert (Counter(out.split()), err) == (Counter(["faces", "faces", "ok", "corrupt"]), "")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGKILL"])
def test_workers_end_with_the_program(how: str, tmp_path: Path) -> None:
    paths = ["hang-0", "many-0"]
    if sys.platform == "linux":
        paths.append("hang_in_c-0")
    with script(tmp_path, *paths) as process:
        assert process.stdout is not None
        for _ in range(10):
            process.stdout.readline()
        workers = psutil.Process(process.pid).children()
        assert len(workers) == len(paths)
        if how == "Ctrl-C":  # the terminal sends it to all of them
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        gone, alive = psutil.wait_procs(workers, timeout=20)
        for worker in alive:
            worker.kill()
        _, err = process.communicate(timeout=20)
    assert (len(gone), alive) == (len(paths), [])
    if how == "Ctrl-C":
        assert err.count("Traceback") == 1  # the program's own, no worker's
        assert "KeyboardInterrupt" in err
        assert "leaked" not in err


# What can't work.


def test_no_worker_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for executable, message in (
        ("/bin/false", "end before they have begun a clip .*exit code 1"),
        (str(tmp_path / "none"), "a decoding process can't be started"),
    ):
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(VidfaceError, match=message):
            decoded(["good-1-a"], tmp_path)
    monkeypatch.undo()
    (tmp_path / "model.onnx").write_text("no network")
    with pytest.raises(VidfaceError, match=r"can't start: detector .*not a YuNet network"):
        decoded(["a"], tmp_path, faces=FaceSettings(), detector_model=tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"ahead": 0}, "ahead must be at least 1, not 0"),
        ({"faces": FaceSettings(source="features")}, "has no pictures"),
        ({"work": lambda clip, tools: ()}, "can't be sent to another process"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(more: dict, message: str, tmp_path: Path) -> None:
    more = {"workers": 1, "faces": ALIGNED, **more}
    with pytest.raises(VidfaceError, match=message):
        decode_clips([], FolderRoot(tmp_path), FRAMES, more.pop("faces"), **more)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stall_seconds": 0},
        {"stall_seconds": float("inf")},
        {"stall_seconds": float("nan")},
        {"clip_seconds": -1.0},
        {"clip_memory_bytes": 2**26 - 1},
        {"clip_memory_bytes": 2**63},
    ],
)
def test_limits_check_themselves(wrong: dict) -> None:
    with pytest.raises(VidfaceError, match=next(iter(wrong))):
        ClipLimits(**wrong)
    assert ClipLimits(clip_memory_bytes=2**26).clip_seconds is None


def test_events_check_themselves() -> None:
    with pytest.raises(VidfaceError, match="unknown state 'fine'"):
        ClipEnd(0, "fine")
    with pytest.raises(VidfaceError, match="want \\(n, height, width, 3\\) uint8"):
        FoundFaces(0, (), np.zeros((1, 112, 112, 3), np.uint8))
    assert str(FoundFaces(3, (), np.zeros((0, 112, 112, 3), np.uint8))) == (
        "FoundFaces(clip 3: crops (0, 112, 112, 3))"
    )
    assert str(ClipEnd(3, "ok", frames=2)) == "ClipEnd(clip 3: ok, 2 frames)"
    assert Seconds(1, 2, 3, 4).total == 10


# The parts.


def test_states_of_errors() -> None:
    a = clip("a.mp4")
    assert state_after_error(FileNotFoundError(2, "no such file"), a) == (
        "missing",
        "a.mp4: no such file",
    )
    assert state_after_error(OSError(5, "I/O error"), a) == (
        "corrupt",
        "a.mp4: cannot be read: I/O error",
    )
    assert state_after_error(OSError("odd"), a) == ("corrupt", "a.mp4: cannot be read: odd")
    assert state_after_error(KeyError("k"), a) == ("corrupt", "a.mp4: KeyError: 'k'")
    behind = ClipError("damaged", "corrupt")
    behind.__cause__ = MemoryError()
    import cv2

    no_memory = cv2.error("x")
    no_memory.code = -4
    for error in (MemoryError(), behind, OSError(12, "Cannot allocate memory"), no_memory):
        with pytest.raises(MemoryError):
            state_after_error(error, a)
    assert make_one_line("a\n b\t\ud800" + "c" * 5000) == "a b ?" + "c" * 995


def test_messages_come_whole_whatever_pieces_they_travel_in() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = shared.SupervisorChannel(ours)
        data = shared.pack_message(("end", 1)) + shared.pack_message(("ready",))
        seen = []
        for place in range(len(data)):
            theirs.send(data[place : place + 1])
            seen += list(channel.messages())
        assert seen == [("end", 1), ("ready",)]
        theirs.send(shared.pack_message("last") + b"\x05\0")
        theirs.close()
        rest = channel.messages()
        assert next(rest) == "last"
        with pytest.raises(EOFError):
            next(rest)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x03\0\0\0abc", b"\0\0\0\0"])
def test_bytes_that_are_no_message(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(data)
        with pytest.raises(ValueError, match="message"):
            list(shared.SupervisorChannel(ours).messages())


def test_more_than_a_socket_holds_waits_until_it_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel, reader = shared.SupervisorChannel(ours), shared.WorkerChannel(theirs)
        channel.send("x" * 2**20)
        channel.send("after")
        assert channel.has_unsent

        def flush() -> None:
            while channel.has_unsent:
                channel.flush()
                time.sleep(0.001)

        thread = threading.Thread(target=flush, daemon=True)
        thread.start()
        assert [reader.receive() == "x" * 2**20, reader.receive()] == [True, "after"]
        thread.join()
        assert not channel.has_unsent


def test_a_blocks_numbers_are_seen_from_both_sides() -> None:
    with open_nameless_file(size=shared.block_bytes(USUAL.shape)) as descriptor:
        one, two = (shared.SharedBlock(descriptor, USUAL.shape) for _ in range(2))
    assert (two.activity, two.beats, two.clip_number, two.clip_bytes) == (0, 0, None, 0)
    one.activity, one.clip_number, one.clip_bytes = shared.WORKING, 0, 2**70
    one.beat()
    one.crops[shared.SLOTS - 1, 111, 111, 2] = 7
    assert (two.activity, two.beats, two.clip_number) == (shared.WORKING, 1, 0)
    assert two.clip_bytes == 2**63 - 1
    assert two.crops[shared.SLOTS - 1, 111, 111, 2] == 7
    assert (two.crops.sum(), two.crops.shape) == (7, (shared.SLOTS, 112, 112, 3))


def test_a_tar_root_travels(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("a/0.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    root = pickle.loads(pickle.dumps(TarRoot(tmp_path / "a.tar")))
    assert (root.read("a/0.png"), root.image_names("a")) == (b"abc", ["0.png"])


def test_the_systems_limit_of_memory_is_set(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        absent("no /proc: the system doesn't tell a process's data")
    read = decoded(
        ["tell_limit-0"], tmp_path, limits=ClipLimits(clip_memory_bytes=2**33), workers=1
    )
    base_bytes = int(read.ends[0].message) - 2**33
    assert 2**20 < base_bytes < 2**31  # what the worker takes by itself


def test_a_clip_is_not_condemned_for_the_one_before_it() -> None:
    """Between the look at a worker and its end it may have gone on to its next clip."""
    process = DecodingProcess.__new__(DecodingProcess)
    process._verdict, process.assigned = None, {1: clip("a"), 2: clip("b")}
    with open_nameless_file(size=shared.block_bytes(USUAL.shape)) as descriptor:
        process.block = shared.SharedBlock(descriptor, USUAL.shape)
    assert process.lost_clip() is None
    process.block.clip_number = 1
    assert process.lost_clip() == 1
    process.record_verdict("timeout", "too slow")
    process.record_verdict("crashed", "later")
    assert (process.lost_clip(), process.why_ended()) == (1, ("timeout", "too slow"))
    process.block.clip_number = 2
    assert process.lost_clip() is None
    process.block.clip_number = 3  # not one of its own: damaged memory
    process._verdict = None
    assert process.lost_clip() is None
