"""The clips of a run after noise removal, gathered from its shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidface.core.thresholds import threshold_name
from vidface.core.values import UNUSABLE
from vidface.executor.shards import Executor
from vidface.noise.diagnostics import Diagnostics
from vidface.noise.truth import NoiseRemoval, precision_recall
from vidface.runs import artefacts
from vidface.runs.artefacts import EmbeddingShard
from vidface.runs.denoising import Denoising
from vidface.runs.run import Run
from vidface.runs.shard_denoising import DenoisedShard, ShardSource, ShardWork

NAMED_UNUSABLE = 20  # faces whose clip and frame are remembered


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
        summary: dict[str, Any] = {
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
            summary["settings"] = self.denoising.settings
            summary["weights_ignored"] = self.weights_ignored
            summary["fallen_back_to_mean"] = self.fallen_back
        if self.diagnostics is not None:
            summary["diagnostics"] = self.diagnostics.summary()
        if self.removal is not None:
            summary["noise_removal"] = self.removal.to_dict()
        return summary


class ExtractedClips:
    """The clips of a run's extraction, where each stands, and the work that their shards are."""

    def __init__(self, run: Run) -> None:
        self._run = run
        table = run.clips()
        made = artefacts.read_provenance(run.folder.clips_path)
        self.source = ShardSource(run.folder, run.extraction_settings, str(made["created"]))
        self.clip_ids: tuple[str, ...] = tuple(table.column("clip_id").to_pylist())
        self.states: tuple[str, ...] = tuple(table.column("state").to_pylist())
        self.frames = table.column("frames").to_numpy().astype(np.int64)
        self.faces = table.column("faces").to_numpy().astype(np.int64)
        self._rows = {clip_id: row for row, clip_id in enumerate(self.clip_ids)}

    def rows_of(self, shard: EmbeddingShard) -> np.ndarray:
        """(n_clips,) where the shard's clips stand among all."""
        return np.array([self._rows[clip_id] for clip_id in shard.clip_ids], dtype=np.int64)

    def shard_works(self, denoising: Denoising, executor: Executor) -> Iterator[ShardWork]:
        """What another process needs to denoise each shard, within its part of the memory."""
        budget = max(1, denoising.memory_bytes // executor.processes)
        sent = replace(denoising, truth_path=None, memory_bytes=budget)
        for number, shard in self._run.each_shard():
            noise = None if denoising.truth is None else denoising.truth.noise_of(shard.table)
            yield ShardWork(self.source, number, shard.path, sent, noise, opened=shard)


class DenoisedCollector:
    """Shards after noise removal, one after the other, becoming one `Denoised`."""

    def __init__(self, clips: ExtractedClips, denoising: Denoising) -> None:
        n_clips = len(clips.clip_ids)
        self._clips, self._denoising = clips, denoising
        self._clusters, self._kept, self._unusable = np.zeros((3, n_clips), np.int64)
        self._descriptors = np.zeros((n_clips, 0), np.float32)
        self._weights_ignored = self._fallen_back = 0
        self._removal = None if denoising.truth_path is None else NoiseRemoval(0, 0, 0)
        self._unusable_rows: list[str] = []

    def add(
        self, shard: EmbeddingShard, denoised: DenoisedShard, noise: np.ndarray | None = None
    ) -> None:
        """Take in a shard.

        Args:
            noise: (n_faces,) bool, where a truth is named.
        """
        dimension = shard.embeddings.shape[1]
        if not self._descriptors.shape[1]:
            self._descriptors = np.zeros((len(self._descriptors), dimension), np.float32)
        rows, starts = self._clips.rows_of(shard), shard.offsets[:-1]
        labels = denoised.labels
        self._descriptors[rows] = denoised.descriptors
        if len(starts):  # every clip of a shard has a face, so that no run of rows is empty
            kept = np.add.reduceat(labels == 0, starts, dtype=np.int64)
            self._kept[rows] = kept
            if self._denoising.denoiser.makes_clusters:
                self._clusters[rows] = np.maximum.reduceat(labels, starts) + 1
            else:
                self._clusters[rows] = kept > 0
            self._unusable[rows] = np.add.reduceat(labels == UNUSABLE, starts, dtype=np.int64)
        self._weights_ignored += denoised.weights_ignored
        self._fallen_back += denoised.clips_fallen_back
        unnamed = NAMED_UNUSABLE - len(self._unusable_rows)
        unusable = shard.table.take(np.flatnonzero(labels == UNUSABLE)[:unnamed])
        self._unusable_rows += name_faces(unusable)
        if noise is not None and self._removal is not None:
            self._removal += precision_recall(labels != 0, noise)

    def finish(self, diagnostics: Diagnostics | None = None) -> Denoised:
        """All shards that were added, as one."""
        return Denoised(
            threshold=self._denoising.threshold,
            clip_ids=self._clips.clip_ids,
            states=self._clips.states,
            frames=self._clips.frames,
            faces=self._clips.faces,
            clusters=self._clusters,
            kept=self._kept,
            unusable=self._unusable,
            descriptors=self._descriptors,
            denoising=self._denoising,
            diagnostics=diagnostics,
            removal=self._removal,
            weights_ignored=self._weights_ignored,
            fallen_back=self._fallen_back,
            unusable_rows=tuple(self._unusable_rows),
        )


def name_faces(faces: Any) -> list[str]:
    """Rows of embeddings or labels as "clip, frame 3"."""
    rows = faces.select(["clip_id", "frame_index"]).to_pylist()
    return [f"{row['clip_id']}, frame {row['frame_index']}" for row in rows]
