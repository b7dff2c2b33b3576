"""Pairs of faces listed by their paths, as people's own scripts write them."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.datasets.lines import (
    numbered_lines,
    numbered_rows,
    open_list,
    parse_whole_number,
)
from vidface.datasets.pair_layout import names_columns, quote_name
from vidface.datasets.pair_lists import PairList, read_pair_list
from vidface.datasets.pairs import PairSet, image_reader, is_csv_of_names
from vidface.storage.media import open_root


def lists_paths(pairs: Path) -> bool:
    """Whether a list's first line is not LFW's: a pair of paths, a path and its label, a header."""
    what = f"pairs {pairs}"
    with open_list(pairs, what) as file:
        fields = next(numbered_rows(file, what, 3), (0, []))[1]
    if is_csv_of_names(",".join(fields)):
        return False
    numbers = [parse_whole_number(field) for field in fields]
    if len(fields) == 2:
        return numbers[0] is None and numbers[1] is not None
    return names_columns(fields) or (len(fields) == 3 and numbers[1] is None)


def read_path_pairs(root: str | Path, pairs: str | Path) -> PairSet:
    """Pairs of images that are listed by their paths below root.

    The list is one of `read_pair_list`, a line a pair (`ann/1.jpg ann/2.jpg 1`, or a header that
    names the columns), or has two lines a pair, each a path and the same whole number: 0 for two
    people, another one for one (CALFW, CPLFW). Without a column for the fold it is one fold. A file
    may have another ending than the list says.

    Args:
        root: a folder or an uncompressed tar at which the paths start, or that holds one folder
            where they do.

    Raises:
        VidfaceError: not such a list; a path that leads out of root; none of the images is there.
    """
    path = Path(pairs)
    what = f"pairs {path}"
    with open_list(path, what) as file, named_errors(what):
        has_two_lines = len(next(numbered_rows(file, what, 3), (0, []))[1]) == 2
    listed = _read_line_pairs(path, what) if has_two_lines else read_pair_list(path)
    names = [path_below(name, what) for name in listed.names]
    folds = np.zeros(len(listed), np.int64) if listed.folds is None else listed.folds
    return PairSet(
        name=path.stem,
        first=listed.first,
        second=listed.second,
        same=listed.same,
        folds=folds,
        image_names=names,
        read=image_reader(open_root(Path(root)), names, path),
        sha256=listed.sha256,
    )


def _read_line_pairs(path: Path, what: str) -> PairList:
    with open_list(path, what) as file:
        sha256 = hashlib.sha256(file.read()).hexdigest()
        file.seek(0)
        rows = list(numbered_rows(file, what, 2))
    labels: list[int] = []
    name = ""
    for line, fields in rows:
        label = parse_whole_number(fields[-1]) if len(fields) == 2 else None
        if label is None:
            raise VidfaceError(f"{what}, line {line}: not a path and a whole number")
        labels.append(label)
        if len(labels) % 2:
            name = fields[0]
        elif fields[0] == name:
            raise VidfaceError(f"{what}, line {line}: {quote_name(name)} against itself")
        elif label != labels[-2]:
            raise VidfaceError(
                f"{what}, line {line}: {label} where the other line of its pair has {labels[-2]}"
            )
    if len(rows) % 2:
        raise VidfaceError(f"{what}: {len(rows)} lines where every pair has two")
    numbers: dict[str, int] = {}
    indices = [numbers.setdefault(fields[0], len(numbers)) for _, fields in rows]
    return PairList(
        first=np.array(indices[::2], dtype=np.int64),
        second=np.array(indices[1::2], dtype=np.int64),
        same=np.array(labels[::2]) > 0,
        names=tuple(numbers),
        sha256=sha256,
    )


def read_cfp_pairs(root: str | Path, split: str | Path) -> PairSet:
    """CFP's own protocol, ten folds of frontal against frontal or profile pictures.

    Args:
        root: where the persons' folders lie (`001/frontal/01.jpg`), a folder or uncompressed tar.
        split: the protocol's `Split/FF` or `Split/FP`, a folder with one a fold, each with same.txt
            and diff.txt: lines of two numbers in Pair_list_F.txt and, of FP, in Pair_list_P.txt.

    Raises:
        VidfaceError: files that are missing or not so, with the line; no image is there.
    """
    split = Path(split)
    what = f"pairs {split}"
    kinds = split.name.upper()
    folders = sorted(folder for folder in split.iterdir() if (folder / "same.txt").is_file())
    if kinds not in ("FF", "FP") or not folders:
        raise VidfaceError(
            f"{what}: a folder; give a list of pairs, or CFP's Protocol/Split/FF or …/FP"
        )
    digest = hashlib.sha256()

    def read_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
        with open_list(path, f"pairs {path}") as file:
            digest.update(file.read())
            file.seek(0)
            for line, text in numbered_lines(file, f"pairs {path}"):
                yield f"pairs {path}, line {line}", text.replace(",", " ").split()

    beside = next((p for p in split.parents[:2] if (p / "Pair_list_F.txt").is_file()), split.parent)
    places: list[dict[str, str]] = []  # of the first picture, and of the second: number → path
    for kind in kinds:
        rows = read_rows(beside / f"Pair_list_{kind}.txt")
        paths = {fields[0]: fields[-1].replace("\\", "/") for _, fields in rows}
        places.append({n: "/".join(path.split("/")[-3:]) for n, path in paths.items()})
    numbers: dict[str, int] = {}
    pairs: list[tuple[int, int, bool, int]] = []
    for fold, folder in enumerate(folders):
        for name, same in (("same.txt", True), ("diff.txt", False)):
            for where, fields in read_rows(folder / name):
                if len(fields) != 2 or not all(map(dict.__contains__, places, fields)):
                    raise VidfaceError(f"{where}: not two numbers of pictures in the lists")
                names = [path_below(of[n], where) for of, n in zip(places, fields, strict=True)]
                first, second = (numbers.setdefault(name, len(numbers)) for name in names)
                pairs.append((first, second, same, fold))
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 4)
    names = list(numbers)
    return PairSet(
        name=f"CFP-{kinds}",
        first=columns[:, 0],
        second=columns[:, 1],
        same=columns[:, 2] == 1,
        folds=columns[:, 3],
        image_names=names,
        read=image_reader(open_root(Path(root)), names, split),
        sha256=digest.hexdigest(),
    )


def path_below(name: str, what: str) -> str:
    """A listed path with slashes; a stranger's list must not lead out of the root."""
    path = posixpath.normpath(name.replace("\\", "/"))
    if path.startswith(("/", "..")) or path == "." or any(sign in path for sign in ":\0"):
        raise VidfaceError(
            f"{what}: {quote_name(name)} is no path below the folder of the faces; write the "
            "list's paths from there"
        )
    return path
