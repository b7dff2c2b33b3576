import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tests import oracles
from tests import oracles_retrieval as naive
from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.metrics import enrolment as enrolments
from vidface.metrics.retrieval import (
    average_precision,
    average_precision_of_list,
    rank_clips,
    score_retrieval,
)
from vidface.metrics.uncertainty import Bootstrap

# Eight components of ±1/4 and eight of 1/4: a unit row whose products are exact, with many ties.
TIED_ROW = st.one_of(
    st.just((0.0,) * 16),
    st.tuples(*[st.sampled_from([-0.25, 0.25])] * 2).map(lambda s: (0.25,) * 8 + s * 4),
)
CLIPS = st.lists(st.tuples(TIED_ROW, st.sampled_from(["", "ann", "bob", "cy"])), max_size=12)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def people(n_identities=20, n_clips=150, d=24, seed=0):
    """A gallery of two clips a person and a split with distractors and clips without descriptor."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_identities, d))
    names = [f"id{i}" for i in range(n_identities)]
    gallery = unit(np.repeat(centres, 2, axis=0) + 1.2 * rng.standard_normal((2 * n_identities, d)))
    who = rng.integers(0, n_identities, n_clips)
    clips = unit(centres[who] + 1.2 * rng.standard_normal((n_clips, d)))
    clips[rng.random(n_clips) < 0.05] = 0
    identities = ["" if rng.random() < 0.2 else names[i] for i in who]
    return gallery, [n for n in names for _ in range(2)], clips, identities


def clip_names(n):
    return [f"v{i}" for i in range(n)]


def test_hand_case_of_the_challenge():
    truth = {"1": {"v1", "v2", "v3"}, "2": {"v4"}, "3": {"v5"}}
    lists = {"1": ["v1", "x", "v2"], "2": ["v4", "v4", "y"]}
    precisions = [average_precision_of_list(lists.get(i, []), truth[i]) for i in truth]
    assert precisions == [pytest.approx(5 / 9), 1, 0]
    assert sum(precisions) / 3 == pytest.approx(0.5185185, abs=1e-7)


def test_repeats_are_removed_before_the_cut():
    ranked = ["x", "x", "x", "v1", "v1", "v2"]
    # x, v1, v2 are the first three: (1/2 + 2/3) / 2.
    assert average_precision_of_list(ranked, ["v1", "v2", "v2"], k=3) == pytest.approx(7 / 12)
    assert average_precision_of_list(ranked, ["v1", "v2"], k=2) == pytest.approx(1 / 4)


def test_positives_beyond_k_cap_the_figure():
    assert average_precision([True] * 150, 150) == pytest.approx(100 / 150)
    assert average_precision([True] * 150, 150, k=1000) == 1
    assert average_precision([True, False, True, True], 8, k=3) == pytest.approx((1 + 2 / 3) / 8)
    assert average_precision([False] * 100 + [True], 1) == 0
    assert average_precision([], 4) == 0


def test_average_precision_checks_its_input():
    with pytest.raises(VidfaceError, match="n_positives is 0"):
        average_precision([False], 0)
    with pytest.raises(VidfaceError, match="cover the 2 hits"):
        average_precision([True, True], 1)
    with pytest.raises(VidfaceError, match="at least 1, got 0"):
        average_precision([True], 1, k=0)
    with pytest.raises(VidfaceError, match="one list of bools"):
        average_precision([[True]], 1)


def test_150_clips_of_one_person_cap_the_mean():
    rows = np.tile(np.array([[1, 0]], dtype=np.float32), (150, 1))
    result = score_retrieval(rows[:1], ["ann"], rows, ["ann"] * 150, clip_names(150))
    assert result.map_at_k == pytest.approx(100 / 150)
    assert result.to_dict() == {
        "map_at_100": pytest.approx(100 / 150),
        "identities": 1,
        "identities_without_gallery": [],
        "identities_without_descriptor": [],
    }


def test_who_is_in_the_mean():
    gallery = np.array([[1, 0], [0, 1], [0, 0], [0, 1], [1, 0]], dtype=np.float32)
    gallery_identities = ["ann", "bob", "cy", "eve", ""]  # eve has no clip in the split
    clips = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0, 0]], dtype=np.float32)
    identities = ["ann", "bob", "cy", "dee", "bob"]
    result = score_retrieval(gallery, gallery_identities, clips, identities, list("abcde"))
    assert result.identities == 4
    assert result.identities_without_gallery == ("dee",)
    assert result.identities_without_descriptor == ("cy",)
    # ann: clip a ranks before c, which ties. bob: b, and e is a positive never retrieved.
    assert result.average_precision == {"ann": 1, "bob": 0.5, "cy": 0, "dee": 0}
    assert result.map_at_k == pytest.approx(1.5 / 4)


def test_equal_scores_rank_by_clip_id_as_text():
    row = np.array([[1, 0]], dtype=np.float32)
    rows = np.tile(row, (3, 1))
    # "v10" sorts before "v9" and after "v1", whatever the order of the rows.
    for order in [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)]:
        clip_ids = [["v9", "v10", "v1"][i] for i in order]
        identities = [["", "ann", ""][i] for i in order]
        assert score_retrieval(row, ["ann"], rows, identities, clip_ids).map_at_k == 0.5
        # At k = 1 the tie is cut through, and v1 is the one that stays.
        assert score_retrieval(row, ["ann"], rows, identities, clip_ids, k=1).map_at_k == 0


def test_scores_are_clipped():
    # Rows may be 1e-3 off one; beyond a score of 1 that must not decide, so "a" and "b" tie.
    clips = np.array([[1, 0], [1.0005, 0]], dtype=np.float32)
    assert score_retrieval(clips[:1], ["ann"], clips, ["", "ann"], ["a", "b"]).map_at_k == 0.5


def test_clips_without_a_descriptor_are_never_retrieved():
    # With a score of −1 or 0 they would stand before the positive, which scores −1 and ties.
    clips = np.array([[0, 0], [-1, 0]], dtype=np.float32)
    row = np.array([[1, 0]], dtype=np.float32)
    assert score_retrieval(row, ["ann"], clips, ["", "ann"], ["a", "b"]).map_at_k == 1
    assert score_retrieval(row, ["ann"], clips * 0, ["", "ann"], ["a", "b"]).map_at_k == 0


def test_enrolment_is_the_mean_of_unit_rows():
    # The mean of 0 and 90 degrees is 45, nearer to clip "a"; a zero row doesn't move it.
    gallery = np.array([[1, 0], [0, 0], [0, 1]], dtype=np.float32)
    clips = np.array([[0.6, 0.8], [1, 0], [0, 1]], dtype=np.float32)
    result = score_retrieval(gallery, ["ann"] * 3, clips, ["ann", "", ""], ["z", "a", "b"])
    assert result.map_at_k == 1
    # Two that cancel leave no direction to search in.
    gallery = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    result = score_retrieval(gallery, ["ann"] * 2, clips, ["ann", "", ""], ["z", "a", "b"])
    assert (result.map_at_k, result.identities_without_descriptor) == (0, ("ann",))


@given(gallery=CLIPS, clips=CLIPS, k=st.sampled_from([1, 2, 3, 100]), seed=st.integers(0, 9))
@examples(250)
def test_equals_the_naive_twin_with_many_ties(gallery, clips, k, seed):
    # One gallery clip a person: a mean of several would not be exact.
    gallery = list({who: (row, who) for row, who in gallery}.values())
    clip_ids = np.random.default_rng(seed).permutation(clip_names(len(clips))).tolist()
    rows, identities = [row for row, _ in clips], [who for _, who in clips]
    gallery_rows, gallery_identities = [row for row, _ in gallery], [who for _, who in gallery]
    expected, precisions = oracles.mean_average_precision(
        gallery_rows, gallery_identities, rows, identities, clip_ids, k
    )
    for memory_bytes in [2**28, 1]:
        result = score_retrieval(
            np.array(gallery_rows, dtype=np.float32).reshape(-1, 16),
            gallery_identities,
            np.array(rows, dtype=np.float32).reshape(-1, 16),
            identities,
            clip_ids,
            k,
            memory_bytes=memory_bytes,
        )
        assert result.average_precision == pytest.approx(precisions)
        assert result.map_at_k == (None if expected is None else pytest.approx(expected))
        assert result.identities == len(precisions)


@pytest.mark.parametrize("k", [1, 5, 100])
def test_equals_the_naive_twin(k):
    gallery, gallery_identities, clips, identities = people()
    ids = clip_names(len(clips))
    expected, precisions = oracles.mean_average_precision(
        gallery.tolist(), gallery_identities, clips.tolist(), identities, ids, k
    )
    result = score_retrieval(gallery, gallery_identities, clips, identities, ids, k)
    assert result.average_precision == pytest.approx(precisions)
    assert result.map_at_k == pytest.approx(expected)
    assert 0.05 < result.map_at_k < 0.95


def test_equals_sklearn_where_the_definitions_meet():
    # k ≥ n, no ties, and every clip has a descriptor.
    gallery, gallery_identities, clips, identities = people(seed=2)
    clips[~clips.any(axis=1)] = clips[0] * np.float32(-1)
    keep = np.unique(clips, axis=0, return_index=True)[1]
    clips, identities = clips[keep], [identities[i] for i in keep]
    result = score_retrieval(
        gallery, gallery_identities, clips, identities, clip_names(len(clips)), k=len(clips)
    )
    for name, ours in result.average_precision.items():
        template = unit(gallery[[who == name for who in gallery_identities]].sum(axis=0)[None])[0]
        theirs = average_precision_score([who == name for who in identities], clips @ template)
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_result_is_independent_of_blocks_and_of_the_order_of_clips():
    gallery, gallery_identities, clips, identities = people(seed=3)
    ids = clip_names(len(clips))
    whole = score_retrieval(gallery, gallery_identities, clips, identities, ids, k=20)
    for memory_bytes in [1, 50_000, 90_000]:
        again = score_retrieval(
            gallery, gallery_identities, clips, identities, ids, k=20, memory_bytes=memory_bytes
        )
        assert again == whole
    order = np.random.default_rng(0).permutation(len(clips))
    shuffled = score_retrieval(
        gallery[::-1],
        gallery_identities[::-1],
        clips[order],
        [identities[i] for i in order],
        [ids[i] for i in order],
        k=20,
    )
    assert shuffled == whole


def test_nothing_to_find_and_nothing_to_search_for():
    none = np.zeros((0, 2), dtype=np.float32)
    row = np.array([[1, 0]], dtype=np.float32)
    for clips, identities, ids in [(none, [], []), (row, [""], ["a"])]:
        result = score_retrieval(row, ["ann"], clips, identities, ids)
        assert (result.map_at_k, result.identities, result.average_precision) == (None, 0, {})
        assert result.to_dict()["map_at_100"] is None
    result = score_retrieval(none, [], row, ["ann"], ["a"])
    assert (result.map_at_k, result.identities_without_gallery) == (0, ("ann",))
    assert score_retrieval(row, ["ann"], row, ["ann"], ["a"]).map_at_k == 1


def test_the_key_names_k():
    row = np.array([[1, 0]], dtype=np.float32)
    assert "map_at_7" in score_retrieval(row, ["a"], row, ["a"], ["v"], k=7).to_dict()


def test_caller_arrays_are_read_only_to_us():
    gallery, gallery_identities, clips, identities = people()
    gallery.flags.writeable = clips.flags.writeable = False
    score_retrieval(gallery, gallery_identities, clips, identities, clip_names(len(clips)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_ids": ["a", "a"]}, "'a' stands twice"),
        ({"clip_ids": ["a"]}, "1 for 2 rows"),
        ({"clip_ids": ["a", 2]}, "must be text, got 2"),
        ({"identities": ["ann"]}, "1 for 2 rows"),
        ({"gallery_identities": ["ann"]}, "gallery_identities must have"),
        ({"gallery_identities": ["ann", None]}, r"gallery_identities\[1\] is None"),
        ({"descriptors": np.eye(2, 3, dtype=np.float32)}, "2 dimensions, the split 3"),
        ({"gallery_descriptors": 3 * np.eye(2)}, "gallery_descriptors has norm 3"),
        ({"descriptors": np.full((2, 2), np.nan)}, "row 0 of descriptors is not finite"),
        ({"k": 0}, "at least 1, got 0"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"enrolment": "median"}, r"unknown enrolment 'median' \(known: mean, max\)"),
    ],
)
def test_input_is_checked(change, message):
    arguments = {
        "gallery_descriptors": np.eye(2, dtype=np.float32),
        "gallery_identities": ["ann", "bob"],
        "descriptors": np.eye(2, dtype=np.float32),
        "identities": ["ann", ""],
        "clip_ids": ["a", "b"],
    }
    score_retrieval(**arguments)
    with pytest.raises(VidfaceError, match=message):
        score_retrieval(**(arguments | change))


def copies_in_odd_places(seed=5, n=400, d=32):
    """People, and clips that are copies of each other: the same video, uploaded twice."""
    gallery, gallery_identities, clips, identities = people(12, n, d, seed)
    rng = np.random.default_rng(seed)
    clips[rng.permutation(n)[: n // 2]] = clips[rng.integers(0, n, n // 2)]
    ids = rng.permutation(clip_names(n)).tolist()
    return gallery, gallery_identities, clips, identities, ids


@pytest.mark.parametrize("enrolment", ["mean", "max"])
@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("least", [0, 2**22])
def test_copies_rank_by_clip_id(monkeypatch, enrolment, k, least):
    monkeypatch.setattr(enrolments, "LEAST_SCORES_FOR_FAISS", least)
    gallery, gallery_identities, clips, identities, ids = copies_in_odd_places()
    result = score_retrieval(
        gallery, gallery_identities, clips, identities, ids, k, enrolment=enrolment
    )
    lists = rank_clips(gallery, gallery_identities, clips, ids, k, enrolment)
    for name, rows in naive.templates(gallery, gallery_identities, enrolment).items():
        expected = naive.ranked(rows, clips.tolist(), ids, k)
        assert lists[name] == expected
        positives = {i for i, who in zip(ids, identities, strict=True) if who == name}
        assert result.average_precision[name] == pytest.approx(
            float(naive.precision(expected, positives))
        )
    assert result.enrolment == enrolment
    assert result.to_dict().get("enrolment", "mean") == enrolment


def test_max_takes_the_most_similar_gallery_clip():
    # By mean, 45 degrees, "a" is nearest to ann; by max both ends are, and "a" is last.
    gallery = np.array([[1, 0], [0, 0], [0, 1]], dtype=np.float32)
    clips = np.array([[0.6, 0.8], [1, 0], [0, 1]], dtype=np.float32)
    lists = rank_clips(gallery, ["ann"] * 3, clips, ["a", "b", "c"], enrolment="max")
    assert lists == {"ann": ["b", "c", "a"]}
    assert rank_clips(gallery, ["ann"] * 3, clips, ["a", "b", "c"]) == {"ann": ["a", "b", "c"]}
    # Rows that cancel have no mean, and are searched for by max.
    gallery = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    arguments = (gallery, ["ann"] * 2, clips, ["ann", "", ""], ["z", "a", "b"])
    assert score_retrieval(*arguments).identities_without_descriptor == ("ann",)
    by_max = score_retrieval(*arguments, enrolment="max")
    assert by_max.identities_without_descriptor == ()
    assert by_max.map_at_k == 0.5


def test_lists_are_those_of_the_whole_gallery_or_of_the_names():
    gallery = np.array([[1, 0], [0, 1], [0, 0], [0, 1]], dtype=np.float32)
    who = ["bob", "ann", "cy", ""]
    clips = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    ids = ["a", "b", "c"]
    lists = rank_clips(gallery, who, clips, ids)
    assert list(lists.items()) == [("ann", ["b", "a"]), ("bob", ["a", "b"]), ("cy", [])]
    lists = rank_clips(gallery, who, clips, ids, k=1, names=["bob", "zoe", "ann", "bob"])
    assert list(lists.items()) == [("bob", ["a"]), ("zoe", []), ("ann", ["b"])]
    assert rank_clips(gallery, who, clips[:0], []) == {"ann": [], "bob": [], "cy": []}
    assert rank_clips(gallery[:0], [], clips, ids) == {}
    for bad in ["", 3, None]:
        with pytest.raises(VidfaceError, match="names must be identities"):
            rank_clips(gallery, who, clips, ids, names=["ann", bad])


def test_lists_check_their_input():
    gallery = np.eye(2, dtype=np.float32)
    with pytest.raises(VidfaceError, match="'a' stands twice"):
        rank_clips(gallery, ["ann", "bob"], gallery, ["a", "a"])
    with pytest.raises(VidfaceError, match="gallery_identities must have"):
        rank_clips(gallery, ["ann"], gallery, ["a", "b"])
    with pytest.raises(VidfaceError, match="unknown enrolment 'most'"):
        rank_clips(gallery, ["ann", "bob"], gallery, ["a", "b"], enrolment="most")
    with pytest.raises(VidfaceError, match="at least 1, got 0"):
        rank_clips(gallery, ["ann", "bob"], gallery, ["a", "b"], 0)


def test_table_of_identities():
    gallery = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    clips = np.array([[1, 0], [0, 0], [0, 1], [0, 0]], dtype=np.float32)
    result = score_retrieval(
        gallery, ["ann", "ann", "eve", ""], clips, ["bob", "ann", "ann", ""], list("abcd")
    )
    assert result.per_identity() == [
        {
            "identity": "ann",
            "average_precision": result.average_precision["ann"],
            "positives": 2,
            "gallery_clips": 2,
            "clips_without_descriptor": 1,
        },
        {
            "identity": "bob",
            "average_precision": 0.0,
            "positives": 1,
            "gallery_clips": 0,
            "clips_without_descriptor": 0,
        },
    ]
    result.per_identity()[0]["positives"] = 9
    assert result.per_identity()[0]["positives"] == 2
    assert "table" not in result.to_dict()


def test_interval_resamples_identities():
    gallery, gallery_identities, clips, identities = people(seed=4)
    ids = clip_names(len(clips))
    bootstrap = Bootstrap(40, seed=3)
    result = score_retrieval(
        gallery, gallery_identities, clips, identities, ids, bootstrap=bootstrap
    )
    names = sorted(set(identities) - {""})
    items = [result.average_precision[name] for name in names]
    for resample in range(40):
        drawn = naive.resampled(items, names, bootstrap.weights(resample, len(names)))
        assert result.replicates.values[resample] == pytest.approx(sum(drawn) / len(drawn))
    document = result.to_dict()
    assert list(document)[:3] == ["map_at_100", "ci95", "ci95_note"]
    assert document["ci95"][0] < result.map_at_k < document["ci95"][1]
    assert "pool of clips is held fixed" in document["ci95_note"]
    plain = score_retrieval(gallery, gallery_identities, clips, identities, ids)
    assert plain.replicates is None
    assert "ci95" not in plain.to_dict()
    assert plain == result


def test_interval_of_nothing():
    none = np.zeros((0, 2), dtype=np.float32)
    result = score_retrieval(none, [], none, [], [], bootstrap=Bootstrap(10))
    assert (result.map_at_k, result.to_dict()["ci95"]) == (None, None)
