from __future__ import annotations

import csv
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vidface
from vidface.core.errors import VidfaceError
from vidface.runs.extraction import extract
from vidface.runs.run import open_run
from vidface.runs.scoring import score
from vidface.settings.pipeline import Pipeline, load_pipeline


def test_evaluate_is_the_three_commands(
    colour_clips: Path, colour_network: Path, tmp_path: Path
) -> None:
    fed = vidface.Preprocessing("rgb", 127.5, 127.5)
    score = vidface.evaluate(
        colour_clips, colour_network, threshold=0.5, source="aligned", preprocessing=fed
    )
    assert score.retrieval.map_at_k == 1.0
    assert score.counts["kept"] == 11
    assert not list(colour_clips.parent.glob("**/*.parquet"))  # the run was a temporary one
    kept = vidface.evaluate(
        colour_clips, colour_network, None, source="aligned", preprocessing=fed, run=tmp_path / "r"
    )
    assert kept.counts["kept"] == 17
    assert (tmp_path / "r" / "clips.parquet").is_file()
    with pytest.raises(VidfaceError, match=r"backbone\.preprocessing"):
        vidface.evaluate(colour_clips, colour_network, source="aligned", run=tmp_path / "r",
                         preprocessing=vidface.Preprocessing("bgr", 0.0, 1.0))  # fmt: skip


def test_evaluate_takes_a_table(
    colour_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a program as the manifest, a function of it as the recogniser, a run that is kept."""
    monkeypatch.chdir(colour_clips.parent)
    with colour_clips.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def mean_colour(crops: np.ndarray) -> np.ndarray:
        assert crops.shape[1:] == (112, 112, 3)
        return crops.mean(axis=(1, 2))

    given = {"source": "aligned", "bootstrap": 0, "run": tmp_path / "r"}
    by_rows = vidface.evaluate(rows, mean_colour, 0.9, **given)
    by_file = vidface.evaluate(colour_clips, mean_colour, 0.9, **given)
    assert by_rows.figures() == by_file.figures()
    assert by_rows.retrieval.map_at_k == 1
    assert by_rows.provenance["manifest"] == "in memory"
    with pytest.raises(VidfaceError, match="same embedding"):
        vidface.evaluate(rows, lambda crops: np.ones((len(crops), 3)), source="aligned")
    with pytest.raises(VidfaceError, match="gives"):
        vidface.evaluate(rows, lambda crops: crops.mean(), source="aligned")
    twice = [*rows, {**rows[0], "clip_id": "again", "split": "val"}]
    with pytest.warns(UserWarning, match="the same file in two splits") as said:
        vidface.evaluate(twice, mean_colour, source="aligned", bootstrap=0)
    assert said[0].filename == __file__
    with pytest.raises(VidfaceError, match="row 0: empty clip_id"):
        vidface.evaluate([{**rows[0], "clip_id": None}], mean_colour, **given)


def test_evaluate_takes_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(pipeline: Pipeline, *_: object, **__: object) -> None:
        raise VidfaceError(f"asked {pipeline.manifest.path}")

    monkeypatch.setattr("vidface.runs.evaluation.open_run", stop)
    with pytest.raises(VidfaceError, match=r"^asked https://h\.example/m\.csv$"):
        vidface.evaluate("https://h.example/m.csv", lambda crops: crops.mean(axis=(1, 2)))


def test_the_stages_take_a_table(
    colour_pipeline: Path, colour_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a table names no manifest that others could read, so it holds no settings."""
    monkeypatch.chdir(colour_clips.parent)
    with colour_clips.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    run = open_run(load_pipeline(colour_pipeline), clips=rows[:2])
    assert extract(run).clips == 2
    assert not run.folder.pipeline_path.exists()
    assert score(run, None, settings=replace(run.pipeline.score, bootstrap=0)).counts["kept"] == 5


def test_evaluate_takes_a_module_or_a_backbone(colour_clips: Path, colour_network: Path) -> None:
    import torch

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    with pytest.warns(UserWarning, match="nobody says what the recogniser is fed: Mean"):
        by_module = vidface.evaluate(colour_clips, Mean(), 0.5, source="aligned")
    backbone = vidface.load_backbone(colour_network, vidface.Preprocessing())
    by_backbone = vidface.evaluate(colour_clips, backbone, 0.5, source="aligned")
    assert by_module.retrieval == by_backbone.retrieval
    assert by_module.provenance["weights"] == "Mean"
    assert len(by_module.provenance["weights_sha256"]) == 64


@pytest.mark.slow
def test_a_module_whose_code_changed_is_not_taken_for_the_old_one(
    colour_clips: Path, tmp_path: Path
) -> None:
    import torch

    class Net(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    fed = vidface.Preprocessing("rgb", 127.5, 127.5)
    arguments = {"source": "aligned", "preprocessing": fed, "run": tmp_path / "r"}
    first = vidface.evaluate(colour_clips, Net(), 0.5, **arguments)
    Net.forward = lambda self, x: x.mean(dim=(2, 3)) * 0.01 + 1  # everybody looks alike now
    second = vidface.evaluate(colour_clips, Net(), 0.5, **arguments)
    assert first.counts["kept"] == 11
    assert second.counts["kept"] == 17


def test_what_cannot_be_scored_is_said_before_extraction(
    colour_clips: Path, colour_network: Path, tmp_path: Path
) -> None:
    backbone = vidface.load_backbone(colour_network, vidface.Preprocessing())
    with pytest.raises(VidfaceError, match="--split test: no clip"):
        vidface.evaluate(colour_clips, backbone, split="test", source="aligned", run=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_loaded_backbone_has_its_preprocessing(colour_clips: Path, colour_network: Path) -> None:
    backbone = vidface.load_backbone(colour_network)
    with pytest.raises(VidfaceError, match="leave it out"):
        vidface.evaluate(colour_clips, backbone, preprocessing=vidface.Preprocessing())


def test_unknown_settings_are_refused(colour_clips: Path, colour_network: Path) -> None:
    fed = vidface.load_backbone(colour_network, vidface.Preprocessing())
    with pytest.raises(VidfaceError, match=r"unknown setting 'fsp' \(known: fps, decoder"):
        vidface.evaluate(colour_clips, fed, fsp=4)
    with pytest.raises(VidfaceError, match=r"known: detect, aligned"):
        vidface.evaluate(colour_clips, fed, source="crops")


ROWS = np.array([[1, 0], [0, 1], [5, 0], [5, 1], [0, 1], [1, 4], [0, 1]], float)
IDS = [1, 2, 3, 3, 3, 4, 5]  # a face of bob is in clip 3, which is ann's; 5 is nobody's
WHO = ["ann", "bob", "ann", "ann", "ann", "bob", None]
SPLITS = ["train"] * 2 + ["val"] * 5


def test_embeddings_of_ones_own_program() -> None:
    """Solved by eye: what noise removal keeps, who is found, and nothing is written into."""
    rows = ROWS.copy()
    with pytest.warns(UserWarning, match=r"rows of length 1 to 5\.1 are scaled to length 1"):
        score = vidface.evaluate_embeddings(rows, IDS, WHO, SPLITS, bootstrap=0)
    assert np.array_equal(rows, ROWS)
    assert (score.counts["clips"], score.counts["faces"], score.counts["kept"]) == (3, 5, 4)
    assert score.retrieval.average_precision == {"ann": 1.0, "bob": 0.5}  # nobody's 5 comes first
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = vidface.evaluate_embeddings(unit.tolist(), IDS, WHO, SPLITS, bootstrap=0)
    assert again.figures() == score.figures()
    frames = [0, 0, 0, 1, 1, 0, 0]
    as_faces = vidface.evaluate_embeddings(
        unit, IDS, WHO, SPLITS, None, frame_index=frames, bootstrap=0
    )
    assert (as_faces.counts["frames"], as_faces.counts["kept"]) == (4, 5)


def test_embeddings_without_a_gallery_are_verified() -> None:
    score = vidface.evaluate_embeddings(np.eye(4), "aabc", ["x", "x", "y", "z"], bootstrap=0)
    assert list(score.results) == ["verification"]
    assert score.gallery is None
    asked = {"bootstrap": 0, "protocols": "verification", "fars": "0.5"}
    score = vidface.evaluate_embeddings(np.eye(4), IDS[2:6], WHO[2:6], **asked)
    assert score.provenance["settings"]["score.fars"] == ["0.5"]


def test_embeddings_that_do_not_fit() -> None:
    rows = ROWS.copy()
    rows[4] = np.nan
    with pytest.raises(VidfaceError, match=r"row 4 \(from 0, clip '3'\)"):
        vidface.evaluate_embeddings(rows, IDS, WHO, SPLITS)
    for arguments, message in [
        ((ROWS[:3], IDS, WHO), "embeddings: 7 of clip_id for 3 embeddings"),
        ((ROWS, IDS, WHO[:3]), "3 of identity for 7"),
        ((ROWS, IDS, list("abcdefg")), "clip '3' has another identity or split in row 3"),
        ((ROWS, IDS, WHO, ["dev"] * 7), r"unknown split of row 0 \(from 0\) 'dev'"),
        ((ROWS[:0], [], []), r"\(n, d\), got \(0, 2\)"),
    ]:
        with pytest.raises(VidfaceError, match=message):
            vidface.evaluate_embeddings(*arguments)
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    with pytest.raises(VidfaceError, match="--gallery probe: no clip"):
        vidface.evaluate_embeddings(unit, IDS, WHO, SPLITS, gallery="probe")
    with pytest.raises(VidfaceError, match="unknown setting 'device'"):
        vidface.evaluate_embeddings(unit, IDS, WHO, SPLITS, device="cuda")


def test_the_stages_one_by_one_arrays_in_arrays_out(colour_network: Path) -> None:
    """The README's example, on colours."""
    from tests.conftest import crop_of

    backbone = vidface.load_backbone(colour_network)
    names = ["red", "red", "blue", "green", "green", "green"]
    crops = np.stack([crop_of(name, seed=k) for k, name in enumerate(names)])
    embeddings = backbone.embed(crops)
    offsets = np.array([0, 3, 6])
    labels = vidface.cluster_frames(embeddings, offsets, 0.5)
    assert labels.tolist() == [0, 0, 1, 0, 0, 0]
    descriptors = vidface.pool_descriptors(embeddings, offsets, labels)
    assert descriptors.shape == (2, 3)
    retrieval = vidface.score_retrieval(
        descriptors, ["red", "green"], descriptors, ["red", "green"], ["a", "b"]
    )
    assert retrieval.map_at_k == 1.0
    assert vidface.score_verification(descriptors, ["red", "green"]).impostor_pairs == 1


def test_lazy_names() -> None:
    assert set(vidface.__all__) <= set(dir(vidface))
    for name in vidface.__all__:
        assert getattr(vidface, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        vidface.evaluat  # noqa: B018
