"""Digests of artefacts: a file that rots, or is cut, is noticed before a figure is made of it.

Beside `x.parquet` lies `_x.parquet.xxh3` (what reads folders of Parquet passes over names that
begin so): the digest of its whole content, and those of the files that it replaced, newest first,
so that a kill between the two renames leaves a pair that fits.
A digest finds accidents. It is no signature: who changes a file on purpose can change both.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vidface.core.errors import VidfaceError

DIGEST_SUFFIX = ".xxh3"
_MOST_DIGESTS = 4
_BLOCK_BYTES = 1 << 20

_checked: dict[Path, tuple[int, int, int]] = {}  # of this process: bytes, time, inode when checked


def digest_path(path: Path) -> Path:
    """Where the digest of a file lies."""
    return path.with_name(f"_{path.name}{DIGEST_SUFFIX}")


def digested_path(digest: Path) -> Path:
    """The file that a digest is of."""
    return digest.with_name(digest.stem.removeprefix("_"))


def unfinished_digest(part: Path) -> Path:
    """Where the digest of a file that is being written is itself being written."""
    return part.with_name(part.stem + DIGEST_SUFFIX + part.suffix)


def digest_file(path: Path) -> str:
    """The 128-bit XXH3 of a file's content, as hexadecimal digits."""
    import xxhash

    hasher = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def write_digest(part: Path, path: Path) -> None:
    """Write the digest of `part`, which is about to take the place of `path`."""
    digests = [digest_file(part)]
    with contextlib.suppress(OSError):
        digests += digest_path(path).read_text(encoding="ascii").split()
    unfinished = unfinished_digest(part)
    mode = part.stat().st_mode & 0o666  # whoever may read the file may check it
    with open(
        unfinished, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, mode)
    ) as file:
        file.write("\n".join(digests[:_MOST_DIGESTS]) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(digest_path(path))


def remove_with_digest(path: Path) -> None:
    """Remove a file, if it is there, and its digest."""
    path.unlink(missing_ok=True)
    digest_path(path).unlink(missing_ok=True)


def is_same_content(path: Path, before: Path) -> bool:
    """Whether a file is what another was when it was written; the other may be lost by now."""
    try:
        digests = [digest_path(p).read_text(encoding="ascii").split() for p in (path, before)]
    except (OSError, ValueError):
        return False
    return bool(digests[0]) and digests[0][0] in digests[1]


def check_digest(path: Path, remedy: str = "make it again") -> bool:
    """Compare a file with its digest, once a process; False where it has none, as of older runs.

    Args:
        remedy: what the message says is to be done.

    Raises:
        VidfaceError: the content is not what was written.
    """
    try:
        digests = digest_path(path).read_text(encoding="utf-8", errors="replace").split()
        status = path.stat()
    except OSError:
        return False
    stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
    if _checked.get(path) == stamp:
        return True
    try:
        intact = digest_file(path) in digests
    except OSError as error:
        raise VidfaceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not intact:
        raise VidfaceError(
            f"{path}: damaged: its digest says that this is not what was written; {remedy}"
        )
    _checked[path] = stamp
    return True
