"""Where clips lie: a folder, an uncompressed tar that is read in place, or below a URL.

A root answers a few questions about a path of the manifest: what it is (a file, a folder, nothing),
which images it holds, how large it is, the bytes of one image, what to hand to a video decoder.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from vidface.core.errors import VidfaceError
from vidface.storage.urls import Address, base_name, is_url, local_path

if TYPE_CHECKING:
    from vidface.storage.clip_urls import UrlReader

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
)
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".mpg", ".mpeg")
) | {".flv", ".wmv", ".3gp", ".ogv"}

Kind = Literal["file", "folder"]


def is_image_name(name: str) -> bool:
    """Whether a file name is that of a picture; hidden files (`._a.jpg`) are not."""
    base = base_name(name)
    return not base.startswith(".") and posixpath.splitext(base)[1].lower() in IMAGE_SUFFIXES


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key by which `2.jpg` comes before `10.jpg`; equal numbers fall back to the text.

    >>> sorted(["10.jpg", "2.jpg", "a1", "02.jpg", "a"], key=natural_key)
    ['02.jpg', '2.jpg', '10.jpg', 'a', 'a1']
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    key = []
    for part in parts:
        digits = part.lstrip("0")  # compared by length, then as text: numbers of any size
        key.append((len(digits), digits) if part[0] in "0123456789" else (sys.maxsize, part))
    return tuple(key), name


class MediaRoot(Protocol):
    """What extraction asks of the place where the clips lie."""

    @property
    def location(self) -> Path | Address: ...
    def kind(self, path: str) -> Kind | None: ...
    def image_names(self, path: str) -> list[str]: ...
    def all_images(self) -> list[str]: ...
    def size(self, path: str) -> int: ...
    def read(self, path: str) -> bytes: ...
    def open_video(self, path: str) -> str | BinaryIO: ...


class FolderRoot:
    """Clips in a folder; an absolute path of the manifest stands for itself, and so does a URL."""

    def __init__(self, location: Path) -> None:
        self.location = location
        self._reader: UrlReader | None = None

    @property
    def _urls(self) -> UrlReader:
        if self._reader is None:
            from vidface.storage.clip_urls import UrlReader

            self._reader = UrlReader()
        return self._reader

    def kind(self, path: str) -> Kind | None:
        """What a path is; for a URL OSError where nobody knows: access denied, no answer."""
        if is_url(path):
            return self._urls.kind(_address_of(path))
        full = self.location / path
        try:
            if full.is_file():
                return "file"
            return "folder" if full.is_dir() else None
        except (OSError, ValueError):  # a name too long, or with a NUL byte
            return None

    def image_names(self, path: str) -> list[str]:
        """Names of a folder's images, in natural order."""
        if is_url(path):
            return list(self._urls.images(_address_of(path)))
        entries = (self.location / path).iterdir()
        names = [e.name for e in entries if is_image_name(e.name) and e.is_file()]
        return sorted(names, key=natural_key)

    def all_images(self) -> list[str]:
        """Paths of all images below the root, in natural order."""
        found = [p for p in self.location.rglob("*") if is_image_name(p.name) and p.is_file()]
        return sorted((p.relative_to(self.location).as_posix() for p in found), key=natural_key)

    def size(self, path: str) -> int:
        """Bytes of a file, or of all images of a folder; 0 for nothing."""
        if is_url(path):
            return self._urls.size(_address_of(path))
        full = self.location / path
        if self.kind(path) != "folder":
            return full.stat().st_size if self.kind(path) else 0
        with os.scandir(full) as entries:
            return sum(e.stat().st_size for e in entries if is_image_name(e.name))

    def read(self, path: str) -> bytes:
        if is_url(path):
            return self._urls.read(_address_of(path))
        return (self.location / path).read_bytes()

    def open_video(self, path: str) -> str | BinaryIO:
        if is_url(path):
            return self._urls.open_video(_address_of(path))
        return str(self.location / path)


def _address_of(path: str) -> Address:
    from vidface.storage.clip_urls import address_of

    return address_of(path)


class TarRoot:
    """Clips inside an uncompressed tar, read in place by offset; nothing is unpacked.

    Only regular files exist here: links and devices of the archive are passed over.
    """

    def __init__(self, location: Path) -> None:
        self.location = location
        self._files: dict[str, tuple[int, int]] = {}  # name → (offset, size), bytes
        self._folders: dict[str, list[str]] = {}  # folder → names of the images in it
        try:
            with tarfile.open(location, "r:") as archive:
                last = -1
                for member in archive:
                    # Some versions of tarfile can be led in a circle by a negative size.
                    if member.offset <= last or member.size < 0:
                        raise ValueError(f"a member at byte {member.offset} leads back")
                    last = member.offset
                    self._add(member)
        except (tarfile.TarError, EOFError, ValueError) as error:
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
            folder, base = posixpath.split(name)
            images = self._folders.setdefault(folder, [])
            if is_image_name(base):
                images.append(base)
            while folder:  # an archive need not list its folders
                folder = posixpath.dirname(folder)
                self._folders.setdefault(folder, [])

    def kind(self, path: str) -> Kind | None:
        name = _inside(path)
        if name in self._files:
            return "file"
        return "folder" if name in self._folders else None

    def image_names(self, path: str) -> list[str]:
        """Names of a folder's images, in natural order; a name stored twice counts once."""
        return sorted(set(self._folders[_inside(path) or ""]), key=natural_key)

    def all_images(self) -> list[str]:
        """Paths of all images in the archive, in natural order."""
        return sorted(filter(is_image_name, self._files), key=natural_key)

    def size(self, path: str) -> int:
        """Bytes of a file, or of all images of a folder; 0 for nothing."""
        name = _inside(path) or ""
        if name in self._files:
            return self._files[name][1]
        images = set(self._folders.get(name, []))
        return sum(self._files[posixpath.join(name, image)][1] for image in images)

    def read(self, path: str) -> bytes:
        offset, size = self._files[_inside(path) or ""]
        with self.location.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{self.location.name} ends inside {path}")
        return data

    def open_video(self, path: str) -> BinaryIO:
        offset, size = self._files[_inside(path) or ""]
        return io.BufferedReader(_Window(self.location, offset, size))


class _Window(io.RawIOBase):
    """The bytes [offset, offset + size) of a file, as a file of its own."""

    def __init__(self, location: Path, offset: int, size: int) -> None:
        self._file = location.open("rb")
        self._offset, self._size, self._position = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        length = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._offset + self._position)
        count = self._file.readinto(memoryview(buffer)[:length])
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _inside(path: str) -> str | None:
    """The archive's own spelling of a path, or None where it points out of the archive."""
    name = posixpath.normpath(path.replace("\\", "/"))
    if name.startswith(("/", "../")) or name == "..":
        return None
    return "" if name == "." else name


def open_root(location: Path | str | Address) -> MediaRoot:
    """The root at `location`: a folder, an uncompressed `.tar`, or what lies below a URL.

    Raises:
        VidfaceError: it does not exist, or is neither; a URL that is not allowed.
    """
    place = as_location(location)
    if isinstance(place, Address):
        from vidface.storage.clip_urls import UrlRoot

        return UrlRoot(place)
    if place.is_dir():
        return FolderRoot(place)
    if place.is_file():
        return TarRoot(place)
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
