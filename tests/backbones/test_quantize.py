"""Static int8: which layers, what the file says of itself, and how far it is from float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.backbones.test_loading import real_crops, save
from tests.conftest import absent, write_colour_network
from vidface.backbones import quantize
from vidface.backbones.export import cosine_rows
from vidface.backbones.files import read_network
from vidface.backbones.loading import load_backbone
from vidface.backbones.network import Network
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.quantize import quantize_file, quantize_network
from vidface.backbones.runtimes import RUNTIMES
from vidface.backbones.runtimes.places import HERE
from vidface.core.errors import VidfaceError
from vidface.storage.cache import sha256_of
from vidface.storage.media import open_root

FED = Preprocessing("bgr", 127.5, 64.0)

# The convolutions of a small recogniser, by the shapes of their weights, all different.
FIRST, ONE, DEPTHWISE, TWO, BEFORE, GLOBAL, LAST = (
    (8, 3, 5, 5), (12, 8, 1, 1), (12, 1, 3, 3), (16, 12, 1, 1), (20, 16, 1, 1), (20, 1, 14, 14),
    (6, 20, 1, 1),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


def write_small(path: Path, *, named: bool = True, batch: int | str = "n") -> Path:
    """A recogniser of the family's layers, PReLUs between them, made without torch."""
    rng = np.random.default_rng(0)
    layers = [
        (FIRST, {"strides": [4, 4], "pads": [2, 2, 2, 2]}),
        (ONE, {}),
        (DEPTHWISE, {"group": 12, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        (TWO, {}),
        (BEFORE, {}),
        (GLOBAL, {"group": 20}),
        (LAST, {}),
    ]
    nodes, weights, x = [], [], "x"
    for number, (shape, attributes) in enumerate(layers):
        scale = (2 / np.prod(shape[1:])) ** 0.5
        kernel = rng.normal(0, scale, shape).astype(np.float32)
        slopes = rng.uniform(-0.3, 0.6, (shape[0], 1, 1)).astype(np.float32)
        weights += [numpy_helper.from_array(kernel, f"w{number}"),
                    numpy_helper.from_array(slopes, f"a{number}")]  # fmt: skip
        made = f"c{number}"
        name = {"name": f"conv{number}"} if named else {}
        nodes.append(helper.make_node("Conv", [x, f"w{number}"], [made], **name, **attributes))
        x = f"p{number}"
        nodes.append(helper.make_node("PRelu", [made, f"a{number}"], [x]))
    nodes.append(helper.make_node("Flatten", [x], ["y"]))
    return save(path, nodes, [("x", [batch, 3, 112, 112])], [("y", [batch, 6])], weights)


def write_faces(folder: Path, count: int) -> Path:
    """Crops that differ: a colour, lighter towards one side, and some noise."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(count):
        ramp = np.linspace(0.4, 1, 112).reshape(rng.permutation([112, 1]))[..., None]
        crop = rng.uniform(40, 255, 3) * ramp * rng.uniform(0.8, 1, (112, 112, 1))
        Image.fromarray(crop.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def all_crops(folder: Path) -> np.ndarray:
    from PIL import Image

    return np.stack([np.array(Image.open(p)) for p in sorted(folder.glob("*.png"))])


def in_int8(model: onnx.ModelProto) -> set[tuple[int, ...]]:
    """The shapes of the convolutions whose weights and whose input both are rounded to int8."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    tensors = {t.name: t for t in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        rounded = [made_by.get(name) for name in node.input[:2]]
        kinds = [None if each is None else each.op_type for each in rounded]
        if kinds == ["DequantizeLinear", "DequantizeLinear"]:
            weight = tensors[rounded[1].input[0]]
            assert weight.data_type == onnx.TensorProto.INT8
            assert made_by[rounded[0].input[0]].op_type == "QuantizeLinear"
            assert len(tensors[rounded[1].input[1]].dims) == 1  # a scale a channel
            found.add(tuple(weight.dims))
        else:
            assert "DequantizeLinear" not in kinds[:1]
            assert tensors[node.input[1]].data_type == onnx.TensorProto.FLOAT
    return found


@pytest.mark.parametrize("named", [True, False])
def test_which_layers(tmp_path: Path, named: bool) -> None:
    """The first, those with a filter a channel, and what stands around the head stay float32.

    Also where nodes have no names, as an ONNX file need not give any.
    """
    path = write_small(tmp_path / "n.onnx", named=named)
    folder = write_faces(tmp_path / "faces", 8)
    model = quantize_network(read_network(path, "n"), FED, all_crops(folder))
    assert in_int8(model) == {ONE, TWO}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 7


def test_a_quantised_file(tmp_path: Path) -> None:
    path = write_small(tmp_path / "n.onnx")
    folder = write_faces(tmp_path / "faces", 24)
    (folder / "0.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("no picture")
    from PIL import Image

    Image.fromarray(np.zeros((100, 112, 3), np.uint8)).save(folder / "1.bmp")
    network = read_network(path, "n")
    done = quantize_file(network, FED, open_root(folder), tmp_path / "int8.onnx", count=12)
    assert (done.calibration_images, done.images) == (12, 12)
    assert done.path == tmp_path / "int8.onnx"
    assert done.bytes == done.path.stat().st_size
    assert done.sha256 == sha256_of(done.path) != network.sha256
    [entry] = onnx.load(done.path).metadata_props
    said = json.loads(entry.value)
    assert (said["numbers"], said["calibration_images"]) == ("int8", 12)
    assert said["made_from_sha256"] == network.sha256

    crops = all_crops(folder)
    wanted = load_backbone(path, FED, runtime="onnxruntime").embed(crops)
    for runtime in ("onnxruntime", "openvino"):
        if not RUNTIMES[runtime].is_installed:
            absent(f"{runtime} is not installed")
        small = load_backbone(done.path, runtime=runtime)
        assert (small.preprocessing, small.assumed) == (FED, False)
        assert small.sha256 == done.sha256
        found = small.embed(crops)
        cosines = cosine_rows(found, wanted)
        assert 0.99 <= cosines.min() < 0.999999  # near, and another network
        alone = np.concatenate([small.embed(crops[i : i + 1]) for i in range(6)])
        assert np.abs(alone - found[:6]).max() <= 1e-5 * np.abs(found).max(), runtime


def test_the_cosine_is_that_of_faces_not_calibrated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_small(tmp_path / "n.onnx")
    folder = write_faces(tmp_path / "faces", 16)
    seen: list[np.ndarray] = []
    real = quantize.quantize_network

    def watched(network: Network, fed: Preprocessing, crops: np.ndarray) -> onnx.ModelProto:
        seen.append(crops.copy())
        return real(network, fed, crops)

    monkeypatch.setattr(quantize, "quantize_network", watched)
    network, out = replace(read_network(path, "n"), place=HERE), tmp_path / "int8.onnx"
    done = quantize_file(network, FED, open_root(folder), out, count=8, seed=3)
    assert done.to_dict()["cosine_to_float32"] == {
        "images": 8, "mean": done.mean_cosine, "lowest": done.lowest_cosine,
    }  # fmt: skip
    calibrated = {crop.tobytes() for crop in seen[0]}
    assert len(calibrated) == 8
    held_out = np.stack([crop for crop in all_crops(folder) if crop.tobytes() not in calibrated])
    assert len(held_out) == 8
    cosines = cosine_rows(
        load_backbone(path, FED, runtime="onnxruntime").embed(held_out),
        load_backbone(out, FED, runtime="onnxruntime").embed(held_out),
    )
    # OpenVINO's int8, where `auto` took it, rounds in its own way.
    assert abs(done.mean_cosine - cosines.mean()) <= 0.2 * (1 - cosines.mean())
    assert abs(done.lowest_cosine - cosines.min()) <= 0.5 * (1 - cosines.min())

    quantize_file(network, FED, open_root(folder), out, count=8, seed=3)
    assert (seen[1] == seen[0]).all()  # the seed says which
    quantize_file(network, FED, open_root(folder), out, count=8, seed=4)
    assert {crop.tobytes() for crop in seen[2]} != calibrated


def test_calibration_is_fed_what_the_network_is_fed(tmp_path: Path) -> None:
    """Ranges of another preprocessing would cut the values off."""
    path = write_small(tmp_path / "n.onnx")
    crops = all_crops(write_faces(tmp_path / "faces", 8))
    lowest = []
    for number, fed in enumerate((FED, Preprocessing("bgr", 127.5, 4096.0))):
        out = tmp_path / f"{number}.onnx"
        out.write_bytes(quantize_network(read_network(path, "n"), fed, crops).SerializeToString())
        wanted = load_backbone(path, FED, runtime="onnxruntime").embed(crops)
        found = load_backbone(out, FED, runtime="onnxruntime").embed(crops)
        lowest.append(cosine_rows(found, wanted).min())
    assert lowest[0] > 0.99 > lowest[1]


@pytest.mark.parametrize(("batch", "faces"), [("n", 0), ("n", 2), ("n", 7)])
def test_too_few_faces(tmp_path: Path, batch: int | str, faces: int) -> None:
    path = write_small(tmp_path / "n.onnx", batch=batch)
    folder = write_faces(tmp_path / "faces", faces)
    with pytest.raises(VidfaceError, match=rf"n: {faces // 2} 112x112 face crops to calibrate on; "
                                           "at least 4 are needed, and as many again"):  # fmt: skip
        quantize_file(read_network(path, "n"), FED, open_root(folder), tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_a_few_more_than_whole_batches(tmp_path: Path) -> None:
    """11 faces: of the 5 for calibration one is left over, and is not counted as used."""
    path = write_small(tmp_path / "n.onnx")
    folder = write_faces(tmp_path / "faces", 11)
    network, out = read_network(path, "n"), tmp_path / "int8.onnx"
    done = quantize_file(network, FED, open_root(folder), out)
    assert (done.calibration_images, done.images) == (4, 6)
    assert read_network(out, "n").declaration["calibration_images"] == 4


def test_a_fixed_batch(tmp_path: Path) -> None:
    """It is freed where it can be, as in loading."""
    path = write_small(tmp_path / "n.onnx", batch=1)
    crops = all_crops(write_faces(tmp_path / "faces", 8))
    model = quantize_network(read_network(path, "n"), FED, crops)
    assert in_int8(model) == {ONE, TWO}
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_param
    assert not first.dim_value


def test_what_cannot_be_quantised(tmp_path: Path) -> None:
    """Nothing to round: a file that is called int8 and is float32 is not written."""
    crops = np.zeros((4, 112, 112, 3), np.uint8)
    pools = write_colour_network(tmp_path / "a.onnx")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    weights = numpy_helper.from_array(np.ones((5, 3, 112, 112), np.float32), "w")
    one = save(tmp_path / "b.onnx", nodes, [("x", ["n", 3, 112, 112])], [("y", ["n", 5])],
               [weights])  # fmt: skip
    for path in (pools, one):
        with pytest.raises(VidfaceError, match="weights n: cannot be quantised: it has no convol"):
            quantize_network(read_network(path, "n"), FED, crops)


@pytest.mark.slow
def test_y1_in_int8(data: Path, tmp_path: Path) -> None:
    path = data / "weights" / "insightface_y1.onnx"
    fed = Preprocessing("rgb", 0.0, 1.0)
    root = open_root(data / "images" / "faces_train112.tar")
    done = quantize_file(read_network(path, "y1"), fed, root, tmp_path / "int8.onnx", count=16)
    assert done.bytes < 0.5 * path.stat().st_size
    assert done.mean_cosine >= 0.99
    faces = real_crops(data, 40)  # other people than it was calibrated on
    wanted = load_backbone(path, fed, runtime="onnxruntime").embed(faces)
    for runtime in ("onnxruntime", "openvino"):
        cosines = cosine_rows(load_backbone(done.path, runtime=runtime).embed(faces), wanted)
        assert cosines.mean() >= 0.99, runtime
        assert cosines.max() < 0.99999, runtime
