from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.test_lfrc import listed
from vidface.challenges.importing import place_manifest
from vidface.challenges.lfrc import lfrc_clips
from vidface.core.errors import VidfaceError
from vidface.settings.manifests import read_manifest


def lfrc_manifest(folder: Path | str, out: Path, **chosen: Any) -> Path:
    place_manifest(lfrc_clips(folder, **chosen), out, force=True)
    return out


def crops(folder: Path, *videos: str) -> Path:
    for video in videos:
        (folder / video).mkdir(parents=True)
        (folder / video / "1.jpg").write_bytes(b"")
    return folder


def test_manifest_of_the_usual_layout(tmp_path: Path) -> None:
    crops(tmp_path, "v2", "v10", 'a,"b', "unlisted")
    listed(tmp_path, 'v10 3\nv2\na,"b 9\n')
    out = tmp_path / "manifest.csv"
    lfrc_manifest(str(tmp_path), out)
    assert out.read_bytes() == (
        b'clip_id,path,identity,split\r\nv10,v10,,val\r\nv2,v2,,val\r\n"a,""b","a,""b",,val\r\n'
    )
    clips = read_manifest(out).clips  # looks for the folders, too
    assert [clip.clip_id for clip in clips] == ["v10", "v2", 'a,"b']


def test_manifest_elsewhere_has_the_folder_as_root(tmp_path: Path) -> None:
    folder = crops(tmp_path / "crops", "v1", "x/v2")
    listed(folder, "x/v2\nv1\n")
    out = lfrc_manifest(folder, tmp_path / "new" / "m.csv", split="test")
    clips = read_manifest(out, root=folder).clips
    assert [(c.clip_id, c.path, c.identity, c.split) for c in clips] == [
        ("x/v2", "x/v2", "", "test"),
        ("v1", "v1", "", "test"),
    ]


@pytest.mark.parametrize("where", ["", "iQIYI_VID_FACE/"])
def test_manifest_of_crops_in_the_archives_folder(tmp_path: Path, where: str) -> None:
    crops(tmp_path, "iQIYI_VID_FACE/v2", "iQIYI_VID_FACE/v3", "other")
    listed(tmp_path, "v1\nv2\nv3\n", where + "filelist.txt")
    out = lfrc_manifest(tmp_path, tmp_path / "m.csv")
    manifest = read_manifest(out, allow_missing=True)
    assert [clip.clip_id for clip in manifest.clips] == ["v1", "v2", "v3"]
    assert [clip.path for clip in manifest.clips] == [f"iQIYI_VID_FACE/v{i}" for i in (1, 2, 3)]
    assert manifest.missing == {"v1"}  # a clip that failed stays in


@pytest.mark.parametrize(
    ("here", "below", "expected"),
    [
        ("v1", "", "v1"),  # the archive's folder is there, but empty
        ("v1 v2", "v1", "v1"),
        ("v1", "v1", "v1"),
        ("v1", "v1 v2", "iQIYI_VID_FACE/v1"),
        ("", "", "iQIYI_VID_FACE/v1"),
        ("", "a", "iQIYI_VID_FACE/v1"),
    ],
)
def test_manifest_takes_the_folder_that_has_more_videos(
    tmp_path: Path, here: str, below: str, expected: str
) -> None:
    crops(tmp_path, *here.split(), *(f"iQIYI_VID_FACE/{v}" for v in below.split()))
    (tmp_path / "iQIYI_VID_FACE").mkdir(exist_ok=True)
    listed(tmp_path, "v1\nv2\n")
    listed(tmp_path / "iQIYI_VID_FACE", "", "v2") if "v2" not in below else None  # a file is none
    out = lfrc_manifest(tmp_path, tmp_path / "m.csv")
    assert read_manifest(out, check_files=False).clips[0].path == expected


@pytest.mark.parametrize("where", ["", "iQIYI_VID_FACE/"])
def test_manifest_of_names_with_folders(tmp_path: Path, where: str) -> None:
    crops(tmp_path, f"{where}x/v1", "iQIYI_VID_FACE/y")
    listed(tmp_path, "x/v1\n")
    assert len(read_manifest(lfrc_manifest(tmp_path, tmp_path / "m.csv")).clips) == 1


def test_manifest_without_any_folder_of_a_video(tmp_path: Path) -> None:
    listed(tmp_path, "v1\n")
    manifest = read_manifest(lfrc_manifest(tmp_path, tmp_path / "m.csv"), allow_missing=True)
    assert [clip.path for clip in manifest.clips] == ["v1"]
    assert manifest.missing == {"v1"}


def test_manifest_with_a_filelist_of_another_name(tmp_path: Path) -> None:
    folder = crops(tmp_path / "f", "v1")
    listed(folder, "wrong\n")
    path = listed(tmp_path, "v1\n", "video_filelist.txt")
    out = lfrc_manifest(folder, tmp_path / "m.csv", filelist=path)
    assert [clip.clip_id for clip in read_manifest(out, root=folder).clips] == ["v1"]


def test_filelist_of_the_folder_itself_comes_first(tmp_path: Path) -> None:
    listed(tmp_path, "v1\n")
    listed(tmp_path, "v2\n", "iQIYI_VID_FACE/filelist.txt")
    out = lfrc_manifest(tmp_path, tmp_path / "m.csv")
    assert read_manifest(out, check_files=False).clips[0].clip_id == "v1"


def test_identities(tmp_path: Path) -> None:
    listed(tmp_path, "v1\nv2\nv3.mp4\nv4\nv5\nv5.mp4\n")
    truth = listed(tmp_path, "v2.mp4 17\nv1 Ann\n\nv3 17\nv1.mp4 Ann\r\nv5.mp4 Bo\n", "gt.txt")
    out = lfrc_manifest(tmp_path, tmp_path / "m.csv", identities=truth, split="train")
    clips = read_manifest(out, check_files=False).clips
    assert {clip.clip_id: clip.identity for clip in clips} == {
        "v1": "Ann",
        "v2": "17",
        "v3.mp4": "17",
        "v4": "",
        "v5": "",
        "v5.mp4": "Bo",
    }
    assert {clip.split for clip in clips} == {"train"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v1 a\nv3 b\n", r"1 problem\(s\): line 2: the filelist names no video 'v3'"),
        ("v1 a\nv1.mp4 b\n", r"line 2: 'v1' is 'b' here, but 'a' on line 1"),
        ("\nv1 a\nv1 a\nv1 b\n", r"1 problem\(s\): line 4: 'v1' is 'b' here, but 'a' on line 2"),
        ("v1\n", r"line 1: 1 word\(s\) where a label is '<video> <identity>'"),
        ("v1 a b\n", r"line 1: 3 word\(s\)"),
        ("v1 a\x01\n", r"line 1: control character"),
        (" \n", r"gt\.txt: no label in it"),
        ("".join(f"w{i} 1\n" for i in range(999)), r"20 problem.*line 20: .*'w19'; the rest"),
    ],
)
def test_identities_refused(tmp_path: Path, text: str, message: str) -> None:
    listed(tmp_path, "v1\nv2\n")
    truth = listed(tmp_path, text, "gt.txt")
    with pytest.raises(VidfaceError, match=message):
        lfrc_manifest(tmp_path, tmp_path / "m.csv", identities=truth)
    assert not (tmp_path / "m.csv").exists()


def test_identities_not_utf8_or_missing(tmp_path: Path) -> None:
    listed(tmp_path, "v1\n")
    with pytest.raises(VidfaceError, match=r"identities .*gt\.txt.*line 1: not UTF-8"):
        lfrc_manifest(tmp_path, tmp_path / "m", identities=listed(tmp_path, b"v1 \xff", "gt.txt"))
    with pytest.raises(VidfaceError, match=r"identities .*no\.txt: No such file"):
        lfrc_manifest(tmp_path, tmp_path / "m", identities=tmp_path / "no.txt")


def test_manifest_refuses_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"no filelist\.txt in it.*video_filelist\.txt"):
        lfrc_manifest(tmp_path, tmp_path / "m.csv")
    path = listed(tmp_path, "v1\n")
    with pytest.raises(VidfaceError, match=r"unknown split 'dev' \(known: train, val"):
        lfrc_manifest(tmp_path, tmp_path / "m.csv", split="dev")
    with pytest.raises(VidfaceError, match="no such folder"):
        lfrc_manifest(tmp_path / "no", tmp_path / "m.csv", filelist=path)
    with pytest.raises(VidfaceError, match="Is a directory"):
        lfrc_manifest(tmp_path, tmp_path)


def test_same_manifest_is_left(tmp_path: Path) -> None:
    listed(tmp_path, "v1\nv2\n")
    out = lfrc_manifest(tmp_path, tmp_path / "m.csv")
    content = out.read_bytes()
    os.utime(out, ns=(1, 1))
    before = out.stat()
    assert lfrc_manifest(tmp_path, out) == out
    after = out.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    for other in (content.replace(b"v1", b"v3"), content + b"\n"):  # of equal size, and longer
        out.write_bytes(other)
        lfrc_manifest(tmp_path, out)
        assert out.read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["filelist.txt", "m.csv"]


def test_the_filelist_is_no_list_of_labels(tmp_path):
    (tmp_path / "filelist.txt").write_text("v1 12\nv2 12\n")
    with pytest.raises(VidfaceError, match="says nobody's name"):
        lfrc_manifest(tmp_path, tmp_path / "m.csv", identities=tmp_path / "filelist.txt")
    assert not (tmp_path / "m.csv").exists()
