"""Other shapes of recogniser: layouts, sizes, types and outputs give what the usual form gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vidface.backbones.conforming import conform_graph
from vidface.backbones.embedder import Embedder
from vidface.backbones.files import read_network
from vidface.backbones.graphs import read_onnx
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes import RUNTIMES, RuntimePlan
from vidface.backbones.runtimes.base import choose_outputs
from vidface.core.errors import VidfaceError

FED = Preprocessing("bgr", 100.0, 50.0)
RUNTIMES_HERE = [n for n in ("onnxruntime", "openvino") if RUNTIMES[n].is_installed]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


def write_graph(
    path: Path,
    *,
    size: tuple[int | str, int | str] = (112, 112),
    last: bool = False,
    kind: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("feature",),
    batch: int | str = "n",
) -> Path:
    """A recogniser solvable by eye: the mean of each quarter of the picture, as unit row and norm.

    Its outputs: `raw` (n, 12), `feature` (n, 12) of norm 1, `norm` (n, 1), `map` (n, 3, 2, 2).
    """
    shape = [batch, *size, 3] if last else [batch, 3, *size]
    nodes = [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2])
                 if last else helper.make_node("Identity", ["float"], ["planes"]))  # fmt: skip
    height, width = (side if isinstance(side, int) else 112 for side in size)
    window = [height // 2, width // 2]
    nodes += [
        helper.make_node("AveragePool", ["planes"], ["map"], kernel_shape=window, strides=window),
        helper.make_node("Flatten", ["map"], ["raw"], axis=1),
        helper.make_node("ReduceL2", ["raw"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Div", ["raw", "norm"], ["feature"]),
    ]
    shapes = {"raw": ["n", 12], "feature": ["n", 12], "norm": ["n", 1], "map": ["n", 3, 2, 2]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, shapes[o]) for o in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def embed_by_hand(crops: np.ndarray, fed: Preprocessing) -> np.ndarray:
    """(n, 12) float64: the raw embeddings of `write_graph`, by loops."""
    rows = []
    for crop in crops:
        picture = crop.astype(np.float64)[..., :: 1 if fed.color == "rgb" else -1]
        picture = (picture - fed.mean) / fed.std
        y, x = crop.shape[0] // 2, crop.shape[1] // 2
        quarters = picture[:y, :x], picture[:y, x:], picture[y:, :x], picture[y:, x:]
        rows.append([q[..., colour].mean() for colour in range(3) for q in quarters])
    return np.array(rows)


def some_crops(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *shape, 3), np.uint8)


@pytest.mark.parametrize("runtime", RUNTIMES_HERE)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [(112, 112), (112, 96), (160, 160), (224, 224)])
def test_sizes_and_layouts(tmp_path: Path, size, last: bool, runtime: str) -> None:
    path = write_graph(tmp_path / "n.onnx", size=size, last=last, outputs=("raw",))
    crops = some_crops(9, *size)
    backbone = Embedder(read_network(path, "n"), FED, plans=[RuntimePlan(runtime, threads=1)])
    assert backbone.crop_shape == (*size, 3)
    assert np.allclose(backbone.embed(crops), embed_by_hand(crops, FED), atol=1e-4)
    with pytest.raises(VidfaceError, match=rf"want \(n, {size[0]}, {size[1]}, 3\)"):
        backbone.embed(some_crops(2, 112, 111))


@pytest.mark.parametrize("runtime", RUNTIMES_HERE)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_types_of_the_input(tmp_path: Path, kind: int, last: bool, runtime: str) -> None:
    path = write_graph(tmp_path / "n.onnx", kind=kind, last=last, outputs=("raw",))
    crops = some_crops(5, 112, 112)
    as_they_are = Preprocessing("rgb", 0.0, 1.0)
    fed = FED if kind == TensorProto.FLOAT16 else as_they_are
    plans = [RuntimePlan(runtime, threads=1)]
    backbone = Embedder(read_network(path, "n"), fed, plans=plans)
    assert np.allclose(backbone.embed(crops), embed_by_hand(crops, fed), atol=2e-3)
    if kind == TensorProto.UINT8:
        assert load_backbone(path).preprocessing == as_they_are
        with pytest.raises(VidfaceError, match="takes bytes and scales them itself"):
            load_backbone(path, FED)


@pytest.mark.parametrize("runtime", RUNTIMES_HERE)
@pytest.mark.parametrize("outputs", [("feature", "norm"), ("norm", "map", "feature")])
def test_a_norm_of_its_own_is_kept(tmp_path: Path, outputs, runtime: str) -> None:
    path = write_graph(tmp_path / "n.onnx", outputs=outputs, batch=1)
    plans = [RuntimePlan(runtime, threads=1)]
    backbone = Embedder(read_network(path, "n"), FED, plans=plans)
    crops = some_crops(6, 112, 112)
    rows, norms = backbone.embed_faces(crops)
    by_hand = embed_by_hand(crops, FED)
    lengths = np.linalg.norm(by_hand, axis=1)
    assert backbone.dimension == 12
    assert rows.shape == (6, 12)
    assert np.allclose(rows, by_hand / lengths[:, None], atol=1e-5)
    assert np.allclose(norms, lengths, rtol=1e-5)
    assert (backbone.embed(crops) == rows).all()
    empty = backbone.embed_faces(crops[:0])
    assert [part.shape for part in empty] == [(0, 12), (0,)]


def test_an_embedding_that_has_to_be_named(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "n.onnx", outputs=("feature", "norm", "raw"))
    with pytest.raises(VidfaceError, match=r"several could be.*'feature' .*'raw'.*--output-name"):
        load_backbone(path, FED)
    crops = some_crops(3, 112, 112)
    rows, norms = load_backbone(path, FED, output="raw").embed_faces(crops)
    assert np.allclose(rows, embed_by_hand(crops, FED), atol=1e-4)
    assert np.allclose(norms, np.linalg.norm(rows, axis=1), rtol=1e-5)
    for name in ("map", "norm", "nothing"):
        with pytest.raises(VidfaceError, match=f"no output '{name}' of"):
            load_backbone(path, FED, output=name)


def test_outputs_by_their_shapes() -> None:
    assert choose_outputs({"a": (2, 8)}, 2, None, "w") == ("a", None)
    assert choose_outputs({"a": (2,), "b": (2, 8, 1, 1)}, 2, None, "w") == ("b", "a")
    # Of two single numbers neither is taken for the norm.
    assert choose_outputs({"a": (2, 1), "b": (2, 8), "c": (2,)}, 2, None, "w") == ("b", None)
    with pytest.raises(VidfaceError, match="w: of its outputs none is an embedding"):
        choose_outputs({"a": (2, 1), "b": (2, 8, 7, 7), "c": (1, 8), "d": ()}, 2, None, "w")


def test_an_open_size_is_said_or_112(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "n.onnx", size=("h", "w"), outputs=("raw",))
    assert load_backbone(path, FED).crop_shape == (112, 112, 3)
    fed = Preprocessing("bgr", 100.0, 50.0, size=(113, 112))
    crops = some_crops(3, 113, 112)
    assert load_backbone(path, fed).embed(crops).shape == (3, 12)
    fixed = write_graph(tmp_path / "f.onnx", size=(160, 160))
    with pytest.raises(VidfaceError, match="takes faces of 160x160 pixels, not 113x112"):
        load_backbone(fixed, fed)


def test_the_usual_form_is_left_as_it_is(tmp_path: Path) -> None:
    model = read_onnx(write_graph(tmp_path / "n.onnx"))
    assert conform_graph(model, "n").SerializeToString() == model.SerializeToString()


def test_several_inputs_are_refused_by_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"]),
        helper.make_node("Add", ["f", "l"], ["y"]),
    ]
    inputs = [("image", ["n", 3, 112, 112]), ("l", ["n", 37632])]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 37632])
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", infos, [y])), tmp_path / "n.onnx")
    with pytest.raises(VidfaceError, match=r"2 inputs \('image' .*'l' .*a recogniser takes one"):
        load_backbone(tmp_path / "n.onnx")


def test_the_same_network_in_another_layout_is_quantised(tmp_path: Path) -> None:
    """What is written again keeps layout, size and outputs."""
    from vidface.backbones.quantize import quantize_network

    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["c"], strides=[8, 8]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
        helper.make_node("ReduceL2", ["y"], ["norm"], axes=[1], keepdims=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 112, 96, 3])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d])
               for n, d in (("norm", 1), ("y", 8))]  # fmt: skip
    weights = {"w": rng.normal(size=(8, 3, 8, 8)), "v": rng.normal(size=(8, 8, 1, 1))}
    graph = helper.make_graph(
        nodes, "g", [image], outputs,
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "n.onnx")
    fed = Preprocessing(size=(112, 96))
    crops = some_crops(12, 112, 96)
    network = read_network(tmp_path / "n.onnx", "n")
    onnx.save(quantize_network(network, fed, crops), tmp_path / "int8.onnx")
    small = load_backbone(tmp_path / "int8.onnx")
    assert (small.preprocessing, small.assumed) == (fed, False)
    rows, norms = load_backbone(tmp_path / "n.onnx", fed).embed_faces(crops)
    small_rows, small_norms = small.embed_faces(crops)
    cosines = (rows * small_rows).sum(axis=1) / norms / small_norms
    assert cosines.min() > 0.99
