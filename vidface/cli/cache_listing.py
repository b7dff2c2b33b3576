"""What the cache holds, listed and cleared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vidface.backbones.weights import WEIGHTS, cache_path_of
from vidface.core.errors import VidfaceError
from vidface.storage.cache import BEHAVIOUR, EXPORTS, SCRATCH_PREFIX, TRIALS, cache_folder


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache; `path` is a file, or the folder of a rendered demo."""

    name: str
    path: Path
    bytes: int
    what: str  # for people: kind and licence


# What vidface makes of recognisers, in folders of the cache: folder, suffix, and what it is.
_DERIVED = (
    (TRIALS, ".json", "a runtime's trial"),
    (BEHAVIOUR, ".json", "a recogniser's trial"),
    (EXPORTS, ".onnx", "a torch network, exported to be run"),
)


def cache_entries() -> list[CacheEntry]:
    """What the cache holds: weights, the demo's photographs and clips, remains of downloads."""
    from vidface.demo.photographs import photographs_file
    from vidface.demo.preparation import demo_files

    cache = cache_folder()
    entries = []
    for below, suffix, what in _DERIVED:
        entries += [
            CacheEntry(path.stem[:8], path, path.stat().st_size, what)
            for path in sorted((cache / below).glob(f"*{suffix}"))
            if re.fullmatch("[0-9a-f]{32}", path.stem) and path.is_file()
        ]
    for record in WEIGHTS.values():
        if record.shipped:
            continue  # the package's, not the cache's
        path = cache_path_of(record)
        if path.is_file():
            what = f"{record.kind}'s weights, {record.licence}"
            entries.append(CacheEntry(record.name, path, path.stat().st_size, what))
    photographs = photographs_file()
    if photographs.is_file():
        what = "400 photographs, AT&T Laboratories Cambridge"
        entries.append(CacheEntry("photographs", photographs, photographs.stat().st_size, what))
    folders = sorted(cache.iterdir()) if cache.is_dir() else []
    for folder in folders:
        if not folder.is_dir() or folder.is_symlink():
            continue
        if folder.name.startswith(SCRATCH_PREFIX):
            files = [path for path in folder.rglob("*") if path.is_file()]
            what = "an unfinished download"
        else:
            files = demo_files(folder)
            clips = sum(path.suffix == ".mp4" for path in files)
            complete = (folder / "manifest.csv").is_file()
            what = f"{clips} rendered clips" + ("" if complete else ", unfinished")
            if not files:
                continue
        size = sum(path.stat().st_size for path in files)
        entries.append(CacheEntry(folder.name, folder, size, what))
    return entries


def clear_cache() -> int:
    """Remove what `cache_entries` lists; the number of bytes freed.

    `$VIDFACE_CACHE` may be any folder of the user's: only the files that vidface puts there are
    removed, each by its name, and then the folders that this left empty. Raises VidfaceError if
    something can't be removed.
    """
    import shutil

    from vidface.demo.photographs import photographs_file
    from vidface.demo.preparation import remove_demo

    freed = 0
    try:
        for entry in cache_entries():
            if entry.path.is_file():
                entry.path.unlink(missing_ok=True)
            elif entry.path.name.startswith(SCRATCH_PREFIX):
                shutil.rmtree(entry.path)
            else:
                remove_demo(entry.path)
            freed += entry.bytes
        derived_folders = [cache_folder() / folder for folder, *_ in _DERIVED]
        for emptied in (cache_folder() / "weights", photographs_file().parent, *derived_folders):
            if emptied.is_dir() and not any(emptied.iterdir()):
                emptied.rmdir()
    except OSError as error:
        raise VidfaceError(
            f"cannot remove {error.filename} ({error.strerror}): remove it by hand"
        ) from error
    return freed
