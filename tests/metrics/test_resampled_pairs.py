import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_verification as oracles
from tests.budgets import examples
from vidface.metrics import pairwise, rates, resampled_pairs
from vidface.metrics.resampled_pairs import HELD, IMPOSTORS_HELD
from vidface.metrics.uncertainty import Bootstrap, paired_difference
from vidface.metrics.verification import (
    score_cross_verification,
    score_pair_list,
    score_verification,
)

FARS = ["1", "0.5", "0.3", "1e-1", "0.07"]
SETS = oracles.tied_sets(max_size=11)
SEEDS = st.integers(0, 1000)


def scored(one, other, fars=FARS, **kwargs):
    if other is None:
        return score_verification(*one, fars, **kwargs)
    return score_cross_verification(*one, *other, fars, **kwargs)


def drawn_again(one, other, bootstrap, resample):
    """The pairs of one resample, made of copied clips."""
    sets = [one[1]] if other is None else [one[1], other[1]]
    _, k, n = oracles.units_of(*sets)
    weights = bootstrap.weights(resample, k, n - k).tolist()
    if other is None:
        return oracles.resampled_same_set(one[0].tolist(), one[1], weights)
    return oracles.resampled_two_sets(one[0].tolist(), one[1], other[0].tolist(), other[1], weights)


def replicates_of(result):
    """The columns that there are: TAR at each target, EER, AUC."""
    figures = [*result.points, result.eer, result.auc]
    return [getattr(figure, "replicates", None) for figure in figures]


def check_resamples(result, bootstrap, pairs_of):
    """All replicates of a result against the naive twin's figures."""
    columns = replicates_of(result)
    fars = [Fraction(point.target_far) for point in result.points]
    if not (result.genuine_pairs and result.impostor_pairs):
        assert columns == [None] * len(columns)
        return
    for point, column in zip(result.points, columns, strict=False):
        assert (column is None) == (point.tar is None)
    for r in range(bootstrap.resamples):
        expected = oracles.figures(pairs_of(r), fars)
        for column, value in zip(columns, expected, strict=True):
            if column is not None:
                value = math.nan if value is None else float(value)
                assert column.values[r] == pytest.approx(value, abs=1e-12, nan_ok=True)
    assert {column.note for column in columns if column is not None} == {""}


@given(one=SETS, other=SETS, cross=st.booleans(), seed=SEEDS, block=st.sampled_from([1, 4, 2**12]))
@examples(80)
def test_every_resample_equals_the_naive_twin(one, other, cross, seed, block):
    other = other if cross else None
    bootstrap = Bootstrap(6, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampled_pairs, "_BLOCK", block)
        result = scored(one, other, bootstrap=bootstrap)
    check_resamples(result, bootstrap, lambda r: drawn_again(one, other, bootstrap, r))
    plain = scored(one, other)
    assert [p.tar for p in result.points] == [p.tar for p in plain.points]
    assert [p.threshold for p in result.points] == [p.threshold for p in plain.points]
    if plain.eer is not None:
        assert (result.eer.value, result.auc.value) == (plain.eer.value, plain.auc.value)


@given(data=st.data(), seed=SEEDS, named=st.booleans())
@examples(80)
def test_every_resample_of_a_list_equals_the_naive_twin(data, seed, named):
    rows, names = data.draw(oracles.tied_sets(max_size=8).filter(lambda s: len(s[1])))
    number = st.integers(0, len(names) - 1)
    chosen = st.lists(st.tuples(number, number, st.booleans()), min_size=1, max_size=25)
    first, second, same = zip(*data.draw(chosen), strict=True)
    names = names if named else [""] * len(names)
    bootstrap = Bootstrap(6, seed)
    result = score_pair_list(
        rows, first, second, same, FARS, identities=names if named else None, bootstrap=bootstrap
    )
    (units,), k, n = oracles.units_of(names)
    listed = [
        (oracles.score(rows[i].tolist(), rows[j].tolist()), is_same, units[i], units[j])
        for i, j, is_same in zip(first, second, same, strict=True)
    ]
    check_resamples(
        result,
        bootstrap,
        lambda r: oracles.resampled_list(listed, bootstrap.weights(r, k, n - k).tolist()),
    )


def test_a_larger_split_with_ties_and_missing_descriptors():
    one = oracles.tied_clips(n=70, n_identities=9, seed=4)
    bootstrap = Bootstrap(8, seed=5)
    result = scored(one, None, ["0.5", "1e-1", "1e-2", "1e-3"], bootstrap=bootstrap)
    check_resamples(result, bootstrap, lambda r: drawn_again(one, None, bootstrap, r))
    varied = [len(set(column.values)) > 1 for column in replicates_of(result)]
    assert varied == [True, True, True, False, True, True]  # at 1e-3 none is ever accepted
    other = oracles.tied_clips(n=40, n_identities=13, seed=6)
    result = scored(one, other, ["0.5", "1e-1", "1e-2", "1e-3"], bootstrap=bootstrap)
    check_resamples(result, bootstrap, lambda r: drawn_again(one, other, bootstrap, r))


def test_a_resample_by_eye(monkeypatch):
    # Genuine: ann 0.8, bob 0.6, cy 0. Strangers on other axes: all at 0, but bob–cy once 0.8.
    rows = np.zeros((6, 8), np.float32)
    rows[[0, 1, 1, 2, 3, 3], [0, 0, 1, 2, 2, 3]] = 1, 0.8, 0.6, 1, 0.6, 0.8
    rows[[4, 5], [3, 4]] = 1
    names = ["ann", "ann", "bob", "bob", "cy", "cy"]
    # cy's first clip against bob's second: 0.8, the highest impostor of twelve.
    draws = [[1, 1, 1], [3, 0, 0], [2, 1, 0], [1, 0, 2], [0, 1, 2]]
    monkeypatch.setattr(Bootstrap, "weights", lambda self, r, n, m: np.array(draws[r]))
    result = score_verification(rows, names, ["0.2", "0.1"], bootstrap=Bootstrap(5))
    fifth, tenth = (point.replicates for point in result.points)
    # At 0.1 one of 12 may pass; of ann twice and bob, none of 8 is above 0; of bob and cy twice the
    # impostor counts twice of 8, which at 0.1 (0.8 of one) is a target without a figure.
    nan = math.nan
    assert fifth.values == pytest.approx([2 / 3, nan, 1, 1 / 3, 0], nan_ok=True)
    assert tenth.values == pytest.approx([2 / 3, nan, nan, nan, nan], nan_ok=True)
    # Genuine above 12 strangers: ann 11½, bob 11, cy tied with 11. Copies of ann: no strangers.
    auc = result.auc.replicates.values
    assert auc[0] == pytest.approx((11.5 + 11 + 5.5) / 36)
    assert math.isnan(auc[1])
    assert auc[2] == 1
    assert auc[3] == pytest.approx((8 + 4 + 4) / 24)
    assert result.auc.replicates.ci95 is None


# --- what is held fixed ------------------------------------------------------------------------


def held_twin(one, other, bootstrap, r, threshold):
    """The share of genuine pairs in a resample that a fixed threshold accepts."""
    genuine, _ = oracles.split(drawn_again(one, other, bootstrap, r))
    return oracles.accepted(genuine, [], threshold)[0] / len(genuine) if genuine else math.nan


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("kept", [2**22, 120])
@pytest.mark.parametrize("seed", range(3))
def test_what_lies_deeper_than_the_weighed_pairs_is_held(seed, kept, cross, monkeypatch):
    one = oracles.tied_clips(n=50, n_identities=7, seed=seed)
    other = oracles.tied_clips(n=40, n_identities=7, seed=seed + 50) if cross else None
    monkeypatch.setattr(resampled_pairs, "RESAMPLED_PAIRS", 100)
    for module in (pairwise, rates):
        monkeypatch.setattr(module, "KEEP_AT_LEAST", kept)
    bootstrap = Bootstrap(12, seed=seed)
    fars = ["1", "0.5", "2e-2", "1e-3"]
    result = scored(one, other, fars, bootstrap=bootstrap, exact=True)
    everything = drawn_again_whole(one, other)
    _, impostor = oracles.split(everything)
    *tars, eer, auc = replicates_of(result)
    assert [column.note for column in tars] == [HELD, HELD, "", ""]
    assert (eer.note, auc.note) == (IMPOSTORS_HELD, IMPOSTORS_HELD)
    seen_nan = 0
    for r in range(bootstrap.resamples):
        drawn = drawn_again(one, other, bootstrap, r)
        genuine, strangers = oracles.split(drawn)
        if not (genuine and strangers):
            continue
        for point, column in zip(result.points[:2], tars, strict=False):
            expected = held_twin(one, other, bootstrap, r, point.threshold)
            assert column.values[r] == pytest.approx(expected, abs=1e-12)
        assert tars[0].values[r] == 1  # also those that score −1
        for far, column in zip(("2e-2", "1e-3"), tars[2:], strict=True):
            value = column.values[r]
            expected = oracles.figures(drawn, [Fraction(far)])[0]
            if expected is None:
                assert math.isnan(value)
            elif math.isnan(value):  # deeper than the list
                seen_nan += 1
                assert far == "2e-2"
            else:
                assert value == pytest.approx(expected, abs=1e-12)
        # Scores here are multiples of 1/8, so the histogram has each in a bin of its own.
        assert eer.values[r] == pytest.approx(float(oracles.eer(genuine, impostor)[0]), abs=1e-12)
        assert auc.values[r] == pytest.approx(float(oracles.auc(genuine, impostor)), abs=1e-12)
    assert seen_nan < 4


def drawn_again_whole(one, other):
    if other is None:
        return oracles.same_set(one[0].tolist(), one[1])[0]
    return oracles.two_sets(one[0].tolist(), one[1], other[0].tolist(), other[1])[0]


@pytest.mark.parametrize("named", [False, True])
def test_a_list_whose_impostors_are_held(named, monkeypatch):
    rows, names = oracles.tied_clips(n=40, n_identities=6, seed=8)
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 40, (2, 300))
    same = rng.random(300) < 0.3
    names = names if named else [""] * 40
    monkeypatch.setattr(resampled_pairs, "RESAMPLED_PAIRS", 30)
    bootstrap = Bootstrap(10, seed=1)
    result = score_pair_list(
        rows, first, second, same, ["0.5"], identities=names, bootstrap=bootstrap
    )
    (units,), k, n = oracles.units_of(names)
    listed = [
        (oracles.score(rows[i].tolist(), rows[j].tolist()), is_same, units[i], units[j])
        for i, j, is_same in zip(first, second, same.tolist(), strict=True)
    ]
    impostor = oracles.split(listed)[1]
    tar, eer, auc = replicates_of(result)
    assert (tar.note, eer.note, auc.note) == (HELD, IMPOSTORS_HELD, IMPOSTORS_HELD)
    for r in range(10):
        weights = bootstrap.weights(r, k, n - k).tolist()
        genuine, _ = oracles.split(oracles.resampled_list(listed, weights))
        right, _ = oracles.accepted(genuine, [], result.points[0].threshold)
        assert tar.values[r] == pytest.approx(right / len(genuine), abs=1e-12)
        assert eer.values[r] == pytest.approx(float(oracles.eer(genuine, impostor)[0]), abs=1e-12)
        assert auc.values[r] == pytest.approx(float(oracles.auc(genuine, impostor)), abs=1e-12)


def test_equal_error_among_what_has_no_descriptor(monkeypatch):
    # Two of three of ann's clips have none, so that the crossing is at −1.
    rows = oracles.as_rows([[0.25] * 16, [0.0] * 16, [0.0] * 16, [-0.25] * 16, [0.25] * 16])
    one = rows, ["ann", "ann", "ann", "bob", "cy"]
    monkeypatch.setattr(resampled_pairs, "RESAMPLED_PAIRS", 1)
    bootstrap = Bootstrap(20, seed=0)
    result = scored(one, None, ["1", "0.2"], bootstrap=bootstrap)
    _, impostor = oracles.split(drawn_again_whole(one, None))
    *_, eer, auc = replicates_of(result)
    compared = 0
    for r in range(20):
        genuine, strangers = oracles.split(drawn_again(one, None, bootstrap, r))
        if genuine and strangers:
            compared += 1
            assert eer.values[r] == pytest.approx(float(oracles.eer(genuine, impostor)[0]))
            assert auc.values[r] == pytest.approx(float(oracles.auc(genuine, impostor)))
    assert compared > 5


def test_how_deep_a_target_may_lie_to_be_worked_out_anew(monkeypatch):
    one = oracles.tied_clips(n=50, n_identities=7, seed=0)
    n = scored(one, None).impostor_pairs
    monkeypatch.setattr(resampled_pairs, "RESAMPLED_PAIRS", 60)
    fars = [str(allowed / n + 1e-9) for allowed in (48, 49, 50, 51)]  # 60 / 1.2 = 50
    result = scored(one, None, fars, bootstrap=Bootstrap(2))
    deeper = [p.replicates.note for p in result.points]
    assert deeper[2:] == [HELD, HELD]
    monkeypatch.setattr(resampled_pairs, "RESAMPLED_PAIRS", 600)
    fars = [str(allowed / n + 1e-9) for allowed in (48, 49, 50, 51)]
    result = scored(one, None, fars, bootstrap=Bootstrap(2))
    assert [p.replicates.note for p in result.points] == [""] * 4


def test_one_resample_deeper_than_the_list_holds_the_threshold(monkeypatch):
    one = oracles.tied_clips(n=50, n_identities=7, seed=0)
    n = scored(one, None).impostor_pairs
    monkeypatch.setattr(resampled_pairs, "DEEPER", 0)
    bootstrap = Bootstrap(40)
    notes = set()
    for listed in (40, 60, 200, 900):
        monkeypatch.setattr(resampled_pairs, "RESAMPLED_PAIRS", listed)
        result = scored(one, None, [str(30 / n + 1e-9)], bootstrap=bootstrap)
        (point,) = result.points
        notes.add(point.replicates.note)
        assert not np.isinf(point.replicates.values).any()
        if point.replicates.note == HELD:  # throughout, not where it had to be alone
            for r in range(40):
                expected = held_twin(one, None, bootstrap, r, point.threshold)
                assert point.replicates.values[r] == pytest.approx(expected, abs=1e-12)
    assert notes == {"", HELD}


def test_the_nearest_convention_holds_its_threshold():
    one = oracles.tied_clips(n=50, n_identities=7, seed=1)
    bootstrap = Bootstrap(10, seed=2)
    result = scored(one, None, ["1", "0.5", "1e-1"], convention="nearest", bootstrap=bootstrap)
    for point in result.points:
        assert point.replicates.note == HELD
        assert point.to_dict()["ci95_note"] == HELD
        for r in range(10):
            expected = held_twin(one, None, bootstrap, r, point.threshold)
            assert point.replicates.values[r] == pytest.approx(expected, abs=1e-12)
    assert (result.eer.replicates.note, result.auc.replicates.note) == ("", "")


def test_a_split_whose_genuine_scores_are_not_kept_has_no_interval(monkeypatch):
    monkeypatch.setattr(pairwise, "GENUINE_LIMIT", 0)
    one = oracles.tied_clips(n=30, n_identities=5)
    result = scored(one, None, ["0.5"], bootstrap=Bootstrap(3))
    for replicates in replicates_of(result):
        assert replicates.ci95 is None
        assert "genuine pairs, which are not kept" in replicates.to_dict()["ci95_note"]


def test_intervals_in_json():
    one = oracles.tied_clips(n=60, n_identities=9)
    document = scored(one, None, ["0.5"], bootstrap=Bootstrap(50)).to_dict()
    for figure in (document["tar_at_far"]["0.5"], document["eer"], document["auc"]):
        low, high = figure["ci95"]
        assert 0 <= low < high <= 1
        assert "ci95_note" not in figure


# --- what the intervals are worth ---------------------------------------------------------------


def drawn_list(rng, n_people=50, per_person=3, spread=0.12, noise=0.12):
    """Genuine scores 0.45 + person + noise, and strangers' N(0, 0.15); whose they are."""
    people = np.repeat(np.arange(n_people), per_person)
    effect = rng.normal(0, spread, n_people)
    genuine = 0.45 + effect[people] + rng.normal(0, noise, len(people))
    n = 600
    one = rng.integers(0, n_people, n)
    other = (one + rng.integers(1, n_people, n)) % n_people
    scores = np.clip(np.concatenate([genuine, rng.normal(0, 0.15, n)]), -1, 1)
    second = np.stack([scores, np.sqrt(1 - scores**2)], axis=1)
    rows = np.concatenate([np.tile([[1.0, 0.0]], (len(scores), 1)), second]).astype(np.float32)
    names = [f"p{i:02}" for i in np.concatenate([people, one, people, other])]
    m = len(scores)
    return rows, np.arange(m), np.arange(m, 2 * m), np.arange(m) < len(people), names


@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(11)
    threshold = NormalDist(0, 0.15).inv_cdf(0.95)
    truth = 1 - NormalDist(0.45, math.hypot(0.12, 0.12)).cdf(threshold)
    assert 0.7 < truth < 0.95
    covered = 0
    for draw in range(200):
        rows, first, second, same, names = drawn_list(rng)
        (point,) = score_pair_list(
            rows, first, second, same, ["0.05"], identities=names, bootstrap=Bootstrap(120, draw)
        ).points
        low, high = point.replicates.ci95
        assert high - low < 0.4
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.98


def test_runs_are_compared_on_the_same_people():
    one = oracles.random_clips(n=160, n_identities=25, noise=1.0, seed=3)
    rng = np.random.default_rng(4)
    noisy = one[0] + 0.35 * rng.standard_normal(one[0].shape)
    noisy = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    bootstrap = Bootstrap(200, seed=1)

    def run(rows):
        return scored((rows, one[1]), None, ["1e-2"], bootstrap=bootstrap)

    good, again, bad = run(one[0]), run(one[0]), run(noisy)

    def difference(a, b):
        (p,), (q,) = a.points, b.points
        return paired_difference(p.tar, q.tar, p.replicates, q.replicates)

    same = difference(good, again)
    assert (same.value, same.ci95, same.real, same.p_value) == (0, (0, 0), False, 1)
    better = difference(bad, good)
    assert better.value > 0.1
    assert (better.real, better.p_value) == (True, pytest.approx(2 / 201))
    assert difference(good, bad).ci95 == pytest.approx([-end for end in reversed(better.ci95)])
    # Pairing tells more than the two intervals do.
    (p,), (q,) = bad.points, good.points
    apart = sum(np.ptp(point.replicates.ci95) for point in (p, q))
    assert np.ptp(better.ci95) < 0.8 * apart
