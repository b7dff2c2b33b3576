"""Scores as text for the terminal: one protocol after the other, with 95 % intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vidface.cli.text_tables import grid, render
from vidface.core.thresholds import threshold_name
from vidface.metrics.figures import NamedFigure, TextTable, format_rate, with_interval
from vidface.metrics.settings import ScoreSettings
from vidface.metrics.uncertainty import few_people_note

if TYPE_CHECKING:
    from vidface.challenges.submissions import SubmissionScore
    from vidface.metrics.uncertainty import Replicates
    from vidface.noise.truth import NoiseRemoval
    from vidface.runs.comparison import Comparison
    from vidface.runs.pair_scoring import PairListScore
    from vidface.runs.run import Run
    from vidface.runs.scoring import Score
    from vidface.runs.sweeps import StoredSelection, Sweep
    from vidface.settings.pipeline import Published


def score(scored: Score, run: Run) -> str:
    """All protocols, one below the other."""
    counts = scored.counts
    states = ", ".join(f"{state} {count}" for state, count in counts["states"].items())
    against = "" if scored.gallery is None else f" against {scored.gallery}"
    head = (
        f"{run.weights_name} on {run.manifest.path.name}: {scored.split}{against}, "
        f"{scored.denoising}\n"
        f"{counts['clips']} clips ({states}), {counts['no_descriptor']} without a descriptor; "
        f"{counts['frames']} frames, {counts['faces']} faces, {counts['kept']} kept"
    )
    if scored.removal is not None:
        head += f"\nagainst the truth: precision {format_rate(scored.removal.precision)}, "
        head += f"recall {format_rate(scored.removal.recall)} of what was dropped, over all clips"
    if counts["unusable"]:
        head += f"\n{counts['unusable']} embeddings are unusable (NaN or zero)"
    head += "\n" + _acquisition(scored)
    parts: list[object] = [head, ""]
    for number, result in enumerate(scored.protocols.values()):
        section = result.describe(scored.split, scored.gallery)
        if number and isinstance(section[0], str):  # a table brings a blank line of its own
            parts.append("")
        parts += printed(section)
    parts += notes(scored)
    published = _published(scored, run.pipeline.published)
    return render(*parts, *published)


def _acquisition(scored: Score) -> str:
    acquired = scored.to_dict()["failure_to_acquire"]
    split = acquired["split"]
    text = f"failure to acquire: {split['failed']} of {split['clips']} clips "
    text += f"({(split['rate'] or 0):.2%})"
    if scored.gallery_counts["clips"]:
        gallery = acquired["gallery"]
        text += f", {gallery['failed']} of the gallery's {gallery['clips']}"
    return text


def printed(section: Sequence[str | TextTable]) -> list[Any]:
    """What a result says of itself, ready to be rendered."""
    return [grid(p.columns, p.rows) if isinstance(p, TextTable) else p for p in section]


def notes(scored: Score) -> list[str]:
    """What the stars of the intervals stand for, and whether people are few."""
    few = few_people_note(scored.people)
    return _stars([replicates for _, replicates in scored.figures().values()], few)


def _stars(many: Sequence[Replicates | None], few: str) -> list[str]:
    notes = {r.note for r in many if r is not None and r.note and r.ci95 is not None}
    lines = [f"* {note}" for note in sorted(notes)]
    if any(r is not None and r.ci95 is None for r in many):
        lines.append("n/a in place of an interval: too many resamples have no figure")
    if few and any(r is not None and r.ci95 is not None for r in many):
        lines.append(few)
    return lines


def _published(scored: Score, published: Sequence[Published]) -> list[object]:
    """Published figures beside ours, clearly theirs."""
    if not published:
        return []
    figures = scored.figures()
    rows = []
    for entry in published:
        mine = format_rate(figures[entry.figure][0]) if entry.figure in figures else "n/a"
        rows.append((entry.name, entry.figure, f"{entry.value:g}", mine, entry.source))
    columns = ("published, not measured here", "figure", "theirs", "this run", "source")
    return ["", grid(columns, rows, text=("figure", "source"))]


def side_by_side(before: Score, after: Score) -> list[tuple[str, str, str]]:
    """The main figures of two scores of one split, with their 95 % intervals.

    A figure that neither can resolve is no row: the sweep below says why.
    """
    others = {figure.name: figure for figure in main_figures(after)}
    return [
        (figure.label, figure.text, others[figure.name].text)
        for figure in main_figures(before)
        if figure.name in others and not (figure.note and others[figure.name].note)
    ]


def main_figures(scored: Score) -> list[NamedFigure]:
    """The few figures of a score that a table with little room shows; all where none is main."""
    figures = [figure for result in scored.protocols.values() for figure in result.figures()]
    return [figure for figure in figures if figure.is_main] or figures


def sweep(swept: Sweep, run: Run) -> str:
    """A row a threshold; the best mAP emphasised, as optimistic as choosing on the split is."""
    first = swept.rows[0][0]
    # A figure that the split can't resolve is no column: a line below says why.
    shown = [figure for figure in main_figures(first) if not figure.note]
    unresolved = [figure for figure in main_figures(first) if figure.note]
    judged = first.removal is not None
    columns = (
        "threshold",
        "dropped",
        *(figure.column or figure.label for figure in shown),
        *(("precision", "recall") if judged else ()),
    )
    rows, ranked_by = [], []
    for scored, summary in swept.rows:
        values = {figure.name: figure.value for figure in main_figures(scored)}
        ranked_by += [values[figure.name] or 0.0 for figure in shown if figure.is_headline]
        rows.append(
            (
                threshold_name(scored.threshold),
                f"{summary['dropped_share']:.1%}",
                *(format_rate(values[figure.name]) for figure in shown),
                *_removal_cells(scored.removal),
            )
        )
    against = "" if first.gallery is None else f" against {first.gallery}"
    head = f"{run.weights_name} on {run.manifest.path.name}: {swept.split}{against}"
    head += _unusual(run)
    best = ranked_by.index(max(ranked_by)) if any(ranked_by) else None
    below = [
        f"{figure.column or figure.label} {figure.note}"
        for figure in unresolved
        if "needs ≥" not in figure.note  # one line for all of those
    ]
    for result in first.protocols.values():
        if any(figure.note for figure in result.figures() if figure.is_main):
            below += result.shortages()
    if len(rows) > 2 and all(row[1:] == rows[0][1:] for row in rows):
        what = "; every face of every clip stays" if not swept.rows[0][1]["dropped"] else ""
        below.insert(0, f"no threshold from {rows[1][0]} to {rows[-1][0]} changes anything{what}")
        rows, best = rows[:1], None
    # The loosest targets go first where there is no room for all.
    spare = [figure.column for figure in shown if figure.column and not figure.is_headline]
    return render(head, grid(columns, rows, best=best, spare=spare[:-1]), *below)


def selected(stored: StoredSelection, run: Run) -> str:
    """A threshold chosen honestly, beside what choosing on the reported clips would claim."""
    selection = stored.selection
    targets = [tar.target_far for tar in selection.honest.tars if tar.tar is not None]
    judged = ("precision", "recall") if stored.removals else ()
    columns = (
        "",
        "threshold",
        f"mAP@{selection.honest.k}",
        *(f"TAR@{t}" for t in targets),
        *judged,
    )
    rows = []
    for row in selection.rows:
        chosen = set(row.thresholds)
        # Folds that chose several thresholds have no one precision: the file has each one's.
        cells = _removal_cells(stored.removals.get(next(iter(chosen)))) if len(chosen) == 1 else ()
        cells = cells or tuple("" for _ in judged)
        names = ", ".join(threshold_name(t) for t in dict.fromkeys(row.thresholds))
        tars = {tar.target_far: tar.tar for tar in row.tars}
        figures = (format_rate(tars[t]) for t in targets)
        rows.append((row.label, names, format_rate(row.map_at_k), *figures, *cells))
    head = f"{run.weights_name} on {run.manifest.path.name}: {str(selection).splitlines()[0]}"
    head += _unusual(run)
    notes = _fold_notes([(t.target_far, t.note) for t in selection.honest.tars if t.note])
    if selection.protocol == "folds" and notes and "needs ≥" in notes[-1]:
        notes[-1] += " in a fold"  # the whole split may have enough
    if selection.map_note:
        notes.append(f"mAP {selection.map_note}")
    if selection.criterion_note:
        notes.append(selection.criterion_note)
    optimistic = "optimistic: the threshold that is best on the reported clips themselves"
    if selection.optimistic_far != selection.criterion_far:
        optimistic += f", by TAR@{selection.optimistic_far}, for they resolve no lower FAR"
    notes.append(optimistic)
    return render(head, grid(columns, rows, text=("threshold",)), *notes)


def _fold_notes(noted: Sequence[tuple[str, str]]) -> list[str]:
    """A line a target FAR, but one for all that need more pairs than there are: the loosest's."""
    short = [entry for entry in noted if "needs ≥" in entry[1]]
    lines = [f"TAR@{far} {note}" for far, note in noted if "needs ≥" not in note]
    if short:
        far, note = max(short, key=lambda entry: Fraction(entry[0]))
        lines.append(f"TAR@{far}{' and lower' if len(short) > 1 else ''} {note}")
    return lines


def _unusual(run: Run) -> str:
    """The method, repeats, pooling and how scores are read, where they are not the usual ones."""
    method, pooling = run.pipeline.cluster.method, run.pipeline.descriptor.pooling
    text = "" if method == "union-find" else f"; {method}"
    text += "" if run.pipeline.cluster.repeats == "count" else "; repeats once"
    text += "" if pooling == "mean" else f"; pooling {pooling}"
    read, usual = run.pipeline.score.parameters, ScoreSettings().parameters
    keys = ("enrolment", "convention")  # which no column names
    return text + "".join(f"; {key} {read[key]}" for key in keys if read[key] != usual[key])


def _removal_cells(removal: NoiseRemoval | None) -> tuple[str, ...]:
    """Precision and recall of what was dropped; nothing without a truth."""
    return () if removal is None else (format_rate(removal.precision), format_rate(removal.recall))


def comparison(compared: Comparison) -> str:
    """Two runs' figures, their difference with its interval, and whether it is real."""
    rows = []
    for name, d in compared.differences.items():
        ends = d.ci95
        rows.append(
            (
                name,
                format_rate(d.a),
                format_rate(d.b),
                f"{d.value:+.4f}",
                "n/a"
                if ends is None
                else f"[{ends[0]:+.4f}, {ends[1]:+.4f}]{'*' if d.note else ''}",
                "" if d.p_value is None else f"{d.p_value:.3g}",
                "n/a" if d.real is None else ("yes" if d.real else "no"),
            )
        )
    columns = ("figure", "A", "B", "B - A", "95 %", "p", "real?")
    head = (
        f"A: {compared.a}\nB: {compared.b}\n"
        f"{compared.split}{compared.against}: {compared.clips} clips, "
        f"{compared.identities} identities; {compared.bootstrap.resamples} resamples of the "
        f"identities, seed {compared.bootstrap.seed}"
    )
    notes = sorted({d.note for d in compared.differences.values() if d.note})
    tail = "real: zero lies outside of the 95 % interval of the paired difference"
    few = filter(None, [few_people_note(compared.identities)])
    return render(head, grid(columns, rows), tail, *(f"* {note}" for note in notes), *few)


def pair_list(listed: PairListScore) -> str:
    """Figures of a pair list."""
    head = (
        f"{listed.pairs}: {listed.pairs_listed} pairs of {listed.rows} {listed.what}, "
        f"{listed.without_descriptor} of them without a descriptor; {listed.denoising}"
    )
    v = listed.verification
    varied = [figure.replicates for figure in v.figures()]
    stars = _stars(varied, few_people_note(listed.people, listed.resampled))
    if any(replicates is not None for replicates in varied):
        stars = [f"95 % intervals: {listed.resampled} are resampled", *stars]
    return render(head, *printed(v.describe("", None)), *stars)


def submission(ranked: SubmissionScore) -> str:
    """A ranked list alone."""
    result = ranked.score
    text = (
        f"{ranked.submission} against {ranked.truth}: mAP@{result.k}  "
        f"{with_interval(result.map_at_k, ranked.replicates)}  "
        f"over {result.identities} identities, {len(result.identities_without_list)} without a list"
    )
    if result.unknown_identities:
        named = ", ".join(json.dumps(i, ensure_ascii=False) for i in result.unknown_identities[:5])
        text += f"\n{len(result.unknown_identities)} identities of the list are not in the truth"
        text += f" and do not count: {named}"
    return render(text, *_stars([ranked.replicates], few_people_note(result.identities)))
