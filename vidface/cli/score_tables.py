"""Scores as text for the terminal: one protocol after the other, with 95 % intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vidface.cli.tables import grid, rate, render
from vidface.core.thresholds import threshold_name

if TYPE_CHECKING:
    from vidface.challenges.submissions import SubmissionScore
    from vidface.metrics.clip_retrieval import ClipRetrieval
    from vidface.metrics.identification import Identification
    from vidface.metrics.operating_points import OperatingPoint
    from vidface.metrics.rates import Figure
    from vidface.metrics.retrieval import Retrieval
    from vidface.metrics.uncertainty import Replicates
    from vidface.metrics.verification import Verification
    from vidface.noise.truth import NoiseRemoval
    from vidface.runs.comparison import Comparison
    from vidface.runs.pair_scoring import PairListScore
    from vidface.runs.run import Run
    from vidface.runs.scoring import Score
    from vidface.runs.sweeps import Selected, Sweep
    from vidface.settings.pipeline import Published


def score(done: Score, run: Run) -> str:
    """All protocols, one below the other."""
    counts = done.counts
    states = ", ".join(f"{state} {count}" for state, count in counts["states"].items())
    against = "" if done.gallery is None else f" against {done.gallery}"
    head = (
        f"{run.weights_name} on {run.manifest.path.name}: {done.split}{against}, "
        f"{done.denoising}\n"
        f"{counts['clips']} clips ({states}), {counts['no_descriptor']} without a descriptor; "
        f"{counts['frames']} frames, {counts['faces']} faces, {counts['kept']} kept"
    )
    if done.removal is not None:
        head += f"\nagainst the truth: precision {rate(done.removal.precision)}, "
        head += f"recall {rate(done.removal.recall)} of what was dropped, over all clips"
    if counts["unusable"]:
        head += f"\n{counts['unusable']} embeddings are unusable (NaN or zero)"
    head += "\n" + _acquisition(done)
    parts: list[object] = [head, ""]
    if done.retrieval is not None:
        parts.append(_retrieval(done.retrieval))
    if done.clip_retrieval is not None:
        parts.append(_clip_retrieval(done.clip_retrieval))
    if done.verification is not None:
        parts += verification(done.verification)
    if done.cross_verification is not None:
        parts += ["", f"every {done.gallery} clip with every {done.split} clip"]
        parts += verification(done.cross_verification)
    if done.identification is not None:
        parts += ["", *_identification(done.identification)]
    parts += notes(done)
    published = _published(done, run.pipeline.published)
    return render(*parts, *published)


def _acquisition(done: Score) -> str:
    found = done.to_dict()["failure_to_acquire"]
    text = "failure to acquire: "
    split = found["split"]
    text += f"{split['failed']} of {split['clips']} clips ({(split['rate'] or 0):.2%})"
    if done.gallery_counts["clips"]:
        gallery = found["gallery"]
        text += f", {gallery['failed']} of the gallery's {gallery['clips']}"
    return text


def interval(replicates: Replicates | None) -> str:
    """A figure's 95 % interval; empty where there was no bootstrap."""
    if replicates is None:
        return ""
    ends = replicates.ci95
    mark = "*" if replicates.note else ""
    return "n/a" if ends is None else f"[{ends[0]:.4f}, {ends[1]:.4f}]{mark}"


def _with_interval(value: float | None, replicates: Replicates | None) -> str:
    found = interval(replicates) if value is not None else ""
    return rate(value) + (f" {found}" if found else "")


def _retrieval(found: Retrieval) -> str:
    text = f"mAP@{found.k}  {_with_interval(found.map_at_k, found.replicates)}"
    text += f"  over {found.identities} identities"
    if found.enrolment != "mean":
        text += f", enrolled by {found.enrolment}"
    absent = found.identities_without_gallery
    if absent:
        text += f" ({len(absent)} of them not in the gallery: AP 0)"
    return text


def _clip_retrieval(found: ClipRetrieval) -> str:
    return (
        f"clip to clip, {found.queries} queries\n"
        f"  mAP@{found.k}      {_with_interval(found.map_at_k, found.replicates)}\n"
        f"  by identity  "
        f"{_with_interval(found.map_by_identity, found.replicates_by_identity)}\n"
        f"  first right  {_with_interval(found.precision_at_1, found.replicates_at_1)}"
    )


def verification(found: Verification) -> list[object]:
    """The table of operating points, and EER and AUC."""
    has_interval = any(point.replicates is not None for point in found.points)
    columns = ["FAR", "TAR", *(["95 %"] if has_interval else []), "threshold", "achieved FAR"]
    rows = [_point_row(point, has_interval) for point in found.points]
    parts: list[object] = [grid(columns, rows)]
    figures = []
    if found.eer is not None and found.auc is not None:
        figures = [f"EER {_figure(found.eer)}", f"AUC {_figure(found.auc)}"]
    parts.append("  ".join(figures))
    pairs = f"{found.genuine_pairs} genuine and {found.impostor_pairs} impostor pairs"
    if found.distractor_pairs_left_out:
        pairs += f"; {found.distractor_pairs_left_out} pairs of two distractors left out"
    if found.convention != "step":
        pairs += "\nnearest: TAR at the ROC point whose FAR is nearest, as common scripts read it"
    return [part for part in parts if part != ""] + [pairs]


def _point_row(point: OperatingPoint, has_interval: bool) -> tuple[str, ...]:
    middle = (interval(point.replicates),) if has_interval else ()
    if point.tar is None:
        return point.target_far, point.note, *("" for _ in middle), "", ""
    threshold = "none accepted" if point.threshold is None else f"{point.threshold:.4f}"
    value = rate(point.tar)
    if point.tar_bounds is not None:
        value += f" to {rate(point.tar_bounds[1])}"
    return point.target_far, value, *middle, threshold, f"{point.far:.2e}"


def _figure(found: Figure) -> str:
    text = _with_interval(found.value, found.replicates)
    if found.bounds is not None and rate(found.bounds[0]) != rate(found.bounds[1]):
        text += f" (exact: {rate(found.bounds[0])} to {rate(found.bounds[1])})"
    return text


def _identification(found: Identification) -> list[object]:
    width = max((len(str(point.rank)) for point in found.cmc), default=0)
    ranks = [
        f"  rank {point.rank:<{width}}  {_with_interval(point.value, point.replicates)}"
        for point in found.cmc
    ]
    has_interval = any(point.replicates is not None for point in found.points)
    columns = ["FPIR", "TPIR", *(["95 %"] if has_interval else []), "threshold", "achieved FPIR"]
    rows = []
    for point in found.points:
        middle = (interval(point.replicates),) if has_interval else ()
        if point.tpir is None:
            rows.append((point.target_fpir, point.note, *("" for _ in middle), "", ""))
            continue
        threshold = "none accepted" if point.threshold is None else f"{point.threshold:.4f}"
        rows.append((point.target_fpir, rate(point.tpir), *middle, threshold, f"{point.fpir:.2e}"))
    counts = (
        f"{found.mated} mated and {found.non_mated} non-mated probes "
        f"against {found.gallery_identities} identities"
    )
    return ["identification", *ranks, grid(columns, rows), counts]


def notes(done: Score) -> list[str]:
    """What the stars of the intervals stand for."""
    return _stars([replicates for _, replicates in done.figures().values()])


def _stars(many: Sequence[Replicates | None]) -> list[str]:
    found = {r.note for r in many if r is not None and r.note and r.ci95 is not None}
    lines = [f"* {note}" for note in sorted(found)]
    if any(r is not None and r.ci95 is None for r in many):
        lines.append("n/a in place of an interval: too many resamples have no figure")
    return lines


def _published(done: Score, published: Sequence[Published]) -> list[object]:
    """Published figures beside ours, clearly theirs."""
    if not published:
        return []
    own = done.figures()
    rows = []
    for entry in published:
        mine = rate(own[entry.figure][0]) if entry.figure in own else "n/a"
        rows.append((entry.name, entry.figure, f"{entry.value:g}", mine, entry.source))
    columns = ("published, not measured here", "figure", "theirs", "this run", "source")
    return ["", grid(columns, rows, text=("figure", "source"))]


def side_by_side(before: Score, after: Score) -> list[tuple[str, str, str]]:
    """mAP and TARs of two scores of one split, with their 95 % intervals."""
    rows = []
    if before.retrieval is not None and after.retrieval is not None:
        rows.append(
            (
                f"mAP@{before.retrieval.k}",
                _with_interval(before.retrieval.map_at_k, before.retrieval.replicates),
                _with_interval(after.retrieval.map_at_k, after.retrieval.replicates),
            )
        )
    if before.verification is None or after.verification is None:
        return rows
    for old, new in zip(before.verification.points, after.verification.points, strict=True):
        cells = [
            p.note if p.tar is None else _with_interval(p.tar, p.replicates) for p in (old, new)
        ]
        rows.append((f"TAR@FAR {old.target_far}", cells[0], cells[1]))
    return rows


def sweep(done: Sweep, run: Run) -> str:
    """A row a threshold; the best mAP emphasised, as optimistic as choosing on the split is."""
    first = done.rows[0][0]
    points = first.verification.points if first.verification is not None else ()
    targets = [p.target_far for p in points if p.tar is not None]
    judged = first.removal is not None
    has_map = first.retrieval is not None
    columns = (
        "threshold",
        "dropped",
        *((f"mAP@{first.retrieval.k}",) if first.retrieval is not None else ()),
        *(f"TAR@{t}" for t in targets),
        *(("precision", "recall") if judged else ()),
    )
    rows, maps = [], []
    for scored, summary in done.rows:
        found = scored.verification.points if scored.verification is not None else ()
        tars = {p.target_far: p.tar for p in found}
        mean = scored.retrieval.map_at_k if scored.retrieval is not None else None
        maps.append(mean or 0.0)
        rows.append(
            (
                threshold_name(scored.threshold),
                f"{summary['dropped_share']:.1%}",
                *((rate(mean),) if has_map else ()),
                *(rate(tars[t]) for t in targets),
                *_removal_cells(scored.removal),
            )
        )
    against = "" if first.gallery is None else f" against {first.gallery}"
    head = f"{run.weights_name} on {run.manifest.path.name}: {done.split}{against}"
    head += _unusual(run)
    notes = [f"TAR@{p.target_far} {p.note}" for p in points if p.tar is None]
    table = grid(columns, rows, best=maps.index(max(maps)) if any(maps) else None)
    return render(head, table, *notes)


def selected(done: Selected, run: Run) -> str:
    """A threshold chosen honestly, beside what choosing on the reported clips would claim."""
    found = done.selection
    targets = [tar.target_far for tar in found.honest.tars if tar.tar is not None]
    judged = ("precision", "recall") if done.removals else ()
    columns = ("", "threshold", "mAP@100", *(f"TAR@{t}" for t in targets), *judged)
    rows = []
    for row in found.rows:
        chosen = set(row.thresholds)
        # Folds that chose several thresholds have no one precision: the file has each one's.
        cells = _removal_cells(done.removals.get(next(iter(chosen)))) if len(chosen) == 1 else ()
        cells = cells or tuple("" for _ in judged)
        names = ", ".join(threshold_name(t) for t in dict.fromkeys(row.thresholds))
        tars = {tar.target_far: tar.tar for tar in row.tars}
        figures = (rate(tars[t]) for t in targets)
        rows.append((row.label, names, rate(row.map_at_k), *figures, *cells))
    head = f"{run.weights_name} on {run.manifest.path.name}: {str(found).splitlines()[0]}"
    head += _unusual(run)
    notes = [f"TAR@{t.target_far} {t.note}" for t in found.honest.tars if t.note]
    if found.map_note:
        notes.append(f"mAP {found.map_note}")
    notes.append("optimistic: the threshold that is best on the reported clips themselves")
    return render(head, grid(columns, rows, text=("threshold",)), *notes)


def _unusual(run: Run) -> str:
    """The method and the pooling, where they are not the usual ones."""
    method, pooling = run.pipeline.cluster.method, run.pipeline.descriptor.pooling
    text = "" if method == "union-find" else f"; {method}"
    return text if pooling == "mean" else f"{text}; pooling {pooling}"


def _removal_cells(removal: NoiseRemoval | None) -> tuple[str, ...]:
    """Precision and recall of what was dropped; nothing without a truth."""
    return () if removal is None else (rate(removal.precision), rate(removal.recall))


def comparison(found: Comparison) -> str:
    """Two runs' figures, their difference with its interval, and whether it is real."""
    rows = []
    for name, d in found.differences.items():
        ends = d.ci95
        rows.append(
            (
                name,
                rate(d.a),
                rate(d.b),
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
        f"A: {found.a}\nB: {found.b}\n"
        f"{found.split}{found.against}: {found.clips} clips, {found.identities} identities; "
        f"{found.bootstrap.resamples} resamples of the identities, seed {found.bootstrap.seed}"
    )
    notes = sorted({d.note for d in found.differences.values() if d.note})
    tail = "real: zero lies outside of the 95 % interval of the paired difference"
    return render(head, grid(columns, rows), tail, *(f"* {note}" for note in notes))


def pair_list(found: PairListScore) -> str:
    """Figures of a pair list."""
    head = (
        f"{found.pairs}: {found.pairs_listed} pairs of {found.rows} {found.what}, "
        f"{found.without_descriptor} of them without a descriptor; {found.denoising}"
    )
    v = found.verification
    varied = [point.replicates for point in v.points]
    varied += [figure.replicates for figure in (v.eer, v.auc) if figure is not None]
    stars = _stars(varied)
    if any(replicates is not None for replicates in varied):
        stars = [f"95 % intervals: {found.resampled} are resampled", *stars]
    return render(head, *verification(v), *stars)


def submission(found: SubmissionScore) -> str:
    """A ranked list alone."""
    result = found.score
    text = (
        f"{found.submission} against {found.truth}: mAP@{result.k}  "
        f"{_with_interval(result.map_at_k, found.replicates)}  "
        f"over {result.identities} identities, {len(result.identities_without_list)} without a list"
    )
    if result.unknown_identities:
        named = ", ".join(json.dumps(i, ensure_ascii=False) for i in result.unknown_identities[:5])
        text += f"\n{len(result.unknown_identities)} identities of the list are not in the truth"
        text += f" and do not count: {named}"
    return render(text, *_stars([found.replicates]))
