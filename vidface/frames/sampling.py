"""Frames of a clip at a steady rate, chosen by presentation time, and still pictures.

`sample_frames` answers "which frame is on the screen at start + k / fps?" for k = 0, 1, 2, …
A frame is shown from its own presentation time until the next frame's, the last one for its
duration; times are exact fractions on the file's own ticks. A stride ("every third frame") drifts
at 25 or 29.97 FPS and is wrong at a variable rate.

Two decoders, both measured against frames that ffmpeg produced (tests/make_golden_clips.py):

| case                      | pyav (default)                   | decord 0.6                        |
|---------------------------|----------------------------------|-----------------------------------|
| 24 … 50 FPS, variable     | right                            | right, but float32 times: an      |
|                           |                                  | exact tie can go to its neighbour |
| rotation                  | mended here (display matrix)     | applied; a quarter turn raises if |
|                           |                                  | rows are not a multiple of 64 B   |
| flip                      | mended here                      | not applied, silently             |
| pixels that aren't square | stretched here, none is lost     | refused: the message names it     |
| HLG, PQ (HDR)             | mapped to SDR here (BT.2390)     | refused: the message names it     |
| edit list                 | right                            | counts the pre-roll: a longer clip|
| MPEG-TS                   | right                            | one GOP off, silently             |
| AVI                       | mended here (no times of its own)| often no usable times: raises     |
| AV1                       | right                            | raises                            |
| odd width                 | right                            | chroma up to 47 of 255 off        |
| 10 bits, interlaced       | right, but chroma up to 55 of    | the same; interlaced MPEG-TS is   |
|                           | 255 off at edges                 | one GOP off                       |
| two video streams         | the default one, as ffprobe      | the first one                     |
| animated GIF              | right                            | raises                            |
| the clock starts anew     | goes on counting where the       | as its own times say              |
|                           | container has no single clock    |                                   |
| the file ends too early   | mended here: frames, then raises | raises, or silent (MKV, AVI, FLV) |
| corrupt in mid-stream     | frames before it (keep_damaged:  | raises                            |
|                           | and behind it), then raises      |                                   |
| damage that is only logged| one thread: raises at the end    | not measured                      |

What neither can know: that a file without a declared length (MPEG-TS, a live recording) was cut.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction

from vidface.core.errors import VidfaceError
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.frames.common import Frame, VideoSource, Window
from vidface.frames.decoders import DECODERS, DEFAULT_DECODER, Decoder


def sample_frames(
    source: VideoSource,
    fps: float = 8,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    decoder: str = DEFAULT_DECODER,
    threads: int = 0,
    name: str | None = None,
    on_frame: Callable[[], None] | None = None,
    rules: ReadingRules = NEW_RULES,
    keep_damaged: bool = False,
) -> Iterator[Frame]:
    """Yield the frame being shown at start_seconds + k / fps, for k = 0, 1, 2, … up to the end.

    The end, not itself included, is end_seconds or the last frame's time plus its duration,
    whichever comes first. Times count from the first frame shown. Streams: memory does not grow
    with the clip, and the file is closed when the generator is. A start beyond the clip's end
    yields nothing. The clip is always decoded from its beginning, also for a late window.

    source: path, or a seekable binary file object (read from its beginning, not closed).
    fps: frames per second, > 0; the exact decimal that it prints as.
    decoder: a key of DECODERS.
    threads: of the decoder; 0 = as many as it likes. One is best where clips run side by side,
        and finds more damage: what libav only logs (vidface/frames/log.py).
    name: the source in messages; default: the path.
    on_frame: called at every decoded frame, yielded or not: a sign of life.
    rules: of the run that the clip is read for; older runs keep theirs.
    keep_damaged: what is certain behind damage is yielded too, from a picture on that builds on no
        other, before the error is raised. Nothing is yielded for the moments between.

    Raises VidfaceError at the call for impossible arguments; while iterating ClipError:
    "no_video_stream" (none, or none with a frame), "corrupt" (not a video, or damaged: at the
    point of the damage), "truncated" (after the last frame: the file ends before the length it
    declares). Nothing is raised for damage behind end_seconds.

    >>> next(sample_frames("clip.mp4", fps=0))
    Traceback (most recent call last):
    vidface.core.errors.VidfaceError: fps=0: frames per second must be a number above 0
    """
    if name is None:
        path = source if isinstance(source, str | os.PathLike) else None
        name = str(getattr(source, "name", "a file object")) if path is None else os.fspath(path)
    if decoder not in DECODERS:
        raise VidfaceError(
            f"Decoder '{decoder}' is not known. Known: {', '.join(sorted(DECODERS))}"
        )
    if not (math.isfinite(fps) and fps > 0):
        raise VidfaceError(f"fps={fps}: frames per second must be a number above 0")
    start = _seconds(start_seconds, "start_seconds")
    stop = _seconds(end_seconds, "end_seconds")
    if stop is not None and stop <= (start or 0):
        raise VidfaceError(
            f"{name}: end_seconds={end_seconds} is not after start_seconds={start_seconds or 0}"
        )
    window = Window(
        1 / Fraction(str(fps)), start or Fraction(0), stop, on_frame, rules, keep_damaged
    )
    return _frames(DECODERS[decoder], source, name, window, threads)


def _frames(
    decoder: Decoder, source: VideoSource, name: str, window: Window, threads: int
) -> Iterator[Frame]:
    with contextlib.closing(decoder.decode(source, name, window, threads)) as pictures:
        for k, begin, image in pictures:
            yield Frame(k, float(window.start + k * window.step), float(begin), image)


def _seconds(value: float | None, what: str) -> Fraction | None:
    if value is None:
        return None
    if not (math.isfinite(value) and value >= 0):
        raise VidfaceError(f"{what}={value}: must be a number of seconds, 0 or more")
    return Fraction(str(value))
