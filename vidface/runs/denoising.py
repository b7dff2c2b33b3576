"""The settings of a run's noise removal: the denoiser, the pooling, the truth, the memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.core.thresholds import threshold_name
from vidface.noise.denoisers import Denoiser, UnionFind, denoiser_record, make_denoiser
from vidface.noise.denoisers.base import ThresholdDenoiser
from vidface.noise.truth import Truth, read_truth
from vidface.runs.run import Run
from vidface.settings.pipeline import Pipeline


@dataclass(frozen=True)
class Denoising:
    """Which faces are noise, and how the kept ones become one vector."""

    denoiser: Denoiser = field(default_factory=UnionFind)
    pooling: str = "mean"
    truth_path: Path | None = None
    memory_bytes: int = 2**31
    repeats: str = "count"

    @classmethod
    def from_pipeline(cls, pipeline: Pipeline, rules: ReadingRules = NEW_RULES) -> Denoising:
        """Read the noise removal that a pipeline asks for; what it leaves open, `rules` settle."""
        cluster, faces = pipeline.cluster, pipeline.faces
        takes_all = faces.source == "detect" and faces.which == "all"
        return cls(
            cluster.denoiser.settle(faces_apart=takes_all and rules.faces_apart),
            pipeline.descriptor.pooling,
            cluster.truth,
            cluster.memory_bytes,
            cluster.repeats,
        )

    @classmethod
    def of_run(cls, run: Run) -> Denoising:
        """Read what a run's pipeline asks for, by the rules that its extraction was made by."""
        return cls.from_pipeline(run.pipeline, run.rules)

    def with_threshold(self, threshold: float | None) -> Denoising:
        """Replace the threshold; a denoiser that has none stays as it is."""
        if not isinstance(self.denoiser, ThresholdDenoiser):
            return self
        return replace(self, denoiser=replace(self.denoiser, threshold=threshold))

    @property
    def has_threshold(self) -> bool:
        """Whether the denoiser takes a cosine threshold, so that it can be swept."""
        return isinstance(self.denoiser, ThresholdDenoiser)

    @property
    def threshold(self) -> float | None:
        """The cosine threshold; None: no clustering, or a denoiser that has none."""
        return self.denoiser.threshold if isinstance(self.denoiser, ThresholdDenoiser) else None

    @property
    def record(self) -> dict[str, Any]:
        """The denoiser and its settings, repeats and pooling, as a clustering names them."""
        return {**denoiser_record(self.denoiser), "repeats": self.repeats, "pooling": self.pooling}

    def with_record(self, record: Mapping[str, Any]) -> Denoising:
        """The noise removal that a clustering names in `record`; truth and memory stay."""
        try:
            return replace(
                self,
                denoiser=make_denoiser(record["method"], record),
                pooling=record["pooling"],
                repeats=record.get("repeats", "count"),
            )
        except (KeyError, TypeError, ValueError):
            raise VidfaceError(
                "the clustering made last does not say how it was made; run `vidface cluster` again"
            ) from None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that labels and descriptors depend on, as artefacts record and compare it."""
        record = denoiser_record(self.denoiser)
        settings: dict[str, Any] = {"cluster.threshold": None}
        settings.update({f"cluster.{name}": value for name, value in record.items()})
        if self.denoiser.needs_truth and self.truth is not None:
            settings["cluster.truth_sha256"] = _hash_truth(self.truth)
        if self.repeats != "count":  # what clusterings mean that don't say
            settings["cluster.repeats"] = self.repeats
        return {**settings, "descriptor.pooling": self.pooling}

    @cached_property
    def truth(self) -> Truth | None:
        """Which frames are noise, where a file says so."""
        return None if self.truth_path is None else read_truth(self.truth_path)

    @property
    def name(self) -> str:
        """The name of its folder: `threshold_0.4`, `trim.trim_share_0.25.pooling_norm`."""
        parts = ["_".join(part) for part in self._describe_denoiser()]
        if "cluster.truth_sha256" in self.settings:
            parts.append(f"truth_{self.settings['cluster.truth_sha256'][:12]}")
        if self.repeats != "count":
            parts.append(f"repeats_{self.repeats}")
        if self.pooling != "mean":
            parts.append(f"pooling_{self.pooling}")
        return ".".join(parts)

    @property
    def resource(self) -> str:
        """What a run's writers exclude each other by: `vidface.runs.run_folder`."""
        return f"clusters/{self.name}"

    def __str__(self) -> str:
        parts = [" ".join(part).replace("_", " ") for part in self._describe_denoiser()]
        if self.repeats != "count":
            parts.append(f"repeats {self.repeats}")
        if self.pooling != "mean":
            parts.append(f"pooling {self.pooling}")
        return ", ".join(parts)

    def _describe_denoiser(self) -> list[tuple[str, ...]]:
        """The method, unless it is the default, and each setting with its value."""
        record = denoiser_record(self.denoiser)
        method = record.pop("method")
        parts: list[tuple[str, ...]] = [] if method == "union-find" else [(method,)]
        for key, value in record.items():
            parts.append((key, threshold_name(value) if key == "threshold" else str(value)))
        return parts


DenoisingOrThreshold = Denoising | float | None
"""A threshold stands for the pipeline's noise removal at it."""


def resolve_denoising(run: Run, denoising: DenoisingOrThreshold) -> Denoising:
    """Settings as they are; of a threshold, the noise removal of the run's pipeline at it."""
    if isinstance(denoising, Denoising):
        return denoising
    return Denoising.of_run(run).with_threshold(denoising)


def _hash_truth(truth: Truth) -> str:
    entries = sorted(truth.noise.items(), key=repr)
    return hashlib.sha256(repr(entries).encode("utf-8", "surrogatepass")).hexdigest()
