import math

import numpy as np
import pytest

from vidface.core.errors import VidfaceError
from vidface.metrics.figures import interval_dict
from vidface.metrics.uncertainty import (
    Bootstrap,
    Difference,
    Replicates,
    expected_width,
    few_people_note,
    paired_difference,
    ratio_replicates,
)


def test_a_word_of_caution_below_a_hundred_people():
    assert few_people_note(99).startswith("99 people are few: intervals called 95 % cover")
    assert few_people_note(0, "clips").startswith("0 clips are few")
    assert few_people_note(100) == few_people_note(5000) == ""


def test_weights_depend_on_seed_resample_and_number_alone():
    few, many = Bootstrap(2, seed=7), Bootstrap(500, seed=7)
    first = few.weights(1, 30, 8).copy()
    few.weights(0, 5)
    assert np.array_equal(few.weights(1, 30, 8), first)
    assert np.array_equal(many.weights(1, 30, 8), first)
    # Identities are drawn the same with any number of distractors, and apart from them.
    assert np.array_equal(few.weights(1, 30), first[:30])
    assert np.array_equal(few.weights(1, 0, 8), first[30:])
    assert not np.array_equal(few.weights(1, 8, 8)[:8], few.weights(1, 8, 8)[8:])
    assert not np.array_equal(few.weights(0, 30), few.weights(1, 30))
    assert not np.array_equal(few.weights(0, 30), Bootstrap(2, seed=8).weights(0, 30))


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("m", [0, 1, 9])
def test_as_many_are_drawn_as_there_are(n, m):
    for resample in range(5):
        weights = Bootstrap().weights(resample, n, m)
        assert weights.shape == (n + m,)
        assert weights.dtype.kind == "i"
        assert (weights[:n].sum(), weights[n:].sum()) == (n, m)
        assert (weights >= 0).all()


def test_each_is_drawn_once_on_average():
    bootstrap = Bootstrap(2000, seed=3)
    matrix = np.stack([bootstrap.weights(r, 10) for r in range(2000)])
    # Binomial(10, 1/10): mean 1, variance 0.9; 5 standard errors.
    assert np.abs(matrix.mean(axis=0) - 1).max() < 5 * math.sqrt(0.9 / 2000)
    assert np.abs(matrix.var(axis=0) - 0.9).max() < 0.2


def test_a_bootstrap_is_checked():
    assert (Bootstrap().resamples, Bootstrap().seed) == (1000, 0)
    with pytest.raises(VidfaceError, match="2 resamples or more, got 1"):
        Bootstrap(1)
    Bootstrap(2)
    with pytest.raises(VidfaceError, match="seed must be 0 or more, got -1"):
        Bootstrap(seed=-1)


def test_the_interval_is_of_the_resamples_that_have_a_figure():
    values = np.arange(201.0)
    assert Replicates(values).ci95 == pytest.approx((5, 195))
    assert Replicates(values[::-1]).ci95 == pytest.approx((5, 195))
    gaps = np.full(220, np.nan)
    gaps[:201] = values
    assert Replicates(gaps).ci95 == pytest.approx((5, 195))  # 201 of 220 are 91 %
    assert Replicates(np.append(gaps, np.full(3, np.nan))).ci95 == pytest.approx((5, 195))
    assert Replicates(np.append(gaps, np.full(4, np.nan))).ci95 is None  # 201 of 224 are 89.7 %
    assert Replicates(np.append(np.ones(9), np.nan)).ci95 == (1, 1)  # 90 % it is
    assert Replicates(np.full(10, np.nan)).ci95 is None
    assert Replicates(np.zeros(0)).ci95 is None


def test_replicates_in_json_and_as_text():
    found = Replicates(np.array([0.25, 0.25]), "threshold held fixed")
    assert found.to_dict() == {"ci95": [0.25, 0.25], "ci95_note": "threshold held fixed"}
    assert Replicates(np.array([0.25, 0.25])).to_dict() == {"ci95": [0.25, 0.25]}
    assert interval_dict(Replicates(np.array([np.nan, 1.0]))) == {
        "ci95": None,
        "ci95_note": "50% of the resamples have no figure",
    }
    assert interval_dict(None) == {}
    assert str(found) == "Replicates((2,) float64, 95 % in [0.25, 0.25])"
    assert repr([found]) == f"[{found}]"  # not a page of numbers where a figure is printed
    assert str(Replicates(np.array([np.nan]))) == "Replicates((1,) float64, 95 % in [nan, nan])"


def test_a_ratio_in_every_resample():
    tops, bottoms = [3, 0, 2, 5], [4, 1, 0, 5]
    bootstrap = Bootstrap(50, seed=1)
    found = ratio_replicates(tops, bottoms, bootstrap, "a note")
    assert found.note == "a note"
    for resample in range(50):
        weights = bootstrap.weights(resample, 4).tolist()
        top = sum(w * t for w, t in zip(weights, tops, strict=True))
        bottom = sum(w * b for w, b in zip(weights, bottoms, strict=True))
        assert found.values[resample] == pytest.approx(top / bottom, abs=1e-15)
    nothing = ratio_replicates([1, 2], [0, 0], Bootstrap(3))
    assert np.isnan(nothing.values).all()
    assert ratio_replicates([], [], Bootstrap(3)).ci95 is None


def test_identical_runs_do_not_differ():
    values = np.random.default_rng(0).random(100)
    found = paired_difference(0.5, 0.5, Replicates(values), Replicates(values.copy()))
    assert (found.value, found.ci95, found.real, found.p_value) == (0, (0, 0), False, 1)


def test_differences_are_paired_and_of_b_minus_a():
    rng = np.random.default_rng(0)
    values = rng.random(199)  # a wide spread, the same in both
    found = paired_difference(0.4, 0.5, Replicates(values), Replicates(values + 0.125))
    assert found.value == pytest.approx(0.1)
    assert found.ci95 == pytest.approx((0.125, 0.125))
    assert (found.real, found.p_value) == (True, 2 / 200)
    back = paired_difference(0.5, 0.4, Replicates(values + 0.125), Replicates(values))
    assert (back.real, back.p_value) == (True, 2 / 200)
    assert back.ci95 == pytest.approx((-0.125, -0.125))
    assert back.value == pytest.approx(-0.1)


def test_the_p_value_counts_resamples_on_the_other_side():
    zeros = np.zeros(9)
    other = np.array([1, 2, 3, 4, 5, 6, 7, -1, 0.0])  # at or below zero two, at or above eight
    found = paired_difference(0, 1, Replicates(zeros), Replicates(other))
    assert found.p_value == pytest.approx(2 * 3 / 10)
    assert found.real is False
    gaps = np.append(zeros, np.nan)
    found = paired_difference(0, 1, Replicates(gaps), Replicates(np.append(other, 5.0)))
    assert found.p_value == pytest.approx(2 * 3 / 10)


def test_whether_a_difference_is_real():
    assert Difference(0, 1, (0.1, 2), 0.01).real is True
    assert Difference(0, 1, (-2, -0.1), 0.01).real is True
    assert Difference(0, 1, (0, 2), 0.05).real is False
    assert Difference(0, 1, (-1, 0), 0.05).real is False
    assert Difference(0, 1, None, None).real is None


def test_differences_without_an_interval_and_notes():
    few = Replicates(np.full(4, np.nan), "held")
    found = paired_difference(0.25, 0.5, few, Replicates(np.ones(4), "held"))
    assert found.to_dict() == {
        "a": 0.25,
        "b": 0.5,
        "difference": 0.25,
        "ci95": None,
        "p_value": None,
        "real": None,
        "ci95_note": "held",
    }
    ones = np.ones(4)
    found = paired_difference(1, 1, Replicates(ones, "x"), Replicates(ones, "y"))
    assert found.note == "x; y"
    found = paired_difference(1, 1, Replicates(ones), Replicates(ones, "y"))
    assert found.note == "y"
    assert found.to_dict()["ci95"] == [0, 0]
    assert "ci95_note" not in paired_difference(1, 1, Replicates(ones), Replicates(ones)).to_dict()


def test_other_numbers_of_resamples_are_refused():
    with pytest.raises(VidfaceError, match="3 resamples against 4"):
        paired_difference(1, 1, Replicates(np.ones(3)), Replicates(np.ones(4)))


@pytest.mark.parametrize("as_one", [False, True])
@pytest.mark.parametrize("pairs_of_people", [[3] * 200, [1] * 90 + [6] * 60])
def test_expected_widths_are_those_that_resampled_people_give(
    as_one: bool, pairs_of_people: list[int]
) -> None:
    """The slow way: draw who succeeds, resample people, and take the mean of the intervals."""
    rng = np.random.default_rng(1)
    pairs = np.array(pairs_of_people)
    widths = []
    for _ in range(30):
        right = pairs * rng.binomial(1, 0.95, len(pairs)) if as_one else rng.binomial(pairs, 0.95)
        low, high = ratio_replicates(right, pairs, Bootstrap(200)).ci95 or (0.0, 0.0)
        widths.append(high - low)
    assert expected_width(pairs_of_people)[as_one] == pytest.approx(np.mean(widths), rel=0.1)


def test_expected_widths_at_their_boundaries() -> None:
    assert expected_width([]) == expected_width([0, 0]) == (math.inf, math.inf)
    best, worst = expected_width([1] * 50)  # a pair each: the same thing
    assert best == pytest.approx(worst)
    best, worst = expected_width([100])  # one person
    assert worst == pytest.approx(10 * best)
