"""A pass over all pairs, spread over the workers of a cluster: a part of the strips is a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from vidface.core.errors import VidfaceError
from vidface.executor.shards import map_shards

if TYPE_CHECKING:
    from vidface.metrics.pairwise import Passes

Result = TypeVar("Result")

PART_ROWS = 1024
"""Rows of a strip, of which the parts of a pass are made."""

MOST_PARTS = 256
"""Parts that a pass is made of at most, however many strips there are."""


@dataclass(frozen=True)
class PairPart:
    """Each n-th strip of rows, from the i-th on."""

    i: int
    n: int

    def __str__(self) -> str:
        return f"pairs, part {self.i + 1} of {self.n}"


def over_parts(passes: Passes, count: Callable[..., Result], *arguments: Any) -> Iterator[Result]:
    """`count(passes, *arguments, part=part)` for all parts, on the workers of `passes.executor`.

    The rows go to each worker once. Parts are strips of the same rows wherever they are counted; a
    product rounds by the shape of its block, so that a worker with another number of cores or
    another device may give a score that differs by about 1e-6.

    Raises:
        VidfaceError: passes without an executor; see `vidface.executor.shards.map_shards`.
    """
    if passes.executor is None:
        raise VidfaceError("these passes have no executor to spread their parts over")
    n = max(1, min(MOST_PARTS, -(-len(passes.pairs.first.rows) // PART_ROWS)))
    parts = [PairPart(i, n) for i in range(n)]
    shared = (count, replace(passes, progress=None, executor=None), arguments)
    results = map_shards(count_part, parts, executor=passes.executor, shared=shared)
    for part, result in zip(parts, results, strict=True):
        if passes.progress is not None:
            passes.progress(_entries(passes, part))
        yield result


def count_part(part: PairPart, shared: tuple[Callable[..., Any], Passes, tuple[Any, ...]]) -> Any:
    """One part of a pass, where it is counted."""
    count, passes, arguments = shared
    return count(passes, *arguments, part=(part.i, part.n))


def _entries(passes: Passes, part: PairPart) -> int:
    """Entries of a part's blocks."""
    blocks = passes.blocks((part.i, part.n))
    return sum((r.stop - r.start) * (c.stop - c.start) for r, c in blocks)
