"""Files that appear complete or not at all, and the lines of CSV files."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from vidface.core.digests import check_digest, unfinished_digest, write_digest
from vidface.core.errors import VidfaceError

MOST_JSON_BYTES = 64 * 2**20
"""A larger file of JSON is refused; vidface's own have some kilobytes."""
MOST_TOML_CHARACTERS = 16 * 2**20

PART_SUFFIX = ".part"  # of a file that is being written


@contextmanager
def named_errors(what: object) -> Iterator[None]:
    """Turn the system's error within the block into a VidfaceError that says `what` it is about.

    >>> with named_errors("list a.txt"):
    ...     raise FileNotFoundError(2, "No such file or directory")
    Traceback (most recent call last):
    vidface.core.errors.VidfaceError: list a.txt: No such file or directory
    """
    try:
        yield
    except OSError as error:
        raise VidfaceError(f"{what}: {error.strerror or error}") from None


def make_private_folder(folder: Path) -> None:
    """Make a run directory or the like for its owner alone; one that is there keeps its mode.

    What vidface writes below it is as open as it is (`make_folder`, `create_file`): there are
    faces in it, and whoever shares a run opens its folder to a group.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, as open as the one that it lies in."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700 | folder.parent.stat().st_mode & 0o777, exist_ok=True)


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, which may have to be made itself."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return os.access(there, os.W_OK)


def create_file(path: Path, mode: int | None = None) -> IO[bytes]:
    """Make a binary file, from its first byte on as open as its folder, or of another mode.

    The umask closes either. Where the file system has no modes, nothing is lost.

    Raises:
        OSError: there is one, or it cannot be made.
    """
    chosen = 0o600 | path.parent.stat().st_mode & 0o666 if mode is None else mode
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, chosen))


@contextmanager
def atomic_file(
    path: Path, *, digest: bool = False, mode: int | None = None
) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` complete or not at all (temporary, fsync, rename).

    A symlink is replaced, so that one in a stranger's run directory leads nowhere.

    Args:
        digest: write its digest beside it, too (`vidface.core.digests`).
        mode: as for `create_file`.

    Raises:
        VidfaceError: the folder cannot be made or written, the disk is full; a device, a pipe or
            whatever else is no file is there.
    """
    if path.name == "":
        raise VidfaceError(f"{path}: not the name of a file; name one to write")
    _check_replaceable(path)
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART_SUFFIX}")
    try:
        make_folder(path.parent)
        with create_file(part, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if digest:
            write_digest(part, path)
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
            unfinished_digest(part).unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise VidfaceError(f"{path}: cannot be written: {reason}") from None
        raise


@contextmanager
def output_file(path: Path) -> Iterator[IO[bytes]]:
    """As `atomic_file`, for a file that the user names: a symlink stays, its target is written.

    A new file is as open as the umask has it, one that is there stays as open as it is.

    Raises:
        VidfaceError: as `atomic_file`; a loop of links.
    """
    target = find_output(path)
    mode = None
    with suppress(OSError):
        mode = target.stat().st_mode & 0o777
    with atomic_file(target, mode=0o666 if mode is None else mode) as file:
        if mode is not None:
            with suppress(OSError, AttributeError):  # Windows has no fchmod
                os.fchmod(file.fileno(), mode)
        yield file


def find_output(path: Path) -> Path:
    """The file that is to be written where a user names `path`: behind a symlink its target.

    Raises:
        VidfaceError: a folder, a device, a pipe or a socket is there, or a loop of links.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise VidfaceError(f"{path}: its symlinks lead in a circle; name another file")
    _check_replaceable(target)
    return target


def _check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of what is none: as root a rename replaces /dev/null."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing is there, or the folder can't be looked into: writing says so
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
        raise VidfaceError(f"{path}: is {kind}; name a file, or - for standard output")


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def csv_rows(text: str, what: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, stripped fields) of every line that is not blank.

    Args:
        text: of a CSV file.
        what: what messages call it, `manifest clips.csv`.

    Raises:
        VidfaceError: no CSV, with the line.

    >>> list(csv_rows("\\n".join(["a, b", "", "c,d"]), "table"))
    [(1, ['a', 'b']), (3, ['c', 'd'])]
    """
    import csv  # which those who ask for help need not wait for

    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    previous_line = 0
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise VidfaceError(f"{what}, line {reader.line_num}: {error}") from None
        if any(field.strip() for field in fields):
            yield previous_line + 1, [field.strip() for field in fields]
        previous_line = reader.line_num


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """The document of a TOML file; `what` is what messages call it, "pipeline".

    Raises:
        VidfaceError: unreadable, far too large, or not TOML.
    """
    try:
        with named_errors(f"{what} {file}"), file.open(encoding="utf-8") as stream:
            text = stream.read(MOST_TOML_CHARACTERS + 1)
        if len(text) > MOST_TOML_CHARACTERS:
            raise VidfaceError(f"{what} {file}: more than 16 MiB, so no {what}")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: numbers of thousands of digits, too
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise VidfaceError(f"{what} {file}: not TOML: {reason}") from None


def write_json(path: Path, document: Mapping[str, Any], *, digest: bool = False) -> None:
    """Write a JSON document; NaN is refused, since JSON has none.

    Args:
        digest: as for `atomic_file`.
    """
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_file(path, digest=digest) as file:
        file.write(text.encode("utf-8") + b"\n")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read any JSON object that vidface wrote.

    Raises:
        VidfaceError: not there, too large, too deep, no JSON, NaN in it, no object, or not what
            its digest says, where it has one.
    """
    check_digest(path)
    with named_errors(f"{path}: cannot be read"), path.open("rb") as file:
        content = file.read(MOST_JSON_BYTES + 1)
    if len(content) > MOST_JSON_BYTES:
        raise VidfaceError(
            f"{path}: larger than {MOST_JSON_BYTES >> 20} MiB, which no file of vidface's is; "
            "make it again"
        )
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise VidfaceError(
            f"{path}: no JSON that vidface wrote ({reason}); make it again"
        ) from None
    if not isinstance(document, dict):
        raise VidfaceError(f"{path}: not a JSON object, so not what vidface wrote; make it again")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} in it")


def absolute_path(text: str, start: Path) -> Path:
    """A path as a file or flag says it, made absolute and plain; relative ones begin at `start`.

    Raises:
        VidfaceError: it is empty.
    """
    if not text:
        raise VidfaceError("an empty path")
    return Path(os.path.normpath((start / Path(text).expanduser()).absolute()))
