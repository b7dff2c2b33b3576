"""Pairs of faces listed by their paths, as people's own scripts write them."""

from __future__ import annotations

import hashlib
import posixpath
from pathlib import Path

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.datasets.lines import numbered_rows, open_list, parse_whole_number
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
    names = [_path_below(name, what) for name in listed.names]
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


def _path_below(name: str, what: str) -> str:
    """A listed path with slashes; a stranger's list must not lead out of the root."""
    path = posixpath.normpath(name.replace("\\", "/"))
    if path.startswith(("/", "..")) or path == "." or any(sign in path for sign in ":\0"):
        raise VidfaceError(
            f"{what}: {quote_name(name)} is no path below the folder of the faces; write the "
            "list's paths from there"
        )
    return path
