"""The training loop: stages one after the other, exactly resumed after a kill.

A step depends on (seed, stage, step) and on the weights, on nothing else: the order of faces and
what is drawn come from these integers, so a checkpoint need only hold weights, momenta and where it
stood. On one CPU with the same number of threads a resumed run gives the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidface.backbones.files import save_safetensors
from vidface.core.errors import VidfaceError
from vidface.core.files import write_json
from vidface.runs.artefacts import provenance
from vidface.training.batches import Batch
from vidface.training.checkpoints import (
    load_checkpoint,
    load_module,
    load_optimiser,
    optimiser_tensors,
    part,
    save_checkpoint,
    under,
)
from vidface.training.folder import TrainingFolder
from vidface.training.logs import Log
from vidface.training.opening import (
    Centres,
    Data,
    Setting,
    ask_teacher,
    check_stages,
    open_data,
    open_setting,
    stage_task,
)
from vidface.training.optimisers import rate_at
from vidface.training.processes import Processes, start_processes
from vidface.training.results import StageResult, Trained
from vidface.training.settings import LAST, TrainingPipeline
from vidface.training.stages import Stage, resolve
from vidface.training.steps import NotFiniteError, Stepper

_LOSSES_KEPT = 50  # the mean of a stage's last losses is its row's


@dataclass(frozen=True)
class StepReport:
    """What a progress bar shows after a step."""

    stage: Stage
    step: int  # of the stage, from 1
    steps: int
    done: int  # steps of all stages
    total: int
    loss: float
    images_per_second: float


Notify = Callable[[str], None]
OnStep = Callable[[StepReport], None]


def _quiet(_: str) -> None:
    pass


def train(
    pipeline: TrainingPipeline,
    *,
    restart: bool = False,
    notify: Notify = _quiet,
    on_step: OnStep | None = None,
) -> Trained:
    """Train by a recipe, or go on with a training that was cut off.

    Started by `torchrun`, all processes train together as one would.

    Args:
        pipeline: `load_training` reads one.
        restart: forget what the run's folder holds of a training, and begin anew.
        notify: gets a line for what is worth knowing.
        on_step: called after every step.

    Raises:
        VidfaceError: a setting or the data do not fit, the folder holds another training, a loss is
            not finite (the last checkpoint is kept).
    """
    if pipeline.train.threads:
        torch.set_num_threads(pipeline.train.threads)
    device = pipeline.train.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with start_processes(device) as processes:
        first = processes.is_first
        run = _Run(pipeline, processes, notify if first else _quiet, on_step if first else None)
        return run.all_stages(restart)


@dataclass
class _Place:
    """Where a training stands: what a checkpoint says beside its tensors."""

    stage: int = 1
    step: int = 0  # of the stage
    done: int = 0  # of all stages before
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0  # validations since the best
    seconds: float = 0.0  # of the stage's steps
    losses: list[float] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, said: Any, stages: int, where: str) -> _Place:
        """What a checkpoint says, checked."""
        plain = cls()
        fits = isinstance(said, dict) and said.keys() == vars(plain).keys()
        if fits:
            # A whole number can stand for a fraction in JSON.
            kinds = {
                k: (int, float) if type(v) is float else type(v) for k, v in vars(plain).items()
            }
            fits = all(isinstance(said[key], kind) for key, kind in kinds.items())
        if not fits or not 1 <= said["stage"] <= stages + 1 or min(said["step"], said["done"]) < 0:
            raise VidfaceError(f"{where}: does not say where the training stood; give --restart")
        return cls(**said)


class _Run:
    def __init__(
        self,
        pipeline: TrainingPipeline,
        processes: Processes,
        notify: Notify,
        on_step: OnStep | None,
    ) -> None:
        self.pipeline, self.processes = pipeline, processes
        self.notify, self.on_step = notify, on_step
        self.folder = TrainingFolder(pipeline.run.dir)
        self.stages = resolve(pipeline)
        self.last: Centres | None = None  # at the end of the stage before

    def all_stages(self, restart: bool) -> Trained:
        self.folder.refuse_foreign()
        data = open_data(self.pipeline, self.notify)
        check_stages(self.stages, data.source)
        document = {**self.pipeline.document(), "inputs": dict(data.decides)}
        self.processes.everywhere_same(document, "settings and data")
        if self.processes.is_first:
            self.folder.claim(document, restart=restart)
        self.processes.barrier()
        data = ask_teacher(self.pipeline, data, self.processes, self.folder, self.notify)
        setting = open_setting(self.pipeline, data, self.processes)
        place, tensors = self._resume(setting)
        log = None
        if self.processes.is_first:
            log = Log(
                self.folder,
                tensorboard=self.pipeline.train.tensorboard,
                after_step=place.done + place.step,
                ends_again=place.step > 0,
            )
        try:
            while place.stage <= len(self.stages):
                _StageRun(self, setting, data, place, tensors, log).run()
                tensors = {}
        finally:
            if log is not None:
                log.close()
        return self._finish(setting, place)

    def _resume(self, setting: Setting) -> tuple[_Place, dict[str, Tensor]]:
        if not self.folder.checkpoint.is_file():
            if self.processes.is_first:
                self.folder.forget_stages()  # cuts by models that are gone
            self.processes.barrier()
            return _Place(), {}
        tensors, said = load_checkpoint(self.folder.checkpoint)
        where = f"checkpoint {self.folder.checkpoint}"
        place = _Place.of(said.get("place"), len(self.stages), where)
        load_module(setting.plain, part("backbone", tensors), where)
        if place.stage <= len(self.stages):
            stage = self.stages[place.stage - 1]
            self.notify(f"going on with {stage}, after step {place.step}")
        return place, tensors

    def _finish(self, setting: Setting, place: _Place) -> Trained:

        made = provenance("train", {"pipeline": self.pipeline.document()})
        trained = Trained(
            tuple(StageResult.from_dict(each) for each in place.results),
            self.folder.model,
            self.folder.path,
            self.pipeline.choose_by,
            made,
        )
        if self.processes.is_first:
            tensors, _ = load_checkpoint(self.folder.best(self.stages[-1].folder))
            load_module(setting.plain, part("backbone", tensors), "best model")
            save_safetensors(
                setting.plain,
                self.folder.model,
                setting.architecture.name,
                setting.preprocessing,
                half=self.pipeline.train.save_half,
                trained_by=f"vidface train, {len(self.stages)} stages",
            )
            write_json(self.folder.results, trained.to_dict())
        self.processes.barrier()
        return trained


class _StageRun:
    """One stage: its faces, its losses, its steps."""

    def __init__(
        self,
        run: _Run,
        setting: Setting,
        data: Data,
        place: _Place,
        tensors: dict[str, Tensor],
        log: Log | None,
    ) -> None:
        self.pipeline, self.folder = run.pipeline, run.folder
        self.processes, self.notify, self.on_step = run.processes, run.notify, run.on_step
        self.stages, self.stage = run.stages, run.stages[place.stage - 1]
        self.setting, self.data, self.place, self.log = setting, data, place, log
        if not tensors:
            self._start()
        self.task, self.batches, self.scope = stage_task(
            self.pipeline, self.stages, self.stage, data, setting, self.processes, self.folder,
            run.notify, run.last,
        )  # fmt: skip
        self.run_of_stages = run
        self.stepper = Stepper(
            setting, self.task, self.pipeline.optimiser, self.stage.learning_rate, self.processes
        )
        self.steps = stage_steps(self.stage, len(self.batches))
        if tensors:
            self._load(tensors)
        self.total = self._total_steps()

    def run(self) -> None:
        place = self.place
        self.notify(f"{self.stage}: {self.scope}, {self.steps} steps of {self.stage.batch_size}")
        if place.step == 0:
            self._save()
        every = max(1, round(self.pipeline.train.validate_epochs * len(self.batches)))
        ended = place.step > 0 and 0 < self.stage.settings.patience <= place.stale
        batches = self.batches.between(self.steps if ended else place.step, self.steps)
        clock, at = time.monotonic(), place.step
        for batch in batches:
            loss, parts, rate = self._step(batch)
            place.step += 1
            place.losses = [*place.losses[-_LOSSES_KEPT + 1 :], loss]
            if place.step % self.pipeline.train.log_steps == 0 or place.step == self.steps:
                speed = self._speed(at, clock)
                values = {f"loss/{name}": float(value) for name, value in parts.items()}
                self._write({"loss/total": loss, **values, "learning_rate": rate, **speed})
            self._report(loss, at, clock)
            validates = place.step % every == 0 or place.step == self.steps
            if validates or place.step % self.pipeline.train.checkpoint_steps == 0:
                place.seconds += time.monotonic() - clock
                ends = self._validate() if validates else False
                self._save()
                clock, at = time.monotonic(), place.step
                if ends and place.step < self.steps:
                    self.notify(f"{self.stage}: no better model for long, ended early")
                    break
        self._end()

    def _step(self, batch: Batch) -> tuple[float, Mapping[str, Tensor], float]:
        place, stage = self.place, self.stage
        part_of_rate = rate_at(
            place.step, self.steps, stage.warmup_steps, self.pipeline.optimiser.schedule
        )
        moment = (self.pipeline.train.seed, stage.number, place.step)
        rate = stage.learning_rate * part_of_rate
        try:
            loss, parts = self.stepper.step(batch, part_of_rate, moment, place.step)
        except NotFiniteError as error:
            raise self._diverged(str(error), place.step + 1, rate) from None
        return loss, parts, rate

    def _diverged(self, what: str, step: int, rate: float) -> VidfaceError:
        return VidfaceError(
            f"{self.stage}: {what} at step {step} (learning rate {rate:.3g}): the last good "
            f"checkpoint is kept, {self.folder.checkpoint}; lower the learning rate or warm up, "
            "and --restart"
        )

    def _check_finite(self) -> None:
        """Weights that an update took out of float32's range are never saved."""
        for tensor in (*self.setting.state().values(), *self.task.tensors().values()):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise self._diverged(
                    "a weight is not finite", self.place.step, self.stage.learning_rate
                )

    def _start(self) -> None:
        """The weights that the stage begins with."""
        if self.stage.number == 1 or self.stage.settings.start == "scratch":
            self.setting.restore_first_weights()
            return
        if self.stage.settings.start == "best":
            before = self.stages[self.stage.number - 2]
            tensors, _ = load_checkpoint(self.folder.best(before.folder))
            load_module(self.setting.plain, part("backbone", tensors), "best model")

    def _validate(self) -> bool:
        """Verify, keep the model if it is the best; True where the stage is to end early."""
        self._check_finite()
        place, chosen_by = self.place, self.pipeline.choose_by
        accuracy = float(place.step)
        names = dict.fromkeys((*((chosen_by,) if chosen_by != LAST else ()),
                               *self.data.each_validation))  # fmt: skip
        if self.processes.is_first and names:
            embedder = self.setting.embedder()
            found = {name: self.data.validation.accuracy(name, embedder) for name in names}
            accuracy = found.get(chosen_by, accuracy)
            self._write({f"accuracy/{name}": value for name, value in found.items()})
            self.notify(f"{self.stage}: step {place.step} of {self.steps}, {_said(found)}")
        accuracy = self.processes.broadcast_object(accuracy)
        if accuracy > place.best:
            place.best, place.best_step, place.stale = accuracy, place.step, 0
            if self.processes.is_first:
                save_checkpoint(
                    self.folder.best(self.stage.folder),
                    {
                        **under("backbone", self.setting.state()),
                        **under("task", self.task.tensors()),
                    },
                    {
                        "stage": self.stage.name,
                        "step": place.step,
                        "accuracy": accuracy,
                        "people": list(self.scope.people),
                        "architecture": self.setting.architecture.name,
                    },
                )
        else:
            place.stale += 1
        self.processes.barrier()
        return 0 < self.stage.settings.patience <= place.stale

    def _end(self) -> None:
        """The stage's row, by its best model; then on to the next."""
        place = self.place
        accuracies: dict[str, float | None] = {}
        if self.processes.is_first:
            tensors, _ = load_checkpoint(self.folder.best(self.stage.folder))
            own = {name: t.clone() for name, t in self.setting.state().items()}
            load_module(self.setting.plain, part("backbone", tensors), "best model")
            embedder = self.setting.embedder() if self.data.validation.names else None
            for name in self.data.verifications:
                accuracies[name] = None
                if embedder is not None and name in self.data.validation.names:
                    accuracies[name] = self.data.validation.accuracy(name, embedder)
            load_module(self.setting.plain, own, "last model")
            self._write({f"best/{k}": v for k, v in accuracies.items() if v is not None})
        accuracies = self.processes.broadcast_object(accuracies)
        images = place.step * self.stage.batch_size
        result = StageResult(
            name=self.stage.name,
            losses=tuple(self.stage.losses),
            steps=place.step,
            images=images,
            best_step=place.best_step,
            final_loss=float(np.mean(place.losses)) if place.losses else None,
            accuracies=accuracies,
            faces=self.scope.faces,
            people=len(self.scope.people),
            cut=self.scope.cut,
            train_seconds=place.seconds,
            images_per_second=images / place.seconds if place.seconds else 0.0,
        )
        self.notify(f"{self.stage}: {_said(accuracies)}")
        centres = self.task.tensors().get("centres")
        self.run_of_stages.last = (
            None if centres is None else Centres(self.scope.people, centres.detach().clone())
        )
        self.place.results.append(result.to_dict())
        self.place.done += place.step
        self.place.stage += 1
        self.place.step, self.place.stale, self.place.best_step = 0, 0, 0
        self.place.best, self.place.seconds, self.place.losses = -math.inf, 0.0, []
        if self.stage.number == len(self.stages):
            self._save()

    def _save(self) -> None:
        self._check_finite()
        for tensor in self.task.tensors().values():  # GPUs may have rounded differently
            self.processes.broadcast_tensor(tensor)
        if self.processes.is_first:
            place = {**vars(self.place), "scaler": self.stepper.scaler.state_dict()}
            save_checkpoint(
                self.folder.checkpoint,
                {
                    **under("backbone", self.setting.state()),
                    **under("task", self.task.tensors()),
                    **under("optimiser", optimiser_tensors(self.stepper.optimiser)),
                },
                {"place": place},
            )
            if self.log is not None:
                self.log.flush()
        self.processes.barrier()

    def _load(self, tensors: dict[str, Tensor]) -> None:
        where = f"checkpoint {self.folder.checkpoint}"
        momenta = part("optimiser", tensors)
        if self.place.step > 0 and not momenta and self.pipeline.optimiser.momentum:
            raise VidfaceError(f"{where}: holds no momenta; give --restart")
        try:
            self.task.load(part("task", tensors))
            load_optimiser(self.stepper.optimiser, momenta)
        except VidfaceError as error:
            raise VidfaceError(f"{where}: {error}; give --restart") from None
        if self.place.scaler and self.stepper.scaler.is_enabled():
            self.stepper.scaler.load_state_dict(self.place.scaler)

    def _total_steps(self) -> int:
        """Steps of all stages; those to come are taken to have this one's batches an epoch."""
        later = sum(
            stage_steps(stage, len(self.batches)) for stage in self.stages[self.stage.number :]
        )
        return self.place.done + self.steps + later

    def _speed(self, at: int, clock: float) -> dict[str, float]:
        images = (self.place.step - at) * self.stage.batch_size
        return {"images_per_second": images / max(time.monotonic() - clock, 1e-9)}

    def _write(self, values: dict[str, float]) -> None:
        if self.log is not None:
            self.log.scalars(self.place.done + self.place.step, self.stage.name, values)

    def _report(self, loss: float, at: int, clock: float) -> None:
        if self.on_step is not None:
            place = self.place
            speed = self._speed(at, clock)["images_per_second"]
            self.on_step(
                StepReport(
                    self.stage, place.step, self.steps, place.done + place.step, self.total, loss,
                    speed,
                )
            )  # fmt: skip


def stage_steps(stage: Stage, batches: int) -> int:
    """Steps of a stage whose epoch has so many batches; at least one."""
    if stage.settings.steps is not None:
        return stage.settings.steps
    return max(1, round((stage.settings.epochs or 0) * batches))


def _said(accuracies: Mapping[str, float | None]) -> str:
    shown = (f"{k} {'n/a' if v is None else f'{v:.4f}'}" for k, v in accuracies.items())
    return ", ".join(shown) or "done"
