"""What a training needs before its first step: its folder, faces, verifications and network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidface.backbones.loading import weights_sha256
from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify
from vidface.storage.cache import sha256_of
from vidface.training.folder import TrainingFolder
from vidface.training.kept_answers import open_kept_answers
from vidface.training.network import TrainingNetwork
from vidface.training.processes import Processes
from vidface.training.settings import HELD_OUT, LAST, TrainingPipeline
from vidface.training.sources import open_source
from vidface.training.sources.base import FaceSource
from vidface.training.sources.subsets import hold_out
from vidface.training.stages import Stage, build_sampler, resolve_stages
from vidface.training.synthetic import SyntheticFaces
from vidface.training.teachers import check_dimensions
from vidface.training.validation import HeldOutPairs, PairVerification, open_benchmarks


@dataclass(frozen=True)
class TrainingData:
    """The faces of a training and its verifications.

    Attributes:
        source: the faces, without held-out people.
        verifications: those that are at hand, by name.
        columns: names of all verifications, missing benchmarks too.
        each_validation: names of those that are made at every validation.
        inputs: what of all this decides the weights: hashes.
        taught: faces that a teacher is asked about.
        answers: (n, d) its answers about them, unit rows; None where it is asked live.
    """

    source: FaceSource
    verifications: Mapping[str, PairVerification]
    columns: tuple[str, ...]
    each_validation: tuple[str, ...]
    inputs: Mapping[str, Any]
    taught: SyntheticFaces | None = None
    answers: np.ndarray | None = None


@dataclass(frozen=True)
class TrainingContext:
    """What all stages of a training share."""

    pipeline: TrainingPipeline
    stages: tuple[Stage, ...]
    processes: Processes
    folder: TrainingFolder
    data: TrainingData
    network: TrainingNetwork
    notify: Notify


def open_training(
    pipeline: TrainingPipeline, processes: Processes, *, restart: bool, notify: Notify
) -> TrainingContext:
    """Open the faces, claim the folder, ask the teacher, and build the network.

    Raises:
        VidfaceError: a setting or the data do not fit, or the folder holds another training.
    """
    folder = TrainingFolder(pipeline.run.dir)
    folder.refuse_foreign()
    stages = resolve_stages(pipeline)
    data = _open_data(pipeline, notify)
    for stage in stages:
        # What a later stage's batches would say is said at once, but of those that cut.
        if stage.cut is None and not stage.distils:
            build_sampler(stage, data.source, pipeline.train.seed)
    document = {**pipeline.document(), "inputs": dict(data.inputs)}
    processes.check_same_everywhere(document, "settings and data")
    if processes.is_first:
        folder.claim(document, restart=restart)
    processes.barrier()
    if any(stage.distils for stage in stages):
        data = _ask_teacher(pipeline, data, folder, processes, notify)
    network = TrainingNetwork(pipeline.train, processes)
    if data.answers is not None:
        check_dimensions(network.architecture, data.answers.shape[1])
    return TrainingContext(pipeline, stages, processes, folder, data, network, notify)


def _open_data(pipeline: TrainingPipeline, notify: Notify) -> TrainingData:
    settings, seed = pipeline.data, pipeline.train.seed
    options: dict[str, Any] = {"resize": settings.resize}
    if settings.kind == "manifest":
        options["split"] = settings.split
    source = open_source(settings.kind, settings.path, **options)
    notify(str(source))
    held_out: dict[str, PairVerification] = {}
    if settings.hold_out_people:
        source, apart = hold_out(source, settings.hold_out_people, seed)
        held_out[HELD_OUT] = HeldOutPairs.draw(apart, np.asarray(apart.labels), seed)
    benchmarks = open_benchmarks(pipeline.benchmarks, notify)
    chosen = pipeline.choose_by
    if chosen not in (*held_out, *benchmarks, LAST):
        raise VidfaceError(
            f"[train] choose_by: '{chosen}' is not at hand; choose by {HELD_OUT} (with [data] "
            f"hold_out_people) or '{LAST}'"
        )
    inputs = {"faces": source.fingerprint, "resize": settings.resize}
    if chosen in benchmarks:
        inputs["pairs"] = benchmarks[chosen].fingerprint
    if pipeline.train.init is not None:
        inputs["init"] = sha256_of(pipeline.train.init)
    if pipeline.teacher is not None and pipeline.teacher.live:
        inputs["teacher"] = weights_sha256(pipeline.teacher.weights)  # kept answers know their own
    return TrainingData(
        source=source,
        verifications={**held_out, **benchmarks},
        columns=(*held_out, *(each.name for each in pipeline.benchmarks)),
        each_validation=tuple(
            each.name
            for each in pipeline.benchmarks
            if each.each_validation and each.name in benchmarks
        ),
        inputs=inputs,
    )


def _ask_teacher(
    pipeline: TrainingPipeline,
    data: TrainingData,
    folder: TrainingFolder,
    processes: Processes,
    notify: Notify,
) -> TrainingData:
    """Add the faces to ask about, and a teacher's answers where it is not live."""
    teacher = pipeline.teacher
    if teacher is None:
        return data
    faces = SyntheticFaces(
        data.source,
        teacher.count,
        teacher.seed,
        teacher.mix_share,
        teacher.bend_share,
        teacher.bend_pixels,
    )
    if teacher.live:
        return replace(data, taught=faces)
    threads = pipeline.train.threads or None
    answers = open_kept_answers(
        teacher, faces, data.source, folder.answers, processes, threads, notify
    )
    return replace(data, taught=faces, answers=answers)
