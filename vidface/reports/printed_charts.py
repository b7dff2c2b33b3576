"""The charts of a report once more, as drawings by matplotlib that are shown in print alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from markupsafe import Markup

from vidface.core.errors import VidfaceError
from vidface.reports.figures import MOST_SERIES, figure_svg
from vidface.reports.gather import RunData, labelled_scores
from vidface.reports.loose_values import mapping, number
from vidface.reports.published import TRACK_3

MOST_BYTES = 1_000_000
"""A larger drawing is left out: the chart itself is printed then."""

_PROTOCOLS = {"pr": "retrieval", "cmc": "identification"}  # of figures that have no choice


@dataclass(frozen=True)
class Chart:
    """The place of a chart, which the script fills, and what is printed instead, if anything."""

    id: str
    title: str
    caption: str
    printed: Markup  # "" where the chart itself is printed


@lru_cache
def can_draw() -> bool:
    """Whether matplotlib is there (`pip install 'vidface[report]'`); charts print without it."""
    return find_spec("matplotlib") is not None


class ChartPrinter:
    """Draws the figures of the scores of some runs."""

    def __init__(self, runs: Sequence[RunData]) -> None:
        self._drawn = 0
        self._curves = [(label, score.curves) for label, _, score in labelled_scores(runs)]

    def draw_curves(self, name: str, *, only: str = "", **options: Any) -> Markup:
        """A figure of all scores, or of one by its label; empty where it cannot be drawn."""
        section = options.get("protocol") or _PROTOCOLS.get(name, "verification")
        data = [
            (label, curves)
            for label, curves in self._curves
            if section in curves and only in ("", label)
        ]
        return self._draw(name, data, options)

    def draw_sweep(self, run: RunData) -> Markup:
        """The sweep of one run."""
        if run.sweep is None:
            return Markup("")
        chosen = number(mapping(run.pipeline.get("cluster")).get("threshold"))
        options = {"chosen": (chosen,), "published": run.prepared_by in TRACK_3}
        return self._draw("sweep", [(run.label, run.sweep.document)], options)

    def _draw(self, name: str, data: list[tuple[str, Any]], options: dict[str, Any]) -> Markup:
        if not can_draw() or not 1 <= len(data) <= MOST_SERIES:
            return Markup("")
        self._drawn += 1
        try:
            drawing = figure_svg(name, data, prefix=f"print{self._drawn}-", **options)
        except VidfaceError:  # what the chart can show, a drawing may not: too many panels, say
            return Markup("")
        return Markup(drawing if len(drawing) <= MOST_BYTES else "")
