"""Does the peak memory of an extraction grow with the number of clips?

    python benchmarks/bench_memory.py --clips 250,1000,4000

Extracts sets of one-frame clips (aligned noise) with an untrained y1, each in a process of its own,
and prints the peak of its resident memory and what a further clip adds. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from vidface.backbones.architectures import find_architecture
from vidface.backbones.files import save_safetensors
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.faces.settings import FaceSettings
from vidface.runs.clip_extraction import extract_clips
from vidface.runs.run import Run
from vidface.runs.run_folder import RunFolder
from vidface.settings.manifests import read_manifest
from vidface.settings.pipeline import ManifestSettings, Pipeline
from vidface.settings.run_settings import RunSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", default="250,1000,4000")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), Path(options.child[1]), Path(options.child[2]))
        return
    sizes = [int(n) for n in options.clips.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "y1.safetensors"
        save_safetensors(find_architecture("y1").build(), weights, "y1", Preprocessing())
        load_backbone(weights)  # exports it and holds the trial, so that every child finds the same
        lines = ["clip_id,path,identity,split"]
        rng = np.random.default_rng(0)
        for number in range(max(sizes)):
            clip = folder / "clips" / str(number)
            clip.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (112, 112, 3), np.uint8)).save(clip / "0.bmp")
            lines.append(f"{number},clips/{number},p{number % 50},val")
        peaks = []
        for size in sizes:
            manifest = folder / f"{size}.csv"
            manifest.write_text("\n".join(lines[: size + 1]))
            command = [
                sys.executable,
                __file__,
                "--child",
                manifest,
                weights,
                folder / f"run{size}",
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append(int(done.stdout.split()[-1]))
            print(f"{size:>8} clips: peak {peaks[-1] / 1024:.1f} MiB", flush=True)
    for (small, low), (large, high) in zip(
        zip(sizes, peaks, strict=True), zip(sizes[1:], peaks[1:], strict=True), strict=False
    ):
        print(f"{small} → {large}: {(high - low) / (large - small):+.2f} KiB a clip")


def child(manifest: Path, weights: Path, run: Path) -> None:
    backbone = load_backbone(weights, threads=2)
    aligned = FaceSettings(source="aligned")
    pipeline = Pipeline(ManifestSettings(manifest), RunSettings(run), faces=aligned)
    extract_clips(Run(pipeline, read_manifest(manifest), RunFolder(run), backbone))
    # Not getrusage: its peak is handed down from the parent, which loaded more than the child does.
    status = Path("/proc/self/status").read_text().split()
    print(status[status.index("VmHWM:") + 1])


if __name__ == "__main__":
    main()
