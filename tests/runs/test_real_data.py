"""Real clips and recognisers that nobody here made; figures as the README prints them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidface.noise.denoisers import UnionFind
from vidface.runs.artefacts import read_parquet
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.preflight import check_run
from vidface.runs.run import open_run
from vidface.runs.scoring import score
from vidface.runs.sweeps import sweep
from vidface.settings.pipeline import load_pipeline


def opened(name: str, run: Path, **manifest: object):
    overrides = {("run", "dir"): str(run)}
    overrides |= {("manifest", key): value for key, value in manifest.items()}
    return open_run(load_pipeline(name, overrides))


@pytest.fixture(autouse=True)
def _data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_DATA", str(data))


@pytest.mark.usefixtures("weights_at_hand")
@pytest.mark.slow
def test_hard_clips_get_their_states(data: Path, tmp_path: Path) -> None:
    rows = {
        "audio_only": ("audio_only.mov", "no_video_stream"),
        "bad_metadata": ("bad_metadata_wlasl_01586.mp4", "ok"),
        "corrupted": ("decord_corrupted.mp4", "corrupt"),
        "rotated": ("decord_video_90.mov", "no_face"),
        "av1": ("noface_av1.mkv", "no_face"),
        "face_then_none": ("pyfeat_face_noface.mov", "ok"),
        "zero_frames": ("zero_frames.avi", "no_video_stream"),
        "cut_off": ("cut.mp4", "truncated"),
        "text": ("text.mp4", "corrupt"),
        "empty": ("empty.mp4", "corrupt"),
    }
    whole = (data / "clips" / "wlasl" / "10520.mp4").read_bytes()
    made = {"cut.mp4": whole[: len(whole) * 7 // 10], "text.mp4": b"I am text\n", "empty.mp4": b""}
    lines = ["clip_id,path,identity,split"]
    for clip_id, (name, _) in rows.items():
        path = data / "clips" / "hard" / name
        if name in made:
            path = tmp_path / name
            path.write_bytes(made[name])
        lines.append(f"{clip_id},{path},{clip_id},val")
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    run = opened("hard", tmp_path / "run", path=str(manifest))
    summary = extract(run)
    states = {row["clip_id"]: row for row in run.clips().to_pylist()}
    assert {k: row["state"] for k, row in states.items()} == {k: s for k, (_, s) in rows.items()}
    for row in states.values():
        assert (row["message"] == "") == (row["state"] == "ok")
        assert "\n" not in row["message"]
    assert len(summary.failed) == 6
    assert "the file is empty" in states["empty"]["message"]
    assert states["cut_off"]["faces"] > 3  # what decoded is used
    assert states["corrupted"]["faces"] == states["corrupted"]["frames"] == 0
    assert 0 < states["face_then_none"]["frames_without_face"] < states["face_then_none"]["frames"]
    done = cluster(run, 0.4)
    usable = dict(zip(done.clip_ids, done.has_descriptor.tolist(), strict=True))
    assert [k for k, v in usable.items() if v] == ["bad_metadata", "face_then_none", "cut_off"]


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_the_hard_recipe(tmp_path: Path) -> None:
    """As the README says: 7 ok, 4 no_face, 2 no_video_stream, 1 corrupt; what is kept of two."""
    run = opened("hard", tmp_path / "run")
    states = extract(run).states
    assert states == {"ok": 7, "no_face": 4, "no_video_stream": 2, "corrupt": 1}
    done = cluster(run, 0.4)
    rows = {c: i for i, c in enumerate(done.clip_ids)}
    debate, film = rows["two_debate"], rows["cuts_faces2"]
    assert done.kept[debate] > 0.9 * done.faces[debate]  # one of two people, seen all the time
    assert done.clusters[film] >= 6  # a new person with every shot
    assert done.kept[film] < done.faces[film] / 2


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_a_debate_parts_where_two_faces_of_a_frame_are_two_people(
    data: Path, tmp_path: Path
) -> None:
    """As docs/noise.md says: both men are one cluster at 0.4, unless a frame shows both."""
    clip = data / "clips" / "hard" / "two_debate_biden_trump.mp4"
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"clip_id,path,identity,split\ndebate,{clip},x,val\n", encoding="utf-8")
    overrides = {("run", "dir"): str(tmp_path / "run"), ("manifest", "path"): str(manifest)}
    run = open_run(load_pipeline("hard", overrides | {("faces", "which"): "all"}))
    extract(run)
    for rule, sizes in (("free", [253]), ("apart", [137, 116])):
        done = cluster(run, Denoising(UnionFind(0.4, rule)))
        name = Denoising(UnionFind(0.4, rule)).name
        labels = read_parquet(run.folder.clustering(name) / "faces.parquet")[0]["cluster"]
        assert np.bincount(labels.to_numpy()).tolist() == sizes
        assert done.diagnostics is not None
        assert done.diagnostics.twice.tolist() == [rule == "free"]
    assert cluster(run, 0.4).clusters.tolist() == [2]


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_sign_language_clips_are_all_right(tmp_path: Path) -> None:
    run = opened("wlasl", tmp_path / "run")
    summary = extract(run)
    assert (summary.clips, summary.states) == (56, {"ok": 56})
    cluster(run, 0.4)
    result = score(run)
    assert result.retrieval.map_at_k == 1.0
    assert result.retrieval.identities == 16
    pairs = result.verification
    assert (pairs.genuine_pairs, pairs.impostor_pairs) == (16, 736)
    assert pairs.distractor_pairs_left_out == 28
    assert [p.tar for p in pairs.points[:3]] == [1.0, 1.0, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recogniser", "clean", "noisy", "denoised"),
    [("mobilefacenet", 0.8707, 0.7769, 0.8642), ("y1", 0.9234, 0.8464, 0.9232)],
)
def test_noise_removal_comes_back_to_the_clean_figure(
    tmp_path: Path, recogniser: str, clean: float, noisy: float, denoised: float
) -> None:
    """The README's tables. The tolerance is a change of runtime or machine, not of method."""
    found = {}
    for name in ("ytf", "ytf_noisy"):
        run = opened(f"{name}_{recogniser}", tmp_path / name)
        assert extract(run).states == {"ok": 665}
        done = sweep(run, [0.4])
        found[name] = [scored.retrieval.map_at_k for scored, _ in done.rows]
    assert found["ytf"][0] == pytest.approx(clean, abs=0.003)
    assert found["ytf_noisy"] == pytest.approx([noisy, denoised], abs=0.003)
    written = json.loads((tmp_path / "ytf_noisy" / "sweeps" / "val_against_train.json").read_text())
    assert written["rows"][1]["denoised"]["dropped"] > 1000


@pytest.mark.usefixtures("weights_at_hand")
@pytest.mark.slow
def test_what_a_few_clips_say_holds_for_all(tmp_path: Path) -> None:
    run = opened("wlasl", tmp_path / "run")
    found = check_run(run, sample=12)
    figures = {key: value for remark in found.remarks for key, value in remark.figures.items()}
    assert not found.stops
    assert not (tmp_path / "run").exists()
    assert figures["states"] == {"ok": 12}
    low, median, high = figures["quantiles_5_50_95_pixels"]
    assert 20 <= low < median < high < 300  # 67 px of all clips
    assert 35 < median < 100
    summary = extract(run)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    least, _, most = figures["extraction_bytes"]
    assert least < sum(path.stat().st_size for path in files) < most
    assert figures["faces"] / 12 == pytest.approx(summary.faces / 56, rel=0.3)
    seconds = json.loads((tmp_path / "run" / "profile.json").read_text())["wall_seconds"]
    assert figures["extraction_seconds"][0] / 3 < seconds < 3 * figures["extraction_seconds"][2]
