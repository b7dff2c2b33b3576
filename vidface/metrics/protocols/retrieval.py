"""Retrieval: find every clip of each person of the gallery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.metrics.protocols.base import EnrolledProtocol, RankedListProtocol, ScoringTask

if TYPE_CHECKING:
    from vidface.metrics.retrieval import Retrieval


@dataclass(frozen=True)
class RetrievalProtocol(EnrolledProtocol, RankedListProtocol):
    """mAP@k over the identities that have a clip in the split."""

    is_headline: ClassVar[bool] = True
    table_names: ClassVar[tuple[str, ...]] = ("average_precision",)

    def score(self, task: ScoringTask) -> Retrieval:
        """Rank the clips of the split for each identity of the gallery."""
        from vidface.metrics.retrieval import score_retrieval

        return score_retrieval(
            task.gallery_descriptors,
            task.gallery_identities,
            task.descriptors,
            task.identities,
            task.clip_ids,
            self.k,
            enrolment=self.enrolment,
            bootstrap=task.bootstrap,
        )
