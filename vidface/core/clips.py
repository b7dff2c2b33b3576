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
