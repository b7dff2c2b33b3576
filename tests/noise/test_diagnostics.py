import json
import math
import tracemalloc
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_diagnostics as oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.noise import diagnostics
from vidface.noise.clusters import cluster_frames
from vidface.noise.diagnostics import BOUNDS, FLAGS, combine_diagnostics, diagnose
from vidface.vectors.descriptors import pool_descriptors

COUNTS = ("clusters", "kept", "dropped", "unusable", "second_size")
COSINES = ("lowest_similarity", "second_share", "second_cosine", "still_share")


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def on_circle(*degrees):
    return np.array(
        [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in degrees], np.float32
    )


def diagnose_one(clip, labels, descriptor=None, **bounds):
    clip, labels = np.asarray(clip, np.float32), np.asarray(labels)
    offsets = np.array([0, len(clip)])
    if descriptor is None:
        descriptors = pool_descriptors(clip, offsets, labels)
    else:
        descriptors = np.array([descriptor], np.float32)
    with mock.patch.dict(BOUNDS, bounds):
        return diagnose(clip, offsets, labels, descriptors)


def flags_of(found, row=0):
    return tuple(flag for flag in FLAGS if getattr(found, flag)[row])


def assert_equals_twin(found, embeddings, offsets, labels, descriptors, **bounds):
    for clip, (a, b) in enumerate(pairwise(offsets)):
        rows, own = embeddings[a:b].tolist(), labels[a:b].tolist()
        twin = oracles.diagnose_clip(rows, own, descriptors[clip].tolist(), **bounds)
        for name in COUNTS:
            assert getattr(found, name)[clip] == twin[name], (clip, name)
        for name in COSINES:
            value = getattr(found, name)[clip]
            assert value == pytest.approx(twin[name], abs=2e-6, nan_ok=True), (clip, name)
        similarity = found.similarity[a:b].tolist()
        assert similarity == pytest.approx(twin["similarity"], abs=2e-6, nan_ok=True)
        assert flags_of(found, clip) == twin["flags"]


def made_up(lengths, d=12, seed=0):
    """Clips with random labels and descriptors: what noise removal makes, and what it never does.

    Labels have no gaps, −1 rows have no direction, and about a tenth of the descriptors is zero.
    """
    rng = np.random.default_rng(seed)
    offsets = offsets_of(lengths)
    embeddings = (rng.standard_normal((offsets[-1], d)) + 0.6).astype(np.float32)
    embeddings *= 10 ** rng.uniform(-3, 3, (len(embeddings), 1)).astype(np.float32)
    again = 1 + np.flatnonzero(
        np.random.default_rng(seed).random(max(0, len(embeddings) - 1)) < 0.1
    )
    embeddings[again] = embeddings[again - 1]
    labels = np.zeros(len(embeddings), np.int64)
    for a, b in pairwise(offsets):
        labels[a:b] = np.minimum(rng.geometric(0.6, b - a) - 1, 3)
        present = np.unique(labels[a:b])
        labels[a:b] = np.searchsorted(present, labels[a:b])
    bad = rng.random(len(labels)) < 0.05
    labels[bad] = -1
    for a, b in pairwise(offsets):  # close the gaps that −1 tore
        present = np.unique(labels[a:b][labels[a:b] >= 0])
        usable = labels[a:b] >= 0
        labels[a:b][usable] = np.searchsorted(present, labels[a:b][usable])
    embeddings[bad] = np.where(rng.random((np.count_nonzero(bad), 1)) < 0.5, 0, np.nan)
    descriptors = pool_descriptors(embeddings, offsets, labels)
    descriptors[rng.random(len(descriptors)) < 0.1] = 0
    return embeddings, offsets, labels, descriptors


def test_four_clips_on_a_circle():
    # 1: a chain 0–30–60–90 degrees is kept, though its ends are at right angles (cosine 0);
    #    the second cluster, 200 and 220, has the mean 210, the kept have 45: cos 165 = −0.966.
    # 2: two kept at 10 and 30 (cos 20 = 0.940), one face at 110 (90 from the mean): thin,
    #    and the second is half as large as the first: contested.
    # 3: five at 50, one other at 140: cosine 1 between any two, so one picture in 5 of 6: still.
    # 4: one unusable face: no descriptor, no flag.
    clip_1 = on_circle(0, 30, 200, 60, 90, 220)
    clip_2 = on_circle(10, 110, 30)
    clip_3 = on_circle(50, 50, 50, 140, 50, 50)
    rows = np.concatenate([clip_1, clip_2, clip_3, [[np.nan, 1]]]).astype(np.float32)
    labels = np.array([0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, -1])
    descriptors = np.concatenate([on_circle(45, 20, 50), [[0, 0]]]).astype(np.float32)
    found = diagnose(rows, np.array([0, 6, 9, 15, 16]), labels, descriptors)

    assert found.clusters.tolist() == [2, 2, 2, 0]
    assert found.kept.tolist() == [4, 2, 5, 0]
    assert found.dropped.tolist() == [2, 1, 1, 1]
    assert found.unusable.tolist() == [0, 0, 0, 1]
    assert found.lowest_similarity == pytest.approx([0, 0.9396926, 1, math.nan], 1e-6, 1e-6, True)
    assert found.second_size.tolist() == [2, 1, 1, 0]
    assert found.second_share == pytest.approx([0.5, 0.5, 0.2, math.nan], nan_ok=True)
    assert found.second_cosine == pytest.approx([-0.9659258, 0, 0, math.nan], 1e-6, 1e-6, True)
    flags = [flags_of(found, row) for row in range(4)]
    assert flags == [("chained", "contested"), ("contested", "thin"), ("still",), ()]
    # Degrees from the descriptor: 45, 15, 155, 15, 45, 175 | 10, 90, 10 | 0, 0, 0, 90, 0, 0 | –
    degrees = [45, 15, 155, 15, 45, 175, 10, 90, 10, 0, 0, 0, 90, 0, 0]
    cosines = [math.cos(math.radians(a)) for a in degrees]
    assert found.similarity.dtype == np.float32
    assert found.similarity == pytest.approx([*cosines, math.nan], 1e-6, 1e-6, True)


def test_summary_is_json_and_counts_every_clip_once():
    rows = np.concatenate([on_circle(0, 90, 10, 10, 100), [[0, 0]], on_circle(0, 20, 10)])
    rows = rows.astype(np.float32)
    labels = np.array([0, 0, 0, 0, 1, -1, 0, 0, 0])
    offsets = np.array([0, 2, 5, 5, 6, 9])
    found = diagnose(rows, offsets, labels, pool_descriptors(rows, offsets, labels))
    # Clip 0 is chained (cosine 0) and thin, clip 1 contested (1 of 2) and thin, 2 and 3 are empty,
    # 4 is fine. Their lowest cosines are 0, 1 and cos 20 = 0.940, the median.
    assert json.loads(json.dumps(found.summary(), allow_nan=False)) == {
        "clips": 5,
        "faces": 9,
        "kept": 7,
        "dropped": 2,
        "unusable": 1,
        "none_kept": 2,
        "several_clusters": 1,
        "chained": 1,
        "contested": 1,
        "thin": 2,
        "still": 1,
        "twice": 0,
        "flagged": 2,
        "lowest_similarity": pytest.approx(0, abs=1e-6),
        "median_lowest_similarity": pytest.approx(0.9396926, abs=1e-6),
        "largest_second_share": 0.5,
        "bounds": {"chained_below": 0.1, "contested_from": 0.5, "thin_below": 3, "still_from": 0.3},
    }
    assert (
        str(found)
        == "Diagnostics(5 clips, 9 faces: 1 chained, 1 contested, 2 thin, 1 still, 0 twice)"
    )


@pytest.mark.parametrize("offsets", [[0], [0, 0, 0]])
@pytest.mark.parametrize("d", [0, 3])
def test_no_faces_at_all(offsets, d):
    n_clips = len(offsets) - 1
    empty, labels = np.zeros((0, d), np.float32), np.zeros(0, np.int32)
    found = diagnose(empty, np.array(offsets), labels, np.zeros((n_clips, d), np.float32))
    assert found.kept.tolist() == [0] * n_clips
    assert np.isnan(found.lowest_similarity).all()
    assert found.similarity.shape == (0,)
    summary = found.summary()
    assert summary["flagged"] == summary["faces"] == 0
    assert summary["none_kept"] == n_clips
    assert summary["lowest_similarity"] is summary["median_lowest_similarity"] is None
    assert summary["largest_second_share"] is None


def test_chained_needs_less_than_the_bound():
    pair = [[1, 1, 1, 1], [3, 0, 0, 0]]  # the cosine is 0.5, exact in float32
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert diagnose_one(pair, [0, 0]).lowest_similarity.tolist() == [0.5]
    for bound, chained in [(0.5, False), (above, True), (0.49, False)]:
        found = diagnose_one(pair, [0, 0], chained_below=bound)
        assert found.chained.tolist() == [chained]
    # The default lies between cosines of 0.09 and 0.11; other clusters don't count.
    for cosine, chained in [(0.09, True), (0.11, False)]:
        rows = [[1, 0], [cosine, math.sqrt(1 - cosine**2)], [-1, 0]]
        assert diagnose_one(rows, [0, 0, 1]).chained.tolist() == [chained]


@pytest.mark.parametrize(
    ("first", "second", "contested", "thin"),
    [
        (1, 0, False, True),
        (1, 1, True, True),
        (2, 1, True, True),
        (3, 1, False, False),
        (3, 2, True, False),
        (4, 2, True, False),
        (5, 2, False, False),
        (0, 0, False, False),
        (0, 2, False, False),  # never made by cluster_frames
    ],
)
def test_sizes_at_the_bounds(first, second, contested, thin):
    rows = on_circle(*[0] * first, *[90] * second).reshape(-1, 2)
    found = diagnose_one(rows, np.array([0] * first + [1] * second, np.int64))
    assert found.contested.tolist() == [contested]
    assert found.thin.tolist() == [thin]
    share = second / first if first else math.nan
    assert found.second_share == pytest.approx([share], nan_ok=True)


def test_other_bounds():
    rows = on_circle(0, 0, 0, 90)
    labels = [0, 0, 0, 1]
    third = {"contested_from": 1 / 3, "thin_below": 4, "still_from": 3 / 4}
    assert flags_of(diagnose_one(rows, labels, **third)) == ("contested", "thin", "still")
    none = {"contested_from": 0, "thin_below": 0, "chained_below": -1, "still_from": 0.751}
    assert flags_of(diagnose_one(rows, labels, **none)) == ("contested",)
    assert flags_of(diagnose_one(rows[:1], [0], **none)) == ()  # no second cluster at all


def test_means_that_vanish_have_no_cosine():
    # Cluster 1 is two opposite faces: no mean. Their lengths differ, their directions cancel.
    found = diagnose_one([[1, 0], [1, 0], [0, 5], [0, -1]], [0, 0, 1, 1])
    assert found.second_share.tolist() == [1]
    assert np.isnan(found.second_cosine).all()
    # The same in cluster 0: no descriptor either, so no similarity; but the pair is measured.
    found = diagnose_one([[0, 5], [0, -1], [1, 0]], [0, 0, 1])
    assert np.isnan(found.second_cosine).all()
    assert np.isnan(found.similarity).all()
    assert found.lowest_similarity.tolist() == [-1]
    assert flags_of(found) == ("chained", "contested", "thin")


def test_lengths_of_rows_and_of_descriptors_do_not_matter():
    rows = np.array([[3e200, 4e200], [6e-200, 8e-200], [5, 0]])
    labels, offsets = np.array([0, 0, 1]), np.array([0, 3])
    found = diagnose(rows, offsets, labels, np.array([[0.60054, 0.80072]]))  # 1.0009 long
    assert found.lowest_similarity == pytest.approx([1], abs=1e-6)
    assert found.similarity == pytest.approx([1, 1, 0.6], abs=1e-6)
    half = np.array([[3, 4], [6, 8], [-4, 3]], np.float16)
    assert diagnose(half, offsets, labels, on_circle(0)).similarity == pytest.approx(
        [0.6, 0.6, -0.8], abs=1e-6
    )


def test_a_cosine_never_leaves_its_range():
    rng = np.random.default_rng(1)
    clip = np.repeat(rng.standard_normal((80, 37)).astype(np.float32), 2, axis=0)
    clip[1::2] *= np.where(np.arange(80) % 2, -1, 1).astype(np.float32)[:, None]
    offsets, labels = np.arange(0, 161, 2), np.zeros(160, np.int64)
    descriptors = clip[::2] / np.linalg.norm(clip[::2], axis=1, keepdims=True)
    found = diagnose(clip, offsets, labels, descriptors)
    for cosines in (found.lowest_similarity, found.similarity):
        assert np.abs(cosines).max() == 1  # some products round past it
        assert np.abs(cosines).min() > 0.99999
    halves = diagnose(clip, offsets, np.tile([0, 1], 80), descriptors)
    assert np.abs(halves.second_cosine).max() <= 1


@pytest.mark.parametrize("repeats", ["count", "once"])
def test_equals_the_naive_twin(repeats):
    rng = np.random.default_rng(2)
    lengths = np.concatenate([[0, 1, 2], rng.integers(0, 14, 150), [0, 60, 61, 1, 0]])
    data = made_up(lengths, seed=3)
    found = diagnose(*data, repeats=repeats)
    assert_equals_twin(found, *data, repeats=repeats)
    for flag in FLAGS[:4]:  # the fixture holds both answers to every question
        assert 0 < np.count_nonzero(getattr(found, flag)) < len(lengths)
    assert {*found.clusters.tolist()} == {0, 1, 2, 3, 4}


def test_equals_the_naive_twin_after_real_noise_removal():
    rng = np.random.default_rng(5)
    lengths = rng.integers(0, 12, 100)
    people = np.repeat(rng.standard_normal((100, 16)), lengths, axis=0)
    rows = (people + 0.8 * rng.standard_normal(people.shape)).astype(np.float32)
    rows[::17] = 0
    offsets = offsets_of(lengths)
    for threshold in (None, 0.4, 0.99999):
        labels = cluster_frames(rows, offsets, threshold)
        data = rows, offsets, labels, pool_descriptors(rows, offsets, labels)
        assert_equals_twin(diagnose(*data), *data)


@given(
    clips=st.lists(
        st.lists(st.tuples(*[st.integers(-2, 2)] * 3, st.integers(0, 2)), max_size=7),
        min_size=1,
        max_size=5,
    ),
    chained_below=st.sampled_from([-0.45, 0.05, 0.3, 0.55]),
    thin_below=st.integers(0, 4),
    contested_from=st.sampled_from([0.0, 0.5, 1.0]),
)
@examples(150)
def test_equals_the_naive_twin_with_duplicates_and_zero_rows(
    clips, chained_below, thin_below, contested_from
):
    rows = np.array([face[:3] for clip in clips for face in clip], np.float32).reshape(-1, 3)
    wanted = [
        [-1 if not any(face[:3]) else min(face[3], len(clip) - 1) for face in clip]
        for clip in clips
    ]
    labels = []
    for clip in wanted:  # no gaps
        order = {label: k for k, label in enumerate(sorted({x for x in clip if x >= 0}))}
        labels += [order.get(label, -1) for label in clip]
    labels = np.array(labels, np.int64)
    offsets = offsets_of([len(clip) for clip in clips])
    data = rows, offsets, labels, pool_descriptors(rows, offsets, labels)
    bounds = {
        "chained_below": chained_below,
        "thin_below": thin_below,
        "contested_from": contested_from,
    }
    with mock.patch.dict(BOUNDS, bounds):
        assert_equals_twin(diagnose(*data), *data, **bounds)


@pytest.mark.parametrize("batch_bytes", [1, 4 * 12 * 5, 4000, 20_000])
def test_result_is_independent_of_batches_and_row_blocks(monkeypatch, batch_bytes):
    data = made_up(np.concatenate([np.arange(25), [0, 0, 90, 0]]), seed=7)
    whole = diagnose(*data)
    monkeypatch.setattr(diagnostics, "_BATCH_BYTES", batch_bytes)
    found = diagnose(*data)
    for name in (*COUNTS, *FLAGS):
        assert getattr(found, name).tolist() == getattr(whole, name).tolist()
    for name in (*COSINES, "similarity"):
        expected = pytest.approx(getattr(whole, name), abs=2e-6, nan_ok=True)
        assert getattr(found, name) == expected


def test_the_lowest_pair_is_found_wherever_it_stands(monkeypatch):
    # Ten equal faces but for two, at right angles to each other (45 degrees from the rest).
    monkeypatch.setattr(diagnostics, "_BATCH_BYTES", 4 * 10 * 3)  # blocks of three rows
    for i in range(10):
        for j in range(i):
            clip = on_circle(*[45] * 10)
            clip[i], clip[j] = on_circle(0, 90)
            assert diagnose_one(clip, [0] * 10).lowest_similarity == pytest.approx([0], abs=1e-6)


def test_a_long_clip_needs_no_matrix_of_all_pairs():
    n = 12_000  # n × n float32 would be 576 MB
    clip = np.random.default_rng(9).standard_normal((n, 8), np.float32)
    clip[:, 0] += 9
    clip[7], clip[-5] = [-1, 0, 0, 0, 0, 0, 0, 0], [0.5] * 4 + [0.5] * 4
    labels = np.zeros(n, np.int64)
    descriptor = np.eye(1, 8)[0]
    tracemalloc.start()
    found = diagnose_one(clip, labels, descriptor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
    unit = clip / np.linalg.norm(clip, axis=1, keepdims=True)
    lowest = min((unit[k : k + 1000] @ unit.T).min() for k in range(0, n, 1000))
    assert found.lowest_similarity == pytest.approx([lowest], abs=2e-6)
    assert found.similarity == pytest.approx(unit[:, 0], abs=2e-6)


def test_caller_arrays_are_read_only_to_us():
    data = made_up([5, 0, 9], seed=1)
    before = [array.copy() for array in data]
    for array in data:
        array.flags.writeable = False
    diagnose(*data)
    for array, copy in zip(data, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.uint64])
def test_labels_of_any_integer_type(dtype):
    found = diagnose_one(on_circle(0, 10, 90), np.array([0, 0, 1], dtype))
    assert found.kept.tolist() == [2]
    assert found.clusters.tolist() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.array([True, False, False])}, "integers, one an embedding"),
        ({"labels": np.array([0, 0])}, r"\(3,\) integers"),
        ({"labels": np.array([0, -2, 0])}, "row 1 has the label -2"),
        ({"labels": np.array([0, 0, 1])}, "row 2 has the label 1"),  # a clip of one face
        ({"embeddings": np.ones(3)}, "n_rows, d"),
        ({"offsets": np.array([0, 2])}, "number of rows, 3"),
        ({"descriptors": np.eye(2)[:1]}, r"descriptors must be \(2, 2\)"),
        ({"descriptors": np.eye(3)[:2]}, "column a dimension"),
        ({"descriptors": 2 * np.eye(2)}, "norm 2"),
    ],
)
def test_input_is_checked(change, message):
    given = {
        "embeddings": on_circle(0, 1, 2),
        "offsets": np.array([0, 2, 3]),
        "labels": np.array([0, 0, 0]),
        "descriptors": on_circle(0.5, 2),
    }
    assert diagnose(**given).kept.tolist() == [2, 1]
    with pytest.raises(VidfaceError, match=message):
        diagnose(**(given | change))


@pytest.mark.parametrize("bad", [[0, 0], [np.nan, 1], [np.inf, 0]])
@pytest.mark.parametrize("label", [0, 1])
def test_a_member_needs_a_direction(monkeypatch, bad, label):
    rows = np.array([[1, 0], [1, 0], [1, 0], bad, [1, 0]], np.float32)
    labels = np.array([0, 0, 0, label, 0])
    monkeypatch.setattr(diagnostics, "_BATCH_BYTES", 1)  # the row number counts from the first
    with pytest.raises(VidfaceError, match=rf"row 3 \(clip 1\) is labelled {label}, but"):
        diagnose(rows, np.array([0, 2, 5]), labels, on_circle(0, 0))


def test_combine_puts_clips_in_their_places():
    lengths = [3, 0, 8, 5, 1]
    embeddings, offsets, labels, descriptors = made_up(lengths, seed=4)
    whole = diagnose(embeddings, offsets, labels, descriptors)

    def part(clips):
        rows = slice(offsets[clips.start], offsets[clips.stop])
        own = offsets[clips.start : clips.stop + 1] - rows.start
        return diagnose(embeddings[rows], own, labels[rows], descriptors[clips])

    # Clips 0–1 and 2–4 as two parts; in a manifest of seven the clips stand at 6, 0, 4, 2, 1.
    places = [6, 0, 4, 2, 1]
    joined = combine_diagnostics(
        [part(slice(0, 2)), part(slice(2, 5))], [np.array(places[:2]), np.array(places[2:])], 7
    )
    for name in (*COUNTS, *COSINES, *FLAGS):
        np.testing.assert_allclose(getattr(joined, name)[places], getattr(whole, name), atol=2e-6)
    np.testing.assert_allclose(joined.similarity, whole.similarity, atol=2e-6)
    assert joined.kept[[3, 5]].tolist() == [0, 0]
    assert np.isnan(joined.lowest_similarity[[3, 5]]).all()
    assert joined.summary()["faces"] == 17
    assert combine_diagnostics([], [], 2).summary()["none_kept"] == 2


def test_combine_checks_what_it_gets():
    one = diagnose_one(on_circle(0), [0])
    here = np.array([0])
    with pytest.raises(VidfaceError, match="a place for every clip"):
        combine_diagnostics([one], [np.array([0, 1])], 2)
    for rows in ([2], [-1]):
        with pytest.raises(VidfaceError, match=r"rows of \[0, 2\)"):
            combine_diagnostics([one], [np.array(rows)], 2)
    with pytest.raises(VidfaceError, match="each at most once"):
        combine_diagnostics([one, one], [here, here], 2)


def test_what_was_only_dropped_is_no_second_cluster():
    # Two kept, two dropped for their own sake: as clusters they would be contested.
    clip, labels = on_circle(0, 10, 90, 100), np.array([0, 0, 1, 1])
    assert flags_of(diagnose_one(clip, labels)) == ("contested", "thin")
    offsets = np.array([0, 4])
    descriptors = pool_descriptors(clip, offsets, labels)
    found = diagnose(clip, offsets, labels, descriptors, clustered=False)
    assert flags_of(found) == ("thin",)
    assert (found.clusters[0], found.kept[0], found.dropped[0]) == (1, 2, 2)
    assert (found.second_size[0], found.second_share[0]) == (0, 0.0)
    assert np.isnan(found.second_cosine[0])


def test_two_kept_faces_of_one_frame_are_flagged():
    rows = on_circle(0, 0, 0, 0, 0, 90, 0, 0)
    offsets = np.array([0, 3, 6, 6, 8])
    labels = np.array([0, 0, 1, 0, 0, 1, 0, 0])
    descriptors = on_circle(0, 0, 0, 0)
    # Frame 4 shows two kept faces of clip 0; of clip 1 and 3 each frame shows one kept face, though
    # frame 9 of clip 1 shows a dropped one, too, and clips 1 and 3 both have a frame 9.
    frames = np.array([4, 4, 5, 7, 9, 9, 8, 9])
    found = diagnose(rows, offsets, labels, descriptors, frames=frames)
    assert found.twice.tolist() == [True, False, False, False]
    assert found.summary()["twice"] == 1
    assert "1 twice" in str(found)
    assert not diagnose(rows, offsets, labels, descriptors).twice.any()
    with pytest.raises(VidfaceError, match=r"frames must be \(8,\) integers"):
        diagnose(rows, offsets, labels, descriptors, frames=frames[:7])
