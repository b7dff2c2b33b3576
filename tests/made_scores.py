"""Scores made by hand, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping

from vidface.metrics.figures import ProtocolResult
from vidface.runs.scoring import Score


def made_score(results: Mapping[str, ProtocolResult]) -> Score:
    """A score of no clip with these results."""
    counts = {"clips": 0, "no_descriptor": 0}
    provenance = {"created": "now", "stage": "score"}
    return Score("val", "train", 0.4, results, counts, counts, provenance, None, "threshold 0.4")
