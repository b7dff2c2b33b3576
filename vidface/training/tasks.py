"""What a stage's steps learn: to tell people apart, or to repeat a teacher's embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from vidface.core.errors import VidfaceError
from vidface.training.centres import CentreSGD, ClassCentres, Selected
from vidface.training.checkpoints import (
    load_module,
    load_optimiser,
    optimiser_tensors,
    part,
    under,
)
from vidface.training.distillation import Distil
from vidface.training.hints import Adapters, Watched
from vidface.training.live import LiveTeacher, Said
from vidface.training.losses import Geometry, LossParts, Objective
from vidface.training.optimisers import build_optimiser
from vidface.training.settings import OptimiserSettings


class Task(Protocol):
    """A loss of the whole batch's embeddings, and what it learns beside the backbone."""

    def look(self, images: Tensor) -> None:
        """Called before the backbone sees them: (n, 112, 112, 3) uint8 RGB."""

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

    def look(self, images: Tensor) -> None:
        pass

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

    def look(self, images: Tensor) -> None:
        pass

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


class LiveRepetition:
    """Repeats what a teacher says of the very faces that the student sees, its maps too.

    Args:
        objective: the loss.
        teacher: asked at every step.
        network: the student, whose parts are watched.
        hints: part of the network → name of the teacher's map; may be empty.
        adapters: of the hints, on the network's device.
        optimiser: of the adapters' steps.
    """

    def __init__(
        self,
        objective: Distil,
        teacher: LiveTeacher,
        network: nn.Module,
        hints: Mapping[str, str],
        adapters: Adapters,
        optimiser: OptimiserSettings,
    ) -> None:
        self._objective, self._teacher, self._network = objective, teacher, network
        self._hints, self._adapters = dict(hints), adapters
        self._optimiser = build_optimiser(adapters, optimiser) if hints else None
        self._said: Said | None = None
        self._watched: Watched | None = None

    def look(self, images: Tensor) -> None:
        self._said = self._teacher(images.numpy())
        self._watched = Watched(self._network, tuple(self._hints))

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        said, watched = self._said, self._watched
        if said is None or watched is None:
            raise VidfaceError("the teacher has not seen the faces of this step")
        self._said = self._watched = None
        watched.close()
        device = embeddings.device
        maps = {
            name: torch.from_numpy(said.maps[wanted]).to(device)
            for name, wanted in self._hints.items()
        }
        hints = dict(zip(self._hints, self._adapters(watched.maps, maps), strict=True))
        return self._objective(embeddings, torch.from_numpy(said.embeddings).to(device), hints)

    def finite(self) -> bool:
        return all(
            parameter.grad is None or bool(torch.isfinite(parameter.grad.sum()))
            for parameter in self._adapters.parameters()
        )

    def step(self, learning_rate: float, gradient_scale: float | None) -> None:
        if self._optimiser is None:
            return
        if gradient_scale is None or self.finite():
            for parameter in self._adapters.parameters():
                if gradient_scale is not None and parameter.grad is not None:
                    parameter.grad.div_(gradient_scale)
            for group in self._optimiser.param_groups:
                group["lr"] = learning_rate
            self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        moments = optimiser_tensors(self._optimiser) if self._optimiser else {}
        return {**under("adapters", self._adapters.state_dict()), **under("moments", moments)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        load_module(self._adapters, part("adapters", tensors), "adapters of hints")
        if self._optimiser is not None:
            load_optimiser(self._optimiser, part("moments", tensors))
