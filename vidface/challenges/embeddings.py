"""Embeddings of somebody's own program as a manifest."""

from __future__ import annotations

from pathlib import Path

from vidface.challenges.importing import Challenge, Imported, score_keys, write_import
from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.core.values import check_name
from vidface.datasets.embedding_files import EmbeddingRows, read_embeddings
from vidface.datasets.iqiyi import video_key
from vidface.settings.manifests import read_manifest


def import_embeddings(
    file: Path,
    out: Path,
    *,
    manifest: Path | None = None,
    split: str = "val",
    force: bool = False,
    say: Notify = quiet,
) -> Imported:
    """A manifest and a pipeline file for a file of embeddings, written into `out`.

    Args:
        file: as `vidface.datasets.embedding_files.read_embeddings` reads it.
        manifest: says who is in which clip; None where the file has a column identity, and split
            if need be.
        split: of all clips, where the file has no column split.
        out, force: as for `import_iqiyi`.
        say: told of rows that are not of length 1.

    Raises:
        VidfaceError: what the readers refuse, rows without a direction, no clip of the manifest,
            nobody who says who is who; or files in `out` that say something else.
    """
    rows = read_embeddings(file)
    videos = {video_key(clip_id) for clip_id in rows.clip_ids}
    if manifest is None:
        clips = list_clips(rows, file.name, split)
    else:
        clips = [
            Clip(clip.clip_id, file.name, clip.identity, clip.split)
            for clip in read_manifest(manifest, check_files=False).clips
        ]
    absent = sum(video_key(clip.clip_id) not in videos for clip in clips)
    if absent == len(clips):
        raise VidfaceError(
            f"{rows.what}: none of its clip ids is in manifest {manifest}: the first is "
            f"'{rows.clip_ids[0]}' here, '{clips[0].clip_id}' there"
        )
    if remark := rows.describe_lengths():
        say(remark)
    root, score = file.absolute().parent, score_keys(clips)
    n_faces = len(rows.clip_ids)
    return write_import(EMBEDDINGS, clips, root, score, out, force, absent=absent, faces=n_faces)


def list_clips(rows: EmbeddingRows, path: str, split: str = "val") -> list[Clip]:
    """The clips of rows that say themselves who is in them.

    Raises:
        VidfaceError: they don't, or say of one clip two things; an unknown split.
    """
    if "identity" not in rows.labels:
        raise VidfaceError(
            f"{rows.what}: nobody says who is who; name a --manifest with the identities, or add "
            "a column identity"
        )
    check_name("split", split, SPLITS)
    splits = rows.labels.get("split", [split] * len(rows.clip_ids))
    clips: dict[str, Clip] = {}
    for row, label in enumerate(zip(rows.clip_ids, rows.labels["identity"], splits, strict=True)):
        clip = Clip(label[0], path, *label[1:])
        if clip.split not in SPLITS:
            check_name(f"split of row {row} (from 0)", clip.split, SPLITS)
        if clips.setdefault(clip.clip_id, clip) != clip:
            raise VidfaceError(
                f"{rows.what}: clip '{clip.clip_id}' has another identity or split in row {row} "
                "(from 0) than before"
            )
    return list(clips.values())


EMBEDDINGS = Challenge(
    name="embeddings",
    source="features",
    absent="have no embedding",
    import_data=import_embeddings,
)
