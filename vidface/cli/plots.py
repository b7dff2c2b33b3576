"""The command `plot`: one figure for a paper, from the files that scoring wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vidface.cli.options import (
    CommandGroup,
    OutputFile,
    file_option,
    note,
    output_options,
    show,
    together,
)

_runs = click.argument("places", metavar="[RUN|FILE]...", nargs=-1)
_out = file_option(
    "--out",
    required=True,
    type=OutputFile(".svg"),
    help="File to write: .svg, .pdf or .png; - prints an SVG to standard output.",
)
_figure_options = together(
    output_options,
    _out,
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="TEXT",
        help="Name of a run in the legend; once for each. [default: its name]",
    ),
    click.option(
        "--file",
        "part",
        default="",
        metavar="TEXT",
        help="Draw the file of a run whose name holds TEXT. [default: the last]",
    ),
)
_cross = click.option(
    "--cross", is_flag=True, help="Draw cross-verification: gallery clips with the split's."
)


@click.group(cls=CommandGroup)
def plot() -> None:
    """Draw one figure for a paper, as SVG, PDF or PNG.

    It is a column wide (3.3 in), with its fonts embedded.

    \b
    Example: vidface plot roc RUN_A RUN_B --label y1 --label SFace --out roc.pdf
             vidface plot sweep RUN --out sweep.svg
             vidface plot clip CLIP_ID RUN --out clip.png

    RUN is a run directory, or a pipeline; several are drawn in one figure. Without one it is that
    of ./vidface.toml. FILE is a file of its scores/ or sweeps/.
    """


@plot.command()
@_runs
@click.option(
    "--chosen",
    multiple=True,
    metavar="COSINE",
    help="Threshold to mark, once for each run; none for none. [default: the run's]",
)
@click.option(
    "--far", metavar="RATE", help="Target FAR whose TAR is drawn. [default: the lowest in all rows]"
)
@click.option(
    "--published",
    is_flag=True,
    help="Draw the paper's Table 5 (track 3) too, on an axis of its own.",
)
@_figure_options
def sweep(
    places: tuple[str, ...],
    chosen: tuple[str, ...],
    far: str | None,
    published: bool,
    **flags: Any,
) -> None:
    """Draw mAP and TAR against the threshold, and the share of faces dropped.

    \b
    Example: vidface plot sweep runs/mine --out sweep.svg
    """
    from vidface.core.thresholds import parse_threshold
    from vidface.reports.figures.sources import find_chosen_threshold

    folders = [_place(place) for place in places or ("",)]
    if chosen and len(chosen) not in (1, len(folders)):
        raise click.UsageError("--chosen: once, or once for each run")
    if chosen:
        marks = [parse_threshold(text) for text in chosen]
        marks *= len(folders) // len(marks)  # one for all, or one each
    else:
        marks = [find_chosen_threshold(p.parent.parent if p.is_file() else p) for p in folders]
    _plot("sweep", places, "sweeps", flags, chosen=tuple(marks), far=far, published=published)


def _add_curve_command(name: str, crossed: bool, help: str) -> None:
    """A command that draws the curves of scores; `crossed`: with --cross."""

    def draw(places: tuple[str, ...], cross: bool = False, **flags: Any) -> None:
        options = {"protocol": "cross_verification"} if cross else {}
        _plot(name, places, "scores", flags, **options)

    command = _runs(_figure_options(_cross(draw) if crossed else draw))
    text = f"Draw {help}\n\n\b\nExample: vidface plot {name} runs/mine --out {name}.pdf"
    plot.command(name, help=text)(command)


for _name, _crossed, _help in (
    ("roc", True, "TAR against FAR, with 95 % intervals at the target FARs."),
    ("det", True, "false rejects against false accepts, with 95 % intervals."),
    ("pr", False, "precision against recall of retrieval, with 95 % bands."),
    ("cmc", False, "how often the right identity is among the first r, with 95 % bands."),
    ("histogram", True,
     "scores of genuine and impostor pairs, thresholds marked; a panel a run, 4 at most."),
):  # fmt: skip
    _add_curve_command(_name, _crossed, _help)


@plot.command()
@click.argument("clip_id")
@click.argument("place", metavar="[RUN]", default="")
@click.option(
    "--threshold",
    metavar="COSINE",
    help="Cosine threshold of the clustering to draw. [default: the latest]",
)
@_out
@output_options
def clip(clip_id: str, place: str, threshold: str | None, out: Path, as_json: bool) -> None:
    """Draw the faces of CLIP_ID in time order, dropped ones framed, as `vidface show` does.

    Needs a run that was extracted with --keep-crops.

    \b
    Example: vidface plot clip ann.2 runs/mine --out ann.png
    """
    from vidface.core.thresholds import parse_threshold
    from vidface.reports.figures import check_path, write_figure
    from vidface.runs.clusterings import find_latest_denoising
    from vidface.runs.crops import read_clip_faces
    from vidface.runs.denoising import Denoising
    from vidface.runs.run import open_run_folder

    check_path(out)
    run = open_run_folder(_place(place), notify=note)
    denoising = (
        find_latest_denoising(run)
        if threshold is None
        else Denoising.of_run(run).with_threshold(parse_threshold(threshold))
    )
    faces = replace(read_clip_faces(run, clip_id, denoising), captions=None)
    write_figure(out, "clip", [(clip_id, faces)])
    show(as_json, {"out": str(out), "faces": len(faces.crops)}, lambda: f"figure: {out}")


def _place(name: str) -> Path:
    """A run directory or a file of one; any other name is a pipeline's, whose directory it is."""
    from vidface.runs.opening import choose_folder

    path = Path(name)
    return path if path.is_file() and path.suffix == ".json" else choose_folder(name or None)


def _plot(
    name: str,
    places: tuple[str, ...],
    what: str,
    flags: dict[str, Any],
    **options: Any,
) -> None:
    from vidface.reports.figures import check_path, write_figure
    from vidface.reports.figures.sources import find_source, label_sources

    out: Path = flags["out"]
    check_path(out)
    sources = [find_source(_place(place), what, flags["part"]) for place in places or ("",)]
    labels = label_sources(sources, flags["labels"])
    data = [(label, source.document) for label, source in zip(labels, sources, strict=True)]
    write_figure(out, name, data, **options)
    paths = [str(source.path) for source in sources]
    show(
        flags["as_json"],
        {"out": str(out), "drawn_from": paths},
        lambda: "\n".join(["drawn from " + ", ".join(paths), f"figure: {out}"]),
    )
