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
import io
import json
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.files import read_json_object
from vidface.core.progress import Notify, quiet
from vidface.demo.photographs import Photographs, load_photographs
from vidface.demo.plan import DemoPlan, PlannedClip, plan_clips
from vidface.demo.rendering import render_clip

DEMO_VERSION = 1  # of the renderer: raised whenever the same plan and seed give other pixels
STAMP_FILE = ".vidface-demo.json"  # tells a rendered folder from anybody else's
PART_PREFIX = ".vidface-part-"


CREDIT = """\
The faces in these clips are from The Database of Faces (formerly The ORL Database of Faces):
40 people, ten photographs each, taken between April 1992 and April 1994.

Credit: AT&T Laboratories Cambridge, who ask for it wherever these photographs are used.
F. Samaria and A. Harter, "Parameterisation of a stochastic model for human face identification",
2nd IEEE Workshop on Applications of Computer Vision, Sarasota, December 1994.

vidface rendered the photographs into clips: enlarged or reduced, moved, relit, some of them
blurred or covered on purpose. truth.csv says which frames show what.
"""


def prepare_demo(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    plan: DemoPlan | None = None,
    say: Notify = quiet,
) -> Path:
    """Render the demo's clips into `folder` unless they are there, and return the manifest's path.

    Writes `clips/*.mp4`, `truth.csv` (clip_id, frame_index, kind: what is to be seen at
    frame_index / 8 s), `LICENCE.txt` and, last and at once, `manifest.csv` (clip_id, path from
    the manifest's folder, identity or nothing for a distractor, split). So a manifest that
    exists is complete; a rendering that was interrupted is done again, and so is one of another
    seed, plan or version. Two runs may render the same into one folder at the same time.

    `say` gets a line before a download.

    Raises VidfaceError if the photographs can't be had, the folder can't be written, or it holds
    files that are not a demo's.
    """
    folder = Path(folder)
    plan = plan or DemoPlan()
    clips = plan_clips(plan, seed)
    manifest = folder / "manifest.csv"
    stamp = _stamp(plan, seed, clips)
    present_stamp = _read_stamp(folder)
    if present_stamp == stamp and all((folder / name).is_file() for name in stamp["files"]):
        return manifest
    if present_stamp is None and not _is_free(folder):
        raise VidfaceError(
            f"{folder} holds files that are not vidface's: name an empty folder for the demo"
        )
    photographs = load_photographs(say=say)
    try:
        if present_stamp not in (None, stamp):
            remove_demo(folder)
        manifest.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=PART_PREFIX, dir=folder, ignore_cleanup_errors=True
        ) as scratch:
            part = Path(scratch)
            _write_whole(folder / STAMP_FILE, json.dumps(stamp, indent=1), part)
            (folder / "clips").mkdir(exist_ok=True)
            _render_all(clips, plan, photographs, folder / "clips", part, seed)
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


def prepare_demo_manifest(path: Path, root: Path | None, *, say: Notify = quiet) -> None:
    """Render the demo's clips beside a manifest and write it, unless they are there.

    Args:
        path: the manifest, `manifest.csv`.
        root: not used: the demo's clips lie beside its manifest.

    Raises:
        VidfaceError: as `prepare_demo`, or a manifest of another name.
    """
    if not path.is_file():
        say(f"preparing the demo clips in {path.parent}")
    written = prepare_demo(path.parent, say=say)
    if written != path:
        raise VidfaceError(f"[manifest] prepare = 'demo' writes {written}, but path is {path}")


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


def _stamp(plan: DemoPlan, seed: int, clips: list[PlannedClip]) -> dict[str, Any]:
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
        stamp = read_json_object(folder / STAMP_FILE)
        names = [str(name) for name in stamp["files"]]
    except (VidfaceError, KeyError, TypeError):
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


def _manifest_rows(clips: list[PlannedClip]) -> Iterable[tuple[str, ...]]:
    yield ("clip_id", "path", "identity", "split")
    for clip in clips:
        yield (clip.clip_id, f"clips/{clip.clip_id}.mp4", clip.identity, clip.split)


def _truth_rows(clips: list[PlannedClip]) -> Iterable[tuple[object, ...]]:
    yield ("clip_id", "frame_index", "kind")
    for clip in clips:
        for segment in clip.segments:
            for frame_index in range(segment.start, segment.stop):
                yield (clip.clip_id, frame_index, segment.kind)


def _render_all(
    clips: list[PlannedClip],
    plan: DemoPlan,
    photographs: Photographs,
    folder: Path,
    part: Path,
    seed: int,
) -> None:
    def render(clip: PlannedClip) -> None:
        unfinished = part / f"{clip.clip_id}.mp4"
        render_clip(clip, plan, photographs, unfinished, seed)
        unfinished.replace(folder / unfinished.name)

    # Threads do: the encoder and the warps let go of the interpreter.
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
    try:
        tasks = [pool.submit(render, clip) for clip in clips]
        for task in as_completed(tasks):
            task.result()
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, no more clips
