"""The settings of a run directory, and of who does the work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.core.values import size_bytes
from vidface.storage.urls import Address

EXECUTORS = ("serial", "joblib", "dask")


@dataclass(frozen=True)
class RunSettings:
    """The run directory, and how the work on it is done; nothing here changes a figure.

    `workers` decode (default: one a core); a worker that shows no new frame for
    `stall_timeout_seconds`, or works on one clip for longer than `clip_timeout_seconds`, or needs
    more than `clip_memory` for it, costs that clip. `shard_clips` clips are what is lost at most
    when a run is killed, and what a machine of a cluster does at once.
    """

    dir: Path | Address
    executor: str | None = None
    scheduler: str | None = None
    workers: int | None = None
    shard_clips: int = 256
    stall_timeout_seconds: float = 60.0
    clip_timeout_seconds: float | None = None
    clip_memory: str = "2GiB"

    def __post_init__(self) -> None:
        if self.executor is not None and self.executor not in EXECUTORS:
            known = ", ".join(EXECUTORS)
            raise VidfaceError(f"[run] executor: unknown value '{self.executor}' (known: {known})")
        if self.scheduler is not None and self.executor != "dask":
            raise VidfaceError('[run] scheduler: only with executor = "dask"')
        for name in ("workers", "shard_clips"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise VidfaceError(f"[run] {name}: at least 1, not {number}")
        for name in ("stall_timeout_seconds", "clip_timeout_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise VidfaceError(f"[run] {name}: must be above 0, not {seconds}")
        self.clip_memory_bytes  # noqa: B018 - raises

    @property
    def clip_memory_bytes(self) -> int:
        """`clip_memory` as a number of bytes; below 64 MiB no decoder starts."""
        size = size_bytes(self.clip_memory, "[run] clip_memory")
        if size < 64 * 2**20:
            raise VidfaceError(f"[run] clip_memory: at least 64MiB, not {self.clip_memory}")
        return size
