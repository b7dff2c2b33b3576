"""A few clips of a run, extracted for a trial: what becomes of them, and what all will take."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidface.backbones.loading import open_backbone
from vidface.core.files import can_be_written
from vidface.runs.artefacts import unpack_fixed_lists
from vidface.runs.extraction import extract, fetch_weights
from vidface.runs.profiles import DECODING_STAGES, read_profile
from vidface.runs.remarks import LOOK, OK, STOP, Remark, list_text, size_text
from vidface.runs.run import Run
from vidface.runs.run_folder import RunFolder
from vidface.runs.trying import Trial
from vidface.runs.whole_run import Watcher
from vidface.settings.limiting import choose_clips
from vidface.storage.locks import age_text

SMALL_FACE_PIXELS = 40  # recognisers see 112: less than that is mostly made up by scaling
PACE_ERROR = 0.25  # of a pace that was measured once, on a machine that others use, too


def try_clips(run: Run, n: int, watcher: Watcher) -> Iterator[Remark]:
    """Extract a few clips as the run would, into a temporary folder, and say what that tells.

    Raises:
        VidfaceError: what would end the run's extraction, too.
    """
    if not can_be_written(run.folder.folder):
        text = f"{run.folder.folder} cannot be written; choose another --run"
        yield Remark(STOP, "disk", text)
    if run.of_features or n == 0:
        return
    fetch_weights(run, watcher.notify)
    backbone = run.backbone or open_backbone(run.pipeline.backbone, watcher.notify)
    advice: list[str] = []
    trial = Trial(backbone, advice.append)
    trial.try_pictures()
    with tempfile.TemporaryDirectory(prefix="vidface-check-") as folder:
        settings = replace(run.pipeline.run, dir=Path(folder), executor=None, scheduler=None)
        sample = Run(
            replace(run.pipeline, run=settings),
            replace(run.manifest, clips=choose_clips(run.manifest.clips, n, a_turn=1)),
            RunFolder(Path(folder)),
            backbone,
        )
        with watcher.extraction_bar(sample) as progress:
            extract(sample, progress=progress)
        Trial(backbone, advice.append)  # says what the faces told
        forced = trial.forced or sample.folder.read_clips()[1].get("forced")
        passed = f"fails its trial, and is forced ({forced})" if forced else "passed its trial"
        level = LOOK if forced else OK
        yield Remark(level, "recogniser", f"{run.weights_name} {passed}; {backbone.plan}")
        for text in dict.fromkeys(advice):
            yield Remark(LOOK, "recogniser", text)
        yield from describe_faces(sample, "sample")
        yield from _estimate(run, sample)


def describe_faces(run: Run, about: str) -> Iterator[Remark]:
    """What became of the clips of an extraction, and how large their faces are."""
    table, _ = run.folder.read_clips()
    clips = table.select(["clip_id", "state", "message"]).to_pylist()
    n = len(clips)
    states = Counter(clip["state"] for clip in clips)
    frames, bare, faces = (
        int(table[name].to_numpy().sum()) for name in ("frames", "frames_without_face", "faces")
    )
    named = ", ".join(f"{state} {count:,}" for state, count in states.most_common())
    text = f"{n:,} clips ({named}), {frames / n:.1f} frames and {faces / n:.1f} faces each"
    yield Remark(OK, about, text, {"states": dict(states), "frames": frames, "faces": faces})
    bad = [f"{clip['clip_id']}: {clip['message']}" for clip in clips if clip["state"] != "ok"]
    if not faces:
        yield Remark(STOP, about, f"not one face, so nothing to score: {list_text(bad)}")
        return
    if bad:
        text = f"{len(bad):,} of {n:,} without a face or damaged: {list_text(bad)}"
        yield Remark(LOOK, about, text)
    if run.pipeline.faces.source != "detect":
        return
    boxes = [unpack_fixed_lists(shard.table.column("box")) for shard in run.shards()]
    left, top, right, bottom = np.concatenate(boxes).T  # (n_faces,) each
    sides = np.minimum(right - left, bottom - top)
    low, median, high = np.quantile(sides, [0.05, 0.5, 0.95])
    small = float(np.mean(sides < SMALL_FACE_PIXELS))
    yield Remark(
        LOOK if small > 0.5 else OK,
        "faces",
        f"{median:.0f} px is the median of their shorter sides, nine in ten have {low:.0f} to "
        f"{high:.0f}; {small:.0%} are below {SMALL_FACE_PIXELS} px; {bare / frames:.0%} of the "
        "frames show none",
        {
            "quantiles_5_50_95_pixels": [float(low), float(median), float(high)],
            "share_of_small_faces": small,
            "share_of_frames_without_face": bare / frames,
        },
    )


def _estimate(run: Run, sample: Run) -> Iterator[Remark]:
    """Time and disk of all clips, from those of a sample.

    Decoding and embedding go on side by side, so the slower of them sets the pace; what the sample
    took beyond that is the start. Seconds go with frames and bytes with faces, whose mean is off by
    up to twice its standard error.
    """
    table, _ = sample.folder.read_clips()
    profile = read_profile(sample.folder)
    n, n_all = len(table), len(run.manifest.clips)
    decoding = sum(profile.stages.get(stage, 0.0) for stage in DECODING_STAGES)
    pace = max(decoding / min(profile.workers, n), profile.stages.get("embed", 0.0))  # s, of n
    start = max(0.0, profile.wall_seconds - pace)
    off = math.hypot(_relative_error(table["frames"].to_numpy(), n_all), PACE_ERROR)
    seconds = [start + pace * n_all / n * factor for factor in _around(off)]
    elsewhere = " on this machine" if run.pipeline.run.scheduler else ""
    yield Remark(
        OK,
        "time",
        f"{_range_text(seconds, age_text)} for {n_all:,} clips{elsewhere}, by {n} that took "
        f"{age_text(profile.wall_seconds)} with {profile.workers} processes",
        {"extraction_seconds": seconds},
    )
    files = [path for path in sample.folder.folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) * n_all / n
    sizes = [size * factor for factor in _around(_relative_error(table["faces"].to_numpy(), n_all))]
    place = run.folder.folder.absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    level = STOP if size > free else LOOK if sizes[-1] > free else OK
    crops = "and crops" if run.pipeline.faces.keep_crops else "without crops"
    yield Remark(
        level,
        "disk",
        f"{_range_text(sizes, size_text)} for embeddings {crops}; {size_text(free)} are free in "
        f"{there}{'; choose another --run' if level != OK else ''}",
        {"extraction_bytes": sizes, "free_bytes": free},
    )


def _relative_error(counts: np.ndarray, n_all: int) -> float:
    """Twice the standard error of a mean of n of n_all clips, by the mean; 1 where one is too few.

    >>> [_relative_error(np.array([7, 13]), n_all) for n_all in (2, 4)]
    [0.0, 0.42426406871192845]
    """
    n, mean = len(counts), float(counts.mean())
    if n == n_all:
        return 0.0
    if n == 1 or mean == 0:
        return 1.0
    spread = float(counts.std(ddof=1))
    return 2 * spread / mean * math.sqrt((1 - n / n_all) / n)


def _around(off: float) -> tuple[float, float, float]:
    return max(0.0, 1 - off), 1.0, 1 + off


def _range_text(values: Sequence[float], text_of: Callable[[float], str]) -> str:
    least, about, most = map(text_of, values)
    return f"about {about}" + (f" ({least} to {most})" if least != most else "")
