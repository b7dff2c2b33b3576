"""An extraction that is being made: shards of clips that are done, each written once.

It lies in the run directory's folder `.extracting` until all of it is there:

    extraction.json                  its provenance, and how many clips a shard holds
    embeddings/shard-00000.arrow …   faces, as in the run directory
    crops/shard-00000.parquet …      with keep_crops
    clips/shard-00000.parquet …      the clips' states; written last, so that its presence says that
                                     the shard is done

So a killed extraction goes on with the first shard that is not there, and what comes out is what an
unbroken one makes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from vidface.core.clips import Clip
from vidface.core.digests import digest_path, is_same_content, remove_with_digest
from vidface.core.errors import VidfaceError
from vidface.core.files import (
    create_file,
    make_folder,
    named_errors,
    read_json_object,
    write_json,
)
from vidface.runs import artefacts
from vidface.runs.embedding import EmbeddedClip
from vidface.runs.run_folder import STAGING, RunFolder

ABOUT = "extraction.json"


@dataclass(frozen=True)
class ClipShard:
    """The clips [start, stop) of a manifest."""

    number: int
    start: int
    clips: tuple[Clip, ...] = field(repr=False)

    def __str__(self) -> str:
        return f"shard {self.number} (clips {self.start} to {self.start + len(self.clips) - 1})"


def cut_into_shards(clips: Sequence[Clip], shard_clips: int) -> list[ClipShard]:
    """A manifest's clips in shards of `shard_clips`, in order."""
    return [
        ClipShard(number, start, tuple(clips[start : start + shard_clips]))
        for number, start in enumerate(range(0, len(clips), shard_clips))
    ]


@dataclass(frozen=True)
class Staging:
    """The folder of an extraction that is being made, and what it is to be."""

    folder: RunFolder
    made: Mapping[str, Any]  # provenance, the same in every shard
    shard_clips: int

    def __str__(self) -> str:
        return f"Staging({self.folder.folder}, shards of {self.shard_clips} clips)"

    def states_path(self, number: int) -> Path:
        return self.folder.folder / "clips" / f"shard-{number:05d}.parquet"

    def read_states(self, shard: ClipShard) -> tuple[pa.Table, dict[str, Any]] | None:
        """States and provenance of a shard that is done; None where it has to be made."""
        path = self.states_path(shard.number)
        if not path.is_file() or not self.folder.shard_path(shard.number).is_file():
            return None
        try:
            table, made = artefacts.read_parquet(path)
        except VidfaceError:
            return None  # damaged: it is made again
        ours = made.get("created") == self.made["created"]
        ids = [clip.clip_id for clip in shard.clips]
        return (table, made) if ours and table["clip_id"].to_pylist() == ids else None

    def write(
        self, shard: ClipShard, clips: Sequence[EmbeddedClip], dimension: int, *, keep_crops: bool
    ) -> None:
        """Write a shard: faces, crops, and then the states that say that it is there.

        Raises:
            VidfaceError: it cannot be written (a full disk, say); what was done before stays.
        """
        schema = artefacts.embeddings_schema(dimension)
        rows = pa.concat_tables([schema.empty_table(), *(clip.rows for clip in clips)])
        artefacts.write_arrow(self.folder.shard_path(shard.number), rows, self.made)
        if keep_crops:
            columns = {name: rows[name] for name in ("clip_id", "frame_index", "face_index")}
            jpegs = [jpeg for clip in clips for jpeg in clip.jpegs]
            columns["jpeg"] = pa.array(jpegs, pa.binary())
            kept = pa.table(columns, schema=artefacts.CROPS_SCHEMA)
            artefacts.write_parquet(self.folder.crops_path(shard.number), kept, self.made)
        states = pa.Table.from_pylist(
            [clip.to_row() for clip in clips], schema=artefacts.CLIPS_SCHEMA
        )
        made = {**self.made, "seconds": _add_seconds(clip.seconds for clip in clips)}
        artefacts.write_parquet(self.states_path(shard.number), states, made)

    def finish(
        self, run: RunFolder, shards: Sequence[ClipShard], profile: Mapping[str, Any]
    ) -> None:
        """Put all shards in the place of the run directory's extraction."""
        tables, seconds = [], []
        for shard in shards:
            staged = self.read_states(shard)
            if staged is None:
                raise VidfaceError(f"{self.states_path(shard.number)}: gone; run extract again")
            tables.append(staged[0])
            seconds.append(staged[1].get("seconds", {}))
        table = pa.concat_tables(tables).combine_chunks()
        stages = {"stages": _add_seconds(seconds), "clips": len(table), **profile}
        same = False  # the clips that were to be done again came out as they were, bit for bit
        if run.clips_path.is_file():
            before, made = run.read_clips()
            paths = ((self.folder.shard_path(s.number), run.shard_path(s.number)) for s in shards)
            same = (
                made.get("created") == self.made["created"]
                and before.equals(table)
                and all(is_same_content(staged, there) for staged, there in paths)
            )
        write_json(self.folder.profile_path, stages, digest=True)
        artefacts.write_parquet(self.folder.clips_path, table, self.made)
        run.replace_extraction(self.folder, keep_results=same)


def _add_seconds(parts: Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = round(total.get(name, 0.0) + seconds, 6)
    return total


def open_staging(
    run: RunFolder, made: Mapping[str, Any], shard_clips: int, *, force: bool = False
) -> tuple[Staging, bool]:
    """Where an extraction is made, and whether one goes on that was begun before.

    Args:
        made: the provenance of one that begins now.
        force: begin again, whatever is there.

    Raises:
        VidfaceError: one with other settings, or of another manifest, was begun there.
    """
    folder = run.folder / STAGING
    begun = None if force else _read_about(folder)
    if begun is not None:
        remedy = "give those again, choose another --run, or --force to begin again"
        clips = "manifest.clips_sha256"
        there, asked = begun["made"]["settings"], made["settings"]
        if clips in there and there[clips] != asked.get(clips):
            raise VidfaceError(
                f"{folder}: the manifest's clips changed since this extraction began; {remedy}"
            )
        artefacts.check_fit(begun["made"], made["settings"], folder, remedy)
        check_runtime(begun["made"], made.get("runtime"), folder, remedy)
        return Staging(RunFolder(folder), begun["made"], begun["shard_clips"]), True
    staging = run.new_staging()
    write_json(folder / ABOUT, {"made": dict(made), "shard_clips": shard_clips})
    return Staging(staging, dict(made), shard_clips), False


def check_runtime(made: Mapping[str, Any], runtime: str | None, where: Path, remedy: str) -> None:
    """Refuse to add clips to an extraction whose embeddings another runtime or precision made.

    Raises:
        VidfaceError: what made those that are there, and what would make the others.
    """
    there = made.get("runtime")
    if there != runtime:
        raise VidfaceError(
            f"{where} was made with {there}, not {runtime}, whose embeddings differ by rounding; "
            f"{remedy}"
        )


def list_other_versions(made: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the libraries that are of other versions now than when an extraction began; "" if none.

    Those that an extraction does not use are left out.
    """
    unused = dict.fromkeys(("python", "pyarrow"))
    there = made.get("versions", now["versions"])
    lines = artefacts.list_differences({**there, **unused}, {**now["versions"], **unused})
    return ", ".join(lines).replace("asked for", "now")


def _read_about(folder: Path) -> dict[str, Any] | None:
    """What an unfinished extraction says of itself; None where there is none to go on with."""
    try:
        about = read_json_object(folder / ABOUT)
        about["made"]["settings"], about["made"]["created"]
        return about if isinstance(about["shard_clips"], int) else None
    except (VidfaceError, KeyError, TypeError):
        return None


def link_or_copy(source: Path, target: Path) -> None:
    """The same file, and its digest, under another name; not copied where the file system can."""
    with named_errors(f"{target}: cannot be written"):
        make_folder(target.parent)
        remove_with_digest(target)
        for there, here in ((digest_path(source), digest_path(target)), (source, target)):
            if there != source and not there.is_file():
                continue  # older runs have no digests
            try:
                os.link(there, here)
            except OSError:
                with there.open("rb") as original, create_file(here) as copy:
                    shutil.copyfileobj(original, copy)


def split_by_clip(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """(clip_id, rows) of an embeddings table, clip by clip."""
    ids, offsets = artefacts.runs_of(table.column("clip_id"))
    for clip_id, start, stop in zip(ids, offsets[:-1], offsets[1:], strict=True):
        yield clip_id, table.slice(int(start), int(stop - start))
