"""`vidface train`: the paper's progressive training, by a recipe."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from vidface.cli.options import StageCommand, note, output_options, overrides_from, show


@click.command(cls=StageCommand)
@click.argument("pipeline")
@click.option("--run", metavar="DIR", help="Where checkpoints, logs and results go.")
@click.option("--data", metavar="PATH", help="The training faces, instead of the recipe's.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of weights, order and augmentation.")
@click.option("--device", metavar="NAME", help="Where the network is trained: auto, cpu or cuda.")
@click.option(
    "--precision",
    metavar="TYPE",
    help="Arithmetic of a step: float32, bf16 or fp16 (mixed precision).",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch on a CPU.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that read faces.")
@click.option("--restart", is_flag=True, help="Begin anew in a folder that holds a training.")
@output_options
def train(pipeline: str, restart: bool, as_json: bool, **flags: Any) -> None:
    """Train a backbone by PIPELINE, a recipe of stages: a file, or a shipped one's name.

    \b
    Example: vidface train train_progressive
    torchrun --nproc-per-node 2 -m -- vidface train train_progressive

    The same command goes on where a killed run stopped.
    """
    from vidface.cli import model_tables
    from vidface.cli.progress import training_progress
    from vidface.training.recipes import load_training
    from vidface.training.settings import TABLES

    recipe = load_training(pipeline, overrides_from(flags, TABLES))
    from vidface.training.loop import train as train_by

    with training_progress(enabled=sys.stderr.isatty() and _is_first_process()) as on_step:
        result = train_by(recipe, restart=restart, notify=note, on_step=on_step)
    if _is_first_process():
        show(as_json, result.to_dict(), lambda: model_tables.format_training(result))


def _is_first_process() -> bool:
    """Whether this is the only process, or torchrun's first: the one that prints."""
    return os.environ.get("RANK", "0") == "0"
