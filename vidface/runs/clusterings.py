"""Clusterings: the artefact of a run's noise removal, written and read again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.noise.diagnostics import CLIP_COLUMNS, Diagnostics
from vidface.runs import artefacts
from vidface.runs.columns import complete_descriptors, descriptors_schema
from vidface.runs.denoised import NAMED_UNUSABLE, Denoised, name_faces
from vidface.runs.denoising import Denoising, DenoisingOrThreshold, resolve_denoising
from vidface.runs.run import Run


def descriptors_table(denoised: Denoised) -> pa.Table:
    """The descriptors' artefact: a row a clip, with what noise removal says of it."""
    columns: dict[str, Any] = {
        "clip_id": denoised.clip_ids,
        "state": denoised.states,
        "frames": denoised.frames,
        "faces": denoised.faces,
        "descriptor": artefacts.fixed_lists(denoised.descriptors, denoised.has_descriptor),
    }
    for name in CLIP_COLUMNS:
        values = getattr(denoised.diagnostics, name)
        missing = np.isnan(values) if values.dtype.kind == "f" else None
        columns[name] = pa.array(values, mask=missing)
    schema = descriptors_schema(denoised.descriptors.shape[1])
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def read_clustering(run: Run, denoising: DenoisingOrThreshold) -> Denoised | None:
    """Read a clustering from its artefact; None where it is not there or outdated.

    Raises:
        VidfaceError: it was made with other settings, or is damaged.
    """
    denoising = resolve_denoising(run, denoising)
    path = run.folder.clustering(denoising.name) / "descriptors.parquet"
    if not path.is_file():
        return None
    table, made = artefacts.read_parquet(path)
    table = complete_descriptors(table)
    clips, extraction = run.folder.read_clips()
    wanted = {**run.extraction_settings, **denoising.settings}
    remedy = "run `vidface cluster` again, or give the settings it was made with"
    artefacts.check_fit(made, wanted, path, remedy)
    if made.get("extraction_created") != extraction["created"]:
        return None
    if not table.column("clip_id").equals(clips.column("clip_id")):
        raise VidfaceError(f"{path}: its clips are not the extraction's; `vidface cluster` again")
    descriptors = artefacts.unpack_fixed_lists(table.column("descriptor"))
    counts = {
        name: table.column(name).to_numpy().astype(np.int64)
        for name in ("frames", "faces", "clusters", "kept", "unusable")
    }
    diagnostics = Diagnostics(
        **{name: table.column(name).to_numpy() for name in CLIP_COLUMNS},
        similarity=np.empty(0, np.float32),  # the faces' lie in the labels' artefact
    )
    return Denoised(
        threshold=denoising.threshold,
        clip_ids=tuple(table.column("clip_id").to_pylist()),
        states=tuple(table.column("state").to_pylist()),
        **counts,
        descriptors=descriptors,
        denoising=denoising,
        diagnostics=diagnostics,
    )


def require_clustering(run: Run, denoising: Denoising) -> Denoised:
    """`read_clustering`, of one that must be there.

    Raises:
        VidfaceError: it is not.
    """
    denoised = read_clustering(run, denoising)
    if denoised is None:
        raise VidfaceError(
            f"run directory {run.folder.folder}: no clustering at {denoising}; "
            "run `vidface cluster` with these settings first"
        )
    return denoised


def name_unusable_faces(run: Run, denoised: Denoised) -> tuple[str, ...]:
    """Name the first unusable faces of a stored clustering, as `cluster` does."""
    if denoised.denoising is None or not denoised.unusable.any():
        return ()
    path = run.folder.clustering(denoised.denoising.name) / "faces.parquet"
    faces, _ = artefacts.read_parquet(path, [("cluster", "=", UNUSABLE)])
    return tuple(name_faces(faces.slice(0, NAMED_UNUSABLE)))


def find_latest_denoising(run: Run) -> Denoising:
    """Find the noise removal of the clustering that was made last.

    Raises:
        VidfaceError: there is none.
    """
    records = run.folder.clusterings()
    if not records:
        raise VidfaceError(
            f"run directory {run.folder.folder}: no clustering; run `vidface cluster` first, "
            "or name one with --threshold"
        )
    denoising = Denoising.of_run(run).with_record(records[-1])
    if denoising.denoiser.needs_truth and denoising.truth_path is None:
        raise VidfaceError(
            f"run directory {run.folder.folder}: the clustering made last is that of a truth file; "
            "name the file (--truth), or another clustering (--threshold, --method)"
        )
    return denoising
