"""One training step: faces → embeddings → loss → gradients → weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vidface.core.errors import VidfaceError
from vidface.training.batches import Batch
from vidface.training.opening import Setting
from vidface.training.optimisers import build_optimiser
from vidface.training.processes import Processes
from vidface.training.settings import OptimiserSettings
from vidface.training.tasks import Task


class NotFiniteError(VidfaceError):
    """A loss or gradient is NaN or infinite; no weight has been changed by this step."""


class Stepper:
    """Takes a stage's steps.

    Args:
        setting: the network on its device.
        task: the stage's loss.
        settings: of the optimiser.
        learning_rate: the stage's highest.
        processes: all that train together.
    """

    def __init__(
        self,
        setting: Setting,
        task: Task,
        settings: OptimiserSettings,
        learning_rate: float,
        processes: Processes,
    ) -> None:
        self._setting, self._task, self._processes = setting, task, processes
        self._clip_norm = settings.clip_norm
        self._rate = learning_rate
        self._centres_rate = settings.centres_learning_rate or learning_rate
        self.optimiser = build_optimiser(setting.plain, settings)
        half = setting.precision == "fp16" and setting.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(setting.device.type, enabled=half)

    def step(
        self, batch: Batch, part: float, moment: Sequence[int], step: int
    ) -> tuple[float, Mapping[str, torch.Tensor]]:
        """One step.

        Args:
            batch: this process's faces, and the numbers of all.
            part: of the learning rate, in (0, 1].
            moment: integers that name the step, for what is drawn.
            step: the stage's step.

        Returns:
            The loss of the whole batch, and its parts by name.

        Raises:
            NotFiniteError: the loss or a gradient is NaN or infinite (with float16, whose steps are
                left out where a gradient is: the loss alone).
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate * part
        self._setting.module.train()
        self._task.look(batch.images)
        faces = self._setting.prepared(batch.images)
        with self._setting.mixed_precision():
            embeddings = self._setting.module(faces)
        whole = self._processes.gather(embeddings.float())
        found = self._task.loss(whole, batch.indices, moment, step)
        loss = float(found.total.detach())
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}")
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(found.total).backward()
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
        self.scaler.unscale_(self.optimiser)
        parameters = self._setting.plain.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self._clip_norm or math.inf)
        if scale is None and not (math.isfinite(norm) and self._task.finite()):
            raise NotFiniteError("a gradient is not finite")
        self.scaler.step(self.optimiser)
        self._task.step(self._centres_rate * part, scale)
        self.scaler.update()
        return loss, found.parts
