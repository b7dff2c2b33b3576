"""A run tries its recogniser before the first clip, on made-up pictures and on its first faces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.backbones.test_behaviour import (
    FAULTS,
    PLAIN,
    load,
    make_module,
    person_crops,
    write_network,
)
from tests.conftest import write_crop
from vidface import evaluate
from vidface.backbones.behaviour import Answer, read_answer
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.runs import trying
from vidface.runs.trying import CLIPS, FACES_A_CLIP, Trial

BROKEN = [fault for fault in FAULTS if fault != "sound"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


def fed_flags(weights: Path) -> tuple[object, ...]:
    return ("--weights", weights, "--color", "rgb", "--mean", "0", "--std", "1")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_recogniser_stops_the_run(
    vidface, colour_pipeline: Path, tmp_path: Path, fault: str
) -> None:
    weights = write_network(tmp_path / "n.onnx", fault)
    done = vidface("extract", "--pipeline", colour_pipeline, *fed_flags(weights))
    assert done.code == 1
    assert FAULTS[fault][1] in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("**/clips.parquet"))


@pytest.mark.parametrize("fails_on", ["pictures", "faces"])
def test_by_force_it_goes_on_and_the_score_file_says_so(
    vidface, colour_pipeline: Path, tmp_path: Path, monkeypatch, fails_on: str
) -> None:
    weights = write_network(tmp_path / "n.onnx", "batch")
    if fails_on == "faces":
        monkeypatch.setattr(trying.Trial, "try_pictures", lambda trial: None)
    done = vidface(
        "run", colour_pipeline, *fed_flags(weights), "--force-recogniser", "--bootstrap", "0"
    )
    assert done.code == 0, done.err
    assert done.err.count("beside other faces") == 1
    [path] = (tmp_path / "run" / "scores").glob("*threshold_0.5.json")
    said = json.loads(path.read_text())["provenance"]["forced"]
    assert "another embedding beside other faces" in said


def test_a_sound_recogniser_is_tried_once(
    vidface, colour_pipeline: Path, tmp_path: Path, monkeypatch
) -> None:
    tried: list[int] = []
    check = trying.check_behaviour
    monkeypatch.setattr(
        trying, "check_behaviour", lambda r, crops: (tried.append(len(crops)), check(r, crops))[1]
    )
    for _ in range(2):
        done = vidface("extract", "--pipeline", colour_pipeline, "--force")
        assert done.code == 0, done.err
    assert tried == [8, 8]  # made-up pictures, the first faces; the second run knows


def test_a_recogniser_that_fails_on_faces_alone(tmp_path: Path, colour_clips: Path) -> None:
    """A module of the caller's, sound on made-up pictures: NaN where nothing is blue."""
    import torch

    class Touchy(torch.nn.Module):
        def forward(self, images):
            means = images.mean(dim=(2, 3))
            return torch.where(means[:, 2:] < 50, torch.nan, means)

    arguments = {"source": "aligned", "bootstrap": 0, "preprocessing": PLAIN}
    with pytest.raises(VidfaceError, match=r"Touchy: gives NaN .* for \d of 8 faces"):
        evaluate(colour_clips, Touchy(), **arguments)
    assert evaluate(colour_clips, make_module(), **arguments).to_dict()


def see_people(trial: Trial, n_clips: int) -> None:
    for number in range(n_clips):
        clip = Clip(f"{number}", "", f"{number % 8}", "val")
        trial.see(clip, person_crops()[number % 8])


@pytest.mark.parametrize("ends", [False, True])
def test_a_better_feed_is_named_once_and_kept(tmp_path: Path, ends: bool) -> None:
    """When enough clips were seen, or at the end."""
    recogniser = load(write_network(tmp_path / "n.onnx", front="Softsign"))
    lines: list[str] = []
    trial = Trial(recogniser, lines.append)
    trial.try_pictures()
    see_people(trial, 8 if ends else CLIPS)
    trial.try_faces()
    assert lines == []
    trial.finish() if ends else see_people(trial, CLIPS + 1)
    [line] = lines
    assert line.endswith("--color rgb --mean 127.5 --std 127.5")
    assert read_answer(recogniser) == Answer(on_faces=True, advice=line)
    Trial(recogniser, lines.append)
    assert lines == [line, line]  # an older answer is said again


def test_with_few_faces_nothing_is_said(tmp_path: Path) -> None:
    recogniser = load(write_network(tmp_path / "n.onnx", front="Softsign"))
    lines: list[str] = []
    trial = Trial(recogniser, lines.append)
    see_people(trial, 3)  # nine pairs of one person
    trial.try_faces()
    trial.finish()
    assert lines == []
    assert read_answer(recogniser) == Answer(on_faces=True, advice=None)  # the next run may tell


def test_a_flat_picture_is_no_face(tmp_path: Path) -> None:
    """Black may well have no embedding."""
    recogniser = load(write_network(tmp_path / "n.onnx"))
    trial = Trial(recogniser)
    trial.see(Clip("a", "", "", "val"), np.zeros((3, 112, 112, 3), np.uint8))
    trial.try_faces()
    assert read_answer(recogniser) == Answer()


def test_faces_of_a_clip_are_spread_over_it() -> None:
    clip = trying._SeenClip("")
    crops = np.arange(100, dtype=np.uint8)[:, None, None, None]
    for start in range(0, 100, 7):
        clip.add(crops[start : start + 7])
    kept = [int(crop.item()) for crop in clip.crops]
    assert len(kept) <= FACES_A_CLIP
    assert (kept[0], kept[-1] >= 50) == (0, True)
    assert len(set(np.diff(kept))) == 1


def test_verify_tries_it_too(vidface, tmp_path: Path) -> None:
    lines = ["2\t1"]
    for name in ("red", "green"):
        for number in (1, 2):
            write_crop(tmp_path / "f" / name / f"{name}_000{number}.png", name, seed=number)
    lines += ["red\t1\t2", "red\t1\tgreen\t1", "green\t1\t2", "red\t2\tgreen\t2"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    weights = write_network(tmp_path / "n.onnx", "constant")
    faces = (tmp_path / "f", "--pairs", tmp_path / "pairs.txt", "--color", "rgb")
    done = vidface("verify", weights, *faces)
    assert (done.code, "one and the same embedding" in done.err) == (1, True)
    done = vidface("verify", weights, *faces, "--force-recogniser", "--json")
    assert "one and the same embedding" in done.json["provenance"]["forced"]
