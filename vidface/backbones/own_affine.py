"""The arithmetic that an ONNX graph begins with: whether it normalises its pictures itself.

Many exports (InsightFace's y1, SFace, most of MXNet's) hold (x − mean) / std as their first nodes.
The nodes in front of the first layer are cut out and run on flat pictures: whatever operators they
are, what they do to each channel is read off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.conforming import has_channels_last
from vidface.backbones.preprocessing import Preprocessing, plain_numbers
from vidface.backbones.runtimes.base import NetworkTimeoutError
from vidface.backbones.runtimes.places import HERE, Place
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.values import CROP_SIZE

if TYPE_CHECKING:
    import onnx

RAW_CENTRES, RAW_WIDTHS = (90.0, 165.0), (50.0, 260.0)  # of an affine that wants 0 to 255
_WHITE = 255.0
_SAME = 1e-3  # relative: of the pixels of a flat picture
_MOVES = {"Identity", "Cast", "Transpose", "Gather", "Slice", "Split", "Concat", "Unsqueeze",
          "Squeeze", "Reshape", "Dropout", "QuantizeLinear", "DequantizeLinear"}  # fmt: skip
_AFFINE = {"Sub", "Add", "Mul", "Div", "Neg", "BatchNormalization"}  # in one value that changes
_CONSTANT = {*_MOVES, *_AFFINE, "Constant", "Sqrt", "Reciprocal"}  # of constants alone


@dataclass(frozen=True)
class OwnAffine:
    """(x − centre) / width, by the three channels of the graph's input."""

    centres: tuple[float, ...]
    widths: tuple[float, ...]

    def __str__(self) -> str:
        centres, widths = (
            plain_numbers(numbers[:1] if len(set(numbers)) == 1 else numbers)
            for numbers in (self.centres, self.widths)
        )
        return f"(x − {centres}) / {widths}"

    def after(self, fed: Preprocessing) -> OwnAffine:
        """Both in one: what the pixels go through that are fed so."""
        means, stds = (np.broadcast_to(np.asarray(v, float), 3) for v in (fed.mean, fed.std))
        return OwnAffine(
            tuple((means + stds * self.centres).tolist()), tuple((stds * self.widths).tolist())
        )

    @property
    def fits_pixels(self) -> bool:
        """Whether it turns pixels from 0 to 255 into what networks are made for."""
        (low, high), (narrow, wide) = RAW_CENTRES, RAW_WIDTHS
        return all(low <= c <= high for c in self.centres) and all(
            narrow <= w <= wide for w in self.widths
        )


def read_own_affine(model: onnx.ModelProto, folder: Path, place: Place = HERE) -> OwnAffine | None:
    """The affine function of the image that a graph begins with; None where it begins otherwise.

    Args:
        model: may lack what lies in other files.
        folder: where those are.
        place: where the nodes are run.
    """
    front = _cut_front(model)
    if front is None:
        return None
    try:
        affine: OwnAffine | None = place.call(_measure_affine, front, folder)
        return affine
    except NetworkTimeoutError:
        raise
    except Exception:  # of libraries, by file content: running the whole graph says what is wrong
        return None


def _cut_front(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The graph from its image to its first layer; None where it begins with that."""
    import onnx

    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    images = [value for value in graph.input if value.name not in constants]
    if len(images) != 1:
        return None
    image = images[0].name
    changing = {image}  # what each value is: of the image by moves and affine steps alone,
    other: set[str] = set()  # or of the image in another way; the others are constants
    ends = set()
    for node in graph.node:
        inputs = [name for name in node.input if name]
        from_image = [name for name in inputs if name in changing]
        is_other = bool(other.intersection(inputs))
        if not (from_image or is_other) and node.op_type in _CONSTANT:
            continue
        if _is_straight(node, from_image) and not is_other:
            changing.update(node.output)
        else:
            ends.update(from_image)
            other.update(node.output)
    if len(ends) != 1 or image in ends:
        return None
    [end] = ends
    needed, nodes = {end}, []
    for node in reversed(graph.node):  # ONNX has them in the order of the work
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    front = onnx.helper.make_graph(
        nodes[::-1],
        "front",
        images,
        [onnx.ValueInfoProto(name=end)],
        [tensor for tensor in graph.initializer if tensor.name in needed],
    )
    return onnx.helper.make_model(
        front, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def _is_straight(node: Any, from_image: list[str]) -> bool:
    """Whether what a node gives follows the image by a move or an affine step."""
    if node.op_type in _MOVES:
        return bool(from_image)
    if node.op_type == "Div" or node.op_type == "BatchNormalization":
        return from_image == [node.input[0]]
    return node.op_type in _AFFINE and len(from_image) == 1


def _measure_affine(front: onnx.ModelProto, folder: Path) -> OwnAffine | None:
    """What the nodes do to each channel, from a black picture and one lit in that channel."""
    from onnx import external_data_helper, helper

    for tensor in front.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = tensor.DEFAULT
            del tensor.external_data[:]
    kind = front.graph.input[0].type.tensor_type
    sizes = [dim.dim_value for dim in kind.shape.dim]
    axis = 3 if has_channels_last(sizes) else 1
    sizes = [1, *(size or CROP_SIZE for size in sizes[1:])]
    sizes[axis] = 3
    black = np.zeros(sizes, helper.tensor_dtype_to_np_dtype(kind.elem_type))
    session = open_session(front, "front", threads=1)

    def run(picture: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {front.graph.input[0].name: picture})[0], np.float64)

    offsets, numbers = run(black), []
    for channel in range(3):
        lit = black.copy()
        np.moveaxis(lit, axis, 0)[channel] = _WHITE
        lifts = run(lit) - offsets
        touched = lifts != 0
        slopes, starts = lifts[touched] / _WHITE, offsets[touched]
        if not slopes.size or not (_is_flat(slopes) and _is_flat(starts)) or slopes[0] <= 0:
            return None
        numbers.append((round(-starts[0] / slopes[0], 4), round(1 / slopes[0], 4)))
    centres, widths = zip(*numbers, strict=True)
    identity = set(centres) == {0.0} and set(widths) == {1.0}
    return None if identity else OwnAffine(centres, widths)


def _is_flat(values: Any) -> bool:
    return bool(abs(values - values[0]).max() <= _SAME * max(abs(values[0]), 1e-12))
