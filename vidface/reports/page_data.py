"""The JSON that a report's charts, frames and table of clips are drawn from."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vidface.reports.contents import ReportContents
from vidface.reports.gather import RunData, describe_clip_state, labelled_scores
from vidface.reports.loose_values import mapping, number
from vidface.reports.picks import REASONS, Picks
from vidface.reports.pseudonyms import Names
from vidface.reports.published import TABLE_5, TRACK_3
from vidface.reports.scores import ReportedSweep
from vidface.reports.sprites import SPRITE_COLUMNS, TILE, ShownFaces
from vidface.reports.templating import clean_text

MOST_ROWS = 20_000
"""Clips in the table of a run: of more, those in pictures, the flagged, the failed, then others."""


def page_document(
    contents: ReportContents, faces: Sequence[Sequence[ShownFaces]]
) -> dict[str, Any]:
    """All of it, ready for JSON; texts are cleaned, faces' pictures stand elsewhere.

    Args:
        faces: of each run, those of the clips that are shown.
    """
    runs = contents.runs
    return {
        "tile": TILE,
        "sprite_columns": SPRITE_COLUMNS,
        "reasons": REASONS,
        "runs": [
            _describe_run(run, picks, shown, contents.names)
            for run, picks, shown in zip(runs, contents.picks, faces, strict=True)
        ],
        "curves": [
            {"label": clean_text(label), **_describe_curves(score.curves)}
            for label, _, score in labelled_scores(runs)
        ],
        "sweeps": [_describe_sweep(run, run.sweep) for run in runs if run.sweep is not None],
    }


def choose_rows(run: RunData, picks: Picks) -> list[int]:
    """The rows of the clips that the table has, rising."""
    n = len(run.clips)
    if n <= MOST_ROWS:
        return list(range(n))
    worth = np.zeros(n, bool)
    for flag in run.clips.flags.values():
        worth |= flag
    worth |= np.array(run.clips.states, dtype=object) != "ok"
    order = [*picks.reasons, *np.flatnonzero(worth).tolist(), *range(n)]
    return sorted(list(dict.fromkeys(order))[:MOST_ROWS])


def _describe_run(
    run: RunData, picks: Picks, faces: Iterable[ShownFaces], names: Names
) -> dict[str, Any]:
    rows = choose_rows(run, picks)
    place = {row: at for at, row in enumerate(rows)}  # of a row in the table
    by_row = {shown.row: shown for shown in faces}
    return {
        "label": clean_text(run.label),
        "clips": _describe_clips(run, rows, names),
        "reasons": {place[row]: list(why) for row, why in picks.reasons.items()},
        "faces": [
            _describe_faces(by_row[row], place[row], names)
            for row in picks.reasons
            if row in by_row
        ],
    }


def _describe_clips(run: RunData, rows: Sequence[int], names: Names) -> dict[str, list[Any]]:
    clips = run.clips
    columns: dict[str, list[Any]] = {
        "clip_id": [clean_text(names.clip(clips.clip_ids[row])) for row in rows],
        "identity": [clean_text(names.identity(clips.identities[row])) for row in rows],
        "split": [clean_text(clips.splits[row]) for row in rows],
        "state": [clean_text(clips.states[row]) for row in rows],
        "message": [clean_text(describe_clip_state(run, row, names)) for row in rows],
        "frames": clips.frames[rows].tolist(),
        "faces": clips.faces[rows].tolist(),
        "ap": [_round_cosine(run.average_precision.get(clips.identities[row])) for row in rows],
        "flags": [[flag for flag in clips.flags if clips.flags[flag][row]] for row in rows],
    }
    if clips.counts:
        columns |= {n: clips.counts[n][rows].tolist() for n in ("kept", "dropped", "clusters")}
    for name, cosines in clips.cosines.items():
        columns[name] = [_round_cosine(value) for value in cosines[rows].tolist()]
    return columns


def _round_cosine(value: float | None) -> float | None:
    finite = number(value)
    return None if finite is None else round(finite, 4)


def _describe_faces(shown: ShownFaces, place: int, names: Names) -> dict[str, Any]:
    timed = all(caption.endswith(" s") for caption in shown.captions)
    captions = shown.captions if timed or not names.hidden else [""] * len(shown.captions)
    return {
        "row": place,
        "of": shown.of,
        "captions": [clean_text(caption) for caption in captions],
        "clusters": shown.clusters.tolist(),
        "similarities": [_round_cosine(value) for value in shown.similarities.tolist()],
        "order": shown.order.tolist(),
        "matrix": base64.b64encode(shown.matrix.tobytes()).decode("ascii"),
    }


def _describe_sweep(run: RunData, sweep: ReportedSweep) -> dict[str, Any]:
    rows = [{figure.name: figure.value for figure in row.figures} for row in sweep.rows]
    document: dict[str, Any] = {
        "thresholds": [row.threshold for row in sweep.rows],
        "dropped": [row.dropped_share for row in sweep.rows],
        "figures": [
            {"label": clean_text(label), "values": [row.get(name) for row in rows]}
            for name, label in sweep.figure_labels().items()
        ],
        "references": [],
    }
    chosen = mapping(run.pipeline.get("cluster"))
    if chosen.get("method", "union-find") == "union-find" and "threshold" in chosen:
        document["chosen"] = number(chosen["threshold"])  # None: "none", no clustering
    if run.prepared_by in TRACK_3:
        document["references"] = [
            {"label": curve.label, "thresholds": curve.thresholds, "values": curve.values}
            for curve in TABLE_5
        ]
    return document


def _describe_curves(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the charts draw of a curves document."""
    drawn: dict[str, Any] = {}
    for protocol in ("verification", "cross_verification"):
        if protocol in document:
            curves = document[protocol]
            eer = curves.get("eer") or {}
            drawn[protocol] = {
                "roc": _pick_columns(curves["roc"], ("far", "tar", "frr", "threshold")),
                "histogram": _pick_columns(
                    curves["histogram"],
                    ("edges", "genuine_share", "impostor_share"),
                ),
                "points": [
                    _pick_columns(point, ("target_far", "far", "tar", "threshold", "ci95"))
                    for point in curves["points"]
                ],
                "eer": _pick_columns(eer, ("value", "threshold")),
                "impostor_pairs": curves["pairs"]["impostor"],
                "genuine_pairs": curves["pairs"]["genuine"],
            }
    if "retrieval" in document:
        columns = ("recall", "precision", "low", "high")
        drawn["precision_recall"] = _pick_columns(
            document["retrieval"]["precision_recall"], columns
        )
    if "identification" in document:
        columns = ("rank", "value", "low", "high")
        drawn["cmc"] = _pick_columns(document["identification"]["cmc"], columns)
    return drawn


def _pick_columns(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values.get(name) for name in names}
