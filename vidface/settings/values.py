"""Values of a TOML file as settings say: variables expanded, paths resolved, types checked.

In strings, `${NAME}` and `${NAME:-default}` are replaced by environment variables; `${PWD}` (the
working directory) and `${VIDFACE_CACHE}` (the cache) are always defined. Relative paths are
relative to the file; only where a path begins with a variable that is set in the environment is it
relative to the working directory, as the person who set it means it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.files import absolute_path
from vidface.core.redaction import is_url
from vidface.core.settings import SettingField
from vidface.storage.cache import cache_folder
from vidface.storage.media import as_location
from vidface.storage.urls import Address


def read_table(
    fields: Sequence[SettingField], table: str, values: Mapping[str, Any], file: Path, where: str
) -> dict[str, Any]:
    """The values of a table, each as its setting says.

    Args:
        table: how the table is written, "[score]".
        file: where relative paths start (its folder).
        where: what a message begins with.

    Raises:
        VidfaceError: unknown key, wrong type, a variable that is not set.
    """
    known = {field.name: field for field in fields}
    for key in values:
        if key not in known:
            names = ", ".join(known)
            raise VidfaceError(f"{where}: unknown key '{key}' in {table} (known: {names})")
    return {
        key: read_value(known[key], value, file, f"{where}: {table} {key}")
        for key, value in values.items()
    }


def read_value(field: SettingField, value: Any, file: Path, spot: str) -> Any:
    """A value as its setting says; `spot` is what a message begins with."""
    kinds = field.members
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, Address):
        value = value.url
    if isinstance(value, str):
        text, from_environment = expand(value, spot)
        start = Path.cwd() if from_environment else file.parent
        if text == field.none_text:
            return None
        try:
            if field.parse is not None:
                return field.parse(text, start)
            if Path in kinds:
                return _place(text, start, Address in kinds)
        except VidfaceError as error:
            raise VidfaceError(f"{spot}: {error}") from None
        if str in kinds:
            return text
        if text != value or text == "":  # an expanded variable may hold a number or a truth value
            value = _literal(text)
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif isinstance(value, int | float):
        if float in kinds:
            return _as_float(value, spot)
        if int in kinds and isinstance(value, int):
            return value
    elif isinstance(value, list | tuple) and tuple in kinds:
        if _has_texts(field):
            if all(isinstance(item, str) for item in value):
                return tuple(value)
        elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            return tuple(value) if int in kinds else tuple(_as_float(v, spot) for v in value)
    elif isinstance(value, dict) and Mapping in kinds:
        return value
    elif value is None and type(None) in kinds:
        return None
    names = " or ".join(_TYPE_NAMES[kind] for kind in kinds if kind in _TYPE_NAMES)
    if _has_texts(field):
        names = "a list of strings"
    if field.none_text is not None:
        names += f' or "{field.none_text}"'
    raise VidfaceError(f"{spot}: must be {names}, not {value!r}")


def _as_float(value: float, spot: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise VidfaceError(f"{spot}: a number beyond all bounds") from None


_TYPE_NAMES: dict[Any, str] = {
    str: "a string",
    Path: "a path (a string)",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list of numbers",
    Mapping: "a table",
}


def _has_texts(field: SettingField) -> bool:
    """Whether a setting is a list of strings."""
    return tuple in field.members and "str" in str(field.kind)


def _place(text: str, start: Path, may_be_url: bool) -> Path | Address:
    """A path from `start`, or a URL where one may be given."""
    if not is_url(text):
        return absolute_path(text, start)
    place = as_location(text)
    if isinstance(place, Path) or may_be_url:
        return place
    raise VidfaceError(f"must lie on this machine, not at {place}")


def _literal(text: str) -> Any:
    """What TOML takes a text for: a number, a truth value; else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
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
