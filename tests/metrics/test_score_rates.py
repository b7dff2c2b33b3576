"""The rates of one score: against all pairs one by one, and as high as a target's threshold."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_verification as oracles
from tests.budgets import examples
from tests.metrics.test_rates import shrink
from vidface.metrics.score_rates import rate_score
from vidface.metrics.uncertainty import Bootstrap
from vidface.metrics.verification import score_verification

SETS = oracles.tied_sets(max_size=11)
SCORES = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.75, 1.0, 0.51])


@given(
    clips=SETS, score=SCORES, keep=st.sampled_from([1, 3, 2**22]), limit=st.sampled_from([1, 99])
)
@examples(80)
def test_rates_are_counts_of_pairs_at_least_as_high(clips, score, keep, limit) -> None:
    genuine, impostor = oracles.split(oracles.same_set(*clips)[0])
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, keep=keep, limit=limit)
        rates = rate_score(*clips, score)
    if not (genuine and impostor):
        assert rates is None
        return
    right, wrong = oracles.accepted(genuine, impostor, score)
    assert (rates.accepted_genuine, rates.accepted_impostor) == (right, wrong)
    assert (rates.genuine, rates.impostor) == (len(genuine), len(impostor))
    assert rates.tar == float(Fraction(right, len(genuine)))
    assert rates.far == float(Fraction(wrong, len(impostor)))


@given(clips=SETS, score=SCORES, seed=st.integers(0, 1000))
@examples(60)
def test_every_resample_equals_the_naive_twin(clips, score, seed) -> None:
    bootstrap = Bootstrap(6, seed)
    rates = rate_score(*clips, score, bootstrap=bootstrap)
    if rates is None:
        return
    _, n_identities, n_units = oracles.units_of(clips[1])
    for kind, replicates in enumerate((rates.tar_replicates, rates.far_replicates)):
        value = (rates.tar, rates.far)[kind]
        assert (replicates is None) == (value in (0, 1))
        for r in range(6 if replicates is not None else 0):
            weights = bootstrap.weights(r, n_identities, n_units - n_identities)
            scores = oracles.split(oracles.resampled_same_set(*clips, weights))[kind]
            accepted = sum(s >= score for s in scores)
            expected = accepted / len(scores) if scores else np.nan
            assert replicates.values[r] == pytest.approx(expected, nan_ok=True)


def test_a_targets_threshold_has_the_targets_rates() -> None:
    rows, names = oracles.random_clips()
    point = score_verification(rows, names, ["1e-2"], bootstrap=Bootstrap(50)).points[0]
    rates = rate_score(rows, names, point.threshold, bootstrap=Bootstrap(50))
    assert (rates.tar, rates.far) == (point.tar, point.far)
    assert rates.far <= 0.01
    above = rate_score(rows, names, np.nextafter(np.float32(point.threshold), np.float32(2)))
    assert above.accepted_genuine + above.accepted_impostor < (
        rates.accepted_genuine + rates.accepted_impostor
    )


def test_no_pairs_no_rates() -> None:
    one = np.array([[1, 0]], np.float32)
    assert rate_score(np.zeros((0, 2), np.float32), [], 0.5) is None
    assert rate_score(one, ["ann"], 0.5) is None
    assert rate_score(np.repeat(one, 2, axis=0), ["ann", "bob"], 0.5) is None  # no genuine pair
    assert rate_score(np.repeat(one, 2, axis=0), ["ann", "ann"], 0.5) is None  # no impostor pair
