from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_verification as oracles
from tests.budgets import examples
from tests.oracles import auc as plain_auc
from vidface.core.errors import VidfaceError
from vidface.metrics import listed_pairs
from vidface.metrics.blocks import bin_of
from vidface.metrics.conventions import CONVENTIONS
from vidface.metrics.listed_pairs import count_listed, list_pairs
from vidface.metrics.pairwise import KEEP_ALL
from vidface.metrics.verification import score_pair_list

FARS = ["1", "0.5", "0.3", "1e-1", "0.07"]


@st.composite
def lists(draw):
    """(rows, identities, first, second, same): any pairs, of one row and its own, too."""
    clips = st.tuples(oracles.tied_rows(), st.sampled_from(oracles.NAMES))
    rows = draw(st.lists(clips, min_size=1, max_size=8))
    number = st.integers(0, len(rows) - 1)
    pairs = draw(st.lists(st.tuples(number, number, st.booleans()), min_size=1, max_size=25))
    return oracles.as_rows([r for r, _ in rows]), [n for _, n in rows], *zip(*pairs, strict=True)


def naive(rows, identities, first, second, same):
    """The pairs as the twins have them."""
    (units,), _, _ = oracles.units_of(identities)
    rows = rows.tolist()
    return [
        (oracles.score(rows[i], rows[j]), is_same, units[i], units[j])
        for i, j, is_same in zip(first, second, same, strict=True)
    ]


def codes_of(names):
    """As `identity_codes`."""
    known = sorted(set(names) - {""})
    return np.array([known.index(name) if name else -1 for name in names], np.int64)


@given(given_list=lists())
@examples(150)
@pytest.mark.parametrize("convention", list(CONVENTIONS))
def test_figures_of_a_list_equal_the_naive_twin(convention, given_list):
    rows, identities, first, second, same = given_list
    genuine, impostor = oracles.split(naive(*given_list))
    for names in (None, identities):  # no figure depends on who it is
        result = score_pair_list(
            rows, first, second, same, FARS, identities=names, convention=convention
        )
        assert (result.genuine_pairs, result.impostor_pairs) == (len(genuine), len(impostor))
        assert result.distractor_pairs_left_out == 0
        for point in result.points:
            far = Fraction(point.target_far)
            if not genuine or far * len(impostor) < 1:
                assert point.tar is None
                continue
            expected = oracles.CONVENTIONS[convention](genuine, impostor, far)
            ours = (point.tar, point.threshold, point.accepted_genuine, point.accepted_impostor)
            assert ours == expected
            assert point.tar_bounds is None
        if not (genuine and impostor):
            assert (result.eer, result.auc, result.curve) == (None, None, None)
            continue
        eer, threshold = oracles.eer(genuine, impostor)
        assert (result.eer.value, result.eer.threshold) == (
            pytest.approx(float(eer), abs=1e-12),
            threshold,
        )
        assert plain_auc(genuine, impostor) == oracles.auc(genuine, impostor)
        assert result.auc.value == pytest.approx(float(oracles.auc(genuine, impostor)), abs=1e-12)
        roc = oracles.roc(genuine, impostor)[1:]
        assert result.curve.thresholds.tolist() == [t for t, _, _ in roc]
        assert result.curve.accepted_genuine.tolist() == [right for _, right, _ in roc]
        assert result.curve.accepted_impostor.tolist() == [wrong for _, _, wrong in roc]


@given(given_list=lists(), block=st.sampled_from([1, 3, 2**14]), data=st.data())
@examples(100)
def test_counts_of_a_list_equal_the_naive_twin(given_list, block, data):
    rows, identities, first, second, same = given_list
    codes = codes_of(identities)
    listed = list_pairs(codes, first, second, same)
    pairs = naive(*given_list)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listed_pairs, "_BLOCK_ROWS", block)
        counts = count_listed(rows, np.any(rows != 0, axis=1), listed)
    assert counts.complete
    assert counts.floor == KEEP_ALL
    ours = []
    for is_same, scores, units in (
        (True, counts.genuine, counts.genuine_units),
        (False, counts.impostor, counts.impostor_units),
    ):
        assert (np.diff(scores) <= 0).all()
        ours += [
            (score, is_same, a, b)
            for score, a, b in zip(scores.tolist(), *units.tolist(), strict=True)
        ]
    assert sorted(ours) == sorted(pairs)
    for row, chosen in enumerate((pairs, [p for p in pairs if p[1]])):
        scores = np.array([p[0] for p in chosen], np.float32)
        assert np.array_equal(
            counts.histogram[row], np.bincount(bin_of(scores, 2**16), minlength=2**16)
        )
    _, n_identities, n_units = oracles.units_of(identities)
    assert (listed.n_identities, listed.n_units) == (n_identities, n_units)
    weights = data.draw(st.lists(st.integers(0, 3), min_size=n_units, max_size=n_units))
    drawn = oracles.split(oracles.resampled_list(pairs, weights))
    assert listed.totals(np.array(weights)) == tuple(map(len, drawn))
    assert listed.measured() == (listed.genuine, listed.impostor)


def test_a_list_by_eye():
    # 0–1 at 0.8 and 0–3 without a descriptor are genuine; 1–2 at 0.6 and 0–2 at 0 are not.
    rows = np.array([[1, 0], [0.8, 0.6], [0, 1], [0, 0]], dtype=np.float32)
    listed = ([0, 0, 1, 0], [1, 3, 2, 2], [True, True, False, False])
    result = score_pair_list(rows, *listed, ["0.5", "1"])
    half, everything = result.points
    assert (half.tar, half.far, half.accepted_genuine) == (0.5, 0.5, 1)
    assert (everything.tar, everything.threshold) == (1, -1)
    assert result.auc.value == 0.5
    # Of (FAR, FRR) = (0, 1/2), (1/2, 1/2), …: 0.6 it is.
    assert (result.eer.value, result.eer.threshold) == (0.5, pytest.approx(0.6))
    pairs = list_pairs(np.array([0, -1, 1, -1]), *listed)
    assert pairs.units.tolist() == [0, 2, 1, 3]
    assert str(pairs) == "ListedPairs(first, second, same (4,); 4 rows)"


def test_scores_of_a_list_are_clipped():
    rows = np.array([[1.0005, 0], [-1.0005, 0]], dtype=np.float32)
    result = score_pair_list(rows, [0, 0], [0, 1], [True, False], ["1"])
    assert result.points[0].threshold == -1
    assert result.curve.thresholds.tolist() == [1, -1]


def test_a_list_of_one_kind():
    rows = np.eye(3, dtype=np.float32)
    result = score_pair_list(rows, [0], [1], [True], ["0.5"])
    assert (result.points[0].tar, result.points[0].needs_impostor_pairs) == (None, 2)
    assert (result.eer, result.to_dict()["auc"]) == (None, None)
    result = score_pair_list(rows, [0, 1], [1, 2], [False, False], ["0.5"])
    assert (result.points[0].tar, result.points[0].needs_impostor_pairs) == (None, None)
    assert result.points[0].note == "n/a: no genuine pair"


@pytest.mark.parametrize(
    ("first", "second", "same", "message"),
    [
        ([], [], [], "there is no pair"),
        ([0, 1], [1], [True], r"first must be \(1,\) whole numbers, got \(2,\) int64"),
        ([0], [1, 2], [True], r"second must be \(1,\) whole numbers, got \(2,\)"),
        ([0.0], [1], [True], r"first must be \(1,\) whole numbers, got \(1,\) float64"),
        ([0], ["1"], [True], r"second must be \(1,\) whole numbers"),
        ([True], [1], [True], r"first must be \(1,\) whole numbers, got \(1,\) bool"),
        ([0], [1], [1], r"same must be \(1,\) bool, got \(1,\) int64"),
        ([[0]], [[1]], [[True]], r"first must be \(1,\) whole numbers, got \(1, 1\)"),
        ([0], [1], True, r"first must be \(1,\)|same must be"),
        ([3], [1], [True], "first names a row beyond the 3 descriptors"),
        ([0], [-1], [True], "second names a row beyond"),
    ],
)
def test_a_list_is_checked(first, second, same, message):
    with pytest.raises(VidfaceError, match=message):
        score_pair_list(np.eye(3, dtype=np.float32), first, second, same)


def test_other_input_of_a_list_is_checked():
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(VidfaceError, match="unknown convention 'best'"):
        score_pair_list(rows, [0], [1], [True], convention="best")
    with pytest.raises(VidfaceError, match="2 for 3 rows"):
        score_pair_list(rows, [0], [1], [True], identities=["a", "b"])
    with pytest.raises(VidfaceError, match="listed twice"):
        score_pair_list(rows, [0], [1], [True], ["0.5", "0.5"])
    with pytest.raises(VidfaceError, match="norm 2"):
        score_pair_list(2 * rows, [0], [1], [True])


def test_unsigned_row_numbers_and_the_callers_arrays():
    rows = np.eye(3, dtype=np.float32)
    arrays = np.array([0, 1], np.uint8), np.array([1, 2], np.uint64), np.array([True, False])
    for array in (rows, *arrays):
        array.flags.writeable = False
    result = score_pair_list(rows, *arrays, ["1"])
    assert (result.genuine_pairs, result.points[0].tar) == (1, 1)
