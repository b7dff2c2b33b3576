"""The clips that thresholds are chosen and reported on, and folds of their identities."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

from vidface.core.errors import VidfaceError


@dataclass(frozen=True)
class LabelledClips:
    """Some clips in the order of their ids, so that the manifest's order can't change a figure."""

    ids: tuple[str, ...]
    who: tuple[str, ...]  # the identity of each; "" is a distractor

    def keep_identities(self, identities: Iterable[str]) -> LabelledClips:
        """Leave out the clips of all but these identities."""
        wanted = set(identities)
        pairs = zip(self.ids, self.who, strict=True)
        return sort_clips(pair for pair in pairs if pair[1] in wanted)

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """The identities, each once, in string order, without the distractors'."""
        return tuple(sorted(set(self.who) - {""}))

    @cached_property
    def pairs(self) -> tuple[int, int]:
        """Genuine and impostor pairs, as `score_verification` counts them."""
        sizes = Counter(self.who)
        distractors = sizes.pop("", 0)
        genuine = sum(math.comb(size, 2) for size in sizes.values())
        return genuine, math.comb(len(self.who), 2) - math.comb(distractors, 2) - genuine

    def resolves(self, far: Fraction) -> bool:
        """Whether there is a TAR at this FAR."""
        genuine, impostor = self.pairs
        return genuine > 0 and far * impostor >= 1


def sort_clips(clips: Iterable[tuple[str, str]]) -> LabelledClips:
    """Put clips, (clip_id, identity) in any order, into the order of their ids."""
    ordered = sorted(clips)
    return LabelledClips(tuple(i for i, _ in ordered), tuple(who for _, who in ordered))


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
