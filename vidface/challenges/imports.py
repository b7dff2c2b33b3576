"""Challenges' files → a manifest and a pipeline file, from which every command goes on.

`import_iqiyi`, `import_lfrc` and `import_ijb` are for data as they lie on somebody's disk;
`prepare_iqiyi` and `prepare_lfrc` do the same for the shipped recipes (`[manifest] prepare`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidface.challenges.manifests import lfrc_manifest, templates_manifest
from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.datasets.iqiyi import read_ground_truth
from vidface.datasets.iqiyi_features import feature_videos
from vidface.datasets.lfrc import CROP_FOLDER, FILELIST
from vidface.datasets.templates import read_templates
from vidface.settings.manifests import read_manifest, write_manifest
from vidface.settings.pipeline import LOCAL_PIPELINE, load_pipeline

MANIFEST = "manifest.csv"
LABELS = "ground_truth.txt"  # of an LFRC folder; they are not public
SPLIT_WORDS = ("train", "val", "test")
IQIYI_FILES = {  # of the data folder, by split: the features, and who is in the videos
    "train": ("face_train_v2.pickle", "train_gt.txt"),
    "val": ("face_val_v2.pickle", "val_gt.txt"),
}

Say = Callable[[str], None]

PIPELINE_TEXT = """\
# Written by `vidface import {kind}`. Every vidface command that is started in this folder reads it.
# All keys: pipelines/README.md of vidface.

[manifest]
path = {manifest}
root = {root}

[faces]
source = "{source}" # {what}

[cluster]
threshold = 0.4

[score]
{score}

[run]
dir = "runs/{kind}"
"""

WHAT = {
    "features": "clips are videos in feature pickles; no recogniser is run",
    "aligned": "112x112 crops, never aligned or resized again",
    "detect": "faces are found and aligned first",
}


@dataclass(frozen=True)
class Imported:
    """What an import found, and what it wrote."""

    kind: str  # "iqiyi", "lfrc", "ijb"
    manifest: Path
    pipeline: Path
    clips: int  # lines of the manifest
    labelled: int
    identities: int
    splits: dict[str, int]
    absent: int  # clips of which there is nothing; they stay in every denominator
    faces: int | None = None  # where the files say so
    templates: Path | None = None  # of "ijb": the list
    order: str = "auto"  # of its fields

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        faces = "" if self.faces is None else f", {self.faces} faces"
        lines = [
            f"{self.manifest}: {self.clips} clips ({splits}){faces}",
            f"{self.labelled} labelled ({self.identities} identities), "
            f"{self.distractors} distractors",
        ]
        if self.absent:
            lines.append(f"{self.absent} of them {_ABSENT[self.kind]}; they count as missing")
        lines += [f"{self.pipeline}: the settings, to be changed there", f"  {self.commands}"]
        return "\n".join(lines)

    @property
    def distractors(self) -> int:
        return self.clips - self.labelled

    @property
    def commands(self) -> str:
        """What to type next."""
        here = self.pipeline.parent == Path()
        flags = "" if here else f" --pipeline {shlex.quote(str(self.pipeline))}"
        missing = " --allow-missing" if self.absent and self.kind != "iqiyi" else ""
        steps = [f"vidface extract{flags}{missing}", f"vidface cluster{flags}"]
        lists = ""
        if self.templates is not None:
            lists = f" --templates {shlex.quote(str(self.templates))} --pairs PAIRS"
            if self.order != "auto":
                lists += f" --order {self.order}"
        steps.append(f"vidface score{flags}{lists}")
        # Features need no work but reading, which the command has done.
        return " && ".join(steps[1:] if self.kind == "iqiyi" else steps)

    def to_dict(self) -> dict[str, Any]:
        return {
            "manifest": str(self.manifest),
            "pipeline": str(self.pipeline),
            "clips": self.clips,
            "faces": self.faces,
            "labelled": self.labelled,
            "distractors": self.distractors,
            "identities": self.identities,
            "splits": self.splits,
            "absent": self.absent,
        }


_ABSENT = {
    "iqiyi": "are named by the ground truth alone, no pickle has them",
    "lfrc": "have no folder",
    "ijb": "have no file",
}


@dataclass(frozen=True)
class FeatureClips:
    """The clips of feature pickles: those of the files in their order, then those they lack."""

    clips: tuple[Clip, ...]  # paths start at `root`
    root: Path
    faces: int
    absent: int  # at the end of `clips`: videos that only a ground truth names

    def __str__(self) -> str:
        return (
            f"FeatureClips({len(self.clips)} clips below {self.root}, {self.faces} faces, "
            f"{self.absent} absent)"
        )


def iqiyi_clips(
    pickles: Sequence[Path], truths: Sequence[Path] = (), *, split: str | None = None
) -> FeatureClips:
    """The clips of iQIYI-VID's feature pickles, with the identities of ground truths.

    A pickle's split is the one of train, val and test that its name has. A ground truth belongs to
    the split of which it names most videos; its videos that no pickle has become clips of that
    split, for they must stay among an identity's positives. Videos that no ground truth names are
    distractors, identity "".

    Args:
        pickles: at least one, in the order that the clips shall have.
        truths: as `vidface.datasets.iqiyi.read_ground_truth` reads them.
        split: of the one pickle, whatever its name.

    Raises:
        VidfaceError: names without or with several splits, a video in two pickles or under two
            identities, a ground truth of other videos, or what the readers refuse.
    """

    if not pickles:
        raise VidfaceError("no feature pickle is named; name at least one")
    splits = _splits_of(pickles, split)
    identities: dict[str, str] = {}
    read = [(path, read_ground_truth(path)) for path in truths]  # wrong ones fail at once
    for truth_path, truth in read:
        for video, identity in truth.identity_of.items():
            if identities.setdefault(video, identity) != identity:
                raise VidfaceError(
                    f"ground truth {truth_path}: video '{video}' is '{identity}' here, and "
                    f"'{identities[video]}' in another of the files"
                )
    root, paths = _below_one_folder(pickles)
    clips: list[Clip] = []
    split_of: dict[str, str] = {}  # of the videos that are there
    faces = 0
    for pickle, path, its_split in zip(pickles, paths, splits, strict=True):
        for video, count in feature_videos(pickle):
            if video in split_of:
                raise VidfaceError(f"{pickle}: video '{video}' is in another of the pickles, too")
            if video != video.strip():
                raise VidfaceError(f"{pickle}: video {video!r} begins or ends with white space")
            split_of[video] = its_split
            clips.append(Clip(video, path, identities.get(video, ""), its_split))
            faces += count
    there = len(clips)
    added: set[str] = set()
    for truth_path, truth in read:
        found = Counter(split_of[video] for video in truth.identity_of if video in split_of)
        if not found:
            raise VidfaceError(
                f"ground truth {truth_path}: names no video of {', '.join(map(str, pickles))}; is "
                "it of another split?"
            )
        its_split = found.most_common(1)[0][0]
        path = paths[splits.index(its_split)]
        for video, identity in truth.identity_of.items():
            if video not in split_of and video not in added:
                added.add(video)
                clips.append(Clip(video, path, identity, its_split))
    if not clips:
        raise VidfaceError(f"{', '.join(map(str, pickles))}: no video in it")
    return FeatureClips(tuple(clips), root, faces, len(clips) - there)


def _splits_of(pickles: Sequence[Path], split: str | None) -> list[str]:
    if split is not None:
        if split not in SPLITS:
            raise VidfaceError(f"unknown split '{split}' (known: {', '.join(SPLITS)})")
        if len(pickles) > 1:
            raise VidfaceError(
                f"--split {split} is for one pickle; of several the names must say it: "
                "face_train_v2.pickle, face_val_v2.pickle"
            )
        return [split]
    return [_split_in_name(pickle) for pickle in pickles]


def _split_in_name(path: Path) -> str:
    """The split that a file's name says.

    >>> _split_in_name(Path("train/face_val_v2.pickle"))
    'val'
    """
    words = set(re.findall("[a-z]+", path.name.lower()))
    found = [word for word in SPLIT_WORDS if word in words]
    if len(found) != 1:
        raise VidfaceError(
            f"{path}: its name should have one of {', '.join(SPLIT_WORDS)}, has "
            f"{' and '.join(found) or 'none'}; rename it, or import it alone with --split"
        )
    return found[0]


def _below_one_folder(files: Sequence[Path]) -> tuple[Path, list[str]]:
    """The lowest folder that all files are below, and their paths from there."""
    whole = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100 - links stay
    try:
        root = Path(os.path.commonpath([file.parent for file in whole]))
    except ValueError:
        raise VidfaceError(f"{files[0]} and {files[1]} are on different drives") from None
    return root, [file.relative_to(root).as_posix() for file in whole]


def import_iqiyi(
    pickles: Sequence[Path],
    truths: Sequence[Path],
    out: Path,
    *,
    split: str | None = None,
    force: bool = False,
) -> Imported:
    """A manifest and a pipeline file for feature pickles of iQIYI-VID, written into `out`.

    Args:
        pickles, truths, split: as for `iqiyi_clips`.
        out: a folder, made if it is not there.
        force: replace a manifest and a pipeline file that are there and say something else.

    Raises:
        VidfaceError: as `iqiyi_clips`; or files in `out` that say something else.
    """
    found = iqiyi_clips(pickles, truths, split=split)
    _place(found.clips, out / MANIFEST, force)
    present = {clip.split for clip in found.clips}
    scored = next((name for name in ("val", "test") if name in present), None)
    if scored and "train" in present:
        score = f'gallery = "train"\nsplit = "{scored}"'
    else:
        score = f'split = "{scored or sorted(present)[0]}"\n{_WITHOUT_GALLERY}'
    pipeline = _place_pipeline(out, "iqiyi", found.root, "features", score, force)
    return _imported("iqiyi", found.clips, out, pipeline, found.absent, found.faces)


_WITHOUT_GALLERY = 'protocols = "verification" # the others need a split to enrol from: gallery'


def import_lfrc(
    folder: Path,
    out: Path,
    *,
    labels: Path | None = None,
    filelist: Path | None = None,
    split: str = "val",
    force: bool = False,
) -> Imported:
    """A manifest and a pipeline file for a folder of LFRC's aligned crops, written into `out`.

    Args:
        folder, filelist, split: as for `vidface.challenges.manifests.lfrc_manifest`.
        labels: its `identities`.
        out, force: as for `import_iqiyi`.

    Raises:
        VidfaceError: as `lfrc_manifest`; or files in `out` that say something else.
    """
    clips = _lfrc_clips(folder, labels, filelist, split)
    _place(clips, out / MANIFEST, force)
    score = f'split = "{split}"\n{_WITHOUT_GALLERY}'
    pipeline = _place_pipeline(out, "lfrc", folder, "aligned", score, force)
    return _imported("lfrc", clips, out, pipeline, _absent(out / MANIFEST, folder))


def import_ijb(
    templates: Path,
    root: Path,
    out: Path,
    *,
    order: str = "auto",
    split: str = "probe",
    force: bool = False,
) -> Imported:
    """A manifest of the images in a list of templates, each once, and a pipeline file.

    Args:
        templates, order: as for `vidface.datasets.templates.read_templates`.
        root: where the list's paths start.
        split: of all images.
        out, force: as for `import_iqiyi`.

    Raises:
        VidfaceError: what `read_templates` and `templates_manifest` refuse; or files in `out` that
            say something else.
    """

    if not root.is_dir():
        raise VidfaceError(f"--root {root}: no such folder; the list's paths start there")
    listed = read_templates(templates, order=order)
    with tempfile.TemporaryDirectory() as scratch:
        draft = templates_manifest(listed, Path(scratch, MANIFEST), split=split)
        clips = read_manifest(draft, check_files=False).clips
    _place(clips, out / MANIFEST, force)
    score = f'split = "{split}"\n{_WITHOUT_GALLERY}'
    pipeline = _place_pipeline(out, "ijb", root, "detect", score, force)
    made = _imported("ijb", clips, out, pipeline, _absent(out / MANIFEST, root))
    return replace(made, templates=templates, order=order)


def _lfrc_clips(
    folder: Path, labels: Path | None, filelist: Path | None, split: str
) -> tuple[Clip, ...]:

    with tempfile.TemporaryDirectory() as scratch:
        draft = lfrc_manifest(
            folder, Path(scratch, MANIFEST), identities=labels, split=split, filelist=filelist
        )
        return read_manifest(draft, check_files=False).clips


def _absent(manifest: Path, root: Path) -> int:
    return len(read_manifest(manifest, root, allow_missing=True).missing)


def _imported(
    kind: str,
    clips: Sequence[Clip],
    out: Path,
    pipeline: Path,
    absent: int,
    faces: int | None = None,
) -> Imported:
    labelled = [clip.identity for clip in clips if clip.identity]
    return Imported(
        kind=kind,
        manifest=out / MANIFEST,
        pipeline=pipeline,
        clips=len(clips),
        labelled=len(labelled),
        identities=len(set(labelled)),
        splits=dict(Counter(clip.split for clip in clips)),
        absent=absent,
        faces=faces,
    )


def _place(clips: Sequence[Clip], path: Path, force: bool) -> None:
    """Write a manifest, unless the same is there."""
    data = _manifest_bytes(clips)
    found = _content(path)
    if found == data:
        return
    if found is not None and not force:
        raise VidfaceError(
            f"{path}: a manifest with other content is there; --out names another folder, "
            "--force replaces it"
        )
    with atomic_file(path) as file:
        file.write(data)


def _manifest_bytes(clips: Sequence[Clip]) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch, MANIFEST)
        write_manifest(clips, draft)
        return draft.read_bytes()


def _content(path: Path) -> bytes | None:
    """What a file holds; None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VidfaceError(f"{path}: {error.strerror or error}") from None


def _place_pipeline(out: Path, kind: str, root: Path, source: str, score: str, force: bool) -> Path:
    """Write the pipeline file; one that is there stays if it works on the same clips."""
    path = out / LOCAL_PIPELINE
    start, where = out.resolve(), root.resolve()
    inside = where.is_relative_to(start)
    text = PIPELINE_TEXT.format(
        kind=kind,
        manifest=_toml_text(MANIFEST),
        root=_toml_text((where.relative_to(start) if inside else where).as_posix()),
        source=source,
        what=WHAT[source],
        score=score,
    )
    if path.exists() and not force:
        there = load_pipeline(path)
        same = (
            there.manifest.path == Path(os.path.abspath(out / MANIFEST))  # noqa: PTH100
            and there.manifest.root is not None
            and there.manifest.root.resolve() == where
            and there.faces.source == source
        )
        if not same:
            raise VidfaceError(
                f"{path}: is of other clips; --out names another folder, --force replaces it"
            )
        return path
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))
    return path


def _toml_text(text: str) -> str:
    """A TOML string: its basic strings take JSON's escapes."""
    if "${" in text:
        raise VidfaceError(f"{text}: '${{' stands for a variable in {LOCAL_PIPELINE}; rename it")
    return json.dumps(text, ensure_ascii=False)


def prepare_iqiyi(path: Path, root: Path | None, *, say: Say = lambda _: None) -> None:
    """The manifest of a folder with iQIYI-VID's features and ground truths (`IQIYI_FILES`).

    It is made where it is missing, and made again after the files have changed.

    Args:
        path: the manifest.
        root: the folder.
        say: gets a line before the files are read, which takes a minute.

    Raises:
        VidfaceError: no such folder or file, as `iqiyi_clips`, or a manifest that was edited since
            it was made, of files that have changed.
    """
    names = [name for pair in IQIYI_FILES.values() for name in pair]
    folder = _data_folder(root, "iqiyi", names, "IQIYI_VID")
    sources = [folder / name for name in names]

    def clips() -> tuple[Clip, ...]:
        say(f"making the manifest of the features in {folder}")
        found = iqiyi_clips(sources[0::2], sources[1::2])
        return found.clips

    _prepare(path, folder, sources, clips)


def prepare_lfrc(path: Path, root: Path | None, *, say: Say = lambda _: None) -> None:
    """The manifest of LFRC track 3's folder of crops; labels are its `ground_truth.txt`, if any.

    It is made where it is missing, and made again after the files have changed.

    Args:
        path: the manifest.
        root: the folder, with `filelist.txt` and `iQIYI_VID_FACE/`.
        say: gets a line before the files are read.

    Raises:
        VidfaceError: no such folder or list, as `lfrc_manifest`, or a manifest that was edited
            since it was made, of files that have changed.
    """

    folder = _data_folder(root, "lfrc", [], "LFRC_ROOT")
    lists = [folder / FILELIST, folder / CROP_FOLDER / FILELIST, folder / LABELS]
    if not any(source.is_file() for source in lists[:2]):
        raise VidfaceError(
            f"{folder}: no {FILELIST} in it; LFRC_ROOT (or --root) names the folder that holds "
            f"{FILELIST} and {CROP_FOLDER}/"
        )
    labels = lists[2] if lists[2].is_file() else None

    def clips() -> tuple[Clip, ...]:
        say(f"making the manifest of the crops in {folder}")
        if labels is None:
            say(f"no {LABELS} there: nobody says who is who, and no figure can be given")
        return _lfrc_clips(folder, labels, None, "val")

    _prepare(path, folder, lists, clips)


def _data_folder(root: Path | None, name: str, files: Sequence[str], variable: str) -> Path:
    if root is None:
        raise VidfaceError(
            f"[manifest] prepare = '{name}' needs [manifest] root, the data's folder"
        )
    hint = f"set {variable} (or --root) to the folder of the data"
    if not root.is_dir():
        raise VidfaceError(f"{root}: no such folder; {hint}")
    lacking = [file for file in files if not (root / file).is_file()]
    if lacking:
        raise VidfaceError(f"{root}: no {', '.join(lacking)} in it; {hint}")
    return root


def _prepare(
    path: Path, folder: Path, sources: Sequence[Path], clips: Callable[[], tuple[Clip, ...]]
) -> None:
    """Make a manifest unless it is there and of these files as they are.

    A file beside it, written before it, says of what it was made, so that neither a change of the
    data goes unnoticed nor what somebody wrote into the manifest is lost.
    """
    stamp_path = path.with_name(f"{path.name}.sources.json")
    state = {"folder": str(folder.resolve()), "files": [_state(source) for source in sources]}
    there = _content(path)
    stamp = _read_stamp(stamp_path)
    if there is not None and stamp.get("sources") in (state, None):
        return  # without a stamp it is somebody's own
    if there is not None and stamp.get("sha256") != hashlib.sha256(there).hexdigest():
        raise VidfaceError(
            f"{path}: was edited, and the data it was made of have changed ({folder}); remove it "
            "to have it made again"
        )
    data = _manifest_bytes(clips())
    stamp = {"sources": state, "sha256": hashlib.sha256(data).hexdigest()}
    if there is not None and there != data:
        path.unlink()  # else a run killed here would leave it with the stamp of the next
    with atomic_file(stamp_path) as file:
        file.write(json.dumps(stamp, indent=2).encode("utf-8") + b"\n")
    if there != data:
        with atomic_file(path) as file:
            file.write(data)


def _state(source: Path) -> list[Any]:
    """Name, size and time of a file; size and time are None where it is not there."""
    try:
        found = source.stat()
    except OSError:
        return [source.name, None, None]
    return [source.name, found.st_size, found.st_mtime_ns]


def _read_stamp(path: Path) -> dict[str, Any]:
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}
