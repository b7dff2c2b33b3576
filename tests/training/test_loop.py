"""The loop on a tiny network: every test here runs real steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import RECIPE, write_people
from vidface.core.errors import VidfaceError
from vidface.training.checkpoints import add_prefix, load_checkpoint
from vidface.training.loop import train
from vidface.training.recipes import load_training
from vidface.training.results import TrainingResult
from vidface.training.stage_run import StageRun, StepReport
from vidface.training.stages import resolve_stages
from vidface.training.validation import HeldOutPairs


class Killed(BaseException):
    """Stands for a kill: nothing in the package may catch it and tidy up."""


def run(
    people: Path,
    out: Path,
    recipe: str = RECIPE,
    *,
    kill_at: int | None = None,
    restart: bool = False,
) -> tuple[TrainingResult, list[float]]:
    """Train; `kill_at` ends it after so many steps in all. Returns the losses of this call too."""
    file = people.parent / f"{out.name}.toml"
    file.write_text(recipe)
    losses: list[float] = []

    def on_step(report: StepReport) -> None:
        losses.append(report.loss)
        if report.done == kill_at:
            raise Killed

    pipeline = load_training(file, {("run", "dir"): out})
    return train(pipeline, restart=restart, on_step=on_step), losses


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    _, losses = run(people, folder)
    assert len(losses) == 9
    return folder


# Inside the first stage on and off a checkpoint (every 3 steps), at its end, inside the second.
SLOWLY = [pytest.param(step, marks=pytest.mark.slow) for step in (1, 3, 5, 7)]


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [4, 9, *SLOWLY])
def test_killed_and_resumed_gives_the_same_bits(
    people: Path, unbroken: Path, tmp_path: Path, kill_at: int
) -> None:
    with pytest.raises(Killed):
        run(people, tmp_path / "run", kill_at=kill_at)
    run(people, tmp_path / "run")
    whole, resumed = weights(unbroken), weights(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    assert log(tmp_path / "run", "loss/total") == log(unbroken, "loss/total")


def log(folder: Path, key: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


@pytest.mark.slow
def test_killed_twice(people: Path, unbroken: Path, tmp_path: Path) -> None:
    for kill_at in (2, 6):
        with pytest.raises(Killed):
            run(people, tmp_path / "run", kill_at=kill_at)
    run(people, tmp_path / "run")
    assert all(torch.equal(t, weights(tmp_path / "run")[n]) for n, t in weights(unbroken).items())


@pytest.mark.slow
def test_a_finished_training_is_not_done_again(people: Path, unbroken: Path) -> None:
    before = weights(unbroken)
    trained, losses = run(people, unbroken)
    assert losses == []
    assert [stage.steps for stage in trained.stages] == [5, 4]
    assert all(torch.equal(t, weights(unbroken)[n]) for n, t in before.items())
    there = [unbroken, *unbroken.rglob("*")]  # TensorBoard makes files of its own, of figures alone
    opened = [path.name for path in there if path.stat().st_mode & 0o077]
    assert [name for name in opened if "tfevents" not in name] == []


def test_the_loss_falls_and_the_row_says_what_was_done(people: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace("steps = 5", "steps = 40").replace("checkpoint_steps = 3\n", "")
    trained, losses = run(people, tmp_path / "run", recipe)
    assert np.mean(losses[35:40]) < 0.5 * np.mean(losses[:5])
    first, second = trained.stages
    assert first.losses == ("arcface",)
    assert second.losses == ("combined", "sv-guided", "inter")
    assert (first.steps, first.images, first.best_step) == (40, 320, 40)
    assert (first.faces, first.people) == (30, 5)
    assert first.final_loss == pytest.approx(np.mean(losses[:40]), rel=1e-9)  # of the last 50
    said = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [stage["name"] for stage in said["stages"]] == ["ArcFace", "Combined"]


def test_the_second_stage_starts_from_the_best_of_the_first(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    best, said = load_checkpoint(unbroken / "stages" / "01-arcface" / "best.safetensors")
    assert said["people"] == [f"person{i}" for i in range(5)]
    with pytest.raises(Killed):  # right after the first step of stage 2, before a checkpoint of it
        run(people, tmp_path / "run", kill_at=6)
    start, said = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert (said["place"]["stage"], said["place"]["step"]) == (2, 0)
    for name, tensor in best.items():
        if name != "task.momentum":  # centres and weights are carried over, momenta are not
            assert torch.equal(start[name], tensor), name
    assert not start["task.momentum"].any()


@pytest.mark.parametrize("start", ["best", "last"])
def test_a_stage_starts_from_the_best_where_the_last_is_another(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    """Held-out people like the model after 2 of 5 steps best."""
    accuracies = iter([0.6, 0.9, 0.7, 0.7, 0.7, *[0.5] * 9])
    monkeypatch.setattr(HeldOutPairs, "accuracy", lambda self, embedder: next(accuracies))
    ends: list[dict[str, torch.Tensor]] = []
    load_first_weights = StageRun._load_first_weights

    def remember(stage: StageRun) -> None:
        ends.append({name: tensor.clone() for name, tensor in stage.network.weights().items()})
        load_first_weights(stage)

    monkeypatch.setattr(StageRun, "_load_first_weights", remember)
    recipe = RECIPE.replace("checkpoint_steps = 3", "validate_epochs = 0.001")
    recipe = recipe.replace('path = "people"', 'path = "people"\nhold_out_people = 2')
    folder = tmp_path / "run"
    with pytest.raises(Killed):  # right after the first step of stage 2, before a checkpoint of it
        run(people, folder, recipe.replace("steps = 4", f'steps = 4\nstart = "{start}"'), kill_at=6)
    began, said = load_checkpoint(folder / "checkpoint.safetensors")
    assert (said["place"]["stage"], said["place"]["step"]) == (2, 0)
    best, about = load_checkpoint(folder / "stages" / "01-arcface" / "best.safetensors")
    assert about["step"] == 2
    last = add_prefix("backbone", ends[1])
    for name in last:
        taken = best if start == "best" else last
        assert torch.equal(began[name], taken[name]), name
    assert not all(torch.equal(best[name], last[name]) for name in last)
    assert torch.equal(began["task.centres"], best["task.centres"]) == (start == "best")


@pytest.mark.slow
def test_start_from_scratch_and_from_the_last(people: Path, tmp_path: Path) -> None:
    scratch = RECIPE.replace("steps = 4", 'steps = 4\nstart = "scratch"')
    with pytest.raises(Killed):
        run(people, tmp_path / "scratch", scratch, kill_at=6)
    first, _ = load_checkpoint(tmp_path / "scratch" / "checkpoint.safetensors")
    with pytest.raises(Killed):
        run(people, tmp_path / "one", scratch, kill_at=1)
    begin, _ = load_checkpoint(tmp_path / "one" / "checkpoint.safetensors")
    assert all(torch.equal(first[name], begin[name]) for name in begin if "optimiser" not in name)
    last = RECIPE.replace("steps = 4", 'steps = 4\nstart = "last"')
    run(people, tmp_path / "last", last)  # with "last" choosing, the same as from the best
    plain, _ = run(people, tmp_path / "best", RECIPE)
    same = weights(tmp_path / "best")
    assert all(torch.equal(t, same[name]) for name, t in weights(tmp_path / "last").items())
    assert plain.choose_by == "last"


def test_nan_stops_says_the_step_and_keeps_the_last_good_checkpoint(
    people: Path, tmp_path: Path
) -> None:
    # A learning rate that leaves float32 within a few steps.
    recipe = RECIPE.replace("learning_rate = 0.05", "learning_rate = 1e30\nclip_norm = 0.0")
    with pytest.raises(
        VidfaceError, match=r"(loss is|not finite).* at step \d.*last good checkpoint"
    ):
        run(people, tmp_path / "run", recipe)
    tensors, said = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert said["place"]["step"] == 0
    assert all(torch.isfinite(t).all() for n, t in tensors.items() if n.startswith("backbone"))


def test_a_folder_of_another_training_is_refused(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    with pytest.raises(VidfaceError, match=r"other settings \(train.seed\).*--restart"):
        run(people, unbroken, RECIPE.replace("batch_size", "seed = 3\nbatch_size"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(VidfaceError, match="not empty and holds no training"):
        run(people, tmp_path / "mine")
    with pytest.raises(VidfaceError, match="not empty"):  # --restart removes only what is ours
        run(people, tmp_path / "mine", restart=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


@pytest.mark.slow
def test_restart_begins_anew(people: Path, unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(people, tmp_path / "run", RECIPE.replace("batch_size = 8", "batch_size = 4"), kill_at=3)
    run(people, tmp_path / "run", restart=True)
    assert all(torch.equal(t, weights(tmp_path / "run")[n]) for n, t in weights(unbroken).items())


def test_other_data_in_the_same_place_is_refused(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=3)
    with pytest.raises(Killed):
        run(people, tmp_path / "run", kill_at=2)
    (people / "person0" / "0.png").unlink()
    with pytest.raises(VidfaceError, match=r"inputs\.faces"):
        run(people, tmp_path / "run")


def test_a_damaged_checkpoint_is_one_clear_line(people: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(people, tmp_path / "run", kill_at=4)
    file = tmp_path / "run" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(VidfaceError, match=r"checkpoint\.safetensors: damaged.*--restart"):
        run(people, tmp_path / "run")


@pytest.mark.slow
def test_workers_change_nothing(people: Path, unbroken: Path, tmp_path: Path) -> None:
    run(people, tmp_path / "run", RECIPE.replace("threads = 1", "threads = 1\nworkers = 1"))
    assert all(torch.equal(t, weights(tmp_path / "run")[n]) for n, t in weights(unbroken).items())


def test_sampled_centres_train_too(people: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace("batch_size = 8", "batch_size = 4\nsample_rate = 0.2")
    _, losses = run(people, tmp_path / "run", recipe)
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_bf16_trains_and_is_not_float32(people: Path, unbroken: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace("threads = 1", 'threads = 1\nprecision = "bf16"')
    _, losses = run(people, tmp_path / "run", recipe)
    exact = [value for _, value in log(unbroken, "loss/total")]
    assert losses[0] != exact[0]
    assert losses[0] == pytest.approx(exact[0], rel=0.05)


def test_people_by_images_wants_enough_images(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", people=3, images=3)
    recipe = RECIPE.replace("steps = 4", "steps = 4\nimages_per_person = 4")
    with pytest.raises(VidfaceError, match="person0"):
        run(people, tmp_path / "run", recipe)


def test_an_empty_folder_of_people(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    with pytest.raises(VidfaceError, match="people"):
        run(tmp_path / "people", tmp_path / "run")


def test_steps_of_a_stage(people: Path) -> None:
    file = people.parent / "steps.toml"
    file.write_text(RECIPE.replace("steps = 5", "epochs = 1.5"))
    first, second = resolve_stages(load_training(file))
    assert [first.count_steps(n) for n in (10, 1, 0)] == [15, 2, 1]
    assert second.count_steps(10) == 4


def test_a_step_does_not_touch_torchs_random_state(people: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    run(people, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_student_repeats_its_teacher_and_is_resumed(
    people: Path, colour_network: Path, tmp_path: Path
) -> None:
    recipe = RECIPE.split("[[stage]]")[0].replace("-e16", "-e3").replace("0.05", "0.2")
    recipe += f"""
[augment]
flip = true
[teacher]
weights = "{colour_network}"
count = 40
[[stage]]
name = "distil"
steps = 60
losses.distil.relation = 0.5
"""
    trained, losses = run(people, tmp_path / "run", recipe)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert trained.stages[0].faces == 40
    with pytest.raises(Killed):
        run(people, tmp_path / "killed", recipe, kill_at=20)
    run(people, tmp_path / "killed", recipe)
    same = weights(tmp_path / "killed")
    assert all(torch.equal(t, same[name]) for name, t in weights(tmp_path / "run").items())


def test_a_student_of_another_dimension_is_told_the_teachers(
    people: Path, colour_network: Path, tmp_path: Path
) -> None:
    recipe = RECIPE.split("[[stage]]")[0]
    recipe += f'[teacher]\nweights = "{colour_network}"\ncount = 40\n'
    recipe += '[[stage]]\nname = "distil"\nsteps = 2\nlosses.distil = {}\n'
    with pytest.raises(VidfaceError, match="gives 16 numbers and the teacher 3: name it with -e3"):
        run(people, tmp_path / "run", recipe)
