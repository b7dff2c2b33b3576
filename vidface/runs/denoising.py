"""Noise removal over a whole run: embeddings → labels and descriptors, and their artefact."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.thresholds import threshold_name
from vidface.core.values import UNUSABLE
from vidface.executor.shards import Executor, executor_of, map_shards
from vidface.noise.denoisers import DENOISERS, DenoiserSettings, uses_threshold
from vidface.noise.truth import NoiseRemoval, read_truth
from vidface.runs.run import Run
from vidface.runs.shards import Part, ShardSource, ShardWork, linkage_of, make_linkage
from vidface.runs.shards import Shard as _Shard
from vidface.settings.pipeline import Pipeline

__all__ = [
    "Clips",
    "Denoised",
    "Denoising",
    "Part",
    "ShardWork",
    "What",
    "denoise",
    "denoise_all",
    "linkage_of",
    "meant",
]

if TYPE_CHECKING:
    from vidface.noise.diagnostics import Diagnostics
    from vidface.noise.truth import NoiseRemoval, Truth
    from vidface.runs.artefacts import EmbeddingShard

NAMED_UNUSABLE = 20  # faces whose clip and frame are remembered


@dataclass(frozen=True)
class Denoising:
    """Which faces are noise, and how the kept ones become one vector."""

    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
    pooling: str = "mean"
    truth_path: Path | None = None
    memory_bytes: int = 2**31

    @classmethod
    def of(cls, pipeline: Pipeline) -> Denoising:
        """As a pipeline says."""
        c = pipeline.cluster
        denoiser = DenoiserSettings(
            c.method, c.threshold, c.min_samples, c.min_cluster_size, c.trim_share
        )
        return cls(denoiser, pipeline.descriptor.pooling, c.truth, c.memory_bytes)

    def at(self, threshold: float | None) -> Denoising:
        """The same at another threshold."""
        found = replace(self, denoiser=replace(self.denoiser, threshold=threshold))
        if "truth" in self.__dict__:  # read once
            found.__dict__["truth"] = self.truth
        return found

    @property
    def threshold(self) -> float | None:
        """The cosine threshold; None: no clustering, or a method that has none."""
        return self.denoiser.threshold if uses_threshold(self.denoiser.method) else None

    @property
    def clusters(self) -> bool:
        """Whether labels above 0 are clusters, and not just what was dropped."""
        return DENOISERS[self.denoiser.method].clusters

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that labels and descriptors depend on, as artefacts record and compare it."""
        used = {f"cluster.{name}": value for name, value in self.denoiser.used().items()}
        truth = {}
        if self.denoiser.method == "oracle" and self.truth_path is not None:
            truth = {"cluster.truth_sha256": _sha256(self.truth)}
        return {
            "cluster.threshold": None,
            **used,
            **truth,
            "descriptor.pooling": self.pooling,
        }

    @cached_property
    def truth(self) -> Truth | None:
        """Which frames are noise, where a file says so."""

        return None if self.truth_path is None else read_truth(self.truth_path)

    @property
    def name(self) -> str:
        """Of its folder: `threshold_0.4`, `trim.trim_share_0.25.pooling_norm`."""
        used = self.denoiser.used()
        parts = [] if used["method"] == "union-find" else [used["method"]]
        for key, value in used.items():
            if key == "threshold":
                parts.append(f"threshold_{threshold_name(value)}")
            elif key != "method":
                parts.append(f"{key}_{value}")
        if "cluster.truth_sha256" in self.settings:
            parts.append(f"truth_{self.settings['cluster.truth_sha256'][:12]}")
        if self.pooling != "mean":
            parts.append(f"pooling_{self.pooling}")
        return ".".join(parts)

    def __str__(self) -> str:
        used = self.denoiser.used()
        parts = [] if used["method"] == "union-find" else [used["method"]]
        for key, value in used.items():
            if key != "method":
                text = threshold_name(value) if key == "threshold" else value
                parts.append(f"{key.replace('_', ' ')} {text}")
        if self.pooling != "mean":
            parts.append(f"pooling {self.pooling}")
        return ", ".join(parts)


def _sha256(truth: Truth | None) -> str:
    entries = sorted(truth.noise.items(), key=repr) if truth is not None else []
    return hashlib.sha256(repr(entries).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Denoised:
    """Every clip of the manifest after noise removal, in the manifest's order."""

    threshold: float | None
    clip_ids: tuple[str, ...]
    states: tuple[str, ...]
    frames: np.ndarray  # (n_clips,) int64: sampled frames
    faces: np.ndarray  # (n_clips,) int64
    clusters: np.ndarray  # (n_clips,) int64: components, without unusable faces
    kept: np.ndarray  # (n_clips,) int64: faces in the dominant cluster
    unusable: np.ndarray  # (n_clips,) int64: NaN or zero embeddings
    descriptors: np.ndarray  # (n_clips, d) float32 unit rows; a zero row = no direction
    denoising: Denoising | None = None
    diagnostics: Diagnostics | None = None  # of a clustering that is stored
    removal: NoiseRemoval | None = None  # against a truth, where there is one
    weights_ignored: int = 0  # faces whose weight in pooling was negative or no number
    fallen_back: int = 0  # clips that were averaged, for no weight was left
    unusable_rows: tuple[str, ...] = ()  # "clip, frame 3", the first of them

    def __str__(self) -> str:
        return (
            f"Denoised({len(self.clip_ids)} clips at threshold {threshold_name(self.threshold)}, "
            f"descriptors {self.descriptors.shape})"
        )

    @property
    def has_descriptor(self) -> np.ndarray:
        """(n_clips,) bool."""
        return np.asarray(self.descriptors.any(axis=1))

    def summary(self) -> dict[str, Any]:
        """Counts, ready for JSON."""
        faces, kept = int(self.faces.sum()), int(self.kept.sum())
        found: dict[str, Any] = {
            "threshold": self.threshold,
            "clips": len(self.clip_ids),
            "no_descriptor": int(np.count_nonzero(~self.has_descriptor)),
            "frames": int(self.frames.sum()),
            "faces": faces,
            "kept": kept,
            "dropped": faces - kept,
            "dropped_share": (faces - kept) / faces if faces else 0.0,
            "unusable": int(self.unusable.sum()),
            "clips_with_several_clusters": int(np.count_nonzero(self.clusters > 1)),
        }
        if self.denoising is not None:
            found["settings"] = self.denoising.settings
            found["weights_ignored"] = self.weights_ignored
            found["fallen_back_to_mean"] = self.fallen_back
        if self.diagnostics is not None:
            found["diagnostics"] = self.diagnostics.summary()
        if self.removal is not None:
            found["noise_removal"] = self.removal.to_dict()
        return found


What = Denoising | float | None  # a threshold stands for the pipeline's settings at it


def meant(run: Run, what: What) -> Denoising:
    """What a threshold means for a run: its pipeline's noise removal, there."""
    return what if isinstance(what, Denoising) else Denoising.of(run.pipeline).at(what)


def denoise(run: Run, what: What, executor: Executor | None = None) -> Denoised:
    """Label every face and pool what is kept; nothing is written but the linkage tree.

    Args:
        executor: who makes the linkage trees that are missing (default: the pipeline's).
    """
    [found] = _denoise(run, [meant(run, what)], executor)
    return found


def denoise_all(
    run: Run, thresholds: Sequence[float | None], executor: Executor | None = None
) -> Iterator[Denoised]:
    """The pipeline's noise removal at several thresholds, one after the other.

    No similarity is computed twice: union-find cuts a tree that is stored. A clip is pooled again
    only where another face is kept than at the threshold before.

    Raises:
        VidfaceError: a method that has no threshold.
    """
    denoising = Denoising.of(run.pipeline)
    if not uses_threshold(denoising.denoiser.method):
        raise VidfaceError(
            f"the method '{denoising.denoiser.method}' has no threshold to sweep; "
            "`vidface score` scores it"
        )
    return _denoise(run, [denoising.at(threshold) for threshold in thresholds], executor)


def _denoise(
    run: Run, wanted: Sequence[Denoising], executor: Executor | None
) -> Iterator[Denoised]:
    clips = Clips(run)
    executor = executor or executor_of(run.pipeline.run)
    if executor.name != "serial" and wanted[:1] and wanted[0].denoiser.method == "union-find":
        make_linkages(run, clips, wanted[0], executor)
    shards = list(clips.each_shard())
    for denoising in wanted:
        collected = clips.collect(denoising)
        for one in shards:
            noise = None if denoising.truth is None else one.noise(denoising.truth)
            collected.add(one.shard, one.denoise(denoising), noise)
        yield collected.finish()


def make_linkages(run: Run, clips: Clips, denoising: Denoising, executor: Executor) -> None:
    """Make the linkage trees that are missing, a shard a task."""
    works = (
        clips.work(number, shard, denoising, executor)
        for number, shard in run.each_shard()
        if not run.folder.linkage_path(number).is_file()
    )
    for _ in map_shards(make_linkage, works, executor=executor):
        pass


class Clips:
    """The extraction's clips, and where each stands."""

    def __init__(self, run: Run) -> None:
        self._run = run
        table, made = run.folder.read_clips()
        run.check(made, run.folder.clips_path)
        self.created = str(made["created"])
        self.clip_ids: tuple[str, ...] = tuple(table.column("clip_id").to_pylist())
        self.states: tuple[str, ...] = tuple(table.column("state").to_pylist())
        self.frames = table.column("frames").to_numpy().astype(np.int64)
        self.faces = table.column("faces").to_numpy().astype(np.int64)
        self.place = {clip_id: row for row, clip_id in enumerate(self.clip_ids)}

    def collect(self, denoising: Denoising) -> Collected:
        return Collected(self, denoising)

    @cached_property
    def source(self) -> ShardSource:
        return ShardSource(self._run.folder, self._run.extraction_settings, self.created)

    def places(self, shard: EmbeddingShard) -> np.ndarray:
        """(n_clips,) where the shard's clips stand among all."""
        return np.array([self.place[clip_id] for clip_id in shard.clip_ids], dtype=np.int64)

    def each_shard(self) -> Iterator[_Shard]:
        for number, shard in self._run.each_shard():
            yield _Shard(self.source, number, shard)

    def work(
        self, number: int, shard: EmbeddingShard, denoising: Denoising, executor: Executor
    ) -> ShardWork:
        """What another process needs to denoise a shard, within its part of the memory."""
        noise = None if denoising.truth is None else denoising.truth.noise_of(shard.table)
        budget = max(1, denoising.memory_bytes // executor.processes)
        sent = replace(denoising, truth_path=None, memory_bytes=budget)
        return ShardWork(self.source, number, shard.path, sent, noise, opened=shard)


class Collected:
    """Shards after noise removal, one after the other, becoming one `Denoised`."""

    def __init__(self, clips: Clips, denoising: Denoising) -> None:
        self._clips, self._denoising = clips, denoising
        self._counts = np.zeros((3, len(clips.clip_ids)), np.int64)  # clusters, kept, unusable
        self._descriptors: np.ndarray | None = None
        self._ignored = self._fallen = 0
        self._truth_counts = np.zeros(3, np.int64)  # dropped, noise, dropped noise
        self._unusable: list[str] = []

    def add(self, shard: EmbeddingShard, part: Part, noise: np.ndarray | None = None) -> None:
        """Take in a shard.

        Args:
            noise: (n_faces,) bool, where a truth is named.
        """

        n_clips = len(self._clips.clip_ids)
        if self._descriptors is None:
            self._descriptors = np.zeros((n_clips, shard.embeddings.shape[1]), np.float32)
        rows, starts, labels = self._clips.places(shard), shard.offsets[:-1], part.labels
        self._descriptors[rows] = part.descriptors
        if len(starts):
            self._counts[1, rows] = np.add.reduceat(labels == 0, starts, dtype=np.int64)
            if self._denoising.clusters:
                self._counts[0, rows] = np.maximum.reduceat(labels, starts) + 1
            else:
                self._counts[0, rows] = self._counts[1, rows] > 0
            self._counts[2, rows] = np.add.reduceat(labels == UNUSABLE, starts, dtype=np.int64)
        self._ignored += part.weights_ignored
        self._fallen += part.fallen_back
        for row in np.flatnonzero(labels == UNUSABLE)[
            : max(0, NAMED_UNUSABLE - len(self._unusable))
        ]:
            clip_id, frame = (
                shard.table.column(c)[row].as_py() for c in ("clip_id", "frame_index")
            )
            self._unusable.append(f"{clip_id}, frame {frame}")
        if noise is not None:
            dropped = labels != 0
            self._truth_counts += [dropped.sum(), noise.sum(), (dropped & noise).sum()]

    def finish(self, diagnostics: Diagnostics | None = None) -> Denoised:

        clips = self._clips
        descriptors = self._descriptors
        if descriptors is None:
            descriptors = np.zeros((len(clips.clip_ids), 0), np.float32)
        removal = None
        if self._denoising.truth is not None:
            removal = NoiseRemoval(*(int(n) for n in self._truth_counts))
        return Denoised(
            threshold=self._denoising.threshold,
            clip_ids=clips.clip_ids,
            states=clips.states,
            frames=clips.frames,
            faces=clips.faces,
            clusters=self._counts[0],
            kept=self._counts[1],
            unusable=self._counts[2],
            descriptors=descriptors,
            denoising=self._denoising,
            diagnostics=diagnostics,
            removal=removal,
            weights_ignored=self._ignored,
            fallen_back=self._fallen,
            unusable_rows=tuple(self._unusable),
        )
