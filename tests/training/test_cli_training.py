from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.conftest import RECIPE
from vidface.backbones.loading import load_backbone


@pytest.fixture
def recipe(people: Path, tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(RECIPE.replace('path = "people"', f'path = "{people}"'))
    return file


def test_train_prints_the_table_and_the_model_is_a_recogniser(vidface, recipe: Path) -> None:
    done = vidface("train", recipe)
    assert done.code == 0, done.err
    header, first, second = done.out.splitlines()[1], *done.out.splitlines()[3:5]
    assert header.split()[:2] == ["stage", "losses"]
    assert first.split()[:2] == ["ArcFace", "arcface"]
    assert "combined + sv-guided + inter" in second
    assert "model: " in done.out
    model = Path("runs/mine/model.safetensors")
    assert f"model: {model.absolute()}" in done.out
    backbone = load_backbone(model, runtime="torch", threads=1)
    assert backbone.architecture == "paper-x0.1-d0.1-e16"
    assert backbone.dimension == 16
    assert not backbone.assumed
    assert (backbone.preprocessing.color, backbone.preprocessing.std) == ("rgb", 128)
    again = vidface("train", recipe, "--json")
    said = json.loads(again.out)
    assert [stage["steps"] for stage in said["stages"]] == [5, 4]
    assert said["provenance"]["stage"] == "train"


def test_half_precision_halves_the_file(vidface, recipe: Path) -> None:
    assert vidface("train", recipe, "--run", "one").code == 0
    recipe.write_text(recipe.read_text().replace("threads", "save_half = true\nthreads"))
    assert vidface("train", recipe, "--run", "two").code == 0
    one, two = (Path(name, "model.safetensors").stat().st_size for name in ("one", "two"))
    assert two < 0.65 * one
    first, second = (
        load_backbone(Path(name, "model.safetensors"), runtime="torch", threads=1)
        for name in ("one", "two")
    )
    assert first.architecture == second.architecture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.toml"], "no such file; give a path, or one of the shipped recipes"),
        (["train", "mine.toml", "--data", "nobody"], "nobody"),
        (["train", "mine.toml", "--run", "mine.toml"], "mine.toml"),
    ],
)
def test_errors_are_one_line(vidface, recipe: Path, arguments: list[str], message: str) -> None:
    done = vidface(*arguments)
    assert done.code == (2 if "nowhere.toml" in arguments else 1)
    assert done.out == ""
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("vidface: error: ")
    assert message in last
    assert "internal error" not in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "-1"],
        ["--seed", str(2**63)],
        ["--workers", "-1"],
        ["--threads", "0"],
        ["--threads", "9999999"],
        ["--precision", "int8"],
        ["--device", "cuda:7"],
    ],
)
def test_wrong_flags_are_wrong_usage(vidface, recipe: Path, flags: list[str]) -> None:
    assert vidface("train", recipe, *flags).code == 2


def test_flags_replace_the_recipes_keys(vidface, recipe: Path) -> None:
    assert vidface("train", recipe, "--seed", "5", "--run", "five").code == 0
    said = json.loads(Path("five/training.json").read_text())
    assert said["settings"]["train"]["seed"] == 5
    done = vidface("train", recipe, "--run", "five")
    assert "other settings (train.seed)" in done.err
    assert vidface("train", recipe, "--run", "five", "--restart").code == 0
