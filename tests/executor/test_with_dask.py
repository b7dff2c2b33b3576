"""A real scheduler of Dask with three worker processes on this machine, one of them killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY, absent
from tests.executor.test_shards import kills_itself_once, refuses_three, stored
from tests.made_runs import made_run
from vidface.core.errors import VidfaceError
from vidface.executor import with_dask as executor_dask
from vidface.executor.shards import Executor, map_shards
from vidface.metrics.verification import score_verification
from vidface.runs.noise_removal import cluster

pytestmark = pytest.mark.slow


def slow_square(n: int, folder: str) -> tuple[int, int]:
    """A shard that takes its time, and says who is at it."""
    (Path(folder) / f"{n}-{os.getpid()}").touch()
    time.sleep(0.4)
    return n * n, os.getpid()


def _child(pipe) -> None:
    pipe.send(os.getpid())


def has_a_child(n: int, folder: str) -> int:
    """As an extraction, whose decoders are processes; the shard 3 kills its first worker."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(there,))
    child.start()
    child.join()
    kills_itself_once(n, folder)
    return here.recv()


@dataclass
class Cluster:
    """A scheduler and its workers, each a process of its own."""

    scheduler: subprocess.Popen
    workers: list[subprocess.Popen]
    address: str

    @property
    def executor(self) -> Executor:
        return Executor("dask", scheduler=self.address)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    import json

    try:
        import distributed
    except ImportError:
        absent("distributed is not installed")
    folder = tmp_path_factory.mktemp("dask")
    about = folder / "scheduler.json"
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "DASK_DISTRIBUTED__WORKER__DAEMON": "False",
    }

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(about)]
        with (folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log
            )  # fmt: skip

    ports = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    processes = [start("scheduler", *ports)]
    worker = ("worker", "--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard")
    try:
        processes += [start(*worker) for _ in range(3)]
        deadline = time.monotonic() + 120
        while not about.is_file() or not about.stat().st_size:
            assert processes[0].poll() is None, (folder / "scheduler.log").read_text()
            assert time.monotonic() < deadline, "no scheduler"
            time.sleep(0.1)
        address = json.loads(about.read_text())["address"]
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=120)
        yield Cluster(processes[0], processes[1:], address)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_worker_killed_in_mid_run_changes_nothing(dask: Cluster, tmp_path: Path) -> None:
    marks, victim = tmp_path / "marks", dask.workers[0]
    marks.mkdir()
    said: list[str] = []
    found = map_shards(
        slow_square, range(24), executor=dask.executor, shared=str(marks), notify=said.append
    )
    results = [next(found)]
    deadline = time.monotonic() + 60
    while not (begun := list(marks.glob(f"*-{victim.pid}"))):
        assert time.monotonic() < deadline, "the victim was given nothing"
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    results += found
    assert [square for square, _ in results] == [n * n for n in range(24)]
    workers = {pid for _, pid in results}
    assert len(workers - {victim.pid}) == 2
    begun = [int(path.name.split("-")[0]) for path in marks.iterdir()]
    assert set(begun) == set(range(24))
    assert len(begun) <= 24 + 2  # what it held, and what it had ended but not yet handed over


def test_clustering_and_scores_are_as_here(
    dask: Cluster, tmp_path: Path, colour_network: Path
) -> None:
    run = made_run(tmp_path / "made", colour_network, clips=20)
    here = cluster(run, 0.5)
    before = stored(run, 0.5)
    for number in range(7):
        run.folder.linkage_path(number).unlink()
    there = cluster(run, 0.5, executor=dask.executor)
    assert there.descriptors.tobytes() == here.descriptors.tobytes()
    assert stored(run, 0.5) == before
    assert all(run.folder.linkage_path(number).is_file() for number in range(7))

    rng = np.random.default_rng(2)
    rows = rng.normal(size=(3000, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"p{n % 40}" for n in range(3000)]
    alone = score_verification(rows, names, ["1e-2", "1e-3"])
    spread = score_verification(rows, names, ["1e-2", "1e-3"], executor=dask.executor)
    assert spread.points == alone.points


def test_errors_come_home_by_name(dask: Cluster) -> None:
    with pytest.raises(VidfaceError, match=r"^3: no such thing$"):
        list(map_shards(refuses_three, range(9), executor=dask.executor))
    with pytest.raises(ZeroDivisionError):
        list(map_shards(divmod_by, range(2), executor=dask.executor))


def divmod_by(n: int) -> int:
    return 1 // n


def test_who_stops_reading_stops_the_work(dask: Cluster, tmp_path: Path) -> None:
    found = map_shards(slow_square, range(500), executor=dask.executor, shared=str(tmp_path))
    assert next(found)[0] == 0
    found.close()
    time.sleep(1)
    begun = len(list(tmp_path.iterdir()))
    time.sleep(1.5)
    assert len(list(tmp_path.iterdir())) == begun < 30


def test_the_scheduler_dies(dask: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test of this cluster."""
    monkeypatch.setattr(executor_dask, "CONNECT_SECONDS", 3)
    found = map_shards(slow_square, range(500), executor=dask.executor, shared=str(tmp_path))
    assert next(found)[0] == 0
    dask.scheduler.kill()
    dask.scheduler.wait()
    began = time.monotonic()
    with pytest.raises(VidfaceError, match=f"scheduler at {dask.address} was lost; what is writ"):
        list(found)
    assert time.monotonic() - began < 30


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_dask, "CONNECT_SECONDS", 1)
    nobody = Executor("dask", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(VidfaceError, match=r"scheduler at tcp://127\.0\.0\.1:1 can't be reached"):
        list(map_shards(refuses_three, [1], executor=nobody))
    wrong = Executor("dask", scheduler="smoke://127.0.0.1:1")
    with pytest.raises(VidfaceError, match="can't be reached"):
        list(map_shards(refuses_three, [1], executor=wrong))


def test_a_cluster_of_this_machine(tmp_path: Path) -> None:
    """Workers that die are replaced, and may have children."""
    said: list[str] = []
    found = map_shards(
        has_a_child,
        range(5),
        executor=Executor("dask", workers=2),
        shared=str(tmp_path),
        notify=said.append,
    )
    assert os.getpid() not in set(found)
    assert "3: lost with its worker; trying it again" in said
