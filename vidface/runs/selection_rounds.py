"""The clips that thresholds are chosen and reported on, and folds of their identities."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from vidface.core.errors import VidfaceError
from vidface.runs.score_tasks import LabelledClips


@dataclass(frozen=True)
class SelectionRound:
    """One choice: on the clips `select`, reported on the clips `report`."""

    select: LabelledClips
    report: LabelledClips
    name: str  # of `select`, for messages


def fold_identities(
    identities: Iterable[str], folds: int = 5, seed: int = 0
) -> tuple[tuple[str, ...], ...]:
    """Cut identities into K folds whose sizes differ by at most one, the larger ones first.

    Sorted, then put in the order of numbers that Python's seeded generator draws for them, then
    cut: the same for any order of clips, and on any machine (`random.Random(seed).random()` is
    what Python promises not to change).

    Args:
        identities: names, in any order; "" (a distractor) and repeats are left out.
        folds: K, from 2 to the number of identities.
        seed: whole number from 0 on.

    Raises:
        VidfaceError: K or a seed out of range.

    >>> fold_identities(["ann", "bob", "cy", "", "ann"], folds=2, seed=0)
    (('cy', 'bob'), ('ann',))
    """
    names = sorted(set(identities) - {""})
    if not _is_whole(folds) or folds < 2:
        raise VidfaceError(
            f"--folds {folds}: it takes a whole number from 2 on, "
            "for a threshold is chosen on the folds beside the reported one"
        )
    if folds > len(names):
        raise VidfaceError(
            f"--folds {folds}: more than the {len(names)} identities to share out; "
            "name fewer folds or another split"
        )
    if not _is_whole(seed) or seed < 0:  # −1 would shuffle as 1 does
        raise VidfaceError(f"--seed {seed}: it takes a whole number from 0 on")
    generator = random.Random(seed)
    drawn = [generator.random() for _ in names]
    shuffled = [name for _, name in sorted(zip(drawn, names, strict=True))]
    size, longer = divmod(len(names), folds)
    starts = [i * size + min(i, longer) for i in range(folds + 1)]
    return tuple(tuple(shuffled[a:b]) for a, b in pairwise(starts))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
