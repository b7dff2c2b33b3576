"""What a figure is told: its data, a run each, and what may be said beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.values import check_name

PROTOCOLS = ("verification", "cross_verification")

FigureData = Sequence[tuple[str, Any]]
"""Label and document of each run, checked; of the figure "clip" one `ClipFaces`."""


@dataclass(frozen=True)
class FigureOptions:
    """What may be said of a figure beside its data.

    chosen: thresholds to mark in a sweep, one a run; None where a run has none.
    published: with the paper's Table 5, on an axis of its own (a sweep of track 3).
    far: the target whose TAR a sweep shows, "1e-3"; None for the lowest that all rows have.
    protocol: whose pairs, of PROTOCOLS (roc, det, histogram).
    """

    chosen: tuple[float | None, ...] = ()
    published: bool = False
    far: str | None = None
    protocol: str = "verification"

    def __post_init__(self) -> None:
        check_name("protocol", self.protocol, PROTOCOLS)


def find_section(label: str, document: Mapping[str, Any], protocol: str) -> Mapping[str, Any]:
    """A protocol's section of a curves document.

    Raises:
        VidfaceError: the score was made without the protocol.
    """
    if document.get(protocol) is None:
        flag = protocol.replace("_", "-")
        raise VidfaceError(f"{label}: no {protocol} in it; score with --protocols {flag}")
    section: Mapping[str, Any] = document[protocol]
    return section
