"""Cross-verification: each clip of the gallery with each clip of the split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.metrics.protocols.base import PairProtocol, ScoringTask

if TYPE_CHECKING:
    from vidface.metrics.verification import Verification


@dataclass(frozen=True)
class CrossVerificationProtocol(PairProtocol):
    """TAR at FAR, EER and AUC over all pairs of a gallery clip and a clip of the split."""

    needs_gallery: ClassVar[bool] = True
    in_sweeps: ClassVar[bool] = False
    table_names: ClassVar[tuple[str, ...]] = ("cross_roc",)

    def score(self, task: ScoringTask) -> Verification:
        """Score all pairs of a clip of the gallery and one of the split."""
        from vidface.metrics.verification import score_cross_verification

        return score_cross_verification(
            task.gallery_descriptors,
            task.gallery_identities,
            task.descriptors,
            task.identities,
            self.far_list,
            **self.pair_options(task),
        )
