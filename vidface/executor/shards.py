"""One function that maps shards: in this process, on this machine's cores, or on a Dask cluster.

Work that is too large for one process is cut into shards, and a shard's work is a function of what
names it (paths, settings) that writes its artefacts to files and returns little. `map_shards` runs
such a function over many shards, whoever does the work, and hands back the results in the order of
the items. A worker that dies costs the shards it held a second try, not the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.core.values import available_cores, check_name
from vidface.executor.pool import Assignment

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 2


def _run_serially(assignment: Assignment) -> Iterator[Any]:
    from vidface.executor.serial import run_serially

    return run_serially(assignment)


def _run_on_processes(assignment: Assignment) -> Iterator[Any]:
    from vidface.executor.with_joblib import run_on_processes

    return run_on_processes(assignment)


def _run_on_dask(assignment: Assignment) -> Iterator[Any]:
    from vidface.executor.with_dask import run_on_dask

    return run_on_dask(assignment)


EXECUTORS: dict[str, Callable[[Assignment], Iterator[Any]]] = {
    "serial": _run_serially,
    "joblib": _run_on_processes,
    "dask": _run_on_dask,
}
"""Who can do the work, by name: one file each, loaded when it begins."""


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
        check_name("executor", self.name, sorted(EXECUTORS))
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
            raise UsageError(
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
        return self.workers or available_cores()


def map_shards(
    function: Callable[..., Result],
    items: Iterable[Item],
    *,
    executor: Executor,
    shared: Any = None,
    notify: Notify = quiet,
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
    assignment = Assignment(
        function,
        iter(items),
        () if shared is None else (shared,),
        executor.processes,
        executor.scheduler,
        notify,
        retries,
    )
    return EXECUTORS[executor.name](assignment)
