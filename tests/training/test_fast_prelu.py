from __future__ import annotations

import pytest
import torch
from torch import nn

from vidface.backbones.architectures import find_architecture
from vidface.training.fast_prelu import FastPReLU, use_fast_prelu


def both(shape: tuple[int, ...]) -> tuple[nn.PReLU, nn.PReLU]:
    plain = nn.PReLU(shape[1])
    with torch.no_grad():
        plain.weight.copy_(torch.linspace(-0.5, 1.5, shape[1]))  # slopes below 0 and above 1 too
    fast = nn.PReLU(shape[1])
    fast.load_state_dict(plain.state_dict())
    return plain, use_fast_prelu(fast)  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (1, 1, 1, 1), (4, 6), (2, 3, 7), (0, 3, 2, 2)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], channels_last: bool) -> None:
    plain, fast = both(shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if x.numel() > 3:
        x.view(-1)[:3] = torch.tensor([0.0, -0.0, 1e-38])  # the corner: slope's side at exactly 0
    if channels_last and x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = []
    for module in (plain, fast):
        given = x.clone().requires_grad_()
        made = module(given)
        (made * weights).sum().backward()
        found.append((made, given.grad, module.weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert torch.allclose(found[0][2], found[1][2], rtol=1e-5, atol=1e-6)


def test_the_fast_way_is_taken_and_only_where_it_fits() -> None:
    _, fast = both((2, 3))
    x = torch.randn(2, 3, requires_grad=True)
    assert "_PReLU" in type(fast(x).grad_fn).__name__
    assert "_PReLU" not in type(fast.double()(x.double()).grad_fn).__name__
    one = use_fast_prelu(nn.PReLU())  # a single slope for all channels
    assert "_PReLU" not in type(one(x).grad_fn).__name__
    with torch.no_grad():
        assert fast.float()(x).grad_fn is None


def test_a_networks_parameters_and_names_stay() -> None:
    network = find_architecture("paper-x0.1-d0.1").build()
    before = {name: id(p) for name, p in network.named_parameters()}
    assert {n: id(p) for n, p in use_fast_prelu(network).named_parameters()} == before
    kinds = {type(each) for each in network.modules()}
    assert FastPReLU in kinds
    assert nn.PReLU not in kinds
