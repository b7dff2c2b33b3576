"""Every way to a clip's components gives the same ones: plain, by pivot, by tree; NumPy, torch."""

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from tests import oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.noise import clusters
from vidface.noise import kernels as linkage
from vidface.noise.clusters import LinkageTree, cluster_frames, cut, linkage_tree
from vidface.vectors import batches

SAFE_GAP = 2e-6  # no cosine may lie nearer to the threshold for labels to be certain
ALWAYS, NEVER = 1, 10**9  # values of PIVOT_FROM


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def on_circle(*degrees):
    return np.array(
        [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in degrees], np.float32
    )


def awkward_clip(rng, n, d):
    """A few people and noise, with duplicates and unusable rows, of a kind drawn by chance."""
    people = rng.standard_normal((3, d))
    shares = [
        (0.9, 0.05, 0.0),  # one person
        (0.7, 0.0, 0.0),  # one person and noise
        (0.5, 0.5, 0.0),  # two alike
        (0.3, 0.3, 0.2),  # nobody dominant
        (0.0, 0.0, 0.0),  # all noise
    ][rng.integers(5)]
    who = np.searchsorted(np.cumsum(shares), rng.random(n), side="right")
    rows = rng.choice([0.1, 0.4, 0.9]) * rng.standard_normal((n, d))
    rows += people[np.minimum(who, 2)]
    rows[who == 3] = rng.standard_normal((np.count_nonzero(who == 3), d))
    if n and rng.random() < 0.3:
        rows = rows[rng.integers(0, n, n)]  # duplicates
    if rng.random() < 0.3:
        rows[rng.random(n) < rng.choice([0.1, 0.6, 1.0])] = rng.choice([0, np.nan, np.inf])
    rows *= 10 ** rng.uniform(-2, 2, (n, 1))
    return rows


def awkward_clips(lengths, d, seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.empty((0, d)), *(awkward_clip(rng, n, d) for n in lengths)])
    return rows.astype(dtype), offsets_of(lengths)


def cosines_of(clip):
    """(n, n) float64 cosines, NaN at unusable rows."""
    clip = clip.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = clip / np.linalg.norm(clip, axis=1, keepdims=True)
        return unit @ unit.T


def scipy_labels(cosines, threshold):
    """`cluster_frames` of one clip by scipy's connected components."""
    n = len(cosines)
    usable = ~np.isnan(np.diagonal(cosines))
    components = connected_components(csr_array(cosines > threshold), directed=False)[1]
    groups = {}
    for i in np.flatnonzero(usable).tolist():
        groups.setdefault(components[i], []).append(i)
    return oracles.ranked_labels(n, list(groups.values()), [])


def is_clear(cosines, threshold):
    """Whether no pair of the clip lies within SAFE_GAP of the threshold."""
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    return not (np.abs(pairs - threshold) <= SAFE_GAP).any()


def all_ways(monkeypatch, embeddings, offsets, threshold, **kwargs):
    """{way: labels} of the plain way, the way by pivot, and the cut of the tree."""
    found = {}
    for way, least in [("pivot", ALWAYS), ("plain", NEVER)]:
        monkeypatch.setattr(linkage, "PIVOT_FROM", least)
        found[way] = cluster_frames(embeddings, offsets, threshold, **kwargs)
    found["cut"] = cut(linkage_tree(embeddings, offsets, **kwargs), threshold)
    return found


def check_all_ways(monkeypatch, clip, threshold, expected):
    clip = np.asarray(clip)
    ways = all_ways(monkeypatch, clip, np.array([0, len(clip)]), threshold)
    ways |= {
        f"{way} on torch": labels
        for way, labels in all_ways(
            monkeypatch, clip, np.array([0, len(clip)]), threshold, device="cpu"
        ).items()
    }
    assert {way: labels.tolist() for way, labels in ways.items()} == dict.fromkeys(ways, expected)


# --- by eye


def test_the_tree_of_seven_points_on_a_circle():
    # Rows:        40  200  100  20  215  120  0
    clip = on_circle(40, 200, 100, 20, 215, 120, 0)
    tree = linkage_tree(clip, np.array([0, 7]))
    # From 40: to 20 (20 degrees away), from there to 0 (20), then 40–100 (60), 100–120 (20),
    # 120–200 (80), 200–215 (15).
    assert tree.order.tolist() == [0, 3, 6, 2, 5, 1, 4]
    assert tree.similarities[0] == -np.inf
    edges = np.cos(np.radians([20, 20, 60, 20, 80, 15]))
    np.testing.assert_allclose(tree.similarities[1:], edges, atol=5e-7)
    assert (tree.order.dtype, tree.similarities.dtype) == (np.int32, np.float32)
    # Under 30 degrees: 0–20–40, then the pairs, the earlier row first; see test_clusters.
    assert cut(tree, math.cos(math.radians(30))).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert cut(tree, math.cos(math.radians(17))).tolist() == [1, 0, 2, 3, 0, 4, 5]
    assert cut(tree, math.cos(math.radians(61))).tolist() == [0, 1, 0, 0, 1, 0, 0]
    assert cut(tree, math.cos(math.radians(81))).tolist() == [0] * 7
    assert cut(tree, 0.5).dtype == np.int32
    assert str(tree) == "LinkageTree(1 clips, 7 rows)"


def test_the_rest_bridges_by_eye(monkeypatch):
    # 24 rows near 0 degrees, two of them at 25; the threshold is 30 degrees. The row at 50 is
    # joined to those at 25 only, 75 and 100 only through it; −40 and −65 are a pair;
    # 180 and 200 are a pair, 250 is alone. Rows of the rest stand before all members.
    degrees = [180, 100, 0, -65, 50, *[0] * 10, 25, *[0] * 10, 25, 75, 200, -40, 250]
    #          1    0    0  2    0                                 0   1    2    3
    expected = [1, 0, 0, 2, 0, *[0] * 22, 0, 1, 2, 3]
    clip = on_circle(*degrees)
    threshold = math.cos(math.radians(30))
    check_all_ways(monkeypatch, clip, threshold, expected)
    # Backwards, the pairs change places.
    expected = [3, 1, 2, *[0] * 24, 1, 0, 0, 2]
    check_all_ways(monkeypatch, clip[::-1], threshold, expected)


def test_a_pivot_that_is_not_usable_joins_nothing(monkeypatch):
    # Of 24 rows every third is asked where the middle is: three ones, three minus ones and two
    # unusable rows, of which row 0 comes first. Its zero row is nearer than −0.5 to everything.
    clip = np.array([[1 if i % 2 else -1, 0] for i in range(24)], np.float32)
    clip[[0, 21]] = np.nan
    expected = [-1, *[0, 1] * 10, -1, 1, 0]
    for threshold in [-0.5, 0.4]:
        check_all_ways(monkeypatch, clip, threshold, expected)
    # All rows asked are unusable; the others are 8 and 8.
    clip[::3] = 0
    expected = [-1 if i % 3 == 0 else (i + 1) % 2 for i in range(24)]
    for threshold in [-0.5, 0.4]:
        check_all_ways(monkeypatch, clip, threshold, expected)
    # Only one usable row, and none.
    clip[np.arange(24) != 7] = np.inf
    check_all_ways(monkeypatch, clip, -0.5, [0 if i == 7 else -1 for i in range(24)])
    check_all_ways(monkeypatch, clip * np.nan, -0.5, [-1] * 24)


def test_a_row_of_the_rest_may_be_the_earliest_of_two_equal_clusters(monkeypatch):
    # Five and five, the other rows are unusable: 50 is joined to 25 only, and that to 0. The rows
    # asked for the middle, every third, are 0, 0, 0 and 25, so 50 and all at 180 are the rest.
    clip = np.zeros((24, 2), np.float32)
    clip[[6, 9, 12, 15, 1]] = on_circle(0, 0, 0, 25, 50)
    clip[[2, 4, 5, 7, 8]] = on_circle(*[180] * 5)
    expected = [-1] * 24
    for i in [6, 9, 12, 15, 1]:
        expected[i] = 0  # row 1 comes before row 2
    for i in [2, 4, 5, 7, 8]:
        expected[i] = 1
    check_all_ways(monkeypatch, clip, math.cos(math.radians(30)), expected)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_unusable_rows_are_no_bridge_where_another_clip_has_more_rest(monkeypatch, device):
    # Each 120 degrees from the others, cosine −0.5, not joined at −0.45. The second clip has two
    # rows fewer outside 0 degrees; zero rows, at cosine 0 to all, are what its place is filled
    # up with.
    more = [120, 120, 240, 240, *[0] * 20]
    fewer = [np.nan, np.nan, 120, 240, *[0] * 20]
    embeddings = np.nan_to_num(on_circle(*more, *fewer))
    expected = [1, 1, 2, 2, *[0] * 20, -1, -1, 1, 2, *[0] * 20]
    ways = all_ways(monkeypatch, embeddings, np.array([0, 24, 48]), -0.45, device=device)
    assert {way: labels.tolist() for way, labels in ways.items()} == dict.fromkeys(ways, expected)


@pytest.mark.parametrize("n", [254, 255, 256, 257, 300, 65534, 65535, 65536, 65537, 70000])
def test_row_numbers_fit_their_type(n):
    # Of the last four rows, the last two are a pair.
    edges = np.zeros((1, 4, 4), bool)
    edges[0, 2, 3] = True
    roots = linkage.join(np.arange(n)[None], edges, n - 4)
    assert roots[0].tolist() == [*range(n - 1), n - 2]


def test_a_chain_has_no_middle(monkeypatch):
    clip = on_circle(*(0.7 * np.arange(500)))
    clip *= np.where(np.arange(500) == 250, 0, 1)[:, None]
    expected = [1 if i > 250 else 0 for i in range(500)]
    expected[250] = -1
    check_all_ways(monkeypatch, clip, math.cos(math.radians(1.0)), expected)
    backwards = [1 if i < 249 else 0 for i in range(500)]  # 249 rows before it, 250 behind
    backwards[249] = -1
    check_all_ways(monkeypatch, clip[::-1], math.cos(math.radians(1.0)), backwards)


def test_empty_and_tiny_clips(monkeypatch):
    rows = np.array([[1, 0], [4, 3], [0, 0], [0, 1]], np.float32)
    offsets = np.array([0, 0, 1, 1, 3, 4, 4])
    tree = linkage_tree(rows, offsets)
    assert tree.order.tolist() == [0, 0, 1, 0]
    assert tree.similarities[[0, 1, 3]].tolist() == [-np.inf] * 3
    assert np.isnan(tree.similarities[2])
    for threshold in [None, -1, -0.5, 0.5, 1, 2]:
        for labels in all_ways(monkeypatch, rows, offsets, threshold).values():
            assert labels.tolist() == [0, 0, -1, 0]
    for nothing in [np.array([0]), np.array([0, 0, 0])]:
        for labels in all_ways(monkeypatch, rows[:0], nothing, 0.5).values():
            assert labels.shape == (0,)
            assert labels.dtype == np.int32
    pair = linkage_tree(rows[[3, 1]], np.array([0, 2]))
    assert pair.order.tolist() == [0, 1]
    assert pair.similarities.tolist() == [-np.inf, pytest.approx(0.6, abs=1e-7)]
    # Unusable rows stand behind the usable ones, in their order.
    clip = np.array([[0, 0], [1, 0], [np.nan, 1], [0, 1], [4, 3], [0, 0]], np.float32)
    tree = linkage_tree(np.concatenate([clip, clip[:0], clip[:3]]), np.array([0, 6, 6, 9]))
    assert tree.order.tolist() == [1, 4, 3, 0, 2, 5, 1, 0, 2]
    assert np.isnan(tree.similarities).tolist() == [False] * 3 + [True] * 3 + [False] + [True] * 2


# --- against naive twins


@pytest.mark.parametrize(
    ("dtype", "d", "threshold"),
    [
        (np.float32, 2, 0.985),
        (np.float32, 3, -0.3),
        (np.float32, 5, 0.4),
        (np.float32, 16, 0.05),
        (np.float64, 8, 0.7),
        (np.float16, 6, 0.55),
        (np.float16, 4, -0.8),
    ],
)
def test_all_ways_equal_scipys_components(monkeypatch, dtype, d, threshold):
    rng = np.random.default_rng(d)
    lengths = np.concatenate(
        [
            np.arange(41),
            np.clip(np.floor(rng.lognormal(3, 0.9, 350)), 0, 240),
            [64, 72, 73, 160, 180, 181, 239, 240, 239],  # filled up to 9/8
        ]
    ).astype(int)
    embeddings, offsets = awkward_clips(rng.permutation(lengths), d, d, dtype)
    ways = all_ways(monkeypatch, embeddings, offsets, threshold)
    clear = 0
    for a, b in pairwise(offsets):
        cosines = cosines_of(embeddings[a:b])
        if not is_clear(cosines, threshold):
            continue
        clear += 1
        expected = scipy_labels(cosines, threshold)
        if b - a <= 12:
            assert expected == oracles.union_find_labels(embeddings[a:b].tolist(), threshold)
        for way, labels in ways.items():
            assert labels[a:b].tolist() == expected, way
    assert clear > 0.8 * len(lengths)


def test_the_tree_weighs_what_scipys_does():
    lengths = np.random.default_rng(1).permutation([*range(30), 45, 50, 64, 72, 90, 130, 200])
    embeddings, offsets = awkward_clips(lengths, 6, seed=2)
    tree = linkage_tree(embeddings, offsets)
    for a, b in pairwise(offsets):
        cosines = cosines_of(embeddings[a:b])
        ok = ~np.isnan(np.diagonal(cosines))
        distances = 2 - cosines[np.ix_(ok, ok)]  # scipy takes 0 for "no edge"
        wanted = np.sort(2 - minimum_spanning_tree(distances).data) if ok.any() else []
        links, order = tree.similarities[a:b], tree.order[a:b]
        assert np.isnan(links).tolist() == sorted(~ok)  # usable rows first
        assert sorted(order.tolist()) == list(range(b - a))
        n_ok = np.count_nonzero(ok)
        np.testing.assert_allclose(np.sort(links[1:n_ok]), wanted, atol=SAFE_GAP)
        for i in range(1, n_ok):  # each edge comes from a row before it
            assert links[i] == pytest.approx(cosines[order[i], order[:i]].max(), abs=SAFE_GAP)


def test_cuts_equal_clusters_at_all_thresholds(monkeypatch):
    lengths = np.random.default_rng(3).permutation([*range(28), 40, 45, 70, 100])
    embeddings, offsets = awkward_clips(lengths, 5, seed=4)
    tree = linkage_tree(embeddings, offsets)
    cosines = [cosines_of(embeddings[a:b]) for a, b in pairwise(offsets)]
    thresholds = [None, -np.inf, -1.5, -1, -0.99, 0.99, 0.9999, 1, 1.0000001, 2, np.inf]
    for threshold in [*thresholds, *np.linspace(-0.9, 0.9, 37)]:
        monkeypatch.setattr(linkage, "PIVOT_FROM", 24)
        labels = cluster_frames(embeddings, offsets, threshold)
        cuts = cut(tree, threshold)
        inside = threshold is not None and -1 < threshold < 1
        for (a, b), of_clip in zip(pairwise(offsets), cosines, strict=True):
            if not inside or is_clear(of_clip, threshold):
                assert cuts[a:b].tolist() == labels[a:b].tolist(), threshold
    with pytest.raises(VidfaceError, match="NaN"):
        cut(tree, math.nan)


# Rows whose length is a power of two and whose cosines are multiples of a half, exactly.
exact_rows = st.one_of(
    st.tuples(*[st.sampled_from([-1, 1])] * 4),
    st.sampled_from([-2, 2, 4]).flatmap(
        lambda x: st.integers(0, 3).map(lambda i: tuple(x * (i == j) for j in range(4)))
    ),
    st.just((0, 0, 0, 0)),
)


@given(
    clips=st.lists(st.lists(exact_rows, max_size=14), min_size=1, max_size=6),
    threshold=st.sampled_from([-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75]),
)
@examples(250)
def test_ties_are_no_edges_in_any_way(clips, threshold):
    rows = np.array([row for clip in clips for row in clip], np.float32).reshape(-1, 4)
    expected = [x for clip in clips for x in oracles.union_find_labels(clip, threshold)]
    offsets = offsets_of([len(clip) for clip in clips])
    for device in [None, "cpu"]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            ways = all_ways(monkeypatch, rows, offsets, threshold, device=device)
        assert {way: labels.tolist() for way, labels in ways.items()} == dict.fromkeys(
            ways, expected
        )


@given(
    clip=st.lists(st.tuples(*[st.integers(-2, 2)] * 3), max_size=40),
    threshold=st.sampled_from([-0.45, -0.05, 0.05, 0.3, 0.45, 0.55, 0.75, 0.93, 0.99]),
)
@examples(150)
def test_small_integers_give_the_naive_twins_labels(clip, threshold):
    rows = np.array(clip, np.float32).reshape(-1, 3)
    with pytest.MonkeyPatch.context() as monkeypatch:
        ways = all_ways(monkeypatch, rows, np.array([0, len(clip)]), threshold)
    expected = oracles.union_find_labels(clip, threshold)
    assert {way: labels.tolist() for way, labels in ways.items()} == dict.fromkeys(ways, expected)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("threshold", [-0.6, 0.1, 0.4, 0.9])
def test_a_pair_clear_of_the_threshold_is_certain(monkeypatch, threshold, device):
    # A pair at threshold ± 1e-5 in 512 dimensions: alone; with 24 equal rows at right angles to
    # it, so that both are rest; and with 24 rows near enough to one of it, a member then.
    rng = np.random.default_rng(7)
    rows, lengths, wanted = [], [], []
    for i in range(60):
        cosine = threshold + (1e-5 if i % 2 else -1e-5)
        x, y, z = np.linalg.qr(rng.standard_normal((512, 3)))[0].T
        clip = [x, cosine * x + math.sqrt(1 - cosine**2) * y]
        if i % 3 == 1 and threshold > 0:
            clip = [*[z] * 24, *clip]
        elif i % 3 == 2 and threshold > 0:
            near = threshold + 0.05
            clip = [*[near * x - math.sqrt(1 - near**2) * y] * 24, *clip]
        rows.append(np.array(clip) * 10 ** rng.uniform(-3, 3, (len(clip), 1)))
        lengths.append(len(clip))
        wanted.append(bool(i % 2))
    embeddings, offsets = np.concatenate(rows).astype(np.float32), offsets_of(lengths)
    ways = all_ways(monkeypatch, embeddings, offsets, threshold, device=device)
    for way, labels in ways.items():
        assert [bool(labels[b - 1] == labels[b - 2]) for b in offsets[1:]] == wanted, way
        for a, b in pairwise(offsets):
            expected = scipy_labels(cosines_of(embeddings[a:b]), threshold)
            assert labels[a:b].tolist() == expected, way


# --- whatever the machine, the budget and the order


@pytest.mark.slow
def test_result_depends_on_no_budget_thread_or_device(monkeypatch):
    rng = np.random.default_rng(11)
    lengths = rng.permutation([*range(20), *rng.integers(5, 60, 100), 130, 240, 255, 256, 300])
    embeddings, offsets = awkward_clips(lengths, 6, seed=12)
    threshold = 0.6
    clear = np.concatenate(
        [
            np.full(b - a, is_clear(cosines_of(embeddings[a:b]), threshold))
            for a, b in pairwise(offsets)
        ]
    )
    assert clear.mean() > 0.8
    whole = cluster_frames(embeddings, offsets, threshold)[clear].tolist()

    def check(**kwargs):
        for way, labels in all_ways(monkeypatch, embeddings, offsets, threshold, **kwargs).items():
            assert labels[clear].tolist() == whole, way

    check()
    check(device="cpu")
    for memory_bytes in [2**17, 2**20, 2**23]:
        check(memory_bytes=memory_bytes)
    check(memory_bytes=2**17, device="cpu")
    with monkeypatch.context() as changed:
        for cores in [1, 2, 7]:
            changed.setattr(batches, "available_cores", lambda cores=cores: cores)
            check()
        for batch_bytes in [1, 2**14, 2**18]:
            changed.setattr(clusters, "_BATCH_BYTES", batch_bytes)
            check()
    # Clips in another order.
    clips = rng.permutation(len(lengths))
    rows = np.concatenate([np.arange(offsets[c], offsets[c + 1]) for c in clips])
    for labels in all_ways(
        monkeypatch, embeddings[rows], offsets_of(lengths[clips]), threshold
    ).values():
        back = np.empty(len(rows), int)
        back[rows] = labels
        assert back[clear].tolist() == whole


def test_an_error_of_a_thread_reaches_the_caller(monkeypatch):
    def broken(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(batches, "available_cores", lambda: 3)
    monkeypatch.setattr(clusters, "_BATCH_BYTES", 1)
    monkeypatch.setattr(linkage, "components", broken)
    with pytest.raises(MemoryError, match="no room"):
        cluster_frames(np.ones((40, 2), np.float32), np.arange(0, 41, 2), 0.4)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error(device):
    rows, offsets = np.ones((3, 2), np.float32), np.array([0, 3])
    with pytest.raises(VidfaceError, match=f"device '{device}'"):
        cluster_frames(rows, offsets, 0.4, device=device)
    with pytest.raises(VidfaceError, match=f"device '{device}'"):
        linkage_tree(rows, offsets, device=device)


@pytest.mark.parametrize(
    ("way", "noise"), [("pivot", 0.02), ("plain", 0.3), ("plain", 0.45), ("tree", 0.45)]
)
@pytest.mark.parametrize("cores", [1, 4])
def test_long_clips_at_once_stay_within_the_budget(monkeypatch, way, noise, cores):
    # Eight clips of 1600: a float32 n × n matrix of one of them takes 10 MB, the budget is 8.
    n, n_clips, memory_bytes = 1600, 8, 2**23
    rng = np.random.default_rng(9)
    who = rng.random(n * n_clips) < noise
    # By pivot, 0.02 n rows times n fit and 0.3 n do not; 0.45 n are too many to be worth it.
    who[::n] = False
    rows = np.eye(8, dtype=np.float32)[who.astype(int)]
    rows += 0.02 * rng.standard_normal(rows.shape, np.float32)
    offsets = np.arange(0, n * n_clips + 1, n)
    monkeypatch.setattr(batches, "available_cores", lambda: cores)
    plain_calls = []
    original = linkage.components
    monkeypatch.setattr(
        linkage, "components", lambda *arguments: plain_calls.append(1) or original(*arguments)
    )
    cluster_frames(rows[:64], np.array([0, 32, 64]), 0.8)  # imports
    plain_calls.clear()
    tracemalloc.start()
    if way == "tree":
        tree = linkage_tree(rows, offsets, memory_bytes=memory_bytes)
    else:
        labels = cluster_frames(rows, offsets, 0.8, memory_bytes=memory_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory_bytes + 64 * len(rows)  # beside labels and a few integers a row
    if way == "tree":
        labels = cut(tree, 0.8)
    else:
        assert bool(plain_calls) == (way == "plain")
    for a, b in pairwise(offsets):
        groups = [np.flatnonzero(~who[a:b]).tolist(), np.flatnonzero(who[a:b]).tolist()]
        assert labels[a:b].tolist() == oracles.ranked_labels(n, groups, [])


@pytest.mark.parametrize(
    ("n", "n_clips", "d", "memory_bytes"), [(10, 500, 256, 2**20), (300, 32, 256, 2_000_000)]
)
def test_neither_a_batch_nor_threads_exceed_a_tight_budget(
    monkeypatch, n, n_clips, d, memory_bytes
):
    # Short clips that a batch would hold all at once; long ones that fit one at a time.
    rows = np.random.default_rng(3).standard_normal((n * n_clips, d), np.float32)
    offsets = np.arange(0, len(rows) + 1, n)
    monkeypatch.setattr(batches, "available_cores", lambda: 16)
    cluster_frames(rows, offsets, 0.9, memory_bytes=memory_bytes)  # imports
    tracemalloc.start()
    cluster_frames(rows, offsets, 0.9, memory_bytes=memory_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory_bytes + 128 * len(rows)  # beside a few integers a row


def test_a_tree_row_by_row_is_the_same(monkeypatch):
    # Exact rows, many ties: the very same tree, whether its similarities were kept or not.
    rng = np.random.default_rng(5)
    rows = rng.choice([-0.25, 0.25], (900, 16)).astype(np.float32)
    rows[::31] = 0
    offsets = np.array([0, 300, 310, 900])
    kept = linkage_tree(rows, offsets)
    for kwargs in [{"memory_bytes": 600_000}, {"memory_bytes": 600_000, "device": "cpu"}]:
        by_row = linkage_tree(rows, offsets, **kwargs)
        assert by_row.order.tolist() == kept.order.tolist()
        np.testing.assert_array_equal(by_row.similarities, kept.similarities)
    assert linkage_tree(rows, offsets, device="cpu").order.tolist() == kept.order.tolist()
    with pytest.raises(VidfaceError, match="590 faces of 16 dimensions needs"):
        linkage_tree(rows, offsets, memory_bytes=100_000)


# --- damage


def test_a_damaged_tree_is_refused():
    rows = on_circle(0, 10, 90, 100, 95)
    tree = linkage_tree(rows, np.array([0, 2, 5]))
    assert tree.order.tolist() == [0, 1, 0, 2, 1]
    offsets, order, links = tree.offsets, tree.order, tree.similarities
    assert cut(LinkageTree(offsets, order, links), 0.5).tolist() == [0] * 5
    for bad in ([0, 0, 0, 2, 1], [0, 1, 0, 2, 2], [0, 1, 0, 3, 1], [0, -1, 0, 2, 1]):
        with pytest.raises(VidfaceError, match="order is no order"):
            LinkageTree(offsets, np.array(bad, np.int32), links)
    for place in [0, 2]:
        crossing = links.copy()
        crossing[place] = 0.9  # a run that reaches back into the clip before
        with pytest.raises(VidfaceError, match="order is no order"):
            LinkageTree(offsets, order, crossing)
    for places in [[2], [3], [0, 2, 3]]:
        behind = links.copy()
        behind[places] = np.nan  # an unusable row in front of a joined one
        with pytest.raises(VidfaceError, match="order is no order"):
            LinkageTree(offsets, order, behind)
    with pytest.raises(VidfaceError, match=r"order must be \(5,\)"):
        LinkageTree(offsets, order[:4], links)
    with pytest.raises(VidfaceError, match=r"similarities must be \(5,\)"):
        LinkageTree(offsets, order, links[:, None])
    with pytest.raises(VidfaceError, match=r"order must be \(4,\)"):
        LinkageTree(np.array([0, 2, 4]), order, links)
