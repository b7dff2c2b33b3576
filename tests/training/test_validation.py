from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidface.backbones.architectures import find_architecture
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.training.fast_prelu import use_fast_prelu
from vidface.training.network import build_embedder
from vidface.training.settings import BenchmarkSettings
from vidface.training.validation import (
    FOLDS,
    PAIRS_A_FOLD,
    HeldOutPairs,
    embed_all,
    open_benchmarks,
)


class Coloured:
    """Faces of one grey level a person, a little brighter from image to image."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return np.full((112, 112, 3), 40 * self.labels[index] + index % 5, np.uint8)


class Angle:
    """Embeds a face by its grey level as an angle: people are 40 levels, so 0.8 radians, apart."""

    dimension = 2

    def __init__(self, *, blind: bool = False) -> None:
        self.blind, self.largest = blind, 0

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.largest = max(self.largest, len(crops))
        angle = crops[:, 0, 0, 0].astype(np.float32) / 50 * (0 if self.blind else 1)
        return 7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 3, 0])  # of person 3 there is one face


def test_pairs_are_what_they_say() -> None:
    pairs = HeldOutPairs.draw(Coloured(LABELS), LABELS, seed=0)
    n = PAIRS_A_FOLD * FOLDS
    assert len(pairs.first) == 2 * n
    assert pairs.same.sum() == n
    of_one = LABELS[pairs.first] == LABELS[pairs.second]
    assert np.array_equal(of_one, pairs.same)
    assert (pairs.first != pairs.second).all()  # never a face with itself
    for fold in range(FOLDS):
        inside = pairs.folds == fold
        assert (pairs.same[inside].sum(), inside.sum()) == (PAIRS_A_FOLD, 2 * PAIRS_A_FOLD)
    assert set(LABELS[pairs.first[pairs.same]]) == {0, 1, 2}
    assert set(LABELS[pairs.first[~pairs.same]]) == {0, 1, 2, 3}


def test_pairs_hang_on_the_seed_alone() -> None:
    one, same, other = (HeldOutPairs.draw(Coloured(LABELS), LABELS, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.first, same.first)
    assert not np.array_equal(one.first, other.first)


def test_accuracy_of_one_who_knows_and_of_one_who_is_blind() -> None:
    pairs = HeldOutPairs.draw(Coloured(LABELS), LABELS, seed=0)
    assert pairs.accuracy(Angle()) == 1.0
    assert pairs.accuracy(Angle(blind=True)) == pytest.approx(0.5)


@pytest.mark.parametrize("labels", [np.array([0, 0, 0]), np.array([0, 1, 2]), np.array([0])])
def test_too_few_people_for_pairs(labels: np.ndarray) -> None:
    with pytest.raises(VidfaceError, match="held-out people: want two or more"):
        HeldOutPairs.draw(Coloured(labels), labels, seed=0)


def test_faces_are_embedded_a_few_hundred_at_once_and_in_order() -> None:
    labels = np.arange(600) % 6
    embedder = Angle()
    rows = embed_all(embedder, Coloured(labels))
    assert embedder.largest <= 256
    wanted = (40 * labels + np.arange(600) % 5) / 50
    assert np.arctan2(rows[:, 1], rows[:, 0]) % (2 * np.pi) == pytest.approx(
        wanted % (2 * np.pi), abs=1e-5
    )
    assert embed_all(embedder, Coloured(labels[:0])).shape == (0, 2)


def test_the_model_is_embedded_in_evaluation_mode_and_not_changed() -> None:
    table = find_architecture("paper-x0.1-d0.1-e8")
    module = use_fast_prelu(table.build(seed=1)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    fed = Preprocessing("rgb", 127.5, 128.0)
    crops = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    rows = build_embedder(module, table, fed, threads=1).embed(crops)
    assert module.training
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    planes = torch.from_numpy((crops.astype(np.float32) - 127.5) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = module.eval()(planes).numpy()
    assert np.abs(rows - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_a_benchmark_that_is_not_there(tmp_path: Path) -> None:
    told: list[str] = []
    absent = BenchmarkSettings("CFP-FP", tmp_path / "cfp_fp.bin", optional=True)
    assert open_benchmarks((absent,), told.append) == {}
    assert "CFP-FP: n/a" in told[0]
    with pytest.raises(VidfaceError):
        open_benchmarks((BenchmarkSettings("LFW", tmp_path / "lfw.bin"),), told.append)
    (tmp_path / "a_1.png").write_bytes(b"x")
    (tmp_path / "list.txt").write_text("a_1.png b_1.png 1\na_1.png b_2.png 0\n", encoding="utf-8")
    one_fold = BenchmarkSettings("own", tmp_path, tmp_path / "list.txt")
    with pytest.raises(VidfaceError, match="benchmark own: accuracy n/a: one fold"):
        open_benchmarks((one_fold,), told.append)
