from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidface.challenges.submissions import score_ranked_list
from vidface.core.errors import VidfaceError
from vidface.datasets import iqiyi, submissions
from vidface.datasets.iqiyi import GroundTruth, read_ground_truth, video_key
from vidface.datasets.submissions import read_ranked_list, write_ranked_list

TRUTH = GroundTruth({"1": ("v1", "v2", "v3"), "2": ("v4",), "3": ("v5",)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.txt"


def truth_of(path: Path, text: str | bytes) -> GroundTruth:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_ground_truth(path)


def test_video_key() -> None:
    assert [video_key(n) for n in ("a.mp4", "a", "a.mp4.mp4", "a.MP4", "mp4", ".mp4")] == [
        *("a", "a", "a.mp4", "a.MP4", "mp4", ""),
    ]


def test_the_train_form(path: Path) -> None:
    truth = truth_of(path, "v2.mp4 7\r\n\nv1.mp4\t10\nv3.mp4 7")
    assert truth.videos == {"7": ("v2", "v3"), "10": ("v1",)}
    assert truth.identity_of == {"v2": "7", "v3": "7", "v1": "10"}
    assert (truth.repeated, truth.empty_identities) == (0, 0)
    assert str(truth) == "GroundTruth(2 identities, 3 videos)"


def test_the_val_form(path: Path) -> None:
    truth = truth_of(path, "\ufeff7 v2.mp4 v3.mp4 v2.mp4\n8\n10 v1.mp4\n7 v4.mp4 v3.mp4\n")
    assert truth.videos == {"7": ("v2", "v3", "v4"), "10": ("v1",)}
    assert truth.identity_of == {"v2": "7", "v3": "7", "v1": "10", "v4": "7"}
    assert (truth.repeated, truth.empty_identities) == (2, 1)


def test_a_video_with_and_without_mp4_is_one(path: Path) -> None:
    assert truth_of(path, "v1.mp4 1\nv1 1").repeated == 1
    assert truth_of(path, "1 v1 v1.mp4 v2").videos == {"1": ("v1", "v2")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1.mp4 1", {"1": ("v1",)}),
        ("v1 1\nv2.mp4 1", {"1": ("v1", "v2")}),  # a .mp4 anywhere at a line's head
        ("1 v1", {"1": ("v1",)}),  # ambiguous: a whole number
        ("1 2", {"1": ("2",)}),  # ambiguous: two of them
        ("v1 1", {"1": ("v1",)}),  # ambiguous: no whole number
        ("1 v1\nx 2", {"v1": ("1",), "2": ("x",)}),  # not on every line: train
        ("ann v1.mp4", {"ann": ("v1",)}),  # .mp4 behind
        ("ann v1 v2\nbob v3", {"ann": ("v1", "v2"), "bob": ("v3",)}),  # three words
        ("ann\nbob v3", {"bob": ("v3",)}),  # one word
    ],
)
def test_the_forms_are_told_apart(
    path: Path, text: str, expected: dict[str, tuple[str, ...]]
) -> None:
    assert truth_of(path, text).videos == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"v1.mp4 1\nv2.mp4 2\nv1 2", r"line 3: video 'v1' under identity '2', .*'1' in line 1"),
        (b"1 v1 v2\n\n2 v3 v2.mp4", r"line 3: video 'v2' under identity '2', .*'1' in line 1"),
        (b"v1.mp4 1\nv2.mp4", "line 2: 1 words where"),
        (b"v1.mp4 1\nv2.mp4 2 3", "line 2: 3 words where"),
        (b"v1.mp4 1\nv2 v3.mp4", r"line 2: 'v3\.mp4' stands where an identity is due"),
        (b"v1.mp4 1\nv2\xff.mp4 1", "line 2: not UTF-8"),
        (b"v1.mp4 1\nv\x002.mp4 1", "line 2: control character"),
        (b"v1.mp4 1\nv\x1b[2J.mp4 1", r"line 2: control character .\\x1b"),
        (b"v1.mp4 1\n.mp4 1", r"line 2: '\.mp4' is no name"),
        (b"", "no video in it"),
        (b" \n\n", "no video in it"),
        (b"1\n2\n", "no video in it"),
    ],
)
def test_what_is_no_ground_truth(path: Path, text: bytes, message: str) -> None:
    with pytest.raises(VidfaceError, match=message) as caught:
        truth_of(path, text)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_files_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (read_ground_truth, read_ranked_list):
        with pytest.raises(VidfaceError, match="No such file"):
            read(path)
        with pytest.raises(VidfaceError, match="directory"):
            read(path.parent)
    monkeypatch.setattr(iqiyi, "MOST_BYTES", 8)
    assert truth_of(path, "v1.mp4 1").videos == {"1": ("v1",)}
    with pytest.raises(VidfaceError, match="more than 8 bytes"):
        truth_of(path, "v1.mp4 12")


def test_a_ground_truth_checks_itself() -> None:
    with pytest.raises(VidfaceError, match="'v1' stands under identity '1' and again under '2'"):
        GroundTruth({"1": ("v1",), "2": ("v2", "v1")})
    with pytest.raises(VidfaceError, match="'v1' stands under identity '1' and again under '1'"):
        GroundTruth({"1": ("v1", "v1")})
    with pytest.raises(VidfaceError, match="identity '2' has no video"):
        GroundTruth({"1": ("v1",), "2": ()})
    with pytest.raises(VidfaceError, match="without a video"):
        GroundTruth({})


def test_reading_ranked_lists(path: Path) -> None:
    path.write_text("2 b.mp4 a b c\n10\n1 x.mp4\n")
    assert read_ranked_list(path) == {"2": ("b", "a", "b", "c"), "10": (), "1": ("x",)}
    assert list(read_ranked_list(path)) == ["2", "10", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1 a\n2 b\n1 c", "line 3: identity '1' stands twice"),
        (b"1 a\nv1.mp4 b", r"line 2: 'v1\.mp4' stands where an identity"),
        (b"1 a\n2 .mp4", r"line 2: '\.mp4' is no name"),
        (b"1 \xe9", "line 1: not UTF-8"),
        (b"1 a\n2 \x07b", "line 2: control character"),
        (b"\n", "no line in it"),
    ],
)
def test_what_is_no_ranked_list(path: Path, text: bytes, message: str) -> None:
    path.write_bytes(text)
    with pytest.raises(VidfaceError, match=message):
        read_ranked_list(path)


def test_writing_ranked_lists(path: Path) -> None:
    ranking = {"10": ["c"], "2": ["b.mp4", "a", "b", "c", "d"], "1": []}
    before = {identity: list(videos) for identity, videos in ranking.items()}
    write_ranked_list(path, ranking, k=3)
    assert path.read_bytes() == b"1\n2 b.mp4 a.mp4 c.mp4\n10 c.mp4\n"
    assert ranking == before
    write_ranked_list(path, {"1": [f"v{i}" for i in range(150)]})
    assert read_ranked_list(path) == {"1": tuple(f"v{i}" for i in range(100))}


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ({}, "no list to write"),
        ({"1": ["a b"]}, "identity '1': video 'a b' can't stand"),
        ({"1": ["a", ""]}, "video ''"),
        ({"1": [".mp4"]}, "video ''"),
        ({"1": ["a\u2028b"]}, r"video 'a\\u2028b'"),
        ({"1": ["a\x00"]}, "video"),
        ({"1": ["\ud800"]}, "video"),
        ({"1": ["a.mp4.mp4"]}, r"video 'a\.mp4'"),
        ({"": ["a"]}, "identity ''"),
        ({"1 2": ["a"]}, "identity '1 2'"),
        ({"1\n2": ["a"]}, "identity"),
        ({"v.mp4": ["a"]}, r"identity 'v\.mp4'"),
    ],
)
def test_names_that_cannot_stand_in_a_list(
    path: Path, ranking: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(VidfaceError, match=message):
        write_ranked_list(path, ranking)
    assert not path.exists()


def test_settings_that_cannot_be_written(path: Path) -> None:
    for k in (0, -1):
        with pytest.raises(VidfaceError, match=f"at least 1, got {k}"):
            write_ranked_list(path, {"1": ["a"]}, k=k)
    with pytest.raises(VidfaceError, match="is a folder; name a file"):
        write_ranked_list(path.parent, {"1": ["a"]})


def test_a_list_that_does_not_read_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "read_ranked_list", lambda _: {"1": ("b",)})
    with pytest.raises(VidfaceError, match="does not read back"):
        write_ranked_list(path, {"1": ["a"]})


words = st.text("ab01.", min_size=1, max_size=4).filter(lambda word: not word.endswith(".mp4"))


@given(st.dictionaries(words, st.lists(words, max_size=6), min_size=1), st.integers(1, 5))
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, ranking: dict[str, list[str]], k: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.txt"
    write_ranked_list(path, ranking, k=k)
    expected = {}
    for identity, videos in ranking.items():
        own: list[str] = []
        for video in videos:
            if video not in own and len(own) < k:
                own.append(video)
        expected[identity] = tuple(own)
    assert read_ranked_list(path) == expected


def test_the_hand_case(path: Path) -> None:
    path.write_text("1 v1.mp4 x.mp4 v2.mp4\n2 v4.mp4 v4.mp4 y.mp4\n")
    score = score_ranked_list(read_ranked_list(path), TRUTH)
    assert score.map_at_k == pytest.approx((5 / 9 + 1 + 0) / 3)
    assert score.map_at_k == pytest.approx(0.5185185, abs=5e-8)
    assert score.average_precision == {"1": pytest.approx(5 / 9), "2": 1.0, "3": 0.0}
    assert (score.identities, score.listed, score.k) == (3, 2, 100)
    assert score.identities_without_list == ("3",)
    assert score.unknown_identities == ()
    assert score.to_dict() == {
        "map_at_100": score.map_at_k,
        "identities": 3,
        "listed": 2,
        "identities_without_list": ["3"],
        "unknown_identities": [],
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        score.k = 3


def test_lists_that_are_empty_unknown_or_long() -> None:
    truth = GroundTruth({"10": ("a",), "2": ("b",)})
    ranking = {"10": [], "x": ["b"], "2": [f"n{i}" for i in range(99)] + ["n0", "b.mp4", "a"]}
    score = score_ranked_list(ranking, truth)
    assert list(score.average_precision.items()) == [("2", 1 / 100), ("10", 0.0)]
    assert score.map_at_k == 1 / 200
    assert (score.listed, score.identities_without_list) == (2, ())
    assert score.unknown_identities == ("x",)
    later = score_ranked_list({"2": [f"n{i}" for i in range(100)] + ["b"]}, truth)
    assert later.map_at_k == 0  # rank 101
    assert score_ranked_list(ranking, truth, k=99).to_dict()["map_at_99"] == 0
    assert score_ranked_list({"2": ["b"]}, truth, k=1).map_at_k == 0.5
    with pytest.raises(VidfaceError, match="at least 1"):
        score_ranked_list(ranking, truth, k=0)


def test_more_positives_than_ranks() -> None:
    names = [f"v{i}" for i in range(150)]
    score = score_ranked_list({"1": names}, GroundTruth({"1": tuple(names)}))
    assert score.map_at_k == pytest.approx(2 / 3)


def naive_ap(ranked: list[str], positives: tuple[str, ...], k: int) -> float:
    seen: list[str] = []
    hits, total = 0, 0.0
    for video in ranked:
        if video in seen:
            continue
        seen.append(video)
        if len(seen) > k:
            break
        if video in positives:
            hits += 1
            total += hits / len(seen)
    return total / len(positives)


videos = st.sampled_from([f"v{i}" for i in range(8)])


@given(
    st.dictionaries(st.sampled_from("123"), st.lists(videos, max_size=12)),
    st.dictionaries(videos, st.sampled_from("123"), min_size=1),
    st.integers(1, 10),
)
def test_scores_against_a_naive_twin(
    ranking: dict[str, list[str]], labels: dict[str, str], k: int
) -> None:
    own = {i: tuple(v for v in sorted(labels) if labels[v] == i) for i in set(labels.values())}
    score = score_ranked_list(ranking, GroundTruth(own), k)
    expected = {i: naive_ap(ranking.get(i, []), own[i], k) for i in own}
    assert score.average_precision == pytest.approx(expected)
    assert score.map_at_k == pytest.approx(sum(expected.values()) / len(expected))
