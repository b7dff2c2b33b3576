"""Which clips of a manifest were extracted already, by keys that are joined as Arrow columns.

A clip's key is the hash of its path and times (`Manifest.clip_keys`), so that one under another id
is known, too. Whether its file changed is told by size and time, or by its content's digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidface.core.clips import FileState
from vidface.core.errors import VidfaceError
from vidface.core.redaction import is_url, redacted
from vidface.core.rules import ReadingRules
from vidface.faces.clip_faces import clip_state
from vidface.runs.artefacts import CLIPS_SHA256
from vidface.settings.manifests import ASKED_AT_ONCE, Manifest, clip_key, hash_clips
from vidface.storage.contents import with_content

_UNKNOWN = -1  # bytes or nanoseconds that nobody says


@dataclass(frozen=True)
class ClipChanges:
    """How a manifest's clips differ from a run's: numbers of clips.

    Attributes:
        renamed: the same file under another id.
        changed_ids: of clips whose files changed; those whose path or times changed are counted.
        gone: their files are no longer there; what was extracted of them is kept.
        touched: only the time of the file is another.
        uncertain: asked to compare contents, but of them none is recorded.
        moved: whether clips stand in another order.

    >>> print(ClipChanges(added=2, removed=1, reused=21))
    2 added, 1 removed, 21 reused
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    renamed: int = 0
    reused: int = 0
    changed_ids: frozenset[str] = frozenset()
    gone: int = 0
    touched: int = 0
    uncertain: int = 0
    moved: bool = False

    def __str__(self) -> str:
        names = ("added", "removed", "changed", "renamed", "reused")
        counts = {name: getattr(self, name) for name in names}
        parts = [f"{n} {name}" for name, n in counts.items() if n]
        return ", ".join([*parts, *(["in another order"] if self.moved else [])])

    @property
    def any(self) -> bool:
        """Whether the run has to be changed."""
        return bool(self.added or self.removed or self.changed or self.renamed or self.moved)


def complete_keys(table: pa.Table, made: Mapping[str, Any], manifest: Manifest) -> pa.Table:
    """The clips of an extraction with their keys; an older vidface recorded but a hash of them all.

    Raises:
        VidfaceError: what times those clips had can't be found out.
    """
    if not table["key"].null_count:
        return table
    there = {clip.clip_id: clip for clip in manifest.clips}
    rows = list(zip(*(table[name].to_pylist() for name in ("clip_id", "path")), strict=True))
    as_now: list[tuple[str, str, float | None, float | None]] = []
    for clip_id, path in rows:
        clip = there.get(clip_id)
        if clip is not None and redacted(clip.path) == path:
            as_now.append((clip_id, clip.path, clip.start_seconds, clip.end_seconds))
        else:
            as_now.append((clip_id, path, None, None))
    whole = [(clip_id, path, None, None) for clip_id, path in rows]
    recorded = made["settings"].get(CLIPS_SHA256)
    guess = next((clips for clips in (as_now, whole) if hash_clips(clips) == recorded), None)
    if guess is None:
        raise VidfaceError(
            "an older vidface made this extraction and did not record its clips' times: give the "
            "manifest it was made with, or --force"
        )
    keys = pa.array([clip_key(*clip[1:]) for clip in guess], pa.string())
    return table.set_column(table.schema.get_field_index("key"), "key", keys)


def match_clips(manifest: Manifest, extracted: pa.Table, *, by_file: bool = True) -> np.ndarray:
    """(n_clips,) int64: of each clip the row of `extracted` that has its faces; -1 for none.

    Args:
        extracted: clips with their keys; of several that fit, the first is taken.
        by_file: one of the same file and times under another id will do.
    """
    keys, ids = manifest.clip_keys, _ids_of(manifest)
    join = pc.binary_join_element_wise
    known = join(extracted["key"], extracted["clip_id"], "\n")
    rows = pc.index_in(join(keys, ids, "\n"), value_set=known)
    if by_file:
        rows = pc.coalesce(rows, pc.index_in(keys, value_set=extracted["key"]))
    return np.asarray(pc.fill_null(rows, -1), dtype=np.int64)


def _ids_of(manifest: Manifest) -> pa.Array:
    return pa.array([clip.clip_id for clip in manifest.clips], pa.string())


def compare_clips(
    manifest: Manifest, table: pa.Table, *, by_file: bool = True, rows: np.ndarray | None = None
) -> ClipChanges:
    """How a manifest differs from the clips of a finished run, without a look at files.

    Args:
        rows: as `match_clips` gives them.
    """
    rows = match_clips(manifest, table, by_file=by_file) if rows is None else rows
    ids, before = _ids_of(manifest), table["clip_id"].combine_chunks()
    is_new = np.asarray(pc.invert(pc.is_in(ids, value_set=before)))
    is_gone = np.asarray(pc.invert(pc.is_in(before, value_set=ids)))  # of the run's clips
    found = rows >= 0
    sources = rows[found]
    same_id = np.zeros(len(rows), dtype=bool)
    same_id[found] = np.asarray(pc.equal(ids.filter(found), before.take(pa.array(sources))))
    renamed = found & ~same_id
    moved_on = np.unique(rows[renamed & is_new])
    return ClipChanges(
        added=int(np.count_nonzero(is_new & ~renamed)),
        removed=int(np.count_nonzero(is_gone) - np.count_nonzero(is_gone[moved_on])),
        changed=int(np.count_nonzero(~is_new & ~found)),
        renamed=int(np.count_nonzero(renamed)),
        reused=int(np.count_nonzero(same_id)),
        moved=bool((np.diff(sources) < 0).any()),
    )


@dataclass(frozen=True)
class ComparedFiles:
    """What became of the files of clips that were extracted; (n_clips,) bool each.

    Attributes:
        modified_ns: (n_clips,) int64, -1 where nobody knows or asked.
    """

    changed: np.ndarray
    gone: np.ndarray
    touched: np.ndarray
    uncertain: np.ndarray
    modified_ns: np.ndarray


def compare_files(
    manifest: Manifest,
    rows: np.ndarray,
    extracted: pa.Table,
    rules: ReadingRules,
    *,
    verify: bool = False,
) -> ComparedFiles:
    """Compare files with what they were when they were extracted.

    Of a file whose time changed the content decides, where its digest is recorded. URLs are asked
    with `verify` alone, a request a clip.

    Args:
        rows: of each clip its row in `extracted`; -1: it isn't compared.
        verify: compare all contents, and at URLs sizes and tags.
    """
    clips, root = manifest.clips, manifest.root
    remote = root.remote or np.fromiter((is_url(clip.path) for clip in clips), bool, len(clips))
    asked = (rows >= 0) & (verify | ~np.broadcast_to(remote, rows.shape))
    places: list[int] = np.flatnonzero(asked).tolist()
    sizes, times = np.full((2, len(rows)), _UNKNOWN)
    tags: dict[int, str | None] = {}
    slow = verify and bool(np.any(remote))
    with ThreadPoolExecutor(ASKED_AT_ONCE) if slow else nullcontext() as pool:
        ask = map if pool is None else pool.map
        states: Iterable[FileState] = ask(
            lambda place: clip_state(clips[place], root, rules), places
        )
        for place, state in zip(places, states, strict=True):
            sizes[place] = state.bytes
            times[place] = _UNKNOWN if state.modified_ns is None else state.modified_ns
            if state.content is not None:
                tags[place] = state.content

    before = extracted.select(["bytes", "modified_ns", "content"])
    before = before.take(pa.array(np.maximum(rows, 0))) if len(extracted) else before
    sizes_before = _numbers(before, "bytes", len(rows))
    times_before = _numbers(before, "modified_ns", len(rows))
    was_missing = asked & (sizes_before == 0) & (times_before == _UNKNOWN)
    is_there = (sizes > 0) | (times != _UNKNOWN)
    gone = asked & ~is_there & ~was_missing
    changed = asked & is_there & (was_missing | (sizes != sizes_before))
    other_time = (times_before != _UNKNOWN) & (times != _UNKNOWN) & (times != times_before)
    doubtful = asked & is_there & ~changed & (other_time | verify)
    touched, uncertain = np.zeros((2, len(rows)), dtype=bool)
    for place in np.flatnonzero(doubtful).tolist():
        recorded = before["content"][place].as_py()
        if recorded is None:
            changed[place], uncertain[place] = other_time[place], not other_time[place]
            continue
        state = FileState(
            int(sizes[place]),
            None if times[place] == _UNKNOWN else int(times[place]),
            tags.get(place),
        )
        content = with_content(state, clips[place].path, root, rules).content
        changed[place] = content != recorded
        touched[place] = other_time[place] and not changed[place]
    return ComparedFiles(changed, gone, touched, uncertain, np.where(asked, times, _UNKNOWN))


def _numbers(table: pa.Table, name: str, n: int) -> np.ndarray:
    if not len(table):
        return np.full(n, _UNKNOWN)
    return np.asarray(pc.fill_null(table[name], _UNKNOWN), dtype=np.int64)


def refuse_other_clips(manifest: Manifest, table: pa.Table, made: Mapping[str, Any], path: Path,
                       *, by_file: bool) -> None:  # fmt: skip
    """Refuse a run whose clips are not those of the manifest: no subset is scored in silence.

    Raises:
        VidfaceError: how many differ, and what makes them fit.
    """
    same_ids = table["clip_id"].combine_chunks().equals(_ids_of(manifest))
    if same_ids and made["settings"].get(CLIPS_SHA256) == manifest.clips_sha256:
        return
    changes = compare_clips(manifest, complete_keys(table, made, manifest), by_file=by_file)
    if changes.any:
        left = changes.added + changes.changed
        what = f"{left} clip(s) of the manifest are not extracted yet" if left else (
            "its clips are not those of the manifest"
        )  # fmt: skip
        raise VidfaceError(
            f"{path}: {what} ({changes}): `vidface extract` does what is new and keeps the rest"
        )
