"""Cards: a recogniser by the TOML file that describes it, or by that file's name."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.backbones.test_conforming import some_crops, write_graph
from vidface.backbones.cards import find_card, hash_weights
from vidface.backbones.feeding import decide_feed
from vidface.backbones.loading import load_backbone, weights_sha256
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError

FED = Preprocessing("bgr", 100.0, 50.0, 160, "facenet-160")
TABLE = """
[preprocessing]
color = "bgr"
mean = 100
std = [50, 50.0, 50]
size = 160
template = "facenet-160"
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card beside its network of two possible embeddings."""
    folder = tmp_path / "cards"
    folder.mkdir()
    outputs = ("feature", "norm", "raw")
    weights = write_graph(folder / "net.onnx", size=(160, 160), outputs=outputs)
    lines = f'weights = "net.onnx"\nsha256 = "{hash_weights(weights)}"\noutput = "raw"\n'
    (folder / "mine.toml").write_text(lines + TABLE, encoding="utf-8")
    return folder / "mine.toml"


def test_a_card_says_what_flags_would(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = card.parent / "net.onnx"
    by_flags = load_backbone(weights, FED, output="raw")
    crops = some_crops(5, 160, 160)
    monkeypatch.setenv("VIDFACE_CARDS", str(card.parent))
    for name in (str(card), "mine"):
        backbone = load_backbone(name)
        assert (backbone.assumed, backbone.feed.remark) == (False, "")
        assert backbone.preprocessing.template == "facenet-160"
        assert (backbone.output, backbone.sha256) == ("raw", by_flags.sha256)
        assert weights_sha256(name) == by_flags.sha256
        assert (backbone.embed(crops) == by_flags.embed(crops)).all()
    with pytest.raises(VidfaceError, match=r"known: sface, light, mine\)"):
        load_backbone("yours")


def test_what_contradicts_a_card_is_refused(card: Path) -> None:
    with pytest.raises(VidfaceError, match=r"its card says bgr .*, not rgb .*: leave"):
        decide_feed(str(card), Preprocessing("rgb"))
    forced = decide_feed(str(card), Preprocessing("rgb"), force=True)
    assert forced.preprocessing == replace(FED, color="rgb", std=(50, 50.0, 50))
    assert forced.forced.startswith("its card says bgr")
    with pytest.raises(VidfaceError, match="a card says its output; leave 'feature' out"):
        load_backbone(card, output="feature")
    weights = card.parent / "net.onnx"
    write_graph(weights, size=(160, 160), outputs=("raw",))
    for use in (load_backbone, weights_sha256):
        with pytest.raises(VidfaceError, match=r"net\.onnx are another file than their card is of"):
            use(str(card))
    weights.unlink()
    with pytest.raises(VidfaceError, match=r"net\.onnx of a card: no such file"):
        load_backbone(card)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('weights = "net.onnx"', "", "does not say 'weights'"),
        ('weights = "net.onnx"', "weights = 3", "key weights: must be text, not 3"),
        ("output", "outptu", r"no setting 'outptu' \(known: weights, sha256, preproc"),
        ('color = "bgr"', "", "preprocessing: its preprocessing does not say 'color'"),
        ("mean = 100", "mean = nan", "mean: must be one finite number"),
        ("size = 160", "size = 1.5", "size: must be a side of 16 to 512"),
        ('"facenet-160"', '"x"', "template: unknown value 'x'"),
        ("[preprocessing]", "preprocessing = 3\n[x]", "preprocessing: must be a table|no setting"),
        ("mean", "mean = [", "not TOML"),
    ],
)
def test_cards_of_no_use(card: Path, old: str, new: str, message: str) -> None:
    text = card.read_text(encoding="utf-8").replace(old, new, 1)
    card.write_text(text, encoding="utf-8")
    with pytest.raises(VidfaceError, match=rf"card .*mine\.toml: .*({message})"):
        find_card(str(card))


def test_a_card_takes_no_name_that_is_known(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CARDS", str(card.parent))
    card.rename(card.with_name("light.toml"))
    with pytest.raises(VidfaceError, match=r"rename the card .*light\.toml, or give its path"):
        load_backbone("light")


def test_a_huge_file_is_no_card(tmp_path: Path) -> None:
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(VidfaceError, match=r"huge\.toml: more than 16 MiB"):
        find_card(str(tmp_path / "huge.toml"))


def test_a_card_to_start_from_is_a_card(colour_network: Path, tmp_path: Path, vidface) -> None:
    weights = tmp_path / "my net.onnx"
    shutil.copy(colour_network, weights)
    done = vidface("models", "show", str(weights), "--card")
    assert done.code == 0
    path = tmp_path / "card.toml"
    path.write_text(done.out, encoding="utf-8")
    assert tomllib.loads(done.out)["preprocessing"]["template"] == "arcface-112"
    backbone = load_backbone(path)
    assert (backbone.preprocessing, backbone.assumed) == (Preprocessing(), False)
    again = vidface("models", "show", str(path), "--card")
    lines = done.out.splitlines()
    assert lines[1].startswith("# Nobody says what the file is fed")
    assert again.out.splitlines() == [lines[0], *lines[2:]]  # the card says it now
    assert vidface("models", "show", "nothing", "--card").code == 2


def test_a_function_is_a_recogniser() -> None:
    """It gets copies, may be of any size, and is known by what it answers."""

    def means(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = crops.mean(axis=(1, 2))
        crops[:] = 0
        return rows, rows[:, :1] * 2

    crops = some_crops(35, 160, 96)
    before = crops.copy()
    backbone = load_backbone(means, Preprocessing(size=(160, 96)))
    rows, norms = backbone.embed_faces(crops)
    assert (crops == before).all()
    assert np.allclose(rows, crops.mean(axis=(1, 2)), atol=1e-3)
    assert np.allclose(norms, 2 * rows[:, 0])
    assert (backbone.dimension, backbone.runtime, backbone.live) == (3, "python", True)
    assert load_backbone(means, Preprocessing(size=(160, 96))).sha256 == backbone.sha256
    other = load_backbone(lambda crops: crops.mean(axis=(1, 2)) + 1)
    assert (other.sha256 != backbone.sha256, other.crop_shape) == (True, (112, 112, 3))
    with pytest.raises(VidfaceError, match="handed crops as they are"):
        load_backbone(means, Preprocessing("bgr"))
    with pytest.raises(VidfaceError, match="a function runs as it runs"):
        load_backbone(means, runtime="torch")
    with pytest.raises(VidfaceError, match=r"output of shape \(32, 1\)"):
        load_backbone(lambda crops: np.ones((len(crops), 1)))


def test_a_module_of_two_outputs() -> None:
    import torch

    class Two(torch.nn.Module):
        def forward(self, x):
            rows = x.mean(dim=(2, 3))
            return rows / rows.norm(dim=1, keepdim=True), rows.norm(dim=1)

    backbone = load_backbone(Two(), Preprocessing("rgb", 0.0, 1.0, 160))
    crops = some_crops(3, 160, 160)
    rows, norms = backbone.embed_faces(crops)
    assert np.allclose(rows * norms[:, None], crops.mean(axis=(1, 2)), rtol=1e-5)


def test_a_file_in_place_of_a_name_is_told_where_to_go(vidface, colour_network: Path) -> None:
    done = vidface("models", "show", colour_network)
    assert done.code == 1
    assert "`vidface models count` counts a file, --card prints a card of it" in done.err
