"""Clips of about equal length in batches, within a budget, on all cores or an accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import available_cores
from vidface.vectors.rows import compute_scales


@dataclass(frozen=True)
class ClipBatch:
    """Clips of about equal length: their rows, filled up to n."""

    starts: NDArray[np.int64]  # (b,) first row
    lengths: NDArray[np.int64]  # (b,)
    n: int

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(b, n) bool, False where a clip is shorter than n."""
        return np.arange(self.n) < self.lengths[:, None]

    @property
    def rows(self) -> NDArray[np.int64]:
        """(b, n) row numbers; beyond a clip's end its last row again."""
        return self.starts[:, None] + np.minimum(np.arange(self.n), self.lengths[:, None] - 1)


def split_into_batches(
    offsets: NDArray[np.int64], row_bytes: int, batch_bytes: int
) -> Iterator[ClipBatch]:
    """All clips that have rows, by rising length, in batches that fit; long clips one by one."""
    lengths = np.diff(offsets)
    by_length = np.argsort(lengths, kind="stable")
    sorted_lengths = lengths[by_length]
    start = int(np.searchsorted(sorted_lengths, 1))
    while start < len(by_length):
        # Up to an eighth longer than the first: little filling, few batches.
        n = int(sorted_lengths[start]) * 9 // 8
        same = int(np.searchsorted(sorted_lengths, n, side="right"))
        n = int(sorted_lengths[same - 1])
        fit = max(1, batch_bytes // (n * (row_bytes + 12 * n)))
        stop = min(same, start + fit)
        clips = by_length[start:stop]
        n = int(sorted_lengths[stop - 1])
        yield ClipBatch(offsets[clips], lengths[clips], n)
        start = stop


def run_batches(
    work: Callable[[ClipBatch, int], None],
    embeddings: NDArray[np.floating[Any]],
    offsets: NDArray[np.int64],
    batch_bytes: int,
    memory_bytes: int,
    device: str | None,
) -> None:
    """`work(batch, block_bytes)` for all batches, on all cores, within the budget."""
    d = embeddings.shape[1]
    # gathered row, float32 row, two float64 copies of odd rows; a few index arrays
    row_bytes = d * (embeddings.itemsize + 4 + 16) + 96
    longest = int(np.diff(offsets).max(initial=0))
    least = longest * (row_bytes + 12)
    if least > memory_bytes:
        raise VidfaceError(
            f"a clip with {longest} faces of {d} dimensions needs {least} bytes to cluster, "
            f"memory_bytes is {memory_bytes}; raise it (--memory)"
        )
    workers = 1
    if device is None:
        workers = max(1, min(available_cores(), memory_bytes // max(1, least)))
    share = memory_bytes // workers
    if device is not None and not device.startswith("cpu"):
        batch_bytes *= 64  # an accelerator wants much at once
    batches = list(split_into_batches(offsets, row_bytes, min(batch_bytes, share)))

    def run_batch(batch: ClipBatch) -> None:
        rows_bytes = len(batch.starts) * batch.n * row_bytes
        with np.errstate(all="ignore"):
            work(batch, max(12 * batch.n, share - rows_bytes))

    if workers == 1 or len(batches) < 2 * workers:
        for batch in batches:
            run_batch(batch)
        return
    # The batches are the parallelism: threads inside of small products cost more than they give.
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run_batch, batches):
            pass


def gather_rows(
    embeddings: NDArray[np.floating[Any]], batch: ClipBatch
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """(b, n, d) float32 rows, (b, n) their scales to length one, and (b, n) which are usable."""
    b, n, d = len(batch.starts), batch.n, embeddings.shape[1]
    gathered = np.take(embeddings, batch.rows.reshape(-1), axis=0, mode="clip")
    copies = gathered.astype(np.float32, copy=False)
    scales, usable = compute_scales(copies, gathered)
    usable &= batch.inside.reshape(-1)
    if not usable.all():
        copies[~usable] = 0
    return copies.reshape(b, n, d), scales.reshape(b, n), usable.reshape(b, n)


def run_on_device(device: str | None, kernel: Callable[..., Any], *arguments: Any) -> Any:
    """A kernel's result as NumPy arrays, computed there."""
    if device is None:
        return kernel(*arguments)
    import torch

    try:
        tensors = [
            torch.from_numpy(a).to(device) if isinstance(a, np.ndarray) else a for a in arguments
        ]
    except (RuntimeError, AssertionError) as error:
        raise VidfaceError(f"device '{device}': {str(error).splitlines()[0]}") from None
    results = kernel(*tensors)
    if isinstance(results, tuple):
        return tuple(tensor.cpu().numpy() for tensor in results)
    return results.cpu().numpy()
