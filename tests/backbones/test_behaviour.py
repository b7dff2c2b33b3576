"""Faults of a recogniser that a run would not show, and the feed that would be better."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import crop_of
from vidface.backbones import behaviour
from vidface.backbones.behaviour import (
    Answer,
    advise,
    check_behaviour,
    find_fault,
    keep_answer,
    made_pictures,
    other_feeds,
    read_answer,
    separation,
)
from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.storage.images import decode_image
from vidface.storage.media import TarRoot

SHAPE = (112, 112, 3)
PLAIN = Preprocessing("rgb", 0.0, 1.0)
FAULTS = {
    "sound": ([("Identity", ["f"], {})], ""),
    "nan": ([("Mul", ["f", "nan"], {})], "gives NaN or infinite numbers for 8 of 8 faces"),
    "zero": ([("Mul", ["f", "zero"], {})], "gives nothing but zeros for 8 of 8 faces"),
    "constant": (
        [("Mul", ["f", "zero"], {}), ("Add", ["t0", "one"], {})],
        "gives 8 different faces one and the same embedding",
    ),
    "random": (
        [("RandomNormalLike", ["f"], {}), ("Mul", ["t0", "hundred"], {}), ("Add", ["f", "t1"], {})],
        "another embedding the second time",
    ),
    "batch": (
        [("ReduceMean", ["f"], {"axes": [0], "keepdims": 1}), ("Sub", ["f", "t0"], {})],
        "another embedding beside other faces",
    ),
}  # what stands behind each channel's mean, "f", and the words for it
CONSTANTS = {"nan": np.nan, "zero": 0, "one": 1, "hundred": 100}


def write_network(path: Path, fault: str = "sound", front: str = "Identity") -> Path:
    """The mean of each channel of `front`'s pictures, and a fault behind it."""
    steps = FAULTS[fault][0]
    nodes = [
        helper.make_node(front, ["x"], ["p"]),
        helper.make_node("GlobalAveragePool", ["p"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["f"]),
    ]
    for number, (operator, inputs, attributes) in enumerate(steps):
        output = "y" if number == len(steps) - 1 else f"t{number}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.float32(v), k) for k, v in CONSTANTS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


def load(path: Path, fed: Preprocessing = PLAIN, **more) -> Embedder:
    return load_backbone(path, fed, runtime="onnxruntime", threads=1, **more)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_words(tmp_path: Path, fault: str) -> None:
    recogniser = load(write_network(tmp_path / "n.onnx", fault))
    before = (pictures := made_pictures(SHAPE)).copy()
    found = find_fault(recogniser, pictures)
    assert np.array_equal(before, pictures)
    if fault == "sound":
        assert found == check_behaviour(recogniser, pictures) == ""
        return
    assert FAULTS[fault][1] in found
    with pytest.raises(VidfaceError, match=r"n\.onnx: gives .*--force-recogniser"):
        check_behaviour(recogniser, pictures)
    assert FAULTS[fault][1] in check_behaviour(load(tmp_path / "n.onnx", force=True), pictures)


@pytest.mark.parametrize("fault", ["sound", "batch", "random"])
def test_a_single_face_is_tried_beside_made_up_ones(tmp_path: Path, fault: str) -> None:
    recogniser = load(write_network(tmp_path / "n.onnx", fault))
    assert bool(find_fault(recogniser, crop_of("red")[None])) == (fault != "sound")


def test_an_encoders_noise_makes_no_faces_that_differ(tmp_path: Path) -> None:
    recogniser = load(write_network(tmp_path / "n.onnx", "constant"))
    crops = np.repeat(made_pictures(SHAPE)[:1], 4, axis=0)
    crops[1:3] ^= 1  # a level everywhere
    crops[3, 0, 0, 0] ^= 1
    assert "gives 3 different faces one and the same" in find_fault(recogniser, crops)
    assert find_fault(recogniser, crops[[0, 1, 3, 3]]) == ""


@pytest.mark.parametrize(("shift", "fits"), [(0.9e-3, True), (1.1e-3, False)])
def test_rounding_is_no_fault(tmp_path: Path, monkeypatch, shift: float, fits: bool) -> None:
    recogniser = load(write_network(tmp_path / "n.onnx"))
    embed, calls = recogniser.embed, iter(range(1000))
    monkeypatch.setattr(
        recogniser, "embed", lambda c, **k: embed(c, **k) * (1 + shift * (next(calls) % 2))
    )
    assert (find_fault(recogniser, made_pictures(SHAPE)) == "") == fits


def test_made_pictures_differ_and_stay() -> None:
    pictures = made_pictures(SHAPE)
    assert pictures.dtype == np.uint8
    assert pictures.shape == (behaviour.TRIED, 112, 112, 3)
    assert len(np.unique(pictures, axis=0)) == len(pictures)
    assert np.array_equal(pictures, made_pictures(SHAPE))
    assert made_pictures((112, 96, 3)).shape == (behaviour.TRIED, 112, 96, 3)


def test_an_answer_is_kept_by_what_it_depends_on(tmp_path: Path) -> None:
    path = write_network(tmp_path / "n.onnx")
    recogniser = load(path)
    assert read_answer(recogniser) == Answer()
    keep_answer(recogniser, Answer(on_faces=True, advice="feed it otherwise"))
    assert read_answer(load(path)) == Answer(on_faces=True, advice="feed it otherwise")
    assert read_answer(load(path, Preprocessing("bgr", 0.0, 1.0))) == Answer()
    assert read_answer(load(write_network(tmp_path / "m.onnx", "batch"))) == Answer()
    [kept] = (tmp_path / "cache" / "behaviour").glob("*.json")
    kept.write_text("[")
    assert read_answer(recogniser) == Answer()
    live = load_backbone(make_module(), PLAIN)
    keep_answer(live, Answer(on_faces=True))
    assert read_answer(live) == Answer()  # it may be trained on


def make_module():
    import torch

    class Means(torch.nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3))

    return Means()


def test_other_feeds() -> None:
    """All orders and scales in use but what is fed, 128 being 127.5 here."""
    assert other_feeds(Preprocessing("rgb", 127.5, 128.0)) == [
        Preprocessing("rgb", 0.0, 1.0), Preprocessing("rgb", 0.0, 255.0),
        Preprocessing("bgr", 0.0, 1.0), Preprocessing("bgr", 127.5, 128.0),
        Preprocessing("bgr", 0.0, 255.0),
    ]  # fmt: skip
    assert len(other_feeds(Preprocessing("rgb", (123.7, 116.3, 103.5), 58.0))) == 6


def naive_separation(embeddings, same, different) -> float:
    def cosine(pair) -> float:
        a, b = (embeddings[i] for i in pair)
        return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))

    near, far = ([cosine(pair) for pair in pairs] for pairs in (same, different))
    middle = statistics.median(far)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in far)
    return (statistics.median(near) - middle) / spread


def test_separation_is_its_naive_twin() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(20, 6)) * rng.uniform(1, 9, (20, 1))
    same, different = rng.permutation(20)[:10].reshape(-1, 2), rng.integers(0, 20, (31, 2))
    wanted = naive_separation(embeddings, same, different)
    assert separation(embeddings, same, different) == pytest.approx(wanted)
    flat = np.ones((20, 6))
    assert separation(flat, same, different) == 0  # nothing is told apart
    assert separation(np.full((20, 6), np.nan), same, different) == 0


def person_crops() -> np.ndarray:
    """(8, 3, 112, 112, 3) uint8: three faces each of eight people, who have a colour each."""
    rng = np.random.default_rng(23)
    crops = rng.integers(30, 226, (8, 3))[:, None, None, None]
    crops = crops + rng.integers(-8, 9, (8, 3, 112, 112, 3)) + rng.integers(-6, 7, (8, 3, 1, 1, 1))
    return np.clip(crops, 0, 255).astype(np.uint8)


def people() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The faces of the eight, their pairs of one person, and of two."""
    first, second = np.triu_indices(24, 1)
    pairs, alike = np.stack([first, second], axis=1), first // 3 == second // 3
    return person_crops().reshape(24, 112, 112, 3), pairs[alike], pairs[~alike]


def test_a_far_better_scale_is_named(tmp_path: Path) -> None:
    """x / (1 + |x|) takes raw pixels for white, nearly: only scaled ones are told apart well."""
    path = write_network(tmp_path / "n.onnx", front="Softsign")
    advice = advise(load(path), *people())
    assert advice.startswith("n.onnx: fed rgb (x − 127.5) / 127.5 it would tell the first faces")
    assert advice.endswith("--color rgb --mean 127.5 --std 127.5")
    assert advise(load(path, Preprocessing("rgb", 127.5, 128.0)), *people()) == ""


def test_one_that_takes_bytes_is_asked_about_colours_alone(tmp_path: Path, monkeypatch) -> None:
    model = onnx.load(write_network(tmp_path / "n.onnx", front="Cast"))
    model.graph.node[0].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, path := tmp_path / "n.onnx")
    wanted = iter([1.2, 3.4])
    monkeypatch.setattr(behaviour, "separation", lambda *_: next(wanted))
    assert advise(load(path), *people()).endswith("--color bgr --mean 0 --std 1")


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([1.2, 2.9, 1, 1, 1, 1], ""),  # not 2.5 times as far
        ([0.9, 2.4, 1, 1, 1, 1], ""),  # that, and bad all the same
        ([3.0, 9.0, 1, 1, 1, 1], ""),  # good as it is
        ([1.2, 3.0, 1, 3.2, 1, 1], "fed rgb (x − 127.5) / 127.5"),  # turned colours: no better
        ([1.2, 3.0, 1, 1, 3.4, 1], "fed bgr (x − 127.5) / 127.5"),
    ],
)
def test_what_counts_as_far_better(tmp_path: Path, monkeypatch, values, advice: str) -> None:
    path, wanted = write_network(tmp_path / "n.onnx"), iter(values)
    monkeypatch.setattr(behaviour, "separation", lambda *_: next(wanted))
    said = advise(load(path), *people())
    assert advice in said
    assert bool(said) == bool(advice)


@pytest.mark.slow
def test_real_recognisers_fed_wrongly(data: Path) -> None:
    """y1 normalised twice, MobileFaceNet not at all; fed rightly nothing is said."""
    root = TarRoot(data / "images" / "ytf_aligned112.tar")
    clips: dict[str, list[str]] = {}
    for name in root.all_images():
        clips.setdefault(name.rsplit("/", 1)[0], []).append(name)
    by_person = {clip.split("/")[-2]: clip for clip in clips}
    names = [n for clip in list(by_person.values())[::10][:10] for n in clips[clip][:3]]
    crops = np.stack([decode_image(root.read(name), name) for name in names])
    first, second = np.triu_indices(len(names), 1)
    pairs, alike = np.stack([first, second], axis=1), first // 3 == second // 3
    y1, mobile = (
        data / "weights" / f"{n}.onnx" for n in ("insightface_y1", "mobilefacenet_foamliu")
    )
    for path, wrong, right in (
        (y1, Preprocessing("rgb", 127.5, 127.5), PLAIN),
        (mobile, PLAIN, Preprocessing("rgb", 127.5, 128.0)),
    ):
        assert advise(load(path, right), crops, pairs[alike], pairs[~alike]) == ""
        said = advise(load(path, wrong, force=True), crops, pairs[alike], pairs[~alike])
        assert f"--mean {0 if right is PLAIN else 127.5} " in said
