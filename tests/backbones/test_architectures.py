"""The networks against the paper's figures and against transcriptions that share no code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.budgets import mostly_slow
from vidface.backbones.architectures import (
    ALIASES,
    ARCHITECTURES,
    StageRow,
    find_architecture,
    is_architecture,
)
from vidface.backbones.bottlenecks import Bottleneck, SqueezeExcite
from vidface.backbones.budget import BudgetLimits, count_module
from vidface.core.errors import VidfaceError

# name: FLOPs by the challenge's counter, MACs, parameters, MiB to two places, dimension. FLOPs of
# paper, y2 and y1 and the paper's MiB are published; test_budget.py derives the rest by hand.
EXACT = {
    "paper": (976_588_780, 490_225_744, 5_140_270, "19.86", 282),
    "y2": (933_336_694, 468_825_088, 1_996_032, "7.76", 256),
    "paper-step1": (1_077_298_010, 540_855_628, 4_320_544, "16.71", 256),
    "paper-step2": (1_041_866_119, 523_060_376, 4_597_878, "17.78", 256),
    "paper-step3": (1_001_944_525, 502_945_964, 4_843_828, "18.72", 256),
    "paper-step4": (982_883_059, 493_381_176, 5_046_920, "19.50", 256),
    "y1": (439_821_056, 220_965_376, 1_003_264, "3.90", 128),
    "mobilefacenet": (465_310_464, 233_810_432, 999_936, "3.89", 128),
}

# The paper's Table 1 as printed, but 7*7*512 for its 7*7*256 in the last line: the line above
# gives 512 channels.
TABLE_1 = """
112*112*3  Conv  -   24  1  2
56*56*24   Block 56  24  2  1
56*56*24   Block 116 56  1  2
28*28*56   Block 116 56  6  1
28*28*56   Block 248 124 1  2
14*14*124  Block 248 124 15 1
14*14*124  Block 512 256 1  2
7*7*256    Block 256 256 24 1
7*7*256    Conv  -   512 1  1
7*7*512    GDC   -   282 1  1
"""


def unsettled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode and in double precision, its batch norms and slopes as after
    training: fresh ones are the identity and would hide where they stand.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                uniform(layer.weight, 0.5, 1.5)
                uniform(layer.bias, -0.5, 0.5)
                uniform(layer.running_mean, -0.5, 0.5)
                uniform(layer.running_var, 0.5, 2.0)
            elif isinstance(layer, nn.PReLU):
                uniform(layer.weight, -0.5, 0.9)
    return module.double().eval()


def images(n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (n, 3, 112, 112)))


# A transcription of the reference's words (protocols.md, section 1) in plain functions on a state
# dict. `where` is the name that the layer's parameters begin with.


def norm(state, where, x, eps):
    mean, var = state[f"{where}.running_mean"], state[f"{where}.running_var"]
    return nn.functional.batch_norm(
        x, mean, var, state[f"{where}.weight"], state[f"{where}.bias"], eps=eps
    )


def conv(state, where, x, stride=1, padding=0, groups=1, eps=1e-5, activation=True):
    x = nn.functional.conv2d(x, state[f"{where}.conv.weight"], None, stride, padding, 1, groups)
    x = norm(state, f"{where}.norm", x, eps)
    return nn.functional.prelu(x, state[f"{where}.activation.weight"]) if activation else x


def gate(state, where, x):
    """Global average → 1x1 with bias → PReLU → 1x1 with bias → sigmoid: (n, c, 1, 1)."""
    weights, biases = ([state[f"{where}.{layer}.{kind}"] for layer in ("squeeze", "excite")]
                       for kind in ("weight", "bias"))  # fmt: skip
    y = x.mean(dim=(2, 3)) @ weights[0][:, :, 0, 0].T + biases[0]
    y = torch.where(y > 0, y, y * state[f"{where}.activation.weight"])
    y = 1 / (1 + torch.exp(-(y @ weights[1][:, :, 0, 0].T + biases[1])))
    return y[:, :, None, None]


def block(state, where, x, stride, identity, se, eps=1e-5):
    y = conv(state, f"{where}expand", x, eps=eps)
    y = conv(state, f"{where}depthwise", y, stride, 1, y.shape[1], eps)
    y = conv(state, f"{where}project", y, eps=eps, activation=False)
    if se:
        y = y * gate(state, f"{where}se", y)
    return x + y if identity else y


def network(state, table, x):
    """The whole network; `table`'s widths serve to know where an identity is added."""
    eps, linear = table.norm_eps, table.head == "linear"
    x = conv(state, "stem", x, 2, 1, eps=eps)
    for stage, row in enumerate(table.rows):
        for number in range(row.n):
            where = f"stages.{stage}.{number}"
            stride = row.s if number == 0 else 1
            if row.t is None:
                x = conv(state, where, x, stride, 1, row.c, eps)
            else:
                identity = stride == 1 and x.shape[1] == row.c
                x = block(state, f"{where}.", x, stride, identity, table.se_reduction, eps)
    x = conv(state, "last", x, eps=eps)
    x = conv(state, "gdc", x, groups=x.shape[1], eps=eps, activation=False).flatten(1)
    if linear:
        x = x @ state["embedding.linear.weight"].T + state["embedding.linear.bias"]
    else:
        x = x @ state["embedding.conv.weight"][:, :, 0, 0].T
    return norm(state, "embedding.norm", x, table.embedding_norm_eps)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_exact_figures(name: str) -> None:
    """A new architecture needs a line in EXACT."""
    flops, macs, parameters, mib, dimension = EXACT[name]
    budget = count_module(find_architecture(name).build_empty())
    assert (budget.flops, budget.macs, budget.parameters) == (flops, macs, parameters)
    assert (f"{budget.mib:.2f}", budget.dimension) == (mib, dimension)
    assert budget.uncounted == ()
    assert BudgetLimits().admit(budget) is (flops <= 1e9)
    assert find_architecture(name).dimension == dimension


def test_published_figures_stand_beside_the_computed_ones() -> None:
    """What the papers print, and a word where what is printed can't be reproduced."""
    printed = {
        "paper": ("976.6M", "20M", "7*7*256"),  # a misprint in the table: see TABLE_1
        "y2": ("933.3M", "18M", "size can't be reproduced"),  # 7.76 MiB
        "paper-step1": ("1G", "18M", "the rule gives more"),  # 1077.3M
        "paper-step2": ("1G", "18M", "the rule gives more"),  # 1041.9M
        "paper-step3": ("1G", "19M", ""),  # 1001.9M
        "paper-step4": ("998.4M", "20M", "the rule gives less"),  # 982.9M
        "y1": ("439.8M", "", ""),
    }
    assert ARCHITECTURES["mobilefacenet"].published is None
    for name, (flops, size, note) in printed.items():
        published = ARCHITECTURES[name].published
        assert published is not None
        assert (published.flops, published.size) == (flops, size)
        assert note in published.note
        assert bool(note) == bool(published.note)
        if name in ("paper", "y2", "y1"):
            assert f"{EXACT[name][0] / 1e6:.1f}M" == flops


def test_table_1_stage_by_stage() -> None:
    """A face is sent through; what each stage was given, and is made of, is what is printed."""
    printed = [line.split() for line in TABLE_1.split("\n") if line]
    module = find_architecture("paper").build().eval()
    parts = [module.stem, *module.stages, module.last, module.gdc]
    given: list[tuple[int, ...]] = []
    for part in parts:
        part.register_forward_hook(lambda _, inputs, __: given.append(tuple(inputs[0].shape)))
    with torch.inference_mode():
        embedding = module(torch.zeros(1, 3, 112, 112))
    assert embedding.shape == (1, 282)
    assert [f"{h}*{w}*{c}" for _, c, h, w in given] == [line[0] for line in printed]
    assert len(parts) == len(printed) == 10
    for stage, (_, operator, t, c, n, s) in zip(module.stages, printed[1:8], strict=True):
        assert operator == "Block"
        assert len(stage) == int(n)
        for number, each in enumerate(stage):
            depthwise = each.depthwise.conv
            assert depthwise.in_channels == depthwise.groups == int(t)
            assert depthwise.kernel_size == (3, 3)
            assert each.project.conv.out_channels == int(c)
            assert depthwise.stride == ((int(s),) * 2 if number == 0 else (1, 1))
    strides = {"stem": 2, "last": 1, "gdc": 1}
    kernels = {"stem": 3, "last": 1, "gdc": 7}
    for name in strides:
        layer = getattr(module, name).conv
        assert (layer.stride, layer.kernel_size) == ((strides[name],) * 2, (kernels[name],) * 2)


@pytest.mark.parametrize(
    "name", mostly_slow(["paper-x0.1", "y2-x0.1", "y1-x0.1", "paper-step4-x0.1"], "y2-x0.1")
)
def test_the_network_is_what_the_reference_says(name: str) -> None:
    table = find_architecture(name)
    module = unsettled(table.build())
    state = module.state_dict()
    with torch.inference_mode():
        ours, wanted = module(images()), network(state, table, images())
    assert ours.shape == (2, table.dimension)
    assert torch.allclose(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("se", [None, 16])
@pytest.mark.parametrize(
    ("channels", "c", "stride", "identity"),
    [(32, 32, 1, True), (32, 48, 1, False), (32, 32, 2, False), (32, 48, 2, False)],
)
def test_a_block_is_what_the_reference_says(se, channels, c, stride, identity) -> None:
    module = unsettled(Bottleneck(channels, 40, c, stride, se, 1e-5))
    x = torch.randn(2, channels, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        wanted = block(module.state_dict(), "", x, stride, identity, se)
        assert torch.allclose(module(x), wanted, rtol=1e-9, atol=1e-9)
    assert wanted.shape == (2, c, 8 // stride, 8 // stride)


def test_se_acts_on_the_linear_output_before_the_identity_is_added() -> None:
    module = unsettled(Bottleneck(32, 64, 32, 1, 16, 1e-5))
    x = torch.randn(2, 32, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        plain = module.project(module.depthwise(module.expand(x)))  # without SE or identity
        assert (plain < 0).any()  # linear: no activation after the projection
        module.se.excite.weight.zero_()  # the gate is then sigmoid(bias), the same everywhere
        module.se.excite.bias.fill_(-1e4)  # a closed gate
        assert torch.equal(module(x), x)  # SE after the addition would leave zeros
        module.se.excite.bias.fill_(1e4)  # an open one
        assert torch.allclose(module(x), x + plain, rtol=1e-12, atol=0)
        # Nothing but the norm's bias, 3, is left of the projection: sigmoid(0) halves it, and SE
        # before the norm could not.
        module.se.excite.bias.zero_()
        module.project.norm.weight.zero_()
        module.project.norm.bias.fill_(3.0)
        assert torch.allclose(module(x), x + 1.5, rtol=1e-12, atol=1e-12)


def test_the_first_block_of_a_row_has_its_stride() -> None:
    """In the paper's networks the rows with stride 2 are single blocks; others may come."""
    table = replace(
        find_architecture("y2-x0.1"), rows=(StageRow(8, 8, 3, 2), StageRow(None, 8, 2, 2))
    )
    module = table.build_empty()
    assert [each.depthwise.conv.stride for each in module.stages[0]] == [(2, 2), (1, 1), (1, 1)]
    assert [each.residual for each in module.stages[0]] == [False, True, True]
    assert [each.conv.stride for each in module.stages[1]] == [(2, 2), (1, 1)]


def test_squeeze_and_excitation_by_eye() -> None:
    """One squeezed channel: the mean of both channels' means, 1 of (3, −1), and −1 of (−3, 1)."""
    module = SqueezeExcite(2, 16)
    assert module.squeeze.out_channels == 1  # not 2 // 16
    with torch.no_grad():
        module.squeeze.weight.fill_(0.5)
        module.squeeze.bias.fill_(1.0)  # 2 and 0
        module.activation.weight.fill_(0.25)
        module.excite.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
        module.excite.bias.copy_(torch.tensor([0.0, 2.0]))
        x = torch.tensor([[3.0, -1.0], [-3.0, 1.0]])[:, :, None, None].expand(2, 2, 4, 4)
        y = module(x)
        sigmoid = 1 / (1 + np.exp(-2.0))
        first = [3 * sigmoid, -1 * 0.5]  # gates sigmoid(0 + 2) and sigmoid(2 − 2)
        second = [-3 * 0.5, sigmoid]  # sigmoid(0 + 0) and sigmoid(2 − 0)
        assert np.allclose(y[:, :, 0, 0], [first, second], atol=1e-6)
        assert (y == y[:, :, :1, :1]).all()
        module.squeeze.bias.fill_(-1.0)  # 0 and −2, of which PReLU leaves −0.5
        gates = [[0.5, 1 / (1 + np.exp(-2.0))], [1 / (1 + np.exp(0.5)), 1 / (1 + np.exp(-2.5))]]
        assert np.allclose((module(x) / x)[:, :, 0, 0], gates, atol=1e-6)


def test_biases_stand_in_squeeze_and_excitation_only() -> None:
    for name in ARCHITECTURES:
        biased = {
            layer
            for layer, module in ARCHITECTURES[name].build_empty().named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
        }
        se = {layer for layer in biased if layer.endswith((".se.squeeze", ".se.excite"))}
        rest = {"y1": {"embedding.linear"}, "mobilefacenet": {"conv3"}}.get(name, set())
        assert biased - se == rest
        blocks = {"paper": 50, "paper-step1": 47, "paper-step2": 48, "paper-step3": 48,
                  "paper-step4": 50}.get(name, 0)  # fmt: skip
        assert len(se) == 2 * blocks


def test_squeezed_widths() -> None:
    """c // 16 channels: 24 → 1, 56 → 3, 124 → 7, 256 → 16."""
    module = find_architecture("paper").build_empty()
    found = [
        (each.squeeze.in_channels, each.squeeze.out_channels, each.excite.in_channels,
         each.excite.out_channels, each.activation.num_parameters)
        for each in module.modules() if isinstance(each, SqueezeExcite)
    ]  # fmt: skip
    widths = {24: 1, 56: 3, 124: 7, 256: 16}
    assert {squeezed[0] for squeezed in found} == set(widths)
    assert found == [(c, widths[c], widths[c], c, widths[c]) for c, *_ in found]
    for name in ("y1", "y2"):
        layers = find_architecture(name).build_empty().modules()
        assert not any(isinstance(each, SqueezeExcite) for each in layers)


def test_y1_begins_with_a_plain_depthwise_convolution_and_ends_fully_connected() -> None:
    module = find_architecture("y1").build_empty()
    [first] = module.stages[0]
    assert [type(layer) for layer in first] == [nn.Conv2d, nn.BatchNorm2d, nn.PReLU]
    layer = first.conv
    assert (layer.in_channels, layer.out_channels, layer.groups) == (64, 64, 64)
    assert (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
    head = [type(layer) for layer in module.embedding]
    assert head == [nn.Flatten, nn.Linear, nn.BatchNorm1d]
    linear = module.embedding.linear
    assert (linear.in_features, linear.out_features) == (512, 128)
    assert linear.bias is not None
    # MXNet's epsilons, of its convolutions' norms and of the last one
    epsilons = {each.eps for each in module.modules() if isinstance(each, nn.BatchNorm2d)}
    assert (epsilons, module.embedding.norm.eps) == ({1e-3}, 2e-5)
    others = {
        each.eps
        for name in ("paper", "y2", "paper-step1")
        for each in find_architecture(name).build_empty().modules()
        if isinstance(each, nn.BatchNorm2d)
    }
    assert others == {1e-5}


@pytest.mark.parametrize("name", ["paper", "y2", "paper-step1", "y1"])
def test_an_identity_only_where_stride_is_1_and_widths_are_equal(name: str) -> None:
    """With the projections' norms at zero a block gives its input, or zeros."""
    table = find_architecture(name)
    module = table.build().eval()
    found = []
    with torch.no_grad():
        for stage, row in zip(module.stages, table.rows, strict=True):
            for each in stage:
                if row.t is None:
                    continue
                each.project.norm.weight.zero_()
                each.project.norm.bias.zero_()
                x = torch.rand(1, each.expand.conv.in_channels, 4, 4) + 1
                y = each(x)
                found.append(y.shape == x.shape and torch.equal(y, x))
                assert found[-1] or not y.any()
    # In the order of the blocks: the first of a stage that halves the picture has none. Step 1's
    # conv2 keeps conv1's 30 channels (so both of its blocks have one).
    identities = {
        "paper": [2, 6, 15, 24],
        "y2": [2, 8, 16, 4],
        "paper-step1": [2, 8, 18, 16],
        "y1": [0, 4, 6, 2],
    }[name]
    wanted = [True] * identities[0]
    for n in identities[1:]:
        wanted += [False, *[True] * n]
    assert found == wanted


def test_the_global_convolution_has_no_padding_and_no_activation() -> None:
    for name in ("paper", "y2", "y1"):
        module = find_architecture(name).build().eval()
        assert [type(layer) for layer in module.gdc] == [nn.Conv2d, nn.BatchNorm2d]
        layer = module.gdc.conv
        assert (layer.kernel_size, layer.padding, layer.groups) == ((7, 7), (0, 0), 512)
        x = torch.randn(2, 512, 7, 7)
        with torch.no_grad():
            y = module.gdc(x)
            assert y.shape == (2, 512, 1, 1)
            assert (y < 0).any()
            assert torch.allclose(module.gdc(-x), -y)  # odd, as only what is linear can be here
            # The embedding is linear too; y1's has a bias, which goes.
            difference = module.embedding(y) - module.embedding(torch.zeros_like(y))
            opposite = module.embedding(-y) - module.embedding(torch.zeros_like(y))
            assert torch.allclose(difference, -opposite, atol=1e-5)
            assert (difference < 0).any()


def test_aliases() -> None:
    assert find_architecture("paper-step5") is find_architecture("paper")
    assert find_architecture("paper-step0") is find_architecture("y2")
    assert set(ALIASES) == {"paper-step5", "paper-step0"}
    assert find_architecture("paper-step5-x0.5") == find_architecture("paper-x0.5")
    assert find_architecture("paper-step0-x0.5").name == "y2-x0.5"
    names = [*ARCHITECTURES, *ALIASES, "paper-x0.5", "paper-step5-x.5", "y1-x2"]
    assert all(is_architecture(name) for name in names)
    for name in ("", "Paper", "paper-step6", "paper-x", "sface", "paper-x0.5-x0.5", "paper-x-1"):
        assert not is_architecture(name)


def test_width_1_is_the_network_itself_to_the_digit() -> None:
    for name in ("paper-x1.0", "paper-x1", "paper-step5-x1"):
        assert find_architecture(name) is find_architecture("paper")
    assert find_architecture("mobilefacenet-x1").name == "mobilefacenet"
    assert count_module(find_architecture("paper-x1.0").build_empty()).flops == 976_588_780


def test_half_of_the_channels() -> None:
    half = find_architecture("paper-x0.5")
    assert (half.name, half.stem, half.last) == ("paper-x0.5", 12, 256)
    assert half.rows == (
        StageRow(28, 12, 2, 1),
        StageRow(58, 28, 1, 2),
        StageRow(58, 28, 6, 1),
        StageRow(124, 62, 1, 2),
        StageRow(124, 62, 15, 1),
        StageRow(256, 128, 1, 2),
        StageRow(128, 128, 24, 1),
    )
    assert half.dimension == 282
    assert half.se_reduction == 16
    assert half.published is None  # the paper prints nothing of it
    assert find_architecture("y1-x0.5").rows[0] == StageRow(None, 32, 1, 1)
    assert find_architecture("paper-x2").rows[3] == StageRow(496, 248, 1, 2)


def test_widths_are_even_and_at_least_8() -> None:
    """0.1 of 24, 56, 116, 124, 248, 256, 512 is 2.4, 5.6, 11.6, 12.4, 24.8, 25.6, 51.2."""
    tiny = find_architecture("paper-x0.1")
    assert (tiny.stem, tiny.last) == (8, 52)
    assert [(row.t, row.c) for row in tiny.rows] == [
        (8, 8), (12, 8), (12, 8), (24, 12), (24, 12), (52, 26), (26, 26)]  # fmt: skip
    assert [(row.n, row.s) for row in tiny.rows] == [
        (row.n, row.s) for row in find_architecture("paper").rows
    ]
    # 0.125 of 248 is 31, between 30 and 32: up. 0.375 of 24 is 9: up, not to the even 4 · 2.
    assert find_architecture("paper-x0.125").rows[3].t == 32
    assert find_architecture("paper-x0.375").stem == 10
    for width in (0.1, 0.3, 0.37, 1.7, 4):
        scaled = find_architecture(f"paper-x{width}")
        numbers = [scaled.stem, scaled.last, *(n for row in scaled.rows for n in (row.t, row.c))]
        assert all(n % 2 == 0 and n >= 8 for n in numbers)
        assert scaled.dimension == 282


def test_a_width_in_a_name_is_read_again_as_it_was_written() -> None:
    """0.392578125 · 512 = 201 exactly, which rounds up; of 0.392578 it would be 200."""
    scaled = find_architecture("paper-x0.392578125")
    assert scaled.last == 202
    assert find_architecture(scaled.name) == scaled
    assert find_architecture("paper-x.50").name == "paper-x0.5"
    assert find_architecture("y2-x2.0").name == "y2-x2"


@pytest.mark.parametrize("name", ["paper-x0", "paper-x0.09", "paper-x4.01", "paper-x" + "9" * 400])
def test_widths_that_are_no_use(name: str) -> None:
    with pytest.raises(VidfaceError, match=r"paper: width \S+ must lie in \[0\.1, 4\]"):
        find_architecture(name)


def test_unknown_names_list_the_known_ones() -> None:
    for name in ("papr", "paper-x", "paper-step6", "paper-x-0.5", "paper-x0.5-x0.5", ""):
        with pytest.raises(VidfaceError) as caught:
            find_architecture(name)
        message = str(caught.value)
        assert f"no architecture named '{name}'" in message
        assert "\n" not in message
        for known in (*EXACT, "paper-step0", "paper-step5", "NAME-x0.5"):
            assert known in message
    with pytest.raises(VidfaceError, match="mobilefacenet: has one size only"):
        find_architecture("mobilefacenet-x0.5")


def test_weights_are_drawn_from_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reached.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", reached.append)
    tiny = find_architecture("y1-x0.1")
    torch.manual_seed(5)
    reached.clear()
    before = torch.get_rng_state()
    first = tiny.build(seed=1).state_dict()
    tiny.build_empty()
    assert torch.equal(torch.get_rng_state(), before)
    assert reached == []  # nor is an accelerator's state
    torch.manual_seed(6)
    again = tiny.build(seed=1).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = tiny.build(seed=2).state_dict()
    differ = {key for key in first if not torch.equal(first[key], other[key])}
    assert differ == {
        key for key in first
        if key.endswith("conv.weight") or key.startswith("embedding.linear.")
    }  # fmt: skip
    default = tiny.build().state_dict()
    assert torch.equal(default["stem.conv.weight"], tiny.build(seed=0).stem.conv.weight)


def test_a_module_is_built_on_the_cpu_wherever_the_caller_works() -> None:
    with torch.device("meta"):
        built = find_architecture("y1-x0.1").build(seed=1)
    assert {parameter.device.type for parameter in built.parameters()} == {"cpu"}
    empty = find_architecture("y1-x0.1").build_empty()
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    assert empty.state_dict().keys() == built.state_dict().keys()


@pytest.mark.parametrize("name", ["paper-x0.1", "y1-x0.1", "mobilefacenet"])
def test_gradients_reach_all_parameters(name: str) -> None:
    table = find_architecture(name)  # two blocks of a row will do
    rows = tuple(replace(row, n=min(row.n, 2)) for row in table.rows)
    module = replace(table, rows=rows).build().train()
    embeddings = module(images(4).float())
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=embeddings.shape)).float()
    (embeddings * weights).sum().backward()
    for parameter, value in module.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.isfinite().all(), parameter
        # A slope of PReLU sees nothing where all that it is given is positive: one squeezed
        # channel may be so. A bias before a batch norm has no effect.
        if ".se.activation" not in parameter and parameter not in (
            "embedding.linear.bias", "conv3.bias"):  # fmt: skip
            assert value.grad.abs().max() > 1e-7, parameter


def test_architectures_are_read_without_torch() -> None:
    code = (
        "import sys, vidface.backbones.architectures as a; a.find_architecture('paper-x0.5')\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
