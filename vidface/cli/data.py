"""`vidface import` and `vidface export`: challenges' files into runs, and runs into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidface.cli.options import (
    Command,
    CommandGroup,
    decorated,
    denoising_from,
    exit_for,
    noise_options,
    note,
    open_run_from,
    output_options,
    progress_bar,
    run_options,
    show,
)
from vidface.core.values import printable

FILE = click.Path(path_type=Path)


def _into(command: Command) -> Command:
    """Where an import writes."""
    options = (
        click.option(
            "--out",
            type=FILE,
            default=Path(),
            metavar="DIR",
            help="Folder for manifest.csv and vidface.toml. [default: this one]",
        ),
        click.option("--force", is_flag=True, help="Replace what is there, and extract again."),
    )
    return decorated(command, options)


@click.group(cls=CommandGroup, name="import")
def import_data() -> None:
    """Make a manifest and a pipeline file of a challenge's files."""


@import_data.command(name="iqiyi")
@click.argument("pickles", metavar="PICKLE...", nargs=-1, required=True, type=FILE)
@click.option(
    "--gt",
    "truths",
    multiple=True,
    type=FILE,
    metavar="GT",
    help="train_gt.txt or val_gt.txt; may be repeated.",
)
@click.option("--split", metavar="NAME", help="Of a single pickle. [default: what its name says]")
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
    """iQIYI-VID's feature files: a manifest, and the embeddings at once.

    \b
    vidface import iqiyi face_train_v2.pickle face_val_v2.pickle --gt train_gt.txt --gt val_gt.txt

    Videos that no GT names are distractors; those that only a GT names count as missing.
    """
    from vidface.challenges import iqiyi
    from vidface.cli import run_tables
    from vidface.runs.extraction import extract
    from vidface.runs.run import open_run
    from vidface.settings.pipeline import load_pipeline

    made = iqiyi.import_iqiyi(pickles, truths, out, split=split, force=force)
    run = open_run(load_pipeline(made.pipeline), note)
    with progress_bar(run) as progress:
        done = extract(run, force=force, notify=note, progress=progress)
    document = {**made.to_dict(), "extraction": done.to_dict()}
    show(as_json, document, lambda: printable(f"{run_tables.format_extraction(done, run)}\n{made}"))
    exit_for(done.failed)


@import_data.command(name="lfrc")
@click.argument("folder", type=FILE)
@click.option(
    "--labels", type=FILE, metavar="FILE", help="Lines '<video> <identity>', if you have them."
)
@click.option(
    "--filelist", type=FILE, metavar="FILE", help="The videos. [default: filelist.txt in FOLDER]"
)
@click.option("--split", metavar="NAME", default="val", show_default=True, help="Of all videos.")
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
    """LFRC's aligned crops: FOLDER/iQIYI_VID_FACE/<video>/*.jpg and filelist.txt."""
    from vidface.challenges import lfrc

    made = lfrc.import_lfrc(folder, out, labels=labels, filelist=filelist, split=split, force=force)
    show(as_json, made.to_dict(), lambda: printable(str(made)))


@import_data.command(name="ijb")
@click.argument("templates", type=FILE)
@click.option("--root", type=FILE, required=True, metavar="DIR", help="Where its paths start.")
@click.option(
    "--order",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="template-media-path or path-template-media, of a file without a header.",
)
@click.option("--split", metavar="NAME", default="probe", show_default=True, help="Of all images.")
@_into
@output_options
def import_ijb(
    templates: Path, root: Path, order: str, split: str, out: Path, force: bool, as_json: bool
) -> None:
    """Images of IJB-style TEMPLATES (template_id media_id path a line), each once."""
    from vidface.challenges import ijb

    made = ijb.import_ijb(templates, root, out, order=order, split=split, force=force)
    show(as_json, made.to_dict(), lambda: printable(str(made)))


def _from_run(command: Command) -> Command:
    """Which run and which clustering, and where the file goes."""
    options = (
        click.option("--out", type=FILE, required=True, metavar="FILE", help="The file to write."),
        click.option(
            "--threshold", metavar="COSINE", help="Of the clustering. [default: the latest]"
        ),
    )
    return run_options(noise_options(decorated(command, options)))


@click.group(cls=CommandGroup, name="export")
def export_data() -> None:
    """Write a run as a challenge takes it."""


@export_data.command(name="lfrc")
@click.option("--split", metavar="NAME", help="Only its clips. [default: all]")
@click.option(
    "--filelist", type=FILE, metavar="FILE", help="Clips and their order. [default: the manifest's]"
)
@_from_run
@output_options
def export_lfrc(
    split: str | None,
    filelist: Path | None,
    out: Path,
    threshold: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Descriptors as LFRC's submission, a row a clip; read back and compared."""
    from vidface.runs import exports, scoring

    run = open_run_from(flags)
    chosen = denoising_from(run, threshold, flags) or scoring.LATEST
    done = exports.export_lfrc(run, out, chosen, split=split, filelist=filelist, notify=note)
    text = (
        f"{done.path}: {done.rows} rows x {done.cols} float32, {done.bytes} bytes\n"
        f"sha256 {done.sha256}\n"
        f"{done.zero_rows} rows are zeros: clips without a descriptor"
    )
    show(as_json, done.to_dict(), lambda: printable(text))


@export_data.command(name="iqiyi")
@click.option("--split", metavar="NAME", help="Split that is searched. [default: pipeline's]")
@click.option("--gallery", metavar="NAME", help="Split whose identities are searched for.")
@click.option("--k", type=int, help="Clips an identity. [default: pipeline's, 100]")
@click.option("--enrolment", metavar="NAME", help="mean of a person's clips, or max.")
@_from_run
@output_options
def export_iqiyi(
    split: str | None,
    gallery: str | None,
    out: Path,
    threshold: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Ranked lists as iQIYI-VID's submission, a line an identity; read back and compared."""
    from vidface.runs import exports, scoring

    run = open_run_from(flags)  # k and enrolment replace keys of the pipeline
    chosen = denoising_from(run, threshold, flags) or scoring.LATEST
    done = exports.export_iqiyi(run, out, chosen, split=split, gallery=gallery, notify=note)
    show(as_json, done.to_dict(), lambda: printable(str(done)))
