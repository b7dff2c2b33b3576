"""Writing a score: its file, the tables beside it, and the points of its curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.core.digests import remove_with_digest
from vidface.core.files import atomic_file, can_be_written, write_json
from vidface.core.values import guard_cell
from vidface.metrics.bands import Draws
from vidface.metrics.protocols import PROTOCOLS
from vidface.metrics.uncertainty import Bootstrap
from vidface.runs.run import Notify
from vidface.runs.score_documents import CURVES_FORMAT, CURVES_SUFFIX, SCORE_VERSION

if TYPE_CHECKING:
    from vidface.runs.scoring import Score


def write_score(
    path: Path,
    document: Mapping[str, Any],
    tables: Sequence[Mapping[str, Sequence[Sequence[Any]]]],
    notify: Notify,
    curves: Mapping[str, Any] | None = None,
) -> None:
    """Write a score file, its tables and its curves; where that can't be, figures are shown.

    What lies there of an earlier score, with other protocols, goes.
    """
    if not can_be_stored(path.parent, notify):
        return
    write_json(path, document, digest=True)
    named = {name: rows for table in tables for name, rows in table.items()}
    for name in dict.fromkeys(
        [*named, *(n for kind in PROTOCOLS.values() for n in kind.table_names)]
    ):
        table = path.with_name(f"{path.stem}_{name}.csv")
        if name in named:
            write_csv(table, named[name])
        else:
            remove_with_digest(table)
    if curves is not None:
        write_json(curves_path(path), curves, digest=True)
    else:
        remove_with_digest(curves_path(path))


def can_be_stored(folder: Path, notify: Notify) -> bool:
    """Whether figures can be written into a folder; where not, that is said."""
    if not can_be_written(folder):
        notify(f"{folder} can't be written to: the figures are shown, not stored")
        return False
    return True


def curves_path(score_path: Path) -> Path:
    """Where the curves of a score file lie.

    >>> curves_path(Path("scores/val_threshold_0.4.json")).name
    'val_threshold_0.4.curves.json'
    """
    return score_path.with_name(score_path.stem + CURVES_SUFFIX)


def curves_document(score: Score, name: str, bootstrap: Bootstrap | None = None) -> dict[str, Any]:
    """The curves of a score, ready for JSON.

    Args:
        name: of the score file.
        bootstrap: as the score was made with, for the bands of precision–recall and CMC.
    """
    draws = Draws(bootstrap)
    sections = {
        protocol.replace("-", "_"): result.curves(draws)
        for protocol, result in score.results.items()
    }
    return {
        "format": CURVES_FORMAT,
        "version": SCORE_VERSION,
        "score": name,
        "split": score.split,
        "gallery": score.gallery,
        "threshold": score.threshold,
        "denoising": score.denoising,
        **{key: section for key, section in sections.items() if section is not None},
        "provenance": {**score.provenance, "stage": "curves"},
    }


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write a table as CSV, complete or not at all; no cell is a spreadsheet's formula."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([guard_cell(cell) for cell in row] for row in rows)
    with atomic_file(path, digest=True) as file:
        file.write(text.getvalue().encode("utf-8", "replace"))
