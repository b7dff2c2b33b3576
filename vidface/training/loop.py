"""The training loop: stages one after the other, exactly resumed after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor

from vidface.backbones.files import save_safetensors
from vidface.core.files import write_json
from vidface.core.progress import Notify, quiet
from vidface.runs.artefacts import provenance
from vidface.training.checkpoints import (
    TrainingPosition,
    load_checkpoint,
    load_module,
    select_prefix,
)
from vidface.training.logs import TrainingLog
from vidface.training.opening import TrainingContext, open_training
from vidface.training.processes import start_processes
from vidface.training.results import StageResult, TrainingResult
from vidface.training.settings import TrainingPipeline
from vidface.training.stage_opening import NamedCentres
from vidface.training.stage_run import OnStep, StageRun


def train(
    pipeline: TrainingPipeline,
    *,
    restart: bool = False,
    notify: Notify = quiet,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train by a recipe, or go on with a training that was cut off.

    Started by `torchrun`, all processes train together as one would, to rounding.

    Args:
        pipeline: `load_training` reads one.
        restart: forget what the run's folder holds of a training, and begin anew.
        notify: gets a line for what is worth knowing.
        on_step: called after every step.

    Raises:
        VidfaceError: a setting or the data do not fit, the folder holds another training, a loss is
            not finite (the last checkpoint is kept).
    """
    if pipeline.train.threads:
        torch.set_num_threads(pipeline.train.threads)
    device = pipeline.train.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with start_processes(device) as processes, ExitStack() as stack:
        if not processes.is_first:
            notify, on_step = quiet, None
        training = open_training(pipeline, processes, stack, restart=restart, notify=notify)
        position, tensors = _resume(training)
        log = _open_log(training, position) if processes.is_first else None
        centres: NamedCentres | None = None
        try:
            while position.stage <= len(training.stages):
                stage = StageRun(training, position, tensors, centres, log, on_step)
                position, centres = stage.run()
                tensors = {}
        finally:
            if log is not None:
                log.close()
        return _finish(training, position)


def _resume(training: TrainingContext) -> tuple[TrainingPosition, Mapping[str, Tensor]]:
    """Where the last checkpoint stands, and its tensors, the backbone's loaded."""
    path = training.folder.checkpoint
    if not path.is_file():
        if training.processes.is_first:
            training.folder.forget_stages()  # cuts by models that are gone
        training.processes.barrier()
        return TrainingPosition(), {}
    tensors, about = load_checkpoint(path)
    where = f"checkpoint {path}"
    position = TrainingPosition.from_json(about.get("place"), len(training.stages), where)
    load_module(training.network.plain, select_prefix("backbone", tensors), where)
    if position.stage <= len(training.stages):
        stage = training.stages[position.stage - 1]
        training.notify(f"going on with {stage}, after step {position.step}")
    return position, tensors


def _open_log(training: TrainingContext, position: TrainingPosition) -> TrainingLog:
    folder = training.folder
    return TrainingLog(
        folder.log,
        folder.tensorboard if training.pipeline.train.tensorboard else None,
        after_step=position.done + position.step,
        ends_again=position.step > 0,
    )


def _finish(training: TrainingContext, position: TrainingPosition) -> TrainingResult:
    """Write the model, the last stage's best, and the table."""
    pipeline, folder, network = training.pipeline, training.folder, training.network
    result = TrainingResult(
        folder.model,
        pipeline.choose_by,
        tuple(StageResult.from_dict(row) for row in position.results),
        provenance("train", {"pipeline": pipeline.document()}),
    )
    if training.processes.is_first:
        tensors, _ = load_checkpoint(folder.best_model(training.stages[-1].folder))
        load_module(network.plain, select_prefix("backbone", tensors), "best model")
        save_safetensors(
            network.plain,
            folder.model,
            network.architecture.name,
            network.preprocessing,
            half=pipeline.train.save_half,
            trained_by=f"vidface train, {len(training.stages)} stages",
        )
        write_json(folder.results, result.to_dict())
    training.processes.barrier()
    return result
