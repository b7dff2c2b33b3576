"""Batch norm of two real processes against plain batch norm of the whole batch."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.test_processes import refusal, results_of
from vidface.core.errors import VidfaceError
from vidface.training.batch_norm import SyncedBatchNorm, synchronise_batch_norm
from vidface.training.processes import Processes, start_processes

BATCH, STEPS = 6, 3


def filled(layer: nn.Module, seed: int = 5) -> nn.Module:
    """The layer with parameters that are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


# name: the layer, and the shape of a sample
LAYERS = {
    "2d": (lambda: filled(nn.BatchNorm2d(3)), (3, 4, 2)),
    "1d": (lambda: filled(nn.BatchNorm1d(4)), (4,)),
    "1d of sequences": (lambda: filled(nn.BatchNorm1d(2)), (2, 5)),
    "running mean": (lambda: filled(nn.BatchNorm2d(3, momentum=None)), (3, 2, 2)),
    "fast, wide": (lambda: filled(nn.BatchNorm2d(2, eps=0.1, momentum=0.7)), (2, 3, 3)),
    "no parameters": (lambda: nn.BatchNorm2d(2, affine=False), (2, 2, 2)),
    "not tracked": (lambda: filled(nn.BatchNorm1d(3, track_running_stats=False)), (3,)),
    "tracking stopped": (lambda: stopped(nn.BatchNorm1d(3)), (3,)),
    "frozen": (lambda: filled(nn.BatchNorm1d(3)).requires_grad_(False), (3,)),
    "double": (lambda: filled(nn.BatchNorm2d(3)).double(), (3, 2, 2)),
    "half": (lambda: filled(nn.BatchNorm2d(3)), (3, 6, 6)),
    "channels last": (lambda: filled(nn.BatchNorm2d(3)), (3, 4, 2)),
    "far from zero": (lambda: filled(nn.BatchNorm2d(2)), (2, 4, 4)),
    "network": (lambda: network(), (3, 5, 5)),
}


def stopped(layer: nn.BatchNorm1d) -> nn.Module:
    layer.track_running_stats = False
    return layer


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4)),
        nn.Flatten(),
        nn.Linear(36, 5),
        nn.BatchNorm1d(5),
    )


def batch_of(name: str, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples and the gradient that comes back for their outputs."""
    _, shape = LAYERS[name]
    generator = torch.Generator().manual_seed(step)
    x = 3 * torch.randn(BATCH, *shape, generator=generator) + 1
    to_y = torch.randn(BATCH, *((5,) if name == "network" else shape), generator=generator)
    if name == "far from zero":
        x = x + 2000
    if name == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    if name == "double":
        return x.double(), to_y.double()
    return (x.bfloat16(), to_y.bfloat16()) if name == "half" else (x, to_y)


def run(name: str, layer: nn.Module, own: slice) -> dict:
    """Some training steps on a slice of the batches, then one in evaluation."""
    outputs, gradients = [], []
    for step in range(STEPS):
        x, to_y = (part[own] for part in batch_of(name, step))
        x = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(x)
        y.backward(to_y)
        outputs.append(y.detach())
        gradients.append(x.grad)
    layer.eval()
    return {
        "outputs": outputs,
        "gradients": gradients,
        "parameters": [parameter.grad for parameter in layer.parameters()],
        "state": dict(layer.state_dict()),
        "evaluated": layer(batch_of(name, STEPS)[0][own]).detach(),
        "channels_last": outputs[0].ndim == 4
        and outputs[0].is_contiguous(memory_format=torch.channels_last),
    }


def share_of(processes: Processes, name: str) -> slice:
    """Even slices; the sequences are shared 1 to 5, and 0 to 6 where nothing is tracked."""
    cut = {"1d of sequences": 1, "not tracked": 0}.get(name, BATCH // 2)
    return slice(cut) if processes.rank == 0 else slice(cut, BATCH)


def be_a_rank(folder: Path) -> None:
    with start_processes("cpu", timeout_s=60) as processes:
        out = {
            name: run(name, synchronise_batch_norm(make()), share_of(processes, name))
            for name, (make, _) in LAYERS.items()
        }
        lonely = synchronise_batch_norm(nn.BatchNorm1d(2))
        one = torch.ones(1 - processes.rank, 2)
        out["one value"] = refusal(lonely, one)
        out["two values"] = lonely(torch.full((1, 2), float(processes.rank))).detach()
    torch.save(out, folder / f"{processes.rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return results_of(__file__, tmp_path_factory.mktemp("ranks"))


def near(name: str) -> dict:
    if name == "half":
        return {"rtol": 2e-2, "atol": 2e-2}
    if name == "double":
        return {"rtol": 1e-10, "atol": 1e-10}
    # At 2000 a float32 has four digits left for what differs.
    return {"rtol": 1e-3, "atol": 1e-3} if name == "far from zero" else {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.slow
class TestTwoProcesses:
    @pytest.fixture
    def alone(self, name) -> dict:
        return run(name, LAYERS[name][0](), slice(None))

    def test_outputs(self, ranks, alone, name):
        for step in range(STEPS):
            got = torch.cat([rank[name]["outputs"][step] for rank in ranks])
            torch.testing.assert_close(got, alone["outputs"][step], **near(name))

    def test_gradients_of_inputs(self, ranks, alone, name):
        for step in range(STEPS):
            got = torch.cat([rank[name]["gradients"][step] for rank in ranks])
            torch.testing.assert_close(got, alone["gradients"][step], **near(name))

    def test_gradients_of_parameters_add_up(self, ranks, alone, name):
        for number, want in enumerate(alone["parameters"]):
            parts = [rank[name]["parameters"][number] for rank in ranks]
            if want is None:
                assert parts == [None, None]
            else:
                # A bias before a batch norm has a gradient of rounding alone.
                tolerance = {**near(name), "atol": max(1e-4, near(name)["atol"])}
                torch.testing.assert_close(sum(parts), want, **tolerance)

    def test_running_moments(self, ranks, alone, name):
        for rank in ranks:
            assert list(rank[name]["state"]) == list(alone["state"])
            for key, want in alone["state"].items():
                torch.testing.assert_close(rank[name]["state"][key], want, rtol=1e-5, atol=1e-5)

    def test_evaluation(self, ranks, alone, name):
        if name in ("not tracked", "tracking stopped"):
            return  # not tracked: each uses its own batch, as torch's does
        got = torch.cat([rank[name]["evaluated"] for rank in ranks])
        torch.testing.assert_close(got, alone["evaluated"], **near(name))

    def test_memory_format(self, ranks, alone, name):
        assert all(rank[name]["channels_last"] == alone["channels_last"] for rank in ranks)


def test_one_value_in_all_processes(ranks):
    assert all("1 values a channel" in rank["one value"] for rank in ranks)


def test_one_value_in_each_process(ranks):
    assert ranks[0]["two values"][0].tolist() == pytest.approx([-1, -1], abs=1e-4)
    assert ranks[1]["two values"][0].tolist() == pytest.approx([1, 1], abs=1e-4)


class TestOneProcess:
    @pytest.mark.parametrize("name", LAYERS)
    def test_same_numbers_to_the_bit(self, name):
        plain, synced = (
            run(name, layer, slice(None))
            for layer in (LAYERS[name][0](), synchronise_batch_norm(LAYERS[name][0]()))
        )
        for got, want in zip(synced["outputs"], plain["outputs"], strict=True):
            assert got.equal(want)
        for key, want in plain["state"].items():
            assert synced["state"][key].equal(want)

    def test_shares_parameters_and_buffers(self):
        plain = network()
        before = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
        synced = synchronise_batch_norm(plain)
        assert synced is plain
        assert [type(layer) for layer in synced.modules()].count(SyncedBatchNorm) == 2
        after = {**dict(synced.named_parameters()), **dict(synced.named_buffers())}
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)
        network().load_state_dict(synced.state_dict())

    def test_keeps_the_mode(self):
        assert not synchronise_batch_norm(nn.BatchNorm2d(3).eval()).training
        assert synchronise_batch_norm(nn.BatchNorm2d(3)).training

    def test_twice_is_once(self):
        once = synchronise_batch_norm(nn.BatchNorm2d(3))
        assert synchronise_batch_norm(once) is once
        torchs = nn.SyncBatchNorm(3)
        assert synchronise_batch_norm(torchs) is torchs

    def test_on_a_gpu_it_is_torchs_own(self, monkeypatch):
        layer = nn.BatchNorm2d(3)
        monkeypatch.setattr(type(layer.weight), "is_cuda", True, raising=False)
        assert isinstance(synchronise_batch_norm(layer), nn.SyncBatchNorm)

    def test_leaves_other_layers(self):
        layer = nn.Sequential(nn.InstanceNorm2d(3), nn.LayerNorm(2))
        assert str(synchronise_batch_norm(copy.deepcopy(layer))) == str(layer)

    @pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 4, 3)])
    def test_wrong_shape(self, shape):
        with pytest.raises(VidfaceError, match="3 channels"):
            synchronise_batch_norm(nn.BatchNorm1d(3))(torch.zeros(shape))


if __name__ == "__main__":
    be_a_rank(Path(sys.argv[1]))
