"""Curves of scores: against counts made one pair at a time, and the score file's own figures."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budgets import examples
from vidface.metrics.bands import Draws
from vidface.metrics.curves import (
    at_rank,
    cmc_block,
    histogram_block,
    identification_block,
    listed_ranks,
    precision_recall,
    retrieval_block,
    roc_block,
    thin,
    verification_block,
)
from vidface.metrics.roc import Curve
from vidface.metrics.uncertainty import Bootstrap
from vidface.metrics.verification import score_verification

FARS = ["0.5", "1e-1", "1e-2"]


def people(n_people, clips_each, *, spread=0.8, seed=0, dimension=16):
    """Unit descriptors of so many people."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(n_people, dimension))
    rows = np.repeat(centres, clips_each, axis=0)
    rows = rows + spread * generator.normal(size=rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"p{i // clips_each}" for i in range(n_people * clips_each)]
    return rows.astype(np.float32), names


def quarters(n, *, lost=0, seed=0):
    """Unit rows of four halves, whose products are quarters: exact however they are summed."""
    generator = np.random.default_rng(seed)
    rows = np.zeros((n, 6), dtype=np.float32)
    for row in rows[: n - lost]:
        row[generator.permutation(6)[:4]] = generator.choice([-0.5, 0.5, 0.5], 4)
    return rows, [f"p{i // 4}" for i in range(n)]


def counted(rows, names, threshold):
    """Accepted genuine and impostor pairs, one pair at a time."""
    found = [0, 0]
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            lost = not rows[i].any() or not rows[j].any()
            score = -1.0 if lost else float(np.clip(rows[i] @ rows[j], -1, 1))
            if score >= threshold:
                found[0 if names[i] == names[j] else 1] += 1
    return found


def curve_of(genuine, impostor):
    """The curve of two lists of scores, at each of them."""
    scores = np.unique([*genuine, *impostor])[::-1]
    counts = [[sum(s >= t for s in of) for t in scores] for of in (genuine, impostor)]
    return Curve(scores, *map(np.array, counts), len(genuine), len(impostor))


# Verification


def test_every_listed_point_is_exact():
    rows, names = quarters(24, lost=2)
    found = verification_block(score_verification(rows, names, FARS))
    roc = found["roc"]
    assert roc["threshold"][0] is None
    assert (roc["accepted_genuine"][0], roc["accepted_impostor"][0]) == (0, 0)
    for i, threshold in enumerate(roc["threshold"][1:], start=1):
        assert [roc["accepted_genuine"][i], roc["accepted_impostor"][i]] == counted(
            rows, names, threshold
        )
    assert (roc["far"][-1], roc["tar"][-1], roc["frr"][-1]) == (1, 1, 0)


def test_a_curve_that_can_be_drawn_by_eye():
    # genuine 0.9, 0.5; impostor 0.7, 0.5: up, right, and one diagonal where they tie.
    found = roc_block(curve_of([0.9, 0.5], [0.7, 0.5]))
    assert found["threshold"] == [None, 0.9, 0.7, 0.5]
    assert found["far"] == [0, 0, 0.5, 1]
    assert found["tar"] == [0, 0.5, 0.5, 1]
    assert found["frr"] == [1, 0.5, 0.5, 0]
    assert found["source"].startswith("every observed score")
    assert found["points_before_thinning"] == 4
    assert found["largest_shift"] == 0


@pytest.mark.parametrize("most", [20, 60])
def test_a_thinned_curve_stays_where_it_was(most):
    rows, names = people(30, 6)
    scored = score_verification(rows, names, FARS)
    whole = roc_block(scored.curve, scored.points, most=10**6)
    found = roc_block(scored.curve, scored.points, most=most)
    assert most - 2 <= len(found["far"]) <= most + len(FARS)
    assert found["points_before_thinning"] > 1000
    kept = set(zip(found["accepted_impostor"], found["accepted_genuine"], strict=True))
    assert kept <= set(zip(whole["accepted_impostor"], whole["accepted_genuine"], strict=True))
    half = 0.5 / scored.impostor_pairs

    def axis(far):
        return np.log10(np.maximum(far, half)) / -math.log10(half)

    # Every point of the whole curve lies as near to the thinned polyline as the file says.
    line = np.stack([axis(found["far"]), found["tar"]], axis=1)
    for x, y in zip(axis(whole["far"]), whole["tar"], strict=True):
        a, b = line[:-1], line[1:]
        along = b - a
        share = ((np.array([x, y]) - a) * along).sum(1) / np.maximum((along**2).sum(1), 1e-30)
        near = a + np.clip(share, 0, 1)[:, None] * along
        distance = np.sqrt(((near - [x, y]) ** 2).sum(1)).min()
        assert distance <= found["largest_shift"] + 1e-9
    assert found["largest_shift"] < 1 / most


def test_the_operating_points_stay():
    rows, names = people(40, 5, spread=1.2)
    scored = score_verification(rows, names, FARS)
    found = roc_block(scored.curve, scored.points, most=2)
    listed = list(zip(found["threshold"], found["far"], found["tar"], strict=True))
    for point in scored.points:
        assert (point.threshold, point.far, point.tar) in listed
    assert len(listed) == 2 + len(scored.points)


def test_the_curve_of_a_large_split_is_read_at_bin_edges():
    from vidface.metrics.blocks import bin_edges

    edges = bin_edges(2**16).astype(float)[20_000:50_000:3][::-1]
    n = len(edges)
    curve = Curve(edges, np.arange(1, n + 1), np.arange(1, n + 1) * 9, n, 9 * n)
    assert "edges of the histogram's 65536 bins" in roc_block(curve)["source"]
    coarse = Curve(bin_edges(2**13)[100:200][::-1].astype(float), np.arange(1, 101),
                   np.arange(1, 101) * 900, 100, 90_000)  # fmt: skip
    assert "8192 bins" in roc_block(coarse)["source"]


def test_points_carry_the_score_files_intervals():
    rows, names = people(12, 4, spread=1.2)
    scored = score_verification(rows, names, [*FARS, "1e-9"], bootstrap=Bootstrap(50))
    found = verification_block(scored)
    document = scored.to_dict()["tar_at_far"]
    assert [point["target_far"] for point in found["points"]] == FARS  # 1e-9 has no figure
    for point in found["points"]:
        own = document[point["target_far"]]
        assert {key: point[key] for key in own} == own
        assert point["frr"] == 1 - own["tar"]
        assert point["frr_ci95"] == [1 - own["ci95"][1], 1 - own["ci95"][0]]
    assert found["eer"] == scored.to_dict()["eer"]
    assert found["pairs"] == {"genuine": scored.genuine_pairs, "impostor": scored.impostor_pairs}
    without = verification_block(score_verification(rows, names, FARS))
    assert [point["ci95"] for point in without["points"]] == [None] * 3
    assert [point["frr_ci95"] for point in without["points"]] == [None] * 3


def test_no_pairs_no_block():
    assert verification_block(score_verification(np.eye(2, dtype=np.float32), ["a", "b"])) is None


def test_histograms_count_every_pair():
    # width 1/64: 0.5 begins a bin, 0.4999 lies in the one before it
    found = histogram_block(curve_of([0.5, 0.51, 0.4999], [-1.0, 0.5, 0.5]))
    edges = np.array(found["edges"])
    assert np.allclose(np.diff(edges), 1 / 64)
    assert (edges[0], edges[-1]) == (-1, 0.5 + 1 / 64)
    at = list(edges).index(0.5)
    assert (found["genuine"][at], found["impostor"][at], found["genuine"][at - 1]) == (2, 2, 1)
    assert (found["impostor"][0], sum(found["genuine"]), sum(found["impostor"])) == (1, 3, 3)
    assert found["genuine_share"][at] == 2 / 3


@examples(40)
@given(st.lists(st.integers(-64, 64), min_size=1, max_size=30),
       st.lists(st.integers(-64, 64), min_size=1, max_size=30))  # fmt: skip
def test_histograms_against_numpy(genuine, impostor):
    genuine, impostor = (np.array(of) / 64 for of in (genuine, impostor))
    found = histogram_block(curve_of(genuine, impostor))
    edges = np.array(found["edges"])
    for name, scores in (("genuine", genuine), ("impostor", impostor)):
        clipped = np.minimum(scores, 1 - 1e-6)  # 1 lies in the last bin
        assert found[name] == np.histogram(clipped, edges)[0].tolist()
        assert sum(found[name]) == len(scores)


# Thinning


@examples(60)
@given(st.integers(0, 40), st.integers(2, 12), st.integers(0, 2**31))
def test_thinning_keeps_ends_and_what_stays_and_says_how_far_the_rest_lies(n, most, seed):
    generator = np.random.default_rng(seed)
    places = np.cumsum(generator.random((n, 2)), axis=0)
    stays = generator.random(n) < 0.1
    kept, shift = thin(places, stays, most)
    assert (np.diff(kept) > 0).all()
    if n == 0:
        assert len(kept) == 0
        return
    must = {0, n - 1, *np.flatnonzero(stays).tolist()}
    assert must <= set(kept.tolist())
    assert len(kept) <= max(most, len(must))
    farthest = 0.0
    for a, b in itertools.pairwise(kept):
        for place in places[a + 1 : b]:
            along = places[b] - places[a]
            share = min(1, max(0, (place - places[a]) @ along / (along @ along)))
            farthest = max(farthest, np.linalg.norm(places[a] + share * along - place))
    assert shift == pytest.approx(farthest, abs=1e-12)


def test_thinning_a_line_that_goes_back_on_itself():
    places = np.array([[0.0, 0], [1, 0], [0, 0]])  # the ends are one point
    kept, shift = thin(places, np.zeros(3, dtype=bool), 3)
    assert kept.tolist() == [0, 1, 2]
    assert shift == 0


def test_a_point_beyond_the_ends_is_as_far_as_the_nearer_end():
    places = np.array([[0.0, 0], [3, 0], [1, 0]])
    kept, shift = thin(places, np.zeros(3, dtype=bool), 2)
    assert (kept.tolist(), shift) == ([0, 2], 2.0)


# Retrieval


HITS = [np.array([1, 4]), np.array([], dtype=int), np.array([2, 3, 5])]
POSITIVES = np.array([2, 3, 4])


def slow_precision(ranks, total, recall):
    """The highest precision of a list at any recall of at least so much."""
    reached = [j / rank for j, rank in enumerate(ranks, 1) if j * 100 >= recall * total]
    return max(reached, default=0.0)


def test_precision_at_each_recall_one_by_one():
    found = precision_recall(HITS, POSITIVES, 5)
    assert found["recall"] == [i / 100 for i in range(101)]
    for i, value in enumerate(found["precision"]):
        expected = [slow_precision(r, t, i) for r, t in zip(HITS, POSITIVES, strict=True)]
        assert value == pytest.approx(np.mean(expected), abs=1e-15)
    # by eye: at recall ½ the first list has 1, the second nothing, the third 2/3 at rank 3, 3/5
    assert found["precision"][50] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert found["precision"][100] == pytest.approx((2 / 4) / 3)
    assert found["low"] is found["high"] is None


def test_precision_and_recall_at_each_rank():
    found = at_rank(HITS, POSITIVES, 5)
    for r in range(1, 6):
        hits = [np.count_nonzero(ranks <= r) for ranks in HITS]
        assert found["precision"][r - 1] == pytest.approx(np.mean([h / r for h in hits]))
        assert found["recall"][r - 1] == pytest.approx(np.mean(hits / POSITIVES))
    assert found["rank"] == [1, 2, 3, 4, 5]


def retrieval(hit_ranks, replicates=None):
    """As much of a `Retrieval` as the curves look at."""
    table = tuple({"positives": int(total)} for total in POSITIVES)
    return SimpleNamespace(k=5, identities=3, map_at_k=0.4, table=table, hit_ranks=hit_ranks,
                           replicates=replicates)  # fmt: skip


def test_the_block_of_retrieval():
    found = retrieval_block(retrieval(HITS))
    assert (found["k"], found["identities"], found["map"], found["ci95"]) == (5, 3, 0.4, None)
    assert found["precision_recall"] == precision_recall(HITS, POSITIVES, 5)
    assert retrieval_block(retrieval(())) is None


def test_the_band_is_of_the_draws_of_the_score():
    bootstrap = Bootstrap(200, seed=3)
    found = precision_recall(HITS, POSITIVES, 5, Draws(bootstrap))
    table = np.array(
        [
            [slow_precision(r, t, i) for i in range(101)]
            for r, t in zip(HITS, POSITIVES, strict=True)
        ]
    )
    means = np.array([bootstrap.weights(r, 3) @ table / 3 for r in range(200)])
    assert found["low"] == pytest.approx(np.quantile(means, 0.025, axis=0))
    assert found["high"] == pytest.approx(np.quantile(means, 0.975, axis=0))
    assert "resampled" in found["note"]


# Identification


def test_cmc_by_eye():
    ranks = np.array([1, 0, 3, 1])  # a miss among them
    found = cmc_block(ranks, np.array([0, 0, 1, 2]), 3, 4)
    assert found == {"rank": [1, 2, 3, 4], "value": [0.5, 0.5, 0.75, 0.75], "low": None,
                     "high": None}  # fmt: skip


def test_the_band_of_cmc_leaves_out_draws_without_a_probe():
    bootstrap = Bootstrap(300, seed=1)
    ranks, units, n = np.array([1, 2]), np.array([0, 1]), 3  # the third person has no mated probe
    found = cmc_block(ranks, units, n, 2, Draws(bootstrap))
    values = []
    for r in range(300):
        weights = bootstrap.weights(r, n)
        if weights[:2].sum():
            values.append([weights[0] / weights[:2].sum(), 1.0])
    assert found["low"] == pytest.approx(np.quantile(values, 0.025, axis=0))
    assert found["high"] == pytest.approx(np.quantile(values, 0.975, axis=0))


def test_no_band_where_too_many_draws_have_no_figure():
    # one of 30 people has the only probe: a third of the draws leave it out
    found = cmc_block(np.array([1]), np.array([0]), 30, 2, Draws(Bootstrap(100)))
    assert found["low"] is found["high"] is None


@pytest.mark.parametrize("gallery", [0, 1, 19, 20, 21, 1000, 10_034])
def test_ranks_that_are_listed(gallery):
    ranks = listed_ranks(gallery)
    assert (np.diff(ranks) > 0).all()
    assert ranks.tolist()[: min(gallery, 20)] == list(range(1, min(gallery, 20) + 1))
    assert len(ranks) <= 80
    if gallery:
        assert ranks[-1] == gallery
        assert (ranks[1:] <= ranks[:-1] * 1.2 + 1).all()


def test_the_block_of_identification():
    point = SimpleNamespace(target_fpir="1e-1", tpir=0.0, to_dict=lambda: {"tpir": 0.0})
    none = SimpleNamespace(target_fpir="1e-3", tpir=None)
    ranked = SimpleNamespace(ranks=np.array([1, 2]), units=np.array([0, 1]), n_units=2)
    found = SimpleNamespace(mated=2, gallery_identities=3, points=(point, none), ranked=ranked)
    block = identification_block(found)
    assert block["open_set"] == [{"target_fpir": "1e-1", "ci95": None, "tpir": 0.0}]
    assert block["cmc"]["value"] == [0.5, 1.0, 1.0]
    nobody = SimpleNamespace(mated=0, gallery_identities=3, points=(), ranked=ranked)
    assert identification_block(nobody) is None


def test_draws_are_kept_and_the_same_again():
    draws = Draws(Bootstrap(130, seed=5))
    first = np.concatenate(list(draws.batches(7)))
    again = np.concatenate(list(draws.batches(7)))
    expected = [Bootstrap(130, seed=5).weights(r, 7) for r in range(130)]
    assert np.array_equal(first, expected)
    assert np.array_equal(again, expected)
    assert np.concatenate(list(draws.batches(3))).shape == (130, 3)
