"""The table [cluster] of a pipeline file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from vidface.core.settings import build_entry, check_settings, setting
from vidface.core.values import check, size_bytes
from vidface.noise.denoisers import DENOISERS, Denoiser


@dataclass(frozen=True)
class ClusterSettings:
    """Which faces are noise: the denoiser by its name, and the settings of all of them.

    `truth` is a CSV that says which frames are noise: the method "oracle" needs it, and for the
    others it gives the precision and recall of what they drop. `memory` bounds the working arrays.
    """

    GROUP: ClassVar[str] = "Noise removal and pooling"

    method: str = setting(
        "union-find",
        metavar="NAME",
        help="How noise faces of a clip are found.",
        choices=DENOISERS,
    )
    truth: Path | None = setting(
        None,
        metavar="CSV",
        help="A file that says which frames are noise: the method oracle needs it, the others get "
        "precision and recall (also a member of a tar: clips.tar/truth.csv).",
    )
    repeats: str = setting(
        "count",
        metavar="HOW",
        help="What samples of one picture are, as of a pause: count, a vote each, as published; or "
        "once, one vote together.",
        choices=("count", "once"),
    )
    memory: str = setting(
        "2GiB",
        metavar="SIZE",
        help="What the working arrays of clustering may take; pooling and diagnostics take about "
        "100 MiB beside it.",
        rare=True,
    )
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of all denoisers

    @staticmethod
    def entries() -> Mapping[str, type[Denoiser]]:
        """Every denoiser, whose settings are keys of the table."""
        return DENOISERS

    def __post_init__(self) -> None:
        check_settings(self, "[cluster]")
        # What the method does not use is checked, too; what is not said is the default.
        known: dict[str, Any] = {}
        for kind in DENOISERS.values():
            known |= asdict(build_entry(kind, self.parameters))
        for key in self.parameters:
            text = f"unknown setting (known: {', '.join(known)})"
            check(key in known, f"[cluster] {key}", text)
        object.__setattr__(self, "parameters", known)
        has_truth = self.truth is not None or not self.denoiser.needs_truth
        check(has_truth, "[cluster] truth", f'the method "{self.method}" needs a truth file')
        self.memory_bytes  # noqa: B018 - raises

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser that the table names, with its settings."""
        denoiser: Denoiser = build_entry(DENOISERS[self.method], self.parameters)
        return denoiser

    @property
    def memory_bytes(self) -> int:
        """`memory` as a number of bytes.

        >>> ClusterSettings(memory="1.5GiB").memory_bytes
        1610612736
        """
        return size_bytes(self.memory, "[cluster] memory")
