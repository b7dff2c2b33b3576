"""Noise removal over a whole run: embeddings → labels and descriptors, and their artefact."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface import artefacts
from vidface.artefacts import threshold_name
from vidface.denoisers import DENOISERS, DenoiserSettings, label_faces, uses_threshold
from vidface.errors import VidfaceError
from vidface.pipeline import Pipeline
from vidface.runs import Run

if TYPE_CHECKING:
    from vidface.artefacts import EmbeddingShard
    from vidface.clusters import LinkageTree
    from vidface.diagnostics import Diagnostics
    from vidface.truth import NoiseRemoval, Truth

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
        from vidface.truth import read_truth

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


def denoise(run: Run, what: What) -> Denoised:
    """Label every face and pool what is kept; nothing is written but the linkage tree."""
    [found] = _denoise(run, [meant(run, what)])
    return found


def denoise_all(run: Run, thresholds: Sequence[float | None]) -> Iterator[Denoised]:
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
    return _denoise(run, [denoising.at(threshold) for threshold in thresholds])


def _denoise(run: Run, wanted: Sequence[Denoising]) -> Iterator[Denoised]:
    clips = Clips(run)
    shards = list(clips.each_shard())
    for denoising in wanted:
        collected = clips.collect(denoising)
        for one in shards:
            collected.add(one, one.denoise(denoising))
        yield collected.finish()


@dataclass(frozen=True)
class _Part:
    """One shard after noise removal."""

    labels: np.ndarray  # (n_faces,) int32
    descriptors: np.ndarray  # (n_clips, d) float32
    pooling: str
    weights_ignored: int
    fallen_back: int


class _Shard:
    """One shard, and what of it serves every threshold: its tree, its noise, the last pooling."""

    def __init__(self, run: Run, number: int, shard: EmbeddingShard, clips: Clips) -> None:
        self._run, self._number, self.shard, self._clips = run, number, shard, clips
        self._tree: LinkageTree | None = None
        self._noise: np.ndarray | None = None
        self._before: _Part | None = None

    @cached_property
    def places(self) -> np.ndarray:
        """(n_clips,) where the shard's clips stand among all."""
        place = self._clips.place
        return np.array([place[clip_id] for clip_id in self.shard.clip_ids], dtype=np.int64)

    def noise(self, truth: Truth) -> np.ndarray:
        """(n_faces,) bool; of the one truth of a call."""
        if self._noise is None:
            self._noise = truth.noise_of(self.shard.table)
        return self._noise

    def denoise(self, denoising: Denoising) -> _Part:
        from vidface.descriptors import pool_faces, pooling_weights

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
            part = _Part(labels, descriptors, denoising.pooling, 0, 0)
        else:
            pooled = pool_faces(
                shard.embeddings, shard.offsets, labels, pooling=denoising.pooling, weights=weights
            )
            part = _Part(
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
            from vidface.clusters import cut

            if self._tree is None:
                created, budget = self._clips.created, denoising.memory_bytes
                self._tree = linkage_of(self._run, self._number, self.shard, created, budget)
            return cut(self._tree, denoising.threshold)
        noise = None
        if denoising.denoiser.method == "oracle" and denoising.truth is not None:
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
    run: Run, number: int, shard: EmbeddingShard, extraction_created: str, memory_bytes: int
) -> LinkageTree:
    """A shard's linkage tree: from its artefact, which is written where it is not there yet."""
    import pyarrow as pa

    from vidface.clusters import LinkageTree, linkage_tree

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

    def collect(self, denoising: Denoising) -> _Collected:
        return _Collected(self, denoising)

    def each_shard(self) -> Iterator[_Shard]:
        for number, shard in self._run.each_shard():
            yield _Shard(self._run, number, shard, self)


class _Collected:
    """Shards after noise removal, one after the other, becoming one `Denoised`."""

    def __init__(self, clips: Clips, denoising: Denoising) -> None:
        self._clips, self._denoising = clips, denoising
        self._counts = np.zeros((3, len(clips.clip_ids)), np.int64)  # clusters, kept, unusable
        self._descriptors: np.ndarray | None = None
        self._ignored = self._fallen = 0
        self._truth_counts = np.zeros(3, np.int64)  # dropped, noise, dropped noise
        self._unusable: list[str] = []

    def add(self, one: _Shard, part: _Part) -> None:
        from vidface.clusters import UNUSABLE

        shard = one.shard

        n_clips = len(self._clips.clip_ids)
        if self._descriptors is None:
            self._descriptors = np.zeros((n_clips, shard.embeddings.shape[1]), np.float32)
        rows, starts, labels = one.places, shard.offsets[:-1], part.labels
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
        if self._denoising.truth is not None:
            noise, dropped = one.noise(self._denoising.truth), labels != 0
            self._truth_counts += [dropped.sum(), noise.sum(), (dropped & noise).sum()]

    def finish(self, diagnostics: Diagnostics | None = None) -> Denoised:
        from vidface.truth import NoiseRemoval

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
