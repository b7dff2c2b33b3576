"""What a stage's steps learn: to tell people apart, or to repeat a teacher's embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vidface.errors import VidfaceError
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

    def finite(self) -> bool:
        """Whether the gradients of the last loss are."""

    def step(self, learning_rate: float, gradient_scale: float | None) -> None:
        """Move what is learned beside the backbone by the gradients of the last loss.

        gradient_scale: what they are multiplied with (float16); then a step whose gradients are
        not finite is left out. None: they are as they are.
        """

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

    def finite(self) -> bool:
        gradient = self._selected.weight.grad if self._selected else None
        return gradient is None or bool(torch.isfinite(gradient.sum()))

    def step(self, learning_rate: float, gradient_scale: float | None) -> None:
        finite = gradient_scale is None or self.finite()
        selected, self._selected = self._selected, None
        if selected is None or selected.weight.grad is None:
            return
        if not finite:
            selected.weight.grad = None  # as the scaler leaves the backbone out
            return
        if gradient_scale is not None:
            selected.weight.grad.div_(gradient_scale)
        self._optimiser.lr = learning_rate
        self._optimiser.step(selected)

    def tensors(self) -> dict[str, Tensor]:
        momentum = self._optimiser.state_dict()  # by reference
        return {"centres": self.centres.weight.detach(), **momentum}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        found = {name: tuple(t.shape) for name, t in tensors.items()}
        wanted = {name: tuple(t.shape) for name, t in self.tensors().items()}
        if found != wanted:
            raise VidfaceError(f"class centres of another number of classes: {found}, not {wanted}")
        with torch.no_grad():
            self.centres.weight.copy_(tensors["centres"])
        own = self._optimiser.state_dict()
        self._optimiser.load_state_dict({name: tensors[name] for name in own})


class Repetition:
    """Repeats a teacher's embeddings; learns nothing beside the backbone."""

    def __init__(self, objective: Distil, answers: Tensor) -> None:
        self._objective, self._answers = objective, answers

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        return self._objective(embeddings, self._answers[indices].to(embeddings.device))

    def finite(self) -> bool:
        return True

    def step(self, learning_rate: float, gradient_scale: float | None) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        if tensors:
            raise VidfaceError("class centres where a teacher is repeated: of another stage")
