import math
import tracemalloc
from dataclasses import FrozenInstanceError
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.noise.clusters import MEMORY_BYTES, cluster_frames
from vidface.noise.denoisers import (
    DENOISERS,
    CompleteLinkage,
    Dbscan,
    Denoiser,
    Hdbscan,
    Oracle,
    Trim,
    UnionFind,
    denoiser_record,
    make_denoiser,
    name_of_denoiser,
)
from vidface.noise.denoisers.base import ThresholdDenoiser
from vidface.noise.denoisers.trim import find_lowest
from vidface.noise.removal import FaceSet, rank_groups, remove_noise

THRESHOLD_DENOISERS = [n for n, kind in DENOISERS.items() if issubclass(kind, ThresholdDenoiser)]


def on_circle(*degrees):
    return np.array([(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in degrees])


def label(kind, embeddings, offsets, *, noise=None, memory_bytes=MEMORY_BYTES, **settings):
    faces = FaceSet(embeddings, offsets, noise=noise, memory_bytes=memory_bytes)
    return remove_noise(faces, kind(**settings))


def label_one(kind, clip, **settings):
    clip = np.asarray(clip, dtype=np.float64).reshape(len(clip), -1)
    return label(kind, clip, np.array([0, len(clip)]), **settings).tolist()


def cos(degrees):
    return math.cos(math.radians(degrees))


def random_clips(n_clips=60, d=6, seed=0, longest=25):
    """One person a clip, 30 % noise rows, some unusable, raw norms from 0.01 to 100."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest, n_clips)
    rows = np.repeat(rng.standard_normal((n_clips, d)), lengths, axis=0)
    rows += 0.6 * rng.standard_normal(rows.shape)
    noise = rng.random(len(rows)) < 0.3
    rows[noise] = rng.standard_normal((np.count_nonzero(noise), d))
    rows *= 10 ** rng.uniform(-2, 2, (len(rows), 1))
    rows[4::31] = np.nan
    rows[7::37] = 0
    return rows.astype(np.float32), np.concatenate([[0], np.cumsum(lengths)])


def call(name, embeddings, offsets, **settings):
    noise = np.zeros(len(embeddings), bool) if name == "oracle" else None
    return label(DENOISERS[name], embeddings, offsets, noise=noise, **settings)


# One clip for all of them, in degrees on a circle, with an unusable row in front:
#   row        1   2   3   4   5   6    7
#   degrees    0  20  40  60  90 200  205
CLIP = np.concatenate([[[0.0, 0.0]], on_circle(0, 20, 40, 60, 90, 200, 205)])


def test_one_clip_by_every_denoiser():
    def labels(method, **settings):
        if method in THRESHOLD_DENOISERS:
            settings["threshold"] = cos(25)
        return label_one(DENOISERS[method], CLIP, **settings)

    # Under 25 degrees, 0–20–40–60 is a chain, and 200–205 a pair.
    assert labels("union-find") == [-1, 0, 0, 0, 0, 2, 1, 1]
    assert labels("none") == [-1, 0, 0, 0, 0, 0, 0, 0]
    # 20 and 40 have three neighbours with themselves: cores, which reach 0 and 60. The pair has
    # two, so it and 90 are noise: each alone, in order.
    assert labels("dbscan") == [-1, 0, 0, 0, 0, 1, 2, 3]
    assert labels("dbscan", min_samples=2) == [-1, 0, 0, 0, 0, 2, 1, 1]
    # 200–205 first, then 0–20 and 40–60 (20–40 is equally good, but scipy takes the first);
    # 0–20–40–60 holds a pair of 60 degrees. Three pairs: the earliest is kept.
    assert labels("complete-linkage") == [-1, 0, 0, 1, 1, 3, 2, 2]
    # Sums of cosines to the others: 60° 0.50 + 0.77 + 0.94 + 0.87 − 0.77 − 0.82 = 1.49 is the best
    # (40°: 1.38). A quarter of seven is one face: 205, 145 degrees away.
    assert labels("trim") == [-1, 0, 0, 0, 0, 0, 0, 1]
    # Half is three: 200 and 205, then 0 (60 degrees; 20 is 40 away, 90 is 30 away).
    assert labels("trim", trim_share=0.5) == [-1, 1, 0, 0, 0, 0, 1, 1]
    # Two groups with a gap of 110 degrees between them.
    assert labels("hdbscan", min_cluster_size=2) == [-1, 0, 0, 0, 0, 0, 1, 1]
    noise = np.array([True, True, False, True, False, False, False, True])
    assert label_one(Oracle, CLIP, noise=noise) == [-1, 1, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("name", DENOISERS)
def test_small_clips_empty_ones_and_unusable_rows(name):
    rows = np.array([[2, 1], [np.nan, 1], [0, 0], [np.inf, 1], [3, 4]], dtype=np.float32)
    # Clips: nothing; one face; nothing but unusable rows; one face; nothing.
    labels = call(name, rows, np.array([0, 0, 1, 4, 5, 5]))
    assert labels.tolist() == [0, -1, -1, -1, 0]
    assert labels.dtype == np.int32
    assert call(name, rows[:0], np.array([0])).shape == (0,)
    assert call(name, rows[:0], np.array([0, 0])).shape == (0,)


@pytest.mark.parametrize("name", DENOISERS)
def test_labels_are_ranks_and_depend_on_neither_the_other_clips_nor_the_norms(name):
    embeddings, offsets = random_clips(seed=1)
    usable = np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
    labels = call(name, embeddings, offsets)
    assert ((labels == -1) == ~usable).all()
    for a, b in pairwise(offsets):
        clip = labels[a:b]
        if (clip >= 0).any():
            assert sorted(set(clip[clip >= 0])) == list(range(clip.max() + 1))
        alone = call(name, embeddings[a:b], np.array([0, b - a]))
        assert alone.tolist() == clip.tolist()
    scaled = embeddings * 2.0 ** np.arange(-5, 5)[np.arange(len(embeddings)) % 10, None]
    assert call(name, scaled.astype(np.float32), offsets).tolist() == labels.tolist()


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(name, dtype):
    embeddings, offsets = random_clips(seed=2)
    embeddings = embeddings.astype(np.float16).astype(np.float32)
    expected = call(name, embeddings, offsets)
    assert call(name, embeddings.astype(dtype), offsets).tolist() == expected.tolist()


@pytest.mark.parametrize("name", DENOISERS)
def test_caller_arrays_are_read_only_to_us(name):
    embeddings, offsets = random_clips(seed=3)
    before = embeddings.copy()
    embeddings.flags.writeable = offsets.flags.writeable = False
    call(name, embeddings, offsets)
    np.testing.assert_array_equal(embeddings, before)


@pytest.mark.parametrize("name", DENOISERS)
def test_input_is_checked(name):
    rows = np.ones((3, 2), dtype=np.float32)
    for embeddings, offsets, message in [
        (rows, [0, 2], "number of rows, 3"),
        (rows, [0, 2, 1, 3], "must not fall"),
        (rows[0], [0, 2], r"\(n_rows, d\)"),
        (rows.astype(int), [0, 3], "float32"),
    ]:
        with pytest.raises(VidfaceError, match=message):
            call(name, embeddings, np.array(offsets))


@pytest.mark.parametrize("name", THRESHOLD_DENOISERS)
def test_thresholds_without_meaning(name):
    clip = np.array([[1, 0], [-1, 0], [0, 0], [1, 0], [np.nan, 1]], dtype=np.float32)
    offsets = np.array([0, 5])
    for threshold in [None, -1, -1.0]:
        assert call(name, clip, offsets, threshold=threshold).tolist() == [0, 0, -1, 0, -1]
        assert DENOISERS[name](threshold=threshold).threshold is None
    for threshold in [1, 1.0, 0.9999999999]:
        assert call(name, clip, offsets, threshold=threshold).tolist() == [0, 1, -1, 2, -1]


# DBSCAN


def test_dbscan_counts_equality_and_the_face_itself():
    pair = [[1, 1, 1, 1], [3, 0, 0, 0]]  # the cosine is 0.5, exactly
    assert label_one(Dbscan, pair, threshold=0.5, min_samples=2) == [0, 0]
    assert label_one(Dbscan, pair, threshold=0.5001, min_samples=2) == [0, 1]
    assert label_one(Dbscan, pair, threshold=0.5, min_samples=3) == [0, 1]


def test_dbscan_needs_more_than_a_bridge():
    # Two fours from 0 and from 60 degrees, one face at 31: the chain is one component, but the
    # bridge has four near it with itself (2, 3, 60), and is no core for five. The first core, 60,
    # takes it; 2 and 3 could.
    clip = on_circle(0, 60, 1, 61, 2, 62, 31, 3, 63)
    assert label_one(UnionFind, clip, threshold=cos(30.5)) == [0] * 9
    labels = label_one(Dbscan, clip, threshold=cos(29.5), min_samples=5)
    assert labels == [1, 0, 1, 0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("threshold", [-0.3, 0.2, 0.4, 0.7])
@pytest.mark.parametrize("min_samples", [1, 2, 3, 5])
def test_dbscan_equals_the_naive_twin(threshold, min_samples):
    embeddings, offsets = random_clips(seed=4)
    labels = label(Dbscan, embeddings, offsets, threshold=threshold, min_samples=min_samples)
    for a, b in pairwise(offsets):
        expected = oracles.dbscan_labels(embeddings[a:b].tolist(), threshold, min_samples)
        assert labels[a:b].tolist() == expected


def test_dbscan_of_single_faces_is_union_find():
    embeddings, offsets = random_clips(100, seed=5)
    for threshold in [-0.2, 0.1, 0.4, 0.8]:
        ours = label(Dbscan, embeddings, offsets, threshold=threshold, min_samples=1)
        assert ours.tolist() == cluster_frames(embeddings, offsets, threshold).tolist()


def test_noise_ranks_behind_a_cluster_of_one():
    # A core whose every neighbour went to other clusters: DBSCAN can leave such a cluster.
    assert rank_groups(np.array([-1, 0, -1, 1, 1])).tolist() == [2, 1, 3, 0, 0]
    assert rank_groups(np.array([-1, -1])).tolist() == [0, 1]
    assert rank_groups(np.array([5, 3, 3, 5, 9])).tolist() == [0, 1, 1, 0, 2]


# HDBSCAN


def test_hdbscan_keeps_all_where_it_finds_nothing():
    # Two groups of five would be two clusters; four faces are too few to be asked.
    groups = on_circle(0, 1, 2, 3, 4.5, 90, 91, 92, 93, 94.5)
    assert label_one(Hdbscan, groups, min_cluster_size=5) == [0] * 5 + [1] * 5
    assert label_one(Hdbscan, groups, min_cluster_size=11) == [0] * 10
    # One even row has no density to tell apart: all are kept, and not the first alone.
    assert label_one(Hdbscan, on_circle(*range(0, 50, 10)), min_cluster_size=5) == [0] * 5
    assert label_one(Hdbscan, np.ones((12, 3)), min_cluster_size=5) == [0] * 12


def test_hdbscan_finds_the_one_person_of_a_clip():
    # Five faces of one person and, at 2 and 5, two strays: scikit-learn's default finds no
    # cluster here, and would keep all seven.
    clip = np.eye(16)[0] + 0.05 * np.random.default_rng(0).standard_normal((7, 16))
    clip[2], clip[5] = np.eye(16)[1], np.eye(16)[2]
    assert label_one(Hdbscan, clip, min_cluster_size=5) == [0, 0, 1, 0, 0, 2, 0]


def test_hdbscan_noise_is_alone_and_behind():
    clip = on_circle(180, 0, 1, 2, 90, 3, 91, 92, 4, 270)
    labels = label_one(Hdbscan, clip, min_cluster_size=3)
    assert labels == [2, 0, 0, 0, 1, 0, 1, 1, 0, 3]


def test_hdbscan_partition_is_that_of_a_matrix_of_distances():
    # Another way through scikit-learn: brute force over distances that we worked out.
    from sklearn.cluster import HDBSCAN

    embeddings, offsets = random_clips(150, seed=6)
    labels = label(Hdbscan, embeddings, offsets, min_cluster_size=3)
    clustered = 0
    for a, b in pairwise(offsets):
        usable = labels[a:b] >= 0
        ours = labels[a:b][usable]
        if len(ours) < 3:
            assert not ours.any()
            continue
        unit = np.array([oracles.unit(row) for row in embeddings[a:b][usable].tolist()])
        distances = np.sqrt(((unit[:, None] - unit[None]) ** 2).sum(axis=2))
        method = HDBSCAN(
            min_cluster_size=3, metric="precomputed", allow_single_cluster=True, copy=True
        )
        found = method.fit_predict(distances)
        groups = [np.flatnonzero(found == g).tolist() for g in range(found.max() + 1)]
        alone = np.flatnonzero(found == -1).tolist()
        if not groups:
            assert not ours.any()
            continue
        clustered += 1
        assert ours.tolist() == oracles.ranked_labels(len(ours), groups, alone)
    assert clustered > 15


# Complete linkage


def test_complete_linkage_is_strict_at_the_threshold():
    pair = [[1, 1, 1, 1], [3, 0, 0, 0]]  # the cosine is 0.5, exactly
    assert label_one(CompleteLinkage, pair, threshold=0.5) == [0, 1]
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert label_one(CompleteLinkage, pair, threshold=below) == [0, 0]
    assert label_one(CompleteLinkage, [[1, 0], [0.6, 0.8]], threshold=0.6) == [0, 1]
    assert label_one(CompleteLinkage, [[1, 0], [0.6, 0.8]], threshold=0.5999) == [0, 0]
    # As float32, 0.6 lies above itself and 0.7 below; cosine and threshold round to the same.
    assert label_one(CompleteLinkage, [[1, 0], [0.7, 0.51**0.5]], threshold=0.7) == [0, 1]
    assert label_one(CompleteLinkage, [[1, 0], [0, 1]], threshold=0.0) == [0, 1]
    # 1 − 1e-17 is 1 in float64, so the distance alone could not tell these two apart.
    assert label_one(CompleteLinkage, [[1, 0], [1e-17, 1]], threshold=0.0) == [0, 0]


def test_complete_linkage_has_no_chains():
    # Steps of 10 degrees, growing slightly so that no two merges are equally good; a cluster may
    # span 25 degrees: three faces.
    clip = on_circle(0, 10, 20.1, 30.3, 40.6, 51)
    labels = label_one(CompleteLinkage, clip, threshold=cos(25))
    assert labels == oracles.complete_linkage_labels(clip.tolist(), cos(25))
    assert max(labels) > 0
    assert label_one(UnionFind, clip, threshold=cos(25)) == [0] * 6


@pytest.mark.parametrize("threshold", [-0.3, 0.0, 0.4, 0.7])
def test_complete_linkage_equals_the_naive_twin(threshold):
    embeddings, offsets = random_clips(seed=7, longest=14)
    labels = label(CompleteLinkage, embeddings, offsets, threshold=threshold)
    several = 0
    for a, b in pairwise(offsets):
        clip = embeddings[a:b].tolist()
        assert labels[a:b].tolist() == oracles.complete_linkage_labels(clip, threshold)
        several += labels[a:b].max(initial=0) > 0
    assert several > 10


def test_complete_linkage_partition_equals_scikit_learn():
    from sklearn.cluster import AgglomerativeClustering

    embeddings, offsets = random_clips(80, seed=8)
    labels = label(CompleteLinkage, embeddings, offsets, threshold=0.4)
    for a, b in pairwise(offsets):
        usable = labels[a:b] >= 0
        if np.count_nonzero(usable) < 2:
            continue
        method = AgglomerativeClustering(
            n_clusters=None, metric="cosine", linkage="complete", distance_threshold=0.6
        )
        found = method.fit_predict(embeddings[a:b][usable].astype(np.float64))
        groups = [np.flatnonzero(found == g).tolist() for g in range(found.max() + 1)]
        assert labels[a:b][usable].tolist() == oracles.ranked_labels(len(found), groups, [])


@given(
    signs=st.lists(st.tuples(*[st.sampled_from([-1, 1])] * 4), max_size=10),
    threshold=st.sampled_from([-0.5, 0.0, 0.5]),
)
@examples(100)
def test_no_cluster_of_complete_linkage_holds_a_pair_at_the_threshold(signs, threshold):
    # Every cosine is a multiple of 1/2, exactly; which merge comes first is scipy's affair.
    clip = np.array(signs, dtype=np.float32).reshape(-1, 4)
    labels = label_one(CompleteLinkage, clip, threshold=threshold) if len(clip) else []
    by_label = {}
    for row, label in zip(clip, labels, strict=True):
        by_label.setdefault(label, []).append(row)
    for rows in by_label.values():
        assert all(x @ y / 4 > threshold for x in rows for y in rows)
    # And it merges as long as it can: of any two clusters, one pair is not above.
    for one, other in pairwise(by_label.values()):
        assert any(x @ y / 4 <= threshold for x in one for y in other)


# Trim


def test_trim_drops_the_share_rounded_down():
    clip = on_circle(*range(10))
    for share, dropped in [(0, 0), (0.0999, 0), (0.1, 1), (0.25, 2), (0.5, 5), (0.999, 9)]:
        assert sum(label_one(Trim, clip, trim_share=share)) == dropped
    # In binary, 0.29 · 100 is 28.999999999999996.
    assert sum(label_one(Trim, on_circle(*range(100)), trim_share=0.29)) == 29
    # Of the usable faces alone: half of three.
    assert label_one(Trim, [[1, 0], [0, 0], [1, 0.1], [0, 1]], trim_share=0.5) == [0, -1, 0, 1]
    assert label_one(Trim, [[1, 0]], trim_share=0.99) == [0]


def test_trim_breaks_ties_towards_the_earlier():
    # Of two faces each is as good a medoid, whatever rounding says: the first is.
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert label_one(Trim, rng.standard_normal((2, 7)), trim_share=0.5) == [0, 1]
    # 40 is the medoid; 0 and 80, 20 and 60 are equally far from it.
    assert label_one(Trim, on_circle(80, 60, 40, 20, 0), trim_share=0.2) == [0, 0, 0, 0, 1]
    assert label_one(Trim, on_circle(80, 60, 40, 20, 0), trim_share=0.4) == [1, 0, 0, 0, 1]
    assert label_one(Trim, on_circle(80, 60, 40, 20, 0), trim_share=0.6) == [1, 0, 0, 1, 1]
    assert label_one(Trim, [[1, 2]] * 7, trim_share=0.5) == [0, 0, 0, 0, 1, 1, 1]
    # Opposites: all sums are −1, so the first row is the medoid.
    assert label_one(Trim, [[1, 0], [-1, 0]], trim_share=0.5) == [0, 1]


def test_cosines_that_only_rounding_tells_apart_are_equal():
    a, b, c = 0.5, 0.5 + 1e-15, 0.5 + 2e-15
    for cosines in [[a, b, c], [c, b, a], [b, c, a], [b, a, c]]:
        low = find_lowest(np.array([0.9, *cosines, 0.1]), 3)
        assert sorted(low.tolist()) == [2, 3, 4]
    # A millionth is a difference.
    assert find_lowest(np.array([0.5, 0.500001]), 1).tolist() == [0]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_trim_equals_the_naive_twin(share):
    embeddings, offsets = random_clips(seed=9)
    labels = label(Trim, embeddings, offsets, trim_share=share)
    for a, b in pairwise(offsets):
        n = np.count_nonzero(labels[a:b] >= 0)
        if n:
            expected = oracles.trimmed_labels(embeddings[a:b].tolist(), math.floor(share * n))
            assert labels[a:b].tolist() == expected


@given(
    clip=st.lists(st.tuples(*[st.integers(-2, 2)] * 3).filter(any), min_size=1, max_size=9),
    share=st.sampled_from([0.2, 0.5, 0.75]),
)
@examples(150)
def test_trim_equals_the_naive_twin_with_ties(clip, share):
    count = math.floor(share * len(clip))
    assert label_one(Trim, clip, trim_share=share) == oracles.trimmed_labels(clip, count)


# Oracle


def test_oracle_may_keep_nothing():
    rows = np.array([[1, 0], [0, 0], [0, 1], [1, 1]], dtype=np.float32)
    noise = np.array([True, True, True, False])
    assert label(Oracle, rows, np.array([0, 3, 4]), noise=noise).tolist() == [1, -1, 1, 0]
    assert noise.tolist() == [True, True, True, False]
    for wrong in [noise[:3], noise.astype(int), noise[:, None]]:
        with pytest.raises(VidfaceError, match=r"noise must be \(4,\) bool"):
            label(Oracle, rows, np.array([0, 3, 4]), noise=wrong)


# Memory


@pytest.mark.parametrize(("kind", "pair_bytes"), [(Dbscan, 24), (CompleteLinkage, 16)])
def test_long_clips_stay_within_the_budget_or_are_refused(kind, pair_bytes):
    n = 1500
    rng = np.random.default_rng(0)
    clip = (np.eye(8)[0] + 0.05 * rng.standard_normal((n, 8))).astype(np.float32)
    budget = pair_bytes * n * n
    label(kind, clip[:9], np.array([0, 9]))  # the imports
    tracemalloc.start()
    labels = label(kind, clip, np.array([0, n]), memory_bytes=budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < budget
    assert not labels.any()
    with pytest.raises(VidfaceError, match="1500 usable faces needs"):
        label(kind, clip, np.array([0, n]), memory_bytes=budget - 1)


@pytest.mark.parametrize("name", THRESHOLD_DENOISERS)
def test_the_budget_reaches_every_denoiser_that_compares_pairs(name):
    clip = np.ones((500, 4), dtype=np.float32)
    with pytest.raises(VidfaceError, match=r"memory_bytes is 1000;"):
        call(name, clip, np.array([0, 500]), memory_bytes=1000)


# Settings


def test_every_setting_changes_labels():
    embeddings, offsets = random_clips(seed=10)
    for name, changes in [
        ("union-find", {"threshold": 0.8}),
        ("dbscan", {"threshold": 0.8, "min_samples": 6}),
        ("hdbscan", {"min_cluster_size": 2}),
        ("complete-linkage", {"threshold": 0.8}),
        ("trim", {"trim_share": 0.6}),
    ]:
        default = call(name, embeddings, offsets)
        for key, value in changes.items():
            assert (call(name, embeddings, offsets, **{key: value}) != default).any()
        assert tuple(changes) == tuple(denoiser_record(DENOISERS[name]()))[1:]


def test_union_find_is_cluster_frames():
    embeddings, offsets = random_clips(200, seed=11)
    for threshold in [None, -0.5, 0.1, 0.4, 0.8, 1]:
        ours = label(UnionFind, embeddings, offsets, threshold=threshold)
        assert ours.tolist() == cluster_frames(embeddings, offsets, threshold).tolist()


def test_a_tree_is_worked_out_once_or_read():
    embeddings, offsets = random_clips(5, seed=12)
    faces = FaceSet(embeddings, offsets)
    assert faces.link() is faces.link()
    reads = []

    def read(asking, same_person):
        assert asking is kept
        reads.append(same_person)
        return faces.link()

    kept = FaceSet(embeddings, offsets, read_tree=read)
    for threshold in (0.2, 0.6):
        ours = remove_noise(kept, UnionFind(threshold))
        assert ours.tolist() == remove_noise(faces, UnionFind(threshold)).tolist()
    assert reads == [None]


def test_noise_is_for_the_oracle_alone():
    rows, offsets = np.ones((2, 2), dtype=np.float32), np.array([0, 2])
    noise = np.array([False, True])
    assert label(Oracle, rows, offsets, noise=noise).tolist() == [0, 1]
    with pytest.raises(VidfaceError, match="'oracle' needs to know"):
        label(Oracle, rows, offsets)
    with pytest.raises(VidfaceError, match="'trim' must not see"):
        label(Trim, rows, offsets, noise=noise)


def test_settings_are_the_ones_stated():
    assert denoiser_record(UnionFind()) == {"method": "union-find", "threshold": 0.4}
    record = denoiser_record(Dbscan(None))
    assert record == {"method": "dbscan", "threshold": None, "min_samples": 3}
    assert (Hdbscan(), Trim()) == (Hdbscan(5), Trim(0.25))
    with pytest.raises(FrozenInstanceError):
        Trim().trim_share = 0.5


@pytest.mark.parametrize("name", DENOISERS)
def test_a_record_gives_the_denoiser_back(name):
    denoiser = DENOISERS[name]()
    record = denoiser_record(denoiser)
    assert make_denoiser(record.pop("method"), record) == denoiser
    assert make_denoiser(name, {"of another": 1}) == denoiser
    assert name_of_denoiser(denoiser) == name


@pytest.mark.parametrize("name", ["kmeans", ["trim"]])
def test_an_unknown_denoiser_is_refused(name):
    with pytest.raises(VidfaceError, match=r"unknown denoiser .* \(known: union-find, none"):
        make_denoiser(name, {})


def test_a_denoiser_outside_of_the_registry_has_no_name():
    with pytest.raises(VidfaceError, match="not in DENOISERS"):
        name_of_denoiser(Denoiser())


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (
            UnionFind,
            {"threshold": math.nan},
            "threshold: must be finite, not nan",
        ),
        (Dbscan, {"threshold": 1.5}, "threshold: a cosine"),
        (CompleteLinkage, {"threshold": -1.5}, "threshold: a cosine"),
        (UnionFind, {"threshold": "0.4"}, "threshold: must be a finite number, not '0.4'"),
        (UnionFind, {"threshold": True}, "threshold: must be a finite number, not True"),
        (Dbscan, {"min_samples": 0}, "min_samples: must be at least 1, not 0"),
        (Dbscan, {"min_samples": 2.0}, "min_samples: must be a whole number, not 2.0"),
        (Dbscan, {"min_samples": True}, "min_samples"),
        (Hdbscan, {"min_cluster_size": 1}, "min_cluster_size: must be at least 2, not 1"),
        (Trim, {"trim_share": 1}, r"trim_share: must lie in \[0, 1\), not 1"),
        (Trim, {"trim_share": -0.1}, "trim_share"),
        (Trim, {"trim_share": math.nan}, "trim_share"),
        (Trim, {"trim_share": "0.1"}, "trim_share"),
    ],
)
def test_settings_are_checked(kind, wrong, message):
    with pytest.raises(VidfaceError, match=message):
        kind(**wrong)
    assert Dbscan(-1, min_samples=1) == Dbscan(None, 1)
    assert (Hdbscan(2).min_cluster_size, Trim(0).trim_share) == (2, 0)
