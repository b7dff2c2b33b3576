"""What the decoders share: the frame, the rule of selection, the errors."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from vidface.core.errors import ClipError, reason
from vidface.core.rules import NEW_RULES, ReadingRules

if TYPE_CHECKING:
    import numpy as np

VideoSource = str | os.PathLike | BinaryIO
Item = TypeVar("Item")

MAX_PIXELS = 2**25  # 8192 x 4096, above 8K television; about seven pictures are held at a time
MAX_GAP_SECONDS = 3600  # that one frame is shown; beyond it the timestamps are damaged
MAX_SECONDS_PER_FRAME = 60  # on average, after the first hour: a small file is no endless film


@dataclass(frozen=True)
class Frame:
    """What is on the screen at one moment. 0 seconds = the first frame shown.

    index: k = 0, 1, 2, …
    time_seconds: the moment asked for, start_seconds + k / fps.
    source_time_seconds: when this picture began to be shown, ≤ time_seconds.
    image: (height, width, 3) uint8 RGB as a player shows it: upright, square pixels, SDR colours.
        C-contiguous and READ-ONLY: a picture that is shown at several k is the same array. Copy
        it to draw on it.
    """

    index: int
    time_seconds: float
    source_time_seconds: float
    image: np.ndarray


@dataclass(frozen=True)
class Window:
    """The moments asked for, seconds: start + k × step in [start, stop); stop None = the end.

    on_frame: called at every decoded frame, one that is not asked for included.
    rules: of the run that the clip is read for.
    keep_damaged: go on behind damage with frames that are certain.
    """

    step: Fraction
    start: Fraction
    stop: Fraction | None
    on_frame: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    rules: ReadingRules = NEW_RULES
    keep_damaged: bool = False


def select_shown(
    changes: Iterable[tuple[Fraction, Item | None]], window: Window
) -> Iterator[tuple[int, Fraction, Item]]:
    """The rule, without any video: (k, begin, item) for each moment of the window.

    changes: (begin_seconds, item), begins not decreasing, the first one 0: from then on the item
    is shown. Item None = nothing is shown from then on (the end, or until the next begin). Of
    several items with the same begin the last one is shown.

    >>> film = [(Fraction(0), "a"), (Fraction(1, 8), "b"), (Fraction(3, 8), None)]
    >>> [(k, item) for k, _, item in select_shown(film, Window(Fraction(1, 8), Fraction(0), None))]
    [(0, 'a'), (1, 'b'), (2, 'b')]
    """
    k, due = 0, window.start
    shown: tuple[Fraction, Item] | None = None
    for begin, item in changes:
        if window.on_frame is not None:
            window.on_frame()
        while shown is not None and due < begin:
            if window.stop is not None and due >= window.stop:
                return
            yield k, *shown
            k += 1
            due = window.start + k * window.step
        if window.stop is not None and due >= window.stop:
            return  # before the decoder is asked for more: damage behind the window is no matter
        if shown is None and due < begin:  # moments at which nothing is shown
            k = math.ceil((begin - window.start) / window.step)
            due = window.start + k * window.step
        shown = None if item is None else (begin, item)


def open_or_locate(source: VideoSource) -> tuple[Any, Path | None]:
    """(file object at its beginning, None) or (None, path); OSError for what hangs if opened."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "a pipe or device, not a file")
        return None, path
    source.seek(0)
    return source, None


def corrupt_error(name: str, why: object, at_seconds: Fraction | None = None) -> ClipError:
    """Not a video, or damaged, perhaps at a known point."""
    where = "" if at_seconds is None else f" at {float(at_seconds):.3f} s"
    text = reason(why)
    return ClipError(
        f"{name}: damaged or not a video{where} ({text}). "
        "Fetch it again, re-encode it or leave it out",
        "corrupt",
    )


def unreadable_error(name: str, error: OSError) -> ClipError:
    """The operating system does not hand it out: nothing is said about its content."""
    return ClipError(f"{name}: cannot be read: {error.strerror or error}", "corrupt")


def no_video_error(name: str) -> ClipError:
    """No video stream, or none with a frame."""
    return ClipError(
        f"{name}: no video stream with a frame in it. Leave it out of the manifest",
        "no_video_stream",
    )


def truncated_error(name: str, decoded: Fraction, declared: Fraction | None) -> ClipError:
    """It ends too early: seconds decoded and, where known, declared."""
    of = "its declared length" if declared is None else f"{float(declared):.2f} s"
    return ClipError(
        f"{name}: ends too early: {float(decoded):.2f} s of {of} could be decoded. "
        "Fetch the file again or keep what came",
        "truncated",
    )


def freeze_image(image: np.ndarray) -> np.ndarray:
    """C-contiguous and read-only."""
    import numpy as np

    image = np.ascontiguousarray(image)
    image.flags.writeable = False
    return image
