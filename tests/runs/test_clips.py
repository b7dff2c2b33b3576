"""`vidface clips` and `vidface show`, on clips solvable by eye (conftest.colour_clips)."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.states import STATES
from vidface.noise.denoisers import KeepAll, Trim
from vidface.noise.diagnostics import FLAGS
from vidface.runs import artefacts
from vidface.runs.clip_drawing import ClipFaces
from vidface.runs.clips import list_clips, show_clip
from vidface.runs.contact_sheet import draw_sheet
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.settings import manifests
from vidface.settings.pipeline import load_pipeline

ALL = ["red.t", "red.v", "green.t", "green.v", "blue.t", "blue.v", "stranger"]
CONTESTED = ["red.v", "green.v", "blue.v"]  # two faces of the intruder against three
RED, BLUE = (204, 26, 26), (0, 130, 200)  # the frames of a sheet


@pytest.fixture
def run(colour_pipeline: Path) -> Run:
    opened = open_run(load_pipeline(colour_pipeline))
    extract(opened)
    return opened


def names(found) -> list[str]:
    return [line.clip_id for line in found.lines]


def test_before_a_clustering_states_are_known(run: Run) -> None:
    found = list_clips(run)
    assert (names(found), found.of, found.denoising) == (ALL, 7, None)
    assert found.lines[1].to_dict() == {
        "clip_id": "red.v", "identity": "red", "split": "val", "state": "ok", "message": "",
        "frames": 5, "faces": 5, "clusters": None, "kept": None, "dropped": None,
        "unusable": None, "lowest_similarity": None, "second_size": None, "second_share": None,
        "second_cosine": None, "still_share": None, "flags": [],
    }  # fmt: skip
    with pytest.raises(VidfaceError, match="no clustering; run `vidface cluster` first"):
        list_clips(run, flags=["thin"])


def test_what_clustering_says(run: Run) -> None:
    cluster(run, 0.5)
    found = list_clips(run)
    assert found.denoising is not None
    assert found.denoising.threshold == 0.5
    line = found.lines[1]
    assert (line.clusters, line.kept, line.dropped, line.unusable) == (2, 3, 2, 0)
    assert (line.second_size, line.second_share) == (2, pytest.approx(2 / 3))
    assert line.lowest_similarity == pytest.approx(1, abs=0.01)  # three times nearly one colour
    red, green = (np.array(colour) - 127.5 for colour in ((200, 30, 30), (30, 200, 30)))
    cosine = red @ green / np.linalg.norm(red) / np.linalg.norm(green)
    assert line.second_cosine == pytest.approx(cosine, abs=0.01)
    assert line.flags == ("contested", "still")  # a person is one flat colour here
    assert line.still_share == pytest.approx(3 / 5)
    assert found.lines[-1].flags == ("thin", "still")  # two faces
    assert found.lines[0].flags == ("still",)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"flags": ["contested"]}, CONTESTED),
        ({"flags": ["thin"]}, ["stranger"]),
        ({"flags": ["thin", "contested"]}, [*CONTESTED, "stranger"]),
        ({"flags": ["chained"]}, []),
        ({"splits": ["train"]}, ["red.t", "green.t", "blue.t"]),
        ({"splits": ["train", "val"]}, ALL),
        ({"splits": ["train"], "flags": ["contested"]}, []),
        ({"states": ["ok"]}, ALL),
        ({"states": ["no_face", "corrupt"]}, []),
    ],
)
def test_choosing_clips(run: Run, chosen: dict, expected: list[str]) -> None:
    cluster(run, 0.5)
    found = list_clips(run, **chosen)
    assert names(found) == expected
    assert found.of == 7


def test_everybody_in_one_cluster_is_chained(run: Run) -> None:
    cluster(run, None)
    assert names(list_clips(run, flags=["chained"])) == CONTESTED


def test_a_named_clustering(run: Run) -> None:
    cluster(run, 0.5)
    cluster(run, Denoising(Trim(0.5)))
    # Of three faces one is dropped: no second person, whatever the share.
    assert names(list_clips(run, flags=["contested"])) == []
    assert {line.clusters for line in list_clips(run).lines} <= {0, 1}
    assert {line.second_size for line in list_clips(run).lines} == {0}
    assert list_clips(run).lines[1].kept == 3
    assert list_clips(run).lines[0].kept == 2
    assert list_clips(run, Denoising().with_threshold(0.5)).lines[0].kept == 3
    with pytest.raises(VidfaceError, match=r"no clustering at threshold 0\.6; run"):
        list_clips(run, Denoising().with_threshold(0.6))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"flags": ["contestd"]},
            f"--flag: unknown value 'contestd' \\(known: {', '.join(FLAGS)}\\)",
        ),
        ({"states": ["bad"]}, f"--status: unknown value 'bad' \\(known: {', '.join(STATES)}\\)"),
        ({"splits": ["dev"]}, r"--split: unknown value 'dev' \(known: train, val, test"),
    ],
)
def test_unknown_names(run: Run, chosen: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list_clips(run, **chosen)


class TestCommand:
    def test_flags_states_and_splits(self, vidface, colour_pipeline: Path, colour_clips) -> None:
        (colour_clips.parent / "film.mp4").write_text("this is text")
        colour_clips.write_text(colour_clips.read_text() + "film,film.mp4,red,val\n")
        flags = ("--pipeline", colour_pipeline)
        assert vidface("extract", *flags).code == 3
        before = vidface("clips", *flags)
        assert before.code == 0
        assert "8 of 8 clips\n" in before.out
        assert "no clustering yet: vidface cluster" in before.out
        assert vidface("clips", *flags, "--flag", "thin").code == 1
        vidface("cluster", *flags)
        found = vidface("clips", *flags, "--flag", "contested")
        assert found.code == 0
        assert "3 of 8 clips; threshold 0.5" in found.out
        rows = [line.split() for line in found.out.splitlines() if "contested" in line]
        assert [row[-1] for row in rows] == CONTESTED
        assert rows[0][:6] == ["red", "val", "ok", "5", "5", "3"]
        failed = vidface("clips", *flags, "--status", "corrupt", "--json").json
        assert [line["clip_id"] for line in failed["clips"]] == ["film"]
        assert failed["clips"][0]["message"]
        assert (failed["clips"][0]["kept"], failed["clips"][0]["second_share"]) == (0, None)
        assert failed["of"] == 8
        assert failed["clustering"]["cluster.threshold"] == 0.5
        train = vidface("clips", *flags, "--split", "train", "--json").json
        assert [line["clip_id"] for line in train["clips"]] == ["red.t", "green.t", "blue.t"]
        both = vidface("clips", *flags, "--flag", "thin", "--flag", "contested", "--json").json
        assert len(both["clips"]) == 4

    def test_unknown_flag(self, vidface, colour_pipeline: Path) -> None:
        done = vidface("clips", "--pipeline", colour_pipeline, "--flag", "chain")
        assert (done.code, done.out) == (2, "")
        assert (
            "--flag: unknown value 'chain' (known: chained, contested, thin, still, twice)"
            in done.err
        )

    def test_long_lists_are_cut(self, vidface, colour_pipeline, monkeypatch) -> None:
        from vidface.cli import run_tables

        monkeypatch.setattr(run_tables, "LISTED_CLIPS", 2)
        vidface("extract", "--pipeline", colour_pipeline)
        done = vidface("clips", "--pipeline", colour_pipeline)
        assert "7 of 7 clips" in done.out
        assert "and 5 more: --json lists all" in done.out
        assert "green.t" not in done.out
        assert len(vidface("clips", "--pipeline", colour_pipeline, "--json").json["clips"]) == 7

    @pytest.mark.parametrize("terminal", [False, True])
    def test_hostile_names(
        self, vidface, colour_pipeline, colour_clips: Path, terminal: bool, monkeypatch
    ) -> None:
        text = colour_clips.read_text().replace("red.v,", '"a\x1b[31mb\x07\nc",')
        colour_clips.write_text(text.replace("red,val", "r\x1b]0;x\x07d,val"))
        flags = ("--pipeline", colour_pipeline)
        refused = vidface("run", *flags[1:])
        assert "holds control characters" in refused.err
        assert "\x1b" not in refused.err
        monkeypatch.setattr(
            manifests, "CONTROL_CHARACTERS", re.compile("(?!)")
        )  # older runs' names
        assert vidface("run", *flags[1:]).code == 0
        if terminal:
            monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
            monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
        done = vidface("clips", *flags, "--flag", "contested")
        assert done.code == 0
        assert "\x07" not in done.out
        assert "\x1b[31m" not in done.out
        assert "\x1b]" not in done.out
        assert "a�[31mb� c" in done.out  # one line a clip
        assert "r�]0;x�d" in done.out
        assert ("\x1b[1m" in done.out) == terminal  # the head, bold and not garbled
        assert "�[1m" not in done.out
        shown = vidface("show", "a\x1b[31mb\x07\nc", *flags)
        assert shown.code == 0, shown.err
        assert "\x1b" not in shown.out
        wrong = vidface("show", "a\x1b[31mb\x07\n", *flags)
        assert wrong.code == 2
        assert "\x1b" not in wrong.err + wrong.out


class TestShow:
    def test_a_sheet_is_drawn(self, run: Run, tmp_path: Path) -> None:
        cluster(run, 0.5)
        line = show_clip(run, "red.v", tmp_path / "sheet.png")
        assert (line.kept, line.faces, line.flags) == (3, 5, ("contested", "still"))
        with Image.open(tmp_path / "sheet.png") as image:
            assert image.format == "PNG"
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        frames = (pixels == RED).all(axis=1).sum()
        assert frames > 0
        assert (pixels == BLUE).all(axis=1).any()
        near = [(np.abs(pixels.astype(int) - c).max(axis=1) < 12).sum()
                for c in ((200, 30, 30), (30, 200, 30), (30, 30, 200))]  # fmt: skip
        assert near[0] > 2.8 * 112**2  # three faces of red, two of green, none of blue
        assert 1.8 * 112**2 < near[1] < 2.2 * 112**2
        assert near[2] == 0
        show_clip(run, "red.t", tmp_path / "clean.png")
        with Image.open(tmp_path / "clean.png") as image:
            clean = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert (clean == RED).all(axis=1).sum() < frames  # the legend's alone

    def test_what_the_sheet_is_told(self, run: Run, tmp_path: Path, monkeypatch) -> None:
        told: dict = {}

        def watched(faces: ClipFaces) -> Image.Image:
            told.update(vars(faces))
            return draw_sheet(faces)

        monkeypatch.setattr("vidface.runs.clips.draw_sheet", watched)
        cluster(run, 0.5)
        show_clip(run, "red.v", tmp_path / "sheet.webp")
        assert told["clusters"].tolist() == [0, 1, 0, 1, 0]
        assert told["captions"] == [f"{k}.png" for k in range(5)]
        assert told["title"] == "red.v"
        assert told["similarities"][[0, 2, 4]] == pytest.approx(1, abs=0.01)
        assert told["similarities"][[1, 3]].max() < 0.5
        for part in ("threshold 0.5", "3 of 5 faces kept, in 2 cluster(s)",
                     "lowest similarity of two kept faces 1.00", "second cluster 67% of the first",
                     "CONTESTED"):  # fmt: skip
            assert part in told["diagnostics"]
        colours = [np.asarray(Image.open(io.BytesIO(c))).mean(axis=(0, 1)) for c in told["crops"]]
        assert [int(np.argmax(colour)) for colour in colours] == [0, 1, 0, 1, 0]
        show_clip(run, "red.t", tmp_path / "sheet.webp")
        assert "second cluster" not in told["diagnostics"]
        everything = Denoising(KeepAll())
        cluster(run, everything)
        cluster(run, 0.5)
        show_clip(run, "red.v", tmp_path / "sheet.webp", everything)
        assert told["clusters"].tolist() == [0] * 5
        assert told["diagnostics"].startswith("none; 5 of 5 faces kept")

    def test_in_many_shards(self, run: Run, tmp_path: Path) -> None:
        settings = replace(run.pipeline.run, shard_clips=2)
        run = replace(run, pipeline=replace(run.pipeline, run=settings))
        extract(run, force=True)
        cluster(run, 0.5)
        for clip_id, kept in (("green.v", 3), ("stranger", 2)):
            assert show_clip(run, clip_id, tmp_path / "s.jpg").kept == kept

    def test_what_cannot_be_shown(self, run: Run, tmp_path: Path) -> None:
        out = tmp_path / "s.png"
        with pytest.raises(VidfaceError, match="no clustering; run `vidface cluster` first"):
            show_clip(run, "red.v", out)
        cluster(run, 0.5)
        with pytest.raises(VidfaceError, match=r"did you mean .*'red\.v'"):
            show_clip(run, "red.w", out)
        with pytest.raises(VidfaceError, match=r"written as \.png, \.jpg"):
            show_clip(run, "red.v", tmp_path / "s.gif")
        with pytest.raises(VidfaceError, match=r"no clustering at threshold 0\.7"):
            show_clip(run, "red.v", out, Denoising().with_threshold(0.7))
        run.folder.crops_path(0).unlink()
        with pytest.raises(VidfaceError, match="without crops; extract with --keep-crops"):
            show_clip(run, "red.v", out)
        assert not out.exists()

    def test_labels_and_descriptors_of_two_clusterings(self, run: Run, tmp_path: Path) -> None:
        cluster(run, 0.5)
        path = run.folder.clustering("threshold_0.5") / "faces.parquet"
        content = path.read_bytes()
        cluster(run, 0.5)
        path.write_bytes(content)
        with pytest.raises(VidfaceError, match="of two clusterings; `vidface cluster` again"):
            show_clip(run, "red.v", tmp_path / "s.png")
        path.write_bytes(content[:50])
        with pytest.raises(VidfaceError, match=r"faces\.parquet: damaged"):
            show_clip(run, "red.v", tmp_path / "s.png")

    def test_other_crops_than_faces(self, run: Run, tmp_path: Path) -> None:
        cluster(run, 0.5)
        path = run.folder.crops_path(0)
        crops, made = artefacts.read_parquet(path)
        artefacts.write_parquet(path, crops.slice(0, 7), made)  # red.v has lost a face
        with pytest.raises(VidfaceError, match="crops and clusters do not fit"):
            show_clip(run, "red.v", tmp_path / "s.png")

    def test_command(self, vidface, colour_pipeline, colour_clips: Path, tmp_path: Path) -> None:
        (colour_clips.parent / "nothing").mkdir()
        colour_clips.write_text(colour_clips.read_text() + "none,nothing,red,val\n")
        flags = ("--pipeline", colour_pipeline)
        vidface("run", colour_pipeline)
        done = vidface("show", "red.v", *flags)
        assert done.code == 0
        assert (
            done.out
            == "red.v: 3 of 5 faces kept, 2 cluster(s); contested, still\nsheet: sheet.png\n"
        )
        assert (tmp_path / "sheet.png").is_file()
        found = vidface("show", "red.v", *flags, "--out", tmp_path / "a.jpg", "--json").json
        assert found["out"] == str(tmp_path / "a.jpg")
        assert found["flags"] == ["contested", "still"]
        for clip_id, out, message in (
            ("none", "b.png", "clip 'none' has no faces to show (no_video_stream"),
            ("red", "b.png", "did you mean 'red.v'"),
            ("red.v", "b.bmp", "b.bmp: a sheet is written as .png, .jpg, .jpeg, .webp"),
        ):
            done = vidface("show", clip_id, *flags, "--out", out)
            assert (done.code, done.out) == (1 if clip_id == "none" else 2, "")
            assert message in done.err
            assert not (tmp_path / out).exists()
