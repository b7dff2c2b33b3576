"""What a report shows of a run, gathered from its artefacts: one `RunData` a run directory.

Nothing is scored here. Clips come from `clips.parquet` and the clustering made last, identities
from the manifest, figures from `scores/` and `sweeps/`; what lacks or is outdated is a note, not an
error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.noise.diagnostics import FLAGS
from vidface.reports.loose_values import mapping, number, text
from vidface.reports.pseudonyms import Names
from vidface.reports.scores import (
    ReportedScore,
    ReportedSweep,
    read_average_precision,
    read_curves,
    read_score,
    read_sweep,
)
from vidface.runs import artefacts
from vidface.runs.columns import CLIPS_SCHEMA, complete_descriptors
from vidface.runs.forgotten import read_forgotten
from vidface.runs.profiles import Profile, read_profile
from vidface.runs.run_folder import RunFolder, clustering_order, read_run_settings
from vidface.runs.score_documents import CURVES_SUFFIX
from vidface.settings.manifests import read_manifest

MOST_SCORES = 6
"""The newest scores of a run that are shown side by side."""

COUNTS = ("kept", "dropped", "clusters", "second_size")
COSINES = ("lowest_similarity", "second_share", "second_cosine", "still_share")

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class ClipTable:
    """The clips of a run, a row a line of the manifest; columns have one length n.

    What clustering says (`counts`, `cosines`, `flags`) is empty without one.
    """

    clip_ids: tuple[str, ...]
    paths: tuple[str, ...]
    states: tuple[str, ...]
    messages: tuple[str, ...]
    frames: NDArray[np.int64]
    faces: NDArray[np.int64]
    identities: tuple[str, ...]  # "" is nobody
    splits: tuple[str, ...]
    counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    cosines: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)  # NaN: nothing to say
    flags: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    descriptors: NDArray[np.float32] | None = None  # (n, d) unit rows; zero: none

    def __post_init__(self) -> None:
        n = len(self.clip_ids)
        columns = [self.paths, self.states, self.messages, self.frames, self.faces,
                   self.identities, self.splits, *self.counts.values(), *self.cosines.values(),
                   *self.flags.values()]  # fmt: skip
        if any(len(column) != n for column in columns):
            raise VidfaceError(f"clips: columns of {n} rows and of others; `vidface cluster` again")

    def __len__(self) -> int:
        return len(self.clip_ids)


@dataclass(frozen=True)
class RunData:
    """All that a report shows of one run directory."""

    label: str
    folder: Path
    clips: ClipTable
    clustering: Path | None  # the folder of the clustering made last
    denoising: str  # in words, of that clustering; "" without one
    scores: tuple[ReportedScore, ...]  # the newest MOST_SCORES, oldest first
    more_scores: int  # older ones that are not shown
    sweep: ReportedSweep | None
    average_precision: Mapping[str, float]  # of the newest score that has them
    pipeline: Mapping[str, Any]  # run.json
    extraction: Mapping[str, Any]  # provenance of clips.parquet
    profile: Profile | None  # where the time of the extraction went
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> str:
        """The recogniser's name, as the newest score or the pipeline says it."""
        named = text(self.scores[-1].provenance.get("weights")) if self.scores else ""
        backbone = text(mapping(self.pipeline.get("backbone")).get("weights"))
        return named or Path(backbone).name or "features"

    @property
    def data(self) -> str:
        """The manifest's file name."""
        return Path(text(mapping(self.pipeline.get("manifest")).get("path"))).name

    @property
    def prepared_by(self) -> str:
        """Which challenge's manifest it is, a key of `vidface.runs.run.PREPARERS`, or ""."""
        return text(mapping(self.pipeline.get("manifest")).get("prepare"))

    @property
    def published(self) -> tuple[tuple[str, str, float, str], ...]:
        """(name, figure, value, source) of the figures that the recipe says others published."""
        rows = self.pipeline.get("published")
        entries = [mapping(row) for row in rows] if isinstance(rows, list) else []
        return tuple(
            (text(entry.get("name")), text(entry.get("figure")), value, text(entry.get("source")))
            for entry in entries
            if (value := number(entry.get("value"))) is not None
        )


def gather_run(folder: Path, label: str = "") -> RunData:
    """Read a run directory.

    Args:
        folder: with a finished extraction; scores, sweeps and clusterings as far as there are any.
        label: what the report calls it; the folder's name unless given.

    Raises:
        VidfaceError: no finished extraction, or a damaged `clips.parquet`.
    """
    run, notes = RunFolder(folder), _Notes()
    table, extraction = run.read_clips()
    pipeline = notes.tried(read_run_settings, run.pipeline_path, {})
    lost = run.find_lost_files(len(table), extraction)
    if lost:
        named = ", ".join(path.relative_to(folder).as_posix() for path in lost[:5])
        notes.lines.append(
            f"{len(lost)} file(s) are lost or damaged ({named}{', …' if len(lost) > 5 else ''}): "
            "their clips have no pictures; `vidface extract` makes them again"
        )
    clips = _read_clip_table(table, run.clips_path)
    clips, manifest_sha256 = _add_identities(folder, clips, pipeline, extraction, notes)
    clustering, denoising, clips = _add_newest_clustering(run, clips, extraction, notes)
    scores = _read_scores(folder / "scores", notes)
    shown = scores[-MOST_SCORES:]
    scored_with = text(shown[-1].provenance.get("manifest_sha256")) if shown else ""
    if manifest_sha256 and scored_with and scored_with != manifest_sha256:
        notes.lines.append("the manifest was edited since the newest score; `vidface score` again")
    tables = (
        folder / "scores" / f"{Path(score.name).stem}_average_precision.csv"
        for score in reversed(shown)
    )
    precisions = (notes.tried(read_average_precision, path, {}) for path in tables)
    profile = notes.tried(read_profile, run, None) if run.profile_path.is_file() else None
    return RunData(
        label=label or folder.resolve().name,
        folder=folder,
        clips=clips,
        clustering=clustering,
        denoising=denoising,
        scores=tuple(shown),
        more_scores=len(scores) - len(shown),
        sweep=_read_newest_sweep(folder / "sweeps", notes),
        average_precision=next(filter(None, precisions), {}),
        pipeline=pipeline,
        extraction=extraction,
        profile=profile,
        notes=tuple(notes.lines),
    )


class _Notes:
    """What could not be read, in words."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tried(self, read: Callable[..., T], place: Path | RunFolder, otherwise: U) -> T | U:
        try:
            return read(place)
        except VidfaceError as error:
            self.lines.append(str(error))
            return otherwise


def _read_clip_table(table: pa.Table, path: Path) -> ClipTable:
    try:
        table = table.cast(CLIPS_SCHEMA.with_metadata(table.schema.metadata))
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise VidfaceError(f"{path}: not the columns of clips ({error}); extract again") from None

    def texts(name: str) -> tuple[str, ...]:
        return tuple(value or "" for value in table.column(name).to_pylist())

    n = table.num_rows
    return ClipTable(
        texts("clip_id"), texts("path"), texts("state"), texts("message"),
        _read_numbers(table, "frames"), _read_numbers(table, "faces"), ("",) * n, ("",) * n,
    )  # fmt: skip


def _read_numbers(table: pa.Table, name: str, missing: Any = 0, kind: Any = np.int64) -> Any:
    """A column as an array of a kind, `missing` where it is null."""
    values = table.column(name).to_pylist()
    return np.array([missing if value is None else value for value in values], kind)


def _add_identities(
    folder: Path,
    clips: ClipTable,
    pipeline: Mapping[str, Any],
    extraction: Mapping[str, Any],
    notes: _Notes,
) -> tuple[ClipTable, str]:
    """The clips with their identities and splits, if the manifest is still that of the run.

    And the manifest's SHA-256; "" where it is not.
    """

    settings = mapping(pipeline.get("manifest"))
    path, root = text(settings.get("path")), text(settings.get("root"))
    limit = settings.get("limit")
    if not path:
        return clips, ""
    try:
        leave_out = read_forgotten(folder).forgets
        manifest = read_manifest(
            path,
            root or None,
            allow_missing=True,
            check_files=False,
            limit=limit if isinstance(limit, int) else None,
            leave_out=leave_out,
        )
    except VidfaceError as error:
        notes.lines.append(f"identities and splits are not known: {error}")
        return clips, ""
    extracted_sha256 = mapping(extraction.get("settings")).get("manifest.clips_sha256")
    if extracted_sha256 != manifest.clips_sha256:
        notes.lines.append(
            f"identities and splits are not known: {path} changed since the extraction"
            "; `vidface run` does what is new"
        )
        return clips, ""
    identities = {clip.clip_id: clip.identity for clip in manifest.clips}
    splits = {clip.clip_id: clip.split for clip in manifest.clips}
    known = replace(
        clips,
        identities=tuple(identities.get(clip_id, "") for clip_id in clips.clip_ids),
        splits=tuple(splits.get(clip_id, "") for clip_id in clips.clip_ids),
    )
    return known, manifest.sha256


def _add_newest_clustering(
    run: RunFolder, clips: ClipTable, extraction: Mapping[str, Any], notes: _Notes
) -> tuple[Path | None, str, ClipTable]:
    """The clips with what the clustering made last says of them, its folder and its name."""
    candidates: list[tuple[Path, pa.Table, dict[str, Any]]] = []
    for path in sorted((run.folder / "clusters").glob("*/descriptors.parquet")):
        artefact = notes.tried(artefacts.read_parquet, path, None)
        if artefact is None:
            continue
        table, made = artefact
        if made.get("extraction_created") != extraction.get("created"):
            notes.lines.append(f"{path}: of another extraction; `vidface cluster` again")
        else:
            candidates.append((path, table, made))
    if not candidates:
        return None, "", clips
    path, table, made = max(candidates, key=lambda candidate: clustering_order(candidate[2]))
    try:
        if tuple(table.column("clip_id").to_pylist()) != clips.clip_ids:
            raise VidfaceError("its clips are not those of the extraction")
        return path.parent, _describe_denoising(made, path), _add_clustering(clips, table)
    except (VidfaceError, ValueError, KeyError, TypeError, AttributeError) as error:
        notes.lines.append(f"{path}: unreadable ({error}); `vidface cluster` again")
        return None, "", clips


def _describe_denoising(made: Mapping[str, Any], path: Path) -> str:
    """Noise removal in words, as scores name it: "threshold 0.4", "trim"."""
    used = mapping(made.get("denoiser"))
    method = text(used.get("method"))
    if method in ("", "union-find"):
        return path.parent.name.replace("_", " ")
    return f"{method} ({path.parent.name})"


def _add_clustering(clips: ClipTable, table: pa.Table) -> ClipTable:
    table = complete_descriptors(table)
    return replace(
        clips,
        counts={name: _read_numbers(table, name) for name in COUNTS},
        cosines={name: _read_numbers(table, name, np.nan, np.float64) for name in COSINES},
        flags={name: _read_numbers(table, name, False, bool) for name in FLAGS},
        descriptors=artefacts.unpack_fixed_lists(table.column("descriptor")),
    )


def _read_scores(folder: Path, notes: _Notes) -> list[ReportedScore]:
    """The score files, oldest first, with their curves."""
    scores = []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(CURVES_SUFFIX):
            continue
        score = notes.tried(read_score, path, None)
        if score is not None and score.figures:
            scores.append(replace(score, curves=notes.tried(read_curves, path, {})))
    return sorted(scores, key=lambda score: (score.created, score.name))


def _read_newest_sweep(folder: Path, notes: _Notes) -> ReportedSweep | None:
    """The sweep made last; thresholds chosen honestly have no such rows."""
    paths = [p for p in sorted(folder.glob("*.json")) if not p.name.startswith("selected_")]
    sweeps = [sweep for path in paths if (sweep := notes.tried(read_sweep, path, None))]
    return max(sweeps, key=lambda sweep: (sweep.created, sweep.name), default=None)


def labelled_scores(runs: Sequence[RunData]) -> list[tuple[str, RunData, ReportedScore]]:
    """Every score of every run, with what the report calls it."""
    scores = [
        (f"{run.label}, {score.denoising}" if len(runs) > 1 else score.denoising, run, score)
        for run in runs
        for score in run.scores
    ]
    labels = Counter(label for label, _, _ in scores)
    return [
        (label if labels[label] == 1 else f"{label} ({Path(score.name).stem})", run, score)
        for label, run, score in scores
    ]


def describe_clip_state(run: RunData, row: int, names: Names) -> str:
    """A clip's message, with pseudonyms where names are hidden."""
    clips = run.clips
    path = clips.paths[row]
    own_names = (clips.clip_ids[row], path, path.rsplit("/", 1)[-1], clips.identities[row])
    return names.message(clips.messages[row], own_names)
