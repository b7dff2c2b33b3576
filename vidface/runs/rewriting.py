"""A run's files without the clips that it is to forget: what `vidface forget` has left to do.

Embeddings and crops are written anew without their rows, in shards cut as an extraction of the
others cuts them; what is made of all clips together is removed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidface.core.digests import remove_with_digest
from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.runs import artefacts
from vidface.runs.forgotten import Forgotten
from vidface.runs.run_folder import STAGING, RunFolder

MADE_OF_ALL = ("linkage", "clusters", "scores", "sweeps")  # folders whose files mix people


def finish_forgetting(run: RunFolder, forgotten: Forgotten) -> Forgotten:
    """Do all that a list says is yet to be done; done twice it is the same."""
    todo = forgotten.unfinished or {}
    folder = run.folder.resolve()
    for name in todo.get("remove", ()):
        path = Path(os.path.normpath(folder / name))
        # A stranger's list, or a link in his folder, may lead anywhere.
        inside = all(p.is_relative_to(folder) for p in (path.parent, path.parent.resolve()))
        if inside and not path.is_dir():
            with named_errors(path):
                remove_with_digest(path)
            _remove_empty(path.parent, folder)
    staging = RunFolder(run.folder / STAGING)
    with named_errors(staging.folder):
        whole = staging.clips_path.is_file() and not run.clips_path.is_file()
        if staging.is_moving or whole:  # killed while the new took the old one's place
            run.replace_extraction(staging)
        for begun in run.folder.glob(f"{STAGING}*"):
            shutil.rmtree(begun)
    if run.clips_path.is_file():
        _rewrite_extraction(run, forgotten, *todo.get("clips_sha256", ("", "")))
    finished = replace(forgotten, unfinished=None)
    finished.write(run.folder)
    return finished


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder, and those above it below `top`, where nothing is in them."""
    while folder != top:
        with contextlib.suppress(OSError):
            folder.rmdir()
        folder = folder.parent


def _rewrite_extraction(run: RunFolder, forgotten: Forgotten, before: str, after: str) -> None:
    """Write clips, embeddings and crops anew without the forgotten rows.

    Args:
        before, after: `clips_sha256` of the manifest with them and without.
    """
    table, made = artefacts.read_parquet(run.clips_path)
    keeps = [not forgotten.forgets_clip(clip_id) for clip_id in table["clip_id"].to_pylist()]
    if all(keeps):
        return
    table = table.filter(pa.array(keeps)).replace_schema_metadata(None)
    made = _forget_in_provenance(made, table, before, after)
    size = made.get("shard_clips")
    lengths: list[int] | None = None
    if isinstance(size, int) and size > 0:  # as a new extraction of the others cuts them
        starts = np.arange(0, len(table), size)
        lengths = np.add.reduceat(table["faces"].to_numpy(), starts, dtype=np.int64).tolist()
    staging = run.new_staging()
    embeddings = (artefacts.read_arrow(path)[0] for path in run.shard_paths)
    for number, rows in enumerate(_cut_rows(embeddings, table["clip_id"], lengths)):
        artefacts.write_arrow(staging.shard_path(number), rows, made)
    crops = (
        artefacts.read_parquet(p)[0] for p in sorted((run.folder / "crops").glob("shard-*.parquet"))
    )
    for number, rows in enumerate(_cut_rows(crops, table["clip_id"], lengths)):
        artefacts.write_parquet(staging.crops_path(number), rows, made)
    artefacts.write_parquet(staging.clips_path, table, made)
    run.replace_extraction(staging)


def _forget_in_provenance(
    made: Mapping[str, Any], clips: pa.Table, before: str, after: str
) -> dict[str, Any]:
    """The provenance of what remains: no file's name, no command that may hold one."""
    made = dict(made)
    settings = dict(made["settings"])
    if settings.get("manifest.clips_sha256") == before:
        settings["manifest.clips_sha256"] = after
    paths = set(clips["path"].to_pylist()) if "features" in made else set()
    features = {name: file for name, file in made.get("features", {}).items() if name in paths}
    return {
        **made,
        **({"features": features} if "features" in made else {}),
        "settings": settings,
        "command": None,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
    }


def _cut_rows(
    tables: Iterable[pa.Table], clip_ids: pa.ChunkedArray, lengths: Sequence[int] | None
) -> Iterator[pa.Table]:
    """The rows of clips that stay, shard by shard; memory is that of two shards.

    Args:
        tables: of shards, in order, with a column `clip_id`.
        clip_ids: of the clips that stay.
        lengths: rows of each new shard; None to leave the cut as it is, without empty shards.
    """
    stay = clip_ids.combine_chunks()
    kept = (
        table.filter(pc.is_in(table["clip_id"], stay)).replace_schema_metadata(None)
        for table in tables
    )
    if lengths is None:
        yield from (table for table in kept if len(table))
        return
    waiting = next(kept, None)
    if waiting is None:
        return  # no crops were kept
    for length in lengths:
        while len(waiting) < length:
            more = next(kept, None)
            if more is None:
                raise VidfaceError("rows of the extraction are lost; `vidface extract --force`")
            waiting = pa.concat_tables([waiting, more])
        yield waiting.slice(0, length)
        waiting = waiting.slice(length)
