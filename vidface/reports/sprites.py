"""The faces of the clips that a report shows, as one WebP picture a clip, shard by shard.

Beside the faces stand their clusters, their similarities to the descriptor and the matrix of their
similarities to one another, in cluster order. In memory are one clip's faces and no more.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.runs import artefacts
from vidface.runs.artefacts import EmbeddingShard
from vidface.runs.clip_drawing import choose_evenly, open_crop
from vidface.runs.columns import LABELS_SCHEMA
from vidface.runs.crops import caption_faces, open_crops, take_crops
from vidface.runs.run_folder import RunFolder
from vidface.vectors.rows import unit_rows

TILE = 56
"""Pixels a side of a face in a sprite."""

MOST_FACES = 40
"""Of a longer clip so many are shown, evenly spaced, the first and the last among them."""

SPRITE_COLUMNS = 10
_QUALITY = (60, 25)  # WebP; the second where the first came out too large


@dataclass(frozen=True)
class ShownFaces:
    """The shown faces of one clip, n in time order."""

    row: int  # of the clips
    of: int  # faces that the clip has
    captions: tuple[str, ...]  # (n,) "1.25 s", or the file's name
    clusters: NDArray[np.int64]  # (n,) 0 kept, 1 second cluster, 2, … dropped, −1 unusable
    similarities: NDArray[np.float64]  # (n,) cosine to the descriptor; NaN: none
    order: NDArray[np.int64]  # (n,) the faces in cluster order, as rows of this
    matrix: NDArray[np.uint8]  # (n, n) cosines in cluster order; −1 is 0, 1 is 254, 255 unknown
    webp: bytes | None  # tiles of TILE pixels, SPRITE_COLUMNS a line; None: no pictures


def read_shown_faces(
    folder: RunFolder,
    clustering: Path | None,
    wanted: Mapping[str, int],
    *,
    pictures: bool = True,
    most_bytes: int = 50_000,
) -> Iterator[ShownFaces]:
    """The faces of the wanted clips, in the order of the shards.

    Args:
        clustering: the folder with the clusters; None: all faces count as kept.
        wanted: clip id → row of the clips.
        pictures: False to leave every face out; so it is where the run has no crops.
        most_bytes: a clip's picture that is larger even at low quality is left out.

    Raises:
        VidfaceError: damaged shards, or clusters that do not fit the faces.
    """
    labels = _read_labels(clustering, wanted) if clustering is not None else {}
    for path in folder.shard_paths:
        shard, _ = artefacts.read_shard(path)
        places = [i for i, clip_id in enumerate(shard.clip_ids) if clip_id in wanted]
        if not places:
            continue
        spans = {i: (int(shard.offsets[i]), int(shard.offsets[i + 1])) for i in places}
        shown = {
            i: first + np.array(choose_evenly(last - first, MOST_FACES), np.int64)
            for i, (first, last) in spans.items()
        }
        number = int(path.stem.removeprefix("shard-"))
        all_jpegs = (
            _read_jpegs(folder.crops_path(number), shard, shown) if pictures else repeat(None)
        )
        for i, jpegs in zip(places, all_jpegs, strict=False):
            clip_id = shard.clip_ids[i]
            yield _describe_faces(shard, i, wanted[clip_id], shown[i], labels.get(clip_id), jpegs,
                            most_bytes)  # fmt: skip


def _read_labels(
    clustering: Path, wanted: Mapping[str, int]
) -> dict[str, tuple[NDArray[Any], ...]]:
    """Clip id → (frame, cluster, similarity) of its faces, in their order."""
    path = clustering / "faces.parquet"
    table, _ = artefacts.read_parquet(path, [("clip_id", "in", list(wanted))])
    try:
        table = table.cast(LABELS_SCHEMA.with_metadata(table.schema.metadata))
    except (ValueError, KeyError, TypeError) as error:
        raise VidfaceError(f"{path}: unreadable ({error}); `vidface cluster` again") from None
    ids, offsets = artefacts.runs_of(table.column("clip_id"))
    frames = table.column("frame_index").to_numpy(zero_copy_only=False)
    clusters = table.column("cluster").to_numpy(zero_copy_only=False)
    cosines = table.column("similarity").to_numpy(zero_copy_only=False).astype(np.float64)
    spans = zip(ids, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return {
        clip_id: (frames[first:last], clusters[first:last], cosines[first:last])
        for clip_id, first, last in spans
    }


def _read_jpegs(
    path: Path, shard: EmbeddingShard, shown: Mapping[int, NDArray[np.int64]]
) -> Iterator[list[bytes | None] | None]:
    """For each place of `shown`, rising, its faces as JPEGs; None where there are no crops."""
    if not path.is_file():
        yield from repeat(None, len(shown))
        return
    with open_crops(path) as file:
        if file.metadata.num_rows != shard.table.num_rows:
            raise VidfaceError(f"{path}: crops do not fit the faces; extract again")
        crops = (
            (crop["clip_id"], crop["jpeg"])
            for batch in take_crops(file, np.concatenate(list(shown.values())))
            for crop in batch.select(["clip_id", "jpeg"]).to_pylist()
        )
        for place, rows in shown.items():
            # Another clip's face is worse than none.
            yield [
                jpeg if clip_id == shard.clip_ids[place] else None
                for clip_id, jpeg in islice(crops, len(rows))
            ]


def _describe_faces(
    shard: EmbeddingShard,
    place: int,
    row: int,
    rows: NDArray[np.int64],
    labels: tuple[NDArray[Any], ...] | None,
    jpegs: list[bytes | None] | None,
    most_bytes: int,
) -> ShownFaces:
    first, last = int(shard.offsets[place]), int(shard.offsets[place + 1])
    chosen = rows - first
    clusters = np.zeros(len(rows), np.int64)
    similarities = np.full(len(rows), np.nan)
    if labels is not None:
        frames, of_faces, cosines = labels
        there = shard.table.column("frame_index").slice(first, last - first).to_numpy()
        if not np.array_equal(frames, there):
            raise VidfaceError(
                f"clip {shard.clip_ids[place]!r}: clusters do not fit the faces; "
                "`vidface cluster` again"
            )
        clusters, similarities = of_faces[chosen].astype(np.int64), cosines[chosen]
    # By cluster, the unusable last; within one by time.
    unusable_last = np.where(clusters == UNUSABLE, np.iinfo(np.int64).max, clusters)
    order = np.argsort(unusable_last, kind="stable")
    return ShownFaces(
        row=row,
        of=last - first,
        captions=tuple(caption[-40:] for caption in caption_faces(shard.table.take(rows))),
        clusters=clusters,
        similarities=similarities,
        order=order,
        matrix=_cosine_levels(shard.embeddings[rows][order]),
        webp=None if jpegs is None else make_sprite(jpegs, most_bytes),
    )


def _cosine_levels(faces: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(n, n) cosines as bytes: −1 is 0, 1 is 254; 255 where a face has no direction."""
    unit, usable = unit_rows(faces)
    cosines = np.clip(unit @ unit.T, -1, 1)
    levels = np.rint((cosines + 1) * 127).astype(np.uint8)
    levels[~usable] = 255
    levels[:, ~usable] = 255
    return levels


def make_sprite(jpegs: list[bytes | None], most_bytes: int) -> bytes | None:
    """One WebP picture of all faces; None if there is none, or it is larger than `most_bytes`.

    A face that is no picture is a grey tile.
    """
    if not jpegs:
        return None
    lines = -(-len(jpegs) // SPRITE_COLUMNS)
    width = min(len(jpegs), SPRITE_COLUMNS) * TILE
    sheet = Image.new("RGB", (width, lines * TILE), (128, 128, 128))
    for k, jpeg in enumerate(jpegs):
        tile = None if jpeg is None else open_crop(jpeg, _shrink_to_tile)
        if tile is not None:
            sheet.paste(tile, (k % SPRITE_COLUMNS * TILE, k // SPRITE_COLUMNS * TILE))
    for quality in _QUALITY:
        out = io.BytesIO()
        sheet.save(out, "WEBP", quality=quality, method=4)
        if out.tell() <= most_bytes:
            return out.getvalue()
    return None


def _shrink_to_tile(image: Image.Image) -> Image.Image:
    image.draft("RGB", (TILE, TILE))
    return image.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
