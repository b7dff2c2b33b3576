"""The scores and sweeps of a run as a report shows them: figures with names, labels, intervals."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from vidface.core.digests import check_digest
from vidface.core.errors import VidfaceError
from vidface.core.values import unguard_cell
from vidface.metrics.uncertainty import few_people_note
from vidface.reports.loose_values import interval, mapping, number, text
from vidface.runs.score_documents import CheckedDocument, created_of, read_document
from vidface.runs.score_writing import curves_path

MOST_ROWS = 1000
"""Of a sweep, or of the figures of a score."""

MOST_IDENTITIES = 1_000_000  # lines that are read of an average precision table

_NO_PROTOCOLS = ("failure_to_acquire", "counts", "gallery_counts", "noise_removal", "provenance",
                 "denoised", "people")  # fmt: skip
_KNOWN_PROTOCOLS = ("retrieval", "clip_retrieval", "verification", "cross_verification",
                    "identification")  # fmt: skip


@dataclass(frozen=True)
class ScoreFigure:
    """One figure of a score: a rate in [0, 1], or None with the reason in `note`."""

    name: str  # as `vidface.runs.scoring.Score.figures` names it, "tar_at_far.1e-4"
    label: str  # "TAR @ FAR 1e-4"
    value: float | None
    ci95: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class ReportedScore:
    """A score file: its figures, and the documents they come from."""

    name: str
    split: str
    gallery: str
    denoising: str
    created: str
    figures: tuple[ScoreFigure, ...]
    document: CheckedDocument
    curves: Mapping[str, Any] = field(default_factory=dict)  # beside it; {} without the file

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Settings, versions and hashes that the score was made with."""
        return mapping(self.document["provenance"])

    @property
    def interval_note(self) -> str:
        """What is to be said of the intervals, where a few people are behind them."""
        people = number(self.document.get("people"))
        if people is None or not any(figure.ci95 for figure in self.figures):
            return ""
        return few_people_note(int(people))

    def failures(self) -> Iterator[tuple[str, int, int, float | None]]:
        """(split or gallery by name, clips, failed, rate) of the failure to acquire."""
        for part, name in (("split", self.split), ("gallery", self.gallery)):
            acquired = mapping(self.document["failure_to_acquire"].get(part))
            clips, failed = acquired.get("clips"), acquired.get("failed")
            if clips and failed is not None and name:
                yield name, int(clips), int(failed), number(acquired.get("rate"))


@dataclass(frozen=True)
class ReportedSweepRow:
    """One threshold (None: no clustering) with the share of faces dropped and its figures."""

    threshold: float | None
    dropped_share: float
    figures: tuple[ScoreFigure, ...]


@dataclass(frozen=True)
class ReportedSweep:
    """A sweep over thresholds, rows rising, "none" first."""

    name: str
    split: str
    gallery: str
    created: str
    rows: tuple[ReportedSweepRow, ...]
    document: CheckedDocument

    def figure_labels(self) -> dict[str, str]:
        """Name → label of the figures that table and chart have: those with any value."""
        return {
            figure.name: figure.label
            for row in self.rows
            for figure in row.figures
            if figure.value is not None and not figure.name.endswith(("eer", "auc"))
        }


def read_score(path: Path) -> ReportedScore:
    """Read a score file; its curves are read by `read_curves`.

    Raises:
        VidfaceError: unreadable or not what vidface wrote.
    """
    document = read_document(path, "score")
    return ReportedScore(
        name=path.name,
        split=text(document.get("split")),
        gallery=text(document.get("gallery")),
        denoising=text(document["denoising"]) or "no noise removal",
        created=created_of(document),
        figures=list_figures(document),
        document=document,
    )


def read_curves(path: Path) -> Mapping[str, Any]:
    """Read the curves that lie beside a score file; {} where there are none.

    Raises:
        VidfaceError: unreadable or not what vidface wrote.
    """
    beside = curves_path(path)
    return read_document(beside, "curves") if beside.is_file() else {}


def read_sweep(path: Path) -> ReportedSweep:
    """Read a sweep file.

    Raises:
        VidfaceError: unreadable or not what vidface wrote.
    """
    document = read_document(path, "sweep")
    rows = [
        ReportedSweepRow(row["threshold"], row["denoised"]["dropped_share"], list_figures(row))
        for row in document["rows"][:MOST_ROWS]
    ]
    rows.sort(key=lambda row: -math.inf if row.threshold is None else row.threshold)
    split, gallery = text(document.get("split")), text(document.get("gallery"))
    return ReportedSweep(path.name, split, gallery, created_of(document), tuple(rows), document)


def read_average_precision(path: Path) -> dict[str, float]:
    """Identity → average precision, of a score's `…_average_precision.csv`; {} without the file.

    Raises:
        VidfaceError: unreadable.
    """
    precision: dict[str, float] = {}
    check_digest(path, "score again")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                try:
                    value = number(float(row["average_precision"]))
                except (KeyError, TypeError, ValueError):
                    continue
                if value is not None and len(precision) < MOST_IDENTITIES:
                    precision[unguard_cell(text(row.get("identity")))] = value
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise VidfaceError(f"{path}: unreadable ({error}); score again") from None
    return precision


def list_figures(document: Mapping[str, Any]) -> tuple[ScoreFigure, ...]:
    """The figures of a score document, or of a sweep's row, in the order of the tables.

    A section that is no protocol known here is taken as it is: each of its entries that has a
    "value" is a figure.

    >>> list_figures({"verification": {"tar_at_far": {"1e-4": {"tar": 0.5}}}})[0].label
    'TAR @ FAR 1e-4'
    >>> list_figures({"my_protocol": {"hit_rate": {"value": 0.5, "ci95": [0.4, 0.6]}}})[0].label
    'my protocol: hit rate'
    """
    figures = chain(_known_figures(document), _unknown_figures(document))
    return tuple(islice(figures, MOST_ROWS))


def _known_figures(document: Mapping[str, Any]) -> Iterator[ScoreFigure]:
    retrieval = document.get("retrieval", {})
    for key, value in retrieval.items():
        if key.startswith("map_at_"):
            label = f"mAP@{key.removeprefix('map_at_')}"
            yield _figure(key, label, {**retrieval, "value": value})
    for key, entry in document.get("clip_retrieval", {}).items():
        if key.startswith("map_at_"):
            label = f"clip to clip mAP@{key.removeprefix('map_at_')}"
            yield _figure(f"clip_{key}", label, entry)
    for section, prefix, suffix in (
        ("verification", "", ""),
        ("cross_verification", "cross_", ", gallery pairs"),
    ):
        verification = document.get(section, {})
        for far, entry in verification.get("tar_at_far", {}).items():
            name, label = f"{prefix}tar_at_far.{far}", f"TAR @ FAR {far}{suffix}"
            yield _figure(name, label, entry, "tar", "needs_impostor_pairs")
        for key in ("eer", "auc"):
            if verification.get(key) is not None:
                yield _figure(f"{prefix}{key}", f"{key.upper()}{suffix}", verification[key])
    identification = document.get("identification", {})
    for rank, entry in identification.get("cmc", {}).items():
        yield _figure(f"cmc.{rank}", f"CMC, rank {rank}", entry)
    for fpir, entry in identification.get("tpir_at_fpir", {}).items():
        name, label = f"tpir_at_fpir.{fpir}", f"TPIR @ FPIR {fpir}"
        yield _figure(name, label, entry, "tpir", "needs_non_mated")


def _unknown_figures(document: Mapping[str, Any]) -> Iterator[ScoreFigure]:
    for section, entries in document.items():
        if section in _KNOWN_PROTOCOLS or section in _NO_PROTOCOLS:
            continue
        for key, entry in mapping(entries).items():
            if isinstance(entry, dict) and "value" in entry:
                label = f"{section}: {key}".replace("_", " ")
                yield _figure(text(f"{section}.{key}"), text(label), entry)


def _figure(
    name: str, label: str, entry: Mapping[str, Any], value_key: str = "value", needs_key: str = ""
) -> ScoreFigure:
    value, note = number(entry.get(value_key)), text(entry.get("ci95_note"))
    if value is None and (least := number(entry.get(needs_key))) is not None:
        note = f"needs ≥ {least:.0f} {needs_key.removeprefix('needs_').replace('_', ' ')}"
    return ScoreFigure(name, label, value, interval(entry.get("ci95")), note)
