"""The schedule: what holds in each stage, from what a recipe's stages add and remove.

The paper's progressive learning wraps one loss around the next (Table 3) and then changes the data
(Table 4). A recipe says of each stage only what is new; `resolve_stages` says all that holds in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.core.settings import build_settings
from vidface.core.values import check_name
from vidface.training.augment import build_augmentation
from vidface.training.cleaning.settings import CutSettings
from vidface.training.distillation import Distil
from vidface.training.losses import LOSSES, build_objective
from vidface.training.losses.base import Loss
from vidface.training.sampling import Sampler, make_sampler
from vidface.training.sources.base import FaceSource

if TYPE_CHECKING:
    from vidface.training.settings import StageSettings, TrainingPipeline

STAGE_LOSSES: dict[str, type[Loss]] = {**LOSSES, Distil.name: Distil}
DISTIL = Distil.name
CUT = "cut"
LossTables = Mapping[str, Mapping[str, Any]]  # name of a loss → its settings


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
    losses: LossTables
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

    def count_steps(self, batches: int) -> int:
        """Its steps where an epoch has so many batches; at least one."""
        if self.settings.steps is not None:
            return self.settings.steps
        return max(1, round((self.settings.epochs or 0) * batches))


def resolve_stages(pipeline: TrainingPipeline) -> tuple[Stage, ...]:
    """Say of each stage all that holds in it.

    Losses stay from stage to stage until they are removed; a margin takes the place of the margin
    before, and so do "distil" and the losses of people's names.

    Raises:
        VidfaceError: an unknown loss or setting, no margin, a loss removed that is not there, a
            teacher that is missing or not needed.
    """
    stages: list[Stage] = []
    losses: LossTables = {}
    augment, images_per_person, short = dict(pipeline.augment), 0, "error"
    cut: Mapping[str, Any] | None = None
    cut_by: int | None = None
    warmup_steps = pipeline.optimiser.warmup_steps
    for number, settings in enumerate(pipeline.stages, start=1):
        try:
            losses = _change_losses(losses, settings)
            augment = {**augment, **settings.augment}
            if settings.images_per_person is not None:
                images_per_person = settings.images_per_person
            short = settings.short or short
            if CUT in settings.remove:
                if cut is None:
                    raise VidfaceError("remove 'cut': the stage before cuts nothing")
                cut, cut_by = None, None
            if settings.cut is not None:
                cut, cut_by = settings.cut, number
            own_warmup = settings.warmup_steps
            stage = Stage(
                number=number,
                losses=losses,
                augment=augment,
                images_per_person=images_per_person,
                short=short,
                cut=cut,
                cut_by=cut_by,
                batch_size=settings.batch_size or pipeline.train.batch_size,
                learning_rate=settings.learning_rate or pipeline.optimiser.learning_rate,
                warmup_steps=warmup_steps if own_warmup is None else own_warmup,
                settings=settings,
            )
            _check_stage(stage, pipeline)
        except VidfaceError as error:
            raise VidfaceError(f"[[stage]] '{settings.name}': {error}") from None
        stages.append(stage)
    return tuple(stages)


def _change_losses(before: LossTables, settings: StageSettings) -> LossTables:
    """The losses of a stage, from those of the stage before."""
    added = settings.losses
    removed = [name for name in settings.remove if name != CUT]
    for name in (*added, *removed):
        check_name("loss", name, STAGE_LOSSES)
    for name in removed:
        if name not in before:
            raise VidfaceError(
                f"remove '{name}': the stage before has {', '.join(before) or 'none'}"
            )
    losses = {name: table for name, table in before.items() if name not in removed}
    if DISTIL in added or (DISTIL in losses and added):  # a teacher, or people's names
        losses = {name: table for name, table in losses.items() if name in added}
    if any(STAGE_LOSSES[name].role == "margin" for name in added):
        losses = {
            name: table
            for name, table in losses.items()
            if STAGE_LOSSES[name].role != "margin" or name in added
        }
    for name, table in added.items():
        if not isinstance(table, Mapping):
            raise VidfaceError(f"losses.{name} must be a table")
        losses[name] = {**losses.get(name, {}), **table}
    return losses


def _check_stage(stage: Stage, pipeline: TrainingPipeline) -> None:
    build_augmentation(stage.augment)
    if stage.settings.cut is not None:
        build_cut(stage.settings.cut)
    images = stage.images_per_person
    if images and stage.batch_size % images:
        raise VidfaceError(
            f"batch_size {stage.batch_size} is no multiple of images_per_person {images}"
        )
    if not stage.distils:
        build_objective(stage.losses, pipeline.train.scale)
        return
    build_distil(stage)
    if len(stage.losses) > 1:
        others = ", ".join(name for name in stage.losses if name != DISTIL)
        raise VidfaceError(f"'{DISTIL}' stands alone, but there is {others}")
    if pipeline.teacher is None:
        raise VidfaceError(f"'{DISTIL}' needs a [teacher] table: weights, count")
    if stage.cut is not None or images:
        raise VidfaceError(f"'{DISTIL}' asks about all faces: leave cut and images_per_person out")


def build_cut(table: Mapping[str, Any]) -> CutSettings:
    """Read a file's `cut` table; "off" stands for None, which TOML has not.

    >>> build_cut({"min_images": 5, "own_cosine": "off"}).own_cosine is None
    True

    Raises:
        VidfaceError: an unknown setting (the known ones are listed), or a value out of range.
    """
    values = {key: None if value == "off" else value for key, value in table.items()}
    return build_settings(CutSettings, values, "cut")


def build_distil(stage: Stage) -> Distil:
    """The loss of a stage that repeats a teacher."""
    return build_settings(Distil, stage.losses[DISTIL], f"loss '{DISTIL}'")


def build_sampler(stage: Stage, source: FaceSource, seed: int) -> Sampler:
    """Build the order of the source's faces in a stage that tells people apart.

    Raises:
        VidfaceError: too few people, faces, or faces of a person.
    """
    if len(source.identities) < 2:
        raise VidfaceError(f"{stage}: faces of one person only: there is nobody to tell apart")
    return make_sampler(
        stage.sampling,
        source.labels,
        stage.batch_size,
        images_per_person=stage.images_per_person or 4,
        seed=seed,
        stage=stage.number,
        short=stage.short,
        identities=source.identities,
    )
