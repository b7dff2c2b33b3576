"""Pipeline files: `pipelines/*.toml` → frozen dataclasses.

One table a stage. An unknown key or a wrong type is an error that names it and lists what is
known. In strings, `${NAME}` and `${NAME:-default}` are replaced by environment variables; `${PWD}`
(the working directory) and `${VIDFACE_CACHE}` (the cache) are always defined. Relative paths are
relative to the file; only where a path begins with a variable that is set in the environment is it
relative to the working directory, as the person who set it means it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidface.backbones.settings import BackboneSettings
from vidface.backbones.weights import WEIGHTS
from vidface.core.errors import UsageError, VidfaceError
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.metrics.settings import ScoreSettings
from vidface.noise.settings import ClusterSettings
from vidface.settings.run_settings import RunSettings
from vidface.storage.cache import cache_folder
from vidface.storage.media import as_location
from vidface.storage.urls import Address, is_url
from vidface.vectors.settings import DescriptorSettings

LOCAL_PIPELINE = "vidface.toml"
DEMO_PIPELINE = "demo"


@dataclass(frozen=True)
class ManifestSettings:
    """Which clips: the CSV file, and where its relative paths start (a folder or a tar)."""

    path: Path | Address
    root: Path | Address | None = None
    prepare: str | None = None  # makes the manifest: a name of vidface.runs.run.PREPARERS
    allow_missing: bool = False


@dataclass(frozen=True)
class Published:
    """A figure that somebody published, to be printed beside ours: clearly theirs."""

    name: str
    figure: str  # as `vidface.runs.scoring.Score.figures` names it, "tar_at_far.1e-4"
    value: float
    source: str = ""


@dataclass(frozen=True)
class Pipeline:
    """All settings of a run, checked."""

    manifest: ManifestSettings
    run: RunSettings
    frames: FrameSettings = field(default_factory=FrameSettings)
    faces: FaceSettings = field(default_factory=FaceSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    descriptor: DescriptorSettings = field(default_factory=DescriptorSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    published: tuple[Published, ...] = ()
    file: Path | None = None


TABLES: dict[str, type] = {
    "manifest": ManifestSettings,
    "frames": FrameSettings,
    "faces": FaceSettings,
    "backbone": BackboneSettings,
    "cluster": ClusterSettings,
    "descriptor": DescriptorSettings,
    "score": ScoreSettings,
    "run": RunSettings,
}

Overrides = Mapping[tuple[str, str], Any]


TRAINING_PREFIX = "train"  # of recipes that `vidface train` reads


def shipped_pipelines() -> dict[str, Path]:
    """Name → file of the recipes that come with vidface, also from an installed wheel."""
    return {n: f for n, f in _shipped().items() if not n.startswith(TRAINING_PREFIX)}


def shipped_trainings() -> dict[str, Path]:
    """Name → file of the training recipes (`vidface.training.settings`) among them."""
    return {n: f for n, f in _shipped().items() if n.startswith(TRAINING_PREFIX)}


def _shipped() -> dict[str, Path]:
    package = Path(__file__).parents[1]
    for folder in (package / "pipelines", package.parent / "pipelines"):
        files = sorted(folder.glob("*.toml"))
        if files:
            return {file.stem: file for file in files}
    return {}


def pipeline_document(pipeline: Pipeline) -> dict[str, Any]:
    """A pipeline as a document that `parse_pipeline` reads back, its paths absolute."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path | Address):
            return str(value)
        return list(value) if isinstance(value, tuple) else value

    document: dict[str, Any] = {}
    for name in TABLES:
        table = dataclasses.asdict(getattr(pipeline, name))
        document[name] = {k: plain(v) for k, v in table.items() if v is not None}
    if pipeline.faces.source == "features":
        document["backbone"] = {}  # there is none
    if pipeline.cluster.threshold is None:
        document["cluster"]["threshold"] = "none"
    document["published"] = [dataclasses.asdict(row) for row in pipeline.published]
    return document


def find_pipeline(name_or_path: str | Path | None) -> Path:
    """The pipeline file meant: a path, a shipped recipe's name, ./vidface.toml, or the demo's."""
    shipped = shipped_pipelines()
    if name_or_path is None:
        local = Path(LOCAL_PIPELINE)
        return local if local.is_file() else shipped[DEMO_PIPELINE]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise VidfaceError(
        f"pipeline {name_or_path}: no such file; give a path, or one of the shipped recipes: "
        + ", ".join(shipped)
    )


def load_pipeline(
    name_or_path: str | Path | None = None, overrides: Overrides | None = None
) -> Pipeline:
    """Read a pipeline file; `overrides` (from flags) replace its keys.

    Args:
        name_or_path: see `find_pipeline`.
        overrides: {(table, key): value}; paths in it are relative to the working directory.

    Raises:
        VidfaceError: unreadable, unknown table or key, wrong type or value.
    """
    file = find_pipeline(name_or_path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VidfaceError(f"pipeline {file}: not TOML: {error}") from None
    except OSError as error:
        raise VidfaceError(f"pipeline {file}: {error.strerror or error}") from None
    return parse_pipeline(document, file, overrides)


def parse_pipeline(
    document: Mapping[str, Any], file: Path, overrides: Overrides | None = None
) -> Pipeline:
    """Settings from a parsed TOML document; `file` is where relative paths start."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    where = f"pipeline {file}"
    document = dict(document)
    published = _published(document.pop("published", []), where)
    for name, table in document.items():
        if name not in TABLES:
            raise VidfaceError(
                f"{where}: unknown table [{name}] (known: {', '.join(TABLES)}, published)"
            )
        if not isinstance(table, dict):
            raise VidfaceError(f"{where}: [{name}] must be a table")
        for key, value in table.items():
            tables[name][key] = _typed(name, key, value, file, where)
    overrides = overrides or {}
    if ("backbone", "weights") in overrides:
        # What the file says its own recogniser is and is fed does not hold for another one.
        for key in ("weights", "architecture", "color", "mean", "std", "size"):
            tables["backbone"].pop(key, None)
    if ("manifest", "path") in overrides:
        tables["manifest"].pop("prepare", None)  # makes the file's own manifest, no other
    for (name, key), value in overrides.items():
        tables[name][key] = _typed(name, key, value, Path.cwd() / "flags", "flag")
    if tables["faces"].get("source") == "features" and "weights" in tables["backbone"]:
        # Whoever names a recogniser would take the figures for its own.
        raise VidfaceError(
            f'{where}: [faces] source = "features" runs no recogniser; leave [backbone] weights '
            "and --weights out"
        )
    if "path" not in tables["manifest"]:
        raise VidfaceError(f"{where}: [manifest] path is missing; it names the CSV of clips")
    if "dir" not in tables["run"]:
        tables["run"]["dir"] = Path.cwd() / "runs" / file.stem
    try:
        built = {name: TABLES[name](**values) for name, values in tables.items()}
    except VidfaceError as error:
        raise where_said(str(error), where, overrides) from None
    return Pipeline(file=file, published=published, **built)


def where_said(text: str, where: str, overrides: Overrides) -> VidfaceError:
    """The error of a setting "[table] key: …": wrong usage if a flag gave it, else the file's.

    >>> where_said("[score] k: at least 1, not 0", "pipeline a.toml", {("score", "k"): 0})
    UsageError('--k: at least 1, not 0')
    """
    for table, key in overrides:
        if text.startswith(f"[{table}] {key}:"):
            flag = key.removesuffix("_seconds").replace("_", "-")
            return UsageError(f"--{flag}{text.removeprefix(f'[{table}] {key}')}")
    return VidfaceError(text if text.startswith(where) else f"{where}: {text}")


def _published(rows: Any, where: str) -> tuple[Published, ...]:
    """The tables [[published]]."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise VidfaceError(f"{where}: write [[published]], a table a figure")
    found = []
    hints = typing.get_type_hints(Published)
    for row in rows:
        for key, value in row.items():
            if key not in hints:
                raise VidfaceError(
                    f"{where}: unknown key '{key}' in [[published]] (known: {', '.join(hints)})"
                )
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number if hints[key] is float else isinstance(value, str)):
                kind = _TYPE_NAMES[hints[key]]
                raise VidfaceError(f"{where}: [[published]] {key}: must be {kind}, not {value!r}")
        absent = [key for key in ("name", "figure", "value") if key not in row]
        if absent:
            raise VidfaceError(f"{where}: [[published]] lacks {', '.join(absent)}")
        found.append(Published(**{**row, "value": float(row["value"])}))
    return tuple(found)


def _typed(table: str, key: str, value: Any, file: Path, where: str) -> Any:
    """A TOML value as the field's type says, with what only a run's pipeline knows."""
    spot = f"{where}: [{table}] {key}"
    threshold = (table, key) == ("cluster", "threshold")
    if threshold and isinstance(value, str) and expand(value, spot)[0] == "none":
        return None
    if (table, key) == ("backbone", "weights") and isinstance(value, str | Path):
        text, from_environment = expand(str(value), spot)
        return weights_value(text, Path.cwd() if from_environment else file.parent, table)
    more = ' or "none"' if threshold else ""
    return typed_value(TABLES[table], f"[{table}]", key, value, file, where, more)


def typed_value(
    kind: type, table: str, key: str, value: Any, file: Path, where: str, more: str = ""
) -> Any:
    """A TOML value as `kind`'s field `key` says: variables expanded, paths resolved.

    Args:
        kind: the dataclass of the table.
        table: how the table is written, "[score]".
        file: where relative paths start (its folder).
        where: what a message begins with.
        more: what else a message says is allowed.

    Raises:
        VidfaceError: unknown key, wrong type, a variable that is not set.
    """
    hints = typing.get_type_hints(kind)
    if key not in hints:
        raise VidfaceError(f"{where}: unknown key '{key}' in {table} (known: {', '.join(hints)})")
    kinds = _members(hints[key])
    spot = f"{where}: {table} {key}"
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, Address):
        value = value.url
    if isinstance(value, str):
        text, from_environment = expand(value, spot)
        if Path in kinds and is_url(text):
            place = as_location(text)
            if isinstance(place, Path) or Address in kinds:
                return place
            raise VidfaceError(f"{spot}: must lie on this machine, not at {place}")
        if Path in kinds:
            return _path(text, Path.cwd() if from_environment else file.parent, table)
        if str in kinds:
            return text
        if text != value or text == "":  # an expanded variable may hold a number or a truth value
            value = _literal(text)
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif isinstance(value, int | float):
        if float in kinds:
            try:
                return float(value)
            except OverflowError:
                raise VidfaceError(f"{spot}: a number beyond all bounds") from None
        if int in kinds and isinstance(value, int):
            return value
    elif isinstance(value, list | tuple) and tuple in kinds:
        texts = "str" in str(hints[key])
        if texts and all(isinstance(v, str) for v in value):
            return tuple(value)
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(value) and not texts:
            return tuple(float(v) for v in value)
    elif isinstance(value, dict) and Mapping in kinds:
        return value
    elif value is None and type(None) in kinds:
        return None
    names = " or ".join(_TYPE_NAMES[kind] for kind in kinds if kind in _TYPE_NAMES)
    if tuple in kinds and "str" in str(hints[key]):
        names = "a list of strings"
    raise VidfaceError(f"{spot}: must be {names}{more}, not {value!r}")


_TYPE_NAMES: dict[Any, str] = {
    str: "a string",
    Path: "a path (a string)",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "three numbers",
    Mapping: "a table",
}


def _members(hint: Any) -> list[Any]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [typing.get_origin(option) or option for option in options]


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")


def expand(text: str, spot: str) -> tuple[str, bool]:
    """Expanded text, and whether it begins with a variable that the environment set."""

    leading = False

    def value_of(match: re.Match[str]) -> str:
        nonlocal leading
        name, default = match.group(1), match.group(2)
        if name == "PWD":
            return str(Path.cwd())
        if name == "VIDFACE_CACHE":
            return str(cache_folder())
        if os.environ.get(name):
            leading = leading or match.start() == 0
            return os.environ[name]
        if default is None:
            raise VidfaceError(f"{spot}: the environment variable {name} is not set")
        return default

    expanded = _VARIABLE.sub(value_of, text)
    if re.search(r"\$\{[A-Za-z_]", expanded):
        raise VidfaceError(f"{spot}: '{text}': write ${{NAME}} or ${{NAME:-default}}, not nested")
    return expanded, leading


def _path(text: str, start: Path, table: str) -> Path:
    if not text:
        raise VidfaceError(f"{table}: an empty path")
    return Path(os.path.normpath((start / Path(text).expanduser()).absolute()))


def weights_value(text: str, start: Path, table: str) -> str:
    """A recogniser: a registered name as it is, anything else as a path."""

    if text and (text in WEIGHTS or not re.search(r"[./\\]", text)):
        return text  # a registered name, or one that load_backbone will refuse by name
    return str(_path(text, start, f"[{table}]"))
