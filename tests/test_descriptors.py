from itertools import pairwise

import numpy as np
import pytest

from tests import oracles
from vidface import descriptors
from vidface.descriptors import check_descriptors, pool_descriptors
from vidface.errors import VidfaceError


def pool_one(clip, labels, dtype=np.float32):
    clip = np.array(clip, dtype=dtype)
    return pool_descriptors(clip, np.array([0, len(clip)]), np.array(labels, dtype=np.int32))[0]


def random_case(seed=0, n_clips=60, d=12):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 9, n_clips))])
    embeddings = rng.standard_normal((offsets[-1], d)) * 10 ** rng.uniform(-3, 3, (offsets[-1], 1))
    labels = rng.integers(-1, 3, offsets[-1]).astype(np.int32)
    return embeddings.astype(np.float32), offsets, labels


def test_each_row_is_normalised_before_the_sum():
    # Of 100 · (1, 0) and (0, 1), both count the same.
    assert pool_one([[100, 0], [0, 1]], [0, 0]) == pytest.approx([0.5**0.5, 0.5**0.5])


def test_only_the_kept_rows_count():
    clip = [[1, 0], [0, 1], [np.nan, np.inf], [0, -1], [3, 0]]
    assert pool_one(clip, [0, 1, -1, 2, 0]).tolist() == [1, 0]


@pytest.mark.parametrize("labels", [[1, 1], [-1, -1], [1, -1]])
def test_a_clip_without_a_kept_row_has_no_direction(labels):
    assert pool_one([[1, 0], [0, 1]], labels).tolist() == [0, 0]


def test_rows_that_cancel_have_no_direction():
    rng = np.random.default_rng(0)
    half = rng.standard_normal((50, 8))
    assert pool_one(np.concatenate([half, -7 * half]), [0] * 100).tolist() == [0] * 8
    assert pool_one([[1, 0], [-1, 1e-7]], [0, 0]).tolist() == [0, 0]  # the mean is 5e-8 long
    assert pool_one([[1, 0], [-1, 1e-5]], [0, 0]) == pytest.approx([0, 1], abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_the_naive_twin(dtype):
    embeddings, offsets, labels = random_case()
    embeddings = embeddings.astype(dtype)
    result = pool_descriptors(embeddings, offsets, labels)
    assert result.dtype == np.float32
    assert result.shape == (60, 12)
    no_direction = 0
    for c, (a, b) in enumerate(pairwise(offsets)):
        expected = [0.0] * 12
        if a < b:
            expected = oracles.pool(embeddings[a:b].tolist(), labels[a:b].tolist())
        np.testing.assert_allclose(result[c], expected, atol=1e-7)
        no_direction += not any(expected)
    assert 5 < no_direction < 40
    norms = np.linalg.norm(result.astype(np.float64), axis=1)
    assert (np.abs(norms[norms > 0] - 1) < 1e-6).all()


def test_result_is_independent_of_blocks(monkeypatch):
    embeddings, offsets, labels = random_case(seed=1)
    whole = pool_descriptors(embeddings, offsets, labels)
    for block_bytes in [1, 5 * 16 * 12]:
        monkeypatch.setattr(descriptors, "_BLOCK_BYTES", block_bytes)
        assert (pool_descriptors(embeddings, offsets, labels) == whole).all()


def test_rows_of_any_magnitude():
    clip = [[3e200, 4e200], [3e-200, 4e-200]]
    assert pool_one(clip, [0, 0], np.float64) == pytest.approx([0.6, 0.8])


def test_no_clips_and_empty_clips():
    none = np.zeros((0, 4), dtype=np.float32)
    labels = np.zeros(0, dtype=np.int32)
    assert pool_descriptors(none, np.array([0]), labels).shape == (0, 4)
    assert pool_descriptors(none, np.array([0, 0, 0]), labels).tolist() == [[0] * 4] * 2


def test_caller_arrays_are_read_only_to_us():
    embeddings, offsets, labels = random_case()
    for array in (embeddings, offsets, labels):
        array.flags.writeable = False
    pool_descriptors(embeddings, offsets, labels)


def test_input_is_checked():
    rows = np.ones((3, 2), dtype=np.float32)
    offsets = np.array([0, 1, 3])
    labels = np.zeros(3, dtype=np.int32)
    with pytest.raises(VidfaceError, match=r"labels must be \(3,\)"):
        pool_descriptors(rows, offsets, labels[:2])
    with pytest.raises(VidfaceError, match="of bool"):
        pool_descriptors(rows, offsets, labels == 0)
    with pytest.raises(VidfaceError, match="number of rows, 3"):
        pool_descriptors(rows, offsets[:2], labels)
    rows[2] = np.nan
    with pytest.raises(VidfaceError, match=r"row 2 \(clip 1\) is labelled 0"):
        pool_descriptors(rows, offsets, labels)


def test_descriptors_are_unit_or_zero():
    rows = np.array([[1, 0], [0, 0], [0.6, 0.8005]], dtype=np.float32)
    assert check_descriptors(rows)[1].tolist() == [True, False, True]
    for bad, message in [
        ([np.nan, 0], "row 1 of gallery is not finite"),
        ([np.inf, 0], "row 1 of gallery is not finite"),
        ([0.9, 0], "row 1 of gallery has norm 0.9"),
        ([1.01, 0], "has norm 1.01"),
        ([1e-30, 0], "has norm"),
    ]:
        rows[1] = bad
        with pytest.raises(VidfaceError, match=message):
            check_descriptors(rows, "gallery")
    with pytest.raises(VidfaceError, match=r"\(n, d\) floats"):
        check_descriptors(rows[0])
    with pytest.raises(VidfaceError, match=r"\(n, d\) floats"):
        check_descriptors(np.eye(3, dtype=np.int64))
