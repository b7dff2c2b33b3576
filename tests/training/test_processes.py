"""What one process does, and two real ones that talk by gloo; run as a script, this is a rank."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vidface.core.errors import VidfaceError
from vidface.training.centres import CentreSGD, ClassCentres
from vidface.training.processes import Processes, start_processes

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH, CLASSES, STEPS = 8, 11, 3


def on_ranks(script: str, *arguments: object, size: int = 2) -> list[tuple[int, str]]:
    """Start `size` processes as torchrun would; each one's exit code and what it printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    started = [
        subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=90)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def results_of(script: str, folder: Path) -> list[dict]:
    """What each of two ranks of a script saved as `folder`/rank.pt."""
    ended = on_ranks(script, folder)
    assert [code for code, _ in ended] == [0, 0], ended
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()


def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, CLASSES, (BATCH,), generator=generator)


def loss_of(embeddings: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Not a sum over samples: the second term joins all samples of the batch."""
    plain = nn.functional.cross_entropy(embeddings @ centres.double().T, labels)
    return plain + (embeddings @ embeddings.T).flatten().logsumexp(0)


def train(processes: Processes) -> dict:
    """A few steps; with one process, the twin of what several do."""
    model = network()
    wrapped = DistributedDataParallel(model) if processes.size > 1 else model
    centres = ClassCentres(CLASSES, 4, seed=1, sample_rate=0.5)
    optimiser = CentreSGD(centres, lr=0.1)
    first, rows = [], []
    for step in range(STEPS):
        x, labels = batch_of(step)
        own = slice(*processes.share(BATCH))
        embeddings = processes.gather(wrapped(x[own]))
        selected = centres.select(processes.gather(labels[own]), [0, step])
        model.zero_grad()
        loss_of(embeddings, selected.labels, selected.weight).backward()
        first = first or [parameter.grad.clone() for parameter in model.parameters()]
        rows.append(selected.rows)
        optimiser.step(selected)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    return {
        "first": first,
        "rows": rows,
        "parameters": [parameter.detach() for parameter in model.parameters()],
        "centres": centres.weight.detach(),
    }


def refusal(work, *arguments: object) -> str:
    try:
        work(*arguments)
    except VidfaceError as error:
        return str(error)
    return ""


def be_a_rank(folder: Path) -> None:
    out: dict = {}
    try:
        with start_processes("cpu", timeout_s=60) as processes:
            out = work_of(processes)
            begun = time.perf_counter()
            if processes.rank == 1:
                raise VidfaceError("gone wrong")
            processes.barrier()
    except (VidfaceError, RuntimeError) as error:
        out["ended"] = f"{type(error).__name__}: {error}"
        out["ended_after_s"] = time.perf_counter() - begun
    out["still_there"] = torch.distributed.is_initialized()
    torch.save(out, folder / f"{os.environ['RANK']}.pt")


def work_of(processes: Processes) -> dict:
    """What a rank does and sees, for the tests below to look at."""
    rank = processes.rank
    column = (torch.arange(6.0).view(2, 3) + 10 * rank).T.clone().T  # not contiguous
    own = column.clone().requires_grad_()
    whole = processes.gather(own)
    (whole * torch.arange(12.0).view(4, 3)).sum().backward()
    noise = torch.full((2,), float(rank))
    processes.broadcast_tensor(noise)
    processes.barrier()
    processes.check_same_everywhere({"lr": 0.1})
    return {
        "said": str(processes),
        "is_first": processes.is_first,
        "share": processes.share(8),
        "uneven": refusal(processes.share, 7),
        "whole": whole.detach(),
        "gradient": own.grad,
        "column": processes.gather(column),
        "labels": processes.gather(torch.tensor([rank, -1])),
        "empty": processes.gather(torch.zeros(0, 3)),
        "object": processes.broadcast_object({"from": rank}),
        "tensor": noise,
        "differ": refusal(processes.check_same_everywhere, ("seed", rank), "the seed"),
        "trained": train(processes),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return results_of(__file__, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
class TestTwoProcesses:
    def test_each_knows_its_place(self, ranks):
        assert [rank["said"] for rank in ranks] == [
            "Processes(rank 0 of 2, cpu)",
            "Processes(rank 1 of 2, cpu)",
        ]
        assert [rank["is_first"] for rank in ranks] == [True, False]
        assert [rank["share"] for rank in ranks] == [(0, 4), (4, 8)]
        assert not any(rank["still_there"] for rank in ranks)

    def test_uneven_batch(self, ranks):
        for rank in ranks:
            assert "7" in rank["uneven"]
            assert "2 processes" in rank["uneven"]

    def test_gathers_in_the_order_of_ranks(self, ranks):
        for rank in ranks:
            assert rank["whole"].tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12], [13, 14, 15]]
            assert rank["column"].equal(rank["whole"])
            assert rank["labels"].tolist() == [0, -1, 1, -1]
            assert rank["labels"].dtype == torch.int64
            assert rank["empty"].shape == (0, 3)

    def test_gradient_is_the_own_slices_times_two(self, ranks):
        assert ranks[0]["gradient"].tolist() == [[0, 2, 4], [6, 8, 10]]
        assert ranks[1]["gradient"].tolist() == [[12, 14, 16], [18, 20, 22]]

    def test_broadcasts(self, ranks):
        for rank in ranks:
            assert rank["object"] == {"from": 0}
            assert rank["tensor"].tolist() == [0, 0]

    def test_disagreement_is_raised_everywhere(self, ranks):
        for rank in ranks:
            assert "the seed" in rank["differ"]
            assert "rank 1 has" in rank["differ"]

    def test_ddp_has_the_gradient_of_the_global_loss(self, ranks):
        alone = train(Processes())
        for rank in ranks:
            for got, want in zip(rank["trained"]["first"], alone["first"], strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)

    def test_trains_as_one_process_would(self, ranks):
        alone = train(Processes())
        for rank in ranks:
            for got, want in zip(rank["trained"]["parameters"], alone["parameters"], strict=True):
                torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(rank["trained"]["centres"], alone["centres"])

    def test_same_classes_and_centres_on_both(self, ranks):
        alone = train(Processes())
        for step in range(STEPS):
            assert ranks[0]["trained"]["rows"][step].equal(ranks[1]["trained"]["rows"][step])
            assert ranks[0]["trained"]["rows"][step].equal(alone["rows"][step])
        assert ranks[0]["trained"]["centres"].equal(ranks[1]["trained"]["centres"])

    def test_a_failing_process_does_not_leave_the_other_waiting(self, ranks):
        assert ranks[1]["ended"] == "VidfaceError: gone wrong"
        assert ranks[0]["ended"]
        assert max(rank["ended_after_s"] for rank in ranks) < 20


class TestOneProcess:
    def test_does_nothing(self):
        one = Processes()
        tensor = torch.ones(2, 3, requires_grad=True)
        assert one.gather(tensor) is tensor
        assert one.is_first
        assert one.share(0) == (0, 0)
        assert one.share(7) == (0, 7)
        value = object()
        assert one.broadcast_object(value) is value
        one.broadcast_tensor(tensor)
        one.check_same_everywhere("anything")
        one.barrier()

    @pytest.mark.parametrize("variables", [{}, {"RANK": "0", "WORLD_SIZE": "1"}])
    def test_starts_no_group(self, environment, variables):
        environment(**variables)
        with start_processes("cpu") as processes:
            assert (processes.rank, processes.size) == (0, 1)
            assert not torch.distributed.is_initialized()

    @pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
    def test_rank_out_of_range(self, rank, size):
        with pytest.raises(VidfaceError, match=f"rank {rank} of {size}"):
            Processes(rank, size)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    """Sets torchrun's variables; the five that are not named are unset."""

    def put(**variables: str) -> None:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        if variables.get("WORLD_SIZE", "1") != "1" or "MASTER_PORT" in variables:
            whole = {"LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
            variables = {**whole, **variables}
        elif variables:
            variables = {**variables, "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


class TestEnvironment:
    def start(self, device: str = "cpu", **options: float) -> Processes:
        with start_processes(device, **options) as processes:
            return processes

    @pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
    def test_variable_missing(self, environment, monkeypatch, name):
        environment(RANK="0", WORLD_SIZE="2")
        monkeypatch.delenv(name)
        with pytest.raises(VidfaceError, match=f": {name} not set"):
            self.start()

    def test_size_missing(self, environment):
        environment(RANK="0")
        with pytest.raises(VidfaceError, match="WORLD_SIZE"):
            self.start()

    @pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
    def test_no_number(self, environment, name):
        environment(**{"RANK": "0", "WORLD_SIZE": "2", name: "two"})
        with pytest.raises(VidfaceError, match=f"{name} is 'two'"):
            self.start()

    @pytest.mark.parametrize("rank", ["2", "-1"])
    def test_rank_beyond_size(self, environment, rank):
        environment(RANK=rank, WORLD_SIZE="2")
        with pytest.raises(VidfaceError, match=f"RANK is {rank}"):
            self.start()

    def test_nobody_there(self, environment):
        environment(RANK="1", WORLD_SIZE="2")  # port 1
        with pytest.raises(VidfaceError, match="process 1 of 2 can't join"):
            self.start(timeout_s=1)

    def test_unknown_device(self, environment):
        environment()
        with pytest.raises(VidfaceError, match=r"'tpu' is not known \(known: cpu, cuda\)"):
            self.start("tpu")

    @pytest.mark.parametrize(("gpus", "local_rank"), [(0, "0"), (1, "1"), (2, "-1")])
    def test_no_such_gpu(self, environment, monkeypatch, gpus, local_rank):
        environment(RANK="0", WORLD_SIZE="2", LOCAL_RANK=local_rank)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        with pytest.raises(VidfaceError, match=f"GPU {local_rank} was asked for.* has {gpus}"):
            self.start("cuda")

    def test_each_takes_the_gpu_of_its_local_rank(self, environment, monkeypatch):
        environment(RANK="5", WORLD_SIZE="8", LOCAL_RANK="1")
        taken, joined = [], []
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        monkeypatch.setattr(
            torch.distributed, "init_process_group", lambda *a, **k: joined.append((a, k))
        )
        monkeypatch.setattr(
            torch.distributed, "destroy_process_group", lambda: joined.append("end")
        )
        processes = self.start("cuda")
        assert taken == [processes.device] == [torch.device("cuda", 1)]
        (backend,), options = joined[0]
        assert backend == "nccl"
        assert (options["rank"], options["world_size"]) == (5, 8)
        assert joined[1:] == ["end"]

    def test_group_is_left_after_an_error(self, environment, monkeypatch):
        environment(RANK="0", WORLD_SIZE="2")
        ended = []
        monkeypatch.setattr(torch.distributed, "init_process_group", lambda *a, **k: None)
        monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: ended.append(1))
        with pytest.raises(KeyError), start_processes("cpu"):
            raise KeyError("in the body")
        assert ended == [1]


if __name__ == "__main__":
    be_a_rank(Path(sys.argv[1]))
