import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from tests import oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.noise import clusters
from vidface.noise.clusters import cluster_frames
from vidface.noise.kernels import join
from vidface.vectors.rows import unit_rows

SAFE_GAP = 2e-6  # no cosine may lie nearer to the threshold for labels to be certain


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def cluster_one(clip, threshold, **kwargs):
    clip = np.asarray(clip) if len(clip) else np.zeros((0, 2), dtype=np.float32)
    if clip.dtype.kind != "f":
        clip = clip.astype(np.float32)
    return cluster_frames(clip, np.array([0, len(clip)]), threshold, **kwargs).tolist()


def on_circle(*degrees):
    return np.array(
        [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in degrees], np.float32
    )


def random_clips(lengths, d=16, seed=0):
    """One person a clip, 15 % noise rows, raw norms from 0.01 to 100."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.standard_normal((len(lengths), d)), lengths, axis=0)
    rows += 0.7 * rng.standard_normal(rows.shape)
    noise = rng.random(len(rows)) < 0.15
    rows[noise] = rng.standard_normal((np.count_nonzero(noise), d))
    rows *= 10 ** rng.uniform(-2, 2, (len(rows), 1))
    return rows.astype(np.float32), offsets_of(lengths)


def random_lengths(n_clips, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(np.floor(rng.lognormal(2.5, 0.9, n_clips)), 0, 120).astype(int)


def clear_threshold(embeddings, offsets, near):
    """The first threshold from `near` upwards with no cosine within SAFE_GAP of it."""
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    products = np.concatenate(
        [(unit[a:b] @ unit[a:b].T)[np.triu_indices(b - a, 1)] for a, b in pairwise(offsets)]
    )
    while np.nanmin(np.abs(products - near)) <= SAFE_GAP:
        near += SAFE_GAP
    return near


def test_seven_points_on_a_circle():
    # Joined where the angle is under 30 degrees (cos 0.866): 0–20–40 is a chain of three though
    # 0 and 40 are not joined themselves; 100–120 and 200–215 are pairs, the earlier row first.
    # Rows:        40  200  100  20  215  120  0
    clip = on_circle(40, 200, 100, 20, 215, 120, 0)
    assert cluster_one(clip, math.cos(math.radians(30))) == [0, 1, 2, 0, 1, 2, 0]
    # Under 17 degrees only 200–215 is left; the others are alone, by row.
    assert cluster_one(clip, math.cos(math.radians(17))) == [1, 0, 2, 3, 0, 4, 5]
    # Under 81 degrees, 40–100 and 120–200 join everything.
    assert cluster_one(clip, math.cos(math.radians(81))) == [0] * 7


def test_edge_needs_more_than_the_threshold():
    pair = [[1, 1, 1, 1], [3, 0, 0, 0]]  # the cosine is 0.5, exact in float32
    assert cluster_one(pair, 0.5) == [0, 1]
    assert cluster_one(pair, float(np.nextafter(np.float32(0.5), np.float32(0)))) == [0, 0]
    # 0.6 is no float32; products and threshold round to the same one.
    assert cluster_one([[1, 0], [0.6, 0.8]], 0.6) == [0, 1]
    assert cluster_one([[1, 0], [0.6, 0.8]], 0.5999) == [0, 0]
    assert cluster_one([[1, 0], [0, 1]], 0.0) == [0, 1]
    assert cluster_one([[1, 0], [0, 1]], -0.001) == [0, 0]


@pytest.mark.parametrize("threshold", [1.0, 1.5, math.inf, 0.9999999999])
def test_nothing_joins_at_one_whatever_duplicates_round_to(threshold):
    rng = np.random.default_rng(1)
    clip = np.repeat(rng.standard_normal((50, 37)).astype(np.float32), 2, axis=0)
    unit = unit_rows(clip)[0]
    assert (unit @ unit.T).max() > 1  # the trap is real
    assert cluster_one(clip, threshold) == list(range(100))
    assert cluster_one(clip, 0.99999) == np.repeat(np.arange(50), 2).tolist()


@pytest.mark.parametrize("threshold", [None, -1, -1.0, -7, -math.inf])
def test_no_clustering_keeps_every_usable_row(threshold):
    clip = np.array([[1, 0], [-1, 0], [0, 0], [np.nan, 1], [0, -1]], dtype=np.float32)
    assert cluster_one(clip, threshold) == [0, 0, -1, -1, 0]
    assert cluster_one([[1, 0], [-1, 0]], threshold) == [0, 0]  # a cosine of −1, too
    assert cluster_one([], threshold) == []
    assert cluster_one([[1, 0], [-1, 0]], -0.999) == [0, 1]


@pytest.mark.parametrize("threshold", [-0.5, 0.4])
def test_unusable_rows_join_nothing(threshold):
    bad = [[0, 0], [np.nan, 1], [np.inf, 1], [-np.inf, np.inf], [-0.0, 0]]
    clip = np.array([bad[0], [1, 0], bad[1], bad[2], [2, 0.1], bad[3], bad[4]])
    assert cluster_one(clip, threshold) == [-1, 0, -1, -1, 0, -1, -1]
    assert cluster_one(bad, threshold) == [-1] * 5
    # Its product with a zero row is 0, which is above −0.5 and would bridge the two.
    assert cluster_one([bad[0], [1, 0], bad[1], [-1, 0]], threshold) == [-1, 0, -1, 1]
    half = np.array([[1, 0], [1, 0.1], [np.inf, 0]], dtype=np.float16)
    assert cluster_one(half, threshold) == [0, 0, -1]


def test_small_clips_and_empty_ones():
    rows = np.array([[1, 0], [1, 0], [0, 1], [5, 0.1], [1, 0], [0, 1]], dtype=np.float32)
    labels = cluster_frames(rows, np.array([0, 0, 1, 3, 3, 6, 6]), 0.4)
    assert labels.tolist() == [0, 0, 1, 0, 0, 1]
    assert labels.dtype == np.int32
    assert cluster_frames(rows[:0], np.array([0]), 0.4).shape == (0,)
    assert cluster_frames(rows[:0], np.array([0, 0, 0]), 0.4).shape == (0,)


def test_equal_clusters_rank_by_their_earliest_row():
    assert cluster_one([[0, 1], [1, 0], [1, 0], [0, 1]], 0.5) == [0, 1, 1, 0]
    assert cluster_one([[1, 1], [0, 1], [-1, 0], [-1, 0], [0, 1]], 0.8) == [2, 0, 1, 1, 0]
    # An unusable first row is no earliest row.
    assert cluster_one([[0, 0], [1, 0], [0, 1], [0, 1], [1, 0]], 0.5) == [-1, 0, 1, 1, 0]


def test_all_noise_keeps_the_first_row():
    assert cluster_one(np.eye(9, dtype=np.float32), 0.4) == list(range(9))


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("memory_bytes", [2**31, 300_000])
def test_chain_of_500(shuffled, memory_bytes):
    order = np.arange(500)
    if shuffled:
        order = np.random.default_rng(4).permutation(500)
    clip = on_circle(*(0.7 * order))  # neighbours are 0.7 degrees apart, the ends 349
    threshold = math.cos(math.radians(1.0))
    assert cluster_one(clip, threshold, memory_bytes=memory_bytes) == [0] * 500
    broken = np.where(np.arange(500)[:, None] == 250, np.float32(0), clip)
    labels = cluster_one(broken, threshold, memory_bytes=memory_bytes)
    assert labels == oracles.union_find_labels(broken.tolist(), threshold)
    assert max(labels) == 1


def test_a_comb_of_low_labels_takes_several_rounds():
    # A hub that touches only leaves, each with its own tail: hooking to the lowest neighbour
    # settles one leaf a round for the hub, the rest must come round through it.
    n = 64
    adjacency = np.zeros((n, n), dtype=bool)
    adjacency[n - 1, : n // 2] = adjacency[: n // 2, n - 1] = True
    for i in range(n // 2, n - 1):
        adjacency[i, i - n // 2] = adjacency[i - n // 2, i] = True
    nothing = np.zeros_like(adjacency)
    roots = np.tile(np.arange(n), (4, 1))
    roots = join(roots, np.stack([nothing, adjacency, nothing, nothing]), 0)
    expected = np.tile(np.arange(n), (4, 1))
    expected[1] = 0
    assert roots.tolist() == expected.tolist()


@pytest.mark.parametrize("rows_per_block", [1, 7, 60])
def test_blocks_of_rows_join_into_one_forest(rows_per_block):
    # Sparse graphs of long paths with shuffled names, where trees grow deep and meet often.
    n = 60
    rng = np.random.default_rng(rows_per_block)
    for _ in range(60):
        names = rng.permutation(n)
        adjacency = np.zeros((n, n), dtype=bool)
        linked = rng.random(n - 1) < 0.95
        adjacency[names[:-1][linked], names[1:][linked]] = True
        adjacency[rng.integers(0, n, 4), rng.integers(0, n, 4)] = True
        adjacency |= adjacency.T
        roots = np.arange(n)[None]
        for start in range(0, n, rows_per_block):
            block = adjacency[None, start : start + rows_per_block, start:]
            roots = join(roots, block, start)
            assert (roots[0][roots[0]] == roots[0]).all()
        components = connected_components(csr_array(adjacency), directed=False)[1]
        expected = np.unique(components, return_index=True)[1][components]
        assert roots[0].tolist() == expected.tolist()


def test_one_sided_rounding_of_a_product_still_joins():
    # Where a product rounds to either side of the threshold, one direction is enough.
    for edge in [(0, 2), (2, 0)]:
        adjacency = np.zeros((1, 3, 3), dtype=bool)
        adjacency[0][edge] = True
        roots = join(np.arange(3)[None], adjacency, 0)
        assert roots.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("near", [-0.2, 0.1, 0.4, 0.6])
def test_equals_naive_union_find(near):
    embeddings, offsets = random_clips(random_lengths(120, seed=2), seed=3)
    embeddings[5::53] = np.nan
    threshold = clear_threshold(embeddings, offsets, near)
    embeddings[::41] = 0
    labels = cluster_frames(embeddings, offsets, threshold)
    for a, b in pairwise(offsets):
        expected = oracles.union_find_labels(embeddings[a:b].tolist(), threshold)
        assert labels[a:b].tolist() == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_partition_equals_scipy_connected_components(dtype):
    embeddings, offsets = random_clips(random_lengths(3000, seed=5), seed=6)
    embeddings = embeddings.astype(dtype)
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    threshold = clear_threshold(embeddings, offsets, 0.4)
    labels = cluster_frames(embeddings, offsets, threshold)
    several = 0
    for a, b in pairwise(offsets):
        if a == b:
            continue
        edges = csr_array(unit[a:b] @ unit[a:b].T > threshold)
        n, components = connected_components(edges, directed=False)
        ours = labels[a:b]
        assert len(set(zip(components.tolist(), ours.tolist(), strict=True))) == n
        assert sorted(set(ours.tolist())) == list(range(n))
        sizes = np.bincount(ours)
        assert (np.diff(sizes) <= 0).all()
        several += n > 1
    assert several > 1000


@given(
    clips=st.lists(
        st.lists(st.tuples(*[st.integers(-2, 2)] * 3), max_size=9), min_size=1, max_size=6
    ),
    threshold=st.sampled_from([-0.45, -0.05, 0.05, 0.3, 0.45, 0.55, 0.75, 0.93, 0.99]),
)
@examples(200)
def test_equals_naive_union_find_with_duplicates_and_zero_rows(clips, threshold):
    rows = np.array([row for clip in clips for row in clip], dtype=np.float32).reshape(-1, 3)
    labels = cluster_frames(rows, offsets_of([len(clip) for clip in clips]), threshold)
    expected = [x for clip in clips for x in oracles.union_find_labels(clip, threshold)]
    assert labels.tolist() == expected


@given(
    signs=st.lists(st.tuples(*[st.sampled_from([-1, 1])] * 8), max_size=12),
    threshold=st.sampled_from([-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75]),
)
@examples(200)
def test_ties_at_the_threshold_are_no_edges(signs, threshold):
    # Sixteen components of ±1/4 are a unit row; every product is a multiple of 1/8, exactly.
    rows = [[x / 4 for x in (*s, *s)] for s in signs]
    clip = np.array(rows, dtype=np.float32).reshape(-1, 16)
    assert cluster_one(clip, threshold) == oracles.union_find_labels(rows, threshold)


def test_result_is_independent_of_batches_and_row_blocks(monkeypatch):
    lengths = np.append(random_lengths(300, seed=7), [256, 255, 254, 300, 0, 1])
    embeddings, offsets = random_clips(lengths, seed=8)
    threshold = clear_threshold(embeddings, offsets, 0.42)
    embeddings[::97] = 0
    whole = cluster_frames(embeddings, offsets, threshold)
    alone = [
        cluster_frames(embeddings[a:b], np.array([0, b - a]), threshold)
        for a, b in pairwise(offsets)
    ]
    assert np.concatenate(alone).tolist() == whole.tolist()
    for memory_bytes in [2**18, 2**20, 2**23]:
        labels = cluster_frames(embeddings, offsets, threshold, memory_bytes=memory_bytes)
        assert labels.tolist() == whole.tolist()
    monkeypatch.setattr(clusters, "_BATCH_BYTES", 1)  # every clip alone, row by row
    assert cluster_frames(embeddings, offsets, threshold).tolist() == whole.tolist()


def test_a_long_clip_stays_within_the_budget():
    n, memory_bytes = 4000, 2**24  # a float32 n × n matrix alone would be 64 MB
    rng = np.random.default_rng(9)
    person = rng.integers(0, 3, n)
    clip = np.eye(8, dtype=np.float32)[person] + 0.05 * rng.standard_normal((n, 8), np.float32)
    tracemalloc.start()
    labels = cluster_one(clip, 0.8, memory_bytes=memory_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory_bytes
    sizes = np.bincount(person)
    by_size = np.argsort(-sizes, kind="stable")
    assert labels == np.argsort(by_size)[person].tolist()
    with pytest.raises(VidfaceError, match="4000 faces of 8 dimensions needs"):
        cluster_one(clip, 0.8, memory_bytes=10_000)


def test_rows_of_any_magnitude():
    clip = np.array([[3e200, 4e200], [3e-200, 4e-200], [3, 4], [-4, 3], [-4e-30, 3e-30]])
    assert cluster_one(clip, 0.9) == [0, 0, 0, 1, 1]
    assert cluster_one(clip[2:].astype(np.float32), 0.9) == [1, 0, 0]
    assert cluster_one(np.array([[3e30, 4e30], [3e-30, 4e-30]], np.float32), 0.9) == [0, 0]


def test_unit_rows_are_as_long_as_one():
    rows = np.random.default_rng(0).standard_normal((500, 512)).astype(np.float32)
    unit, usable = unit_rows(rows)
    exact = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    assert usable.all()
    assert np.abs((unit.astype(np.float64) * exact).sum(axis=1) - 1).max() < 5e-7


def test_caller_arrays_are_read_only_to_us():
    embeddings, offsets = random_clips([5, 9], seed=1)
    before = embeddings.copy()
    embeddings.flags.writeable = offsets.flags.writeable = False
    for threshold in [None, 0.4]:
        cluster_frames(embeddings, offsets, threshold)
    assert (embeddings == before).all()


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2], "end at the number of rows, 3"),
        ([1, 3], "start at 0"),
        ([0, 2, 1, 3], r"clip 1 would own rows \[2, 1\)"),
        ([], "no clips at all"),
        ([[0, 3]], r"\(n_clips \+ 1,\)"),
        ([0.0, 3.0], "integers"),
    ],
)
def test_offsets_are_checked(offsets, message):
    with pytest.raises(VidfaceError, match=message):
        cluster_frames(np.ones((3, 2), dtype=np.float32), np.array(offsets), 0.4)


def test_other_input_is_checked():
    offsets = np.array([0, 3])
    with pytest.raises(VidfaceError, match="n_rows, d"):
        cluster_frames(np.ones(3, dtype=np.float32), offsets, 0.4)
    with pytest.raises(VidfaceError, match="astype"):
        cluster_frames(np.ones((3, 2), dtype=np.int64), offsets, 0.4)
    with pytest.raises(VidfaceError, match="no columns"):
        cluster_frames(np.ones((3, 0), dtype=np.float32), offsets, 0.4)
    with pytest.raises(VidfaceError, match="NaN"):
        cluster_frames(np.ones((3, 2), dtype=np.float32), offsets, math.nan)
    with pytest.raises(VidfaceError, match="memory_bytes must be positive"):
        cluster_frames(np.ones((3, 2), dtype=np.float32), offsets, 0.4, memory_bytes=0)
