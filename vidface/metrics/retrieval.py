"""Retrieval: find every clip of a person. mAP@k over the identities of a gallery."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidface.core.errors import VidfaceError
from vidface.metrics.bands import Draws
from vidface.metrics.curves import retrieval_block
from vidface.metrics.enrolment import MEMORY_BYTES, enrol, ranked_columns
from vidface.metrics.figures import NamedFigure, ProtocolResult, TextTable, interval_dict
from vidface.metrics.inputs import (
    CheckedSearch,
    check_clip_ids,
    check_k,
    check_search,
    identity_codes,
)
from vidface.metrics.uncertainty import Bootstrap, Replicates, ratio_replicates

POOL_IS_FIXED = "identities are resampled; the pool of clips is held fixed"
"""Of the interval: a resample asks for other people, in the same clips."""


@dataclass(frozen=True)
class Retrieval(ProtocolResult):
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
    enrolment: str = "mean"
    replicates: Replicates | None = field(default=None, compare=False)  # where a bootstrap ran
    table: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    # For each identity, in that order, the ranks of its hits among the first k, from 1, rising.
    hit_ranks: tuple[NDArray[np.int64], ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; the mean's key names k: "map_at_100".

        "ci95" and "ci95_note" are there where a bootstrap ran; "enrolment" where it is not "mean".
        """
        return {
            f"map_at_{self.k}": self.map_at_k,
            **interval_dict(self.replicates),
            "identities": self.identities,
            "identities_without_gallery": list(self.identities_without_gallery),
            "identities_without_descriptor": list(self.identities_without_descriptor),
            # Files from before there was a choice don't have it either, and mean "mean".
            **({} if self.enrolment == "mean" else {"enrolment": self.enrolment}),
        }

    def figures(self) -> list[NamedFigure]:
        """The mean average precision."""
        name, label = f"map_at_{self.k}", f"mAP@{self.k}"
        return [NamedFigure(name, label, self.map_at_k, self.replicates, is_headline=True)]

    def describe(self, split: str, gallery: str | None) -> list[str | TextTable]:
        """The mean, over whom it is taken, and who could not be searched for."""
        text = f"mAP@{self.k}  {self.figures()[0].text}  over {self.identities} identities"
        if self.enrolment != "mean":
            text += f", enrolled by {self.enrolment}"
        absent = self.identities_without_gallery
        if absent:
            text += f" ({len(absent)} of them not in the gallery: AP 0)"
        return [text]

    def curves(self, draws: Draws) -> dict[str, Any] | None:
        """Precision against recall, with its band."""
        return retrieval_block(self, draws)

    def per_identity(self) -> list[dict[str, Any]]:
        """A row for each identity of the split, in string order, to be written as a table.

        Columns: identity, average_precision, positives (its clips in the split), gallery_clips,
        clips_without_descriptor (of the positives).
        """
        return [dict(row) for row in self.table]

    def side_tables(self) -> dict[str, list[Sequence[Any]]]:
        """`per_identity`, with a header."""
        if not self.table:
            return {}
        rows = [tuple(row.values()) for row in self.table]
        return {"average_precision": [tuple(self.table[0]), *rows]}


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
    check_k(k)
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
    enrolment: str = "mean",
    bootstrap: Bootstrap | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Retrieval:
    """mAP@k: enrol each identity from the gallery, rank the split's clips for it.

    An identity is enrolled as the mean of its gallery descriptors (unit rows summed, the sum
    normalised; clips without a descriptor contribute nothing), or, with enrolment "max", as all of
    them: the most similar one gives the score. The clips of the split, distractors among them, are
    ranked by the inner product with it, rounded to float32 and clipped to [−1, 1]; equal scores
    rank by clip_id, in string order. A clip without a descriptor is never retrieved, and remains
    one of its identity's positives. mAP@k is the mean of `average_precision` over the identities
    that have a clip in the split; one that has no gallery clip, or none with a descriptor, has no
    list and scores 0. An identity of the gallery without a clip in the split is not in the mean.

    Exact to the last tie: products are summed in float64, in one order, and then rounded, so equal
    descriptors tie and neither `memory_bytes` nor the order of clips nor the library that picks
    the candidates (faiss, from 2^22 scores on; NumPy below) changes a place. Programs that rank by
    a float32 matrix product may differ where scores are within about 1e-6 of each other.

    Args:
        gallery_descriptors: (n_gallery, d) float32 rows of norm 1, or zero for no descriptor.
        gallery_identities: n_gallery names; "" (a distractor) enrols no one.
        descriptors: (n_clips, d) float32, the split, in the same form. Not changed.
        identities: n_clips names; "" is a distractor.
        clip_ids: n_clips names, each once.
        k: how many ranks count.
        enrolment: a name of `vidface.metrics.conventions.ENROLMENTS`: "mean" or "max".
        bootstrap: also resample the identities, for an interval; the pool of clips is held fixed.
        memory_bytes: bound for the working arrays, beside one sorted copy of the descriptors and
            the templates; a block is one identity at least.

    Raises:
        VidfaceError: shapes that disagree, rows neither of norm 1 nor zero, NaN, repeated clip ids,
            an unknown enrolment.

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
    search = check_search(
        gallery_descriptors, gallery_identities, descriptors, enrolment, memory_bytes
    )
    codes = identity_codes(identities, len(search.descriptors), "identities")
    names = sorted(set(identities) - {""})  # the ground truth; codes number it
    n_positives = np.bincount(codes[codes >= 0], minlength=len(names))
    precisions = dict.fromkeys(names, 0.0)
    hit_ranks = [np.zeros(0, dtype=np.int64) for _ in names]
    enrolled, ranked = _rank_each(search, names, clip_ids, k, enrolment, memory_bytes)
    for code, rows in ranked:
        is_hit = codes[rows] == code
        hit_ranks[code] = np.flatnonzero(is_hit) + 1
        precisions[names[code]] = average_precision(is_hit, int(n_positives[code]), k)

    gallery_clips = Counter(gallery_identities)
    undescribed = Counter(
        name for name, has in zip(identities, search.has_direction, strict=True) if not has
    )
    table = tuple(
        {
            "identity": name,
            "average_precision": precisions[name],
            "positives": int(n_positives[code]),
            "gallery_clips": gallery_clips[name],
            "clips_without_descriptor": undescribed[name],
        }
        for code, name in enumerate(names)
    )
    replicates = None
    if bootstrap is not None:
        values = list(precisions.values())
        replicates = ratio_replicates(values, np.ones(len(values)), bootstrap, POOL_IS_FIXED)
    return Retrieval(
        map_at_k=math.fsum(precisions.values()) / len(names) if names else None,
        k=k,
        identities=len(names),
        average_precision=precisions,
        identities_without_gallery=tuple(name for name in names if name not in gallery_clips),
        identities_without_descriptor=tuple(
            name
            for name, has_template in zip(names, enrolled.tolist(), strict=True)
            if name in gallery_clips and not has_template
        ),
        enrolment=enrolment,
        replicates=replicates,
        table=table,
        hit_ranks=tuple(hit_ranks),
    )


def rank_clips(
    gallery_descriptors: NDArray[np.floating[Any]],
    gallery_identities: Sequence[str],
    descriptors: NDArray[np.floating[Any]],
    clip_ids: Sequence[str],
    k: int = 100,
    enrolment: str = "mean",
    names: Sequence[str] | None = None,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> dict[str, list[str]]:
    """The k best clips for each identity, best first: the lists that `score_retrieval` scores.

    Args:
        gallery_descriptors, gallery_identities, descriptors, clip_ids, k, enrolment, memory_bytes:
            as for `score_retrieval`.
        names: the identities to rank for; None is all of the gallery, in string order. One that
            cannot be searched for gets an empty list.

    Returns:
        At most k clip ids for each of the names, in their order.

    Raises:
        VidfaceError: as `score_retrieval`; a name that is empty or no text.

    >>> import numpy as np
    >>> clips = np.array([[1, 0], [0.8, 0.6], [0, 0]], dtype=np.float32)
    >>> rank_clips(np.eye(2, dtype=np.float32), ["ann", "bob"], clips, ["v1", "v2", "v3"])
    {'ann': ['v1', 'v2'], 'bob': ['v2', 'v1']}
    """
    search = check_search(
        gallery_descriptors, gallery_identities, descriptors, enrolment, memory_bytes
    )
    wanted = sorted(set(gallery_identities) - {""}) if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if not isinstance(name, str) or not name:
            raise VidfaceError(f"names must be identities, texts that are not empty, got {name!r}")
    lists: dict[str, list[str]] = {name: [] for name in wanted}
    _, ranked = _rank_each(search, wanted, clip_ids, k, enrolment, memory_bytes)
    for number, rows in ranked:
        lists[wanted[number]] = [clip_ids[row] for row in rows.tolist()]
    return lists


def _rank_each(
    search: CheckedSearch,
    names: Sequence[str],
    clip_ids: Sequence[str],
    k: int,
    enrolment: str,
    memory_bytes: int,
) -> tuple[NDArray[np.bool_], Iterator[tuple[int, NDArray[np.int64]]]]:
    """Which names can be searched for, and of those each one's number and best rows."""
    check_k(k)
    check_clip_ids(clip_ids, len(search.descriptors))
    templates = enrol(
        search.gallery,
        search.gallery_has_direction,
        search.gallery_identities,
        names,
        enrolment,
    )
    rows = rows_by_clip_id(clip_ids, search.has_direction)
    enrolled = templates.sizes > 0
    ranked = ranked_columns(
        templates, np.flatnonzero(enrolled), search.descriptors[rows], k, memory_bytes
    )
    return enrolled, ((number, rows[best]) for number, best in ranked)


def rows_by_clip_id(clip_ids: Sequence[str], has_direction: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows that can be retrieved, in order of clip_id: of a tie the earlier ranks first."""
    rows = np.array(sorted(range(len(clip_ids)), key=clip_ids.__getitem__), dtype=np.int64)
    return rows[has_direction[rows]]
