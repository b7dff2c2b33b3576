"""What can become of a clip; every clip ends in exactly one of these states."""

from __future__ import annotations

# ok: decoded to its end, with a face. no_face: likewise, without one. truncated: the file ends
# before the length that it declares; what came is kept. damaged: corrupt, but what is certain of it
# is kept (keep_damaged). Of the others nothing is kept.
STATES = (
    "ok",
    "no_face",
    "no_video_stream",
    "corrupt",
    "truncated",
    "damaged",
    "timeout",
    "crashed",
    "missing",
)
FAILED_STATES = frozenset(STATES) - {"ok", "no_face"}
KEPT_STATES = frozenset(("ok", "no_face", "truncated", "damaged"))  # whose faces count
