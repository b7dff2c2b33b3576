"""Where the time of an extraction went, and which stage was the limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.runs.artefacts import RunFolder

# Stages of the decoding processes, in order, and the embedder's; both run at the same time.
DECODING_STAGES = ("decode", "detect", "align")
STAGES = (*DECODING_STAGES, "embed")


@dataclass(frozen=True)
class Profile:
    """Seconds of each stage, summed over processes: stages of several workers overlap.

    `frames` and `faces` are those of the session that ended; so are `wall_seconds`. With `embed`
    seconds near the wall's the embedder was the limit, else the decoding processes.
    """

    stages: Mapping[str, float]
    wall_seconds: float
    clips: int
    frames: int
    faces: int
    workers: int
    executor: str
    runtime: str

    @property
    def limit(self) -> str:
        """The stage that takes longest, at the number of processes that share it."""
        shared = {
            name: seconds / (self.workers if name in DECODING_STAGES else 1)
            for name, seconds in self.stages.items()
        }
        decoding = sum(shared.get(name, 0.0) for name in DECODING_STAGES)
        if shared.get("embed", 0.0) >= decoding:
            return "embed"
        return max(DECODING_STAGES, key=lambda name: shared.get(name, 0.0))

    def to_dict(self) -> dict[str, Any]:
        return {
            "stages": dict(self.stages),
            "wall_seconds": self.wall_seconds,
            "clips": self.clips,
            "frames": self.frames,
            "faces": self.faces,
            "workers": self.workers,
            "executor": self.executor,
            "runtime": self.runtime,
            "limit": self.limit,
        }

    def __str__(self) -> str:
        total = sum(self.stages.values()) or 1.0
        stages = [(name, self.stages.get(name, 0.0)) for name in STAGES]
        lines = [f"{name:<8} {spent:10.2f} s {spent / total:6.1%}" for name, spent in stages]
        wall = max(self.wall_seconds, 1e-9)
        return "\n".join(
            (
                *lines,
                f"wall     {self.wall_seconds:10.2f} s, {self.frames / wall:.1f} frames/s and "
                f"{self.faces / wall:.1f} faces/s with {self.workers} decoding processes and "
                f"{self.runtime}",
                f"limit: {self.limit}",
            )
        )


def read_profile(run: RunFolder) -> Profile:
    """The profile of a run's extraction.

    Raises:
        VidfaceError: there is none (features, or an older vidface), or it is damaged.
    """
    path = run.profile_path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {
            name: found[name]
            for name in ("stages", "wall_seconds", "clips", "frames", "faces", "workers")
        }
        return Profile(**known, executor=found["executor"], runtime=found["runtime"])
    except FileNotFoundError:
        raise VidfaceError(
            f"{path}: not there; only an extraction of frames by this vidface writes it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VidfaceError(f"{path}: unreadable ({error}); extract again with --force") from None
