"""The settings of a run directory, and of who does the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vidface.core.errors import VidfaceError
from vidface.core.settings import check_settings, setting
from vidface.core.values import size_bytes
from vidface.executor.shards import EXECUTORS, Executor
from vidface.storage.urls import Address


@dataclass(frozen=True)
class RunSettings:
    """The run directory, and how the work on it is done; only `dir` says what comes of it."""

    GROUP: ClassVar[str] = "Run"

    dir: Path | Address = setting(
        flag="--run",
        metavar="DIR",
        help="The run directory, where artefacts are read and written: a folder, or a URL "
        "(s3://bucket/run).",
        default_text="runs/NAME in the working directory",
    )
    executor: str | None = setting(
        None,
        metavar="NAME",
        help="Who does the work: serial (this process), joblib (processes on this machine) or dask "
        "(a cluster).",
        choices=EXECUTORS,
        default_text="this process",
        rare=True,
    )
    scheduler: str | None = setting(
        None,
        metavar="ADDRESS",
        help="The address of Dask's scheduler, such as tcp://head:8786; without one dask starts "
        "its workers on this machine.",
        rare=True,
    )
    workers: int | None = setting(
        None,
        help="Processes that decode, or that dask starts.",
        bounds="[1, inf)",
        default_text="one a core",
    )
    shard_clips: int = setting(
        256,
        help="Clips that are written at once: what a kill costs at most, and what a machine of a "
        "cluster does in one piece.",
        bounds="[1, inf)",
        rare=True,
    )
    stall_timeout_seconds: float = setting(
        60.0,
        metavar="SECONDS",
        help="A clip that shows no new frame for so long is given up.",
        unit="seconds",
        bounds="(0, inf)",
        rare=True,
    )
    clip_timeout_seconds: float | None = setting(
        None,
        metavar="SECONDS",
        help="A clip that takes longer than this is given up.",
        unit="seconds",
        bounds="(0, inf)",
        default_text="no limit",
        rare=True,
    )
    clip_memory: str = setting(
        "2GiB",
        metavar="SIZE",
        help="A clip whose decoding needs more memory than this is given up.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check_settings(self, "[run]")
        if self.scheduler is not None and self.executor != "dask":
            raise VidfaceError('[run] scheduler: only with executor = "dask"')
        self.clip_memory_bytes  # noqa: B018 - raises

    @property
    def clip_memory_bytes(self) -> int:
        """`clip_memory` as a number of bytes; below 64 MiB no decoder starts."""
        size = size_bytes(self.clip_memory, "[run] clip_memory")
        if size < 64 * 2**20:
            raise VidfaceError(f"[run] clip_memory: at least 64MiB, not {self.clip_memory}")
        return size


def choose_executor(settings: RunSettings) -> Executor:
    """What a pipeline's `[run]` says; where it says nothing, this process does the work."""
    name = settings.executor or "serial"
    return Executor(name, settings.workers, settings.scheduler if name == "dask" else None)
