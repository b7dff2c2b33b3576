"""Muon's two rules against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vidface.training.muon import Muon, is_matrix, make_orthogonal
from vidface.training.optimisers import build_optimiser
from vidface.training.settings import OptimiserSettings


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8), (30, 31)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(shape[0], min(shape))))
    right, _ = np.linalg.qr(rng.normal(size=(shape[1], min(shape))))
    given = left @ np.diag(np.linspace(0.2, 3, min(shape))) @ right.T
    found = make_orthogonal(torch.tensor(given, dtype=torch.float32)).double().numpy()
    values = np.linalg.svd(found, compute_uv=False)
    assert found.shape == shape
    assert values.min() > 0.6
    assert values.max() < 1.3
    inside = left.T @ found @ right  # diagonal where directions stayed
    assert np.abs(inside - np.diag(np.diag(inside))).max() < 1e-3


def test_nothing_stays_nothing() -> None:
    assert not make_orthogonal(torch.zeros(8, 9)).any()


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((8, 8), True), ((8, 9, 1, 1), True), ((7, 9), False), ((9, 7, 1, 1), False),
     ((16, 16, 3, 3), False), ((16, 1, 3, 3), False), ((16,), False)],
)  # fmt: skip
def test_which_rule(shape: tuple[int, ...], wanted: bool) -> None:
    assert is_matrix(torch.zeros(shape)) is wanted


def test_matrices_by_hand_over_three_steps() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=(8, 12)).astype(np.float32)
    gradients = rng.normal(size=(3, 8, 12)).astype(np.float32)
    weight = nn.Parameter(torch.tensor(start).reshape(8, 12, 1, 1).clone())
    optimiser = Muon([{"params": [weight], "weight_decay": 0.1}], lr=0.02, momentum=0.9)
    expected, momentum = start.astype(np.float64), np.zeros((8, 12))
    for gradient in gradients:
        weight.grad = torch.tensor(gradient).reshape(8, 12, 1, 1).clone()
        optimiser.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        ahead = 0.1 * gradient + 0.9 * momentum
        move = make_orthogonal(torch.tensor(ahead, dtype=torch.float32)).numpy()
        expected = expected * (1 - 0.02 * 0.1) - 0.02 * 0.2 * np.sqrt(12) * move
        assert np.abs(weight.detach().numpy()[:, :, 0, 0] - expected).max() < 1e-5


def test_all_others_are_adamws() -> None:
    rng = np.random.default_rng(2)
    start = torch.tensor(rng.normal(size=(9, 1, 3, 3)), dtype=torch.float32)
    pair = [nn.Parameter(start.clone()) for _ in range(2)]
    group = {"weight_decay": 0.05}
    ours = Muon([{"params": [pair[0]], **group}], lr=0.01, momentum=0.95)
    theirs = torch.optim.AdamW([{"params": [pair[1]], **group}], lr=0.01)
    for _ in range(20):
        gradient = torch.tensor(rng.normal(size=start.shape), dtype=torch.float32)
        for each, optimiser in zip(pair, (ours, theirs), strict=True):
            each.grad = gradient.clone()
            optimiser.step()
    assert torch.allclose(*pair, atol=1e-6)


def test_no_gradient_no_step_and_no_decay() -> None:
    weight = nn.Parameter(torch.ones(8, 8))
    Muon([{"params": [weight], "weight_decay": 0.5}], lr=0.1, momentum=0.9).step()
    assert torch.equal(weight.detach(), torch.ones(8, 8))
    with pytest.raises(NotImplementedError):
        Muon([{"params": [weight]}], lr=0.1, momentum=0.9).step(lambda: 0.0)


def test_a_recipe_can_name_it_and_decay_spares_biases() -> None:
    module = nn.Linear(8, 8)
    made = build_optimiser(module, OptimiserSettings("muon", 0.003, 0.95, weight_decay=0.02))
    assert isinstance(made, Muon)
    assert [group["weight_decay"] for group in made.param_groups] == [0.02, 0.0]
    assert made.param_groups[0]["params"] == [module.weight]
    assert made.param_groups[0]["momentum"] == 0.95
