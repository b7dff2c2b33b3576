"""The loss of hints against plain NumPy, and the parts that it watches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.toy_teacher import DIMENSION
from vidface.backbones.architectures import find_architecture
from vidface.core.errors import VidfaceError
from vidface.training.distillation import Distil
from vidface.training.hints import (
    Adapters,
    WatchedParts,
    channel_statistics,
    check_map_sizes,
    student_map_shapes,
)
from vidface.training.live_task import open_live_task
from vidface.training.settings import TeacherSettings

RNG = np.random.default_rng(0)
STUDENT = {"a": RNG.normal(size=(3, 4, 5, 5)), "b": RNG.normal(size=(3, 2, 2, 2))}
TEACHER = {"a": RNG.normal(2, 3, size=(3, 6, 5, 5)), "b": RNG.normal(size=(3, 1, 2, 2))}
CHANNELS = {"a": (4, 6), "b": (2, 1)}


def adapters() -> Adapters:
    made = Adapters(CHANNELS, {part: channel_statistics(TEACHER[part]) for part in CHANNELS})
    generator = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        nn.init.normal_(parameter, generator=generator)
    return made


def tensors(maps: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(each, dtype=torch.float32) for name, each in maps.items()}


def by_hand(weight: np.ndarray, bias: np.ndarray, own: np.ndarray, wanted: np.ndarray) -> float:
    total, count = 0.0, 0
    for channel in range(wanted.shape[1]):
        values = wanted[:, channel]
        target = (values - values.mean()) / values.std()
        for place in np.ndindex(*target.shape):
            face, row, column = place
            made = weight[channel] @ own[face, :, row, column] + bias[channel]
            total, count = total + (made - target[place]) ** 2, count + 1
    return total / count


def test_the_loss_against_plain_numpy() -> None:
    made = adapters()
    found = made(tensors(STUDENT), tensors(TEACHER))
    for part, layer, value in zip(CHANNELS, made.convolutions, found, strict=True):
        weight = cast(nn.Conv2d, layer).weight.detach().numpy()[:, :, 0, 0]
        bias = cast(Any, layer).bias.detach().numpy()
        wanted = by_hand(weight, bias, STUDENT[part], TEACHER[part])
        assert float(value.detach()) == pytest.approx(wanted, rel=1e-4)


def test_untrained_adapters_explain_nothing() -> None:
    statistics = {part: channel_statistics(TEACHER[part]) for part in CHANNELS}
    found = Adapters(CHANNELS, statistics)(tensors(STUDENT), tensors(TEACHER))
    assert [float(value.detach()) for value in found] == pytest.approx([1.0, 1.0], abs=1e-5)


def test_a_student_that_has_the_teachers_map_explains_all() -> None:
    made = Adapters({"a": (6, 6)}, {"a": channel_statistics(TEACHER["a"])})
    mean, std = channel_statistics(TEACHER["a"])
    layer = cast(nn.Conv2d, made.convolutions[0])
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.from_numpy(1 / std))[:, :, None, None])
        cast(Any, layer).bias.copy_(torch.from_numpy(-mean / std))
    maps = tensors({"a": TEACHER["a"]})
    assert float(made(maps, maps)[0].detach()) == pytest.approx(0, abs=1e-8)


def test_gradients_reach_the_student_and_not_the_teacher() -> None:
    student, teacher = tensors(STUDENT), tensors(TEACHER)
    for each in (*student.values(), *teacher.values()):
        each.requires_grad_()
    sum(adapters()(student, {n: t.detach() for n, t in teacher.items()})).backward()  # type: ignore[union-attr]
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in student.values())
    assert all(each.grad is None for each in teacher.values())


def test_channels_that_never_move_stay_quiet() -> None:
    maps = np.stack([np.zeros((2, 3, 3)), RNG.normal(size=(2, 3, 3))], axis=1)
    mean, std = channel_statistics(maps)
    assert mean[0] == 0
    assert std[0] == pytest.approx(0.05 * maps.std(axis=(0, 2, 3)).mean(), rel=1e-5)
    assert channel_statistics(np.zeros((1, 2, 1, 1)))[1].tolist() == pytest.approx([1e-6] * 2)


def test_the_weight_of_hints_in_the_whole_loss() -> None:
    unit = torch.tensor([[1.0, 0.0]])
    hints = {"a": torch.tensor(0.25), "b": torch.tensor(0.5)}
    found = Distil(hints=2.0)(unit, unit, hints)
    assert float(found.total) == pytest.approx(1.5)
    assert {name: float(part) for name, part in found.parts.items()} == {
        "distance": 0, "relation": 0, "hint a": 0.25, "hint b": 0.5,
    }  # fmt: skip
    assert float(Distil(hints=2.0)(unit, unit).total) == 0


def test_parts_are_watched_until_it_is_closed() -> None:
    network = find_architecture("paper-x0.1-d0.1-e16").build(seed=0).eval()
    watched = WatchedParts(network, ("stem", "stages.6"))
    with torch.no_grad():
        faces = torch.rand(2, 3, 112, 112)
        network(faces)
        assert torch.equal(watched.maps["stem"], network.get_submodule("stem")(faces))
        kept = dict(watched.maps)
        watched.close()
        network(faces + 1)
    assert all(watched.maps[part] is kept[part] for part in ("stem", "stages.6"))


def test_shapes_of_parts_are_those_of_a_real_call() -> None:
    table = find_architecture("paper-x0.5-d0.33-e128")
    parts = ("stem", "stages.0", "stages.2", "stages.4", "stages.6", "last", "gdc")
    network = table.build(seed=0).eval()
    watched = WatchedParts(network, parts)
    with torch.no_grad():
        network(torch.zeros(1, 3, 112, 112))
    found = student_map_shapes(table, parts)
    assert found == {part: tuple(watched.maps[part].shape[1:]) for part in parts}
    assert found["stages.2"] == (28, 28, 28)
    assert student_map_shapes(table, ()) == {}


def test_maps_of_two_sizes() -> None:
    check_map_sizes({"a": "x"}, {"a": (3, 7, 7)}, {"x": (9, 7, 7)})
    with pytest.raises(VidfaceError, match="'a' is 7x7 and the teacher's 'x' 14x14"):
        check_map_sizes({"a": "x"}, {"a": (3, 7, 7)}, {"x": (3, 14, 14)})


def test_several_processes_are_refused() -> None:
    settings = TeacherSettings("sface", live=True)
    with pytest.raises(VidfaceError, match="in one process, not in 2"):
        open_live_task(
            Distil(), settings, cast(Any, None), cast(Any, None), cast(Any, None),
            cast(Any, SimpleNamespace(size=2)),
        )  # fmt: skip
    assert DIMENSION == 16
