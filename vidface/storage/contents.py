"""Digests of clips: what settles whether one changed whose file was touched, copied or moved."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from typing import BinaryIO

from vidface.core.clips import FileState
from vidface.core.errors import VidfaceError
from vidface.core.redaction import is_url
from vidface.core.rules import ReadingRules
from vidface.storage.media import MediaRoot

_BLOCK_BYTES = 1 << 20
_REMEMBERED = 64  # films of which many clips are windows are read once


def with_content(
    state: FileState,
    path: str,
    root: MediaRoot,
    rules: ReadingRules,
    on_block: Callable[[], None] = lambda: None,
) -> FileState:
    """The state of a clip's file with the digest of what lies there, if that is what it is of.

    At URLs the state has the server's tag instead. Where the file can't be read, or has changed
    since `state` was taken, no digest is known.
    """
    if state.modified_ns is None or root.remote or is_url(path):
        return state
    try:
        content = _digest(root, path, rules, state, on_block)  # type: ignore[arg-type]
        same = root.state(path, rules) == state
    except (OSError, VidfaceError, LookupError):
        return state
    return replace(state, content=content) if same else state


@lru_cache(maxsize=_REMEMBERED)
def _digest(
    root: MediaRoot,
    path: str,
    rules: ReadingRules,
    state: FileState,
    on_block: Callable[[], None],
) -> str:
    """The 128-bit XXH3 of a file, or of the names and contents of a folder's pictures."""
    import xxhash

    hasher = xxhash.xxh3_128()
    if root.kind(path) == "folder":
        for name in root.image_names(path, rules):
            data = root.read(posixpath.join(path, name))
            hasher.update(f"{name}\n{len(data)}\n".encode("utf-8", "surrogateescape"))
            hasher.update(data)
            on_block()
    else:
        for block in _read_blocks(root.open_video(path)):
            hasher.update(block)
            on_block()
    return hasher.hexdigest()


def _read_blocks(source: str | BinaryIO) -> Iterator[bytes]:
    with closing(io.FileIO(source) if isinstance(source, str) else source) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
