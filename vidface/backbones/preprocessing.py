"""What a network is fed: colour order, mean, standard deviation, size, how faces are cut out."""

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
ARCFACE, FACENET = "arcface-112", "facenet-160"
TEMPLATES = (ARCFACE, FACENET)  # how faces are cut out: `vidface.faces.alignment`
_SMALLEST, _LARGEST = 16, 512  # pixels
_USUAL: Mapping[str, Any] = {
    "color": "rgb", "mean": 127.5, "std": 127.5, "size": CROP_SIZE, "template": ARCFACE,
}  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """What a network is fed: (x − mean) / std on the 0–255 scale, channels in `color` order.

    A sequence of three is in the order of the channels as fed. `size` is the side of the faces, or
    (height, width); `template` is how they are cut out of pictures. What is left out is
    InsightFace's usual; `said` names what was not.
    """

    color: str | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    size: int | tuple[int, int] | None = None  # pixels
    template: str | None = None
    said: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        said = {name for name in _USUAL if getattr(self, name) is not None}
        object.__setattr__(self, "said", frozenset(said))
        for name in set(_USUAL) - said:
            object.__setattr__(self, name, _USUAL[name])
        check_choice("color", str(self.color), COLORS)
        check_choice("template", str(self.template), TEMPLATES)
        sides = tuple(self.size) if isinstance(self.size, Iterable) else (self.size, self.size)
        fits = len(sides) == 2 and all(type(side) is int for side in sides)
        fits = fits and all(_SMALLEST <= side <= _LARGEST for side in sides)  # type: ignore[operator]
        wanted = f"a side of {_SMALLEST} to {_LARGEST} pixels, or a height and a width"
        check(fits, "size", f"must be {wanted}, not {self.size}")
        object.__setattr__(self, "size", sides[0] if sides[0] == sides[1] else sides)
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = tuple(value) if isinstance(value, Iterable) else (value,)
            fits = len(numbers) in (1, 3) and all(math.isfinite(number) for number in numbers)
            check(fits, name, f"must be one finite number or three, not {value}")
            above = name == "mean" or all(number > 0 for number in numbers)
            check(above, name, f"must be above 0, not {value}")

    def __str__(self) -> str:
        return f"{self.color} (x − {plain_numbers(self.mean)}) / {plain_numbers(self.std)}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of a face."""
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        return (*sides, 3)  # type: ignore[return-value]

    @property
    def size_text(self) -> str:
        """Height and width as people write them: 112x112."""
        return "x".join(map(str, self.shape[:2]))

    def to_dict(self) -> dict[str, Any]:
        """The preprocessing as files record it; the template only where it isn't the usual one."""
        names = [name for name in _USUAL if name != "template" or self.template != ARCFACE]
        return {name: getattr(self, name) for name in names}

    @property
    def is_assumed(self) -> bool:
        """Whether nothing was said of colours and scale."""
        return not self.said & {"color", "mean", "std"}

    def saying(self, **values: Any) -> Preprocessing:
        """What was said here, but for these values."""
        return Preprocessing(**{**{name: getattr(self, name) for name in self.said}, **values})

    def over(self, base: Preprocessing) -> Preprocessing:
        """What was said here, and what `base` says of the rest."""
        return base.saying(**{name: getattr(self, name) for name in self.said})

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
        """(n, h, w, 3) uint8 RGB → (n, 3, h, w) float32 as the network wants it."""
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


USUAL = Preprocessing()
"""InsightFace's usual."""


def plain_numbers(value: float | tuple[float, ...] | None) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(f"{v:g}" for v in values if v is not None)
