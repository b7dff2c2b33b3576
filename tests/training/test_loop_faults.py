"""What goes wrong in a training, and what is left of it: found in a review, one test each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.conftest import RECIPE, write_people
from tests.training.test_loop import Killed, log, run, weights
from vidface.core.errors import VidfaceError
from vidface.training import kept_answers, loop
from vidface.training.checkpoints import load_checkpoint, save_checkpoint
from vidface.training.folder import TrainingFolder
from vidface.training.recipes import load_training
from vidface.training.tasks import RecognitionTask
from vidface.training.validation import HeldOutPairs

HELD = RECIPE.replace('path = "people"', 'path = "people"\nhold_out_people = 2')


def no_model(folder: Path) -> bool:
    return not (folder / "model.safetensors").exists()


def test_weights_that_leave_float32_are_never_saved(people: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace("learning_rate = 0.05", "learning_rate = 1e38\nclip_norm = 0.0")
    recipe = recipe.replace("steps = 5", "steps = 1").replace("steps = 4", "steps = 1")
    with pytest.raises(VidfaceError, match="a weight is not finite at step 1"):
        run(people, tmp_path / "run", recipe)
    assert no_model(tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


def test_a_gradient_that_is_not_finite_stops_before_it_is_used(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def finite(self: RecognitionTask) -> bool:
        asked.append(1)
        return len(asked) != 3

    monkeypatch.setattr(RecognitionTask, "has_finite_gradients", finite)
    with pytest.raises(VidfaceError, match="a gradient is not finite at step 3"):
        run(
            people, tmp_path / "run", RECIPE.replace("checkpoint_steps = 3", "checkpoint_steps = 1")
        )
    tensors, said = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert said["place"]["step"] == 2
    assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())


@pytest.mark.parametrize("where", ["backbone", "centres"])
def test_an_infinite_gradient_is_found(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    original = RecognitionTask.loss

    def loss(self: RecognitionTask, embeddings, indices, moment, step):  # type: ignore[no-untyped-def]
        if step == 1 and where == "backbone":
            embeddings.register_hook(lambda g: g * float("inf"))
        found = original(self, embeddings, indices, moment, step)
        if step == 1 and where == "centres":
            self.centres.weight.register_hook(lambda g: g * float("nan"))
        return found

    monkeypatch.setattr(RecognitionTask, "loss", loss)
    with pytest.raises(VidfaceError, match="a gradient is not finite at step 2"):
        run(people, tmp_path / "run")


@pytest.mark.slow
def test_a_stage_that_ended_early_stays_ended_after_a_kill(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldOutPairs, "accuracy", lambda *_: 0.5)
    recipe = HELD.replace("steps = 5", "steps = 8\npatience = 1")
    recipe = recipe.replace("steps = 4", 'steps = 4\nstart = "last"')
    whole, _ = run(people, tmp_path / "whole", recipe)
    first = whole.stages[0]
    assert (first.steps, first.best_step) == (4, 2)  # an epoch has 2 steps

    def kills(line: str) -> None:
        if "ended early" in line:
            raise Killed

    file = people.parent / "early.toml"
    file.write_text(recipe)
    pipeline = load_training(file, {("run", "dir"): tmp_path / "killed"})
    with pytest.raises(Killed):
        loop.train(pipeline, notify=kills)
    again, _ = run(people, tmp_path / "killed", recipe)
    assert [stage.steps for stage in again.stages] == [stage.steps for stage in whole.stages]
    same = weights(tmp_path / "killed")
    assert all(torch.equal(t, same[name]) for name, t in weights(tmp_path / "whole").items())


@pytest.mark.slow
def test_a_validation_leaves_the_number_of_threads_alone(people: Path, tmp_path: Path) -> None:
    threads: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        file = people.parent / "threads.toml"
        file.write_text(HELD.replace("threads = 1", "threads = 0"))
        pipeline = load_training(file, {("run", "dir"): tmp_path / "run"})
        loop.train(pipeline, on_step=lambda _: threads.append(torch.get_num_threads()))
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {3}


def test_too_few_faces_in_a_later_stage_are_said_at_once(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=4, images=3)
    recipe = RECIPE.replace("steps = 4", "steps = 4\nimages_per_person = 4")
    with pytest.raises(VidfaceError, match="person0"):
        run(people, tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()


def test_one_person_is_nobody_to_tell_apart(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=1, images=9)
    with pytest.raises(VidfaceError, match="one person only"):
        run(people, tmp_path / "run")


def test_a_teacher_is_not_asked_for_a_folder_that_is_refused(
    people: Path, colour_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(kept_answers, "_ask", asked)
    recipe = RECIPE.split("[[stage]]")[0].replace("-e16", "-e3")
    recipe += f'[teacher]\nweights = "{colour_network}"\ncount = 40\n'
    recipe += '[[stage]]\nname = "distil"\nsteps = 2\nlosses.distil = {}\n'
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(VidfaceError, match="holds no training"):
        run(people, tmp_path / "mine", recipe)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_one_clear_line(tmp_path: Path, workers: int) -> None:
    people = write_people(tmp_path / "people", people=3)
    (people / "person1" / "2.png").write_bytes(b"no picture")
    recipe = RECIPE.replace("threads = 1", f"threads = 1\nworkers = {workers}")
    with pytest.raises(VidfaceError, match=r"2\.png") as caught:
        run(people, tmp_path / "run", recipe)
    assert "\n" not in str(caught.value)


Change = Callable[[dict[str, torch.Tensor], dict[str, object]], None]


def place_of(said: dict[str, object]) -> dict[str, object]:
    place = said["place"]
    assert isinstance(place, dict)
    return place


DAMAGE: dict[str, tuple[Change, str]] = {
    "no place": (lambda t, s: s.pop("place"), "does not say where"),
    "an odd key": (lambda t, s: place_of(s).update(more=1), "does not say where"),
    "a stage as text": (lambda t, s: place_of(s).update(stage="1"), "does not say where"),
    "stage 0": (lambda t, s: place_of(s).update(stage=0), "does not say where"),
    "stage 9": (lambda t, s: place_of(s).update(stage=9), "does not say where"),
    "a negative step": (lambda t, s: place_of(s).update(step=-1), "does not say where"),
    "fewer centres": (
        lambda t, s: t.update({"task.centres": torch.zeros(3, 16)}),
        "another number of classes",
    ),
    "one centre": (
        lambda t, s: t.update({"task.centres": torch.zeros(1, 16)}),
        "another number of classes",
    ),
    "no centres": (lambda t, s: t.pop("task.centres"), "another number of classes"),
    "no momenta": (
        lambda t, s: [t.pop(name) for name in list(t) if name.startswith("optimiser.")],
        "holds no momenta",
    ),
    "momenta of others": (
        lambda t, s: t.update({"optimiser.0.momentum_buffer": torch.zeros(7)}),
        "fits no parameter",
    ),
    "an odd name": (lambda t, s: t.update({"optimiser.x.y": torch.zeros(1)}), "fits no parameter"),
    "another network": (
        lambda t, s: t.update({"backbone.stem.conv.weight": torch.zeros(2)}),
        "another architecture",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_of_something_else_is_one_clear_line(
    people: Path, tmp_path: Path, damage: str
) -> None:
    with pytest.raises(Killed):
        run(people, tmp_path / "run", kill_at=4)
    path = tmp_path / "run" / "checkpoint.safetensors"
    tensors, said = load_checkpoint(path)
    assert said["place"]["step"] == 3
    change, message = DAMAGE[damage]
    change(tensors, said)
    said.pop("format")
    save_checkpoint(path, tensors, said)
    with pytest.raises(VidfaceError, match=message) as caught:
        run(people, tmp_path / "run")
    assert str(path) in str(caught.value)


@pytest.mark.slow
def test_a_checkpoint_that_is_gone_takes_old_cuts_with_it(people: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(people, tmp_path / "run", kill_at=7)
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    cut = tmp_path / "run" / "stages" / "01-arcface" / "cut.parquet"
    cut.write_bytes(b"of a model that is gone")
    run(people, tmp_path / "run")
    assert not cut.exists()


@pytest.mark.slow
def test_a_stages_end_is_logged_once(people: Path, tmp_path: Path) -> None:
    run(people, tmp_path / "whole", HELD)
    wanted = log(tmp_path / "whole", "best/held-out")
    assert len(wanted) == 2

    def kills(line: str) -> None:
        if line.startswith("stage 1") and "step" not in line and "held-out" in line:
            raise Killed  # after the stage's end, before the next one's checkpoint

    file = people.parent / "ends.toml"
    file.write_text(HELD)
    pipeline = load_training(file, {("run", "dir"): tmp_path / "run"})
    with pytest.raises(Killed):
        loop.train(pipeline, notify=kills)
    run(people, tmp_path / "run", HELD)
    assert log(tmp_path / "run", "best/held-out") == wanted


@pytest.mark.slow
def test_a_cut_renumbers_people_and_its_removal_brings_them_back(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=4)
    for image in (people / "person1").glob("[2-9].png"):
        image.unlink()  # two are left
    recipe = (
        RECIPE.split("[[stage]]")[0].replace("batch_size = 8", "batch_size = 4")
        + """
[[stage]]
name = "all"
steps = 3
losses.arcface = {}
[[stage]]
name = "fewer"
steps = 3
losses.class-balance = {}
[stage.cut]
min_images = 3
own_cosine = "off"
stranger_cosine = "off"
quality_quantile = "off"
domain_images = "off"
[[stage]]
name = "all again"
steps = 3
remove = ["cut"]
"""
    )
    whole, _ = run(people, tmp_path / "whole", recipe)
    assert [(stage.people, stage.faces) for stage in whole.stages] == [(4, 20), (3, 18), (4, 20)]
    assert [dict(stage.cut) for stage in whole.stages] == [{}, {"long_tail": 2}, {}]
    for kill_at in (4, 5, 7):
        with pytest.raises(Killed):
            run(people, tmp_path / f"{kill_at}", recipe, kill_at=kill_at)
        run(people, tmp_path / f"{kill_at}", recipe)
        same = weights(tmp_path / f"{kill_at}")
        assert all(torch.equal(t, same[name]) for name, t in weights(tmp_path / "whole").items())
    _, said = load_checkpoint(tmp_path / "whole" / "stages" / "02-fewer" / "best.safetensors")
    assert said["people"] == ["person0", "person2", "person3"]


@pytest.mark.slow
def test_benchmarks_at_every_validation(people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lfw" / "Ann"
    folder.mkdir(parents=True)
    for number in (1, 2):
        source = people / "person0" / f"{number}.png"
        (folder / f"Ann_{number:04d}.png").write_bytes(source.read_bytes())
    other = tmp_path / "lfw" / "Bob"
    other.mkdir()
    (other / "Bob_0001.png").write_bytes((people / "person1" / "0.png").read_bytes())
    (tmp_path / "pairs.txt").write_text("2 1\n" + "Ann 1 2\nAnn 1 Bob 1\n" * 2)
    recipe = RECIPE.replace(
        "[optimiser]",
        f"""[[benchmark]]
name = "tiny"
images = "{tmp_path / "lfw"}"
pairs = "{tmp_path / "pairs.txt"}"
each_validation = true
[optimiser]""",
    )
    trained, _ = run(people, tmp_path / "run", recipe)
    # 30 faces in batches of 8: an epoch has 3 steps. Validations after 3, 5 (the end); 3, 4.
    assert [step for step, _ in log(tmp_path / "run", "accuracy/tiny")] == [3, 5, 8, 9]
    assert all(0 <= stage.accuracies["tiny"] <= 1 for stage in trained.stages)  # type: ignore[operator]
    chosen = recipe.replace("[train]", '[train]\nchoose_by = "tiny"')
    with pytest.raises(Killed):
        run(people, tmp_path / "chosen", chosen, kill_at=4)
    flipped = chosen.replace("each_validation = true", "flip = true")
    with pytest.raises(VidfaceError, match=r"other settings .*inputs\.pairs"):
        run(people, tmp_path / "chosen", flipped)


@pytest.mark.slow
def test_beginning_with_a_file_of_weights(people: Path, tmp_path: Path) -> None:
    run(people, tmp_path / "first")
    model = tmp_path / "first" / "model.safetensors"
    recipe = RECIPE.replace("[train]", f'[train]\ninit = "{model}"')
    with pytest.raises(Killed):
        run(people, tmp_path / "run", recipe, kill_at=1)
    start, _ = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    given = load_file(model)
    assert all(torch.equal(start[f"backbone.{name}"], tensor) for name, tensor in given.items())
    save_file({name: tensor + 1 for name, tensor in given.items()}, tmp_path / "other.safetensors")
    model.write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(VidfaceError, match=r"inputs\.init|architecture"):
        run(people, tmp_path / "run", recipe)
    wrong = recipe.replace("-e16", "-e8")
    with pytest.raises(VidfaceError, match="not of architecture"):
        run(people, tmp_path / "wrong", wrong)


def test_the_log_has_finite_numbers_alone(people: Path, tmp_path: Path) -> None:
    run(people, tmp_path / "run")
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        values = [v for v in json.loads(line).values() if isinstance(v, float)]
        assert np.isfinite(values).all()


def test_two_trainings_in_one_folder(people: Path, tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path / "run")
    with folder.at_work(), pytest.raises(VidfaceError, match=r"in use by process .* \(train\)"):
        run(people, tmp_path / "run")
    assert not folder.description.exists()
    run(people, tmp_path / "run", RECIPE.replace("steps = 5", "steps = 1"))
