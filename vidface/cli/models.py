"""`vidface models`: what recognisers there are, what they cost, and their files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vidface.cli import model_tables
from vidface.cli.options import (
    PATH,
    CommandGroup,
    OutputFile,
    fed_options,
    note,
    output_options,
    preprocessing_from,
    show,
    together,
)
from vidface.core.errors import VidfaceError
from vidface.core.values import printable

_limits = together(
    click.option(
        "--max-flops",
        type=float,
        default=1e9,
        show_default="1e9",
        help="Most FLOPs by the challenge's counter (about two a multiply-add).",
    ),
    click.option(
        "--max-mib", type=float, default=20.0, show_default=True, help="Largest size in MiB."
    ),
    click.option(
        "--max-dim",
        "max_dimension",
        type=int,
        default=512,
        show_default=True,
        help="Largest dimension of an embedding.",
    ),
)
"""What a recogniser may cost."""


@click.group(cls=CommandGroup, invoke_without_command=True)
@_limits
@output_options
@click.pass_context
def models(context: click.Context, as_json: bool, **max_costs: Any) -> None:
    """List (default), show, count, export or quantize recognisers.

    \b
    Example: vidface models
    """
    if context.invoked_subcommand is not None:
        given = click.core.ParameterSource.COMMANDLINE
        if any(context.get_parameter_source(name) is given for name in context.params):
            raise click.UsageError(f"options go behind '{context.invoked_subcommand}'")
        return
    from vidface.backbones.budget import BudgetLimits
    from vidface.backbones.catalogue import list_models

    limits = BudgetLimits(**max_costs)
    if sys.stderr.isatty():
        note("counting parameters and FLOPs of every architecture: up to a minute the first time")
    listed = list_models(limits)
    document = {"models": [model.to_dict() for model in listed]}
    show(as_json, document, lambda: model_tables.format_models(listed, limits))


@models.command(name="show")
@click.argument("name")
@click.option("--card", is_flag=True, help="Print a card (TOML) of NAME, or of a file, to edit.")
@_limits
@output_options
def models_show(name: str, card: bool, as_json: bool, **max_costs: Any) -> None:
    """Show one recogniser in full: the paper's Table 1, from the module itself.

    \b
    Example: vidface models show paper-step1
             vidface models show my.onnx --card
    """
    if card:
        from vidface.backbones.catalogue import draft_card

        click.echo(printable(draft_card(name)))
        return
    if Path(name).is_file():
        raise VidfaceError(
            f"{name}: a file, and this shows recognisers by name; `vidface models count` counts a "
            "file, --card prints a card of it"
        )
    from vidface.backbones.budget import BudgetLimits
    from vidface.backbones.catalogue import describe

    limits = BudgetLimits(**max_costs)
    description = describe(name, limits)
    show(as_json, description.to_dict(), lambda: model_tables.format_model(description, limits))


@models.command(name="count")
@click.argument("file", type=PATH)
@_limits
@output_options
def models_count(file: Path, as_json: bool, **max_costs: Any) -> None:
    """Count a FILE of weights (any ONNX recogniser) by the challenge's rules.

    \b
    Example: vidface models count my.onnx
    """
    from vidface.backbones.budget import BudgetLimits
    from vidface.backbones.catalogue import count_file

    limits = BudgetLimits(**max_costs)
    budget = count_file(file)
    document = {"file": str(file), **budget.to_dict(), "fits": limits.admit(budget)}
    show(as_json, document, lambda: printable(model_tables.format_cost(file.name, budget, limits)))


@models.command(name="export")
@click.argument("name")
@click.argument("out", type=OutputFile(".onnx"))
@click.option(
    "--weights",
    metavar="FILE",
    help="File of the architecture's parameters. [default: untrained ones]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of untrained parameters.",
)
@click.option(
    "--color", metavar="ORDER", help="Order of colours that is written into the file: rgb or bgr."
)
@click.option("--mean", type=float, help="Mean of pixels (0-255) that is written into the file.")
@click.option("--std", type=float, help="Divisor of pixels that is written into the file.")
@output_options
def models_export(
    name: str,
    out: Path,
    weights: str | None,
    seed: int,
    color: str | None,
    mean: float | None,
    std: float | None,
    as_json: bool,
) -> None:
    """Write architecture NAME as ONNX to OUT: batch norm folded, batch free.

    \b
    Example: vidface models export paper paper.onnx
    """
    from vidface.backbones.catalogue import export_architecture

    fed = preprocessing_from(color, mean, std)
    exported = export_architecture(name, out, weights=weights, preprocessing=fed, seed=seed)
    show(as_json, exported.to_dict(), lambda: printable(model_tables.format_exported(exported)))


@models.command(name="quantize", own=("color", "mean", "std"))
@click.argument("weights")
@click.argument("out", type=OutputFile(".onnx"))
@click.option(
    "--crops",
    type=PATH,
    required=True,
    help="Folder or tar of aligned 112x112 faces, to calibrate and measure on.",
)
@click.option(
    "--count",
    type=click.IntRange(min=4),
    default=128,
    show_default=True,
    help="Faces to calibrate on; as many others to measure on.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the choice of faces.",
)
@fed_options
@output_options
def models_quantize(
    weights: str, out: Path, crops: Path, count: int, seed: int, as_json: bool, **flags: Any
) -> None:
    """Write the static int8 twin of WEIGHTS to OUT (.onnx), and measure how far it is off.

    \b
    Example: vidface models quantize sface int8.onnx --crops faces.tar
    """
    from vidface.backbones.feeding import decide_feed
    from vidface.backbones.loading import load_network
    from vidface.backbones.quantize import quantize_file
    from vidface.storage.media import open_root

    network = load_network(weights, flags["architecture"], flags["output_name"])
    fed = preprocessing_from(flags["color"], flags["mean"], flags["std"])
    feed = decide_feed(weights, fed, place=network.place)
    if feed.assumed:
        raise VidfaceError(
            f"weights {weights}: nobody says what it is fed, and calibration must know: "
            "--color, --mean, --std"
        )
    if feed.remark:
        note(feed.remark)
    quantised = quantize_file(
        network, feed.preprocessing, open_root(crops), out, count=count, seed=seed
    )
    show(as_json, quantised.to_dict(), lambda: printable(model_tables.format_quantised(quantised)))
