"""Naive twins of the losses: equations (1) to (9) in float64, loop by loop, as they are printed
(and read by protocols.md, section 5). Nothing here knows about gradients or memory."""

import math

import numpy as np


def cosine(a, b):
    """Equation (2)."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    norms = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    return dot / norms if norms else 0.0


def cosines(embeddings, centres):
    return [[cosine(x, w) for w in centres] for x in embeddings]


def angle(c):
    return math.acos(min(1.0, max(-1.0, c)))


def own_logit(c, m1, m2, m3):
    """cos(m1 θ + m2) − m3 of (4); where the angle passes π, InsightFace's cos θ − m·sin m."""
    theta = angle(c)
    if m1 * theta + m2 <= math.pi:
        return math.cos(m1 * theta + m2) - m3
    last = (math.pi - m2) / m1  # the last angle that is turned
    drop = max((math.pi - last) * math.sin(last), 1 + math.cos(last))
    return math.cos(theta) - drop - m3


def softmax_losses(embeddings, centres, labels, s, m1, m2, m3, t=1.0):
    """The summands of (1), (3) or (5): −log(Z1 / (Z1 + Σ Z3)), the largest exponent taken out."""
    losses = []
    for x, y in zip(embeddings, labels, strict=True):
        c = [cosine(x, w) for w in centres]
        own = own_logit(c[y], m1, m2, m3)
        exponents = []
        for j in range(len(centres)):
            if j == y:
                exponents.append(s * own)
                continue
            hard = 1 if own - c[j] < 0 else 0  # equation (6)
            exponents.append(s * (t - 1) * (c[j] + 1) * hard + s * c[j])
        peak = max(exponents)
        total = sum(math.exp(e - peak) for e in exponents)
        losses.append(peak + math.log(total) - exponents[y])
    return losses


def intra(embeddings, centres, labels):
    """Equation (7)."""
    return sum(angle(cosine(x, centres[y])) for x, y in zip(embeddings, labels, strict=True)) / len(
        labels
    )


def inter(centres, rows=None):
    """Equation (8); `rows`: the centres that are averaged over."""
    rows = range(len(centres)) if rows is None else rows
    nearest = []
    for i in rows:
        others = [cosine(centres[i], centres[j]) for j in range(len(centres)) if j != i]
        nearest.append(max(others) if others else 0.0)
    return sum(nearest) / len(nearest)


def class_weights(counts, beta):
    """The weight of equation (9)."""
    return [(1 - beta) / (1 - beta**n) for n in counts]


def triplets(embeddings, labels, margin, mining):
    """FaceNet's triplets as (a, p, n) with their hinge; squared distances of unit rows."""
    unit = [np.asarray(x, float) / (np.linalg.norm(x) or 1.0) for x in embeddings]
    found = {}
    for a in range(len(unit)):
        for p in range(len(unit)):
            for n in range(len(unit)):
                if a == p or labels[a] != labels[p] or labels[a] == labels[n]:
                    continue
                near = sum((unit[a] - unit[p]) ** 2)
                far = sum((unit[a] - unit[n]) ** 2)
                kept = {
                    "semi-hard": near < far < near + margin,
                    "hard": far <= near,
                    "all": far < near + margin,
                }[mining]
                if kept:
                    found[a, p, n] = near - far + margin
    return found


def triplet(embeddings, labels, margin, mining="semi-hard"):
    hinges = list(triplets(embeddings, labels, margin, mining).values())
    return sum(hinges) / len(hinges) if hinges else 0.0


def central_difference(function, array, step=1e-6):
    """The gradient of a scalar function of an array, entry by entry."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        up, down = array.copy(), array.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient
