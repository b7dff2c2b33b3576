from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import crop_of, write_crop
from vidface import artefacts, embeddings
from vidface.artefacts import RunFolder
from vidface.backbones import Preprocessing, load_backbone
from vidface.embeddings import clip_faces, extract, make_detector
from vidface.faces import ARCFACE_TEMPLATE, Faces
from vidface.manifests import Clip, read_manifest
from vidface.media import FolderRoot
from vidface.pipeline import FaceSettings, FrameSettings

ALIGNED = FaceSettings(source="aligned", keep_crops=True)
FRAMES = FrameSettings()


@pytest.fixture
def backbone(colour_network: Path):
    return load_backbone(colour_network, Preprocessing("rgb", 0.0, 1.0))


def extracted(manifest_path: Path, folder: Path, backbone, faces: FaceSettings = ALIGNED, **more):
    manifest = read_manifest(manifest_path, allow_missing=True)
    run = RunFolder(folder)
    return extract(manifest, run, backbone, FRAMES, faces, {"a": 1}, **more), run


def test_rows_are_the_clips_in_the_manifests_order(colour_clips: Path, backbone, tmp_path) -> None:
    calls: list[tuple[int, int, int]] = []
    summary, run = extracted(
        colour_clips, tmp_path / "run", backbone, progress=lambda *n: calls.append(n)
    )
    assert (summary.clips, summary.frames, summary.faces) == (7, 26, 26)
    assert summary.states == {"ok": 7}
    assert [sum(column) for column in zip(*calls, strict=True)] == [7, 26, 26]
    [(_, shard)] = run.shards(lambda made, path: None)
    names = ("red.t", "red.v", "green.t", "green.v", "blue.t", "blue.v", "stranger")
    assert shard.clip_ids == names
    assert np.diff(shard.offsets).tolist() == [3, 5, 3, 5, 3, 5, 2]
    rows = shard.table.to_pylist()
    assert [r["frame_index"] for r in rows[3:8]] == [0, 1, 2, 3, 4]
    assert [r["file"] for r in rows[3:8]] == [f"{k}.png" for k in range(5)]
    for row in rows:
        for column in ("time_seconds", "source_time_seconds", "box", "landmarks", "det_score"):
            assert row[column] is None
        assert row["norm"] == pytest.approx(np.linalg.norm(row["embedding"]), rel=1e-6)
    # raw, as the network gave it: the crop's mean colour
    assert np.allclose(shard.embeddings[0], crop_of("red", seed=0).mean(axis=(0, 1)), atol=1e-3)
    crops = pq.read_table(run.crops_path(0))
    assert crops.column("clip_id").to_pylist() == [r["clip_id"] for r in rows]
    assert crops.column("jpeg")[0].as_py()[:2] == b"\xff\xd8"


def test_shards_and_batches_do_not_change_rows(
    colour_clips: Path, backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = extracted(colour_clips, tmp_path / "whole", backbone)
    [(_, expected)] = whole.shards(lambda made, path: None)
    monkeypatch.setattr(embeddings, "SHARD_CLIPS", 2)
    monkeypatch.setattr(embeddings, "EMBED_AT_ONCE", 4)
    _, split = extracted(colour_clips, tmp_path / "split", backbone, workers=1)
    numbered = list(split.shards(lambda made, path: None))
    assert [number for number, _ in numbered] == [0, 1, 2, 3]
    shards = [shard for _, shard in numbered]
    assert [len(s.clip_ids) for s in shards] == [2, 2, 2, 1]
    joined = np.concatenate([s.embeddings for s in shards])
    assert np.abs(joined - expected.embeddings).max() <= 1e-5


def test_every_kind_of_damage_is_a_state(tmp_path: Path, backbone) -> None:
    folder = tmp_path / "set"
    write_crop(folder / "good" / "0.png", "red")
    write_crop(folder / "small" / "0.png", "red")
    write_crop(folder / "small" / "1.png", "red")
    from PIL import Image

    Image.new("RGB", (96, 112)).save(folder / "small" / "1.png")
    (folder / "text").mkdir()
    (folder / "text" / "0.jpg").write_text("no picture")
    (folder / "empty").mkdir()
    (folder / "cut").mkdir()
    jpeg = embeddings.encode_jpeg(crop_of("blue"))
    (folder / "cut" / "0.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "film.mp4").write_bytes(b"text")
    lines = ["clip_id,path,identity,split"]
    lines += [f"{n},{n},,val" for n in ("good", "small", "text", "empty", "cut", "film.mp4", "no")]
    (folder / "m.csv").write_text("\n".join(lines), encoding="utf-8")
    summary, run = extracted(folder / "m.csv", tmp_path / "run", backbone)
    table, made = run.read_clips()
    rows = {r["clip_id"]: r for r in table.to_pylist()}
    assert {k: r["state"] for k, r in rows.items()} == {
        "good": "ok",
        "small": "corrupt",
        "text": "corrupt",
        "empty": "no_video_stream",
        "cut": "corrupt",
        "film.mp4": "corrupt",
        "no": "missing",
    }
    assert "small/1.png: 96x112 pixels, but aligned crops are 112x112" in rows["small"]["message"]
    assert "no images in this folder" in rows["empty"]["message"]
    assert "a video file where aligned crops are expected" in rows["film.mp4"]["message"]
    assert rows["small"]["faces"] == 0  # of a damaged clip nothing is used
    assert rows["good"]["message"] == ""
    assert (summary.faces, len(summary.failed)) == (1, 6)
    assert made["settings"] == {"a": 1}
    [(_, shard)] = run.shards(lambda made, path: None)
    assert shard.clip_ids == ("good",)


def test_decoding_waits_for_a_slow_reader(colour_clips: Path, tmp_path: Path) -> None:
    """At most two clips a worker lie ahead, however many there are."""
    lines = ["clip_id,path,identity,split", *(f"c{i},red/train,,val" for i in range(60))]
    path = colour_clips.with_name("many.csv")
    path.write_text("\n".join(lines))
    begun = []

    class Counting(FolderRoot):
        def kind(self, path: str):
            begun.append(path)
            return super().kind(path)

    manifest = read_manifest(path)
    manifest.__dict__["root"] = Counting(path.parent)
    results = embeddings._results(manifest, FRAMES, ALIGNED, workers=2)
    next(results)
    time.sleep(0.3)
    calls_a_clip = 2  # what it is, and its size
    assert len(begun) <= 5 * calls_a_clip
    rest = [result.clip.clip_id for result in results]
    assert rest == [f"c{i}" for i in range(1, 60)]


def test_landmarks_that_coincide_cost_that_face_alone(tmp_path: Path) -> None:
    class Detector:
        def detect(self, image):
            landmarks = np.stack([np.zeros((5, 2)), np.array(ARCFACE_TEMPLATE)])
            boxes = np.tile(np.array([0, 0, 9, 9.0]), (2, 1))
            return Faces(boxes, landmarks, np.array([0.9, 0.8]))

    write_crop(tmp_path / "a" / "0.png", "red")
    clip = Clip("a", "a", "", "val")
    result = clip_faces(clip, FolderRoot(tmp_path), FRAMES, FaceSettings(), Detector())
    assert [(f.face_index, f.det_score) for f in result.faces] == [(0, 0.8)]


def test_without_a_single_face(tmp_path: Path, backbone) -> None:
    folder = tmp_path / "set"
    (folder / "empty").mkdir(parents=True)
    (folder / "m.csv").write_text("clip_id,path,identity,split\na,empty,,val\n", encoding="utf-8")
    summary, run = extracted(folder / "m.csv", tmp_path / "run", backbone)
    assert summary.faces == 0
    [(_, shard)] = run.shards(lambda made, path: None)
    assert shard.embeddings.shape == (0, 3)


def test_a_new_extraction_removes_what_was_made_from_the_old(
    colour_clips: Path, backbone, tmp_path: Path
) -> None:
    _, run = extracted(colour_clips, tmp_path / "run", backbone)
    stale = run.clustering("threshold_0.4") / "descriptors.parquet"
    artefacts.write_json(run.folder / "scores" / "val_threshold_0.4.json", {})
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"x")
    run.linkage_path(0).parent.mkdir()
    run.linkage_path(0).write_bytes(b"x")
    (run.folder / "mine.txt").write_text("the user's own")
    extracted(colour_clips, tmp_path / "run", backbone)
    assert not stale.exists()
    assert not run.linkage_path(0).exists()
    assert not list((run.folder / "scores").iterdir())
    assert (run.folder / "mine.txt").exists()


def test_run_directory_that_cannot_be_written(colour_clips: Path, backbone, tmp_path) -> None:
    (tmp_path / "run").write_text("a file is in the way")
    from vidface.errors import VidfaceError

    with pytest.raises(VidfaceError, match=r"run directory .*run: "):
        extracted(colour_clips, tmp_path / "run", backbone)


def test_an_error_of_ours_in_one_clip_is_its_state(tmp_path: Path, monkeypatch) -> None:
    """Whatever a stranger's file provokes, the run goes on."""
    write_crop(tmp_path / "a" / "0.png", "red")

    def explode(*_: object) -> None:
        raise RuntimeError("inside a library\nin two lines")

    monkeypatch.setattr(embeddings, "decode_image", explode)
    result = clip_faces(Clip("a", "a", "", "val"), FolderRoot(tmp_path), FRAMES, ALIGNED, None)
    assert result.state == "corrupt"
    assert result.message == "a: RuntimeError: inside a library in two lines"


@pytest.mark.usefixtures("weights_at_hand")
class TestOnRealClips:
    def test_video(self, data: Path) -> None:
        clip = Clip("x", "clips/wlasl/10520.mp4", "", "val")
        detect = FaceSettings()
        result = clip_faces(clip, FolderRoot(data), FRAMES, detect, make_detector(detect))
        assert result.state == "ok"
        assert result.frames == len(result.faces) > 8
        assert [f.frame_index for f in result.faces] == list(range(result.frames))
        assert [f.time_seconds for f in result.faces] == [k / 8 for k in range(result.frames)]
        for face in result.faces:
            assert face.source_time_seconds is not None
            assert face.time_seconds is not None
            assert 0 <= face.time_seconds - face.source_time_seconds < 0.05
            assert face.crop.shape == (112, 112, 3)
            assert face.file is None
        assert "x: ok" in str(result)

    def test_window_and_images_with_detection(self, data: Path, tmp_path: Path) -> None:
        from PIL import Image

        from vidface.frames import sample_frames

        detect = FaceSettings()
        clip = Clip("x", "clips/wlasl/10520.mp4", "", "val", 0.5, 1.0)
        result = clip_faces(clip, FolderRoot(data), FRAMES, detect, make_detector(detect))
        assert [f.time_seconds for f in result.faces] == [0.5, 0.625, 0.75, 0.875]
        for frame in sample_frames(data / clip.path, start_seconds=0.5, end_seconds=1.0):
            Image.fromarray(frame.image).save(tmp_path / f"{frame.index}.png")
        folder = Clip("y", ".", "", "val")
        again = clip_faces(folder, FolderRoot(tmp_path), FRAMES, detect, make_detector(detect))
        assert [f.file for f in again.faces] == ["0.png", "1.png", "2.png", "3.png"]
        for one, two in zip(result.faces, again.faces, strict=True):
            assert (one.crop == two.crop).all()

    def test_all_faces_and_the_other_decoder(self, data: Path) -> None:
        clip = Clip("x", "clips/hard/two_debate_biden_trump.mp4", "", "val", 4.0, 5.0)
        everyone = FaceSettings(which="all")
        root, detector = FolderRoot(data), make_detector(everyone)
        result = clip_faces(clip, root, FRAMES, everyone, detector)
        assert (result.frames, result.frames_without_face) == (8, 0)  # of frames, not of faces
        indexes = [(f.frame_index, f.face_index) for f in result.faces]
        assert indexes == [(k, i) for k in range(8) for i in range(2)]
        by_decord = clip_faces(clip, root, FrameSettings(decoder="decord"), everyone, detector)
        assert len(by_decord.faces) == 16
        for one, two in zip(result.faces, by_decord.faces, strict=True):
            assert np.abs(one.crop.astype(int) - two.crop).mean() < 2

    def test_no_face_is_counted(self, data: Path) -> None:
        clip = Clip("x", "clips/hard/noface_nasa.mp4", "", "val")
        detect = FaceSettings()
        result = clip_faces(clip, FolderRoot(data), FRAMES, detect, make_detector(detect))
        assert result.state == "no_face"
        assert result.frames == result.frames_without_face == 105
        assert "no face in 105 frames" in result.message

    def test_video_inside_a_tar(self, data: Path, tmp_path: Path) -> None:
        import tarfile

        from vidface.media import TarRoot

        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(data / "clips/wlasl/10520.mp4", "deep/clip.mp4")
        detect = FaceSettings()
        detector = make_detector(detect)
        inside = Clip("x", "deep/clip.mp4", "", "val")
        outside = Clip("x", "clips/wlasl/10520.mp4", "", "val")
        one = clip_faces(inside, TarRoot(tmp_path / "a.tar"), FRAMES, detect, detector)
        two = clip_faces(outside, FolderRoot(data), FRAMES, detect, detector)
        assert len(one.faces) == len(two.faces) > 0
        assert all((a.crop == b.crop).all() for a, b in zip(one.faces, two.faces, strict=True))
