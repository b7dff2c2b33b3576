import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from tests import oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics.conventions import DEFAULT_FARS
from vidface.metrics.pairs import score_pairs

FARS = ["1", "0.5", "0.3", "1e-1", "0.07", "1e-2"]

# Few different scores, so that most of them tie; folds of different sizes, some of one kind.
SETS = st.lists(
    st.tuples(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), st.booleans(), st.integers(0, 3)),
    min_size=2,
    max_size=30,
)


def some_pairs(n=400, k=10, seed=0):
    """Scores in steps of 0.1, in k equal folds, half of the pairs genuine."""
    rng = np.random.default_rng(seed)
    same = np.arange(n) % 2 == 0
    scores = np.round(rng.normal(0.3 * same, 0.25), 1).clip(-1, 1)
    return scores, same, np.arange(n) * k // n


def check_against_oracle(scores, same, folds, fars):
    result = score_pairs(scores, same, folds, fars)
    scores, same, folds = (np.asarray(column).tolist() for column in (scores, same, folds))
    k = max(folds) + 1
    if k > 1:
        accuracies, thresholds = oracles.fold_accuracies(scores, same, folds)
        assert result.thresholds == tuple(thresholds)
        assert result.fold_accuracies == tuple(float(accuracy) for accuracy in accuracies)
        mean = sum(accuracies) / k
        variance = sum((accuracy - mean) ** 2 for accuracy in accuracies) / (k - 1)
        assert result.accuracy == pytest.approx(float(mean), abs=1e-12)
        assert result.accuracy_standard_error == pytest.approx(math.sqrt(variance / k), abs=1e-12)
    else:
        assert result.accuracy is None

    genuine, impostor = oracles.without_fold(scores, same, folds, None)
    assert (result.genuine_pairs, result.impostor_pairs) == (len(genuine), len(impostor))
    assert result.auc == float(oracles.auc(genuine, impostor))
    left = [oracles.without_fold(scores, same, folds, fold) for fold in range(k)] * (k > 1)
    expected = oracles.jackknife([oracles.auc(*kinds) for kinds in left]) if left else None
    assert result.auc_standard_error == pytest.approx(expected, abs=1e-12)

    for text, point, error in zip(fars, result.points, result.tar_standard_errors, strict=True):
        far = Fraction(text)
        assert (point.genuine, point.impostor) == (len(genuine), len(impostor))
        if len(impostor) * far < 1:
            assert (point.tar, point.threshold, point.far, error) == (None, None, None, None)
            assert point.needs_impostor_pairs == -(-far.denominator // far.numerator)
            continue
        tar, *others = oracles.tar_at_far(genuine, impostor, far)
        ours = [point.threshold, point.accepted_genuine, point.accepted_impostor]
        assert (point.tar, ours) == (tar, others)
        assert point.far == others[2] / len(impostor)
        assert point.needs_impostor_pairs is None
        tars = [
            Fraction(oracles.tar_at_far(g, i, far)[2], len(g)) if g and len(i) * far >= 1 else None
            for g, i in left
        ]
        expected = oracles.jackknife(tars) if left else None
        assert error == pytest.approx(expected, abs=1e-12)
    return result


def test_hand_case():
    # Fold 0: genuine 0.9, 0.6; impostors 0.5, 0.1. Fold 1: 0.8, 0.3; 0.4, 0.2. Fold 2: 0.7, 0.6;
    # 0.6, 0.0.
    scores = [0.9, 0.6, 0.5, 0.1, 0.8, 0.3, 0.4, 0.2, 0.7, 0.6, 0.6, 0.0]
    same = [True, True, False, False] * 3
    folds = np.repeat([0, 1, 2], 4)
    result = check_against_oracle(scores, same, folds, ["0.5", "0.25", "0.1"])
    # Without fold 0: 0.6 and 0.7 are 6 of 8 right, and 0.3 (all four, and 0.2 and 0.0 rejected) as
    # well: the middle one is 0.6. Without fold 1 or fold 2, 0.6 makes one mistake (the impostor at
    # 0.6, the genuine pair at 0.3), and every other more.
    assert result.thresholds == (0.6, 0.6, 0.6)
    # At 0.6, fold 0 is all right, fold 1 misses 0.3, fold 2 accepts its impostor at 0.6.
    assert result.fold_accuracies == (1, 3 / 4, 3 / 4)
    assert result.accuracy == pytest.approx(5 / 6)
    # Deviations 1/6, 1/12, 1/12: squares sum to 6/144, over 2 is 1/48, over 3 is 1/144.
    assert result.accuracy_standard_error == pytest.approx(1 / 12)
    # Of 36 (genuine, impostor): 0.3 loses to 0.6, 0.5, 0.4; both 0.6 tie with 0.6.
    assert result.auc == (36 - 3 - 2 * 0.5) / 36
    # Without fold 0: 0.3 loses to 0.6 and 0.4, 0.6 ties: 13.5 of 16. Without fold 1: two 0.6 tie
    # with 0.6: 15. Without fold 2: 0.3 loses to 0.5 and 0.4: 14. Mean 85/6; squares of the
    # deviations, in sixths: 4, 5, 1 → 16 + 25 + 1 = 42/36; times 2/3, the root, over 16.
    assert result.auc_standard_error == pytest.approx(math.sqrt(2 / 3 * 42 / 36) / 16)
    half, quarter, tenth = result.points
    # Half of 6 allows three: 0.6, 0.5 and 0.4. The next below is the last genuine pair, 0.3.
    assert (half.tar, half.threshold, half.far) == (1, 0.3, 0.5)
    # 1.5 allows one, at 0.6, where two genuine pairs tie; 0.6 is the lowest before 0.5.
    assert (quarter.tar, quarter.threshold, quarter.far) == (5 / 6, 0.6, 1 / 6)
    # Without fold 0 or 1, one of four is allowed: 3 of 4 and 4 of 4; without fold 2: 0.5, 3 of 4.
    assert result.tar_standard_errors[1] == pytest.approx(math.sqrt(2 / 3 * (1 / 16) * (2 / 3)))
    assert (tenth.tar, tenth.needs_impostor_pairs) == (None, 10)
    assert result.to_dict() == {
        "accuracy": {
            "mean": result.accuracy,
            "standard_error": result.accuracy_standard_error,
            "thresholds": [0.6, 0.6, 0.6],
            "folds": 3,
        },
        "auc": result.auc,
        "auc_standard_error": result.auc_standard_error,
        "tar_at_far": {
            "0.5": half.to_dict() | {"standard_error": result.tar_standard_errors[0]},
            "0.25": {
                "tar": 5 / 6,
                "threshold": 0.6,
                "far": 1 / 6,
                "genuine": 6,
                "impostor": 6,
                "standard_error": result.tar_standard_errors[1],
            },
            "0.1": {"tar": None, "needs_impostor_pairs": 10, "standard_error": None},
        },
        "pairs": {"genuine": 6, "impostor": 6},
    }


@pytest.mark.parametrize(
    ("others", "threshold"),
    [
        # (score, genuine?) of the training fold → the threshold.
        ([(0.5, True), (0.1, False)], 0.5),  # one best
        ([(0.9, True), (0.5, False), (0.3, True), (0.1, False)], 0.3),  # of 0.3, 0.9 the lower
        # 0.2, 0.4 and 0.6 are 4 of 6 right: the middle one.
        ([(f, f in (0.2, 0.4, 0.6)) for f in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)], 0.4),
        ([(0.9, False), (0.5, False)], None),  # nothing accepted is best
        ([(0.9, False), (0.5, True)], 0.5),  # 0.5 and None are 1 of 2 right: the lower
        ([(0.5, True), (0.5, False)], 0.5),  # a tie of both kinds: either way 1 of 2
        ([(0.9, True), (0.5, True)], 0.5),  # no impostor: all accepted
    ],
)
def test_the_threshold_is_the_lower_median_of_the_best(others, threshold):
    scores = [score for score, _ in others] + [0.0, 1.0]
    same = [is_same for _, is_same in others] + [False, True]
    folds = [1] * len(others) + [0, 0]
    assert score_pairs(scores, same, folds).thresholds[0] == threshold


def test_a_score_at_the_threshold_is_accepted():
    # Either fold's threshold is 0.5, where the other has its genuine pair; one impostor is just
    # below.
    result = score_pairs([0.5, 0.5 - 2**-40, 0.5, -1], [True, False] * 2, [0, 0, 1, 1])
    assert result.thresholds == (0.5, 0.5)
    assert result.fold_accuracies == (1, 1)


def test_the_fold_itself_does_not_choose():
    # Fold 0 alone would choose 0.2; the others say 0.8, where fold 0 has nothing right but 0.1.
    scores, same = [0.2, 0.2, 0.1, 0.8, 0.7, 0.8, 0.7], [True, True, False] + [True, False] * 2
    assert score_pairs(scores, same, [0, 0, 0, 1, 1, 2, 2]).fold_accuracies[0] == 1 / 3


def test_folds_count_alike_whatever_their_size():
    # Fold 0 is right in 1 of 1, fold 1 in 1 of 3.
    result = score_pairs([0.5, 0.5, 0.1, 0.1], [True, True, True, False], [0, 1, 1, 1])
    assert result.fold_accuracies == (1, 2 / 3)
    assert result.accuracy == pytest.approx(5 / 6)


@given(pairs=SETS)
@examples(250)
def test_equals_the_naive_twin_with_many_ties(pairs):
    scores, same, labels = (list(column) for column in zip(*pairs, strict=True))
    used = sorted(set(labels))
    folds = [used.index(label) for label in labels]
    if len(set(same)) == 2:
        check_against_oracle(scores, same, folds, FARS)
    else:
        with pytest.raises(VidfaceError, match="needs both kinds"):
            score_pairs(scores, same, folds, FARS)


def test_one_fold_has_no_accuracy():
    result = score_pairs([0.9, 0.2, 0.3, 0.1], [True, True, False, False], [0] * 4, ["0.5"])
    assert (result.accuracy, result.accuracy_standard_error) == (None, None)
    assert (result.fold_accuracies, result.thresholds) == ((), ())
    assert (result.auc, result.auc_standard_error) == (0.75, None)
    assert (result.points[0].tar, result.tar_standard_errors) == (1, (None,))
    assert result.to_dict()["accuracy"] == {
        "mean": None,
        "standard_error": None,
        "thresholds": [],
        "folds": 1,
        "note": "n/a: one fold leaves no other to choose the threshold on",
    }


@pytest.mark.parametrize("seed", range(3))
def test_random_scores_equal_the_naive_twin(seed):
    rng = np.random.default_rng(seed)
    same = rng.random(120) < 0.4
    scores = rng.normal(0.4 * same, 0.3).astype(np.float32)
    result = check_against_oracle(scores, same, rng.permutation(120) % 7, FARS)
    assert 0.5 < result.accuracy < 1
    assert len(set(result.thresholds)) > 1


@pytest.mark.parametrize("seed", range(3))
def test_equals_sklearn(seed):
    scores, same, folds = some_pairs(seed=seed)
    result = score_pairs(scores, same, folds, ["0.5", "1e-1", "1e-2", "5e-3"])
    assert result.auc == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    fpr, tpr, thresholds = roc_curve(same, scores, drop_intermediate=False)
    accepted = np.rint(fpr * 200)
    for point in result.points:
        honours = np.flatnonzero(accepted <= Fraction(point.target_far) * 200)
        assert point.tar == pytest.approx(tpr[honours].max(), abs=1e-12)
        assert point.threshold == thresholds[honours].min()
    assert len({point.threshold for point in result.points}) > 2


def test_result_is_independent_of_the_order_of_pairs_and_the_names_of_folds():
    scores, same, folds = some_pairs(seed=4)
    whole = score_pairs(scores, same, folds)
    order = np.random.default_rng(0).permutation(len(scores))
    assert score_pairs(scores[order], same[order], folds[order]) == whole
    turned = score_pairs(scores, same, 9 - folds)
    assert turned.thresholds == whole.thresholds[::-1]
    assert turned.accuracy == pytest.approx(whole.accuracy, abs=1e-12)


def test_all_scores_equal():
    # Accepting all and accepting none are equally good: the lower is the score itself.
    result = score_pairs([0.3] * 8, [True, False] * 4, np.repeat([0, 1], 4), ["0.5", "1"])
    assert result.thresholds == (0.3, 0.3)
    assert (result.accuracy, result.accuracy_standard_error) == (0.5, 0)
    assert (result.auc, result.auc_standard_error) == (0.5, 0)
    half, all_of_them = result.points
    assert (half.tar, half.threshold, half.far) == (0, None, 0)
    assert (all_of_them.tar, all_of_them.threshold, all_of_them.far) == (1, 0.3, 1)


def test_two_pairs():
    # Each fold's threshold comes from the other's single pair: 0.1 is an impostor's, so nothing is
    # accepted, and the genuine pair is missed; 0.9 is a genuine one's, and 0.1 is below it.
    result = score_pairs([0.9, 0.1], [True, False], [0, 1], ["1"])
    assert result.thresholds == (None, 0.9)
    assert (result.fold_accuracies, result.accuracy) == ((0, 1), 0.5)
    assert result.accuracy_standard_error == 0.5
    # Without either fold one kind is gone.
    assert (result.auc, result.auc_standard_error) == (1, None)
    assert (result.points[0].tar, result.tar_standard_errors) == (1, (None,))


def test_one_genuine_pair():
    result = check_against_oracle([0.9, 0.1, 0.2, 0.3], [True] + [False] * 3, [0, 0, 1, 1], FARS)
    assert (result.genuine_pairs, result.auc, result.auc_standard_error) == (1, 1, None)
    assert result.points[0].tar == 1
    assert set(result.tar_standard_errors) == {None}


def test_no_standard_error_where_a_fold_less_cannot_tell():
    # 10 impostors are enough for 1e-1, 5 are not; for 0.2 they are.
    scores = np.linspace(-1, 1, 20)
    result = score_pairs(scores, np.arange(20) % 2 == 0, np.arange(20) // 10, ["1e-1", "0.2"])
    assert None not in [point.tar for point in result.points]
    assert result.tar_standard_errors[0] is None
    assert result.tar_standard_errors[1] is not None


def test_default_targets_are_those_of_lfw_size():
    result = score_pairs(*some_pairs())
    assert [point.target_far for point in result.points] == list(DEFAULT_FARS[:4])
    assert [point.tar is None for point in result.points] == [False, False, True, True]


def test_minus_zero_is_zero():
    result = score_pairs([-0.0, 0.0, -0.5, -0.5], [True, True, False, False], [0, 1, 0, 1])
    assert [math.copysign(1, threshold) for threshold in result.thresholds] == [1, 1]


def test_callers_arrays_are_read_only_to_us():
    arrays = some_pairs()
    for array in arrays:
        array.flags.writeable = False
    score_pairs(*arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.1, math.nan, 0.3, 0.4]}, r"scores\[1\] is nan"),
        ({"scores": [0.1, 0.2, math.inf, 0.4]}, r"scores\[2\] is inf"),
        ({"scores": [], "same": [], "folds": []}, "no pair"),
        ({"scores": [[0.1, 0.2, 0.3, 0.4]]}, r"scores must be \(4,\) numbers, got \(1, 4\)"),
        ({"scores": list("abcd")}, "scores must be"),
        ({"scores": [1j] * 4}, "scores must be"),
        ({"same": [1, 0, 1, 0]}, r"same must be \(4,\) bool, got \(4,\) int64"),
        ({"same": [True, False]}, r"same must be \(4,\) bool, got \(2,\)"),
        ({"same": [True] * 4}, "none of the 4 pairs is impostor"),
        ({"same": [False] * 4}, "none of the 4 pairs is genuine"),
        ({"folds": [0, 0, 1]}, "folds must be"),
        ({"folds": [0.0, 0.0, 1.0, 1.0]}, "folds must be .* whole numbers"),
        ({"folds": [0, 0, 2, 2]}, "without a gap"),
        ({"folds": [1, 1, 2, 2]}, "without a gap"),
        ({"folds": [-1, -1, 0, 0]}, "without a gap"),
        ({"fars": ["often"]}, "'often'"),
        ({"fars": "1e-3"}, "a list of decimal texts"),
    ],
)
def test_input_is_checked(changes, message):
    right = {"scores": [0.1, 0.2, 0.3, 0.4], "same": [True, False] * 2, "folds": [0, 0, 1, 1]}
    score_pairs(**right)
    with pytest.raises(VidfaceError, match=message):
        score_pairs(**(right | changes))
