"""A teacher that is asked at every step: what it says, and a training that follows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import RECIPE
from tests.training.test_loop import Killed, run
from tests.training.toy_teacher import LINEAR, embeddings, means, write_teacher
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.training.live_teacher import LiveTeacher
from vidface.training.recipes import load_training

HINTS = """
[teacher]
weights = "teacher.onnx"
count = 36
live = true

[teacher.hints]
"stages.6" = "means"
"last" = "squares"

[augment]
flip = true
colour = true

[[stage]]
name = "distil"
steps = 8
[stage.losses.distil]
relation = 1.0
hints = 0.5
"""
DISTIL = RECIPE.split("[[stage]]")[0] + HINTS


@pytest.fixture(scope="module")
def teacher(people: Path) -> Path:
    return write_teacher(people.parent / "teacher.onnx")


def faces(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 112, 112, 3), dtype=np.uint8)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 20])
def test_it_says_what_a_plain_computation_says(teacher: Path, n: int) -> None:
    crops = faces(n)
    kept = crops.copy()
    said = LiveTeacher(str(teacher), maps=("means", "squares"))(crops)
    assert np.array_equal(crops, kept)
    assert said.embeddings.shape == (n, 16)
    assert np.abs(said.embeddings - embeddings(crops)).max() < 1e-4
    assert np.abs(said.maps["means"] - means(crops)).max() < 1e-5
    assert np.abs(said.maps["squares"] - means(crops) ** 2).max() < 1e-5
    assert said.maps["means"].shape == (n, 3, 7, 7)


def test_a_face_does_not_depend_on_its_neighbours(teacher: Path) -> None:
    live = LiveTeacher(str(teacher), maps=("means",))
    assert live.shapes == {"means": (3, 7, 7)}
    together = live(faces(20)).embeddings
    assert np.array_equal(together[3:4], live(faces(20)[3:4]).embeddings)


def test_what_it_is_fed_can_be_said(teacher: Path) -> None:
    crops = faces(2)
    plain = LiveTeacher(str(teacher), Preprocessing("bgr", 0.0, 255.0), ("means",))(crops)
    pixels = crops[..., ::-1].astype(np.float64) / 255
    wanted = pixels.reshape(2, 7, 16, 7, 16, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    assert np.abs(plain.maps["means"] - wanted).max() < 1e-5


def test_without_maps_it_is_a_recogniser(teacher: Path) -> None:
    said = LiveTeacher(str(teacher))(faces(3))
    assert said.maps == {}
    assert np.linalg.norm(said.embeddings, axis=1) == pytest.approx(np.ones(3), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("middle", r"no 'middle' \(it has, among 2 maps: means, squares\)"),
        ("linear", "no 'linear'"),  # a weight
        ("flat", r"'flat' is \(\d+, 147\): want a map"),
    ],
)
def test_a_map_that_is_none(teacher: Path, name: str, reason: str) -> None:
    with pytest.raises(VidfaceError, match=reason):
        LiveTeacher(str(teacher), maps=("means", name))


def test_a_map_beyond_all_proportion(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidface.training.live_teacher.MAX_VALUES", 3 * 49)
    LiveTeacher(str(teacher), maps=("means",))
    monkeypatch.setattr("vidface.training.live_teacher.MAX_VALUES", 3 * 49 - 1)
    with pytest.raises(VidfaceError, match="of at most 146 values"):
        LiveTeacher(str(teacher), maps=("means",))


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((0, 112, 112, 3), np.uint8),
        np.zeros((2, 112, 96, 3), np.uint8),
        np.zeros((2, 112, 112, 3), np.float32),
    ],
)
def test_faces_of_another_kind(teacher: Path, crops: np.ndarray) -> None:
    with pytest.raises(VidfaceError, match="want faces"):
        LiveTeacher(str(teacher))(crops)


def test_a_teacher_without_an_answer(tmp_path: Path) -> None:
    silent = write_teacher(tmp_path / "silent.onnx", LINEAR * 0)
    with pytest.raises(VidfaceError, match="no embedding of face 0"):
        LiveTeacher(str(silent))(faces(2))
    endless = write_teacher(tmp_path / "endless.onnx", LINEAR * np.float32(np.inf))
    with pytest.raises(VidfaceError, match="no embedding of face 0"):
        LiveTeacher(str(endless))(faces(2))


@pytest.fixture(scope="module")
def unbroken(people: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "run"
    trained, losses = run(people, folder, DISTIL)
    assert len(losses) == 8
    assert trained.stages[0].faces == 36
    return folder


@pytest.mark.parametrize(
    ("optimiser", "kill_at"),
    [
        ("muon", 4),  # between two checkpoints
        pytest.param("sgd", 4, marks=pytest.mark.slow),
        pytest.param("muon", 6, marks=pytest.mark.slow),  # on one
        pytest.param("adamw", 7, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bits(
    people: Path, teacher: Path, tmp_path: Path, optimiser: str, kill_at: int
) -> None:
    recipe = DISTIL.replace("[optimiser]", f'[optimiser]\nname = "{optimiser}"')
    run(people, tmp_path / "whole", recipe)
    with pytest.raises(Killed):
        run(people, tmp_path / "run", recipe, kill_at=kill_at)
    run(people, tmp_path / "run", recipe)
    whole, resumed = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "run"))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def lines(folder: Path) -> list[dict[str, float]]:
    kept = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k.startswith("loss/")} for line in kept]


def test_the_log_has_each_hint_and_the_total_is_their_sum(unbroken: Path) -> None:
    for line in lines(unbroken):
        if not line:
            continue
        hints = line["loss/hint stages.6"] + line["loss/hint last"]
        total = line["loss/distance"] + line["loss/relation"] + 0.5 * hints
        assert line["loss/total"] == pytest.approx(total, rel=1e-5)


def test_adapters_stay_out_of_the_model(unbroken: Path) -> None:
    from vidface.backbones.architectures import find_architecture

    model = load_file(unbroken / "model.safetensors")
    assert model.keys() == find_architecture("paper-x0.1-d0.1-e16").build().state_dict().keys()
    checkpoint = load_file(unbroken / "checkpoint.safetensors")
    adapters = {n: t for n, t in checkpoint.items() if n.startswith("task.adapters.convolutions")}
    assert len(adapters) == 4
    assert all(bool(tensor.abs().max() > 0) for tensor in adapters.values())  # they began at 0
    assert not (unbroken / "answers").exists()


def test_hints_move_the_backbone(people: Path, unbroken: Path, tmp_path: Path) -> None:
    run(people, tmp_path / "run", DISTIL.replace("hints = 0.5", "hints = 0"))
    other = load_file(tmp_path / "run" / "model.safetensors")
    one = load_file(unbroken / "model.safetensors")
    assert not torch.equal(one["stem.conv.weight"], other["stem.conv.weight"])
    assert not any("hint" in key for line in lines(tmp_path / "run") for key in line)


@pytest.mark.slow
def test_a_long_training_explains_the_teacher(people: Path, teacher: Path, tmp_path: Path) -> None:
    recipe = DISTIL.replace("steps = 8", "steps = 60").replace("checkpoint_steps = 3\n", "")
    recipe = recipe.replace("learning_rate = 0.05", 'name = "adamw"\nlearning_rate = 0.01')
    run(people, tmp_path / "run", recipe)
    values = [line["loss/hint stages.6"] for line in lines(tmp_path / "run") if line]
    assert values[0] == pytest.approx(1.0, abs=0.6)  # the adapter gives nothing yet
    assert np.mean(values[-10:]) < 0.6 * np.mean(values[:3])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"stages.6"', '"stages.9"', r"no part 'stages.9' \(it has embedding, gdc, last"),
        ('"stages.6"', '"stages.2"', "'stages.2' is 28x28 and the teacher's 'means' 7x7"),
        ('"stages.6"', '"embedding"', r"'embedding' gives \(2, 16\), not a map"),
        ('"means"', '"nothing"', "its graph has no 'nothing'"),
        ("-e16", "-e32", "gives 32 numbers and the teacher 16: name it with -e16"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(
    people: Path, teacher: Path, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    assert old in DISTIL
    with pytest.raises(VidfaceError, match=reason):
        run(people, tmp_path / "run", DISTIL.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("live = true", "live = false", r"\[teacher\] hints: need live = true"),
        ('= "means"', "= 3", r"\[teacher.hints\] 'stages.6': must be a map's name, not 3"),
        ('= "means"', '= ""', r"must be a map's name"),
        ("live = true", 'live = true\ncolor = "grey"', r"\[teacher\] color"),
        ("live = true", "live = true\nstd = 0.0", r"\[teacher\] std: must be above 0"),
        ("hints = 0.5", "hints = -1", "hints: must be at least 0"),
        ("hints = 0.5", "hints = true", "hints: must be a finite number"),
    ],
)
def test_settings_that_are_wrong(
    people: Path, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(DISTIL.replace(old, new))
    with pytest.raises(VidfaceError, match=reason):
        load_training(file)


def test_another_teacher_is_another_training(people: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(people, tmp_path / "run", DISTIL, kill_at=4)
    kept = teacher.read_bytes()
    try:
        write_teacher(teacher, LINEAR[::-1].copy())
        with pytest.raises(VidfaceError, match="inputs"):
            run(people, tmp_path / "run", DISTIL)
    finally:
        teacher.write_bytes(kept)
