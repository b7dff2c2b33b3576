"""Pairs of a folder of people: balanced, by people, in folds; and read again as they were."""

from __future__ import annotations

import itertools
import math
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vidface.core.errors import VidfaceError
from vidface.datasets.drawn_pairs import _unordered_pair, draw_pairs, write_list
from vidface.datasets.pair_sources import open_pairs
from vidface.datasets.pairs import PairSet


def make_people(root: Path, counts: dict[str, int]) -> Path:
    for person, count in counts.items():
        (root / person).mkdir(parents=True)
        for number in range(count):
            (root / person / f"{number}.png").touch()
    return root


def listed(pairs: PairSet) -> list[tuple[str, str]]:
    names = pairs.image_names
    return [(names[a], names[b]) for a, b in zip(pairs.first, pairs.second, strict=True)]


def people_of(pairs: PairSet, rows: np.ndarray) -> Counter[str]:
    names = [Path(name).parts[0] for row in rows for name in listed(pairs)[row]]
    return Counter(names)


def test_all_pairs_by_eye(tmp_path: Path) -> None:
    pairs = draw_pairs(make_people(tmp_path / "f", {"ann": 2, "bob": 1}), most=None)
    assert listed(pairs) == [
        ("ann/0.png", "ann/1.png"),
        ("ann/0.png", "bob/0.png"),
        ("ann/1.png", "bob/0.png"),
    ]
    assert pairs.same.tolist() == [True, False, False]
    assert pairs.folds.tolist() == [0, 0, 0]
    assert pairs.origin == "of 2 people with 3 pictures, all there are"


def test_pairs_are_balanced_different_and_spread_over_people(tmp_path: Path) -> None:
    root = make_people(tmp_path / "f", {"ann": 30, "bob": 3, "eve": 2, "tom": 1})
    pairs = draw_pairs(root, most=21, seed=3)
    names = listed(pairs)
    assert len(names) == len({frozenset(pair) for pair in names}) == 20  # none twice, an even half
    owners = [[Path(name).parts[0] for name in pair] for pair in names]
    assert pairs.same.tolist() == [a == b for a, b in owners] == [True] * 10 + [False] * 10
    # Of one person: eve has 1 pair, bob 3, ann 435. The largest fills up.
    assert people_of(pairs, np.arange(10)) == {"ann": 12, "bob": 6, "eve": 2}
    # Of two: eve-tom 2 pairs and bob-tom 3; the other four have more than 10 / 6.
    two = Counter(frozenset(pair) for pair in owners[10:])
    assert len(two) == 6
    assert max(two.values()) == 2
    assert "one fold" in pairs.origin


def test_as_many_of_two_as_there_are_of_one(tmp_path: Path) -> None:
    pairs = draw_pairs(make_people(tmp_path / "f", {"ann": 2, "bob": 2}))
    assert pairs.same.tolist() == [True, True, False, False]


def test_ten_folds_share_no_person(tmp_path: Path) -> None:
    counts = {f"p{i:02}": 5 if i < 10 else 1 for i in range(20)}
    pairs = draw_pairs(make_people(tmp_path / "f", counts), most=100)
    assert pairs.n_folds == 10
    folds = [set(people_of(pairs, np.flatnonzero(pairs.folds == k))) for k in range(10)]
    assert all(not one & other for one, other in itertools.combinations(folds, 2))
    for k in range(10):
        assert pairs.same[pairs.folds == k].tolist() == [True] * 5 + [False] * 5
    counts.popitem()  # 19 people
    assert draw_pairs(make_people(tmp_path / "g", counts), most=100).n_folds == 1


def test_the_seed_decides(tmp_path: Path) -> None:
    root = make_people(tmp_path / "f", {"ann": 9, "bob": 9})
    drawn = {seed: draw_pairs(root, most=8, seed=seed).sha256 for seed in (0, 1)}
    assert drawn[0] == draw_pairs(root, most=8).sha256 != drawn[1]


def test_a_list_is_read_as_it_was(tmp_path: Path) -> None:
    names = ['a, "b"', "=1+1", " 王 伟 ", "ann/summer", "-"]
    root = make_people(tmp_path / "f", dict.fromkeys(names, 3))
    pairs = draw_pairs(root)
    write_list(pairs, tmp_path / "list.csv")
    assert "\n=" not in (tmp_path / "list.csv").read_text()
    again = open_pairs(root, tmp_path / "list.csv")
    assert list(again.image_names) == list(pairs.image_names)
    for column in ("first", "second", "same", "folds"):
        assert np.array_equal(getattr(again, column), getattr(pairs, column))
    assert again.sha256 == pairs.sha256
    with tarfile.open(tmp_path / "f.tar", "w") as archive:
        archive.add(root, "lfw")  # below one folder
    tarred = draw_pairs(tmp_path / "f.tar")
    assert [f"./{name}"[:6] for name in tarred.image_names] == ["./lfw/"] * 15
    assert sorted(n.removeprefix("lfw/") for n in tarred.image_names) == sorted(pairs.image_names)


def test_a_name_that_no_list_can_hold(tmp_path: Path) -> None:
    pairs = draw_pairs(make_people(tmp_path / "f", {"a:b": 2, "c": 2}))
    with pytest.raises(VidfaceError, match="'a:b/"):
        write_list(pairs, tmp_path / "list.csv")
    assert not (tmp_path / "list.csv").exists()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"ann": 3}, "one person's 3 picture"),
        ({"ann": 1, "bob": 1}, "2 people with one picture each"),
        ({".": 2}, "no pictures in folders of people .*, 2 loose ones; give"),
        ({}, "no pictures in folders of people"),
        ({"ann": 3000, "bob": 2000}, "12,497,500 pairs, more than the 8,388,608"),
    ],
)
def test_no_pairs(
    tmp_path: Path, counts: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidface.storage.media import FolderRoot

    names = [f"{p}/{i}.png".removeprefix("./") for p, n in counts.items() for i in range(n)]
    monkeypatch.setattr(FolderRoot, "all_images", lambda self: names)
    with pytest.raises(VidfaceError, match=message):
        draw_pairs(tmp_path, most=None)


def test_numbers_of_pairs() -> None:
    first = [_unordered_pair(number) for number in range(6)]
    assert first == [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)]
    low, high = _unordered_pair(2**62 + 1)  # beyond what floats hold
    assert 0 <= low < high
    assert math.comb(high, 2) + low == 2**62 + 1
