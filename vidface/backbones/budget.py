"""What a recogniser costs: parameters, size, and operations by the challenge's own counter.

The Lightweight Face Recognition Challenge allows 1 GFLOPs, 20 MB and 512 dimensions, and counts as
`count_conv` and `count_linear` do: convolutions and fully connected layers only, about two a
multiply-add. Other tools print multiply-adds (MACs) as "FLOPs", half as much: both are given here.

Source: deepinsight/insightface, recognition/arcface_mxnet/common/flops_counter.py.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vidface.backbones.graphs import fix_batch, inferred_shapes, stored_tensors
from vidface.core.values import CROP_SIZE

if TYPE_CHECKING:
    import onnx
    from torch import nn

# ONNX operators that the challenge's counter passes over: element by element, pooling, shapes.
FREE_OPERATORS = {
    "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat",
    "Constant", "ConstantOfShape", "DequantizeLinear", "Div", "Dropout", "Elu", "Equal", "Erf",
    "Exp", "Expand", "Flatten", "Floor", "Gather", "Gelu", "GlobalAveragePool", "GlobalMaxPool",
    "Greater", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "Less", "Log", "LpNormalization", "Max", "MaxPool",
    "Min", "Mish", "Mul", "Neg", "PRelu", "Pad", "Pow", "QuantizeLinear", "Range", "Reciprocal",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Relu",
    "Reshape", "Resize", "Selu", "Shape", "Sigmoid", "Slice", "Softmax", "Softplus", "Split",
    "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """The cost of one face of 112x112.

    `mib` is that of all stored numbers, batch norm's statistics included, 2^20 bytes each. Batch
    norm folded into convolutions (as most ONNX files have it) leaves fewer parameters and a bias
    a channel, which the challenge counts: a folded graph has some more `flops`.
    """

    parameters: int
    mib: float
    flops: int  # by the challenge's counter
    macs: int  # multiply-adds
    dimension: int | None
    uncounted: tuple[str, ...] = ()  # operators with arithmetic that the counter does not know

    def to_dict(self) -> dict[str, Any]:
        fields = {**asdict(self), "uncounted": list(self.uncounted)}
        return {"lfrc_flops" if key == "flops" else key: value for key, value in fields.items()}


@dataclass(frozen=True)
class BudgetLimits:
    """What a recogniser may cost; the challenge's light tracks by default. Equal is inside."""

    max_flops: float = 1e9  # by the challenge's counter
    max_mib: float = 20.0
    max_dimension: int = 512

    def __str__(self) -> str:
        return f"{self.max_flops / 1e9:g} GFLOPs, {self.max_mib:g} MiB, {self.max_dimension}-d"

    def admit(self, budget: Budget) -> bool | None:
        """Whether all limits hold; None where that can't be told."""
        within = budget.flops <= self.max_flops and budget.mib <= self.max_mib
        if not within or (budget.dimension is not None and budget.dimension > self.max_dimension):
            return False
        return None if budget.uncounted or budget.dimension is None else True


def count_conv(
    channels: int, out: int, kernel: int, pixels: int, groups: int, *, bias: bool
) -> tuple[int, int]:
    """(FLOPs, MACs) of a convolution; `kernel` and `pixels` are areas, the latter of the output.

    FLOPs = (2 · Cin · k² − [no bias]) · Hout · Wout · Cout / groups

    >>> count_conv(3, 64, 9, 56 * 56, 1, bias=False)
    (10637312, 5419008)
    """
    flops = (2 * channels * kernel - (not bias)) * pixels * out // groups
    return flops, channels * kernel * pixels * out // groups


def count_linear(inputs: int, outputs: int, *, bias: bool) -> tuple[int, int]:
    """(FLOPs, MACs) of a fully connected layer: 2 · in · out − [no bias] · out.

    >>> count_linear(512, 128, bias=True)
    (131072, 65536)
    """
    return (2 * inputs - (not bias)) * outputs, inputs * outputs


def count_module(module: nn.Module) -> Budget:
    """The cost of a torch module from (n, 3, 112, 112) to (n, d); it is not changed nor moved.

    Layers are found as modules: convolutions that a forward pass calls as functions are not seen.
    """
    import torch
    from torch import nn

    free = (nn.modules.batchnorm._BatchNorm, nn.PReLU, nn.LayerNorm, nn.GroupNorm)
    twin = copy.deepcopy(module).eval()
    stored = [*twin.parameters(), *(b for b in twin.buffers() if b.is_floating_point())]
    mib = sum(tensor.numel() * tensor.element_size() for tensor in stored) / 2**20
    twin.float()  # a half-precision module takes the picture below too
    device = stored[0].device if stored else torch.device("cpu")
    counts: list[tuple[int, int]] = []  # (FLOPs, MACs) of each layer's runs
    uncounted = Counter[str]()

    def convolution(layer: Any, _: Any, output: torch.Tensor) -> None:
        pixels = output.numel() // layer.out_channels  # of all pictures, if it makes patches of one
        kernel, bias = math.prod(layer.kernel_size), layer.bias is not None
        channels = layer.in_channels, layer.out_channels
        counts.append(count_conv(*channels, kernel, pixels, layer.groups, bias=bias))

    def linear(layer: Any, inputs: Any, _: Any) -> None:
        rows = math.prod(inputs[0].shape[:-1])
        bias = layer.bias is not None
        flops, macs = count_linear(layer.in_features, layer.out_features, bias=bias)
        counts.append((rows * flops, rows * macs))

    for layer in twin.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(convolution)
        elif isinstance(layer, nn.Linear):
            layer.register_forward_hook(linear)
        elif not isinstance(layer, free) and list(layer.parameters(recurse=False)):
            uncounted[type(layer).__name__] += 1
    with torch.inference_mode():
        output = twin(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device))
    return Budget(
        parameters=sum(p.numel() for p in twin.parameters()),
        mib=mib,
        flops=sum(flops for flops, _ in counts),
        macs=sum(macs for _, macs in counts),
        dimension=int(output.shape[1]) if output.ndim == 2 else None,
        uncounted=_named(uncounted),
    )


def count_graph(model: onnx.ModelProto, name: str) -> Budget:
    """The cost of a graph with one picture as input, by the same rules.

    Raises:
        VidfaceError: shapes that do not follow from the input's.
    """
    from onnx import helper

    fixed = fix_batch(model, 1)
    graph, shapes = fixed.graph, inferred_shapes(fixed, name)
    constants = _constants(graph)
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for value in node.input:
            consumers.setdefault(value, []).append(node)
    flops = macs = 0
    uncounted, statistics = Counter[str](), set()
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            statistics.update(node.input[3:5])
        if node.op_type in FREE_OPERATORS and node.domain in ("", "ai.onnx"):
            continue
        counted = _count_node(node, shapes, constants, consumers)
        if counted is None:
            uncounted[node.op_type] += 1
            continue
        flops += counted[0]
        macs += counted[1]
    learned = _learned_tensors(graph)
    sizes = {name: math.prod(tensor.dims) for name, tensor in learned.items()}
    types = {name: helper.tensor_dtype_to_np_dtype(t.data_type) for name, t in learned.items()}
    output = shapes.get(graph.output[0].name, ())
    return Budget(
        parameters=sum(size for name, size in sizes.items() if name not in statistics),
        mib=sum(size * types[name].itemsize for name, size in sizes.items()) / 2**20,
        flops=flops,
        macs=macs,
        dimension=output[1] if len(output) >= 2 and math.prod(output[2:]) == 1 else None,
        uncounted=_named(uncounted),
    )


_WEIGHT_INPUTS = {"Conv": 1, "QLinearConv": 3, "Gemm": 1, "MatMul": 1}  # of counted operators


def _count_node(
    node: Any,
    shapes: dict[str, tuple[int, ...]],
    constants: set[str],
    consumers: dict[str, list[Any]],
) -> tuple[int, int] | None:
    """(FLOPs, MACs) of a node, or None where nobody has said how to count it."""
    attributes = {a.name: a for a in node.attribute}
    inputs = list(node.input)
    if node.op_type not in _WEIGHT_INPUTS:
        return None
    weight_name = inputs[_WEIGHT_INPUTS[node.op_type]]
    weight, output = shapes.get(weight_name), shapes.get(node.output[0])
    if weight is None or output is None or 0 in weight:
        return None
    if node.op_type in ("Conv", "QLinearConv"):
        pixels = math.prod(output) // weight[0]
        groups = attributes["group"].i if "group" in attributes else 1
        bias = len(inputs) > (2 if node.op_type == "Conv" else 8) and bool(inputs[-1])
        kernel = math.prod(weight[2:])
        return count_conv(weight[1] * groups, weight[0], kernel, pixels, groups, bias=bias)
    if weight_name not in constants:
        return None
    if node.op_type == "Gemm":
        transposed = "transB" in attributes and attributes["transB"].i
        outputs, features = weight if transposed else weight[::-1]
        flops, macs = count_linear(features, outputs, bias=len(inputs) > 2 and bool(inputs[2]))
        return output[0] * flops, output[0] * macs
    if len(weight) != 2:
        return None
    following = consumers.get(node.output[0], [])
    bias = len(following) == 1 and following[0].op_type == "Add" and any(
        i in constants and math.prod(shapes.get(i, ())) == weight[1] for i in following[0].input
    )  # fmt: skip
    rows = math.prod(output[:-1])
    flops, macs = count_linear(weight[0], weight[1], bias=bias)
    return rows * flops, rows * macs


def _constants(graph: Any) -> set[str]:
    """Names of what a graph computes from its weights alone: dequantised ones, for instance."""
    known = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in topological order, as ONNX has it
        if all(value in known for value in node.input if value):
            known.update(node.output)
    return known


def _learned_tensors(graph: Any) -> dict[str, Any]:
    """Tensors of numbers that were learned: floats and 8-bit integers, not shapes or axes."""
    from onnx import TensorProto

    learned = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE,
               TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)  # fmt: skip
    used = {value for node in graph.node for value in node.input}
    tensors = stored_tensors(graph).items()
    return {name: t for name, t in tensors if name in used and t.data_type in learned}


def _named(counter: Counter[str]) -> tuple[str, ...]:
    return tuple(f"{name} ({count})" for name, count in sorted(counter.items()))
