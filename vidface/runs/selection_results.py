"""What a chosen threshold gives, beside what it is to be compared with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vidface.core.thresholds import threshold_name
from vidface.metrics.conventions import DEFAULT_K
from vidface.metrics.operating_points import OperatingPoint


@dataclass(frozen=True)
class TarOverRounds:
    """TAR at one target FAR over the rounds: one of two splits, K of folds."""

    points: tuple[OperatingPoint, ...]  # of each round

    @property
    def target_far(self) -> str:
        """The target, as it was given."""
        return self.points[0].target_far

    @property
    def values(self) -> tuple[float, ...]:
        """The TARs of the rounds that resolve the target, each in [0, 1]."""
        return tuple(point.tar for point in self.points if point.tar is not None)

    @property
    def tar(self) -> float | None:
        """The mean over the rounds that resolve the target; None where none does."""
        return mean_of(self.values)

    @property
    def standard_deviation(self) -> float | None:
        """Of the rounds that resolve the target (n − 1); None with fewer than two."""
        return deviation_of(self.values)

    @property
    def note(self) -> str:
        """Why there is no figure, or how many folds it is the mean of where some have none."""
        n, resolved = len(self.points), len(self.values)
        if resolved:
            return "" if resolved == n else f"{resolved} of {n} folds"
        # That pairs are missing outdoes "no genuine pair": it tells how many it takes.
        return next((p.note for p in self.points if p.needs_impostor_pairs), self.points[0].note)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "tar": self.tar,
            "standard_deviation": self.standard_deviation,
            "resolved": len(self.values),
            "note": self.note,
            "rounds": [point.to_dict() for point in self.points],
        }


@dataclass(frozen=True)
class SelectionRow:
    """The figures of the reported clips, each round's under its threshold. All in [0, 1]."""

    label: str  # "honest", "optimistic" or "no clustering"
    thresholds: tuple[float | None, ...]  # of each round; None: no clustering
    map_at_k: float | None  # the mean over all reported identities
    round_maps: tuple[float | None, ...]  # the mean over each round's identities
    tars: tuple[TarOverRounds, ...]  # in the order of the targets
    k: int = DEFAULT_K  # ranks that count for mAP

    @property
    def map_standard_deviation(self) -> float | None:
        """Of `round_maps` (n − 1); None with one round or without a mAP."""
        return deviation_of([value for value in self.round_maps if value is not None])

    def __str__(self) -> str:
        names = ", ".join(threshold_name(t) for t in dict.fromkeys(self.thresholds))
        figures = [f"mAP@{self.k} {_text(self.map_at_k)}"]
        for tar in self.tars:
            note = f" ({tar.note})" if tar.tar is not None and tar.note else ""
            figures.append(f"TAR@{tar.target_far} {_text(tar.tar, tar.note)}{note}")
        return f"{self.label}, threshold {names}: {', '.join(figures)}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "thresholds": list(self.thresholds),
            f"map_at_{self.k}": self.map_at_k,
            "map_standard_deviation": self.map_standard_deviation,
            "map_of_rounds": list(self.round_maps),
            "tar_at_far": {tar.target_far: tar.to_dict() for tar in self.tars},
        }


@dataclass(frozen=True)
class Selection:
    """A threshold chosen honestly, what it gives, and what it is to be compared with.

    `optimistic` is the one threshold that is best on the reported clips themselves, by the same
    criterion: how the paper chose. Over two splits no honest figure of the criterion exceeds it;
    over folds one can, for there each fold has a threshold of its own.
    """

    protocol: str  # "splits" or "folds"
    criterion: str  # "map" or "tar"
    criterion_far: str | None  # the target of "tar", where the threshold was chosen
    optimistic_far: str | None  # as that, unless no reported part resolves it
    select_on: str
    report_on: str
    gallery: str | None
    seed: int | None  # of the folds
    candidates: tuple[float | None, ...]  # rising, no clustering first
    criterion_values: tuple[float, ...]  # of each round, where its threshold was chosen
    criterion_note: str  # which of several targets chose; empty where one was named
    map_note: str  # why there is no mAP; empty where there is one
    honest: SelectionRow
    optimistic: SelectionRow
    none: SelectionRow | None  # no clustering; None where it was not observed

    @property
    def rows(self) -> tuple[SelectionRow, ...]:
        """The rows of a table."""
        return tuple(row for row in (self.honest, self.optimistic, self.none) if row is not None)

    def __str__(self) -> str:
        how = "mAP" if self.criterion_far is None else f"TAR@{self.criterion_far}"
        if self.protocol == "folds":
            n = len(self.honest.thresholds)
            where = f"over {n} folds of the identities of {self.report_on} (seed {self.seed})"
        else:
            where = f"on {self.select_on}, reported on {self.report_on}"
        return "\n".join([f"threshold chosen by {how} {where}", *map(str, self.rows)])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without NaN: None is no figure, or for a threshold no clustering."""
        return {
            "protocol": self.protocol,
            "criterion": self.criterion,
            "criterion_far": self.criterion_far,
            "optimistic_far": self.optimistic_far,
            "select_on": self.select_on,
            "report_on": self.report_on,
            "gallery": self.gallery,
            "folds": len(self.honest.thresholds) if self.protocol == "folds" else None,
            "seed": self.seed,
            "candidates": list(self.candidates),
            "criterion_values": list(self.criterion_values),
            "criterion_note": self.criterion_note,
            "map_note": self.map_note,
            "honest": self.honest.to_dict(),
            "optimistic": self.optimistic.to_dict(),
            "no_clustering": None if self.none is None else self.none.to_dict(),
        }


def mean_of(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def deviation_of(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _text(value: float | None, note: str = "n/a") -> str:
    return note if value is None else f"{value:.4f}"
