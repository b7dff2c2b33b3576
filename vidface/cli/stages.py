"""The commands of a run's stages: `init`, `extract`, `cluster`, and `run` for all of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidface.cli.options import (
    ERROR,
    PATH,
    StageCommand,
    denoising_to_make,
    executor_options,
    exit_for,
    extract_options,
    noise_options,
    note,
    open_run_from,
    open_whole_run,
    output_options,
    run_flags,
    run_options,
    score_options,
    show,
    split_options,
)
from vidface.cli.progress import extraction_bar, pairs_bar
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.progress import quiet
from vidface.core.values import printable

if TYPE_CHECKING:
    from vidface.runs.preflight import Preflight
    from vidface.runs.whole_run import Watcher


@click.command(cls=StageCommand)
@click.argument("folder", type=PATH)
@click.option(
    "--out",
    type=PATH,
    default=Path("manifest.csv"),
    show_default=True,
    help="The manifest to write.",
)
@click.option("--force", is_flag=True, help="Replace a manifest that is there.")
@click.option(
    "--add",
    is_flag=True,
    help="Write the clips that a manifest does not list yet below its lines, which stay.",
)
@output_options
def init(folder: Path, out: Path, force: bool, add: bool, as_json: bool) -> None:
    """Write a manifest for a FOLDER of clips, to be edited.

    Layouts: person/clip.mp4, person/clip/*.jpg, split/person/clip, or flat files; clips may lie
    deeper in a person's folder. The first clip of a person becomes train (the gallery), the others
    val. What is left out is counted. A vidface.toml beside the manifest makes it what the other
    commands work on.

    \b
    Example: vidface init my_clips
    """
    from vidface.settings.initialise import add_clips, initialise

    if add and force:
        raise click.UsageError("--force replaces the manifest, --add keeps it; give one of them")
    files = add_clips(folder, out) if add else initialise(folder, out, force=force)
    show(as_json, files.to_dict(), lambda: printable(str(files)))


@click.command(
    cls=StageCommand, own=("manifest", "limit", "source", "which", "keep_crops", "weights")
)
@run_options
@extract_options
@click.option(
    "--profile", is_flag=True, help="Print the time in each stage, and which stage is the limit."
)
@output_options
def extract(
    force: bool,
    retry_failed: bool,
    verify: bool,
    strict: bool,
    profile: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Turn clips into embeddings: frames at 8 FPS, aligned faces, a recogniser.

    Killed and started again it goes on where it was. Every clip ends in one state; a failed one
    stays in every denominator (vidface clips --status corrupt lists them).

    \b
    Example: vidface extract runs/mine --retry-failed
    """
    from vidface.cli import run_tables
    from vidface.runs.extraction import extract

    run = open_run_from(flags, check_files=True)
    with extraction_bar(run) as progress:
        summary = extract(
            run,
            force=force,
            retry_failed=retry_failed,
            verify=verify,
            notify=note,
            progress=progress,
        )
    document, text = summary.to_dict(), printable(run_tables.format_extraction(summary, run))
    if profile:
        from vidface.runs.profiles import read_profile

        times = read_profile(run.folder)
        document, text = {**document, "profile": times.to_dict()}, f"{text}\n\n{times}"
    show(as_json, document, lambda: text)
    exit_for(summary.failed, strict=strict)


@click.command(cls=StageCommand, own=("cluster", "descriptor"))
@run_options
@noise_options
@executor_options
@click.option("--threshold", metavar="COSINE", help="Cosine above which two frames are joined.")
@output_options
def cluster(threshold: str | None, as_json: bool, **flags: Any) -> None:
    """Drop noise frames by Union-Find, and pool the faces that are left into a descriptor.

    \b
    Example: vidface cluster runs/mine --threshold 0.4
    """
    from vidface.cli import run_tables
    from vidface.runs import noise_removal

    run = open_run_from(flags)
    denoising = denoising_to_make(run, threshold)
    denoised = noise_removal.cluster(run, denoising, notify=note)
    show(
        as_json, denoised.summary(), lambda: printable(run_tables.format_clustering(denoised, run))
    )


@click.command(cls=StageCommand, name="run", own=("limit", "keep_crops", "weights", "method"))
@click.argument("what", metavar="[WHAT]", required=False)
@run_flags
@noise_options
@split_options
@score_options
@click.option(
    "--threshold",
    metavar="COSINE",
    help="Cosine threshold of the clustering, instead of the pipeline's.",
)
@extract_options
@click.option("--dry-run", is_flag=True, help="Do nothing but what vidface check does.")
@output_options
def run_all(
    what: str | None,
    split: str | None,
    gallery: str | None,
    threshold: str | None,
    force: bool,
    retry_failed: bool,
    verify: bool,
    strict: bool,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Run all stages: extract, cluster, score, report; what is done already is skipped.

    Without WHAT those of ./vidface.toml. WHAT is a folder of clips (manifest.csv and vidface.toml
    are written here first, as `vidface init` does), a run directory, or a pipeline's file or
    recipe.

    \b
    Example: vidface run clips
             vidface run

    Clips that fail stop nothing; exit code 3 says that some did.
    """
    from vidface.cli import run_tables, score_tables
    from vidface.reports.page import ReportSettings, write_run_report
    from vidface.runs.whole_run import Watcher, run_stages

    if what is not None and flags["pipeline"]:
        raise click.UsageError(f"{what} says the settings already; leave --pipeline out")
    run, place = open_whole_run(what, flags, dry=dry_run)
    if dry_run:
        from vidface.runs.preflight import check_run

        preflight = check_run(run, split=split, gallery=gallery, watcher=_watcher())
        _show_preflight(as_json, preflight)
        return
    results = run_stages(
        run,
        denoising_to_make(run, threshold),
        split=split,
        gallery=gallery,
        force=force,
        retry_failed=retry_failed,
        verify=verify,
        watcher=Watcher(
            note,
            extraction_bar,
            pairs_bar,
            on_extracted=lambda done: _echo(as_json, run_tables.format_extraction(done, run)),
            on_clustered=lambda done: _echo(as_json, run_tables.format_clustering(done, run)),
        ),
    )
    report = write_run_report(
        run, ReportSettings(command=shlex.join(["vidface", *sys.argv[1:]])), note
    )
    lines = [
        f"not scored: {results.not_scored}" if results.score is None
        else score_tables.score(results.score, run),
        *([] if report is None else ["", f"report: {printable(str(report))}"]),
        *filter(None, [printable(run_tables.format_next_steps(results, run, place))]),
    ]  # fmt: skip
    document = {**results.to_dict(), "report": report and report.to_dict()}
    show(as_json, document, lambda: "\n".join(lines))
    exit_for(results.extraction.failed, strict=strict)


@click.command(cls=StageCommand)
@run_options
@click.option(
    "--sample",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="Clips that are extracted for a trial, in a temporary folder; 0 for none.",
)
@output_options
def check(sample: int, as_json: bool, **flags: Any) -> None:
    """Look at everything before hours of work: what would stop it, what it will take.

    Manifest, files, pairs and what they can tell, a few clips with their faces, the recogniser,
    time and disk; a line each, marked ok, look or stop. Of a RUN that is extracted already: its
    files against their digests first, then its own clips. Exit code 1 where a line says stop.

    \b
    Example: vidface check               # what ./vidface.toml is about to do
             vidface check --sample 100  # with a better estimate of the time
             vidface check runs/mine     # is every file what was written?
    """
    from vidface.runs.preflight import check_artefacts, check_run
    from vidface.runs.run_folder import RunFolder

    place = flags["place"]
    try:
        run = open_run_from(flags, notify=quiet)
    except VidfaceError as error:
        folder = RunFolder(Path(place or ""))
        is_wrong = isinstance(error, UsageError) and folder.pipeline_path.is_file()
        if not place or is_wrong or not folder.clips_path.is_file():
            raise
        preflight = check_artefacts(folder.folder, str(error))  # whose manifest is gone, say
    else:
        preflight = check_run(run, sample=sample, watcher=_watcher())
    _show_preflight(as_json, preflight)


def _watcher() -> Watcher:
    from vidface.runs.whole_run import Watcher

    return Watcher(note, extraction_bar, pairs_bar)


def _show_preflight(as_json: bool, preflight: Preflight) -> None:
    """Print what a check found; exit code 1 where it would stop the run."""
    show(as_json, preflight.to_dict(), lambda: printable(str(preflight)))
    if preflight.stops:
        raise click.exceptions.Exit(ERROR)


def _echo(as_json: bool, text: str) -> None:
    """Print a stage's result as soon as it is there, where no JSON is wanted."""
    if not as_json:
        click.echo(printable(text))
