"""Faces in one folder a person, on disk or inside an uncompressed tar."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.storage.names import is_image_name, natural_key
from vidface.training.sources.base import (
    MAX_IMAGE_BYTES,
    Pictures,
    PictureSource,
    check_size,
    open_pictures,
)
from vidface.training.sources.packed_names import PackedNames
from vidface.training.sources.tars import TarPictures, read_tar_members


class _Image(NamedTuple):
    folder: str  # its person's, relative to the root
    base: str
    size: int
    offset: int = 0  # in a tar

    @property
    def name(self) -> str:
        return posixpath.join(self.folder, self.base)

    @property
    def person(self) -> str:
        return posixpath.basename(self.folder)


def open_folders(path: Path, *, resize: bool = False) -> PictureSource:
    """Images as `person/image.jpg`, in a folder or an uncompressed tar.

    The people's folders may lie below one more folder (`faces/person/image.jpg`). Images come by
    person, then in natural order (`2.jpg` before `10.jpg`). Hidden files and other files are passed
    over; in a tar also links, devices and paths that lead out of it, which are counted.

    Raises:
        VidfaceError: nothing there; no image; an image in no person's folder or in a folder below
            one; a person's folder without an image; a tar that is damaged.
    """
    try:
        if path.is_dir():
            images, note = _list_folder(path), ""
        elif path.is_file():
            images, note = _list_tar(path)
        else:
            raise VidfaceError(f"{path}: no such folder or tar")
    except OSError as error:
        raise VidfaceError(f"{error.filename or path}: {error.strerror or error}") from None
    if not images:
        raise VidfaceError(
            f"{path}: no image in it, expected person/image.jpg{note and f' ({note})'}"
        )
    images.sort(key=lambda image: (image.person, natural_key(image.base)))
    names = PackedNames(image.name for image in images)
    sizes = np.array([image.size for image in images], dtype=np.int64)
    pictures: Pictures = FolderPictures(names, path)
    if path.is_file():
        places = [(0, image.offset, image.size) for image in images]
        pictures = TarPictures.of(names, (path,), places)
    people = [image.person for image in images]
    return open_pictures(str(path), people, pictures, sizes, resize, note)


@dataclass(frozen=True, eq=False)
class FolderPictures(Pictures):
    """Picture files in a folder."""

    folder: Path

    def read(self, index: int) -> bytes:
        with (self.folder / self.names[index]).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            check_size(file.name, size)
            return file.read(min(size, MAX_IMAGE_BYTES))


def _list_folder(root: Path) -> list[_Image]:
    """All images; descends through folders that hold nothing but one folder."""
    top = root
    folders, files = _scan_folder(top)
    while not files and len(folders) == 1:
        below, inside = _scan_folder(top / folders[0])
        if inside:
            break
        top, folders = top / folders[0], below
    if files:
        _refuse_place(root, files[0].name)
    images: list[_Image] = []
    for person in folders:
        below, files = _scan_folder(top / person)
        folder = (top / person).relative_to(root).as_posix()
        for name in below:
            deeper = _scan_folder(top / person / name)[1]
            if deeper:
                _refuse_place(root, f"{folder}/{name}/{deeper[0].name}")
        if not files:
            _refuse_empty(root, folder)
        images += [_Image(folder, file.name, file.stat().st_size) for file in files]
    return images


def _scan_folder(folder: Path) -> tuple[list[str], list[os.DirEntry[str]]]:
    """(names of the folders, images), none of them hidden."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image_name(entry.name) and entry.is_file():
                files.append(entry)
            elif not _is_hidden(entry.name) and entry.is_dir():
                folders.append(entry.name)
    return sorted(folders), files


def _list_tar(path: Path) -> tuple[list[_Image], str]:
    """All images, and what was passed over."""
    images: dict[str, _Image] = {}
    folders: set[str] = set()
    n_others = 0
    for member in read_tar_members(path):
        folder, base = posixpath.split(member.name)
        if member.kind != "other" and any(map(_is_hidden, folder.split("/"))):
            continue
        if member.kind == "folder":
            folders.add(member.name)
        elif not is_image_name(base):
            continue
        elif member.kind == "file":  # a name stored again replaces the first, as in any tar
            images[member.name] = _Image(folder, base, member.size, member.offset)
        else:
            n_others += 1
    people = {image.folder for image in images.values()}
    above = Counter(posixpath.dirname(folder) for folder in people if folder)
    top = min(above, key=lambda folder: (-above[folder], len(folder), folder), default="")
    for image in images.values():
        if not image.folder or posixpath.dirname(image.folder) != top:
            _refuse_place(path, image.name)
    for folder in sorted(folders - people - {""}):
        lies_beside = bool(people) and posixpath.dirname(folder) == top
        if lies_beside and not _is_hidden(posixpath.basename(folder)):
            _refuse_empty(path, folder)
    note = f"{n_others} link(s), device(s) or paths out of the tar passed over"
    return list(images.values()), note if n_others else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _refuse_place(root: Path, name: str) -> NoReturn:
    raise VidfaceError(
        f"{root}: {name} does not lie as person/image.jpg, all people's folders side by side; "
        "give the folder that holds the people's folders"
    )


def _refuse_empty(root: Path, folder: str) -> NoReturn:
    raise VidfaceError(f"{root}: folder {folder} has no image; fill or remove it")
