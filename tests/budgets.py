"""How many examples a property test tries: a part in `make test`, all of them in `make test-slow`.

    @examples(250)
    @given(...)
    def test_a_property(...): ...

`VIDFACE_BUDGET=full` asks for all of them; `make test-slow` sets it and runs these tests again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings

FULL = os.environ.get("VIDFACE_BUDGET") == "full"
SHARE, LEAST = 8, 10  # an eighth of the examples, ten at the least


def examples(count: int, **more: Any) -> Callable[[Any], Any]:
    """Mark a test as a property and give it its examples; `more` as for `hypothesis.settings`."""
    tried = count if FULL else min(count, max(LEAST, count // SHARE))
    budget = settings(max_examples=tried, **{"deadline": None, **more})

    def decorate(test: Any) -> Any:
        return pytest.mark.property(budget(test))

    return decorate


def mostly_slow(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Parameters of which `make test` tries `quick` alone, and `make test-slow` the others."""
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in values]
