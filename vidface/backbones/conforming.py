"""Strangers' graphs made alike: one image (n, 3, height, width) in, the embedding out first.

Other layouts and types of the image become nodes in front of the graph; of several outputs the
embedding is chosen, and a network's own norm kept behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vidface.backbones.graphs import copy_graph, fix_batch
from vidface.backbones.runtimes.base import choose_outputs, library_errors
from vidface.backbones.runtimes.places import HERE, Place
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE

if TYPE_CHECKING:
    import onnx

    from vidface.backbones.preprocessing import Preprocessing

_PLANES, _IMAGE = "vidface_image", "vidface_image_cast"  # values that are put in front


def conform_graph(
    model: onnx.ModelProto, name: str, output: str | None = None, place: Place = HERE
) -> onnx.ModelProto:
    """The graph with one float32 input (n, 3, h, w); out comes the embedding, then any norm.

    Args:
        model: as the file has it; a graph of that form already is given back as it is.
        output: the embedding's name, where several outputs could be it.
        place: where it is run, if it has to be.

    Raises:
        VidfaceError: several inputs, none that is an image of three colours, or an output that
            has to be named.
    """
    from onnx import TensorProto, helper

    inputs = model.graph.input
    if len(inputs) != 1:
        names = ", ".join(f"'{value.name}' {_shape(value)}" for value in inputs)
        raise VidfaceError(
            f"weights {name}: {len(inputs)} inputs ({names}); a recogniser takes one image. Export "
            "it with the others built in, or call it from Python: load_backbone(function)"
        )
    image, shape = inputs[0], _shape(inputs[0])
    kind = image.type.tensor_type.elem_type
    types = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
    channels_last = has_channels_last(shape)
    colours = shape[3 if channels_last else 1] if len(shape) == 4 else 0
    if colours not in (3, None) or kind not in types:
        known = {number: text.lower() for text, number in TensorProto.DataType.items()}
        dims = [d.dim_value or d.dim_param or "?" for d in image.type.tensor_type.shape.dim]
        raise VidfaceError(
            f"weights {name}: input {dims} of {known.get(kind, 'an unknown type')}; "
            "a recogniser takes (n, 3, height, width) or (n, height, width, 3) float32, float16 "
            "or uint8"
        )
    conformed, nodes = copy_graph(model), []
    graph = conformed.graph
    if channels_last:
        nodes.append(helper.make_node("Transpose", [_PLANES], [_IMAGE], perm=[0, 2, 3, 1]))
    if kind != TensorProto.FLOAT:
        source = _IMAGE if nodes else _PLANES
        nodes.append(helper.make_node("Cast", [source], [image.name], to=kind))
    if nodes:
        nodes[-1].output[0] = image.name
        dims = [shape[0] or "n", 3, *(shape[1:3] if channels_last else shape[2:])]
        rest = list(graph.node)
        del graph.node[:], graph.input[:]
        graph.node.extend([*nodes, *rest])
        graph.input.append(helper.make_tensor_value_info(_PLANES, TensorProto.FLOAT, dims))
    if len(graph.output) > 1 or output is not None:
        _keep_outputs(conformed, name, output, place)
    return conformed


def fit_to_graph(fed: Preprocessing, model: onnx.ModelProto, name: str) -> Preprocessing:
    """The preprocessing in the size that a graph fixes; one that takes bytes gets them as they are.

    Args:
        model: as the file has it, or conformed.

    Raises:
        VidfaceError: another size was said, or bytes cannot be what was said.
    """
    size = crop_size(model)
    if size not in (None, fed.shape[:2]):
        have, fed = fed, fed.saying(size=size)
        if "size" in have.said:
            raise VidfaceError(
                f"weights {name}: takes faces of {fed.size_text} pixels, not {have.size_text}; "
                "leave the size out"
            )
    if _takes_bytes(model) and (fed.mean, fed.std) != (0, 1):
        if fed.said & {"mean", "std"}:
            raise VidfaceError(
                f"weights {name}: takes bytes and scales them itself; leave mean and std out"
            )
        fed = fed.saying(mean=0.0, std=1.0)
    return fed


def _takes_bytes(model: onnx.ModelProto) -> bool:
    """Whether the image is of bytes, in a graph as its file has it or conformed."""
    from onnx import TensorProto

    kinds = [value.type.tensor_type.elem_type for value in model.graph.input]
    for node in model.graph.node[:2]:
        if node.op_type == "Cast" and node.input[0] in (_PLANES, _IMAGE):
            kinds += [attribute.i for attribute in node.attribute if attribute.name == "to"]
    return TensorProto.UINT8 in kinds


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """The batch size that a conformed graph fixes, or None."""
    return _shape(model.graph.input[0])[0]


def has_channels_last(shape: Sequence[int | None]) -> bool:
    """Whether an image input of this shape (0 or None: left open) is (n, height, width, 3)."""
    return len(shape) == 4 and shape[3] == 3 and shape[1] != 3


def crop_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    """Height and width of the faces that a graph fixes, or None."""
    shape = _shape(model.graph.input[0]) if len(model.graph.input) == 1 else []
    if len(shape) != 4:
        return None
    height, width = shape[1:3] if has_channels_last(shape) else shape[2:]
    return (height, width) if height and width else None


def _keep_outputs(model: onnx.ModelProto, name: str, output: str | None, place: Place) -> None:
    """Leave a graph its embedding and its norm, in this order; in place. It is run to see them."""
    batch = fixed_batch(model) or 2
    shapes = place.call(_output_shapes, model, name, batch)
    chosen = choose_outputs(shapes, batch, output, f"weights {name}")
    values = {value.name: value for value in model.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(values[key] for key in chosen if key is not None)


def _output_shapes(model: onnx.ModelProto, name: str, batch: int) -> dict[str, tuple[int, ...]]:
    """The shapes of what a graph gives for black faces, by name."""
    import numpy as np

    image = model.graph.input[0]
    shape = batch, 3, *(crop_size(model) or (CROP_SIZE, CROP_SIZE))
    session = open_session(fix_batch(model, batch, shape[2:]), name, threads=1)
    with library_errors(f"weights {name}"):
        results = session.run(None, {image.name: np.zeros(shape, np.float32)})
    names = [value.name for value in model.graph.output]
    return {key: np.shape(result) for key, result in zip(names, results, strict=True)}


def _shape(value: Any) -> list[int | None]:
    """The dimensions of a value; None where they are open."""
    dims = value.type.tensor_type.shape.dim  # some exporters write -1 of an open one
    return [d.dim_value if d.dim_value > 0 else None for d in dims]
