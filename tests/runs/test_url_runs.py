"""Clips at URLs, and a run directory at a URL, through the command line and a real S3 server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.s3_server import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    S3Server,
    moto_port_fixture,
    s3_fixture,
)
from vidface.settings.manifests import read_manifest

__all__ = ["moto_port_fixture", "s3_fixture"]  # fixtures
RUN = f"s3://{BUCKET}/runs/colours"


@pytest.fixture
def there(s3: S3Server, colour_clips: Path, monkeypatch, tmp_path: Path) -> S3Server:
    """The clips in the bucket, and nowhere else."""
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))
    for path in sorted(colour_clips.parent.rglob("*.*")):
        s3.put(f"set/{path.relative_to(colour_clips.parent).as_posix()}", path.read_bytes())
    shutil.rmtree(colour_clips.parent)
    return s3


@pytest.mark.slow
def test_the_whole_way_by_url(there: S3Server, vidface, colour_pipeline: Path) -> None:
    manifest = f"s3://{BUCKET}/set/manifest.csv"
    flags = ("--pipeline", colour_pipeline, "--manifest", manifest, "--run", RUN)
    there.faults.every = 9  # every ninth answer is an error, a reset, or cut off
    done = vidface("extract", *flags, "--shard-clips", 3)
    assert (done.code, "7 clips (ok 7)" in done.out) == (0, True), done.err
    assert there.faults.made
    stored = there.keys()
    assert "runs/colours/clips.parquet" in stored
    assert "runs/colours/embeddings/shard-00002.arrow" in stored
    assert not [key for key in stored if ".extracting" in key or "lock" in key]
    done = vidface("cluster", *flags, "--threshold", 0.5)
    assert "20 of 26 faces kept, 6 dropped (23.1%)" in done.out, done.err
    scored = vidface("score", *flags, "--json")
    assert scored.json["retrieval"]["map_at_100"] == 1.0, scored.err
    shutil.rmtree(Path("cache"), ignore_errors=True)  # another machine, which has only the URL
    again = vidface("score", *flags, "--json")
    assert again.json["retrieval"] == scored.json["retrieval"]
    for text in (done.out, done.err, scored.out, scored.err):
        assert SECRET_KEY not in text
        assert ACCESS_KEY not in text
    for key in sorted(there.keys()):
        if key.startswith("runs/"):
            assert SECRET_KEY.encode() not in there.get(key)


def test_a_clip_that_is_not_there(there: S3Server, vidface, colour_pipeline: Path) -> None:
    text = there.get("set/manifest.csv").decode() + "gone,nowhere/clip.mp4,,val\n"
    there.put("set/manifest.csv", text.encode())
    manifest = f"s3://{BUCKET}/set/manifest.csv"
    flags = ("--pipeline", colour_pipeline, "--manifest", manifest, "--allow-missing")
    done = vidface("extract", *flags, "--json")
    assert (done.code, done.json["states"]) == (3, {"ok": 7, "missing": 1})


def test_a_bucket_that_is_not_there(there: S3Server, vidface, colour_pipeline: Path) -> None:
    manifest = f"s3://{BUCKET}/set/manifest.csv"
    done = vidface(
        "extract", "--pipeline", colour_pipeline, "--manifest", manifest, "--run", "s3://none/run"
    )
    assert (done.code, done.out) == (1, "")
    assert len(done.err.strip().splitlines()) == 1
    assert "none" in done.err


@pytest.mark.slow
def test_settings_and_root_by_url(there: S3Server) -> None:
    manifest = read_manifest(f"s3://{BUCKET}/set/manifest.csv", f"s3://{BUCKET}/set")
    assert len(manifest.clips) == 7
