"""The points of a score's curves.

Nothing is counted or ranked again: ROC, DET and histograms come from the counts that verification
made of all pairs, precision and recall from the places of the hits, CMC from the ranks of the
probes. Curves are thinned to some 500 points without moving them; the operating points stay among
them, and every listed point is exact.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.metrics.bands import NO_DRAWS, Draws
from vidface.metrics.blocks import bin_edges, bin_of
from vidface.metrics.pairwise import ACCELERATOR_BINS, HISTOGRAM_BINS

if TYPE_CHECKING:
    from vidface.metrics.identification import Identification
    from vidface.metrics.operating_points import OperatingPoint
    from vidface.metrics.retrieval import Retrieval
    from vidface.metrics.roc import Curve
    from vidface.metrics.verification import Verification

MOST_POINTS = 500
"""Of a thinned curve; operating points may come on top."""

BINS = 128
"""Of the histograms over [−1, 1]: a power of two, so that verification's own bins nest in them."""

RECALLS = 101  # 0, 0.01, … 1
WHOLE_RANKS = 20  # ranks of the CMC up to here are all listed
RANKS_A_DOUBLING = 6  # and so many from there on
_STILL = 1e-5  # a share of an axis: what moves a curve less is no point of its own


# Verification ------------------------------------------------------------------------------------


def verification_block(result: Verification) -> dict[str, Any] | None:
    """ROC and DET, operating points, EER, AUC and histograms; None without a curve."""
    if result.curve is None:
        return None
    return {
        "pairs": {"genuine": result.genuine_pairs, "impostor": result.impostor_pairs},
        "roc": roc_block(result.curve, result.points),
        "points": [_point(point) for point in result.points if point.tar is not None],
        "eer": None if result.eer is None else result.eer.to_dict(),
        "auc": None if result.auc is None else result.auc.to_dict(),
        "histogram": histogram_block(result.curve),
    }


def roc_block(
    curve: Curve, points: Sequence[OperatingPoint] = (), most: int = MOST_POINTS
) -> dict[str, Any]:
    """The ROC as columns, from "nothing is accepted" on, thinned.

    Args:
        points: operating points that stay, with their thresholds.
        most: points that are left, beside these.
    """
    thresholds, genuine, impostor, stays = _with_points(curve, points)
    n = len(thresholds)
    kept, shift = thin(_on_axes(curve, genuine, impostor), stays, most)
    genuine, impostor = genuine[kept], impostor[kept]
    bins = _bins_of(curve)
    source = f"edges of the histogram's {bins} bins" if bins else "every observed score"
    return {
        "threshold": [None if np.isinf(t) else t for t in thresholds[kept].tolist()],
        "accepted_genuine": genuine.tolist(),
        "accepted_impostor": impostor.tolist(),
        "far": (impostor / curve.impostor).tolist(),
        "tar": (genuine / curve.genuine).tolist(),
        "frr": ((curve.genuine - genuine) / curve.genuine).tolist(),
        "source": f"{source}, and the operating points; exact at each of them",
        "points_before_thinning": n,
        "largest_shift": shift,
    }


def _with_points(
    curve: Curve, points: Sequence[OperatingPoint]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Thresholds (inf: nothing is accepted) and counts, the operating points sorted in."""
    resolved = [
        p for p in points if p.accepted_genuine is not None and p.accepted_impostor is not None
    ]
    # The operating points first: of equal counts the first stays, with its threshold.
    at_points = [np.inf if p.threshold is None else p.threshold for p in resolved]
    thresholds = np.concatenate([[np.inf], at_points, curve.thresholds])
    genuine = np.concatenate([[0], [p.accepted_genuine for p in resolved], curve.accepted_genuine])
    impostor = np.concatenate(
        [[0], [p.accepted_impostor for p in resolved], curve.accepted_impostor]
    )
    order = np.lexsort((genuine, impostor))  # stable
    genuine, impostor = genuine[order].astype(np.int64), impostor[order].astype(np.int64)
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(genuine) != 0) | (np.diff(impostor) != 0)
    stays = order <= len(resolved)
    return thresholds[order][first], genuine[first], impostor[first], stays[first]


def _on_axes(
    curve: Curve, genuine: NDArray[np.int64], impostor: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n, 3) places on the axes of ROC and DET, each of length 1: log FAR, TAR, log FRR."""
    log_far = _log_axis(impostor, curve.impostor)
    log_frr = _log_axis(curve.genuine - genuine, curve.genuine)
    return np.stack([log_far, genuine / curve.genuine, log_frr], axis=1)


def _log_axis(counts: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """From half a pair, where none stands, to all of them."""
    return np.log(np.maximum(counts, 0.5) / 0.5) / np.log(total / 0.5)


def thin(
    places: NDArray[np.float64], stays: NDArray[np.bool_], most: int
) -> tuple[NDArray[np.intp], float]:
    """The points of a polyline that matter most: ends, those that stay, then the farthest off.

    The polyline through what is chosen so far is refined where it is farthest from a point that is
    not (Ramer, Douglas and Peucker, best first), until `most` points are chosen.

    Args:
        places: (n, d) along the line.
        stays: (n,) points that are chosen in any case; the two ends are, too.
        most: points to choose, at least the former.

    Returns:
        (m,) rising indices, and how far the farthest point lies from the thinned polyline.

    >>> line = np.array([[0.0, 0], [1, 0], [2, 0], [2, 1]])
    >>> thin(line, np.zeros(4, dtype=bool), 4)
    (array([0, 2, 3]), 0.0)
    """
    n = len(places)
    if n == 0:
        return np.zeros(0, dtype=np.intp), 0.0
    chosen = {0, n - 1, *np.flatnonzero(stays).tolist()}
    ends = sorted(chosen)
    waiting = [_farthest(places, a, b) for a, b in itertools.pairwise(ends)]
    heapq.heapify(waiting)
    while waiting and len(chosen) < most and -waiting[0][0] > _STILL:
        _, middle, a, b = heapq.heappop(waiting)
        chosen.add(middle)
        for start, stop in ((a, middle), (middle, b)):
            heapq.heappush(waiting, _farthest(places, start, stop))
    left = max(0.0, -waiting[0][0]) if waiting else 0.0
    return np.array(sorted(chosen), dtype=np.intp), left


def _farthest(places: NDArray[np.float64], a: int, b: int) -> tuple[float, int, int, int]:
    """Minus the distance of the point between a and b that lies farthest from their segment."""
    inside = places[a + 1 : b] - places[a]
    if not len(inside):
        return 0.0, a, a, b
    along = places[b] - places[a]
    square = float(along @ along)
    share = np.clip(inside @ along / square, 0, 1) if square > 0 else np.zeros(len(inside))
    distances = np.sqrt(((inside - share[:, None] * along) ** 2).sum(axis=1))
    i = int(np.argmax(distances))
    return -float(distances[i]), a + 1 + i, a, b


def _bins_of(curve: Curve) -> int | None:
    """The bins at whose edges the curve was read; None where it is of all observed scores."""

    if curve.genuine + curve.impostor <= ACCELERATOR_BINS:
        return None  # no more scores than bins: each has its own row
    for bins in (ACCELERATOR_BINS, HISTOGRAM_BINS):
        if np.isin(curve.thresholds, bin_edges(bins).astype(np.float64)).all():
            return bins
    return None


def histogram_block(curve: Curve, bins: int = BINS) -> dict[str, Any]:
    """Genuine and impostor pairs in bins of the score, exactly, without the empty ends."""

    at = bin_of(curve.thresholds.astype(np.float32), bins)
    counts = np.zeros((2, bins), dtype=np.int64)
    np.add.at(counts[0], at, np.diff(curve.accepted_genuine, prepend=0))
    np.add.at(counts[1], at, np.diff(curve.accepted_impostor, prepend=0))
    used = np.flatnonzero(counts.any(axis=0))
    first, last = int(used[0]), int(used[-1])
    genuine, impostor = counts[:, first : last + 1]
    return {
        "edges": (np.arange(first, last + 2) * (2 / bins) - 1).tolist(),
        "genuine": genuine.tolist(),
        "impostor": impostor.tolist(),
        "genuine_share": (genuine / curve.genuine).tolist(),
        "impostor_share": (impostor / curve.impostor).tolist(),
        "note": "pairs with a clip without a descriptor score −1",
    }


def _point(point: OperatingPoint) -> dict[str, Any]:
    """An operating point that has a figure."""
    document = {"target_far": point.target_far, "ci95": None, **point.to_dict()}
    tar, interval = document["tar"], document["ci95"]
    document["frr"] = 1 - tar
    document["frr_ci95"] = None if interval is None else [1 - interval[1], 1 - interval[0]]
    return document


# Retrieval ---------------------------------------------------------------------------------------


def retrieval_block(result: Retrieval, draws: Draws = NO_DRAWS) -> dict[str, Any] | None:
    """Precision against recall; None without a list of hits."""
    hit_ranks = result.hit_ranks
    if not hit_ranks:
        return None
    positives = np.array([row["positives"] for row in result.table], dtype=np.int64)
    interval = None if result.replicates is None else result.replicates.ci95
    return {
        "k": result.k,
        "identities": result.identities,
        "map": result.map_at_k,
        "ci95": None if interval is None else list(interval),
        "precision_recall": precision_recall(hit_ranks, positives, result.k, draws),
        "at_rank": at_rank(hit_ranks, positives, result.k),
    }


def precision_recall(
    hit_ranks: Sequence[NDArray[np.integer[Any]]],
    positives: NDArray[np.int64],
    k: int,
    draws: Draws = NO_DRAWS,
) -> dict[str, Any]:
    """Interpolated precision at 101 recalls, the mean over identities.

    An identity's precision at recall r is the highest that its list has at any recall ≥ r, and 0
    where the first k never reach r (Manning, Raghavan and Schütze, Introduction to Information
    Retrieval, section 8.4).

    Args:
        hit_ranks: of each identity, the places of its hits, from 1, rising, none above k.
        positives: (n,) clips of each that there are to find.

    >>> curve = precision_recall([np.array([1, 4])], np.array([2]), 100)
    >>> curve["precision"][50], curve["precision"][51]  # half of them at once, the rest at 2/4
    (1.0, 0.5)
    """
    recalls = np.arange(RECALLS)
    table = np.zeros((len(hit_ranks), RECALLS))
    for row, ranks, total in zip(table, hit_ranks, positives.tolist(), strict=True):
        n = len(ranks)
        if n:
            best = np.maximum.accumulate((np.arange(1, n + 1) / ranks)[::-1])[::-1]
            # The first hit that reaches each recall: the smallest j with j / m ≥ i / 100.
            needed = np.maximum(1, -(-recalls * total // (RECALLS - 1)))
            row[needed <= n] = best[needed[needed <= n] - 1]
    low, high = draws.band(table, np.ones(len(table)))
    return {
        "recall": (recalls / (RECALLS - 1)).tolist(),
        "precision": table.mean(axis=0).tolist(),
        "low": low,
        "high": high,
        "note": f"interpolated, the mean over identities; lists end at rank {k}"
        + ("; 95 %: identities are resampled, the pool of clips is held fixed" if low else ""),
    }


def at_rank(
    hit_ranks: Sequence[NDArray[np.integer[Any]]], positives: NDArray[np.int64], k: int
) -> dict[str, Any]:
    """Precision and recall of the first r of each list, means over identities, for r = 1 … k."""
    hits = np.zeros(k + 1)
    recalled = np.zeros(k + 1)
    for ranks, total in zip(hit_ranks, positives.tolist(), strict=True):
        hits[ranks] += 1
        recalled[ranks] += 1 / total
    n, ranks_from_1 = len(hit_ranks), np.arange(1, k + 1)
    return {
        "rank": ranks_from_1.tolist(),
        "precision": (np.cumsum(hits[1:]) / ranks_from_1 / n).tolist(),
        "recall": np.minimum(np.cumsum(recalled[1:]) / n, 1).tolist(),
    }


# Identification ----------------------------------------------------------------------------------


def identification_block(result: Identification, draws: Draws = NO_DRAWS) -> dict[str, Any] | None:
    """CMC at all ranks, and the open-set points; None without a mated probe."""
    probes = result.ranked
    if not result.mated:
        return None
    return {
        "mated": result.mated,
        "gallery_identities": result.gallery_identities,
        "cmc": cmc_block(
            probes.ranks, probes.units, probes.n_units, result.gallery_identities, draws
        ),
        "open_set": [
            {"target_fpir": point.target_fpir, "ci95": None, **point.to_dict()}
            for point in result.points
            if point.tpir is not None
        ],
    }


def cmc_block(
    ranks: NDArray[np.int64],
    units: NDArray[np.int64],
    n_units: int,
    gallery: int,
    draws: Draws = NO_DRAWS,
) -> dict[str, Any]:
    """How often the right identity is among the first r.

    Args:
        ranks: (n,) of each mated probe's identity, from 1; 0 for a miss at any rank.
        units: (n,) number of its identity, below n_units: these are what a bootstrap draws.
        gallery: enrolled identities, the last rank.
    """
    shown = listed_ranks(gallery)
    is_found = (ranks[:, None] > 0) & (ranks[:, None] <= shown)
    table = np.zeros((n_units, len(shown)))
    np.add.at(table, units, is_found)
    low, high = draws.band(table, np.bincount(units, minlength=n_units).astype(np.float64))
    note = "95 %: the split's people are resampled, the gallery held fixed"
    return {
        "rank": shown.tolist(),
        "value": (is_found.sum(axis=0) / len(ranks)).tolist(),
        "low": low,
        "high": high,
        **({"note": note} if low else {}),
    }


def listed_ranks(gallery: int) -> NDArray[np.int64]:
    """Ranks 1 to 20, and from there on some six a doubling, up to the last.

    >>> listed_ranks(50)
    array([ 1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17,
           18, 19, 20, 22, 25, 28, 32, 36, 40, 45, 50])
    """
    doublings = np.log2(max(gallery, WHOLE_RANKS) / WHOLE_RANKS)
    steps = np.arange(1, int(doublings * RANKS_A_DOUBLING) + 1)
    further = np.round(WHOLE_RANKS * 2 ** (steps / RANKS_A_DOUBLING)).astype(np.int64)
    ranks = np.concatenate([np.arange(1, WHOLE_RANKS + 1), further, [gallery]])
    return np.unique(ranks[(ranks <= gallery) & (ranks >= 1)])
