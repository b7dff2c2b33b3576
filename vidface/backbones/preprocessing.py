"""What a network is fed: colour order, mean, standard deviation, size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE, check, check_choice

if TYPE_CHECKING:
    import numpy as np

COLORS = ("rgb", "bgr")
_USUAL: Mapping[str, Any] = {"color": "rgb", "mean": 127.5, "std": 127.5, "size": CROP_SIZE}


@dataclass(frozen=True)
class Preprocessing:
    """What a network is fed: (x − mean) / std on the 0–255 scale, channels in `color` order.

    A sequence of three is in the order of the channels as fed. What is left out is InsightFace's
    usual; `said` names what was not.
    """

    color: str | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    size: int | None = None  # pixels
    said: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        said = {name for name in _USUAL if getattr(self, name) is not None}
        object.__setattr__(self, "said", frozenset(said))
        for name in set(_USUAL) - said:
            object.__setattr__(self, name, _USUAL[name])
        check_choice("color", str(self.color), COLORS)
        if self.size != CROP_SIZE:
            raise VidfaceError(
                f"size: {self.size}, but aligned crops are {CROP_SIZE}x{CROP_SIZE} and never "
                "resized; use a recogniser of that input size"
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = tuple(value) if isinstance(value, Iterable) else (value,)
            fits = len(numbers) in (1, 3) and all(math.isfinite(number) for number in numbers)
            check(fits, name, f"must be one finite number or three, not {value}")
            above = name == "mean" or all(number > 0 for number in numbers)
            check(above, name, f"must be above 0, not {value}")

    def __str__(self) -> str:
        return f"{self.color} (x − {plain_numbers(self.mean)}) / {plain_numbers(self.std)}"

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _USUAL}

    def over(self, base: Preprocessing) -> Preprocessing:
        """What was said here, and what `base` says of the rest."""
        return Preprocessing(**{**base.to_dict(), **{n: getattr(self, n) for n in self.said}})

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], where: str) -> Preprocessing:
        """The preprocessing that a file of weights declares of itself.

        Raises:
            VidfaceError: keys or values that are none of a preprocessing's.
        """
        unknown = set(document) - set(_USUAL)
        if unknown:
            raise VidfaceError(f"{where}: unknown preprocessing key '{sorted(unknown)[0]}'")
        missing = [key for key in ("color", "mean", "std") if document.get(key) is None]
        if missing:
            raise VidfaceError(f"{where}: its preprocessing does not say '{missing[0]}'")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in document.items()
        }
        try:
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as error:
            raise VidfaceError(f"{where}: preprocessing: {error}") from None
        except VidfaceError as error:
            raise VidfaceError(f"{where}: {error}") from None

    def apply(self, crops: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB → (n, 3, 112, 112) float32 as the network wants it."""
        import numpy as np

        ordered = crops if self.color == "rgb" else crops[..., ::-1]
        scaled = ordered.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        mean = np.asarray(self.mean, dtype=np.float32).reshape(-1, 1, 1)
        std = np.asarray(self.std, dtype=np.float32).reshape(-1, 1, 1)
        if np.any(mean != 0):
            scaled -= mean
        if np.any(std != 1):
            scaled /= std
        return scaled


def plain_numbers(value: float | tuple[float, ...] | None) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(f"{v:g}" for v in values if v is not None)
