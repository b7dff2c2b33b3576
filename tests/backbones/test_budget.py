"""Budgets against a count by hand, against torch's own counter, and on graphs solved by eye."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidface.backbones.architectures import ARCHITECTURES, find_architecture
from vidface.backbones.budget import (
    Budget,
    BudgetLimits,
    count_conv,
    count_graph,
    count_linear,
    count_module,
)
from vidface.backbones.graphs import read_onnx
from vidface.core.errors import VidfaceError


def count_onnx(path: Path) -> Budget:
    return count_graph(read_onnx(path), str(path))


class Table(NamedTuple):
    """A network typed from the reference (protocols.md, section 1), not read from the code."""

    stem: int
    rows: list[tuple[int | None, int, int, int]]  # t, c, n, s
    dimension: int
    se: bool
    last: int = 512
    linear: bool = False


TABLES = {
    "paper": Table(
        24,
        [(56, 24, 2, 1), (116, 56, 1, 2), (116, 56, 6, 1), (248, 124, 1, 2), (248, 124, 15, 1),
         (512, 256, 1, 2), (256, 256, 24, 1)],
        282, True,
    ),
    "y2": Table(
        64,
        [(64, 64, 2, 1), (128, 64, 1, 2), (128, 64, 8, 1), (256, 128, 1, 2), (256, 128, 16, 1),
         (512, 128, 1, 2), (256, 128, 4, 1)],
        256, False,
    ),
    "paper-step1": Table(
        30,
        [(62, 30, 2, 1), (124, 62, 1, 2), (124, 62, 8, 1), (256, 128, 1, 2), (256, 128, 18, 1),
         (512, 256, 1, 2), (256, 256, 16, 1)],
        256, True,
    ),
    "paper-step2": Table(
        28,
        [(60, 28, 2, 1), (120, 60, 1, 2), (120, 60, 8, 1), (256, 128, 1, 2), (256, 128, 16, 1),
         (512, 256, 1, 2), (256, 256, 19, 1)],
        256, True,
    ),
    "paper-step3": Table(
        26,
        [(58, 26, 2, 1), (116, 58, 1, 2), (116, 58, 6, 1), (256, 128, 1, 2), (256, 128, 16, 1),
         (512, 256, 1, 2), (256, 256, 21, 1)],
        256, True,
    ),
    "paper-step4": Table(
        24,
        [(56, 24, 2, 1), (112, 56, 1, 2), (112, 56, 6, 1), (248, 124, 1, 2), (248, 124, 16, 1),
         (512, 256, 1, 2), (256, 256, 23, 1)],
        256, True,
    ),
    "y1": Table(
        64,
        [(None, 64, 1, 1), (128, 64, 1, 2), (128, 64, 4, 1), (256, 128, 1, 2), (256, 128, 6, 1),
         (512, 128, 1, 2), (256, 128, 2, 1)],
        128, False, linear=True,
    ),
}  # fmt: skip


class Tally:
    """Counts layer after layer, with shape arithmetic of its own; pictures are square."""

    def __init__(self) -> None:
        self.size, self.channels = 112, 3
        self.parameters = self.statistics = self.flops = self.macs = 0
        self.folded_flops = 0  # what the biases of folded batch norms add

    def conv(self, out: int, k: int, stride: int = 1, pad: int = 0, *, depthwise: bool = False,
             bias: bool = False, size: int | None = None, normed: bool = True) -> None:  # fmt: skip
        """A convolution of the picture so far, or (`size`) of one beside it; its batch norm too."""
        before = self.size if size is None else size
        after = (before + 2 * pad - k) // stride + 1
        groups = self.channels if depthwise else 1
        seen = self.channels // groups * k * k  # numbers that one output is made from
        outputs = after * after * out
        self.macs += seen * outputs
        # Two a multiply-add; without bias the first addition of an output falls away. The
        # challenge divides that by the groups as well.
        self.flops += 2 * seen * outputs - (0 if bias else outputs // groups)
        self.parameters += seen * out + (out if bias else 0)
        if normed:
            self.parameters += 2 * out
            self.statistics += 2 * out
            self.folded_flops += 0 if bias else outputs // groups
        self.channels = out
        if size is None:
            self.size = after

    def prelu(self) -> None:
        self.parameters += self.channels

    def squeeze_and_excite(self) -> None:
        channels = self.channels
        self.conv(channels // 16, 1, size=1, bias=True, normed=False)
        self.prelu()
        self.conv(channels, 1, size=1, bias=True, normed=False)

    @property
    def mib(self) -> float:
        return (self.parameters + self.statistics) * 4 / 1024 / 1024


def walk(table: Table) -> Tally:
    """The cost of a network of the paper's family, row by row."""
    tally = Tally()
    tally.conv(table.stem, 3, 2, 1)
    tally.prelu()
    for t, c, n, s in table.rows:
        for stride in [s] + [1] * (n - 1):
            if t is not None:
                tally.conv(t, 1)
                tally.prelu()
            tally.conv(tally.channels, 3, stride, 1, depthwise=True)
            tally.prelu()
            if t is not None:
                tally.conv(c, 1)
                if table.se:
                    tally.squeeze_and_excite()
            assert tally.channels == c
    tally.conv(table.last, 1)
    tally.prelu()
    tally.conv(table.last, 7, depthwise=True)
    assert tally.size == 1
    tally.conv(table.dimension, 1, bias=table.linear)  # on one pixel: fully connected
    return tally


def walk_mobilefacenet() -> Tally:
    """foamliu's: ReLU6 has no parameters, the second convolution is separable, the last biased."""
    tally = Tally()
    tally.conv(64, 3, 2, 1)
    tally.conv(64, 3, 1, 1, depthwise=True)
    tally.conv(64, 1)
    for t, c, n, s in [(128, 64, 5, 2), (256, 128, 1, 2), (256, 128, 6, 1), (512, 128, 1, 2),
                       (256, 128, 2, 1)]:  # fmt: skip
        for stride in [s] + [1] * (n - 1):
            tally.conv(t, 1)
            tally.conv(t, 3, stride, 1, depthwise=True)
            tally.conv(c, 1)
    tally.conv(512, 1)
    tally.conv(512, 7, depthwise=True)
    assert tally.size == 1
    tally.conv(128, 1, bias=True)
    return tally


def tally_of(name: str) -> Tally:
    return walk(TABLES[name]) if name in TABLES else walk_mobilefacenet()


def test_convolutions_by_eye() -> None:
    """3x3 over 3 channels: 27 products and 26 sums, or 27 with the bias."""
    assert count_conv(3, 4, 9, 100, 1, bias=False) == (53 * 400, 27 * 400)
    assert count_conv(3, 4, 9, 100, 1, bias=True) == (54 * 400, 27 * 400)
    # Depthwise over 6 channels: 9 products each. The formula takes 2 · 6 · 9 − 1 = 107 a pixel for
    # all 6 outputs, not 6 · 17: its −1 is divided by the groups too.
    assert count_conv(6, 6, 9, 100, 6, bias=False) == (107 * 100, 54 * 100)
    assert count_conv(6, 6, 9, 100, 6, bias=True) == (108 * 100, 54 * 100)
    assert count_conv(4, 8, 1, 1, 2, bias=False) == (7 * 4, 16)
    # whole numbers of any size: 2 · 512 · 49 · 10^12 · 512 does not fit 53 bits
    assert count_conv(512, 512, 49, 10**12 + 1, 1, bias=True)[0] == 2 * 512**2 * 49 * (10**12 + 1)


def test_fully_connected_layers_by_eye() -> None:
    """3 products and 2 sums an output, 3 with the bias."""
    assert count_linear(3, 5, bias=False) == (25, 15)
    assert count_linear(3, 5, bias=True) == (30, 15)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_equals_the_count_by_hand(name: str) -> None:
    budget, tally = count_module(find_architecture(name).build_empty()), tally_of(name)
    assert budget.flops == tally.flops
    assert budget.macs == tally.macs
    assert budget.parameters == tally.parameters
    assert budget.mib == tally.mib


def test_the_count_by_hand_gives_the_published_figures() -> None:
    """In millions, as protocols.md has them; the paper's network to the digit, and its 20M."""
    wanted = {"paper": 976.6, "y2": 933.3, "paper-step1": 1077.3, "paper-step2": 1041.9,
              "paper-step3": 1001.9, "paper-step4": 982.9, "y1": 439.8}  # fmt: skip
    assert {name: round(walk(TABLES[name]).flops / 1e6, 1) for name in TABLES} == wanted
    assert walk(TABLES["paper"]).flops == 976_588_780
    assert round(walk(TABLES["paper"]).mib, 2) == 19.86
    assert round(walk(TABLES["y2"]).mib, 2) == 7.76


@pytest.mark.parametrize("name", ["paper", "y2", "y1", "mobilefacenet", "paper-x0.3"])
def test_torch_counts_the_same(name: str) -> None:
    """torch's counter takes convolutions and matrix products, two a multiply-add, no biases."""
    module = find_architecture(name).build_empty().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, 112, 112, device="meta"))
    assert counter.get_total_flops() == 2 * count_module(module).macs


def test_a_real_module_counts_as_an_empty_one_and_is_left_alone() -> None:
    table = find_architecture("y1-x0.1")
    module = table.build(seed=1).train()
    module.stages[0].eval()  # one part keeps still
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [each.training for each in module.modules()]
    assert count_module(module) == count_module(table.build_empty())
    assert [each.training for each in module.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(each._forward_hooks for each in module.modules())
    assert all(parameter.device.type == "cpu" for parameter in module.parameters())
    # half precision: half of the bytes, everything else as it was
    half, whole = count_module(module.half()), count_module(table.build_empty())
    assert half.mib == whole.mib / 2
    assert (half.parameters, half.flops) == (whole.parameters, whole.flops)


class Pooled(nn.Module):
    """(n, 3, 112, 112) → a layer of one's choice → the mean over the picture."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean(dim=(2, 3))


def test_convolutions_of_a_module_by_eye() -> None:
    """3x3 with stride 2 leaves 56 · 56 = 3136 of 112 · 112 = 12544 pixels."""
    budget = count_module(Pooled(nn.Conv2d(3, 4, 3, 2, 1, bias=False)))
    assert budget == Budget(108, 108 * 4 / 2**20, 53 * 3136 * 4, 27 * 3136 * 4, 4)
    budget = count_module(Pooled(nn.Conv2d(3, 6, 1, groups=3)))
    assert budget == Budget(12, 48 / 2**20, 6 * 12544 * 2, 3 * 12544 * 2, 6)


def test_every_call_of_a_layer_counts() -> None:
    """One layer of 9 weights called twice costs twice, and is stored once."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x)).mean(dim=(2, 3))

    budget = count_module(Twice())
    assert (budget.parameters, budget.flops, budget.macs) == (9, 2 * 15 * 12544, 2 * 9 * 12544)


@pytest.mark.parametrize("merged", [True, False])
def test_layers_on_parts_of_a_picture_count_for_every_part(merged: bool) -> None:
    """A picture cut into 4 · 4 patches: 16 rows of 3 channels' means through 3 → 5, 16 patches of
    28 · 28 pixels through 3 → 2, whether the patches stand in the batch or beside it.
    """

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.conv = nn.Linear(3, 5), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n = len(x)
            patches = x.reshape(n, 3, 4, 28, 4, 28).permute(0, 2, 4, 1, 3, 5)
            convolved = self.conv(patches.reshape(-1, 3, 28, 28)).reshape(n, -1, 2, 28, 28)
            means = patches.mean(dim=(4, 5))
            rows = self.linear(means.reshape(-1, 3) if merged else means).reshape(n, -1, 5)
            return torch.cat([rows.mean(dim=1), convolved.mean(dim=(1, 3, 4))], dim=1)

    budget = count_module(Patches())
    assert budget.macs == 16 * 15 + 16 * 28 * 28 * 6
    assert budget.flops == 16 * 30 + 16 * 28 * 28 * 12
    assert budget.dimension == 7


def test_layers_that_nobody_counts_are_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 3, 2, 2)
            self.first, self.second = nn.LSTM(3, 3), nn.LSTM(3, 3)
            self.scale = nn.Parameter(torch.ones(3))
            self.norms = nn.Sequential(nn.BatchNorm2d(3), nn.PReLU(3), nn.GroupNorm(1, 3))
            self.free = nn.Sequential(nn.ReLU(), nn.Dropout(), nn.AvgPool2d(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) * self.scale

    budget = count_module(Odd())
    assert budget.uncounted == ("ConvTranspose2d (1)", "LSTM (2)", "Odd (1)")
    assert BudgetLimits().admit(budget) is None
    assert BudgetLimits(max_mib=0).admit(budget) is False


def test_what_gives_no_vector_has_no_dimension() -> None:
    budget = count_module(nn.Conv2d(3, 4, 1))
    assert budget.dimension is None
    assert BudgetLimits().admit(budget) is None
    assert budget.macs == 12 * 12544


def test_fits_at_the_limits() -> None:
    """Equal is inside; one more of anything is not."""
    limits = {"max_flops": 1000, "max_mib": 2.0, "max_dimension": 4}
    exact = {"parameters": 1, "mib": 2.0, "flops": 1000, "macs": 500, "dimension": 4}
    assert BudgetLimits(**limits).admit(Budget(**exact)) is True
    for over in ({"flops": 1001}, {"mib": np.nextafter(2.0, 3)}, {"dimension": 5}):
        budget = Budget(**exact | over)
        assert BudgetLimits(**limits).admit(budget) is False
        # what is over already stays over, whatever was not counted
        budget = Budget(**exact | over, uncounted=("LSTM (1)",))
        assert BudgetLimits(**limits).admit(budget) is False
    assert BudgetLimits(**limits).admit(Budget(**exact, uncounted=("LSTM (1)",))) is None
    assert BudgetLimits(**limits).admit(Budget(**exact | {"dimension": None})) is None
    over = Budget(**exact | {"dimension": None, "flops": 1001})
    assert BudgetLimits(**limits).admit(over) is False
    # parameters and multiply-adds have no limit of their own
    free = Budget(**exact | {"parameters": 10**12, "macs": 10**12})
    assert BudgetLimits(**limits).admit(free) is True


def test_the_challenge_s_limits_are_the_default() -> None:
    assert BudgetLimits().admit(Budget(1, 20.0, 10**9, 1, 512)) is True
    for over in (Budget(1, 20.0, 10**9 + 1, 1, 512), Budget(1, 20.01, 10**9, 1, 512),
                 Budget(1, 20.0, 10**9, 1, 513)):  # fmt: skip
        assert BudgetLimits().admit(over) is False
    figures = Budget(1, 2.0, 3, 4, 5, ("LSTM (1)",)).to_dict()
    assert figures == {"parameters": 1, "mib": 2.0, "lfrc_flops": 3, "macs": 4, "dimension": 5,
                       "uncounted": ["LSTM (1)"]}  # fmt: skip


# ONNX files that others made


@pytest.mark.parametrize(
    ("file", "name", "constants"),
    [
        # y1 subtracts 127.5 and multiplies by 1/128 itself: two stored numbers more. Its last
        # batch norm stands behind a fully connected layer, and was not folded.
        ("insightface_y1.onnx", "y1", 2),
        # ReLU6 is a Clip in ONNX, 32 times between a stored 0 and a stored 6.
        ("mobilefacenet_foamliu.onnx", "mobilefacenet", 2 * 32),
    ],
)
def test_files_of_our_networks_by_others(data: Path, file: str, name: str, constants: int) -> None:
    """Multiply-adds are the module's. In the file batch norm is folded: each convolution has a
    bias, which the challenge counts, and lacks the norm's two parameters a channel.
    """
    budget = count_onnx(data / "weights" / file)
    module = count_module(find_architecture(name).build_empty())
    tally = tally_of(name)
    assert budget.macs == module.macs
    assert budget.flops == module.flops + tally.folded_flops
    # channels with a batch norm that went into a convolution; the last layer has a bias already
    last = find_architecture(name).dimension
    folded = tally.statistics // 2 - last
    kept = 2 * last if name == "y1" else 0
    norms = tally.statistics  # scale and shift, as many as means and variances
    wanted = module.parameters - norms + folded + kept + constants
    assert budget.parameters == wanted
    assert budget.mib == (wanted + kept) * 4 / 2**20  # y1's last norm keeps its statistics
    assert budget.dimension == 128
    assert budget.uncounted == ()
    assert BudgetLimits().admit(budget) is True


@pytest.mark.usefixtures("weights_at_hand")
def test_sface_s_record_is_the_count_of_its_file() -> None:
    from vidface.backbones.weights import weights_path, weights_record

    counted = count_onnx(weights_path("sface"))
    assert weights_record("sface").budget == counted
    assert counted.dimension == 128
    # over both limits: 1.15 GFLOPs and 36.9 MiB
    assert BudgetLimits().admit(counted) is False
    assert BudgetLimits(max_flops=1_145_145_190).admit(counted) is False
    assert BudgetLimits(max_flops=1_145_145_190, max_mib=36.9).admit(counted) is True


# ONNX graphs made by hand. The input is (n, 3, 112, 112); 112 · 112 = 12544.


def made(nodes, weights=(), shape=("n", 3, 112, 112), output=("n", None), opset=17):
    """A graph from "x" to "y"; `weights` are arrays by name."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    vector = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output))
    tensors = [numpy_helper.from_array(a, name) for name, a in dict(weights).items()]
    graph = helper.make_graph(nodes, "g", [image], [vector], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def ones(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def pooled(*nodes, source: str):
    """The nodes, and after them the mean over the picture as the vector."""
    pool = helper.make_node("GlobalAveragePool", [source], ["pooled"])
    return [*nodes, pool, helper.make_node("Flatten", ["pooled"], ["y"])]


def conv_graph(weights, inputs=("x", "w"), shape=("n", 3, 112, 112), **attributes):
    node = helper.make_node("Conv", list(inputs), ["c"], **attributes)
    return made(pooled(node, source="c"), weights, shape)


def test_a_convolution_of_a_graph_by_eye() -> None:
    """3x3, stride 2: 3136 pixels of 4 channels, 27 products each."""
    attributes = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    plain = count_graph(conv_graph({"w": ones(4, 3, 3, 3)}, **attributes), "g")
    assert plain == Budget(108, 108 * 4 / 2**20, 53 * 3136 * 4, 27 * 3136 * 4, 4)
    weights = {"w": ones(4, 3, 3, 3), "b": ones(4)}
    biased = count_graph(conv_graph(weights, ("x", "w", "b"), **attributes), "g")
    assert biased == Budget(112, 112 * 4 / 2**20, 54 * 3136 * 4, 27 * 3136 * 4, 4)
    absent = count_graph(conv_graph({"w": ones(4, 3, 3, 3)}, ("x", "w", ""), **attributes), "g")
    assert absent == plain  # an empty name is an input left out


def test_groups_strides_and_dilations_of_a_graph() -> None:
    """1x1 in 3 groups: 1 product for each of 6 outputs, (2 · 3 − 1) · 6 / 3 FLOPs a pixel."""
    budget = count_graph(conv_graph({"w": ones(6, 1, 1, 1)}, group=3), "g")
    assert (budget.flops, budget.macs, budget.dimension) == (10 * 12544, 6 * 12544, 6)
    # 3x3 without padding: 110 · 110 pixels; dilated by 2: 108 · 108; strides 2 and 4: 55 · 28
    for attributes, pixels in (
        ({}, 110 * 110),
        ({"dilations": [2, 2]}, 108 * 108),
        ({"strides": [2, 4]}, 55 * 28),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 56 * 56),
    ):
        budget = count_graph(conv_graph({"w": ones(1, 3, 3, 3)}, **attributes), "g")
        assert budget.macs == 27 * pixels, attributes
    budget = count_graph(conv_graph({"w": ones(2, 3, 1, 7)}), "g")
    assert budget.macs == 21 * 112 * 106 * 2


def test_open_heights_and_widths_are_112() -> None:
    fixed = count_graph(conv_graph({"w": ones(4, 3, 3, 3)}), "g")
    for shape in (["n", 3, "h", "w"], [1, 3, "h", "w"], ["n", "c", "h", "w"], [None] * 4,
                  [16, 3, 112, 112]):  # fmt: skip
        assert count_graph(conv_graph({"w": ones(4, 3, 3, 3)}, shape=shape), "g") == fixed
    assert fixed.dimension == 4


def test_a_convolution_of_patches_counts_for_every_patch() -> None:
    """The picture as 16 patches of 28 · 28 in the batch: no more and no fewer pixels."""
    nodes = [
        helper.make_node("Reshape", ["x", "patches"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["c"]),
        helper.make_node("Reshape", ["c", "whole"], ["r"]),
    ]
    weights = {
        "w": ones(2, 3, 1, 1),
        "patches": np.array([-1, 3, 28, 28]),
        "whole": np.array([-1, 2, 112, 112]),
    }
    budget = count_graph(made(pooled(*nodes, source="r"), weights), "g")
    assert (budget.flops, budget.macs) == (10 * 12544, 6 * 12544)
    assert budget.parameters == 6  # shapes were not learned


def head(*nodes, **weights):
    """A graph whose picture is pooled and flattened to "f", (n, 3), before the nodes."""
    front = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
    ]
    return count_graph(made([*front, *nodes], weights), "g")


@pytest.mark.parametrize("transposed", [None, 0, 1])
def test_gemm(transposed: int | None) -> None:
    """3 → 5, by (3, 5) weights or by (5, 3) transposed ones."""
    attributes = {} if transposed is None else {"transB": transposed}
    w = ones(5, 3) if transposed else ones(3, 5)
    budget = head(helper.make_node("Gemm", ["f", "w"], ["y"], **attributes), w=w)
    assert budget == Budget(15, 60 / 2**20, 25, 15, 5)
    node = helper.make_node("Gemm", ["f", "w", "b"], ["y"], **attributes)
    assert head(node, w=w, b=ones(5)) == Budget(20, 80 / 2**20, 30, 15, 5)


def tokens(*nodes, **weights):
    """A graph whose picture is pooled to 2 · 2 and given as "t", (n, 4, 3), before the nodes;
    after them "u", (4, 5) or (n, 4, 5), is summed to a vector.
    """
    front = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[56, 56], strides=[56, 56]),
        helper.make_node("Reshape", ["p", "3x4"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
    ]
    back = [
        helper.make_node("Reshape", ["u", "4x5"], ["v"]),
        helper.make_node("ReduceSum", ["v", "one"], ["y"], keepdims=0),
    ]
    shapes = {"3x4": np.array([-1, 3, 4]), "4x5": np.array([-1, 4, 5]), "one": np.array([1])}
    return count_graph(made([*front, *nodes, *back], {**shapes, **weights}), "g")


def test_gemm_on_several_rows() -> None:
    """4 rows of 3: 3 → 5 four times."""
    nodes = [
        helper.make_node("Reshape", ["t", "rows"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "b"], ["u"]),
    ]
    budget = tokens(*nodes, rows=np.array([-1, 3]), w=ones(3, 5), b=ones(5))
    assert (budget.flops, budget.macs, budget.dimension) == (4 * 30, 4 * 15, 5)


def test_matmul_with_and_without_a_bias() -> None:
    """4 rows of 3 → 5: 25 FLOPs each, and 5 for a bias, which is an Add of one number an output."""
    product = helper.make_node("MatMul", ["t", "w"], ["m"])
    plain = tokens(helper.make_node("MatMul", ["t", "w"], ["u"]), w=ones(3, 5))
    assert (plain.flops, plain.macs, plain.parameters) == (100, 60, 15)
    for order in (["m", "b"], ["b", "m"]):
        biased = tokens(product, helper.make_node("Add", order, ["u"]), w=ones(3, 5), b=ones(5))
        assert (biased.flops, biased.macs, biased.parameters) == (120, 60, 20)
    # an Add of something computed is no bias (a residual), be it as long as one, nor is one of a
    # single number
    mean = helper.make_node("ReduceMean", ["t"], ["o"], axes=[1, 2], keepdims=1)
    to_5 = helper.make_node("Expand", ["o", "to"], ["e"])
    add = helper.make_node("Add", ["m", "e"], ["u"])
    for shape in ([1, 1, 5], [1, 4, 5]):
        residual = tokens(product, mean, to_5, add, w=ones(3, 5), to=np.array(shape))
        assert (residual.flops, residual.uncounted) == (100, ())
    one = tokens(product, helper.make_node("Add", ["m", "b"], ["u"]), w=ones(3, 5), b=ones(1))
    assert one.flops == 100
    # and what is used elsewhere too was not meant as one
    twice = [helper.make_node("Add", ["m", "b"], ["n"]), helper.make_node("Add", ["m", "n"], ["u"])]
    assert tokens(product, *twice, w=ones(3, 5), b=ones(5)).flops == 100


def test_matmul_of_two_activations_is_named() -> None:
    nodes = [
        helper.make_node("Transpose", ["t"], ["tt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "tt"], ["a"]),  # as attention does: (4, 3) · (3, 4)
        helper.make_node("MatMul", ["a", "t"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["u"]),
    ]
    budget = tokens(*nodes, w=ones(3, 5))
    assert budget.uncounted == ("MatMul (2)",)
    assert (budget.flops, budget.macs) == (100, 60)  # of the third
    assert BudgetLimits().admit(budget) is None
    assert BudgetLimits(max_flops=99).admit(budget) is False
    computed = head(
        helper.make_node("Transpose", ["f"], ["w"]), helper.make_node("MatMul", ["f", "w"], ["y"])
    )
    assert computed.uncounted == ("MatMul (1)",)
    computed = head(
        helper.make_node("Transpose", ["f"], ["w"]), helper.make_node("Gemm", ["f", "w"], ["y"])
    )
    assert computed.uncounted == ("Gemm (1)",)


def test_operators_that_nobody_counts_are_named() -> None:
    up = helper.make_node("ConvTranspose", ["x", "w"], ["c"])
    budget = count_graph(made(pooled(up, source="c"), {"w": ones(3, 4, 2, 2)}), "g")
    assert budget.uncounted == ("ConvTranspose (1)",)
    assert (budget.flops, budget.parameters, budget.dimension) == (0, 48, 4)
    assert BudgetLimits().admit(budget) is None

    einsum = helper.make_node("Einsum", ["t", "w"], ["u"], equation="nij,jk->nik")
    assert tokens(einsum, w=ones(3, 5)).uncounted == ("Einsum (1)",)

    nodes = [
        helper.make_node("Transpose", ["t"], ["sequence"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["sequence", "w", "r"], ["l"], hidden_size=5),
        helper.make_node("Transpose", ["l"], ["u"], perm=[2, 0, 1, 3]),
    ]
    budget = tokens(*nodes, w=ones(1, 20, 3), r=ones(1, 20, 5))
    assert budget.uncounted == ("LSTM (1)",)
    assert budget.parameters == 160

    # another domain's operator may do anything, whatever its name
    relu = helper.make_node("Relu", ["x"], ["c"], domain="com.example")
    assert count_graph(made(pooled(relu, source="c")), "g").uncounted == ("Relu (1)",)


def test_int8_as_a_pair_of_operators_around_each_value() -> None:
    """QDQ: weights are 108 bytes with a scale (4 bytes) and a zero point (1), and so is the
    picture's scale; the convolution is of what comes out of DequantizeLinear.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
    ]
    scale, zero = np.float32(0.1), np.int8(0)
    weights = {"w": ones(4, 3, 3, 3, dtype=np.int8), "ws": scale, "wz": zero,
               "xs": scale, "xz": zero}  # fmt: skip
    weights = {name: np.asarray(array) for name, array in weights.items()}
    budget = count_graph(made(pooled(*nodes, source="c"), weights), "g")
    assert budget == Budget(112, 118 / 2**20, 53 * 12100 * 4, 27 * 12100 * 4, 4)
    # a fully connected layer's weights are constant though they are computed
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("MatMul", ["f", "wd"], ["m"]),
        helper.make_node("DequantizeLinear", ["b", "ws"], ["bd"]),
        helper.make_node("Add", ["m", "bd"], ["y"]),
    ]
    budget = head(*nodes, w=ones(3, 5, dtype=np.int8), ws=weights["ws"], wz=weights["wz"],
                  b=ones(5, dtype=np.int32))  # fmt: skip
    assert (budget.flops, budget.macs, budget.uncounted) == (30, 15, ())
    assert budget.mib == (15 + 4 + 1 + 20) / 2**20


@pytest.mark.parametrize("biased", [False, True])
def test_int8_convolution_in_one_operator(biased: bool) -> None:
    scale, zero = np.asarray(np.float32(0.1)), np.asarray(np.uint8(0))
    names = ["x", "s", "z", "w", "s", "z", "s", "z"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node(
            "QLinearConv", ["xq", *names[1:], *(["b"] if biased else [])], ["cq"], group=3
        ),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["c"]),
    ]
    weights = {"s": scale, "z": zero, "w": ones(6, 1, 3, 3, dtype=np.uint8)}
    if biased:
        weights["b"] = ones(6, dtype=np.int32)
    budget = count_graph(made(pooled(*nodes, source="c"), weights), "g")
    # 110 · 110 = 12100 pixels; (2 · 3 · 9 − 1) · 6 / 3 = 106 FLOPs each, 108 with the bias
    assert budget.flops == (108 if biased else 106) * 12100
    assert (budget.macs, budget.dimension, budget.uncounted) == (54 * 12100, 6, ())
    assert budget.mib == (54 + 4 + 1 + (24 if biased else 0)) / 2**20


def test_weights_in_constant_nodes_count_as_others() -> None:
    tensor = numpy_helper.from_array(ones(4, 3, 3, 3))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("Conv", ["x", "w"], ["c"]),
    ]
    budget = count_graph(made(pooled(*nodes, source="c")), "g")
    assert budget == count_graph(conv_graph({"w": ones(4, 3, 3, 3)}), "g")
    assert budget.parameters == 108
    matrix = numpy_helper.from_array(ones(3, 5))
    constant = helper.make_node("Constant", [], ["w"], value=matrix)
    budget = head(constant, helper.make_node("MatMul", ["f", "w"], ["y"]))
    assert (budget.flops, budget.parameters, budget.uncounted) == (25, 15, ())


def test_what_is_stored() -> None:
    """Batch norm: 3 scales and 3 shifts are parameters, 3 means and 3 variances only take room.
    What no operator uses, and shapes, count nowhere; half precision takes 2 bytes.
    """
    norm = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["c"])
    weights = {name: ones(3) for name in "sbmv"}
    weights |= {"unused": ones(1000)}
    budget = count_graph(made(pooled(norm, source="c"), weights), "g")
    assert budget == Budget(6, 48 / 2**20, 0, 0, 3)
    nodes = [
        helper.make_node("Cast", ["h"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["c"]),
    ]
    half = {"h": ones(4, 3, 1, 1, dtype=np.float16)}
    budget = count_graph(made(pooled(*nodes, source="c"), half), "g")
    assert (budget.parameters, budget.mib, budget.macs) == (12, 24 / 2**20, 12 * 12544)
    # one tensor that two operators share is stored once
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["c"]),
    ]
    budget = count_graph(made(pooled(*nodes, source="c"), {"w": ones(3, 3, 1, 1)}), "g")
    assert (budget.parameters, budget.macs) == (9, 18 * 12544)


def test_an_output_that_is_no_vector_has_no_dimension() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    model = made([conv], {"w": ones(4, 3, 1, 1)}, output=("n", 4, 112, 112))
    budget = count_graph(model, "g")
    assert (budget.dimension, BudgetLimits().admit(budget)) == (None, None)
    pool = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    assert count_graph(made([pool], output=("n", 3, 1, 1)), "g").dimension == 3


def test_a_file_is_counted_and_a_model_not_changed(tmp_path: Path) -> None:
    model = conv_graph({"w": ones(4, 3, 3, 3)})
    constant = helper.make_node("Constant", [], ["unused"], value=numpy_helper.from_array(ones(2)))
    model.graph.node.insert(0, constant)
    before = model.SerializeToString()
    counted = count_graph(model, "g")
    assert model.SerializeToString() == before
    onnx.save(model, str(tmp_path / "n.onnx"))
    assert count_onnx(tmp_path / "n.onnx") == counted
    # old exports list their weights among the inputs
    weight = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3])
    model.graph.input.insert(0, weight)
    onnx.save(model, str(tmp_path / "old.onnx"))
    assert count_onnx(tmp_path / "old.onnx") == counted


def test_files_that_can_t_be_counted(tmp_path: Path) -> None:
    path = tmp_path / "n.onnx"
    with pytest.raises(VidfaceError, match=r"n\.onnx: no such file"):
        count_onnx(path)
    path.write_text("this is text\n" * 20)
    with pytest.raises(VidfaceError, match=r"n\.onnx: not an ONNX file, or cut off"):
        count_onnx(path)
    # 3 numbers through 4 → 5: whether it is within the limits can't be told of a broken graph
    broken = head(helper.make_node("Gemm", ["f", "w"], ["y"]), w=ones(4, 5))
    assert (broken.uncounted, broken.dimension) == (("Gemm (1)",), None)
    assert BudgetLimits().admit(broken) is None
