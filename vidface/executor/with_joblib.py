"""The executor `joblib`: processes on this machine, by joblib's loky.

Not `joblib.Parallel`: its generator works on however slowly it is read, and one lost worker ends
it (measured in docs/log.md). What it gives here is loky's pool, which starts without `fork`, limits
the threads of its workers and kills them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from queue import SimpleQueue
from typing import Any

from vidface.core.values import available_cores
from vidface.executor.pool import Assignment, Lost, call_shard, run_pool
from vidface.executor.serial import run_serially


def run_on_processes(assignment: Assignment) -> Iterator[Any]:
    """The results of an assignment, computed by processes of this machine."""
    first = list(islice(assignment.items, 2))
    whole = replace(assignment, items=chain(first, assignment.items))
    if len(first) < 2 or assignment.processes == 1:  # starting processes costs more than it gives
        yield from run_serially(whole)
        return
    pool = _Processes(whole)
    try:
        yield from run_pool(pool, whole)
    finally:
        pool.close()


class _Processes:
    """loky's worker processes. When one dies, loky gives up all: a new set is started."""

    alone_after_loss = True

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._ended: SimpleQueue[tuple[int, Any]] = SimpleQueue()  # numbers and their futures
        self._pool = self._start()

    def _start(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        workers = self._assignment.processes
        threads = str(max(1, available_cores() // workers))  # the shards are the parallelism
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return ProcessPoolExecutor(
            workers,
            initializer=_keep_shared,
            initargs=(self._assignment.function, self._assignment.shared),
            env=dict.fromkeys(names, threads),
        )

    def limit(self) -> int:
        return 2 * self._assignment.processes  # so that none waits while the reader is busy

    def submit(self, number: int, item: Any) -> None:
        from joblib.externals.loky.process_executor import BrokenProcessPool

        try:
            future = self._pool.submit(_call_kept, item)
        except BrokenProcessPool:  # noticed only now
            self._pool = self._start()
            future = self._pool.submit(_call_kept, item)
        future.add_done_callback(lambda ended: self._ended.put((number, ended)))

    def wait(self) -> list[tuple[int, Any]]:
        from joblib.externals.loky.process_executor import BrokenProcessPool

        ended = [self._ended.get()]
        while not self._ended.empty():
            ended.append(self._ended.get())
        outcomes: list[tuple[int, Any]] = []
        for number, future in ended:
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


_KEPT: list[Any] = []  # in a worker process: the function, and what all shards share


def _keep_shared(function: Callable[..., Any], shared: tuple[Any, ...]) -> None:
    _KEPT[:] = [function, shared]


def _call_kept(item: Any) -> Any:
    function, shared = _KEPT
    return call_shard(function, item, *shared)
