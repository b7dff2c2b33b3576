"""The table [descriptor] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass

from vidface.core.values import check_choice

POOLING_NAMES = ("mean", "det-score", "norm", "quality", "medoid")


@dataclass(frozen=True)
class DescriptorSettings:
    """How the kept faces of a clip become one vector (`vidface.vectors.descriptors.POOLINGS`)."""

    pooling: str = "mean"

    def __post_init__(self) -> None:
        check_choice("[descriptor] pooling", self.pooling, POOLING_NAMES)
