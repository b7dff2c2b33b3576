import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import oracles_verification as oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics import pairwise
from vidface.metrics import passes as passes_module
from vidface.metrics.blocks import bin_of
from vidface.metrics.inputs import identity_codes
from vidface.metrics.pair_sets import make_pairs
from vidface.metrics.pairwise import (
    KEEP_ALL,
    PairCounts,
    collect,
    count_pairs,
    gathered,
    guess_floor,
    impostors_below,
)
from vidface.metrics.passes import BYTES_PER_PAIR, Passes
from vidface.metrics.rates import Rates
from vidface.vectors.descriptors import check_descriptors

SETS = oracles.tied_sets()
SIDES = st.sampled_from([1, 2, 3, 5, 100])


def pairs_of(one, other=None):
    rows, directed = check_descriptors(one[0])
    if other is None:
        codes = identity_codes(one[1], len(rows), "identities")
        return make_pairs(rows, directed, codes, int(codes.max(initial=-1)) + 1)
    rows_2, directed_2 = check_descriptors(other[0])
    codes = identity_codes([*one[1], *other[1]], len(rows) + len(rows_2), "identities")
    second = rows_2, directed_2, codes[len(rows) :]
    return make_pairs(rows, directed, codes[: len(rows)], int(codes.max(initial=-1)) + 1, second)


def naive(one, other=None):
    """(pairs with their scores, of which both clips have a descriptor; all pairs; left out)."""
    if other is None:
        rows, names = one
        pairs, left_out = oracles.same_set(rows.tolist(), names)
        has = [any(row) for row in rows.tolist()]
        both = [(i, j) for i in range(len(names)) for j in range(i) if names[i] or names[j]]
        return (
            [p for p, (i, j) in zip(pairs, both, strict=True) if has[i] and has[j]],
            pairs,
            left_out,
        )
    pairs, left_out = oracles.two_sets(one[0].tolist(), one[1], other[0].tolist(), other[1])
    has, has_2 = ([any(row) for row in side[0].tolist()] for side in (one, other))
    both = [(i, j) for i in range(len(has)) for j in range(len(has_2)) if one[1][i] or other[1][j]]
    return (
        [p for p, (i, j) in zip(pairs, both, strict=True) if has[i] and has_2[j]],
        pairs,
        left_out,
    )


def memory_for(side):
    return BYTES_PER_PAIR * side * side * passes_module.available_cores()


def passes_of(one, other=None, side=100, **kwargs):
    return Passes(pairs_of(one, other), memory_for(side), **kwargs)


def as_multisets(counts):
    """The lists of `PairCounts` without their order."""
    genuine = Counter(zip(counts.genuine.tolist(), counts.genuine_units.tolist(), strict=True))
    impostor = Counter(
        (score, frozenset(units))
        for score, *units in zip(
            counts.impostor.tolist(), *counts.impostor_units.tolist(), strict=True
        )
    )
    return genuine, impostor


def check_counts(counts, measured, bins):
    """A `PairCounts` against naive pairs: all of it, down to its floor."""
    scores = np.array([p[0] for p in measured], dtype=np.float32)
    same = np.array([p[1] for p in measured], dtype=bool)
    for row, chosen in enumerate((scores, scores[same])):
        expected = np.bincount(bin_of(chosen, bins), minlength=bins)
        assert np.array_equal(counts.histogram[row], expected)
    genuine, impostor = as_multisets(counts)
    if counts.genuine_complete:
        assert genuine == Counter((s, a) for s, is_same, a, b in measured if is_same)
    else:
        assert not genuine
    assert impostor == Counter(
        (s, frozenset((a, b))) for s, is_same, a, b in measured if not is_same and s > counts.floor
    )
    for listed in (counts.genuine, counts.impostor):
        assert (np.diff(listed) <= 0).all()
        assert listed.dtype == np.float32


@pytest.fixture
def split():
    return oracles.tied_clips(n=60, n_identities=7, seed=2)


def test_units_by_eye():
    rows = np.array([[1, 0], [0, 1], [0, 0], [-1, 0], [0, -1]], dtype=np.float32)
    pairs = pairs_of((rows, ["bob", "", "ann", "ann", ""]))
    assert pairs.first.units.tolist() == [0, 1, 2, 3]
    assert pairs.first.rows.tolist() == [[-1, 0], [1, 0], [0, 1], [0, -1]]
    assert pairs.first.n_labelled == 2
    assert pairs.first.sizes.tolist() == [1, 1, 1, 1]
    assert pairs.first.all_sizes.tolist() == [2, 1, 1, 1]
    assert str(pairs.first) == "Side(rows (4, 2) float32, 2 labelled)"
    # ann–ann; ann–bob twice, three labelled clips with two distractors.
    assert (pairs.genuine, pairs.impostor, pairs.left_out) == (1, 8, 1)
    assert pairs.measured() == (0, 5)
    # Distractors of a second set are other units.
    pairs = pairs_of((rows, ["bob", "", "ann", "ann", ""]), (rows[:2], ["ann", ""]))
    assert pairs.second.units.tolist() == [0, 4]
    assert (pairs.genuine, pairs.impostor, pairs.left_out) == (2, 1 + 3 + 2, 2)


@given(one=SETS, other=SETS, cross=st.booleans(), data=st.data())
@examples(150)
def test_totals_equal_the_naive_twin(one, other, cross, data):
    other = other if cross else None
    pairs = pairs_of(one, other)
    measured, everything, left_out = naive(one, other)
    assert (pairs.genuine, pairs.impostor) == tuple(map(len, oracles.split(everything)))
    assert pairs.measured() == tuple(map(len, oracles.split(measured)))
    assert pairs.left_out == left_out
    weights = data.draw(st.lists(st.integers(0, 3), min_size=pairs.n_units, max_size=pairs.n_units))
    if cross:
        drawn = oracles.resampled_two_sets(
            one[0].tolist(), one[1], other[0].tolist(), other[1], weights
        )
    else:
        drawn = oracles.resampled_same_set(one[0].tolist(), one[1], weights)
    assert pairs.totals(np.array(weights, np.int64)) == tuple(map(len, oracles.split(drawn)))


@given(one=SETS, other=SETS, cross=st.booleans(), side=SIDES)
@examples(100)
def test_blocks_hold_each_pair_once(one, other, cross, side):
    pairs = pairs_of(one, other if cross else None)
    first, columns = pairs.first, pairs.columns
    seen, genuine_seen = Counter(), Counter()
    for rows, cols in pairs.blocks(side):
        assert 0 < rows.stop - rows.start <= side
        assert 0 < cols.stop - cols.start <= side
        index, units = pairs.genuine_of(rows, cols)
        width = cols.stop - cols.start
        genuine_seen.update(
            (rows.start + i // width, cols.start + i % width, u)
            for i, u in zip(index.tolist(), units.tolist(), strict=True)
        )
        for i in range(rows.start, rows.stop):
            for j in range(cols.start, cols.stop):
                if cross or j > i:
                    seen[i, j] += 1
    k = pairs.n_identities
    units, units_2 = first.units.tolist(), columns.units.tolist()
    wanted = [
        (i, j)
        for i in range(len(units))
        for j in range(0 if cross else i + 1, len(units_2))
        if units[i] < k or units_2[j] < k
    ]
    assert seen == Counter(wanted)
    assert genuine_seen == Counter((i, j, units[i]) for i, j in wanted if units[i] == units_2[j])


@given(one=SETS, other=SETS, cross=st.booleans(), side=SIDES, bins=st.sampled_from([2, 8, 2**16]))
@example(
    one=(np.zeros((0, 16), np.float32), []), other=(np.zeros((0, 16), np.float32), []),
    cross=False, side=1, bins=2,
)  # fmt: skip
@examples(100)
def test_counts_equal_the_naive_twin(one, other, cross, side, bins):
    other = other if cross else None
    counts = count_pairs(passes_of(one, other, side), 10, bins=bins)
    assert counts.complete
    assert counts.floor == KEEP_ALL
    check_counts(counts, naive(one, other)[0], bins)


@given(
    one=SETS,
    other=SETS,
    cross=st.booleans(),
    keep=st.integers(1, 9),
    floor=st.sampled_from([None, KEEP_ALL, -1.0, 0.0, 0.25, 0.3, 1.0]),
    limit=st.sampled_from([0, 2**26]),
    waiting=st.sampled_from([0, 5, 2**20]),
)
@examples(250)
def test_short_lists_are_whole_above_their_floor(one, other, cross, keep, floor, limit, waiting):
    other = other if cross else None
    measured, _, _ = naive(one, other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairwise, "KEEP_AT_LEAST", 1)
        patch.setattr(pairwise, "GENUINE_LIMIT", limit)
        patch.setattr(pairwise, "_WAITING", waiting)
        patch.setattr(pairwise, "_SAMPLE", 3)
        passes = passes_of(one, other, side=3)
        counts = count_pairs(passes, keep, floor=floor)
        guessed = guess_floor(passes, keep) if floor is None else floor
    assert counts.floor >= guessed
    assert counts.genuine_complete == (passes.pairs.genuine <= limit)
    check_counts(counts, measured, 2**16)


def test_compaction_drops_what_is_low_and_keeps_enough(split, monkeypatch):
    monkeypatch.setattr(pairwise, "_WAITING", 4)
    monkeypatch.setattr(passes_module, "available_cores", lambda: 1)
    # Scores that differ nearly all: rows on a circle.
    angles = np.random.default_rng(0).uniform(0, np.pi, 40)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    counts = count_pairs(passes_of((rows, list(map(str, range(40)))), side=8), 10, floor=KEEP_ALL)
    assert 10 <= len(counts.impostor) <= 2 * 10 + 4 + 64  # a block more, at most
    assert counts.floor > KEEP_ALL
    scores = np.sort([p[0] for p in naive((rows, list(map(str, range(40)))))[0]])[::-1]
    assert np.allclose(counts.impostor, scores[: len(counts.impostor)], atol=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_share_the_blocks(split, workers, monkeypatch):
    monkeypatch.setattr(passes_module, "available_cores", lambda: workers)
    monkeypatch.setattr(pairwise, "_WAITING", 8)
    passes = passes_of(split, side=4)
    assert passes.workers == workers
    assert passes.side == 4
    states = passes.each_block(lambda own, *_: own.append(1), lambda ops: [])
    assert len(states) == workers
    assert sum(map(len, states)) == len(list(passes.pairs.blocks(4)))
    check_counts(count_pairs(passes, 20, floor=KEEP_ALL), naive(split)[0], 2**16)


@pytest.mark.parametrize("keep", [1, 10, 100])
def test_what_is_listed_does_not_depend_on_the_workers(keep, monkeypatch):
    """However low the floor: what is listed are the highest scores, down to the same floor."""
    monkeypatch.setattr(pairwise, "KEEP_AT_LEAST", 1)
    monkeypatch.setattr(pairwise, "_WAITING", 8)
    one = oracles.tied_clips(n=120, n_identities=12, seed=4)
    falling = sorted((p[0] for p in naive(one)[0] if not p[1]), reverse=True)
    most = 2 * keep + 8
    assert len(falling) > 6 * most
    for workers in (1, 2, 5):
        monkeypatch.setattr(passes_module, "available_cores", lambda n=workers: n)
        passes = passes_of(one, side=8)
        parts = [count_pairs(passes, keep, floor=KEEP_ALL, part=(i, 3)) for i in range(3)]
        for counts in (count_pairs(passes, keep, floor=KEEP_ALL), gathered(parts, keep)):
            assert counts.floor == falling[most]  # which is exact in float32, as all scores are
            assert counts.impostor.tolist() == [s for s in falling if s > falling[most]]


def test_an_error_in_a_block_is_raised(split, monkeypatch):
    monkeypatch.setattr(passes_module, "available_cores", lambda: 3)
    import cv2

    before = cv2.getNumThreads()

    def broken(own, *_):
        raise VidfaceError("this block is bad")

    with pytest.raises(VidfaceError, match="this block is bad"):
        passes_of(split, side=4).each_block(broken, lambda ops: None)
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize("cross", [False, True])
def test_progress_tells_of_every_block(split, cross):
    told = []
    passes = passes_of(split, split if cross else None, side=7, progress=told.append)
    count_pairs(passes, 10)
    blocks = list(passes.pairs.blocks(7))
    assert len(told) == len(blocks)
    assert sum(told) == sum((r.stop - r.start) * (c.stop - c.start) for r, c in blocks)


@pytest.mark.parametrize("keep", [3, 10**6])
def test_parts_merge_to_the_whole_in_any_grouping(split, keep, monkeypatch):
    monkeypatch.setattr(pairwise, "KEEP_AT_LEAST", 1)
    monkeypatch.setattr(pairwise, "_WAITING", 8)
    measured = naive(split)[0]
    passes = passes_of(split, side=8)
    whole = count_pairs(passes, keep)
    assert whole.complete == (keep > 3)
    n = 6
    # Parts that were counted with other floors and other bins, as on other machines.
    floors = [None, KEEP_ALL, 0.25, None, -0.5, None]
    bins = [None, 2**13, 2**16, None, 2**13, None] if keep > 3 else [None] * n
    if keep > 3:
        floors = [None] * n
    parts = [
        count_pairs(passes, keep, part=(i, n), floor=floors[i], bins=bins[i]) for i in range(n)
    ]
    assert sum(p.histogram[0].sum() for p in parts) == len(measured)
    found = []
    for seed in range(6):
        rng = random.Random(seed)
        heap = list(parts)
        while len(heap) > 1:  # any two, until there is one
            rng.shuffle(heap)
            heap.append(PairCounts.joined([heap.pop(), heap.pop()]))
        found.append(heap[0])
        check_counts(heap[0], measured, 2**13 if keep > 3 else 2**16)
        assert heap[0].floor == max(p.floor for p in parts)
    assert len({p.floor for p in found}) == 1
    if keep > 3:
        assert np.array_equal(found[0].histogram, whole.coarser(2**13))
        assert as_multisets(found[0]) == as_multisets(whole)


def test_merging_by_eye():
    def counts(histogram, genuine, impostor, floor, complete=True):
        return PairCounts(
            np.array(histogram),
            np.array([s for s, _ in genuine], np.float32),
            np.array([u for _, u in genuine], np.int32),
            complete,
            np.array([s for s, *_ in impostor], np.float32),
            np.array([u for _, *u in impostor], np.int32).reshape(-1, 2).T.copy(),
            floor,
        )

    a = counts([[1, 2], [0, 1]], [(0.5, 3)], [(0.75, 1, 2), (0.25, 1, 3)], 0.0)
    b = counts(
        [[1, 0, 0, 5], [1, 0, 0, 1]], [(0.9, 4), (-0.9, 5)], [(0.8, 5, 6), (0.3, 5, 7)], 0.25
    )
    for merged in (PairCounts.joined((a, b)), PairCounts.joined((b, a))):
        assert merged.histogram.tolist() == [[2, 7], [1, 2]]
        assert merged.genuine.tolist() == np.array([0.9, 0.5, -0.9], np.float32).tolist()
        assert merged.genuine_units.tolist() == [4, 3, 5]
        assert merged.impostor.tolist() == np.array([0.8, 0.75, 0.3], np.float32).tolist()
        assert merged.impostor_units.tolist() == [[5, 1, 5], [6, 2, 7]]
        assert (merged.floor, merged.genuine_complete, merged.complete) == (0.25, True, False)
    short = counts([[0, 1], [0, 0]], [], [(0.75, 1, 2)], KEEP_ALL, complete=False)
    assert not short.complete
    for merged in (PairCounts.joined((a, short)), PairCounts.joined((short, a))):
        assert (merged.genuine_complete, len(merged.genuine), len(merged.genuine_units)) == (
            False,
            0,
            0,
        )
        assert merged.impostor.tolist() == [0.75, 0.75, 0.25]
    assert (
        str(a)
        == "PairCounts(histogram (2, 2), genuine (1,) float32, impostor (2,) float32 above 0)"
    )


@given(
    one=SETS, other=SETS, cross=st.booleans(), side=SIDES, waiting=st.sampled_from([0, 4, 2**20])
)
@examples(100)
def test_a_second_pass_collects_intervals(one, other, cross, side, waiting):
    other = other if cross else None
    measured = naive(one, other)[0]
    intervals = [(-1.0, -0.5), (-0.25, 0.5), (0.5, 2.0), (0.3, 0.3), (-1.0, 2.0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairwise, "_WAITING", waiting)
        found = collect(passes_of(one, other, side), intervals)
    assert len(found) == len(intervals)
    for (low, high), (scores, counts) in zip(intervals, found, strict=True):
        inside = [(s, same) for s, same, *_ in measured if low <= s < high]
        expected = sorted({s for s, _ in inside})
        assert scores.tolist() == expected
        assert not np.signbit(scores[scores == 0]).any()
        assert counts[0].tolist() == [sum(s == v for s, _ in inside) for v in expected]
        assert counts[1].tolist() == [sum(s == v and g for s, g in inside) for v in expected]


@given(one=SETS, other=SETS, cross=st.booleans(), side=SIDES, n=st.sampled_from([1, 3]))
@examples(100)
def test_a_second_pass_ranks_genuine_scores(one, other, cross, side, n):
    other = other if cross else None
    _, impostor = oracles.split(naive(one, other)[0])
    values = np.array([-1, -0.125, 0, 0.25, 0.3, 1], dtype=np.float32)
    passes = passes_of(one, other, side)
    found = sum(impostors_below(passes, values, part=(i, n)) for i in range(n))
    assert np.array_equal(found[0], [sum(s < v for s in impostor) for v in values])
    assert np.array_equal(found[1], [sum(s <= v for s in impostor) for v in values])


def test_the_floor_is_guessed_so_that_enough_lies_above(monkeypatch):
    split = oracles.random_clips()
    passes = passes_of(split)
    assert guess_floor(passes, 100) == KEEP_ALL  # so few pairs are all kept
    monkeypatch.setattr(pairwise, "KEEP_AT_LEAST", 1)
    _, impostor = oracles.split(naive(split)[0])
    impostor = np.array(impostor)
    for keep in (500, 5000):
        floor = guess_floor(passes, keep)
        assert 1.3 * keep < np.count_nonzero(impostor > floor) < 1.7 * keep
        assert guess_floor(passes, keep, margin=3) < floor
    n = passes.pairs.measured()[1]
    assert guess_floor(passes, n) == KEEP_ALL
    assert guess_floor(passes, int(n / 1.5) + 1) == KEEP_ALL
    assert guess_floor(passes, n // 2) > KEEP_ALL
    monkeypatch.setattr(pairwise, "_SAMPLE", 5)
    assert guess_floor(passes, 500) > KEEP_ALL


def test_the_floor_is_below_one_and_not_among_what_is_clipped_to_minus_one(monkeypatch):
    monkeypatch.setattr(pairwise, "KEEP_AT_LEAST", 1)
    same = np.tile(np.array([[1, 0]], np.float32), (9, 1))
    assert guess_floor(passes_of((same, list("abcdefghi"))), 1) < 1
    opposite = same.copy()
    opposite[1:] *= np.linspace(-1, -1.0009, 8, dtype=np.float32)[:, None]
    gallery, probes = (opposite[:1], ["a"]), (opposite[1:], list("bcdefghi"))
    passes = passes_of(gallery, probes)
    for keep in range(1, 9):
        counts = count_pairs(passes, keep)
        assert len(counts.impostor) in (0, 8)
        check_counts(counts, [(-1.0, False, 0, i) for i in range(1, 9)], 2**16)


def test_a_set_without_a_clip_to_sample(monkeypatch):
    monkeypatch.setattr(pairwise, "KEEP_AT_LEAST", 1)
    rows = np.eye(8, dtype=np.float32)
    passes = passes_of((rows, [""] * 8), (rows, list("abcdefgh")))  # rows without identity
    assert guess_floor(passes, 2) == KEEP_ALL
    assert len(count_pairs(passes, 2).impostor) == 64


def test_torch_counts_as_numpy_does(split, monkeypatch):
    monkeypatch.setattr(pairwise, "KEEP_AT_LEAST", 1)
    monkeypatch.setattr(pairwise, "_WAITING", 64)
    for other in (None, oracles.tied_clips(n=40, n_identities=9, seed=3)):
        measured = naive(split, other)[0]
        passes = passes_of(split, other, side=9, device="cpu")
        assert (passes.workers, passes.on_accelerator) == (1, False)
        for keep, floor in [(10**6, None), (20, None), (20, KEEP_ALL), (5, 0.25)]:
            check_counts(count_pairs(passes, keep, floor=floor), measured, 2**16)
        intervals = [(-1.0, 0.0), (0.25, 2.0)]
        ours = collect(passes, intervals)
        for (a, b), (c, d) in zip(ours, collect(passes_of(split, other), intervals), strict=True):
            assert np.array_equal(a, c)
            assert np.array_equal(b, d)
        values = np.array([-1, 0, 0.25, 0.3], dtype=np.float32)
        ranks = impostors_below(passes, values)
        assert np.array_equal(ranks, impostors_below(passes_of(split, other), values))


def test_blocks_on_an_accelerator_are_large_and_bins_fewer(split, monkeypatch):
    passes = Passes(pairs_of(split), memory_bytes=BYTES_PER_PAIR, device="cuda")
    assert passes.on_accelerator
    assert passes.side == passes_module.LARGEST_ACCELERATOR_BLOCK
    # Without one: the ops are NumPy's, and all else is as it would be there.
    ops = Passes(passes.pairs).ops()
    monkeypatch.setattr(Passes, "ops", lambda self: ops)
    counts = count_pairs(passes, 10)
    assert counts.bins == pairwise.ACCELERATOR_BINS
    check_counts(counts, naive(split)[0], 2**13)


def test_the_side_of_a_block_follows_the_memory(split, monkeypatch):
    monkeypatch.setattr(passes_module, "available_cores", lambda: 3)
    pairs = pairs_of(split)
    assert Passes(pairs, BYTES_PER_PAIR * 3 * 49).side == 7
    assert Passes(pairs, BYTES_PER_PAIR * 3 * 49 - 1).side == 6
    assert Passes(pairs, BYTES_PER_PAIR).side == 1
    assert Passes(pairs, 2**40).side == passes_module.LARGEST_BLOCK
    with pytest.raises(VidfaceError, match="memory_bytes must be at least 48, got 47"):
        Passes(pairs, BYTES_PER_PAIR - 1)


@pytest.mark.parametrize("bins", [0, 1, 3, 100, 2**17, -2])
def test_bins_must_be_a_power_of_two(split, bins):
    with pytest.raises(VidfaceError, match=f"a power of two from 2 to 65536, got {bins}"):
        count_pairs(passes_of(split), 10, bins=bins)


def test_counts_check_themselves():
    none = np.zeros(0, np.float32)
    with pytest.raises(VidfaceError, match="two rows, an entry a score"):
        PairCounts(np.zeros((2, 4)), none, none, True, np.zeros(3), np.zeros((2, 2)), KEEP_ALL)


def test_parts_of_unlike_machines_are_the_whole(monkeypatch):
    """Each counts its strips in blocks of its own size: no gap, no pair twice."""
    monkeypatch.setattr(passes_module, "PART_ROWS", 16)
    monkeypatch.setattr(pairwise, "KEEP_AT_LEAST", 1)
    rows, names = oracles.tied_clips(n=120, n_identities=15, seed=3)
    for second in (None, oracles.tied_clips(n=50, n_identities=15, seed=4)):
        pairs = pairs_of((rows, names), second)
        sides = (1, 5, 7, 100)
        whole = count_pairs(Passes(pairs), 10**6, floor=-1.5)
        parts = [
            count_pairs(
                Passes(pairs, BYTES_PER_PAIR * side**2 * Passes(pairs).workers),
                10**6,
                floor=-1.5,
                part=(i, len(sides)),
            )
            for i, side in enumerate(sides)
        ]
        merged = parts[0]
        for part in parts[1:]:
            merged = PairCounts.joined((merged, part))
        assert np.array_equal(merged.histogram, whole.histogram)
        assert np.array_equal(merged.impostor, whole.impostor)
        assert np.array_equal(merged.genuine, whole.genuine)
        Rates(merged, pairs)
        with pytest.raises(VidfaceError, match="parts are missing, or overlap"):
            Rates(parts[0], pairs)
    with pytest.raises(VidfaceError, match="each n-th strip"):
        count_pairs(Passes(pairs), 1, part=(2, 2))


def test_an_error_in_one_worker_stops_the_others(monkeypatch):
    rows, names = oracles.tied_clips(n=120, n_identities=15, seed=3)
    pairs = pairs_of((rows, names), None)
    passes = Passes(pairs, BYTES_PER_PAIR * 2)
    done = []

    def work(own, ops, rows, columns):
        done.append(1)
        raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        passes.each_block(work, lambda ops: None)
    assert len(done) <= passes.workers


def test_the_process_is_left_as_it_was():
    import cv2

    rows, names = oracles.tied_clips(n=120, n_identities=15, seed=3)
    pairs = pairs_of((rows, names), None)
    before = cv2.getNumThreads()
    for workers in (1, 2):
        patch = pytest.MonkeyPatch()
        patch.setattr(passes_module, "available_cores", lambda n=workers: n)
        count_pairs(Passes(pairs, BYTES_PER_PAIR * 100), 10, floor=-1.5)
        patch.undo()
        assert cv2.getNumThreads() == before
