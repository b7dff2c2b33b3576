"""The commands that look at single clips: `clips` lists them, `show` draws one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vidface.cli.options import (
    OutputFile,
    StageCommand,
    clustering_option,
    denoising_from,
    noise_options,
    note,
    open_run_from,
    output_options,
    run_flags,
    run_options,
    show,
)
from vidface.core.values import printable


@click.command(cls=StageCommand)
@run_options
@noise_options
@clustering_option
@click.option(
    "--flag",
    "raised",
    multiple=True,
    metavar="NAME",
    help="List clips with this flag: chained, contested, thin, still or twice; may be repeated.",
)
@click.option(
    "--status",
    "states",
    multiple=True,
    metavar="STATE",
    help="List clips in this state, such as corrupt; may be repeated.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="List clips of this split; may be repeated.",
)
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
    chained    two kept faces are less similar than strangers may be
    contested  the second cluster is at least half of the first: two people?
    thin       fewer than 3 faces were kept
    still      one picture fills 30 % of the samples or more, as a pause does
    twice      a frame shows two kept faces: a mirror, or two people as one

    \b
    Example: vidface clips runs/mine --status corrupt
    """
    from vidface.cli import run_tables
    from vidface.runs.clips import list_clips

    run = open_run_from(flags)
    denoising = denoising_from(run, threshold, flags)
    listed = list_clips(run, denoising, flags=raised, states=states, splits=splits)
    show(as_json, listed.to_dict(), lambda: run_tables.format_clips(listed))


@click.command(cls=StageCommand, name="show")
@click.argument("clip_id")
@run_flags
@noise_options
@clustering_option
@click.option(
    "--out",
    metavar="FILE",
    type=OutputFile(".png"),
    default=Path("sheet.png"),
    show_default=True,
    help="The picture to write: a .png, .jpg or .webp file; - prints a PNG to standard output.",
)
@output_options
def show_faces(clip_id: str, threshold: str | None, out: Path, as_json: bool, **flags: Any) -> None:
    """Draw the faces of CLIP_ID in time order, dropped ones framed in red.

    Needs a run that was extracted with --keep-crops.

    \b
    Example: vidface show ann.2 --run runs/mine --out ann.png
    """
    from vidface.cli import run_tables
    from vidface.runs.clips import show_clip

    run = open_run_from(flags)
    line = show_clip(run, clip_id, out, denoising_from(run, threshold, flags))
    document = {"out": str(out), **line.to_dict()}
    show(as_json, document, lambda: printable(run_tables.format_drawn_clip(line, out)))


@click.command(cls=StageCommand)
@click.argument("people", metavar="[PERSON]...", nargs=-1)
@click.option(
    "--clip",
    "clip_ids",
    multiple=True,
    metavar="ID",
    help="Forget this clip, whoever is in it; may be repeated.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@run_flags
@output_options
def forget(
    people: tuple[str, ...],
    clip_ids: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Remove people's clips from every file of a run, for good.

    PERSON is an identity of the manifest. Scores, clusterings and reports of the run go, since they
    mix people, and are made again without them. Later extractions into this run pass over them.

    \b
    Example: vidface forget ann --run runs/mine --dry-run
             vidface forget --clip ann-2 --run runs/mine
    """
    from vidface.runs.forgetting import forget as forget_clips
    from vidface.runs.forgetting import plan_forgetting

    run = open_run_from(flags)
    if not people and not clip_ids:
        raise click.UsageError("name a PERSON of the manifest, or clips by --clip ID")
    plan = plan_forgetting(run, people, clip_ids, note)
    if plan.clips and not dry_run:
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here; add --yes, or --dry-run to look")
        if not yes:
            click.echo(printable(str(plan)), err=True)
            click.confirm("Remove all this for good?", abort=True, err=True)
        plan = forget_clips(run, people, clip_ids)
    done = bool(plan.clips) and not dry_run
    text = f"{plan}\n{'done' if done else 'nothing was changed'}"
    show(as_json, {**plan.to_dict(), "done": done}, lambda: printable(text))
