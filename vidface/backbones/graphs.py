"""ONNX graphs, read, checked and rewritten for running: batch, preprocessing, PReLU.

Every function gives a new graph; what it was given is not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.backbones.runtimes.base import WITH_NORM
from vidface.core.errors import VidfaceError, first_line
from vidface.core.values import CROP_SIZE
from vidface.storage.cache import sha256_of

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from vidface.backbones.preprocessing import Preprocessing


MAX_BYTES = 2**31  # of a graph with its weights: protobuf writes no more


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model of an ONNX file, weights listed as inputs dropped from that list.

    Old exports (SFace among them) list their weights as inputs too, which keeps runtimes from
    folding batch norm: without, SFace was 1.25 times as fast, with equal embeddings.

    Raises:
        VidfaceError: no such file, not ONNX, or cut off.
    """
    import onnx

    try:
        model = load_graph_alone(path)
        outside_bytes = sum(_claimed_bytes(tensor, path) for tensor in _outside_tensors(model))
        _check_size(path, path.stat().st_size + outside_bytes)
        onnx.load_external_data_for_model(model, str(path.parent))
        if next(_outside_tensors(model), None) is not None:
            raise VidfaceError(
                f"weights {path}: weights of a kind that lies in no other file are said to lie in "
                "one; export the network again, with all weights inside"
            )
    except FileNotFoundError:
        raise VidfaceError(f"weights {path}: no such file") from None
    except VidfaceError:
        raise
    except Exception as error:  # protobuf's DecodeError and onnx's own, by file content
        raise VidfaceError(
            f"weights {path}: not an ONNX file, or cut off ({first_line(error)})"
        ) from None
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise VidfaceError(f"weights {path}: not an ONNX file, or cut off (no graph in it)")
    drop_weight_inputs(model)
    _check_nodes(model.graph, path)
    return model


def load_graph_alone(path: Path) -> onnx.ModelProto:
    """An ONNX file as it is, without what lies in others beside it.

    Raises:
        VidfaceError: it is too large. Any other error: it can't be read.
    """
    import onnx

    _check_size(path, path.stat().st_size)
    return onnx.load(str(path), load_external_data=False)


def _check_size(path: Path, n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise VidfaceError(
            f"weights {path}: {n_bytes / 2**30:.3g} GiB, with what it claims of files beside it; "
            f"ONNX graphs of up to {MAX_BYTES / 2**30:g} GiB can be run"
        )


_LEAST_INPUTS = {"Conv": 2, "QLinearConv": 4, "Gemm": 2, "MatMul": 2, "PRelu": 2, "Identity": 1}


def _check_nodes(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse what those who look into nodes and tensors rely on not to be."""
    from onnx import helper as onnx_types
    from onnx import numpy_helper

    for number, node in enumerate(graph.node):
        if len(node.input) < _LEAST_INPUTS.get(node.op_type, 0) or not node.output:
            raise VidfaceError(
                f"weights {path}: node {number} ({node.op_type[:40]}) lacks an input or an output; "
                "the file is damaged, export it again"
            )
    slopes = {node.input[1] for node in graph.node if node.op_type == "PRelu"}
    for name, tensor in stored_tensors(graph).items():
        try:
            onnx_types.tensor_dtype_to_np_dtype(tensor.data_type)
            if name in slopes:
                numpy_helper.to_array(tensor)
        except (ValueError, KeyError, TypeError) as error:
            raise VidfaceError(
                f"weights {path}: tensor '{name[:80]}' is damaged ({first_line(error)}); "
                "export the file again"
            ) from None


def drop_weight_inputs(model: onnx.ModelProto) -> None:
    """Leave a graph its inputs proper, without the weights that old exports list; in place."""
    weights = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(images)


def onnx_sha256(path: Path) -> str:
    """The hash of an ONNX file and of the files beside it that hold its weights, if any do."""
    from onnx.external_data_helper import ExternalDataInfo

    own = sha256_of(path)
    try:
        model = load_graph_alone(path)
        outside = sorted({ExternalDataInfo(t).location for t in _outside_tensors(model)})
        parts = [path.parent / name for name in outside]
        if not parts or not all(part.is_file() for part in parts):  # nor endless devices
            return own
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in outside):
            return own  # out of the folder: loading it refuses that
        hashes = [own, *map(sha256_of, parts)]
    except Exception:  # not a whole ONNX file: loading it says so
        return own
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def all_tensors(graph: Any) -> Iterator[Any]:
    """Every tensor in a graph or a function, those in the bodies of If, Loop and Scan too."""
    yield from getattr(graph, "initializer", ())
    sparse = list(getattr(graph, "sparse_initializer", ()))
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from [attribute.t, *attribute.tensors]
        sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        for body in (attribute.g, *attribute.graphs):
            yield from all_tensors(body)
    for each in sparse:
        yield from (each.values, each.indices)


def _outside_tensors(model: onnx.ModelProto) -> Iterator[Any]:
    """The tensors whose numbers lie in other files."""
    from onnx.external_data_helper import uses_external_data

    for graph in (model.graph, *model.functions):
        yield from filter(uses_external_data, all_tensors(graph))


def _claimed_bytes(tensor: Any, path: Path) -> int:
    """What a tensor of a model at `path` claims of another file: to its end, where it says none."""
    from onnx.external_data_helper import ExternalDataInfo

    info = ExternalDataInfo(tensor)
    if info.length is not None:
        return int(info.length)
    return max(0, (path.parent / info.location).stat().st_size - (info.offset or 0))


def copy_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model that can be changed."""
    twin = type(model)()
    twin.CopyFrom(model)
    return twin


def fix_batch(
    model: onnx.ModelProto, batch: int, size: tuple[int, int] = (CROP_SIZE, CROP_SIZE)
) -> onnx.ModelProto:
    """The graph with its input fixed to (batch, 3, height, width): fixed graphs run faster.

    Height and width are `size` where the graph leaves them open.
    """
    fixed = copy_graph(model)
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    for number, (dim, wanted) in enumerate(zip(dims, (batch, 3, *size), strict=False)):
        dim.dim_value = wanted if number < 2 or dim.dim_value <= 0 else dim.dim_value
    for value in fixed.graph.output:  # an output need not declare a shape
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.dim_value = batch
    del fixed.graph.value_info[:]
    return fixed


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its batch left open, for files that others will run."""
    freed = copy_graph(model)
    for value in (*freed.graph.input, *freed.graph.output):
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.dim_param = "batch"
    del freed.graph.value_info[:]
    return freed


def inferred_shapes(model: onnx.ModelProto, name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of all values that follow from the input's, by name."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:
        raise VidfaceError(f"weights {name}: its shapes do not fit ({first_line(error)})") from None
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def with_preprocessing(model: onnx.ModelProto, wanted: Preprocessing) -> onnx.ModelProto:
    """The graph with its preprocessing in front: it takes crops, (n, height, width, 3) uint8 RGB.

    Element by element what `Preprocessing.apply` does, so that nothing is done per image in Python
    and a batch crosses into the runtime as bytes.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    changed = copy_graph(model)
    graph = changed.graph
    image = graph.input[0]
    first = image.type.tensor_type.shape.dim[0]
    batch = first.dim_value if first.HasField("dim_value") else first.dim_param or "batch"
    shape = [batch, *wanted.shape]
    nodes = [
        helper.make_node("Cast", ["vidface_crops"], ["vidface_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["vidface_float"], ["vidface_planes"], perm=[0, 3, 1, 2]),
    ]
    steps = []
    if wanted.color == "bgr":
        order = numpy_helper.from_array(np.array([2, 1, 0], np.int64), "vidface_order")
        graph.initializer.append(order)
        steps.append(("Gather", order.name, {"axis": 1}))
    for operator, value, neutral in (("Sub", wanted.mean, 0), ("Div", wanted.std, 1)):
        numbers = np.asarray(value, np.float32).reshape(-1, 1, 1)
        if np.any(numbers != neutral):
            constant = numpy_helper.from_array(numbers, f"vidface_{operator.lower()}")
            graph.initializer.append(constant)
            steps.append((operator, constant.name, {}))
    for number, (operator, constant_name, attributes) in enumerate(steps):
        source, target = nodes[-1].output[0], f"vidface_step{number}"
        nodes.append(helper.make_node(operator, [source, constant_name], [target], **attributes))
    nodes[-1].output[0] = image.name
    rest = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *rest])
    graph.input.append(helper.make_tensor_value_info("vidface_crops", TensorProto.UINT8, shape))
    return changed


def join_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose norm, if it gives one, is the last column of its embeddings."""
    from onnx import TensorProto, helper

    if len(model.graph.output) < 2:
        return model
    joined = copy_graph(model)
    graph = joined.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value or "n"
    for value in graph.output:
        flat, number = f"{value.name}_flat", f"{value.name}_float"
        graph.node.append(helper.make_node("Flatten", [value.name], [flat], axis=1))
        graph.node.append(helper.make_node("Cast", [flat], [number], to=TensorProto.FLOAT))
    columns = [f"{value.name}_float" for value in graph.output]
    graph.node.append(helper.make_node("Concat", columns, [WITH_NORM], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(WITH_NORM, TensorProto.FLOAT, [batch, None]))
    return joined


def split_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLU as max(x, 0) − a · max(−x, 0), in operators that keep ONNX Runtime's blocked layout.

    Its fast convolutions keep channels in blocks of 8 or 16, but it has no PReLU for that layout
    and moves every picture out of it and back again: on the paper's network half of the time. Relu,
    depthwise 1x1 convolutions and Add stay inside, and both products are exact, as PReLU's is.
    A PReLU whose slopes are not constants, one a channel, stays as it is.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    changed = copy_graph(model)
    graph = changed.graph
    constants = prelu_slopes(graph)
    shapes = inferred_shapes(changed, "graph")
    nodes, minus_ones = [], set()
    for number, node in enumerate(graph.node):
        slopes = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        x_shape = shapes.get(node.input[0], ()) if slopes is not None else ()
        a_channel = slopes is not None and len(x_shape) == 4 and slopes.size == x_shape[1]
        if slopes is None or not a_channel or slopes.shape[-3:] != (x_shape[1], 1, 1):
            nodes.append(node)
            continue
        channels = x_shape[1]
        negate, name = f"vidface_minus_{channels}", f"vidface_prelu{number}"
        kernels = [(f"{name}_slopes", -slopes.reshape(channels, 1, 1, 1).astype(np.float32))]
        if negate not in minus_ones:
            minus_ones.add(negate)
            kernels.append((negate, np.full((channels, 1, 1, 1), -1, np.float32)))
        graph.initializer.extend(numpy_helper.from_array(a, label) for label, a in kernels)
        x, depthwise = node.input[0], {"group": channels, "kernel_shape": [1, 1]}
        nodes += [
            helper.make_node("Relu", [x], [f"{name}_above"]),
            helper.make_node("Conv", [x, negate], [f"{name}_turned"], **depthwise),
            helper.make_node("Relu", [f"{name}_turned"], [f"{name}_below"]),
            helper.make_node(
                "Conv", [f"{name}_below", f"{name}_slopes"], [f"{name}_sloped"], **depthwise
            ),
            helper.make_node("Add", [f"{name}_sloped", f"{name}_above"], list(node.output)),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def prelu_slopes(graph: Any) -> dict[str, np.ndarray]:
    """The constant slopes of PReLUs: initialisers, Constant nodes, and what merely names them."""
    from onnx import numpy_helper

    tensors = stored_tensors(graph)
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    wanted = {node.input[1] for node in graph.node if node.op_type == "PRelu"}
    return {name: numpy_helper.to_array(t) for name, t in tensors.items() if name in wanted}


def stored_tensors(graph: Any) -> dict[str, Any]:
    """The tensors that a graph holds, by the value's name: initialisers and Constant nodes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
    return tensors
