"""Values of JSON that no schema has checked: settings, versions, sections of unknown protocols.

A run directory may come from a stranger: what is not of the kind asked for counts as not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_LONGEST_TEXT = 2000


def number(value: Any) -> float | None:
    """A finite number, or None.

    >>> number(1), number(0.5), number(True), number("1"), number(float("nan")), number(10**400)
    (1.0, 0.5, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        finite = float(value)
    except OverflowError:
        return None
    return finite if math.isfinite(finite) else None


def text(value: Any) -> str:
    """A text, cut where it is absurdly long; "" for what is none."""
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping, or an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def interval(value: Any) -> tuple[float, float] | None:
    """The two ends of an interval, or None."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)
