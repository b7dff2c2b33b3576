"""Where the time of an extraction went, and which stage was the limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.files import read_json_object
from vidface.runs.run_folder import RunFolder

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
        """The JSON form, as `profile.json` holds it."""
        return {**asdict(self), "limit": self.limit}

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
    if not path.is_file():
        raise VidfaceError(
            f"{path}: not there; only an extraction of frames by this vidface writes it"
        )
    document = read_json_object(path)
    stages, texts = document.get("stages"), [document.get(key) for key in ("executor", "runtime")]
    counts = [document.get(key) for key in ("clips", "frames", "faces", "workers")]
    seconds = [document.get("wall_seconds"), *(stages.values() if isinstance(stages, dict) else ())]
    if (
        not isinstance(stages, dict)
        or not all(isinstance(text, str) for text in texts)
        or not all(type(count) is int and 0 <= count < 2**63 for count in counts)
        or not all(type(s) in (int, float) and 0 <= s < 2**63 for s in seconds)
        or not document["workers"]
    ):
        raise VidfaceError(f"{path}: not what vidface wrote; extract again with --force")
    return Profile(**{field.name: document[field.name] for field in fields(Profile)})
