"""The charts of a report once more, as drawings by matplotlib that are shown in print alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.reports.figures import MOST_SERIES, figure_svg
from vidface.reports.gather import RunData
from vidface.reports.markup import Markup, tag
from vidface.reports.published import TRACK_3
from vidface.reports.score_files import CURVES_SUFFIX, mapping, number, read_json
from vidface.reports.sections import columns_of

MOST_BYTES = 1_000_000
"""A larger drawing is left out: the chart itself is printed then."""


@lru_cache
def can_draw() -> bool:
    """Whether matplotlib is there (`pip install 'vidface[report]'`); charts print without it."""
    return find_spec("matplotlib") is not None


class Printed:
    """Draws the figures of the scores of some runs; each file is read once."""

    def __init__(self, runs: Sequence[RunData]) -> None:
        self.drawn = 0
        self._curves: list[tuple[str, dict[str, Any]]] = []
        for label, run, score in columns_of(runs) if can_draw() else ():
            path = run.folder / "scores" / (Path(score.name).stem + CURVES_SUFFIX)
            if score.curves:
                self._curves.append((label, read_json(path)))

    def curves(self, name: str, *, only: str = "", **options: Any) -> Markup:
        """A figure of all scores, or of one by its label; empty where it cannot be drawn."""
        block = {"pr": "retrieval", "cmc": "identification"}.get(name, "verification")
        block = options.get("protocol", block)
        data = [
            (label, document)
            for label, document in self._curves
            if block in document and only in ("", label)
        ]
        return self._draw(name, data, options)

    def sweep(self, run: RunData) -> Markup:
        """The sweep of one run."""
        if run.sweep is None or not can_draw():
            return Markup("")
        chosen = number(mapping(run.pipeline.get("cluster")).get("threshold"))
        options = {"chosen": (chosen,), "published": run.prepared_by in TRACK_3}
        return self._draw("sweep", [(run.label, dict(run.sweep.document))], options)

    def _draw(self, name: str, data: list[tuple[str, Any]], options: dict[str, Any]) -> Markup:

        if not data or len(data) > MOST_SERIES:
            return Markup("")
        self.drawn += 1
        try:
            drawing = figure_svg(name, data, prefix=f"print{self.drawn}-", **options)
        except VidfaceError:  # of a form that is not vidface's: what can be drawn, the chart has
            return Markup("")
        if len(drawing) > MOST_BYTES:
            return Markup("")
        return tag("div", Markup(drawing), class_="printed", aria_hidden="true")
