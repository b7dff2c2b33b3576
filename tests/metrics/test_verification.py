import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from tests import oracles, oracles_verification
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics import pairwise, rates
from vidface.metrics import passes as passes_module
from vidface.metrics.verification import (
    DEFAULT_FARS,
    Verification,
    score_cross_verification,
    score_verification,
)

# Sixteen components of ±1/4 are a unit row, and every product is a multiple of 1/8: exact in
# float32 in whatever order it is summed, with many ties.
TIED_ROW = st.one_of(
    st.just((0.0,) * 16),
    st.tuples(*[st.sampled_from([-0.25, 0.25])] * 4).map(lambda s: s[:1] * 7 + s[1:] * 3),
)
CLIPS = st.lists(st.tuples(TIED_ROW, st.sampled_from(["", "ann", "bob", "cy"])), max_size=16)
FARS = ["1", "0.5", "0.3", "1e-1", "0.07", "1e-2"]


def as_rows(rows, d=16):
    return np.array(rows, dtype=np.float32).reshape(-1, d)


def tied_clips(n=90, n_identities=12, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.choice([-0.25, 0.25], (n, 16), p=[0.3, 0.7]).astype(np.float32)
    rows[rng.random(n) < 0.05] = 0
    names = ["", *(f"id{i}" for i in range(n_identities))]
    return rows, [names[i] for i in rng.integers(0, len(names), n)]


def on_one_axis(scores):
    """A probe, and rows whose product with the probe is `scores`, exactly."""
    rows = np.zeros((1 + len(scores), 1 + len(scores)), dtype=np.float64)
    rows[0, 0] = 1
    rows[1:, 0] = scores
    rows[np.arange(1, len(rows)), np.arange(1, len(rows))] = np.sqrt(1 - np.square(scores))
    return rows.astype(np.float32)


def check_against_oracle(rows, identities, fars, **kwargs):
    result = score_verification(rows, identities, fars, **kwargs)
    genuine, impostor, left_out = oracles.pair_scores(rows.tolist(), identities)
    assert result.genuine_pairs == len(genuine)
    assert result.impostor_pairs == len(impostor)
    assert result.distractor_pairs_left_out == left_out
    for point, text in zip(result.points, fars, strict=True):
        far = Fraction(text)
        assert point.target_far == text
        assert (point.genuine, point.impostor) == (len(genuine), len(impostor))
        if len(impostor) * far < 1:
            assert (point.tar, point.threshold, point.far) == (None, None, None)
            assert point.needs_impostor_pairs == -(-far.denominator // far.numerator)
        elif not genuine:
            assert (point.tar, point.needs_impostor_pairs) == (None, None)
            assert point.note == "n/a: no genuine pair"
        else:
            expected = oracles.tar_at_far(genuine, impostor, far)
            ours = (point.tar, point.threshold, point.accepted_genuine, point.accepted_impostor)
            assert ours == expected
            assert point.far == expected[3] / len(impostor)
            assert point.needs_impostor_pairs is None
            assert point.note == ""
    return result


def test_hand_case():
    # Scores on one axis: ann's other clip scores 0.75, three distractors 1/2, 3/4 and 7/8. Of the
    # second ann clip every product with a distractor is 0.75 times theirs: 0.375, 0.5625, 0.65625.
    rows = on_one_axis([0.75, 0.5, 0.75, 0.875])
    identities = ["ann", "ann", "", "", ""]
    result = score_verification(rows, identities, ["0.5", "0.34", "0.33", "0.17", "0.16"])
    assert (result.genuine_pairs, result.impostor_pairs) == (1, 6)
    assert result.distractor_pairs_left_out == 3
    half, third, below_third, sixth, below_sixth = result.points
    # Half of 6 allows three: 0.875, 0.75, 0.65625; the loosest threshold is the third's score.
    assert (half.tar, half.threshold, half.far) == (1, 0.65625, 0.5)
    # 0.34 · 6 = 2.04 allows two: 0.875 and 0.75, which ties with the genuine pair.
    assert (third.tar, third.threshold, third.far) == (1, 0.75, 2 / 6)
    # 0.33 · 6 = 1.98 allows one, so the pair tied at 0.75 can't be accepted, nor the genuine one.
    assert (below_third.tar, below_third.threshold, below_third.far) == (0, 0.875, 1 / 6)
    assert (sixth.tar, sixth.threshold, sixth.accepted_impostor) == (0, 0.875, 1)
    # One in 0.16 is 6.25: six impostor pairs are too few.
    assert (below_sixth.tar, below_sixth.needs_impostor_pairs) == (None, 7)
    assert below_sixth.note == "n/a: needs ≥ 7 pairs"
    # Above 0.75 there is one impostor, 1/6; at 0.75 two, and the genuine pair: FRR 0.
    eer = {"value": pytest.approx(1 / 6), "threshold": 0.75}
    assert result.to_dict() == {
        "convention": "step",
        "convention_means": "the largest TAR whose FAR does not exceed the target",
        "eer": eer,
        "auc": {"value": pytest.approx(4.5 / 6)},  # it beats four and ties with one
        "tar_at_far": {
            "0.5": {"tar": 1, "threshold": 0.65625, "far": 0.5, "genuine": 1, "impostor": 6},
            "0.34": {"tar": 1, "threshold": 0.75, "far": 2 / 6, "genuine": 1, "impostor": 6},
            "0.33": {"tar": 0, "threshold": 0.875, "far": 1 / 6, "genuine": 1, "impostor": 6},
            "0.17": {"tar": 0, "threshold": 0.875, "far": 1 / 6, "genuine": 1, "impostor": 6},
            "0.16": {"tar": None, "needs_impostor_pairs": 7},
        },
        "pairs": {"genuine": 1, "impostor": 6, "distractor_left_out": 3},
    }


def test_nothing_accepted_where_the_best_score_ties_too_often():
    rows = np.tile(np.array([[1, 0]], dtype=np.float32), (5, 1))
    point = score_verification(rows, ["a", "a", "b", "c", "d"], ["0.5"]).points[0]
    assert (point.tar, point.threshold, point.far) == (0, None, 0)
    assert point.to_dict() == {
        "tar": 0,
        "threshold": None,
        "far": 0,
        "genuine": 1,
        "impostor": 9,
    }


def test_target_is_the_fraction_that_its_text_says():
    # 100 impostor pairs: as floats 0.29 · 100 and 0.57 · 100 are a little under 29 and 57.
    rows = on_one_axis([0.9, *np.linspace(0.1, 0.8, 50)])
    identities = ["a", "a", *[""] * 50]
    for text in ["0.29", "29e-2", "0.57", "0.01", "0.295"]:
        point = score_verification(rows, identities, [text]).points[0]
        assert point.impostor == 100
        assert point.accepted_impostor == int(100 * Fraction(text))
    assert score_verification(rows, identities, ["0.00999999999999999999"]).points[0].tar is None


@given(clips=CLIPS)
@examples(250)
def test_equals_the_naive_twin_with_many_ties(clips):
    rows = as_rows([row for row, _ in clips])
    check_against_oracle(rows, [who for _, who in clips], FARS)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_naive_twin_in_the_last_bit(seed):
    # Scores that differ in the lower half of the key alone, on both sides of zero.
    rng = np.random.default_rng(seed)
    ulps = rng.integers(0, 12, 24)
    scores = np.float32(0.5) + ulps.astype(np.float32) * np.float32(2**-24)
    if seed % 2:
        scores = -scores
    rows = on_one_axis(scores)
    identities = ["ann", *rng.choice(["ann", ""], 24, p=[0.2, 0.8]).tolist()]
    genuine, impostor = [], []
    values = rows[:, 0]
    for i in range(25):
        for j in range(i):
            score = float(values[i] * values[j])  # the one product that isn't zero
            if identities[i] == identities[j] == "ann":
                genuine.append(score)
            elif identities[i] or identities[j]:
                impostor.append(score)
    result = score_verification(rows, identities, ["0.2", "0.1", "0.05"])
    assert len(set(impostor)) > 8
    for point in result.points:
        expected = oracles.tar_at_far(genuine, impostor, Fraction(point.target_far))
        ours = (point.tar, point.threshold, point.accepted_genuine, point.accepted_impostor)
        assert ours == expected


def test_equals_sklearn_roc_curve():
    rows, identities = tied_clips()
    genuine, impostor, _ = oracles.pair_scores(rows.tolist(), identities)
    fpr, tpr, thresholds = roc_curve(
        [1] * len(genuine) + [0] * len(impostor), genuine + impostor, drop_intermediate=False
    )
    accepted = np.rint(fpr * len(impostor))
    for point in score_verification(rows, identities, ["0.5", "1e-1", "1e-2", "1e-3"]).points:
        honours = np.flatnonzero(accepted <= Fraction(point.target_far) * len(impostor))
        assert point.tar == pytest.approx(tpr[honours].max(), abs=1e-12)
        assert point.threshold == thresholds[honours].min()


def test_random_scores_equal_the_naive_twin():
    rng = np.random.default_rng(3)
    who = rng.integers(0, 15, 80)
    rows = rng.standard_normal((15, 24))[who] + rng.standard_normal((80, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    identities = ["" if i == 0 else f"id{i}" for i in who]
    genuine, impostor, _ = oracles.pair_scores(rows.tolist(), identities)
    scores = np.sort(genuine + impostor)
    for point in score_verification(rows, identities, ["1e-1", "1e-2", "1e-3"]).points:
        expected = oracles.tar_at_far(genuine, impostor, Fraction(point.target_far))
        # Rounding moves a score by 1e-6 at most, and no neighbour of this threshold is so near.
        assert np.sort(np.abs(scores - expected[1]))[1] > 1e-6
        assert point.threshold == pytest.approx(expected[1], abs=1e-6)
        assert (point.accepted_genuine, point.accepted_impostor) == expected[2:]


@pytest.mark.parametrize("memory_bytes", [48, 48 * 7**2, 48 * 30**2, 48 * 89**2])
def test_result_is_independent_of_the_block_size(memory_bytes):
    rows, identities = tied_clips()
    whole = score_verification(rows, identities, ["0.5", "1e-1", "1e-2", "1e-3"])
    fars = [point.target_far for point in whole.points]
    assert score_verification(rows, identities, fars, memory_bytes=memory_bytes) == whole
    assert len({point.threshold for point in whole.points}) > 2


def test_result_is_independent_of_the_order_of_clips():
    rows, identities = tied_clips(seed=5)
    whole = check_against_oracle(rows, identities, FARS)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(rows))
        shuffled = score_verification(rows[order], [identities[i] for i in order], FARS)
        assert shuffled == whole


def test_a_clip_without_a_descriptor_scores_minus_one_and_still_counts():
    # ann's second clip has no descriptor: of her three pairs, two can't be found.
    rows = np.array([[1, 0], [0, 0], [1, 0], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
    identities = ["ann", "ann", "ann", "bob", "cy", "dee"]
    result = check_against_oracle(rows, identities, ["0.1", "1"])
    strict, all_of_them = result.points
    assert (strict.genuine, strict.impostor) == (3, 12)
    assert (strict.tar, strict.threshold) == (1 / 3, 1)
    assert (all_of_them.tar, all_of_them.threshold, all_of_them.far) == (1, -1, 1)
    # Among orthogonal people a zero product would be a tie with strangers, and −1 is not.
    rows = np.eye(4, dtype=np.float32)
    rows[3] = 0
    point = score_verification(rows, ["a", "b", "c", "a"], ["0.6"]).points[0]
    assert (point.tar, point.threshold, point.accepted_impostor) == (0, 0, 3)


def test_two_distractors_are_no_pair_but_one_is_an_impostor():
    rows = np.tile(np.array([[1, 0]], dtype=np.float32), (5, 1))
    result = score_verification(rows, ["", "ann", "", "ann", ""], ["1"])
    assert (result.genuine_pairs, result.impostor_pairs) == (1, 6)
    assert result.distractor_pairs_left_out == 3
    assert result.points[0].accepted_impostor == 6


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_clips_for_a_pair(n):
    result = score_verification(np.eye(n, 4, dtype=np.float32), ["ann"] * n)
    assert (result.genuine_pairs, result.impostor_pairs) == (0, 0)
    assert [point.target_far for point in result.points] == list(DEFAULT_FARS)
    needs = [point.needs_impostor_pairs for point in result.points]
    assert needs == [10, 100, 1000, 10_000, 100_000, 1_000_000]
    assert result.to_dict()["tar_at_far"]["1e-6"] == {
        "tar": None,
        "needs_impostor_pairs": 1_000_000,
    }


def test_no_genuine_pair_has_no_figure():
    check_against_oracle(np.eye(6, dtype=np.float32), list("abcdef"), ["0.1", "0.01"])


def test_scores_are_clipped():
    rows = np.array([[1.0005, 0], [1.0005, 0], [1.0005, 0], [-1.0005, 0]], dtype=np.float32)
    result = score_verification(rows, ["a", "a", "b", "c"], ["1", "0.5", "0.3"])
    assert [point.threshold for point in result.points] == [-1, 1, None]


def test_memory_is_bounded(monkeypatch):
    for module in (pairwise, rates):
        monkeypatch.setattr(module, "KEEP_AT_LEAST", 2**12)
    monkeypatch.setattr(pairwise, "_WAITING", 2**12)
    monkeypatch.setattr(pairwise, "_SAMPLE", 256)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    identities = [f"id{i % 300}" for i in range(3000)]
    budget = 2**22  # the pair matrix would be 36 MB
    tracemalloc.start()
    result = score_verification(rows, identities, ["1e-3"], memory_bytes=budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Beside the budget: sorted descriptors, identities, genuine scores, and arrays of 65,536 counts
    # (two histograms a worker, running sums and edges of them).
    assert peak < budget + 2**23
    assert result.points[0].accepted_impostor == result.impostor_pairs // 1000


def test_rounding_moves_only_pairs_beside_the_threshold():
    rows, identities = oracles_verification.random_clips(n=150, n_identities=20, seed=9)
    fars = ["0.3", "1e-1", "1e-2", "1e-3"]
    pairs, _ = oracles_verification.same_set(rows.tolist(), identities)
    scores = np.array([pair[0] for pair in pairs])
    whole = score_verification(rows, identities, fars)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(rows))
        memory = 48 * (seed + 2) ** 4 * passes_module.available_cores()
        other = score_verification(
            rows[order], [identities[i] for i in order], fars, memory_bytes=memory
        )
        for point, again in zip(whole.points, other.points, strict=True):
            assert point.threshold == pytest.approx(again.threshold, abs=1e-6)
            beside = np.count_nonzero(np.abs(scores - point.threshold) <= 2e-6)
            for kind in ("accepted_genuine", "accepted_impostor"):
                assert abs(getattr(point, kind) - getattr(again, kind)) <= beside
        assert whole.auc.value == pytest.approx(other.auc.value, abs=1e-6)
        assert whole.eer.threshold == pytest.approx(other.eer.threshold, abs=1e-6)


def test_torch_gives_the_same_figures():
    rows, identities = oracles_verification.random_clips(n=150, n_identities=20, seed=9)
    fars = ["0.3", "1e-1", "1e-2", "1e-3"]
    ours, torchs = (score_verification(rows, identities, fars, device=d) for d in (None, "cpu"))
    for point, again in zip(ours.points, torchs.points, strict=True):
        assert point.threshold == pytest.approx(again.threshold, abs=1e-6)
        assert (point.accepted_genuine, point.accepted_impostor) == (
            again.accepted_genuine,
            again.accepted_impostor,
        )
    assert ours.eer.value == torchs.eer.value
    assert ours.auc.value == pytest.approx(torchs.auc.value, abs=1e-9)


def test_two_sets_by_eye():
    gallery = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    probes = np.array([[0.8, 0.6], [0, 0], [0.6, 0.8]], dtype=np.float32)
    result = score_cross_verification(
        gallery, ["ann", "bob", ""], probes, ["ann", "bob", ""], ["1", "0.5", "0.2"]
    )
    # Genuine: ann 0.8, bob −1. Impostors: ann–bob −1, bob–ann 0.6, both with "" 0.6 and 0.8, the
    # distractor with ann 0.6 and bob −1. Two distractors are left out.
    assert (result.genuine_pairs, result.impostor_pairs) == (2, 6)
    assert result.distractor_pairs_left_out == 1
    everything, half, fifth = result.points
    assert (everything.tar, everything.threshold) == (1, -1)
    assert (half.tar, half.far, half.threshold) == (0.5, 1 / 6, np.float32(0.8))
    assert (fifth.tar, fifth.far) == (0.5, 1 / 6)
    assert result.auc.value == pytest.approx((5.5 + 1) / 12)
    assert str(result) == "Verification(3 targets, 2 genuine and 6 impostor pairs)"


@pytest.mark.parametrize("n", [0, 1])
def test_two_sets_that_are_too_small(n):
    result = score_cross_verification(
        np.zeros((0, 4), np.float32), [], np.eye(n, 4, dtype=np.float32), ["ann"] * n
    )
    assert (result.genuine_pairs, result.impostor_pairs) == (0, 0)
    document = result.to_dict()
    assert (document["eer"], document["auc"]) == (None, None)


def test_results_compare_by_their_figures():
    rows, identities = tied_clips()
    a, b = (score_verification(rows, identities, ["0.5"]) for _ in range(2))
    assert a == b
    assert a != score_verification(rows, identities, ["0.4"])
    assert a.convention == "step"
    nearest = score_verification(rows, identities, ["0.5"], convention="nearest")
    assert "may exceed the target" in nearest.to_dict()["convention_means"]
    assert isinstance(nearest, Verification)


def test_caller_array_is_read_only_to_us():
    rows, identities = tied_clips()
    rows.flags.writeable = False
    score_verification(rows, identities)


@pytest.mark.parametrize(
    ("fars", "message"),
    [
        (["0"], "decimal text in"),
        (["1.1"], "decimal text in"),
        (["-1e-3"], "decimal text in"),
        (["1/0"], "decimal text in"),
        (["often"], "'often'"),
        ([0.1], "got 0.1"),
        (["nan"], "'nan'"),
        ("1e-3", "a list of decimal texts"),
        (["1e-3", "1e-3"], "listed twice"),
    ],
)
def test_targets_are_checked(fars, message):
    with pytest.raises(VidfaceError, match=message):
        score_verification(np.eye(3, dtype=np.float32), ["a", "a", "b"], fars)


def test_other_input_is_checked():
    rows = np.eye(3, dtype=np.float32)
    with pytest.raises(VidfaceError, match="2 for 3 rows"):
        score_verification(rows, ["a", "b"])
    with pytest.raises(VidfaceError, match=r"identities\[1\] is None"):
        score_verification(rows, ["a", None, "b"])
    with pytest.raises(VidfaceError, match="memory_bytes"):
        score_verification(rows, ["a", "a", "b"], memory_bytes=10)
    with pytest.raises(VidfaceError, match="has norm 2"):
        score_verification(2 * rows, ["a", "a", "b"])
    with pytest.raises(VidfaceError, match=r"unknown convention 'closest' \(known: step, nearest"):
        score_verification(rows, ["a", "a", "b"], convention="closest")
    with pytest.raises(VidfaceError, match="device 'abacus'"):
        score_verification(rows, ["a", "a", "b"], device="abacus")


def test_input_of_two_sets_is_checked():
    rows = np.eye(3, dtype=np.float32)
    names = ["a", "b", "c"]
    with pytest.raises(VidfaceError, match="3 dimensions, the probes 2; make both with the same"):
        score_cross_verification(rows, names, np.eye(2, dtype=np.float32), ["a", "b"])
    with pytest.raises(VidfaceError, match="gallery_identities must have one entry"):
        score_cross_verification(rows, names[:2], rows, [*names, "d"])
    with pytest.raises(VidfaceError, match=r"^identities must have one entry"):
        score_cross_verification(rows, names, rows, names[:2])
    with pytest.raises(VidfaceError, match="gallery_descriptors"):
        score_cross_verification(2 * rows, names, rows, names)
    with pytest.raises(VidfaceError, match="unknown convention"):
        score_cross_verification(rows, names, rows, names, convention="")
    with pytest.raises(VidfaceError, match="listed twice"):
        score_cross_verification(rows, names, rows, names, ["0.5", "0.5"])


@pytest.mark.parametrize("keep", [2**22, 2**6])
def test_on_a_gpu_all_is_as_on_the_cpu(monkeypatch, keep):
    """Products of these rows are exact, so figures must be equal to the last tie."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from vidface.metrics import pairwise, rates

    for module in (pairwise, rates):
        monkeypatch.setattr(module, "KEEP_AT_LEAST", keep)
    rows, identities = tied_clips(n=900, n_identities=80)
    for side in (passes_module.LARGEST_ACCELERATOR_BLOCK, 101):
        monkeypatch.setattr(passes_module, "LARGEST_ACCELERATOR_BLOCK", side)
        there = score_verification(rows, identities, FARS, device="cuda", exact=True)
        here = score_verification(rows, identities, FARS, exact=True)
        assert there == here
