"""Settings that are defined once: fields, tables with entries of a registry, checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vidface.core.errors import VidfaceError
from vidface.core.settings import (
    SettingField,
    build_entry,
    build_settings,
    build_table,
    check_settings,
    setting,
    table_settings,
    table_values,
)
from vidface.core.thresholds import check_threshold
from vidface.settings.values import read_table


@dataclass(frozen=True)
class Trim:
    share: float = setting(0.25, help="Share that is dropped.", bounds="[0, 1)")


@dataclass(frozen=True)
class Join:
    cosine: float | None = setting(0.4, help="Cosine above which faces join.", none_text="none")


REGISTRY: dict[str, type] = {"trim": Trim, "join": Join}


@dataclass(frozen=True)
class Removal:
    GROUP: ClassVar[str] = "Noise"

    method: str = setting("trim", help="How noise is found.", choices=REGISTRY)
    wait_seconds: float | None = setting(None, help="How long.", unit="seconds", rare=True)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def entries() -> Mapping[str, type]:
        return REGISTRY

    def __post_init__(self) -> None:
        check_settings(self, "[removal]")


def fields_by_name() -> dict[str, SettingField]:
    return {each.name: each for each in table_settings(Removal)}


def test_a_table_has_its_own_keys_and_those_of_its_entries() -> None:
    fields = fields_by_name()
    assert list(fields) == ["method", "wait_seconds", "share", "cosine"]
    assert {each.group for each in fields.values()} == {"Noise"}
    assert (fields["wait_seconds"].flag, fields["wait_seconds"].flag_name) == ("--wait", "wait")
    assert fields["method"].text == "How noise is found. One of trim, join."


def test_what_a_registry_gains_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Toy:
        strength: int = setting(3, help="How strongly.", bounds="[1, inf)")

    monkeypatch.setitem(REGISTRY, "toy", Toy)
    assert fields_by_name()["strength"].default == 3
    assert "toy" in fields_by_name()["method"].choices
    table = build_table(Removal, {"method": "toy", "strength": 5})
    assert build_entry(REGISTRY[table.method], table.parameters) == Toy(5)
    assert table_values(table) == {
        "method": "toy", "wait_seconds": None, "share": 0.25, "cosine": 0.4, "strength": 5,
    }  # fmt: skip


def test_two_entries_do_not_mean_two_things_by_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Other:
        share: float = setting(0.5, help="Something else.")

    monkeypatch.setitem(REGISTRY, "other", Other)
    with pytest.raises(VidfaceError, match="'other' has a setting 'share' that another entry"):
        table_settings(Removal)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Removal(method="tirm"), r"\[removal\] method: unknown value 'tirm' \(known: trim"),
        (lambda: Removal(wait_seconds=float("inf")), "wait_seconds: must be finite, not inf"),
        (lambda: check_settings(Trim(1), "[trim]"), r"share: must lie in \[0, 1\), not 1"),
        (lambda: build_settings(Trim, {"shar": 1}, "trim"), r"no setting 'shar' \(known: share\)"),
        (lambda: check_threshold("cosine", 1.5), r'cosine: a cosine in \[-1, 1\] or "none"'),
    ],
)
def test_wrong_values_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        make()


def test_how_a_file_writes_none() -> None:
    fields = table_settings(Removal)

    def read(values: dict[str, Any]) -> dict[str, Any]:
        return read_table(fields, "[removal]", values, Path("a.toml"), "file")

    assert read({"cosine": "none", "wait_seconds": 3}) == {"cosine": None, "wait_seconds": 3.0}
    with pytest.raises(VidfaceError, match=r"cosine: must be a number or \"none\", not 'high'"):
        read({"cosine": "high"})
    with pytest.raises(VidfaceError, match=r"unknown key 'cos' in \[removal\] \(known: method, w"):
        read({"cos": 1})
