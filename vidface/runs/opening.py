"""Which settings a command works with: a run directory's own, a pipeline file's, the local ones."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vidface.core.clips import Clip
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.core.redaction import is_url
from vidface.runs.run import find_settings_file, read_run_pipeline
from vidface.runs.run_folder import RunFolder
from vidface.settings.initialise import compare_with_folder, initialise
from vidface.settings.manifests import read_manifest
from vidface.settings.pipeline import (
    LOCAL_PIPELINE,
    Overrides,
    Pipeline,
    load_pipeline,
    pipeline_document,
    shipped_pipelines,
)
from vidface.settings.tables import ManifestSettings
from vidface.storage.media import as_location
from vidface.storage.urls import Address

_DIR = ("run", "dir")
_SMALL_MANIFEST = 100_000  # bytes, some 1,500 clips; folders of more are not searched for new ones


def choose_pipeline(
    name: str | None,
    pipeline: str | None = None,
    overrides: Overrides | None = None,
    notify: Notify = quiet,
) -> Pipeline:
    """The settings that a command works with.

    `pipeline` wins; then a run directory gives all that it was extracted with; then
    ./vidface.toml. Settings in `overrides` replace single keys of any of them.

    Args:
        name: a run directory (a folder or a URL), or a pipeline's file or recipe; None for the run
            of `overrides`, or else of ./vidface.toml.
        overrides: what flags say; [run] dir may be a directory that is still to be made.
        notify: told where a run was made with other settings than its ./vidface.toml has now.

    Raises:
        UsageError: nothing that is called so, two answers, or nothing to work on.
    """
    overrides = dict(overrides or {})
    if name is None:
        given = overrides.get(_DIR)
        place = None if given is None else _as_place(str(given))
        if pipeline is None and place is not None and find_settings_file(place).is_file():
            return _read_run(place, overrides, notify)
        return load_pipeline(pipeline, overrides)
    place = _as_place(name)
    if isinstance(place, Path) and not place.is_dir():
        if pipeline is not None:
            raise UsageError(f"{name}: no run directory; --pipeline says the settings already")
        return _load_named(name, overrides)
    if _DIR in overrides:
        raise UsageError(f"{name} and --run {overrides[_DIR]}: give one run directory")
    if pipeline is None and find_settings_file(place).is_file():
        return _read_run(place, overrides, notify)
    if isinstance(place, Path) and not RunFolder(place).clips_path.is_file():
        raise UsageError(
            f"{name}: no run directory, for there is no {RunFolder(place).pipeline_path.name} in it"
            f"; clips in a folder: vidface run {shlex.quote(name)}"
        )
    return load_pipeline(pipeline, {**overrides, _DIR: name})  # of an older version


def choose_whole(
    what: str | None,
    pipeline: str | None = None,
    overrides: Overrides | None = None,
    notify: Notify = quiet,
    *,
    begin: bool = True,
) -> Pipeline:
    """The settings of `vidface run WHAT`: what WHAT is, its content says.

    A run directory, a pipeline's file or recipe, or a folder with a vidface.toml in it; any other
    folder is one of clips: manifest.csv and vidface.toml are written here first, unless the ones
    that are here are about its clips, or `begin` is false, which is an error then.

    Raises:
        UsageError: two fit, or nothing does.
    """
    place = None if what is None else _as_place(what)
    if what is None or not isinstance(place, Path):
        chosen = choose_pipeline(what, pipeline, overrides, notify)
        if what is None and pipeline is None:
            with suppress(VidfaceError):  # what is wrong is said by those whose work it is
                folder = _find_clips_folder(chosen.manifest)
                if folder is not None:
                    _, unlisted = compare_with_folder(chosen.manifest, folder)
                    _note_unlisted(chosen, folder, unlisted, notify)
        return chosen
    fitting = {
        "a run directory": place.is_dir() and RunFolder(place).pipeline_path.is_file(),
        f"the folder of a {LOCAL_PIPELINE}": (place / LOCAL_PIPELINE).is_file(),
        "a shipped recipe (--pipeline NAME)": what in shipped_pipelines(),
        "a folder of clips": False,
    }
    fitting["a folder of clips"] = place.is_dir() and not any(list(fitting.values())[:2])
    kinds = [kind for kind, fits in fitting.items() if fits]
    if len(kinds) > 1:
        way_out = (
            f"; ./{what} is the folder" if fitting["a shipped recipe (--pipeline NAME)"] else ""
        )
        raise UsageError(f"{what}: both {' and '.join(kinds)}{way_out}")
    if kinds == ["a folder of clips"]:
        return _begin(place, overrides, notify, begin)
    if kinds == [f"the folder of a {LOCAL_PIPELINE}"]:
        return load_pipeline(place / LOCAL_PIPELINE, overrides)
    if place.is_file() and place.suffix.lower() != ".toml":
        raise UsageError(f"{what}: neither a folder nor a .toml; clips are given by their folder")
    if not place.exists() and what not in shipped_pipelines():
        known = ", ".join(shipped_pipelines())
        raise UsageError(
            f"{what}: no such folder of clips, run directory or pipeline file; give a path, or one "
            f"of the shipped recipes: {known}"
        )
    return choose_pipeline(what, None, overrides, notify)


def _begin(folder: Path, overrides: Overrides | None, notify: Notify, may_write: bool) -> Pipeline:
    """The settings for a folder of clips: those that are here, or else new ones."""
    local, manifest_path = Path(LOCAL_PIPELINE), Path("manifest.csv")
    quoted = shlex.quote(str(folder))
    if not local.is_file():
        if not may_write:
            raise UsageError(
                f"{folder}: a dry run writes nothing; vidface init {quoted} writes the manifest "
                "that it looks at"
            )
        if manifest_path.exists():
            raise UsageError(
                f"{manifest_path} is here, but no {LOCAL_PIPELINE}: vidface init {quoted} --force "
                "writes both anew; in another working directory nothing is in the way"
            )
        for line in initialise(folder, manifest_path).decisions.splitlines():
            notify(line)
        return load_pipeline(None, overrides)
    pipeline = load_pipeline(None, overrides)
    listed, unlisted = compare_with_folder(pipeline.manifest, folder)
    if not listed:
        raise UsageError(
            f"{local} here is about other clips than those of {folder}: work in another directory, "
            "or leave the folder out to run what is here"
        )
    _note_unlisted(pipeline, folder, unlisted, notify)
    return pipeline


def _find_clips_folder(settings: ManifestSettings) -> Path | None:
    """The one folder below its root that all clips of a small manifest lie in; None for none."""
    path = settings.path
    is_small = isinstance(path, Path) and path.is_file() and path.stat().st_size <= _SMALL_MANIFEST
    if not is_small or settings.prepare is not None:
        return None
    manifest = read_manifest(path, settings.root, check_files=False)
    tops = {Path(clip.path).parts[0] for clip in manifest.clips}
    root = manifest.root_location
    if len(tops) != 1 or not isinstance(root, Path):
        return None
    folder = root / tops.pop()
    return folder if folder.is_dir() and folder != Path(folder.anchor) else None


def _note_unlisted(
    pipeline: Pipeline, folder: Path, unlisted: Sequence[Clip], notify: Notify
) -> None:
    """Say which clips of a folder a manifest does not list."""
    if unlisted:
        named = ", ".join(clip.path for clip in unlisted[:3]) + (", …" if unlisted[3:] else "")
        whole, here = folder.absolute(), Path.cwd()
        shown = whole.relative_to(here) if whole.is_relative_to(here) else whole
        notify(
            f"not in {pipeline.manifest.path} yet: {len(unlisted)} clip(s) of {shown} ({named}); "
            f"vidface init {shlex.quote(str(shown))} --add adds them"
        )


def choose_folder(name: str | None) -> Path:
    """The run directory on this machine that a name means: see `choose_pipeline`.

    Raises:
        VidfaceError: it is at a URL.
    """
    if name is not None and Path(name).is_dir():
        return Path(name)
    folder = choose_pipeline(name).run.dir
    if not isinstance(folder, Path):
        raise VidfaceError(f"{folder}: only a directory of this machine is read here; copy it")
    return folder


def _as_place(name: str) -> Path | Address:
    if not name:  # a shell's variable that is not set, which Path takes for this very folder
        raise UsageError("an empty name is no run directory; give its path, or leave it out")
    return as_location(name) if is_url(name) else Path(name)


def _load_named(name: str, overrides: Overrides) -> Pipeline:
    path = Path(name)
    if path == RunFolder(path.parent).pipeline_path:
        raise UsageError(f"{name}: a file of a run directory; name that: {path.parent}")
    if not Path(name).is_file() and name not in shipped_pipelines():
        known = ", ".join(shipped_pipelines())
        raise UsageError(
            f"{name}: no such run directory or pipeline file; give a path, or one of the shipped "
            f"recipes: {known}"
        )
    return load_pipeline(name, overrides)


def _read_run(place: Path | Address, overrides: Overrides, notify: Notify) -> Pipeline:
    """A run's own settings; what ./vidface.toml says otherwise of the same run is said."""
    overrides = {key: value for key, value in overrides.items() if key != _DIR}
    pipeline = read_run_pipeline(place, overrides)
    if Path(LOCAL_PIPELINE).is_file():
        try:
            local = load_pipeline(None, overrides)
        except VidfaceError:
            return pipeline  # it is not what this command works with
        if str(local.run.dir) == str(pipeline.run.dir):
            ours, theirs = pipeline_document(pipeline), pipeline_document(local)
            keys = [
                f"{table}.{key}"
                for table in ours
                if isinstance(ours[table], dict) and table != "run"
                for key in sorted({*ours[table], *theirs[table]} - {"prepare"})
                if ours[table].get(key) != theirs[table].get(key)
            ]
            if keys:
                notify(
                    f"{place}: read with the settings that it was extracted with; "
                    f"{LOCAL_PIPELINE} says otherwise in {', '.join(keys)} (leave the run "
                    "directory out to use that)"
                )
    return pipeline
