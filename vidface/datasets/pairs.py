"""Pairs of faces to verify: the set that all readers give, and LFW's own format."""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.core.values import CROP_SIZE, check_array
from vidface.datasets.lines import (
    FirstProblem,
    comma_fields,
    decoded_lines,
    parse_whole_number,
    word_fields,
)
from vidface.storage.images import decode_image, resize_crop
from vidface.storage.media import FolderRoot, MediaRoot, TarRoot, open_root
from vidface.storage.names import is_image_name

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # the first that there is, in either case


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of aligned faces, each of one person or of two, in folds; images are read when asked.

    Checked when made. An image that several pairs share may be one image or several.
    """

    name: str
    first: NDArray[np.int64]  # (n_pairs,) index of an image
    second: NDArray[np.int64]  # (n_pairs,) index of the other
    same: NDArray[np.bool_]  # (n_pairs,) one person?
    folds: NDArray[np.int64]  # (n_pairs,) 0 … k − 1, each of them used
    image_names: Sequence[str]  # for messages
    read: Callable[[int], bytes]  # image number → a picture file's bytes; may raise OSError
    sha256: str  # of the file that lists the pairs
    origin: str = ""  # of pairs that nobody listed: of whom, and how they were chosen

    def __post_init__(self) -> None:
        check_pairs(self.name, self.first, self.second, self.same, self.folds, self.n_images)

    def __str__(self) -> str:
        n = len(self.first)
        return (
            f"PairSet({self.name}: first, second, same, folds ({n},), {int(self.same.sum())} pairs "
            f"of one person, {self.n_folds} folds; {self.n_images} images)"
        )

    @property
    def n_images(self) -> int:
        return len(self.image_names)

    @property
    def n_folds(self) -> int:
        return int(self.folds.max()) + 1

    def image(
        self, i: int, size: tuple[int, int] = (CROP_SIZE, CROP_SIZE), *, resize: bool = False
    ) -> NDArray[np.uint8]:
        """(*size, 3) uint8 RGB of image i, 0 ≤ i < n_images.

        Args:
            size: height and width that it must have, or, with `resize`, is given.

        Raises:
            VidfaceError: there is no such image, or its file is missing or of another size;
                ClipError("corrupt") where it is no picture.
        """
        if not 0 <= i < self.n_images:
            raise VidfaceError(f"{self.name}: image {i} of {self.n_images}, counted from 0")
        name = f"{self.name}: {self.image_names[i]}"
        with named_errors(name):
            data = self.read(i)
        image = decode_image(data, name)
        if image.shape[:2] == size:
            return image
        if resize:
            return resize_crop(image, size)
        height, width, _ = image.shape
        raise VidfaceError(
            f"{name}: {width}x{height} pixels, not an aligned face of {size[1]}x{size[0]}: "
            "--resize scales it, or align the set first"
        )


def check_pairs(
    what: str,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    same: NDArray[np.bool_],
    folds: NDArray[np.int64] | None,
    n_names: int,
) -> None:
    """Raise VidfaceError unless these are pairs of named things, in folds if there are any.

    Args:
        what: what messages call them.
        first, second: (n_pairs,) indices below n_names; n_pairs ≥ 1.
        same: (n_pairs,) whether the two are of one person.
        folds: (n_pairs,) 0 … k − 1, each of them used.
    """
    n = np.size(first)
    columns = {"first": first, "second": second}
    for field, column in {**columns, "same": same, "folds": folds}.items():
        if column is not None:
            dtype = "bool" if field == "same" else "int64"
            check_array(f"{what}: {field}", np.asarray(column), (n,), dtype)
    if n == 0:
        raise VidfaceError(f"{what}: there is no pair in it")
    for field, column in columns.items():
        if column.min() < 0 or column.max() >= n_names:
            raise VidfaceError(f"{what}: {field} has an index beyond {n_names}")
    if folds is not None:
        used_folds = np.unique(folds)
        if not np.array_equal(used_folds, np.arange(len(used_folds))):
            raise VidfaceError(f"{what}: folds must be numbered 0, 1, 2, … without a gap")


PersonImage = tuple[str, int]  # whose, and which of theirs


def read_lfw_pairs(root: str | Path, pairs: str | Path) -> PairSet:
    """A pair list in LFW's format, over images `NAME/NAME_0001.jpg`.

    The list's first line holds two counts, "10 300": folds, and pairs of either kind in a fold; or
    one, "500": a single fold (View 1's pairsDevTest.txt). Each fold is that many lines
    `NAME N1 N2` (one person), then as many `NAME1 N1 NAME2 N2`; any white space separates, or tabs
    alone where names hold spaces. Or it is a CSV of such pairs in any order under the header
    `name,imagenum1,imagenum2` (Kaggle's pairs.csv): its folds are equal blocks, each as many pairs
    of one person as then of two, and one fold where it has no such order.

    Args:
        root: a folder or an uncompressed tar that holds the persons' folders, at its top or below
            one folder at its top. Of several files of an image, .jpg comes first, then .jpeg, .png,
            .bmp, .webp.
        pairs: the list.

    Raises:
        VidfaceError: the list is not in this format (with the line), or root holds none of its
            images. Single missing images raise when they are asked for.

    Source: README of LFW, "pairs.txt file format" (vis-www.cs.umass.edu/lfw/README.txt).
    """
    path = Path(pairs)
    with named_errors(f"pairs {path}"):
        data = path.read_bytes()
    listed, folds = _parse(data, f"pairs {path}")

    numbers: dict[PersonImage, int] = {}
    indices = [[numbers.setdefault(image, len(numbers)) for image in pair] for pair in listed]
    first, second = np.array(indices, dtype=np.int64).T
    opened = open_root(Path(root))
    names = [f"{name}/{name}_{number:04d}" for name, number in numbers]
    return PairSet(
        name=path.stem,
        first=first,
        second=second,
        same=np.array([one[0] == other[0] for one, other in listed]),
        folds=folds,
        image_names=names,
        read=image_reader(opened, names, path),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def is_csv_of_names(header: str) -> bool:
    """Whether a line is the header of Kaggle's pairs.csv, `name,imagenum1,imagenum2,`."""
    fields = header.lower().replace(" ", "").split(",")
    return fields[0] in ("name", "name1") and fields[1:2] == ["imagenum1"]


def _parse(
    data: bytes, what: str
) -> tuple[list[tuple[PersonImage, PersonImage]], NDArray[np.int64]]:
    """The pairs, and (n_pairs,) their folds."""
    lines = list(decoded_lines(io.BytesIO(data.rstrip()), FirstProblem(what)))
    if not lines or not lines[0][1].strip():
        raise VidfaceError(f"{what}, line 1: no header; is the file empty?")
    if is_csv_of_names(lines[0][1]):
        return _parse_csv(lines[1:], what)
    header = [parse_whole_number(field) for field in lines[0][1].split()]
    counts = [count for count in header if count]  # neither None nor 0
    if len(counts) != len(header) or len(counts) not in (1, 2):
        raise VidfaceError(
            f"{what}, line 1: not LFW's format, which begins with its counts: "
            "folds and pairs of either kind in a fold ('10 300'), or the latter alone; nor a pair "
            "as 'path path 0', or a header that names such columns, 'path1,path2,same,fold'; "
            f"got {lines[0][1].strip()[:80]!r}"
        )
    folds, per_fold = counts if len(counts) == 2 else (1, *counts)
    expected = folds * 2 * per_fold
    listed: list[tuple[PersonImage, PersonImage]] = []
    for line, text in lines[1:]:
        if len(listed) == expected:
            raise VidfaceError(
                f"{what}, line {line}: the header announces {expected} pairs, here is more"
            )
        fold, place = divmod(len(listed), 2 * per_fold)
        try:
            same = place < per_fold
            listed.append(_pair(word_fields(text, 3 if same else 4), same))
        except ValueError as error:
            raise VidfaceError(f"{what}, line {line} (fold {fold + 1}): {error}") from None
    if len(listed) < expected:
        raise VidfaceError(
            f"{what}, line {len(lines)}: the file ends after {len(listed)} pairs, "
            f"the header announces {expected}"
        )
    return listed, np.arange(expected) // (2 * per_fold)


def _parse_csv(
    lines: Sequence[tuple[int, str]], what: str
) -> tuple[list[tuple[PersonImage, PersonImage]], NDArray[np.int64]]:
    listed = []
    for line, text in lines:
        fields = comma_fields(text, line, what)
        while fields and not fields[-1]:
            fields.pop()
        try:
            listed.append(_pair(fields, len(fields) == 3))
        except ValueError as error:
            raise VidfaceError(f"{what}, line {line}: {error}") from None
    if not listed:
        raise VidfaceError(f"{what}: there is no pair in it")
    same = np.array([one[0] == other[0] for one, other in listed])
    starts = np.flatnonzero(same[1:] & ~same[:-1]) + 1
    blocks = np.split(same, starts)
    size = len(blocks[0])
    alike = all(len(block) == size and 2 * int(block.sum()) == size for block in blocks)
    return listed, np.arange(len(listed)) // size if alike else np.zeros(len(listed), np.int64)


def _pair(fields: list[str], same: bool) -> tuple[PersonImage, PersonImage]:
    form = "NAME N1 N2, one person" if same else "NAME1 N1 NAME2 N2, two people"
    if len(fields) != (3 if same else 4):
        raise ValueError(f"{len(fields)} fields where a pair is due as {form}")
    name, other = fields[0], fields[0] if same else fields[2]
    for part in (name, other):
        # The list may be a stranger's: it must not lead out of the root.
        if part == "." or ".." in part or any(sign in part for sign in "/\\:\0"):
            raise ValueError(f"{part[:80]!r} is not the name of a person's folder")
    if not same and name == other:
        raise ValueError(f"{name[:80]!r} twice where a pair is due as {form}")
    numbers = [parse_whole_number(field) for field in (fields[1], fields[-1])]
    if numbers[0] is None or numbers[1] is None:
        wrong = fields[1] if numbers[0] is None else fields[-1]
        raise ValueError(f"{wrong[:80]!r} is not the number of an image ({form})")
    return (name, numbers[0]), (other, numbers[1])


def image_reader(root: MediaRoot, names: Sequence[str], pairs: Path) -> Callable[[int], bytes]:
    """What reads image i of a list, whose names are paths below the root, with an ending or not.

    Raises:
        VidfaceError: the root holds none of them.
    """
    return partial(_read_image, root, _find(root, names, pairs))


def _read_image(root: MediaRoot, paths: Sequence[str | None], i: int) -> bytes:
    """The file of image i; one that the root lacks has no path."""
    path = paths[i]
    if path is None:
        raise FileNotFoundError(f"no such image in {root.location}")
    return root.read(path)


def _find(root: MediaRoot, names: Sequence[str], pairs: Path) -> list[str | None]:
    """The path of each image, None where there is none."""
    with named_errors(f"root {root.location}"):
        paths = _find_below(root, "", names)
        top = None if any(paths) else _top_folder(root)
        if top is not None:
            paths = _find_below(root, top, names)
    if not any(paths):
        example = names[0] if is_image_name(names[0]) else f"{names[0]}.jpg"
        raise VidfaceError(
            f"root {root.location}: none of the {len(names)} images of {pairs} is in it, "
            f"{example} for one; give the folder or tar at which the list's paths start"
        )
    return paths


def _find_below(root: MediaRoot, top: str, names: Sequence[str]) -> list[str | None]:
    whole: dict[str, str] = {}  # name with its ending → path
    by_stem: dict[str, str] = {}
    for person in {posixpath.dirname(name) for name in names}:
        folder = posixpath.join(top, person).rstrip("/")
        with named_errors(f"root {root.location}, {folder}"):
            if root.kind(folder) != "folder":
                continue
        files = root.image_names(folder)
        whole |= {posixpath.join(person, f): posixpath.join(folder, f) for f in files}
        parts = [posixpath.splitext(file) for file in files]
        for suffix in SUFFIXES:
            for stem, end in parts:
                if end.lower() == suffix:
                    path = posixpath.join(folder, stem + end)
                    by_stem.setdefault(posixpath.join(person, stem), path)
    # An image may be kept as another kind of file than the list says: a.png for a.jpg.
    stems = [posixpath.splitext(name)[0] if is_image_name(name) else name for name in names]
    return [whole.get(name) or by_stem.get(stem) for name, stem in zip(names, stems, strict=True)]


def _top_folder(root: MediaRoot) -> str | None:
    """The only folder at the top of a folder; of a tar, the first."""
    if isinstance(root, FolderRoot):
        tops = [e.name for e in root.location.iterdir() if e.is_dir() and e.name[0] != "."]
        return tops[0] if len(tops) == 1 else None
    if not isinstance(root, TarRoot):
        return None
    with tarfile.open(root.location, "r:") as archive:
        for member in archive:
            top, _, rest = posixpath.normpath(member.name).partition("/")
            if (rest or member.isdir()) and top and not top.startswith("."):
                return top
    return None
