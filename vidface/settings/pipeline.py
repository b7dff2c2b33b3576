"""Pipeline files: `pipelines/*.toml` → frozen dataclasses.

One table a stage (`vidface.settings.tables`). An unknown key or a wrong type is an error that names
it and lists what is known; `vidface.settings.values` says how values are read.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidface.backbones.settings import BackboneSettings
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import read_toml
from vidface.core.settings import (
    SettingField,
    build_table,
    setting,
    settings_of,
    table_settings,
    table_values,
)
from vidface.core.values import check
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.metrics.settings import ScoreSettings
from vidface.noise.settings import ClusterSettings
from vidface.settings.run_settings import RunSettings
from vidface.settings.tables import TABLES, ManifestSettings
from vidface.settings.values import read_table
from vidface.storage.urls import Address
from vidface.vectors.settings import DescriptorSettings

LOCAL_PIPELINE = "vidface.toml"
DEMO_PIPELINE = "demo"


@dataclass(frozen=True)
class Published:
    """A figure that somebody published, to be printed beside ours: clearly theirs."""

    name: str = setting(flag=None, help="Who published the figure.")
    figure: str = setting(
        flag=None, help="The figure's name: map_at_100, tar_at_far.1e-4 or another."
    )
    value: float = setting(flag=None, help="The figure, a fraction.")
    source: str = setting("", flag=None, help="Where it was published.")


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


Overrides = Mapping[tuple[str, str], Any]  # {(table, key): value}


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
    document: dict[str, Any] = {}
    for name, kind in TABLES.items():
        values = table_values(getattr(pipeline, name))
        document[name] = {}
        for setting_field in table_settings(kind):
            value = values[setting_field.name]
            value = setting_field.none_text if value is None else value
            if isinstance(value, Path):
                value = str(value)
            if isinstance(value, Address):
                value = value.stored
            if isinstance(value, tuple):
                value = list(value)
            if value is not None:
                document[name][setting_field.name] = value
    if pipeline.faces.source == "features":
        document["backbone"] = {}  # there is none
    document["published"] = [dataclasses.asdict(row) for row in pipeline.published]
    return document


def find_pipeline(name_or_path: str | Path | None) -> Path:
    """The pipeline file meant: a path, a shipped recipe's name, or by default ./vidface.toml.

    Raises:
        UsageError: there is none.
    """
    if name_or_path is not None:
        return find_recipe(name_or_path, shipped_pipelines(), "pipeline")
    local = Path(LOCAL_PIPELINE)
    if not local.is_file():
        runs = sorted(path.parent for path in Path().glob("runs/*/run.json"))
        named = f"name a run ({', '.join(map(str, runs[:3]))}), or " if runs else ""
        near = [Path(".."), *sorted(path.parent for path in Path().glob(f"*/{LOCAL_PIPELINE}"))]
        near = [folder for folder in near if (folder / LOCAL_PIPELINE).is_file()]
        named += f"cd {shlex.quote(str(near[0]))}, where one is, or " if near else ""
        raise UsageError(f"no {LOCAL_PIPELINE} here: {named}vidface run FOLDER, or vidface demo")
    return local


def find_recipe(name_or_path: str | Path, shipped: Mapping[str, Path], what: str) -> Path:
    """A recipe's file: a path, or a shipped one's name; `what` is what messages call it.

    Raises:
        VidfaceError: there is none (the shipped ones are listed).
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise UsageError(
        f"{what} {name_or_path}: no such file; give a path, or one of the shipped recipes: "
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
    if name_or_path is None and overrides and ("manifest", "path") in overrides:
        local = Path(LOCAL_PIPELINE)
        if not local.is_file():
            return parse_pipeline({}, local, overrides)  # flags say what is needed
    file = find_pipeline(name_or_path)
    return parse_pipeline(read_toml(file, "pipeline"), file, overrides)


def parse_pipeline(
    document: Mapping[str, Any], file: Path, overrides: Overrides | None = None
) -> Pipeline:
    """Settings from a parsed TOML document; `file` is where relative paths start."""
    where = f"pipeline {file}"
    overrides = overrides or {}
    fields = {name: table_settings(kind) for name, kind in TABLES.items()}
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    document = dict(document)
    published = read_list("published", Published, document.pop("published", []), file, where)
    for name, table in document.items():
        if name not in TABLES:
            known = ", ".join(TABLES)
            raise VidfaceError(f"{where}: unknown table [{name}] (known: {known}, published)")
        if not isinstance(table, dict):
            raise VidfaceError(f"{where}: [{name}] must be a table")
        kept = {key: value for key, value in table.items() if (name, key) not in overrides}
        tables[name] = read_table(fields[name], f"[{name}]", kept, file, where)
    said_limit = document.get("manifest", {}).get("limit")
    if ("backbone", "weights") in overrides:
        # What the file says its own recogniser is and is fed does not hold for another one.
        said = ("architecture", "output", "color", "mean", "std", "size", "template")
        for key in ("weights", *said):
            tables["backbone"].pop(key, None)
    if ("manifest", "path") in overrides:
        tables["manifest"].pop("prepare", None)  # makes the file's own manifest, no other
    for (name, key), value in overrides.items():
        flags_start = Path.cwd() / "flags"  # relative paths of flags start here
        tables[name] |= read_table(fields[name], f"[{name}]", {key: value}, flags_start, "flag")
    if tables["faces"].get("source") == "features" and "weights" in tables["backbone"]:
        # Whoever names a recogniser would take the figures for its own.
        raise VidfaceError(
            f'{where}: [faces] source = "features" runs no recogniser; leave [backbone] weights '
            "and --weights out"
        )
    if "path" not in tables["manifest"]:
        raise VidfaceError(f"{where}: [manifest] path is missing; it names the CSV of clips")
    folder = tables["run"].setdefault("dir", Path.cwd() / "runs" / file.stem)
    limit = overrides.get(("manifest", "limit"), said_limit)
    if limit != said_limit and ("run", "dir") not in overrides:
        tables["run"]["dir"] = folder.parent / f"{folder.name}-limit-{limit}"  # not into all's
    try:
        built = {name: build_table(TABLES[name], values) for name, values in tables.items()}
    except VidfaceError as error:
        raise locate_error(str(error), where, fields, overrides) from None
    return Pipeline(file=file, published=published, **built)


def locate_error(
    text: str, where: str, fields: Mapping[str, Sequence[SettingField]], overrides: Overrides
) -> VidfaceError:
    """The error of a setting "[table] key: …": wrong usage if a flag gave it, else the file's.

    >>> fields = {"score": table_settings(ScoreSettings)}
    >>> text = "[score] device: unknown value 'gpu'"
    >>> locate_error(text, "pipeline a.toml", fields, {("score", "device"): "gpu"})
    UsageError("--score-device: unknown value 'gpu'")
    >>> locate_error(text, "pipeline a.toml", fields, {})
    VidfaceError("pipeline a.toml: [score] device: unknown value 'gpu'")
    """
    for table, key in overrides:
        spot = f"[{table}] {key}:"
        if text.startswith(spot):
            flag = next(field.flag for field in fields[table] if field.name == key)
            return UsageError(f"{flag or spot.rstrip(':')}:{text.removeprefix(spot)}")
    return VidfaceError(text if text.startswith(where) else f"{where}: {text}")


def read_list(name: str, kind: type, rows: Any, file: Path, where: str) -> tuple[Any, ...]:
    """The tables [[name]] of a document, each as a dataclass of settings.

    Raises:
        VidfaceError: no list of tables, an unknown key, one that must be there and is not.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise VidfaceError(f"{where}: write [[{name}]], a table each")
    missing = dataclasses.MISSING
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    ]
    built = []
    for row in rows:
        values = read_table(settings_of(kind), f"[[{name}]]", row, file, where)
        absent = [key for key in required if key not in values]
        check(not absent, f"{where}: [[{name}]]", f"lacks {', '.join(absent)}")
        built.append(kind(**values))
    return tuple(built)
