import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from tests import oracles_verification as oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics import pairwise, rates, resampled_pairs
from vidface.metrics import passes as passes_module
from vidface.metrics.conventions import CONVENTIONS
from vidface.metrics.inputs import identity_codes
from vidface.metrics.operating_points import check_targets
from vidface.metrics.pair_sets import make_pairs
from vidface.metrics.pairwise import PairCounts, count_pairs
from vidface.metrics.passes import Passes
from vidface.metrics.rates import Rates, count_for
from vidface.metrics.roc import BoundedFigure, count_twice_above
from vidface.metrics.uncertainty import Bootstrap
from vidface.metrics.verification import (
    score_cross_verification,
    score_pair_list,
    score_verification,
)
from vidface.vectors.descriptors import check_descriptors

FARS = ["1", "0.9", "0.5", "0.3", "1e-1", "0.07", "1e-2"]
SETS = oracles.tied_sets()
GOLDEN = Path(__file__).parents[1] / "golden" / "bob_measure.json"


def shrink(patch, keep=3, limit=2**26, waiting=4, sample=3, bins=8, exact_far=Fraction(1, 1000)):
    """Let a split of a few clips be one that is too big to keep."""
    for module in (pairwise, rates):
        patch.setattr(module, "KEEP_AT_LEAST", keep)
    patch.setattr(pairwise, "GENUINE_LIMIT", limit)
    patch.setattr(pairwise, "_WAITING", waiting)
    patch.setattr(pairwise, "_SAMPLE", sample)
    patch.setattr(pairwise, "HISTOGRAM_BINS", bins)
    patch.setattr(rates, "EXACT_FAR", exact_far)


def as_tuple(point):
    return point.tar, point.threshold, point.accepted_genuine, point.accepted_impostor


def check_point(point, genuine, impostor, far, convention):
    """A point with a figure against the twin: equal, or within bounds that hold."""
    expected = oracles.CONVENTIONS[convention](genuine, impostor, far)
    assert point.far == point.accepted_impostor / len(impostor)
    assert point.tar == point.accepted_genuine / len(genuine)
    counts = oracles.accepted(genuine, impostor, point.threshold)
    assert counts == (point.accepted_genuine, point.accepted_impostor)
    if point.tar_bounds is None:
        assert as_tuple(point) == expected
    else:
        low, high = point.tar_bounds
        assert low <= expected[0] <= high
        assert (point.tar, convention) == (low, "step")
        assert Fraction(point.accepted_impostor, point.impostor) <= far  # exactly: 0.1 > 1/10


def check_figures(result, genuine, impostor, fars, convention="step"):
    assert (result.genuine_pairs, result.impostor_pairs) == (len(genuine), len(impostor))
    assert [p.target_far for p in result.points] == list(fars)
    for point, text in zip(result.points, fars, strict=True):
        far = Fraction(text)
        if not genuine or far * len(impostor) < 1:
            assert as_tuple(point) == (None,) * 4
            assert point.far is None
            needs = -(-far.denominator // far.numerator)
            assert point.needs_impostor_pairs == (needs if len(impostor) < needs else None)
        else:
            check_point(point, genuine, impostor, far, convention)
    if not genuine or not impostor:
        assert (result.eer, result.auc, result.curve) == (None, None, None)
        return
    eer, threshold = oracles.eer(genuine, impostor)
    if result.eer.bounds is None:
        assert result.eer.value == pytest.approx(float(eer), abs=1e-12)
        assert result.eer.threshold == threshold
    else:
        low, high = result.eer.bounds
        assert low - 1e-12 <= eer <= high + 1e-12
        assert low <= result.eer.value <= high
        right, wrong = oracles.accepted(genuine, impostor, result.eer.threshold)
        value = (wrong / len(impostor) + 1 - right / len(genuine)) / 2
        assert result.eer.value == pytest.approx(value, abs=1e-12)
    auc = oracles.auc(genuine, impostor)
    if result.auc.bounds is None:
        assert result.auc.value == pytest.approx(float(auc), abs=1e-12)
    else:
        low, high = result.auc.bounds
        assert low - 1e-12 <= auc <= high + 1e-12
        assert result.auc.value == pytest.approx((low + high) / 2, abs=1e-12)
    check_curve(result.curve, genuine, impostor)


def check_curve(curve, genuine, impostor):
    assert (np.diff(curve.thresholds) < 0).all()
    for threshold, right, wrong in zip(
        curve.thresholds, curve.accepted_genuine, curve.accepted_impostor, strict=True
    ):
        assert (right, wrong) == oracles.accepted(genuine, impostor, threshold)
    assert (curve.tar[-1], curve.far[-1]) == (1, 1)
    steps = np.stack([curve.accepted_genuine, curve.accepted_impostor])
    assert np.diff(steps, prepend=0).any(axis=0).all()  # no point twice


def is_exact(result):
    return (
        all(point.tar_bounds is None for point in result.points)
        and (result.eer is None or result.eer.bounds is None)
        and (result.auc is None or result.auc.bounds is None)
    )


def run(one, other, fars, **kwargs):
    """The result, and the genuine and impostor scores."""
    if other is None:
        pairs, _ = oracles.same_set(one[0].tolist(), one[1])
        result = score_verification(*one, fars, **kwargs)
    else:
        pairs, _ = oracles.two_sets(one[0].tolist(), one[1], other[0].tolist(), other[1])
        result = score_cross_verification(*one, *other, fars, **kwargs)
    return result, *oracles.split(pairs)


@pytest.mark.parametrize("convention", list(CONVENTIONS))
@given(one=SETS, other=SETS, cross=st.booleans(), device=st.sampled_from([None, None, "cpu"]))
@examples(80)
def test_every_figure_equals_the_naive_twin(convention, one, other, cross, device):
    result, genuine, impostor = run(
        one, other if cross else None, FARS, convention=convention, device=device
    )
    check_figures(result, genuine, impostor, FARS, convention)
    assert is_exact(result)
    if result.curve is not None:  # all thresholds there are
        assert len(result.curve.thresholds) == len({*genuine, *impostor})


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("convention", list(CONVENTIONS))
@given(
    one=SETS,
    other=SETS,
    cross=st.booleans(),
    keep=st.integers(1, 6),
    limit=st.sampled_from([0, 2**26]),
    bins=st.sampled_from([2, 8, 2**16]),
    sample=st.sampled_from([2, 2048]),
    exact_far=st.sampled_from(["1e-3", "0.3", "1"]),
)
@examples(80)
def test_a_split_too_big_to_keep(
    convention, exact, one, other, cross, keep, limit, bins, sample, exact_far
):
    other = other if cross else None
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, keep, limit, bins=bins, sample=sample, exact_far=Fraction(exact_far))
        result, genuine, impostor = run(one, other, FARS, convention=convention, exact=exact)
        check_figures(result, genuine, impostor, FARS, convention)
    for point in result.points:
        if exact or convention == "nearest" or Fraction(point.target_far) <= Fraction(exact_far):
            assert point.tar_bounds is None
    if exact and limit:
        assert is_exact(result)
        whole, _, _ = run(one, other, FARS, convention=convention)
        assert whole.points == result.points
        assert whole.eer == result.eer
        if whole.auc:
            assert whole.auc.value == pytest.approx(result.auc.value, abs=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "device"), [(0, None), (1, None), (2, None), (0, "cpu")])
def test_a_larger_split_too_big_to_keep(seed, device, monkeypatch):
    one = oracles.tied_clips(n=120, n_identities=15, seed=seed)
    fars = ["0.5", "0.2", "1e-1", "3e-2", "1e-2", "2e-3", "1e-3"]
    whole = {c: score_verification(*one, fars, convention=c) for c in CONVENTIONS}
    shrink(monkeypatch, keep=30, waiting=50, sample=40, bins=64)
    for convention in CONVENTIONS:
        for limit in (0, 2**26):
            monkeypatch.setattr(pairwise, "GENUINE_LIMIT", limit)
            for exact in (False, True):
                result, genuine, impostor = run(
                    one, None, fars, convention=convention, exact=exact, device=device,
                    memory_bytes=48 * passes_module.available_cores() * 17**2,
                )  # fmt: skip
                check_figures(result, genuine, impostor, fars, convention)
                assert result.points[-1] == whole[convention].points[-1]
                if exact:
                    assert result.points == whole[convention].points
                    assert result.eer == whole[convention].eer
                    assert is_exact(result) == bool(limit)
                elif convention == "step":
                    assert any(point.tar_bounds for point in result.points)
                    assert result.eer.bounds
                    assert result.auc.bounds


def rates_of(one, exact=False, **kwargs):
    rows, directed = check_descriptors(one[0])
    codes = identity_codes(one[1], len(rows), "identities")
    pairs = make_pairs(rows, directed, codes, int(codes.max(initial=-1)) + 1)
    passes = Passes(pairs, **kwargs)
    return passes, lambda counts: Rates(counts, pairs, passes, exact)


def test_parts_that_are_merged_give_the_figures_of_the_whole(monkeypatch):
    one = oracles.tied_clips(n=80, n_identities=9, seed=1)
    passes, make = rates_of(one, memory_bytes=48 * passes_module.available_cores() * 81)
    targets = check_targets(["0.5", "0.1", "1e-2"])
    for bins in ([2**16] * 4, [2**16, 2**13, 2**16, 2**13]):
        parts = [count_pairs(passes, 10**6, bins=b, part=(i, 4)) for i, b in enumerate(bins)]
        a, b, c, d = parts
        joined = PairCounts.joined
        whole = make(count_pairs(passes, 10**6))
        for merged in (
            joined([joined([joined([a, b]), c]), d]),
            joined([d, joined([c, joined([b, a])])]),
            joined([joined([c, a]), joined([d, b])]),
        ):
            found = make(merged)
            for convention in CONVENTIONS:
                assert found.points(targets, convention) == whole.points(targets, convention)
            assert found.eer() == whole.eer()
            assert found.auc() == whole.auc()


def test_a_floor_that_was_guessed_too_high_costs_another_pass(monkeypatch):
    one = oracles.tied_clips(n=120, n_identities=15, seed=0)
    passes, make = rates_of(one)
    whole = make(count_pairs(passes, 10**6))
    shrink(monkeypatch, keep=40, bins=2**16, waiting=2**20)
    honest, guesses, counted = rates.guess_floor, [], []

    def too_high(passes, keep, margin):
        guesses.append(margin)
        return 0.95 if len(guesses) < 3 else honest(passes, keep, margin)

    def count(*args, **kwargs):
        counted.append(count_pairs(*args, **kwargs))
        return counted[-1]

    monkeypatch.setattr(rates, "guess_floor", too_high)
    monkeypatch.setattr(rates, "count_pairs", count)
    targets = check_targets(["1e-2", "1e-3"])
    counts = count_for(passes, targets)
    assert guesses == [1.5, 12, 96]
    assert len(counted) == 3
    wanted = max(40, whole.source.impostor // 1000 + 1)
    assert [len(c.impostor) >= wanted for c in counted] == [False, False, True]
    assert make(counts).points(targets, "step") == whole.points(targets, "step")


def test_as_many_are_kept_as_the_targets_need(monkeypatch):
    passes, _ = rates_of(oracles.tied_clips(n=120, n_identities=15, seed=0))
    asked = []
    monkeypatch.setattr(rates, "guess_floor", lambda p, keep, m: asked.append(keep) or -1.5)
    monkeypatch.setattr(rates, "count_pairs", lambda p, keep, floor: count_pairs(p, 10, floor=-1.5))
    n = passes.pairs.impostor
    count_for(passes, check_targets(["0.5", "1e-3", "1e-4"]))
    monkeypatch.setattr(rates, "KEEP_AT_LEAST", 1)
    count_for(passes, check_targets(["0.5", "1e-3", "1e-4"]))
    count_for(passes, check_targets(["0.5"]))
    monkeypatch.setattr(rates, "EXACT_FAR", Fraction(1))
    count_for(passes, check_targets(["0.5"]))
    assert asked == [2**16, n // 1000 + 1, 1, n // 2 + 1]


def clips_of_people(n_clips):
    """Clips whose scores are multiples of 1/32, exact in float32 whatever the block's shape."""
    rng = np.random.default_rng(0)
    people = np.where(rng.random((n_clips // 4, 64)) < 0.5, 1, -1)
    who = np.arange(n_clips) % len(people)
    flipped = rng.random((n_clips, 64)) < 0.3
    rows = np.where(flipped, -people[who], people[who]).astype(np.float32) / 8
    return rows, [f"p{p}" for p in who]


def scored_on_cores(cores, one, monkeypatch):
    for module in (passes_module, resampled_pairs):
        monkeypatch.setattr(module, "available_cores", lambda: cores)
    return score_verification(*one, ["1e-1", "1e-2", "1e-3"], bootstrap=Bootstrap(6, 1))


def same_on_all(results):
    """Whether figures, bounds, intervals and resamples are the same in all results."""
    drawn = [np.stack([f.replicates.values for f in (*r.points, r.eer, r.auc)]) for r in results]
    documents = [result.to_dict() for result in results]
    return all(d == documents[0] for d in documents) and all((d == drawn[0]).all() for d in drawn)


@pytest.mark.parametrize(
    "millions",
    [1.3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))],
)
def test_exact_up_to_four_million_pairs_on_any_number_of_cores(millions, monkeypatch):
    one = clips_of_people(round((2e6 * millions) ** 0.5) + 3)
    results = [scored_on_cores(n, one, monkeypatch) for n in (1, 2)]
    for result in results:
        assert millions * 1e6 < result.impostor_pairs < millions * 1e6 + 10_000
        assert is_exact(result)
        figures = (*result.points, result.eer, result.auc)
        assert [figure.replicates.note for figure in figures] == [""] * 5
    assert same_on_all(results)


@pytest.mark.parametrize("missing", [0, 1])
def test_one_pair_too_many_is_marked_on_any_number_of_cores(missing, monkeypatch):
    """At the limit all is exact; with a pair more the same figures are bounds, however counted."""
    one = clips_of_people(520)
    measured = rates_of(one)[0].pairs.measured()[1]
    for module in (pairwise, rates):
        monkeypatch.setattr(module, "KEEP_AT_LEAST", measured - missing)
    results = [scored_on_cores(n, one, monkeypatch) for n in (1, 2, 5)]
    assert [is_exact(result) for result in results] == [not missing] * 3
    assert same_on_all(results)


def test_ties_above_the_floor_need_a_pass_of_their_own(monkeypatch):
    # All impostor scores are one: no floor parts them, so the list stays empty.
    rows = np.tile(np.array([[1, 0]], np.float32), (30, 1))
    names = [f"id{i // 2}" for i in range(30)]
    shrink(monkeypatch, keep=2, exact_far=Fraction(1))
    result, genuine, impostor = run((rows, names), None, ["1", "0.5"])
    check_figures(result, genuine, impostor, ["1", "0.5"])
    assert [as_tuple(p)[:2] for p in result.points] == [(1, 1), (0, None)]


def test_figures_at_the_bottom(monkeypatch):
    # Half of the genuine pairs and some strangers have no descriptor; a stranger scores −1, too.
    rows = np.zeros((8, 16), np.float32)
    rows[[0, 1, 4, 6]] = 0.25
    rows[5] = -0.25
    names = ["a", "a", "b", "b", "c", "d", "", ""]
    for limit in (0, 2**26):
        shrink(monkeypatch, keep=1, limit=limit, sample=2)
        result, genuine, impostor = run((rows, names), None, FARS, exact=True)
        check_figures(result, genuine, impostor, FARS)
        assert oracles.split(oracles.same_set(rows.tolist(), names)[0])[0] == [1, -1]
    # No genuine pair has a score at all, and strangers do score −1.
    result, genuine, impostor = run((rows[2:], names[2:]), None, FARS, exact=True)
    check_figures(result, genuine, impostor, FARS)
    assert genuine == [-1]
    assert is_exact(result)


def test_bounds_and_values_by_eye():
    # Four bins, half a unit wide: impostors 1, 2, 2, 1 from the bottom, genuine 0, 0, 1, 3.
    counts = pairwise.PairCounts(
        np.array([[1, 2, 3, 4], [0, 0, 1, 3]]),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
        False,
        np.zeros(0, np.float32),
        np.zeros((2, 0), np.int32),
        1.0,
    )

    class Source:
        genuine, impostor, left_out = 4, 6, 0

        def measured(self):
            return 4, 6

    found = Rates(counts, Source())
    assert found.above_edge.tolist() == [[4, 4, 4, 3, 0], [6, 5, 3, 1, 0]]
    # FAR from the top: 1/6, 3/6, 5/6, 1 at TAR 3/4, 1, 1, 1.
    (half, fifth, all_of_them) = found.points(check_targets(["0.4", "0.2", "1"]), "step")
    edge = pytest.approx(0.5, abs=1e-7)  # in float32, what is a little lower is rounded into it
    assert as_tuple(half) == (0.75, edge, 3, 1)
    assert half.tar_bounds == (0.75, 1)
    assert as_tuple(fifth) == (0.75, edge, 3, 1)
    assert as_tuple(all_of_them) == (1, -1, 4, 6)
    assert all_of_them.tar_bounds == (1, 1)
    assert found._equal_bin() == 2  # FAR 1/6, FRR 1/4 above it; 1/2 and 0 at its lower edge
    assert found.eer() == BoundedFigure(
        (1 / 6 + 1 / 4) / 2, ((1 / 6 + 0) / 2, (1 / 2 + 1 / 4) / 2), edge
    )
    # Pairs of 24: three genuine beat 5 and tie with 1; one beats 3 and ties with 2.
    auc = found.auc()
    assert auc.value == (3 * 5.5 + 3 + 1) / 24
    assert auc.bounds == ((3 * 5 + 3) / 24, (3 * 6 + 5) / 24)
    curve = found.curve()
    assert curve.thresholds == pytest.approx([0.5, 0, -0.5, -1], abs=1e-7)
    assert (curve.tar.tolist(), curve.far.tolist()) == (
        [0.75, 1, 1, 1],
        [1 / 6, 3 / 6, 5 / 6, 1],
    )
    assert str(curve) == "Curve(thresholds (4,) float64)"
    with pytest.raises(VidfaceError, match="cannot be counted again"):
        found.points(check_targets(["0.4"]), "nearest")


def test_nothing_above_the_bin_of_the_equal_error_rate():
    counts = pairwise.PairCounts(
        np.array([[0, 5], [0, 1]]),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
        False,
        np.zeros(0, np.float32),
        np.zeros((2, 0), np.int32),
        1.0,
    )

    class Source:
        genuine, impostor, left_out = 1, 4, 0

        def measured(self):
            return 1, 4

    found = Rates(counts, Source())
    assert found.eer() == BoundedFigure(0.5, (0, 1), None)
    (point,) = found.points(check_targets(["0.5"]), "step")
    assert (as_tuple(point), point.tar_bounds) == ((0, None, 0, 0), (0, 1))


def test_pairs_beyond_int64_are_counted():
    # 2³¹ pairs of each kind: their products are above 2⁶¹.
    genuine = np.array([2**31, 0, 1, 2**31], dtype=np.int64)
    impostor = np.array([0, 2**31, 1, 2**31], dtype=np.int64)
    n = 2**31
    expected = 2 * n * (2 * n + 1) + (2 * n + 1) + n * n
    assert count_twice_above(genuine, impostor) == expected
    assert expected > 2**62
    assert count_twice_above(genuine // 2**20, impostor // 2**20) == 2 * 2048 * 4096 + 2048 * 2048


def test_a_figure_in_json():
    assert BoundedFigure(0.25).to_dict() == {"value": 0.25}
    assert BoundedFigure(0.25, (0.2, 0.3), 0.5).to_dict() == {
        "value": 0.25,
        "bounds": [0.2, 0.3],
        "threshold": 0.5,
    }
    assert BoundedFigure(0.25, threshold=0.0).to_dict() == {"value": 0.25, "threshold": 0.0}


def test_a_product_that_does_not_repeat_is_refused(monkeypatch):
    one = oracles.tied_clips()
    shrink(monkeypatch, keep=3, bins=2**16)
    honest = Passes.scores
    calls = []

    def drifting(self, ops, rows, columns):
        calls.append(1)
        scores, excluded = honest(self, ops, rows, columns)
        if len(calls) > 1:
            scores *= np.float32(0.99)
        return scores, excluded

    monkeypatch.setattr(Passes, "scores", drifting)
    with pytest.raises(VidfaceError, match="other scores the second time"):
        score_verification(*one, ["1e-1"], exact=True)


def test_the_nearest_corner_may_lie_far_below(monkeypatch):
    # A straight run of impostors: its inner points are no corners, so that from the target's bin
    # the next ones are many bins away on either side.
    impostor = np.concatenate([np.linspace(0.9, -0.9, 240).round(7), [0.97, 0.95]])
    genuine = np.array([0.99, 0.96, -0.95])
    scores = np.concatenate([genuine, impostor]).astype(np.float32)
    probes = np.stack([scores, np.sqrt(1 - np.square(scores))], axis=1).astype(np.float32)
    one = np.array([[1, 0]], np.float32), ["a"]
    other = probes, ["a"] * 3 + [f"b{i}" for i in range(len(impostor))]
    fars = ["0.6", "0.5", "0.4", "0.1", "0.05", "1", "0.01"]
    whole = score_cross_verification(*one, *other, fars, convention="nearest")
    check_figures(
        whole,
        scores[:3].astype(float).tolist(),
        scores[3:].astype(float).tolist(),
        fars,
        "nearest",
    )
    shrink(monkeypatch, keep=10, bins=128, sample=2048)
    for limit in (0, 2**26):
        monkeypatch.setattr(pairwise, "GENUINE_LIMIT", limit)
        result = score_cross_verification(*one, *other, fars, convention="nearest")
        assert result.points == whole.points


# --- other tools -------------------------------------------------------------------------------


def scored_list(seed, n=200, ties=True):
    """Scores that float32 holds, and which pairs are genuine."""
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.3
    same[:2] = True, False
    scores = np.clip(rng.normal(np.where(same, 0.5, 0.0), 0.3), -1, 1)
    scores = np.round(scores * 16) / 16 if ties else scores.astype(np.float32).astype(float)
    return scores, same


def by_common_script(scores, same, target):
    """TAR and FAR as InsightFace's and many others' IJB scripts read them."""
    fpr, tpr, _ = roc_curve(same, scores)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)  # the last of equal ones
    _, index = min(list(zip(abs(fpr - target), range(len(fpr)), strict=True)))
    return tpr[index], fpr[index]


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_scikit_learn_agrees(seed, ties):
    scores, same = scored_list(seed, ties=ties)
    rows, first, second = oracles.listed(scores)
    fars = ["0.9", "0.5", "0.25", "0.1", "0.05", "0.02", "0.01"]
    n_impostor = int(np.count_nonzero(~same))
    step = score_pair_list(rows, first, second, same, fars)
    fpr, tpr, thresholds = roc_curve(same, scores, drop_intermediate=False)
    wrong = np.rint(fpr * n_impostor)
    for point in step.points:
        honours = np.flatnonzero(wrong <= Fraction(point.target_far) * n_impostor)
        assert point.tar == pytest.approx(tpr[honours].max(), abs=1e-12)
        assert point.threshold == thresholds[honours].min()
    assert step.auc.value == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    assert np.array_equal(step.curve.thresholds, thresholds[1:])
    assert np.allclose(step.curve.far, fpr[1:], atol=1e-15)
    assert np.allclose(step.curve.tar, tpr[1:], atol=1e-15)
    nearest = score_pair_list(rows, first, second, same, fars, convention="nearest")
    for point in nearest.points:
        expected = by_common_script(scores, same, float(point.target_far))
        assert (point.tar, point.far) == pytest.approx(expected, abs=1e-12)


def test_the_common_script_reads_more_than_the_step_rule_allows():
    # One impostor of four above the genuine pair: at FAR 0.2 none is allowed, and 0.25 is nearest.
    rows, first, second = oracles.listed([0.75, 0.5, 0.25, 0.125, 0.0])
    same = [False, True, False, False, False]
    (step,) = score_pair_list(rows, first, second, same, ["0.3"]).points
    (nearest,) = score_pair_list(rows, first, second, same, ["0.3"], convention="nearest").points
    assert (step.tar, step.far) == (1, 0.25)
    assert (nearest.tar, nearest.far) == (1, 0.25)
    (step,) = score_pair_list(rows, first, second, same, ["0.45"]).points
    (nearest,) = score_pair_list(rows, first, second, same, ["0.45"], convention="nearest").points
    assert (step.far, nearest.far) == (0.25, 0.25)  # 0.5 is no corner of the ROC
    (step,) = score_pair_list(rows[1:], [0], [1], [True], ["0.3"]).points
    assert step.tar is None
    scores = [0.75, 0.5, 0.25, 0.125]
    rows, first, second = oracles.listed(scores)
    same = [False, True, True, False]
    for far, expected in [("0.7", (1, 0.5)), ("0.8", (1, 1))]:
        (step,) = score_pair_list(rows, first, second, same, [far]).points
        (near,) = score_pair_list(rows, first, second, same, [far], convention="nearest").points
        assert (step.tar, step.far) == (1, 0.5)
        assert (near.tar, near.far) == expected


def bob_sets():
    return json.loads(GOLDEN.read_text())["sets"]


@pytest.mark.parametrize("nth", range(len(bob_sets())))
def test_bob_measure_agrees_but_for_its_convention(nth):
    # bob.measure's threshold at a FAR is an impostor score: the lowest one that honours the target.
    bob = bob_sets()[nth]
    genuine, impostor = (
        [s / bob["denominator"] for s in bob[kind]] for kind in ("genuine", "impostor")
    )
    rows, first, second = oracles.listed(genuine + impostor)
    same = [True] * len(genuine) + [False] * len(impostor)
    result = score_pair_list(rows, first, second, same, list(bob["at_far"]))
    compared = 0
    for point, theirs in zip(result.points, bob["at_far"].values(), strict=True):
        if point.tar is None:
            continue
        compared += 1
        bobs_tar = 1 - theirs["frr"]
        assert max(point.far, theirs["far"]) <= float(point.target_far)
        assert point.far == pytest.approx(theirs["far"], abs=1e-12)
        assert point.tar >= bobs_tar - 1e-12
        assert point.threshold <= theirs["threshold"]
        # The same, unless genuine scores lie between that impostor and the next one.
        lost = sum(point.threshold <= s < theirs["threshold"] for s in genuine)
        assert point.tar - bobs_tar == pytest.approx(lost / len(genuine), abs=1e-12)
        assert (lost == 0) == (point.threshold == theirs["threshold"])
    assert compared == (2 if len(impostor) == 4 else 6)
    # At equal error both find the same smallest difference; of two such points ours is the higher.
    right, wrong = oracles.accepted(genuine, impostor, result.eer.threshold)
    far, frr = wrong / len(impostor), 1 - right / len(genuine)
    theirs = bob["eer"]
    assert abs(far - frr) == pytest.approx(abs(theirs["far"] - theirs["frr"]), abs=1e-12)
    assert far <= theirs["far"] + 1e-12
    if far == pytest.approx(theirs["far"], abs=1e-12):
        value = (theirs["far"] + theirs["frr"]) / 2
        assert result.eer.value == pytest.approx(value, abs=1e-12)


def test_where_bob_measure_loses_a_genuine_pair():
    # Impostors 12, 8, 4, 0 and genuine 10, 6 sixteenths. At FAR 1/4 one impostor, 12, may pass:
    # bob's threshold is 12, ours the 10 that lies above the next impostor.
    bob = bob_sets()[-1]
    assert bob["at_far"]["0.25"] == {"threshold": 0.75, "far": 0.25, "frr": 1.0}
    rows, first, second = oracles.listed([10 / 16, 6 / 16, 12 / 16, 8 / 16, 4 / 16, 0])
    same = [True, True, False, False, False, False]
    (point,) = score_pair_list(rows, first, second, same, ["0.25"]).points
    assert as_tuple(point) == (0.5, 0.625, 1, 1)


def test_bob_sets_hold_both_cases():
    equal = lost = 0
    for bob in bob_sets():
        genuine, impostor = (
            [s / bob["denominator"] for s in bob[kind]] for kind in ("genuine", "impostor")
        )
        for text, theirs in bob["at_far"].items():
            ours = oracles.step(genuine, impostor, Fraction(text))[0]
            equal += ours == pytest.approx(1 - theirs["frr"], abs=1e-12)
            lost += ours > 1 - theirs["frr"] + 1e-12
    assert equal > 10
    assert lost > 10


def test_bounds_are_in_the_json(monkeypatch):
    shrink(monkeypatch, bins=16)
    rows, names = oracles.tied_clips(n=120, n_identities=15, seed=0)
    document = score_verification(rows, names, ["0.3"]).to_dict()
    point = document["tar_at_far"]["0.3"]
    assert point["tar_bounds"][0] == point["tar"] < point["tar_bounds"][1]
    assert len(document["auc"]["bounds"]) == 2
    exact = score_verification(rows, names, ["0.3"], exact=True).to_dict()
    assert "tar_bounds" not in exact["tar_at_far"]["0.3"]
    low, high = point["tar_bounds"]
    assert low <= exact["tar_at_far"]["0.3"]["tar"] <= high
