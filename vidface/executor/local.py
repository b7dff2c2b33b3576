"""One function that maps shards: in this process, on this machine's cores, or on a Dask cluster.

Work that is too large for one process is cut into shards, and a shard's work is a function of what
names it (paths, settings) that writes its artefacts to files and returns little. `map_shards` runs
such a function over many shards, whoever does the work, and hands back the results in the order of
the items. A worker that dies costs the shards it held a second try, not the run.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from vidface.core.errors import UsageError, VidfaceError

if TYPE_CHECKING:
    from vidface.settings.run_settings import RunSettings

Item = TypeVar("Item")
Result = TypeVar("Result")
Notify = Callable[[str], None]

NOTHING: Any = None
"""What `map_shards` takes for "nothing is shared"."""

RETRIES = 2

_AHEAD = 4  # results that wait for an earlier one, in rounds of all workers
_NAME_CHARACTERS = 120


def _quiet(_: str) -> None:
    return None


@dataclass(frozen=True)
class Executor:
    """Who does the work on shards.

    Attributes:
        name: of `EXECUTORS`: "serial" (this process), "joblib" (processes on this machine) or
            "dask" (a cluster's workers, or those of one that is started on this machine).
        workers: processes that are started on this machine (default: one a core). A cluster that is
            there already has its own.
        scheduler: the address of Dask's scheduler, such as "tcp://head:8786".

    >>> print(Executor("dask", scheduler="tcp://head:8786"))
    Executor(dask at tcp://head:8786)
    >>> print(Executor("joblib", workers=2))
    Executor(joblib, 2 processes)
    """

    name: str = "serial"
    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise VidfaceError(
                f"unknown executor '{self.name}' (known: {', '.join(sorted(EXECUTORS))})"
            )
        if self.workers is not None and not (type(self.workers) is int and self.workers >= 1):
            raise VidfaceError(f"executor workers must be at least 1, not {self.workers!r}")
        if self.scheduler is None:
            return
        if self.name != "dask":
            raise VidfaceError(
                f"a scheduler ({self.scheduler}) is what executor 'dask' connects to, "
                f"not '{self.name}'"
            )
        if not re.fullmatch(r"[a-z][a-z0-9+]*://\S+", self.scheduler):
            raise VidfaceError(
                f"scheduler '{self.scheduler}' is no address; write it as `dask scheduler` prints "
                "it, tcp://HOST:PORT"
            )

    def __str__(self) -> str:
        if self.scheduler is not None:
            return f"Executor({self.name} at {self.scheduler})"
        return f"Executor({self.name}, {self.processes} process{'es' * (self.processes > 1)})"

    @property
    def processes(self) -> int:
        """Processes that work on this machine; 1 where a cluster elsewhere does."""
        if self.name == "serial" or self.scheduler is not None:
            return 1
        return self.workers or _cores()


def executor_of(settings: RunSettings) -> Executor:
    """What a pipeline's `[run]` says; where it says nothing, this process does the work."""
    name = settings.executor or "serial"
    return Executor(name, settings.workers, settings.scheduler if name == "dask" else None)


def map_shards(
    function: Callable[..., Result],
    items: Iterable[Item],
    *,
    executor: Executor,
    shared: Any = NOTHING,
    notify: Notify = _quiet,
    retries: int = RETRIES,
) -> Iterator[Result]:
    """The results of `function(item)`, in the order of the items, whoever computes them.

    Items are taken as they are needed, so that there may be any number of them; what runs ahead of
    the reader is bounded by a few rounds of all workers. A shard may be begun twice (its worker was
    lost), so its function writes files whole or not at all. Leaving the loop early, Ctrl-C and
    errors cancel what has not begun.

    Args:
        function: module-level, so that other processes can import it; it gets an item and, if
            something is shared, that as second argument.
        items: what names each shard; pickled. In messages an item is called by its `name` if it has
            one, else by its text.
        executor: who works.
        shared: sent to each worker once instead of with each item (None: nothing).
        notify: told of lost workers and of waiting for some.
        retries: how often a shard is tried again whose worker was lost. A cluster's scheduler tries
            by itself before that (`distributed.scheduler.allowed-failures`), each time.

    Yields:
        A result an item.

    Raises:
        VidfaceError: one that the function raised, with the shard's name in it; a shard whose
            worker was lost each time; a cluster that can't be reached or was lost; `distributed`
            not installed. Any other exception of the function comes as it is.

    >>> list(map_shards(abs, [-3, 1, -2], executor=Executor("serial")))
    [3, 1, 2]
    """
    if type(retries) is not int or retries < 0:
        raise VidfaceError(f"retries must be 0 or more, not {retries!r}")
    call = _Call(function, shared is not NOTHING)
    return EXECUTORS[executor.name](call, iter(items), executor, shared, notify, retries)


def shard_name(item: object) -> str:
    """What a shard is called in messages: one short line."""
    name = getattr(item, "name", None)
    text = " ".join((name if isinstance(name, str) else str(item)).split())
    return text if len(text) <= _NAME_CHARACTERS else text[:_NAME_CHARACTERS] + "…"


@dataclass(frozen=True)
class Refused:
    """A `VidfaceError` on its way home: as a value it is not tried again, and always pickles."""

    message: str
    usage: bool

    def error(self, item: object) -> VidfaceError:
        name = shard_name(item)
        text = self.message if name in self.message else f"{name}: {self.message}"
        return (UsageError if self.usage else VidfaceError)(text)


@dataclass(frozen=True)
class _Call:
    """A shard's function where it runs."""

    function: Callable[..., Any]
    takes_shared: bool

    def __call__(self, item: Any, shared: Any = NOTHING) -> Any:
        try:
            return self.function(item, shared) if self.takes_shared else self.function(item)
        except VidfaceError as error:
            return Refused(str(error), isinstance(error, UsageError))
        except AssertionError as error:
            if "daemonic processes" not in str(error):
                raise
            return Refused(
                "its worker may not start processes of its own; start the workers with "
                "DASK_DISTRIBUTED__WORKER__DAEMON=False in their environment",
                False,
            )


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
        """Wait until some end: their numbers, and each one's result, `Refused` or `Lost`."""


def run_pool(
    pool: Pool, items: Iterator[Any], notify: Notify, retries: int, ahead: int = _AHEAD
) -> Iterator[Any]:
    """The results of a pool's workers in the order of the items."""
    open_items: dict[int, Any] = {}  # with the workers, or to be tried again
    again: deque[int] = deque()
    done: dict[int, Any] = {}
    losses: Counter[int] = Counter()
    given = first = 0
    more = True
    while True:
        limit = pool.limit()
        running = len(open_items) - len(again)
        if again and pool.alone_after_loss:
            if not running:
                pool.submit(again[0], open_items[again.popleft()])
        else:
            while again:
                pool.submit(again[0], open_items[again.popleft()])
            while more and len(open_items) < limit and given - first < ahead * limit:
                try:
                    item = next(items)
                except StopIteration:
                    more = False
                    break
                open_items[given] = item
                pool.submit(given, item)
                given += 1
        while first in done:
            yield done.pop(first)
            first += 1
        if not open_items:
            if more:
                continue
            return
        for number, result in pool.wait():
            item = open_items[number]
            if isinstance(result, Lost):
                losses[number] += 1
                if losses[number] > retries:
                    raise VidfaceError(
                        f"{shard_name(item)}: the process that works on it died "
                        f"{losses[number]} times; it may need more memory than there is, or crash "
                        "a library: run it alone (--executor serial) to see"
                    )
                notify(f"{shard_name(item)}: lost with its worker; trying it again")
                again.append(number)
                continue
            del open_items[number]
            if isinstance(result, Refused):
                raise result.error(item)
            done[number] = result


def _serial(
    call: _Call,
    items: Iterator[Any],
    executor: Executor,
    shared: Any,
    notify: Notify,
    retries: int,
) -> Iterator[Any]:
    for item in items:
        result = call(item, shared)
        if isinstance(result, Refused):
            raise result.error(item)
        yield result


def _joblib(
    call: _Call,
    items: Iterator[Any],
    executor: Executor,
    shared: Any,
    notify: Notify,
    retries: int,
) -> Iterator[Any]:
    first = list(islice(items, 2))
    rest = chain(first, items)
    if len(first) < 2 or executor.processes == 1:  # starting a process costs more than it gives
        yield from _serial(call, rest, executor, shared, notify, retries)
        return
    pool = _Processes(call, executor.processes, shared)
    try:
        yield from run_pool(pool, rest, notify, retries)
    finally:
        pool.close()


def _dask(
    call: _Call,
    items: Iterator[Any],
    executor: Executor,
    shared: Any,
    notify: Notify,
    retries: int,
) -> Iterator[Any]:
    from vidface.executor.with_dask import run_on_dask

    yield from run_on_dask(call, items, executor, shared, notify, retries)


EXECUTORS: dict[str, Callable[..., Iterator[Any]]] = {
    "serial": _serial,
    "joblib": _joblib,
    "dask": _dask,
}
"""Who can do the work, by name."""


class _Processes:
    """joblib's worker processes (loky). When one dies, loky gives up all: a new set is started.

    Not `joblib.Parallel`: as a generator it works on however slowly it is read, and one lost
    worker ends it.
    """

    alone_after_loss = True

    def __init__(self, call: _Call, workers: int, shared: Any) -> None:
        self._call, self._workers, self._shared = call, workers, shared
        self._ended: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._pool = self._start()

    def _start(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        threads = str(max(1, _cores() // self._workers))  # the shards are the parallelism
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return ProcessPoolExecutor(
            self._workers,
            initializer=_keep_shared,
            initargs=(self._call, self._shared),
            env=dict.fromkeys(names, threads),
        )

    def limit(self) -> int:
        return 2 * self._workers  # so that none waits while the reader is busy

    def submit(self, number: int, item: Any) -> None:
        from joblib.externals.loky.process_executor import BrokenProcessPool

        try:
            future = self._pool.submit(_call_kept, item)
        except BrokenProcessPool:  # noticed only now
            self._pool = self._start()
            future = self._pool.submit(_call_kept, item)
        future.add_done_callback(lambda done: self._ended.put((number, done)))

    def wait(self) -> list[tuple[int, Any]]:
        from joblib.externals.loky.process_executor import BrokenProcessPool

        found = [self._ended.get()]
        while not self._ended.empty():
            found.append(self._ended.get())
        outcomes: list[tuple[int, Any]] = []
        for number, future in found:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                outcomes.append((number, Lost()))
            elif error is not None:
                raise error
            else:
                outcomes.append((number, future.result()))
        return outcomes

    def close(self) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)


_KEPT: list[Any] = []  # in a worker process: the call, and what all shards share


def _keep_shared(call: _Call, shared: Any) -> None:
    _KEPT[:] = [call, shared]


def _call_kept(item: Any) -> Any:
    call, shared = _KEPT
    return call(item, shared)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
