"""A protocol is added by one file and one row: flags, keys, sweeps and the report know it then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import open_run
from vidface.settings.pipeline import load_pipeline

FILE = '''
"""How many clips have a near neighbour."""

from dataclasses import dataclass

from vidface.core.settings import setting
from vidface.metrics.figures import FigureList, NamedFigure
from vidface.metrics.protocols.base import ScoringProtocol, ScoringTask


@dataclass(frozen=True)
class ToyProtocol(ScoringProtocol):
    """Share of the clips whose nearest other clip is near enough."""

    least_cosine: float = setting(
        0.5, help="Lowest cosine of two clips that are near each other.", bounds="[-1, 1]"
    )

    def score(self, task: ScoringTask) -> FigureList:
        cosines = task.descriptors @ task.descriptors.T
        cosines[range(len(cosines)), range(len(cosines))] = -1
        share = float((cosines.max(axis=1) >= self.least_cosine).mean())
        return FigureList((NamedFigure("near_share", "clips with a near one", share),))
'''

ROW = 'PROTOCOLS["toy"] = ToyProtocol'

COMMAND = f"""
from toy_protocol import ToyProtocol
from vidface.metrics.protocols import PROTOCOLS

{ROW}

from vidface.cli.commands import main

main()
"""


@pytest.fixture
def toy(colour_pipeline: Path, tmp_path: Path) -> Any:
    """The command line with the toy, in the folder of a run that is ready to be scored."""
    (tmp_path / "toy_protocol.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "vidface_with_toy.py").write_text(COMMAND, encoding="utf-8")
    run = open_run(load_pipeline(colour_pipeline))
    extract(run)
    cluster(run, 0.5)

    def call(command: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "vidface_with_toy.py", command, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_a_protocol_is_one_file_and_one_row(toy: Any, colour_pipeline: Path) -> None:
    here = ("--pipeline", str(colour_pipeline))
    assert "--least-cosine" in toy("score", "--help-all")

    flags = (*here, "--protocols", "toy", "--json", "--least-cosine")
    shares = [json.loads(toy("score", *flags, cosine))["toy"] for cosine in ("-1", "1")]
    assert [share["near_share"]["value"] for share in shares] == [1, 0]

    with colour_pipeline.open("a", encoding="utf-8") as file:
        file.write('[score]\nprotocols = "toy"\nleast_cosine = -1\n')
    assert "clips with a near one  1.0000" in toy("score", *here)
    swept = json.loads(toy("sweep", *here, "--thresholds", "0.3,0.5", "--json"))
    assert [row["toy"]["near_share"]["value"] for row in swept["rows"]] == [1, 1, 1]
    assert "clips with a near one" in toy("sweep", *here, "--thresholds", "0.3")
    settings = swept["provenance"]["settings"]
    assert (settings["score.protocols"], settings["score.least_cosine"]) == (["toy"], -1)


def test_the_report_shows_its_figure(toy: Any, colour_pipeline: Path, tmp_path: Path) -> None:
    here = ("--pipeline", str(colour_pipeline))
    toy("score", *here, "--protocols", "toy", "--least-cosine", "-1")
    toy("report", "run", "--out", "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "near_share" in page or "near share" in page
