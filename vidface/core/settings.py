"""Settings: fields of frozen dataclasses that say what they mean, once.

A field made by `setting` carries its help text, its unit and who needs it. Flags of the commands,
keys of pipeline files and the table in pipelines/README.md come from it; nobody lists them again.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Sampling:
    ...     fps: float = setting(8.0, help="Frames sampled a second.", unit="1/s")
    >>> [(field.name, field.flag, field.default) for field in settings_of(Sampling)]
    [('fps', '--fps', 8.0)]
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.values import check, check_choice

_KEY = "vidface"  # of a field's metadata


@dataclass(frozen=True)
class SettingField:
    """One setting: what a flag, a key and a line of documentation are made from."""

    name: str  # the key in a pipeline file
    kind: Any  # its type, resolved
    default: Any  # dataclasses.MISSING where it must be given
    help: str  # a sentence in plain English that stands alone
    unit: str  # "pixels", "seconds"; "" of names and counts
    group: str  # heading in `--help` and in the documentation
    rare: bool  # few people need it: `--help` shows it last
    flag: str | None  # of the commands; None where there is none
    metavar: str | None  # what stands for the value in `--help`
    choices: tuple[str, ...]  # the known values; () where any may be given
    bounds: str  # of a number, as an interval, "[0, 1)" or "(0, inf)"; "" where any is right
    default_text: str | None  # what documentation says instead of the default
    parse: Callable[[Any], Any] | None  # of what a file or flag says


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    unit: str = "",
    group: str = "",
    rare: bool = False,
    flag: str | None = "",
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    bounds: str = "",
    default_text: str | None = None,
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """A dataclass field that is a setting; see `SettingField`.

    Args:
        flag: "" for that of the field's name (`stall_timeout_seconds` → `--stall-timeout`), None
            where commands have no flag for it.
    """
    said = {
        "help": help,
        "unit": unit,
        "group": group,
        "rare": rare,
        "flag": flag,
        "metavar": metavar,
        "choices": choices,
        "bounds": bounds,
        "default_text": default_text,
        "parse": parse,
    }
    return dataclasses.field(default=default, metadata={_KEY: said})


def table_settings(kind: type) -> tuple[SettingField, ...]:
    """The keys of a table in a pipeline file: a dataclass's settings, then its entries'.

    A table whose entries are chosen by name ([cluster] its denoiser, [score] its protocols) has a
    static method `entries`, which gives the registry {name: dataclass of settings}, and a field
    `parameters`, a mapping that holds what was said of the entries' settings. Entries that share a
    setting take it from a common base class, so that it is defined once.

    Raises:
        VidfaceError: two entries have a setting of one name that is not the same.
    """
    fields = {field.name: field for field in settings_of(kind)}
    entries: Mapping[str, type] = kind.entries() if hasattr(kind, "entries") else {}
    for name, entry in entries.items():
        for field in settings_of(entry):
            if fields.setdefault(field.name, field) != field:
                raise VidfaceError(
                    f"{kind.__name__}: '{name}' has a setting '{field.name}' that another entry "
                    "defines otherwise; take it from a common base class or rename it"
                )
    return tuple(fields.values())


def settings_of(kind: type) -> tuple[SettingField, ...]:
    """The settings of a dataclass, in the order of its fields; other fields are none."""
    hints = typing.get_type_hints(kind)
    listed = []
    for field in dataclasses.fields(kind):
        if _KEY in field.metadata:
            said = dict(field.metadata[_KEY])
            if said["flag"] == "":
                said["flag"] = "--" + field.name.removesuffix("_seconds").replace("_", "-")
            listed.append(SettingField(field.name, hints[field.name], field.default, **said))
    return tuple(listed)


def build_settings(kind: type, values: Any, what: str) -> Any:
    """An instance of a dataclass of settings from a table of a file.

    Args:
        what: what is set, "loss 'arcface'"; a message begins with it.

    Raises:
        VidfaceError: no table, or an unknown setting (the known ones are listed).
    """
    if not isinstance(values, Mapping):
        raise VidfaceError(f"{what} takes a table of settings, not {values!r}")
    known = [field.name for field in settings_of(kind)]
    for key in values:
        if key not in known:
            raise VidfaceError(f"{what} has no setting '{key}' (known: {', '.join(known)})")
    return kind(**values)


def check_settings(settings: Any, table: str) -> None:
    """Check the values of a dataclass of settings against what its fields declare.

    Values must be of their type, numbers finite and within their bounds, names among their
    choices; None is allowed where the type says so.

    Args:
        settings: an instance; called from its `__post_init__`.
        table: how the table is written, "[train]"; a message begins with it.

    Raises:
        VidfaceError: a value that is not allowed; what is allowed is said.
    """
    for field in settings_of(type(settings)):
        value, key = getattr(settings, field.name), f"{table} {field.name}"
        union = isinstance(field.kind, types.UnionType)
        kinds = set(typing.get_args(field.kind)) if union else {field.kind}
        if value is None and type(None) in kinds:
            continue
        if field.choices:
            check_choice(key, value, field.choices)
        check_type(key, value, kinds - {type(None)})
        if field.bounds:
            check_bounds(key, value, field.bounds)


_PLAIN_TYPES: dict[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a finite number"),
    str: (str, "text"),
}


def check_type(key: str, value: Any, kinds: Set[Any]) -> None:
    """Raise VidfaceError "key: …" unless a value has its setting's type and is finite.

    Types other than one of bool, int, float and str are whoever's business reads them.

    >>> check_type("seed", 1.5, {int})
    Traceback (most recent call last):
    vidface.core.errors.VidfaceError: seed: must be a whole number, not 1.5
    """
    for kind in kinds if len(kinds) == 1 else ():
        if kind in _PLAIN_TYPES:
            wanted, text = _PLAIN_TYPES[kind]
            fits = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
            check(fits, key, f"must be {text}, not {value!r}")
    if isinstance(value, float):
        check(math.isfinite(value), key, f"must be finite, not {value}")


def check_bounds(key: str, value: float, bounds: str) -> None:
    """Raise VidfaceError "key: …" unless a number lies in an interval.

    >>> check_bounds("share", 0.5, "(0, 1]")
    >>> check_bounds("share", 0, "(0, 1]")
    Traceback (most recent call last):
    vidface.core.errors.VidfaceError: share: must lie in (0, 1], not 0
    >>> check_bounds("steps", -1, "[0, inf)")
    Traceback (most recent call last):
    vidface.core.errors.VidfaceError: steps: must be at least 0, not -1
    """
    low, high = (
        float(end) if "." in end or "inf" in end else int(end)  # whole ones exactly
        for end in bounds[1:-1].split(",")
    )
    above = value >= low if bounds[0] == "[" else value > low
    below = value <= high if bounds[-1] == "]" else value < high
    if high < math.inf:
        allowed = f"must lie in {bounds}"
    else:
        allowed = f"must be {'at least' if bounds[0] == '[' else 'above'} {low:g}"
    check(above and below, key, f"{allowed}, not {value}")
