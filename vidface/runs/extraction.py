"""The stage `extract`: a manifest's clips become embeddings in a run directory, once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from vidface.backbones.weights import WEIGHTS, weights_path
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import write_json
from vidface.core.progress import ClipProgress, Notify, quiet
from vidface.core.rules import ReadingRules
from vidface.runs import artefacts
from vidface.runs.clip_changes import (
    ClipChanges,
    compare_clips,
    compare_files,
    complete_keys,
    match_clips,
)
from vidface.runs.clip_extraction import extract_clips
from vidface.runs.clips_before import Redo
from vidface.runs.embedding import ExtractionSummary, summarise
from vidface.runs.features import extract_features
from vidface.runs.run import Run
from vidface.runs.run_folder import STAGING, RunFolder
from vidface.settings.pipeline import pipeline_document


def extract(
    run: Run,
    *,
    force: bool = False,
    retry_failed: bool = False,
    verify: bool = False,
    notify: Notify = quiet,
    progress: ClipProgress | None = None,
) -> ExtractionSummary:
    """Clips → embeddings. Of an extraction that is there, clips that are as they were are kept.

    With the same settings, that is. One that was killed goes on where it was. The run directory is
    locked meanwhile.

    Args:
        force: make it again, whatever is there (everything made from it goes too).
        retry_failed: do the clips that failed once more (everything made from it goes too).
        verify: compare the clips' contents, not only sizes and times; at URLs, sizes and tags.

    Raises:
        VidfaceError: the run directory holds an extraction with other settings, or another process
            works on it.
    """
    if force and retry_failed:
        raise UsageError("--force does all clips again, --retry-failed some; give one of them")
    with suppress(VidfaceError):
        _end_moving(run)
    redo: Redo | None = None
    if run.folder.clips_path.is_file() and not force:
        done, redo = _finished(run, notify, retry=retry_failed, verify=verify)
        if redo is None:
            _remember(run)
            return done
    elif retry_failed:
        raise VidfaceError(
            f"run directory {run.folder.folder}: no finished extraction; leave --retry-failed out"
        )
    with run.writing("extract"):
        had_results = run.folder.has_results
        done = _extract(run, force, redo, notify, progress)
        _remember(run)
        if had_results and not run.folder.has_results:
            notify("clusterings and scores made before are gone: they were of other clips")
    return done


def _end_moving(run: Run) -> None:
    """End what was killed at the very end: all is there, and is moved where it belongs."""
    staging = RunFolder(run.folder.folder / STAGING)
    if staging.is_moving:
        with run.writing("extract"):
            run.folder.replace_extraction(staging)


def _finished(
    run: Run, notify: Notify, *, retry: bool, verify: bool
) -> tuple[ExtractionSummary, Redo | None]:
    """The summary of the extraction that is there, if it is what the pipeline asks for.

    And what is to be done of it; None where nothing is.
    """

    table, made = run.folder.read_clips()
    remedy = "choose another --run, or --force to replace it"
    artefacts.check_fit(made, run.extraction_settings, run.folder.clips_path, remedy)
    changes = _find_changes(run, table, made, verify=verify)
    if run.pipeline.faces.keep_crops and not run.folder.has_crops:
        raise VidfaceError(
            f"{run.folder.clips_path} was made without crops; {remedy}, or --no-keep-crops"
        )
    done = summarise(table)
    lost = run.folder.find_lost_files(len(table), made)
    if changes.gone:
        notify(f"{changes.gone} clip(s) are gone from where they were: what was extracted is kept")
    if changes.uncertain:
        notify(
            f"{changes.uncertain} clip(s) have no digest or tag from their extraction: "
            "compared by size and time alone"
        )
    if lost:
        named = ", ".join(path.relative_to(run.folder.folder).as_posix() for path in lost[:5])
        more = ", …" if len(lost) > 5 else ""
        notify(f"extraction: {len(lost)} file(s) are lost or damaged ({named}{more}): made again")
    if changes.any:
        if run.of_features and changes.gone:
            raise VidfaceError(
                f"{run.folder.clips_path}: {changes}, but {changes.gone} clip(s) are of feature "
                "files that are gone, and those are read as a whole: put them back"
            )
        whole = "; feature files are read again as a whole" if run.of_features else ""
        notify(f"extraction: {changes}{whole}")
    elif not lost and not (retry and done.failed):
        clips = "1 clip" if len(done.failed) == 1 else f"{len(done.failed)} clips"
        failed = f", {clips} failed then" if done.failed else ""
        again = "--force makes it again" + (", --retry-failed those" if done.failed else "")
        notify(f"extraction: already done in {run.folder.folder}{failed} ({again})")
        if not changes.touched or run.of_features:
            return done, None
    return done, Redo(retry, lost, changes.changed_ids)


def _find_changes(
    run: Run, table: pa.Table, made: Mapping[str, Any], *, verify: bool
) -> ClipChanges:
    """How the manifest and its files differ from the clips that are extracted."""
    manifest, by_file = run.manifest, not run.of_features
    table = complete_keys(table, made, manifest)
    rows = match_clips(manifest, table, by_file=by_file)
    changes = compare_clips(manifest, table, rows=rows)
    rules = ReadingRules.from_record(made.get("rules"))
    files = compare_files(manifest, rows, table, rules, verify=verify)
    changed = [manifest.clips[place].clip_id for place in np.flatnonzero(files.changed)]
    return replace(
        changes,
        changed=changes.changed + len(changed),
        reused=changes.reused - len(changed),
        changed_ids=frozenset(changed),
        gone=int(np.count_nonzero(files.gone)),
        touched=int(np.count_nonzero(files.touched)),
        uncertain=int(np.count_nonzero(files.uncertain)),
    )


def _extract(
    run: Run,
    force: bool,
    redo: Redo | None,
    notify: Notify,
    progress: ClipProgress | None,
) -> ExtractionSummary:
    if run.of_features:
        return extract_features(
            run.manifest, run.folder, run.extraction_settings, notify=notify, progress=progress
        )
    if run.mirror is not None and run.pipeline.run.scheduler is not None:
        raise VidfaceError(
            "[run] dir: at a URL it is written by this machine alone; with a scheduler use a "
            "folder that all its workers see"
        )
    fetch_weights(run, notify)
    return extract_clips(run, force=force, redo=redo, notify=notify, progress=progress)


def fetch_weights(run: Run, notify: Notify = quiet) -> None:
    """Fetch the named weights that extraction needs, saying so, before any work starts."""

    if run.of_features:
        return
    names = [run.pipeline.faces.detector] if run.pipeline.faces.source == "detect" else []
    if run.backbone is None and run.pipeline.backbone.weights in WEIGHTS:
        names.append(run.pipeline.backbone.weights)
    for name in names:
        weights_path(name, notify=notify)


def _remember(run: Run) -> None:
    """Write the pipeline beside the artefacts, so that the directory can be opened alone."""

    if run.backbone is None and not run.manifest.in_memory:
        with suppress(VidfaceError):  # a directory that can only be read has its figures still
            write_json(run.folder.pipeline_path, pipeline_document(run.pipeline), digest=True)
