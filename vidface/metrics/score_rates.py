"""The rates of one score: how many pairs of a split, of one person and of two, score as high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.metrics.figures import interval_dict
from vidface.metrics.inputs import identity_codes
from vidface.metrics.pair_sets import make_pairs
from vidface.metrics.passes import MEMORY_BYTES, Passes
from vidface.metrics.rates import Rates, count_for
from vidface.metrics.uncertainty import Bootstrap, Replicates
from vidface.vectors.descriptors import check_descriptors


@dataclass(frozen=True)
class ScoreRates:
    """FAR and TAR where one score is the threshold. Rates are fractions in [0, 1].

    There is no interval of a rate of 0 or 1: people who are drawn again give the same rate, which
    says nothing of how rare the other outcome is.
    """

    score: float
    far: float  # impostor pairs that score at least as high / impostor pairs
    tar: float  # genuine pairs that score at least as high / genuine pairs
    accepted_impostor: int
    impostor: int
    accepted_genuine: int
    genuine: int
    far_replicates: Replicates | None = None
    tar_replicates: Replicates | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "score": self.score,
            "far": {"value": self.far, **interval_dict(self.far_replicates)},
            "tar": {"value": self.tar, **interval_dict(self.tar_replicates)},
            "accepted_impostor": self.accepted_impostor,
            "impostor": self.impostor,
            "accepted_genuine": self.accepted_genuine,
            "genuine": self.genuine,
        }


def rate_score(
    descriptors: NDArray[np.floating[Any]],
    identities: Sequence[str],
    score: float,
    *,
    bootstrap: Bootstrap | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> ScoreRates | None:
    """FAR and TAR of a split at one score, with the pairs and the rule of `score_verification`.

        FAR = |impostor pairs, score ≥ s| / |impostor pairs|, TAR likewise of genuine pairs

    Exact at any number of pairs. The score is held in the resamples. Where so many impostor pairs
    score as high that they aren't listed (of more than four million), FAR has no interval.

    Returns:
        None where there is no genuine, or no impostor pair.

    >>> clips = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], dtype=np.float32)
    >>> rates = rate_score(clips, ["ann", "ann", "bob", ""], 0.6)
    >>> rates.tar, rates.far  # ann–ann 0.8; the others 0, 0.6, 0.6, 0.96 and 0.8
    (1.0, 0.8)
    """
    rows, has_direction = check_descriptors(descriptors)
    codes = identity_codes(identities, len(rows), "identities")
    pairs = make_pairs(rows, has_direction, codes, int(codes.max(initial=-1)) + 1)
    if not (pairs.genuine and pairs.impostor):
        return None
    passes = Passes(pairs, memory_bytes, None, None, None)
    rates = Rates(count_for(passes, {}), pairs, passes)
    genuine, impostor = rates.accepted_at(score)
    far_replicates = tar_replicates = None
    if bootstrap is not None:
        far_replicates, tar_replicates = _resample(rates, genuine, impostor, bootstrap)
    return ScoreRates(
        score,
        impostor / pairs.impostor,
        genuine / pairs.genuine,
        impostor,
        pairs.impostor,
        genuine,
        pairs.genuine,
        far_replicates,
        tar_replicates,
    )


def _resample(
    rates: Rates, genuine: int, impostor: int, bootstrap: Bootstrap
) -> tuple[Replicates | None, Replicates | None]:
    """FAR and TAR in every resample of the people; None where that says nothing, or is not known.

    Args:
        genuine, impostor: how many of the highest pairs are accepted.
    """
    from scipy.sparse import coo_array

    counts, source = rates.counts, rates.source
    n, n_identities = source.n_units, source.n_identities
    # Of the person that was drawn w times a genuine pair counts w times; an impostor pair of two
    # people as often as both were drawn together.
    right = np.bincount(counts.genuine_units[:genuine], minlength=n)
    first, second = counts.impostor_units[:, :impostor]
    wrong = coo_array((np.ones(len(first)), (first, second)), shape=(n, n)).tocsr()
    fars, tars = np.full((2, bootstrap.resamples), np.nan)
    for r in range(bootstrap.resamples):
        weights = bootstrap.weights(r, n_identities, n - n_identities)
        of_genuine, of_impostor = source.totals(weights)
        if of_genuine:
            tars[r] = weights @ right / of_genuine
        if of_impostor:
            fars[r] = weights @ (wrong @ weights) / of_impostor
    tells_far = 0 < impostor < source.impostor and impostor <= len(counts.impostor)
    tells_tar = 0 < genuine < source.genuine and counts.genuine_complete
    return Replicates(fars) if tells_far else None, Replicates(tars) if tells_tar else None
