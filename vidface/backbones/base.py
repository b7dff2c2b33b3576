"""What every recogniser is to the rest of vidface, whatever runs it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidface.errors import VidfaceError
from vidface.faces import CROP_SIZE

BATCH_SIZE = 16  # faces; larger ones were slower here on 2 cores (docs/log.md)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Preprocessing:
    """What a network is fed: (x − mean) / std on the 0–255 scale, channels in `color` order.

    A sequence of three is in the order of the channels as fed.
    """

    color: str | None = "rgb"
    mean: float | tuple[float, ...] | None = 127.5
    std: float | tuple[float, ...] | None = 127.5
    size: int | None = CROP_SIZE  # pixels

    def __post_init__(self) -> None:
        usual = {"color": "rgb", "mean": 127.5, "std": 127.5, "size": CROP_SIZE}
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.color not in ("rgb", "bgr"):
            raise VidfaceError(f"color: unknown value '{self.color}' (known: rgb, bgr)")
        if self.size != CROP_SIZE:
            raise VidfaceError(
                f"size {self.size}: aligned crops are {CROP_SIZE}x{CROP_SIZE} and never resized; "
                "use a recogniser of that input size"
            )
        for name in ("mean", "std"):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape not in ((), (1,), (3,)) or not np.isfinite(value).all():
                raise VidfaceError(
                    f"{name} must be one finite number or three, not {getattr(self, name)}"
                )
        if np.any(np.asarray(self.std) <= 0):
            raise VidfaceError(f"std must be above 0, not {self.std}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def apply(self, crops: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB → (n, 3, 112, 112) float32 as the network wants it."""
        ordered = crops if self.color == "rgb" else crops[..., ::-1]
        scaled = ordered.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        mean = np.asarray(self.mean, dtype=np.float32).reshape(-1, 1, 1)
        std = np.asarray(self.std, dtype=np.float32).reshape(-1, 1, 1)
        if np.any(mean != 0):
            scaled -= mean
        if np.any(std != 1):
            scaled /= std
        return scaled


class Backbone(ABC):
    """A loaded recogniser. `embed` is the one verb."""

    name: str
    sha256: str  # of the file, or of a module's state
    runtime: str
    dimension: int
    preprocessing: Preprocessing
    assumed: bool  # nobody said what the preprocessing is

    def __str__(self) -> str:
        p = self.preprocessing
        return (
            f"{self.name} ({self.runtime}, {self.dimension}-d, {p.color} "
            f"mean {p.mean} std {p.std}{', assumed' if self.assumed else ''})"
        )

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings of aligned faces, raw (not normalised).

        Every batch has the same shape (the last one is filled up with black), so that an embedding
        does not depend on its neighbours.

        Args:
            crops: (n, 112, 112, 3) uint8 RGB.

        Returns:
            (n, d) float32.

        Raises:
            VidfaceError: another shape or type.
        """
        crops = np.asarray(crops)
        shape = (CROP_SIZE, CROP_SIZE, 3)
        if crops.ndim != 4 or crops.shape[1:] != shape or crops.dtype != np.uint8:
            raise VidfaceError(
                f"crops: want (n, {CROP_SIZE}, {CROP_SIZE}, 3) uint8 RGB, "
                f"got {crops.shape} {crops.dtype}"
            )
        out = np.empty((len(crops), self.dimension), np.float32)
        for start in range(0, len(crops), BATCH_SIZE):
            batch = crops[start : start + BATCH_SIZE]
            filled = np.zeros((BATCH_SIZE, *shape), np.uint8)
            filled[: len(batch)] = batch
            images = self.preprocessing.apply(filled)
            out[start : start + len(batch)] = self._run(images)[: len(batch)]
        return out

    @abstractmethod
    def _run(self, images: np.ndarray) -> np.ndarray:
        """(BATCH_SIZE, 3, 112, 112) float32 → (BATCH_SIZE, d) float32."""

    def _check_output(self, output: np.ndarray, n: int) -> int:
        """The dimension of a trial's output, or a clear error."""
        if output.ndim != 2 or output.shape[0] != n or output.shape[1] < 2:
            raise VidfaceError(
                f"weights {self.name}: {n} faces give an output of shape {output.shape}; "
                f"a recogniser gives ({n}, d)"
            )
        return int(output.shape[1])
