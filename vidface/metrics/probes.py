"""Probes that are searched in a gallery: the ranks of mated ones, the highest scores of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidface.metrics.enrolment import (
    Templates,
    exact_scores,
    exact_scores_in_block,
    least_that_may_reach,
    rounding_margin,
    template_scores,
)


@dataclass(frozen=True, eq=False)
class Probes:
    """What is known of each clip of the split once it was searched for."""

    is_mated: NDArray[np.bool_]  # (n,)
    units: NDArray[np.int64]  # (n,) what a bootstrap draws: its identity, or itself
    n_identities: int  # the first of the units
    ranks: NDArray[np.int64]  # (n,) of its identity, from 1; 0 without one
    scores: NDArray[np.float32]  # (n,) of its identity, or the highest; NaN without one

    @property
    def n_mated(self) -> int:
        return int(np.count_nonzero(self.is_mated))

    @property
    def n_non_mated(self) -> int:
        return len(self.is_mated) - self.n_mated

    def falling(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The mated probes of rank 1 and the non-mated ones with a score, highest score first."""
        firsts = np.flatnonzero(self.is_mated & (self.ranks == 1))
        others = np.flatnonzero(~self.is_mated & ~np.isnan(self.scores))
        return (
            firsts[np.argsort(-self.scores[firsts], kind="stable")],
            others[np.argsort(-self.scores[others], kind="stable")],
        )


def rank_own_identities(
    templates: Templates,
    own: NDArray[np.int64],
    probes: NDArray[np.float32],
    memory_bytes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rank of each probe's own identity, and its score."""
    scores_of_own = exact_scores(templates, own, np.arange(len(own)), probes)
    ranks = np.ones(len(own), dtype=np.int64)
    d = probes.shape[1]
    low = least_that_may_reach(scores_of_own, d)
    high = scores_of_own + np.float32(rounding_margin(d))
    enrolled = np.flatnonzero(templates.sizes)
    by_own = np.argsort(own, kind="stable")
    for block, scores in template_scores(templates, enrolled, probes, memory_bytes):
        ends = np.searchsorted(own[by_own], [block[0], block[-1] + 1])
        inside = by_own[ends[0] : ends[1]]
        scores[np.searchsorted(block, own[inside]), inside] = -np.inf  # not an *other* identity
        rows, columns = np.nonzero(scores >= low)
        unsure = scores[rows, columns] < high[columns]
        ranks += np.bincount(columns[~unsure], minlength=len(own))
        rows, columns = rows[unsure], columns[unsure]
        exact = exact_scores_in_block(templates, block, rows, columns, probes)
        ranks += np.bincount(columns[exact >= scores_of_own[columns]], minlength=len(own))
    return ranks, scores_of_own


def find_highest_scores(
    templates: Templates, probes: NDArray[np.float32], memory_bytes: int
) -> NDArray[np.float32]:
    """The score of the most similar enrolled identity of each probe."""
    highest = np.full(len(probes), -1, dtype=np.float32)
    so_far = np.full(len(probes), -np.inf, dtype=np.float32)
    enrolled = np.flatnonzero(templates.sizes)
    for block, scores in template_scores(templates, enrolled, probes, memory_bytes):
        np.maximum(so_far, scores.max(axis=0), out=so_far)
        rows, columns = np.nonzero(scores >= least_that_may_reach(so_far, probes.shape[1]))
        exact = exact_scores_in_block(templates, block, rows, columns, probes)
        np.maximum.at(highest, columns, exact)
    return highest
