"""What a training came to: a row a stage, as the paper's Tables 3 and 4 have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """A finished stage.

    Attributes:
        losses: the names of all that held in it.
        steps, images: taken and seen (images: of all processes, repetitions counted).
        best_step: the step, from 1, after which the stage's model was best.
        final_loss: mean of the last steps' losses.
        accuracies: of the stage's best model, by verification; None: not at hand.
        faces, people: trained on, after the cut.
        cut: faces left out by reason.
        train_seconds, images_per_second: without validation.
    """

    name: str
    losses: tuple[str, ...]
    steps: int
    images: int
    best_step: int
    final_loss: float | None
    accuracies: Mapping[str, float | None]
    faces: int
    people: int
    cut: Mapping[str, int]
    train_seconds: float
    images_per_second: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StageResult:
        return cls(**{**values, "losses": tuple(values["losses"])})


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: `model` is the file for `load_backbone`."""

    model: Path
    choose_by: str
    stages: tuple[StageResult, ...]
    provenance: Mapping[str, Any]

    @property
    def verifications(self) -> tuple[str, ...]:
        """The columns of the table, in the recipe's order."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.accuracies))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "model": str(self.model)}
