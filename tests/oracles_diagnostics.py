"""Naive twins of `vidface.noise.diagnostics` and of the contact sheet's choices, in pure Python."""

import math
from fractions import Fraction

from tests.oracles import cosine, dot, unit


def mean_of(rows):
    """The mean of the unit rows, or None where there is none or it vanishes."""
    units = [unit(row) for row in rows]
    if not units:
        return None
    mean = [math.fsum(column) / len(units) for column in zip(*units, strict=True)]
    return mean if math.sqrt(dot(mean, mean)) >= 1e-6 else None


def pictures_of(clip, same_from=0.999, look_back=8):
    """The first row of each row's picture: all pairs, joined one after the other."""
    firsts = list(range(len(clip)))
    usable = [all(map(math.isfinite, row)) and any(row) for row in clip]
    for later in range(len(clip)):
        for earlier in range(later):
            if not (usable[earlier] and usable[later]):
                continue
            near = later - earlier <= look_back
            if repr(clip[earlier]) == repr(clip[later]) or (
                near and cosine(clip[earlier], clip[later]) >= same_from
            ):
                low, high = sorted((firsts[earlier], firsts[later]))
                firsts = [low if first == high else first for first in firsts]
    return firsts


def diagnose_clip(
    clip,
    labels,
    descriptor,
    chained_below=0.1,
    contested_from=0.5,
    thin_below=3,
    still_from=0.3,
    repeats="count",
):
    """Everything that is said of one clip, as a dict; NaN where there is nothing to say."""
    pictures = pictures_of(clip)
    members = {
        label: [row for row, own in zip(clip, labels, strict=True) if own == label]
        for label in (-1, 0)
    }
    kept, second = (
        [
            row
            for place, (row, own) in enumerate(zip(clip, labels, strict=True))
            if own == label and (repeats == "count" or pictures[place] == place)
        ]
        for label in (0, 1)
    )
    most = max((pictures.count(picture) for picture in pictures), default=0)
    still_share = most / len(clip) if most > 1 else 0.0
    lowest = math.nan
    for i in range(len(kept)):
        for j in range(i):
            value = cosine(kept[i], kept[j])
            if math.isnan(lowest) or value < lowest:
                lowest = value
    means = mean_of(kept), mean_of(second)
    similarity = [
        cosine(row, descriptor) if label != -1 and any(descriptor) else math.nan
        for row, label in zip(clip, labels, strict=True)
    ]
    flags = []
    if lowest < chained_below:
        flags.append("chained")
    if kept and second and len(second) >= contested_from * len(kept):
        flags.append("contested")
    if kept and len(kept) < thin_below:
        flags.append("thin")
    if kept and still_share > 0 and still_share >= still_from:
        flags.append("still")
    return {
        "clusters": len({label for label in labels if label != -1}),
        "kept": len(members[0]),
        "dropped": len(clip) - len(members[0]),
        "unusable": len(members[-1]),
        "lowest_similarity": lowest,
        "second_size": len(second),
        "second_share": len(second) / len(kept) if kept else math.nan,
        "second_cosine": math.nan if None in means else cosine(*means),
        "still_share": still_share,
        "similarity": similarity,
        "flags": tuple(flags),
    }


def evenly(n, most):
    """`most` of the rows [0, n) at most: equal steps, both ends, rounded half up."""
    if n <= most:
        return list(range(n))
    if most == 1:
        return [n // 2]
    return [math.floor(Fraction(k * (n - 1), most - 1) + Fraction(1, 2)) for k in range(most)]
