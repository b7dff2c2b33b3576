from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vidface.core.errors import VidfaceError
from vidface.training.checkpoints import (
    add_prefix,
    load_checkpoint,
    load_module,
    load_optimiser,
    optimiser_tensors,
    save_checkpoint,
    select_prefix,
)
from vidface.training.folder import list_differences
from vidface.training.logs import forget_later_lines
from vidface.training.optimisers import build_optimiser, learning_rate_share
from vidface.training.settings import OptimiserSettings


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
        "step": torch.tensor(3.0),
        "count": torch.tensor([2**40]),
        "empty": torch.empty(0, 4),
        "half": torch.ones(2, dtype=torch.float16),
    }
    save_checkpoint(tmp_path / "c.safetensors", tensors, {"place": {"step": 4}, "people": ["Ä"]})
    found, said = load_checkpoint(tmp_path / "c.safetensors")
    assert said["place"] == {"step": 4}
    assert said["people"] == ["Ä"]
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.ones(2)}, {})

    def breaks(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", breaks)
    with pytest.raises(VidfaceError, match="No space left"):
        save_checkpoint(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(load_checkpoint(path)[0]["a"], torch.ones(2))
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "_c.safetensors.xxh3",
        "c.safetensors",
    ]


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match="no such file"):
        load_checkpoint(tmp_path / "none")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(VidfaceError, match="not written by `vidface train`"):
        load_checkpoint(tmp_path / "other.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "bad.safetensors", {"vidface_training": "{"})
    with pytest.raises(VidfaceError, match="damaged"):
        load_checkpoint(tmp_path / "bad.safetensors")


def test_every_cut_of_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.ones(3)}, {})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(VidfaceError, match="damaged"):
            load_checkpoint(path)


def test_prefixes() -> None:
    tensors = {**add_prefix("a", {"x.y": torch.ones(1)}), **add_prefix("ab", {"z": torch.zeros(1)})}
    assert list(select_prefix("a", tensors)) == ["x.y"]
    assert list(select_prefix("ab", tensors)) == ["z"]


def test_another_architecture_and_another_number_of_classes() -> None:
    with pytest.raises(VidfaceError, match="another architecture: 'bias'"):
        load_module(nn.Linear(2, 3), {"weight": torch.zeros(3, 2)}, "checkpoint c")
    with pytest.raises(VidfaceError, match=r"'weight' is \(4, 2\) there and \(3, 2\) here"):
        load_module(
            nn.Linear(2, 3), {"weight": torch.zeros(4, 2), "bias": torch.zeros(3)}, "checkpoint c"
        )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_optimiser_goes_on_as_it_was(tmp_path: Path, name: str) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 1))
        return module, build_optimiser(module, OptimiserSettings(name=name, learning_rate=0.1))

    def steps(module: nn.Module, optimiser: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            optimiser.zero_grad()
            module(x).square().mean().backward()
            optimiser.step()

    whole, optimiser = made()
    steps(whole, optimiser, 0, 6)
    broken, optimiser = made()
    steps(broken, optimiser, 0, 3)
    save_checkpoint(
        tmp_path / "c",
        {**add_prefix("m", broken.state_dict()), **add_prefix("o", optimiser_tensors(optimiser))},
        {},
    )
    again, optimiser = made()
    tensors, _ = load_checkpoint(tmp_path / "c")
    load_module(again, select_prefix("m", tensors), "c")
    load_optimiser(optimiser, select_prefix("o", tensors))
    steps(again, optimiser, 3, 6)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weight_decay_spares_biases_and_slopes() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(4))
    decayed, spared = build_optimiser(module, OptimiserSettings(weight_decay=0.3)).param_groups
    assert [p.shape for p in decayed["params"]] == [module[0].weight.shape]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0)
    assert len(spared["params"]) == 4
    every, none = build_optimiser(module, OptimiserSettings(decay_all=True)).param_groups
    assert (len(every["params"]), len(none["params"])) == (5, 0)


def test_the_learning_rate_along_a_stage() -> None:
    # Two steps of warming up, then half a cosine over the other eight: at its middle a half.
    rates = [learning_rate_share(step, 10, 2, "cosine") for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert 0 < rates[9] < 0.05
    assert [learning_rate_share(step, 3, 0, "constant") for step in range(3)] == [1.0] * 3
    assert learning_rate_share(0, 1, 0, "cosine") == 1.0
    assert learning_rate_share(1, 2, 5, "cosine") == pytest.approx(
        0.4
    )  # a stage shorter than its warm-up


def test_a_log_forgets_the_steps_that_are_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    forget_later_lines(path, 3)  # there is none yet
    lines = [json.dumps({"step": step}) for step in (1, 3, 4, 5)]
    path.write_text("\n".join(lines) + '\n{"step": 6, "lo')  # cut off by a kill
    forget_later_lines(path, 4)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3, 4]


def test_where_two_documents_differ() -> None:
    assert list_differences({"a": 1}, {"a": 1}) == []
    assert list_differences({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}) == [
        "a.b[1].c"
    ]
    assert list_differences({"a": 1}, {"b": 1}) == ["a", "b"]
    assert list_differences([1], [1, 2], "x") == ["x"]
    assert list_differences(1, 2) == ["all"]
