"""Which files of a run a figure is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.core.files import read_json_object
from vidface.reports.loose_values import mapping, number
from vidface.runs.score_documents import (
    CURVES_SUFFIX,
    CheckedDocument,
    created_of,
    read_document,
)

MOST_FILES = 1000
"""Scores or sweeps of one run that are looked at."""

KINDS = {"scores": "curves", "sweeps": "sweep"}
"""Folder of a run → the kind of its files that are drawn."""


@dataclass(frozen=True, eq=False)
class FigureSource:
    """A curves or sweep file, and what its run is called."""

    path: Path
    document: CheckedDocument

    @property
    def run_name(self) -> str:
        """The name of the run directory."""
        return self.path.absolute().parent.parent.name or self.path.stem

    @property
    def settings_name(self) -> str:
        """What tells scores of one run apart: the noise removal, or the file's name."""
        name = self.document.get("denoising") or self.path.name
        return str(name).removesuffix(CURVES_SUFFIX)


def find_source(place: Path, what: str, part: str = "") -> FigureSource:
    """The curves ("scores") or the sweep ("sweeps") of a run directory, or a file itself.

    Args:
        place: a run directory, or a file.
        what: "scores" or "sweeps".
        part: of a file's name; of several files the one made last is taken.

    Raises:
        VidfaceError: none there, or not what vidface wrote.
    """
    if place.is_file():
        return FigureSource(place, read_document(place, KINDS[what]))
    if not place.is_dir():
        raise VidfaceError(f"{place}: neither a run directory nor a file in it")
    suffix = CURVES_SUFFIX if what == "scores" else ".json"
    try:
        paths = sorted(p for p in (place / what).iterdir() if p.name.endswith(suffix))
    except OSError:
        paths = []
    # Chosen thresholds lie beside the sweeps; they have no rows to draw.
    paths = [p for p in paths if part in p.name and not p.name.startswith("selected_")]
    if not paths:
        named = f" whose name holds {part!r}" if part else ""
        make = "vidface score" if what == "scores" else "vidface sweep"
        raise VidfaceError(f"{place / what}: no {suffix} file{named}; run `{make}` first")
    if len(paths) > MOST_FILES:
        raise VidfaceError(f"{place / what}: {len(paths)} files; name one of them instead")
    sources = [FigureSource(path, read_document(path, KINDS[what])) for path in paths]
    return max(sources, key=lambda source: (created_of(source.document), source.path.name))


def label_sources(sources: Sequence[FigureSource], given: Sequence[str] = ()) -> list[str]:
    """What the legend calls them: as given, or by run, with the settings where names repeat.

    Raises:
        VidfaceError: another number of labels than of sources.
    """
    if given:
        if len(given) != len(sources):
            raise VidfaceError(f"{len(given)} labels for {len(sources)} runs; give one each")
        return list(given)
    names = [source.run_name for source in sources]
    if len(set(names)) == len(names):
        return names
    if len(set(names)) == 1:
        return [source.settings_name for source in sources]
    return [f"{source.run_name}, {source.settings_name}" for source in sources]


def find_chosen_threshold(place: Path) -> float | None:
    """The threshold of a run: chosen honestly where one was, or else as its settings have it.

    Args:
        place: the run directory. What cannot be read there chooses nothing.
    """
    selections: list[tuple[str, float | None]] = []
    for path in sorted((place / "sweeps").glob("selected_*.json"))[:MOST_FILES]:
        try:
            document = read_document(path, "selection")
        except VidfaceError:
            continue
        thresholds = document["honest"]["thresholds"]
        if len(set(thresholds)) == 1:  # folds that disagree chose no one threshold
            selections.append((created_of(document), thresholds[0]))
    if selections:
        return max(selections, key=lambda selection: selection[0])[1]
    try:
        cluster = read_json_object(place / "run.json").get("cluster")
    except VidfaceError:
        return None
    threshold = number(mapping(cluster).get("threshold"))
    return threshold if threshold is not None and -1 <= threshold <= 1 else None
