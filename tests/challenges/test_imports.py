"""Challenges' files as manifests: what is in them, and what stays as it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import write_crop
from tests.runs.test_features import face, write
from vidface.challenges.ijb import import_ijb
from vidface.challenges.iqiyi import import_iqiyi, iqiyi_clips, prepare_iqiyi
from vidface.challenges.lfrc import import_lfrc, prepare_lfrc
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.noise.denoisers import UnionFind
from vidface.runs.run import open_run, prepare_manifest
from vidface.settings.manifests import read_manifest
from vidface.settings.pipeline import load_pipeline


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A miniature of iQIYI-VID 2019; v4 is a distractor, no pickle has v9."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "face_train_v2.pickle", {"t2": [face([1, 0])] * 2, "t1": [face([0, 1])]})
    write(folder / "face_val_v2.pickle", {"v3": [face([1, 0])], "v1.mp4": [], "v4": [face([1, 1])]})
    (folder / "train_gt.txt").write_text("t1.mp4 1\nt2.mp4 2\n")
    (folder / "val_gt.txt").write_text("2 v1.mp4 v9.mp4\n10 v3.mp4\n")
    return folder


def pickles(data: Path) -> list[Path]:
    return [data / "face_train_v2.pickle", data / "face_val_v2.pickle"]


def truths(data: Path) -> list[Path]:
    return [data / "val_gt.txt", data / "train_gt.txt"]  # their order says nothing


TRAIN, VAL = "face_train_v2.pickle", "face_val_v2.pickle"
CLIPS = (
    Clip("t2", TRAIN, "2", "train"),
    Clip("t1", TRAIN, "1", "train"),
    Clip("v3", VAL, "10", "val"),
    Clip("v1", VAL, "2", "val"),
    Clip("v4", VAL, "", "val"),
    Clip("v9", VAL, "2", "val"),
)


def test_clips_by_eye(data: Path) -> None:
    found = iqiyi_clips(pickles(data), truths(data))
    assert found.clips == CLIPS
    assert (found.root, found.faces, found.absent) == (data, 5, 1)
    assert str(found) == f"FeatureClips(6 clips below {data}, 5 faces, 1 absent)"
    alone = iqiyi_clips([data / VAL])
    assert [clip.identity for clip in alone.clips] == ["", "", ""]
    assert alone.absent == 0


def test_what_a_file_names_is_its_split(data: Path) -> None:
    for name, split in [("face_test.pickle", "test"), ("VAL.pickle", "val"), ("a-train", "train")]:
        (data / VAL).rename(data / name)
        assert {clip.split for clip in iqiyi_clips([data / name]).clips} == {split}
        (data / name).rename(data / VAL)
    for name, there in [("trainval.pickle", "none"), ("train_val.pickle", "train and val"),
                        ("latest.pickle", "none")]:  # fmt: skip
        (data / VAL).rename(data / name)
        with pytest.raises(VidfaceError, match=rf"should have one of .*, has {there}; rename"):
            iqiyi_clips([data / name])
        assert {clip.split for clip in iqiyi_clips([data / name], split="test").clips} == {"test"}
        (data / name).rename(data / VAL)
    with pytest.raises(VidfaceError, match=r"unknown split 'dev' \(known: train, val"):
        iqiyi_clips([data / VAL], split="dev")
    with pytest.raises(VidfaceError, match="--split val is for one pickle"):
        iqiyi_clips(pickles(data), split="val")
    with pytest.raises(VidfaceError, match="no feature pickle is named"):
        iqiyi_clips([])


def test_files_in_several_folders(data: Path) -> None:
    (data / "deep").mkdir()
    (data / VAL).rename(data / "deep" / VAL)
    found = iqiyi_clips([data / TRAIN, data / "deep" / VAL], truths(data))
    assert found.root == data
    assert {clip.path for clip in found.clips} == {TRAIN, f"deep/{VAL}"}
    assert found.clips[-1] == Clip("v9", f"deep/{VAL}", "2", "val")


def test_a_truth_belongs_to_the_split_of_most_of_its_videos(data: Path) -> None:
    (data / "both.txt").write_text("7 v3.mp4 v4.mp4 t1.mp4 v8.mp4\n")
    found = iqiyi_clips(pickles(data), [data / "both.txt"])
    assert [(c.clip_id, c.identity, c.split) for c in found.clips if c.identity] == [
        ("t1", "7", "train"), ("v3", "7", "val"), ("v4", "7", "val"), ("v8", "7", "val"),
    ]  # fmt: skip
    (data / "both.txt").write_text("7 v3.mp4 t2.mp4 t1.mp4 v8.mp4\n")
    assert iqiyi_clips(pickles(data), [data / "both.txt"]).clips[-1].split == "train"


def test_truths_that_do_not_fit(data: Path) -> None:
    with pytest.raises(VidfaceError, match=r"train_gt\.txt: names no video of .*face_val_v2"):
        iqiyi_clips([data / VAL], truths(data))
    (data / "more.txt").write_text("2 v1.mp4 v9.mp4\n3 v3.mp4 v10.mp4\n")
    with pytest.raises(VidfaceError, match=r"more\.txt: video 'v3' is '3' here, and '10' in anoth"):
        iqiyi_clips(pickles(data), [*truths(data), data / "more.txt"])
    (data / "more.txt").write_text("2 v1.mp4 v9.mp4\n10 v3.mp4 v10.mp4\n")  # it agrees, and adds
    found = iqiyi_clips(pickles(data), [*truths(data), data / "more.txt"])
    assert [clip.clip_id for clip in found.clips[5:]] == ["v9", "v10"]
    assert found.absent == 2


def test_pickles_that_do_not_fit(data: Path) -> None:
    write(data / "face_test.pickle", {"v3": [face([1, 0])]})
    with pytest.raises(VidfaceError, match="video 'v3' is in another of the pickles, too"):
        iqiyi_clips([*pickles(data), data / "face_test.pickle"])
    with pytest.raises(VidfaceError, match="video 't2' is in another of the pickles, too"):
        iqiyi_clips([data / TRAIN, data / TRAIN])
    write(data / "face_test.pickle", {" v": [face([1, 0])]})
    with pytest.raises(VidfaceError, match="video ' v' begins or ends with white space"):
        iqiyi_clips([data / "face_test.pickle"])
    write(data / "face_test.pickle", {})
    with pytest.raises(VidfaceError, match=r"face_test\.pickle: no video in it"):
        iqiyi_clips([data / "face_test.pickle"])


def test_what_an_import_writes(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "deep"
    done = import_iqiyi(pickles(data), truths(data), out)
    manifest = read_manifest(out / "manifest.csv", data)
    assert [(c.clip_id, c.path, c.identity, c.split) for c in manifest.clips] == [
        (c.clip_id, c.path, c.identity, c.split) for c in CLIPS
    ]
    pipeline = load_pipeline(out / "vidface.toml")
    assert (pipeline.manifest.path, pipeline.manifest.root) == (out / "manifest.csv", data)
    assert pipeline.faces.source == "features"
    assert (pipeline.score.gallery, pipeline.score.split) == ("train", "val")
    assert pipeline.run.dir == out / "runs" / "iqiyi"
    assert (done.clips, done.faces, done.labelled, done.distractors) == (6, 5, 5, 1)
    assert (done.identities, done.splits, done.absent) == (3, {"train": 2, "val": 4}, 1)
    assert "1 of them are named by the ground truth alone" in str(done)
    flags = f"--pipeline {out / 'vidface.toml'}"
    assert str(done).endswith(f"  vidface cluster {flags} && vidface score {flags}")
    assert done.to_dict()["distractors"] == 1


def test_without_a_gallery_pairs_are_scored(data: Path, tmp_path: Path) -> None:
    for name, split in [(VAL, "val"), (TRAIN, "train")]:
        out = tmp_path / split
        import_iqiyi([data / name], [], out)
        settings = load_pipeline(out / "vidface.toml").score
        assert (settings.split, settings.protocol_names) == (split, ("verification",))
    write(data / "face_test.pickle", {"x1": [face([1, 0])]})
    import_iqiyi([data / TRAIN, data / "face_test.pickle"], [], tmp_path / "both")
    settings = load_pipeline(tmp_path / "both" / "vidface.toml").score
    assert (settings.gallery, settings.split) == ("train", "test")
    assert settings.needs_gallery
    import_iqiyi([data / "face_test.pickle", *pickles(data)], [], tmp_path / "all")
    settings = load_pipeline(tmp_path / "all" / "vidface.toml").score
    assert (settings.gallery, settings.split) == ("train", "val")


def test_what_is_there_stays(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_iqiyi(pickles(data), truths(data), out)
    settings = out / "vidface.toml"
    settings.write_text(settings.read_text().replace("threshold = 0.4", "threshold = 0.3"))
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    import_iqiyi(pickles(data), truths(data), out)  # the same again
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(VidfaceError, match="a manifest with other content is there; --out"):
        import_iqiyi(pickles(data), [], out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    done = import_iqiyi(pickles(data), [], out, force=True)
    assert done.labelled == 0
    assert all(not clip.identity for clip in read_manifest(out / "manifest.csv", data).clips)
    assert load_pipeline(settings).cluster.denoiser == UnionFind(0.4)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("root", '[manifest]\npath = "manifest.csv"\nroot = "../data/.."\n'),
        ("path", '[manifest]\npath = "other.csv"\nroot = "../data"\n'),
        ("no root", '[manifest]\npath = "manifest.csv"\n'),
    ],
)
def test_settings_of_other_clips_stay(data: Path, tmp_path: Path, key: str, text: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "vidface.toml").write_text(text + '[faces]\nsource = "features"\n')
    with pytest.raises(VidfaceError, match=r"vidface\.toml: is of other clips; --out"):
        import_iqiyi(pickles(data), truths(data), out)
    fits = '[manifest]\npath = "manifest.csv"\nroot = "../data"\n[faces]\nsource = '
    (out / "vidface.toml").write_text(fits + '"detect"')
    with pytest.raises(VidfaceError, match="is of other clips"):
        import_iqiyi(pickles(data), truths(data), out)
    (out / "vidface.toml").write_text(fits + '"features"')
    import_iqiyi(pickles(data), truths(data), out)
    assert (out / "vidface.toml").read_text() == fits + '"features"'
    (out / "vidface.toml").write_text(text)
    import_iqiyi(pickles(data), truths(data), out, force=True)
    assert "Written by `vidface import iqiyi`" in (out / "vidface.toml").read_text()


def test_a_folder_with_a_variable_in_its_name(data: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'an "odd" ${HOME}'
    data.rename(odd)
    with pytest.raises(VidfaceError, match="stands for a variable"):
        import_iqiyi([odd / VAL], [], tmp_path / "out")
    odd.rename(tmp_path / 'an "odd" \\folder')
    import_iqiyi([tmp_path / 'an "odd" \\folder' / VAL], [], tmp_path / "out", force=True)
    root = load_pipeline(tmp_path / "out" / "vidface.toml").manifest.root
    assert root == tmp_path / 'an "odd" \\folder'


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Three videos of LFRC's layout; z has no folder."""
    folder = tmp_path / "lfrc"
    for video, colour in (("a", "red"), ("b", "green")):
        for k in range(2):
            write_crop(folder / "iQIYI_VID_FACE" / video / f"{k}.jpg", colour, seed=k)
    (folder / "filelist.txt").write_text("b 2\na 2\nz 0\n")
    return folder


def test_crops_by_eye(crops: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a.mp4 7\n")
    done = import_lfrc(crops, tmp_path / "out", labels=labels)
    manifest = read_manifest(tmp_path / "out" / "manifest.csv", crops, allow_missing=True)
    assert [(c.clip_id, c.path, c.identity, c.split) for c in manifest.clips] == [
        ("b", "iQIYI_VID_FACE/b", "", "val"),
        ("a", "iQIYI_VID_FACE/a", "7", "val"),
        ("z", "iQIYI_VID_FACE/z", "", "val"),
    ]
    assert (done.clips, done.labelled, done.absent, done.faces) == (3, 1, 1, None)
    assert "1 of them have no folder; they count as missing" in str(done)
    assert "vidface extract --pipeline" in str(done)
    assert "--allow-missing && vidface cluster" in str(done)
    pipeline = load_pipeline(tmp_path / "out" / "vidface.toml")
    assert (pipeline.faces.source, pipeline.manifest.root) == ("aligned", crops)
    assert pipeline.score.protocol_names == ("verification",)
    with pytest.raises(VidfaceError, match="a manifest with other content"):
        import_lfrc(crops, tmp_path / "out")
    listing = tmp_path / "only_a.txt"
    listing.write_text("a\n")
    done = import_lfrc(crops, tmp_path / "out", filelist=listing, split="test", force=True)
    assert (done.splits, done.absent) == ({"test": 1}, 0)
    assert load_pipeline(tmp_path / "out" / "vidface.toml").score.split == "test"


def test_data_inside_of_out_may_be_moved_with_it(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = import_lfrc(crops, Path())
    assert 'root = "lfrc"' in (tmp_path / "vidface.toml").read_text()
    assert "  vidface extract --allow-missing && vidface cluster && vidface score" in str(done)
    assert load_pipeline().manifest.root == crops


def test_templates_by_eye(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        write_crop(tmp_path / "images" / name, "red")
    listing = tmp_path / "tid_mid.txt"
    listing.write_text("1.jpg 7 70\n2.jpg 7 71\n1.jpg 9 70\n3.jpg 9 71\n")
    done = import_ijb(listing, tmp_path / "images", tmp_path / "out")
    manifest = read_manifest(done.manifest, tmp_path / "images", allow_missing=True)
    assert [(c.clip_id, c.path, c.identity, c.split) for c in manifest.clips] == [
        (f"{k}.jpg", f"{k}.jpg", "", "probe") for k in (1, 2, 3)
    ]
    assert (done.clips, done.absent) == (3, 1)
    assert "1 of them have no file" in str(done)
    assert str(done).endswith(f"--templates {listing} --pairs PAIRS")
    pipeline = load_pipeline(done.pipeline)
    assert (pipeline.faces.source, pipeline.score.split) == ("detect", "probe")
    with pytest.raises(VidfaceError, match=r"--root .*nowhere: no such folder"):
        import_ijb(listing, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(VidfaceError, match="unknown order 'x'"):
        import_ijb(listing, tmp_path / "images", tmp_path / "out", order="x")


def test_a_manifest_is_prepared_once(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "manifest.csv"
    said: list[str] = []
    prepare_iqiyi(path, data, say=said.append)
    assert [clip.identity for clip in read_manifest(path, data).clips] == [
        clip.identity for clip in CLIPS
    ]
    assert said == [f"making the manifest of the features in {data}"]
    before = path.stat().st_mtime_ns
    prepare_iqiyi(path, data, say=said.append)
    assert len(said) == 1
    assert path.stat().st_mtime_ns == before
    path.unlink()
    prepare_iqiyi(path, data, say=said.append)
    assert len(said) == 2
    assert path.is_file()


def touch(path: Path, text: str) -> None:
    """Another content, and another time however coarse the disk's clock is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_manifest_follows_its_data(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "manifest.csv"
    prepare_iqiyi(path, data)
    touch(data / "val_gt.txt", "2 v1.mp4\n10 v3.mp4\n")
    prepare_iqiyi(path, data)
    assert len(read_manifest(path, data).clips) == 5
    path.write_text(path.read_text().replace("v4,face_val_v2.pickle,,", "v4,face_val_v2.pickle,2,"))
    prepare_iqiyi(path, data)  # what somebody corrected stays
    assert read_manifest(path, data).clips[-1].identity == "2"
    touch(data / "val_gt.txt", "2 v1.mp4 v9.mp4\n10 v3.mp4\n")
    with pytest.raises(VidfaceError, match=r"manifest\.csv: was edited, and the data .* changed"):
        prepare_iqiyi(path, data)
    assert read_manifest(path, data).clips[-1].identity == "2"
    path.unlink()
    prepare_iqiyi(path, data)
    assert len(read_manifest(path, data).clips) == 6


def test_a_manifest_follows_its_root(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    prepare_iqiyi(path, data)
    other = tmp_path / "other"
    shutil.copytree(data, other)  # with times
    truth = other / "val_gt.txt"
    before = truth.stat().st_mtime_ns
    truth.write_text(truth.read_text().replace("v9", "w9"))
    os.utime(truth, ns=(before, before))
    prepare_iqiyi(path, other)
    assert read_manifest(path, other).clips[-1].clip_id == "w9"


def test_somebodys_own_manifest_is_not_replaced(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(f"clip_id,path,identity,split\nv1,{VAL},me,val\n")
    prepare_iqiyi(path, data)
    assert len(read_manifest(path, data).clips) == 1
    (tmp_path / "manifest.csv.sources.json").write_text("no JSON")
    prepare_iqiyi(path, data)
    assert len(read_manifest(path, data).clips) == 1


def test_a_killed_preparation_is_done_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is killed, what is there in the end is of the data as they are."""
    from vidface.challenges import preparing

    path = tmp_path / "manifest.csv"
    prepare_iqiyi(path, data)
    real = preparing.atomic_file
    for killed in (0, 1):
        touch(data / "val_gt.txt", f"2 v1.mp4 w{killed}.mp4\n10 v3.mp4\n")
        calls = iter(range(9))

        def die(target: Path, calls=calls, killed: int = killed):
            if next(calls) == killed:
                raise KeyboardInterrupt
            return real(target)

        with monkeypatch.context() as patch:
            patch.setattr(preparing, "atomic_file", die)
            with pytest.raises(KeyboardInterrupt):
                prepare_iqiyi(path, data)
        prepare_iqiyi(path, data)
        assert read_manifest(path, data).clips[-1].clip_id == f"w{killed}"


def test_crops_are_prepared_with_labels_if_there_are_any(crops: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    said: list[str] = []
    prepare_lfrc(path, crops, say=said.append)
    clips = read_manifest(path, crops, allow_missing=True).clips
    assert [(clip.clip_id, clip.identity) for clip in clips] == [("b", ""), ("a", ""), ("z", "")]
    assert said[1].startswith("no ground_truth.txt there: nobody says who is who")
    touch(crops / "ground_truth.txt", "a 7\n")
    prepare_lfrc(path, crops, say=said.append)
    clips = read_manifest(path, crops, allow_missing=True).clips
    assert [(clip.clip_id, clip.identity) for clip in clips] == [("b", ""), ("a", "7"), ("z", "")]
    assert len(said) == 3
    (crops / "filelist.txt").rename(crops / "iQIYI_VID_FACE" / "filelist.txt")
    prepare_lfrc(path, crops)
    assert len(read_manifest(path, crops, allow_missing=True).clips) == 3


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("iqiyi", "folder", r"no such folder; set IQIYI_VID \(or --root\) to the folder of the da"),
        ("lfrc", "folder", r"no such folder; set LFRC_ROOT \(or --root\)"),
        ("iqiyi", "file", r"no val_gt\.txt in it; set IQIYI_VID"),
        ("lfrc", "file", r"no filelist\.txt in it; LFRC_ROOT \(or --root\) names the folder"),
        ("iqiyi", "root", r"\[manifest\] prepare = 'iqiyi' needs \[manifest\] root"),
        ("lfrc", "root", r"\[manifest\] prepare = 'lfrc' needs \[manifest\] root"),
    ],
)
def test_data_that_are_not_there(
    data: Path, crops: Path, tmp_path: Path, name: str, spoil: str, message: str
) -> None:
    root: Path | None = data if name == "iqiyi" else crops
    assert root is not None
    if spoil == "file":
        (root / {"iqiyi": "val_gt.txt", "lfrc": "filelist.txt"}[name]).unlink()
    root = {"file": root, "folder": tmp_path / "no", "root": None}[spoil]
    with pytest.raises(VidfaceError, match=message):
        prepare_manifest(name, tmp_path / "manifest.csv", root=root)
    assert not (tmp_path / "manifest.csv").exists()


def test_later_stages_need_no_data(data: Path, tmp_path: Path) -> None:
    text = '[manifest]\npath = "m.csv"\nroot = "data"\nprepare = "iqiyi"\n'
    (tmp_path / "p.toml").write_text(text + '[faces]\nsource = "features"\n')
    pipeline = load_pipeline(tmp_path / "p.toml")
    assert len(open_run(pipeline).manifest.clips) == 6
    data.rename(tmp_path / "elsewhere")
    assert len(open_run(pipeline, check_files=False).manifest.clips) == 6
    with pytest.raises(VidfaceError, match="no such folder; set IQIYI_VID"):
        open_run(pipeline)


def test_on_the_command_line(data: Path, vidface) -> None:
    arguments = [*pickles(data), "--gt", data / "val_gt.txt", "--gt", data / "train_gt.txt"]
    done = vidface("import", "iqiyi", *arguments, "--json")
    assert done.code == 3  # one video is missing
    document = done.json
    assert (document["clips"], document["faces"], document["absent"]) == (6, 5, 1)
    assert document["extraction"]["states"] == {"ok": 4, "no_face": 1, "missing": 1}
    assert json.loads(done.out)["pipeline"] == "vidface.toml"
    done = vidface("import", "iqiyi", *arguments)
    assert "extraction: already done" in done.err
    assert "  vidface cluster && vidface score" in done.out
    done = vidface("import", "iqiyi", *pickles(data))
    assert (done.code, "a manifest with other content" in done.err) == (1, True)
    assert vidface("import", "iqiyi").code == 2
    done = vidface("import", "iqiyi", data / VAL, "--force")
    assert (done.code, "3 clips (ok 2, no_face 1)" in done.out) == (0, True)
    assert vidface("cluster").code == 0


def test_help_needs_no_numpy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from vidface.cli.commands import cli\n"
        "for group in ('import', 'export'):\n"
        "    for name in cli.commands[group].commands:\n"
        "        try: cli.main([group, name, '--help'])\n"
        "        except SystemExit as stop: assert not stop.code\n"
        "assert not {'numpy', 'torch', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == 6
