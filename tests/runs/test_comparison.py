"""Comparing runs, pair lists and submissions, as the commands do it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from vidface.challenges.submissions import score_submission
from vidface.core.digests import digest_path
from vidface.core.errors import VidfaceError
from vidface.runs.comparison import compare
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.pair_scoring import score_listed_pairs
from vidface.runs.run import Run, open_run, open_run_folder
from vidface.runs.scoring import score
from vidface.settings.pipeline import load_pipeline, parse_pipeline, pipeline_document


@pytest.fixture
def run(colour_pipeline: Path) -> Run:
    opened = open_run(load_pipeline(colour_pipeline))
    extract(opened)
    cluster(opened, 0.5)
    return opened


def quick(run: Run, **changes: object) -> Run:
    settings = run.pipeline.score.replaced(**{"bootstrap": 100, **changes})
    return replace(run, pipeline=replace(run.pipeline, score=settings))


def test_a_run_is_no_different_from_itself(run: Run) -> None:
    one = quick(run, protocols="retrieval,identification,cross-verification", fars="0.5")
    found = compare(one, one)
    wanted = {"map_at_100", "cross_tar_at_far.0.5", "cross_eer", "cross_auc", "cmc.1"}
    assert wanted <= set(found.differences)
    for difference in found.differences.values():
        assert difference.value == 0
        assert difference.ci95 in ((0, 0), None)
        assert difference.real is not True


def test_the_difference_is_of_paired_resamples(run: Run, colour_pipeline: Path) -> None:
    # Another "recogniser": the same clips without clustering, whose figures are worse.
    one, other = (quick(run, protocols="retrieval") for _ in range(2))
    found = compare(one, other, threshold=0.5).differences["map_at_100"]
    a = score(one, None, settings=one.pipeline.score).retrieval
    b = score(one, 0.5, settings=one.pipeline.score).retrieval
    assert found.value == 0
    paired = b.replicates.values - a.replicates.values
    assert len(paired) == 100
    assert b.map_at_k - a.map_at_k == pytest.approx(paired.mean(), abs=0.2)


def test_runs_over_other_people_are_refused(run: Run) -> None:
    clips = list(run.manifest.clips)
    row = next(i for i, clip in enumerate(clips) if clip.split == "val" and clip.identity)
    clips[row] = replace(clips[row], identity="someone else")
    other = replace(run, manifest=replace(run.manifest, clips=tuple(clips)))
    with pytest.raises(VidfaceError, match=f"clip '{clips[row].clip_id}' is not the same") as told:
        compare(quick(run), quick(other))
    assert "(someone else, val): only runs" in str(told.value)  # both may be of one manifest
    row_free = tuple(clip for i, clip in enumerate(clips) if i != row)
    other = replace(run, manifest=replace(run.manifest, clips=row_free))
    with pytest.raises(VidfaceError, match=r"\(not in it\): only runs"):
        compare(quick(run), quick(other))


def test_settings_of_b_that_are_not_used_are_named(run: Run) -> None:
    told: list[str] = []
    found = compare(quick(run, k=1), quick(run, k=3, enrolment="max"), notify=told.append)
    assert "map_at_1" in found.differences
    assert told == ["both are scored by A's settings; B's pipeline has another k, enrolment"]
    told.clear()
    compare(quick(run), quick(run), notify=told.append)
    assert told == []


def test_compare_needs_resamples(run: Run) -> None:
    with pytest.raises(VidfaceError, match="--bootstrap"):
        compare(quick(run, bootstrap=0), run)


def test_a_run_directory_can_be_opened_alone(run: Run, tmp_path: Path) -> None:
    again = open_run_folder(run.folder.folder)
    assert again.pipeline.cluster == run.pipeline.cluster
    assert again.extraction_settings == run.extraction_settings
    moved = tmp_path / "moved"
    run.folder.folder.rename(moved)
    assert open_run_folder(moved).folder.folder == moved
    with pytest.raises(VidfaceError, match=r"no run\.json in it"):
        open_run_folder(tmp_path)
    (moved / "run.json").write_text("[1]")
    with pytest.raises(VidfaceError, match=r"run\.json: damaged"):
        open_run_folder(moved)
    digest_path(moved / "run.json").unlink()  # as of an older run
    with pytest.raises(VidfaceError, match="not what vidface wrote"):
        open_run_folder(moved)


def test_a_pipeline_survives_being_written(colour_pipeline: Path) -> None:
    pipeline = load_pipeline(colour_pipeline, {("cluster", "threshold"): "none"})
    again = parse_pipeline(pipeline_document(pipeline), pipeline.file)
    assert again == pipeline


def test_the_score_file_and_its_tables(run: Run) -> None:
    protocols = "cross-verification,retrieval"
    done = score(run, settings=run.pipeline.score.replaced(protocols=protocols, fars="0.5"))
    document = json.loads(
        (run.folder.folder / "scores" / "val_against_train_threshold_0.5.json").read_text()
    )
    assert document == json.loads(json.dumps(done.to_dict()))
    assert document["failure_to_acquire"]["split"] == {"clips": 4, "failed": 0, "rate": 0.0}
    point = document["cross_verification"]["tar_at_far"]["0.5"]
    assert point["ci95"][0] <= point["tar"] <= point["ci95"][1]
    for name, key in (("average_precision", "identity"), ("cross_roc", "threshold")):
        path = run.folder.folder / "scores" / f"val_against_train_threshold_0.5_{name}.csv"
        rows = list(csv.DictReader(path.open()))
        assert rows
        assert key in rows[0]
    last = rows[-1]  # the ROC ends where everything is accepted
    assert (float(last["far"]), float(last["tar"])) == (1, 1)


def test_every_protocol(run: Run) -> None:
    from vidface.metrics.protocols import PROTOCOLS

    settings = run.pipeline.score.replaced(protocols=",".join(PROTOCOLS), bootstrap=20)
    done = score(run, settings=settings)
    assert set(done.protocols) == {name.replace("-", "_") for name in PROTOCOLS}
    assert done.results["cross-verification"].genuine_pairs > 0
    figures = done.figures()
    assert {"cross_tar_at_far.0.5", "cross_eer"} & set(figures)


def test_without_a_gallery_only_what_needs_one_is_refused(run: Run) -> None:
    settings = run.pipeline.score.replaced(protocols="verification", bootstrap=0)
    done = score(run, split="val", gallery="val", settings=settings)
    assert done.retrieval is None
    assert done.verification is not None
    with pytest.raises(VidfaceError, match="is its own gallery"):
        score(run, split="val", gallery="val")
    with pytest.raises(VidfaceError, match=r"--gallery probe.*--protocols verification"):
        score(run, gallery="probe")


def test_pair_lists_of_clips(run: Run, tmp_path: Path) -> None:
    whole = score(run, settings=run.pipeline.score.replaced(bootstrap=0)).verification
    clips = [clip for clip in run.manifest.of_split("val") if clip.identity]
    lines = [
        f"{a.clip_id} {b.clip_id} {int(a.identity == b.identity)}"
        for i, a in enumerate(clips)
        for b in clips[i + 1 :]
    ]
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(lines) + "\n")
    found = score_listed_pairs(run, path)
    assert found.pairs_listed == len(lines)
    assert found.verification.genuine_pairs == whole.genuine_pairs
    (stored,) = (run.folder.folder / "scores").glob("pairs_pairs_*_threshold_0.5.json")
    assert json.loads(stored.read_text())["pairs_listed"] == len(lines)
    notes: list[str] = []
    path.write_text("\n".join(f"{line[:-1]}1" for line in lines) + "\n")
    score_listed_pairs(run, path, notify=notes.append)
    assert "not what the manifest's identities say" in notes[-1]


def test_pair_lists_of_templates(run: Run, tmp_path: Path) -> None:
    clips = run.manifest.of_split("val")
    rows = [f"{t},{t},{clip.clip_id}" for t, clip in enumerate(clips)]
    templates = tmp_path / "templates.csv"
    templates.write_text("\n".join(["template_id,media_id,path", *rows]) + "\n")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("0,1,0\n0,2,1\n")
    found = score_listed_pairs(run, pairs, templates=templates)
    assert (found.what, found.rows) == ("templates", 3)


def test_a_submission_alone(tmp_path: Path) -> None:
    (tmp_path / "result.txt").write_text("1 v1.mp4 x.mp4 v2.mp4\n2 v4.mp4 v4.mp4 y.mp4\n")
    (tmp_path / "val_gt.txt").write_text("1 v1.mp4 v2.mp4 v3.mp4\n2 v4.mp4\n3 v5.mp4\n")
    found = score_submission(tmp_path / "result.txt", tmp_path / "val_gt.txt")
    assert found.to_dict()["map_at_100"] == pytest.approx(0.5185185185)


class TestCommands:
    def test_compare(self, vidface, run: Run) -> None:
        folder = str(run.folder.folder)
        done = vidface("compare", folder, folder, "--split", "val", "--bootstrap", "50")
        assert done.code == 0, done.err
        assert "map_at_100" in done.out
        assert "real" in done.out
        assert "3 people are few: intervals called 95 %" in done.out
        as_json = vidface("compare", folder, folder, "--bootstrap", "50", "--json")
        assert json.loads(as_json.out)["differences"]["map_at_100"]["difference"] == 0

    def test_score_flags(self, vidface, run: Run, colour_pipeline: Path) -> None:
        given = ("score", "--pipeline", str(colour_pipeline))
        done = vidface(*given, "--bootstrap", "0", "--convention", "nearest", "--fars", "0.5")
        assert done.code == 0, done.err
        assert "nearest" in done.out
        assert "[" not in done.out
        assert "are few" not in done.out
        assert "3 people are few: intervals" in vidface(*given, "--bootstrap", "9").out
        for flags, message in (
            (("--bootstrap", "1"), "--bootstrap"),
            (("--convention", "often"), "known: step, nearest"),
            (("--enrolment", "median"), "known: mean, max"),
            (("--protocols", "recall"), "known: verification"),
            (("--fars", "2"), "--fars"),
            (("--k", "0"), "--k"),
            (("--gt", "x"), "--submission and --gt"),
            (("--templates", "x"), "--templates and --order go with --pairs"),
            (("--pairs", "x", "--split", "val"), "--split does nothing with --pairs"),
            (("--pairs", "x", "--score-device", "cpu"), "--score-device does nothing with --pairs"),
            (("--split", "gallery"), "--split gallery: no clip"),
            (("--fars", "1e-99999999"), "--fars"),
            (("--fars", ""), "--fars"),
        ):
            done = vidface(*given, *flags)
            assert done.code == 2, flags
            assert message in done.err

    def test_submission(self, vidface, tmp_path: Path) -> None:
        (tmp_path / "r.txt").write_text("1 v1.mp4\n9 v2.mp4\n")
        (tmp_path / "gt.txt").write_text("1 v1.mp4 v2.mp4\n2 v3.mp4\n")
        files = ("--submission", str(tmp_path / "r.txt"), "--gt", str(tmp_path / "gt.txt"))
        done = vidface("score", *files)
        assert done.code == 0, done.err
        assert "mAP@100  0.2500 [" in done.out
        assert 'do not count: "9"' in done.out
        assert "2 people are few: intervals" in done.out

    def test_a_submission_of_another_split(self, vidface, tmp_path: Path) -> None:
        (tmp_path / "r.txt").write_text("1 v1.mp4\n")
        (tmp_path / "gt.txt").write_text("1 v3.mp4 v4.mp4\n")
        files = ("--submission", str(tmp_path / "r.txt"), "--gt", str(tmp_path / "gt.txt"))
        done = vidface("score", *files)
        assert done.code == 1
        assert "of another split" in done.err
        assert vidface("score", *files, "--bootstrap", "1").code == 2
        done = vidface("score", *files, "--run", "x")
        assert (done.code, "--run does nothing with --submission" in done.err) == (2, True)

    def test_two_clusterings_of_one_run(self, vidface, run: Run) -> None:
        folder = str(run.folder.folder)
        flags = ("--threshold", "0.5", "--threshold-b", "none", "--bootstrap", "50")
        done = vidface("compare", folder, folder, *flags)
        assert done.code == 0, done.err
        assert "A: " in done.out
        assert "threshold none" in done.out

    def test_nothing_to_compare(self, vidface, run: Run) -> None:
        folder = str(run.folder.folder)
        done = vidface("compare", folder, folder, "--protocols", "verification", "--fars", "1e-9")
        assert done.code == 1
        assert "no figure to compare" in done.err

    def test_figures_of_a_directory_that_cannot_be_written(self, run: Run, monkeypatch) -> None:
        import os

        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        notes: list[str] = []
        assert score(run, notify=notes.append).retrieval is not None
        assert "shown, not stored" in notes[-1]
        assert not (run.folder.folder / "scores").exists()

    def test_published_figures_are_marked(self, vidface, run: Run, colour_pipeline: Path) -> None:
        with colour_pipeline.open("a") as file:
            file.write('\n[[published]]\nname = "them"\nfigure = "map_at_100"\nvalue = 0.5\n')
        done = vidface("score", "--pipeline", str(colour_pipeline))
        assert done.code == 0, done.err
        assert "published, not measured here" in done.out
        assert "them" in done.out
