"""Pairs of a folder of people, where nobody has listed any: drawn, or all there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import comb, isqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors, output_file
from vidface.core.values import CONTROL_CHARACTERS, guard_cell
from vidface.datasets.pair_layout import quote_name
from vidface.datasets.pairs import PairSet
from vidface.datasets.path_pairs import path_below
from vidface.storage.media import MediaRoot, open_root

MOST_DRAWN, FOLDS = 6000, 10  # LFW's
MOST_PAIRS = 2**23  # of a whole folder; they are held in memory


def draw_pairs(root: str | Path, *, most: int | None = MOST_DRAWN, seed: int = 0) -> PairSet:
    """Pairs of the pictures `PERSON/…` below root, as many of one person as of two.

    Like LFW's they are drawn by people, not by pictures: those of one person from as many people
    as possible, those of two from as many pairs of people. Where there are 20 people, ten of them
    with several pictures, they stand in ten folds that share no person; else in one.

    Args:
        root: a folder or an uncompressed tar. The people's folders may lie below a single one at
            its top, and may hold folders.
        most: the largest number of pairs, at least 2; None for all there are, in one fold.
        seed: of the draw.

    Raises:
        VidfaceError: no picture in a folder, one person, one picture of each, too many pairs.
    """
    what, opened = f"root {root}", open_root(Path(root))
    people = _list_people(opened, what)
    pictures = [path for paths in people for path in paths]
    counts = np.array([len(paths) for paths in people])
    n_several = int((counts > 1).sum())
    if len(people) < 2:
        raise VidfaceError(
            f"{what}: one person's {len(pictures)} picture(s); pairs need a second one's folder"
        )
    if not n_several:
        raise VidfaceError(
            f"{what}: {len(people)} people with one picture each; pairs of one person need two"
        )
    n_folds = 1
    if most is None:
        if comb(len(pictures), 2) > MOST_PAIRS:
            raise VidfaceError(
                f"{what}: {comb(len(pictures), 2):,} pairs, more than the {MOST_PAIRS:,} that are "
                "held; leave --all-pairs out, or score the pictures as clips (vidface init)"
            )
        pairs = np.stack(np.triu_indices(len(pictures), 1), axis=1)
        folds, how = np.zeros(len(pairs), np.int64), "all there are"
    else:
        rng = np.random.default_rng(seed)
        rows = np.split(np.arange(len(pictures)), np.cumsum(counts)[:-1])
        shuffled = [rows[person] for person in rng.permutation(len(people))]
        dealt = sorted(shuffled, key=len, reverse=True)  # each fold has its share of the largest
        if min(len(people) // 2, n_several, most // 2) >= FOLDS:
            n_folds = FOLDS
        each = [_draw_fold(dealt[k::n_folds], most // (2 * n_folds), rng) for k in range(n_folds)]
        pairs, folds = np.concatenate(each), np.repeat(np.arange(n_folds), [len(p) for p in each])
        how = f"drawn with seed {seed}"
    if n_folds > 1:
        how += f", {n_folds} folds that share no person"
    elif most is not None:
        how += f", one fold (ten take {2 * FOLDS} people, ten of them with several pictures)"
    same = np.repeat(np.arange(len(people)), counts)[pairs]
    # Pictures are numbered as they come, which is how a list is read: batches are the same, too.
    used, places, numbers = np.unique(pairs, return_index=True, return_inverse=True)
    order = np.argsort(places)
    paths = [pictures[row] for row in used[order]]
    first, second = np.argsort(order)[numbers].reshape(-1, 2).T
    drawn = PairSet(
        name=Path(root).resolve().stem,
        first=first,
        second=second,
        same=same[:, 0] == same[:, 1],
        folds=folds,
        image_names=paths,
        read=lambda i: opened.read(paths[i]),
        sha256="",
        origin=f"of {len(people)} people with {len(pictures)} pictures, {how}",
    )
    digest = hashlib.sha256()
    for line in _list_lines(drawn):
        digest.update(line)
    return replace(drawn, sha256=digest.hexdigest())


def write_list(pairs: PairSet, out: Path) -> None:
    """Write pairs as the list `first,second,same,fold` that `read_path_pairs` reads.

    Raises:
        VidfaceError: a path that no list can hold, or `out` cannot be written.
    """
    for name in pairs.image_names:
        text = name.encode("utf-8", "replace").decode("utf-8")
        if text != name or CONTROL_CHARACTERS.search(name) or path_below(name, f"{out}") != name:
            raise VidfaceError(f"{out}: no list can hold {quote_name(name)}; rename the file")
    with output_file(out) as file:
        file.writelines(_list_lines(pairs))


def _list_lines(pairs: PairSet) -> Iterator[bytes]:
    # "./" is read away again, and what a spreadsheet would run is text behind it.
    safe = [f"./{n}" if guard_cell(n) != n or n != n.strip() else n for n in pairs.image_names]
    cells = ['"' + n.replace('"', '""') + '"' if {*n} & {*',"'} else n for n in safe]
    columns = (pairs.first, pairs.second, pairs.same, pairs.folds)
    yield b"first,second,same,fold\n"
    for first, second, same, fold in zip(*(c.tolist() for c in columns), strict=True):
        line = f"{cells[first]},{cells[second]},{same:d},{fold}\n"
        yield line.encode("utf-8", "surrogatepass")


def _list_people(root: MediaRoot, what: str) -> list[list[str]]:
    """The pictures of each person: of each folder at the top, or of each in a single one there."""
    with named_errors(what):
        paths = [path.split("/") for path in root.all_images()]
    paths = [parts for parts in paths if not any(part.startswith(".") for part in parts)]
    is_below = len({parts[0] for parts in paths}) == 1 and all(len(parts) > 2 for parts in paths)
    people: dict[str, list[str]] = {}
    for parts in paths:
        if len(parts) > 1 + is_below:
            people.setdefault(parts[is_below], []).append("/".join(parts))
    if not people:
        raise VidfaceError(
            f"{what}: no pictures in folders of people (PERSON/1.jpg), {len(paths)} loose ones; "
            "give each person a folder, or name the pairs by --pairs LIST"
        )
    return list(people.values())


def _draw_fold(
    people: Sequence[NDArray[np.int64]], most_of_a_kind: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(2 n, 2): n ≤ most_of_a_kind pairs of one person's pictures, then n of two people's."""
    several = [pictures for pictures in people if len(pictures) > 1]
    n_genuine = sum(comb(len(pictures), 2) for pictures in several)
    n = min(most_of_a_kind, n_genuine, comb(sum(map(len, people)), 2) - n_genuine)

    def count_of_two(number: int) -> int:
        one, other = _unordered_pair(number)
        return len(people[one]) * len(people[other])

    pairs = [
        several[person][[*_unordered_pair(number)]]
        for person, number in _spread(n, len(several), lambda i: comb(len(several[i]), 2), rng)
    ]
    for two, number in _spread(n, comb(len(people), 2), count_of_two, rng):
        one, other = (people[person] for person in _unordered_pair(two))
        pairs.append(np.array([one[number // len(other)], other[number % len(other)]]))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _unordered_pair(number: int) -> tuple[int, int]:
    """Pair number 0, 1, 2, … of (0, 1), (0, 2), (1, 2), (0, 3) …, whole numbers that differ."""
    higher = (1 + isqrt(1 + 8 * number)) // 2
    return number - comb(higher, 2), higher


def _spread(
    n: int, n_groups: int, count_in: Callable[[int], int], rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """(group, number in it) of n different things, from all groups as evenly as they allow."""
    groups = rng.choice(n_groups, min(n, n_groups), replace=False).tolist()
    counts = [count_in(group) for group in groups]
    for place, row in enumerate(np.argsort(counts, kind="stable").tolist()):
        share = min(counts[row], n // (len(groups) - place))
        n -= share
        for number in rng.choice(counts[row], share, replace=False).tolist():
            yield groups[row], number
