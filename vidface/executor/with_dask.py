"""Shards on Dask's workers: a cluster that is there already, or one started on this machine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from vidface.core.errors import VidfaceError, first_line
from vidface.executor.pool import Assignment, Lost, call_shard, run_pool

CONNECT_SECONDS = 20
_LOOK_SECONDS = 1.0  # how often a silent cluster is looked at
_CLOSE_SECONDS = 5
_NO_WORKERS_LOOKS = 10  # without a worker, after which that is said


def run_on_dask(assignment: Assignment) -> Iterator[Any]:
    """The results of an assignment, a task a shard."""
    with ExitStack() as stack:
        client = _connect(assignment.scheduler, assignment.processes, stack)
        pool = _Tasks(client, assignment)
        stack.callback(pool.cancel)
        yield from run_pool(pool, assignment)


def _connect(scheduler: str | None, processes: int, stack: ExitStack) -> Any:
    """A client of the cluster; what was started for it ends with the stack."""
    try:
        distributed = import_module("distributed")
    except ImportError:
        raise VidfaceError(
            "executor 'dask' needs Dask's distributed, which is not installed; "
            "pip install 'vidface[dask]'"
        ) from None
    address: Any = scheduler
    if address is None:
        address = stack.enter_context(_started(distributed, processes))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*[Mm]ismatched versions")
            client = distributed.Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False, name="vidface"
            )
    except (OSError, ValueError, RuntimeError, ImportError, TypeError) as error:
        raise VidfaceError(
            f"Dask's scheduler at {scheduler or 'this machine'} can't be reached "
            f"({first_line(error)}); start one with `dask scheduler`, and give the address it "
            "prints"
        ) from None
    stack.callback(_close, client)
    return client


@contextmanager
def _started(distributed: Any, workers: int) -> Iterator[Any]:
    """A cluster of worker processes on this machine."""
    import logging

    config = import_module("dask.config")
    settings = {
        "distributed.worker.daemon": False,  # an extraction starts decoders of its own
        "distributed.scheduler.allowed-failures": 0,  # `run_pool` counts
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with config.set(settings):
        try:
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                # Whoever may connect may run code: other users of this machine may not.
                security=True if find_spec("cryptography") else None,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                # Mapped files count there as memory: a worker would be killed for reading.
                memory_limit=None,
                silence_logs=logging.CRITICAL,
            )
        except (OSError, RuntimeError) as error:
            raise VidfaceError(
                f"Dask's workers can't be started on this machine ({first_line(error)}); use "
                "--executor joblib, or give the address of a cluster (--scheduler)"
            ) from None
        try:
            yield cluster
        finally:
            _close(cluster)


def _close(client: Any) -> None:
    """Close a client or a cluster."""
    with suppress(Exception):  # a scheduler that is gone can't be told good-bye
        client.close(timeout=_CLOSE_SECONDS)


class _Tasks:
    """Shards as tasks of a client; what is shared lies in the workers' memory."""

    alone_after_loss = False  # a whole cluster shouldn't wait for one shard

    def __init__(self, client: Any, assignment: Assignment) -> None:
        self._client, self._assignment = client, assignment
        self._sent: Any = None  # the future of what is shared
        self._where = assignment.scheduler or "this machine"
        # Of a cluster elsewhere some wait at the workers, so that none idles while the reader is
        # busy; here a task that only waits beside a deadly one would count as deadly, too.
        self._rounds = 1 if assignment.scheduler is None else 2
        self._ended: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._futures: dict[int, Any] = {}
        self._keys = count()
        self._name = f"vidface-{assignment.function.__name__}-{os.urandom(4).hex()}"
        self._looks_alone = 0
        self._threads, self._ask_at = 0, 0.0

    def limit(self) -> int:
        if monotonic() >= self._ask_at:
            self._threads = self._ask_threads()
            self._ask_at = monotonic() + _LOOK_SECONDS
        return max(1, self._rounds * self._threads)

    def _ask_threads(self) -> int:
        """Threads of all workers, now."""
        try:
            return sum(self._client.nthreads().values())
        except OSError:
            raise self._gone() from None

    def submit(self, number: int, item: Any) -> None:
        shared = (self._broadcast(),) if self._assignment.shared else ()
        try:
            future = self._client.submit(
                call_shard,
                self._assignment.function,
                item,
                *shared,
                key=f"{self._name}-{next(self._keys)}",
                pure=False,
            )
        except Exception as error:
            raise self._translated(error) from None
        self._futures[number] = future
        future.add_done_callback(lambda done: self._ended.put((number, done)))

    def _broadcast(self) -> Any:
        """What is shared, in the memory of every worker that is there; later ones fetch it."""
        if self._sent is None or self._sent.status not in ("finished", "pending"):
            try:
                [self._sent] = self._client.scatter(
                    list(self._assignment.shared), broadcast=True, hash=False
                )
            except Exception as error:
                raise self._translated(error) from None
        return self._sent

    def wait(self) -> list[tuple[int, Any]]:
        while True:
            try:
                number, future = self._ended.get(timeout=_LOOK_SECONDS)
            except Empty:
                self._look()
                continue
            if self._futures.get(number) is not future:
                continue
            del self._futures[number]
            return [(number, self._outcome(future))]

    def _outcome(self, future: Any) -> Any:
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return Lost()
        except CancelledError:
            self._check_connection()
            # Its worker died, and was the only one to have what is shared: that is sent again.
            self._sent = None
            return Lost()
        except VidfaceError:
            raise
        except Exception as error:
            raise self._translated(error) from None
        finally:
            with suppress(Exception):
                future.release()

    def _look(self) -> None:
        """Nothing ended for a while: is the scheduler there, and is there a worker?"""
        self._check_connection()
        if self._ask_threads():
            self._looks_alone = 0
            return
        self._looks_alone += 1
        if self._looks_alone == _NO_WORKERS_LOOKS:
            self._assignment.notify(
                f"Dask's scheduler at {self._where} has no workers; waiting for some"
            )

    def _check_connection(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> VidfaceError:
        return VidfaceError(
            f"the connection to Dask's scheduler at {self._where} was lost; what is written stays: "
            "start the command again, and it goes on from there"
        )

    def _translated(self, error: Exception) -> Exception:
        """What an exception means, where it is of the cluster and not of the shard's function."""
        if self._client.status != "running":
            return self._gone()
        text = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(error, ImportError) or "deserializ" in str(error).lower():
            return VidfaceError(
                f"the workers of Dask at {self._where} can't run this vidface ({text}); install "
                "the same vidface and the same Python on every worker"
            )
        return error

    def cancel(self) -> None:
        """Give up what has not ended."""
        with suppress(Exception):
            if self._futures and self._client.status == "running":
                self._client.cancel(list(self._futures.values()), force=True)
        self._futures.clear()
        self._sent = None
