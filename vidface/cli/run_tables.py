"""What stages of a run did, as text for the terminal."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidface.cli.text_tables import grid, render, wrap_lines
from vidface.metrics.figures import describe_shortage, format_rate, tabulate_points
from vidface.metrics.pairs import NO_ACCURACY, PairScore
from vidface.noise.diagnostics import FLAGS
from vidface.runs.whole_run import find_unenrolled

if TYPE_CHECKING:
    from vidface.runs.clips import ClipLine, ClipList
    from vidface.runs.denoised import Denoised
    from vidface.runs.embedding import ExtractionSummary
    from vidface.runs.run import Run
    from vidface.runs.verify import Verified
    from vidface.runs.whole_run import WholeRun


LISTED_FAILURES = 20
LISTED_NOTES = 5  # of clips that are ok
LISTED_CLIPS = 200


def format_extraction(summary: ExtractionSummary, run: Run) -> str:
    """States and counts of an extraction, and the clips that failed or show no face."""
    states = ", ".join(f"{state} {count}" for state, count in summary.states.items())
    lines = [
        f"{summary.clips} clips ({states})",
        f"{summary.frames} frames, {summary.frames_without_face} without a face, "
        f"{summary.faces} faces",
    ]
    named = (
        (summary.failed, LISTED_FAILURES),
        (summary.no_face, LISTED_FAILURES),
        (summary.noted, LISTED_NOTES),
    )
    for clips, most in named:
        for clip_id, state, message in clips[:most]:
            lines.append(f"  {state}  {clip_id}: {message}")
        if len(clips) > most:
            lines.append(f"  and {len(clips) - most} more, in {run.folder.clips_path}")
    where = f"embeddings: {run.folder.folder / 'embeddings'}"
    return "\n".join([wrap_lines("\n".join(lines)), where])


def format_clustering(denoised: Denoised, run: Run) -> str:
    """What noise removal did, and which clips are worth a look."""
    s = denoised.summary()
    lines = [
        f"{denoised.denoising}: {s['kept']} of {s['faces']} faces kept, "
        f"{s['dropped']} dropped ({s['dropped_share']:.1%})",
        f"{s['clips']} clips, {s['clips_with_several_clusters']} with several clusters, "
        f"{s['no_descriptor']} without a descriptor",
    ]
    if denoised.removal is not None:
        r = denoised.removal
        lines.append(
            f"{r.both} of {r.noise} noise faces are among the dropped: "
            f"precision {format_rate(r.precision)}, recall {format_rate(r.recall)}"
        )
    diagnostics = s.get("diagnostics")
    if diagnostics:
        flags = ", ".join(f"{diagnostics[flag]} {flag}" for flag in FLAGS)
        line = f"worth a look: {flags} (vidface clips --flag contested)"
        if diagnostics["lowest_similarity"] is not None:
            line += (
                f"; lowest similarity of two kept faces {diagnostics['lowest_similarity']:.2f}, "
                f"median over clips {diagnostics['median_lowest_similarity']:.2f}"
            )
        lines.append(line)
    if s["unusable"]:
        more = s["unusable"] - len(denoised.unusable_rows[:3])
        named = "; ".join(denoised.unusable_rows[:3]) + (f"; and {more} more" if more else "")
        lines.append(f"{s['unusable']} unusable embeddings (NaN or zero) count as noise: {named}")
    if denoised.weights_ignored or denoised.fallen_back:
        lines.append(
            f"{denoised.weights_ignored} weights are negative or no numbers and count as 0; "
            f"{denoised.fallen_back} clips without any weight are averaged"
        )
    if denoised.denoising is not None:
        where = run.folder.clustering(denoised.denoising.name)
        lines.append(f"descriptors: {where / 'descriptors.parquet'}")
    return "\n".join(lines)


def format_next_steps(results: WholeRun, run: Run, place: str | None) -> str:
    """What is worth doing after `vidface run`, a command and what it shows on each line.

    Args:
        place: what later commands name the run by; None where ./vidface.toml says it.
    """
    name = "" if place is None else f" {shlex.quote(place)}"
    denoised = results.denoised
    dropped = denoised.faces - denoised.kept  # (n_clips,) int64
    contested = (denoised.summary().get("diagnostics") or {}).get("contested", 0)
    steps = []
    if results.extraction.failed:
        states = sorted({state for _, state, _ in results.extraction.failed})
        flags = "".join(f" --status {state}" for state in states)
        steps.append((f"vidface clips{name}{flags}", "the clips that failed"))
    if contested:
        steps.append(
            (f"vidface clips{name} --flag contested", f"{contested} that may show two people")
        )
    if run.folder.has_crops and denoised.kept.any():
        clip_id = shlex.quote(
            denoised.clip_ids[int(np.argmax(np.where(denoised.kept, dropped, -1)))]
        )
        flag = f" --run{name}" if name else ""
        steps.append((f"vidface show {clip_id}{flag}", "its faces, dropped ones framed"))
    if results.score is not None:
        steps.append((f"vidface sweep{name}", "the figures at other thresholds"))
    lines = [f"next: {command}   ({what})" for command, what in steps]
    lost = find_unenrolled(run, results)
    gallery = results.score.gallery if results.score is not None else ""
    if lost:
        named = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more people" if lost[3:] else "")
        of_whom = f"{named} {'is' if len(lost) == 1 else 'are'} in the split and not in the gallery"
        lines.insert(
            0,
            f"next: {of_whom}: make another clip `{gallery}` in {run.manifest.path}",
        )
    return "\n".join(lines)


def format_clips(clips: ClipList) -> str:
    """A line a clip."""
    if not clips.lines:
        return f"no clip {clips.sought}({clips.of} clips)"
    rows = [
        (
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
            ", ".join(line.flags),
            line.clip_id,
        )
        for line in clips.lines[:LISTED_CLIPS]
    ]  # fmt: skip
    columns = ("identity", "split", "state", "frames", "faces", "clusters", "kept",
               "dropped", "lowest", "second", "cosine", "flags", "clip")  # fmt: skip
    styles = [_colour_of(line) for line in clips.lines[:LISTED_CLIPS]]
    head = f"{len(clips.lines)} of {clips.of} clips"
    if clips.denoising is not None:
        head += f"; {clips.denoising}"
    shown = clips.lines[:LISTED_CLIPS]
    said = [f"{line.clip_id}: {line.message}" for line in shown if line.message]
    notes = said[:LISTED_FAILURES]
    if len(said) > LISTED_FAILURES:
        notes.append(f"and {len(said) - LISTED_FAILURES} messages more: --json has all")
    if len(clips.lines) > LISTED_CLIPS:
        notes.append(f"and {len(clips.lines) - LISTED_CLIPS} more: --json lists all")
    if clips.denoising is None:
        notes.append("no clustering yet: vidface cluster")
    notes.append(
        "lowest: similarity of the two least similar kept faces; second: size of the second "
        "cluster against the first; cosine: of their means"
    )
    table = grid(
        columns,
        rows,
        text=("split", "state", "flags", "clip"),
        styles=styles,
        spare=("cosine", "dropped", "clusters", "second", "lowest", "frames"),
        whole=("split", "state", "clip"),  # a clip's id is what people copy
    )
    return render(head, table, *notes)


def format_drawn_clip(line: ClipLine, out: Path) -> str:
    """A contact sheet that was written."""
    flags = f"; {', '.join(line.flags)}" if line.flags else ""
    return (
        f"{line.clip_id}: {line.kept} of {line.faces} faces kept, "
        f"{line.clusters} cluster(s){flags}\nsheet: {out}"
    )


def _accuracy(score: PairScore) -> str:
    if score.accuracy is None or score.accuracy_standard_error is None:
        return f"{NO_ACCURACY}; name folds in the list, a column 'fold'"
    folds = f"({len(score.thresholds)} folds; ± standard error)"
    return f"{score.accuracy:.4f} ± {score.accuracy_standard_error:.4f}  {folds}"


def format_verified(result: Verified) -> str:
    """A recogniser on face pairs."""
    score = result.score
    flip = ", flip test" if result.flip else ""
    head = f"{result.recogniser} on {result.pairs}{flip}"
    lines = [
        head,
        f"{result.images} images, {score.genuine_pairs} genuine and "
        f"{score.impostor_pairs} impostor pairs",
        *([result.origin] if result.origin else []),
        "",
        f"accuracy  {_accuracy(score)}",
        f"AUC       {score.auc:.5f}",
    ]
    errors = ["" if e is None else format_rate(e) for e in score.tar_standard_errors]
    pairs = zip(score.points, errors, strict=True)
    errors = [error for point, error in pairs if point.shortage is None]
    points = tabulate_points("TAR", "FAR", score.points)
    rows = [(*row, error) for row, error in zip(points.rows, errors, strict=True)]
    tables = [grid((*points.columns, "± TAR"), rows)] if rows else []
    tables += describe_shortage("FAR", score.points, "impostor pairs")
    failures = [f"  {line}" for line in result.failed[:LISTED_FAILURES]]
    if result.failed:
        failures.insert(0, f"{len(result.failed)} images cannot be used; their pairs score -1:")
    return render(*lines, *tables, *failures)


def _colour_of(line: ClipLine) -> str | None:
    """Red for a clip that failed, yellow for one to look at."""
    if line.state not in ("ok", "no_face"):
        return "red"
    return "yellow" if line.flags or line.state == "no_face" else None


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
