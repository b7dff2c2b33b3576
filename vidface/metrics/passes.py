"""Going through all pairs block by block, on this machine's cores or spread over a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event, Lock
from typing import Any, TypeVar

from vidface.core.errors import VidfaceError
from vidface.core.progress import CountProgress
from vidface.core.values import available_cores
from vidface.executor.shards import Executor, map_shards
from vidface.metrics.blocks import LARGEST_BLOCK, BlockOps, NumpyOps, TorchOps
from vidface.metrics.pair_sets import Pairs

MEMORY_BYTES = 2**28
"""The default budget for blocks of scores and what is made of them."""


BYTES_PER_PAIR = 48  # scores, shifted scores, numbers, mask, index and copies of one block


LARGEST_ACCELERATOR_BLOCK = 16_384


_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Passes:
    """How the blocks are gone through; the same again gives the same scores again.

    With a cluster for an executor, parts of the pass are its tasks. Any other one, and None, means
    this process: its threads share the rows, which processes would copy.
    """

    pairs: Pairs
    memory_bytes: int = MEMORY_BYTES
    device: str | None = None
    progress: CountProgress | None = None
    executor: Executor | None = None

    def __post_init__(self) -> None:
        if self.memory_bytes < BYTES_PER_PAIR:
            raise VidfaceError(
                f"memory_bytes must be at least {BYTES_PER_PAIR}, got {self.memory_bytes}"
            )

    @property
    def on_accelerator(self) -> bool:
        return self.device is not None and not self.device.startswith("cpu")

    @property
    def workers(self) -> int:
        if self.device is not None:
            # On an accelerator the second fills the gaps in which the first waits for counts.
            return 2 if self.on_accelerator else 1
        return available_cores()

    @property
    def side(self) -> int:
        """Clips a side of a block."""
        if self.on_accelerator:
            return LARGEST_ACCELERATOR_BLOCK
        share = self.memory_bytes // self.workers // BYTES_PER_PAIR
        return min(LARGEST_BLOCK, max(1, int(share**0.5)))

    def blocks(self, part: tuple[int, int]) -> list[tuple[slice, slice]]:
        """All blocks, or those of one part: of each n-th strip of `PART_ROWS` rows.

        Strips are the same for every memory, device and number of cores, so that parts counted on
        unlike machines neither overlap nor leave a gap.
        """
        i, n = part
        if not 0 <= i < n:
            raise VidfaceError(f"part {part}: write (i, n), each n-th strip from the i-th on")
        if n == 1:
            return list(self.pairs.blocks(self.side))
        height = 1 << (min(self.side, PART_ROWS).bit_length() - 1)  # divides a strip
        blocks = self.pairs.blocks(self.side, height)
        return [b for b in blocks if b[0].start // PART_ROWS % n == i]

    def ops(self) -> BlockOps:
        first, columns = self.pairs.first, self.pairs.columns
        units = (first.units, columns.units)
        if self.device is None:
            return NumpyOps(first.rows, columns.rows, units)
        return TorchOps(first.rows, columns.rows, units, self.device)

    def each_block(
        self,
        work: Callable[[Any, BlockOps, slice, slice], None],
        state: Callable[[BlockOps], Any],
        part: tuple[int, int] = (0, 1),
        finish: Callable[[Any, BlockOps], None] | None = None,
    ) -> list[Any]:
        """`work(state, ops, rows, columns)` for all blocks, or for those of one part.

        After its last block each worker does `finish(state, ops)`.

        Returns:
            The workers' states; which blocks came to which worker is chance.
        """
        blocks = self.blocks(part)
        queue, lock, stop = iter(blocks), Lock(), Event()
        workers = min(self.workers, max(1, len(blocks)))

        shared = self.ops()

        def run(_: int) -> Any:
            with shared.worker() as ops:
                own = state(ops)
                while True:
                    with lock:
                        block = None if stop.is_set() else next(queue, None)
                    if block is None:
                        break
                    work(own, ops, *block)
                    if self.progress is not None:
                        n, m = (s.stop - s.start for s in block)
                        with lock:
                            self.progress(n * m)
                if finish is not None:
                    finish(own, ops)
                return own

        if workers == 1:
            return [run(0)]
        import cv2
        from threadpoolctl import threadpool_limits

        with _ONE_AT_A_TIME:  # what it limits is the process's
            threads = cv2.getNumThreads()
            cv2.setNumThreads(1)  # the blocks are the parallelism
            try:
                with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
                    try:
                        return list(pool.map(run, range(workers)))
                    except BaseException:
                        stop.set()  # the others, and who pressed Ctrl-C, need not wait for the end
                        raise
            finally:
                cv2.setNumThreads(threads)

    @property
    def spread(self) -> bool:
        """Whether parts of a pass go to other machines."""
        return self.executor is not None and self.executor.name == "dask"

    def scores(self, ops: BlockOps, rows: slice, columns: slice) -> tuple[Any, int]:
        """A block's scores, what is no pair excluded, and how many entries that is."""
        scores = ops.product(rows, columns)
        excluded = 0
        if self.pairs.second is None and columns.start == rows.start:
            excluded = ops.exclude_lower(scores)
        return scores, excluded


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
