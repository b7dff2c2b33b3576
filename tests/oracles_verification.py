"""Naive twins of the verification figures: all pairs, every threshold, whole fractions.

`tar_at_far` and `dot` are those of `tests.oracles`. A pair is (score, genuine, unit, unit);
a unit is a person, or one distractor, or one row nobody knows.
"""

from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from tests.oracles import dot, tar_at_far


def score(a, b):
    """−1 where a row has no direction; clipped."""
    if not any(a) or not any(b):
        return -1.0
    return max(-1.0, min(1.0, dot(a, b)))


def units_of(*sets):
    """For each set of names, the units: identities in string order, then distractors as met."""
    known = sorted({name for names in sets for name in names} - {""})
    found, fresh = [], len(known)
    for names in sets:
        found.append([])
        for name in names:
            found[-1].append(known.index(name) if name else fresh)
            fresh += not name
    return found, len(known), fresh


def same_set(rows, identities):
    """(pairs, left out) of all unordered pairs of clips."""
    (units,), _, _ = units_of(identities)
    clips = list(zip(rows, identities, units, strict=True))
    return of_clips([(clips[i], clips[j]) for i in range(len(clips)) for j in range(i)])


def two_sets(gallery, gallery_identities, rows, identities):
    """(pairs, left out) of each clip of the one set with each of the other."""
    (a, b), _, _ = units_of(gallery_identities, identities)
    first = list(zip(gallery, gallery_identities, a, strict=True))
    second = list(zip(rows, identities, b, strict=True))
    return of_clips([(one, other) for one in first for other in second])


def of_clips(both):
    pairs, left_out = [], 0
    for (row, name, unit), (other_row, other_name, other_unit) in both:
        if name == "" and other_name == "":
            left_out += 1
        else:
            pairs.append((score(row, other_row), name == other_name, unit, other_unit))
    return pairs, left_out


def split(pairs):
    """The genuine and the impostor scores."""
    return [p[0] for p in pairs if p[1]], [p[0] for p in pairs if not p[1]]


def accepted(genuine, impostor, threshold):
    if threshold is None:
        return 0, 0
    return sum(s >= threshold for s in genuine), sum(s >= threshold for s in impostor)


def roc(genuine, impostor):
    """(threshold, accepted genuine, accepted impostor), from nothing accepted to everything."""
    thresholds = [None, *sorted({*genuine, *impostor}, reverse=True)]
    return [(t, *accepted(genuine, impostor, t)) for t in thresholds]


def eer(genuine, impostor):
    """(EER, threshold): the smallest |FAR − FRR|, of two the higher threshold."""
    best = None
    for threshold, right, wrong in roc(genuine, impostor):
        far = Fraction(wrong, len(impostor))
        frr = 1 - Fraction(right, len(genuine))
        if best is None or abs(far - frr) < best[0]:
            best = (abs(far - frr), (far + frr) / 2, threshold)
    return best[1:]


def auc(genuine, impostor):
    """The chance that a genuine pair scores higher than an impostor pair, a tie counting half."""
    twice = sum(
        n * m * (2 * (g > i) + (g == i))
        for g, n in Counter(genuine).items()
        for i, m in Counter(impostor).items()
    )
    return Fraction(twice, 2 * len(genuine) * len(impostor))


def corners(genuine, impostor):
    """The origin, the first and the last threshold, and those where the ROC bends.

    It bends where the step to the next point differs from the step before: what scikit-learn keeps.
    """
    origin, *points = roc(genuine, impostor)
    kept = [origin]
    for i, (threshold, right, wrong) in enumerate(points):
        if 0 < i < len(points) - 1:
            before = (right - points[i - 1][1], wrong - points[i - 1][2])
            after = (points[i + 1][1] - right, points[i + 1][2] - wrong)
            if before == after:
                continue
        kept.append((threshold, right, wrong))
    return kept


def nearest(genuine, impostor, far):
    """(TAR, threshold, accepted genuine, accepted impostor) at the corner with the nearest FAR.

    In floating point, as the common scripts have it. Of two the one with the higher FAR, then TAR.
    """
    threshold, right, wrong = min(
        corners(genuine, impostor),
        key=lambda p: (abs(p[2] / len(impostor) - float(far)), -p[2], -p[1]),
    )
    return right / len(genuine), threshold, right, wrong


def step(genuine, impostor, far):
    """As `tests.oracles.tar_at_far`."""
    return tar_at_far(genuine, impostor, far)


CONVENTIONS = {"step": step, "nearest": nearest}


def copies(units, weights):
    """(row, copy) for each clip as often as its unit was drawn."""
    return [(i, copy) for i, unit in enumerate(units) for copy in range(weights[unit])]


def resampled_same_set(rows, identities, weights):
    """The pairs of a split where the people were drawn again, made out of copied clips.

    A genuine pair is within one copy of an identity. Two copies of an identity form no pair.
    """
    (units,), _, _ = units_of(identities)
    clips = copies(units, weights)
    both = [(clips[i], clips[j]) for i in range(len(clips)) for j in range(i)]
    return _of_copies(both, (rows, identities, units), (rows, identities, units))


def resampled_two_sets(gallery, gallery_identities, rows, identities, weights):
    (a, b), _, _ = units_of(gallery_identities, identities)
    both = [(one, other) for one in copies(a, weights) for other in copies(b, weights)]
    return _of_copies(both, (gallery, gallery_identities, a), (rows, identities, b))


def _of_copies(both, first, second):
    pairs = []
    for (i, copy), (j, other_copy) in both:
        (row, name, unit), (other_row, other_name, other_unit) = (
            tuple(column[i] for column in first),
            tuple(column[j] for column in second),
        )
        if name == "" and other_name == "":
            continue
        if unit == other_unit and copy != other_copy:
            continue
        pairs.append((score(row, other_row), name == other_name, unit, other_unit))
    return pairs


def resampled_list(pairs, weights):
    """The pairs of a list where its people were drawn again; as `resampled_same_set`."""
    return [
        pair
        for pair in pairs
        for copy in range(weights[pair[2]])
        for other_copy in range(weights[pair[3]])
        if pair[2] != pair[3] or copy == other_copy
    ]


def figures(pairs, fars):
    """[TAR at each target, EER, AUC] by the step rule; None where there is none."""
    genuine, impostor = split(pairs)
    if not genuine or not impostor:
        return [None] * (len(fars) + 2)
    tars = [step(genuine, impostor, far)[0] if far * len(impostor) >= 1 else None for far in fars]
    return [*tars, eer(genuine, impostor)[0], auc(genuine, impostor)]


# Clips to try them on. Sixteen components of ±1/4 are a unit row, and every product is a multiple
# of 1/8: exact in float32 in whatever order it is summed, with many ties.

NAMES = ["", "ann", "bob", "cy"]


def tied_rows():
    """A strategy: such rows, or none at all; opposite rows (−1) come, too."""
    rows = st.tuples(*[st.sampled_from([-0.25, 0.25])] * 4).map(lambda s: s[:1] * 7 + s[1:] * 3)
    return st.one_of(st.just((0.0,) * 16), rows, rows, rows)


def tied_sets(max_size=14):
    """A strategy: (rows, identities) of a set of clips."""
    clips = st.lists(st.tuples(tied_rows(), st.sampled_from(NAMES)), max_size=max_size)
    return clips.map(lambda c: (as_rows([row for row, _ in c]), [name for _, name in c]))


def as_rows(rows, d=16):
    return np.array(rows, dtype=np.float32).reshape(-1, d)


def tied_clips(n=90, n_identities=12, seed=0, share_positive=0.7):
    rng = np.random.default_rng(seed)
    p = [1 - share_positive, share_positive]
    rows = rng.choice([-0.25, 0.25], (n, 16), p=p).astype(np.float32)
    rows[rng.random(n) < 0.05] = 0
    names = ["", *(f"id{i}" for i in range(n_identities))]
    return rows, [names[i] for i in rng.integers(0, len(names), n)]


def random_clips(n=300, n_identities=40, d=16, noise=0.6, seed=0):
    """Unit rows about one direction an identity; products are not exact, but hardly ever near."""
    rng = np.random.default_rng(seed)
    who = rng.integers(0, n_identities + 1, n)
    rows = rng.standard_normal((n_identities + 1, d))[who] + noise * rng.standard_normal((n, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), ["" if i == 0 else f"id{i:02}" for i in who]


def listed(scores):
    """(rows, first, second): pairs whose products are `scores`, exactly, if float32 holds them."""
    scores = np.asarray(scores, dtype=np.float64)
    rows = np.stack([scores, np.sqrt(1 - np.square(scores))], axis=1)
    rows = np.concatenate([[[1, 0]], rows]).astype(np.float32)
    return rows, np.zeros(len(scores), np.int64), np.arange(1, len(rows))
