"""The JSON files of a run, read for a report: only what has the form that vidface writes is taken.

A run directory may come from a stranger: a number that is none becomes None, a list of other length
is left out, and a file that is too large or no JSON is an error that names it.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError

MOST_JSON_BYTES = 64 * 2**20
"""A larger score, curves or sweep file is refused; vidface's own have some kilobytes."""

MOST_POINTS = 5000
"""Of a curve that is drawn: vidface writes 500."""

MOST_ROWS = 1000
"""Of a sweep, or of the operating points of a score."""

MOST_IDENTITIES = 1_000_000  # lines that are read of an average precision table
CURVES_SUFFIX = ".curves.json"  # of the file beside a score file
_LONGEST_TEXT = 2000

Columns = Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Figure:
    """One figure of a score: a rate in [0, 1], or None with the reason in `note`."""

    name: str  # as `vidface.runs.scoring.Score.figures` names it, "tar_at_far.1e-4"
    label: str  # "TAR @ FAR 1e-4"
    value: float | None
    ci95: tuple[float, float] | None = None
    note: str = ""
    threshold: float | None = None

    def __str__(self) -> str:
        return f"Figure({self.label}: {self.value})"


@dataclass(frozen=True)
class ScoreFile:
    """A score file: its figures, and the document for provenance and counts."""

    name: str
    split: str
    gallery: str
    denoising: str
    created: str
    figures: tuple[Figure, ...]
    document: Mapping[str, Any]
    curves: Mapping[str, Any] = field(default_factory=dict)  # `curves_blocks`; {} without the file

    def __str__(self) -> str:
        return f"ScoreFile({self.name}: {len(self.figures)} figures, curves {list(self.curves)})"

    @property
    def provenance(self) -> Mapping[str, Any]:
        return mapping(self.document.get("provenance"))

    def failures(self) -> Iterator[tuple[str, int, int, float | None]]:
        """(split or gallery by name, clips, failed, rate) of the failure to acquire."""
        found = mapping(self.document.get("failure_to_acquire"))
        for part, name in (("split", self.split), ("gallery", self.gallery)):
            entry = mapping(found.get(part))
            clips, failed = number(entry.get("clips")), number(entry.get("failed"))
            if clips and failed is not None and name:
                yield name, int(clips), int(failed), number(entry.get("rate"))


@dataclass(frozen=True)
class SweepRow:
    """One threshold (None: no clustering) with the share of faces dropped and its figures."""

    threshold: float | None
    dropped_share: float | None
    figures: tuple[Figure, ...]

    def __str__(self) -> str:
        return f"SweepRow({self.threshold}: {len(self.figures)} figures)"


@dataclass(frozen=True)
class SweepFile:
    """A sweep over thresholds, rows rising, "none" first."""

    name: str
    split: str
    gallery: str
    rows: tuple[SweepRow, ...]
    document: Mapping[str, Any]

    def __str__(self) -> str:
        return f"SweepFile({self.name}: {len(self.rows)} thresholds)"


# Values ------------------------------------------------------------------------------------------


def number(value: Any) -> float | None:
    """A finite number, or None.

    >>> number(1), number(0.5), number(True), number("1"), number(float("nan")), number(10**400)
    (1.0, 0.5, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def text(value: Any) -> str:
    """A text, cut where it is absurdly long; "" for what is none."""
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping, or an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def pair(value: Any) -> tuple[float, float] | None:
    """The two ends of an interval, or None."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def column(value: Any) -> tuple[float | None, ...] | None:
    """A list of numbers or nulls, at most MOST_POINTS long; None for anything else."""
    if not isinstance(value, list) or not 0 < len(value) <= MOST_POINTS:
        return None
    return tuple(number(entry) for entry in value)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        VidfaceError: unreadable, too large, too deep or no JSON object.
    """
    try:
        if path.stat().st_size > MOST_JSON_BYTES:
            raise VidfaceError(
                f"{path}: larger than {MOST_JSON_BYTES >> 20} MiB, which no file of vidface's is; "
                "make it again"
            )
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VidfaceError(f"{path}: unreadable ({reason}); make it again") from None
    if not isinstance(document, dict):
        raise VidfaceError(f"{path}: not what vidface wrote; make it again")
    return document


# Figures -----------------------------------------------------------------------------------------


def figures_of(document: Mapping[str, Any]) -> tuple[Figure, ...]:
    """The figures of a score document, or of a sweep's row, in the order of the tables.

    >>> found = figures_of({"verification": {"tar_at_far": {"1e-4": {"tar": 0.5}}}})
    >>> found[0].name, found[0].label, found[0].value
    ('tar_at_far.1e-4', 'TAR @ FAR 1e-4', 0.5)
    """
    found = list(_retrieval(mapping(document.get("retrieval"))))
    found += _clip_retrieval(mapping(document.get("clip_retrieval")))
    found += _verification(mapping(document.get("verification")), "", "")
    found += _verification(mapping(document.get("cross_verification")), "cross_", ", gallery pairs")
    found += _identification(mapping(document.get("identification")))
    return tuple(found[:MOST_ROWS])


def _figure(name: str, label: str, entry: Any, key: str, needs: str = "") -> Figure:
    entry = mapping(entry)
    value, note = number(entry.get(key)), text(entry.get("ci95_note"))
    if value is None and (least := number(entry.get(needs))) is not None:
        note = f"needs ≥ {least:.0f} {needs.removeprefix('needs_').replace('_', ' ')}"
    ci95 = pair(entry.get("ci95"))
    return Figure(name, label, value, ci95, note, number(entry.get("threshold")))


def _retrieval(block: Mapping[str, Any]) -> Iterator[Figure]:
    for key in block:
        if key.startswith("map_at_"):
            k = text(key.removeprefix("map_at_"))
            yield _figure(text(key), f"mAP@{k}", block, key)


def _clip_retrieval(block: Mapping[str, Any]) -> list[Figure]:
    found = []
    for key in block:
        if key.startswith("map_at_"):
            label = f"clip to clip mAP@{text(key.removeprefix('map_at_'))}"
            found.append(_figure(f"clip_{text(key)}", label, block, key))
    return found


def _verification(block: Mapping[str, Any], prefix: str, suffix: str) -> list[Figure]:
    found = [
        _figure(
            f"{prefix}tar_at_far.{text(far)}",
            f"TAR @ FAR {text(far)}{suffix}",
            entry,
            "tar",
            "needs_impostor_pairs",
        )
        for far, entry in mapping(block.get("tar_at_far")).items()
    ]
    for key in ("eer", "auc"):
        if isinstance(block.get(key), dict):
            found.append(_figure(prefix + key, f"{key.upper()}{suffix}", block[key], "value"))
    return found


def _identification(block: Mapping[str, Any]) -> list[Figure]:
    found = [
        _figure(f"cmc.{text(rank)}", f"CMC, rank {text(rank)}", entry, "value")
        for rank, entry in mapping(block.get("cmc")).items()
    ]
    found += [
        _figure(
            f"tpir_at_fpir.{text(fpir)}",
            f"TPIR @ FPIR {text(fpir)}",
            entry,
            "tpir",
            "needs_non_mated",
        )
        for fpir, entry in mapping(block.get("tpir_at_fpir")).items()
    ]
    return found


# Files -------------------------------------------------------------------------------------------


def read_score(path: Path) -> ScoreFile:
    """A score file; its curves are read by `read_curves`.

    Raises:
        VidfaceError: unreadable.
    """
    document = read_json(path)
    return ScoreFile(
        name=path.name,
        split=text(document.get("split")),
        gallery=text(document.get("gallery")),
        denoising=text(document.get("denoising")) or "no noise removal",
        created=text(mapping(document.get("provenance")).get("created")),
        figures=figures_of(document),
        document=document,
    )


def read_curves(path: Path) -> dict[str, Any]:
    """`curves_blocks` of the file that lies beside a score file; {} where there is none.

    Raises:
        VidfaceError: unreadable.
    """
    beside = path.with_name(path.stem + CURVES_SUFFIX)
    return curves_blocks(read_json(beside)) if beside.is_file() else {}


def read_sweep(path: Path) -> SweepFile | None:
    """A sweep file; None for one of `sweep --folds` and `--select-on`, which has no such rows.

    Raises:
        VidfaceError: unreadable.
    """
    document = read_json(path)
    rows = document.get("rows")
    if not isinstance(rows, list) or not all(mapping(row).get("denoised") for row in rows):
        return None
    found = [
        SweepRow(
            number(row.get("threshold")),
            number(mapping(row["denoised"]).get("dropped_share")),
            figures_of(row),
        )
        for row in rows[:MOST_ROWS]
    ]
    found.sort(key=lambda row: -math.inf if row.threshold is None else row.threshold)
    split, gallery = text(document.get("split")), text(document.get("gallery"))
    return SweepFile(path.name, split, gallery, tuple(found), document)


def read_average_precision(path: Path) -> dict[str, float]:
    """Identity → average precision, of a score's `…_average_precision.csv`; {} without the file.

    Raises:
        VidfaceError: unreadable.
    """
    found: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                try:
                    value = number(float(row["average_precision"]))
                except (KeyError, TypeError, ValueError):
                    continue
                if value is not None and len(found) < MOST_IDENTITIES:
                    found[text(row.get("identity"))] = value
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise VidfaceError(f"{path}: unreadable ({error}); score again") from None
    return found


def curves_blocks(document: Mapping[str, Any]) -> dict[str, Any]:
    """What can be drawn of a curves document: blocks of columns of one length each."""
    found: dict[str, Any] = {}
    for name in ("verification", "cross_verification"):
        block = mapping(document.get(name))
        drawn = {
            "roc": columns(block.get("roc"), ("far", "tar", "frr", "threshold")),
            "histogram": _histogram(mapping(block.get("histogram"))),
        }
        if any(drawn.values()):
            eer = mapping(block.get("eer"))
            pairs = mapping(block.get("pairs"))
            found[name] = {
                **drawn,
                "points": _operating_points(block.get("points")),
                "eer": {key: number(eer.get(key)) for key in ("value", "threshold")},
                "impostor_pairs": number(pairs.get("impostor")),
                "genuine_pairs": number(pairs.get("genuine")),
            }
    retrieval = mapping(document.get("retrieval")).get("precision_recall")
    if drawn_columns := columns(retrieval, ("recall", "precision"), ("low", "high")):
        found["precision_recall"] = drawn_columns
    cmc = mapping(document.get("identification")).get("cmc")
    if drawn_columns := columns(cmc, ("rank", "value"), ("low", "high")):
        found["cmc"] = drawn_columns
    return found


def columns(block: Any, names: Sequence[str], more: Sequence[str] = ()) -> Columns:
    """The columns of a block, all of one length; {} where one of `names` lacks or differs."""
    block = mapping(block)
    found = {name: column(block.get(name)) for name in (*names, *more)}
    there = {name: values for name, values in found.items() if values is not None}
    lengths = {len(values) for values in there.values()}
    if len(lengths) != 1 or any(name not in there for name in names):
        return {}
    return there


def _histogram(block: Mapping[str, Any]) -> Columns:
    edges, drawn = (
        column(block.get("edges")),
        columns(block, ("genuine_share", "impostor_share"), ("genuine", "impostor")),
    )
    if edges is None or not drawn or len(edges) != len(drawn["genuine_share"]) + 1:
        return {}
    return {"edges": edges, **drawn}


def _operating_points(block: Any) -> list[dict[str, Any]]:
    if not isinstance(block, list):
        return []
    return [
        {
            "target_far": text(mapping(point).get("target_far")),
            **{key: number(mapping(point).get(key)) for key in ("far", "tar", "threshold")},
            "ci95": pair(mapping(point).get("ci95")),
        }
        for point in block[:MOST_ROWS]
    ]
