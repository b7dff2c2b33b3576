"""Enrolment: what an identity of the gallery is searched by, and which clips it scores best with.

Scores here are exact: the inner product of two rows in float64, rounded to float32 and clipped to
[−1, 1]. A matrix product in float32 only picks the candidates, with a margin for its rounding, so
equal rows score equally and no figure depends on blocks, on threads or on who multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.metrics.inputs import check_enrolment
from vidface.vectors.descriptors import pool_descriptors

MEMORY_BYTES = 2**28
"""The default budget for a block of scores and what is made of it."""

LEAST_SCORES_FOR_FAISS = 2**22
"""Fewer scores than these are ranked before faiss is even imported."""

_BYTES_PER_SCORE = 48  # scores, their partition, the mask, and candidates where all scores tie
_SPARE = 32  # columns that faiss is asked for beyond k, for ties and near ties at the cut
_PRODUCTS_AT_ONCE = 512  # their rows in float64 stay in the cache
_ROWS_AT_ONCE = 2**16  # products of exact_scores between two maxima
_DENSE = 16  # where one score in so many is a candidate, a float64 product of all is faster
_DENSE_ROWS, _DENSE_COLUMNS = 256, 2048


@dataclass(frozen=True, eq=False)
class Templates:
    """The rows that stand for each identity; its score for a clip is its largest product."""

    rows: NDArray[np.float32]  # (n_rows, d), of norm 1
    offsets: NDArray[np.int64]  # (n_identities + 1,); identity i owns rows [o[i], o[i + 1])

    def __post_init__(self) -> None:
        steps = np.diff(self.offsets)
        if len(self.offsets) == 0 or self.offsets[0] != 0 or (steps < 0).any():
            raise VidfaceError("offsets of templates must start at 0 and not fall")
        if self.offsets[-1] != len(self.rows):
            raise VidfaceError(
                f"offsets of templates end at {self.offsets[-1]}, for {len(self.rows)} rows"
            )

    def __str__(self) -> str:
        n, d = self.rows.shape
        return f"Templates({len(self.sizes)} identities, ({n}, {d}) float32)"

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(n_identities,) rows of each; 0 where an identity cannot be searched for."""
        return np.diff(self.offsets)


def enrol(
    descriptors: NDArray[np.float32],
    has_direction: NDArray[np.bool_],
    identities: Sequence[str],
    names: Sequence[str],
    enrolment: str = "mean",
) -> Templates:
    """Templates of the names, in their order, from the gallery.

    Args:
        descriptors, has_direction: (n, d) and (n,), as `check_descriptors` gives them.
        identities: n names; those that are not among `names` enrol no one.
        names: each once. One without a clip here gets no rows.
        enrolment: a name of `ENROLMENTS`.

    Raises:
        VidfaceError: an unknown enrolment.

    >>> rows = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    >>> usable = rows.any(axis=1)
    >>> enrol(rows, usable, ["ann", "ann", "bob"], ["ann", "bob"]).rows
    array([[0.70710677, 0.70710677]], dtype=float32)
    >>> print(enrol(rows, usable, ["ann", "ann", "bob"], ["ann", "bob"], "max"))
    Templates(2 identities, (2, 2) float32)
    """
    check_enrolment(enrolment)
    numbers = {name: i for i, name in enumerate(names)}
    codes = np.array([numbers.get(name, -1) for name in identities], dtype=np.int64)
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    offsets = np.searchsorted(codes[order], np.arange(len(names) + 1))
    descriptors, has_direction = descriptors[order], has_direction[order]
    if enrolment == "max":
        before = np.concatenate([[0], np.cumsum(has_direction)])
        return Templates(descriptors[has_direction], before[offsets])
    if descriptors.shape[1] == 0:  # no clip at all has a face
        return Templates(descriptors[:0], np.zeros_like(offsets))
    # An identity is pooled from its clips just as a clip is from its faces.
    pooled = pool_descriptors(descriptors, offsets, np.where(has_direction, 0, UNUSABLE))
    enrolled = pooled.any(axis=1)
    return Templates(pooled[enrolled], np.concatenate([[0], np.cumsum(enrolled)]))


def template_scores(
    templates: Templates,
    which: NDArray[np.int64],
    columns: NDArray[np.float32],
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Blocks of the scores of identities for all columns, as a float32 matrix product gives them.

    Not clipped, and within `rounding_margin` / 2 of the exact ones.

    Args:
        which: the identities to score, each with a row at least.
        columns: (n_columns, d) float32.
        memory_bytes: bound for a block's working arrays; a block is one identity at least.

    Yields:
        A block of `which`, and its scores, (len(block), n_columns), to write into at will.

    >>> templates = Templates(np.eye(2, dtype=np.float32), np.array([0, 2]))
    >>> for block, scores in template_scores(templates, np.array([0]), templates.rows):
    ...     print(block, scores)
    [0] [[1. 1.]]
    """
    step = max(1, memory_bytes // (_BYTES_PER_SCORE * max(1, len(columns))))
    for start in range(0, len(which), step):
        block = which[start : start + step]
        sizes = templates.sizes[block]
        owners = np.repeat(np.arange(len(block)), sizes)
        rows = _rows_of(templates, block)
        if len(rows) == len(block):
            yield block, templates.rows[rows] @ columns.T
            continue
        scores = np.full((len(block), len(columns)), -np.inf, dtype=np.float32)
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            products = templates.rows[rows[part]] @ columns.T
            _raise_to(scores, products, owners[part])
        yield block, scores


def _rows_of(templates: Templates, identities: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row numbers of identities, one after the other."""
    sizes = templates.sizes[identities]
    before = np.cumsum(sizes) - sizes
    return np.repeat(templates.offsets[identities] - before, sizes) + np.arange(sizes.sum())


def rounding_margin(d: int) -> float:
    """How far apart two float32 products may be, of d dimensions, and yet be the other way round.

    In whatever order d products of unit rows are summed in float32, the sum is off by at most
    d · 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Twice that, and
    a little for norms that are not quite 1 and for the last rounding.

    >>> f"{rounding_margin(512):.2g}"
    '6.2e-05'
    """
    return float(2 * 1.01 * d * 2.0**-24 + 2.0**-21)


def least_that_may_reach(scores: NDArray[np.float32], d: int) -> NDArray[np.float32]:
    """The lowest float32 product whose exact score may be as high as the exact one of `scores`.

    Clipped scores tie: where a score may be −1 exactly, every finite product may reach it.
    """
    cut = np.clip(scores, -1, 1) - np.float32(rounding_margin(d))
    return np.where(cut <= -1, np.finfo(np.float32).min, cut).astype(np.float32)


def exact_scores(
    templates: Templates,
    identities: NDArray[np.int64],
    numbers: NDArray[np.int64],
    columns: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The score of each pair of an identity and a column.

    Products in float64, in an order that depends on d alone, the largest of the identity's rows,
    rounded to float32, clipped to [−1, 1].

    Args:
        identities: (n_pairs,), each with a row at least.
        numbers: (n_pairs,) rows of `columns`.

    Returns:
        (n_pairs,) float32 in [−1, 1].

    >>> templates = Templates(np.eye(2, dtype=np.float32), np.array([0, 1, 2]))
    >>> exact_scores(templates, np.array([0, 1]), np.array([0, 0]), templates.rows)
    array([1., 0.], dtype=float32)
    """
    largest = np.empty(len(identities))
    sizes = templates.sizes[identities]
    ends = np.cumsum(sizes)
    start = 0
    while start < len(identities):
        limit = ends[start] - sizes[start] + _ROWS_AT_ONCE
        stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
        part = slice(start, stop)
        products = _products(
            templates.rows,
            _rows_of(templates, identities[part]),
            columns,
            np.repeat(numbers[part], sizes[part]),
        )
        largest[part] = np.maximum.reduceat(
            products, ends[part] - sizes[part] - ends[start] + sizes[start]
        )
        start = stop
    return np.clip(largest.astype(np.float32), -1, 1)


def exact_scores_in_block(
    templates: Templates,
    block: NDArray[np.int64],
    owners: NDArray[np.int64],
    numbers: NDArray[np.int64],
    columns: NDArray[np.float32],
) -> NDArray[np.float32]:
    """`exact_scores` of the pairs of block[owners] and numbers: to the bit the same.

    A broken recogniser gives all clips about one direction, and then every pair is a candidate.
    Where many are, the whole block is multiplied in float64. Products too near to the edge between
    two float32 numbers to round alike in any order of summing are summed again, in the one order.

    Args:
        block: identities, each with a row at least.
        owners: (n_pairs,) positions in the block.
    """
    if len(owners) * _DENSE <= len(block) * len(columns):
        return exact_scores(templates, block[owners], numbers, columns)
    slack = 1.01 * columns.shape[1] * 2.0**-52
    rounded = np.empty((len(block), len(columns)), dtype=np.float32)
    unsure = np.empty(rounded.shape, dtype=bool)
    rows = _rows_of(templates, block)
    owners_of_rows = np.repeat(np.arange(len(block)), templates.sizes[block])
    for left in range(0, len(columns), _DENSE_COLUMNS):
        part = slice(left, left + _DENSE_COLUMNS)
        turned = columns[part].T.astype(np.float64)
        largest = np.full((len(block), turned.shape[1]), -np.inf)
        for top in range(0, len(rows), _DENSE_ROWS):
            some = slice(top, top + _DENSE_ROWS)
            products = templates.rows[rows[some]].astype(np.float64) @ turned
            _raise_to(largest, products, owners_of_rows[some])
        rounded[:, part] = largest - slack
        unsure[:, part] = rounded[:, part] != (largest + slack).astype(np.float32)
    scores = np.clip(rounded[owners, numbers], -1, 1)
    again = unsure[owners, numbers]
    scores[again] = exact_scores(templates, block[owners[again]], numbers[again], columns)
    return scores


def _raise_to(
    scores: NDArray[np.floating[Any]],
    products: NDArray[np.floating[Any]],
    owners: NDArray[np.int64],
) -> None:
    """Raise the scores of each owner to the largest of the products of its rows."""
    # np.maximum.reduceat down the rows would read them a column at a time: far slower.
    edges = np.flatnonzero(np.diff(owners, prepend=-1, append=-1))
    for a, b in pairwise(edges.tolist()):
        owner_scores = scores[owners[a]]
        np.maximum(owner_scores, products[a:b].max(axis=0), out=owner_scores)


def _products(
    a: NDArray[np.float32],
    rows_of_a: NDArray[np.int64],
    b: NDArray[np.float32],
    rows_of_b: NDArray[np.int64],
) -> NDArray[np.float64]:
    products = np.empty(len(rows_of_a))
    for start in range(0, len(products), _PRODUCTS_AT_ONCE):
        part = slice(start, start + _PRODUCTS_AT_ONCE)
        left, right = a[rows_of_a[part]], b[rows_of_b[part]]
        # Contiguous float64 on both sides: a cast inside of einsum would cut sums at its buffers.
        products[part] = np.einsum("ij,ij->i", left.astype(np.float64), right.astype(np.float64))
    return products


_Candidates = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Of a block of identities, every column that may be among the k best, sorted: the identities,
(n_block,), and for each candidate its position in the block and its column, (n,) each."""


def ranked_columns(
    templates: Templates,
    which: NDArray[np.int64],
    columns: NDArray[np.float32],
    k: int,
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each identity the columns of its k highest scores, best first.

    Exact to the last tie: of equal scores (`exact_scores`) the lower column ranks first. From
    2^22 scores on, candidates come from faiss's exact inner product search, with 32 more than k;
    where these do not settle who is among the k (many near ties), all columns are looked at.

    Args:
        which: identities, each with a row at least.
        columns: (n_columns, d) float32 in C order, rows of norm 1.

    Yields:
        An identity of `which`, not in its order, and min(k, n_columns) columns.

    >>> templates = Templates(np.eye(2, dtype=np.float32), np.array([0, 1, 2]))
    >>> columns = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    >>> for identity, best in ranked_columns(templates, np.array([0, 1]), columns, k=2):
    ...     print(identity, best)
    0 [1 3]
    1 [0 2]
    """
    if len(columns) == 0:
        yield from ((identity, np.zeros(0, dtype=np.int64)) for identity in which.tolist())
        return
    n_scores = int(templates.sizes[which].sum()) * len(columns)
    # Beyond this faiss sorts about as much as the fallback would.
    by_faiss = n_scores >= LEAST_SCORES_FOR_FAISS and k + _SPARE <= len(columns) // 2
    find = _candidates_by_faiss if by_faiss else _candidates
    for block, owners, numbers in find(templates, which, columns, k, memory_bytes):
        scores = exact_scores_in_block(templates, block, owners, numbers, columns)
        firsts = np.searchsorted(owners, np.arange(len(block) + 1)).tolist()
        for identity, (a, b) in zip(block.tolist(), pairwise(firsts), strict=True):
            yield identity, numbers[a:b][_best_first(scores[a:b], k)]


def _best_first(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the k highest scores, best first, the earlier first on a tie."""
    chosen = np.arange(len(scores))
    if len(scores) > 8 * k:  # a partition is cheaper than sorting so many
        kth = len(scores) - k
        chosen = np.flatnonzero(scores >= np.partition(scores, kth)[kth])
    return chosen[np.argsort(-scores[chosen], kind="stable")][:k]


def _candidates(
    templates: Templates,
    which: NDArray[np.int64],
    columns: NDArray[np.float32],
    k: int,
    memory_bytes: int,
) -> Iterator[_Candidates]:
    kth = max(len(columns) - k, 0)
    for block, scores in template_scores(templates, which, columns, memory_bytes):
        cut = least_that_may_reach(np.partition(scores, kth, axis=1)[:, kth], columns.shape[1])
        owners, numbers = np.nonzero(scores >= cut[:, None])
        yield block, owners, numbers


def _candidates_by_faiss(
    templates: Templates,
    which: NDArray[np.int64],
    columns: NDArray[np.float32],
    k: int,
    memory_bytes: int,
) -> Iterator[_Candidates]:
    """As `_candidates`; the k best of an identity are the best of its rows' lists."""
    import faiss

    wanted = k + _SPARE
    d = columns.shape[1]
    sizes = templates.sizes[which]
    # A list's entry: its score, its column, its owner, and the order and copies of sorting them.
    rows_at_once = max(1, memory_bytes // (wanted * 64 + 4 * d))
    many = sizes > rows_at_once
    yield from _candidates(templates, which[many], columns, k, memory_bytes)
    which, sizes = which[~many], sizes[~many]
    ends = np.cumsum(sizes)
    start = 0
    while start < len(which):
        limit = ends[start] - sizes[start] + rows_at_once
        stop = int(np.searchsorted(ends, limit, side="right"))
        block, block_sizes = which[start:stop], sizes[start:stop]
        start = stop
        rows = templates.rows[_rows_of(templates, block)]
        # What IndexFlatIP runs, without its copy of the columns.
        scores, numbers = faiss.knn(rows, columns, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        listed = np.repeat(np.arange(len(block)), block_sizes * wanted)
        owners, numbers, best = _best_of_each(listed, numbers.ravel(), scores.ravel())
        firsts = np.searchsorted(owners, np.arange(len(block)))
        order = np.lexsort((-best, owners))  # an owner's entries stay in its range
        cut = least_that_may_reach(best[order[firsts + k - 1]], d)
        # What a list leaves out scores no higher than its last entry.
        left_out = np.maximum.reduceat(scores[:, -1], np.cumsum(block_sizes) - block_sizes)
        settled = left_out < cut
        keep = (best >= cut[owners]) & settled[owners]
        position = np.cumsum(settled) - 1
        yield block[settled], position[owners[keep]], numbers[keep]
        yield from _candidates(templates, block[~settled], columns, k, memory_bytes)


def _best_of_each(
    owners: NDArray[np.int64], numbers: NDArray[np.int64], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Each pair of an owner and a column once, with the highest of its scores; sorted by owner."""
    order = np.lexsort((-scores, numbers, owners))
    owners, numbers, scores = owners[order], numbers[order], scores[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (owners[1:] != owners[:-1]) | (numbers[1:] != numbers[:-1])
    return owners[new], numbers[new], scores[new]
