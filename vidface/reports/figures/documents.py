"""Curves and sweeps as they come from files, which may be anyone's: every value is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import exact_rate

MOST_BYTES = 2**26
"""Of a curves or sweep file: a hundred times what vidface writes."""

MOST_VALUES = 100_000
"""Points of one curve, or rows of one sweep."""


def read_document(path: Path) -> dict[str, Any]:
    """A JSON file with an object in it.

    Raises:
        VidfaceError: not there, too large, no JSON, NaN in it, no object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise VidfaceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise VidfaceError(f"{path}: larger than {MOST_BYTES >> 20} MiB; not what vidface wrote")
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise VidfaceError(f"{path}: no JSON that vidface wrote ({reason})") from None
    if not isinstance(document, dict):
        raise VidfaceError(f"{path}: not a JSON object; name a curves or sweep file of vidface")
    return document


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} in it")


@dataclass(frozen=True)
class Block:
    """An object of a document, and what messages call it."""

    what: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"Block({self.what}: {len(self.values)} keys)"

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise VidfaceError(f"{self.what}: must be an object; not what vidface wrote")

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def block(self, key: str, hint: str = "") -> Block:
        """The object there; `hint` says what to do where it is missing."""
        if key not in self:
            raise VidfaceError(f"{self.what}: no {key} in it{hint and '; '}{hint}")
        return Block(f"{self.what}: {key}", self.values[key])

    def blocks(self, key: str) -> list[Block]:
        """The objects of a list."""
        found = self.values.get(key)
        if not isinstance(found, list) or len(found) > MOST_VALUES:
            self._fail(key, f"a list of at most {MOST_VALUES} objects")
        return [Block(f"{self.what}: {key}[{i}]", value) for i, value in enumerate(found)]

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in [low, high]."""
        value = _finite(self.values.get(key))
        if value is None or not low <= value <= high:
            self._fail(key, f"a number in [{low:g}, {high:g}]")
        return value

    def numbers(
        self, key: str, low: float = -math.inf, high: float = math.inf, n: int | None = None
    ) -> NDArray[np.float64]:
        """(n,) finite numbers in [low, high], one at least."""
        values = self.values.get(key)
        if not isinstance(values, list) or not 0 < len(values) <= MOST_VALUES:
            self._fail(key, f"a list of 1 to {MOST_VALUES} numbers")
        if n is not None and len(values) != n:
            self._fail(key, f"{n} numbers, as the lists beside it, not {len(values)}")
        found = [_finite(value) for value in values]
        if any(value is None or not low <= value <= high for value in found):
            self._fail(key, f"numbers in [{low:g}, {high:g}]")
        return np.array(found, dtype=np.float64)

    def interval(self, key: str) -> tuple[float, float] | None:
        """Two rates, or None."""
        if key not in self:
            return None
        low, high = self.numbers(key, -1e-9, 1 + 1e-9, 2)
        return float(low), float(high)

    def band(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Lists "low" and "high" of rates; None without them."""
        if "low" not in self or "high" not in self:
            return None
        return self.numbers("low", 0, 1, n), self.numbers("high", 0, 1, n)

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            self._fail(key, "text")
        return value

    def _fail(self, key: str, must: str) -> NoReturn:
        raise VidfaceError(f"{self.what}: {key} must be {must}; not what vidface wrote")


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True, eq=False)
class Roc:
    """The points of one run's ROC, and its operating points. All rates in [0, 1]."""

    label: str
    far: NDArray[np.float64]  # (n,) rising
    tar: NDArray[np.float64]
    frr: NDArray[np.float64]
    genuine: float  # pairs
    impostor: float
    points: tuple[tuple[float, float, tuple[float, float] | None], ...]  # target, TAR, 95 %

    def __str__(self) -> str:
        return f"Roc({self.label}: {self.far.shape} points, {len(self.points)} targets)"


def roc_of(label: str, document: Any, protocol: str) -> Roc:
    """The ROC in a curves document."""
    found = Block(label, document).block(protocol, f"score with --protocols {_flag(protocol)}")
    curve, pairs = found.block("roc"), found.block("pairs")
    far = curve.numbers("far", 0, 1)
    points = []
    for point in found.blocks("points"):
        target = _rate(point, "target_far")
        points.append((target, point.number("tar", 0, 1), point.interval("ci95")))
    return Roc(
        label,
        far,
        curve.numbers("tar", 0, 1, len(far)),
        curve.numbers("frr", 0, 1, len(far)),
        pairs.number("genuine", 1),
        pairs.number("impostor", 1),
        tuple(points),
    )


def _flag(protocol: str) -> str:
    return protocol.replace("_", "-")


def _rate(block: Block, key: str) -> float:

    found = exact_rate(block.text(key)[:40])
    if found is None or float(found) <= 0:
        raise VidfaceError(f"{block.what}: {key} must be a rate such as '1e-3'")
    return float(found)
