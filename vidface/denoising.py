"""Noise removal over a whole run: embeddings → labels and descriptors, and their artefact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface import artefacts
from vidface.artefacts import threshold_name
from vidface.errors import VidfaceError
from vidface.runs import Run

if TYPE_CHECKING:
    from vidface.artefacts import EmbeddingShard


@dataclass(frozen=True)
class Denoised:
    """Every clip of the manifest after noise removal at one threshold, in the manifest's order."""

    threshold: float | None
    clip_ids: tuple[str, ...]
    states: tuple[str, ...]
    frames: np.ndarray  # (n_clips,) int64: sampled frames
    faces: np.ndarray  # (n_clips,) int64
    clusters: np.ndarray  # (n_clips,) int64: components, without unusable faces
    kept: np.ndarray  # (n_clips,) int64: faces in the dominant cluster
    unusable: np.ndarray  # (n_clips,) int64: NaN or zero embeddings
    descriptors: np.ndarray  # (n_clips, d) float32 unit rows; a zero row = no direction

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
        faces, kept = int(self.faces.sum()), int(self.kept.sum())
        return {
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


Labels = list[tuple["EmbeddingShard", np.ndarray]]


def denoise(run: Run, threshold: float | None) -> tuple[Denoised, Labels]:
    """Cluster every clip at one threshold and pool what is kept.

    Returns:
        The clips, and for each shard its faces' labels.
    """
    [result] = denoise_all(run, (threshold,))
    return result


def denoise_all(run: Run, thresholds: Sequence[float | None]) -> Iterator[tuple[Denoised, Labels]]:
    """`denoise` at several thresholds, one after the other; the embeddings are mapped once."""
    from vidface.clusters import UNUSABLE, cluster_frames
    from vidface.descriptors import pool_descriptors

    clips = run.clips()
    clip_ids = tuple(clips.column("clip_id").to_pylist())
    place = {clip_id: row for row, clip_id in enumerate(clip_ids)}
    shards = run.shards()
    dimension = shards[0].embeddings.shape[1] if shards else 0
    for threshold in thresholds:
        counts = np.zeros((3, len(clip_ids)), np.int64)  # clusters, kept, unusable
        descriptors = np.zeros((len(clip_ids), dimension), np.float32)
        labelled: Labels = []
        for shard in shards:
            labels = cluster_frames(shard.embeddings, shard.offsets, threshold)
            rows = np.array([place[clip_id] for clip_id in shard.clip_ids], dtype=np.int64)
            descriptors[rows] = pool_descriptors(shard.embeddings, shard.offsets, labels)
            starts = shard.offsets[:-1]
            if len(starts):
                counts[0, rows] = np.maximum.reduceat(labels, starts) + 1
                counts[1, rows] = np.add.reduceat(labels == 0, starts, dtype=np.int64)
                counts[2, rows] = np.add.reduceat(labels == UNUSABLE, starts, dtype=np.int64)
            labelled.append((shard, labels))
        denoised = Denoised(
            threshold=threshold,
            clip_ids=clip_ids,
            states=tuple(clips.column("state").to_pylist()),
            frames=clips.column("frames").to_numpy().astype(np.int64),
            faces=clips.column("faces").to_numpy().astype(np.int64),
            clusters=counts[0],
            kept=counts[1],
            unusable=counts[2],
            descriptors=descriptors,
        )
        yield denoised, labelled


def cluster(run: Run, threshold: float | None) -> Denoised:
    """Embeddings → labels and descriptors, written as the clustering at `threshold`.

    Raises:
        VidfaceError: no extraction, or one made with other settings.
    """
    import pyarrow as pa

    denoised, labelled = denoise(run, threshold)
    folder = run.folder.clustering(threshold)
    settings = {**run.extraction_settings, "cluster.threshold": threshold}
    _, extraction = run.folder.read_clips()
    made = artefacts.provenance(
        "cluster",
        settings,
        manifest_sha256=run.manifest.sha256,
        extraction_created=extraction["created"],
    )
    tables = [artefacts.LABELS_SCHEMA.empty_table()]
    for shard, labels in labelled:
        columns = shard.table.select(["clip_id", "frame_index", "face_index"])
        tables.append(columns.append_column("cluster", pa.array(labels, pa.int32())))
    joined = pa.concat_tables([table.cast(artefacts.LABELS_SCHEMA) for table in tables])
    columns = {
        "clip_id": denoised.clip_ids,
        "state": denoised.states,
        "frames": denoised.frames,
        "faces": denoised.faces,
        "clusters": denoised.clusters,
        "kept": denoised.kept,
        "dropped": denoised.faces - denoised.kept,
        "unusable": denoised.unusable,
        "descriptor": artefacts.fixed_lists(denoised.descriptors, denoised.has_descriptor),
    }
    schema = artefacts.descriptors_schema(denoised.descriptors.shape[1])
    arrays = [pa.array(columns[f.name]).cast(f.type) for f in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    artefacts.write_parquet(folder / "faces.parquet", joined, made)
    artefacts.write_parquet(folder / "descriptors.parquet", table, made)
    return denoised


def cluster_once(run: Run, threshold: float | None) -> Denoised:
    """`cluster`, unless it is done already with the same settings."""
    return read_clustering(run, threshold) or cluster(run, threshold)


def read_clustering(run: Run, threshold: float | None) -> Denoised | None:
    """The clustering at `threshold` from its artefact; None where it is not there or outdated."""
    path = run.folder.clustering(threshold) / "descriptors.parquet"
    if not path.is_file():
        return None
    table, made = artefacts.read_parquet(path)
    _, extraction = run.folder.read_clips()
    wanted = {**run.extraction_settings, "cluster.threshold": threshold}
    remedy = "run `vidface cluster` again, or give the settings it was made with"
    artefacts.check_fit(made, wanted, path, remedy)
    if made.get("extraction_created") != extraction["created"]:
        return None
    column = table.column("descriptor").combine_chunks()
    present = ~column.is_null().to_numpy(zero_copy_only=False)
    descriptors = np.zeros((len(column), column.type.list_size), np.float32)
    descriptors[present] = (
        column.drop_null().flatten().to_numpy().reshape(-1, column.type.list_size)
    )

    def counts(name: str) -> np.ndarray:
        return table.column(name).to_numpy().astype(np.int64)

    return Denoised(
        threshold=threshold,
        clip_ids=tuple(table.column("clip_id").to_pylist()),
        states=tuple(table.column("state").to_pylist()),
        frames=counts("frames"),
        faces=counts("faces"),
        clusters=counts("clusters"),
        kept=counts("kept"),
        unusable=counts("unusable"),
        descriptors=descriptors,
    )


def latest_threshold(run: Run) -> float | None:
    """The threshold of the clustering that was made last.

    Raises:
        VidfaceError: there is none.
    """
    made = run.folder.clusterings()
    if not made:
        raise VidfaceError(
            f"run directory {run.folder.folder}: no clustering; run `vidface cluster` first, "
            "or name one with --threshold"
        )
    return made[-1][1]
