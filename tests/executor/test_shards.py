"""Shards over processes: order, bounds, lost workers, errors by name; one result everywhere."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.made_runs import made_run
from vidface.core.errors import UsageError, VidfaceError
from vidface.executor import shards as executors
from vidface.executor import with_dask as executor_dask
from vidface.executor.pool import Assignment, Lost, Refusal, call_shard, run_pool, shard_name
from vidface.executor.shards import EXECUTORS, Executor, map_shards
from vidface.metrics import pairwise, passes, rates
from vidface.metrics.pair_sets import make_pairs
from vidface.metrics.passes import Passes, over_parts
from vidface.metrics.verification import score_cross_verification, score_verification
from vidface.noise.denoisers import Oracle
from vidface.runs.denoised import ExtractedClips
from vidface.runs.denoising import Denoising, resolve_denoising
from vidface.runs.noise_removal import cluster, cluster_once, denoise_all
from vidface.runs.run import Run
from vidface.settings.run_settings import RunSettings, choose_executor

SERIAL = Executor("serial")
TWO = Executor("joblib", workers=2)


def squared(n: int) -> int:
    return n * n


def where(n: int) -> tuple[int, int]:
    time.sleep(0.02)
    return n, os.getpid()


def plus(n: int, shared: int) -> int:
    return n + shared


def refuses_three(n: int) -> int:
    if n == 3:
        raise VidfaceError("no such thing")
    return n


def refuses_usage(n: int) -> int:
    raise UsageError("--fast and --slow")


def named_already(path: Path) -> None:
    raise VidfaceError(f"{path}: cut off")


def has_a_bug(n: int) -> int:
    return [0][n]


def kills_itself_once(n: int, folder: str) -> int:
    """Of its first try the shard 3 leaves a mark, and no process."""
    mark = Path(folder) / f"{n}"
    if n == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def deadly(n: int) -> int:
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def wants_a_child(n: int) -> int:
    raise AssertionError("daemonic processes are not allowed to have children")


class TestExecutor:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"name": "ray"}, r"unknown executor 'ray' \(known: dask, joblib, serial\)"),
            ({"workers": 0}, "workers must be at least 1, not 0"),
            ({"workers": True}, "workers must be at least 1, not True"),
            ({"name": "joblib", "scheduler": "tcp://a:1"}, "connects to, not 'joblib'"),
            ({"name": "dask", "scheduler": "head:8786"}, "no address; write it as .*tcp://HOST"),
            ({"name": "dask", "scheduler": "tcp://a b"}, "no address"),
            ({"name": "dask", "scheduler": "tcp://"}, "no address"),
        ],
    )
    def test_what_it_refuses(self, arguments: dict, message: str) -> None:
        with pytest.raises(VidfaceError, match=message):
            Executor(**arguments)

    def test_processes_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(executors, "available_cores", lambda: 6)
        assert SERIAL.processes == Executor("serial", workers=4).processes == 1
        assert Executor("joblib").processes == Executor("dask").processes == 6
        assert Executor("dask", workers=2).processes == 2
        assert Executor("dask", workers=2, scheduler="tls://head:8786").processes == 1
        assert str(SERIAL) == "Executor(serial, 1 process)"

    def test_of_a_pipeline(self) -> None:
        assert choose_executor(RunSettings(Path("r"))) == SERIAL
        assert choose_executor(RunSettings(Path("r"), "joblib", workers=3)) == replace(
            TWO, workers=3
        )
        far = RunSettings(Path("r"), "dask", "tcp://a:1")
        assert choose_executor(far) == Executor("dask", scheduler="tcp://a:1")


class TestSerial:
    def test_results_in_order_and_only_what_is_asked_for(self) -> None:
        taken = []
        items = (taken.append(n) or n for n in itertools.count())
        found = map_shards(squared, items, executor=SERIAL)
        assert taken == []
        assert list(itertools.islice(found, 3)) == [0, 1, 4]
        assert taken == [0, 1, 2]

    def test_nothing(self) -> None:
        assert list(map_shards(squared, [], executor=SERIAL)) == []
        assert list(map_shards(squared, [], executor=TWO)) == []

    def test_what_is_shared(self) -> None:
        assert list(map_shards(plus, [1, 2], executor=SERIAL, shared=0)) == [1, 2]

    @pytest.mark.parametrize("retries", [-1, 1.5, True])
    def test_retries_are_a_number(self, retries: object) -> None:
        with pytest.raises(VidfaceError, match="retries must be 0 or more"):
            map_shards(squared, [1], executor=SERIAL, retries=retries)  # type: ignore[arg-type]

    def test_an_error_names_its_shard_once(self) -> None:
        found = map_shards(refuses_three, range(9), executor=SERIAL)
        assert [next(found) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(VidfaceError, match=r"^3: no such thing$"):
            next(found)
        path = Path("run/shard-00001.arrow")
        with pytest.raises(VidfaceError, match=r"^run.shard-00001\.arrow: cut off$"):
            list(map_shards(named_already, [path], executor=SERIAL))
        with pytest.raises(UsageError, match=r"^0: --fast and --slow$"):
            list(map_shards(refuses_usage, [0], executor=SERIAL))

    def test_a_bug_is_no_error_of_the_input(self) -> None:
        with pytest.raises(IndexError):
            list(map_shards(has_a_bug, [1], executor=SERIAL))

    def test_workers_that_may_have_no_children(self) -> None:
        with pytest.raises(VidfaceError, match=r"WORKER__DAEMON=False"):
            list(map_shards(wants_a_child, [1], executor=SERIAL))


def test_names() -> None:
    @dataclass
    class Job:
        name: object

        def __str__(self) -> str:
            return "a job"

    assert shard_name(Path("/a/shard-3.arrow")) == "shard-3.arrow"
    assert shard_name(Job("two\nlines")) == "two lines"
    assert shard_name(Job(3)) == "a job"
    assert shard_name("x" * 500) == "x" * 120 + "…"


class FakePool:
    """Ends shards in an order of the test's choosing; remembers what it was given."""

    def __init__(self, limit: int, order=None, dies=(), alone: bool = False) -> None:
        self.alone_after_loss = alone
        self._limit, self._order = limit, order or min
        self._dies = list(dies)  # shards whose worker dies, once for each time they are in here
        self.open: list[int] = []
        self.most = 0
        self.given: list[int] = []
        self.beside: dict[int, int] = {}  # how many others were open at a shard's last start

    def limit(self) -> int:
        return self._limit

    def submit(self, number: int, item: str) -> None:
        assert item == f"item {number}"
        self.beside[number] = len(self.open)
        self.open.append(number)
        self.given.append(number)
        self.most = max(self.most, len(self.open))

    def wait(self) -> list[tuple[int, object]]:
        assert self.open
        number = self._order(self.open)
        self.open.remove(number)
        if number in self._dies:
            self._dies.remove(number)
            return [(number, Lost())]
        return [(number, number * 10)]


def assigned(items, say=lambda _: None, retries: int = 2, scheduler: str | None = None):
    return Assignment(squared, items, (), 2, scheduler, say, retries)


def pooled(pool: FakePool, n: int, retries: int = 2, said: list | None = None, ahead: int = 4):
    say = (said if said is not None else []).append
    items = (f"item {k}" for k in range(n))
    return run_pool(pool, assigned(items, say, retries), ahead)


class TestPool:
    @pytest.mark.parametrize("order", [min, max, lambda o: o[len(o) // 2]])
    @pytest.mark.parametrize("n", [0, 1, 2, 3, 30])
    @pytest.mark.parametrize("limit", [1, 3])
    def test_in_the_order_of_the_items(self, order, n: int, limit: int) -> None:
        pool = FakePool(limit, order)
        assert list(pooled(pool, n)) == [10 * k for k in range(n)]
        assert pool.most == min(n, limit)

    def test_what_runs_ahead_is_bounded(self) -> None:
        """The first shard ends last: the others wait for it, but not without bound."""
        pool = FakePool(3, max)
        found = pooled(pool, 1000, ahead=4)
        assert next(found) == 0
        assert len(pool.given) == 12
        assert list(found) == [10 * k for k in range(1, 1000)]

    def test_a_reader_that_stops_takes_no_more(self) -> None:
        pool = FakePool(2)
        found = pooled(pool, 1000)
        assert [next(found) for _ in range(5)] == [0, 10, 20, 30, 40]
        found.close()
        assert len(pool.given) <= 5 + 2 * 2

    @pytest.mark.parametrize("alone", [False, True])
    def test_lost_workers(self, alone: bool) -> None:
        said: list[str] = []
        pool = FakePool(3, min, [1, 1, 4], alone)
        assert list(pooled(pool, 8, said=said)) == [10 * k for k in range(8)]
        assert sorted(pool.given) == [0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7]
        assert said == [f"item {k}: lost with its worker; trying it again" for k in (1, 1, 4)]
        if alone:  # their last tries had no company
            assert pool.beside[1] == pool.beside[4] == 0

    @pytest.mark.parametrize("retries", [0, 2])
    @pytest.mark.parametrize("alone", [False, True])
    def test_a_shard_that_kills_every_worker(self, retries: int, alone: bool) -> None:
        pool = FakePool(3, max, [5] * 9, alone)
        with pytest.raises(VidfaceError, match=f"^item 5: .* died {retries + 1} times"):
            list(pooled(pool, 8, retries))
        assert pool.given.count(5) == retries + 1

    def test_errors_of_the_items(self) -> None:
        def items():
            yield "item 0"
            raise VidfaceError("the manifest ends here")

        with pytest.raises(VidfaceError, match="the manifest ends here"):
            list(run_pool(FakePool(2), assigned(items())))

    def test_a_refusal_is_raised_with_its_name(self) -> None:
        class Refusing(FakePool):
            def wait(self) -> list[tuple[int, object]]:
                return [(self.open.pop(), Refusal("no", False))]

        with pytest.raises(VidfaceError, match=r"^item 0: no$"):
            list(pooled(Refusing(1), 3))


class TestJoblib:
    def test_two_processes(self) -> None:
        found = list(map_shards(where, range(12), executor=TWO))
        assert [n for n, _ in found] == list(range(12))
        processes = {process for _, process in found}
        assert len(processes) <= 2
        assert os.getpid() not in processes

    def test_one_shard_or_one_process_stays_here(self) -> None:
        for items, executor in ([7], TWO), ([7, 8], Executor("joblib", workers=1)):
            found = list(map_shards(where, items, executor=executor))
            assert [n for n, _ in found] == items
            assert {process for _, process in found} == {os.getpid()}

    @pytest.mark.slow
    def test_a_killed_worker_costs_a_second_try(self, tmp_path: Path) -> None:
        said: list[str] = []
        found = map_shards(
            kills_itself_once, range(8), executor=TWO, shared=str(tmp_path), notify=said.append
        )
        assert list(found) == list(range(8))
        assert "3: lost with its worker; trying it again" in said

    @pytest.mark.slow
    def test_the_deadly_shard_is_named_and_no_other(self) -> None:
        before = set(multiprocessing.active_children())
        with pytest.raises(VidfaceError, match=r"^2: the process that works on it died 2 times"):
            list(map_shards(deadly, range(8), executor=TWO, retries=1))
        assert set(multiprocessing.active_children()) <= before

    def test_errors_of_another_process(self) -> None:
        with pytest.raises(VidfaceError, match=r"^3: no such thing$"):
            list(map_shards(refuses_three, range(9), executor=TWO))

    @pytest.mark.slow
    def test_bugs_of_another_process(self) -> None:
        with pytest.raises(IndexError):
            list(map_shards(has_a_bug, range(9), executor=TWO))


def test_without_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(executor_dask, "import_module", missing)
    with pytest.raises(VidfaceError, match=r"not installed; pip install 'vidface\[dask\]'"):
        list(map_shards(squared, [1, 2], executor=Executor("dask")))


class FakeClient:
    """What `_Tasks` needs of a client; futures end as the test says."""

    def __init__(self, outcome) -> None:
        self.status, self._outcome = "running", outcome

    def nthreads(self) -> dict[str, int]:
        return {"a": 1, "b": 1}

    def submit(self, call, function, item, *shared, key: str, pure: bool):
        future = SimpleNamespace(status="finished", key=key, release=lambda: None)
        future.result = lambda: self._outcome(self, item, future)
        future.add_done_callback = lambda done: done(future)
        return future

    def cancel(self, futures, force: bool) -> None:
        self.cancelled = len(futures)


class TestTasks:
    """Faults of a cluster, without one."""

    def mapped(self, outcome, scheduler: str | None = "tcp://head:8786"):
        client = FakeClient(outcome)
        assignment = assigned(iter([1, 2, 3]), retries=1, scheduler=scheduler)
        return client, list(run_pool(executor_dask._Tasks(client, assignment), assignment))

    @pytest.fixture(autouse=True)
    def _distributed(self) -> None:
        pytest.importorskip("distributed")

    def test_results(self) -> None:
        _, found = self.mapped(lambda client, item, future: item * item)
        assert found == [1, 4, 9]

    def test_a_shard_that_killed_its_workers(self) -> None:
        from distributed import KilledWorker

        def outcome(client, item, future):
            if item == 2:
                raise KilledWorker(future.key, SimpleNamespace(address="tcp://w"), 3)
            return item

        with pytest.raises(VidfaceError, match=r"^2: the process that works on it died 2 times"):
            self.mapped(outcome)

    def test_what_was_shared_is_lost_with_its_worker(self) -> None:
        from concurrent.futures import CancelledError

        tries: list[int] = []

        def outcome(client, item, future):
            tries.append(item)
            if tries.count(2) == 1 and item == 2:
                raise CancelledError
            return item

        _, found = self.mapped(outcome)
        assert found == [1, 2, 3]
        assert sorted(tries) == [1, 2, 2, 3]

    def test_a_lost_scheduler(self) -> None:
        def outcome(client, item, future):
            client.status = "connecting"
            raise OSError("closed")

        with pytest.raises(VidfaceError, match="scheduler at tcp://head:8786 was lost"):
            self.mapped(outcome)
        with pytest.raises(VidfaceError, match="scheduler at this machine was lost"):
            self.mapped(outcome, None)

    def test_workers_without_vidface(self) -> None:
        def outcome(client, item, future):
            raise ModuleNotFoundError("No module named 'vidface'")

        with pytest.raises(VidfaceError, match=r"can't run this vidface .*No module named"):
            self.mapped(outcome)

    def test_other_errors_stay(self) -> None:
        with pytest.raises(ZeroDivisionError):
            self.mapped(lambda client, item, future: item // 0)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Dask's place is taken by this process, but all goes through pickle; returns who was asked."""
    asked: list[str] = []

    def pickling(assignment: Assignment):
        function, shared = pickle.loads(pickle.dumps((assignment.function, assignment.shared)))
        for item in assignment.items:
            asked.append(shard_name(item))
            sent = pickle.dumps(item)
            result = pickle.loads(pickle.dumps(call_shard(function, pickle.loads(sent), *shared)))
            if isinstance(result, Refusal):
                raise result.error(item)
            yield result

    monkeypatch.setitem(EXECUTORS, "dask", pickling)
    return asked


@pytest.fixture
def made(tmp_path: Path, colour_network: Path) -> Run:
    return made_run(tmp_path / "made", colour_network)


DASK = Executor("dask", scheduler="tcp://nobody:1")


def stored(run: Run, what: float | Denoising) -> tuple:
    folder = run.folder.clustering(resolve_denoising(run, what).name)
    tables = [pq.read_table(folder / f"{n}.parquet") for n in ("faces", "descriptors")]
    return tuple(table.replace_schema_metadata(None) for table in tables)


class TestClustering:
    def test_elsewhere_is_as_here(self, made: Run, elsewhere: list[str]) -> None:
        here = cluster(made, 0.5)
        before = stored(made, 0.5)
        assert 0 < here.kept.sum() < here.faces.sum()
        trees = [made.folder.linkage_path(n).read_bytes() for n in range(4)]
        for n in range(4):
            made.folder.linkage_path(n).unlink()
        there = cluster(made, 0.5, executor=DASK)
        assert elsewhere == [f"shard-{n:05d}.arrow" for n in range(4)]
        assert there.descriptors.tobytes() == here.descriptors.tobytes()
        assert there.summary() == here.summary()
        assert stored(made, 0.5) == before
        assert [len(made.folder.linkage_path(n).read_bytes()) for n in range(4)] == [
            len(tree) for tree in trees
        ]

    def test_processes_are_as_here(self, made: Run) -> None:
        here = cluster(made, 0.5)
        before = stored(made, 0.5)
        there = cluster(made, 0.5, executor=TWO)
        assert there.descriptors.tobytes() == here.descriptors.tobytes()
        assert stored(made, 0.5) == before

    def test_the_pipeline_says_who_works(self, made: Run, elsewhere: list[str]) -> None:
        cluster_once(made, 0.5)
        assert elsewhere == []
        run = replace(made.pipeline.run, executor="dask")
        cluster_once(replace(made, pipeline=replace(made.pipeline, run=run)), 0.6)
        assert len(elsewhere) == 4

    def test_the_truth_stays_here(self, made: Run, elsewhere: list[str], tmp_path: Path) -> None:
        lines = ["clip_id,frame_index,noise"]
        lines += [f"c{c},{k},{int(k % 3 == 2)}" for c in range(10) for k in range(2 + c % 8)]
        (tmp_path / "truth.csv").write_text("\n".join(lines), encoding="utf-8")
        wanted = Denoising(Oracle(), truth_path=tmp_path / "truth.csv")
        here = cluster(made, wanted)
        there = cluster(made, wanted, executor=DASK)
        assert here.removal == there.removal
        assert there.removal is not None
        assert there.removal.recall == 1
        assert there.descriptors.tobytes() == here.descriptors.tobytes()

    def test_a_sweep_makes_its_trees_elsewhere(self, made: Run, elsewhere: list[str]) -> None:
        here = [d.descriptors.tobytes() for d in denoise_all(made, [0.3, 0.7])]
        made.folder.linkage_path(1).unlink()
        made.folder.linkage_path(3).unlink()
        there = [d.descriptors.tobytes() for d in denoise_all(made, [0.3, 0.7], DASK)]
        assert elsewhere == ["shard-00001.arrow", "shard-00003.arrow"]
        assert there == here
        elsewhere.clear()
        list(denoise_all(made, [0.3], DASK))
        assert elsewhere == []

    def test_a_damaged_tree_is_named_once(self, made: Run, elsewhere: list[str]) -> None:
        cluster(made, 0.5)
        path = made.folder.linkage_path(2)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(VidfaceError) as raised:
            cluster(made, 0.5, executor=DASK)
        assert str(raised.value).count("shard-00002.arrow") == 1
        assert "damaged" in str(raised.value)

    def test_the_memory_is_shared_out(self, made: Run) -> None:
        clips, wanted = ExtractedClips(made), Denoising(memory_bytes=1000)
        sizes = [
            next(clips.shard_works(wanted, executor)).denoising.memory_bytes
            for executor in (SERIAL, Executor("joblib", workers=4), DASK)
        ]
        assert sizes == [1000, 250, 1000]


class TestScores:
    @pytest.fixture(autouse=True)
    def _one_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """How much is kept whole, and so what has bounds, depends on the cores of a process."""
        monkeypatch.setattr(passes, "available_cores", lambda: 1)

    @pytest.fixture
    def clips(self) -> tuple[np.ndarray, list[str]]:
        rng = np.random.default_rng(5)
        people = rng.normal(size=(60, 8))
        who = rng.integers(0, 60, 2500)
        rows = people[who] + rng.normal(size=(2500, 8))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[[3, 2000]] = 0
        names = [f"p{p}" if p < 55 else "" for p in who]
        return rows.astype(np.float32), names

    @pytest.mark.parametrize("exact", [False, True])
    def test_elsewhere_is_as_here(
        self, clips: tuple[np.ndarray, list[str]], elsewhere: list[str], exact: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        for module in (pairwise, rates):
            monkeypatch.setattr(module, "KEEP_AT_LEAST", 2**10)  # as a large split: in two passes
        rows, names = clips
        counted = [0, 0]

        def count(place: int, n: int) -> None:
            counted[place] += n

        fars = ["1e-1", "1e-2", "1e-3"]
        here = score_verification(
            rows, names, fars, exact=exact, progress=lambda n: count(0, n)
        )  # fmt: skip
        assert elsewhere == []
        there = score_verification(
            rows, names, fars, exact=exact, progress=lambda n: count(1, n), executor=DASK
        )
        assert elsewhere[:3] == [f"pairs, part {i} of 3" for i in (1, 2, 3)]
        assert (len(elsewhere) > 3) == exact
        assert there.to_dict() == here.to_dict()
        assert there.points == here.points
        assert counted[0] == counted[1] > 0

    def test_two_sets(self, clips: tuple[np.ndarray, list[str]], elsewhere: list[str]) -> None:
        rows, names = clips
        sets = (rows[:1100], names[:1100], rows[1100:], names[1100:])
        here = score_cross_verification(*sets, ["1e-2"])
        there = score_cross_verification(*sets, ["1e-2"], executor=DASK)
        assert elsewhere == ["pairs, part 1 of 2", "pairs, part 2 of 2"]
        assert there.to_dict() == here.to_dict()

    def test_a_floor_that_was_too_low(self, clips: tuple[np.ndarray, list[str]]) -> None:
        """What the parts bring together is cut back, and stays complete above its floor."""
        rows, names = clips
        codes = np.array([int(name[1:]) if name else -1 for name in names], np.int64)
        pairs = make_pairs(rows, rows.any(axis=1), codes, 60)
        passes = Passes(pairs)
        whole = pairwise.count_pairs(passes, 2**23)
        assert whole.complete
        parts = [pairwise.count_pairs(passes, 2**23, part=(i, 3)) for i in range(3)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairwise, "_WAITING", 0)
            found = pairwise.gathered(iter(parts), 1000)
        assert 1000 <= len(found.impostor) <= 2 * 1000
        above = whole.impostor > np.float32(found.floor)
        assert found.impostor.tobytes() == whole.impostor[above].tobytes()
        assert (found.histogram == whole.histogram).all()
        assert found.genuine.tobytes() == whole.genuine.tobytes()

    def test_ties_are_cut_back_together(self) -> None:
        """Of equal scores all stay or none: above the floor every score is there."""
        counts = pairwise.PairCounts(
            np.zeros((2, 4), np.int64), np.zeros(0, np.float32), np.zeros(0, np.int32), True,
            np.array([0.9, 0.5, 0.5, 0.5, 0.25], np.float32),
            np.arange(10, dtype=np.int32).reshape(2, 5), pairwise.KEEP_ALL,
        )  # fmt: skip
        for keep, left, floor in [(1, 1, 0.5), (2, 1, 0.5), (3, 1, 0.5), (4, 4, 0.25)]:
            found = counts.highest(keep)
            assert (len(found.impostor), found.floor) == (left, floor)
            assert found.impostor_units.tolist() == counts.impostor_units[:, :left].tolist()
        assert counts.highest(5) is counts

    def test_processes_here_are_not_used(self, clips: tuple[np.ndarray, list[str]]) -> None:
        rows, names = clips
        alone = score_verification(rows[:50], names[:50], ["1e-1"])
        assert score_verification(rows[:50], names[:50], ["1e-1"], executor=TWO) == alone

    def test_passes_without_an_executor(self, clips: tuple[np.ndarray, list[str]]) -> None:
        rows, _ = clips
        codes = np.zeros(5, np.int64)
        pairs = make_pairs(rows[4:9], np.ones(5, bool), codes, 1)
        with pytest.raises(VidfaceError, match="no executor"):
            next(over_parts(Passes(pairs), len))
