"""The commands that score: `score`, `sweep` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vidface.cli.options import (
    GroupedOption,
    StageCommand,
    clustering_option,
    denoising_from,
    executor_options,
    file_option,
    noise_options,
    note,
    open_run_from,
    output_options,
    rare_option,
    run_options,
    score_options,
    show,
    split_options,
    sweep_options,
)
from vidface.cli.progress import pairs_bar
from vidface.core.errors import VidfaceError


@click.command(cls=StageCommand, own=("protocols", "fars", "bootstrap"))
@run_options
@noise_options
@executor_options
@split_options
@score_options
@clustering_option
@file_option(
    "--pairs",
    help="Score the pairs of a list, lines `a b same`, instead of a split.",
)
@file_option(
    "--templates",
    cls=GroupedOption,
    rare=True,
    help="Templates of --pairs: lines `template_id media_id path`, as IJB has them.",
)
@rare_option(
    "--order",
    metavar="NAME",
    help="Order of a line of --templates: template-media-path or path-template-media.",
)
@file_option(
    "--submission",
    help="Score a ranked list, lines `id v1.mp4 ...`, alone: no run.",
)
@file_option(
    "--gt",
    help="Ground truth of --submission, train_gt.txt or val_gt.txt.",
)
@output_options
def score(
    split: str | None,
    gallery: str | None,
    threshold: str | None,
    pairs: Path | None,
    templates: Path | None,
    order: str | None,
    submission: Path | None,
    gt: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Score the descriptors of a split: mAP@100, TAR@FAR, CMC, each with a 95 % interval.

    \b
    Example: vidface score --split val
             vidface score --protocols verification --fars 1e-3,1e-4 --exact
             vidface score --pairs pairs.txt
             vidface score --submission result.txt --gt val_gt.txt
    """
    from vidface.cli import score_tables
    from vidface.runs import pair_scoring, scoring

    if (submission is None) != (gt is None):
        raise click.UsageError("--submission and --gt go together")
    if pairs is None and (templates is not None or order is not None):
        raise click.UsageError("--templates and --order go with --pairs")
    flag_values = {
        "split": split,
        "gallery": gallery,
        "threshold": threshold,
        "pairs": pairs,
        **flags,
    }
    if submission is not None:
        _refuse_unused(flag_values, "--submission", keep=("k", "bootstrap", "seed"))
    elif pairs is not None:
        unused = ("split", "gallery", "protocols", "k", "enrolment", "fpirs", "ranks", "exact",
                  "score_device")  # fmt: skip
        _refuse_unused({name: flag_values[name] for name in unused}, "--pairs")
    if submission is not None and gt is not None:
        _score_submission(submission, gt, flags, as_json)
        return
    run = open_run_from(flags)
    chosen = denoising_from(run, threshold, flags) or scoring.LATEST
    if pairs is not None:
        listed = pair_scoring.score_listed_pairs(
            run, pairs, templates=templates, order=order or "auto", threshold=chosen, notify=note
        )
        show(as_json, listed.to_dict(), lambda: score_tables.pair_list(listed))
        return
    with pairs_bar() as progress:
        result = scoring.score(
            run, chosen, split=split, gallery=gallery, notify=note, progress=progress
        )
    show(as_json, result.to_dict(), lambda: score_tables.score(result, run))


@click.command(cls=StageCommand)
@run_options
@noise_options
@executor_options
@split_options
@click.option(
    "--thresholds",
    metavar="LIST",
    default="0:0.7:0.05",
    show_default=True,
    help="START:STOP:STEP (STOP included) or a comma list; the row none is always there.",
)
@click.option("--select-on", metavar="SPLIT", help="Choose the threshold on this split.")
@click.option("--report-on", metavar="SPLIT", help="Report the chosen threshold on this split.")
@click.option(
    "--folds",
    type=int,
    help="Split the identities into folds; choose on all but the one that is reported.",
)
@click.option(
    "--select-by",
    metavar="FIGURE",
    help="Figure that chooses the threshold: map, tar@FAR such as tar@1e-4, or tar at the only or "
    "lowest of --fars. [default: map, or tar where retrieval is not scored]",
)
@click.option("--seed", type=int, help="Seed of the folds. [default: 0]")
@sweep_options
@output_options
def sweep(
    split: str | None,
    gallery: str | None,
    thresholds: str,
    select_on: str | None,
    report_on: str | None,
    folds: int | None,
    select_by: str | None,
    seed: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Score a split at many thresholds: the paper's Table 5, for your model.

    A threshold to publish is chosen on other clips than it is reported on.

    \b
    Example: vidface sweep --thresholds 0:0.7:0.1
             vidface sweep --select-on val --report-on test
             vidface sweep --folds 5
             vidface sweep --folds 5 --select-by tar@1e-4
    """
    from vidface.cli import score_tables
    from vidface.core.thresholds import parse_thresholds
    from vidface.runs import sweeps

    values = parse_thresholds(thresholds)
    honest = select_on is not None or folds is not None
    if not honest and any(given is not None for given in (report_on, select_by, seed)):
        raise click.UsageError("--report-on, --select-by and --seed go with --select-on or --folds")
    if report_on and split:
        raise click.UsageError("--report-on and --split name the same thing; give one of them")
    run = open_run_from(flags)
    if not honest:
        done = sweeps.sweep(run, values, split=split, gallery=gallery, notify=note)
        show(as_json, done.to_dict(), lambda: score_tables.sweep(done, run))
        return
    chosen = sweeps.select(
        run,
        values,
        select_on=select_on,
        report_on=report_on or split,
        gallery=gallery,
        folds=folds,
        select_by=select_by,
        seed=seed or 0,
        notify=note,
    )
    show(as_json, chosen.to_dict(), lambda: score_tables.selected(chosen, run))


@click.command(cls=StageCommand, own=("score",))
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@split_options
@score_options
@clustering_option
@click.option(
    "--threshold-b",
    metavar="COSINE",
    help="Cosine threshold of the clustering of RUN_B. [default: that of RUN_A]",
)
@output_options
def compare(
    run_a: str,
    run_b: str,
    split: str | None,
    gallery: str | None,
    threshold: str | None,
    threshold_b: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Say whether the difference of two runs is real, by a paired bootstrap.

    RUN_A and RUN_B are run directories, or pipelines (a name or a file). Both are scored with the
    same settings, and every resample draws the same people for both. RUN_A may be RUN_B, at two
    thresholds.

    \b
    Example: vidface compare runs/before runs/after
             vidface compare RUN RUN --threshold 0.4 --threshold-b none
    """
    from vidface.cli import score_tables
    from vidface.core.thresholds import parse_threshold
    from vidface.runs import comparison
    from vidface.runs.scoring import LATEST

    opened = [open_run_from({**flags, "place": name}) for name in (run_a, run_b)]
    comparison_result = comparison.compare(
        opened[0],
        opened[1],
        split=split,
        gallery=gallery,
        threshold=LATEST if threshold is None else parse_threshold(threshold),
        threshold_b=comparison.SAME if threshold_b is None else parse_threshold(threshold_b),
        notify=note,
    )
    show(as_json, comparison_result.to_dict(), lambda: score_tables.comparison(comparison_result))


def _score_submission(submission: Path, truth: Path, flags: dict[str, Any], as_json: bool) -> None:
    """Score a ranked list alone, without a run."""
    from vidface.challenges.submissions import score_submission
    from vidface.cli import score_tables
    from vidface.metrics.protocols.retrieval import RetrievalProtocol
    from vidface.metrics.settings import ScoreSettings
    from vidface.runs.score_tasks import make_bootstrap

    names = ("k", "bootstrap", "seed")
    values = {name: flags[name] for name in names if flags[name] is not None}
    try:
        settings = ScoreSettings().replaced(**values)
    except VidfaceError as error:
        raise click.UsageError(str(error).replace("[score] ", "--")) from None
    k = settings.protocol(RetrievalProtocol).k
    ranked = score_submission(submission, truth, k, make_bootstrap(settings))
    show(as_json, ranked.to_dict(), lambda: score_tables.submission(ranked))


def _refuse_unused(flag_values: dict[str, Any], by: str, keep: tuple[str, ...] = ()) -> None:
    """Flags that would do nothing are a mistake, not to be passed over."""
    for name, value in flag_values.items():
        if name not in keep and value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} does nothing with {by}")
