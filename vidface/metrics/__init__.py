"""Scores: what a set of descriptors is worth, as figures that are defined to the last tie.

`verification` compares all pairs of a split, of two sets, or of a list (TAR at FAR, EER, AUC);
`retrieval` ranks a split's clips for each identity of the gallery (mAP@k), `clip_retrieval` for
each clip; `identification` searches each clip in the gallery (CMC, TPIR at FPIR); `pairs` scores
the pairs of a face verification set. All take arrays and return frozen dataclasses; a `Bootstrap`
over identities gives their figures intervals (`uncertainty`).
"""

from vidface.metrics.clip_retrieval import ClipRetrieval, score_clip_retrieval
from vidface.metrics.identification import Identification, score_identification
from vidface.metrics.operating_points import DEFAULT_FARS, OperatingPoint
from vidface.metrics.pairs import PairScore, score_pairs
from vidface.metrics.retrieval import Retrieval, average_precision, rank_clips, score_retrieval
from vidface.metrics.uncertainty import Bootstrap, Replicates
from vidface.metrics.verification import (
    Verification,
    score_cross_verification,
    score_pair_list,
    score_verification,
)

__all__ = [
    "DEFAULT_FARS",
    "Bootstrap",
    "ClipRetrieval",
    "Identification",
    "OperatingPoint",
    "PairScore",
    "Replicates",
    "Retrieval",
    "Verification",
    "average_precision",
    "rank_clips",
    "score_clip_retrieval",
    "score_cross_verification",
    "score_identification",
    "score_pair_list",
    "score_pairs",
    "score_retrieval",
    "score_verification",
]
