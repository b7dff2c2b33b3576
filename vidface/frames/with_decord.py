"""Frames through decord. Its faults are listed in vidface/frames/sampling.py, not mended."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from fractions import Fraction
from typing import TYPE_CHECKING

from vidface.core.errors import ClipError, VidfaceError
from vidface.frames.common import (
    MAX_GAP_SECONDS,
    MAX_SECONDS_PER_FRAME,
    VideoSource,
    Window,
    corrupt_error,
    freeze_image,
    no_video_error,
    open_or_locate,
    select_shown,
    unreadable_error,
)
from vidface.frames.with_pyav import describe_change

if TYPE_CHECKING:
    import numpy as np

_BATCH = 8  # frames; 8 × 1920 × 1080 × 3 bytes = 50 MB


def decode_with_decord(
    source: VideoSource, name: str, window: Window, threads: int
) -> Generator[tuple[int, Fraction, np.ndarray]]:
    """Decode with decord as it is; see `Decoder.decode`."""
    try:
        import decord
    except (ImportError, OSError) as error:
        raise VidfaceError(
            f"Decoder 'decord' is not installed ({error}): pip install decord, or use 'pyav'"
        ) from error
    import numpy as np

    decord.logging.set_level(decord.logging.QUIET)
    errors = (decord.DECORDError, RuntimeError, OSError, IndexError)

    try:
        file, path = open_or_locate(source)
        if path is not None:
            path.open("rb").close()  # a better message than decord's
    except OSError as error:
        raise unreadable_error(name, error) from error
    change = describe_change(source, window.rules)
    if change is not None:
        raise ClipError(
            f"{name}: {change}, which decord leaves as stored. Use decoder 'pyav'", "corrupt"
        )
    try:
        reader = decord.VideoReader(file or str(path), ctx=decord.cpu(0), num_threads=threads)
        # A list: with a slice it misbehaves. (frames, 2) float32: shown in [begin, end).
        times = reader.get_frame_timestamp(list(range(len(reader)))).astype(float)
    except errors as error:
        if "cannot find video stream" in str(error):
            raise ClipError(
                f"{name}: decord finds no video stream that it can decode. Try decoder 'pyav'",
                "no_video_stream",
            ) from error
        raise corrupt_error(name, error) from error
    if not len(times):
        raise no_video_error(name)
    begins, ends = times[:, 0], times[:, 1]
    bounded = np.isfinite(times).all() and np.abs(times).max() < 1e9
    longest = MAX_GAP_SECONDS + MAX_SECONDS_PER_FRAME * len(times)
    bounded = bounded and ends.max() - begins.min() <= longest
    if not (bounded and (ends - begins).max() <= MAX_GAP_SECONDS):
        raise corrupt_error(name, "decord reads no usable times from it; decoder 'pyav' may")

    origin = Fraction(float(begins[0]))
    order = np.argsort(begins, kind="stable").tolist()
    changes: list[tuple[Fraction, int | None]] = [
        (Fraction(float(begins[i])) - origin, i) for i in order
    ]
    changes.append((Fraction(float(ends[order[-1]])) - origin, None))
    chosen = select_shown(changes, window)
    while batch := list(itertools.islice(chosen, _BATCH)):
        indexes = sorted({i for _, _, i in batch})
        try:
            images = reader.get_batch(indexes).asnumpy()
        except errors as error:
            raise corrupt_error(name, error, batch[0][1]) from error
        by_index = {i: freeze_image(image) for i, image in zip(indexes, images, strict=True)}
        for k, begin, i in batch:
            yield k, begin, by_index[i]
