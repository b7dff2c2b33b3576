"""The executor `serial`: this process does one shard after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vidface.executor.pool import Assignment, Refusal, call_shard


def run_serially(assignment: Assignment) -> Iterator[Any]:
    """The results of an assignment, each computed when it is asked for."""
    for item in assignment.items:
        result = call_shard(assignment.function, item, *assignment.shared)
        if isinstance(result, Refusal):
            raise result.error(item)
        yield result
