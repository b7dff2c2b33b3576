"""Verification: of two clips of the split, is it the same person?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.metrics.protocols.base import PairProtocol, ScoringTask

if TYPE_CHECKING:
    from vidface.metrics.verification import Verification


@dataclass(frozen=True)
class VerificationProtocol(PairProtocol):
    """TAR at FAR, EER and AUC over all pairs of clips of the split."""

    table_names: ClassVar[tuple[str, ...]] = ("roc",)

    def score(self, task: ScoringTask) -> Verification:
        """Score all pairs of the split."""
        from vidface.metrics.verification import score_verification

        return score_verification(
            task.descriptors, task.identities, self.far_list, **self.pair_options(task)
        )
