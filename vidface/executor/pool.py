"""What all executors share: an assignment, a shard's function where it runs, and lost workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from vidface.core.errors import UsageError, VidfaceError

_AHEAD_ROUNDS = 4  # results that wait for an earlier one, in rounds of all workers
_NAME_CHARACTERS = 120


@dataclass(frozen=True)
class Assignment:
    """What an executor is to do: a function of many shards, and how.

    Attributes:
        shared: () or the one value that every shard's call gets as its second argument.
        processes: how many to start on this machine.
        scheduler: the address of a cluster that is there already.
        notify: told of lost workers and of waiting for some.
        retries: how often a shard is tried again whose worker was lost.
    """

    function: Callable[..., Any]
    items: Iterator[Any]
    shared: tuple[()] | tuple[Any]
    processes: int
    scheduler: str | None
    notify: Callable[[str], None]
    retries: int


def call_shard(function: Callable[..., Any], item: Any, *shared: Any) -> Any:
    """A shard's function where it runs: its result or its `Refusal`."""
    try:
        return function(item, *shared)
    except VidfaceError as error:
        return Refusal(str(error), isinstance(error, UsageError))
    except AssertionError as error:
        if "daemonic processes" not in str(error):
            raise
        return Refusal(
            "its worker may not start processes of its own; start the workers with "
            "DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment",
            False,
        )


@dataclass(frozen=True)
class Refusal:
    """A `VidfaceError` on its way home: as a value it is not tried again, and always pickles."""

    message: str
    usage: bool

    def error(self, item: object) -> VidfaceError:
        name = shard_name(item)
        text = self.message if name in self.message else f"{name}: {self.message}"
        return (UsageError if self.usage else VidfaceError)(text)


class Lost:
    """Instead of a result: the worker died."""


class Pool(Protocol):
    """Workers that `run_pool` gives shards to."""

    alone_after_loss: bool
    """Whether shards whose worker died are tried one by one, so that the guilty one is known."""

    def limit(self) -> int:
        """How many shards to have with the workers."""

    def submit(self, number: int, item: Any) -> None:
        """Begin on a shard."""

    def wait(self) -> list[tuple[int, Any]]:
        """Wait until some end: their numbers, and each one's result, `Refusal` or `Lost`."""


def run_pool(
    pool: Pool, assignment: Assignment, ahead_rounds: int = _AHEAD_ROUNDS
) -> Iterator[Any]:
    """The results of a pool's workers in the order of the items."""
    unfinished: dict[int, Any] = {}  # items with the workers, or to be tried again
    to_retry: deque[int] = deque()
    results: dict[int, Any] = {}  # that wait for an earlier one
    losses: Counter[int] = Counter()
    begun = next_number = 0
    items_left = True
    while True:
        limit = pool.limit()
        if to_retry and pool.alone_after_loss:
            if len(unfinished) == len(to_retry):  # nothing runs
                pool.submit(to_retry[0], unfinished[to_retry.popleft()])
        else:
            while to_retry:
                pool.submit(to_retry[0], unfinished[to_retry.popleft()])
            most_begun = next_number + ahead_rounds * limit
            while items_left and len(unfinished) < limit and begun < most_begun:
                try:
                    item = next(assignment.items)
                except StopIteration:
                    items_left = False
                    break
                unfinished[begun] = item
                pool.submit(begun, item)
                begun += 1
        while next_number in results:
            yield results.pop(next_number)
            next_number += 1
        if not unfinished:
            if items_left:
                continue
            return
        for number, result in pool.wait():
            item = unfinished[number]
            if isinstance(result, Lost):
                losses[number] += 1
                if losses[number] > assignment.retries:
                    raise VidfaceError(
                        f"{shard_name(item)}: the process that works on it died "
                        f"{losses[number]} times; it may need more memory than there is, or crash "
                        "a library: run it alone (--executor serial) to see"
                    )
                assignment.notify(f"{shard_name(item)}: lost with its worker; trying it again")
                to_retry.append(number)
                continue
            del unfinished[number]
            if isinstance(result, Refusal):
                raise result.error(item)
            results[number] = result


def shard_name(item: object) -> str:
    """What a shard is called in messages: one short line."""
    name = getattr(item, "name", None)
    text = " ".join((name if isinstance(name, str) else str(item)).split())
    return text if len(text) <= _NAME_CHARACTERS else text[:_NAME_CHARACTERS] + "…"
