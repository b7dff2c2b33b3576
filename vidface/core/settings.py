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
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.values import check, check_choice, split_list

_KEY = "vidface"  # of a field's metadata
PARAMETERS = "parameters"  # the field of a table that holds its entries' settings


@dataclass(frozen=True)
class SettingField:
    """One setting: what a flag, a key and a line of documentation are made from."""

    name: str  # the key in a pipeline file
    kind: Any  # its type, resolved
    default: Any  # dataclasses.MISSING where it must be given
    help: str  # a sentence in plain English that stands alone
    unit: str = ""  # "pixels", "seconds"; "" of names and counts
    group: str = ""  # heading in `--help`; "" for that of the command's own options
    rare: bool = False  # few people need it: `--help-all` alone shows it
    flag: str | None = ""  # of the commands; None where there is none
    metavar: str | None = None  # what stands for the value in `--help`
    choices: tuple[str, ...] = ()  # the known values; () where any may be given
    many: bool = False  # a comma list of choices
    bounds: str = ""  # of a number, as an interval, "[0, 1)" or "(0, inf)"; "" where any is right
    default_text: str | None = None  # what documentation says instead of the default
    none_text: str | None = None  # how a file writes the value None
    parse: Callable[[str, Path], Any] | None = None  # of a text and the folder of its paths

    @property
    def members(self) -> tuple[Any, ...]:
        """The types that a value may have: `Path` and `NoneType` of `Path | None`."""
        union = isinstance(self.kind, types.UnionType)
        options = typing.get_args(self.kind) if union else (self.kind,)
        return tuple(typing.get_origin(option) or option for option in options)

    @property
    def flag_name(self) -> str | None:
        """The name of the flag's value in a command: `stall_timeout` of `--stall-timeout`."""
        return None if self.flag is None else self.flag.lstrip("-").replace("-", "_")

    @property
    def text(self) -> str:
        """The help text, and the known values where it does not name them itself."""
        if all(choice in self.help for choice in self.choices):
            return self.help
        return f"{self.help} {'Any' if self.many else 'One'} of {', '.join(self.choices)}."

    @property
    def shown_default(self) -> str:
        """The default as documentation writes it; "" where there is none."""
        if self.default_text is not None:
            return self.default_text
        if self.default is None or self.default is dataclasses.MISSING:
            return ""
        if isinstance(self.default, bool):
            return "true" if self.default else "false"
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def setting(default: Any = dataclasses.MISSING, *, help: str, **words: Any) -> Any:
    """A dataclass field that is a setting.

    Args:
        help: see `SettingField`, as for the other words.
        words: `factory` makes the default, where that is a mapping; the others are attributes of
            `SettingField`. `flag` is None where commands have no flag for it, else that of the
            field's name (`stall_timeout_seconds` → `--stall-timeout`) unless given. `choices` may
            be a registry itself: what is added to it is known.
    """
    factory = words.pop("factory", dataclasses.MISSING)
    metadata = {_KEY: {"help": help, **words}}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


file_setting = functools.partial(setting, flag=None)
"""A setting that files have and no command has a flag for."""


def settings_of(kind: type, group: str = "") -> tuple[SettingField, ...]:
    """The settings of a dataclass, in the order of its fields; other fields are none.

    A class attribute `GROUP`, or else `group`, is the group of those that name none.
    """
    hints = _type_hints(kind)
    settings = []
    for field in dataclasses.fields(kind):
        if _KEY in field.metadata:
            words = {"flag": "", "group": getattr(kind, "GROUP", group), **field.metadata[_KEY]}
            if words["flag"] == "":
                words["flag"] = "--" + field.name.removesuffix("_seconds").replace("_", "-")
            words["choices"] = tuple(words.get("choices", ()))
            settings.append(SettingField(field.name, hints[field.name], field.default, **words))
    return tuple(settings)


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


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
    group = getattr(kind, "GROUP", "")
    entries: Mapping[str, type] = kind.entries() if hasattr(kind, "entries") else {}
    for name, entry in entries.items():
        for field in settings_of(entry, group):
            if fields.setdefault(field.name, field) != field:
                raise VidfaceError(
                    f"{kind.__name__}: '{name}' has a setting '{field.name}' that another entry "
                    "defines otherwise; take it from a common base class or rename it"
                )
    return tuple(fields.values())


def build_table(kind: type, values: Mapping[str, Any]) -> Any:
    """A table's dataclass from its keys: those of its entries go into its field `parameters`.

    >>> @dataclass(frozen=True)
    ... class Trim:
    ...     share: float = setting(0.25, help="Share of the faces that is dropped.")
    >>> @dataclass(frozen=True)
    ... class Removal:
    ...     method: str = setting("trim", help="Which faces are noise.")
    ...     parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ...     entries = staticmethod(lambda: {"trim": Trim})
    >>> build_table(Removal, {"share": 0.5})
    Removal(method='trim', parameters={'share': 0.5})
    >>> table_values(build_table(Removal, {"share": 0.5}))
    {'method': 'trim', 'share': 0.5}
    """
    if not hasattr(kind, "entries"):
        return kind(**values)
    names = {field.name for field in dataclasses.fields(kind)}
    parameters = {key: value for key, value in values.items() if key not in names}
    own_values = {key: value for key, value in values.items() if key in names}
    return kind(**own_values, parameters=parameters)


def table_values(table: Any) -> dict[str, Any]:
    """The value of every key of a table, those of its entries too: what `build_table` takes."""
    parameters = getattr(table, PARAMETERS, {})
    return {
        field.name: getattr(table, field.name)
        if hasattr(table, field.name)
        else parameters.get(field.name, field.default)
        for field in table_settings(type(table))
    }


def build_entry(entry: type, parameters: Mapping[str, Any]) -> Any:
    """An entry of a registry, built from those of a table's `parameters` that are its own.

    >>> @dataclass(frozen=True)
    ... class Trim:
    ...     share: float = setting(0.25, help="Share of the faces that is dropped.")
    >>> build_entry(Trim, {"share": 0.5, "k": 3})
    Trim(share=0.5)
    """
    names = [field.name for field in settings_of(entry) if field.name in parameters]
    return entry(**{name: parameters[name] for name in names})


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
        if value is None and type(None) in field.members:
            continue
        if field.choices:
            for name in split_list(value) if field.many else (value,):
                check_choice(key, name, field.choices)
        check_type(key, value, set(field.members) - {type(None)})
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
