"""`vidface import` and `vidface export`: challenges' files into runs, and runs into them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidface.cli.options import (
    PATH,
    CommandGroup,
    Decorator,
    OutputFile,
    clustering_option,
    denoising_from,
    exit_for,
    file_option,
    noise_options,
    note,
    open_run_from,
    output_options,
    run_options,
    show,
    together,
)
from vidface.cli.progress import extraction_bar
from vidface.core.values import printable

if TYPE_CHECKING:
    from vidface.challenges.importing import Imported

_into = together(
    click.option(
        "--out",
        type=PATH,
        default=Path(),
        metavar="DIR",
        help="Folder for manifest.csv and vidface.toml. [default: this one]",
    ),
    click.option("--force", is_flag=True, help="Replace what is there, and extract again."),
)
"""Where an import writes."""


@click.group(cls=CommandGroup, name="import")
def import_data() -> None:
    """Make a manifest and a pipeline file of embeddings, or of a challenge's files.

    \b
    Example: vidface import embeddings vectors.npz --out mine
    """


@import_data.command(name="iqiyi")
@click.argument("pickles", metavar="PICKLE...", nargs=-1, required=True, type=PATH)
@click.option(
    "--gt",
    "truths",
    multiple=True,
    type=PATH,
    metavar="GT",
    help="Ground truth, train_gt.txt or val_gt.txt; may be repeated.",
)
@click.option(
    "--split", metavar="NAME", help="Split of a single pickle. [default: what its name says]"
)
@_into
@output_options
def import_iqiyi(
    pickles: tuple[Path, ...],
    truths: tuple[Path, ...],
    split: str | None,
    out: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Import iQIYI-VID's feature files: a manifest, and the embeddings at once.

    \b
    Example: vidface import iqiyi face_train_v2.pickle --gt train_gt.txt

    Videos that no GT names are distractors; those that only a GT names count as missing.
    """
    from vidface.challenges import iqiyi

    imported = iqiyi.import_iqiyi(pickles, truths, out, split=split, force=force)
    _read_features(imported, force, as_json)


@import_data.command(name="embeddings")
@click.argument("file", type=PATH)
@file_option("--manifest", help="Who is in which clip. [default: the columns identity and split]")
@click.option(
    "--split",
    metavar="NAME",
    default="val",
    show_default=True,
    help="Split of all clips, where neither says it.",
)
@_into
@output_options
def import_embeddings(
    file: Path, manifest: Path | None, split: str, out: Path, force: bool, as_json: bool
) -> None:
    """Import embeddings of your own program: rows with clip ids become a run.

    \b
    Example: vidface import embeddings faces.npz --manifest clips.csv --out mine

    FILE is an .npz or .parquet with clip_id and embedding, and frame_index, identity and split if
    wanted; or an .npy with the clip ids in a .txt of the same name, one a line.
    """
    from vidface.challenges import embeddings

    imported = embeddings.import_embeddings(
        file, out, manifest=manifest, split=split, force=force, say=note
    )
    _read_features(imported, force, as_json)


def _read_features(imported: Imported, force: bool, as_json: bool) -> None:
    """Extract what was imported, which is reading, and print both."""
    from vidface.cli import run_tables
    from vidface.runs.extraction import extract
    from vidface.runs.run import open_run
    from vidface.settings.pipeline import load_pipeline

    run = open_run(load_pipeline(imported.pipeline), note)
    with extraction_bar(run) as progress:
        extraction = extract(run, force=force, notify=note, progress=progress)
    document = {**imported.to_dict(), "extraction": extraction.to_dict()}
    show(
        as_json,
        document,
        lambda: printable(f"{run_tables.format_extraction(extraction, run)}\n{imported}"),
    )
    exit_for(extraction.failed)


@import_data.command(name="lfrc")
@click.argument("folder", type=PATH)
@file_option(
    "--labels",
    help="Who is in which video, as lines '<video> <identity>'.",
)
@file_option(
    "--filelist",
    help="List of the videos. [default: filelist.txt in FOLDER]",
)
@click.option(
    "--split", metavar="NAME", default="val", show_default=True, help="Split of all videos."
)
@_into
@output_options
def import_lfrc(
    folder: Path,
    labels: Path | None,
    filelist: Path | None,
    split: str,
    out: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Import LFRC's crops: FOLDER/iQIYI_VID_FACE/<video>/*.jpg and filelist.txt.

    \b
    Example: vidface import lfrc lfrc_data --out mine
    """
    from vidface.challenges import lfrc

    imported = lfrc.import_lfrc(
        folder, out, labels=labels, filelist=filelist, split=split, force=force
    )
    show(as_json, imported.to_dict(), lambda: printable(str(imported)))


@import_data.command(name="ijb")
@click.argument("templates", type=PATH)
@click.option(
    "--root",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Folder at which the list's paths start.",
)
@click.option(
    "--order",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Order of a list without a header: template-media-path or path-template-media.",
)
@click.option(
    "--split", metavar="NAME", default="probe", show_default=True, help="Split of all images."
)
@_into
@output_options
def import_ijb(
    templates: Path, root: Path, order: str, split: str, out: Path, force: bool, as_json: bool
) -> None:
    """Import IJB-style TEMPLATES (template_id media_id path a line), each image once.

    \b
    Example: vidface import ijb ijbc_face_tid_mid.txt --root ijbc
    """
    from vidface.challenges import ijb

    imported = ijb.import_ijb(templates, root, out, order=order, split=split, force=force)
    show(as_json, imported.to_dict(), lambda: printable(str(imported)))


_from_run = together(
    run_options,
    noise_options,
    clustering_option,
)
"""Which run and which clustering."""


def _written_to(suffix: str) -> Decorator:
    """The flag that says where the file goes."""
    return file_option(
        "--out",
        required=True,
        type=OutputFile(suffix),
        help="The file to write; - is standard output.",
    )


@click.group(cls=CommandGroup, name="export")
def export_data() -> None:
    """Write a run as a challenge takes it.

    \b
    Example: vidface export lfrc --run runs/mine --out submission.bin
    """


@export_data.command(name="lfrc")
@click.option("--split", metavar="NAME", help="Split whose clips are written. [default: all]")
@file_option(
    "--filelist",
    help="List of the clips, and their order. [default: the manifest's]",
)
@_from_run
@_written_to(".bin")
@output_options
def export_lfrc(
    split: str | None,
    filelist: Path | None,
    out: Path,
    threshold: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write descriptors as LFRC's submission, a row a clip; read back and compared.

    \b
    Example: vidface export lfrc --run runs/mine --out submission.bin
    """
    from vidface.runs import exports, scoring

    run = open_run_from(flags)
    clustering = denoising_from(run, threshold, flags) or scoring.LATEST
    written = exports.export_lfrc(run, out, clustering, split=split, filelist=filelist, notify=note)
    text = (
        f"{written.path}: {written.rows} rows x {written.cols} float32, {written.bytes} bytes\n"
        f"sha256 {written.sha256}\n"
        f"{written.zero_rows} rows are zeros: clips without a descriptor"
    )
    show(as_json, written.to_dict(), lambda: printable(text))


@export_data.command(name="iqiyi")
@click.option("--split", metavar="NAME", help="Split that is searched. [default: the pipeline's]")
@click.option(
    "--gallery",
    metavar="NAME",
    help="Split whose identities are searched for. [default: the pipeline's]",
)
@click.option(
    "--k", type=int, help="Most clips of an identity's list. [default: the pipeline's, 100]"
)
@click.option(
    "--enrolment",
    metavar="NAME",
    help="How a person's clips are searched with: mean or max. [default: the pipeline's]",
)
@_from_run
@_written_to(".txt")
@output_options
def export_iqiyi(
    split: str | None,
    gallery: str | None,
    out: Path,
    threshold: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write ranked lists as iQIYI-VID's submission, a line an identity; read back and compared.

    \b
    Example: vidface export iqiyi --run runs/mine --out result.txt
    """
    from vidface.runs import exports, scoring

    run = open_run_from(flags)  # k and enrolment replace keys of the pipeline
    clustering = denoising_from(run, threshold, flags) or scoring.LATEST
    written = exports.export_iqiyi(run, out, clustering, split=split, gallery=gallery, notify=note)
    show(as_json, written.to_dict(), lambda: printable(str(written)))
