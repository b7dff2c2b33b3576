"""Shards of a run's embeddings as noise removal works on them, here or in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.noise.clusters import LinkageTree, cut, linkage_tree
from vidface.noise.denoisers import label_faces
from vidface.runs import artefacts
from vidface.runs.artefacts import RunFolder
from vidface.vectors.descriptors import pool_faces, pooling_weights

if TYPE_CHECKING:
    from vidface.noise.clusters import LinkageTree
    from vidface.noise.truth import Truth
    from vidface.runs.artefacts import EmbeddingShard
    from vidface.runs.denoising import Denoising
    from vidface.runs.run import Run


@dataclass(frozen=True)
class Part:
    """One shard after noise removal."""

    labels: np.ndarray  # (n_faces,) int32
    descriptors: np.ndarray  # (n_clips, d) float32
    pooling: str
    weights_ignored: int
    fallen_back: int

    def __str__(self) -> str:
        return f"Part(labels {self.labels.shape} int32, descriptors {self.descriptors.shape})"


@dataclass(frozen=True)
class ShardSource:
    """Whose shards: the run's files, and what its extraction was."""

    folder: RunFolder
    extraction_settings: Mapping[str, Any]
    extraction_created: str


@dataclass(frozen=True)
class ShardWork:
    """One shard to denoise, for whoever does it. Another process opens the shard's file itself."""

    source: ShardSource
    number: int
    path: Path
    denoising: Denoising  # without a truth: `noise` says what it says of this shard
    noise: np.ndarray | None  # (n_faces,) bool
    opened: EmbeddingShard | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return f"ShardWork({self.name}, {self.denoising})"

    def embeddings(self) -> EmbeddingShard:
        """The shard, mapped."""
        if self.opened is not None:
            return self.opened
        shard, _ = artefacts.read_shard(self.path)
        return shard

    def open(self) -> Shard:
        """The shard as noise removal works on it."""
        return Shard(self.source, self.number, self.embeddings(), self.noise)


def make_linkage(work: ShardWork) -> None:
    """Write a shard's linkage tree, unless it is there."""
    created, budget = work.source.extraction_created, work.denoising.memory_bytes
    linkage_of(work.source, work.number, work.embeddings(), created, budget)


class Shard:
    """One shard, and what of it serves every threshold: its tree, its noise, the last pooling."""

    def __init__(
        self,
        source: ShardSource,
        number: int,
        shard: EmbeddingShard,
        noise: np.ndarray | None = None,
    ) -> None:
        self._source, self._number, self.shard = source, number, shard
        self._noise = noise
        self._tree: LinkageTree | None = None
        self._before: Part | None = None

    def noise(self, truth: Truth) -> np.ndarray:
        """(n_faces,) bool; of the one truth of a call."""
        if self._noise is None:
            self._noise = truth.noise_of(self.shard.table)
        return self._noise

    def denoise(self, denoising: Denoising) -> Part:

        shard, before = self.shard, self._before
        labels = self._labels(denoising)
        weights = pooling_weights(shard.table, denoising.pooling)
        if before is not None and before.pooling == denoising.pooling and weights is None:
            changed = _clips_with(shard, (labels == 0) != (before.labels == 0))
            descriptors = before.descriptors.copy()
            if changed.any():
                lengths = np.diff(shard.offsets)
                rows = np.repeat(changed, lengths)
                offsets = np.concatenate([[0], np.cumsum(lengths[changed])])
                pooled = pool_faces(
                    shard.embeddings[rows], offsets, labels[rows], pooling=denoising.pooling
                )
                descriptors[changed] = pooled.descriptors
            part = Part(labels, descriptors, denoising.pooling, 0, 0)
        else:
            pooled = pool_faces(
                shard.embeddings, shard.offsets, labels, pooling=denoising.pooling, weights=weights
            )
            part = Part(
                labels,
                pooled.descriptors,
                denoising.pooling,
                pooled.weights_ignored,
                pooled.clips_fallen_back,
            )
        self._before = part
        return part

    def _labels(self, denoising: Denoising) -> np.ndarray:
        if denoising.denoiser.method == "union-find":
            if self._tree is None:
                source, budget = self._source, denoising.memory_bytes
                created = source.extraction_created
                self._tree = linkage_of(source, self._number, self.shard, created, budget)
            return cut(self._tree, denoising.threshold)
        noise = None
        if denoising.denoiser.method == "oracle":
            noise = self._noise
            if denoising.truth is not None:
                noise = self.noise(denoising.truth)
        return label_faces(
            self.shard.embeddings,
            self.shard.offsets,
            denoising.denoiser,
            noise,
            memory_bytes=denoising.memory_bytes,
        )


def _clips_with(shard: EmbeddingShard, rows: np.ndarray) -> np.ndarray:
    """(n_clips,) bool: clips of which any of `rows`, (n_faces,) bool, is true. None is empty."""
    if not len(shard.clip_ids):
        return np.zeros(0, dtype=bool)
    return np.asarray(np.logical_or.reduceat(rows, shard.offsets[:-1]))


def linkage_of(
    run: Run | ShardSource,
    number: int,
    shard: EmbeddingShard,
    extraction_created: str,
    memory_bytes: int,
) -> LinkageTree:
    """A shard's linkage tree: from its artefact, which is written where it is not there yet."""
    import pyarrow as pa

    path = run.folder.linkage_path(number)
    if path.is_file():
        table, made = artefacts.read_arrow(path)
        if made.get("extraction_created") == extraction_created:
            columns = [table.column(name).to_numpy() for name in artefacts.LINKAGE_SCHEMA.names]
            return LinkageTree(shard.offsets, *columns)
    tree = linkage_tree(shard.embeddings, shard.offsets, memory_bytes=memory_bytes)
    table = pa.Table.from_arrays(
        [pa.array(column) for column in (tree.order, tree.similarities)],
        schema=artefacts.LINKAGE_SCHEMA,
    )
    made = artefacts.provenance(
        "linkage", run.extraction_settings, extraction_created=extraction_created
    )
    artefacts.write_arrow(path, table, made)
    return tree
