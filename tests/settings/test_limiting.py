"""Some clips that stand for all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from vidface.core.clips import Clip
from vidface.core.errors import UsageError, VidfaceError
from vidface.settings.limiting import choose_clips
from vidface.settings.pipeline import parse_pipeline

PEOPLE = 30


def make_clips() -> list[Clip]:
    """Of each person one clip of train and three of val; as many strangers."""
    clips = [
        Clip(f"{person}.{number}", "", f"person {person}", "val" if number else "train")
        for person in range(PEOPLE)
        for number in range(4)
    ]
    return [*clips, *(Clip(f"stranger {n}", "", "", "val") for n in range(PEOPLE))]


def test_few_clips_hold_a_gallery_and_genuine_pairs() -> None:
    chosen = choose_clips(make_clips(), 20)
    assert Counter(Counter(clip.identity for clip in chosen).values()) == {4: 5}
    assert Counter(clip.split for clip in chosen) == {"train": 5, "val": 15}


def test_a_turn_of_one_takes_nobody_twice_and_strangers_too() -> None:
    chosen = choose_clips(make_clips(), 20, a_turn=1)
    people = Counter(clip.identity for clip in chosen)
    assert 4 <= people.pop("") <= 16
    assert set(people.values()) == {1}


@pytest.mark.parametrize("seed", range(5))
def test_splits_whose_people_differ_take_turns(seed: int) -> None:
    clips = [
        Clip(f"{split} {person} {number}", "", f"{split} {person}", split)
        for split, people in (("train", 50), ("val", 3))
        for person in range(people)
        for number in range(4)
    ]
    chosen = choose_clips(clips, 16, seed=seed)
    assert Counter(clip.split for clip in chosen) == {"train": 8, "val": 8}


def test_strangers_come_when_everybody_had_a_turn() -> None:
    chosen = choose_clips(make_clips(), 4 * PEOPLE + 7)
    assert Counter(clip.identity for clip in chosen)[""] == 7


def test_the_order_is_the_manifests_and_a_clip_more_changes_at_most_one() -> None:
    clips = make_clips()
    chosen = choose_clips(clips, 20)
    assert list(chosen) == [clip for clip in clips if clip in chosen]
    reversed_choice = choose_clips(clips[::-1], 20)
    assert set(reversed_choice) == set(chosen)
    more = choose_clips([*clips, Clip("new", "", "", "val")], 20)
    assert len(set(more) & set(chosen)) >= 19
    assert choose_clips(clips, 20, seed=1) != chosen


@pytest.mark.parametrize("n", [0, 1, 150, 151])
def test_boundaries(n: int) -> None:
    clips = make_clips()
    assert len(choose_clips(clips, n)) == min(n, len(clips))
    assert choose_clips([], n) == ()


def parse(flag: int | None, overrides: dict, **manifest: object) -> Path:
    document = {"manifest": {"path": "m.csv", **manifest}, "run": {"dir": "runs/all"}}
    flags = overrides if flag is None else {("manifest", "limit"): flag, **overrides}
    folder = parse_pipeline(document, Path("/data/vidface.toml"), flags).run.dir
    assert isinstance(folder, Path)
    return folder


def test_a_limited_run_has_a_directory_of_its_own() -> None:
    run = Path("/data/runs/all")
    assert parse(None, {}) == run
    assert parse(20, {}) == Path("/data/runs/all-limit-20")
    assert parse(20, {("run", "dir"): "/data/mine"}) == Path("/data/mine")
    # What a file says itself, and a run's own run.json is such a file, stays where it says.
    assert parse(None, {}, limit=20) == run
    assert parse(20, {}, limit=20) == run


def test_wrong_limits_are_refused() -> None:
    with pytest.raises(UsageError, match="--limit: must be at least 1, not 0"):
        parse(0, {})
    with pytest.raises(VidfaceError, match="limit: must be at least 1, not -1"):
        parse(None, {}, limit=-1)
