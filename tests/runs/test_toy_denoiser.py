"""A denoiser is added by one file and one row: flags, keys, sweeps and the report know it then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidface.runs.extraction import extract
from vidface.runs.run import open_run
from vidface.settings.pipeline import load_pipeline

FILE = '''
"""The denoiser "near-first": the faces that are similar to the first of their clip."""

from dataclasses import dataclass
from typing import ClassVar

from vidface.core.settings import setting
from vidface.noise.denoisers.base import ThresholdDenoiser


@dataclass(frozen=True)
class NearFirst(ThresholdDenoiser):
    """Keep the faces whose cosine to the mean of the first ones is above the threshold."""

    makes_clusters: ClassVar[bool] = False

    first_faces: int = setting(
        1, help="How many first faces of a clip say whom it shows.", bounds="[1, inf)"
    )

    def label(self, faces):
        if self.threshold is None:
            return faces.label_unclustered(None)

        def find_dropped(unit):
            return unit @ unit[: self.first_faces].mean(axis=0) <= self.threshold

        return faces.label_each_clip(find_dropped, ranked=False)
'''

ROW = 'DENOISERS["near-first"] = NearFirst'

COMMAND = f"""
from near_first import NearFirst
from vidface.noise.denoisers import DENOISERS

{ROW}

from vidface.cli.commands import main

main()
"""


@pytest.fixture
def toy(colour_pipeline: Path, tmp_path: Path) -> Any:
    """The command line with the toy, in the folder of a run that is extracted."""
    (tmp_path / "near_first.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "vidface_with_toy.py").write_text(COMMAND, encoding="utf-8")
    extract(open_run(load_pipeline(colour_pipeline)))

    def call(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "vidface_with_toy.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return call


@pytest.mark.slow
def test_a_denoiser_is_one_file_and_one_row(
    toy: Any, colour_pipeline: Path, tmp_path: Path
) -> None:
    here = ("--pipeline", str(colour_pipeline))
    assert "--first-faces" in toy("cluster", "--help")
    assert "near-first" in toy("cluster", *here, "--method", "near-last", code=2)
    wrong = toy("cluster", *here, "--first-faces", "0", code=2)
    assert "--first-faces: must be at least 1, not 0" in wrong

    # By flags: own faces and intruders alternate, so that the mean of five is near the own ones.
    flags = (*here, "--method", "near-first")
    made = json.loads(toy("cluster", *flags, "--first-faces", "1", "--json"))
    assert (made["kept"], made["settings"]["cluster.first_faces"]) == (20, 1)
    other = json.loads(toy("cluster", *flags, "--first-faces", "5", "--json"))
    assert (other["kept"], other["settings"]["cluster.threshold"]) == (20, 0.5)
    names = {path.name for path in (tmp_path / "run" / "clusters").iterdir()}
    assert names == {f"near-first.threshold_0.5.first_faces_{n}" for n in (1, 5)}
    listed = json.loads(toy("clips", *flags, "--first-faces", "1", "--json"))
    assert listed["clustering"]["cluster.method"] == "near-first"
    assert "near-first, threshold 0.5, first faces 5" in toy("clips", *here)  # made last

    # By the pipeline file, in a sweep and in the report.
    text = colour_pipeline.read_text(encoding="utf-8")
    text = text.replace("[cluster]", '[cluster]\nmethod = "near-first"\nfirst_faces = 2')
    colour_pipeline.write_text(text, encoding="utf-8")
    toy("cluster", *here)
    assert "near-first, threshold 0.5, first faces 2" in toy("score", *here)
    swept = json.loads(toy("sweep", *here, "--thresholds", "0.3,0.5", "--json"))
    assert [row["denoised"]["kept"] for row in swept["rows"]] == [26, 26, 11]
    # The mean of two colours at right angles has a cosine of 0.5 to each, which is not above 0.5.
    assert swept["provenance"]["settings"]["cluster.first_faces"] == 2
    toy("report", "run", "--out", "report.html")
    assert "near-first" in (tmp_path / "report.html").read_text(encoding="utf-8")
