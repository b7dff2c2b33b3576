"""Clips at URLs: a prefix of an object store or of a web server, or whole URLs one by one.

Images are read whole, within a limit. Videos are files that can be sought in, of which blocks are
fetched as the decoder asks for them: a film of any length takes `BLOCK_BYTES * BLOCKS` of memory.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import threading
from collections import OrderedDict
from typing import Any, BinaryIO

from vidface.core.clips import FileState
from vidface.core.errors import VidfaceError
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.storage.http_reads import Info
from vidface.storage.names import Kind, is_image_name, is_unread_name, natural_key
from vidface.storage.objects import Retries, Store
from vidface.storage.reach import OWN_REACH, Reach
from vidface.storage.seekable import SeekableFile
from vidface.storage.urls import Address

MAX_IMAGE_BYTES = 256 << 20
BLOCK_BYTES = 2 << 20  # of a video, fetched at once
BLOCKS = 16  # of a video, kept
REMEMBERED = 512  # objects and folders whose sizes are kept: kind, size and reading ask the same


class UrlReader:
    """Answers a media root's questions about paths that are URLs. Can go to other processes.

    Raises:
        FileNotFoundError, PermissionError, OSError: as `vidface.storage.objects.Store` says.
        VidfaceError: the protocol's library isn't installed.
    """

    def __init__(self, retries: Retries | None = None, reach: Reach = OWN_REACH) -> None:
        self.retries = retries or Retries()
        self.reach = reach
        self._stores: dict[tuple[str, Reach], Store] = {}
        self._infos: OrderedDict[str, Info] = OrderedDict()
        self._folders: OrderedDict[str, dict[str, Info]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return UrlReader, (self.retries, self.reach)

    def _address(self, path: str) -> Address:
        """The address that a manifest's path is; PermissionError where it isn't allowed."""
        try:
            return Address(path)
        except VidfaceError as error:
            raise PermissionError(errno.EACCES, str(error)) from None

    def _store(self, address: Address) -> Store:
        """The store of an address's protocol and reach, one for all that share them."""
        reach = self.reach.of_address(address)
        with self._lock:
            return self._stores.setdefault(
                (address.protocol, reach), Store(address.protocol, self.retries, reach)
            )

    def _info(self, address: Address) -> Info:
        known = self._known(address)
        if known is not None:
            return known
        return self._keep(self._infos, address, self._store(address).info(address))

    def _known(self, address: Address) -> Info | None:
        """What was asked before, of the object itself or of its folder."""
        with self._lock:
            if address.url in self._infos or address.is_http:
                return self._infos.get(address.url)
            return self._folders.get(address.parent.url, {}).get(address.name)

    def _files(self, address: Address) -> dict[str, Info]:
        """Name → what is known, of pictures and videos directly in a folder, in natural order."""
        with self._lock:
            if address.url in self._folders:
                return self._folders[address.url]
        entries = self._store(address).folder(address)
        names = sorted(
            (
                name
                for name, info in entries.items()
                if not info.is_folder and (is_image_name(name) or is_unread_name(name))
            ),
            key=natural_key,
        )
        return self._keep(self._folders, address, {name: entries[name] for name in names})

    def _keep(self, kept: OrderedDict[str, Any], address: Address, value: Any) -> Any:
        with self._lock:
            kept[address.url] = value
            while len(kept) > REMEMBERED:
                kept.popitem(last=False)
        return value

    def kind(self, path: str) -> Kind | None:
        """OSError where nobody knows: access denied, no answer."""
        try:
            return "folder" if self._info(self._address(path)).is_folder else "file"
        except FileNotFoundError:
            return None

    def image_names(self, path: str, rules: ReadingRules = NEW_RULES) -> list[str]:
        """Names of a folder's images, in natural order."""
        return [name for name in self._files(self._address(path)) if is_image_name(name, rules)]

    def unread_names(self, path: str) -> list[str]:
        """Names of a folder's other pictures and videos, in natural order."""
        return list(filter(is_unread_name, self._files(self._address(path))))

    def size(self, path: str, rules: ReadingRules = NEW_RULES) -> int:
        """Bytes of a file, or of all images of a folder; 0 for nothing."""
        return self.state(path, rules).bytes

    def state(self, path: str, rules: ReadingRules = NEW_RULES) -> FileState:
        """What tells a clip from a later one: its size and tag, or those of a folder's images."""
        try:
            address = self._address(path)
            info = self._info(address)
            if not info.is_folder:
                return FileState(info.size_bytes, content=info.etag or None)
            files = {n: f for n, f in self._files(address).items() if is_image_name(n, rules)}
        except FileNotFoundError:
            return FileState()
        tags = "\n".join(f"{name} {file.etag}" for name, file in files.items())
        known = all(file.etag for file in files.values())
        content = hashlib.sha256(tags.encode("utf-8", "replace")).hexdigest() if known else None
        return FileState(sum(file.size_bytes for file in files.values()), content=content)

    def other_site(self, path: str) -> str:
        """Where a file's bytes come from, if its server redirects to another site; "" else."""
        address = self._address(path)
        return self._info(address).site if address.is_http else ""

    def read(self, path: str, limit_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        address = self._address(path)
        return self._store(address).read(address, limit_bytes, self._known(address))

    def open_video(self, path: str) -> BinaryIO:
        address = self._address(path)
        info = self._info(address)
        if info.is_folder:
            raise IsADirectoryError(errno.EISDIR, "a folder, not a file")
        return io.BufferedReader(_UrlFile(self._store(address), address, info))


def read_address(
    address: Address,
    limit_bytes: int,
    retries: Retries | None = None,
    reach: Reach = OWN_REACH,
) -> bytes:
    """All bytes at an address, at most `limit_bytes`; raises as `Store.read`."""
    return Store(address.protocol, retries, reach).read(address, limit_bytes)


class _UrlFile(SeekableFile):
    """An object as a file: blocks are fetched when read, the latest `BLOCKS` are kept."""

    def __init__(self, store: Store, address: Address, info: Info) -> None:
        super().__init__(info.size_bytes)
        caching = importlib.import_module("fsspec.caching")

        def fetch(start: int, end: int) -> bytes:
            return store.read_range(address, start, min(end, info.size_bytes), info)

        self._cache = caching.BlockCache(BLOCK_BYTES, fetch, info.size_bytes, maxblocks=BLOCKS)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        # One block at most: a reader that asks for the whole film gets it piece by piece.
        block_end = (self._position // BLOCK_BYTES + 1) * BLOCK_BYTES
        end = min(self._position + len(buffer), block_end, self._size_bytes)
        if end <= self._position:
            return 0
        data = self._cache._fetch(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._cache = None
        super().close()
