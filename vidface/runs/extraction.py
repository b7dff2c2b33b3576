"""The stage `extract`: a manifest's clips become embeddings in a run directory, once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from vidface.backbones.weights import WEIGHTS, weights_path
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import write_json
from vidface.core.progress import ClipProgress, Notify, quiet
from vidface.core.redaction import is_url
from vidface.core.rules import ReadingRules
from vidface.core.states import FAILED_STATES
from vidface.faces.clip_faces import clip_bytes
from vidface.runs import artefacts
from vidface.runs.clip_extraction import extract_clips
from vidface.runs.embedding import ExtractionSummary, summarise
from vidface.runs.features import extract_features
from vidface.runs.run import Run
from vidface.settings.pipeline import pipeline_document


def extract(
    run: Run,
    *,
    force: bool = False,
    retry_failed: bool = False,
    notify: Notify = quiet,
    progress: ClipProgress | None = None,
) -> ExtractionSummary:
    """Clips → embeddings. An extraction that is there already is kept, with the same settings.

    One that was killed goes on where it was. The run directory is locked meanwhile.

    Args:
        force: make it again, whatever is there (everything made from it goes too).
        retry_failed: do the clips that failed once more (everything made from it goes too).

    Raises:
        VidfaceError: the run directory holds an extraction with other settings, or another process
            works on it.
    """
    if force and retry_failed:
        raise UsageError("--force does all clips again, --retry-failed some; give one of them")
    lost: list[Path] = []
    if run.folder.clips_path.is_file() and not force:
        done, lost = _finished(run, notify, retry=retry_failed)
        if not lost and not (retry_failed and done.failed):
            _remember(run)
            return done
    elif retry_failed:
        raise VidfaceError(
            f"run directory {run.folder.folder}: no finished extraction; leave --retry-failed out"
        )
    with run.writing("extract"):
        done = _extract(run, force, retry_failed, lost, notify, progress)
        _remember(run)
    return done


def _finished(run: Run, notify: Notify, *, retry: bool) -> tuple[ExtractionSummary, list[Path]]:
    """The summary of the extraction that is there, if it is what the pipeline asks for.

    And the files of it that are lost.
    """

    table, made = run.folder.read_clips()
    remedy = "choose another --run, or --force to replace it"
    artefacts.check_fit(made, run.extraction_settings, run.folder.clips_path, remedy)
    rules = ReadingRules.from_record(made.get("rules"))
    _check_unchanged(run, table, rules, remedy, retry=retry)
    if run.pipeline.faces.keep_crops and not run.folder.has_crops:
        raise VidfaceError(
            f"{run.folder.clips_path} was made without crops; {remedy}, or --no-keep-crops"
        )
    done = summarise(table)
    lost = run.folder.find_lost_files(len(table), made)
    if lost:
        named = ", ".join(path.relative_to(run.folder.folder).as_posix() for path in lost[:5])
        more = ", …" if len(lost) > 5 else ""
        notify(f"extraction: {len(lost)} file(s) are lost or damaged ({named}{more}): made again")
    elif not (retry and done.failed):
        failed = f", {len(done.failed)} clips failed then" if done.failed else ""
        again = "--force makes it again" + (", --retry-failed those" if done.failed else "")
        notify(f"extraction: already done in {run.folder.folder}{failed} ({again})")
    return done, lost


def _extract(
    run: Run,
    force: bool,
    retry_failed: bool,
    lost: Sequence[Path],
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
    return extract_clips(
        run, force=force, retry_failed=retry_failed, lost=lost, notify=notify, progress=progress
    )


def fetch_weights(run: Run, notify: Notify = quiet) -> None:
    """Fetch the named weights that extraction needs, saying so, before any work starts."""

    if run.of_features:
        return
    names = [run.pipeline.faces.detector] if run.pipeline.faces.source == "detect" else []
    if run.backbone is None and run.pipeline.backbone.weights in WEIGHTS:
        names.append(run.pipeline.backbone.weights)
    for name in names:
        weights_path(name, notify=notify)


def _check_unchanged(
    run: Run, clips: pa.Table, rules: ReadingRules, remedy: str, *, retry: bool = False
) -> None:
    """Refuse an extraction whose clips have since changed, come or gone, by their sizes.

    A clip that failed may have changed where it is to be done again.
    """

    if run.manifest.root.remote:
        return
    columns = (clips[name].to_pylist() for name in ("clip_id", "bytes", "state"))
    sizes = {
        clip_id: size
        for clip_id, size, state in zip(*columns, strict=True)
        if not (retry and state in FAILED_STATES)
    }
    clip_ids = [
        clip.clip_id
        for clip in run.manifest.clips
        if clip.clip_id in sizes
        and not is_url(clip.path)
        and clip_bytes(clip, run.manifest.root, rules) != sizes[clip.clip_id]
    ]
    if clip_ids:
        named = ", ".join(clip_ids[:5]) + (", …" if len(clip_ids) > 5 else "")
        raise VidfaceError(
            f"{run.folder.clips_path}: {len(clip_ids)} clip(s) changed since they were extracted "
            f"({named}); {remedy}"
        )


def _remember(run: Run) -> None:
    """Write the pipeline beside the artefacts, so that the directory can be opened alone."""

    if run.backbone is None and not run.manifest.in_memory:
        with suppress(VidfaceError):  # a directory that can only be read has its figures still
            write_json(run.folder.pipeline_path, pipeline_document(run.pipeline), digest=True)
