"""What a training needs before its first step: its folder, faces, verifications and network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
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
class TrainingContext:
    """What all stages of a training share.

    Attributes:
        source: the faces, without held-out people.
        verifications: those that are at hand, by name.
        taught: faces that a teacher is asked about.
        answers: (n, d) its answers about them, unit rows; None where it is asked live.
    """

    pipeline: TrainingPipeline
    stages: tuple[Stage, ...]
    processes: Processes
    folder: TrainingFolder
    network: TrainingNetwork
    notify: Notify
    source: FaceSource
    verifications: Mapping[str, PairVerification]
    taught: SyntheticFaces | None
    answers: np.ndarray | None


def open_training(
    pipeline: TrainingPipeline,
    processes: Processes,
    until_end: ExitStack,
    *,
    restart: bool,
    notify: Notify,
) -> TrainingContext:
    """Open the faces, claim the folder, ask the teacher, and build the network.

    Args:
        until_end: of the training, which holds its folder so long.

    Raises:
        VidfaceError: a setting or the data do not fit, or the folder holds another training.
    """
    folder = TrainingFolder(pipeline.run.dir)
    folder.refuse_foreign()
    stages = resolve_stages(pipeline)
    source, verifications, inputs = _open_faces(pipeline, notify)
    for stage in stages:
        # What a later stage's batches would say is said at once, but of those that cut.
        if stage.cut is None and not stage.distils:
            build_sampler(stage, source, pipeline.train.seed)
    document = {**pipeline.document(), "inputs": inputs}
    processes.check_same_everywhere(document, "settings and data")
    if processes.is_first:
        until_end.enter_context(folder.at_work())
        folder.claim(document, restart=restart)
    processes.barrier()
    taught, answers = None, None
    if pipeline.teacher is not None and any(stage.distils for stage in stages):
        taught = SyntheticFaces(source, pipeline.teacher)
        if not pipeline.teacher.live:
            threads = pipeline.train.threads or None
            answers = open_kept_answers(
                taught, source.fingerprint, folder.answers, processes, threads, notify
            )
    network = TrainingNetwork(pipeline.train, processes)
    if answers is not None:
        check_dimensions(network.architecture, answers.shape[1])
    return TrainingContext(
        pipeline,
        stages,
        processes,
        folder,
        network,
        notify,
        source,
        verifications,
        taught,
        answers,
    )


def _open_faces(
    pipeline: TrainingPipeline, notify: Notify
) -> tuple[FaceSource, dict[str, PairVerification], dict[str, Any]]:
    """The faces without held-out people, the verifications at hand, and hashes of all that decides.

    Raises:
        VidfaceError: the faces can't be read, or the verification to choose by is not at hand.
    """
    settings, seed = pipeline.data, pipeline.train.seed
    options: dict[str, Any] = {"resize": settings.resize}
    if settings.kind == "manifest":
        options["split"] = settings.split
    source = open_source(settings.kind, settings.path, **options)
    notify(str(source))
    held_out: dict[str, PairVerification] = {}
    if settings.hold_out_people:
        source, apart = hold_out(source, settings.hold_out_people, seed)
        held_out[HELD_OUT] = HeldOutPairs.draw(apart, apart.labels, seed)
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
    return source, {**held_out, **benchmarks}, inputs
