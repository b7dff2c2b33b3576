"""What a stage's steps learn: to tell people apart, or to repeat a teacher's embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from vidface.core.errors import VidfaceError
from vidface.training.centres import CentreSGD, ClassCentres, SelectedCentres
from vidface.training.distillation import Distil
from vidface.training.losses import Geometry, LossParts, Objective


class StageTask(ABC):
    """A loss of the whole batch's embeddings, and what it learns beside the backbone: nothing."""

    def observe(self, images: Tensor) -> None:  # noqa: B027
        """Called before the backbone sees them: (n, 112, 112, 3) uint8 RGB."""

    @abstractmethod
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

    def has_finite_gradients(self) -> bool:
        """Whether the gradients of the last loss are finite."""
        return True

    def step(self, learning_rate: float, gradient_scale: float | None) -> None:  # noqa: B027
        """Move what is learned beside the backbone by the gradients of the last loss.

        gradient_scale: what they are multiplied with (float16); then a step whose gradients are
        not finite is left out. None: they are as they are.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint kept."""
        if tensors:
            raise VidfaceError("class centres where a teacher is repeated: of another stage")


class RecognitionTask(StageTask):
    """Tells people apart by the cosine to class centres.

    Args:
        labels: (all faces,) int64 on the CPU.
        counts: (C,) faces of each person, on the centres' device.
    """

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
        self._labels = labels
        self._optimiser = CentreSGD(centres, 0.0, momentum, weight_decay)
        self._selected: SelectedCentres | None = None

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        selected = self.centres.select(self._labels[indices], moment)
        self._selected = selected
        geometry = Geometry.of(embeddings, selected.weight, selected.labels, selected.rows)
        return self.objective(geometry, self.counts, step)

    def has_finite_gradients(self) -> bool:
        return are_finite([self._selected.weight.grad] if self._selected else [])

    def step(self, learning_rate: float, gradient_scale: float | None) -> None:
        finite = gradient_scale is None or self.has_finite_gradients()
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

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted = {name: tuple(tensor.shape) for name, tensor in self.tensors().items()}
        if shapes != wanted:
            raise VidfaceError(
                f"class centres of another number of classes: {shapes}, not {wanted}"
            )
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(tensors[name])


class DistillationTask(StageTask):
    """Repeats a teacher's kept answers (all faces, d), unit rows."""

    def __init__(self, objective: Distil, answers: Tensor) -> None:
        self._objective, self._answers = objective, answers

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        return self._objective(embeddings, self._answers[indices].to(embeddings.device))


def are_finite(gradients: Iterable[Tensor | None]) -> bool:
    """Whether all numbers of those gradients that there are are finite."""
    return all(gradient is None or bool(torch.isfinite(gradient.sum())) for gradient in gradients)
