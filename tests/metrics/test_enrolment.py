import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_retrieval as oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics import enrolment
from vidface.metrics.conventions import ENROLMENTS
from vidface.metrics.enrolment import (
    Templates,
    enrol,
    exact_scores,
    exact_scores_in_block,
    least_that_may_reach,
    ranked_columns,
    rounding_margin,
    template_scores,
)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def templates_of(n_identities=13, d=48, most=4, seed=0):
    """Identities with 1 to `most` rows each."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, n_identities)
    rows = unit(rng.standard_normal((sizes.sum(), d)))
    return Templates(rows, np.concatenate([[0], np.cumsum(sizes)]))


def tied_columns(templates, n=400, seed=1):
    """Clips with many copies and many that are nearly the same, in any order."""
    rng = np.random.default_rng(seed)
    d = templates.rows.shape[1]
    centre = templates.rows[rng.integers(0, len(templates.rows), n)]
    columns = unit(centre + 0.1 * rng.standard_normal((n, d)))
    near = rng.integers(0, n, n // 4)
    columns[near] = unit(columns[0] + 1e-7 * rng.standard_normal((len(near), d)))
    columns[rng.integers(0, n, n // 4)] = columns[1]
    return columns


def ranks_by_oracle(templates, columns, k):
    ids = list(range(len(columns)))
    return {
        i: oracles.ranked(templates.rows[a:b].tolist(), columns.tolist(), ids, k)
        for i, (a, b) in enumerate(zip(templates.offsets, templates.offsets[1:], strict=False))
    }


def ranks(templates, columns, k, **options):
    which = np.flatnonzero(templates.sizes)
    return {i: c.tolist() for i, c in ranked_columns(templates, which, columns, k, **options)}


@pytest.fixture
def always_faiss(monkeypatch):
    """Every search goes through faiss; the list that is returned notes each call's k."""
    import faiss

    calls = []
    search = faiss.knn

    def knn(xq, xb, k, **options):
        calls.append((len(xq), k))
        return search(xq, xb, k, **options)

    monkeypatch.setattr(faiss, "knn", knn)
    monkeypatch.setattr(enrolment, "LEAST_SCORES_FOR_FAISS", 0)
    return calls


def test_enrolments():
    rows = np.array([[1, 0], [0, 1], [0, 0], [0, 0], [1, 0], [0, -1], [1, 0]], dtype=np.float32)
    who = ["cy", "ann", "ann", "bob", "ann", "dee", ""]
    usable = rows.any(axis=1)
    names = ["ann", "bob", "cy", "eve"]
    mean = enrol(rows, usable, who, names)
    assert mean.sizes.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(mean.rows, [[0.5**0.5, 0.5**0.5], [1, 0]], rtol=1e-6)
    most = enrol(rows, usable, who, names, "max")
    assert most.sizes.tolist() == [2, 0, 1, 0]
    assert most.rows.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert str(most) == "Templates(4 identities, (3, 2) float32)"
    # The names' order is the templates', sorted or not.
    assert enrol(rows, usable, who, ["cy", "ann"], "max").rows.tolist() == [[1, 0], [0, 1], [1, 0]]
    for name in ENROLMENTS:
        assert enrol(rows[:0], usable[:0], [], names, name).sizes.tolist() == [0] * 4
        assert enrol(rows, usable, who, [], name).sizes.tolist() == []


def test_rows_that_cancel_enrol_no_one_by_mean():
    rows = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    usable = np.ones(2, dtype=bool)
    assert enrol(rows, usable, ["ann", "ann"], ["ann"]).sizes.tolist() == [0]
    assert enrol(rows, usable, ["ann", "ann"], ["ann"], "max").sizes.tolist() == [2]


@pytest.mark.parametrize("name", ["median", ["mean"], None])
def test_unknown_enrolment(name):
    with pytest.raises(VidfaceError, match=r"unknown enrolment .* \(known: mean, max\)"):
        enrol(np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=bool), [], [], name)


@pytest.mark.parametrize(
    ("offsets", "what"),
    [
        ([1, 2], "start at 0"),
        ([0, 2, 1, 2], "not fall"),
        ([], "start at 0"),
        ([0, 1], "end at 1, for 2"),
    ],
)
def test_templates_check_themselves(offsets, what):
    with pytest.raises(VidfaceError, match=what):
        Templates(np.eye(2, dtype=np.float32), np.array(offsets, dtype=np.int64))


@pytest.mark.parametrize("memory_bytes", [1, 20_000, 2**28])
def test_template_scores_by_blocks(memory_bytes):
    templates = templates_of()
    columns = tied_columns(templates, 57)
    which = np.array([0, 2, 3, 7, 12])
    blocks, whole = [], []
    for block, scores in template_scores(templates, which, columns, memory_bytes):
        assert scores.dtype == np.float32
        blocks += block.tolist()
        whole.append(scores)
    assert blocks == which.tolist()
    assert len(whole) == {1: 5, 20_000: 1 if 5 * 57 * 48 < 20_000 else 2, 2**28: 1}[memory_bytes]
    products = templates.rows @ columns.T
    expected = [
        products[a : templates.offsets[i + 1]].max(axis=0)
        for i, a in zip(which, templates.offsets[which], strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(whole), expected, atol=1e-6)


def test_exact_scores_equal_the_naive_twin():
    templates = templates_of(d=37)
    columns = tied_columns(templates, 60)
    identities, numbers = np.divmod(np.arange(13 * 60), 60)
    found = exact_scores(templates, identities, numbers, columns)
    assert found.dtype == np.float32
    for i, column, score in zip(identities, numbers, found.tolist(), strict=True):
        rows = templates.rows[templates.offsets[i] : templates.offsets[i + 1]]
        assert score == oracles.score(rows, columns[column])


def test_equal_rows_have_equal_scores_wherever_they_stand():
    rng = np.random.default_rng(0)
    columns = unit(rng.standard_normal((2000, 512)))
    copies = np.sort(rng.permutation(2000)[:700])
    columns[copies] = columns[copies[0]]
    templates = templates_of(3, 512)
    for start in [0, 1, 7]:  # other alignments, other places in the block
        found = exact_scores(templates, np.full(1000, 1), np.arange(start, start + 1000), columns)
        inside = copies[(copies >= start) & (copies < start + 1000)] - start
        assert len(np.unique(found[inside])) == 1
        assert len(np.unique(found)) > 500


def test_scores_are_clipped_on_both_sides():
    templates = Templates(np.array([[1.0005, 0]], dtype=np.float32), np.array([0, 1]))
    columns = np.array([[1.0005, 0], [-1.0005, 0], [0.5, 0]], dtype=np.float32)
    zeros, numbers = np.zeros(3, dtype=np.int64), np.arange(3)
    expected = [1, -1, np.float32(0.50025)]
    assert exact_scores(templates, zeros, numbers, columns).tolist() == pytest.approx(expected)
    dense = exact_scores_in_block(templates, zeros[:1], zeros, numbers, columns)
    assert dense.tolist() == exact_scores(templates, zeros, numbers, columns).tolist()


@pytest.mark.parametrize("most", [1, 5])
@pytest.mark.parametrize("d", [3, 130])
def test_dense_blocks_give_the_same_bits(monkeypatch, most, d):
    monkeypatch.setattr(enrolment, "_DENSE_ROWS", 4)
    monkeypatch.setattr(enrolment, "_DENSE_COLUMNS", 33)
    templates = templates_of(9, d, most)
    columns = tied_columns(templates, 100)
    # Orthogonal to every template but for rounding: products at the edge between two float32s.
    columns[::9] = 0
    columns[::9, 0] = 1
    templates.rows[3] = 0
    templates.rows[3, -1] = 1
    block = np.array([1, 2, 5, 8])
    owners, numbers = np.divmod(np.arange(400), 100)
    pairs = np.random.default_rng(0).random(400) < 0.8
    owners, numbers = owners[pairs], numbers[pairs]
    sparse = exact_scores(templates, block[owners], numbers, columns)
    monkeypatch.setattr(enrolment, "_DENSE", 10**9)
    dense = exact_scores_in_block(templates, block, owners, numbers, columns)
    assert dense.tolist() == sparse.tolist()


def test_dense_products_at_an_edge_are_summed_again(monkeypatch):
    # 1 + 2^-24 lies halfway between two float32 numbers: slack on one side rounds otherwise.
    half = np.float32(2**-12)
    templates = Templates(np.array([[0.75, half]], dtype=np.float32), np.array([0, 1]))
    columns = np.array([[1, np.float32(2**-13)]] * 3, dtype=np.float32)
    zeros = np.zeros(3, dtype=np.int64)
    again = []
    real = enrolment.exact_scores
    monkeypatch.setattr(enrolment, "exact_scores", lambda *a: again.append(len(a[1])) or real(*a))
    dense = exact_scores_in_block(templates, zeros[:1], zeros, np.arange(3), columns)
    assert again == [3]
    assert dense.tolist() == [oracles.score(templates.rows, columns[0])] * 3


def test_the_margin_covers_the_rounding():
    rng = np.random.default_rng(0)
    for d in [2, 64, 512]:
        a = unit(np.abs(rng.standard_normal((300, d))))  # all of one sign: sums round most
        exact = a.astype(np.float64) @ a.astype(np.float64).T
        assert np.abs(a @ a.T - exact).max() < rounding_margin(d) / 2
    # Not so wide that nothing would be settled by it.
    assert rounding_margin(512) < 1e-4


def test_least_that_may_reach():
    scores = np.array([2, 1, 0.5, -0.99999, -1, -3], dtype=np.float32)
    cut = least_that_may_reach(scores, 512).tolist()
    m = rounding_margin(512)
    assert cut[:3] == pytest.approx([1 - m, 1 - m, 0.5 - m], abs=1e-7)
    assert cut[3:] == [np.finfo(np.float32).min] * 3


def test_ranks_by_eye():
    templates = Templates(np.eye(2, dtype=np.float32), np.array([0, 1, 1, 2]))
    columns = np.array([[0, 1], [0.6, 0.8], [0.6, 0.8], [1, 0]], dtype=np.float32)
    assert ranks(templates, columns, 3) == {0: [3, 1, 2], 2: [0, 1, 2]}
    assert ranks(templates, columns, 2) == {0: [3, 1], 2: [0, 1]}
    assert ranks(templates, columns, 9) == {0: [3, 1, 2, 0], 2: [0, 1, 2, 3]}
    assert ranks(templates, columns[:0], 2) == {0: [], 2: []}
    assert list(ranked_columns(templates, np.array([], dtype=np.int64), columns, 2)) == []


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("k", [1, 10, 150])
def test_ranks_equal_the_naive_twin(always_faiss, monkeypatch, most, k):
    templates = templates_of(7, 24, most)
    columns = tied_columns(templates)
    expected = ranks_by_oracle(templates, columns, k)
    assert ranks(templates, columns, k) == expected
    assert always_faiss
    assert ranks(templates, columns, k, memory_bytes=1) == expected  # NumPy, one by one
    always_faiss.clear()
    assert ranks(templates, columns, k, memory_bytes=200_000) == expected
    monkeypatch.setattr(enrolment, "_SPARE", 1)
    assert ranks(templates, columns, k) == expected
    always_faiss.clear()
    monkeypatch.setattr(enrolment, "LEAST_SCORES_FOR_FAISS", 10**9)
    assert ranks(templates, columns, k) == expected
    assert always_faiss == []


def test_faiss_lists_that_settle_nothing_are_looked_at_in_full(always_faiss, monkeypatch):
    # 300 copies tie for a place among the 10: none of 42 in a list may be the lowest column.
    templates = templates_of(3, 24, 1)
    columns = tied_columns(templates)
    columns[50:350] = templates.rows[0]
    asked = []
    real = enrolment._candidates
    monkeypatch.setattr(
        enrolment, "_candidates", lambda t, w, *a: asked.append(w.tolist()) or real(t, w, *a)
    )
    found = ranks(templates, columns, 10)
    assert found[0] == list(range(50, 60))
    assert any(0 in which for which in asked)
    assert found == ranks_by_oracle(templates, columns, 10)


def test_spread_clips_are_settled_by_faiss_alone(always_faiss, monkeypatch):
    rng = np.random.default_rng(0)
    templates = templates_of(20, 8, 3)
    columns = unit(rng.standard_normal((500, 8)))
    full = []
    real = enrolment._candidates
    monkeypatch.setattr(
        enrolment, "_candidates", lambda t, w, *a: full.extend(w.tolist()) or real(t, w, *a)
    )
    assert ranks(templates, columns, 5) == ranks_by_oracle(templates, columns, 5)
    assert full == []
    assert always_faiss == [(len(templates.rows), 5 + 32)]


def test_few_columns_are_not_left_to_faiss(always_faiss):
    # It would fill its lists up with the column −1.
    templates = Templates(-np.eye(2, dtype=np.float32), np.array([0, 1, 2]))
    columns = np.tile(np.array([[1, 0]], dtype=np.float32), (30, 1))
    assert ranks(templates, columns, 3) == {0: [0, 1, 2], 1: [0, 1, 2]}
    assert always_faiss == []


def test_all_clips_alike(always_faiss):
    templates = templates_of(4, 16, 2)
    columns = np.tile(templates.rows[:1], (200, 1))
    expected = {identity: [0, 1, 2] for identity in range(4)}
    assert ranks(templates, columns, 3) == expected


def test_opposite_clips_tie_at_minus_one(always_faiss):
    # Beyond −1 the score is clipped, so the lower column ranks first, and 0 beats them all.
    templates = Templates(np.array([[1.0005, 0]], dtype=np.float32), np.array([0, 1]))
    columns = np.tile(np.array([[-1.0005, 0]], dtype=np.float32), (120, 1))
    columns[::2] = [-1.0, 0]
    columns[119] = [0, 1]
    assert ranks(templates, columns, 4) == {0: [119, 0, 1, 2]}


@given(
    rows=st.lists(st.tuples(*[st.sampled_from([-1, 1])] * 4), min_size=1, max_size=6),
    columns=st.lists(st.tuples(*[st.sampled_from([-1, 1])] * 4), max_size=30),
    k=st.integers(1, 8),
)
@examples(100)
def test_ties_of_few_directions(rows, columns, k):
    templates = Templates(np.array(rows, dtype=np.float32) / 2, np.array([0, 1, len(rows)]))
    clips = np.array(columns, dtype=np.float32).reshape(-1, 4) / 2
    expected = ranks_by_oracle(templates, clips, k)
    if len(rows) == 1:
        expected.pop(1)
    assert ranks(templates, clips, k) == expected


def test_small_problems_do_not_import_faiss():
    code = (
        "import sys, numpy as np\n"
        "from vidface.metrics.enrolment import Templates, ranked_columns\n"
        "one = np.ones((1, 1), dtype=np.float32)\n"
        "print(list(ranked_columns(Templates(one, np.array([0, 1])), np.array([0]), one, 1)))\n"
        "print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[(0, array([0]))]\nFalse\n"
