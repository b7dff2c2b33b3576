"""Retrieval: find every clip of a person. mAP@k over the identities of a gallery."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidface.clusters import UNUSABLE
from vidface.descriptors import check_descriptors, pool_descriptors
from vidface.errors import VidfaceError
from vidface.scores.verification import identity_codes

MEMORY_BYTES = 2**28
"""The default budget of `score_retrieval` for a block of scores and what is made of it."""

_BYTES_PER_SCORE = 48  # scores, their partition, the mask, and candidates where all scores tie


@dataclass(frozen=True)
class Retrieval:
    """mAP@k of a split. All values are fractions in [0, 1].

    `average_precision` holds each identity that has a clip in the split, in string order; the
    mean is over these. Those that cannot be searched for score 0 and are named: without a gallery
    clip, or with gallery clips none of which has a descriptor.
    """

    map_at_k: float | None  # None where the split has no labelled clip
    k: int
    identities: int
    average_precision: dict[str, float]
    identities_without_gallery: tuple[str, ...]
    identities_without_descriptor: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; the mean's key names k: "map_at_100"."""
        return {
            f"map_at_{self.k}": self.map_at_k,
            "identities": self.identities,
            "identities_without_gallery": list(self.identities_without_gallery),
            "identities_without_descriptor": list(self.identities_without_descriptor),
        }


def average_precision(ranked_is_hit: ArrayLike, n_positives: int, k: int = 100) -> float:
    """AP@k of one ranked list: ``(1 / m) Σ precision at each hit among the first k``.

    m is the full number of positives, also of those that the list cannot hold: 150 positives cap
    AP@100 at 100/150. Common AP@k scripts divide by min(m, k) or by the hits found instead.

    Args:
        ranked_is_hit: bools, best first: is the clip at this rank a positive?
        n_positives: m, at least 1 and at least the number of hits.
        k: how many ranks count.

    Returns:
        AP in [0, 1].

    Raises:
        VidfaceError: n_positives or k below 1, or more hits than positives.

    Source: the iQIYI-VID challenge's evaluation.

    >>> average_precision([True, False, True], n_positives=3)  # (1/1 + 2/3) / 3
    0.5555555555555555
    >>> average_precision([True] * 150, n_positives=150)
    0.6666666666666666
    """
    hits = np.asarray(ranked_is_hit, dtype=bool)
    if hits.ndim != 1:
        raise VidfaceError(f"ranked_is_hit must be one list of bools, got the shape {hits.shape}")
    _check_k(k)
    n_hits = int(np.count_nonzero(hits))
    if n_positives < 1 or n_hits > n_positives:
        raise VidfaceError(
            f"n_positives is {n_positives}, but must be at least 1 and cover the {n_hits} hits"
        )
    ranks = np.flatnonzero(hits[:k]) + 1  # from 1
    return math.fsum(np.arange(1, len(ranks) + 1) / ranks) / n_positives


def average_precision_of_list(
    ranked_ids: Sequence[str], positives: Collection[str], k: int = 100
) -> float:
    """AP@k of a list of clip ids, best first; a repeated id counts once, at its first place.

    Repeats are removed before the list is cut at k, as the challenge's script does.

    >>> average_precision_of_list(["v4", "v4", "y"], {"v4"})
    1.0
    """
    unique = dict.fromkeys(ranked_ids)
    wanted = set(positives)
    return average_precision([clip_id in wanted for clip_id in unique], len(wanted), k)


def score_retrieval(
    gallery_descriptors: NDArray[np.floating[Any]],
    gallery_identities: Sequence[str],
    descriptors: NDArray[np.floating[Any]],
    identities: Sequence[str],
    clip_ids: Sequence[str],
    k: int = 100,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> Retrieval:
    """mAP@k: enrol each identity from the gallery, rank the split's clips for it.

    An identity is enrolled as the mean of its gallery descriptors (unit rows summed, the sum
    normalised; clips without a descriptor contribute nothing). The clips of the split, distractors
    among them, are ranked by the inner product with it (float32, clipped to [−1, 1]); equal scores
    rank by clip_id, in string order. A clip without a descriptor is never retrieved, and remains
    one of its identity's positives. mAP@k is the mean of `average_precision` over the identities
    that have a clip in the split; one that has no gallery clip, or none with a descriptor, has no
    list and scores 0. An identity of the gallery without a clip in the split is not in the mean.

    Exact to the last tie of the float32 scores. A product rounds by the shape of its block, so for
    another `memory_bytes` scores closer than about 1e-6 may change places.

    Args:
        gallery_descriptors: (n_gallery, d) float32 rows of norm 1, or zero for no descriptor.
        gallery_identities: n_gallery names; "" (a distractor) enrols no one.
        descriptors: (n_clips, d) float32, the split, in the same form. Not changed.
        identities: n_clips names; "" is a distractor.
        clip_ids: n_clips names, each once.
        k: how many ranks count.
        memory_bytes: bound for the working arrays, beside one sorted copy of the descriptors and
            one template an identity; a block is one identity at least.

    Raises:
        VidfaceError: shapes that disagree, rows neither of norm 1 nor zero, NaN, repeated clip ids.

    Source: iQIYI-VID challenge 2018/2019 (mAP@100). Common mAP@k divides by min(m, k).

    >>> import numpy as np
    >>> gallery = np.array([[1, 0], [0, 1]], dtype=np.float32)
    >>> clips = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 0]], dtype=np.float32)
    >>> result = score_retrieval(
    ...     gallery, ["ann", "bob"], clips, ["ann", "", "bob", "bob"], ["v1", "v2", "v3", "v4"]
    ... )
    >>> result.map_at_k, result.average_precision  # bob: v3 first; v4 has no descriptor
    (0.75, {'ann': 1.0, 'bob': 0.5})
    """
    _check_k(k)
    gallery_descriptors, gallery_has_direction = check_descriptors(
        gallery_descriptors, "gallery_descriptors"
    )
    descriptors, has_direction = check_descriptors(descriptors)
    d = descriptors.shape[1]
    if len(gallery_descriptors) and len(descriptors) and gallery_descriptors.shape[1] != d:
        raise VidfaceError(
            f"the gallery has {gallery_descriptors.shape[1]} dimensions, the split {d}; "
            "make both with the same backbone"
        )
    identity_codes(gallery_identities, len(gallery_descriptors), "gallery_identities")
    codes = identity_codes(identities, len(descriptors), "identities")
    _check_clip_ids(clip_ids, len(descriptors))
    if memory_bytes < 1:
        raise VidfaceError(f"memory_bytes must be positive, got {memory_bytes}")

    names = sorted(set(identities) - {""})  # the ground truth; codes number it
    n_positives = np.bincount(codes[codes >= 0], minlength=len(names))
    templates, has_template = _enrol(
        gallery_descriptors, gallery_has_direction, gallery_identities, names
    )

    # Columns in the order of clip_id: of two equal scores the lower column ranks first.
    columns = np.array(sorted(range(len(clip_ids)), key=clip_ids.__getitem__), dtype=np.int64)
    columns = columns[has_direction[columns]]
    ranked, column_codes = descriptors[columns], codes[columns]
    precisions = dict.fromkeys(names, 0.0)
    step = max(1, memory_bytes // (_BYTES_PER_SCORE * max(1, len(columns))))
    searched = np.flatnonzero(has_template)
    for start in range(0, len(searched), step):
        block = searched[start : start + step]
        scores = templates[block] @ ranked.T
        np.clip(scores, -1, 1, out=scores)
        for code, top in zip(block.tolist(), _top_columns(scores, k), strict=True):
            precisions[names[code]] = average_precision(
                column_codes[top] == code, int(n_positives[code]), k
            )

    in_gallery = set(gallery_identities)
    return Retrieval(
        map_at_k=math.fsum(precisions.values()) / len(names) if names else None,
        k=k,
        identities=len(names),
        average_precision=precisions,
        identities_without_gallery=tuple(name for name in names if name not in in_gallery),
        identities_without_descriptor=tuple(
            name
            for name, enrolled in zip(names, has_template.tolist(), strict=True)
            if name in in_gallery and not enrolled
        ),
    )


def _enrol(
    descriptors: NDArray[np.float32],
    has_direction: NDArray[np.bool_],
    identities: Sequence[str],
    names: Sequence[str],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The template of each name, (len(names), d), zero without one; and whether there is one."""
    numbers = {name: i for i, name in enumerate(names)}
    codes = np.array([numbers.get(name, -1) for name in identities], dtype=np.int64)
    rows = np.argsort(codes, kind="stable")
    rows = rows[codes[rows] >= 0]
    offsets = np.searchsorted(codes[rows], np.arange(len(names) + 1))
    labels = np.where(has_direction[rows], 0, UNUSABLE)
    # An identity is pooled from its clips just as a clip is from its faces.
    templates = pool_descriptors(descriptors[rows], offsets, labels)
    return templates, np.count_nonzero(templates, axis=1) > 0


def _top_columns(scores: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
    """Of each row, the columns of the k highest scores, best first, the lower column on a tie."""
    n_rows, n = scores.shape
    if n == 0:
        return [np.zeros(0, dtype=np.int64)] * n_rows
    kth = max(n - k, 0)
    lowest = np.partition(scores, kth, axis=1)[:, kth]
    # All that tie with the k-th take part, so that the tie is broken by the column alone.
    rows, columns = np.nonzero(scores >= lowest[:, None])
    order = np.lexsort((columns, -scores[rows, columns], rows))
    firsts = np.searchsorted(rows, np.arange(n_rows + 1))
    return [columns[order[a : min(a + k, b)]] for a, b in pairwise(firsts)]


def _check_k(k: int) -> None:
    if k < 1:
        raise VidfaceError(f"k is the number of ranks that count, at least 1, got {k}")


def _check_clip_ids(clip_ids: Sequence[str], n: int) -> None:
    if len(clip_ids) != n:
        raise VidfaceError(
            f"clip_ids must have one entry a descriptor: {len(clip_ids)} for {n} rows"
        )
    seen = set()
    for clip_id in clip_ids:
        if not isinstance(clip_id, str):
            raise VidfaceError(f"a clip_id must be text, got {clip_id!r}")
        if clip_id in seen:
            raise VidfaceError(f"clip_id {clip_id!r} stands twice; ties rank by it, so name each")
        seen.add(clip_id)
