"""One stage of a training: its steps, validations and checkpoints, and its row of the table.

A step depends on (seed, stage, step) and on the weights, on nothing else: the order of faces and
what is drawn come from these integers, so a checkpoint need only hold weights, momenta and where it
stood. On one CPU with the same number of threads a resumed run gives the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidface.core.errors import VidfaceError
from vidface.training.batches import TrainingBatch
from vidface.training.checkpoints import (
    TrainingPosition,
    add_prefix,
    load_checkpoint,
    load_module,
    load_optimiser,
    optimiser_tensors,
    save_checkpoint,
    select_prefix,
)
from vidface.training.logs import TrainingLog
from vidface.training.opening import TrainingContext
from vidface.training.optimisers import learning_rate_share
from vidface.training.results import StageResult
from vidface.training.settings import LAST
from vidface.training.stage_opening import NamedCentres, open_stage
from vidface.training.stages import Stage
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


OnStep = Callable[[StepReport], None]


class StageRun:
    """One stage: its faces, its losses, its steps.

    Args:
        position: before the stage's first step, or where a checkpoint says.
        tensors: of the checkpoint; none where the stage begins.
        last_centres: those at the end of the stage before, if this process has taken it.
        log: None where this process writes none.
    """

    def __init__(
        self,
        training: TrainingContext,
        position: TrainingPosition,
        tensors: Mapping[str, Tensor],
        last_centres: NamedCentres | None,
        log: TrainingLog | None,
        on_step: OnStep | None,
    ) -> None:
        self.training, self.position = training, position
        self.network, self.folder = training.network, training.folder
        self.log, self.on_step = log, on_step
        self.stage = training.stages[position.stage - 1]
        if not tensors:
            self._load_first_weights()
        self.opened = open_stage(training, self.stage, last_centres)
        self.task, self.batches = self.opened.task, self.opened.batches
        self.stepper = Stepper(
            self.network,
            self.task,
            training.pipeline.optimiser,
            self.stage.learning_rate,
            training.processes,
        )
        if tensors:
            self._load(tensors)
        self.steps = self.stage.count_steps(len(self.batches))
        # Stages to come are taken to have this one's batches an epoch.
        to_come = training.stages[self.stage.number :]
        later = sum(stage.count_steps(len(self.batches)) for stage in to_come)
        self.total = position.done + self.steps + later
        self._start_clock()

    def run(self) -> tuple[TrainingPosition, NamedCentres | None]:
        """Take the steps; return the position behind the stage, and its class centres."""
        position, settings = self.position, self.training.pipeline.train
        self._notify(f"{self.opened}, {self.steps} steps of {self.stage.batch_size}")
        if position.step == 0:
            self._save()
        epoch = len(self.batches)
        validation_steps = max(1, round(settings.validate_epochs * epoch))
        begin = self.steps if position.step > 0 and self._has_stalled() else position.step
        self._start_clock()
        for batch in self.batches.between(begin, self.steps):
            loss = self._step(batch)
            is_last = position.step == self.steps
            validates = is_last or position.step % validation_steps == 0
            self._report(loss)
            if not validates and position.step % settings.checkpoint_steps:
                continue
            position.seconds += time.monotonic() - self._clock
            if validates:
                self._validate()
            self._save()
            self._start_clock()
            if validates and self._has_stalled() and not is_last:
                self._notify("no better model for long, ended early")
                break
        return self._end()

    def _step(self, batch: TrainingBatch) -> float:
        """Take one step, and write what is to be logged of it; the loss."""
        position, stage, pipeline = self.position, self.stage, self.training.pipeline
        share = learning_rate_share(
            position.step, self.steps, stage.warmup_steps, pipeline.optimiser.schedule
        )
        rate = stage.learning_rate * share
        moment = (pipeline.train.seed, stage.number, position.step)
        try:
            loss, parts = self.stepper.step(batch, share, moment, position.step)
        except NotFiniteError as error:
            raise self._diverged(str(error), position.step + 1, rate) from None
        position.step += 1
        position.losses = [*position.losses[-_LOSSES_KEPT + 1 :], loss]
        if position.step % pipeline.train.log_steps == 0 or position.step == self.steps:
            values = {f"loss/{name}": float(value) for name, value in parts.items()}
            self._write(
                {
                    "loss/total": loss,
                    **values,
                    "learning_rate": rate,
                    "images_per_second": self._images_per_second(),
                }
            )
        return loss

    def _has_stalled(self) -> bool:
        """Whether the stage is to end early, for want of a better model."""
        return 0 < self.stage.settings.patience <= self.position.stale

    def _validate(self) -> None:
        """Verify the model, and keep it if it is the stage's best."""
        self._check_finite()
        position, pipeline = self.position, self.training.pipeline
        chosen, verifications = pipeline.choose_by, self.training.verifications
        deciding = [] if chosen == LAST else [chosen]
        also = [benchmark.name for benchmark in pipeline.benchmarks if benchmark.each_validation]
        names = list(dict.fromkeys((*deciding, *(name for name in also if name in verifications))))
        quality = float(position.step)  # the last model is the best, unless a verification says
        if self.training.processes.is_first and names:
            embedder = self.network.embedder()
            accuracies = {name: verifications[name].accuracy(embedder) for name in names}
            quality = accuracies.get(chosen, quality)
            self._write({f"accuracy/{name}": value for name, value in accuracies.items()})
            self._notify(f"step {position.step} of {self.steps}, {_list_accuracies(accuracies)}")
        quality = self.training.processes.broadcast_object(quality)
        if quality > position.best:
            position.best, position.best_step, position.stale = quality, position.step, 0
            if self.training.processes.is_first:
                about = {
                    "stage": self.stage.name,
                    "step": position.step,
                    "accuracy": quality,
                    "people": list(self.opened.people),
                    "architecture": self.network.architecture.name,
                }
                save_checkpoint(self._best_model, self._learned(), about)
        else:
            position.stale += 1
        self.training.processes.barrier()

    def _end(self) -> tuple[TrainingPosition, NamedCentres | None]:
        """Write the stage's row, by its best model, and step on to the next."""
        position = self.position
        accuracies = self.training.processes.broadcast_object(
            self._verify_best() if self.training.processes.is_first else {}
        )
        images = position.step * self.stage.batch_size
        result = StageResult(
            name=self.stage.name,
            losses=tuple(self.stage.losses),
            steps=position.step,
            images=images,
            best_step=position.best_step,
            final_loss=float(np.mean(position.losses)) if position.losses else None,
            accuracies=accuracies,
            faces=len(self.batches.faces),
            people=len(self.opened.people),
            cut=self.opened.cut,
            train_seconds=position.seconds,
            images_per_second=images / position.seconds if position.seconds else 0.0,
        )
        self._notify(_list_accuracies(accuracies))
        centres = self.task.tensors().get("centres")
        self.position = position.next_stage(result)
        if self.stage.number == len(self.training.stages):
            self._save()
        if centres is None:
            return self.position, None
        return self.position, NamedCentres(self.opened.people, centres.detach().clone())

    def _verify_best(self) -> dict[str, float | None]:
        """Accuracies of the stage's best model, by verification; None: not at hand."""
        verifications = self.training.verifications
        tensors, _ = load_checkpoint(self._best_model)
        last = {name: tensor.clone() for name, tensor in self.network.weights().items()}
        load_module(self.network.plain, select_prefix("backbone", tensors), "best model")
        at_hand: dict[str, float] = {}
        if verifications:
            embedder = self.network.embedder()
            at_hand = {name: each.accuracy(embedder) for name, each in verifications.items()}
        load_module(self.network.plain, last, "last model")
        self._write({f"best/{name}": value for name, value in at_hand.items()})
        return {name: at_hand.get(name) for name in self.training.pipeline.verifications}

    def _load_first_weights(self) -> None:
        """Load the weights that the stage begins with."""
        start = self.stage.settings.start
        if self.stage.number == 1 or start == "scratch":
            self.network.restore_first_weights()
        elif start == "best":
            before = self.training.stages[self.stage.number - 2]
            tensors, _ = load_checkpoint(self.folder.best_model(before.folder))
            load_module(self.network.plain, select_prefix("backbone", tensors), "best model")

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint kept beside the backbone."""
        where = f"checkpoint {self.folder.checkpoint}"
        momenta = select_prefix("optimiser", tensors)
        if self.position.step > 0 and not momenta and self.training.pipeline.optimiser.momentum:
            raise VidfaceError(f"{where}: holds no momenta; give --restart")
        try:
            self.task.load_tensors(select_prefix("task", tensors))
            load_optimiser(self.stepper.optimiser, momenta)
        except VidfaceError as error:
            raise VidfaceError(f"{where}: {error}; give --restart") from None
        if self.position.scaler and self.stepper.scaler.is_enabled():
            self.stepper.scaler.load_state_dict(self.position.scaler)

    def _save(self) -> None:
        """Write a checkpoint."""
        self._check_finite()
        processes = self.training.processes
        for tensor in self.task.tensors().values():  # GPUs may have rounded differently
            processes.broadcast_tensor(tensor)
        if processes.is_first:
            place = {**vars(self.position), "scaler": self.stepper.scaler.state_dict()}
            optimiser = add_prefix("optimiser", optimiser_tensors(self.stepper.optimiser))
            save_checkpoint(
                self.folder.checkpoint, {**self._learned(), **optimiser}, {"place": place}
            )
            if self.log is not None:
                self.log.flush()
        processes.barrier()

    def _learned(self) -> dict[str, Tensor]:
        """The backbone's weights, and what the task learns beside it."""
        return {
            **add_prefix("backbone", self.network.weights()),
            **add_prefix("task", self.task.tensors()),
        }

    def _check_finite(self) -> None:
        """Weights that an update took out of float32's range are never saved."""
        for tensor in self._learned().values():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise self._diverged(
                    "a weight is not finite", self.position.step, self.stage.learning_rate
                )

    def _diverged(self, what: str, step: int, rate: float) -> VidfaceError:
        return VidfaceError(
            f"{self.stage}: {what} at step {step} (learning rate {rate:.3g}): the last good "
            f"checkpoint is kept, {self.folder.checkpoint}; lower the learning rate or warm up, "
            "and --restart"
        )

    @property
    def _best_model(self) -> Path:
        return self.folder.best_model(self.stage.folder)

    def _start_clock(self) -> None:
        """Count seconds and steps anew, as after a validation."""
        self._clock, self._clock_step = time.monotonic(), self.position.step

    def _images_per_second(self) -> float:
        images = (self.position.step - self._clock_step) * self.stage.batch_size
        return images / max(time.monotonic() - self._clock, 1e-9)

    def _notify(self, text: str) -> None:
        self.training.notify(f"{self.stage}: {text}")

    def _write(self, values: Mapping[str, float]) -> None:
        if self.log is not None:
            self.log.write(self.position.done + self.position.step, self.stage.name, values)

    def _report(self, loss: float) -> None:
        if self.on_step is not None:
            position = self.position
            done = position.done + position.step
            speed = self._images_per_second()
            self.on_step(
                StepReport(self.stage, position.step, self.steps, done, self.total, loss, speed)
            )


def _list_accuracies(accuracies: Mapping[str, float | None]) -> str:
    texts = (f"{k} {'n/a' if v is None else f'{v:.4f}'}" for k, v in accuracies.items())
    return ", ".join(texts) or "done"
