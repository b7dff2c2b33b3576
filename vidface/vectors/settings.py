"""The table [descriptor] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vidface.core.settings import check_settings, setting
from vidface.vectors.poolings import POOLINGS


@dataclass(frozen=True)
class DescriptorSettings:
    """How the kept faces of a clip become one vector (`vidface.vectors.poolings.POOLINGS`)."""

    GROUP: ClassVar[str] = "Noise removal and pooling"

    pooling: str = setting(
        "mean",
        metavar="NAME",
        help="How a clip's kept faces become one descriptor.",
        choices=POOLINGS,
    )

    def __post_init__(self) -> None:
        check_settings(self, "[descriptor]")
