"""`vidface same` and `vidface who`, on clips solvable by eye and against plain counts of pairs."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vidface as library
from tests.conftest import crop_of, write_colour_network, write_colour_pipeline, write_crop
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.rules import ReadingRules
from vidface.runs import asking
from vidface.runs.clusterings import read_clustering
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.runs.same import ONE_CLIP, same
from vidface.runs.score_tasks import LabelledClips
from vidface.runs.who import _find_nearest, who
from vidface.settings.pipeline import load_pipeline, parse_pipeline

PEOPLE = ("red", "green", "blue")
STRANGERS = 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of each colour two gallery clips and three others; ten clips that nobody knows; an empty one.

    val: 3 · 3 genuine pairs and 3 · 9 + 9 · 10 impostor pairs, without the empty clip's.
    """
    folder = tmp_path_factory.mktemp("questions")
    lines = ["clip_id,path,identity,split"]
    for person in PEOPLE:
        for number in range(5):
            write_crop(folder / "set" / person / f"{number}" / "0.png", person, seed=number)
            write_crop(folder / "set" / person / f"{number}" / "1.png", person, seed=10 + number)
            split = "train" if number < 2 else "val"
            lines.append(f"{person}.{number},{person}/{number},{person},{split}")
    for number in range(STRANGERS):
        path = folder / "set" / f"{number}" / "0.png"
        path.parent.mkdir()
        colour = np.array([200, 140 + 6 * number, 30], np.uint8)  # from orange to yellow
        Image.fromarray(np.tile(colour, (112, 112, 1))).save(path)
        lines.append(f"stranger.{number},{number},,val")
    (folder / "set" / "none").mkdir()
    lines.append("none,none,red,test")
    manifest = folder / "set" / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    network = write_colour_network(folder / "colour.onnx")
    pipeline = write_colour_pipeline(folder / "colours.toml", manifest, network)
    opened = open_run(
        load_pipeline(pipeline, {("run", "dir"): str(folder / "run"), ("score", "bootstrap"): 40})
    )
    extract(opened)
    cluster(opened, 0.5)
    return opened


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A folder with a red face that the run doesn't have."""
    write_crop(tmp_path / "asked" / "face.png", "red", seed=99)
    return tmp_path / "asked"


def count_pairs(run: Run, split: str, cosine: float, without: set[str]) -> list[int]:
    """Pairs as high, and all: of one person, and of two."""
    denoised = read_clustering(run, 0.5)
    assert denoised is not None
    rows = dict(zip(denoised.clip_ids, denoised.descriptors, strict=True))
    clips = [c for c in run.manifest.clips if c.split == split and c.clip_id not in without]
    counts = [0, 0, 0, 0]
    for one, other in itertools.combinations(clips, 2):
        if not one.identity and not other.identity:
            continue
        kind = 0 if one.identity == other.identity else 2
        counts[kind] += float(np.dot(rows[one.clip_id], rows[other.clip_id])) >= cosine
        counts[kind + 1] += 1
    return counts


def test_a_file_and_a_clip_of_the_run(
    run: Run, red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worked on by the rules of the run, though that is an older one."""
    begun: list[Run] = []
    monkeypatch.setattr(Run, "rules", property(lambda _: ReadingRules.as_before()))
    monkeypatch.setattr(
        asking, "extract", lambda run, **more: (begun.append(run), extract(run, **more))
    )
    answer = same(red, "red.3", run, picture=tmp_path / "faces.png")
    assert [asked.new_rules for asked in begun] == [ReadingRules.as_before()]
    assert (answer.same, answer.failed) == (True, ())
    assert (answer.asked[0].clip_id, answer.asked[1].clip_id) == (None, "red.3")
    assert answer.cosine == pytest.approx(1, abs=1e-3)
    calibration = answer.calibration
    assert calibration is not None
    assert (calibration.split, calibration.people, calibration.clips) == ("val", 3, 18)
    assert calibration.left_out == ("red.3",)
    rates, point = answer.rates, answer.point
    assert rates is not None
    assert point is not None
    counts = [rates.accepted_genuine, rates.genuine, rates.accepted_impostor, rates.impostor]
    assert counts == count_pairs(run, "val", rates.score, {"red.3"})
    assert counts[1::2] == [1 + 3 + 3, 2 * 6 + 9 + 8 * STRANGERS]
    assert (point.target_far, point.far) == ("1e-2", 0 if point.threshold is None else point.far)
    assert Image.open(tmp_path / "faces.png").width > 1000


def test_two_people_and_a_cosine_that_others_reach(run: Run) -> None:
    answer = same("red.2", "green.2", run, far="1e-1")
    assert answer.same is False
    calibration = answer.calibration
    assert calibration is not None
    rates = answer.rates
    assert rates is not None
    assert calibration.target == "1e-1"
    counts = [rates.accepted_genuine, rates.genuine, rates.accepted_impostor, rates.impostor]
    assert counts == count_pairs(run, "val", rates.score, {"red.2", "green.2"})
    assert 0 < rates.accepted_impostor < rates.impostor
    assert rates.far_replicates is not None
    assert rates.far_replicates.ci95 is not None
    assert repr(answer).startswith("SameAnswer(different people: cosine -")


def test_the_threshold_itself_is_accepted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = same("red.2", "green.2", run)
    point = answer.point
    assert point is not None
    for threshold, is_same in ((answer.cosine, True), (answer.cosine + 1e-6, False), (None, False)):
        monkeypatch.setattr(
            "vidface.runs.same.score_verification",
            lambda *_, at=threshold, **__: type(
                "V", (), {"points": (replace(point, threshold=at),)}
            ),
        )
        assert same("red.2", "green.2", run).same is is_same


def test_a_clip_and_itself(run: Run) -> None:
    assert ONE_CLIP in same("red.3", "red.3", run).notes
    assert ONE_CLIP not in same("red.3", "red.4", run).notes
    for ask in (lambda: same("", "red.3", run), lambda: who("", run)):
        with pytest.raises(UsageError, match="an empty name is no clip"):
            ask()


def test_clips_that_are_all_alike_are_no_rare_score(tmp_path: Path) -> None:
    """Whatever the last bit of a product in a block of others, the pairs score as high."""
    directions = np.random.default_rng(5).normal(size=(12, 128)).astype(np.float32)
    ids = [f"{k}.{copy}" for k in range(12) for copy in range(6)]
    np.savez(tmp_path / "rows.npz", clip_id=ids, embedding=np.repeat(directions, 6, axis=0))
    people = [f"{k}.{copy % 2}" for k in range(12) for copy in range(6)]
    splits = ["train" if clip_id[-1] < "2" else "val" for clip_id in ids]
    rows = (f"{a},rows.npz,{b},{c}" for a, b, c in zip(ids, people, splits, strict=True))
    (tmp_path / "m.csv").write_text("\n".join(["clip_id,path,identity,split", *rows]))
    (tmp_path / "a.toml").write_text(
        '[manifest]\npath = "m.csv"\n[faces]\nsource = "features"\n[run]\ndir = "run"\n'
        "[score]\nbootstrap = 0\n"
    )
    alike = open_run(load_pipeline(tmp_path / "a.toml"))
    extract(alike)
    cluster(alike, 0.5)
    for k in range(3):  # of each direction 4 pairs of two people in val, and 2 of one
        rates = same(f"{k}.0", f"{k}.1", alike).rates
        assert rates is not None
        assert (rates.accepted_impostor, rates.accepted_genuine, rates.score) == (48, 24, 1.0)


def test_a_runs_file_by_its_path_is_its_clip(run: Run) -> None:
    assert isinstance(run.manifest.root_location, Path)
    path = run.manifest.root_location / "red" / "2"
    answer = same(path, str(path), run.folder.folder)
    assert (answer.asked[0].clip_id, answer.asked[1].clip_id) == ("red.2", "red.2")
    assert answer.cosine == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_decided_is_not(run: Run) -> None:
    answer = same("red.2", "blue.0", run, split="train")
    assert answer.same is None  # two genuine pairs and eight impostor pairs
    assert answer.rates is not None
    assert answer.notes[0].startswith("no decision: there are 2 genuine and 8 impostor pairs")
    with pytest.raises(VidfaceError, match="FAR 1e-3 needs ≥ 1,000 impostor pairs; there are 117"):
        same("red.0", "blue.0", run, far="1e-3")
    with pytest.raises(UsageError, match="--far: a rate in"):
        same("red.0", "blue.0", run, far="nope")
    with pytest.raises(UsageError, match="--split gallery: no clip of the manifest"):
        same("red.0", "blue.0", run, split="gallery")
    with pytest.raises(UsageError, match="nope: no such file or folder, and no clip of run"):
        same("nope", "red.0", run)
    with pytest.raises(VidfaceError, match="no clustering at threshold"):
        same("red.0", "red.1", run, threshold=0.9)


def test_a_clip_without_a_face_is_no_answer(run: Run) -> None:
    answer = same("red.2", "none", run)
    assert (answer.same, answer.cosine, answer.rates) == (None, None, None)
    assert len(answer.failed) == 1
    assert answer.to_dict()["asked"][1]["problem"] == answer.failed[0]
    found = who("none", run)
    assert (found.nearest, found.identity, found.is_known) == ((), None, None)


def test_a_clip_that_failed_in_part_is_answered_and_named(run: Run) -> None:
    answer = same("red.2", "red.3", run)
    cut_off = replace(answer.asked[0], state="truncated", message="ends early")
    answer = replace(answer, asked=(cut_off, answer.asked[1]))
    assert (answer.can_compare, answer.failed) == (True, ("red.2: truncated: ends early",))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX's")
def test_a_pipe_is_no_clip(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VidfaceError, match=r"a named pipe .FIFO., not a file or folder"):
        same(tmp_path / "pipe", "red.0", run)


def test_without_a_run_there_is_a_cosine_alone(run: Run, red: Path) -> None:
    backbone = library.load_backbone(
        run.pipeline.backbone.weights, library.Preprocessing("rgb", 127.5, 127.5)
    )
    Image.fromarray(crop_of("red")).resize((200, 200)).save(red / "face.png")  # no face in it
    answer = same(red, red, weights=backbone)
    assert (answer.same, answer.cosine, answer.calibration) == (None, None, None)
    assert answer.asked[0].state == "no_face"
    with pytest.raises(UsageError, match="name one with --run"):
        same(red, red, weights=backbone, far="1e-2")


def test_who_it_is(run: Run) -> None:
    answer = who("red.2", run, top=2, fpir="1e-1")
    assert (answer.identity, answer.is_known) == ("red", True)
    assert [c.identity for c in answer.nearest] == ["red", "green"] or answer.nearest[1].score < 0.5
    assert answer.nearest[0].clips == 2
    identification = answer.identification
    assert (identification.mated, identification.non_mated) == (8, STRANGERS)
    assert identification.points[0].fpir == pytest.approx(0.1)
    assert repr(answer).startswith("WhoAnswer(red: nearest score 1.0000, ")


def test_a_stranger_is_nobody(run: Run) -> None:
    answer = who("stranger.5", run)
    assert (answer.identity, answer.is_known) == (None, None)  # nine others: too few for 1e-1
    assert answer.to_dict()["calibration"]["left_out"] == ["stranger.5"]
    assert any(
        note.startswith("no decision: split val has 9 clips of people enrolled and 9 of others")
        for note in answer.notes
    )
    with pytest.raises(
        VidfaceError, match="FPIR 1e-1 needs ≥ 10 clips of nobody enrolled; there are 9"
    ):
        who("stranger.5", run, fpir="1e-1")


def test_an_unknown_face_is_nobody(run: Run, tmp_path: Path) -> None:
    write_crop(tmp_path / "asked" / "face.png", "yellow")
    answer = who(tmp_path / "asked", run)
    assert (answer.identity, answer.is_known) == (None, False)
    assert answer.to_dict()["nearest"][0]["identity"] in ("red", "green")
    assert "decided at FPIR 1e-1" in answer.notes[0]


def test_an_enrolled_clip_is_left_out_of_its_persons_template(run: Run) -> None:
    answer = who("red.0", run)
    assert (answer.identity, answer.nearest[0].clips) == ("red", 1)
    assert answer.to_dict()["calibration"]["left_out"] == ["red.0"]
    denoised = read_clustering(run, 0.5)
    assert denoised is not None
    rows = dict(zip(denoised.clip_ids, denoised.descriptors, strict=True))
    assert answer.nearest[0].score == pytest.approx(float(rows["red.0"] @ rows["red.1"]), abs=1e-6)


def test_a_run_without_its_usual_split_lists_without_a_decision(run: Run) -> None:
    score = replace(run.pipeline.score, split="gallery")
    lacking = replace(run, pipeline=replace(run.pipeline, score=score))
    found = who("red.0", lacking)
    assert (found.nearest[0].identity, found.is_known) == ("red", None)
    assert found.notes[0].startswith("no decision: split gallery has 0 clips")
    answer = same("red.0", "red.1", lacking)
    assert (answer.cosine, answer.same) == (pytest.approx(1, abs=1e-3), None)
    assert answer.notes[0].startswith("no decision: there are 0 genuine and 0 impostor pairs")


def test_who_scores_alike_stands_in_order_of_names() -> None:
    rows = np.array([[0, 1], [1, 0], [1, 0], [0, 0]], np.float32)
    enrolled = LabelledClips(("a", "b", "c", "d"), ("zoe", "bob", "ann", "dan"))
    nearest = _find_nearest(np.array([1, 0], np.float32), rows, enrolled, "mean")
    assert [(c.identity, c.score) for c in nearest] == [("ann", 1), ("bob", 1), ("zoe", 0)]


def test_the_only_clip_of_a_person(run: Run) -> None:
    """A gallery of one clip: without it nobody is enrolled."""
    answer = who("none", run, gallery="test")
    assert answer.nearest == ()
    answer = who("red.0", run, gallery="test")
    assert answer.nearest == ()  # red's only clip there shows no face
    with pytest.raises(UsageError, match="--gallery probe: no clip"):
        who("red.0", run, gallery="probe")
    with pytest.raises(UsageError, match="is the gallery"):
        who("red.0", run, split="train")


def test_the_library_hands_them_on() -> None:
    assert (library.same, library.who) == (same, who)


def test_the_commands(vidface, run: Run) -> None:
    at = ("--run", run.folder.folder)
    done = vidface("same", "red.2", "red.3", *at, "--json", "--picture", "faces.png")
    assert (done.code, done.json["same"], done.json["cosine"]) == (0, True, pytest.approx(1))
    assert done.json["calibration"]["target"] == "1e-1"  # of 85 impostor pairs
    assert Path("faces.png").is_file()
    done = vidface("same", "red.3", "green.3", *at)
    assert (done.code, done.out.splitlines()[0][:25]) == (0, "different people: cosine ")
    assert "3 people, 17 clips; measured on these people" in done.out
    assert "measured on these people, not yet a promise for others" in done.out
    done = vidface("same", "red.3", "none", *at)
    assert (done.code, done.out.splitlines()[0]) == (3, "no answer")
    assert vidface("same", "red.3", "green.3", *at, "--far", "1e-4").code == 1
    done = vidface("who", "red.0", *at, "--json")
    assert (done.code, done.json["identity"], done.json["is_known"]) == (0, "red", True)
    done = vidface("who", "blue.4", *at)
    assert done.out.startswith("blue: nearest score 1.0000")
    assert vidface("who", "none", *at).code == 3
    assert vidface("who", "red.0").code == 2  # no run


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_real_clips(data: Path, tmp_path: Path) -> None:
    """A file is worked on as the run's clips were, and as without a run: the same cosine."""
    lines = (data / "wlasl.csv").read_text(encoding="utf-8").splitlines()
    people = ("signer_P07", "signer_P08", "signer_P09", "signer_P10")
    kept = [line for line in lines if line.endswith(",val") and line.split(",")[2] in people]
    (tmp_path / "manifest.csv").write_text("\n".join([lines[0], *kept]), encoding="utf-8")
    document = {"manifest": {"path": "manifest.csv", "root": str(data)}, "run": {"dir": "run"}}
    run = open_run(parse_pipeline(document, tmp_path / "real.toml"))
    extract(run)
    cluster(run, 0.4)
    [first, second] = [c for c in run.manifest.of_split("val") if c.identity == people[0]]
    copy = tmp_path / "a copy.mp4"
    shutil.copy(data / first.path, copy)
    answer = same(copy, second.clip_id, run)
    assert (answer.same, answer.to_dict()["calibration"]["target"]) == (True, "1e-1")
    assert f"a copy.mp4 seems to be the run's own {first.clip_id}" in " ".join(answer.notes)
    of_ids = same(first.clip_id, second.clip_id, run)
    alone = same(copy, data / second.path)
    assert answer.cosine == pytest.approx(of_ids.cosine, abs=1e-5)
    assert answer.cosine == pytest.approx(alone.cosine, abs=1e-5)
    frame = next(iter(library.sample_frames(str(copy), fps=8)))
    Image.fromarray(frame.image).save(tmp_path / "picture.png")
    picture = same(tmp_path / "picture.png", data / second.path, run)
    assert (picture.same, picture.asked[0].faces, picture.asked[1].clip_id) == (
        True,
        1,
        second.clip_id,
    )
    assert any("has 1 face(s)" in note for note in picture.notes)
