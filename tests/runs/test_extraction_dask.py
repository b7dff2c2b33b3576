"""An extraction on a real scheduler with three worker processes, one of them killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import write_crop
from tests.executor.test_with_dask import Cluster, dask
from tests.runs.test_extraction import content
from vidface.core.errors import VidfaceError
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run, open_run
from vidface.runs.run_folder import STAGING
from vidface.settings.pipeline import load_pipeline

__all__ = ["dask"]  # a fixture
CLIPS = 24

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, colour_clips: Path, colour_pipeline: Path) -> Run:
    lines = ["clip_id,path,identity,split"]
    for number in range(CLIPS):
        for k in range(4):
            write_crop(colour_clips.parent / str(number) / f"{k}.png", "red", seed=number + k)
        lines.append(f"c{number},{number},red,val")
    (colour_clips.parent / "5" / "1.png").write_bytes(b"broken")
    colour_clips.write_text("\n".join(lines))
    return open_run(load_pipeline(colour_pipeline))


def on(run: Run, folder: Path, **how: object) -> Run:
    settings = replace(run.pipeline.run, dir=folder, shard_clips=2, **how)
    return open_run(replace(run.pipeline, run=settings))


def test_a_killed_worker_changes_nothing(dask: Cluster, run: Run, tmp_path: Path) -> None:
    here = on(run, tmp_path / "here")
    extract(here)
    there = on(run, tmp_path / "there", executor="dask", scheduler=dask.address)
    staging = tmp_path / "there" / STAGING / "clips"

    def kill_when_two_are_done() -> None:
        deadline = time.monotonic() + 120
        while len(list(staging.glob("*.parquet"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(dask.workers[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_two_are_done)
    killer.start()
    calls: list[tuple[int, int, int]] = []
    done = extract(there, progress=lambda *n: calls.append(n))
    killer.join()
    assert dask.workers[0].wait(10) == -signal.SIGKILL
    assert sum(n for n, _, _ in calls) == CLIPS
    assert done.failed[0][:2] == ("c5", "corrupt")
    assert content(there.folder) == content(here.folder)
    labels = [
        cluster(each, 0.5).kept.tolist() for each in (here, there)
    ]  # the clustering's shards go to the cluster, too
    assert labels[0] == labels[1]


def test_a_cluster_of_its_own(run: Run, tmp_path: Path) -> None:
    """Without an address it is started, and it ends with the extraction."""
    import psutil

    here, there = on(run, tmp_path / "here"), on(run, tmp_path / "own", executor="dask", workers=2)
    extract(here)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    extract(there)
    assert content(there.folder) == content(here.folder)
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not [p for p in left if "spawn_main" in " ".join(p.cmdline())]


def test_no_scheduler_there(run: Run, tmp_path: Path) -> None:
    there = on(run, tmp_path / "run", executor="dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(VidfaceError, match=r"127\.0\.0\.1:9"):
        extract(there)
