"""Scores of a pair set as face verification reports them: accuracy over folds, AUC, TAR at FAR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidface.core.errors import VidfaceError
from vidface.metrics.inputs import check_of_pairs
from vidface.metrics.operating_points import OperatingPoint, check_targets
from vidface.metrics.roc import Steps

NO_ACCURACY = "n/a: one fold leaves no other to choose the threshold on"


@dataclass(frozen=True)
class PairScore:
    """What a pair set says of a recogniser. Rates are fractions in [0, 1].

    A standard error made by leaving folds out is None where a fold can't be left out: without it
    the figure isn't defined.
    """

    accuracy: float | None  # mean over the folds; None with one, which leaves none to choose on
    accuracy_standard_error: float | None
    fold_accuracies: tuple[float, ...]
    thresholds: tuple[float | None, ...]  # of each fold; None: nothing is accepted
    auc: float
    auc_standard_error: float | None
    points: tuple[OperatingPoint, ...]  # in the order of the targets
    tar_standard_errors: tuple[float | None, ...]  # of each point
    genuine_pairs: int
    impostor_pairs: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "accuracy": {
                "mean": self.accuracy,
                "standard_error": self.accuracy_standard_error,
                "thresholds": list(self.thresholds),
                "folds": len(self.thresholds) or 1,
                **({"note": NO_ACCURACY} if self.accuracy is None else {}),
            },
            "auc": self.auc,
            "auc_standard_error": self.auc_standard_error,
            "tar_at_far": {
                point.target_far: {**point.to_dict(), "standard_error": error}
                for point, error in zip(self.points, self.tar_standard_errors, strict=True)
            },
            "pairs": {"genuine": self.genuine_pairs, "impostor": self.impostor_pairs},
        }


def score_pairs(
    scores: ArrayLike,
    same: ArrayLike,
    folds: ArrayLike,
    fars: Sequence[str] = ("1e-1", "1e-2", "1e-3", "1e-4"),
) -> PairScore:
    """Accuracy over folds, AUC and TAR at FAR of scored pairs, exact to the last tie.

    A pair is accepted where ``score >= threshold``; thresholds are observed scores, or nothing is
    accepted (None).

    - accuracy of a fold: right decisions / pairs at the threshold that makes the most right
      decisions on all other folds, among their scores and None. Where m thresholds are equally
      good, it is the lower median: in rising order, None last, number ⌈m / 2⌉. The figure is the
      mean over the k folds, every fold counting alike; its standard error is s / √k, s the sample
      standard deviation (k − 1) of the folds' accuracies. With one fold there is no accuracy, and
      no standard error.
    - AUC: |{(g, i): g > i}| + ½ |{(g, i): g = i}| over genuine scores g and impostor scores i,
      divided by the number of such (g, i).
    - TAR at FAR: over all pairs, pooled, by the step rule of `score_verification`: the largest TAR
      whose FAR does not exceed the target, and none for targets that need more impostor pairs.
    - standard errors of AUC and TAR: the jackknife over folds, √((k − 1) / k · Σ (θⱼ − θ̄)²), θⱼ
      without fold j. As honest as the folds are independent (LFW's share no person), and rough for
      a TAR that rests on a few false accepts.

    Common scripts (InsightFace, FaceNet) differ: they try 400 thresholds, squared distances 0 to 4
    by 0.01, take the first of equally good ones, print the standard deviation (ddof 0) for ±, and
    read TAR at an interpolated threshold or at the ROC point whose FAR is *nearest* to the target.

    Args:
        scores: (n,) numbers, higher = more alike, such as cosines in [−1, 1]. Not changed.
        same: (n,) bool, one person?
        folds: (n,) whole numbers 0 … k − 1, each used.
        fars: target FARs as decimal text ("1e-3"), each in (0, 1].

    Raises:
        VidfaceError: shapes or types that disagree, a score that isn't finite, no genuine or no
            impostor pair, a bad target.

    Source: Huang et al., Labeled Faces in the Wild, 2007, and its results page (mean and standard
    error over View 2's ten folds); Efron and Tibshirani 1993, ch. 11 (jackknife).

    >>> scores = [0.9, 0.7, 0.3, 0.2, 0.8, 0.4, 0.5, 0.1]
    >>> same = [True, True, False, False] * 2
    >>> result = score_pairs(scores, same, [0, 0, 0, 0, 1, 1, 1, 1], fars=["0.25", "0.2"])
    >>> result.thresholds  # fold 1 has 0.8, or 0.4, with one mistake; fold 0 0.7 with none
    (0.4, 0.7)
    >>> result.accuracy, result.accuracy_standard_error  # 4/4 and 3/4
    (0.875, 0.125)
    >>> result.auc  # of 16 (genuine, impostor) all but (0.4, 0.5)
    0.9375
    >>> result.points[0].tar, result.points[0].threshold, result.points[1].note
    (1.0, 0.4, 'n/a: needs ≥ 5 pairs')
    """
    targets = check_targets(fars)
    values, is_same, fold_of, k = _checked(scores, same, folds)

    whole = Steps.of(values, is_same)
    auc = _auc(whole)
    if auc is None:
        kind = "impostor" if whole.genuine[-1] else "genuine"
        raise VidfaceError(f"none of the {len(values)} pairs is {kind}; a set needs both kinds")
    thresholds, accuracies = [], []
    aucs: list[float | None] = []  # of all but a fold
    tars: dict[str, list[float | None]] = {text: [] for text in targets}
    for j in range(k if k > 1 else 0):
        inside = fold_of == j
        others = Steps.of(values[~inside], is_same[~inside])
        threshold = _best_threshold(others)
        accepted = values[inside] >= (math.inf if threshold is None else threshold)
        thresholds.append(threshold)
        accuracies.append(float(np.mean(accepted == is_same[inside])))
        aucs.append(_auc(others))
        for text, far in targets.items():
            tars[text].append(_point(others, text, far).tar)
    mean = standard_error = None
    if k > 1:
        mean = math.fsum(accuracies) / k
        variance = math.fsum((accuracy - mean) ** 2 for accuracy in accuracies) / (k - 1)
        standard_error = math.sqrt(variance / k)
    points = tuple(_point(whole, text, far) for text, far in targets.items())
    return PairScore(
        accuracy=mean,
        accuracy_standard_error=standard_error,
        fold_accuracies=tuple(accuracies),
        thresholds=tuple(thresholds),
        auc=auc,
        auc_standard_error=_jackknife(aucs),
        points=points,
        tar_standard_errors=tuple(_jackknife(tars[point.target_far]) for point in points),
        genuine_pairs=int(whole.genuine[-1]),
        impostor_pairs=int(whole.impostor[-1]),
    )


def _has_both(steps: Steps) -> bool:
    return bool(len(steps) and steps.genuine[-1] and steps.impostor[-1])


def _auc(steps: Steps) -> float | None:
    """None without a genuine or without an impostor pair."""
    return steps.auc() if _has_both(steps) else None


def _best_threshold(steps: Steps) -> float | None:
    """With the most right decisions; of m such, in rising order, None last, number ⌈m / 2⌉."""
    genuine, impostor = np.append(0, steps.genuine), np.append(0, steps.impostor)
    right = genuine + (impostor[-1] - impostor)  # the first: nothing is accepted
    best = np.flatnonzero(right == right.max())  # at falling thresholds
    return steps.at(int(best[len(best) // 2]) - 1)[0]


def _point(steps: Steps, text: str, far: Fraction) -> OperatingPoint:
    """The lowest threshold that accepts at most ⌊far × impostor pairs⌋ impostors."""
    genuine, impostor = int(steps.genuine[-1]), int(steps.impostor[-1])
    if far * impostor < 1 or not genuine:
        return OperatingPoint.unresolved(text, far, genuine, impostor)
    accepted = steps.at(steps.accepting_at_most(math.floor(far * impostor)))
    return OperatingPoint.of_counts(text, accepted, genuine, impostor)


def _jackknife(left_out: Sequence[float | None]) -> float | None:
    """The standard error of a figure, from what it is without each of k folds."""
    values = [value for value in left_out if value is not None]
    k = len(left_out)
    if len(values) < k or not k:
        return None
    mean = math.fsum(values) / k
    return math.sqrt((k - 1) / k * math.fsum((value - mean) ** 2 for value in values))


def _checked(
    scores: ArrayLike, same: ArrayLike, folds: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], int]:
    """The three as arrays, and how many folds there are."""
    n = np.size(scores)
    values = check_of_pairs("scores", scores, "numbers", n).astype(np.float64) + 0.0  # −0 becomes 0
    is_same = check_of_pairs("same", same, "bool", n)
    fold_of = check_of_pairs("folds", folds, "whole numbers", n)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise VidfaceError(
            f"scores[{wrong[0]}] is {values[wrong[0]]}; a pair that can't be scored needs a "
            "number of its own, such as −1"
        )
    used = np.unique(fold_of)
    if not np.array_equal(used, np.arange(len(used))):
        raise VidfaceError(
            f"folds must be numbered 0, 1, 2, … without a gap, got {used[:10].tolist()}"
        )
    return values, is_same, fold_of.astype(np.int64), len(used)
