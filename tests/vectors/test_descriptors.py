import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.runs.artefacts import fixed_lists
from vidface.runs.columns import embeddings_schema
from vidface.vectors import descriptors
from vidface.vectors.descriptors import (
    Pooled,
    check_descriptors,
    pool_descriptors,
    pool_faces,
    pooling_weights,
)
from vidface.vectors.directions import find_medoids
from vidface.vectors.poolings import POOLINGS


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


# Other poolings


def pool_weighted(clip, weights, labels=None, pooling="quality", dtype=np.float32):
    clip = np.array(clip, dtype=dtype)
    labels = np.zeros(len(clip), np.int32) if labels is None else np.array(labels)
    offsets = np.array([0, len(clip)])
    return pool_faces(clip, offsets, labels, pooling=pooling, weights=np.array(weights))


def test_weights_by_eye():
    # 3 · (1, 0) + 4 · (0, 1), of rows of any length; the third is not kept, whatever it weighs.
    pooled = pool_weighted([[100, 0], [0, 1], [-1, 0]], [3.0, 4.0, 1e9], [0, 0, 1])
    assert pooled.descriptors[0] == pytest.approx([0.6, 0.8])
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (0, 0)
    # A weight of 0 is a weight, and nothing to report.
    pooled = pool_weighted([[1, 0], [0, 1]], [0, 2])
    assert pooled.descriptors.tolist() == [[0, 1]]
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (0, 0)


@pytest.mark.parametrize("bad", [-1.0, -1e-300, math.nan, math.inf, -math.inf])
def test_weights_without_meaning_count_as_nothing(bad):
    pooled = pool_weighted([[1, 0], [0, 1], [0, -1]], [bad, 2.0, bad], [0, 0, 1])
    assert pooled.descriptors.tolist() == [[0, 1]]
    # The third is not kept, so it isn't counted.
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (1, 0)
    pooled = pool_weighted([[7, 0], [0, 1]], [bad, bad])
    assert pooled.descriptors[0] == pytest.approx([0.5**0.5, 0.5**0.5])
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (2, 1)


def test_a_clip_of_zero_weights_falls_back_alone():
    rows = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1]], dtype=np.float32)
    weights = np.array([0, 0, 3, 4, 0])
    # Clips: zeros; weights 3 and 4; empty; one face that is not kept.
    offsets, labels = np.array([0, 2, 4, 4, 5]), np.array([0, 0, 0, 0, 1])
    pooled = pool_faces(rows, offsets, labels, pooling="det-score", weights=weights)
    half = 0.5**0.5
    expected = [[half, half], [0.6, 0.8], [0, 0], [0, 0]]
    np.testing.assert_allclose(pooled.descriptors, expected, atol=1e-7)
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (0, 1)
    assert weights.tolist() == [0, 0, 3, 4, 0]


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e20, 1e300, 5e-324])
def test_weights_of_any_magnitude(scale):
    # Two clips: what one weighs must not touch the other. 5e-324 is the smallest float there is.
    rows = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    weights = np.array([4 * scale, 4 * scale, 3.0, 4.0])
    offsets, labels = np.array([0, 2, 4]), np.zeros(4, np.int32)
    pooled = pool_faces(rows, offsets, labels, pooling="quality", weights=weights)
    expected = [[0.5**0.5, 0.5**0.5], [0.6, 0.8]]
    np.testing.assert_allclose(pooled.descriptors, expected, atol=1e-7)
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (0, 0)


def test_the_largest_weight_wins_over_the_smallest():
    assert pool_weighted([[1, 0], [0, 1]], [1e-300, 1e300]).descriptors.tolist() == [[0, 1]]
    many = pool_weighted([[1, 0]] * 9 + [[0, 1]] * 9, [1.7e308] * 18).descriptors[0]
    assert many == pytest.approx([0.5**0.5, 0.5**0.5])


def test_weighted_rows_that_cancel_have_no_direction():
    assert pool_weighted([[1, 0], [-1, 1e-7]], [5, 5]).descriptors.tolist() == [[0, 0]]
    assert pool_weighted([[1, 0], [-1, 0]], [5, 4]).descriptors.tolist() == [[1, 0]]
    # Rows that weigh nothing don't make the mean longer or shorter: 1e-5 of the weight is enough.
    clip = [[1, 0], [-1, 2e-5], *([[1, 0]] * 100)]
    pooled = pool_weighted(clip, [1, 1] + [0] * 100)
    assert pooled.descriptors[0] == pytest.approx([0, 1], abs=1e-4)


def test_norm_sums_the_raw_embeddings():
    embeddings, offsets, _ = random_case(seed=2)
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    labels = np.zeros(len(embeddings), np.int32)
    ours = pool_descriptors(embeddings, offsets, labels, pooling="norm", weights=norms)
    for c, (a, b) in enumerate(pairwise(offsets)):
        total = embeddings[a:b].astype(np.float64).sum(axis=0)
        np.testing.assert_allclose(ours[c], total / (np.linalg.norm(total) or 1), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weighted_poolings_equal_the_naive_twin(dtype):
    embeddings, offsets, labels = random_case(seed=3)
    embeddings = embeddings.astype(dtype)
    rng = np.random.default_rng(4)
    weights = np.exp(rng.normal(0, 3, len(labels)))
    weights[rng.random(len(labels)) < 0.3] = 0
    weights[rng.random(len(labels)) < 0.1] = -1
    weights[rng.random(len(labels)) < 0.1] = np.nan
    pooled = pool_faces(embeddings, offsets, labels, pooling="quality", weights=weights)
    ignored = fallen_back = 0
    for c, (a, b) in enumerate(pairwise(offsets)):
        if a == b:
            assert not pooled.descriptors[c].any()
            continue
        twin = oracles.weighted_pool(
            embeddings[a:b].tolist(), labels[a:b].tolist(), weights[a:b].tolist()
        )
        np.testing.assert_allclose(pooled.descriptors[c], twin[0], atol=1e-7)
        ignored += twin[1]
        fallen_back += twin[2]
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (ignored, fallen_back)
    assert ignored > 5
    assert fallen_back > 3


@given(
    clip=st.lists(
        st.tuples(
            st.integers(-3, 3),
            st.integers(1, 3),
            st.floats(allow_nan=True, allow_infinity=True, width=64),
        ),
        min_size=1,
        max_size=6,
    )
)
@examples(200)
def test_any_weights_equal_the_naive_twin(clip):
    # All rows have y > 0: nothing cancels.
    rows, weights = [row[:2] for row in clip], [row[2] for row in clip]
    pooled = pool_weighted(rows, weights)
    expected, ignored, fallen_back = oracles.weighted_pool(rows, [0] * len(rows), weights)
    np.testing.assert_allclose(pooled.descriptors[0], expected, atol=1e-6)
    assert (pooled.weights_ignored, pooled.clips_fallen_back) == (ignored, fallen_back)


def test_equal_weights_are_the_mean_to_the_bit():
    embeddings, offsets, labels = random_case(seed=5)
    mean = pool_descriptors(embeddings, offsets, labels)
    pooled = pool_faces(embeddings, offsets, labels)
    assert isinstance(pooled, Pooled)
    assert (pooled.descriptors == mean).all()
    equal = np.full(len(labels), 0.3)
    ours = pool_descriptors(embeddings, offsets, labels, pooling="quality", weights=equal)
    assert (ours == mean).all()


def test_medoid_by_eye():
    def medoid(clip, labels=None):
        labels = [0] * len(clip) if labels is None else labels
        clip = np.array(clip, dtype=np.float64)
        offsets = np.array([0, len(clip)])
        return pool_descriptors(clip, offsets, np.array(labels), pooling="medoid")[0].tolist()

    # Of 0, 37 and 90 degrees the middle one: the longest row is no better for it.
    assert medoid([[100, 0], [0.8, 0.6], [0, 1]]) == pytest.approx([0.8, 0.6])
    # Without the last two, which are not kept, the first of two equally good ones.
    assert medoid([[3, 0], [0.8, 0.6], [0, 1], [np.nan, 1]], [0, 0, 1, -1]) == [1, 0]
    assert medoid([[0, 1], [0, -1]]) == [0, 1]
    assert medoid([[3, 4]]) == pytest.approx([0.6, 0.8])
    assert medoid([[3, 4]], [1]) == [0, 0]
    # A square cancels, but each of its corners is a face.
    assert medoid([[0, 1], [1, 0], [0, -1], [-1, 0]]) == [0, 1]


def test_of_two_faces_the_first_is_the_medoid_whatever_rounds():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2000, 33)).astype(np.float32)
    labels, offsets = np.zeros(2000, np.int32), np.arange(0, 2001, 2)
    ours = pool_descriptors(rows, offsets, labels, pooling="medoid")
    first = pool_descriptors(rows[::2], np.arange(1001), labels[::2])
    assert (ours == first).all()


def test_medoids_equal_the_naive_twin():
    embeddings, offsets, labels = random_case(seed=6, n_clips=150)
    ours = pool_descriptors(embeddings, offsets, labels, pooling="medoid")
    for c, (a, b) in enumerate(pairwise(offsets)):
        kept = [row for row, label in zip(embeddings[a:b], labels[a:b], strict=True) if label == 0]
        expected = oracles.unit(kept[oracles.medoid(kept)]) if kept else [0] * 12
        np.testing.assert_allclose(ours[c], expected, atol=1e-7)


@given(
    groups=st.lists(
        st.lists(st.tuples(*[st.integers(-2, 2)] * 2).filter(any), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
@examples(200)
def test_medoids_equal_the_naive_twin_with_ties(groups):
    unit = np.array([oracles.unit(row) for group in groups for row in group])
    before = unit.copy()
    firsts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    expected = [first + oracles.medoid(g) for first, g in zip(firsts, groups, strict=True)]
    assert find_medoids(unit, firsts).tolist() == expected
    assert (unit == before).all()


def test_a_long_clip_has_a_medoid_without_a_matrix():
    n = 20_000  # a float64 n × n matrix would take 3.2 GB
    rng = np.random.default_rng(1)
    rows = (np.eye(16)[0] + 0.1 * rng.standard_normal((n, 16))).astype(np.float32)
    rows[777] = np.eye(16)[0]
    tracemalloc.start()
    ours = pool_descriptors(rows, np.array([0, n]), np.zeros(n, np.int32), pooling="medoid")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * rows.nbytes
    assert ours[0, 0] > 0.99


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_is_independent_of_blocks_and_leaves_its_input_alone(monkeypatch, pooling):
    embeddings, offsets, labels = random_case(seed=7)
    weights = None
    if POOLINGS[pooling].column:
        weights = np.random.default_rng(8).exponential(size=len(labels)) - 0.3
        weights.flags.writeable = False
    for array in (embeddings, offsets, labels):
        array.flags.writeable = False
    whole = pool_faces(embeddings, offsets, labels, pooling=pooling, weights=weights)
    for block_bytes in [1, 5 * 16 * 12]:
        monkeypatch.setattr(descriptors, "_BLOCK_BYTES", block_bytes)
        blocks = pool_faces(embeddings, offsets, labels, pooling=pooling, weights=weights)
        assert (blocks.descriptors == whole.descriptors).all()
        assert (blocks.weights_ignored, blocks.clips_fallen_back) == (
            whole.weights_ignored,
            whole.clips_fallen_back,
        )
    check_descriptors(whole.descriptors)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_of_nothing(pooling):
    rows, labels = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int32)
    weights = np.zeros(0) if POOLINGS[pooling].column else None
    for offsets in [[0], [0, 0, 0]]:
        pooled = pool_faces(rows, np.array(offsets), labels, pooling=pooling, weights=weights)
        assert pooled.descriptors.tolist() == [[0] * 4] * (len(offsets) - 1)
        assert (pooled.weights_ignored, pooled.clips_fallen_back) == (0, 0)


def test_pooling_input_is_checked():
    rows, offsets, labels = np.ones((3, 2)), np.array([0, 3]), np.zeros(3, np.int32)

    def refuse(message, **kwargs):
        with pytest.raises(VidfaceError, match=message):
            pool_faces(rows, offsets, labels, **kwargs)

    refuse(r"unknown pooling 'max' \(known: mean, det-score, norm, qua", pooling="max")
    refuse("unknown pooling", pooling=["mean"])
    refuse("'norm' needs weights: the column 'norm'", pooling="norm")
    refuse("'mean' takes no weights", weights=np.ones(3))
    refuse("'medoid' takes no weights", pooling="medoid", weights=np.ones(3))
    refuse(r"weights must be \(3,\) numbers", pooling="norm", weights=np.ones(2))
    refuse(r"shape \(3, 1\)", pooling="norm", weights=np.ones((3, 1)))
    refuse("of bool", pooling="norm", weights=np.ones(3, bool))
    refuse("of object", pooling="norm", weights=np.array([1, None, 1]))
    rows[1] = 0
    for pooling in ("medoid", "norm"):
        weights = np.array([1, 0, 1]) if POOLINGS[pooling].column else None
        refuse(r"row 1 \(clip 0\) is labelled 0", pooling=pooling, weights=weights)


def embeddings_table(n, **columns):
    schema = embeddings_schema(2)
    arrays = [
        columns.get(f.name, fixed_lists(np.ones((n, 2))) if f.name == "embedding" else [None] * n)
        for f in schema
    ]
    return pa.Table.from_arrays(
        [pa.array(a, f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema
    )


def test_weights_of_an_artefact():
    table = embeddings_table(3, det_score=[0.5, None, 0.25], norm=[1, 2, 3])
    np.testing.assert_array_equal(pooling_weights(table, "det-score"), [0.5, np.nan, 0.25])
    norms = pooling_weights(table, "norm")
    assert norms.tolist() == [1, 2, 3]
    assert norms.dtype == np.float64
    assert pooling_weights(table, "mean") is None
    assert pooling_weights(table, "medoid") is None
    # A whole-number column, and nulls in it; more than one chunk.
    quality = table.append_column("quality", pa.array([7, None, 9], pa.int16()))
    quality = pa.concat_tables([quality, quality.slice(1)])
    expected = [7, np.nan, 9, np.nan, 9]
    np.testing.assert_array_equal(pooling_weights(quality, "quality"), expected)
    # No faces at all: nothing to weigh, nothing wrong.
    assert pooling_weights(table.slice(0, 0), "det-score").shape == (0,)


def test_an_artefact_that_does_not_allow_a_pooling():
    aligned = embeddings_table(2, norm=[1, 2])
    with pytest.raises(VidfaceError, match=r"needs detected faces.*allows mean, norm, medoid$"):
        pooling_weights(aligned, "det-score")
    detected = embeddings_table(2, norm=[1, 2], det_score=[0.5, None])
    with pytest.raises(
        VidfaceError,
        match=r"'quality': .* no column 'quality'; .*allows mean, det-score, norm, medoid$",
    ):
        pooling_weights(detected, "quality")
    text = detected.append_column("quality", pa.array(["good", "bad"]))
    with pytest.raises(VidfaceError, match="column 'quality' holds no numbers"):
        pooling_weights(text, "quality")
    empty = detected.append_column("quality", pa.array([None, None], pa.float32()))
    with pytest.raises(VidfaceError, match="column 'quality' holds no numbers"):
        pooling_weights(empty, "quality")
    with pytest.raises(VidfaceError, match="no column 'det_score'; this artefact allows mean, med"):
        pooling_weights(pa.table({"clip_id": ["a"]}), "det-score")
    with pytest.raises(VidfaceError, match="unknown pooling 'sum'"):
        pooling_weights(detected, "sum")


def test_an_artefact_from_weights_to_descriptors():
    # Null weighs nothing: only the first face is left.
    table = embeddings_table(2, norm=[1, 2], det_score=[0.5, None])
    pooled = pool_faces(
        np.eye(2, dtype=np.float32),
        np.array([0, 2]),
        np.zeros(2, np.int32),
        pooling="det-score",
        weights=pooling_weights(table, "det-score"),
    )
    assert pooled.descriptors.tolist() == [[1, 0]]
    assert pooled.weights_ignored == 1
