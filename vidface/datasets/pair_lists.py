"""Lists of pairs over named clips or templates: YTF's splits, IJB's template pairs, your own.

Nothing is opened but the list: a pair is two names and whether they are one person. The lines of
such lists, comma- or white-space-separated, are read here for `vidface.datasets.templates`, too.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.datasets.lines import numbered_rows, open_list, parse_whole_number
from vidface.datasets.pair_batches import read_alike_lines
from vidface.datasets.pair_layout import (
    PairColumns,
    PairLayout,
    parse_same,
    quote_name,
    read_layout,
    unknown_word,
)
from vidface.datasets.pairs import check_pairs

_SCANNED_BYTES = 2**20  # read at a time for the sha256
_FAST_FROM_BYTES = 2**20  # smaller files are not worth loading pyarrow
_SHOWN = 5  # names in a message


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of named clips or templates, each of one person or of two. Checked when made."""

    first: NDArray[np.int64]  # (n_pairs,) index into names
    second: NDArray[np.int64]  # (n_pairs,) index into names, another one
    same: NDArray[np.bool_]  # (n_pairs,) one person?
    names: tuple[str, ...]  # distinct
    sha256: str  # of the list's file
    folds: NDArray[np.int64] | None = None  # (n_pairs,) 0 … k − 1, each of them used

    def __post_init__(self) -> None:
        check_pairs("pair list", self.first, self.second, self.same, self.folds, len(self.names))
        itself = np.flatnonzero(self.first == self.second)
        if len(itself):
            name = self.names[self.first[itself[0]]]
            raise VidfaceError(f"pair list: pair {itself[0]} is {quote_name(name)} against itself")
        if len(set(self.names)) != len(self.names):
            raise VidfaceError("pair list: two of its names are the same")

    def __str__(self) -> str:
        folds = "no folds" if self.folds is None else f"{self.n_folds} folds"
        return (
            f"PairList(first, second, same ({len(self)},), {int(self.same.sum())} pairs of one "
            f"person, {folds}, {self.repeated} repeated; {len(self.names)} names)"
        )

    def __len__(self) -> int:
        return len(self.first)

    @property
    def n_folds(self) -> int:
        """How many folds there are; 0 for a list without."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    @cached_property
    def repeated(self) -> int:
        """Pairs that stand earlier in the list already, in either order; they count again."""
        low, high = np.minimum(self.first, self.second), np.maximum(self.first, self.second)
        return len(self) - len(np.unique(low * len(self.names) + high))


def read_pair_list(path: str | Path, known: Sequence[str] | None = None) -> PairList:
    """A list of pairs, one a line: two names and whether they are one person.

    Fields are separated by commas (if the first line has two or more; quotes as in CSV), by white
    space, or by tabs alone where that gives the right number: names may hold spaces then. Without a
    header a line is `a b same`; `same` is a word of `SAME_WORDS`. The first line is a header if

    - it names the columns (`COLUMN_NAMES`): in any order, others are ignored, and a column for the
      fold may be among them. So "a b same" is a header, and never a pair; or
    - it has three fields and the third is neither a word of `SAME_WORDS` nor a number. It is
      refused if one of its first two is a name of the list: then it's a pair with a wrong word.

    Pairs keep the file's order; a pair that stands twice is kept and counted (`repeated`). Names
    are text: template "01" is not "1". Blank lines are skipped.

    Args:
        path: the list, UTF-8. 15.6 million lines (IJB-C) take some 10 seconds.
        known: the names that exist, of clips or templates, each once.

    Returns:
        The pairs. `names` is `known` if given, so that `first` and `second` are rows of what
        `known` names; else the list's names in order of first appearance. `folds` are the list's
        whole numbers, in rising order renumbered from 0 (YTF's 1 … 10 become 0 … 9).

    Raises:
        VidfaceError: no such file, not UTF-8, a line in another form, an unknown word for `same`,
            a name against itself (all with the line), names that are not known, or no pair.

    Source: ijbc_template_pair_label.txt as InsightFace's IJB evaluation reads it (`t1 t2 label`),
    splits.txt of YouTube Faces (Wolf et al. 2011).

    >>> import tempfile
    >>> text = "split number, first name, second name, is same\\n1, ann/0, ann/1, 1\\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "splits.txt")
    ...     _ = path.write_text(text + "2, ann/0, bob/4, 0\\n")
    ...     pairs = read_pair_list(path)
    >>> print(pairs)
    PairList(first, second, same (2,), 1 pairs of one person, 2 folds, 0 repeated; 3 names)
    >>> pairs.names, pairs.first, pairs.second, pairs.same, pairs.folds
    (('ann/0', 'ann/1', 'bob/4'), array([0, 0]), array([1, 2]), array([ True, False]),
     array([0, 1]))
    """
    path = Path(path)
    what = f"pair list {path}"
    index = None if known is None else _index(known)
    with open_list(path, what) as file:
        if not file.seekable():  # a pipe
            raise VidfaceError(f"{what}: it is read twice, so it must be a file; save it first")
        sha256, plain = _scan(file)
        large = file.tell() >= _FAST_FROM_BYTES
        file.seek(0)
        layout = read_layout(file, what)
        columns = None
        if plain and large:
            columns = read_alike_lines(path, layout, index)
        if columns is None:  # small, or some line is special: one by one, to read or to refuse it
            file.seek(0)
            columns = _read_lines(file, layout, index, what)
    first, second, same, folds, listed_names = columns
    if not len(first):
        raise VidfaceError(f"{what}: there is no pair in it")
    names = tuple(listed_names) if known is None else tuple(known)
    if layout.header is not None and not layout.named and set(names) & set(layout.header[:2]):
        raise unknown_word(layout.header[2], layout.header_line, what)
    if folds is not None:
        folds = np.unique(folds, return_inverse=True)[1].astype(np.int64)
    return PairList(first, second, same, names, sha256, folds)


def _read_lines(
    file: BinaryIO, layout: PairLayout, index: dict[str, int] | None, what: str
) -> PairColumns:
    """Any list, line by line; this defines what a list means."""
    ids: dict[str, int] = {} if index is None else index
    unknown: dict[str, int] = {}  # name → its first line
    first, second, same, folds = array("q"), array("q"), array("b"), array("q")
    i, j, k = layout.first, layout.second, layout.same
    fold_column, width = layout.fold, layout.width
    rows = numbered_rows(file, what, width)
    if layout.header is not None:
        next(rows)
    for line, fields in rows:
        if len(fields) != width:
            raise VidfaceError(
                f"{what}, line {line}: {len(fields)} field(s) where the first line has {width}"
            )
        a, b = fields[i], fields[j]
        is_same = parse_same(fields[k])
        if is_same is None:
            raise unknown_word(fields[k], line, what)
        if a == b or not (a and b):
            problem = f"{quote_name(a)} against itself" if a and b else "a pair without a name"
            raise VidfaceError(f"{what}, line {line}: {problem}; remove the line or mend it")
        if index is None:
            first.append(ids.setdefault(a, len(ids)))
            second.append(ids.setdefault(b, len(ids)))
        else:
            for name in (a, b):
                if name not in ids:
                    unknown.setdefault(name, line)
            first.append(ids.get(a, 0))
            second.append(ids.get(b, 0))
        same.append(is_same)
        if fold_column is not None:
            number = parse_whole_number(fields[fold_column])
            if number is None:
                raise VidfaceError(
                    f"{what}, line {line}: the fold must be a whole number ≥ 0, "
                    f"got {quote_name(fields[fold_column])}"
                )
            folds.append(number)
    if unknown:
        raise VidfaceError(f"{what}: {_unknown_names(unknown)}")
    return (
        np.array(first, dtype=np.int64),
        np.array(second, dtype=np.int64),
        np.array(same, dtype=np.bool_),
        None if fold_column is None else np.array(folds, dtype=np.int64),
        ids,
    )


def _scan(file: BinaryIO) -> tuple[str, bool]:
    """The sha256, and whether the file is free of quotes and carriage returns."""
    digest, plain = hashlib.sha256(), True
    with named_errors(file.name):
        while block := file.read(_SCANNED_BYTES):
            digest.update(block)
            plain = plain and b'"' not in block and b"\r" not in block
    return digest.hexdigest(), plain


def _index(known: Sequence[str]) -> dict[str, int]:
    index = {name: i for i, name in enumerate(known)}
    if len(index) != len(known):
        twice = next(name for i, name in enumerate(known) if index[name] != i)
        raise VidfaceError(
            f"known names: {quote_name(twice)} stands twice; a name must be one clip's"
        )
    return index


def _unknown_names(unknown: dict[str, int]) -> str:
    some = list(unknown.items())[:_SHOWN]
    listed = ", ".join(f"{quote_name(name)} (line {line})" for name, line in some)
    more = f" and {len(unknown) - len(some)} more" if len(unknown) > len(some) else ""
    return (
        f"{len(unknown)} of its names are unknown: {listed}{more}; "
        "names must be written as the clips' or templates' own"
    )
