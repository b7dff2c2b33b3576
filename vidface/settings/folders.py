"""Which clips a folder seems to hold, whose they are, and what in it is no clip: a first draft."""

from __future__ import annotations

import errno
import posixpath
import stat
import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.storage.names import VIDEO_SUFFIXES, is_image_name, natural_key

HIDDEN = "hidden"
EMPTY = "empty (0 bytes)"
DEAD_LINKS = "links that lead nowhere or in a circle"
DEVICES = "neither files nor folders"
OTHER_ENDINGS = "files of other kinds"
PICTURES = "pictures beside videos or folders of clips"
INNER_FOLDERS = "folders inside a folder of frames"
WITHOUT_CLIP = "folders without a clip"
_SHOWN = 3  # paths or endings of a reason
_STRANGERS = {"unknown", "unknowns", "stranger", "strangers", "distractor", "distractors", "nobody"}


@dataclass(frozen=True)
class FolderClips:
    """The clips of a folder; what was passed over, and why; what was decided on the way."""

    clips: tuple[Clip, ...]
    skipped: dict[str, list[str]]  # reason → paths below the folder
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.notes, *([f"left out: {self.left_out}"] if self.skipped else [])])

    @property
    def left_out(self) -> str:
        """What was passed over, in one line."""
        parts = []
        for why, paths in self.skipped.items():
            shown = paths[:_SHOWN] + ["…"] * (len(paths) > _SHOWN)
            if why == OTHER_ENDINGS:
                endings = Counter(Path(path).suffix.lower() or "no ending" for path in paths)
                shown = [f"{ending} {count}" for ending, count in endings.most_common()]
            parts.append(f"{why}: {len(paths)} ({', '.join(shown)})")
        return "; ".join(parts)


@dataclass
class _Folder:
    """What lies in a folder, in natural order; nothing that was passed over."""

    path: str  # from where the walk began; "" there
    videos: list[str] = field(default_factory=list)  # paths
    pictures: list[str] = field(default_factory=list)
    folders: list[_Folder] = field(default_factory=list)

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    @property
    def has_videos(self) -> bool:
        return bool(self.videos) or any(inner.has_videos for inner in self.folders)

    @property
    def is_used(self) -> bool:
        return bool(self.videos or self.pictures) or any(inner.is_used for inner in self.folders)

    @property
    def holds_clips(self) -> bool:
        """Videos, or folders of frames, as a person's folder does; a clip's holds pictures."""
        return self.has_videos or any(inner.is_used for inner in self.folders)


def clips_in_folder(folder: str | Path) -> FolderClips:
    """The clips that a folder seems to hold, as a first draft of its manifest.

    - A clip is a video file (`VIDEO_SUFFIXES`), or a folder that holds pictures and no video, at no
      depth. Pictures beside videos, or at the top of a person's folder that has clips' folders, are
      no clip: covers and thumbnails.
    - The top folder is the person, however deep the clips lie in it; below split folders, where all
      top folders with anything in them are called as splits are, in any case. A person's first
      clip, in natural order, becomes `train`, the others `val`, unless split folders say.
    - Clips that lie in no folder have no identity. A top folder of pictures alone is one clip: its
      person is the folder's name where other folders are persons', and not known where none is.
    - Names that are equal in Unicode's NFC, but for white space, are one person.

    Paths are relative to `folder`; clip ids are made of them, without white space, each once. Links
    are followed, but in no circle.

    Raises:
        VidfaceError: not a folder, or nothing in it that looks like a clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise VidfaceError(f"{folder}: no such folder; give the folder that holds the clips")
    skipped: dict[str, list[str]] = {}
    try:
        tree = _walk(folder, _Folder(""), frozenset(), skipped)
    except OSError as error:
        raise VidfaceError(f"{error.filename}: {error.strerror or error}") from None
    clips, notes = _draft(tree, skipped)
    contents = FolderClips(tuple(_with_ids(clips)), skipped, tuple(notes))
    if not clips:
        raise VidfaceError(
            f"{folder}: no clips found; expected video files, or folders person/clip.mp4, or "
            "folders of images person/clip/0001.jpg"
            + (f" (left out: {contents.left_out})" if skipped else "")
        )
    return contents


def _walk(
    place: Path,
    tree: _Folder,
    above: frozenset[tuple[int, int]],
    skipped: dict[str, list[str]],
) -> _Folder:
    """Fill `tree` with what lies at `place`; above: (device, inode) of the folders on the way."""
    status = place.stat()
    above |= {(status.st_dev, status.st_ino)}
    for entry in sorted(place.iterdir(), key=lambda entry: natural_key(entry.name)):
        path = posixpath.join(tree.path, entry.name)
        why = _reason_to_skip(entry, above)
        if why:
            skipped.setdefault(why, []).append(path)
        elif entry.is_dir():
            tree.folders.append(_walk(entry, _Folder(path), above, skipped))
        else:
            (tree.pictures if is_image_name(entry.name) else tree.videos).append(path)
    return tree


def _reason_to_skip(entry: Path, above: frozenset[tuple[int, int]]) -> str | None:
    if entry.name.startswith("."):
        return HIDDEN
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return DEAD_LINKS
    if stat.S_ISDIR(status.st_mode):
        return DEAD_LINKS if (status.st_dev, status.st_ino) in above else None
    if not stat.S_ISREG(status.st_mode):
        return DEVICES
    if entry.suffix.lower() not in VIDEO_SUFFIXES and not is_image_name(entry.name):
        return OTHER_ENDINGS
    return None if status.st_size else EMPTY


def _draft(tree: _Folder, skipped: dict[str, list[str]]) -> tuple[list[Clip], list[str]]:
    """The clips, their ids still empty, and what was decided on the way."""
    notes: list[str] = []
    used = [top for top in tree.folders if top.is_used]
    as_splits = [top for top in used if top.name.lower() in SPLITS]
    by_split = [("", tree)]
    if as_splits and len(as_splits) == len(used):
        by_split = [("", _Folder("", tree.videos, tree.pictures))]
        by_split += [(top.name.lower(), top) for top in used]
    elif as_splits:
        other = next(top.name for top in used if top not in as_splits)
        names = ", ".join(top.name for top in as_splits)
        notes.append(f"{names}: taken as people's folders, not as splits, since {other} is none")

    tops = [(split, top) for split, folder in by_split for top in folder.folders]
    any_person = any(top.holds_clips for _, top in tops)
    of_person: dict[tuple[str, str], list[str]] = {}  # split and identity → paths
    folders_of: dict[str, set[str]] = {}  # identity → the folders' names
    clips: list[Clip] = []
    n_unnamed = 0
    for split, folder in by_split:
        _skip(skipped, PICTURES, folder.pictures)
        clips += [Clip("", path, "", split or "val") for path in folder.videos]
        for top in folder.folders:
            paths = _clip_paths(top, skipped, top=True)
            if not paths:
                _skip(skipped, WITHOUT_CLIP, [top.path])
            elif any_person:
                identity = " ".join(unicodedata.normalize("NFC", top.name).split())
                of_person.setdefault((split, identity), []).extend(paths)
                folders_of.setdefault(identity, set()).add(top.name)
            else:
                n_unnamed += 1
                clips += [Clip("", path, "", split or "val") for path in paths]
    for (split, identity), paths in of_person.items():
        for number, path in enumerate(sorted(paths, key=_by_parts)):
            its_split = split or ("val" if number else "train")
            clips.append(Clip("", path, identity, its_split))
    notes += [
        f"{len(names)} folders are one person, {identity}: their names differ in Unicode form or "
        f"white space alone ({', '.join(sorted(map(ascii, names)))})"
        for identity, names in folders_of.items()
        if len(names) > 1
    ]
    notes += [
        f"{identity}: taken as one person; if these are clips of people nobody knows, empty their "
        "`identity` in the manifest"
        for identity in folders_of
        if identity.casefold() in _STRANGERS
    ]
    if n_unnamed:
        notes.append(
            f"{n_unnamed} folder(s) hold pictures alone: each is one clip, its person not known "
            "(a person's folder holds clips: person/clip/0001.jpg)"
        )
    if len(used) == len(folders_of) == 1 and len(used[0].folders) > 1:
        notes.append(
            f"all clips are of one person, {used[0].name}, whose folder is the only one; if the "
            f"folders in it are people's, make the manifest of {used[0].name} instead"
        )
    return sorted(clips, key=lambda clip: _by_parts(clip.path)), notes


def _clip_paths(folder: _Folder, skipped: dict[str, list[str]], *, top: bool) -> list[str]:
    """The clips in a folder: itself if it holds frames, or what lies in it."""
    if folder.pictures and not (folder.has_videos or (top and folder.holds_clips)):
        _skip(skipped, INNER_FOLDERS, [inner.path for inner in folder.folders if inner.is_used])
        return [folder.path]
    _skip(skipped, PICTURES, folder.pictures)
    inner_clips = [_clip_paths(inner, skipped, top=False) for inner in folder.folders]
    return [*folder.videos, *(path for paths in inner_clips for path in paths)]


def _skip(skipped: dict[str, list[str]], why: str, paths: list[str]) -> None:
    if paths:
        skipped.setdefault(why, []).extend(paths)


def _by_parts(path: str) -> list[tuple[object, ...]]:
    return [natural_key(part) for part in path.split("/")]


def _with_ids(clips: list[Clip]) -> list[Clip]:
    """Clips with an id of their own each: their path with dots, without its ending if it can be.

    >>> draft = [Clip("", path, "", "val") for path in ("a b/1.mp4", "a_b/1.mov", "c/2.mp4")]
    >>> [clip.clip_id for clip in _with_ids(draft)]
    ['a_b.1.mp4', 'a_b.1.mov', 'c.2']
    """
    whole = [
        "_".join(unicodedata.normalize("NFC", clip.path).replace("/", ".").split())
        for clip in clips
    ]
    endings = [posixpath.splitext(clip.path)[1] for clip in clips]
    is_file = [ending.lower() in VIDEO_SUFFIXES for ending in endings]
    short = [
        name[: -len(ending)] if is_video else name
        for name, ending, is_video in zip(whole, endings, is_file, strict=True)
    ]
    counts = Counter(short)
    taken: set[str] = set()
    named = []
    for clip, brief, name in zip(clips, short, whole, strict=True):
        clip_id, number = name if counts[brief] > 1 else brief, 1
        while clip_id in taken:
            number += 1
            clip_id = f"{name}-{number}"
        taken.add(clip_id)
        named.append(replace(clip, clip_id=clip_id))
    return named
