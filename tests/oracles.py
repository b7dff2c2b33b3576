"""Naive twins of the metrics, in plain Python and without cleverness: what the code must equal."""

import math
from fractions import Fraction

import numpy as np


def unit(row):
    """The row scaled to length one, or None where it has no direction."""
    row = [float(x) for x in row]
    if not all(math.isfinite(x) for x in row) or not any(row):
        return None
    norm = math.sqrt(math.fsum(x * x for x in row))
    return [x / norm for x in row]


def dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def cosine(a, b):
    """The cosine of two raw rows, which must have a direction."""
    norms = math.sqrt(dot(a, a) * dot(b, b))
    return dot(a, b) / norms


def union_find_labels(clip, threshold):
    """The labels of one clip: Union-Find over all pairs, largest first, then earliest first."""
    n = len(clip)
    usable = [unit(row) is not None for row in clip]
    parent = list(range(n))

    def find(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i in range(n):
        for j in range(i + 1, n):
            if not (usable[i] and usable[j]):
                continue
            if threshold is None or threshold <= -1:
                joined = True
            else:
                joined = threshold < 1 and cosine(clip[i], clip[j]) > threshold
            if joined:
                parent[find(j)] = find(i)
    clusters = {}
    for i in range(n):
        if usable[i]:
            clusters.setdefault(find(i), []).append(i)
    labels = [-1] * n
    ranked = sorted(clusters.values(), key=lambda rows: (-len(rows), rows[0]))
    for label, rows in enumerate(ranked):
        for i in rows:
            labels[i] = label
    return labels


def apart_labels(clip, frames, threshold, same_person):
    """The labels of one clip whose faces of one frame stay apart: all pairs, strongest first."""
    n = len(clip)
    usable = [i for i in range(n) if unit(clip[i]) is not None]
    rows = {i: np.array(unit(clip[i])) for i in usable}
    cosines = {(i, j): np.float32(rows[i] @ rows[j]) for i in usable for j in usable}
    clusters = [{i} for i in usable]

    def may_share(i, j):
        return frames[i] != frames[j] or cosines[i, j] > np.float32(same_person)

    for i, j in sorted((p for p in cosines if p[0] < p[1]), key=lambda p: (-cosines[p], p)):
        a = next(cluster for cluster in clusters if i in cluster)
        b = next(cluster for cluster in clusters if j in cluster)
        joins = threshold < 1 and cosines[i, j] > np.float32(threshold)
        if joins and a is not b and all(may_share(x, y) for x in a for y in b):
            clusters.remove(b)
            a |= b
    labels = [-1] * n
    for label, cluster in enumerate(sorted(clusters, key=lambda rows: (-len(rows), min(rows)))):
        for i in cluster:
            labels[i] = label
    return labels


def pool(clip, labels):
    """The descriptor of one clip: the kept rows normalised, summed, normalised."""
    d = len(clip[0])
    kept = [unit(row) for row, label in zip(clip, labels, strict=True) if label == 0]
    total = [math.fsum(row[i] for row in kept) for i in range(d)]
    norm = math.sqrt(math.fsum(x * x for x in total))
    if not kept or norm / len(kept) < 1e-6:
        return [0.0] * d
    return [x / norm for x in total]


def pair_scores(descriptors, identities):
    """Scores of the genuine and of the impostor pairs, and how many pairs are left out."""
    genuine, impostor, left_out = [], [], 0
    for i in range(len(identities)):
        for j in range(i):
            if identities[i] == "" and identities[j] == "":
                left_out += 1
                continue
            if not any(descriptors[i]) or not any(descriptors[j]):
                score = -1.0
            else:
                score = max(-1.0, min(1.0, dot(descriptors[i], descriptors[j])))
            same = identities[i] == identities[j]
            (genuine if same else impostor).append(score)
    return genuine, impostor, left_out


def tar_at_far(genuine, impostor, far):
    """(TAR, threshold, accepted genuine, accepted impostor) by trying every observed score.

    `far` is a Fraction. Of thresholds with the best TAR, the lowest.
    """
    best = (0, None, 0, 0)
    for threshold in sorted({*genuine, *impostor}, reverse=True):
        false_accepts = sum(score >= threshold for score in impostor)
        true_accepts = sum(score >= threshold for score in genuine)
        if false_accepts <= far * len(impostor):
            best = (true_accepts / len(genuine), threshold, true_accepts, false_accepts)
    return best


def mean_average_precision(gallery, gallery_identities, clips, identities, clip_ids, k=100):
    """mAP@k by sorting all clips for each identity; (mAP or None, {identity: AP})."""
    result = {}
    for name in sorted(set(identities) - {""}):
        rows = [r for r, who in zip(gallery, gallery_identities, strict=True) if who == name]
        rows = [r for r in rows if any(r)]
        template = pool(rows, [0] * len(rows)) if rows else None
        positives = [c for c, who in zip(clip_ids, identities, strict=True) if who == name]
        precisions = 0.0
        if template is not None and any(template):
            ranked = sorted(
                (-dot(template, row), clip_id)
                for row, clip_id in zip(clips, clip_ids, strict=True)
                if any(row)
            )
            hits = 0
            for rank, (_, clip_id) in enumerate(ranked[:k], start=1):
                if clip_id in positives:
                    hits += 1
                    precisions += hits / rank
        result[name] = precisions / len(positives)
    return (sum(result.values()) / len(result) if result else None), result


def fold_accuracies(scores, same, folds):
    """Each fold's accuracy (a Fraction), and the threshold that the other folds chose for it.

    Of equally good thresholds, None (nothing accepted) counting as the highest, the lower median.
    """

    def right(rows, threshold):
        return sum((threshold is not None and scores[i] >= threshold) == same[i] for i in rows)

    accuracies, thresholds = [], []
    for fold in sorted(set(folds)):
        inside = [i for i in range(len(scores)) if folds[i] == fold]
        others = [i for i in range(len(scores)) if folds[i] != fold]
        candidates = [*sorted({scores[i] for i in others}), None]
        most = max(right(others, threshold) for threshold in candidates)
        best = [threshold for threshold in candidates if right(others, threshold) == most]
        thresholds.append(best[(len(best) + 1) // 2 - 1])
        accuracies.append(Fraction(right(inside, thresholds[-1]), len(inside)))
    return accuracies, thresholds


def auc(genuine, impostor):
    """The chance that a genuine pair scores higher than an impostor pair, a tie counting half."""
    if not genuine or not impostor:
        return None
    wins = sum((g > i) + Fraction(g == i, 2) for g in genuine for i in impostor)
    return wins / (len(genuine) * len(impostor))


def without_fold(scores, same, folds, fold):
    """The genuine and the impostor scores of all other folds."""
    rows = [i for i in range(len(scores)) if folds[i] != fold]
    return [scores[i] for i in rows if same[i]], [scores[i] for i in rows if not same[i]]


def jackknife(left_out):
    """The standard error of a figure from its values without each fold; None if one is None."""
    if None in left_out:
        return None
    k = len(left_out)
    mean = sum(left_out) / Fraction(k)
    return math.sqrt(Fraction(k - 1, k) * sum((value - mean) ** 2 for value in left_out))


def complete_linkage_labels(clip, threshold):
    """The labels of one clip: merge the two clusters whose worst pair is best, while it is above.

    Equally good merges: the first in order of rows; scipy may take another one.
    """
    usable = [i for i, row in enumerate(clip) if unit(row) is not None]
    groups = [[i] for i in usable]

    def worst(one, other):
        return min(cosine(clip[i], clip[j]) for i in one for j in other)

    while len(groups) > 1:
        pairs = [(a, b) for b in range(len(groups)) for a in range(b)]
        a, b = max(pairs, key=lambda pair: worst(groups[pair[0]], groups[pair[1]]))
        if worst(groups[a], groups[b]) <= threshold:
            break
        groups[a] += groups.pop(b)
    return ranked_labels(len(clip), groups, [])


def dbscan_labels(clip, threshold, min_samples):
    """The labels of one clip: clusters grow from each core in order of rows; noise stays alone."""
    usable = [i for i, row in enumerate(clip) if unit(row) is not None]
    near = {i: [j for j in usable if cosine(clip[i], clip[j]) >= threshold] for i in usable}
    cores = [i for i in usable if len(near[i]) >= min_samples]
    groups, taken = [], set()
    for seed in cores:
        if seed in taken:
            continue
        group, waiting = [], [seed]
        while waiting:
            i = waiting.pop()
            if i in taken:
                continue
            taken.add(i)
            group.append(i)
            if i in cores:
                waiting += near[i]
        groups.append(group)
    return ranked_labels(len(clip), groups, [i for i in usable if i not in taken])


def ranked_labels(n, groups, alone):
    """Labels of n rows: the groups, largest first, then earliest first; then those alone."""
    labels = [-1] * n
    ordered = sorted(groups, key=lambda rows: (-len(rows), min(rows)))
    for label, rows in enumerate([*ordered, *([i] for i in sorted(alone))]):
        for i in rows:
            labels[i] = label
    return labels


def medoid(clip):
    """The row with the largest sum of cosines to all others; within 1e-9 a row, the earliest."""
    n = len(clip)
    sums = [math.fsum(cosine(clip[i], clip[j]) for j in range(n) if j != i) for i in range(n)]
    return next(i for i in range(n) if sums[i] >= max(sums) - 1e-9 * n)


def trimmed_labels(clip, count):
    """The labels of one clip: `count` usable rows least similar to the medoid get 1, late first."""
    usable = [i for i, row in enumerate(clip) if unit(row) is not None]
    labels = [0 if i in usable else -1 for i in range(len(clip))]
    centre = usable[medoid([clip[i] for i in usable])]
    by_cosine = sorted(usable, key=lambda i: (round(cosine(clip[i], clip[centre]), 8), -i))
    for i in by_cosine[:count]:
        labels[i] = 1
    return labels


def weighted_pool(clip, labels, weights):
    """(descriptor, weights ignored, whether it fell back to the mean) of one clip, in fractions."""
    kept = [i for i, label in enumerate(labels) if label == 0]
    fit = {i: math.isfinite(weights[i]) and weights[i] >= 0 for i in kept}
    exact = {i: Fraction(float(weights[i])) if fit[i] else Fraction(0) for i in kept}
    fallen_back = bool(kept) and not any(exact.values())
    if fallen_back:
        exact = dict.fromkeys(kept, Fraction(1))
    d = len(clip[0])
    whole = sum(exact.values())
    rows = {i: unit(clip[i]) for i in kept}
    mean = [
        float(sum(exact[i] * Fraction(rows[i][k]) for i in kept) / (whole or 1)) for k in range(d)
    ]
    norm = math.sqrt(math.fsum(x * x for x in mean))
    ignored = sum(not fit[i] for i in kept)
    if norm < 1e-6:
        return [0.0] * d, ignored, fallen_back
    return [x / norm for x in mean], ignored, fallen_back
