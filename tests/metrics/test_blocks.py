import numpy as np
import pytest
import torch

from vidface.core.errors import VidfaceError
from vidface.metrics.blocks import EXCLUDED, NumpyOps, TorchOps, bin_edges, bin_of

KINDS = ["numpy", "torch"]


def as_float32(*values):
    return np.array(values, dtype=np.float32)


def make_ops(kind, rows=None, columns=None, units=None):
    rows = np.eye(3, 4, dtype=np.float32) if rows is None else rows
    columns = rows if columns is None else columns
    if units is None:
        units = tuple(np.arange(len(side), dtype=np.int32) for side in (rows, columns))
    if kind == "numpy":
        return NumpyOps(rows, columns, units)
    return TorchOps(rows, columns, units, "cpu")


def block(kind, values):
    """A block of the library's own, which may be written into."""
    values = np.array(values, dtype=np.float32)
    values = values if values.ndim == 2 else values[None]
    return values if kind == "numpy" else torch.from_numpy(values)


def host(values):
    return np.asarray(values)


def awkward_scores(seed=0, n=5000):
    """Scores at and beside the bins' edges, at the ends, and anywhere."""
    rng = np.random.default_rng(seed)
    edges = rng.choice(bin_edges(2**16)[:-1], n)
    beside = np.nextafter(edges, np.float32(-2))
    near_zero = as_float32(0, -0.0, 1e-45, -1e-45, -3e-8, 3e-8, 1e-20)
    scores = [edges, beside, rng.uniform(-1, 1, n).astype(np.float32), near_zero]
    return np.clip(np.concatenate([*scores, as_float32(-1, 1)]), -1, 1)


def test_bins_by_eye():
    scores = as_float32(-1, -0.75, -0.5, 0, 0.499, 0.5, 1)
    assert bin_of(scores, 4).tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert bin_of(as_float32(-1.0005, 1.0005), 4).tolist() == [0, 3]  # as the clipped scores


@pytest.mark.parametrize("bins", [2**k for k in range(1, 17)])
def test_an_edge_is_the_lowest_score_of_its_bin(bins):
    edges = bin_edges(bins)
    assert edges.dtype == np.float32
    assert edges.shape == (bins + 1,)
    assert (edges[0], edges[-1]) == (-1, 2)
    assert not np.signbit(edges[edges == 0]).any()
    assert np.array_equal(bin_of(edges[:-1], bins), np.arange(bins))
    below = np.nextafter(edges[1:-1], np.float32(-2))
    assert np.array_equal(bin_of(below, bins), np.arange(bins - 1))


def test_bins_rise_with_the_score_and_nest():
    scores = np.sort(awkward_scores())
    fine = bin_of(scores, 2**16)
    assert (np.diff(fine) >= 0).all()
    for k in range(1, 16):
        assert np.array_equal(bin_of(scores, 2**k), fine >> (16 - k))


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_runs_of_rows(kind):
    rng = np.random.default_rng(0)
    rows = rng.choice([-0.25, 0.25], (7, 16)).astype(np.float32)
    columns = rng.choice([-0.25, 0.25], (9, 16)).astype(np.float32)
    ops = make_ops(kind, rows, columns)
    for a, b in [
        (slice(0, 7), slice(0, 9)),
        (slice(2, 4), slice(5, 9)),
        (slice(1, 7), slice(3, 8)),
    ]:
        scores = ops.product(a, b)
        assert np.array_equal(host(scores), rows[a] @ columns[b].T)
        ops.exclude(scores, np.array([0, 3]))  # what is written there is gone at the next call
        assert host(scores).reshape(-1)[[0, 3]].tolist() == [EXCLUDED, EXCLUDED]
        assert np.count_nonzero(host(scores) == EXCLUDED) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2)])
def test_the_diagonal_and_below_are_excluded(kind, shape):
    scores = block(kind, np.full(shape, 0.5))
    n = make_ops(kind).exclude_lower(scores)
    expected = [[EXCLUDED if j <= i else 0.5 for j in range(shape[1])] for i in range(shape[0])]
    assert host(scores).tolist() == expected
    assert n == sum(row.count(EXCLUDED) for row in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_taken_are_clipped_and_the_block_is_not(kind):
    scores = block(kind, [[1.0005, 0.5, -1.0005], [0.25, 0, 1]])
    taken = make_ops(kind).take(scores, np.array([5, 0, 2, 3]))
    assert isinstance(taken, np.ndarray)
    assert taken.tolist() == [1, 1, -1, 0.25]
    assert host(scores)[0, 0] == np.float32(1.0005)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bins", [2, 16, 2**13, 2**16])
def test_histogram_counts_what_bin_of_says(kind, bins):
    scores = awkward_scores(seed=1)
    outside = as_float32(1.0000001, 1.0009, -1.0000001, -1.0009, 1.0009)
    excluded = np.full(11, EXCLUDED, np.float32)
    values = np.random.default_rng(0).permutation(np.concatenate([scores, outside, excluded]))
    counted = make_ops(kind).histogram(block(kind, values), bins, 11)
    real = np.clip(np.concatenate([scores, outside]), -1, 1)
    assert counted.dtype == np.int64
    assert np.array_equal(counted, np.bincount(bin_of(real, bins), minlength=bins))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bins", [2, 2**16])
def test_counts_beyond_what_float32_holds_are_whole(kind, bins):
    n = 2**24 + 4  # counted in float32, the last ones would be lost
    values = np.full(n, 0.25, dtype=np.float32)
    values[:3] = EXCLUDED, -1, 1.0001
    counted = make_ops(kind).histogram(block(kind, values.reshape(2, -1)), bins, 1)
    expected = np.zeros(bins, np.int64)
    np.add.at(expected, bin_of(as_float32(-1, 1, 0.25), bins), [1, 1, n - 3])
    assert np.array_equal(counted, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_above_a_floor_and_where_they_are(kind):
    scores = block(kind, [[0.5, EXCLUDED, 1.0005], [0.75, -1.0005, 0.5000001]])
    ops = make_ops(kind)
    values, index = ops.above(scores, 0.5)
    assert host(values).tolist() == [1, 0.75, np.float32(0.5000001)]
    assert host(index).tolist() == [2, 3, 5]
    values, index = ops.above(scores, -1.5)
    assert host(values).tolist() == [0.5, 1, 0.75, -1, np.float32(0.5000001)]
    assert host(index).tolist() == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_either_side(kind):
    rows, columns = np.eye(3, 4, dtype=np.float32), np.eye(4, dtype=np.float32)
    units = np.array([5, 5, 7], np.int32), np.array([5, 6, 8, 9], np.int32)
    ops = make_ops(kind, rows, columns, units)
    index = np.array([1, 0]) if kind == "numpy" else torch.tensor([1, 0])
    assert host(ops.units(0, 1, index)).tolist() == [7, 5]
    assert host(ops.units(1, 2, index)).tolist() == [9, 8]


def parts_of(kind, *columns):
    make = np.array if kind == "numpy" else torch.tensor
    scores, units = columns
    return [
        (make(np.array(s, np.float32)), make(np.array(u, np.int32)))
        for s, u in zip(scores, units, strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_highest_are_those_above_the_kth(kind):
    parts = parts_of(kind, [[0.1, 0.7, 0.3], [0.5, 0.7]], [[1, 2, 3], [4, 5]])
    kept, floor = make_ops(kind).highest(parts, 3)
    assert floor == 0.5
    assert sorted(zip(host(kept[0]).tolist(), host(kept[1]).tolist(), strict=True)) == [
        (np.float32(0.7), 2),
        (np.float32(0.7), 5),
    ]
    kept, floor = make_ops(kind).highest(parts, 1)  # two tie for the first place: neither is above
    assert (len(kept[0]), len(kept[1]), floor) == (0, 0, np.float32(0.7))
    kept, floor = make_ops(kind).highest(parts, 5)
    assert (len(kept[0]), floor) == (5, -np.inf)
    kept, floor = make_ops(kind).highest(parts, 4)
    assert (len(kept[0]), floor) == (3, np.float32(0.3))


@pytest.mark.parametrize("kind", KINDS)
def test_sorted_is_highest_first_with_what_belongs_to_it(kind):
    parts = parts_of(kind, [[0.125, -0.75, 0.5], [1, -1]], [[1, 2, 3], [4, 5]])
    scores, units = make_ops(kind).sorted(parts)
    assert (type(scores), type(units)) == (np.ndarray, np.ndarray)
    assert scores.tolist() == [1, 0.5, 0.125, -0.75, -1]
    assert units.tolist() == [4, 3, 1, 2, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_an_interval(kind):
    scores = block(kind, [[0.5, EXCLUDED, 1.0005], [0.25, -1.0005, -1]])
    ops = make_ops(kind)

    def between(low, high):
        return sorted(ops.between(scores, low, high).tolist())

    assert between(0.25, 0.5) == [0.25]
    assert between(0.25, 0.6) == [0.25, 0.5]
    assert between(0.6, 2) == [1]
    assert between(-1, -0.5) == [-1, -1]  # not what is excluded
    assert host(scores)[0, 2] == np.float32(1.0005)


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_of_values_count_excluded_ones_too(kind):
    scores = block(kind, [[0.5, EXCLUDED, 1.0005], [0.25, -1.0005, 0.5]])
    values = as_float32(-1, 0.25, 0.5, 0.75, 1)
    below, at_most = make_ops(kind).ranked(scores, values).tolist()
    assert below == [1, 2, 3, 5, 5]
    assert at_most == [2, 3, 5, 5, 6]


def test_torch_must_not_round_products():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(VidfaceError, match="TF32"):
            make_ops("torch")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("device", ["nonsense", "cuda:77"])
def test_a_device_that_is_not_there_is_refused(device):
    rows = np.eye(3, dtype=np.float32)
    units = np.arange(3, dtype=np.int32)
    with pytest.raises(VidfaceError, match=f"device '{device}': "):
        TorchOps(rows, rows, (units, units), device)
