"""Real processes: a training killed by the system, and two that train as one would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import RECIPE, write_people
from tests.training.test_live import DISTIL
from tests.training.toy_teacher import write_teacher

pytestmark = pytest.mark.slow

ALONE = [sys.executable, "-m", "vidface"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
       "-m", "--", "vidface"]  # fmt: skip
SECONDS = 120


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(begin: list[str], recipe: Path, run: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*begin, "train", str(recipe), "--run", str(run), "--json"],
        capture_output=True, text=True, timeout=SECONDS, env=environment(), check=False,
    )  # fmt: skip


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss/total"] for line in lines if "loss/total" in line]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages, the second with a cut, P×K batches and triplets, on made-up people."""
    folder = tmp_path_factory.mktemp("training")
    write_people(folder / "people", people=6, images=8)
    file = folder / "train_small.toml"
    text = RECIPE.replace('path = "people"', 'path = "people"\nhold_out_people = 2')
    text = text.replace("steps = 5", "steps = 12").replace("steps = 4", "steps = 12")
    file.write_text(
        text
        + """
[[stage]]
name = "mined"
steps = 4
images_per_person = 2
losses.triplet.mining = "all"
[stage.cut]
min_images = 2
own_cosine = "off"
stranger_cosine = "off"
quality_quantile = "off"
domain_images = "off"
"""
    )
    return file


@pytest.fixture(scope="module")
def alone(recipe: Path) -> Path:
    run = recipe.parent / "alone"
    done = train(ALONE, recipe, run)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [stage["name"] for stage in said["stages"]] == ["ArcFace", "Combined", "mined"]
    assert all(0 <= stage["accuracies"]["held-out"] <= 1 for stage in said["stages"])
    return run


def kill_after(recipe: Path, run: Path, lines: int) -> None:
    """Train until the log has so many lines, then kill."""
    process = subprocess.Popen(
        [*ALONE, "train", str(recipe), "--run", str(run)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + SECONDS
    log = run / "log.jsonl"
    while not log.is_file() or len(log.read_text().splitlines()) < lines:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists()


@pytest.mark.parametrize("after_lines", [2, 14, 25])
def test_killed_by_the_system_and_resumed_gives_the_same_bits(
    recipe: Path, alone: Path, tmp_path: Path, after_lines: int
) -> None:
    run = tmp_path / "run"
    kill_after(recipe, run, after_lines)
    done = train(ALONE, recipe, run)
    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr
    whole, resumed = (load_file(each / "model.safetensors") for each in (alone, run))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert losses(run) == losses(alone)


def test_killed_beside_a_live_teacher_and_resumed_gives_the_same_bits(tmp_path: Path) -> None:
    write_people(tmp_path / "people", people=4, images=6)
    write_teacher(tmp_path / "teacher.onnx")
    recipe = tmp_path / "live.toml"
    recipe.write_text(DISTIL.replace("[optimiser]", '[optimiser]\nname = "muon"'))
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(ALONE, recipe, whole).returncode == 0
    kill_after(recipe, run, 5)
    done = train(ALONE, recipe, run)
    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr
    one, two = (load_file(each / "model.safetensors") for each in (whole, run))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert losses(run) == losses(whole)


def test_two_processes_train_as_one(recipe: Path, tmp_path: Path) -> None:
    # At usual rates a network on such faces amplifies the rounding of a sum a hundredfold a step
    # (two memory layouts in one process differ as much); at a gentle one it does not. A gradient
    # wrong by a factor shows in the second step, which changes the loss by a tenth.
    gentle = recipe.parent / "gentle.toml"
    text = recipe.read_text().replace("learning_rate = 0.05", "learning_rate = 0.0005")
    text = text.replace("warmup_steps = 2", "").replace("-e16", "-e128")
    gentle.write_text(text.replace("batch_size", "scale = 8\nbatch_size"))
    runs = tmp_path / "one", tmp_path / "two"
    for begin, run in zip((ALONE, TWO), runs, strict=True):
        done = train(begin, gentle, run)
        assert done.returncode == 0, done.stderr
    again = train(TWO, gentle, runs[1])  # finished: nothing is done, and nothing breaks
    assert again.returncode == 0, again.stderr
    one, two = (np.array(losses(run)) for run in runs)
    assert len(one) == len(two) == 28
    assert two[:12] == pytest.approx(one[:12], rel=2e-3)
    assert two == pytest.approx(one, rel=0.05)
    assert abs(one[1] / one[0] - 1) > 0.05
    first, second = (load_file(run / "model.safetensors") for run in runs)
    for name, tensor in first.items():
        assert torch.allclose(tensor.float(), second[name].float(), atol=0.02), name


def test_a_batch_that_processes_cannot_share(recipe: Path, tmp_path: Path) -> None:
    odd = recipe.parent / "odd.toml"
    text = recipe.read_text().replace("batch_size = 8", "batch_size = 7")
    odd.write_text(text.split('[[stage]]\nname = "mined"')[0])
    done = train(TWO, odd, tmp_path / "run")
    assert done.returncode != 0
    assert "a batch of 7 can't be shared evenly by 2 processes" in done.stderr
