"""A stage that repeats what a live teacher says of the very faces that the student sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vidface.core.errors import VidfaceError
from vidface.core.values import available_cores
from vidface.training.checkpoints import (
    add_prefix,
    load_module,
    load_optimiser,
    optimiser_tensors,
    select_prefix,
)
from vidface.training.distillation import Distil
from vidface.training.hints import (
    Adapters,
    WatchedParts,
    channel_statistics,
    check_map_sizes,
    student_map_shapes,
)
from vidface.training.live_teacher import LiveTeacher, TeacherAnswers
from vidface.training.losses import LossParts
from vidface.training.network import TrainingNetwork
from vidface.training.optimisers import build_optimiser
from vidface.training.processes import Processes
from vidface.training.settings import OptimiserSettings, TeacherSettings
from vidface.training.synthetic import FaceImages, read_blocks
from vidface.training.tasks import StageTask, are_finite
from vidface.training.teachers import check_dimensions

STATISTICS_FACES = 256  # that the teacher's means and deviations are taken of
_BATCH = 32  # of them at once


class LiveDistillationTask(StageTask):
    """Repeats a live teacher's embeddings, and its maps too.

    Args:
        objective: the loss.
        teacher: asked at every step.
        student: the network whose parts are watched.
        hints: part of the student → name of the teacher's map; may be empty.
        adapters: of the hints, on the student's device.
        optimiser: of the adapters' steps.
    """

    def __init__(
        self,
        objective: Distil,
        teacher: LiveTeacher,
        student: nn.Module,
        hints: Mapping[str, str],
        adapters: Adapters,
        optimiser: OptimiserSettings,
    ) -> None:
        self._objective, self._teacher, self._student = objective, teacher, student
        self._hints, self._adapters = dict(hints), adapters
        self._optimiser = build_optimiser(adapters, optimiser) if hints else None
        self._answers: TeacherAnswers | None = None
        self._watched: WatchedParts | None = None

    def observe(self, images: Tensor) -> None:
        self._answers = self._teacher(images.numpy())
        self._watched = WatchedParts(self._student, tuple(self._hints))

    def loss(
        self, embeddings: Tensor, indices: Tensor, moment: Sequence[int], step: int
    ) -> LossParts:
        answers, watched = self._answers, self._watched
        if answers is None or watched is None:
            raise VidfaceError("the teacher has not seen the faces of this step")
        self._answers = self._watched = None
        watched.close()
        device = embeddings.device
        maps = {
            part: torch.from_numpy(answers.maps[name]).to(device)
            for part, name in self._hints.items()
        }
        hints = dict(zip(self._hints, self._adapters(watched.maps, maps), strict=True))
        return self._objective(embeddings, torch.from_numpy(answers.embeddings).to(device), hints)

    def has_finite_gradients(self) -> bool:
        return are_finite(parameter.grad for parameter in self._adapters.parameters())

    def step(self, learning_rate: float, gradient_scale: float | None) -> None:
        if self._optimiser is None:
            return
        if gradient_scale is None or self.has_finite_gradients():
            for parameter in self._adapters.parameters():
                if gradient_scale is not None and parameter.grad is not None:
                    parameter.grad.div_(gradient_scale)
            for group in self._optimiser.param_groups:
                group["lr"] = learning_rate
            self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        moments = optimiser_tensors(self._optimiser) if self._optimiser else {}
        return {
            **add_prefix("adapters", self._adapters.state_dict()),
            **add_prefix("moments", moments),
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        load_module(self._adapters, select_prefix("adapters", tensors), "adapters of hints")
        if self._optimiser is not None:
            load_optimiser(self._optimiser, select_prefix("moments", tensors))


def open_live_task(
    objective: Distil,
    settings: TeacherSettings,
    faces: FaceImages,
    network: TrainingNetwork,
    optimiser: OptimiserSettings,
    processes: Processes,
) -> LiveDistillationTask:
    """Open the task of a stage whose teacher is asked at every step.

    Raises:
        VidfaceError: several processes; a part or a map that is not there, or of another size; a
            teacher of another dimension.
    """
    if processes.size > 1:
        raise VidfaceError(
            f"a live teacher trains in one process, not in {processes.size}: leave [teacher] live "
            "and hints out, or train alone"
        )
    hints = {part: str(name) for part, name in settings.hints.items()} if objective.hints else {}
    student_maps = student_map_shapes(network.architecture, tuple(hints))
    teacher = LiveTeacher(
        settings.weights,
        settings.preprocessing,
        tuple(hints.values()),
        network.threads or available_cores(),
    )
    check_dimensions(network.architecture, teacher.dimension)
    check_map_sizes(hints, student_maps, teacher.shapes)
    channels = {
        part: (student_maps[part][0], teacher.shapes[name][0]) for part, name in hints.items()
    }
    adapters = Adapters(channels, _measure_statistics(teacher, faces, hints)).to(network.device)
    return LiveDistillationTask(objective, teacher, network.plain, hints, adapters, optimiser)


def _measure_statistics(
    teacher: LiveTeacher, faces: FaceImages, hints: Mapping[str, str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation of the teacher's channels, of faces spread evenly."""
    if not hints:
        return {}
    numbers = np.unique(np.linspace(0, len(faces) - 1, STATISTICS_FACES).astype(int))
    maps = [teacher(images).maps for _, images in read_blocks(faces, numbers, _BATCH)]
    return {
        part: channel_statistics(np.concatenate([batch[name] for batch in maps]))
        for part, name in hints.items()
    }
