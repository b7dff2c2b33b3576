"""`vidface score --submission`: a ranked list alone, against the ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.datasets.iqiyi import read_ground_truth, read_ranked_list, score_ranked_list
from vidface.metrics.figures import interval_dict
from vidface.metrics.retrieval import POOL_IS_FIXED
from vidface.metrics.uncertainty import Bootstrap, Replicates, ratio_replicates

if TYPE_CHECKING:
    from vidface.datasets.iqiyi import RankedListScore


@dataclass(frozen=True)
class SubmissionScore:
    """mAP@k of a ranked list, with its interval."""

    submission: str
    truth: str
    score: RankedListScore
    replicates: Replicates | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "submission": self.submission,
            "truth": self.truth,
            **self.score.to_dict(),
            **interval_dict(self.replicates),
            "average_precision": self.score.average_precision,
        }


def score_submission(
    submission: Path, truth: Path, k: int = 100, bootstrap: Bootstrap | None = None
) -> SubmissionScore:
    """Score the lines `id v1.mp4 v2.mp4 …` of a submission against a ground truth.

    Raises:
        VidfaceError: a file that is not what it should be.
    """

    ranking, given = read_ranked_list(submission), read_ground_truth(truth)
    if not any(video in given.identity_of for videos in ranking.values() for video in videos):
        raise VidfaceError(
            f"{submission}: none of its videos is in {truth}; is that the ground truth of another "
            "split?"
        )
    score = score_ranked_list(ranking, given, k)
    replicates = None
    if bootstrap is not None:
        values = [score.average_precision[name] for name in sorted(score.average_precision)]
        replicates = ratio_replicates(values, [1] * len(values), bootstrap, POOL_IS_FIXED)
    return SubmissionScore(submission.name, truth.name, score, replicates)
