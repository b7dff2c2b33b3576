import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_retrieval as oracles
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics import enrolment as enrolments
from vidface.metrics.identification import score_identification
from vidface.metrics.uncertainty import Bootstrap

TIED_ROW = st.one_of(
    st.just((0.0,) * 4), st.tuples(*[st.sampled_from([-0.5, 0.5])] * 2).map(lambda s: s * 2)
)
NAMES = ["", "ann", "bob", "cy", "dee"]
FPIRS = ["1e-1", "0.25", "0.5", "1", "1e-3"]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def world(n_identities=14, n=220, d=10, seed=0):
    """A gallery without the last four people; copies, zero rows and distractors in the split."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_identities, d))
    enrolled = np.repeat(np.arange(n_identities - 4), 3)
    gallery = unit(centres[enrolled] + rng.standard_normal((len(enrolled), d)))
    gallery[3:6] = 0  # the second person has no direction
    gallery[9:12] = gallery[12:15]  # the fourth and the fifth look the same
    who = rng.integers(0, n_identities, n)
    clips = unit(centres[who] + rng.standard_normal((n, d)))
    clips[rng.integers(0, n, n // 5)] = clips[rng.integers(0, n, n // 5)]
    clips[rng.random(n) < 0.06] = 0
    identities = ["" if rng.random() < 0.3 else f"id{i:02}" for i in who]
    return gallery, [f"id{i:02}" for i in enrolled], clips, identities


def check(result, found, ranks, fpirs):
    """That a result equals what the naive twin says about the probes."""
    assert result.mated == sum(is_mated for is_mated, _, _ in found)
    assert result.non_mated == len(found) - result.mated
    assert [point.rank for point in result.cmc] == list(ranks)
    for point in result.cmc:
        expected = oracles.cmc(found, point.rank)
        assert point.value == (None if expected is None else float(expected))
        assert point.found == (0 if expected is None else expected * result.mated)
    assert [point.target_fpir for point in result.points] == list(fpirs)
    for point in result.points:
        target = Fraction(point.target_fpir)
        expected = oracles.tpir(found, target)
        needed = math.ceil(1 / target)
        if expected is None:
            assert (point.tpir, point.threshold, point.fpir) == (None, None, None)
            assert point.needs_non_mated == (needed if result.non_mated < needed else None)
            continue
        tpir, threshold, accepted, false = expected
        assert (point.tpir, point.threshold) == (float(tpir), threshold)
        assert (point.accepted_mated, point.accepted_non_mated) == (accepted, false)
        assert point.fpir == false / result.non_mated
        assert point.needs_non_mated is None


def test_by_eye():
    gallery = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    clips = np.array(
        [[1, 0], [0.6, 0.8], [0, 0], [1, 0], [0, 1], [0.8, 0.6], [0, 0], [-1, 0]], dtype=np.float32
    )
    who = ["ann", "ann", "ann", "cy", "dee", "", "", ""]
    result = score_identification(
        gallery, ["ann", "bob", "cy"], clips, who, ranks=[1, 2], fpirs=["0.5", "0.25", "0.1"]
    )
    # ann's first clip ranks 1st, her second 2nd, her third and cy's have no rank.
    # Non-mated: dee 1 (takes bob for it), 0.8, none, 0.
    assert result.to_dict() == {
        "cmc": {"1": {"value": 0.25, "found": 1}, "2": {"value": 0.5, "found": 2}},
        "tpir_at_fpir": {
            "0.5": {
                "tpir": 0.25,
                "threshold": pytest.approx(0.8),
                "fpir": 0.5,
                "mated": 4,
                "non_mated": 4,
            },
            "0.25": {"tpir": 0.25, "threshold": 1.0, "fpir": 0.25, "mated": 4, "non_mated": 4},
            "0.1": {"tpir": None, "needs_non_mated": 10},
        },
        "mated": 4,
        "non_mated": 4,
        "without_descriptor": 2,
        "mated_without_template": 1,
        "gallery_identities": 3,
        "enrolment": "mean",
    }
    assert result.points[2].note == "n/a: needs ≥ 10 non-mated probes"
    assert result.points[0].note == ""
    assert "4 mated and 4 non-mated probes against 3 identities" in str(result)


def test_ties_count_against_the_probe():
    # Two people enrolled with one picture: neither is ever first.
    gallery = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    clips = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    result = score_identification(
        gallery, ["ann", "bob", "cy"], clips, ["ann", "ann"], ranks=[1, 2, 3], fpirs=[]
    )
    assert [point.found for point in result.cmc] == [0, 1, 2]
    # A tie at −1 by clipping: 1.0005 · −1 and 1.0003 · −1 both count as −1.
    gallery = np.array([[1.0003, 0], [1.0005, 0]], dtype=np.float32)
    clips = np.array([[-1.0, 0]], dtype=np.float32)
    for names in [["ann", "bob"], ["bob", "ann"]]:
        result = score_identification(
            gallery, names, clips, ["ann"], ranks=[1, 2], enrolment="max", fpirs=[]
        )
        assert [point.found for point in result.cmc] == [0, 1]


def test_nothing_is_accepted_where_every_threshold_is_too_low():
    gallery = np.array([[1, 0]], dtype=np.float32)
    clips = np.array([[0.8, 0.6], [1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
    result = score_identification(gallery, ["ann"], clips, ["ann"] + [""] * 4, fpirs=["0.25"])
    point = result.points[0]
    assert (point.tpir, point.threshold, point.fpir) == (0, None, 0)
    assert (point.accepted_mated, point.accepted_non_mated) == (0, 0)


def test_a_mated_probe_that_is_not_first_is_not_accepted_and_sets_no_threshold():
    gallery = np.array([[1, 0], [0, 1]], dtype=np.float32)
    clips = np.array([[0.6, 0.8], [0, -1]], dtype=np.float32)
    result = score_identification(gallery, ["ann", "bob"], clips, ["ann", ""], fpirs=["1"])
    assert (result.points[0].tpir, result.points[0].threshold) == (0, 0)


@pytest.mark.parametrize("enrolment", ["mean", "max"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_naive_twin(monkeypatch, enrolment, seed):
    arguments = world(seed=seed)
    found = oracles.probes(
        *[a.tolist() if isinstance(a, np.ndarray) else a for a in arguments], enrolment
    )
    options = {"ranks": (1, 3, 2, 50), "fpirs": FPIRS, "enrolment": enrolment}
    result = score_identification(*arguments, **options)
    check(result, found, (1, 3, 2, 50), FPIRS)
    assert 0.2 < result.cmc[0].value < result.cmc[1].value < result.cmc[3].value < 1
    assert 0 < result.points[0].tpir < result.points[2].tpir < 1
    assert result.gallery_identities == 10
    assert result.mated_without_template == arguments[3].count("id01") > 0
    assert result.without_descriptor == (~arguments[2].any(axis=1)).sum() > 0
    for memory_bytes in [1, 48 * 220 * 3]:
        again = score_identification(*arguments, **options, memory_bytes=memory_bytes)
        assert again == result
    # And where every pair is scored by a dense float64 product.
    monkeypatch.setattr(enrolments, "_DENSE", 10**9)
    assert score_identification(*arguments, **options) == result


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_near_ties_are_told_apart(seed):
    # Enrolled faces and probes so near to each other that a float32 product orders them wrongly.
    rng = np.random.default_rng(seed)
    d = 300
    centre = unit(rng.standard_normal((1, d)))
    gallery = unit(centre + 3e-7 * rng.standard_normal((40, d)))
    clips = unit(unit(rng.standard_normal((30, d))) + 0.5 * centre)
    enrolled = [f"id{i}" for i in range(40)]
    identities = [f"id{i}" if i < 15 else "" for i in range(30)]
    found = oracles.probes(gallery.tolist(), enrolled, clips.tolist(), identities, "max")
    products = gallery @ clips[:15].T
    by_float32 = (products >= products.diagonal()).sum(axis=0)
    assert by_float32.tolist() != [rank for _, rank, _ in found[:15]]  # so it does matter
    ranks, fpirs = list(range(1, 41)), [f"{n}/15" for n in range(1, 16)]
    for memory_bytes in [1, 48 * 15 * 7, 2**28]:
        result = score_identification(
            gallery,
            enrolled,
            clips,
            identities,
            ranks=ranks,
            fpirs=fpirs,
            enrolment="max",
            memory_bytes=memory_bytes,
        )
        check(result, found, ranks, fpirs)


def test_independent_of_the_order_of_clips_and_of_the_gallery():
    gallery, gallery_identities, clips, identities = world(seed=2)
    result = score_identification(gallery, gallery_identities, clips, identities, enrolment="max")
    order = np.random.default_rng(0).permutation(len(clips))
    shuffled = score_identification(
        gallery[::-1],
        gallery_identities[::-1],
        clips[order],
        [identities[i] for i in order],
        enrolment="max",
    )
    assert shuffled == result


@given(
    gallery=st.lists(st.tuples(TIED_ROW, st.sampled_from(NAMES[:4])), max_size=6),
    clips=st.lists(st.tuples(TIED_ROW, st.sampled_from(NAMES)), max_size=14),
    memory_bytes=st.sampled_from([1, 2**28]),
)
@examples(250)
def test_equals_the_naive_twin_with_many_ties(gallery, clips, memory_bytes):
    rows = np.array([row for row, _ in gallery], dtype=np.float32).reshape(-1, 4)
    probes = np.array([row for row, _ in clips], dtype=np.float32).reshape(-1, 4)
    enrolled, who = [name for _, name in gallery], [name for _, name in clips]
    found = oracles.probes(rows.tolist(), enrolled, probes.tolist(), who, "max")
    result = score_identification(
        rows,
        enrolled,
        probes,
        who,
        ranks=[1, 2],
        fpirs=FPIRS,
        enrolment="max",
        memory_bytes=memory_bytes,
    )
    check(result, found, [1, 2], FPIRS)


@pytest.mark.parametrize("seed", [0, 5])
def test_intervals_resample_people_and_distractors(seed):
    # Resampled by hand: each probe is listed as often as its unit was drawn.
    gallery, gallery_identities, clips, identities = world(seed=3)
    bootstrap = Bootstrap(25, seed)
    fpirs = ["1e-1", "0.3", "0.011", "1"]
    result = score_identification(
        gallery, gallery_identities, clips, identities, fpirs=fpirs, bootstrap=bootstrap
    )
    found = oracles.probes(gallery.tolist(), gallery_identities, clips.tolist(), identities, "mean")
    names, n_distractors = set(identities) - {""}, identities.count("")
    absent = 0
    for resample in range(25):
        weights = bootstrap.weights(resample, len(names), n_distractors)
        drawn = oracles.resampled(found, identities, weights)
        for point in result.cmc:
            expected = float(oracles.cmc(drawn, point.rank))
            assert point.replicates.values[resample] == pytest.approx(expected)
        for point in result.points:
            expected = oracles.tpir(drawn, Fraction(point.target_fpir))
            value = point.replicates.values[resample]
            absent += expected is None
            assert (
                np.isnan(value) if expected is None else value == pytest.approx(float(expected[0]))
            )
    assert 0 < absent < 25  # 1/0.011 is about the number of non-mated probes
    document = result.to_dict()
    for entry in [document["cmc"]["1"], document["tpir_at_fpir"]["1e-1"]]:
        low, high = entry["ci95"]
        assert low < entry.get("value", entry.get("tpir")) < high
        assert "gallery is held fixed" in entry["ci95_note"]
    plain = score_identification(gallery, gallery_identities, clips, identities, fpirs=fpirs)
    assert plain == result
    assert "ci95" not in str(plain.to_dict())


@given(
    clips=st.lists(st.tuples(TIED_ROW, st.sampled_from(NAMES)), max_size=12),
    seed=st.integers(0, 3),
)
@examples(80)
def test_intervals_equal_the_naive_twin_with_many_ties(clips, seed):
    gallery = np.array([[0.5] * 4, [0.5, -0.5] * 2, [-0.5] * 4], dtype=np.float32)
    enrolled = ["ann", "bob", "cy"]
    rows = np.array([row for row, _ in clips], dtype=np.float32).reshape(-1, 4)
    who = [name for _, name in clips]
    bootstrap = Bootstrap(4, seed)
    result = score_identification(
        gallery, enrolled, rows, who, ranks=[1], fpirs=FPIRS, bootstrap=bootstrap
    )
    found = oracles.probes(gallery.tolist(), enrolled, rows.tolist(), who, "mean")
    for resample in range(4):
        weights = bootstrap.weights(resample, len(set(who) - {""}), who.count(""))
        drawn = oracles.resampled(found, who, weights)
        values = [result.cmc[0].replicates.values[resample]]
        values += [point.replicates.values[resample] for point in result.points]
        expected = [oracles.cmc(drawn, 1)]
        for text in FPIRS:
            point = oracles.tpir(drawn, Fraction(text))
            expected.append(None if point is None else point[0])
        expected = [math.nan if e is None else float(e) for e in expected]
        assert values == pytest.approx(expected, nan_ok=True)


def test_nothing_to_search_and_nothing_to_search_with():
    none = np.zeros((0, 2), dtype=np.float32)
    row = np.array([[1, 0]], dtype=np.float32)
    empty = score_identification(none, [], none, [], bootstrap=Bootstrap(3))
    assert (empty.mated, empty.non_mated, empty.gallery_identities) == (0, 0, 0)
    assert [point.value for point in empty.cmc] == [None] * 3
    assert empty.to_dict()["cmc"]["1"]["ci95"] is None
    # Without a gallery all are non-mated, and nothing is accepted of them.
    result = score_identification(none, [], row, ["ann"], fpirs=["1"])
    assert (result.non_mated, result.points[0].note) == (1, "n/a: no mated probe")
    assert result.to_dict()["tpir_at_fpir"]["1"] == {"tpir": None, "needs_non_mated": None}
    # A gallery without any descriptor: a miss, and a correct rejection.
    rows = np.eye(2, dtype=np.float32)
    result = score_identification(row * 0, ["ann"], rows, ["ann", ""], fpirs=["1"])
    point = result.points[0]
    assert (point.tpir, point.threshold, point.fpir) == (0, None, 0)
    assert result.cmc[0].value == 0
    # A distractor in the gallery enrols no one.
    result = score_identification(rows, ["ann", ""], rows[1:], [""], fpirs=["1"])
    assert (result.gallery_identities, result.non_mated) == (1, 1)


def test_targets_are_exact_fractions():
    # 0.29 · 100 is 28.999999999999996 in floats; 29 false positives are allowed.
    gallery = np.array([[1, 0]], dtype=np.float32)
    angles = np.linspace(0.1, 1.5, 101)
    clips = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    result = score_identification(gallery, ["ann"], clips, [""] * 100 + ["ann"], fpirs=["0.29"])
    assert result.points[0].accepted_non_mated == 29


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identities": ["ann"]}, "1 for 2 rows"),
        ({"gallery_identities": ["ann", None]}, r"gallery_identities\[1\] is None"),
        ({"descriptors": np.eye(2, 3, dtype=np.float32)}, "2 dimensions, the split 3"),
        ({"gallery_descriptors": 3 * np.eye(2)}, "gallery_descriptors has norm 3"),
        ({"ranks": [0]}, "at least 1, got 0"),
        ({"ranks": [1.0]}, "whole number, at least 1, got 1.0"),
        ({"ranks": [True]}, "whole number, at least 1, got True"),
        ({"ranks": [5, 5]}, r"each rank once, got \[5, 5\]"),
        ({"fpirs": ["2"]}, "a target FPIR must be"),
        ({"fpirs": "1e-1"}, "fpirs must be a list"),
        ({"fpirs": [0.1]}, "FPIR must be decimal text"),
        ({"enrolment": "median"}, "unknown enrolment 'median'"),
        ({"memory_bytes": 0}, "memory_bytes"),
    ],
)
def test_input_is_checked(change, message):
    arguments = {
        "gallery_descriptors": np.eye(2, dtype=np.float32),
        "gallery_identities": ["ann", "bob"],
        "descriptors": np.eye(2, dtype=np.float32),
        "identities": ["ann", ""],
    }
    score_identification(**arguments)
    with pytest.raises(VidfaceError, match=message):
        score_identification(**(arguments | change))


def test_caller_arrays_are_read_only_to_us():
    gallery, gallery_identities, clips, identities = world()
    gallery.flags.writeable = clips.flags.writeable = False
    score_identification(gallery, gallery_identities, clips, identities, enrolment="max")
