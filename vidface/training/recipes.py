"""Training recipes: `pipelines/train_*.toml` → frozen dataclasses; unknown keys are errors.

    [train]      the network, and how it is run
    [data]       the faces
    [augment]    what is done to them (`vidface.training.augment`)
    [optimiser]  steps of the weights
    [teacher]    for knowledge distillation: who is asked, and about how many faces
    [run] dir    where checkpoints, logs and results go
    [[benchmark]]  pairs of faces that a stage's best model is verified on
    [[stage]]    the schedule, first to last: what is added, for how long, what stops it

Paths and `${NAME:-default}` are as in every pipeline file (`vidface.settings.values`). The table of
keys in docs/training.md is written by `python -m vidface.training.recipes docs/training.md`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.files import read_toml
from vidface.core.settings import settings_of
from vidface.core.values import check, check_choice
from vidface.settings.document import replace_table, settings_markdown
from vidface.settings.pipeline import (
    Overrides,
    find_recipe,
    locate_error,
    read_list,
    shipped_trainings,
)
from vidface.settings.values import read_table
from vidface.training.augment import AUGMENTATIONS, build_augmentation
from vidface.training.cleaning.settings import CutSettings
from vidface.training.settings import LAST, LISTS, TABLES, TrainingPipeline
from vidface.training.stages import STAGE_LOSSES, resolve_stages

_FIELDS = {name: settings_of(kind) for name, kind in {**TABLES, **LISTS}.items()}


def load_training(name_or_path: str | Path, overrides: Overrides | None = None) -> TrainingPipeline:
    """Read a training recipe: a path, or the name of a shipped one.

    `overrides` {(table, key): value} replace its keys.

    Raises:
        VidfaceError: unreadable, unknown table, key, loss or setting, wrong type or value.
    """
    file = find_recipe(name_or_path, shipped_trainings(), "training")
    return parse_training(read_toml(file, "training"), file, overrides)


def parse_training(
    document: Mapping[str, Any], file: Path, overrides: Overrides | None = None
) -> TrainingPipeline:
    """Settings from a parsed TOML document; `file` is where relative paths start."""
    where, overrides = f"training {file}", overrides or {}
    known = (*TABLES, "augment", *(f"[{name}]" for name in LISTS))
    for name in document:
        if name not in (*TABLES, *LISTS, "augment"):
            raise VidfaceError(f"{where}: unknown table [{name}] (known: {', '.join(known)})")
    tables = _read_tables(document, file, where, overrides)
    try:
        lists = {
            name: read_list(name, kind, document.get(name, []), file, where)
            for name, kind in LISTS.items()
        }
        augment = document.get("augment", {"flip": True})
        check(isinstance(augment, dict), "[augment]", "must be a table")
        build_augmentation(augment)
        pipeline = TrainingPipeline(
            **{name: TABLES[name](**values) for name, values in tables.items()},
            stages=lists["stage"],
            benchmarks=lists["benchmark"],
            augment=augment,
        )
        _check_whole(pipeline)
        resolve_stages(pipeline)
    except VidfaceError as error:
        raise locate_error(str(error), where, _FIELDS, overrides) from None
    return pipeline


def _read_tables(
    document: Mapping[str, Any], file: Path, where: str, overrides: Overrides
) -> dict[str, dict[str, Any]]:
    """The values of the tables that are there, and of those that must be."""
    tables = {}
    for name in TABLES:
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise VidfaceError(f"{where}: [{name}] must be a table")
        if name in document or name != "teacher":
            tables[name] = read_table(_FIELDS[name], f"[{name}]", table, file, where)
    for (name, key), value in overrides.items():
        flags_start = Path.cwd() / "flags"  # relative paths of flags start here
        values = read_table(_FIELDS[name], f"[{name}]", {key: value}, flags_start, "flag")
        tables.setdefault(name, {}).update(values)
    tables["run"].setdefault("dir", Path.cwd() / "runs" / file.stem)
    if "path" not in tables["data"]:
        raise VidfaceError(f"{where}: [data] path is missing; it names the training faces")
    return tables


def _check_whole(pipeline: TrainingPipeline) -> None:
    """Check what no table can check alone: names are given once, and known where they are used."""
    check(len(pipeline.stages) > 0, "[[stage]]", "there is none")
    verifications = pipeline.verifications
    named = {"benchmark": verifications, "stage": [stage.name for stage in pipeline.stages]}
    for table, names in named.items():
        twice = sorted({name for name in names if names.count(name) > 1})
        check(not twice, f"[[{table}]]", f"two have the name {', '.join(twice)}")
    if pipeline.train.choose_by:
        check_choice("[train] choose_by", pipeline.train.choose_by, (*verifications, LAST))


def training_markdown() -> str:
    """The table of all keys of a recipe, for docs/training.md."""
    files: dict[str, type] = {f"[augment.{name}]": kind for name, kind in AUGMENTATIONS.items()}
    files |= {f"[[{name}]]": kind for name, kind in LISTS.items()}
    files |= {f"[stage.losses.{name}]": kind for name, kind in STAGE_LOSSES.items()}
    files["[stage.cut]"] = CutSettings
    tables = {f"[{name}]": settings_of(kind) for name, kind in TABLES.items()}
    for table, kind in files.items():  # no command has a flag for these
        tables[table] = tuple(dataclasses.replace(each, flag=None) for each in settings_of(kind))
    return settings_markdown(tables)


if __name__ == "__main__":
    guide = Path(sys.argv[1])
    text = replace_table(guide.read_text(encoding="utf-8"), training_markdown())
    guide.write_text(text, encoding="utf-8")
