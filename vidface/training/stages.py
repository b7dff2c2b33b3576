"""The schedule: what holds in each stage, from what a recipe's stages add and remove.

The paper's progressive learning wraps one loss around the next (Table 3) and then changes the data
(Table 4). A recipe says of each stage only what is new; `resolve` says all that holds in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.training.augment import build_augmentation
from vidface.training.cleaning import CutSettings
from vidface.training.distillation import build_distil
from vidface.training.losses import LOSSES, ROLES, build_objective

if TYPE_CHECKING:
    from vidface.training.settings import StageSettings, TrainingPipeline

DISTIL = "distil"
CUT = "cut"


@dataclass(frozen=True)
class Stage:
    """One stage with everything that holds in it.

    Attributes:
        number: from 1.
        losses: name → settings, in the order in which they came.
        augment: the whole table.
        cut: what is cut of the faces (None: nothing), and `cut_by`, the number of the stage whose
            first model says which faces.
        settings: what the file says of the stage.
    """

    number: int
    losses: Mapping[str, Mapping[str, Any]]
    augment: Mapping[str, Any]
    batch_size: int
    learning_rate: float
    warmup_steps: int
    images_per_person: int
    short: str
    cut: Mapping[str, Any] | None
    cut_by: int | None
    settings: StageSettings

    def __str__(self) -> str:
        return f"stage {self.number} '{self.name}': {' + '.join(self.losses)}"

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def folder(self) -> str:
        """Its folder's name: number and name, in letters that every file system takes."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40]
        return f"{self.number:02d}-{plain or 'stage'}"

    @property
    def distils(self) -> bool:
        """Whether it repeats a teacher's embeddings instead of telling people apart."""
        return DISTIL in self.losses

    @property
    def sampling(self) -> str:
        """The sampler's name (`vidface.training.sampling`)."""
        return "people-by-images" if self.images_per_person else "shuffled"


def resolve(pipeline: TrainingPipeline) -> tuple[Stage, ...]:
    """Each stage with all that holds in it.

    Losses stay from stage to stage until they are removed; a margin takes the place of the margin
    before, and so do "distil" and the losses of people's names.

    Raises:
        VidfaceError: an unknown loss or setting, no margin, a loss removed that is not there, a
            teacher that is missing or not needed.
    """
    stages: list[Stage] = []
    losses: dict[str, Mapping[str, Any]] = {}
    augment, images, short = dict(pipeline.augment), 0, "error"
    cut: Mapping[str, Any] | None = None
    cut_by: int | None = None
    for number, settings in enumerate(pipeline.stages, start=1):
        where = f"[[stage]] '{settings.name}'"
        losses = _next_losses(losses, settings, where)
        augment = {**augment, **settings.augment}
        if settings.images_per_person is not None:
            images = settings.images_per_person
        short = settings.short or short
        if CUT in settings.remove:
            if cut is None:
                raise VidfaceError(f"{where}: remove 'cut': the stage before cuts nothing")
            cut, cut_by = None, None
        if settings.cut is not None:
            cut, cut_by = settings.cut, number
        stage = Stage(
            number=number,
            losses=dict(losses),
            augment=augment,
            images_per_person=images,
            short=short,
            cut=cut,
            cut_by=cut_by,
            batch_size=settings.batch_size or pipeline.train.batch_size,
            learning_rate=settings.learning_rate or pipeline.optimiser.learning_rate,
            warmup_steps=(
                pipeline.optimiser.warmup_steps
                if settings.warmup_steps is None
                else settings.warmup_steps
            ),
            settings=settings,
        )
        try:
            _check(stage, pipeline)
        except VidfaceError as error:
            raise VidfaceError(f"{where}: {error}") from None
        stages.append(stage)
    return tuple(stages)


def _next_losses(
    before: Mapping[str, Mapping[str, Any]], settings: StageSettings, where: str
) -> dict[str, Mapping[str, Any]]:

    known = (*LOSSES, DISTIL)
    removed = [name for name in settings.remove if name != CUT]
    for name in (*settings.losses, *removed):
        if name not in known:
            raise VidfaceError(f"{where}: unknown loss '{name}' (known: {', '.join(known)})")
    losses = dict(before)
    for name in removed:
        if name not in losses:
            raise VidfaceError(
                f"{where}: remove '{name}': the stage before has {', '.join(losses) or 'none'}"
            )
        del losses[name]
    added = set(settings.losses)
    if DISTIL in added or (DISTIL in losses and added):
        losses = {name: losses[name] for name in losses if name in added}
    if any(ROLES.get(name) == "margin" for name in added):
        losses = {
            name: given
            for name, given in losses.items()
            if ROLES.get(name) != "margin" or name in added
        }
    for name, given in settings.losses.items():
        if not isinstance(given, Mapping):
            raise VidfaceError(f"{where}: losses.{name} must be a table")
        losses[name] = {**losses.get(name, {}), **given}
    return losses


def _check(stage: Stage, pipeline: TrainingPipeline) -> None:

    build_augmentation(stage.augment)
    if stage.settings.cut is not None:
        _check_cut(stage.settings.cut)
    images = stage.images_per_person
    if images and stage.batch_size % images:
        raise VidfaceError(
            f"batch_size {stage.batch_size} is no multiple of images_per_person {images}"
        )
    if not stage.distils:
        build_objective(stage.losses, pipeline.train.scale)
        return
    build_distil(stage.losses[DISTIL])
    if len(stage.losses) > 1:
        others = ", ".join(name for name in stage.losses if name != DISTIL)
        raise VidfaceError(f"'{DISTIL}' stands alone, but there is {others}")
    if pipeline.teacher is None:
        raise VidfaceError(f"'{DISTIL}' needs a [teacher] table: weights, count")
    if stage.cut is not None or images:
        raise VidfaceError(f"'{DISTIL}' asks about all faces: leave cut and images_per_person out")


def _check_cut(given: Mapping[str, Any]) -> None:
    from dataclasses import fields

    known = [each.name for each in fields(CutSettings)]
    for key in given:
        if key not in known:
            raise VidfaceError(f"cut has no setting '{key}' (known: {', '.join(known)})")
    CutSettings(**cut_values(given))


def cut_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """A file's `cut` table as settings: "off" stands for None, which TOML has not.

    >>> cut_values({"min_images": 5, "own_cosine": "off"})
    {'min_images': 5, 'own_cosine': None}
    """
    return {key: None if value == "off" else value for key, value in given.items()}
