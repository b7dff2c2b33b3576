import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tests import oracles_retrieval as oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics import enrolment
from vidface.metrics.clip_retrieval import score_clip_retrieval
from vidface.metrics.uncertainty import Bootstrap

TIED_ROW = st.one_of(
    st.just((0.0,) * 4), st.tuples(*[st.sampled_from([-0.5, 0.5])] * 2).map(lambda s: s * 2)
)


def split(n_identities=9, n=120, d=16, seed=0):
    """Clips, some of them copies, some without a descriptor, some of nobody known."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, n_identities, n)
    clips = rng.standard_normal((n_identities, d))[who] + 1.1 * rng.standard_normal((n, d))
    clips = (clips / np.linalg.norm(clips, axis=1, keepdims=True)).astype(np.float32)
    clips[rng.integers(0, n, n // 4)] = clips[rng.integers(0, n, n // 4)]
    clips[rng.random(n) < 0.06] = 0
    identities = ["" if rng.random() < 0.25 else f"id{i}" for i in who]
    identities[::40] = [f"alone{i}" for i in range(len(identities[::40]))]
    return clips, identities, rng.permutation([f"v{i}" for i in range(n)]).tolist()


def check(result, clips, identities, clip_ids, k):
    queries, alone = oracles.leave_one_out(clips.tolist(), identities, clip_ids, k)
    assert (result.queries, result.queries_without_positive) == (len(queries), alone)
    by_identity = {}
    for who, precision, _ in queries:
        by_identity.setdefault(who, []).append(precision)
    assert result.identities == len(by_identity)
    if not queries:
        assert (result.map_at_k, result.map_by_identity, result.precision_at_1) == (None,) * 3
        return
    means = [sum(values) / len(values) for values in by_identity.values()]
    assert result.map_at_k == pytest.approx(float(sum(q[1] for q in queries) / len(queries)))
    assert result.map_by_identity == pytest.approx(float(sum(means) / len(means)))
    assert result.precision_at_1 == pytest.approx(sum(q[2] for q in queries) / len(queries))


def test_by_eye():
    clips = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1], [0, 0], [0.8, 0.6]], dtype=np.float32)
    who = ["ann", "ann", "ann", "bob", "bob", ""]
    result = score_clip_retrieval(clips, who, list("abcdef"))
    # a: b, f, c: (1 + 2/3) / 2. b: a, f, c, the same. c: f, d, a, b: (1/3 + 2/4) / 2.
    # d: its only positive has no descriptor: 0. e has none itself: 0.
    ann = (5 / 6 + 5 / 6 + 5 / 12) / 3
    assert result.map_at_k == pytest.approx(ann * 3 / 5)
    assert result.map_by_identity == pytest.approx(ann / 2)
    assert result.precision_at_1 == pytest.approx(2 / 5)
    assert result.to_dict() == {
        "map_at_100": {"value": result.map_at_k},
        "map_by_identity": {"value": result.map_by_identity},
        "precision_at_1": {"value": result.precision_at_1},
        "queries": 5,
        "queries_without_descriptor": 1,
        "queries_without_positive": 0,
        "identities": 2,
    }
    assert str(result) == "ClipRetrieval(mAP@100 0.4167, 5 queries)"
    # At k = 1 only the first counts; m is still 2.
    first = score_clip_retrieval(clips, who, list("abcdef"), 1)
    assert first.map_at_k == pytest.approx((1 / 2 + 1 / 2) / 5)
    assert "map_at_1" in first.to_dict()


def test_a_query_is_never_in_its_own_list():
    # Copies of the query by lower clip ids stand before it: it must be found and left out there.
    clips = np.tile(np.array([[1, 0]], dtype=np.float32), (5, 1))
    who = ["", "", "ann", "ann", ""]
    # For c: a, b, then d. For d: a, b, then c.
    for k, expected in [(1, 0), (2, 0), (3, 1 / 3), (4, 1 / 3)]:
        result = score_clip_retrieval(clips, who, list("abcde"), k)
        assert result.map_at_k == pytest.approx(expected)
    # And where k + 1 others rank before it, the list is full without it.
    result = score_clip_retrieval(clips, who, ["a", "b", "e", "d", "c"], 2)
    assert result.map_at_k == 0
    assert score_clip_retrieval(clips, ["", "ann", "", "", "ann"], list("abcde"), 2).map_at_k == (
        (0 + 1 / 2) / 2
    )


@pytest.mark.parametrize("least", [0, 2**22])
@pytest.mark.parametrize("k", [1, 5, 100])
def test_equals_the_naive_twin(monkeypatch, least, k):
    monkeypatch.setattr(enrolment, "LEAST_SCORES_FOR_FAISS", least)
    clips, identities, ids = split()
    result = score_clip_retrieval(clips, identities, ids, k)
    check(result, clips, identities, ids, k)
    assert 0.02 < result.map_at_k < 0.9
    assert result.queries_without_positive >= 3
    assert result.queries_without_descriptor > 0
    assert score_clip_retrieval(clips, identities, ids, k, memory_bytes=1) == result
    order = np.random.default_rng(1).permutation(len(ids))
    shuffled = score_clip_retrieval(
        clips[order], [identities[i] for i in order], [ids[i] for i in order], k
    )
    assert shuffled.map_at_k == result.map_at_k
    assert shuffled.precision_at_1 == result.precision_at_1


@given(
    clips=st.lists(st.tuples(TIED_ROW, st.sampled_from(["", "ann", "bob", "cy"])), max_size=10),
    k=st.sampled_from([1, 2, 100]),
    seed=st.integers(0, 9),
)
@examples(150)
def test_equals_the_naive_twin_with_many_ties(clips, k, seed):
    ids = np.random.default_rng(seed).permutation([f"v{i}" for i in range(len(clips))]).tolist()
    rows = np.array([row for row, _ in clips], dtype=np.float32).reshape(-1, 4)
    who = [name for _, name in clips]
    check(score_clip_retrieval(rows, who, ids, k), rows, who, ids, k)


def test_equals_sklearn_where_the_definitions_meet():
    rng = np.random.default_rng(3)
    clips = rng.standard_normal((60, 12))
    clips = (clips / np.linalg.norm(clips, axis=1, keepdims=True)).astype(np.float32)
    who = [f"id{i % 7}" for i in range(60)]
    theirs = []
    for i in range(60):
        rest = np.arange(60) != i
        right = np.array([name == who[i] for name in who])[rest]
        theirs.append(average_precision_score(right, clips[rest] @ clips[i]))
    result = score_clip_retrieval(clips, who, [f"v{i}" for i in range(60)], k=60)
    assert result.map_at_k == pytest.approx(np.mean(theirs), abs=1e-9)


def test_intervals_resample_identities():
    clips, identities, ids = split(seed=2)
    bootstrap = Bootstrap(30, seed=1)
    result = score_clip_retrieval(clips, identities, ids, 10, bootstrap=bootstrap)
    queries, _ = oracles.leave_one_out(clips.tolist(), identities, ids, 10)
    names = sorted(set(identities) - {""})  # those alone are drawn, too, and add nothing
    for resample in range(30):
        weights = bootstrap.weights(resample, len(names))
        drawn = []
        for name in oracles.resampled(names, names, weights):
            drawn.append([q for q in queries if q[0] == name])
        flat = [q for group in drawn for q in group]
        values = [group for group in drawn if group]
        means = [sum(q[1] for q in group) / len(group) for group in values]
        found = [
            result.replicates.values[resample],
            result.replicates_by_identity.values[resample],
            result.replicates_at_1.values[resample],
        ]
        assert found == pytest.approx(
            [
                float(sum(q[1] for q in flat) / len(flat)),
                float(sum(means) / len(means)),
                sum(q[2] for q in flat) / len(flat),
            ]
        )
    document = result.to_dict()
    for key in ["map_at_10", "map_by_identity", "precision_at_1"]:
        low, high = document[key]["ci95"]
        assert low < document[key]["value"] < high
        assert "held fixed" in document[key]["ci95_note"]


def test_no_query():
    none = np.zeros((0, 2), dtype=np.float32)
    row = np.array([[1, 0]], dtype=np.float32)
    rows = np.array([[1, 0], [0, 1]], dtype=np.float32)
    for clips, who, alone in [
        (none, [], 0),
        (row, [""], 0),
        (row, ["a"], 1),
        (rows, ["a", "b"], 2),
    ]:
        ids = list("xy")[: len(who)]
        result = score_clip_retrieval(clips, who, ids, bootstrap=Bootstrap(3))
        assert (result.map_at_k, result.map_by_identity, result.precision_at_1) == (None,) * 3
        assert (result.queries, result.queries_without_positive) == (0, alone)
        assert result.to_dict()["map_at_100"]["ci95"] is None
        assert str(result) == "ClipRetrieval(mAP@100 n/a, 0 queries)"
    # Alone and without a descriptor: no query, so not counted among those.
    result = score_clip_retrieval(rows * 0, ["a", ""], ["x", "y"])
    assert (result.queries_without_positive, result.queries_without_descriptor) == (1, 0)
    result = score_clip_retrieval(rows * 0, ["a", "a"], ["x", "y"])
    assert (result.map_at_k, result.precision_at_1, result.queries_without_descriptor) == (0, 0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_ids": ["a", "a"]}, "'a' stands twice"),
        ({"clip_ids": ["a"]}, "1 for 2 rows"),
        ({"identities": ["ann"]}, "1 for 2 rows"),
        ({"identities": ["ann", None]}, r"identities\[1\] is None"),
        ({"descriptors": 3 * np.eye(2)}, "has norm 3"),
        ({"k": 0}, "at least 1, got 0"),
        ({"memory_bytes": 0}, "memory_bytes"),
    ],
)
def test_input_is_checked(change, message):
    arguments = {
        "descriptors": np.eye(2, dtype=np.float32),
        "identities": ["ann", "ann"],
        "clip_ids": ["a", "b"],
    }
    score_clip_retrieval(**arguments)
    with pytest.raises(VidfaceError, match=message):
        score_clip_retrieval(**(arguments | change))


def test_caller_arrays_are_read_only_to_us():
    clips, identities, ids = split()
    clips.flags.writeable = False
    score_clip_retrieval(clips, identities, ids)
