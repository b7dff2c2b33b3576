"""What the commands share: options, the run they work on, and how they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vidface.core.errors import VidfaceError
from vidface.core.values import printable

if TYPE_CHECKING:
    from vidface.runs.denoising import Denoising
    from vidface.runs.run import Run
    from vidface.settings.pipeline import Pipeline

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
    "method": ("cluster", "method"),
    "min_samples": ("cluster", "min_samples"),
    "min_cluster_size": ("cluster", "min_cluster_size"),
    "trim_share": ("cluster", "trim_share"),
    "truth": ("cluster", "truth"),
    "memory": ("cluster", "memory"),
    "pooling": ("descriptor", "pooling"),
    "protocols": ("score", "protocols"),
    "fars": ("score", "fars"),
    "k": ("score", "k"),
    "enrolment": ("score", "enrolment"),
    "convention": ("score", "convention"),
    "exact": ("score", "exact"),
    "bootstrap": ("score", "bootstrap"),
    "seed": ("score", "seed"),
    "fpirs": ("score", "fpirs"),
    "ranks": ("score", "ranks"),
    "score_device": ("score", "device"),
    "run": ("run", "dir"),
    "executor": ("run", "executor"),
    "scheduler": ("run", "scheduler"),
    "workers": ("run", "workers"),
    "shard_clips": ("run", "shard_clips"),
    "stall_timeout": ("run", "stall_timeout_seconds"),
    "clip_timeout": ("run", "clip_timeout_seconds"),
    "clip_memory": ("run", "clip_memory"),
}


def run_options(command: Command) -> Command:
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
        click.option(
            "--source", metavar="KIND", help="detect, aligned (112x112 crops) or features."
        ),
        click.option("--which", metavar="WHICH", help="Faces of a frame: largest or all."),
        click.option("--min-det-score", type=float, help="Lowest detection score, 0 to 1."),
        click.option("--min-face-pixels", type=float, help="Shortest side of a face's box."),
        click.option(
            "--keep-crops/--no-keep-crops", default=None, help="Keep the aligned faces as JPEGs."
        ),
        click.option("--weights", metavar="NAME|FILE", help="Recogniser: a name or a file."),
    )
    return decorated(runtime_options(fed_options(command)), options)


def fed_options(command: Command) -> Command:
    """What a recogniser given as a file is, and is fed."""
    options = (
        click.option(
            "--architecture", metavar="NAME", help="Of a file of bare parameters (vidface models)."
        ),
        click.option("--color", metavar="ORDER", help="rgb or bgr, for weights given as a file."),
        click.option("--mean", type=float, help="Subtracted from pixels (0-255), likewise."),
        click.option("--std", type=float, help="Divides pixels after the mean, likewise."),
    )
    return decorated(command, options)


def runtime_options(command: Command) -> Command:
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
    return decorated(command, options)


def executor_options(command: Command) -> Command:
    """Who does the work."""
    options = (
        click.option(
            "--executor",
            metavar="NAME",
            help="joblib (this machine), dask (a cluster) or serial.",
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Of dask, tcp://...; without it dask starts its workers on this machine.",
        ),
        click.option("--workers", type=int, help="Processes. [default: one a core]"),
    )
    return decorated(command, options)


def extract_options(command: Command) -> Command:
    """What a clip may cost, and who does the work."""
    options = (
        click.option(
            "--stall-timeout",
            type=float,
            metavar="SECONDS",
            help="A clip without a new frame for so long is given up. [default: 60]",
        ),
        click.option(
            "--clip-timeout", type=float, metavar="SECONDS", help="For a whole clip. [default: no]"
        ),
        click.option(
            "--clip-memory", metavar="SIZE", help="That decoding a clip may take. [default: 2GiB]"
        ),
        click.option(
            "--shard-clips", type=int, help="Clips that are written at once. [default: 256]"
        ),
        click.option("--force", is_flag=True, help="Begin again, whatever is there."),
        click.option(
            "--retry-failed", is_flag=True, help="Work once more on the clips that failed."
        ),
        click.option("--strict", is_flag=True, help="A failed clip is an error: exit 1, not 3."),
    )
    return decorated(executor_options(command), options)


def output_options(command: Command) -> Command:
    """`--json` and `--debug`."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
        click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks."),
    )
    return decorated(command, options)


def split_options(command: Command) -> Command:
    """`--split` and `--gallery`."""
    options = (
        click.option("--split", metavar="NAME", help="Split that is scored. [default: pipeline's]"),
        click.option("--gallery", metavar="NAME", help="Split whose identities are enrolled."),
    )
    return decorated(command, options)


def score_options(command: Command) -> Command:
    """What is scored, and how sure it is."""
    options = (
        click.option(
            "--protocols",
            metavar="LIST",
            help="verification, cross-verification, retrieval, clip-retrieval, identification.",
        ),
        click.option("--fars", metavar="LIST", help="Target FARs, such as 1e-3,1e-4."),
        click.option("--fpirs", metavar="LIST", help="Target FPIRs of identification."),
        click.option("--ranks", metavar="LIST", help="Ranks of the CMC. [default: 1,5,10]"),
        click.option("--k", type=int, help="Ranks that count for mAP@k. [default: 100]"),
        click.option("--enrolment", metavar="NAME", help="mean of a person's clips, or max."),
        click.option("--convention", metavar="NAME", help="step, or nearest as common scripts."),
        click.option(
            "--exact/--no-exact", default=None, help="Go over large splits twice: no bounds left."
        ),
        click.option(
            "--bootstrap", type=int, help="Resamples of the people; 0: none. [default: 1000]"
        ),
        click.option("--seed", type=int, help="Of the resamples. [default: 0]"),
        click.option("--score-device", metavar="NAME", help="cpu or cuda, for pairs of clips."),
    )
    return decorated(command, options)


def noise_options(command: Command) -> Command:
    """Which faces are noise, and how the kept ones are pooled."""
    options = (
        click.option(
            "--method",
            metavar="NAME",
            help="union-find, none, dbscan, hdbscan, complete-linkage, trim or oracle.",
        ),
        click.option("--min-samples", type=int, help="Of dbscan: faces that make a core."),
        click.option("--min-cluster-size", type=int, help="Of hdbscan."),
        click.option("--trim-share", type=float, help="Of trim: share dropped, 0 to 1."),
        click.option("--pooling", metavar="NAME", help="mean, det-score, norm, quality or medoid."),
        click.option(
            "--truth",
            metavar="CSV",
            help="Says which frames are noise, for oracle, and for precision and recall.",
        ),
        click.option("--memory", metavar="SIZE", help="For working arrays, such as 2GiB."),
    )
    return decorated(command, options)


def decorated(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def preprocessing_from(color: str | None, mean: float | None, std: float | None) -> Any:
    """What the flags say a recogniser is fed; None where they say nothing."""
    if color is None and mean is None and std is None:
        return None
    from vidface.backbones.preprocessing import Preprocessing

    return Preprocessing(color, mean, std)


def backbone_from(weights: str, flags: dict[str, Any]) -> Any:
    """A recogniser by name or file, with a word where its preprocessing had to be assumed."""
    from vidface.backbones.loading import open_backbone
    from vidface.backbones.settings import BackboneSettings
    from vidface.settings.pipeline import where_said

    keys = {key: name for name, (table, key) in OVERRIDES.items() if table == "backbone"}
    given = {key: flags[name] for key, name in keys.items() if flags.get(name) is not None}
    try:
        settings = BackboneSettings(**{"weights": weights, **given})
    except VidfaceError as error:
        named = {("backbone", key): value for key, value in given.items()}
        raise where_said(str(error), "vidface", named) from None
    return open_backbone(settings, note)


def overrides_from(flags: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """The keys of the pipeline that flags replace."""
    return {OVERRIDES[f]: v for f, v in flags.items() if f in OVERRIDES and v is not None}


def open_run_from(flags: dict[str, Any], *, check_files: bool = False) -> Run:
    from vidface.runs.run import open_run
    from vidface.settings.pipeline import load_pipeline

    pipeline: Pipeline = load_pipeline(flags["pipeline"], overrides_from(flags))
    return open_run(pipeline, note, check_files=check_files)


def denoising_from(run: Run, threshold: str | None, flags: dict[str, Any]) -> Denoising | None:
    """The noise removal that flags name; None where they name none: the clustering made last."""
    from vidface.core.thresholds import parse_threshold
    from vidface.runs.denoising import Denoising

    named = ("method", "min_samples", "min_cluster_size", "trim_share", "pooling")
    if threshold is None and all(flags.get(name) is None for name in named):
        return None
    denoising = Denoising.of(run.pipeline)
    if threshold is None:
        return denoising
    note_unused(run, threshold)
    return denoising.at(parse_threshold(threshold))


def note_unused(run: Run, threshold: str | None) -> None:
    """A word where a threshold is given to a method that has none."""
    from vidface.noise.denoisers import uses_threshold

    method = run.pipeline.cluster.method
    if threshold is not None and not uses_threshold(method):
        note(f"the method '{method}' has no threshold; --threshold {threshold} is not used")


def progress_bar(run: Run) -> Any:
    """A progress bar on standard error; nothing where that is no terminal."""
    from vidface.cli.progress import extraction_progress

    return extraction_progress(len(run.manifest.clips), enabled=sys.stderr.isatty())


def pairs_bar() -> Any:
    """A count of pairs on standard error; nothing where that is no terminal."""
    from vidface.cli.progress import pair_progress

    return pair_progress(enabled=sys.stderr.isatty())


def show(as_json: bool, document: dict[str, Any], text: Callable[[], str]) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        click.echo(text(), color=sys.stdout.isatty())


def note(text: str) -> None:
    click.echo(f"vidface: {printable(text)}", err=True)


def with_lines(text: Callable[[], str], more: object) -> Callable[[], str]:
    """`text`, and below it what `more` prints."""
    return lambda: f"{text()}\n\n{more}"


def exit_for(failed: Sequence[Any], *, strict: bool = False) -> None:
    """End with the code that says that clips failed; with `strict` that of an error."""
    if failed:
        raise click.exceptions.Exit(ERROR if strict else CLIPS_FAILED)
