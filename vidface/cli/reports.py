"""The command `report`: one run or several as one HTML file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from vidface.cli.options import OutputFile, StageCommand, note, output_options, show
from vidface.core.values import printable


@click.command(cls=StageCommand)
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option(
    "--out",
    metavar="FILE",
    type=OutputFile(".html"),
    default=Path("report.html"),
    show_default=True,
    help="File to write; - is standard output.",
)
@click.option("--no-faces", is_flag=True, help="Leave every picture out.")
@click.option(
    "--pseudonymise", is_flag=True, help="Show numbers instead of identities, clip ids and paths."
)
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Show paired differences of the first run and each other one.",
)
@click.option(
    "--clips",
    "most_clips",
    type=click.IntRange(0, 2000),
    help="Most clips shown in pictures. [default: 240]",
)
@output_options
def report(
    runs: tuple[str, ...],
    out: Path,
    no_faces: bool,
    pseudonymise: bool,
    compare: bool,
    most_clips: int | None,
    as_json: bool,
) -> None:
    """Show runs in one HTML file: scores, curves, frames, failures, speed.

    RUN is a run directory [default: that of ./vidface.toml]. The file needs no network and no
    server. It contains faces, unless --no-faces says otherwise.

    \b
    Example: vidface report runs/mine
             vidface report runs/before runs/after --out both.html
             vidface report runs/mine --no-faces --pseudonymise
    """
    from vidface.reports.page import MOST_CLIPS, ReportSettings, write_report
    from vidface.runs.opening import choose_folder

    settings = ReportSettings(
        faces=not no_faces,
        pseudonymise=pseudonymise,
        compare=compare,
        most_clips=MOST_CLIPS if most_clips is None else most_clips,
        command=shlex.join(["vidface", *sys.argv[1:]]),
    )
    folders = [choose_folder(run) for run in runs or (None,)]
    made = write_report(folders, out, settings, note)
    show(as_json, made.to_dict(), lambda: printable(str(made)))
