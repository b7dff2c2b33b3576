"""A person, then one picture of somebody else for six seconds, as an encoder makes them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from vidface.runs.clips import list_clips
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import open_run
from vidface.settings.pipeline import load_pipeline

SHAPE = "scale=320:180,setsar=1,fps=30"


@pytest.mark.slow
@pytest.mark.usefixtures("weights_at_hand")
def test_a_still_outvotes_the_person_unless_pictures_vote(
    data: Path, ffmpeg: str, tmp_path: Path
) -> None:
    """12 samples of a person and 48 of a still: no two frames of it need be bit-equal."""
    clips, film = data / "clips" / "wlasl", tmp_path / "frozen.mp4"
    still = f"[1:v]trim=end_frame=1,{SHAPE},loop=loop=179:size=1[still]"
    subprocess.run(
        [ffmpeg, "-v", "error",
         "-i", clips / "08592.mp4", "-i", clips / "65483.mp4",
         "-filter_complex", f"[0:v]{SHAPE}[person];{still};[person][still]concat",
         "-c:v", "libx264", "-pix_fmt", "yuv420p", film],
        check=True,
    )  # fmt: skip
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"clip_id,path,identity,split\nfrozen,{film},a,val\n", encoding="utf-8")
    overrides = {("manifest", "path"): str(manifest), ("run", "dir"): str(tmp_path / "run")}
    run = open_run(load_pipeline("wlasl", overrides))
    assert extract(run).faces == 60

    counted = Denoising().with_threshold(0.4)
    cluster(run, counted)
    [line] = list_clips(run, counted).lines
    assert (line.kept, line.dropped, line.flags) == (48, 12, ("still",))
    assert line.still_share == pytest.approx(0.8)
    once = replace(counted, repeats="once")
    cluster(run, once)
    [line] = list_clips(run, once).lines
    assert (line.kept, line.dropped, line.flags) == (12, 48, ("still",))
