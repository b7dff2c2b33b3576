"""One shard of a run's embeddings under noise removal, here or in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vidface.core.files import can_be_written
from vidface.core.values import UNUSABLE
from vidface.noise.clusters import LinkageTree
from vidface.noise.diagnostics import Diagnostics, diagnose
from vidface.noise.removal import FaceSet, remove_noise
from vidface.runs import artefacts
from vidface.runs.artefacts import EmbeddingShard
from vidface.runs.columns import LINKAGE_SCHEMA
from vidface.runs.denoising import Denoising
from vidface.runs.run_folder import RunFolder
from vidface.vectors.descriptors import pool_faces, pooling_weights


@dataclass(frozen=True)
class DenoisedShard:
    """One shard after noise removal."""

    labels: np.ndarray  # (n_faces,) int32
    descriptors: np.ndarray  # (n_clips, d) float32
    weights_ignored: int = 0
    clips_fallen_back: int = 0

    def __str__(self) -> str:
        shapes = f"labels {self.labels.shape} int32, descriptors {self.descriptors.shape}"
        return f"DenoisedShard({shapes})"


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

    def open_shard(self) -> EmbeddingShard:
        """Map the shard."""
        if self.opened is not None:
            return self.opened
        shard, _ = artefacts.read_shard(self.path)
        return shard


class ShardDenoiser:
    """One shard, and what of it serves every threshold: its tree and the last result.

    Attributes:
        noise: (n_faces,) bool, where a truth is named.
    """

    def __init__(self, work: ShardWork) -> None:
        self._source, self._number = work.source, work.number
        self.shard, self.noise = work.open_shard(), work.noise
        self._faces: FaceSet | None = None
        self._before: tuple[str, DenoisedShard] | None = None  # with its pooling

    def denoise(self, denoising: Denoising, *, again: bool = False) -> DenoisedShard:
        """Label every face and pool what is kept.

        Args:
            again: the shard is to be denoised at another threshold after this one; the result is
                remembered, so that only clips that change are pooled then.
        """
        faces = self._face_set(denoising)
        labels = remove_noise(faces, denoising.denoiser)
        before, self._before = self._before, None
        if before is not None and before[0] == denoising.pooling:
            denoised = self._pool_changed(labels, faces.votes, before[1], denoising.pooling)
        else:
            weights = pooling_weights(self.shard.table, denoising.pooling)
            pooled = pool_faces(
                self.shard.embeddings,
                self.shard.offsets,
                _keep_votes(labels, faces.votes),
                pooling=denoising.pooling,
                weights=weights,
            )
            denoised = DenoisedShard(
                labels, pooled.descriptors, pooled.weights_ignored, pooled.clips_fallen_back
            )
            again = again and weights is None  # what was ignored is counted anew
        if again:
            self._before = (denoising.pooling, denoised)
        return denoised

    def _face_set(self, denoising: Denoising) -> FaceSet:
        if self._faces is None:
            # Without `self`, which would be a cycle, and keep the shard until it is collected.
            source, number, repeats = self._source, self._number, denoising.repeats

            def read_tree(faces: FaceSet, same_person: float | None) -> LinkageTree:
                path = source.folder.linkage_path(number, repeats, same_person)
                return read_or_make_tree(path, source, faces, same_person)

            self._faces = FaceSet(
                self.shard.embeddings,
                self.shard.offsets,
                noise=self.noise if denoising.denoiser.needs_truth else None,
                memory_bytes=denoising.memory_bytes,
                read_tree=read_tree,
                frames=self.shard.frames,
                repeats=denoising.repeats,
            )
        return self._faces

    def make_tree(self, denoising: Denoising) -> None:
        """Write the linkage tree, unless it is there."""
        self._face_set(denoising).link(denoising.denoiser.same_person)

    def _pool_changed(
        self, labels: np.ndarray, votes: np.ndarray, before: DenoisedShard, pooling: str
    ) -> DenoisedShard:
        """Pool the clips of which another face is kept than before."""
        shard = self.shard
        descriptors = before.descriptors.copy()
        is_changed = (labels == 0) != (before.labels == 0)  # (n_faces,)
        if is_changed.any():  # clips are never empty in a shard
            clips = np.logical_or.reduceat(is_changed, shard.offsets[:-1])
            lengths = np.diff(shard.offsets)
            rows = np.repeat(clips, lengths)
            offsets = np.concatenate([[0], np.cumsum(lengths[clips])])
            kept = _keep_votes(labels, votes)[rows]
            pooled = pool_faces(shard.embeddings[rows], offsets, kept, pooling=pooling)
            descriptors[clips] = pooled.descriptors
        return DenoisedShard(labels, descriptors)


def _keep_votes(labels: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """The labels by which faces are pooled: of one picture's samples, the one that votes."""
    return np.where(votes, labels, np.int32(UNUSABLE))


def denoise_shard(work: ShardWork) -> tuple[DenoisedShard, Diagnostics]:
    """Give one shard's labels, descriptors and diagnostics; the linkage tree is written."""
    denoiser = ShardDenoiser(work)
    denoised = denoiser.denoise(work.denoising)
    diagnostics = diagnose(
        denoiser.shard.embeddings,
        denoiser.shard.offsets,
        denoised.labels,
        denoised.descriptors,
        clustered=work.denoising.denoiser.makes_clusters,
        frames=denoiser.shard.frames,
        repeats=work.denoising.repeats,
    )
    return denoised, diagnostics


def make_tree(work: ShardWork) -> None:
    """Write a shard's linkage tree, unless it is there."""
    ShardDenoiser(work).make_tree(work.denoising)


def read_or_make_tree(
    path: Path, source: ShardSource, faces: FaceSet, same_person: float | None = None
) -> LinkageTree:
    """Read what `faces.link(same_person)` is to give; it is written if it is not there yet."""
    if path.is_file():
        table, made = artefacts.read_arrow(path)
        kept_apart = made.get("same_person_threshold")
        if (made.get("extraction_created"), kept_apart) == (source.extraction_created, same_person):
            columns = [table.column(name).to_numpy() for name in LINKAGE_SCHEMA.names]
            return LinkageTree(faces.offsets, *columns)
    tree = faces.compute_tree(same_person)
    if not can_be_written(path.parent):
        return tree
    table = pa.Table.from_arrays(
        [pa.array(column) for column in (tree.order, tree.similarities)],
        schema=LINKAGE_SCHEMA,
    )
    made = artefacts.provenance(
        "linkage",
        source.extraction_settings,
        extraction_created=source.extraction_created,
        same_frame="free" if same_person is None else "apart",
        same_person_threshold=same_person,
        # Two commands that make it at once write the same bytes, whichever is last.
        created=source.extraction_created,
        command=None,
    )
    artefacts.write_arrow(path, table, made)
    return tree
