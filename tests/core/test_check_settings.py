"""What a settings dataclass refuses by what its fields declare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from vidface.core.errors import VidfaceError
from vidface.core.settings import build_settings, check_settings, setting


@dataclass(frozen=True)
class Toy:
    share: float = setting(0.5, bounds="[0, 1]", help="A share.")
    count: int | None = setting(3, bounds="[1, inf)", help="A count.")
    name: str = setting("a", choices=("a", "b"), help="A name.")
    on: bool = setting(True, help="A switch.")

    def __post_init__(self) -> None:
        check_settings(self, "toy")


@pytest.mark.parametrize(
    "values",
    [{}, {"share": 1}, {"share": 0.0}, {"count": None}, {"count": 1}, {"name": "b"}, {"on": False}],
)
def test_values_that_are_allowed(values: dict[str, Any]) -> None:
    toy = build_settings(Toy, values, "toy")
    assert all(getattr(toy, key) == value for key, value in values.items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.1}, r"toy share: must lie in \[0, 1\], not 1.1"),
        ({"share": math.nan}, "toy share: must be finite, not nan"),
        ({"share": "0.5"}, "toy share: must be a finite number, not '0.5'"),
        ({"share": True}, "toy share: must be a finite number"),
        ({"share": None}, "toy share: must be a finite number, not None"),
        ({"count": 0}, "toy count: must be at least 1, not 0"),
        ({"count": 1.5}, "toy count: must be a whole number, not 1.5"),
        ({"name": "c"}, r"toy name: unknown value 'c' \(known: a, b\)"),
        ({"name": ["a"]}, "toy name: unknown value"),
        ({"on": 1}, "toy on: must be true or false, not 1"),
        ({"of": 1}, r"toy has no setting 'of' \(known: share, count, name, on\)"),
        (0.5, "toy takes a table of settings, not 0.5"),
    ],
)
def test_values_that_are_refused(values: Any, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        build_settings(Toy, values, "toy")
