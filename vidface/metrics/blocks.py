"""Blocks of scores: the product of two runs of rows, counted and filtered, on any device.

The operations that `vidface.metrics.pairwise` needs of a block, for NumPy and for torch; the way
through the pairs is the same for both.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError

LARGEST_BLOCK = 1024
"""Clips a side of a block on a core; larger is slower: its arrays leave the cache."""

EXCLUDED = -2.0
"""What is written over entries of a block that are not to be counted: below every score."""


class BlockOps(Protocol):
    """What is done with blocks. `Any` stands for the library's own array."""

    def worker(self) -> AbstractContextManager[BlockOps]:
        """The same for a thread of its own, with its own memory; it has finished on leaving."""

    def product(self, rows: slice, columns: slice) -> Any:
        """(r, c) float32 inner products; the caller may write into them until the next call."""

    def exclude_lower(self, scores: Any) -> int:
        """Exclude the diagonal and all below it; how many entries that were."""

    def take(self, scores: Any, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """The scores at positions of the flattened block, on the host."""

    def exclude(self, scores: Any, index: NDArray[np.int64]) -> None:
        """Exclude positions of the flattened block."""

    def histogram(self, scores: Any, bins: int, excluded: int) -> NDArray[np.int64]:
        """How many scores each bin holds, without the `excluded` entries; until the next call."""

    def above(self, scores: Any, floor: float) -> tuple[Any, Any]:
        """The scores above `floor`, in [−1, 1], and their positions in the flattened block."""

    def units(self, side: int, start: int, index: Any) -> Any:
        """The units of rows (side 0) or columns (side 1) `start + index`."""

    def highest(self, parts: list[tuple[Any, ...]], keep: int) -> tuple[tuple[Any, ...], float]:
        """Of (scores, …) those above the keep-th highest score, and that score."""

    def sorted(self, parts: list[tuple[Any, ...]]) -> tuple[NDArray[Any], ...]:
        """(scores, …) on the host, highest first."""

    def between(self, scores: Any, low: float, high: float) -> NDArray[np.float32]:
        """The scores in [low, high), on the host."""

    def ranked(self, scores: Any, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """(2, n): how many scores of a block, excluded ones too, are < and ≤ each rising value."""

    def gathered(self, scores: Any, least: int) -> Any:
        """Blocks put together until there are `least` scores or more; None until then.

        With None for a block: what is left.
        """


def bin_of(scores: NDArray[np.float32], bins: int) -> NDArray[np.intp]:
    """The histogram bin of scores in [−1, 1]: ⌊(s + 1) · bins / 2⌋ in float32, 1 in the last.

    It rises with the score, so a bin is an interval of float32 scores. `bins` is a power of two:
    the bins of a coarser histogram are unions of a finer one's.
    """
    shifted = (scores + np.float32(1)) * np.float32(bins / 2)
    return np.clip(shifted, 0, bins - 1).astype(np.intp)


def bin_edges(bins: int) -> NDArray[np.float32]:
    """(bins + 1,) the lowest float32 score of each bin, and one above 1.

    >>> bin_edges(4).round(6) + 0  # the third is −3e-8: in float32, that plus one is one
    array([-1. , -0.5,  0. ,  0.5,  2. ], dtype=float32)
    """
    wanted = np.arange(bins)
    # Bisection over float32 in their own order, as (s + 1) rounds.
    low = np.full(bins, _key(np.float32(-1)))
    high = np.full(bins, _key(np.float32(1)))
    while (low < high).any():
        middle = (low + high) // 2
        reached = bin_of(_of_key(middle), bins) >= wanted
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle + 1)
    return np.append(_of_key(low), np.float32(2)) + np.float32(0)


def falling_order(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """The order of fewer than 2³² scores from the highest down; equal ones keep theirs.

    As one sort of whole numbers, a score's key and its place: many times as fast as an argsort.

    >>> falling_order(np.array([0.5, -1, 1, 0.5], dtype=np.float32))
    array([2, 0, 3, 1])
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # −0 becomes 0
    sign = np.uint32(1 << 31)
    # The sign turned over, and all other bits where it is not set: falls as the score rises.
    keys = np.where(bits & sign, bits, bits ^ np.uint32(0x7FFFFFFF)).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(len(scores), dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(0xFFFFFFFF)
    return keys.astype(np.intp)


def sort_falling(parts: Iterable[tuple[NDArray[Any], ...]]) -> tuple[NDArray[Any], ...]:
    """(scores, …) of all parts, highest score first; each column in C order."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = falling_order(columns[0])
    return tuple(column[order] for column in columns)


def _key(score: np.float32) -> int:
    """A whole number that rises with the score."""
    bits = int(np.asarray(score).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _of_key(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    bits = np.where(keys >= 0, keys, (-keys) | (1 << 31)).astype(np.uint32)
    return bits.view(np.float32)


class NumpyOps:
    """Blocks on one core, in buffers that are used again; one instance a thread."""

    def __init__(
        self,
        rows: NDArray[np.float32],
        columns: NDArray[np.float32],
        units: tuple[NDArray[np.int32], NDArray[np.int32]],
    ) -> None:
        self._rows, self._columns, self._units = rows, columns, units
        self._buffers: dict[str, NDArray[Any]] = {}
        self._gathered = 0  # scores in the buffer of that name

    def _buffer(self, name: str, size: int, dtype: type) -> NDArray[Any]:
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer[:size]

    @contextmanager
    def worker(self) -> Iterator[NumpyOps]:
        yield NumpyOps(self._rows, self._columns, self._units)

    def product(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        a, b = self._rows[rows], self._columns[columns]
        scores = self._buffer("scores", len(a) * len(b), np.float32).reshape(len(a), len(b))
        return np.matmul(a, b.T, out=scores)

    def exclude_lower(self, scores: NDArray[np.float32]) -> int:
        lower = np.tri(*scores.shape, dtype=np.bool_)
        scores[lower] = EXCLUDED
        return int(np.count_nonzero(lower))

    def take(self, scores: NDArray[np.float32], index: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.clip(scores.reshape(-1)[index], -1, 1)

    def exclude(self, scores: NDArray[np.float32], index: NDArray[np.int64]) -> None:
        scores.reshape(-1)[index] = EXCLUDED

    def histogram(self, scores: NDArray[np.float32], bins: int, excluded: int) -> NDArray[np.int64]:
        import cv2

        flat = scores.reshape(-1)
        shifted = self._buffer("shifted", len(flat), np.float32)
        numbers = self._buffer("numbers", len(flat), np.uint16)
        np.add(flat, np.float32(1), out=shifted)  # as `bin_of`
        np.multiply(shifted, np.float32(bins / 2), out=shifted)
        np.clip(shifted, 0, bins - 1, out=shifted)
        np.copyto(numbers, shifted, casting="unsafe")
        counts = self._buffer("counts", bins, np.int64)
        counts[:] = 0
        part_counts = self._buffer("found", bins, np.float32)
        for start in range(0, len(flat), 2**24):  # its counts are float32, whole up to 2²⁴
            part = numbers[start : start + 2**24].reshape(1, -1)
            part_counts = cv2.calcHist([part], [0], None, [bins], [0, bins], part_counts).ravel()
            np.add(counts, part_counts, out=counts, casting="unsafe")
        counts[0] -= excluded  # they were clipped into the first
        return counts

    def above(
        self, scores: NDArray[np.float32], floor: float
    ) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        flat = scores.reshape(-1)
        mask = self._buffer("mask", len(flat), np.bool_)
        index = np.flatnonzero(np.greater(flat, np.float32(floor), out=mask))
        return np.clip(flat[index], -1, 1), index

    def units(self, side: int, start: int, index: NDArray[np.intp]) -> NDArray[np.int32]:
        return self._units[side][start + index]

    def highest(
        self, parts: list[tuple[Any, ...]], keep: int
    ) -> tuple[tuple[NDArray[Any], ...], float]:
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        n = len(columns[0])
        if n <= keep:
            return tuple(columns), -np.inf
        floor = np.partition(columns[0], n - keep)[n - keep]
        inside = columns[0] > floor
        return tuple(column[inside] for column in columns), float(floor)

    def sorted(self, parts: list[tuple[Any, ...]]) -> tuple[NDArray[Any], ...]:
        return sort_falling(parts)

    def between(self, scores: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
        clipped = np.clip(scores, -1, 1)
        inside = (clipped >= np.float32(low)) & (clipped < np.float32(high)) & (scores > -1.5)
        return clipped[inside]

    def ranked(self, scores: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.int64]:
        flat = np.sort(scores, axis=None)
        flat[flat > -1.5] = np.clip(flat[flat > -1.5], -1, 1)
        return np.stack([np.searchsorted(flat, values, side) for side in ("left", "right")])

    def gathered(
        self, scores: NDArray[np.float32] | None, least: int
    ) -> NDArray[np.float32] | None:
        size = 0 if scores is None else scores.size
        if not self._gathered and size >= least:
            return scores
        if scores is not None:
            room = self._buffer("gathered", least + LARGEST_BLOCK**2, np.float32)
            room[self._gathered : self._gathered + size] = scores.reshape(-1)
            self._gathered += size
        if self._gathered and (scores is None or self._gathered >= least):
            whole = self._buffers["gathered"][: self._gathered]
            self._gathered = 0
            return whole
        return None


class TorchOps:
    """Blocks on a torch device. Products are true float32, whatever the process allows."""

    def __init__(
        self,
        rows: NDArray[np.float32],
        columns: NDArray[np.float32],
        units: tuple[NDArray[np.int32], NDArray[np.int32]],
        device: str,
    ) -> None:
        import torch

        self._torch = torch
        if torch.get_float32_matmul_precision() != "highest":
            raise VidfaceError(
                "torch.set_float32_matmul_precision was set, so products would be rounded to "
                "TF32 or less; set it to 'highest' for scores"
            )
        try:
            self._rows = torch.from_numpy(rows).to(device)
            self._columns = self._rows if columns is rows else torch.from_numpy(columns).to(device)
            self._units = tuple(torch.from_numpy(u).to(device) for u in units)
        except (RuntimeError, AssertionError) as error:
            raise VidfaceError(f"device '{device}': {str(error).splitlines()[0]}") from None
        self._buffer: Any = None

    @contextmanager
    def worker(self) -> Iterator[TorchOps]:
        thread_ops = copy.copy(self)  # the rows are shared
        thread_ops._buffer = None
        if self._rows.device.type != "cuda":
            yield thread_ops
            return
        self._torch.cuda.synchronize(self._rows.device)  # which makes it the thread's device
        stream = self._torch.cuda.Stream(self._rows.device)
        with self._torch.cuda.stream(stream):
            yield thread_ops
        stream.synchronize()

    def product(self, rows: slice, columns: slice) -> Any:
        a, b = self._rows[rows], self._columns[columns]
        size = len(a) * len(b)
        if self._buffer is None or len(self._buffer) < size:
            self._buffer = self._torch.empty(size, dtype=a.dtype, device=a.device)
        scores = self._buffer[:size].view(len(a), len(b))
        return self._torch.mm(a, b.T, out=scores)

    def exclude_lower(self, scores: Any) -> int:
        n, m = scores.shape
        rows = self._torch.arange(n, device=scores.device)[:, None]
        columns = self._torch.arange(m, device=scores.device)
        scores.masked_fill_(columns <= rows, EXCLUDED)
        return int(np.minimum(np.arange(1, n + 1), m).sum())

    def _index(self, scores: Any, index: NDArray[np.int64]) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(index)).to(scores.device)

    def take(self, scores: Any, index: NDArray[np.int64]) -> NDArray[np.float32]:
        values = scores.view(-1)[self._index(scores, index)].clamp_(-1, 1)
        taken: NDArray[np.float32] = values.cpu().numpy()
        return taken

    def exclude(self, scores: Any, index: NDArray[np.int64]) -> None:
        scores.view(-1)[self._index(scores, index)] = EXCLUDED

    def histogram(self, scores: Any, bins: int, excluded: int) -> NDArray[np.int64]:
        counts = self._torch.histc(scores, bins, -1, 1)
        if float(counts.max()) >= 2**24:  # float32 counts are whole up to there
            numbers = ((scores + 1) * (bins / 2)).clamp_(0, bins - 1).int().view(-1)
            counts = self._torch.bincount(numbers, minlength=bins)
            counts[0] -= excluded
        part_counts: NDArray[np.int64] = counts.long().cpu().numpy()
        # histc leaves out what lies outside of [−1, 1]: what is excluded, and rounding's work.
        outside = scores.numel() - excluded - int(part_counts.sum())
        if outside:
            above = int((scores > 1).sum())
            part_counts[-1] += above
            part_counts[0] += outside - above
        return part_counts

    def above(self, scores: Any, floor: float) -> tuple[Any, Any]:
        flat = scores.view(-1)
        index = self._torch.nonzero(flat > floor).view(-1)
        return flat[index].clamp_(-1, 1), index

    def units(self, side: int, start: int, index: Any) -> Any:
        return self._units[side][start + index]

    def highest(self, parts: list[tuple[Any, ...]], keep: int) -> tuple[tuple[Any, ...], float]:
        columns = [self._torch.cat(column) for column in zip(*parts, strict=True)]
        if len(columns[0]) <= keep:
            return tuple(columns), -np.inf
        floor = self._torch.topk(columns[0], keep).values[-1]
        inside = columns[0] > floor
        return tuple(column[inside] for column in columns), float(floor)

    def sorted(self, parts: list[tuple[Any, ...]]) -> tuple[NDArray[Any], ...]:
        columns = [self._torch.cat(column) for column in zip(*parts, strict=True)]
        order = self._torch.argsort(columns[0], descending=True)
        return tuple(column[order].cpu().numpy() for column in columns)

    def between(self, scores: Any, low: float, high: float) -> NDArray[np.float32]:
        clipped = scores.clamp(-1, 1)
        inside = (clipped >= low) & (clipped < high) & (scores > -1.5)
        values: NDArray[np.float32] = clipped[inside].cpu().numpy()
        return values

    def ranked(self, scores: Any, values: NDArray[np.float32]) -> NDArray[np.int64]:
        flat = self._torch.sort(scores.view(-1)).values
        flat = self._torch.where(flat > -1.5, flat.clamp(-1, 1), flat)
        wanted = self._torch.from_numpy(values).to(flat.device)
        ranks_of_values = [
            self._torch.searchsorted(flat, wanted, right=right) for right in (False, True)
        ]
        ranks: NDArray[np.int64] = self._torch.stack(ranks_of_values).cpu().numpy()
        return ranks

    def gathered(self, scores: Any, least: int) -> Any:
        return scores  # a device's block is large enough
