"""Naive twins of the choice of a threshold: every figure anew from the rows, means as fractions."""

import random
from fractions import Fraction

from tests.oracles import dot, pair_scores, tar_at_far


def precisions(rows, clips, split, gallery, k=100):
    """{identity: AP@k} of a split, exact. `clips`: (clip_id, identity, split); a clip of the
    gallery is its person's only one; `rows`: {clip_id: unit or zero row}."""
    found = {}
    inside = [(clip_id, who) for clip_id, who, where in clips if where == split]
    for name in {who for _, who in inside if who}:
        templates = [rows[c] for c, who, where in clips if where == gallery and who == name]
        positives = sum(who == name for _, who in inside)
        total = Fraction(0)
        if templates and any(templates[0]):
            ranked = sorted(
                (-dot(templates[0], rows[clip_id]), clip_id, who)
                for clip_id, who in inside
                if any(rows[clip_id])
            )
            hits = 0
            for rank, (_, _, who) in enumerate(ranked[:k], start=1):
                if who == name:
                    hits += 1
                    total += Fraction(hits, rank)
        found[name] = total / positives
    return found


def tar(rows, clips, far):
    """TAR at a far (text) over all pairs of some (clip_id, identity); None where unresolved."""
    genuine, impostor, _ = pair_scores([rows[c] for c, _ in clips], [who for _, who in clips])
    if not genuine or Fraction(far) * len(impostor) < 1:
        return None
    return Fraction(tar_at_far(genuine, impostor, Fraction(far))[2], len(genuine))


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values, Fraction(0)) / len(values) if values else None


def lowest_best(thresholds, value):
    """The first of the thresholds, which rise, whose value no other exceeds."""
    most = max(value(t) for t in thresholds)
    return next(t for t in thresholds if value(t) == most)


def folds(identities, k, seed):
    """The folds, dealt out by hand: a bigger share while there is a remainder."""
    generator = random.Random(seed)
    pile = [
        name for _, name in sorted((generator.random(), name) for name in sorted(set(identities)))
    ]
    result = []
    for i in range(k):
        share = -(-len(pile) // (k - i))  # of what is left to so many folds, rounded up
        result.append(pile[:share])
        pile = pile[share:]
    return result


def selection(tables, clips, parts, report, select, gallery, by, fars):
    """The whole choice.

    `tables`: {threshold: rows}, no clustering first, then rising. `parts`: for each round the
    (clip_id, identity) to choose on and those to report. Returns, for the honest and the
    optimistic row, (thresholds, mAP, [mean TAR of each far]), and the far of each choice.
    """
    thresholds = list(tables)

    def mean_precision(t, split, part):
        of_all = precisions(tables[t], clips, split, gallery)
        return mean([of_all[name] for name in {who for _, who in part if who}])

    def row(chosen):
        values = []
        for t, (_, part) in zip(chosen, parts, strict=True):
            of_all = precisions(tables[t], clips, report, gallery)
            values += [of_all[name] for name in {who for _, who in part if who}]
        tars = [
            mean([tar(tables[t], part, far) for t, (_, part) in zip(chosen, parts, strict=True)])
            for far in fars
        ]
        return chosen, mean(values), tars

    if by == "map":
        chosen_far = best_far = None
        chosen = [
            lowest_best(thresholds, lambda t, s=part: mean_precision(t, select, s))
            for part, _ in parts
        ]
        best = lowest_best(thresholds, lambda t: row([t] * len(parts))[1])
    else:
        any_rows = tables[thresholds[0]]
        rising = sorted(fars, key=Fraction)
        chosen_far = next(
            far for far in rising if all(tar(any_rows, s, far) is not None for s, _ in parts)
        )
        reported = [
            far for far in rising if any(tar(any_rows, r, far) is not None for _, r in parts)
        ]
        best_far = chosen_far if chosen_far in reported else reported[0]
        chosen = [
            lowest_best(thresholds, lambda t, s=part: tar(tables[t], s, chosen_far))
            for part, _ in parts
        ]
        place = fars.index(best_far)
        best = lowest_best(thresholds, lambda t: row([t] * len(parts))[2][place])
    return row(chosen), row([best] * len(parts)), (chosen_far, best_far)
