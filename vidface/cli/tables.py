"""Summaries as text for the terminal: aligned, coloured there, plain where piped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.core.thresholds import threshold_name
from vidface.core.values import printable

if TYPE_CHECKING:
    from vidface.backbones.budget import Budget, BudgetLimits
    from vidface.backbones.catalogue import Description, Exported, Model
    from vidface.backbones.quantize import Quantised
    from vidface.cli.cache_listing import CacheEntry
    from vidface.metrics.operating_points import OperatingPoint
    from vidface.runs.clips import ClipLine, ClipList
    from vidface.runs.denoised import Denoised
    from vidface.runs.embedding import ExtractionSummary
    from vidface.runs.run import Run
    from vidface.runs.scoring import Score
    from vidface.runs.sweeps import Sweep
    from vidface.runs.verify import Verified
    from vidface.training.results import TrainingResult

LISTED_FAILURES = 20
LISTED_CLIPS = 200
WIDTH = 200  # columns; in a narrow terminal a line may wrap, but no figure is ever cut short


def render(*parts: Any) -> str:
    """Rich renderables and texts, printable, as text; escape codes only on a terminal."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(
        width=WIDTH,
        force_terminal=terminal,
        no_color=not terminal or bool(os.environ.get("NO_COLOR")),  # https://no-color.org
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(printable(part) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").splitlines())


def grid(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    best: int | None = None,
    text: Sequence[str] = (),
    styles: Sequence[str | None] = (),
) -> Any:
    """A plain table: the first column and `text` to the left, numbers to the right.

    The row `best` is emphasised; `styles` are the rows' colours. Both are seen on a terminal only.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="left" if number == 0 or column in text else "right", no_wrap=True
        )
    for number, row in enumerate(rows):
        cells = [printable(" ".join(cell.splitlines())) for cell in row]
        own = styles[number] if number < len(styles) else None
        table.add_row(*cells, style="bold green" if number == best else own)
    return table


def extraction(done: ExtractionSummary, run: Run) -> str:
    """States and counts of an extraction, and the clips that failed."""
    states = ", ".join(f"{state} {count}" for state, count in done.states.items())
    lines = [
        f"{done.clips} clips ({states})",
        f"{done.frames} frames, {done.frames_without_face} without a face, {done.faces} faces",
    ]
    for clip_id, state, message in done.failed[:LISTED_FAILURES]:
        lines.append(f"  {state}  {clip_id}: {message}")
    more = len(done.failed) - LISTED_FAILURES
    if more > 0:
        lines.append(f"  and {more} more, in {run.folder.clips_path}")
    lines.append(f"embeddings: {run.folder.folder / 'embeddings'}")
    return "\n".join(lines)


def clustering(done: Denoised, run: Run) -> str:
    """What noise removal did, and which clips are worth a look."""
    s = done.summary()
    lines = [
        f"{done.denoising}: {s['kept']} of {s['faces']} faces kept, "
        f"{s['dropped']} dropped ({s['dropped_share']:.1%})",
        f"{s['clips']} clips, {s['clips_with_several_clusters']} with several clusters, "
        f"{s['no_descriptor']} without a descriptor",
    ]
    if done.removal is not None:
        r = done.removal
        lines.append(
            f"{r.both} of {r.noise} noise faces are among the dropped: "
            f"precision {rate(r.precision)}, recall {rate(r.recall)}"
        )
    found = s.get("diagnostics")
    if found:
        flags = ", ".join(f"{found[flag]} {flag}" for flag in ("chained", "contested", "thin"))
        line = f"worth a look: {flags} (vidface clips --flag contested)"
        if found["lowest_similarity"] is not None:
            line += (
                f"; lowest similarity of two kept faces {found['lowest_similarity']:.2f}, "
                f"median over clips {found['median_lowest_similarity']:.2f}"
            )
        lines.append(line)
    if s["unusable"]:
        more = s["unusable"] - len(done.unusable_rows[:3])
        named = "; ".join(done.unusable_rows[:3]) + (f"; and {more} more" if more else "")
        lines.append(f"{s['unusable']} unusable embeddings (NaN or zero) count as noise: {named}")
    if done.weights_ignored or done.fallen_back:
        lines.append(
            f"{done.weights_ignored} weights are negative or no numbers and count as 0; "
            f"{done.fallen_back} clips without any weight are averaged"
        )
    if done.denoising is not None:
        where = run.folder.clustering(done.denoising.name)
        lines.append(f"descriptors: {where / 'descriptors.parquet'}")
    return "\n".join(lines)


def clips(found: ClipList) -> str:
    """A line a clip."""
    rows = [
        (
            line.clip_id,
            line.identity,
            line.split,
            line.state,
            f"{line.frames}",
            f"{line.faces}",
            *(("",) * 3 if line.kept is None else
              (f"{line.clusters}", f"{line.kept}", f"{line.dropped}")),
            _cosine(line.lowest_similarity),
            "" if line.second_share is None else f"{line.second_share:.0%}",
            _cosine(line.second_cosine),
            ", ".join(line.flags) or _short(line.message),
        )
        for line in found.lines[:LISTED_CLIPS]
    ]  # fmt: skip
    columns = ("clip", "identity", "split", "state", "frames", "faces", "clusters", "kept",
               "dropped", "lowest", "second", "cosine", "")  # fmt: skip
    styles = [_colour_of(line) for line in found.lines[:LISTED_CLIPS]]
    head = f"{len(found.lines)} of {found.of} clips"
    if found.denoising is not None:
        head += f"; {found.denoising}"
    notes = []
    if len(found.lines) > LISTED_CLIPS:
        notes.append(f"and {len(found.lines) - LISTED_CLIPS} more: --json lists all")
    if found.denoising is None:
        notes.append("no clustering yet: vidface cluster")
    notes.append(
        "lowest: similarity of the two least similar kept faces; second: size of the second "
        "cluster against the first; cosine: of their means"
    )
    table = grid(columns, rows, text=("identity", "split", "state", ""), styles=styles)
    return render(head, table, *notes)


def _colour_of(line: ClipLine) -> str | None:
    """Red for a clip that failed, yellow for one to look at."""
    if line.state not in ("ok", "no_face"):
        return "red"
    return "yellow" if line.flags or line.state == "no_face" else None


def _short(message: str, most: int = 48) -> str:
    return message if len(message) <= most else message[: most - 1] + "…"


POINT_COLUMNS = ("FAR", "TAR", "threshold", "achieved FAR")


def point_row(point: OperatingPoint) -> tuple[str, ...]:
    """An operating point under `POINT_COLUMNS`."""
    if point.tar is None:
        return point.target_far, point.note, "", ""
    threshold = "none accepted" if point.threshold is None else f"{point.threshold:.4f}"
    return point.target_far, rate(point.tar), threshold, f"{point.far:.2e}"


def rate(value: float | None) -> str:
    """A fraction with four decimals."""
    return "n/a" if value is None else f"{value:.4f}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def shown(line: ClipLine, out: Path) -> str:
    """A contact sheet that was written."""
    flags = f"; {', '.join(line.flags)}" if line.flags else ""
    return (
        f"{line.clip_id}: {line.kept} of {line.faces} faces kept, "
        f"{line.clusters} cluster(s){flags}\nsheet: {out}"
    )


def demo(
    run: Run,
    extracted: ExtractionSummary,
    denoised: Denoised,
    before: Score,
    after: Score,
    swept: Sweep,
) -> str:
    """The demo's closing tables."""
    summary = denoised.summary()
    no_face = sum(n for state, n in extracted.states.items() if state != "ok")
    counts = (
        ("clips", str(extracted.clips)),
        ("clips without a face", str(no_face)),
        ("frames sampled", str(extracted.frames)),
        ("frames without a face", str(extracted.frames_without_face)),
        ("faces", str(extracted.faces)),
        ("faces dropped as noise", f"{summary['dropped']} ({summary['dropped_share']:.1%})"),
    )
    from vidface.cli import score_tables

    rows = score_tables.side_by_side(before, after)
    name = threshold_name(after.threshold)
    return render(
        grid(("", "demo"), counts),
        grid((f"{after.split} split", "no clustering", f"threshold {name}"), rows),
        "in brackets 95 % intervals; * the clips that are searched are held fixed",
        "",
        score_tables.sweep(swept, run),
        "",
        f"artefacts: {run.folder.folder}",
    )


def cache(folder: Path, entries: Sequence[CacheEntry]) -> str:
    """What lies in the cache."""
    if not entries:
        return f"{folder}: empty"
    rows = [(e.name, f"{e.bytes / 1e6:.1f} MB", e.what, str(e.path)) for e in entries]
    columns = ("name", "size", "what", "path")
    return render(str(folder), grid(columns, rows, text=("what", "path")))


def models(found: Sequence[Model], limits: BudgetLimits) -> str:
    """All recognisers with a name, and what papers print of some."""
    rows = [
        (
            m.name,
            "weights" if m.kind == "weights" else "no weights",
            f"{m.budget.parameters:,}",
            f"{m.budget.mib:.2f}",
            f"{m.budget.flops / 1e6:.1f} M",
            f"{m.budget.macs / 1e6:.1f} M",
            str(m.budget.dimension),
            _FITS[m.fits],
            ", ".join(filter(None, (m.published_flops, m.published_size))),
            "" if m.lfw_accuracy is None else f"{m.lfw_accuracy:.2%}",
            m.licence or "",
            (m.sha256 or "")[:12],
        )
        for m in found
    ]
    columns = ("name", "", "parameters", "MiB", "FLOPs", "MACs", "dim", "fits", "paper says",
               "LFW", "licence", "sha256")  # fmt: skip
    notes = (
        f"fits: within {limits}",
        "FLOPs by the challenge's counter, about two a multiply-add (MAC). Of steps 1 to 4 the "
        "paper does not print the",
        "expansions; by the rule taken here they come out as counted, not as printed "
        "(vidface models show paper-step1).",
        "An architecture without weights can be shown, counted, exported and trained.",
    )
    return render(grid(columns, rows, text=("", "licence", "sha256")), *notes)


_FITS = {True: "yes", False: "no", None: "?"}


def _budget_lines(budget: Budget, limits: BudgetLimits) -> list[str]:
    lines = [
        f"parameters  {budget.parameters:,}",
        f"size        {budget.mib:.2f} MiB",
        f"FLOPs       {budget.flops:,} by the challenge's counter",
        f"MACs        {budget.macs:,}",
        f"dimension   {budget.dimension or 'not known'}",
        f"fits        {_FITS[limits.admit(budget)]} ({limits})",
    ]
    if budget.uncounted:
        lines.append(f"not counted {', '.join(budget.uncounted)}: the figures are lower bounds")
    return lines


def model(found: Description, limits: BudgetLimits) -> str:
    """One recogniser: its cost, what a paper prints, and its table of layers."""
    m = found.model
    lines = [m.name, *_budget_lines(m.budget, limits)]
    if m.published_flops:
        size = f", {m.published_size}" if m.published_size else ""
        lines.append(f"published   {m.published_flops} FLOPs{size}")
    if found.note:
        lines.append(f"note        {found.note}")
    lines += [f"{name:<11} {value}" for name, value in found.facts.items()]
    if m.sha256:
        lines.append(f"sha256      {m.sha256}")
    if m.licence:
        lines.append(f"licence     {m.licence}")
    if m.lfw_accuracy is not None:
        lines.append(f"LFW         {m.lfw_accuracy:.2%}")
    lines.append(f"source      {found.source}")
    if not found.rows:
        return render(*lines)
    table = grid(("Input", "Operator", "t", "c", "n", "s"), [row.cells() for row in found.rows],
                 text=("Operator",))  # fmt: skip
    return render(*lines, "", table)


def counted(name: str, budget: Budget, limits: BudgetLimits) -> str:
    """The cost of a file of weights."""
    return render(name, *_budget_lines(budget, limits))


def exported(done: Exported) -> str:
    """An ONNX file that was written."""
    lines = [
        f"{done.path}: {done.architecture}, {done.bytes / 1e6:.1f} MB, opset {done.opset}, batch "
        "norm folded, batch free",
        f"sha256 {done.sha256}",
    ]
    if done.seed is not None:
        lines.append(f"UNTRAINED: parameters drawn from seed {done.seed}")
    return render(*lines)


def quantised(done: Quantised) -> str:
    """An int8 file that was written, and how far it is off."""
    return render(
        f"{done.path}: int8, {done.bytes / 1e6:.1f} MB, "
        f"calibrated on {done.calibration_images} faces",
        f"sha256 {done.sha256}",
        f"cosine to float32 on {done.images} other faces: mean {done.mean_cosine:.4f}, "
        f"lowest {done.lowest_cosine:.4f}",
        "measure it (vidface verify) before you use it",
    )


def verified(done: Verified) -> str:
    """A recogniser on face pairs."""
    s = done.score
    flip = ", flip test" if done.flip else ""
    head = f"{done.recogniser} on {done.pairs}{flip}"
    lines = [
        head,
        f"{done.images} images, {s.genuine_pairs} genuine and {s.impostor_pairs} impostor pairs",
        "",
        f"accuracy  {s.accuracy:.4f} ± {s.accuracy_standard_error:.4f}  "
        f"({len(s.thresholds)} folds; ± standard error)",
        f"AUC       {s.auc:.5f}",
    ]
    errors = ["" if e is None else rate(e) for e in s.tar_standard_errors]
    rows = [(*point_row(p), e) for p, e in zip(s.points, errors, strict=True)]
    table = grid((*POINT_COLUMNS, "± TAR"), rows)
    failures = [f"  {line}" for line in done.failed[:LISTED_FAILURES]]
    if done.failed:
        failures.insert(0, f"{len(done.failed)} images cannot be used; their pairs score -1:")
    return render(*lines, table, *failures)


def trained(done: TrainingResult) -> str:
    """A row a stage, as the paper's Tables 3 and 4 have them; n/a: not at hand."""
    names = done.verifications
    columns = ("stage", "losses", *names, "loss", "best step", "steps", "faces", "images/s")
    rows = [
        (
            stage.name,
            " + ".join(stage.losses),
            *(_accuracy(stage.accuracies.get(name)) for name in names),
            "n/a" if stage.final_loss is None else f"{stage.final_loss:.4g}",
            str(stage.best_step),
            str(stage.steps),
            f"{stage.faces:,}",
            f"{stage.images_per_second:.1f}",
        )
        for stage in done.stages
    ]
    cut = [
        f"{stage.name}: cut {sum(stage.cut.values()):,} faces ("
        + ", ".join(f"{reason} {count:,}" for reason, count in stage.cut.items())
        + ")"
        for stage in done.stages
        if stage.cut
    ]
    chosen = f"best model of a stage by {done.choose_by}; accuracies in percent"
    return render(grid(columns, rows, text=("losses",)), chosen, *cut, f"model: {done.model}")


def _accuracy(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.3f}"
