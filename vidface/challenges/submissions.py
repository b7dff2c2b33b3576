"""`vidface score --submission`: ranked lists alone, against the ground truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.datasets.iqiyi import GroundTruth, check_ranks, read_ground_truth, video_key
from vidface.datasets.submissions import read_ranked_list
from vidface.metrics.figures import interval_dict
from vidface.metrics.retrieval import POOL_IS_FIXED, average_precision_of_list
from vidface.metrics.uncertainty import Bootstrap, Replicates, ratio_replicates
from vidface.storage.names import natural_key


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

    ranking, ground_truth = read_ranked_list(submission), read_ground_truth(truth)
    if not any(
        video in ground_truth.identity_of for videos in ranking.values() for video in videos
    ):
        raise VidfaceError(
            f"{submission}: none of its videos is in {truth}; is that the ground truth of another "
            "split?"
        )
    score = score_ranked_list(ranking, ground_truth, k)
    replicates = None
    if bootstrap is not None:
        values = [score.average_precision[name] for name in sorted(score.average_precision)]
        replicates = ratio_replicates(values, [1] * len(values), bootstrap, POOL_IS_FIXED)
    return SubmissionScore(submission.name, truth.name, score, replicates)


@dataclass(frozen=True)
class RankedListScore:
    """mAP@k of ranked lists. All values are fractions in [0, 1].

    `average_precision` holds each identity of the ground truth, in natural order; the mean is over
    these.
    """

    map_at_k: float
    k: int
    identities: int
    average_precision: dict[str, float]
    identities_without_list: tuple[str, ...]  # they score 0
    unknown_identities: tuple[str, ...]  # with a list, but not in the ground truth: passed over
    listed: int  # identities of the ground truth that have a list

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; the mean's key names k: "map_at_100"."""
        return {
            f"map_at_{self.k}": self.map_at_k,
            "identities": self.identities,
            "listed": self.listed,
            "identities_without_list": list(self.identities_without_list),
            "unknown_identities": list(self.unknown_identities),
        }


def score_ranked_list(
    ranking: Mapping[str, Sequence[str]], truth: GroundTruth, k: int = 100
) -> RankedListScore:
    """The challenge's mAP@k: the mean of AP over the identities of the ground truth.

    AP = (1 / m) Σ precision at each hit among the first k different videos of the identity's list,
    m the full number of its videos, so that 150 of them cap AP@100 at 2/3. A repeated video counts
    once, at its first place; an identity without a list scores 0.

    Args:
        ranking: identity → videos, best first, with .mp4 or without; of any length.
        truth: the split's ground truth.
        k: how many ranks count.

    Raises:
        VidfaceError: k below 1.

    Source: iQIYI-VID challenge 2018/2019, evaluation.

    >>> truth = GroundTruth({"1": ("v1", "v2", "v3"), "2": ("v4",), "3": ("v5",)})
    >>> score = score_ranked_list({"1": ["v1", "x", "v2"], "2": ["v4", "v4", "y"]}, truth)
    >>> round(score.map_at_k, 7)  # ((1/1 + 2/3) / 3 + 1 + 0) / 3
    0.5185185
    >>> score.listed, score.identities_without_list
    (2, ('3',))
    """

    check_ranks(k)
    names = sorted(truth.videos, key=natural_key)
    precisions = {
        name: average_precision_of_list(
            list(map(video_key, ranking.get(name, ()))), truth.videos[name], k
        )
        for name in names
    }
    without = tuple(name for name in names if name not in ranking)
    return RankedListScore(
        map_at_k=math.fsum(precisions.values()) / len(names),
        k=k,
        identities=len(names),
        average_precision=precisions,
        identities_without_list=without,
        unknown_identities=tuple(sorted(set(ranking) - set(names), key=natural_key)),
        listed=len(names) - len(without),
    )
