"""Make the clips and the golden frames in tests/golden with ffmpeg; test_frames.py compares.

    python tests/make_golden_clips.py [--ffmpeg PATH] [--only CASE ...]

Needs an ffmpeg with libx264, libx265, libvpx-vp9 and libaom (default: `ffmpeg` on PATH, else the
one in the wheel imageio-ffmpeg); made with 9.0. Nothing here imports vidface: ffmpeg decodes every
frame (`-fps_mode passthrough`, rotation applied) and states its time (`showinfo`), and the naive
rule in `frame_shown` picks the frames.

Every frame carries its number n as eight blocks, the bits of n + 1, four on top of four, so that
neighbours differ in a whole block at least. Per case, tests/golden holds the clip and an .npz:
    ticks (n,) int64, tick_seconds (2,) int64: each frame's time, numerator and denominator
    end_tick int64: the last frame's time plus its duration
    numbers (n,) int64: the number read off each of ffmpeg's frames; empty if the clip is turned
    shown (k,) int64: which of the n frames is shown at k / 8 s after the first
    images (n_shown, height, width, 3) uint8: the frames that occur in `shown`, ascending
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
LIT, DARK = (230, 200, 40), (20, 60, 120)  # not grey: a swapped channel or matrix shows
# sc_threshold 0: no keyframes but those of -g, or an edit list has no pre-roll to leave out.
X264 = "-c:v libx264 -preset veryfast -crf 24 -sc_threshold 0 -pix_fmt yuv420p"


@dataclass(frozen=True)
class Case:
    """A clip: `count` drawn frames at `rate`, encoded with `encode`, then perhaps remuxed."""

    name: str  # with its extension
    rate: str
    count: int
    encode: str  # ffmpeg's output options
    remux: tuple[str, str] | None = None  # (input options, output options) of a stream copy
    width: int = 64  # pixels
    height: int = 48
    audio_seconds: float = 0
    turned: bool = False
    stream: int = 0  # which of the video streams is the film


# A second video stream: the same film back to front in time and at another rate.
TWO_STREAMS = "-filter_complex [0:v]split[a][b];[b]reverse,fps=50[c]"
ALPHA = "-vf format=rgba,colorchannelmixer=aa=0.5"

CASES = [
    Case("fps24.mp4", "24", 48, f"{X264} -bf 0"),
    Case("fps25.mp4", "25", 50, f"{X264} -bf 0 -g 12 -movflags +faststart"),
    Case("fps2997.mp4", "30000/1001", 60, f"{X264} -bf 0"),
    Case("fps30_bt709.mp4", "30", 60, f"{X264} -vf scale=out_color_matrix=bt709 -colorspace bt709"),
    Case("fps50.mp4", "50", 100, f"{X264} -bf 0"),
    Case("fps8.mp4", "8", 16, f"{X264} -bf 0"),
    Case("fps5.mp4", "5", 10, f"{X264} -bf 0"),
    Case("single.mp4", "25", 1, X264),
    Case(
        "vfr.mp4",
        "30",
        75,
        f"{X264} -bf 2 -vf select='gt(mod(n*7\\,11)\\,4)' -fps_mode passthrough",
    ),
    Case(
        "vfr.mkv",
        "30",
        75,
        f"{X264} -bf 2 -vf select='gt(mod(n*7\\,11)\\,4)' -fps_mode passthrough",
    ),
    Case("bframes.mp4", "25", 50, f"{X264} -bf 3 -b_strategy 0 -g 24 -movflags +faststart"),
    Case(
        "hevc.mov", "30", 45, "-c:v libx265 -x265-params log-level=0 -pix_fmt yuv420p -tag:v hvc1"
    ),
    Case("rot90.mp4", "25", 25, X264, ("-display_rotation 90", ""), turned=True),
    Case("rot180.mp4", "25", 25, X264, ("-display_rotation 180", ""), turned=True),
    Case("rot270.mp4", "25", 25, X264, ("-display_rotation 270", ""), turned=True),
    Case("flip.mp4", "25", 25, X264, ("-display_hflip", ""), turned=True),
    Case("rot90flip.mp4", "25", 25, X264, ("-display_rotation 90 -display_hflip", ""), turned=True),
    Case("editlist.mp4", "25", 60, f"{X264} -bf 0 -g 60", ("-ss 0.6", "")),
    Case("editlist_bframes.mp4", "25", 60, f"{X264} -bf 2 -g 60", ("-ss 0.6", "")),
    Case("start.mkv", "25", 50, f"{X264} -bf 2", ("", "-output_ts_offset 1.48")),
    Case("start.mp4", "25", 50, f"{X264} -bf 2 -output_ts_offset 1.48", audio_seconds=3),
    Case("ts.ts", "25", 60, f"{X264} -bf 2 -g 12"),
    Case("av1.mkv", "25", 40, "-c:v libaom-av1 -cpu-used 8 -crf 40 -pix_fmt yuv420p"),
    Case("vp9.webm", "25", 40, "-c:v libvpx-vp9 -crf 36 -b:v 0 -pix_fmt yuv420p"),
    Case("odd.webm", "25", 25, "-c:v libvpx-vp9 -crf 36 -b:v 0 -pix_fmt yuv420p", None, 67, 51),
    Case("h264.avi", "25", 50, f"{X264} -bf 2"),
    Case("mpeg4.avi", "25", 50, "-c:v mpeg4 -bf 2 -q:v 4"),
    Case("long_audio.mp4", "25", 30, f"{X264} -movflags +faststart", audio_seconds=3),
    Case("long_audio.mkv", "25", 30, X264, audio_seconds=3),
    Case("two_first.mp4", "25", 25, f"{TWO_STREAMS} -map [a] -map [c] {X264}"),
    Case(
        "two_second.mkv",
        "25",
        25,
        f"{TWO_STREAMS} -map [c] -map [a] {X264} -disposition:v:0 0 -disposition:v:1 default",
        stream=1,
    ),
    Case("alpha.webm", "25", 20, f"{ALPHA} -c:v libvpx-vp9 -pix_fmt yuva420p -crf 36 -b:v 0"),
    Case("alpha_png.mov", "25", 20, f"{ALPHA} -c:v png -pix_fmt rgba"),
    Case("alpha_prores.mov", "25", 20, f"{ALPHA} -c:v prores_ks -pix_fmt yuva444p10le"),
    Case("alpha.gif", "25", 20, "-vf format=rgba,colorkey=0x143C78:0.1"),
    Case("ten_bit.mkv", "25", 25, "-c:v libx265 -x265-params log-level=0 -pix_fmt yuv420p10le"),
    Case("ten_bit.webm", "25", 25, "-c:v libvpx-vp9 -crf 36 -b:v 0 -pix_fmt yuv420p10le"),
    Case("ten_bit.mp4", "25", 25, f"{X264} -bf 2 -pix_fmt yuv422p10le"),
    Case("odd.mp4", "25", 25, f"{X264} -bf 2 -pix_fmt yuv444p", None, 67, 51),
    Case("interlaced.mp4", "25", 25, f"{X264} -bf 2 -x264-params tff=1"),
    Case("interlaced.ts", "25", 25, "-c:v mpeg2video -vf setfield=tff -flags +ilme+ildct -q:v 4"),
    Case("open_gop.mkv", "25", 60, f"{X264} -bf 3 -g 12 -x264-params open-gop=1:b-pyramid=2"),
]

# Clips with a texture, whose bytes are picture more than header: media_mutants.py damages them.
# They have no .npz.
TEXTURE = "-vf noise=alls=30:allf=t:all_seed=7"
SOURCES = [
    Case("rich.mp4", "25", 30, f"{TEXTURE} {X264} -bf 2 -g 15"),
    Case("rich.mkv", "25", 30, f"{TEXTURE} {X264} -bf 0 -g 10"),
    Case("rich.avi", "25", 30, f"{TEXTURE} -c:v mpeg4 -q:v 12 -g 10"),
    Case("rich.mov", "25", 15, f"{TEXTURE} -c:v mjpeg -q:v 14 -pix_fmt yuvj420p"),
    Case("rich.webm", "25", 30, f"{TEXTURE} -c:v libvpx-vp9 -crf 44 -b:v 0 -pix_fmt yuv420p"),
]


def draw(number: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB with the bits of number + 1."""
    image = np.empty((height, width, 3), np.uint8)
    for bit in range(8):
        row, column = divmod(bit, 4)
        block = np.s_[
            row * height // 2 : (row + 1) * height // 2,
            column * width // 4 : (column + 1) * width // 4,
        ]
        image[block] = LIT if (number + 1) >> bit & 1 else DARK
    return image


def number_in(image: np.ndarray) -> int:
    """The inverse of draw, through compression: the middle of each block is light or dark."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(8):
        row, column = divmod(bit, 4)
        y, x = (2 * row + 1) * height // 4, (2 * column + 1) * width // 8
        number |= int(image[y - 4 : y + 4, x - 2 : x + 2, :2].mean() > 125) << bit
    return number - 1


def frame_shown(ticks: list[int], tick_seconds: Fraction, seconds: Fraction) -> int:
    """The last frame whose time after the first is not behind `seconds`."""
    answer = 0
    for index, tick in enumerate(ticks):
        if (tick - ticks[0]) * tick_seconds <= seconds:
            answer = index
    return answer


def make_clip(ffmpeg: str, case: Case, target: Path) -> None:
    """Draw, encode and, where the case says so, copy the stream into `target`."""
    film = b"".join(draw(n, case.width, case.height).tobytes() for n in range(case.count))
    size = f"{case.width}x{case.height}"
    command = f"{ffmpeg} -v error -y -f rawvideo -pix_fmt rgb24 -s {size} -r {case.rate} -i -"
    if case.audio_seconds:
        command += f" -f lavfi -i sine=duration={case.audio_seconds}"
    with tempfile.TemporaryDirectory() as folder:
        encoded = Path(folder, target.name) if case.remux else target
        options = [option.strip("'") for option in case.encode.split()]
        options = [option.replace("='", "=").replace("'", "") for option in options]
        subprocess.run([*command.split(), *options, str(encoded)], input=film, check=True)
        if case.remux:
            before, after = (options.split() for options in case.remux)
            copy = [*before, "-i", str(encoded), "-c", "copy", *after, str(target)]
            subprocess.run([ffmpeg, "-v", "error", "-y", *copy], check=True)


def golden_of(ffmpeg: str, case: Case, clip: Path) -> dict[str, np.ndarray]:
    """What ffmpeg decodes from the clip, see the top of this file."""
    command = (
        f"{ffmpeg} -nostats -i {clip} -map 0:v:{case.stream} -vf showinfo -fps_mode passthrough"
    )
    command += " -f rawvideo -pix_fmt rgb24 -"
    run = subprocess.run(command.split(), capture_output=True, check=True)
    log = run.stderr.decode(errors="replace")
    base = Fraction(re.findall(r"config in time_base: (\d+/\d+)", log)[-1])
    lines = re.findall(r" n: *\d+ pts: *(-?\d+) pts_time:\S+ +duration: *(\d+)", log)
    height, width = (int(v) for v in re.findall(r" s:(\d+)x(\d+) ", log)[0][::-1])
    images = np.frombuffer(run.stdout, np.uint8).reshape(-1, height, width, 3)
    ticks = [int(pts) for pts, _ in lines]
    if len(ticks) != len(images) or ticks != sorted(set(ticks)):
        raise SystemExit(f"{case.name}: {len(ticks)} times for {len(images)} frames, or unsorted")
    end = ticks[-1] + (int(lines[-1][1]) or ticks[-1] - ticks[-2])
    shown, k = [], 0
    while Fraction(k, 8) < (end - ticks[0]) * base:
        shown.append(frame_shown(ticks, base, Fraction(k, 8)))
        k += 1
    return {
        "ticks": np.array(ticks),
        "tick_seconds": np.array([base.numerator, base.denominator]),
        "end_tick": np.array(end),
        "numbers": np.array([] if case.turned else [number_in(i) for i in images], np.int64),
        "shown": np.array(shown),
        "images": images[sorted(set(shown))],
    }


def find_ffmpeg() -> str:
    """`ffmpeg` on PATH, else imageio-ffmpeg's."""
    if on_path := shutil.which("ffmpeg"):
        return on_path
    try:
        import imageio_ffmpeg
    except ImportError:
        raise SystemExit("No ffmpeg on PATH: install it, or pip install imageio-ffmpeg") from None
    return imageio_ffmpeg.get_ffmpeg_exe()


def main() -> None:
    """Make all cases, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ffmpeg", help="path of the binary")
    parser.add_argument("--only", nargs="*", help="names of cases, such as fps25.mp4")
    arguments = parser.parse_args()
    ffmpeg = arguments.ffmpeg or find_ffmpeg()
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES + SOURCES:
        if arguments.only and case.name not in arguments.only:
            continue
        clip = GOLDEN / case.name
        make_clip(ffmpeg, case, clip)
        if case in SOURCES:
            print(f"{case.name}: {clip.stat().st_size} bytes")
            continue
        golden = golden_of(ffmpeg, case, clip)
        np.savez_compressed(f"{clip}.npz", **golden)
        numbers = golden["numbers"]
        print(f"{case.name}: {len(golden['ticks'])} frames, {len(golden['shown'])} samples", end="")
        print(f", numbers {numbers[0]}..{numbers[-1]}" if len(numbers) else "")


if __name__ == "__main__":
    main()
