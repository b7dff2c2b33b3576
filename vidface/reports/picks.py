"""Which clips of a run a report shows in pictures, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from vidface.reports.gather import RunData
from vidface.reports.hard_pairs import HardPairs, hardest_pairs

PAIRS = 12
"""Hardest pairs of each kind that are shown."""

WORST_IDENTITIES = 12
"""Identities of lowest average precision whose clips are shown."""

CLIPS_OF_AN_IDENTITY = 4

REASONS = {
    "impostor": "hardest impostor pair",
    "genuine": "hardest genuine pair",
    "precision": "worst average precision",
    "contested": "contested",
    "chained": "chained",
    "thin": "thin",
    "still": "still",
    "twice": "twice",
    "other": "",
}
"""Why a clip is shown: the key → in words. "other" only where a run is so small that all are."""


@dataclass(frozen=True)
class Picks:
    """The clips that are shown, as rows of the clips, with the reasons; and the hardest pairs."""

    reasons: dict[int, tuple[str, ...]]  # row → keys of REASONS; the most telling clips first
    pairs: HardPairs
    pairs_of: str  # the split whose clips were paired; "" for all
    left_out: int  # clips that had a reason and no room


def pick_clips(run: RunData, most: int) -> Picks:
    """At most `most` clips that are worth a look, a turn for each reason; all if they fit.

    Clips without a face are never among them: there is nothing to see.
    """
    clips = run.clips
    split = run.scores[-1].split if run.scores else ""
    rows = [row for row, name in enumerate(clips.splits) if not split or name == split]
    pairs = HardPairs((), (), 0, 0)
    if clips.descriptors is not None and rows:
        pairs = hardest_pairs(clips.descriptors, clips.identities, PAIRS, among=rows)
    wanted = {
        "impostor": [row for pair in pairs.impostor for row in (pair.a, pair.b)],
        "genuine": [row for pair in pairs.genuine for row in (pair.a, pair.b)],
        "precision": list(_clips_of_worst_identities(run, rows)),
        **{flag: _flagged_rows(run, flag) for flag in clips.flags},
    }
    reasons: dict[int, list[str]] = {}
    for turn in zip_longest(*wanted.values()):
        for name, row in zip(wanted, turn, strict=True):
            if row is not None and clips.faces[row] > 0 and name not in reasons.get(row, ()):
                reasons.setdefault(row, []).append(name)
    with_faces = np.flatnonzero(clips.faces > 0).tolist()
    if len(with_faces) <= most:
        for row in with_faces:
            reasons.setdefault(row, ["other"])
    order = list(REASONS)
    chosen = {
        row: tuple(sorted(names, key=order.index)) for row, names in list(reasons.items())[:most]
    }
    return Picks(chosen, pairs, split, max(0, len(reasons) - most))


def _clips_of_worst_identities(run: RunData, rows: Sequence[int]) -> Iterator[int]:
    """Clips of the people that retrieval finds worst, the worst first; none of the perfect ones."""
    worst = sorted((value, name) for name, value in run.average_precision.items() if value < 1)
    rows_of: dict[str, list[int]] = {name: [] for _, name in worst[:WORST_IDENTITIES] if name}
    for row in rows:
        if (name := run.clips.identities[row]) in rows_of:
            rows_of[name].append(row)
    for clips in rows_of.values():
        yield from clips[:CLIPS_OF_AN_IDENTITY]


def _flagged_rows(run: RunData, flag: str) -> list[int]:
    """The rows that raise a flag, the gravest first."""
    clips = run.clips
    rows = np.flatnonzero(clips.flags[flag])
    gravity = {
        "contested": -clips.cosines["second_share"],
        "chained": clips.cosines["lowest_similarity"],
        "still": -clips.cosines["still_share"],
    }.get(flag, clips.counts["kept"].astype(float))
    return rows[np.argsort(gravity[rows], kind="stable")].tolist()
