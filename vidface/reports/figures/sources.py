"""Which files of a run a figure is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.metrics.curves import FORMAT, SUFFIX, VERSION
from vidface.reports.figures.documents import Block, read_document

MOST_FILES = 1000
"""Scores or sweeps of one run that are looked at."""


@dataclass(frozen=True, eq=False)
class Source:
    """A curves or sweep file, and what its run is called."""

    path: Path
    document: dict[str, Any]

    def __str__(self) -> str:
        return f"Source({self.path})"

    @property
    def run_name(self) -> str:
        """The name of the run directory."""
        return self.path.absolute().parent.parent.name or self.path.stem

    @property
    def settings_name(self) -> str:
        """What tells scores of one run apart: the noise removal, or the file's name."""
        found = self.document.get("denoising")
        return found if isinstance(found, str) and found else self.path.name.removesuffix(SUFFIX)


def find_source(place: Path, what: str, part: str = "") -> Source:
    """The curves ("scores") or the sweep ("sweeps") of a run directory, or a file itself.

    Args:
        place: a run directory, or a file.
        what: "scores" or "sweeps".
        part: of a file's name; of several files the one made last is taken.

    Raises:
        VidfaceError: none there, or not what vidface wrote.
    """
    if place.is_file():
        return Source(place, _checked(place, what))
    if not place.is_dir():
        raise VidfaceError(f"{place}: neither a run directory nor a file in it")
    suffix = SUFFIX if what == "scores" else ".json"
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
    sources = [Source(path, _checked(path, what)) for path in paths]
    return max(sources, key=lambda source: (_made(source), source.path.name))


def _checked(path: Path, what: str) -> dict[str, Any]:
    document = read_document(path)
    if what == "sweeps":
        if "rows" not in document:
            raise VidfaceError(f"{path}: not a sweep; name a file of sweeps/")
        return document
    if document.get("format") != FORMAT:
        raise VidfaceError(f"{path}: not curves; name a file of scores/ that ends in {SUFFIX}")
    if document.get("version") != VERSION:
        raise VidfaceError(
            f"{path}: curves of version {str(document.get('version'))[:20]}, this vidface reads "
            f"{VERSION}; run `vidface score` again"
        )
    return document


def _made(source: Source) -> str:
    made = source.document.get("provenance")
    created = made.get("created") if isinstance(made, dict) else None
    return created if isinstance(created, str) else ""


def labels_for(sources: Sequence[Source], given: Sequence[str] = ()) -> list[str]:
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


def chosen_threshold(place: Path) -> float | None:
    """The threshold of a run: chosen honestly where one was, or else as its settings have it.

    Args:
        place: the run directory. What cannot be read there chooses nothing.
    """
    found: list[tuple[str, float | None]] = []
    for path in sorted((place / "sweeps").glob("selected_*.json"))[:MOST_FILES]:
        source = Source(path, read_document(path))
        honest = source.document.get("honest")
        thresholds = honest.get("thresholds") if isinstance(honest, dict) else None
        if isinstance(thresholds, list) and len({repr(t) for t in thresholds}) == 1:
            found.append((_made(source), _threshold(thresholds[0])))
    if found:
        return max(found, key=lambda one: one[0])[1]
    settings = place / "run.json"
    if not settings.is_file():
        return None
    cluster = read_document(settings).get("cluster")
    return _threshold(cluster.get("threshold")) if isinstance(cluster, dict) else None


def _threshold(value: Any) -> float | None:
    if value is None or isinstance(value, str):
        return None
    return Block("threshold", {"cosine": value}).number("cosine", -1, 1)
