"""The commands that answer a question of two clips, or of one: `same` and `who`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidface.cli.options import (
    OutputFile,
    StageCommand,
    backbone_from,
    clustering_option,
    denoising_from,
    exit_for,
    fed_options,
    note,
    open_run_from,
    output_options,
    setting_options,
    show,
    split_options,
    together,
)

if TYPE_CHECKING:
    from vidface.runs.run import Run

calibration_options = together(
    click.option("--pipeline", metavar="PATH", help="Pipeline file of the run."),
    setting_options("run", only=("dir",)),
    clustering_option,
)


@click.command(cls=StageCommand, own=("weights",))
@click.argument("a")
@click.argument("b")
@calibration_options
@click.option(
    "--far",
    metavar="RATE",
    help="False accept rate of the decision, such as 1e-3. [default: 1e-2, or 1e-1 where the split "
    "has too few pairs]",
)
@click.option("--split", metavar="NAME", help="Split that calibrates. [default: pipeline's]")
@click.option(
    "--picture",
    metavar="FILE",
    type=OutputFile(".png"),
    help="Write the faces that were compared: a .png, .jpg or .webp file.",
)
@setting_options("backbone", only=("weights",))
@fed_options
@output_options
def same(a: str, b: str, threshold: str | None, as_json: bool, **flags: Any) -> None:
    """Say whether A and B are the same person.

    Both are videos, pictures, folders, URLs, or clip ids of a run.

    With a run the answer is a decision, with the false and true accept rates of that very cosine
    among the run's own people. Without one it is a cosine, and nothing says whether it is high.

    \b
    Example: vidface same ann.mp4 photo.jpg --run runs/mine --picture faces.png
    """
    from vidface.cli import answers
    from vidface.core.thresholds import parse_threshold
    from vidface.runs.same import same as answer_same
    from vidface.runs.scoring import LATEST, ClusteringChoice

    run = _open_calibrated(flags)
    choice: ClusteringChoice = LATEST
    weights: Any = None
    if run is not None:
        choice = denoising_from(run, threshold, flags) or LATEST
    else:
        weights = backbone_from(flags["weights"] or "sface", flags)
        choice = LATEST if threshold is None else parse_threshold(threshold)
    asked = {name: flags[name] for name in ("far", "split", "picture")}
    answer = answer_same(a, b, run, **asked, threshold=choice, weights=weights, notify=note)
    show(as_json, answer.to_dict(), lambda: answers.format_same(answer, flags["picture"]))
    exit_for(answer.failed)


@click.command(cls=StageCommand)
@click.argument("clip")
@calibration_options
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="People that are listed.",
)
@click.option(
    "--fpir",
    metavar="RATE",
    help="How often a stranger may be taken for somebody, such as 1e-2. [default: 1e-2, or 1e-1 "
    "where the split has too few strangers]",
)
@split_options
@output_options
def who(clip: str, threshold: str | None, as_json: bool, **flags: Any) -> None:
    """Say who of a run's gallery is in CLIP, or that it is nobody of them.

    CLIP is a video, a picture, a folder of images, a URL, or a clip id of the run. How high
    strangers score is measured on the run's split: on clips of people outside of the gallery.

    \b
    Example: vidface who unknown.mp4 --run runs/mine
    """
    from vidface.cli import answers
    from vidface.runs.scoring import LATEST
    from vidface.runs.who import who as answer_who

    run = open_run_from(flags)
    choice = denoising_from(run, threshold, flags) or LATEST
    asked = {name: flags[name] for name in ("top", "fpir", "split", "gallery")}
    answer = answer_who(clip, run, **asked, threshold=choice, notify=note)
    show(as_json, answer.to_dict(), lambda: answers.format_who(answer))
    exit_for(answer.failed)


def _open_calibrated(flags: dict[str, Any]) -> Run | None:
    """The run that is named, or that of ./vidface.toml; None without either."""
    from vidface.settings.pipeline import LOCAL_PIPELINE

    named = flags["pipeline"] is not None or flags["run"] is not None
    return open_run_from(flags) if named or Path(LOCAL_PIPELINE).is_file() else None
