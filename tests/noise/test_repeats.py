"""One picture that stays: which rows repeat one, and what they are to noise removal."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from tests import oracles_diagnostics as oracles
from tests.noise.test_diagnostics import flags_of, on_circle
from vidface.core.errors import VidfaceError
from vidface.noise import repeats
from vidface.noise.denoisers import DENOISERS
from vidface.noise.diagnostics import diagnose
from vidface.noise.removal import FaceSet, remove_noise
from vidface.noise.repeats import LOOK_BACK, SAME_PICTURE_COSINE, find_repeats, share_of_still
from vidface.vectors.descriptors import pool_descriptors


def clips_with_stills(seed: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Clips of people that move, with stills: equal, nearly equal, far apart; and unusable rows."""
    rng = np.random.default_rng(seed)
    clips = []
    for n in [0, 1, 2, *rng.integers(3, 30, 20)]:
        clip = rng.standard_normal(16) + rng.standard_normal((n, 16))
        for row in range(1, n):
            kind = rng.integers(0, 6)
            if kind == 0:
                clip[row] = clip[row - 1]
            elif kind == 1:
                clip[row] = 3 * (clip[row - 1] + 0.01 * rng.standard_normal(16))
            elif kind == 2:
                clip[row] = clip[rng.integers(0, row)]
            elif kind == 3 and rng.random() < 0.2:
                clip[row] = rng.choice([0.0, np.nan])
        clips.append(clip)
    offsets = np.cumsum([0, *(len(clip) for clip in clips)])
    return np.concatenate(clips).astype(dtype), offsets


@pytest.mark.parametrize("block_bytes", [1, 500, 2**23])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pictures_are_those_of_the_naive_twin(monkeypatch, block_bytes: int, dtype: type) -> None:
    monkeypatch.setattr(repeats, "_BLOCK_BYTES", block_bytes)
    rows, offsets = clips_with_stills(0, dtype)
    expected = [
        start + first
        for start, stop in pairwise(offsets.tolist())
        for first in oracles.pictures_of(rows[start:stop].astype(np.float64).tolist())
    ]
    before = rows.copy()
    firsts = find_repeats(rows, offsets)
    assert firsts.tolist() == expected
    assert 0.3 < np.mean(firsts != np.arange(len(rows))) < 0.7
    assert rows.tobytes() == before.tobytes()


def test_where_a_picture_ends() -> None:
    degrees = math.degrees(math.acos(SAME_PICTURE_COSINE))
    for turned, same in [(0.95 * degrees, True), (1.05 * degrees, False)]:
        faces = on_circle(0, turned)
        assert (find_repeats(faces, np.array([0, 2]))[1] == 0) == same
        assert find_repeats(faces, np.array([0, 1, 2])).tolist() == [0, 1]  # of two clips


def test_far_apart_only_equal_bits_count() -> None:
    between = 20 * (1 + np.arange(LOOK_BACK))
    near, far = on_circle(0, *between[:-1], 0.1), on_circle(0, *between, 0.1)
    assert find_repeats(near, np.array([0, len(near)]))[-1] == 0
    assert find_repeats(far, np.array([0, len(far)]))[-1] == len(far) - 1
    far[-1] = far[0]
    assert find_repeats(far, np.array([0, len(far)]))[-1] == 0
    far[-1] *= 2  # another length: other bits
    assert find_repeats(far, np.array([0, len(far)]))[-1] == len(far) - 1


def test_rows_that_begin_alike_are_compared_whole() -> None:
    rows = np.concatenate([np.tile([1, 2], (20, 1)), 10 * on_circle(*range(0, 360, 18))], axis=1)
    rows[-1] = rows[0]
    assert find_repeats(rows, np.array([0, 20])).tolist() == [*range(19), 0]


def test_unusable_rows_repeat_nothing() -> None:
    rows = np.array([[0, 0], [0, 0], [np.nan, 1], [np.nan, 1]], np.float32)
    assert find_repeats(rows, np.array([0, 4])).tolist() == [0, 1, 2, 3]
    assert find_repeats(np.zeros((0, 3), np.float32), np.array([0, 0])).tolist() == []


def test_share_counts_frames() -> None:
    firsts, offsets = np.array([0, 1, 0, 1, 0, 5, 6, 7]), np.array([0, 6, 7, 7, 8])
    assert share_of_still(firsts, offsets).tolist() == [0.5, 0, 0, 0]
    frames = np.array([0, 0, 1, 1, 2, 2, 0, 0])  # two faces a frame, the larger a picture's
    assert share_of_still(firsts, offsets, frames).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("method", [name for name in DENOISERS if name != "oracle"])
def test_once_is_clustering_without_the_repeats(method: str) -> None:
    """Against taking them out by hand: labels, descriptors, and every repeat has its picture's."""
    denoiser = DENOISERS[method]()
    rows, offsets = clips_with_stills(1)
    faces = FaceSet(rows, offsets, repeats="once")
    labels = remove_noise(faces, denoiser)
    firsts = [
        start + first
        for start, stop in pairwise(offsets.tolist())
        for first in oracles.pictures_of(rows[start:stop].tolist())
    ]
    left = [row for row, first in enumerate(firsts) if row == first]
    offsets_left = np.array([sum(row < start for row in left) for start in offsets.tolist()])
    by_hand = remove_noise(FaceSet(rows[left], offsets_left), denoiser)
    assert faces.votes.tolist() == [row == first for row, first in enumerate(firsts)]
    assert labels[left].tolist() == by_hand.tolist()
    assert labels.tolist() == labels[firsts].tolist()
    counted = remove_noise(FaceSet(rows, offsets), denoiser)
    assert method == "none" or counted.tolist() != labels.tolist()


def test_the_oracle_hears_of_a_picture_once() -> None:
    rows, noise = on_circle(0, 0, 90, 0), np.array([True, False, False, True])
    faces = FaceSet(rows, np.array([0, 4]), noise=noise, repeats="once")
    assert remove_noise(faces, DENOISERS["oracle"]()).tolist() == [1, 1, 0, 1]


def test_a_still_no_longer_outvotes_the_person() -> None:
    """Three views of a person, then another's picture for eight samples."""
    rows = np.concatenate([on_circle(0, 20, 40), on_circle(*[180] * 8)])
    offsets, denoiser = np.array([0, 11]), DENOISERS["union-find"]()
    counted = remove_noise(FaceSet(rows, offsets), denoiser)
    assert counted.tolist() == [1] * 3 + [0] * 8
    once = remove_noise(FaceSet(rows, offsets, repeats="once"), denoiser)
    assert once.tolist() == [0] * 3 + [1] * 8
    found = diagnose(rows, offsets, once, pool_descriptors(rows, offsets, once), repeats="once")
    assert (found.kept[0], found.dropped[0], found.second_size[0]) == (3, 8, 1)
    assert found.still_share[0] == 8 / 11
    assert flags_of(found) == ("still",)


def test_unknown_values_are_refused() -> None:
    rows, offsets = on_circle(0), np.array([0, 1])
    with pytest.raises(VidfaceError, match="'twice' \\(known: count, once\\)"):
        FaceSet(rows, offsets, repeats="twice")
    with pytest.raises(VidfaceError, match="known: count, once"):
        diagnose(rows, offsets, np.array([0]), rows, repeats="twice")
