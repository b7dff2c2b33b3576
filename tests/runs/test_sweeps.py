from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import write_crop
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.thresholds import parse_threshold, parse_thresholds
from vidface.runs.extraction import extract
from vidface.runs.run import Run, open_run
from vidface.runs.selection import plan_folds, plan_splits
from vidface.runs.sweeps import select, sweep
from vidface.settings.pipeline import load_pipeline


def test_stop_is_included_and_decimals_are_exact() -> None:
    values = parse_thresholds("0:0.7:0.05")
    assert len(values) == 15
    assert values[6] == 0.3  # 6 * 0.05 is 0.30000000000000004 in binary
    assert values[-1] == 0.7
    assert parse_thresholds("0.1:0.25:0.1") == [0.1, 0.2]
    assert parse_thresholds("0.4:0.4:0.1") == [0.4]
    assert parse_thresholds("-1:1:1") == [None, 0.0, 1.0]
    assert parse_thresholds("-1,0:0.2:0.1") == [None, 0.0, 0.1, 0.2]
    assert len(parse_thresholds("0:0.999:0.001")) == 1000
    assert parse_thresholds("-1, 0,0.1") == [None, 0.0, 0.1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a number"),
        ("a", "'a' is not a number"),
        ("0:1", "START:STOP:STEP"),
        ("0.1,,0.2", "'' is not a number"),
        ("0:1:0", "STEP must be above 0"),
        ("1:0:0.1", "STOP not below START"),
        ("0:1:0.000001", "more than 1000 of them"),
        ("0:2:0.5", r"a cosine lies in \[-1, 1\]"),
        ("nan", "is not a number"),
        ("1.01", r"a cosine lies in \[-1, 1\]"),
    ],
)
def test_wrong_thresholds(text: str, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        parse_thresholds(text)


def test_spellings_of_no_clustering() -> None:
    assert parse_threshold("NONE") is None
    assert parse_threshold("-1.0") is None
    assert parse_threshold("-0.999") == -0.999


# Clips of red and green, in frames of each. Similarities are nearly 1 within a colour, and the
# cosine of red and green (see conftest.COLOURS) is about -0.25.
CLIPS = {
    "red.g": ("red", "train", "RRR"),
    "green.g": ("green", "train", "GGG"),
    "blue.g": ("blue", "train", "BBB"),
    "red.v": ("red", "val", "RRG"),
    "green.v": ("green", "val", "GGB"),
    "blue.v": ("blue", "val", "BBR"),
    "red.s": ("red", "test", "RRGG"),
    "green.s": ("green", "test", "GGG"),
    "blue.s": ("blue", "test", "BB"),
}


@pytest.fixture
def three_splits(tmp_path: Path, colour_network: Path) -> Path:
    """A pipeline file: gallery train, val and test, three people."""
    names = {"R": "red", "G": "green", "B": "blue"}
    lines = ["clip_id,path,identity,split"]
    for clip_id, (who, split, frames) in CLIPS.items():
        for k, frame in enumerate(frames):
            write_crop(tmp_path / "set" / clip_id / f"{k}.png", names[frame], seed=k)
        lines.append(f"{clip_id},{clip_id},{who},{split}")
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    path = tmp_path / "three.toml"
    path.write_text(
        f'''
[manifest]
path = "set/manifest.csv"
[faces]
source = "aligned"
[backbone]
weights = "{colour_network.as_posix()}"
color = "rgb"
mean = 127.5
std = 127.5
[run]
dir = "run3"
''',
        encoding="utf-8",
    )
    return path


@pytest.fixture
def run(three_splits: Path) -> Run:
    opened = open_run(load_pipeline(three_splits))
    extract(opened)
    return opened


def test_selecting_on_a_split_is_the_plan_over_the_denoised(run: Run) -> None:
    from vidface.runs.noise_removal import denoise

    thresholds = [0.5, 0.2, 0.5]
    done = select(run, thresholds, select_on="val", report_on="test")
    plan = plan_splits(run.manifest, "val", "test", "train")
    expected = plan.choose([plan.observe(denoise(run, t)) for t in (None, 0.5, 0.2)])
    assert done.selection == expected
    assert done.selection.candidates == (None, 0.2, 0.5)
    assert done.provenance["settings"]["cluster.threshold"] == [None, 0.5, 0.2]
    assert done.provenance["settings"]["cluster.method"] == "union-find"
    assert done.provenance["manifest_sha256"] == run.manifest.sha256
    path = (
        run.folder.folder / "sweeps" / "selected_on_val_reported_on_test_against_train_by_map.json"
    )
    assert json.loads(path.read_text()) == json.loads(json.dumps(done.to_dict()))


def test_selecting_over_folds(run: Run) -> None:
    from vidface.runs.noise_removal import denoise

    done = select(run, [0.5], folds=3, seed=4)
    plan = plan_folds(run.manifest, "val", "train", folds=3, seed=4)  # the pipeline's splits
    assert done.selection == plan.choose([plan.observe(denoise(run, t)) for t in (None, 0.5)])
    assert (done.selection.report_on, done.selection.seed) == ("val", 4)
    assert (
        run.folder.folder
        / "sweeps"
        / "selected_over_3_folds_of_val_seed_4_against_train_by_map.json"
    ).is_file()
    other = select(run, [0.5], folds=2, report_on="test", gallery="val")
    assert (other.selection.report_on, other.selection.gallery) == ("test", "val")
    with pytest.raises(VidfaceError, match="--folds 5: more than the 3 identities"):
        select(run, [0.5])


def test_what_cannot_be_selected(run: Run) -> None:
    with pytest.raises(
        VidfaceError, match=r"--select-on train is its own gallery.*--select-by tar"
    ):
        select(run, [0.5], select_on="train", report_on="test")
    with pytest.raises(UsageError, match="--folds chooses within one split"):
        select(run, [0.5], select_on="val", report_on="test", folds=3)
    with pytest.raises(VidfaceError, match="--select-on and --report-on are both val"):
        select(run, [0.5], select_on="val")
    with pytest.raises(VidfaceError, match="--select-by f1: there are map and tar"):
        select(run, [0.5], select_on="val", report_on="test", select_by="f1")
    cluster = replace(run.pipeline.cluster, method="hdbscan")
    other = replace(run, pipeline=replace(run.pipeline, cluster=cluster))
    for attempt in (
        lambda: select(other, [0.5], select_on="val", report_on="test"),
        lambda: sweep(other, [0.5]),
    ):
        with pytest.raises(VidfaceError, match="the method 'hdbscan' has no threshold to sweep"):
            attempt()
    assert not (run.folder.folder / "sweeps").exists()


def test_a_sweep_of_another_method_and_pooling(run: Run) -> None:
    from vidface.noise.denoisers import CompleteLinkage
    from vidface.runs.denoising import Denoising
    from vidface.runs.scoring import score

    cluster = replace(run.pipeline.cluster, method="complete-linkage")
    descriptor = replace(run.pipeline.descriptor, pooling="norm")
    other = replace(run, pipeline=replace(run.pipeline, cluster=cluster, descriptor=descriptor))
    done = sweep(other, [0.5], split="test").to_dict()
    assert done["provenance"]["settings"]["cluster.method"] == "complete-linkage"
    assert done["provenance"]["settings"]["descriptor.pooling"] == "norm"
    wanted = Denoising(CompleteLinkage(0.5), "norm")
    settings = replace(run.pipeline.score, bootstrap=0)
    scored = score(run, wanted, split="test", settings=settings).to_dict()
    for key in ("retrieval", "verification", "counts"):
        assert done["rows"][1][key] == scored[key]
    # red.s is two of red and two of green, the earlier cluster wins; nothing else is mixed
    assert [row["counts"]["kept"] for row in done["rows"]] == [9, 7]


UNUSUAL = (
    {"k": 1},
    {"enrolment": "max"},
    {"convention": "nearest"},
    {"protocols": "verification"},
)


def test_other_score_settings_are_other_files(run: Run) -> None:
    """As score files are: what changes a figure's meaning stands in the name, by one function."""
    from vidface.runs.scoring import score

    folder = run.folder.folder
    for changes in ({}, *UNUSUAL):
        settings = run.pipeline.score.replaced(bootstrap=0, **changes)
        other = replace(run, pipeline=replace(run.pipeline, score=settings))
        score(other, None)
        done = sweep(other, [0.5])
        select(
            other, [0.5], folds=3, **({} if "protocols" not in changes else {"gallery": "train"})
        )
        assert (done.gallery is None) == ("protocols" in changes)
    suffixes = ["", "_k_1", "_max", "_nearest"]
    names = {path.name for path in (folder / "scores").glob("*.json")}
    names = {name for name in names if not name.endswith(".curves.json")}
    assert names == {
        *(f"val_against_train_threshold_none{suffix}.json" for suffix in suffixes),
        "val_threshold_none.json",
    }
    start = "selected_over_3_folds_of_val_seed_0_against_train_by_map"
    assert {path.name for path in (folder / "sweeps").glob("*.json")} == {
        *(f"val_against_train{suffix}.json" for suffix in suffixes),
        "val.json",
        *(f"{start}{suffix}.json" for suffix in suffixes),
    }
    for path in (folder / "sweeps").glob("*.json"):
        settings = json.loads(path.read_text())["provenance"]["settings"]
        assert settings["score.k"] == (1 if "_k_1" in path.name else 100)
        assert settings["score.enrolment"] == ("max" if "_max" in path.name else "mean")


class TestCommand:
    @pytest.fixture
    def flags(self, vidface, three_splits: Path) -> tuple:
        given = ("--pipeline", three_splits)
        assert vidface("extract", *given).code == 0
        return given

    def test_select_on(self, vidface, flags) -> None:
        chosen = ("sweep", *flags, "--select-on", "val", "--report-on", "test")
        done = vidface(*chosen, "--thresholds", "0.2,0.5")
        assert done.code == 0, done.err
        lines = done.out.splitlines()
        assert lines[0].endswith("manifest.csv: threshold chosen by mAP on val, reported on test")
        for label in ("honest", "optimistic", "no clustering"):
            assert any(line.strip().startswith(label) for line in lines), label
        [line] = [line for line in lines if "needs ≥" in line]  # one for all FARs
        assert line.startswith("TAR@1e-1 and lower n/a")
        assert line.endswith(" pairs")  # of a split, not "in a fold"
        found = vidface(*chosen, "--thresholds", "0.2,0.5", "--json").json
        assert (found["select_on"], found["report_on"], found["folds"]) == ("val", "test", None)
        assert found["candidates"] == [None, 0.2, 0.5]
        assert found["provenance"]["stage"] == "select"
        split = vidface("sweep", *flags, "--select-on", "val", "--split", "test", "--json").json
        assert split["report_on"] == "test"
        assert len(split["candidates"]) == 16

    def test_folds(self, vidface, flags) -> None:
        done = vidface("sweep", *flags, "--folds", 3, "--seed", 2)
        assert "over 3 folds of the identities of val (seed 2)" in done.out
        found = vidface("sweep", *flags, "--folds", 3, "--report-on", "test", "--json").json
        assert (found["folds"], found["seed"], found["report_on"]) == (3, 0, "test")
        assert (found["gallery"], found["criterion"]) == ("train", "map")
        found = vidface("sweep", *flags, "--folds", 3, "--gallery", "test", "--json").json
        assert found["gallery"] == "test"

    def test_settings_of_scores(self, vidface, flags) -> None:
        given = ("--k", 1, "--enrolment", "max", "--convention", "nearest", "--fars", "1,0.5")
        swept = vidface("sweep", *flags, *given, "--thresholds", "0.5", "--json").json
        chosen = ("sweep", *flags, *given, "--folds", 3, "--thresholds", "0.5")
        found = vidface(*chosen, "--json").json
        for row in ("honest", "no_clustering"):
            assert list(found[row]["tar_at_far"]) == ["1", "0.5"]
        assert found["no_clustering"]["map_at_1"] == swept["rows"][0]["retrieval"]["map_at_1"]
        for document in (swept, found):
            settings = document["provenance"]["settings"]
            assert [settings[f"score.{key}"] for key in ("k", "enrolment", "convention")] == [
                1, "max", "nearest",
            ]  # fmt: skip
        text = vidface(*chosen).out
        assert "mAP@1" in text
        assert "mAP@100" not in text
        assert "; enrolment max; convention nearest" in text

    @pytest.mark.parametrize(
        ("more", "code", "message"),
        [
            (("--select-on", "train", "--report-on", "test"), 1, "--select-by tar, which needs no"),
            (("--select-on", "val", "--report-on", "test", "--folds", "3"), 2, "--folds chooses"),
            (("--report-on", "test"), 2, "go with --select-on or --folds"),
            (("--seed", "1"), 2, "go with --select-on or --folds"),
            (("--select-by", "tar"), 2, "go with --select-on or --folds"),
            (("--folds", "3", "--split", "val", "--report-on", "test"), 2, "give one of them"),
            (("--folds", "3", "--select-by", "tar@0"), 2, "'0' is no rate in (0, 1]"),
            (("--fars", "2"), 2, "--fars: '2' is no rate"),
            (("--folds", "1"), 1, "--folds 1: it takes a whole number from 2 on"),
            (("--folds", "many"), 2, "not a valid integer"),
            (("--folds", "3", "--seed", "-1"), 1, "--seed -1: it takes a whole number from 0 on"),
            (("--select-on", "dev", "--report-on", "test"), 2, "--select-on dev: no clip"),
            (("--select-on", "val", "--report-on", "test", "--select-by", "tar"), 1,
             "no two clips of one person"),
            (("--method", "trim", "--folds", "3"), 1, "'trim' has no threshold to sweep"),
            (("--method", "none"), 1, "'none' has no threshold to sweep"),
        ],
    )  # fmt: skip
    def test_wrong_usage(self, vidface, flags, more, code: int, message: str) -> None:
        done = vidface("sweep", *flags, *more)
        assert (done.code, done.out) == (code, "")
        assert message in done.err
