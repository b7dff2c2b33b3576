"""The failed clips of a finished extraction, done once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.states import FAILED_STATES
from vidface.runs import artefacts
from vidface.runs.embedding import EmbeddedClip
from vidface.runs.run_folder import RunFolder, shard_number
from vidface.runs.staging import (
    ClipShard,
    Staging,
    check_runtime,
    cut_into_shards,
    link_or_copy,
    open_staging,
    split_by_clip,
)


@dataclass(frozen=True)
class FailedClips:
    """A finished extraction, of which clips that failed, or lost shards, are done once more."""

    run: Path
    clip_ids: frozenset[str]
    lost: frozenset[int] = frozenset()  # shards of which all clips are done

    def clips_of(self, shard: ClipShard) -> tuple[Clip, ...]:
        """The clips of a shard that failed."""
        if shard.number in self.lost:
            return shard.clips
        return tuple(clip for clip in shard.clips if clip.clip_id in self.clip_ids)

    def merge(self, shard: ClipShard, clips: Sequence[EmbeddedClip]) -> list[EmbeddedClip]:
        """A shard's clips in order: those done again, and the others as they were."""
        if shard.number in self.lost:
            return list(clips)
        run = RunFolder(self.run)
        before, _ = artefacts.read_shard(run.shard_path(shard.number))
        rows = dict(split_by_clip(before.table))
        crops: dict[str, list[bytes]] = {}
        if run.crops_path(shard.number).is_file():
            crop_table, _ = artefacts.read_parquet(run.crops_path(shard.number))
            for clip_id, clip_crops in split_by_clip(crop_table):
                crops[clip_id] = clip_crops["jpeg"].to_pylist()
        states = run.read_clips()[0].slice(shard.start, len(shard.clips)).to_pylist()
        done_again = {clip.clip.clip_id: clip for clip in clips}
        return [
            done_again.get(clip.clip_id)
            or EmbeddedClip(
                clip,
                row["state"],
                row["message"],
                row["frames"],
                row["frames_without_face"],
                row["bytes"],
                rows.get(clip.clip_id, before.table.slice(0, 0)).replace_schema_metadata(None),
                tuple(crops.get(clip.clip_id, ())),
            )
            for clip, row in zip(shard.clips, states, strict=True)
        ]


def stage_failed_clips(
    run: RunFolder,
    clips: Sequence[Clip],
    runtime: str,
    *,
    keep_crops: bool,
    retry: bool = True,
    lost: Sequence[Path] = (),
) -> tuple[Staging, list[ClipShard], FailedClips]:
    """Begin an extraction that takes over the shards without a failed clip as they are.

    Args:
        runtime: what embeds the clips that are done again, precision and device included.
        retry: do clips again that failed; False for the lost shards alone.
        lost: files of shards that are to be made again.

    Raises:
        VidfaceError: an older vidface made the extraction, or another runtime or precision.
    """
    table, made = run.read_clips()
    size = made.get("shard_clips")
    if not isinstance(size, int):
        raise VidfaceError(
            f"{run.clips_path}: made by an older vidface, whose shards can't be mended; "
            "extract with --force"
        )
    remedy = "give that one (--runtime, --precision, --device), or --force to do all clips again"
    check_runtime(made, runtime, run.clips_path, remedy)
    states = zip(table["clip_id"].to_pylist(), table["state"].to_pylist(), strict=True)
    failed = FailedClips(
        run.folder,
        frozenset(clip_id for clip_id, state in states if retry and state in FAILED_STATES),
        frozenset(shard_number(path) for path in lost),
    )
    staging, _ = open_staging(run, made, size, force=True)
    shards = cut_into_shards(clips, staging.shard_clips)
    for shard in shards:
        if failed.clips_of(shard):
            continue
        link_or_copy(run.shard_path(shard.number), staging.folder.shard_path(shard.number))
        if keep_crops:
            link_or_copy(run.crops_path(shard.number), staging.folder.crops_path(shard.number))
        shard_states = table.slice(shard.start, len(shard.clips))
        artefacts.write_parquet(staging.states_path(shard.number), shard_states, staging.made)
    return staging, shards, failed
