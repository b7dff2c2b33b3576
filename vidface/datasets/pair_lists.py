"""Lists of pairs over named clips or templates: YTF's splits, IJB's template pairs, your own.

Nothing is opened but the list: a pair is two names and whether they are one person. The lines of
such lists, comma- or white-space-separated, are read here for `vidface.datasets.templates`, too.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.datasets.lines import (
    LONGEST_LINE_BYTES,
    comma_fields,
    numbered_lines,
    numbered_rows,
    open_list,
)

SAME_WORDS: dict[str, bool] = {
    **dict.fromkeys(("1", "true", "same", "yes", "genuine"), True),
    **dict.fromkeys(("0", "false", "different", "no", "impostor"), False),
}
"""How a list may say whether a pair is one person, in any case."""

COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "first": ("a", "first", "first name", "template_1", "enroll", "enroll_template_id"),
    "second": ("b", "second", "second name", "template_2", "verif", "verif_template_id"),
    "same": ("same", "label", "is same", "is_same"),
    "fold": ("fold", "split", "split number"),
}
"""What a header may call the columns, in any case; `fold` may be missing."""


_SCANNED_BYTES = 2**20  # read at a time for the sha256
_FAST_FROM_BYTES = 2**20  # smaller files are not worth loading pyarrow
_BATCH_BYTES = 2**22
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
        n = np.size(self.first)
        kinds: dict[str, Any] = {"first": np.int64, "second": np.int64, "same": np.bool_}
        if self.folds is not None:
            kinds["folds"] = np.int64
        for field, dtype in kinds.items():
            given = np.asarray(getattr(self, field))
            if given.shape != (n,) or given.dtype != dtype:
                raise VidfaceError(
                    f"pair list: {field} must be ({n},) {np.dtype(dtype)}, "
                    f"got {given.shape} {given.dtype}"
                )
        if n == 0:
            raise VidfaceError("pair list: there is no pair in it")
        for field in ("first", "second"):
            indices = getattr(self, field)
            if indices.min() < 0 or indices.max() >= len(self.names):
                raise VidfaceError(f"pair list: {field} has an index beyond {len(self.names)}")
        itself = np.flatnonzero(self.first == self.second)
        if len(itself):
            name = self.names[self.first[itself[0]]]
            raise VidfaceError(f"pair list: pair {itself[0]} is {_shown(name)} against itself")
        if len(set(self.names)) != len(self.names):
            raise VidfaceError("pair list: two of its names are the same")
        if self.folds is not None:
            used = np.unique(self.folds)
            if not np.array_equal(used, np.arange(len(used))):
                raise VidfaceError("pair list: folds must be numbered 0, 1, 2, … without a gap")

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

    Fields are separated by commas (if the first line has two or more; quotes as in CSV) or by
    white space. Without a header a line is `a b same`; `same` is a word of `SAME_WORDS`. The first
    line is a header if

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
        layout = _layout(file, what)
        columns = None
        if plain and large:
            columns = _read_fast(path, layout, index)
        if columns is None:  # small, or some line is special: one by one, to read or to refuse it
            file.seek(0)
            columns = _read_lines(file, layout, index, what)
    first, second, same, folds, found = columns
    if not len(first):
        raise VidfaceError(f"{what}: there is no pair in it")
    names = tuple(found) if known is None else tuple(known)
    if layout.unnamed_header:
        _check_header_is_none(layout, names, what)
    if folds is not None:
        folds = np.unique(folds, return_inverse=True)[1].astype(np.int64)
    return PairList(first, second, same, names, sha256, folds)


@dataclass(frozen=True)
class _Layout:
    """Where a line has what; told from the first line."""

    first: int
    second: int
    same: int
    fold: int | None
    width: int  # fields a line
    separator: str  # what it is if it is always the same: "," or " " or a tab
    header: list[str] | None
    header_line: int  # its number
    named: bool  # the header names the columns
    data_start: int  # bytes before the first pair

    @property
    def unnamed_header(self) -> bool:
        return self.header is not None and not self.named


def _layout(file: BinaryIO, what: str) -> _Layout:
    line, text = next(numbered_lines(file, what), (0, ""))
    if not line:
        raise VidfaceError(f"{what}: the file is empty; there should be a pair a line")
    after = file.tell()
    comma = text.count(",") >= 2
    fields = comma_fields(text, line, what) if comma else text.split()
    separator = "," if comma else "\t" if "\t" in text and " " not in text else " "
    width = len(fields)
    found = _named_columns(fields, line, what)
    if found is not None:
        fold = found.get("fold")
        first, second, same = found["first"], found["second"], found["same"]
        return _Layout(first, second, same, fold, width, separator, fields, line, True, after)
    if width != 3:
        known = "; ".join(f"{field}: {', '.join(names)}" for field, names in COLUMN_NAMES.items())
        raise VidfaceError(
            f"{what}, line {line}: {width} field(s) where a pair is due as three, 'a b same'; "
            f"other columns need a header that names first, second and same ({known})"
        )
    if fields[2].lower() in SAME_WORDS or _is_number(fields[2]):
        return _Layout(0, 1, 2, None, 3, separator, None, line, False, 0)
    return _Layout(0, 1, 2, None, 3, separator, fields, line, False, after)


def _named_columns(fields: Sequence[str], line: int, what: str) -> dict[str, int] | None:
    """The place of each column that a header names; None where the line is no such header."""
    found: dict[str, list[int]] = {}
    for i, field in enumerate(fields):
        for column, names in COLUMN_NAMES.items():
            if field.lower() in names:
                found.setdefault(column, []).append(i)
    if not {"first", "second", "same"} <= found.keys():
        return None
    for column, places in found.items():
        if len(places) > 1:
            twice = " and ".join(f"'{fields[i]}'" for i in places)
            raise VidfaceError(f"{what}, line {line}: the header names '{column}' twice, {twice}")
    return {column: places[0] for column, places in found.items()}


def _is_number(text: str) -> bool:
    """Whether it may be a label that we don't know, like "-1", and so is no header."""
    return re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text) is not None


def _check_header_is_none(layout: _Layout, names: Sequence[str], what: str) -> None:
    header = layout.header or []
    listed = set(names).intersection(header[:2])
    if listed:
        raise _unknown_word(header[2], layout.header_line, what)


_Columns = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.bool_],
    NDArray[np.int64] | None,
    Iterable[str],
]
"""first, second, same, the list's own fold numbers, and the names that it found."""


def _read_lines(
    file: BinaryIO, layout: _Layout, index: dict[str, int] | None, what: str
) -> _Columns:
    """Any list, line by line; this defines what a list means."""
    ids: dict[str, int] = {} if index is None else index
    unknown: dict[str, int] = {}  # name → its first line
    first, second, same, folds = array("q"), array("q"), array("b"), array("q")
    i, j, k = layout.first, layout.second, layout.same
    fold_column, width = layout.fold, layout.width
    rows = numbered_rows(file, what)
    if layout.header is not None:
        next(rows)
    for line, fields in rows:
        if len(fields) != width:
            raise VidfaceError(
                f"{what}, line {line}: {len(fields)} field(s) where the first line has {width}"
            )
        a, b = fields[i], fields[j]
        is_same = _is_same(fields[k])
        if is_same is None:
            raise _unknown_word(fields[k], line, what)
        if a == b or not (a and b):
            problem = f"{_shown(a)} against itself" if a and b else "a pair without a name"
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
            number = _fold_number(fields[fold_column])
            if number is None:
                raise VidfaceError(
                    f"{what}, line {line}: the fold must be a whole number ≥ 0, "
                    f"got {_shown(fields[fold_column])}"
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


def _read_fast(path: Path, layout: _Layout, index: dict[str, int] | None) -> _Columns | None:
    """What `_read_lines` gives, for a list whose lines all look alike; None for any other.

    A file with a quote or a carriage return is not for this.
    """
    import pyarrow as pa
    import pyarrow.compute as arrow_compute
    from pyarrow import csv as arrow_csv

    names = _FastNames(index, words=layout.separator != ",")
    first, second, same, folds = [], [], [], []
    columns = [str(i) for i in range(layout.width)]
    try:
        with path.open("rb") as file:
            file.seek(layout.data_start)
            batches = arrow_csv.open_csv(
                file,
                read_options=arrow_csv.ReadOptions(column_names=columns, block_size=_BATCH_BYTES),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=layout.separator, quote_char=False, double_quote=False
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={column: pa.string() for column in columns},
                    strings_can_be_null=False,
                ),
            )
            for batch in batches:
                lengths = [arrow_compute.binary_length(column) for column in batch.columns]
                longest = sum(arrow_compute.max(length).as_py() or 0 for length in lengths)
                pair = names.indices(batch.column(layout.first), batch.column(layout.second))
                is_same = _mapped(batch.column(layout.same), _is_same)
                if longest + layout.width > LONGEST_LINE_BYTES or pair is None or is_same is None:
                    return None
                first.append(pair[0])
                second.append(pair[1])
                same.append(is_same.astype(np.bool_))
                if layout.fold is not None:
                    fold = _mapped(batch.column(layout.fold), _fold_number)
                    if fold is None:
                        return None
                    folds.append(fold)
    except (pa.ArrowException, OSError):
        return None
    if not first:
        return None
    return (
        np.concatenate(first, dtype=np.int64),
        np.concatenate(second, dtype=np.int64),
        np.concatenate(same),
        None if layout.fold is None else np.concatenate(folds, dtype=np.int64),
        names.found,
    )


class _FastNames:
    """Names → indices for batches of pairs, numbered in order of first appearance."""

    def __init__(self, index: dict[str, int] | None, *, words: bool) -> None:
        self._words = words  # fields are separated by white space
        self._closed = index is not None
        self._index = {name: i for name, i in (index or {}).items() if self._is_plain(name)}
        self.found: list[str] = []

    def _is_plain(self, name: str) -> bool:
        """Whether reading line by line would leave the name as it is."""
        return name.split() == [name] if self._words else name != "" and name == name.strip()

    def indices(
        self, first: Any, second: Any
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
        """Of two columns of strings; None where a name is unknown, not plain or against itself."""
        start = len(self.found)
        fresh: list[str] = []

        def number(name: str) -> int | None:
            i = self._index.get(name)
            if i is None and not self._closed and self._is_plain(name):
                i = self._index[name] = start + len(fresh)
                fresh.append(name)
            return i

        a, b = _mapped(first, number), _mapped(second, number)
        if a is None or b is None or (a == b).any():
            return None
        if fresh:
            # The columns were numbered one after the other; lines count, and a comes before b.
            both = np.stack((a, b), axis=1).ravel()
            _, seen_at = np.unique(both[both >= start], return_index=True)
            order = np.argsort(seen_at)
            for new, old in enumerate(order.tolist(), start=start):
                self._index[fresh[old]] = new
                self.found.append(fresh[old])
            renumbered = np.arange(len(self.found), dtype=np.int32)
            renumbered[start + order] = np.arange(start, len(self.found))
            a, b = renumbered[a], renumbered[b]
        return a, b


def _mapped(column: Any, value_of: Any) -> NDArray[np.int32] | None:
    """A function of each string of a column, called once for each; None where it gives None."""
    encoded = column.dictionary_encode()
    values = []
    for text in encoded.dictionary.to_pylist():
        value = value_of(text)
        if value is None:
            return None
        values.append(value)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return np.array(values, dtype=np.int32)[codes]


def _scan(file: BinaryIO) -> tuple[str, bool]:
    """The sha256, and whether the file is free of quotes and carriage returns."""
    digest, plain = hashlib.sha256(), True
    try:
        while block := file.read(_SCANNED_BYTES):
            digest.update(block)
            plain = plain and b'"' not in block and b"\r" not in block
    except OSError as error:
        raise VidfaceError(f"{file.name}: {error.strerror or error}") from None
    return digest.hexdigest(), plain


def _index(known: Sequence[str]) -> dict[str, int]:
    index = {name: i for i, name in enumerate(known)}
    if len(index) != len(known):
        twice = next(name for i, name in enumerate(known) if index[name] != i)
        raise VidfaceError(f"known names: {_shown(twice)} stands twice; a name must be one clip's")
    return index


def _is_same(word: str) -> bool | None:
    return SAME_WORDS.get(word.lower())


def _fold_number(text: str) -> int | None:
    """A whole number in plain digits, of nine at most."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _unknown_word(word: str, line: int, what: str) -> VidfaceError:
    return VidfaceError(
        f"{what}, line {line}: {_shown(word)} does not say whether the pair is one person "
        f"(known: {', '.join(SAME_WORDS)})"
    )


def _unknown_names(unknown: dict[str, int]) -> str:
    some = list(unknown.items())[:_SHOWN]
    shown = ", ".join(f"{_shown(name)} (line {line})" for name, line in some)
    more = f" and {len(unknown) - len(some)} more" if len(unknown) > len(some) else ""
    return (
        f"{len(unknown)} of its names are unknown: {shown}{more}; "
        "names must be written as the clips' or templates' own"
    )


def _shown(name: str) -> str:
    return repr(name[:80])
