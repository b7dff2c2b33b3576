"""What a manifest may say twice: identities that are spelled alike, and clips that are one file.

These are warnings, and change no figure: people whose names differ invisibly are scored as
different people, and a clip that is gallery and probe is found by every recogniser.
"""

from __future__ import annotations

import hashlib
import math
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.redaction import is_url, redacted
from vidface.settings.manifests import Manifest
from vidface.storage.media import MediaRoot
from vidface.storage.urls import unsigned

_SHOWN = 5  # groups of a warning
_BLOCK_BYTES = 2**16  # at a file's two ends
_NUMBER = re.compile(r"[+]?([0-9]+)(\.0*)?")


def _without_invisible(text: str) -> str:
    shown = (c for c in text if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
    return unicodedata.normalize("NFC", "".join(shown))


def _without_case(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _plain_number(text: str) -> str:
    match = _NUMBER.fullmatch(text)
    return (match[1].lstrip("0") or "0") if match else text


_LIKENESSES: dict[str, Callable[[str], str]] = {
    "in Unicode form": lambda text: unicodedata.normalize("NFC", text),
    "in invisible characters": _without_invisible,
    "in spaces": lambda text: "".join(text.split()),
    "in letter case or width": _without_case,
    "in how a number is written": _plain_number,
}
"""What may be told apart by a computer alone; each is applied to what the last one gave."""


def find_like_names(lines: Mapping[str, Sequence[int]], unit: str = "line") -> list[str]:
    """Names that differ only in what people don't see or don't mean, and in what.

    Args:
        lines: of each name, in which they are said.
        unit: what these numbers count.

    >>> find_like_names({"Anna": [2, 5], "anna ": [3], "bob": [4], "7": [6], "007.0": []})
    ["'Anna' (line 2 …) and 'anna ' (line 3) in letter case or width", \
"'7' (line 6) and '007.0' in how a number is written"]
    """
    keys = {name: name for name in lines}
    groups: dict[frozenset[str], str] = {}
    for why, simplify in _LIKENESSES.items():
        keys = {name: simplify(key) for name, key in keys.items()}
        alike = defaultdict(list)
        for name, key in keys.items():
            alike[key].append(name)
        larger = {frozenset(names) for names in alike.values() if len(names) > 1}
        groups = {names: groups.get(names, why) for names in larger}
    place = {name: i for i, name in enumerate(lines)}
    in_order = sorted(
        (sorted(names, key=place.__getitem__) for names in groups), key=lambda n: place[n[0]]
    )
    return [
        " and ".join(_with_line(name, lines[name], unit) for name in names)
        + f" {groups[frozenset(names)]}"
        for names in in_order
    ]


def _with_line(name: str, lines: Sequence[int], unit: str) -> str:
    shown = ascii(name[:80])  # what differs shows
    return shown + (f" ({unit} {lines[0]}{' …' * (len(lines) > 1)})" if lines else "")


def warn_of_like_names(
    what: str, lines: Mapping[str, Sequence[int]], unit: str = "line"
) -> list[str]:
    """One warning that names all, or none."""
    groups = find_like_names(lines, unit)
    listed = "; ".join(groups[:_SHOWN]) + f"; and {len(groups) - _SHOWN} more" * (
        len(groups) > _SHOWN
    )
    return [
        f"{what}: people whose names differ only so: {listed}; they count as different people: "
        "if they are one, write them alike"
    ] * bool(groups)


def warn_of_doubles(manifest: Manifest, *, share_files: bool = False) -> list[str]:
    """What the manifest's lines say twice, without a look at the clips: names, and paths.

    Args:
        share_files: a file holds many clips, which their ids tell apart, as files of features do.
    """
    lines: dict[str, list[int]] = defaultdict(list, {"": []})  # one may look like nobody's
    for clip in manifest.clips:
        lines[clip.identity].append(clip.line)
    what, root = f"manifest {manifest.path}", str(manifest.root_location)
    clips = () if share_files else manifest.clips
    groups = _find_clashes((_place(clip, root), clip) for clip in clips)
    warnings = warn_of_like_names(what, lines, manifest.unit)
    return warnings + _warn_of_clips(manifest, "the same file", groups)


def warn_of_equal_contents(manifest: Manifest, *, repeats: bool = False) -> list[str]:
    """Clips of other paths that hold the same bytes; for clips on this machine alone.

    A size is asked of every clip; of those that share one, 64 KiB at either end are read (of a
    folder the first and the last picture), and what is equal there is read whole.

    Args:
        repeats: also tell of one person's clips in one split, of the same path or not, which are a
            genuine pair that every recogniser gets right.
    """
    telling = _line if repeats else _place_in_scores
    root = manifest.root
    if root.remote:
        return []
    clips = [c for c in manifest.clips if c.clip_id not in manifest.missing and not is_url(c.path)]
    keys: dict[str, tuple[Hashable, ...]] = {clip.path: () for clip in clips}
    for question in (_size, _ends, _whole):
        alike: dict[Hashable, list[str]] = defaultdict(list)
        for path, key in keys.items():
            alike[key].append(path)
        several = {path for paths in alike.values() if len(paths) > 1 for path in paths}
        looked_at = clips if repeats else [clip for clip in clips if clip.path in several]
        clashes = _find_clashes(((keys[clip.path], clip) for clip in looked_at), telling)
        clashing = {clip.path for group in clashes for clip in group}
        shared = {keys[path] for path in clashing}
        keys = {
            path: (*key, answer)
            for path, key in keys.items()
            if key in shared and (answer := _answer(question, root, path)) is not None
        }
        clips = [clip for clip in clips if clip.path in keys]
    location = str(manifest.root_location)
    clashing_groups, repeated = [], []
    for group in _find_clashes(((keys[clip.path], clip) for clip in clips), telling):
        if len({_place_in_scores(clip) for clip in group}) == 1:
            repeated.append(group)
        elif len({_place(clip, location) for clip in group}) > 1:
            clashing_groups.append(group)
    return [
        *_warn_of_clips(manifest, "the same content", clashing_groups),
        *_warn_of_clips(
            manifest, "the same content", repeated, "twice in one split under one name"
        ),
    ]


def _place_in_scores(clip: Clip) -> Hashable:
    return clip.split, clip.identity


def _line(clip: Clip) -> Hashable:
    return clip.line


def _place(clip: Clip, root: str) -> str:
    """A clip's path from the root in one spelling; most have it already."""
    path = clip.path
    if path and path[0] != "/" and path[-1] not in "/." and not ("//" in path or "./" in path):
        return path
    if is_url(path):
        return unsigned(path)
    start = posixpath.normpath(root) + "/"
    return posixpath.normpath(posixpath.join(start, path)).removeprefix(start)


def _find_clashes(
    keyed: Iterable[tuple[Hashable, Clip]],
    telling: Callable[[Clip], Hashable] = _place_in_scores,
) -> list[list[Clip]]:
    """Clips of one key and of overlapping times that `telling` tells apart: in two splits, say.

    A clip is compared with the one before it that ends last. If two overlap and differ, then one of
    them differs from that one, so that no key with a clash is missed.
    """
    by_key: dict[Hashable, list[Clip]] = defaultdict(list)
    for key, clip in keyed:
        by_key[key].append(clip)
    groups = []
    for clips in by_key.values():
        if len(clips) == 1:
            continue
        clashes: dict[int, Clip] = {}
        clips = sorted(clips, key=lambda clip: clip.start_seconds or 0.0)
        last = clips[0]
        for clip in clips[1:]:
            overlaps = (clip.start_seconds or 0.0) < _end(last)
            if overlaps and telling(clip) != telling(last):
                clashes |= {last.line: last, clip.line: clip}
            if _end(clip) > _end(last):
                last = clip
        if clashes:
            groups.append([clashes[line] for line in sorted(clashes)])
    return sorted(groups, key=lambda group: group[0].line)


def _end(clip: Clip) -> float:
    return math.inf if clip.end_seconds is None else clip.end_seconds


def _warn_of_clips(
    manifest: Manifest,
    shared: str,
    groups: Sequence[Sequence[Clip]],
    where: str = "in two splits or under two identities",
) -> list[str]:
    if not groups:
        return []
    listed = [
        " and ".join(
            f"'{redacted(clip.path)[:80]}' ({manifest.unit} {clip.line}: {clip.split}, "
            f"{ascii(clip.identity[:80]) if clip.identity else 'nobody known'})"
            for clip in group[:_SHOWN]
        )
        + " …" * (len(group) > _SHOWN)
        for group in groups[:_SHOWN]
    ]
    more = f"; and {len(groups) - _SHOWN} more" * (len(groups) > _SHOWN)
    return [
        f"manifest {manifest.path}: {shared} {where}: "
        f"{'; '.join(listed)}{more}; every recogniser finds a clip in itself: keep one of the "
        f"{manifest.unit}s"
    ]


def _answer(
    question: Callable[[MediaRoot, str], Hashable], root: MediaRoot, path: str
) -> Hashable | None:
    """None for a clip that can't be read: extraction says so."""
    try:
        return question(root, path)
    except (OSError, VidfaceError):
        return None


def _size(root: MediaRoot, path: str) -> Hashable:
    return root.size(path) or None  # an empty one is like no other


def _ends(root: MediaRoot, path: str) -> Hashable:
    return _digest(_blocks(root, path, whole=False))


def _whole(root: MediaRoot, path: str) -> Hashable:
    return _digest(_blocks(root, path, whole=True))


def _digest(blocks: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.digest()


def _blocks(root: MediaRoot, path: str, *, whole: bool) -> Iterator[bytes]:
    if root.kind(path) == "folder":
        names = root.image_names(path)
        for name in names if whole else (names[0], names[-1]):
            yield hashlib.sha256(root.read(posixpath.join(path, name))).digest()
        return
    opened = root.open_video(path)
    with Path(opened).open("rb") if isinstance(opened, str) else opened as file:
        if not whole:
            yield file.read(_BLOCK_BYTES)
            file.seek(max(file.tell(), root.size(path) - _BLOCK_BYTES))
            yield file.read(_BLOCK_BYTES)
            return
        while block := file.read(_BLOCK_BYTES):
            yield block
