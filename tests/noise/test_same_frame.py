import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.noise import same_frame
from vidface.noise.clusters import MEMORY_BYTES, cluster_frames, cut, linkage_tree
from vidface.noise.denoisers import UnionFind, denoiser_record, make_denoiser
from vidface.noise.removal import FaceSet, remove_noise
from vidface.noise.same_frame import link_apart
from vidface.vectors.rows import unit_rows_float64

THRESHOLDS = (-0.9, -0.5, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


def on_circle(*degrees):
    return np.array([(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in degrees])


def label_one(clip, frames, threshold, same_person=0.7, memory_bytes=MEMORY_BYTES):
    tree = link_apart(
        np.asarray(clip), np.array([0, len(clip)]), np.asarray(frames), same_person, memory_bytes
    )
    return cut(tree, threshold).tolist()


def two_people(rng, n, d=3):
    """Faces of two people, mixed, several a frame, some unusable, some the same again."""
    rows = rng.normal(size=(2, d))[rng.integers(0, 2, n)] + 0.8 * rng.normal(size=(n, d))
    rows = rows[rng.integers(0, n, n)] if rng.random() < 0.3 else rows
    rows[rng.random(n) < 0.05] = rng.choice([np.nan, 0.0])
    return rows, np.sort(rng.integers(0, max(1, n // 2), n))


def least_memory(clip):
    """A budget for which a clip's pairs are taken a few at a time."""
    return 3 * clip.size * 8 + same_frame._PAIR_BYTES * len(clip)


def test_a_pair_that_is_refused_makes_way_for_a_weaker_one():
    # Frames 0 0 1 2. Strongest first: 0–20 is refused (one frame), 20–50 (0.866) and 50–90 (0.766)
    # join; 0–50 (0.643) and 20–90 are refused or done. At 0.8 the chain of 90 is not there yet.
    clip, frames = on_circle(0, 20, 50, 90), [0, 0, 1, 2]
    assert label_one(clip, frames, 0.5, same_person=0.95) == [1, 0, 0, 0]
    assert label_one(clip, frames, 0.8, same_person=0.95) == [1, 0, 0, 2]
    assert label_one(clip, frames, None, same_person=0.95) == [0, 0, 0, 0]  # no clustering at all
    assert label_one(clip, frames, 1, same_person=0.95) == [0, 1, 2, 3]
    assert label_one(on_circle(0, 20, 50), [0, 0, 0], -0.9, same_person=0.95) == [0, 1, 2]


def test_the_spanning_tree_alone_is_not_enough():
    # Frames 0 0 1 1. 25–30 joins, and shows both frames: 30–52, 0–25, 25–52, 0–30 are refused. Then
    # 0–52 (0.616) joins, a pair that is no edge of the tree 0–25–30–52.
    clip, frames = on_circle(0, 25, 30, 52), [0, 0, 1, 1]
    assert label_one(clip, frames, 0.6, same_person=0.97) == [0, 1, 1, 0]
    assert label_one(clip, frames, 0.62, same_person=0.97) == [1, 0, 0, 2]


def test_alike_faces_of_one_frame_are_one_person():
    clip, frames = on_circle(0, 20, 30, 90), [0, 0, 1, 1]  # in frame 0 a mirror, say: cosine 0.940
    assert label_one(clip, frames, 0.5, same_person=0.93) == [0, 0, 0, 1]
    assert label_one(clip, frames, 0.5, same_person=0.95) == [1, 0, 0, 2]
    # Strictly above: (1, 1, 1, 1) and (2, 0, 0, 0) have a cosine of exactly 0.5.
    half = np.array([[1, 1, 1, 1], [2, 0, 0, 0]], np.float32)
    assert label_one(half, [3, 3], 0.25, same_person=0.5) == [0, 1]
    assert label_one(half, [3, 3], 0.25, same_person=0.499) == [0, 0]


def test_ties_go_by_rows():
    # Row 1 is equally near to 0 and 2 (cosine 0.5), which share a frame: the earlier pair joins.
    rows = np.array([[1, 1, 1, 1], [2, 0, 0, 0], [1, -1, 1, -1]], np.float64)
    assert label_one(rows, [0, 1, 0], 0.25) == [0, 0, 1]
    assert label_one(rows, [0, 1, 0], 0.5) == [0, 1, 2]  # equal to the threshold joins nothing
    same = np.ones((4, 3))  # equal faces, two a frame
    assert label_one(same, [0, 0, 1, 1], 0.5, same_person=1.0) == [0, 1, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_naive_twin_over_all_pairs(seed):
    """The whole sequence of joins: at every threshold, and however few pairs are taken at once."""
    rng = np.random.default_rng(seed)
    differ = 0
    for n in (1, 2, 3, 8, 13, 20):
        clip, frames = two_people(rng, n)
        for threshold in THRESHOLDS:
            expected = oracles.apart_labels(clip, frames, threshold, 0.9)
            for memory_bytes in (MEMORY_BYTES, least_memory(clip), 2 * least_memory(clip)):
                assert label_one(clip, frames, threshold, 0.9, memory_bytes) == expected
            differ += label_one(clip, np.arange(n), threshold) != expected
    assert differ  # the rule did something


coordinates = st.sampled_from([-1.0, 1.0])
faces_of_a_clip = st.lists(
    st.tuples(*[coordinates] * 4, st.integers(0, 3), st.booleans()), min_size=1, max_size=12
)


@given(faces_of_a_clip, st.sampled_from([-0.9, -0.5, 0.0, 0.4, 0.5]), st.sampled_from([0.5, 0.9]))
@examples(60)
def test_ties_equal_the_naive_twin(faces, threshold, same_person):
    """Cosines of ±1 corners are −1, −0.5, 0, 0.5 and 1 exactly: ties, and equal to thresholds."""
    clip = np.array([face[:4] if face[5] or k else [0.0] * 4 for k, face in enumerate(faces)])
    frames = np.array([face[4] for face in faces])
    expected = oracles.apart_labels(clip, frames, threshold, same_person)
    assert label_one(clip, frames, threshold, same_person) == expected
    assert label_one(clip, frames, threshold, same_person, least_memory(clip)) == expected


def test_one_face_a_frame_is_single_linkage_to_the_bit():
    rng = np.random.default_rng(5)
    lengths = [3, 0, 30, 1, 12]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = rng.normal(size=(offsets[-1], 4)).astype(np.float32)
    frames = np.concatenate([np.arange(n) for n in lengths])
    free = linkage_tree(rows, offsets)
    apart = link_apart(rows, offsets, frames, 0.7, MEMORY_BYTES)
    np.testing.assert_array_equal(apart.order, free.order)
    np.testing.assert_array_equal(apart.similarities, free.similarities)
    # One clip with two faces in a frame changes no other clip.
    frames[4] = frames[3]
    crowded = link_apart(rows, offsets, frames, 0.7, MEMORY_BYTES)
    alone = np.r_[0:3, 33:46]
    np.testing.assert_array_equal(crowded.similarities[alone], free.similarities[alone])
    for threshold in THRESHOLDS:
        labels = cut(crowded, threshold)
        for a, b in pairwise(offsets):
            expected = oracles.apart_labels(rows[a:b], frames[a:b], threshold, 0.7)
            assert labels[a:b].tolist() == expected


def test_no_cluster_shows_two_people_of_a_frame():
    rng = np.random.default_rng(0)
    for _ in range(200):
        clip, frames = two_people(rng, 20)
        unit = unit_rows_float64(clip)[0]
        labels = np.array(label_one(clip, frames, 0.2))
        for i, j in zip(*np.nonzero(frames[:, None] == frames), strict=True):
            if labels[i] == labels[j] >= 0:
                assert i == j or unit[i] @ unit[j] > 0.699


def test_a_long_clip_stays_within_the_budget():
    rng = np.random.default_rng(0)
    n, d = 3000, 32
    people = rng.normal(size=(2, d))
    clip = (people[np.arange(n) % 2] + rng.normal(size=(n, d))).astype(np.float32)
    frames, offsets = np.arange(n) // 2, np.array([0, n])
    link_apart(clip[:9], np.array([0, 9]), frames[:9], 0.7, MEMORY_BYTES)  # imports
    budget = 8 * 2**20  # all pairs as float32 would be 34 MiB
    tracemalloc.start()
    tree = link_apart(clip, offsets, frames, 0.7, budget)
    assert tracemalloc.get_traced_memory()[1] < budget
    tracemalloc.stop()
    assert cut(tree, 0.1).tolist() == (np.arange(n) % 2).tolist()
    with pytest.raises(VidfaceError, match=r"3000 faces .* memory_bytes is 1000000; raise it"):
        link_apart(clip, offsets, frames, 0.7, 10**6)


def test_the_setting_decides():
    rows = np.array([[1, 1, 1, 1], [2, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    faces = FaceSet(rows, np.array([0, 3]), frames=np.array([0, 0, 1]))
    assert remove_noise(faces, UnionFind(0.25)).tolist() == [0, 0, 0]
    assert remove_noise(faces, UnionFind(0.25, "free")).tolist() == [0, 0, 0]
    assert remove_noise(faces, UnionFind(0.25, "apart")).tolist() == [0, 1, 0]
    assert remove_noise(faces, UnionFind(0.25, "apart", 0.49)).tolist() == [0, 0, 0]
    assert cluster_frames(rows, np.array([0, 3]), 0.25).tolist() == [0, 0, 0]
    assert UnionFind().settle(faces_apart=True) == UnionFind(same_frame="apart")
    assert UnionFind().settle(faces_apart=False) == UnionFind(same_frame="free")
    assert UnionFind(same_frame="free").settle(faces_apart=True) == UnionFind(same_frame="free")
    with pytest.raises(VidfaceError, match="give frames, or same_frame free"):
        remove_noise(FaceSet(rows, np.array([0, 3])), UnionFind(0.25, "apart"))
    with pytest.raises(VidfaceError, match=r"same_frame: unknown value 'both' \(known: apart, fr"):
        UnionFind(same_frame="both")


def test_records_say_apart_and_free_is_as_before():
    assert denoiser_record(UnionFind(0.4, "free")) == denoiser_record(UnionFind(0.4))
    record = denoiser_record(UnionFind(0.4, "apart", 0.8))
    expected = {"threshold": 0.4, "same_frame": "apart", "same_person_threshold": 0.8}
    assert record == {"method": "union-find", **expected}
    assert make_denoiser(record.pop("method"), record) == UnionFind(0.4, "apart", 0.8)
