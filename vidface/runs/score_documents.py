"""Reads the JSON that scoring and sweeping write, whoever hands it in.

A file is read in bounded size and checked against `schemas/score.schema.json` before anything
looks into it: what has passed holds every key that its kind must have, finite numbers in their
ranges, and columns of one length. Keys that the schema does not name are let through.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from vidface.core.errors import VidfaceError
from vidface.core.files import read_json_object
from vidface.core.values import printable

SCORE_VERSION = 1
CURVES_FORMAT = "vidface-curves"
CURVES_SUFFIX = ".curves.json"
"""Of the schema: files of another version are refused."""

WRITTEN_BY = {
    "score": "vidface score",
    "curves": "vidface score",
    "sweep": "vidface sweep",
    "selection": "vidface sweep --folds",
}
"""The kinds of files, each a definition of the schema, and the command that writes them."""

_COLUMNS = {
    ("verification", "roc"): ("far", "tar", "frr", "threshold"),
    ("cross_verification", "roc"): ("far", "tar", "frr", "threshold"),
    ("verification", "histogram"): ("genuine_share", "impostor_share"),
    ("cross_verification", "histogram"): ("genuine_share", "impostor_share"),
    ("retrieval", "precision_recall"): ("recall", "precision", "low", "high"),
    ("identification", "cmc"): ("rank", "value", "low", "high"),
}  # of a curves document: block → columns that have one length


class CheckedDocument(dict[str, Any]):
    """A JSON object that has passed the schema of its kind; made by `check_document`."""


def read_document(path: Path, kind: str) -> CheckedDocument:
    """Read a score, curves, sweep or selection file.

    Args:
        kind: of `WRITTEN_BY`.

    Raises:
        VidfaceError: unreadable, too large, no JSON object, or not of that kind.
    """
    return check_document(read_json_object(path), kind, str(path))


def check_document(document: Any, kind: str, name: str) -> CheckedDocument:
    """Check a document against the schema.

    Args:
        name: of the file or the run, for messages.

    Raises:
        VidfaceError: what is wrong and where, in one line.
    """
    if isinstance(document, CheckedDocument):
        return document
    _check_kind(document, kind, name)
    # Only the first error: a stranger's file may hold millions.
    error = next(_validator(kind).iter_errors(document), None)
    if error is not None:
        where = ".".join(printable(str(part))[:60] for part in error.absolute_path)
        _fail(kind, name, f"{where}{where and ': '}{_describe_error(error)}")
    if kind == "curves":
        _check_lengths(document, name)
    return CheckedDocument(document)


@lru_cache
def score_schema() -> Mapping[str, Any]:
    """The schema that travels with the package."""
    file = resources.files("vidface.runs") / "schemas" / "score.schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


def created_of(document: Mapping[str, Any]) -> str:
    """When a document was made, as text that sorts by time."""
    return str(document["provenance"]["created"])


@lru_cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": score_schema()["$defs"]})


def _check_kind(document: Any, kind: str, name: str) -> None:
    """Refuse a file of another kind or version, in words that say which one is meant."""
    if not isinstance(document, dict):
        _fail(kind, name, "must be an object")
    if kind == "sweep" and "rows" not in document:
        raise VidfaceError(f"{name}: not a sweep; name a file of sweeps/")
    version: Any = SCORE_VERSION
    if kind == "curves":
        if document.get("format") != CURVES_FORMAT:
            raise VidfaceError(
                f"{name}: not curves; name a file of scores/ that ends in {CURVES_SUFFIX}"
            )
        version = document.get("version")
    elif isinstance(made := document.get("provenance"), dict):
        version = made.get("format_version", SCORE_VERSION)
    if version != SCORE_VERSION:
        raise VidfaceError(
            f"{name}: {kind} of version {str(version)[:20]}, this vidface reads "
            f"{SCORE_VERSION}; run `{WRITTEN_BY[kind]}` again"
        )


def _describe_error(error: Any) -> str:
    """What a value must be, without the value, which may be megabytes."""
    rule, wanted = error.validator, error.validator_value
    if rule == "required":
        missing = next(key for key in wanted if key not in error.instance)
        return f"no {missing} in it"
    if rule == "type":
        names = [wanted] if isinstance(wanted, str) else wanted
        return f"must be {' or '.join(names)}"
    if rule in ("minimum", "maximum"):
        return f"must be {'at least' if rule == 'minimum' else 'at most'} {wanted:g}"
    if rule == "anyOf":
        return "must be a figure or null"
    return f"breaks the rule {rule} {wanted if isinstance(wanted, int | str) else ''}".rstrip()


def _check_lengths(document: Mapping[str, Any], name: str) -> None:
    """Refuse columns of one block that have several lengths; null is no column."""
    for (section, block), columns in _COLUMNS.items():
        if section not in document:
            continue
        values = document[section][block]
        lengths = {len(values[column]) for column in columns if values.get(column) is not None}
        if block == "histogram":
            lengths.add(len(values["edges"]) - 1)
        if len(lengths) > 1:
            _fail("curves", name, f"{section}.{block}: columns of several lengths")


def _fail(kind: str, name: str, what: str) -> NoReturn:
    raise VidfaceError(f"{name}: {what}; not what vidface wrote, run `{WRITTEN_BY[kind]}` again")
