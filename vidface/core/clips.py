"""A clip, as a manifest names it, and the splits that there are."""

from __future__ import annotations

from dataclasses import dataclass

SPLITS = ("train", "val", "test", "gallery", "probe")


@dataclass(frozen=True, slots=True)
class Clip:
    """One line of a manifest. An empty identity is a distractor: nobody knows who it is."""

    clip_id: str
    path: str
    identity: str
    split: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a clip's file, or folder of pictures, from a later one.

    Attributes:
        bytes: of the file, or of the folder's pictures; 0 where there is nothing.
        modified_ns: when it was last changed; None where there is nothing, or nobody says.
        content: digest of its bytes, or at a URL the server's tag of it; None where not known.
    """

    bytes: int = 0
    modified_ns: int | None = None
    content: str | None = None
