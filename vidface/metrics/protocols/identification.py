"""Identification: whose clip is this, if of anyone enrolled?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vidface.core.settings import setting
from vidface.core.values import check, split_list
from vidface.metrics.conventions import DEFAULT_FPIRS, DEFAULT_RANKS
from vidface.metrics.protocols.base import EnrolledProtocol, ScoringTask, check_rates

if TYPE_CHECKING:
    from vidface.metrics.identification import Identification


@dataclass(frozen=True)
class IdentificationProtocol(EnrolledProtocol):
    """CMC and TPIR at FPIR: every clip of the split is searched in the gallery."""

    in_sweeps: ClassVar[bool] = False

    fpirs: str = setting(
        ",".join(DEFAULT_FPIRS),
        metavar="LIST",
        help="Target false positive identification rates of TPIR@FPIR.",
        rare=True,
    )
    ranks: str = setting(
        ",".join(map(str, DEFAULT_RANKS)), metavar="LIST", help="Ranks of the CMC.", rare=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rates("fpirs", self.fpir_list)
        digits = all(rank.isdecimal() and int(rank) >= 1 for rank in split_list(self.ranks))
        check(digits, "[score] ranks", f"whole numbers from 1, not '{self.ranks}'")

    @property
    def fpir_list(self) -> tuple[str, ...]:
        """The target FPIRs: exact decimal texts."""
        return split_list(self.fpirs)

    @property
    def rank_list(self) -> tuple[int, ...]:
        """The ranks, each once, rising."""
        return tuple(sorted({int(rank) for rank in split_list(self.ranks)}))

    def recorded_settings(self) -> dict[str, Any]:
        recorded = super().recorded_settings()
        return {**recorded, "fpirs": list(self.fpir_list), "ranks": list(self.rank_list)}

    def score(self, task: ScoringTask) -> Identification:
        """Search every clip of the split in the gallery."""
        from vidface.metrics.identification import score_identification

        return score_identification(
            task.gallery_descriptors,
            task.gallery_identities,
            task.descriptors,
            task.identities,
            ranks=self.rank_list,
            fpirs=self.fpir_list,
            enrolment=self.enrolment,
            bootstrap=task.bootstrap,
        )
