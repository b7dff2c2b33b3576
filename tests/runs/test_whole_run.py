"""All stages of a run in one call, and who is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidface.core.errors import VidfaceError
from vidface.runs.run import open_run
from vidface.runs.whole_run import Watcher, run_demo, run_stages
from vidface.settings.pipeline import load_pipeline


def test_stages_are_told_in_their_order(colour_pipeline: Path) -> None:
    run = open_run(load_pipeline(colour_pipeline))
    told: list[str] = []
    watcher = Watcher(
        on_extracted=lambda summary: told.append(f"{summary.clips} clips"),
        on_clustered=lambda denoised: told.append(f"{denoised.summary()['dropped']} dropped"),
    )
    results = run_stages(run, watcher=watcher)
    assert told == ["7 clips", "6 dropped"]
    document = results.to_dict()
    assert document["extraction"]["clips"] == 7
    assert document["cluster"]["kept"] == 20
    assert document["retrieval"]["map_at_100"] == 1.0
    again: list[str] = []
    second = run_stages(run, watcher=Watcher(notify=again.append)).to_dict()
    for part in ("cluster", "retrieval", "verification"):
        assert second[part] == document[part]
    assert any("already done" in line for line in again)


def test_what_cannot_be_scored_is_refused_before_anything_is_extracted(
    colour_pipeline: Path,
) -> None:
    run = open_run(load_pipeline(colour_pipeline))
    with pytest.raises(VidfaceError, match="--split test: no clip of the manifest is in it"):
        run_stages(run, split="test")
    assert not run.folder.clips_path.exists()


def test_the_demo_scores_without_and_with_noise_removal(colour_pipeline: Path) -> None:
    run = open_run(load_pipeline(colour_pipeline))
    results = run_demo(run)
    document = results.to_dict()
    assert list(document) == ["extraction", "before", "after", "sweep"]
    assert (document["before"]["threshold"], document["after"]["threshold"]) == (None, 0.5)
    assert len(document["sweep"]["rows"]) == 16
    assert results.denoised.summary()["dropped"] == 6
    there = [run.folder.folder, *run.folder.folder.rglob("*")]
    assert [path for path in there if path.stat().st_mode & 0o077] == []  # its owner's alone
