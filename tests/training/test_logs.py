"""What a person follows a training by: TensorBoard's scalars and the bar."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.conftest import RECIPE
from tests.training.test_loop import Killed, log, run
from vidface.cli.progress import training_progress
from vidface.core.errors import VidfaceError
from vidface.training.recipes import load_training
from vidface.training.stage_run import StepReport
from vidface.training.stages import resolve_stages

SCALARS = RECIPE.replace("tensorboard = false", "tensorboard = true")


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    assert name in found.Tags()["scalars"]
    return [(event.step, event.value) for event in found.Scalars(name)]


@pytest.mark.parametrize("kill_at", [None, 5])
def test_tensorboard_has_each_step_once_also_after_a_kill(
    people: Path, tmp_path: Path, kill_at: int | None
) -> None:
    if kill_at is not None:
        with pytest.raises(Killed):
            run(people, tmp_path / "run", SCALARS, kill_at=kill_at)
    run(people, tmp_path / "run", SCALARS)
    for name in ("loss/total", "loss/softmax", "learning_rate"):
        wanted = log(tmp_path / "run", name)
        found = scalars(tmp_path / "run", name)
        assert [step for step, _ in found] == list(range(1, 10))
        assert [value for _, value in found] == pytest.approx([v for _, v in wanted], rel=1e-6)
    assert min(rate for _, rate in scalars(tmp_path / "run", "images_per_second")) > 0


def test_without_tensorboard_it_says_what_to_install(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(VidfaceError, match=r"pip install 'vidface\[train\]'"):
        run(people, tmp_path / "run", SCALARS)


def test_the_bar_shows_stage_loss_and_rate_and_takes_any_name(
    people: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    file = people.parent / "bar.toml"
    file.write_text(RECIPE.replace('"ArcFace"', '"a [/b] c"'))
    stage = resolve_stages(load_training(file))[0]
    with training_progress(enabled=True) as advance:
        assert advance is not None
        advance(StepReport(stage, 2, 5, 2, 9, 1.25, 47.5))
    shown = capsys.readouterr().err
    for part in ("a [/b] c", "2/9", "1.25", "47.5"):
        assert part in shown
    with training_progress(enabled=False) as nothing:
        assert nothing is None
