"""A run directory made of numbers, without a recogniser: what clustering and scores work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from vidface.runs import artefacts
from vidface.runs.columns import CLIPS_SCHEMA, embeddings_schema
from vidface.runs.run import Run, open_run
from vidface.settings.pipeline import load_pipeline

DIMENSION = 16


def made_run(folder: Path, weights: Path, *, clips: int = 10, shard_clips: int = 3) -> Run:
    """Clips of 2 to 9 faces of five people, a third of the faces another one's.

    Every shard but the last holds `shard_clips` clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["clip_id,path,identity,split"]
    lines += [f"c{c},c{c},p{c % 5},{'train' if c < 5 else 'val'}" for c in range(clips)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for c in range(clips):
        (folder / f"c{c}").mkdir(exist_ok=True)
    (folder / "made.toml").write_text(
        f'[manifest]\npath = "{(folder / "manifest.csv").as_posix()}"\n'
        f'[faces]\nsource = "aligned"\n[backbone]\nweights = "{weights.as_posix()}"\n'
        f'color = "rgb"\nmean = 127.5\nstd = 127.5\n[run]\ndir = "{(folder / "run").as_posix()}"\n',
        encoding="utf-8",
    )
    run = open_run(load_pipeline(folder / "made.toml"), check_files=False)
    made = artefacts.provenance(
        "extract", run.extraction_settings, manifest_sha256=run.manifest.sha256
    )
    rng = np.random.default_rng(3)
    people = rng.normal(size=(5, DIMENSION))
    counts = [2 + c % 8 for c in range(clips)]
    for number, start in enumerate(range(0, clips, shard_clips)):
        rows = []
        for c in range(start, min(start + shard_clips, clips)):
            for k in range(counts[c]):
                who = people[(c + (k % 3 == 2)) % 5]
                rows.append((f"c{c}", k, who + 0.3 * rng.normal(size=DIMENSION)))
        write_shard(run, number, rows, made)
    states = {
        "clip_id": [f"c{c}" for c in range(clips)],
        "path": [f"c{c}" for c in range(clips)],
        "bytes": [0] * clips,
        "state": ["ok"] * clips,
        "message": [""] * clips,
        "frames": counts,
        "frames_without_face": [0] * clips,
        "faces": counts,
    }
    schema = CLIPS_SCHEMA
    none = [None] * clips
    columns = [pa.array(states.get(name, none), schema.field(name).type) for name in schema.names]
    table = pa.Table.from_arrays(columns, schema=schema)
    artefacts.write_parquet(run.folder.clips_path, table, made)
    return run


def write_shard(run: Run, number: int, rows: list, made: dict) -> None:
    schema = embeddings_schema(DIMENSION)
    embeddings = np.array([row[2] for row in rows], np.float32)
    known = {
        "clip_id": [row[0] for row in rows],
        "frame_index": [row[1] for row in rows],
        "face_index": [0] * len(rows),
        "norm": np.linalg.norm(embeddings, axis=1).astype(np.float32),
        "embedding": artefacts.fixed_lists(embeddings),
    }
    none = [None] * len(rows)
    columns = [
        known[name] if name == "embedding" else pa.array(known.get(name, none), field.type)
        for name, field in zip(schema.names, schema, strict=True)
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    artefacts.write_arrow(run.folder.shard_path(number), table, made)
