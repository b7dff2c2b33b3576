"""Decoding, detection and alignment in worker processes that cannot hurt the run.

A clip that crashes the decoder, hangs or eats memory costs that clip; its worker is replaced and
the run goes on. Crops come through shared memory, workers wait while the reader does.

    with contextlib.closing(decode_clips(clips, root, frames, faces, workers=4)) as events:
        for event in events:
            ...  # FoundFaces as they are found, one ClipEnd a clip
"""

from __future__ import annotations

from vidface.faces.events import ClipEnd, Event, Face, FoundFaces, Limits, Seconds
from vidface.faces.pool import decode_clips

__all__ = ["ClipEnd", "Event", "Face", "FoundFaces", "Limits", "Seconds", "decode_clips"]
