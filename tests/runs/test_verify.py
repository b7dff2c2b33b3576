"""`vidface verify`: from a folder or .bin of faces and a recogniser to the figures of a paper."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.backbones.test_conforming import write_graph
from tests.conftest import crop_of, write_crop
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.datasets.pair_sources import open_pairs
from vidface.runs.verify import verify

FED = ("--color", "rgb", "--mean", "127.5", "--std", "127.5")

# Two folds of two genuine and two impostor pairs; every person is one colour.
PAIRS = """2\t2
red\t1\t2
green\t1\t2
red\t1\tgreen\t1
red\t2\tgreen\t2
blue\t1\t2
yellow\t1\t2
blue\t1\tyellow\t1
blue\t2\tyellow\t2
"""


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """faces/red/red_0001.png …, and pairs.txt beside the folder."""
    for person in ("red", "green", "blue", "yellow"):
        for number in (1, 2):
            path = tmp_path / "faces" / person / f"{person}_{number:04}.png"
            write_crop(path, person, seed=number)
    (tmp_path / "pairs.txt").write_text(PAIRS, encoding="utf-8")
    return tmp_path / "faces"


def test_all_is_right_where_all_is_plain(colour_network: Path, faces: Path) -> None:
    backbone = load_backbone(colour_network, Preprocessing("rgb", 127.5, 127.5))
    done = verify(backbone, open_pairs(faces, faces.parent / "pairs.txt"))
    document = done.to_dict()
    assert document["accuracy"]["mean"] == document["auc"] == 1
    assert document["accuracy"]["standard_error"] == 0
    assert document["images"] == {"used": 8, "failed": 0}
    # Four impostor pairs resolve no target but 1e-1 … none: 1/0.1 = 10 > 4.
    assert document["tar_at_far"]["1e-1"]["needs_impostor_pairs"] == 10
    assert document["provenance"]["settings"]["backbone.weights_sha256"] == backbone.sha256


class Sides:
    """A recogniser that can be worked out by eye: the mean of the left half's channels."""

    @staticmethod
    def backbone():
        import torch

        class Left(torch.nn.Module):
            def forward(self, x):
                return x[:, :, :, :56].mean(dim=(2, 3))

        return load_backbone(Left(), Preprocessing("rgb", 0.0, 1.0))


def test_the_flip_test_adds_raw_embeddings(tmp_path: Path) -> None:
    """Left red, right green 200: alone the embedding is red, flipped green, summed both."""
    two = np.zeros((112, 112, 3), np.uint8)
    two[:, :56] = (200, 0, 0)
    two[:, 56:] = (0, 100, 0)
    one = np.zeros_like(two)
    one[...] = (200, 0, 0)
    for name, picture in (("a", two), ("b", one)):
        for number in (1, 2):
            path = tmp_path / "f" / name / f"{name}_{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    (tmp_path / "p.txt").write_text("2 1\na 1 2\na 1 b 1\nb 1 2\na 2 b 2\n", encoding="utf-8")
    pairs = open_pairs(tmp_path / "f", tmp_path / "p.txt")
    plain = verify(Sides.backbone(), pairs).score
    assert plain.auc == 0.5  # both are red on their left: every cosine is 1
    flipped = verify(Sides.backbone(), pairs, flip=True).score
    assert flipped.auc == 1
    # (200, 100, 0) against (400, 0, 0): 2/√5, the lowest score, accepted by no threshold.
    assert min(t for t in flipped.thresholds if t is not None) > 2 / np.sqrt(5)


def test_a_missing_face_stays_in_the_denominators(colour_network: Path, faces: Path) -> None:
    (faces / "red" / "red_0002.png").unlink()
    (faces / "blue" / "blue_0001.png").write_bytes(b"not a picture")
    Image.new("RGB", (96, 112)).save(faces / "yellow" / "yellow_0002.png")
    backbone = load_backbone(colour_network, Preprocessing("rgb", 127.5, 127.5))
    done = verify(backbone, open_pairs(faces, faces.parent / "pairs.txt"))
    assert len(done.failed) == 3
    assert any("red_0002" in line for line in done.failed)
    score = done.score
    assert (score.genuine_pairs, score.impostor_pairs) == (4, 4)
    # Of four genuine pairs green alone is whole; the others score −1, below every impostor that is
    # whole (red–green 1–1) and equal to those that are not.
    assert score.auc == pytest.approx((4 + 3 * 3 * 0.5) / 16)


def test_faces_of_another_size_are_scaled_where_asked(tmp_path: Path, faces: Path, vidface) -> None:
    weights = write_graph(tmp_path / "n.onnx", size=(160, 160))
    pairs = str(faces.parent / "pairs.txt")
    done = vidface("verify", str(weights), str(faces), "--pairs", pairs, *FED)
    assert done.code == 1
    assert "112x112 pixels, not an aligned face of 160x160: --resize scales it" in done.err
    done = vidface("verify", str(weights), str(faces), "--pairs", pairs, *FED, "--resize", "--json")
    assert done.code == 0
    assert done.json["auc"] == 1
    assert done.json["provenance"]["settings"]["faces.resize"] is True
    assert done.json["provenance"]["settings"]["backbone.preprocessing"]["size"] == 160


def test_no_face_at_all(colour_network: Path, faces: Path) -> None:
    for path in faces.rglob("*.png"):
        path.write_bytes(b"")
    backbone = load_backbone(colour_network, Preprocessing("rgb", 127.5, 127.5))
    with pytest.raises(VidfaceError, match="none of 8 images can be used"):
        verify(backbone, open_pairs(faces, faces.parent / "pairs.txt"))


def test_the_command(colour_network: Path, faces: Path, vidface) -> None:
    pairs = str(faces.parent / "pairs.txt")
    done = vidface("verify", str(colour_network), str(faces), "--pairs", pairs, *FED)
    assert (done.code, done.err) == (0, "")
    assert "accuracy  1.0000 ± 0.0000" in done.out
    assert "4 genuine and 4 impostor pairs" in done.out
    done = vidface("verify", str(colour_network), str(faces), "--pairs", pairs, "--json")
    assert done.code == 0
    assert "nobody says what it is fed" in done.err  # it says what it assumed
    document = done.json
    assert set(document) >= {"accuracy", "auc", "tar_at_far"}
    assert set(document["accuracy"]) >= {"mean", "standard_error"}
    assert list(document["tar_at_far"]) == ["1e-1", "1e-2", "1e-3", "1e-4"]
    (faces / "red" / "red_0002.png").unlink()
    done = vidface("verify", str(colour_network), str(faces), "--pairs", pairs, *FED)
    assert done.code == 3
    assert "1 images cannot be used" in done.out


def test_the_command_on_a_bin(colour_network: Path, tmp_path: Path, vidface) -> None:
    """The pairs of `PAIRS`, packed as InsightFace packs its sets."""
    bins, same = [], []
    for line in PAIRS.splitlines()[1:]:
        words = line.split("\t")
        faces = [(words[0], words[1]), (words[-2] if len(words) == 4 else words[0], words[-1])]
        for person, number in faces:
            buffer = io.BytesIO()
            Image.fromarray(crop_of(person, seed=int(number))).save(buffer, format="PNG")
            bins.append(buffer.getvalue())
        same.append(len(words) == 3)
    path = tmp_path / "small.bin"
    path.write_bytes(pickle.dumps((bins, same), protocol=4))
    done = vidface("verify", str(colour_network), str(path), *FED, "--json")
    assert (done.code, done.err) == (0, "")
    document = done.json
    assert document["auc"] == 1
    assert document["pairs"] == {"genuine": 4, "impostor": 4}


def test_a_list_of_ones_own_has_no_accuracy_without_folds(
    colour_network: Path, faces: Path, vidface
) -> None:
    """The pairs of `PAIRS` by their paths: all that needs no fold is the same."""
    lines = []
    for line in PAIRS.splitlines()[1:]:
        words = line.split("\t")
        first = f"{words[0]}/{words[0]}_{int(words[1]):04}.png"
        second = f"{words[-2] if len(words) == 4 else words[0]}"
        lines.append(f"{first} {second}/{second}_{int(words[-1]):04}.png {+(len(words) == 3)}")
    (faces.parent / "own.txt").write_text("\n".join(lines), encoding="utf-8")
    arguments = ("verify", str(colour_network), str(faces), *FED, "--pairs")
    done = vidface(*arguments, str(faces.parent / "own.txt"))
    assert (done.code, done.err) == (0, "")
    assert "accuracy  n/a: one fold leaves no other to choose the threshold on; name" in done.out
    assert "AUC       1.00000" in done.out
    own = vidface(*arguments, str(faces.parent / "own.txt"), "--json").json
    lfw = vidface(*arguments, str(faces.parent / "pairs.txt"), "--json").json
    assert own["accuracy"]["mean"] is None
    assert (own["auc"], own["pairs"]) == (lfw["auc"], lfw["pairs"])


def test_a_folder_of_people_is_enough(
    colour_network: Path, faces: Path, vidface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidface.runs.verify.PAIRS_AT_ONCE", 3)
    arguments = ("verify", str(colour_network), str(faces), *FED)
    done = vidface(*arguments, "--most-pairs", 6, "--write-pairs", "list.csv")
    assert (done.code, done.err) == (0, "")
    assert "3 genuine and 3 impostor pairs\nof 4 people with 8 pictures, drawn" in done.out
    drawn = vidface(*arguments, "--most-pairs", 6, "--json").json
    read = vidface(*arguments, "--pairs", "list.csv", "--json").json
    assert drawn.pop("pairs_origin").startswith("of 4 people")
    for document in (drawn, read):
        document["provenance"].pop("created")
    assert drawn == read  # the list's digest is among it
    every = vidface(*arguments, "--all-pairs", "--json").json
    assert every["pairs"] == {"genuine": 4, "impostor": 24}
    assert vidface(*arguments, "--all-pairs", "--seed", "1").code == 2


def test_people_whose_names_differ_in_case_are_told(
    colour_network: Path, faces: Path, vidface
) -> None:
    for number in (1, 2):
        write_crop(faces / "Red" / f"Red_{number:04}.png", "red", seed=number)
    pairs = faces.parent / "pairs.txt"
    pairs.write_text(PAIRS.replace("blue", "Red"), encoding="utf-8")
    done = vidface("verify", str(colour_network), str(faces), "--pairs", str(pairs), *FED)
    assert done.code == 0
    assert "people whose names differ only so: 'red' and 'Red' in letter case" in done.err


def test_what_the_command_says_of_a_wrong_call(
    colour_network: Path, faces: Path, tmp_path: Path, vidface
) -> None:
    done = vidface("verify", str(colour_network), str(faces / "red"), *FED)
    assert done.code == 1
    assert "2 loose ones; give each person a folder, or name the pairs by --pairs" in done.err
    for flags in (("--seed", "0"), ("--write-pairs", "x.csv")):
        listed = ("--pairs", str(faces.parent / "pairs.txt"))
        done = vidface("verify", str(colour_network), str(faces), *FED, *flags, *listed)
        assert done.code == 2
        assert "are for a folder without --pairs" in done.err
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x80\x04N.")
    done = vidface("verify", str(colour_network), str(path), *FED)
    assert done.code == 1
    assert done.err.count("\n") == 1
    done = vidface("verify", "paper", str(faces), "--pairs", str(faces.parent / "pairs.txt"))
    assert done.code == 1
    assert "an architecture without weights" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "fed", "accuracy"),
    [
        ("insightface_y1.onnx", Preprocessing("rgb", 0.0, 1.0), 0.993),
        ("mobilefacenet_foamliu.onnx", Preprocessing("rgb", 127.5, 128.0), 0.989),
    ],
)
def test_known_figures_on_lfw(
    data: Path, weights: str, fed: Preprocessing, accuracy: float
) -> None:
    """What the weights are known to reach, within 0.3 points."""
    images = data / "images"
    pairs = open_pairs(images / "lfw_aligned112.tar", images / "lfw_pairs.txt")
    done = verify(load_backbone(data / "weights" / weights, fed), pairs)
    assert (done.images, done.failed) == (7701, ())
    assert (done.score.genuine_pairs, done.score.impostor_pairs) == (3000, 3000)
    assert done.score.accuracy == pytest.approx(accuracy, abs=0.003)
