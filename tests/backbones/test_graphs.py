"""ONNX graphs rewritten for running: each rewriting gives the numbers of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.backbones.test_loading import save
from tests.conftest import absent, crop_of, write_colour_network
from vidface.backbones.conforming import fixed_batch
from vidface.backbones.graphs import (
    fix_batch,
    free_batch,
    inferred_shapes,
    read_onnx,
    split_prelu,
    with_preprocessing,
)
from vidface.backbones.loading import load_backbone
from vidface.backbones.network import Network
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes import RUNTIMES

PREPROCESSINGS = [
    Preprocessing("rgb", 0.0, 1.0),
    Preprocessing("bgr", 0.0, 1.0),
    Preprocessing("rgb", 127.5, 127.5),
    Preprocessing("bgr", 127.5, 128.0),
    Preprocessing("rgb", (127.5,), (127.5,)),
    Preprocessing("rgb", (123.68, 116.78, 103.94), (58.4, 57.12, 57.38)),
    Preprocessing("bgr", (103.94, 116.78, 123.68), (57.38, 57.12, 58.4)),
    Preprocessing("bgr", (0, 0, 5), 1),
    Preprocessing("rgb", np.float64(127.3), np.float64(0.3)),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Every value of a byte in every channel; red, green and blue differ."""
    made = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3), np.uint8)
    made[0, 0, :, :] = np.arange(112)[:, None] + np.array([0, 72, 144])
    made[0, 1, :, :] = np.arange(144, 256)[:, None] - np.array([0, 72, 144])
    return made


def run(model: onnx.ModelProto, *inputs: np.ndarray) -> np.ndarray:
    """ONNX Runtime with all of its own rewriting switched off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [value.name for value in session.get_inputs()]
    [output] = session.run(None, dict(zip(names, inputs, strict=True)))
    return output


def graph_of(nodes, initializers=(), *, shape=(2, 3, 112, 112), out=None) -> onnx.ModelProto:
    """A model from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out or shape)],
        initializer=[numpy_helper.from_array(a, name) for name, a in initializers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("fed", PREPROCESSINGS, ids=str)
def test_preprocessing_in_the_graph_is_that_of_numpy(crops: np.ndarray, fed: Preprocessing) -> None:
    """Bit for bit, on a graph that hands its input on."""
    plain = graph_of([helper.make_node("Identity", ["x"], ["y"])])
    before = plain.SerializeToString()
    model = with_preprocessing(plain, fed)
    onnx.checker.check_model(model)
    assert plain.SerializeToString() == before
    found = run(model, crops)
    wanted = fed.apply(crops)
    assert found.dtype == wanted.dtype == np.float32
    assert (found == wanted).all()
    [image] = model.graph.input
    assert image.type.tensor_type.elem_type == TensorProto.UINT8


def test_preprocessing_by_eye() -> None:
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    crop[...] = (255, 128, 0)
    by_channel = Preprocessing("bgr", (1.0, 2.0, 3.0), (1.0, 2.0, 4.0))  # in the order as fed
    planes = by_channel.apply(crop)
    assert planes.shape == (1, 3, 112, 112)
    assert planes[0, :, 5, 7].tolist() == [-1, 63, 63]


@pytest.mark.parametrize("batch", [1, 2, "n", None])
def test_preprocessing_keeps_the_batch(crops: np.ndarray, batch) -> None:
    plain = graph_of([helper.make_node("Identity", ["x"], ["y"])], shape=(batch, 3, 112, 112))
    model = with_preprocessing(plain, PREPROCESSINGS[3])
    n = batch if isinstance(batch, int) else 2
    assert (run(model, crops[:n]) == PREPROCESSINGS[3].apply(crops[:n])).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("fed", PREPROCESSINGS, ids=str)
def test_every_runtime_is_fed_alike(
    tmp_path: Path, crops: np.ndarray, fed: Preprocessing, runtime: str
) -> None:
    """The colour network's mean is taken in another order by each: equal but for rounding."""
    import torch

    from vidface.backbones.embedder import Embedder

    class Colour(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    if not RUNTIMES[runtime].is_installed:
        absent(f"{runtime} is not installed")
    if runtime == "torch":
        backbone = Embedder(Network("colour", "0", module=Colour()), fed, runtime="torch")
    else:
        path = write_colour_network(tmp_path / "n.onnx")
        backbone = load_backbone(path, fed, runtime=runtime)
    wanted = fed.apply(crops).mean(axis=(2, 3), dtype=np.float64)
    assert np.abs(backbone.embed(crops) - wanted).max() <= 1e-5 * np.abs(fed.apply(crops)).max()


SLOPES = np.array([-0.7, 1.9, 0.0], np.float32)
SLOPE_FORMS = {
    "(c, 1, 1)": SLOPES.reshape(3, 1, 1),
    "(1, c, 1, 1)": SLOPES.reshape(1, 3, 1, 1),
}


@pytest.fixture(scope="module")
def numbers() -> np.ndarray:
    """(2, 3, 112, 112): both signs, both zeros, the smallest and the largest."""
    made = np.random.default_rng(2).normal(0, 3, (2, 3, 112, 112)).astype(np.float32)
    made[:, :, 0, :6] = [0.0, -0.0, 1e-45, -1e-45, 3e38, -1e38]
    return made


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def check_split(model: onnx.ModelProto, numbers: np.ndarray, prelus: int) -> onnx.ModelProto:
    """The split graph of a model: `prelus` PReLUs gone, the same numbers, the model as it was."""
    before = model.SerializeToString()
    split = split_prelu(model)
    onnx.checker.check_model(split)
    assert model.SerializeToString() == before
    assert kinds(split).count("PRelu") == kinds(model).count("PRelu") - prelus
    assert kinds(split).count("Add") == kinds(model).count("Add") + prelus
    assert (run(split, numbers) == run(model, numbers)).all()
    return split


@pytest.mark.parametrize("form", SLOPE_FORMS)
def test_prelu_by_eye(numbers: np.ndarray, form: str) -> None:
    """Slopes below 0, above 1 and 0."""
    model = graph_of([helper.make_node("PRelu", ["x", "a"], ["y"])], [("a", SLOPE_FORMS[form])])
    split = check_split(model, numbers, 1)
    wanted = np.where(numbers > 0, numbers, np.minimum(numbers, 0) * SLOPES.reshape(3, 1, 1))
    assert (run(split, numbers) == wanted).all()


def test_slopes_in_nodes_and_under_other_names(numbers: np.ndarray) -> None:
    constant = numpy_helper.from_array(SLOPES.reshape(3, 1, 1))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Identity", ["c"], ["d"]),
        helper.make_node("Identity", ["d"], ["e"]),
        helper.make_node("Identity", ["a"], ["f"]),
        helper.make_node("PRelu", ["x", "c"], ["p"]),
        helper.make_node("Neg", ["p"], ["q"]),
        helper.make_node("PRelu", ["q", "e"], ["r"]),
        helper.make_node("Neg", ["r"], ["s"]),
        helper.make_node("PRelu", ["s", "f"], ["y"]),
    ]
    model = graph_of(nodes, [("a", (SLOPES + 1).reshape(3, 1, 1))])
    check_split(model, numbers, 3)


def test_slopes_that_two_share(numbers: np.ndarray) -> None:
    """And two widths in one graph."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("PRelu", ["x", "a"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["q"]),
        helper.make_node("PRelu", ["q", "b"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["s"]),
        helper.make_node("PRelu", ["s", "a"], ["y"]),
    ]
    weights = [
        ("a", SLOPES.reshape(3, 1, 1)),
        ("b", rng.normal(size=(5, 1, 1)).astype(np.float32)),
        ("w", rng.normal(size=(5, 3, 1, 1)).astype(np.float32)),
        ("v", rng.normal(size=(3, 5, 1, 1)).astype(np.float32)),
    ]
    check_split(graph_of(nodes, weights), np.clip(numbers, -100, 100), 3)


LEFT_ALONE = {
    "a slope for all": np.full((1,), 0.3, np.float32),
    "a slope for all, three axes": np.full((1, 1, 1), 0.3, np.float32),
    "a slope a column": np.linspace(-1, 2, 112, dtype=np.float32),
    "a slope a row": np.linspace(-1, 2, 112, dtype=np.float32).reshape(112, 1),
    "a slope a number": np.linspace(-1, 2, 3 * 112 * 112, dtype=np.float32).reshape(3, 112, 112),
    "a slope a picture": np.array([0.5, -2], np.float32).reshape(2, 1, 1, 1),
    "slopes a picture": np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1),
}


@pytest.mark.parametrize("kind", LEFT_ALONE)
def test_other_slopes_are_left_alone(numbers: np.ndarray, kind: str) -> None:
    model = graph_of([helper.make_node("PRelu", ["x", "a"], ["y"])], [("a", LEFT_ALONE[kind])])
    assert kinds(check_split(model, numbers, 0)) == ["PRelu"]


def test_slopes_of_as_many_columns_as_channels_are_left_alone() -> None:
    model = graph_of([helper.make_node("PRelu", ["x", "a"], ["y"])], [("a", SLOPES)],
                     shape=(2, 3, 5, 3))  # fmt: skip
    numbers = np.random.default_rng(6).normal(size=(2, 3, 5, 3)).astype(np.float32)
    assert kinds(check_split(model, numbers, 0)) == ["PRelu"]


def test_slopes_that_are_computed_are_left_alone(numbers: np.ndarray) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["a"], axes=[0, 2, 3], keepdims=1),
        helper.make_node("PRelu", ["x", "a"], ["y"]),
    ]
    assert kinds(check_split(graph_of(nodes), np.clip(numbers, -9, 9), 0)) == ["ReduceMax", "PRelu"]


def test_prelu_of_vectors_is_left_alone() -> None:
    nodes = [helper.make_node("PRelu", ["x", "a"], ["y"])]
    model = graph_of(nodes, [("a", SLOPES)], shape=(4, 3))
    check_split(model, np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32), 0)
    cube = graph_of(nodes, [("a", SLOPES.reshape(3, 1, 1))], shape=(4, 3, 1))
    assert kinds(split_prelu(cube)) == ["PRelu"]


@pytest.mark.parametrize("batch", ["n", 4])
def test_split_networks_embed_alike(tmp_path: Path, batch: int | str) -> None:
    """Through the whole of loading: the plan with split PReLUs against the one without."""
    from vidface.backbones.embedder import Embedder
    from vidface.backbones.files import read_network
    from vidface.backbones.runtimes import RuntimePlan

    nodes = [
        helper.make_node("PRelu", ["x", "a"], ["p"]),
        helper.make_node("GlobalAveragePool", ["p"], ["f"]),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    slopes = numpy_helper.from_array(SLOPES.reshape(3, 1, 1), "a")
    path = save(tmp_path / "n.onnx", nodes, [("x", [batch, 3, 112, 112])], [("y", [batch, 3])],
                [slopes])  # fmt: skip
    fed = Preprocessing("rgb", 127.5, 1.0)
    crops = np.stack([crop_of("red"), crop_of("green"), crop_of("blue")])
    planes = fed.apply(crops)
    wanted = np.where(planes > 0, planes, planes * SLOPES.reshape(3, 1, 1)).mean(axis=(2, 3))
    for split in (False, True):
        network = read_network(path, "n")
        backbone = Embedder(network, fed, plans=[RuntimePlan("onnxruntime", split_prelu=split)])
        assert np.allclose(backbone.embed(crops), wanted, atol=1e-4), split


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_batches_are_fixed_and_freed(tmp_path: Path) -> None:
    model = read_onnx(write_colour_network(tmp_path / "n.onnx", batch=5))
    before = model.SerializeToString()
    for changed, batch in ((fix_batch(model, 7), 7), (free_batch(model), "batch")):
        assert shape_of(changed.graph.input[0]) == [batch, 3, 112, 112]
        assert shape_of(changed.graph.output[0]) == [batch, 3]
        onnx.checker.check_model(changed, full_check=True)
    assert model.SerializeToString() == before
    assert fixed_batch(model) == 5
    assert fixed_batch(fix_batch(model, 7)) == 7
    assert fixed_batch(free_batch(model)) is None


def test_a_batch_of_a_name_fixes_the_rest_too(tmp_path: Path) -> None:
    """Some exports leave height and width open as well."""
    model = graph_of(
        [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"],
         ["y"])], shape=("n", "c", "h", "w"), out=("n", "d"))  # fmt: skip
    assert fixed_batch(model) is None
    assert shape_of(fix_batch(model, 2).graph.input[0]) == [2, 3, 112, 112]
    onnx.save(model, tmp_path / "n.onnx")
    crops = np.stack([crop_of("red"), crop_of("blue")])
    backbone = load_backbone(tmp_path / "n.onnx", Preprocessing("rgb", 0.0, 1.0))
    assert np.allclose(backbone.embed(crops), crops.mean(axis=(1, 2)), atol=1e-3)


def test_shapes_follow_from_the_inputs() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["p"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["q"]),
        helper.make_node("Flatten", ["q"], ["y"]),
    ]
    model = graph_of(nodes, [("w", np.zeros((5, 3, 2, 2), np.float32))], out=(2, 5))
    shapes = inferred_shapes(model, "n")
    assert shapes == {"x": (2, 3, 112, 112), "w": (5, 3, 2, 2), "p": (2, 5, 56, 56),
                      "q": (2, 5, 1, 1), "y": (2, 5)}  # fmt: skip
