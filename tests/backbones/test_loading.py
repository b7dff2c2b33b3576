"""What may be loaded as a recogniser, and what it is fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import crop_of, write_colour_network
from vidface.backbones.loading import load_backbone
from vidface.backbones.network import MICRO_BATCH
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError

PLAIN = Preprocessing("rgb", 0.0, 1.0)


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> None:
    """Trials and exports of a test go into a cache of its own."""
    if "weights_at_hand" not in request.fixturenames:
        monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


def save(path: Path, nodes, inputs, outputs, initializers=()) -> Path:
    import onnx
    from onnx import TensorProto, helper

    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in group]
             for group in (inputs, outputs)]  # fmt: skip
    graph = helper.make_graph(nodes, "g", *infos, initializer=list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def real_crops(data: Path, count: int) -> np.ndarray:
    """(count, 112, 112, 3) uint8: faces of LFW, as far apart in its tar as they can be."""
    from vidface.storage.images import decode_image
    from vidface.storage.media import TarRoot

    root = TarRoot(data / "images" / "lfw_aligned112.tar")
    names = root.all_images()
    chosen = [names[i * len(names) // count] for i in range(count)]
    return np.stack([decode_image(root.read(name), name) for name in chosen])


def test_embedding_by_eye(colour_network: Path) -> None:
    """A flat colour's embedding is the colour, as the network is fed it."""
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    crop[...] = (255, 128, 0)
    assert load_backbone(colour_network, PLAIN).embed(crop).tolist() == [[255, 128, 0]]
    bgr = Preprocessing("bgr", 0.0, 1.0)
    assert load_backbone(colour_network, bgr).embed(crop).tolist() == [[0, 128, 255]]
    scaled = Preprocessing("rgb", 127.5, 127.5)
    [row] = load_backbone(colour_network, scaled).embed(crop)
    assert np.allclose(row, [1, 0.5 / 127.5, -1], atol=1e-6)
    by_channel = Preprocessing("bgr", (1.0, 2.0, 3.0), (1.0, 2.0, 4.0))  # in the order as fed
    [row] = load_backbone(colour_network, by_channel).embed(crop)
    assert np.allclose(row, [-1, 63, 63])


def test_nobody_says_what_it_is_fed(colour_network: Path) -> None:
    backbone = load_backbone(colour_network)
    assert backbone.assumed
    assert backbone.preprocessing == Preprocessing("rgb", 127.5, 127.5)
    assert "assumed" in str(backbone)
    assert not load_backbone(colour_network, PLAIN).assumed


@pytest.mark.parametrize("batch", ["batch", 1, 5, MICRO_BATCH, 40])
def test_any_batch_size_of_the_graph(tmp_path: Path, batch: int | str) -> None:
    crops = np.stack([crop_of("red", seed=s) for s in range(MICRO_BATCH + 3)])
    path = write_colour_network(tmp_path / "n.onnx", batch=batch)
    backbone = load_backbone(path, PLAIN)
    assert backbone.dimension == 3
    assert np.allclose(backbone.embed(crops), crops.mean(axis=(1, 2)), atol=1e-3)
    assert backbone.embed(crops[:0]).shape == (0, 3)


def test_a_batch_size_that_is_built_in_is_kept(tmp_path: Path) -> None:
    """The graph reshapes to (1, -1): freeing its batch would mix faces, and must not happen."""
    from onnx import numpy_helper

    helper = pytest.importorskip("onnx.helper")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([1, -1]), "shape")
    path = save(tmp_path / "n.onnx", nodes, [("x", [1, 3, 112, 112])], [("y", [1, 3])], [shape])
    crops = np.stack([crop_of("red"), crop_of("blue"), crop_of("green")])
    embeddings = load_backbone(path, PLAIN).embed(crops)
    assert np.allclose(embeddings, crops.mean(axis=(1, 2)), atol=1e-3)


def test_a_graph_that_mixes_its_batch_keeps_its_batch_size(tmp_path: Path) -> None:
    """Shapes alone do not tell: with two faces at once each would be given a part of the other."""
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("ReduceMax", ["f"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Add", ["f", "m"], ["y"]),
    ]
    path = save(tmp_path / "n.onnx", nodes, [("x", [1, 3, 112, 112])], [("y", [1, 3])])
    crops = np.stack([crop_of("red"), crop_of("blue"), crop_of("green")])
    embeddings = load_backbone(path, PLAIN).embed(crops)
    assert np.allclose(embeddings, 2 * crops.mean(axis=(1, 2)), atol=1e-3)


def test_an_embedding_does_not_depend_on_its_neighbours(data: Path) -> None:
    path = data / "weights" / "insightface_y1.onnx"
    backbone = load_backbone(path, PLAIN)
    crops = np.random.default_rng(0).integers(0, 256, (20, 112, 112, 3), dtype=np.uint8)
    together = backbone.embed(crops)
    alone = np.concatenate([backbone.embed(crops[i : i + 1]) for i in range(20)])
    assert np.abs(together - alone).max() <= 1e-5
    before = crops.copy()
    backbone.embed(crops)
    assert (crops == before).all()


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([("x", [1, 1, 112, 112])], [("y", [1, 1])], r"input \[1, 1, 112, 112\].*takes \(n, 3, h"),
        ([("x", [1, 4, 224, 224])], [("y", [1, 4])], r"input \[1, 4, 224, 224\]"),
        ([("x", [1, 3, 640, 640])], [("y", [1, 3])], r"size: must be a side of 16 to 512 pixels"),
    ],
)
def test_other_inputs_are_refused(tmp_path: Path, inputs, outputs, message: str) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    path = save(tmp_path / "n.onnx", nodes, inputs, outputs)
    with pytest.raises(VidfaceError, match=message):
        load_backbone(path)


def test_weights_outside_of_the_file_are_part_of_its_hash(tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    from vidface.backbones.loading import weights_sha256

    hashes = []
    for number, scale in enumerate((1.0, 2.0)):
        folder = tmp_path / str(number)
        folder.mkdir()
        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ]
        weights = numpy_helper.from_array(np.eye(3, 512, dtype=np.float32) * scale, "w")
        save(folder / "a.onnx", nodes, [("x", ["n", 3, 112, 112])], [("y", ["n", 512])], [weights])
        model = onnx.load(folder / "a.onnx")
        onnx.save(model, folder / "n.onnx", save_as_external_data=True, location="w.data",
                  size_threshold=0)  # fmt: skip
        backbone = load_backbone(folder / "n.onnx", PLAIN)
        crop = np.full((1, 112, 112, 3), 10, np.uint8)
        assert backbone.embed(crop)[0, :3].tolist() == [10 * scale] * 3
        assert backbone.sha256 == weights_sha256(str(folder / "n.onnx"))
        hashes.append(backbone.sha256)
    one, two = (tmp_path / n / "n.onnx" for n in "01")
    assert one.read_bytes() == two.read_bytes()  # the graphs alone are alike
    assert hashes[0] != hashes[1]


def test_minus_one_is_an_open_dimension(tmp_path: Path) -> None:
    """As some exporters write it."""
    import onnx

    path = write_colour_network(tmp_path / "n.onnx")
    model = onnx.load(path)
    for number, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        dim.dim_value = 3 if number == 1 else -1
    onnx.save(model, path)
    crops = np.stack([crop_of("red"), crop_of("blue")] * 3)
    assert np.allclose(load_backbone(path, PLAIN).embed(crops), crops.mean(axis=(1, 2)), atol=1e-3)


def test_an_output_need_not_declare_its_shape(tmp_path: Path) -> None:
    import onnx

    path = write_colour_network(tmp_path / "n.onnx", batch=1)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    crops = np.stack([crop_of("red"), crop_of("blue")])
    assert np.allclose(load_backbone(path, PLAIN).embed(crops), crops.mean(axis=(1, 2)), atol=1e-3)


def test_not_a_recogniser(tmp_path: Path) -> None:
    from onnx import helper

    identity = [helper.make_node("Relu", ["x"], ["y"])]
    shape = ["n", 3, 112, 112]
    path = save(tmp_path / "a.onnx", identity, [("x", shape)], [("y", shape)])
    with pytest.raises(VidfaceError, match=r"output of shape \(4, 3, 112, 112\)"):
        load_backbone(path)
    two = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    path = save(tmp_path / "b.onnx", two, [("x", shape)], [("y", shape), ("z", shape)])
    with pytest.raises(VidfaceError, match="of its outputs none is an embedding"):
        load_backbone(path)


def test_broken_files(tmp_path: Path, colour_network: Path) -> None:
    for content in (b"", b"not onnx at all, just text\n" * 10, colour_network.read_bytes()[:60]):
        path = tmp_path / "n.onnx"
        path.write_bytes(content)
        with pytest.raises(
            VidfaceError, match=r"n\.onnx: not an ONNX file, or cut off|cannot load"
        ):
            load_backbone(path)


def test_unknown_names_and_kinds(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"weights 'sfcae'.*known: sface"):
        load_backbone("sfcae")
    with pytest.raises(VidfaceError, match="are a detector, not a recogniser"):
        load_backbone("yunet")
    path = tmp_path / "net.h5"
    path.write_bytes(b"x")
    with pytest.raises(
        VidfaceError, match=r"net\.h5: unknown kind of file .*\.onnx, \.safetensors"
    ):
        load_backbone(path)
    with pytest.raises(VidfaceError, match="bring their own preprocessing"):
        load_backbone("sface", PLAIN)
    with pytest.raises(VidfaceError, match=r"or a torch\.nn\.Module, not int"):
        load_backbone(3)


def test_preprocessing_checks_itself() -> None:
    assert Preprocessing(size=160).shape == Preprocessing(size=(160, 160)).shape == (160, 160, 3)
    for size in (8, 1000, (112,), (112, 96, 3), (112, 96.0), True):
        with pytest.raises(VidfaceError, match="size: must be a side of 16 to 512 pixels"):
            Preprocessing("rgb", 0.0, 1.0, size)
    with pytest.raises(VidfaceError, match="template: unknown value 'x'"):
        Preprocessing(template="x")
    with pytest.raises(VidfaceError, match="known: rgb, bgr"):
        Preprocessing("grey")
    with pytest.raises(VidfaceError, match="mean: must be one finite number or three"):
        Preprocessing("rgb", (1.0, 2.0), 1.0)
    with pytest.raises(VidfaceError, match="mean: must be one finite number or three"):
        Preprocessing("rgb", float("nan"), 1.0)
    with pytest.raises(VidfaceError, match="std: must be above 0"):
        Preprocessing("rgb", 0.0, 0.0)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((2, 112, 112), np.uint8),
        np.zeros((2, 96, 112, 3), np.uint8),
        np.zeros((2, 112, 112, 3), np.float32),
    ],
)
def test_other_crops_are_refused(colour_network: Path, crops: np.ndarray) -> None:
    with pytest.raises(VidfaceError, match=r"want \(n, 112, 112, 3\) uint8 RGB"):
        load_backbone(colour_network, PLAIN).embed(crops)


def test_a_torch_module_is_a_backbone(colour_network: Path) -> None:
    import torch

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.drop = torch.nn.Dropout(0.9)
            self.norm = torch.nn.BatchNorm2d(3)

        def forward(self, x):
            return self.drop(x.mean(dim=(2, 3)) * self.scale)

    module = Mean()
    module.train()
    frozen = module.norm.eval()  # as in fine-tuning: one part keeps still
    crops = np.stack([crop_of("red", seed=s) for s in range(5)])
    backbone = load_backbone(module, PLAIN)
    assert backbone.runtime == "torch"
    onnx_embeddings = load_backbone(colour_network, PLAIN).embed(crops)
    assert np.allclose(backbone.embed(crops), onnx_embeddings, rtol=1e-5)  # dropout is off
    assert module.training  # and the caller's modes are as they were
    assert module.drop.training
    assert not frozen.training
    first = backbone.sha256
    assert load_backbone(Mean(), PLAIN).sha256 == first
    with torch.no_grad():
        module.scale += 1
    assert load_backbone(module, PLAIN).sha256 != first


def test_a_module_that_is_no_recogniser() -> None:
    import torch

    with pytest.raises(VidfaceError, match=r"output of shape \(16, 3, 112, 112\)"):
        load_backbone(torch.nn.ReLU(), PLAIN)
    with pytest.raises(VidfaceError, match="Linear: mat1 and mat2"):
        load_backbone(torch.nn.Linear(3, 4), PLAIN)


@pytest.mark.usefixtures("weights_at_hand")
def test_sface_agrees_with_opencv() -> None:
    """OpenCV's own FaceRecognizerSF is the third-party oracle of SFace's preprocessing."""
    import cv2

    from vidface.backbones.weights import weights_path

    crops = np.stack([crop_of(c) for c in ("red", "green", "blue")])
    crops[:, 30:80, 30:80] = np.random.default_rng(1).integers(0, 256, (3, 50, 50, 3))
    backbone = load_backbone("sface")
    assert (backbone.dimension, backbone.assumed) == (128, False)
    ours = backbone.embed(crops)
    oracle = cv2.FaceRecognizerSF.create(str(weights_path("sface")), "")
    theirs = np.concatenate([oracle.feature(cv2.cvtColor(c, cv2.COLOR_RGB2BGR)) for c in crops])
    cosines = np.sum(ours * theirs, axis=1)
    cosines /= np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.99999
