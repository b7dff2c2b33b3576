"""IJB's lists of templates as clips: each image once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.test_templates import HEADED, IJB, read
from vidface.challenges.ijb import templates_clips
from vidface.core.errors import VidfaceError


def test_each_path_is_a_clip_in_order_of_appearance(tmp_path: Path) -> None:
    clips = templates_clips(read(tmp_path, IJB), "probe")
    paths = ["img/1.jpg", "frames/2.png", "frames/3.png"]
    assert [clip.path for clip in clips] == [clip.clip_id for clip in clips] == paths
    assert {(clip.identity, clip.split) for clip in clips} == {("", "probe")}


def test_identities_and_split(tmp_path: Path) -> None:
    text = HEADED + 'bob,"x, 1.jpg",11,5,70\n,y.jpg,12,5,70\n'
    clips = templates_clips(read(tmp_path, text), "gallery")
    assert [clip.identity for clip in clips] == ["ann", "ann", "ann", "bob", ""]
    assert clips[3].path == clips[3].clip_id == "x, 1.jpg"
    assert {clip.split for clip in clips} == {"gallery"}


@pytest.mark.parametrize("who", ["bob", ""])
def test_a_path_of_two_subjects_is_refused(tmp_path: Path, who: str) -> None:
    templates = read(tmp_path, HEADED + f"{who},frames/2.png,11,5,70\n")
    text = f"path 'frames/2.png' is in template '7' of 'ann' and in template '11' of '{who}'"
    with pytest.raises(VidfaceError, match=text):
        templates_clips(templates, "probe")


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"unknown split 'x' .known: train"):
        templates_clips(read(tmp_path, IJB), "x")
