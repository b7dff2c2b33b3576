"""An extraction that is being made: shards of clips that are done, each written once.

It lies in the run directory's folder `.extracting` until all of it is there:

    extraction.json                  its provenance, and how many clips a shard holds
    embeddings/shard-00000.arrow …   faces, as in the run directory
    crops/shard-00000.parquet …      with keep_crops
    clips/shard-00000.parquet …      the clips' states; written last, so that its presence says that
                                     the shard is done

So a killed extraction goes on with what is not there, and what comes out is what an unbroken one
makes. Where the manifest was edited meanwhile, its folder is set aside (`.extracting-1`), and its
clips are taken over (`vidface.runs.clips_before`).
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
from vidface.runs.artefacts import CLIPS_SHA256
from vidface.runs.columns import (
    CLIPS_ADDED,
    CLIPS_SCHEMA,
    CROPS_SCHEMA,
    complete_clips,
    embeddings_schema,
)
from vidface.runs.embedding import EmbeddedClip
from vidface.runs.run_folder import STAGING, RunFolder
from vidface.settings.manifests import Manifest

ABOUT = "extraction.json"


@dataclass(frozen=True)
class ClipShard:
    """The clips [start, stop) of a manifest, and what was extracted of each before, if anything."""

    number: int
    start: int
    clips: tuple[Clip, ...] = field(repr=False)
    before: pa.Table = field(repr=False, compare=False)  # a row a clip, null where it is to be done

    def __str__(self) -> str:
        return f"shard {self.number} (clips {self.start} to {self.start + len(self.clips) - 1})"

    @property
    def clips_to_do(self) -> tuple[Clip, ...]:
        """The clips of which nothing is there."""
        known = self.before["folder"].is_valid().to_pylist()
        return tuple(clip for clip, is_known in zip(self.clips, known, strict=True) if not is_known)


@dataclass(frozen=True)
class Staging:
    """The folder of an extraction that is being made, and what it is to be."""

    folder: RunFolder
    made: Mapping[str, Any]  # provenance, the same in every shard
    shard_clips: int
    clips_sha256: str | None = None  # of the manifest that it is of

    def __str__(self) -> str:
        return f"Staging({self.folder.folder}, shards of {self.shard_clips} clips)"

    def states_path(self, number: int) -> Path:
        return self.folder.folder / "clips" / f"shard-{number:05d}.parquet"

    def read_states(self, number: int) -> tuple[pa.Table, dict[str, Any]] | None:
        """States and provenance of a shard that is done; None where it has to be made."""
        path = self.states_path(number)
        if not path.is_file() or not self.folder.shard_path(number).is_file():
            return None
        try:
            table, made = artefacts.read_parquet(path)
        except VidfaceError:
            return None  # damaged: it is made again
        return (table, made) if made.get("created") == self.made["created"] else None

    def write_states(
        self, number: int, states: pa.Table, seconds: Mapping[str, float] | None = None
    ) -> None:
        """Write the states of a shard's clips, which say that the shard is there."""
        made = self.made if seconds is None else {**self.made, "seconds": dict(seconds)}
        artefacts.write_parquet(self.states_path(number), states, made)

    def write(
        self, shard: ClipShard, clips: Sequence[EmbeddedClip], dimension: int, *, keep_crops: bool
    ) -> None:
        """Write a shard: faces, crops, and then the states that say that it is there.

        Raises:
            VidfaceError: it cannot be written (a full disk, say); what was done before stays.
        """
        schema = embeddings_schema(dimension)
        rows = pa.concat_tables([schema.empty_table(), *(clip.rows for clip in clips)])
        artefacts.write_arrow(self.folder.shard_path(shard.number), rows, self.made)
        if keep_crops:
            columns = {name: rows[name] for name in ("clip_id", "frame_index", "face_index")}
            jpegs = [jpeg for clip in clips for jpeg in clip.jpegs]
            columns["jpeg"] = pa.array(jpegs, pa.binary())
            kept = pa.table(columns, schema=CROPS_SCHEMA)
            artefacts.write_parquet(self.folder.crops_path(shard.number), kept, self.made)
        states = pa.Table.from_pylist([clip.to_row() for clip in clips], schema=CLIPS_SCHEMA)
        self.write_states(shard.number, states, _add_seconds(clip.seconds for clip in clips))

    def finish(
        self,
        run: RunFolder,
        shards: Sequence[ClipShard],
        profile: Mapping[str, Any],
        manifest: Manifest,
    ) -> None:
        """Put all shards in the place of the run directory's extraction."""
        tables, seconds = [], []
        for shard in shards:
            staged = self.read_states(shard.number)
            ids = [clip.clip_id for clip in shard.clips]
            if staged is None or staged[0]["clip_id"].to_pylist() != ids:
                raise VidfaceError(f"{self.states_path(shard.number)}: gone; run extract again")
            tables.append(complete_clips(staged[0]))
            seconds.append(staged[1].get("seconds", {}))
        table = pa.concat_tables(tables).combine_chunks()
        stages = {"stages": _add_seconds(seconds), "clips": len(table), **profile}
        same = False  # the clips that were to be done again came out as they were, bit for bit
        if run.clips_path.is_file():
            before, made = run.read_clips()
            paths = ((self.folder.shard_path(s.number), run.shard_path(s.number)) for s in shards)
            same = (
                made.get("created") == self.made["created"]
                and before.drop_columns(CLIPS_ADDED).equals(table.drop_columns(CLIPS_ADDED))
                and all(is_same_content(staged, there) for staged, there in paths)
            )
        write_json(self.folder.profile_path, stages, digest=True)
        # The shards say of which manifest they were; the run, of which it is now.
        settings = {**self.made["settings"], CLIPS_SHA256: manifest.clips_sha256}
        made = {**self.made, "settings": settings, "manifest_sha256": manifest.sha256}
        artefacts.write_parquet(self.folder.clips_path, table, made)
        run.replace_extraction(self.folder, keep_results=same)


def _add_seconds(parts: Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = round(total.get(name, 0.0) + seconds, 6)
    return total


def open_staging(
    run: RunFolder,
    made: Mapping[str, Any],
    shard_clips: int,
    clips_sha256: str,
    *,
    extends: bool = False,
    force: bool = False,
) -> tuple[list[Staging], bool]:
    """Where an extraction is made, and whether one goes on that was begun before.

    Args:
        made: the provenance of one that begins now; of one that extends a finished extraction, that
            one's.
        clips_sha256: of the manifest, as it is now.
        force: begin again, whatever is there.

    Returns:
        The one that is written to, then those that were begun with other clips, the latest first.

    Raises:
        VidfaceError: one with other settings was begun there.
    """
    begun = [] if force else list(filter(None, map(_read_staging, run.stagings)))
    if begun and not extends:
        remedy = "give those again, choose another --run, or --force to begin again"
        there = begun[0]
        artefacts.check_fit(there.made, made["settings"], there.folder.folder, remedy)
        check_runtime(there.made, made.get("runtime"), there.folder.folder, remedy)
        made, shard_clips = there.made, there.shard_clips
    begun = [staging for staging in begun if staging.made["created"] == made["created"]]
    if begun and begun[0].clips_sha256 == clips_sha256 and begun[0].folder.folder.name == STAGING:
        return begun, True
    folder = run.new_staging(keep=bool(begun))
    write_json(
        folder.folder / ABOUT,
        {"made": dict(made), "shard_clips": shard_clips, "clips_sha256": clips_sha256},
    )
    begun = list(filter(None, map(_read_staging, run.stagings)))
    return begun, len(begun) > 1


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


def _read_staging(folder: Path) -> Staging | None:
    """An unfinished extraction by what it says of itself; None where it can't go on."""
    try:
        about = read_json_object(folder / ABOUT)
        made, shard_clips = about["made"], about["shard_clips"]
        clips_sha256 = about.get("clips_sha256", made["settings"].get(CLIPS_SHA256))
        whole = isinstance(shard_clips, int) and isinstance(made["created"], str)
    except (VidfaceError, KeyError, TypeError, AttributeError):
        return None
    return Staging(RunFolder(folder), made, shard_clips, clips_sha256) if whole else None


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
