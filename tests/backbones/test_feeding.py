"""Who says what a recogniser is fed: its record, its graph, its file, or whoever asks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import crop_of
from vidface.backbones.declarations import declare_in_graph
from vidface.backbones.feeding import decide_feed
from vidface.backbones.files import read_bare_graph
from vidface.backbones.loading import load_backbone
from vidface.backbones.own_affine import OwnAffine, read_own_affine
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.weights import weights_path
from vidface.core.errors import VidfaceError

RAW = Preprocessing("rgb", 0.0, 1.0)
USUAL = Preprocessing("rgb", 127.5, 127.5)
Node = onnx.NodeProto


def per_channel(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def normalising_graph(
    nodes: list[Node],
    constants: dict[str, np.ndarray] | None = None,
    *,
    end: str = "fed",
    as_nodes: bool = False,
    shape: tuple[int | str, ...] = ("batch", 3, 112, 112),
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """`nodes` from "x" to `end`, and behind them the mean of each channel."""
    tensors = [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    stored = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors]
    body = [
        helper.make_node("GlobalAveragePool", [end], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    graph = helper.make_graph(
        [*(stored if as_nodes else []), *nodes, *body],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 3])],
        [] if as_nodes else tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def make(operator: str, *names: str, **attributes) -> Node:
    *inputs, output = names
    return helper.make_node(operator, inputs, [output], **attributes)


SUB_MUL = [make("Sub", "x", "m", "a"), make("Mul", "a", "s", "fed")]
NUMBERS = {"m": np.float32(127.5), "s": np.float32(0.0078125)}
BY_128 = OwnAffine((127.5,) * 3, (128.0,) * 3)
IMAGENET = {"m": per_channel(123.675, 116.28, 103.53), "s": per_channel(58.395, 57.12, 57.375)}

FRONTS = {
    "initialisers": (normalising_graph(SUB_MUL, NUMBERS), BY_128),
    "Constant nodes": (normalising_graph(SUB_MUL, NUMBERS, as_nodes=True), BY_128),
    "scale, then shift": (
        normalising_graph(
            [make("Div", "x", "s", "a"), make("Add", "a", "m", "fed")],
            {"s": np.float32(127.5), "m": np.float32(-1)},
        ),
        OwnAffine((127.5,) * 3, (127.5,) * 3),
    ),
    "constants first": (
        normalising_graph(
            [make("Neg", "m", "n"), make("Add", "n", "x", "a"), make("Mul", "s", "a", "fed")],
            NUMBERS,
        ),
        BY_128,
    ),
    "to one, then ImageNet's": (
        normalising_graph(
            [make("Div", "x", "w", "u"), make("Sub", "u", "m", "a"), make("Div", "a", "s", "fed")],
            {"w": np.float32(255), **{k: v / np.float32(255) for k, v in IMAGENET.items()}},
        ),
        OwnAffine((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ),
    "channels turned": (
        normalising_graph(
            [make("Gather", "x", "o", "t", axis=1), *SUB_MUL[:0], make("Sub", "t", "m", "a"),
             make("Div", "a", "s", "fed")],
            {"o": np.array([2, 1, 0]), **IMAGENET},
        ),
        OwnAffine((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)),
    ),
    "batch norm of old exports": (
        normalising_graph(
            [make("Identity", "x", "i"),
             make("BatchNormalization", "i", "g", "b", "m", "v", "fed", epsilon=0.0)],
            {name: np.full(3, value, np.float32)
             for name, value in {"g": 1, "b": 0, "m": 120, "v": 3600}.items()},
            opset=8,
        ),
        OwnAffine((120.0,) * 3, (60.0,) * 3),
    ),
    "bytes, channels last": (
        normalising_graph(
            [make("Cast", "x", "f", to=TensorProto.FLOAT),
             make("Transpose", "f", "t", perm=[0, 3, 1, 2]),
             make("Sub", "t", "m", "a"), make("Mul", "a", "s", "fed")],
            NUMBERS,
            shape=("batch", 112, 112, 3),
            kind=TensorProto.UINT8,
        ),
        BY_128,
    ),
    "to one alone": (
        normalising_graph([make("Div", "x", "s", "fed")], {"s": np.float32(255)}),
        OwnAffine((0.0,) * 3, (255.0,) * 3),
    ),
    "nothing": (normalising_graph([make("Identity", "x", "fed")]), None),
    "no step": (
        normalising_graph(SUB_MUL, {"m": np.float32(0), "s": np.float32(1)}),
        None,
    ),
    "a picture by itself": (normalising_graph([make("Mul", "x", "x", "fed")]), None),
    "a mask": (
        normalising_graph(
            [make("Mul", "x", "s", "fed")], {"s": np.eye(112, dtype=np.float32)[None, None]}
        ),
        None,
    ),
    "one over it": (
        normalising_graph([make("Div", "s", "x", "fed")], {"s": np.float32(127.5)}),
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONTS)
def test_what_a_graph_begins_with(name: str, tmp_path: Path) -> None:
    graph, wanted = FRONTS[name]
    before = graph.SerializeToString()
    found = read_own_affine(graph, tmp_path)
    assert graph.SerializeToString() == before
    if wanted is None:
        assert found is None
    else:
        assert found is not None
        assert np.allclose([found.centres, found.widths], [wanted.centres, wanted.widths], 1e-4)


def test_constants_that_lie_in_another_file(tmp_path: Path) -> None:
    graph = normalising_graph(SUB_MUL, {k: np.full(1, v, np.float32) for k, v in NUMBERS.items()})
    path = tmp_path / "net.onnx"
    onnx.save_model(graph, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    bare = read_bare_graph(path)
    assert bare is not None
    assert read_own_affine(bare, tmp_path) == BY_128
    (tmp_path / "net.bin").unlink()
    assert read_own_affine(bare, tmp_path) is None


def save(path: Path, graph: onnx.ModelProto, declared: Preprocessing | None = None) -> str:
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    if declared is not None:
        declare_in_graph(copied, {"preprocessing": declared.to_dict()})
    onnx.save(copied, path)
    return str(path)


def test_a_graph_that_normalises_is_fed_raw_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", FRONTS["initialisers"][0])
    feed = decide_feed(path)
    assert (feed.preprocessing, feed.assumed, feed.known) == (RAW, False, False)
    assert feed.remark == (
        "net.onnx: its graph begins with (x − 127.5) / 128, so it is fed raw pixels (rgb)"
    )
    crops = np.stack([crop_of("red"), crop_of("blue")])
    wanted = (crops.mean(axis=(1, 2)) - 127.5) / 128
    assert np.allclose(load_backbone(path, threads=1).embed(crops), wanted, atol=1e-5)
    turned = decide_feed(path, Preprocessing("bgr"))  # an order of colours contradicts nothing
    assert turned.preprocessing == Preprocessing("bgr", 0.0, 1.0)
    assert decide_feed(path, RAW).remark == ""  # said, and right


@pytest.mark.parametrize("given", [USUAL, Preprocessing(mean=127.5), Preprocessing(std=128.0)])
def test_flags_that_contradict_the_graph_stop(tmp_path: Path, given: Preprocessing) -> None:
    path = save(tmp_path / "net.onnx", FRONTS["Constant nodes"][0])
    with pytest.raises(VidfaceError, match=r"\(x − 127\.5\) / 128 on raw.*twice.*--force-recog"):
        load_backbone(path, given, threads=1)
    feed = load_backbone(path, given, threads=1, force=True).feed
    assert feed.preprocessing == given.over(RAW)
    assert "(x − 127.5) / 128 on raw pixels" in feed.forced
    assert feed.remark.endswith("going on, as forced")


def test_a_file_that_contradicts_its_own_graph_stops(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", FRONTS["initialisers"][0], USUAL)
    with pytest.raises(VidfaceError, match="twice"):
        decide_feed(path)
    right = save(tmp_path / "net.onnx", FRONTS["initialisers"][0], RAW)
    assert (decide_feed(right).preprocessing, decide_feed(right).remark) == (RAW, "")


def test_a_graph_that_wants_pixels_from_0_to_1_keeps_the_flags(tmp_path: Path) -> None:
    halves = {"m": np.float32(0.5), "s": np.float32(2)}
    path = save(tmp_path / "net.onnx", normalising_graph(SUB_MUL, halves))
    feed = decide_feed(path)
    assert (feed.preprocessing, feed.assumed) == (USUAL, True)
    assert "(x − 0.5) / 0.5, which fits no pixels from 0 to 255" in feed.remark
    unit = Preprocessing("rgb", 0.0, 255.0)
    assert (decide_feed(path, unit).preprocessing, decide_feed(path, unit).remark) == (unit, "")


def test_what_is_left_out_is_the_files_own_word(tmp_path: Path) -> None:
    """`--color rgb` alone must not bring 127.5 in beside it."""
    graph = FRONTS["nothing"][0]
    path = save(tmp_path / "net.onnx", graph, Preprocessing("bgr", 120.0, 64.0))
    feed = decide_feed(path, Preprocessing("rgb"))
    assert feed.preprocessing == Preprocessing("rgb", 120.0, 64.0)
    assert "its file says bgr (x − 120) / 64; fed rgb (x − 120) / 64" in feed.remark
    silent = save(tmp_path / "net.onnx", graph)
    assert decide_feed(silent, Preprocessing("rgb")).preprocessing == USUAL
    assert not decide_feed(silent, Preprocessing("rgb")).assumed
    assert decide_feed(silent).assumed


def test_a_known_file_is_fed_as_its_name_is(tmp_path: Path, weights_at_hand: None) -> None:
    path = tmp_path / "downloaded.onnx"
    shutil.copyfile(weights_path("sface"), path)
    feed = decide_feed(str(path))
    assert (feed.preprocessing, feed.known) == (decide_feed("sface").preprocessing, True)
    assert feed.remark == "downloaded.onnx: the file of 'sface', fed rgb (x − 0) / 1"
    bgr = Preprocessing("bgr", 0.0, 1.0)  # which no graph contradicts
    with pytest.raises(VidfaceError, match=r"file of 'sface', which is fed rgb .*, not bgr"):
        decide_feed(str(path), bgr)
    assert decide_feed(str(path), bgr, force=True).forced
    light = tmp_path / "light.safetensors"
    shutil.copyfile(weights_path("light"), light)
    assert decide_feed(str(light)).known


def test_y1_is_fed_raw_pixels_unasked(data: Path) -> None:
    path = str(data / "weights" / "insightface_y1.onnx")
    assert decide_feed(path).preprocessing == RAW
    with pytest.raises(VidfaceError, match="twice"):
        decide_feed(path, USUAL)
    plain = data / "weights" / "mobilefacenet_foamliu.onnx"
    assert decide_feed(str(plain)).assumed
