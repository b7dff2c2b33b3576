"""Where clips lie: a folder, an uncompressed tar that is read in place, or below a URL.

A root answers a few questions about a path of the manifest: what it is (a file, a folder, nothing),
which images it holds, how large it is, the bytes of one image, what to hand to a video decoder.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from vidface.core.clips import FileState
from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.core.redaction import is_url
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.core.values import MOST_PICTURE_BYTES
from vidface.storage.clip_urls import UrlReader
from vidface.storage.names import Kind, is_image_name, is_unread_name, natural_key
from vidface.storage.objects import Retries
from vidface.storage.reach import OWN_REACH, Reach
from vidface.storage.seekable import SeekableFile
from vidface.storage.urls import Address, local_path

_SPECIAL_FILES = (
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class MediaRoot(Protocol):
    """What extraction asks of the place where the clips lie.

    remote: a question is a request, so that sizes aren't asked again for thousands of clips.
    """

    remote: bool

    @property
    def location(self) -> Path | Address: ...
    def kind(self, path: str) -> Kind | None: ...
    def image_names(self, path: str, rules: ReadingRules = ...) -> list[str]: ...
    def unread_names(self, path: str) -> list[str]: ...
    def all_images(self) -> list[str]: ...
    def size(self, path: str, rules: ReadingRules = ...) -> int: ...
    def state(self, path: str, rules: ReadingRules = ...) -> FileState: ...
    def other_site(self, path: str) -> str: ...
    def read(self, path: str) -> bytes: ...
    def open_video(self, path: str) -> str | BinaryIO: ...


def path_kind(path: Path) -> Kind | None:
    """What lies at a path.

    Raises:
        OSError: a device, a pipe, a socket, a link to nothing or in a circle, no access.
    """
    try:
        mode = path.stat().st_mode
    except ValueError:  # a NUL byte
        return None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise
        if error.errno == errno.ENOENT and path.is_symlink():
            raise FileNotFoundError(errno.ENOENT, "a link that leads to nothing") from None
        return None
    special = next((name for is_one, name in _SPECIAL_FILES if is_one(mode)), None)
    if special is not None:
        raise OSError(errno.EINVAL, f"{special}, not a file or folder")
    return "folder" if stat.S_ISDIR(mode) else "file"


class FolderRoot:
    """Clips in a folder; an absolute path of the manifest stands for itself, and so does a URL."""

    remote = False

    def __init__(self, location: Path, reach: Reach = OWN_REACH) -> None:
        self.location = location
        self._urls = UrlReader(reach=reach)

    def kind(self, path: str) -> Kind | None:
        """What a path is; OSError as of `path_kind`, or where nobody knows of a URL."""
        return self._urls.kind(path) if is_url(path) else path_kind(self.location / path)

    def image_names(self, path: str, rules: ReadingRules = NEW_RULES) -> list[str]:
        """Names of a folder's images, in natural order."""
        if is_url(path):
            return self._urls.image_names(path, rules)
        entries = (self.location / path).iterdir()
        names = [e.name for e in entries if is_image_name(e.name, rules) and e.is_file()]
        return sorted(names, key=natural_key)

    def unread_names(self, path: str) -> list[str]:
        """Names of a folder's other pictures and videos, links to nothing among them."""
        if is_url(path):
            return self._urls.unread_names(path)
        names = [
            entry.name
            for entry in (self.location / path).iterdir()
            if (is_unread_name(entry.name) and not entry.is_dir())
            or (is_image_name(entry.name) and not (entry.is_file() or entry.is_dir()))
        ]
        return sorted(names, key=natural_key)

    def all_images(self) -> list[str]:
        """Paths of all images below the root, in natural order."""
        images = [p for p in self.location.rglob("*") if is_image_name(p.name) and p.is_file()]
        return sorted((p.relative_to(self.location).as_posix() for p in images), key=natural_key)

    def size(self, path: str, rules: ReadingRules = NEW_RULES) -> int:
        """Bytes of a file, or of all images of a folder; 0 for nothing."""
        return self.state(path, rules).bytes

    def state(self, path: str, rules: ReadingRules = NEW_RULES) -> FileState:
        """What tells a clip from a later one: the folder's own time says that a name changed."""
        if is_url(path):
            return self._urls.state(path, rules)
        full = self.location / path
        kind = path_kind(full)
        if kind is None:
            return FileState()
        status = full.stat()
        if kind == "file":
            return FileState(status.st_size, status.st_mtime_ns)
        with os.scandir(full) as entries:
            images = [entry.stat() for entry in entries if is_image_name(entry.name, rules)]
        newest = max(image.st_mtime_ns for image in (status, *images))
        return FileState(sum(image.st_size for image in images), newest)

    def read(self, path: str) -> bytes:
        if is_url(path):
            return self._urls.read(path)
        file = self.location / path
        _check_read(file.stat().st_size)
        return file.read_bytes()

    def other_site(self, path: str) -> str:
        return self._urls.other_site(path) if is_url(path) else ""

    def open_video(self, path: str) -> str | BinaryIO:
        if is_url(path):
            return self._urls.open_video(path)
        return str(self.location / path)


class UrlRoot(UrlReader):
    """Clips below an address; a path that is a whole URL stands for itself.

    Nothing else does: absolute paths and those with `..` name nothing here, and so a manifest
    found on the net reads no local file.
    """

    remote = True

    def __init__(
        self, location: Address, retries: Retries | None = None, reach: Reach = OWN_REACH
    ) -> None:
        if not location.is_plain:
            raise VidfaceError(
                f"root {location}: a root has neither a query nor user:password@ in it; "
                "credentials come from the environment or ~/.netrc"
            )
        super().__init__(retries, reach)
        self.location = location

    def __reduce__(self) -> tuple[Any, ...]:
        return UrlRoot, (self.location, self.retries, self.reach)

    def _address(self, path: str) -> Address:
        if is_url(path):
            return super()._address(path)
        try:
            return self.location / path
        except VidfaceError:
            raise FileNotFoundError(errno.ENOENT, "a path that leads out of the root") from None

    def all_images(self) -> list[str]:
        """Paths of all images below the root, in natural order.

        Raises:
            VidfaceError: it cannot be listed, as nothing can over http.
        """
        with named_errors(f"root {self.location}"):
            names = self._store(self.location).tree(self.location)
        return sorted(filter(is_image_name, names), key=natural_key)


class TarRoot:
    """Clips inside an uncompressed tar, read in place by offset; nothing is unpacked.

    Only regular files exist here: links and devices of the archive are among the unread names.
    """

    remote = False

    def __init__(self, location: Path) -> None:
        self.location = location
        self._files: dict[str, tuple[int, int]] = {}  # name → (offset, size), bytes
        self._times: dict[str, int] = {}  # name → when it was last changed, nanoseconds
        self._folders: dict[str, list[str]] = {}  # folder → names of the files in it
        self._irregular: dict[str, list[str]] = {}  # folder → names of its links, devices …
        try:
            with tarfile.open(location, "r:") as archive:
                last = -1
                for member in archive:
                    # Some versions of tarfile can be led in a circle by a negative size.
                    if member.offset <= last or member.size < 0:
                        raise ValueError(f"a member at byte {member.offset} leads back")
                    last = member.offset
                    self._add(member)
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise VidfaceError(
                f"root {location}: not a readable uncompressed tar ({error}); "
                "unpack it, or decompress it first (gunzip, unxz)"
            ) from None
        except OSError as error:
            raise VidfaceError(f"root {location}: {error.strerror or error}") from None

    def _add(self, member: tarfile.TarInfo) -> None:
        name = _inside(member.name)
        if name is None:
            return
        if member.isdir():
            self._folders.setdefault(name, [])
        elif member.isreg() and not member.issparse():
            self._files[name] = (member.offset_data, member.size)
            self._times[name] = int(member.mtime * 1e9)
            folder, base = posixpath.split(name)
            self._folders.setdefault(folder, []).append(base)
            while folder:  # an archive need not list its folders
                folder = posixpath.dirname(folder)
                self._folders.setdefault(folder, [])
        else:
            folder, base = posixpath.split(name)
            self._irregular.setdefault(folder, []).append(base)

    def kind(self, path: str) -> Kind | None:
        name = _inside(path)
        if name in self._files:
            return "file"
        return "folder" if name in self._folders else None

    def image_names(self, path: str, rules: ReadingRules = NEW_RULES) -> list[str]:
        """Names of a folder's images, in natural order; a name stored twice counts once."""
        names = {n for n in self._folders[_inside(path) or ""] if is_image_name(n, rules)}
        return sorted(names, key=natural_key)

    def unread_names(self, path: str) -> list[str]:
        """Names of a folder's other pictures and videos, links among them, in natural order."""
        folder = _inside(path) or ""
        names = set(filter(is_unread_name, self._folders[folder]))
        names.update(filter(is_image_name, self._irregular.get(folder, ())))
        return sorted(names, key=natural_key)

    def all_images(self) -> list[str]:
        """Paths of all images in the archive, in natural order."""
        return sorted(filter(is_image_name, self._files), key=natural_key)

    def size(self, path: str, rules: ReadingRules = NEW_RULES) -> int:
        """Bytes of a file, or of all images of a folder; 0 for nothing."""
        return self.state(path, rules).bytes

    def state(self, path: str, rules: ReadingRules = NEW_RULES) -> FileState:
        """What tells a clip from a later one."""
        name = _inside(path) or ""
        files = [name]
        if name not in self._files:
            images = {n for n in self._folders.get(name, []) if is_image_name(n, rules)}
            files = [posixpath.join(name, image) for image in images]
        newest = max((self._times[file] for file in files), default=None)
        return FileState(sum(self._files[file][1] for file in files), newest)

    def read(self, path: str) -> bytes:
        offset, size = self._files[_inside(path) or ""]
        _check_read(size)
        with self.location.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{self.location.name} ends inside {path}")
        return data

    def other_site(self, path: str) -> str:
        return ""

    def open_video(self, path: str) -> BinaryIO:
        offset, size = self._files[_inside(path) or ""]
        return io.BufferedReader(_TarMember(self.location, offset, size))


class _TarMember(SeekableFile):
    """The bytes [offset, offset + size) of a file, as a file of its own."""

    def __init__(self, location: Path, offset: int, size: int) -> None:
        super().__init__(size)
        self._file, self._offset = location.open("rb"), offset

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        length = max(0, min(len(buffer), self._size_bytes - self._position))
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(memoryview(buffer)[:length])
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _check_read(size_bytes: int) -> None:
    """Refuse to hold a file in memory that is larger than any picture that is decoded."""
    if size_bytes > MOST_PICTURE_BYTES:
        raise OSError(errno.EFBIG, f"a picture of {size_bytes >> 20} MiB; at most 1024 are read")


def _inside(path: str) -> str | None:
    """The archive's own spelling of a path, or None where it points out of the archive."""
    name = posixpath.normpath(path.replace("\\", "/"))
    if name.startswith(("/", "../")) or name == "..":
        return None
    return "" if name == "." else name


def open_root(location: Path | str | Address, reach: Reach = OWN_REACH) -> MediaRoot:
    """The root at `location`: a folder, an uncompressed `.tar`, or what lies below a URL.

    Args:
        reach: of the addresses that paths in it are.

    Raises:
        VidfaceError: it does not exist, or is neither; a URL that is not allowed.
    """
    place = as_location(location)
    if isinstance(place, Address):
        return UrlRoot(place, reach=reach)
    with named_errors(f"root {place}"):
        kind = path_kind(place)
    if kind is not None:
        return FolderRoot(place, reach) if kind == "folder" else TarRoot(place)
    raise VidfaceError(
        f"root {place}: no such folder or tar; set [manifest] root, --root, "
        "or the variable it begins with (VIDFACE_DATA in the shipped recipes)"
    )


def as_location(place: Path | str | Address) -> Path | Address:
    """A place that the user names: a path, or a URL (`file://` is a path).

    Raises:
        VidfaceError: a URL that is not allowed.
    """
    if isinstance(place, Path | Address):
        return place
    path = local_path(place)
    if path is not None:
        return path
    return Address(place) if is_url(place) else Path(place)
