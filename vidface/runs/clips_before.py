"""Clips that were extracted before, and how their rows are taken over into a new extraction.

Wherever they lie (a finished run, an extraction that was interrupted, one that the manifest was
edited during), they are one table: the columns of clips.parquet, and `folder` and `shard`, where
the rows are. What is not in it is done; whole shards are linked, others are put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidface.core.clips import FileState
from vidface.core.errors import VidfaceError
from vidface.core.rules import ReadingRules
from vidface.core.states import FAILED_STATES
from vidface.runs import artefacts
from vidface.runs.clip_changes import compare_files, complete_keys, match_clips
from vidface.runs.columns import CLIPS_SCHEMA, complete_clips, embeddings_schema
from vidface.runs.embedding import EmbeddedClip
from vidface.runs.run import Run
from vidface.runs.run_folder import RunFolder, shard_number
from vidface.runs.staging import ClipShard, Staging, link_or_copy, split_by_clip

NO_ROWS = -1  # the shard of clips without a face, where shards are not known
BEFORE_SCHEMA = CLIPS_SCHEMA.append(pa.field("folder", pa.string())).append(
    pa.field("shard", pa.int64())
)


@dataclass(frozen=True)
class Redo:
    """What of a finished extraction is done once more.

    Attributes:
        failed: the clips that failed.
        lost: files of shards that are gone or damaged.
        changed_ids: clips whose files were found changed.
    """

    failed: bool = False
    lost: Sequence[Path] = ()
    changed_ids: frozenset[str] = frozenset()


def read_finished(run: Run, lost: Sequence[Path] = ()) -> pa.Table:
    """The clips of a finished extraction, but for those whose shards are lost."""
    table, made = run.folder.read_clips()
    table = complete_keys(table, made, run.manifest)
    lost_numbers = [shard_number(path) for path in lost]
    size = made.get("shard_clips")
    if isinstance(size, int) and size > 0:
        numbers = np.arange(len(table)) // size
    else:  # an older vidface made it
        numbers = np.full(len(table), NO_ROWS)
        for path in run.folder.shard_paths:
            if shard_number(path) not in lost_numbers:
                shard, _ = artefacts.read_shard(path)
                ids = pa.array(shard.clip_ids, pa.string())
                rows = pc.drop_null(pc.index_in(ids, value_set=table["clip_id"]))
                numbers[np.asarray(rows)] = shard_number(path)
        there = (numbers != NO_ROWS) | (np.asarray(table["faces"]) == 0)
        table, numbers = table.filter(there), numbers[there]
    kept = ~np.isin(numbers, lost_numbers)
    return _add_place(table, run.folder, numbers).filter(kept)


def read_staged(staging: Staging, run: Run, *, keep_crops: bool) -> pa.Table:
    """The clips of the shards that are done of an extraction that is being made."""
    tables = []
    for path in sorted((staging.folder.folder / "clips").glob("shard-*.parquet")):
        number = shard_number(path)
        states = staging.read_states(number)
        if states is None or (keep_crops and not staging.folder.crops_path(number).is_file()):
            continue
        tables.append(_add_place(complete_clips(states[0]), staging.folder, number))
    table = pa.concat_tables([BEFORE_SCHEMA.empty_table(), *tables])
    if not table["key"].null_count:
        return table
    if staging.clips_sha256 != run.manifest.clips_sha256:
        return BEFORE_SCHEMA.empty_table()  # an older vidface's: of which files is not known
    ids = pa.array([clip.clip_id for clip in run.manifest.clips], pa.string())
    rows = pc.index_in(table["clip_id"], value_set=ids)
    keys = run.manifest.clip_keys.take(rows)
    return table.set_column(table.schema.get_field_index("key"), BEFORE_SCHEMA.field("key"), keys)


def _add_place(table: pa.Table, folder: RunFolder, shards: np.ndarray | int) -> pa.Table:
    numbers = np.broadcast_to(np.asarray(shards, np.int64), len(table))
    columns = [*(table[name] for name in CLIPS_SCHEMA.names)]
    folders = pa.array([str(folder.folder)], pa.string()).take(pa.array(np.zeros(len(table), int)))
    return pa.Table.from_arrays([*columns, folders, pa.array(numbers)], schema=BEFORE_SCHEMA)


@dataclass(frozen=True)
class ClipsBefore:
    """Every clip extracted so far, and which of them each of the manifest's is.

    Attributes:
        table: of `BEFORE_SCHEMA`.
        rows: (n_clips,) int64: of each clip of the manifest its row in the table; -1: to be done.
    """

    table: pa.Table
    rows: np.ndarray

    def cut_into_shards(self, run: Run, shard_clips: int) -> list[ClipShard]:
        """The manifest's clips in shards of `shard_clips`, in order, with what there is of them."""
        clips, shards = run.manifest.clips, []
        for number, start in enumerate(range(0, len(clips), shard_clips)):
            stop = start + shard_clips
            rows = self.rows[start:stop]
            before = self.table.take(pa.array(rows, mask=rows < 0))  # its own: it is sent away
            shards.append(ClipShard(number, start, tuple(clips[start:stop]), before))
        return shards

    def link_whole_shards(
        self, shards: Iterable[ClipShard], staging: Staging, *, keep_crops: bool
    ) -> list[ClipShard]:
        """Take over the shards that lie somewhere as they are to be; the others are returned."""
        folders = pc.dictionary_encode(self.table["folder"]).combine_chunks().indices
        numbers = np.asarray(self.table["shard"])
        places = np.stack([np.asarray(folders, np.int64), numbers], axis=1)
        _, codes, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
        codes = codes.reshape(-1)
        left = []
        for shard in shards:
            rows = self.rows[shard.start : shard.start + len(shard.clips)]
            is_whole = (
                rows[0] >= 0
                and (np.diff(rows) == 1).all()
                and numbers[rows[0]] != NO_ROWS
                and (codes[rows] == codes[rows[0]]).all()
                and counts[codes[rows[0]]] == len(rows)
                and shard.before["clip_id"].to_pylist() == [clip.clip_id for clip in shard.clips]
            )
            if not is_whole:
                left.append(shard)
                continue
            source = RunFolder(Path(self.table["folder"][int(rows[0])].as_py()))
            number = int(numbers[rows[0]])
            if (source.folder, number) == (staging.folder.folder, shard.number):
                continue  # done already
            link_or_copy(source.shard_path(number), staging.folder.shard_path(shard.number))
            if keep_crops:
                link_or_copy(source.crops_path(number), staging.folder.crops_path(shard.number))
            staging.write_states(shard.number, shard.before.select(CLIPS_SCHEMA.names))
        return left


def find_clips_before(
    run: Run, sources: Sequence[pa.Table], made: Mapping[str, Any], redo: Redo | None
) -> ClipsBefore:
    """Match the manifest's clips with those of several places; of two, the first place counts."""
    table = pa.concat_tables([BEFORE_SCHEMA.empty_table(), *sources]).combine_chunks()
    rows = match_clips(run.manifest, table)
    files = compare_files(run.manifest, rows, table, ReadingRules.from_record(made.get("rules")))
    again = files.changed
    if redo is not None and len(table):
        ids = pa.array([clip.clip_id for clip in run.manifest.clips], pa.string())
        changed = pc.is_in(ids, value_set=pa.array(sorted(redo.changed_ids), pa.string()))
        # One that is done since lies in the staging.
        of_run = np.asarray(pc.equal(table["folder"], str(run.folder.folder)))
        again = again | (np.asarray(changed) & of_run[rows])
        if redo.failed:
            failed = pc.is_in(table["state"], value_set=pa.array(sorted(FAILED_STATES)))
            again = again | np.asarray(failed)[rows]
    rows = np.where(again, -1, rows)
    times = np.asarray(pc.fill_null(table["modified_ns"], -1), np.int64).copy()
    seen = (rows >= 0) & files.touched
    times[rows[seen]] = files.modified_ns[seen]
    column = table.schema.get_field_index("modified_ns")
    modified = pa.array(times, mask=times < 0)
    return ClipsBefore(table.set_column(column, BEFORE_SCHEMA.field(column), modified), rows)


def merge_shard(
    shard: ClipShard, done: Sequence[EmbeddedClip], dimension: int
) -> list[EmbeddedClip]:
    """A shard's clips in order: those that were done now, and the others as they were."""
    done_now = {clip.clip.clip_id: clip for clip in done}
    before = shard.before.to_pylist()
    rows: dict[tuple[str, int, str], pa.Table] = {}
    crops: dict[tuple[str, int, str], list[bytes]] = {}
    empty = embeddings_schema(dimension).empty_table()
    for folder, number in {(row["folder"], row["shard"]) for row in before if row["folder"]}:
        if number == NO_ROWS:
            continue
        run = RunFolder(Path(folder))
        embeddings, _ = artefacts.read_shard(run.shard_path(number))
        table = embeddings.table.replace_schema_metadata(None)
        rows |= {(folder, number, clip_id): part for clip_id, part in split_by_clip(table)}
        if run.crops_path(number).is_file():
            crop_table, _ = artefacts.read_parquet(run.crops_path(number))
            for clip_id, part in split_by_clip(crop_table):
                crops[folder, number, clip_id] = part["jpeg"].to_pylist()
    merged = []
    for clip, row in zip(shard.clips, before, strict=True):
        if clip.clip_id in done_now:
            merged.append(done_now[clip.clip_id])
            continue
        place = (row["folder"], row["shard"], row["clip_id"])
        faces = rows.get(place, empty)
        if len(faces) != row["faces"]:
            raise VidfaceError(
                f"{row['folder']}: shard {row['shard']} has other faces of clip {row['clip_id']} "
                "than its states say; `vidface extract --force` makes all again"
            )
        if row["clip_id"] != clip.clip_id:
            ids = pa.array([clip.clip_id], pa.string()).take(pa.array(np.zeros(len(faces), int)))
            faces = faces.set_column(0, faces.schema.field(0), ids)
        merged.append(
            EmbeddedClip(
                clip,
                row["state"],
                row["message"],
                row["frames"],
                row["frames_without_face"],
                FileState(row["bytes"], row["modified_ns"], row["content"]),
                faces,
                tuple(crops.get(place, ())),
            )
        )
    return merged
