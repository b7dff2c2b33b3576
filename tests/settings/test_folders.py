"""`vidface init`: what is a clip in a folder, whose it is, and what is passed over, with a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.settings.folders import FolderClips, clips_in_folder
from vidface.storage.names import IMAGE_SUFFIXES, VIDEO_SUFFIXES

JOSE_NFC, JOSE_NFD = "Jos\u00e9", "Jose\u0301"


def touch(folder: Path, *names: str, data: bytes = b"x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def drafted(folder: Path) -> FolderClips:
    """The clips of a folder, of which every file is either used or named."""
    contents = clips_in_folder(folder)
    accounted = [clip.path for clip in contents.clips]
    accounted += [path for paths in contents.skipped.values() for path in paths]
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        places = {relative.as_posix(), *(parent.as_posix() for parent in relative.parents)}
        assert path.is_dir() or places & set(accounted), f"{relative} vanished"
    return contents


def rows(contents: FolderClips) -> list[tuple[str, str, str]]:
    return [(clip.path, clip.identity, clip.split) for clip in contents.clips]


def test_person_folders(tmp_path: Path) -> None:
    touch(tmp_path, "ann/clip10.mp4", "ann/clip2.mp4", "bob/1/0.jpg", "bob/2/0.jpg", "bob/.x.mp4")
    touch(tmp_path, "notes.txt", "ann/readme.txt")
    contents = drafted(tmp_path)
    assert contents.clips == (
        Clip("ann.clip2", "ann/clip2.mp4", "ann", "train"),
        Clip("ann.clip10", "ann/clip10.mp4", "ann", "val"),
        Clip("bob.1", "bob/1", "bob", "train"),
        Clip("bob.2", "bob/2", "bob", "val"),
    )
    assert str(contents) == ("left out: files of other kinds: 2 (.txt 2); hidden: 1 (bob/.x.mp4)")


def test_a_picture_makes_no_clip_of_a_persons_folder(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.mp4", "ann/2.mp4", "ann/cover.jpg", "bob/1.mp4", "bob/2021/stills/0.png")
    touch(tmp_path, "ann/thumb.jpg", "cy/thumb.jpg", "ann/3.mp4", data=b"")
    touch(tmp_path, "dee/cover.jpg", "dee/c1/0.jpg", "dee/c1/1.jpg", "dee/c2/0.jpg")
    contents = drafted(tmp_path)
    assert rows(contents) == [
        ("ann/1.mp4", "ann", "train"),
        ("ann/2.mp4", "ann", "val"),
        ("bob/1.mp4", "bob", "train"),
        ("bob/2021/stills", "bob", "val"),
        ("dee/c1", "dee", "train"),
        ("dee/c2", "dee", "val"),
    ]
    assert contents.skipped == {
        "empty (0 bytes)": ["ann/3.mp4", "ann/thumb.jpg", "cy/thumb.jpg"],
        "pictures beside videos or folders of clips": ["ann/cover.jpg", "dee/cover.jpg"],
        "folders without a clip": ["cy"],
    }


def test_clips_lie_at_any_depth_below_their_person(tmp_path: Path) -> None:
    touch(tmp_path, "ann/2019/may/b.mp4", "ann/2019/a.mp4", "ann/2020/frames/0.jpg", "bob/x.mp4")
    touch(tmp_path, "ann/2020/frames/thumbs/0.jpg", "ann/2019/cover.jpg")
    contents = drafted(tmp_path)
    assert rows(contents) == [
        ("ann/2019/a.mp4", "ann", "train"),
        ("ann/2019/may/b.mp4", "ann", "val"),
        ("ann/2020/frames", "ann", "val"),
        ("bob/x.mp4", "bob", "train"),
    ]
    assert contents.skipped == {
        "pictures beside videos or folders of clips": ["ann/2019/cover.jpg"],
        "folders inside a folder of frames": ["ann/2020/frames/thumbs"],
    }
    assert contents.notes == ()


def test_one_folder_above_the_people_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "videos/ann/1.mp4", "videos/bob/1.mp4")
    contents = drafted(tmp_path)
    assert [clip.identity for clip in contents.clips] == ["videos", "videos"]
    assert "all clips are of one person, videos" in str(contents)


def test_split_folders_and_flat_files(tmp_path: Path) -> None:
    touch(tmp_path / "split", "Train/ann/a.mp4", "val/ann/b.mp4", "val/ann/c.mp4", "val/who.mp4")
    touch(tmp_path / "split", "docs/readme.txt", "notes.mp4")
    contents = drafted(tmp_path / "split")
    assert contents.clips == (
        Clip("Train.ann.a", "Train/ann/a.mp4", "ann", "train"),
        Clip("notes", "notes.mp4", "", "val"),
        Clip("val.ann.b", "val/ann/b.mp4", "ann", "val"),
        Clip("val.ann.c", "val/ann/c.mp4", "ann", "val"),
        Clip("val.who", "val/who.mp4", "", "val"),
    )
    touch(tmp_path / "flat", "2.mp4", "10.mkv", "frames/0.png")
    contents = drafted(tmp_path / "flat")
    assert [c.clip_id for c in contents.clips] == ["2", "10", "frames"]
    assert {c.identity for c in contents.clips} == {""}
    assert "1 folder(s) hold pictures alone: each is one clip, its person not known" in str(
        contents
    )


def test_splits_beside_people_are_people(tmp_path: Path) -> None:
    touch(tmp_path, "probe/a.mp4", "ann/a.mp4")
    contents = drafted(tmp_path)
    assert [clip.identity for clip in contents.clips] == ["ann", "probe"]
    assert "probe: taken as people's folders, not as splits, since ann is none" in str(contents)


def test_pictures_of_a_person_beside_other_peoples_videos(tmp_path: Path) -> None:
    """A folder of pictures is a person's if others' folders are, in whichever split."""
    touch(tmp_path, "gallery/ann/0.jpg", "gallery/ann/1.jpg", "probe/ann/x.mp4")
    assert rows(drafted(tmp_path)) == [
        ("gallery/ann", "ann", "gallery"),
        ("probe/ann/x.mp4", "ann", "probe"),
    ]


def test_a_folder_called_as_strangers_are_is_one_person_and_told(tmp_path: Path) -> None:
    for name in ("ann", "Unknown"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.mp4").write_bytes(b"x")
    contents = clips_in_folder(tmp_path)
    assert {clip.identity for clip in contents.clips} == {"ann", "Unknown"}
    assert [note.split(";")[0] for note in contents.notes] == ["Unknown: taken as one person"]


def test_folders_that_differ_in_unicode_form_are_one_person(tmp_path: Path) -> None:
    touch(tmp_path, f"{JOSE_NFC}/1.mp4", f"{JOSE_NFD}/1.mp4", f"{JOSE_NFD}/2.mp4", "Ann  B/1.mp4")
    contents = drafted(tmp_path)
    by_path = {clip.path: clip for clip in contents.clips}
    assert len(by_path) == 4
    assert {clip.identity for clip in contents.clips} == {JOSE_NFC, "Ann B"}
    assert sorted(clip.split for clip in contents.clips) == ["train", "train", "val", "val"]
    assert len({clip.clip_id for clip in contents.clips}) == 4
    (note,) = contents.notes
    assert "2 folders are one person" in note
    assert r"'Jos\xe9'" in note
    assert r"'Jose\u0301'" in note


def test_ids_have_no_white_space_and_are_each_once(tmp_path: Path) -> None:
    touch(
        tmp_path, "a b/1.mp4", "a b/1.mov", "a_b/1.mp4", "a_b/2 (x).mp4", "c.d/1.mp4", "c/d.1.mp4"
    )
    assert [clip.clip_id for clip in drafted(tmp_path).clips] == [
        "a_b.1.mov",
        "a_b.1.mp4",
        "a_b.1.mp4-2",
        "a_b.2_(x)",
        "c.d.1.mp4",
        "c.d.1.mp4-2",
    ]


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_every_kind_of_video_is_one(suffix: str, tmp_path: Path) -> None:
    touch(tmp_path, f"ann/a{suffix}", f"ann/b{suffix.upper()}")
    assert len(drafted(tmp_path).clips) == 2
    assert suffix not in IMAGE_SUFFIXES


def test_links_and_devices(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.mp4")
    (tmp_path / "ann" / "b.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "ann" / "up").symlink_to(tmp_path)
    (tmp_path / "ann" / "self.mp4").symlink_to("self.mp4")
    (tmp_path / "bob").symlink_to(tmp_path / "nowhere")
    (tmp_path / "cy").symlink_to(tmp_path / "ann")  # no circle: followed
    os.mkfifo(tmp_path / "ann" / "pipe.mp4")
    contents = clips_in_folder(tmp_path)
    assert rows(contents) == [("ann/a.mp4", "ann", "train"), ("cy/a.mp4", "cy", "train")]
    assert contents.skipped["neither files nor folders"] == ["ann/pipe.mp4", "cy/pipe.mp4"]
    dead = contents.skipped["links that lead nowhere or in a circle"]
    assert {"ann/b.mp4", "ann/self.mp4", "ann/up", "bob"} <= set(dead)


def test_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"/0001\.jpg$"):
        clips_in_folder(tmp_path)
    with pytest.raises(VidfaceError, match="no such folder"):
        clips_in_folder(tmp_path / "no")
    touch(tmp_path, "ann/a.mp4", data=b"")
    with pytest.raises(VidfaceError, match=r"no clips found.*left out: empty \(0 bytes\): 1"):
        clips_in_folder(tmp_path)


def test_many_are_counted_and_few_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.mp4", *(f"ann/{k}.jpg" for k in range(30)), "ann/x", "ann/y.TXT")
    assert str(drafted(tmp_path)) == (
        "left out: files of other kinds: 2 (no ending 1, .txt 1); pictures beside videos or "
        "folders of clips: 30 (ann/0.jpg, ann/1.jpg, ann/2.jpg, …)"
    )


def test_the_command_says_it_all(vidface, tmp_path: Path) -> None:
    touch(tmp_path / "clips", "ann/a b.mp4", "ann/cover.jpg", "bob/x/a.vob")
    done = vidface("init", "clips")
    assert (done.code, done.err) == (0, "")
    assert "manifest.csv: 2 clips, 2 identities (train 2)" in done.out
    assert "left out: pictures beside videos or folders of clips: 1 (ann/cover.jpg)\n" in done.out
    assert "ann.a_b,clips/ann/a b.mp4,ann,train" in (tmp_path / "manifest.csv").read_text()
    done = vidface("init", "clips", "--out", "other.csv", "--json")
    assert done.json["skipped"] == {"pictures beside videos or folders of clips": ["ann/cover.jpg"]}
    assert done.json["notes"] == []
