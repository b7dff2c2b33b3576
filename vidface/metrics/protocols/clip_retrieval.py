"""Clip retrieval: each clip of the split asks for the other clips of its person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.metrics.protocols.base import RankedListProtocol, ScoringTask

if TYPE_CHECKING:
    from vidface.metrics.clip_retrieval import ClipRetrieval


@dataclass(frozen=True)
class ClipRetrievalProtocol(RankedListProtocol):
    """mAP@k with every clip as a query, without a gallery."""

    in_sweeps: ClassVar[bool] = False

    def score(self, task: ScoringTask) -> ClipRetrieval:
        """Rank the other clips of the split for each clip of it."""
        from vidface.metrics.clip_retrieval import score_clip_retrieval

        return score_clip_retrieval(
            task.descriptors, task.identities, task.clip_ids, self.k, bootstrap=task.bootstrap
        )
