"""95 % bands of curves that are means over people: precision against recall, CMC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidface.metrics.uncertainty import LEAST_SHARE, LEVEL

if TYPE_CHECKING:
    from vidface.metrics.uncertainty import Bootstrap

_AT_ONCE = 64  # resamples that are multiplied together
_MOST_KEPT = 2**26  # weights of resamples that are kept for another band


@dataclass(frozen=True)
class Draws:
    """The resamples of a score's intervals, drawn once for all bands over as many people."""

    bootstrap: Bootstrap | None
    _kept: dict[int, list[NDArray[np.uint16]]] = field(default_factory=dict, repr=False)

    def batches(self, n: int) -> Iterator[NDArray[np.uint16]]:
        """(up to 64, n) how often each of n people was drawn, resample after resample."""
        if n in self._kept:
            yield from self._kept[n]
            return
        resamples = 0 if self.bootstrap is None else self.bootstrap.resamples
        made = []
        for start in range(0, resamples, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, resamples))
            batch = np.stack([self._drawn(number, n) for number in numbers])
            if n * resamples <= _MOST_KEPT:
                made.append(batch)
            yield batch
        if made:
            self._kept[n] = made

    def _drawn(self, resample: int, n: int) -> NDArray[np.uint16]:
        weights = self.bootstrap.weights(resample, n) if self.bootstrap else np.zeros(n, np.intp)
        return np.minimum(weights, 2**16 - 1).astype(np.uint16)

    def band(
        self, table: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> tuple[list[float] | None, list[float] | None]:
        """The 95 % band of Σ table / Σ weights, a row a person; (None, None) without one."""

        if self.bootstrap is None or not len(table):
            return None, None
        rows = []
        for batch in self.batches(len(table)):
            drawn = batch.astype(np.float64)
            below = drawn @ weights
            some = below > 0
            rows.append((drawn[some] @ table) / below[some, None])
        values = np.concatenate(rows)
        if len(values) < LEAST_SHARE * self.bootstrap.resamples:
            return None, None
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return low.tolist(), high.tolist()


NO_DRAWS = Draws(None)
