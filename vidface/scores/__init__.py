"""Scores: what a set of descriptors is worth, as figures that are defined to the last tie.

`verification` compares all pairs of a split (TAR at FAR); `retrieval` ranks a split's clips for
each identity of the gallery (mAP@k); `pairs` scores the pairs of a face verification set. All take
arrays and return frozen dataclasses.
"""

from vidface.scores.pairs import PairScore, score_pairs
from vidface.scores.retrieval import Retrieval, average_precision, score_retrieval
from vidface.scores.verification import (
    DEFAULT_FARS,
    OperatingPoint,
    Verification,
    score_verification,
)

__all__ = [
    "DEFAULT_FARS",
    "OperatingPoint",
    "PairScore",
    "Retrieval",
    "Verification",
    "average_precision",
    "score_pairs",
    "score_retrieval",
    "score_verification",
]
