"""A file of a run lost, emptied, cut, replaced; each later stage: the same figures or one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_colour_clips, write_colour_pipeline
from vidface.core.errors import VidfaceError
from vidface.reports.page import write_report
from vidface.runs.checking import check_files
from vidface.runs.clips import list_clips
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run, open_run_folder
from vidface.runs.run_folder import RunFolder
from vidface.runs.scoring import score
from vidface.runs.sweeps import sweep
from vidface.settings.pipeline import load_pipeline

# One file of each kind, by its path in the run.
KINDS = [
    "clips.parquet",
    "embeddings/shard-00000.arrow",
    "crops/shard-00000.parquet",
    "linkage/shard-00000.arrow",
    "clusters/threshold_0.5/faces.parquet",
    "clusters/threshold_0.5/descriptors.parquet",
    "scores/*.json",
    "sweeps/*.json",
    "run.json",
    "profile.json",
]


def lose(path: Path, other: Path) -> None:
    path.unlink()


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


def exchange(path: Path, other: Path) -> None:
    """Another run's file, with the digest that it has there."""
    shutil.copyfile(other, path)
    digest = f"_{path.name}.xxh3"
    if (other.parent / digest).is_file():
        shutil.copyfile(other.parent / digest, path.parent / digest)


DAMAGES = [lose, empty, cut, make_folder, exchange]
STAGES: dict[str, Callable[[Run], Any]] = {
    "extract": lambda run: extract(run).states,
    "cluster": lambda run: cluster(run, 0.5).descriptors.tobytes(),
    "score": lambda run: score(run).retrieval.to_dict(),
    "sweep": lambda run: [scored.retrieval.to_dict() for scored, _ in sweep(run, [0.5, 0.7]).rows],
    "clips": lambda run: list_clips(run).lines,
    "report": lambda run: write_report([run.folder.folder], run.folder.folder / "a.html").clips,
    "check": lambda run: check_files(run.folder.folder).folder == run.folder.folder,
    "open": lambda run: open_run_folder(run.folder.folder).pipeline.cluster,
}
# The clustering is not there any more, and the table of clips has no columns of one.
WITHOUT_CLUSTERING = ("clips", "clusters/threshold_0.5/descriptors.parquet", lose)


def make_run(folder: Path, colour_network: Path, threshold: float) -> Run:
    clips = write_colour_clips(folder / "set")
    if threshold != 0.5:  # another run: other people
        text = clips.read_text().replace("red/val,red", "red/val,green")
        clips.write_text(text)
    path = write_colour_pipeline(folder / "a.toml", clips, colour_network)
    pipeline = load_pipeline(path)
    run = open_run(replace(pipeline, run=replace(pipeline.run, dir=folder / "run")))
    extract(run)
    cluster(run, 0.5)
    score(run)
    sweep(run, [0.5, 0.7])
    return run


@pytest.fixture(scope="module")
def runs(colour_network: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("damage")
    return (
        make_run(folder / "whole", colour_network, 0.5),
        make_run(folder / "other", colour_network, 0.6),
    )


def file_of(run: Run, kind: str) -> Path:
    [path] = (p for p in run.folder.folder.glob(kind) if "curves" not in p.name)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_figures_or_one_line(runs: tuple[Run, Run], tmp_path: Path, kind: str) -> None:
    whole, other = runs
    for stage, work in STAGES.items():
        right = work(copy_of(whole, tmp_path / stage))
        for damage in DAMAGES:
            run = copy_of(whole, tmp_path / f"{stage}_{damage.__name__}")
            damage(file_of(run, kind), file_of(other, kind))
            try:
                came = work(run)
            except VidfaceError as error:
                came = str(error)
            if isinstance(came, str):
                assert len(came.splitlines()) == 1, came
            elif (stage, kind, damage) != WITHOUT_CLUSTERING:
                assert repr(came) == repr(right), (stage, damage.__name__)


def copy_of(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder.folder, folder)
    return replace(run, folder=RunFolder(folder))
