"""What ffmpeg, the program, makes of a file: its errors, its frames, the length that it states.

The judgement (`Verdict.faults`), of the video stream alone and with ffmpeg's default settings:
    it ends with another exit code than 0;
    a line of level error or worse, whoever says it (demuxer, decoder, ffmpeg itself);
    a frame that is marked corrupt ("corrupt decoded frame"), or a decode error in its summary;
    no frame at all;
    the frames end more than 1.5 frames before the length that it prints ("Duration:").
"""

from __future__ import annotations

import itertools
import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

STRIDE = 8  # every 8th pixel of every 8th row tells frames apart


@dataclass(frozen=True)
class Verdict:
    """Of one file.

    frames: (seconds after the first, picture) in the order of being shown; the pictures are
        (rows, columns, 3) uint8 RGB, every STRIDE-th pixel.
    """

    exit_code: int
    errors: tuple[str, ...]
    declared_seconds: float | None
    end_seconds: float  # of the last frame, after the first one's beginning
    gap_seconds: float  # the longest between two frames
    frames: tuple[tuple[Fraction, np.ndarray], ...]

    def __str__(self) -> str:
        return f"{len(self.frames)} frames, {self.end_seconds:.2f} s, faults {self.faults}"

    @property
    def faults(self) -> tuple[str, ...]:
        """Empty: a sound film."""
        faults = list(self.errors)
        if self.exit_code:
            faults.append(f"exit code {self.exit_code}")
        if not self.frames:
            faults.append("no frame")
        elif self.declared_seconds is not None:
            missing = self.declared_seconds - self.end_seconds
            if missing > 1.5 * self.gap_seconds + 0.01:  # printed in hundredths
                faults.append(f"{missing:.2f} s of {self.declared_seconds:.2f} s missing")
        return tuple(faults)


def judge(ffmpeg: str, path: Path) -> Verdict:
    """Decode all of the first video stream."""
    command = f"{ffmpeg} -nostdin -hide_banner -nostats -threads 1 -v level+verbose -i"
    output = "-map 0:v:0 -vf showinfo -fps_mode passthrough -f rawvideo -pix_fmt rgb24 -"
    run = subprocess.run(
        [*command.split(), str(path), *output.split()], capture_output=True, timeout=120
    )
    log = run.stderr.decode(errors="replace")
    lines = [re.sub(r" @ (0x)?[0-9a-f]+", "", line) for line in log.splitlines()]
    errors = [line for line in lines if re.search(r"\[(error|fatal|panic)\]|corrupt", line)]
    errors += [line for line in lines if re.search(r"[1-9]\d* decode errors", line)]
    stated = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d\d)", log)
    declared = None
    if stated:
        hours, minutes, seconds = stated.groups()
        declared = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    frames, end, gap = _frames(log, run.stdout)
    return Verdict(run.returncode, tuple(errors), declared, end, gap, frames)


def _frames(
    log: str, pixels: bytes
) -> tuple[tuple[tuple[Fraction, np.ndarray], ...], float, float]:
    shown = re.findall(r" n: *\d+ pts: *(-?\d+) .* duration: *(\d+) .* s:(\d+)x(\d+) ", log)
    if not shown:
        return (), 0.0, 0.0
    base = Fraction(re.findall(r"config in time_base: (\d+/\d+)", log)[0])
    # A change of size in mid-film is scaled to the first one's.
    width, height = (int(v) for v in shown[0][2:])
    images = np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)[:, ::STRIDE, ::STRIDE]
    ticks = [int(row[0]) for row in shown]
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    last = int(shown[-1][1]) or (gaps[-1] if gaps else 0)
    frames = tuple(
        ((tick - ticks[0]) * base, image) for tick, image in zip(ticks, images, strict=False)
    )
    end = float((max(ticks) + last - ticks[0]) * base)
    return frames, end, float(max([*gaps, last]) * base)
