"""What a training needs before its first step: faces, verifications, network, a stage's task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidface.backbones.architectures import Architecture, architecture
from vidface.backbones.embedder import Embedder
from vidface.backbones.files import read_network
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.runs.artefacts import provenance, read_parquet, write_parquet
from vidface.storage.cache import sha256_of
from vidface.training.augment import build_augmentation
from vidface.training.batch_norm import synchronised
from vidface.training.batches import StageBatches
from vidface.training.centres import ClassCentres, resized
from vidface.training.checkpoints import load_checkpoint, part
from vidface.training.cleaning import CutSettings, contrast, cut_images, sharpness
from vidface.training.distillation import build_distil
from vidface.training.fast_prelu import with_fast_prelu
from vidface.training.folder import TrainingFolder
from vidface.training.losses import build_objective
from vidface.training.processes import Processes
from vidface.training.sampling import Sampler, sampler
from vidface.training.settings import HELD_OUT, LAST, TrainingPipeline
from vidface.training.sources import FaceSource, class_counts, hold_out, open_source, subset
from vidface.training.stages import DISTIL, Stage, cut_values
from vidface.training.synthetic import SyntheticFaces
from vidface.training.tasks import Recognition, Repetition, Task
from vidface.training.teachers import (
    deciding,
    kept_answers,
    live_repetition,
    synthetic_faces,
)
from vidface.training.teaching import Answers
from vidface.training.validation import (
    HeldOutPairs,
    Validation,
    embed_all,
    embedder_of,
    open_benchmarks,
)

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """The faces of a training and its verifications."""

    source: FaceSource  # without held-out people
    validation: Validation
    decides: Mapping[str, Any]  # what of them decides the weights: hashes
    verifications: tuple[str, ...]  # columns of the table, missing benchmarks too
    each_validation: tuple[str, ...] = ()  # benchmarks verified at every validation
    taught: SyntheticFaces | None = None
    answers: Answers | None = None


@dataclass(frozen=True)
class Scope:
    """What a stage trains on, for its row."""

    faces: int
    people: tuple[str, ...] = ()
    cut: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        left = f", {sum(self.cut.values()):,} faces cut" if self.cut else ""
        of = f" of {len(self.people):,} people" if self.people else ""
        return f"{self.faces:,} faces{of}{left}"


@dataclass(frozen=True)
class Centres:
    """Class centres (C, d) by people's names."""

    people: tuple[str, ...]
    values: Tensor


class Setting:
    """The network on its device. `module` may be wrapped for several processes, `plain` is not."""

    def __init__(self, pipeline: TrainingPipeline, processes: Processes) -> None:
        train = pipeline.train
        self.architecture: Architecture = architecture(train.architecture)
        self.preprocessing = Preprocessing(train.color, train.mean, train.std)
        self.device = processes.device
        self.precision = train.precision
        self.threads = train.threads or None
        plain = self.architecture.build(seed=train.seed)
        if train.init is not None:
            network = read_network(train.init, train.init.name, self.architecture.name)
            if network.module is not None:
                plain.load_state_dict(network.module.state_dict())
        plain = with_fast_prelu(plain)
        if processes.size > 1:
            plain = synchronised(plain)
        self.plain = plain.to(self.device)
        if train.channels_last:
            self.plain = self.plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._first = {name: t.detach().clone() for name, t in self.plain.state_dict().items()}
        self.module: nn.Module = self.plain
        self._channels_last = train.channels_last
        if processes.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(
                self.plain, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        statistics = (self.preprocessing.mean, self.preprocessing.std)
        self._mean, self._std = (
            torch.tensor(each, dtype=torch.float32, device=self.device).reshape(1, -1, 1, 1)
            for each in statistics
        )

    def restore_first_weights(self) -> None:
        self.plain.load_state_dict(self._first)

    def state(self) -> dict[str, Tensor]:
        return dict(self.plain.state_dict())

    def prepared(self, images: Tensor) -> Tensor:
        """(n, 112, 112, 3) uint8 RGB → what the network is fed, on its device."""
        planes = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        planes = planes.flip(1) if self.preprocessing.color == "bgr" else planes
        fed = (planes - self._mean) / self._std
        return fed if self._channels_last else fed.contiguous()

    def mixed_precision(self) -> contextlib.AbstractContextManager[Any]:
        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self.precision not in kinds:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=kinds[self.precision])

    def embedder(self) -> Embedder:
        return embedder_of(self.plain, self.architecture, self.preprocessing, self.threads)


def open_data(pipeline: TrainingPipeline, notify: Notify) -> Data:
    """Open the faces and the verifications."""
    settings = pipeline.data
    extra: dict[str, Any] = {"resize": settings.resize}
    if settings.kind == "manifest":
        extra["split"] = settings.split
    source = open_source(settings.kind, settings.path, **extra)
    notify(str(source))
    held: HeldOutPairs | None = None
    if settings.hold_out_people:
        source, apart = hold_out(source, settings.hold_out_people, pipeline.train.seed)
        held = HeldOutPairs.draw(apart, np.asarray(apart.labels), pipeline.train.seed)
    benchmarks = open_benchmarks(pipeline.benchmarks, notify)
    validation = Validation(held, benchmarks)
    columns = ((HELD_OUT,) if held else ()) + tuple(b.name for b in pipeline.benchmarks)
    chosen = pipeline.choose_by
    if chosen not in (*validation.names, LAST):
        raise VidfaceError(
            f"[train] choose_by: '{chosen}' is not at hand; choose by {HELD_OUT} (with [data] "
            f"hold_out_people) or '{LAST}'"
        )
    decides = {"faces": source.fingerprint, "resize": settings.resize}
    if chosen in benchmarks:
        pairs, flip = benchmarks[chosen]
        decides["pairs"] = f"{pairs.sha256} {'with' if flip else 'without'} the flip test"
    if pipeline.train.init is not None:
        decides["init"] = sha256_of(pipeline.train.init)
    if pipeline.teacher is not None:
        decides.update(deciding(pipeline.teacher))
    often = tuple(b.name for b in pipeline.benchmarks if b.each_validation and b.name in benchmarks)
    return Data(source, validation, decides, columns, often)


def ask_teacher(
    pipeline: TrainingPipeline,
    data: Data,
    processes: Processes,
    folder: TrainingFolder,
    notify: Notify,
) -> Data:
    """The data with the faces to ask about, and a teacher's answers where it is not live."""
    distils = any(DISTIL in stage.losses for stage in pipeline.stages)
    if pipeline.teacher is None or not distils:
        return data
    teacher = pipeline.teacher
    faces = synthetic_faces(teacher, data.source)
    if teacher.live:
        return replace(data, taught=faces)
    answers = kept_answers(
        teacher, faces, data.source, processes, folder, pipeline.train.threads, notify
    )
    return replace(data, taught=faces, answers=answers)


def check_stages(stages: tuple[Stage, ...], source: FaceSource) -> None:
    """Raise at once what a later stage's batches would: too few faces, people or faces a person.

    Stages that cut are checked when it is known what is left.
    """
    for stage in stages:
        if stage.cut is None and not stage.distils:
            _sampler(stage, source, 0)


def open_setting(pipeline: TrainingPipeline, data: Data, processes: Processes) -> Setting:
    """The network, checked against the teacher where there is one."""
    setting = Setting(pipeline, processes)
    if data.answers is not None:
        wanted, own = data.answers.embeddings.shape[1], setting.architecture.dimension
        if wanted != own:
            raise VidfaceError(
                f"[train] architecture '{setting.architecture.name}' gives {own} numbers and the "
                f"teacher {wanted}: name it with -e{wanted} behind"
            )
    return setting


def stage_task(
    pipeline: TrainingPipeline,
    stages: tuple[Stage, ...],
    stage: Stage,
    data: Data,
    setting: Setting,
    processes: Processes,
    folder: TrainingFolder,
    notify: Notify,
    last: Centres | None = None,
) -> tuple[Task, StageBatches, Scope]:
    """What a stage learns, from which batches; `last`: the centres at the end of the one before."""
    train = pipeline.train
    augmentation = build_augmentation(stage.augment)
    if stage.distils:
        if data.taught is None or pipeline.teacher is None:
            raise VidfaceError(f"{stage}: there is no teacher")
        labels = np.zeros(len(data.taught), np.int64)
        order = sampler("shuffled", labels, stage.batch_size, seed=train.seed, stage=stage.number)
        batches = StageBatches(
            data.taught, augmentation, order, np.arange(len(data.taught)), train.seed,
            stage.number, processes, train.workers,
        )  # fmt: skip
        objective, scope = build_distil(stage.losses[DISTIL]), Scope(len(data.taught))
        if data.answers is not None:
            kept = Repetition(objective, torch.from_numpy(data.answers.embeddings))
            return kept, batches, scope
        live = live_repetition(
            objective, pipeline.teacher, data.taught, setting, pipeline.optimiser, processes
        )
        return live, batches, scope
    source, cut = _kept_faces(stages, stage, data, setting, processes, folder, notify)
    labels = np.asarray(source.labels)
    order = _sampler(stage, source, train.seed)
    batches = StageBatches(
        source, augmentation, order, np.arange(len(source)), train.seed, stage.number, processes,
        train.workers,
    )  # fmt: skip
    task = Recognition(
        build_objective(stage.losses, train.scale),
        _first_centres(pipeline, stages, stage, source, setting, folder, last),
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(class_counts(source)).to(setting.device),
        pipeline.optimiser.momentum,
        pipeline.optimiser.weight_decay,
    )
    return task, batches, Scope(len(source), tuple(source.identities), cut)


def _sampler(stage: Stage, source: FaceSource, seed: int) -> Sampler:
    if len(source.identities) < 2:
        raise VidfaceError(f"{stage}: faces of one person only: there is nobody to tell apart")
    return sampler(
        stage.sampling,
        np.asarray(source.labels),
        stage.batch_size,
        images_per_person=stage.images_per_person or 4,
        seed=seed,
        stage=stage.number,
        short=stage.short,
        identities=source.identities,
    )


def _first_centres(
    pipeline: TrainingPipeline,
    stages: tuple[Stage, ...],
    stage: Stage,
    source: FaceSource,
    setting: Setting,
    folder: TrainingFolder,
    last: Centres | None,
) -> ClassCentres:
    """The centres of the stage before, under the stage's numbers; drawn where there are none."""
    train, dimension = pipeline.train, setting.architecture.dimension
    identities = tuple(source.identities)
    before = stages[stage.number - 2] if stage.number > 1 else None
    if before is None or before.distils or stage.settings.start == "scratch":
        made = ClassCentres(len(identities), dimension, train.seed, train.sample_rate)
        return made.to(setting.device)
    if stage.settings.start == "best" or last is None:
        tensors, said = load_checkpoint(folder.best(before.folder))
        try:
            last = Centres(tuple(said["people"]), part("task", tensors)["centres"])
        except KeyError:
            raise VidfaceError(
                f"{folder.best(before.folder)}: holds no class centres; give --restart"
            ) from None
    held = ClassCentres(len(last.people), dimension, train.seed, train.sample_rate)
    if last.values.shape != held.weight.shape:
        raise VidfaceError(
            f"class centres {tuple(last.values.shape)} of {before}: another number of classes, or "
            f"another dimension, than {tuple(held.weight.shape)}"
        )
    with torch.no_grad():
        held.weight.copy_(last.values)
    return resized(held, last.people, identities, seed=train.seed).to(setting.device)


def _kept_faces(
    stages: tuple[Stage, ...],
    stage: Stage,
    data: Data,
    setting: Setting,
    processes: Processes,
    folder: TrainingFolder,
    notify: Notify,
) -> tuple[FaceSource, dict[str, int]]:
    """The faces that the stage's cut leaves, and how many it takes by reason."""
    if stage.cut is None or stage.cut_by is None:
        return data.source, {}
    path = folder.cut(stages[stage.cut_by - 1].folder)
    if not path.is_file() and processes.is_first:
        notify(f"{stage}: looking for faces to cut")
        _cut(stage.cut, data.source, setting, path)
    processes.barrier()
    keep, counts = read_cut(path, len(data.source))
    return subset(data.source, keep), counts


def _cut(given: Mapping[str, Any], source: FaceSource, setting: Setting, path: Path) -> None:

    settings = CutSettings(**cut_values(given))
    rows = embed_all(setting.embedder(), source)
    measures: dict[str, Any] = {}
    if settings.quality_quantile is not None:
        parts = [
            np.stack([source.image(i) for i in range(start, min(start + 256, len(source)))])
            for start in range(0, len(source), 256)
        ]
        measures = {
            "sharpness": np.concatenate([sharpness(part) for part in parts]),
            "contrast": np.concatenate([contrast(part) for part in parts]),
            "embedding norm": np.linalg.norm(rows, axis=1),
        }
    found = cut_images(rows, np.asarray(source.labels), settings, quality=measures or None)
    names = [source.name(i) for i in range(len(source))]
    table = found.table(names, source.identities, kept=True)
    write_parquet(path, table, provenance("cut", {"settings": dict(given)}))


def read_cut(path: Path, faces: int) -> tuple[np.ndarray, dict[str, int]]:
    """(keep (n,) bool, faces cut by reason) of a stage's log of its cut.

    Raises:
        VidfaceError: damaged, or about other faces.
    """

    table, _ = read_parquet(path)
    reasons = np.array(table.column("reason").to_pylist(), dtype=object)
    if len(reasons) != faces:
        raise VidfaceError(f"{path}: about {len(reasons)} faces, not {faces}; give --restart")
    names, counts = np.unique(reasons.astype(str), return_counts=True)
    gone = {str(n): int(c) for n, c in zip(names, counts, strict=True) if n != "kept"}
    return reasons == "kept", gone
