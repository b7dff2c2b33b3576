"""Faces cut out for recognisers of every size and template, and aligned crops made to fit."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.backbones.test_conforming import write_graph
from tests.conftest import write_crop
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import ARCFACE, FACENET, TEMPLATES, Preprocessing
from vidface.core.errors import VidfaceError
from vidface.faces.cutting import CUTTERS, cut_face
from vidface.faces.detector import ARCFACE_TEMPLATE, align_face, scale_template
from vidface.runs.evaluation import evaluate
from vidface.runs.run_folder import RunFolder
from vidface.storage.images import resize_crop

BOX = np.array([40.0, 30.0, 104.0, 110.0], np.float32)


def discs(points: np.ndarray, size: tuple[int, int], radius: int = 5) -> np.ndarray:
    """A black picture with a disc of its own colour at each of five points."""
    image = np.zeros((*size, 3), np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    for (x, y), colour in zip(points.tolist(), colours, strict=True):
        cv2.circle(image, (round(x), round(y)), radius, colour, -1)
    return image


def test_the_template_in_other_sizes() -> None:
    """At 112x96 the template's own first form; at others each number times the scale."""
    assert scale_template((112, 112)).tolist() == [list(point) for point in ARCFACE_TEMPLATE]
    first_form = [(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655),
                  (62.7299, 92.2041)]  # fmt: skip
    assert np.allclose(scale_template((112, 96)), first_form, atol=1e-9)
    for side in (160, 224):
        by_hand = [[x * side / 112, y * side / 112] for x, y in ARCFACE_TEMPLATE]
        assert np.allclose(scale_template((side, side)), by_hand)


@pytest.mark.parametrize("size", [(112, 112), (112, 96), (160, 160), (224, 224)])
def test_landmarks_come_to_lie_where_the_template_says(size: tuple[int, int]) -> None:
    landmarks = np.array(ARCFACE_TEMPLATE) * 2 + (120, 40)
    image = discs(landmarks, (400, 500))
    crop = cut_face(image, BOX, landmarks, Preprocessing(size=size))
    assert crop.shape == (*size, 3)
    for (x, y), (u, v) in zip(scale_template(size).tolist(), landmarks.tolist(), strict=True):
        assert (crop[round(y), round(x)] == image[round(v), round(u)]).all()
    usual = cut_face(image, BOX, landmarks, Preprocessing())
    assert (usual == align_face(image, landmarks)).all()


def test_facenets_crop_by_loops() -> None:
    """A box of 64x80 grows by an eighth at each side, and is averaged down by whole pixels."""
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    fed = Preprocessing(size=(50, 40), template=FACENET)
    crop = cut_face(image, BOX, np.zeros((5, 2)), fed)
    part = image[20:120, 32:112].astype(float)  # 100 x 80: two by two pixels become one
    by_hand = [[part[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(axis=(0, 1)) for x in range(40)]
               for y in range(50)]  # fmt: skip
    assert np.abs(crop - np.array(by_hand)).max() <= 0.5 + 1e-9
    at_the_edge = cut_face(image, np.array([-30.0, -30, 40, 40]), np.zeros((5, 2)), fed)
    assert (at_the_edge == cv2.resize(image[:48, :48], (40, 50), interpolation=3)).all()
    with pytest.raises(VidfaceError, match="outside of the image"):
        cut_face(image, np.array([300.0, 300, 340, 340]), np.zeros((5, 2)), fed)


def test_every_template_is_cut() -> None:
    assert tuple(CUTTERS) == TEMPLATES


@pytest.mark.parametrize("size", [(112, 96), (160, 160), (224, 224), (96, 112)])
def test_an_aligned_crop_in_another_size_keeps_its_landmarks(size: tuple[int, int]) -> None:
    crop = discs(np.array(ARCFACE_TEMPLATE), (112, 112))
    resized = resize_crop(crop, size)
    assert resized.shape == (*size, 3)
    points = zip(scale_template(size).tolist(), ARCFACE_TEMPLATE, strict=True)
    for (x, y), (u, v) in points:
        assert (resized[round(y), round(x)] == crop[round(v), round(u)]).all()
    assert (resize_crop(crop, (112, 112)) == crop).all()


def aligned_set(folder: Path, sides: tuple[int, int]) -> Path:
    """A manifest of two people with two aligned pictures of height and width `sides` each."""
    lines = ["clip_id,path,identity,split"]
    for person in ("red", "green"):
        for split in ("train", "val"):
            write_crop(folder / person / split / "0.png", person)
            picture = folder / person / split / "0.png"
            Image.open(picture).resize(sides[::-1]).save(picture)
            lines.append(f"{person}.{split},{person}/{split},{person},{split}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    return manifest


def test_aligned_crops_of_another_size_are_refused_unless_resized(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))
    weights = write_graph(tmp_path / "n.onnx", size=(160, 128), outputs=("norm", "feature"))
    fed = Preprocessing("rgb", 127.5, 127.5)
    usual = aligned_set(tmp_path / "usual", (112, 112))
    more = {"bootstrap": 0, "preprocessing": fed, "keep_crops": True, "source": "aligned"}
    with pytest.raises(VidfaceError, match=r"of 112x112, but the recogniser takes 160x128.*--res"):
        evaluate(usual, weights, run=tmp_path / "refused", **more)
    evaluate(usual, weights, run=tmp_path / "resized", resize=True, **more)
    own = aligned_set(tmp_path / "own", (160, 128))
    evaluate(own, weights, run=tmp_path / "own-run", **more)
    with pytest.raises(VidfaceError, match=r"made with other settings: faces\.resize: none"):
        evaluate(own, weights, run=tmp_path / "own-run", resize=True, **more)
    backbone = load_backbone(weights, fed)
    for name, pictures in (("resized", usual.parent), ("own-run", own.parent)):
        folder = RunFolder(tmp_path / name)
        [(_, shard)] = folder.shards(lambda made, path: None)
        crops = [resize_crop(np.array(Image.open(pictures / clip_id.replace(".", "/") / "0.png")),
                             (160, 128)) for clip_id in shard.clip_ids]  # fmt: skip
        rows, norms = backbone.embed_faces(np.stack(crops), whole_batches=True)
        assert shard.table["norm"].to_pylist() == norms.tolist()
        assert shard.table["embedding"].to_pylist() == rows.tolist()
        assert not np.allclose(norms, np.linalg.norm(rows, axis=1))  # the network's own
        jpegs = pq.read_table(folder.crops_path(0))["jpeg"].to_pylist()
        assert {Image.open(io.BytesIO(jpeg)).size for jpeg in jpegs} == {(128, 160)}


def test_templates_are_named_in_provenance_only_where_unusual() -> None:
    assert "template" not in Preprocessing(size=160, template=ARCFACE).to_dict()
    facenet = Preprocessing("rgb", 127.5, 128.0, 160, FACENET)
    assert facenet.to_dict()["template"] == FACENET
    assert Preprocessing.from_dict(facenet.to_dict(), "w") == facenet
