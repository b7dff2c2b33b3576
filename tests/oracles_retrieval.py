"""Naive twins of enrolment, retrieval and identification: what the code must equal, to the tie."""

import math
from fractions import Fraction

import numpy as np

from tests import oracles


def score(rows, clip):
    """The largest inner product with one of the rows, correctly rounded to float32, clipped."""
    best = max(math.fsum(float(x) * float(y) for x, y in zip(r, clip, strict=True)) for r in rows)
    return max(-1.0, min(1.0, float(np.float32(best))))


def templates(gallery, gallery_identities, enrolment):
    """The rows of each identity, [] where it cannot be searched for."""
    found = {}
    for name in sorted(set(gallery_identities) - {""}):
        rows = [r for r, who in zip(gallery, gallery_identities, strict=True) if who == name]
        rows = [[float(x) for x in r] for r in rows if any(r)]
        if enrolment == "mean" and rows:
            mean = [float(np.float32(x)) for x in oracles.pool(rows, [0] * len(rows))]
            rows = [mean] if any(mean) else []
        found[name] = rows
    return found


def ranked(rows, clips, clip_ids, k):
    """The k best clip ids for an identity's rows, by sorting them all."""
    if not rows:
        return []
    pairs = [(-score(rows, c), i) for c, i in zip(clips, clip_ids, strict=True) if any(c)]
    return [clip_id for _, clip_id in sorted(pairs)[:k]]


def precision(ranked_ids, positives):
    """AP: the precision at each hit, over all positives."""
    hits, total = 0, Fraction(0)
    for rank, clip_id in enumerate(ranked_ids, start=1):
        if clip_id in positives:
            hits += 1
            total += Fraction(hits, rank)
    return total / len(positives)


def leave_one_out(clips, identities, clip_ids, k):
    """[(identity, AP, whether the first is right)] of each query; labelled clips without one."""
    queries, alone = [], 0
    for i, who in enumerate(identities):
        if not who:
            continue
        rest = [j for j in range(len(clips)) if j != i]
        positives = {clip_ids[j] for j in rest if identities[j] == who}
        if not positives:
            alone += 1
            continue
        rows = [clips[i]] if any(clips[i]) else []
        best = ranked(rows, [clips[j] for j in rest], [clip_ids[j] for j in rest], k)
        queries.append((who, precision(best, positives), bool(best) and best[0] in positives))
    return queries, alone


def probes(gallery, gallery_identities, clips, identities, enrolment):
    """[(mated?, rank or None, score or None)] of each clip of the split."""
    enrolled = templates(gallery, gallery_identities, enrolment)
    found = []
    for clip, who in zip(clips, identities, strict=True):
        scores = {name: score(rows, clip) for name, rows in enrolled.items() if rows and any(clip)}
        if who in enrolled:
            rank = own = None
            if who in scores:
                own = scores.pop(who)
                rank = 1 + sum(other >= own for other in scores.values())
            found.append((True, rank, own))
        else:
            found.append((False, None, max(scores.values(), default=None)))
    return found


def cmc(found, rank):
    """The share of mated probes at the rank or before; None without any."""
    mated = [r for is_mated, r, _ in found if is_mated]
    if not mated:
        return None
    return Fraction(sum(r is not None and r <= rank for r in mated), len(mated))


def tpir(found, fpir):
    """(TPIR, threshold, accepted, falsely accepted) by trying every observed score; None: n/a.

    Of thresholds with the best TPIR, the lowest that is observed.
    """
    n_mated = sum(is_mated for is_mated, _, _ in found)
    n_others = len(found) - n_mated
    if n_mated == 0 or fpir * n_others < 1:
        return None
    good = [s for is_mated, rank, s in found if is_mated and rank == 1]
    others = [s for is_mated, _, s in found if not is_mated and s is not None]
    best = (Fraction(0), None, 0, 0)
    for threshold in sorted({*good, *others}, reverse=True):
        accepted = sum(s >= threshold for s in good)
        false = sum(s >= threshold for s in others)
        if Fraction(false, n_others) <= fpir:
            best = (Fraction(accepted, n_mated), threshold, accepted, false)
    return best


def resampled(items, identities, weights):
    """The items of a split, each as often as its unit was drawn.

    Units: the identities in string order, then the distractors in the order of their rows.
    """
    names = sorted(set(identities) - {""})
    drawn, distractor = [], len(names)
    for item, who in zip(items, identities, strict=True):
        unit = names.index(who) if who else distractor
        distractor += not who
        drawn += [item] * int(weights[unit])
    return drawn
