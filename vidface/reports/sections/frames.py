"""Contact sheets of the clips that matter, and the hardest pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidface.reports.contents import ReportContents
from vidface.reports.gather import RunData
from vidface.reports.page_data import choose_rows
from vidface.reports.picks import REASONS, Picks
from vidface.reports.pseudonyms import Names

ORDERS = {
    "telling": "most telling first",
    "ap": "average precision, lowest first",
    "lowest": "lowest similarity first",
    "second": "largest second cluster first",
    "kept": "fewest kept first",
    "identity": "identity",
    "clip": "clip",
}


def describe_frames(contents: ReportContents) -> Mapping[str, Any]:
    """The values of the frames' template; the script fills the cards."""
    runs, picks = contents.runs, contents.picks
    reasons = {name for picked in picks for why in picked.reasons.values() for name in why}
    return {
        "any": any(picked.reasons for picked in picks),
        "runs": [run.label for run in runs],
        "faces": contents.settings.faces,
        "left_out": sum(picked.left_out for picked in picks),
        "reasons": [(name, words) for name, words in REASONS.items() if words and name in reasons],
        "orders": ORDERS.items(),
        "pairs": [
            _describe_pairs(number, run, picked, contents.names)
            for number, (run, picked) in enumerate(zip(runs, picks, strict=True))
        ],
    }


def _describe_pairs(
    number: int, run: RunData, picks: Picks, names: Names
) -> list[Mapping[str, Any]]:
    """The hardest impostor and genuine pairs of a run."""
    kinds = (
        ("Hardest impostor pairs", "two people, or so the manifest says", picks.pairs.impostor),
        ("Hardest genuine pairs", "one person, or so the manifest says", picks.pairs.genuine),
    )
    place = {row: at for at, row in enumerate(choose_rows(run, picks))}

    def describe_clip(row: int) -> tuple[str, str]:
        name = names.clip(run.clips.clip_ids[row]) or "(no name)"
        return name, f"{number},{place.get(row, -1)}"

    def describe_person(row: int) -> str:
        return names.identity(run.clips.identities[row]) or "nobody known"

    tables: list[Mapping[str, Any]] = []
    for title, what, pairs in kinds:
        caption = f"{title} of {picks.pairs_of or 'all clips'}: {what}; {run.denoising}"
        if picks.pairs.compared < picks.pairs.of:
            compared, of = picks.pairs.compared, picks.pairs.of
            caption += f"; looked for among {compared:,} of {of:,} clips"
        rows = [
            (f"{pair.score:.4f}", describe_clip(pair.a), describe_person(pair.a),
             describe_clip(pair.b), describe_person(pair.b))
            for pair in pairs
        ]  # fmt: skip
        if rows:
            tables.append({"title": f"{title}, {run.label}", "caption": caption, "rows": rows})
    return tables
