"""The command `verify`: a recogniser on face pairs, as papers report LFW."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

import click

from vidface.cli.options import (
    PATH,
    OutputFile,
    StageCommand,
    backbone_from,
    exit_for,
    fed_options,
    note,
    output_options,
    runtime_options,
    setting_options,
    show,
)
from vidface.cli.progress import images_bar


@click.command(cls=StageCommand, own=("color", "mean", "std"))
@click.argument("weights")
@click.argument("faces", metavar="FOLDER|TAR|BIN", type=PATH)
@click.option(
    "--pairs",
    type=PATH,
    help="Pairs in a folder or tar of aligned crops: LFW's pairs.txt (NAME/NAME_0001.jpg), or a "
    "list of paths, 'a.jpg b.jpg 1' a line or a CSV with a header. [default: drawn from FOLDER]",
)
@click.option("--all-pairs", is_flag=True, help="Without --pairs: every pair, none is drawn.")
@click.option(
    "--most-pairs",
    type=click.IntRange(min=2),
    help="Without --pairs: the most that are drawn, half of them of one person. [default: 6000]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the draw. [default: 0]")
@click.option(
    "--write-pairs",
    type=OutputFile(".csv"),
    metavar="FILE",
    help="Write the pairs that were made as a list that --pairs reads.",
)
@click.option("--flip", is_flag=True, help="Add every face's mirror image (raw embeddings summed).")
@setting_options("faces", only=("resize",))
@fed_options
@runtime_options
@output_options
def verify(
    weights: str,
    faces: Path,
    pairs: Path | None,
    all_pairs: bool,
    most_pairs: int | None,
    seed: int | None,
    write_pairs: Path | None,
    flip: bool,
    resize: bool | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Measure a recogniser on face pairs, as papers report LFW.

    WEIGHTS get 10-fold accuracy, AUC and TAR@FAR.

    \b
    Example: vidface verify sface lfw_aligned112.tar --pairs lfw_pairs.txt
             vidface verify my.onnx cfp.bin --color rgb --mean 127.5 --std 127.5
             vidface verify sface my_people --write-pairs pairs.csv

    Aligned crops of the recogniser's size, usually 112x112, in a folder or tar with a list of
    pairs, or an InsightFace .bin. Without a list FOLDER/PERSON/*.jpg gives pairs, drawn as LFW's
    were. Pairs without folds give AUC and TAR@FAR, but no accuracy.
    """
    making = all_pairs or most_pairs or seed is not None or write_pairs
    if making and (pairs is not None or (faces.suffix.lower() == ".bin" and faces.is_file())):
        raise click.UsageError(
            "--all-pairs, --most-pairs, --seed and --write-pairs are for a folder without --pairs"
        )
    if all_pairs and (most_pairs or seed is not None):
        raise click.UsageError("--all-pairs draws none: leave --most-pairs and --seed out")
    from vidface.cli import run_tables
    from vidface.datasets.drawn_pairs import MOST_DRAWN, write_list
    from vidface.datasets.pair_sources import open_pairs
    from vidface.runs.verify import verify as verify_pairs
    from vidface.settings.doubles import warn_of_like_names

    most = None if all_pairs else most_pairs or MOST_DRAWN
    pair_set = open_pairs(faces, pairs, most=most, seed=seed or 0)
    if write_pairs is not None:
        write_list(pair_set, write_pairs)
    people = {posixpath.dirname(name): () for name in pair_set.image_names}
    for warning in warn_of_like_names(f"pairs {pairs or faces}", people):
        note(warning)
    backbone = backbone_from(weights, flags)
    with images_bar(pair_set.n_images) as progress:
        result = verify_pairs(
            backbone, pair_set, flip=flip, resize=bool(resize), progress=progress, notify=note
        )
    show(as_json, result.to_dict(), lambda: run_tables.format_verified(result))
    exit_for(result.failed)
