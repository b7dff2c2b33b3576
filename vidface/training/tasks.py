"""What a stage's steps learn: to tell people apart, or to repeat a teacher's embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vidface.training.centres import CentreSGD, ClassCentres, Selected
from vidface.training.distillation import Distil
from vidface.training.losses import Geometry, LossParts, Objective


class Task(Protocol):
    """A loss of the whole batch's embeddings, and what it learns beside the backbone."""

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        """The loss of a batch.

        Args:
            embeddings: (n, d) raw, of all processes.
            indices: (n,) the faces' numbers.
            moment: integers that name the step, for what is drawn.
            step: the stage's step.
        """

    def step(self, learning_rate: float, gradient_scale: float) -> None:
        """Move what is learned beside the backbone by the gradients of the last loss."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint kept."""


class Recognition:
    """Tells people apart by the cosine to class centres."""

    def __init__(
        self,
        objective: Objective,
        centres: ClassCentres,
        labels: Tensor,
        counts: Tensor,
        momentum: float,
        weight_decay: float,
    ) -> None:
        self.objective, self.centres, self.counts = objective, centres, counts
        self._labels = labels  # (all faces,) on the CPU; −1: not trained on
        self._optimiser = CentreSGD(centres, 0.0, momentum, weight_decay)
        self._selected: Selected | None = None

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        selected = self.centres.select(self._labels[indices], moment)
        self._selected = selected
        geometry = Geometry.of(embeddings, selected.weight, selected.labels, selected.rows)
        return self.objective(geometry, self.counts, step)

    def step(self, learning_rate: float, gradient_scale: float) -> None:
        selected, self._selected = self._selected, None
        if selected is None or selected.weight.grad is None:
            return
        if gradient_scale != 1:
            selected.weight.grad.div_(gradient_scale)
            if not torch.isfinite(selected.weight.grad).all():
                selected.weight.grad = None  # as the scaler leaves the backbone out
                return
        self._optimiser.lr = learning_rate
        self._optimiser.step(selected)

    def tensors(self) -> dict[str, Tensor]:
        momentum = self._optimiser.state_dict()
        return {"centres": self.centres.weight.detach(), **momentum}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.centres.weight.copy_(tensors["centres"])
        own = self._optimiser.state_dict()
        self._optimiser.load_state_dict({name: tensors[name] for name in own if name in tensors})


class Repetition:
    """Repeats a teacher's embeddings; learns nothing beside the backbone."""

    def __init__(self, objective: Distil, answers: Tensor) -> None:
        self._objective, self._answers = objective, answers

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        return self._objective(embeddings, self._answers[indices].to(embeddings.device))

    def step(self, learning_rate: float, gradient_scale: float) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        pass
