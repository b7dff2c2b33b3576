"""What a stage needs before its first step: the faces its cut leaves, their batches, its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidface.core.errors import VidfaceError
from vidface.runs.artefacts import provenance, read_parquet, write_parquet
from vidface.training.augment import build_augmentation
from vidface.training.batches import StageBatches
from vidface.training.centres import ClassCentres, resize_centres
from vidface.training.checkpoints import load_checkpoint, select_prefix
from vidface.training.cleaning.quality import contrast, sharpness
from vidface.training.cleaning.rules import cut_images
from vidface.training.live_task import open_live_task
from vidface.training.losses import build_objective
from vidface.training.network import TrainingNetwork
from vidface.training.opening import TrainingContext
from vidface.training.sampling import Sampler, Shuffled
from vidface.training.sources.base import FaceSource, class_counts
from vidface.training.sources.subsets import take_images
from vidface.training.stages import Stage, build_cut, build_distil, build_sampler
from vidface.training.synthetic import FaceImages, read_blocks
from vidface.training.tasks import DistillationTask, RecognitionTask, StageTask
from vidface.training.validation import embed_all


@dataclass(frozen=True)
class NamedCentres:
    """Class centres (C, d) by people's names."""

    people: tuple[str, ...]
    values: Tensor


@dataclass(frozen=True)
class OpenedStage:
    """What a stage learns, from which batches.

    Attributes:
        people: names by class number; nobody where a teacher is repeated.
        cut: faces that were left out, by reason.
    """

    task: StageTask
    batches: StageBatches
    people: tuple[str, ...] = ()
    cut: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        people = f" of {len(self.people):,} people" if self.people else ""
        cut = f", {sum(self.cut.values()):,} faces cut" if self.cut else ""
        return f"{len(self.batches.faces):,} faces{people}{cut}"


def open_stage(
    training: TrainingContext, stage: Stage, last_centres: NamedCentres | None
) -> OpenedStage:
    """Open a stage; `last_centres` are those at the end of the stage before."""
    if stage.distils:
        return _open_distillation(training, stage)
    pipeline, device = training.pipeline, training.network.device
    source, cut = _keep_faces(training, stage)
    order = build_sampler(stage, source, pipeline.train.seed)
    task = RecognitionTask(
        build_objective(stage.losses, pipeline.train.scale),
        _first_centres(training, stage, source.identities, last_centres),
        torch.from_numpy(source.labels.copy()),
        torch.from_numpy(class_counts(source)).to(device),
        pipeline.optimiser.momentum,
        pipeline.optimiser.weight_decay,
    )
    batches = _batch_faces(training, stage, source, order)
    return OpenedStage(task, batches, source.identities, cut)


def _open_distillation(training: TrainingContext, stage: Stage) -> OpenedStage:
    pipeline, faces = training.pipeline, training.taught
    if faces is None:
        raise VidfaceError(f"{stage}: there is no teacher")
    order = Shuffled(len(faces), stage.batch_size, seed=pipeline.train.seed, stage=stage.number)
    objective = build_distil(stage)
    task: StageTask
    if training.answers is not None:
        task = DistillationTask(objective, torch.from_numpy(training.answers))
    else:
        task = open_live_task(
            objective,
            faces.settings,
            faces,
            training.network,
            pipeline.optimiser,
            training.processes,
        )
    return OpenedStage(task, _batch_faces(training, stage, faces, order))


def _batch_faces(
    training: TrainingContext, stage: Stage, faces: FaceImages, order: Sampler
) -> StageBatches:
    train = training.pipeline.train
    return StageBatches(
        faces,
        build_augmentation(stage.augment),
        order,
        train.seed,
        stage.number,
        training.processes,
        train.workers,
    )


def _first_centres(
    training: TrainingContext,
    stage: Stage,
    people: tuple[str, ...],
    last: NamedCentres | None,
) -> ClassCentres:
    """The centres of the stage before, under the stage's numbers; drawn where there are none."""
    train, network = training.pipeline.train, training.network

    def draw_centres(classes: int) -> ClassCentres:
        return ClassCentres(classes, network.architecture.dimension, train.seed, train.sample_rate)

    before = training.stages[stage.number - 2] if stage.number > 1 else None
    if before is None or before.distils or stage.settings.start == "scratch":
        return draw_centres(len(people)).to(network.device)
    if stage.settings.start == "best" or last is None:
        path = training.folder.best_model(before.folder)
        tensors, about = load_checkpoint(path)
        try:
            last = NamedCentres(tuple(about["people"]), select_prefix("task", tensors)["centres"])
        except KeyError:
            raise VidfaceError(f"{path}: holds no class centres; give --restart") from None
    centres = draw_centres(len(last.people))
    if last.values.shape != centres.weight.shape:
        raise VidfaceError(
            f"class centres {tuple(last.values.shape)} of {before}: another number of classes, or "
            f"another dimension, than {tuple(centres.weight.shape)}"
        )
    with torch.no_grad():
        centres.weight.copy_(last.values)
    return resize_centres(centres, last.people, people, seed=train.seed).to(network.device)


def _keep_faces(training: TrainingContext, stage: Stage) -> tuple[FaceSource, dict[str, int]]:
    """The faces that the stage's cut leaves, and how many it takes by reason."""
    source = training.source
    if stage.cut is None or stage.cut_by is None:
        return source, {}
    path = training.folder.cut(training.stages[stage.cut_by - 1].folder)
    if not path.is_file() and training.processes.is_first:
        training.notify(f"{stage}: looking for faces to cut")
        _write_cut(stage.cut, source, training.network, path)
    training.processes.barrier()
    keep, counts = _read_cut(path, len(source))
    return take_images(source, keep), counts


def _write_cut(
    table: Mapping[str, Any], source: FaceSource, network: TrainingNetwork, path: Path
) -> None:
    """Say of every face whether it is kept, and why not, by the model as it is now."""
    settings = build_cut(table)
    rows = embed_all(network.embedder(), source)
    quality: dict[str, np.ndarray] | None = None
    if settings.quality_quantile is not None:
        blocks = read_blocks(source, range(len(source)))
        measures = [(sharpness(faces), contrast(faces)) for _, faces in blocks]
        quality = {
            "sharpness": np.concatenate([sharp for sharp, _ in measures]),
            "contrast": np.concatenate([contrasts for _, contrasts in measures]),
            "embedding norm": np.linalg.norm(rows, axis=1),
        }
    cut = cut_images(rows, source.labels, settings, quality=quality)
    names = [source.name(number) for number in range(len(source))]
    about = provenance("cut", {"settings": dict(table)})
    write_parquet(path, cut.table(names, source.identities, kept=True), about)


def _read_cut(path: Path, faces: int) -> tuple[np.ndarray, dict[str, int]]:
    """(keep (n,) bool, faces cut by reason) of a stage's list of its cut.

    Raises:
        VidfaceError: damaged, or about other faces.
    """
    table, _ = read_parquet(path)
    reasons = np.array(table.column("reason").to_pylist(), dtype=object)
    if len(reasons) != faces:
        raise VidfaceError(f"{path}: about {len(reasons)} faces, not {faces}; give --restart")
    names, counts = np.unique(reasons.astype(str), return_counts=True)
    by_reason = dict(zip(names.tolist(), counts.tolist(), strict=True))
    by_reason.pop("kept", None)
    return reasons == "kept", by_reason
