"""One training step: faces → embeddings → loss → gradients → weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vidface.core.errors import VidfaceError
from vidface.training.batches import TrainingBatch
from vidface.training.network import TrainingNetwork
from vidface.training.optimisers import build_optimiser
from vidface.training.processes import Processes
from vidface.training.settings import OptimiserSettings
from vidface.training.tasks import StageTask


class NotFiniteError(VidfaceError):
    """A loss or gradient is NaN or infinite; no weight has been changed by this step."""


class Stepper:
    """Takes a stage's steps.

    Args:
        learning_rate: the stage's highest.
    """

    def __init__(
        self,
        network: TrainingNetwork,
        task: StageTask,
        settings: OptimiserSettings,
        learning_rate: float,
        processes: Processes,
    ) -> None:
        self.network, self._task, self._processes = network, task, processes
        self._clip_norm = settings.clip_norm
        self._rate = learning_rate
        self._centres_rate = settings.centres_learning_rate or learning_rate
        self.optimiser = build_optimiser(network.plain, settings)
        half = network.precision == "fp16" and network.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(network.device.type, enabled=half)

    def step(
        self, batch: TrainingBatch, rate_share: float, moment: Sequence[int], step: int
    ) -> tuple[float, Mapping[str, Tensor]]:
        """Take one step.

        Args:
            batch: this process's faces, and the numbers of all.
            rate_share: of the learning rate, in (0, 1].
            moment: integers that name the step, for what is drawn.
            step: the stage's step.

        Returns:
            The loss of the whole batch, and its parts by name.

        Raises:
            NotFiniteError: the loss or a gradient is NaN or infinite (with float16, whose steps are
                left out where a gradient is: the loss alone).
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate * rate_share
        self.network.module.train()
        self._task.observe(batch.images)
        faces = self.network.prepare(batch.images)
        with self.network.mixed_precision():
            embeddings = self.network.module(faces)
        of_all_processes = self._processes.gather(embeddings.float())
        losses = self._task.loss(of_all_processes, batch.indices, moment, step)
        loss = float(losses.total.detach())
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}")
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total).backward()
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
        self.scaler.unscale_(self.optimiser)
        parameters = self.network.plain.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self._clip_norm or math.inf)
        if scale is None and not (math.isfinite(norm) and self._task.has_finite_gradients()):
            raise NotFiniteError("a gradient is not finite")
        self.scaler.step(self.optimiser)
        self._task.step(self._centres_rate * rate_share, scale)
        self.scaler.update()
        return loss, losses.parts
