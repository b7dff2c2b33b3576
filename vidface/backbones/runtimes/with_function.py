"""A Python function of the caller's that embeds faces, by whatever means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vidface.backbones.runtimes.base import Runner, join_outputs

if TYPE_CHECKING:
    import numpy as np

FUNCTION_BATCH = 32  # crops of a call

Function = Callable[["np.ndarray"], Any]
"""Crops (n, height, width, 3) uint8 RGB → embeddings (n, d), or those and norms (n, 1)."""


class FunctionRunner(Runner):
    """A function, handed copies: what it writes into is its own. Its errors reach the caller."""

    def __init__(self, function: Function, name: str, *, alone: bool) -> None:
        self.batch = 1 if alone else FUNCTION_BATCH
        self._function, self._name = function, name

    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._run(crops.copy()) for crops in batches]

    def _run(self, crops: np.ndarray) -> np.ndarray:
        answer = self._function(crops)
        outputs = answer if isinstance(answer, tuple) else (answer,)
        rows, self.gives_norm = join_outputs(outputs, len(crops), self._name)
        return rows
