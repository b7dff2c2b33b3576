"""Manifests that vidface makes of a challenge's files itself, and renews when these change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file, named_errors, read_json_object
from vidface.settings.manifests import manifest_bytes


def find_data_folder(root: Path | None, name: str, files: Sequence[str], variable: str) -> Path:
    """The folder of a challenge's data; VidfaceError where it or one of its files is missing."""
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


def renew_manifest(
    path: Path, folder: Path, sources: Sequence[Path], clips: Callable[[], tuple[Clip, ...]]
) -> None:
    """Make a manifest unless it is there and of these files as they are.

    A file beside it, written before it, says of what it was made, so that neither a change of the
    data goes unnoticed nor what somebody wrote into the manifest is lost.
    """
    stamp_path = path.with_name(f"{path.name}.sources.json")
    state = {"folder": str(folder.resolve()), "files": [_state(source) for source in sources]}
    there = read_if_there(path)
    stamp = _read_stamp(stamp_path)
    if there is not None and stamp.get("sources") in (state, None):
        return  # without a stamp it is somebody's own
    if there is not None and stamp.get("sha256") != hashlib.sha256(there).hexdigest():
        raise VidfaceError(
            f"{path}: was edited, and the data it was made of have changed ({folder}); remove it "
            "to have it made again"
        )
    data = manifest_bytes(clips())
    stamp = {"sources": state, "sha256": hashlib.sha256(data).hexdigest()}
    if there is not None and there != data:
        path.unlink()  # else a run killed here would leave it with the stamp of the next
    with atomic_file(stamp_path) as file:
        file.write(json.dumps(stamp, indent=2).encode("utf-8") + b"\n")
    if there != data:
        with atomic_file(path) as file:
            file.write(data)


def read_if_there(path: Path) -> bytes | None:
    """What a file holds; None where there is none."""
    with named_errors(path), suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _state(source: Path) -> list[Any]:
    """Name, size and time of a file; size and time are None where it is not there."""
    try:
        status = source.stat()
    except OSError:
        return [source.name, None, None]
    return [source.name, status.st_size, status.st_mtime_ns]


def _read_stamp(path: Path) -> dict[str, Any]:
    try:
        return read_json_object(path)
    except VidfaceError:
        return {}
