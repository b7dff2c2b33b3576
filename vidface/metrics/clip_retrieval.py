"""Clip retrieval: each clip of a split asks for the other clips of its person. No gallery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.metrics.enrolment import MEMORY_BYTES, Templates, ranked_columns
from vidface.metrics.figures import NamedFigure, ProtocolResult, TextTable, figure_dict
from vidface.metrics.inputs import check_clip_ids, check_k, check_memory, identity_codes
from vidface.metrics.retrieval import POOL_IS_FIXED, average_precision, rows_by_clip_id
from vidface.metrics.uncertainty import Bootstrap, Replicates, ratio_replicates
from vidface.vectors.descriptors import check_descriptors


@dataclass(frozen=True)
class ClipRetrieval(ProtocolResult):
    """Leave-one-out retrieval of a split. All figures are fractions in [0, 1].

    They are None where there is no query: no labelled clip with another clip of its identity.
    """

    map_at_k: float | None  # the mean over queries
    map_by_identity: float | None  # the mean over identities of the mean over their queries
    precision_at_1: float | None  # the share of queries whose first clip is right
    k: int
    queries: int
    queries_without_descriptor: int  # score 0
    queries_without_positive: int  # labelled clips without another clip: left out
    identities: int  # that have a query
    replicates: Replicates | None = field(default=None, compare=False)
    replicates_by_identity: Replicates | None = field(default=None, compare=False)
    replicates_at_1: Replicates | None = field(default=None, compare=False)

    def __str__(self) -> str:
        figure = "n/a" if self.map_at_k is None else f"{self.map_at_k:.4f}"
        return f"ClipRetrieval(mAP@{self.k} {figure}, {self.queries} queries)"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; each figure has its own "ci95" where a bootstrap ran."""
        return {
            f"map_at_{self.k}": figure_dict(self.map_at_k, self.replicates),
            "map_by_identity": figure_dict(self.map_by_identity, self.replicates_by_identity),
            "precision_at_1": figure_dict(self.precision_at_1, self.replicates_at_1),
            "queries": self.queries,
            "queries_without_descriptor": self.queries_without_descriptor,
            "queries_without_positive": self.queries_without_positive,
            "identities": self.identities,
        }

    def figures(self) -> list[NamedFigure]:
        """mAP@k over queries, mAP@k over identities, precision at rank 1."""
        by_identity, at_1 = self.replicates_by_identity, self.replicates_at_1
        named = (
            (f"clip_map_at_{self.k}", f"mAP@{self.k}", self.map_at_k, self.replicates),
            ("clip_map_by_identity", "by identity", self.map_by_identity, by_identity),
            ("clip_precision_at_1", "first right", self.precision_at_1, at_1),
        )
        return [NamedFigure(*figure, is_main=False) for figure in named]

    def describe(self, split: str, gallery: str | None) -> list[str | TextTable]:
        """The three figures, one below the other."""
        width = len("first right")
        lines = [f"  {figure.label:<{width}}  {figure.text}" for figure in self.figures()]
        return ["\n".join([f"clip to clip, {self.queries} queries", *lines])]


def score_clip_retrieval(
    descriptors: NDArray[np.floating[Any]],
    identities: Sequence[str],
    clip_ids: Sequence[str],
    k: int = 100,
    *,
    bootstrap: Bootstrap | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> ClipRetrieval:
    """mAP@k with every clip as a query, leaving it out of what is ranked for it.

    A query is a labelled clip with at least one other clip of its identity in the split. All other
    clips, distractors among them, are ranked by the inner product with it, rounded to float32 and
    clipped to [−1, 1]; equal scores rank by clip_id, in string order, exactly as `score_retrieval`
    does it. AP is `average_precision` with m = the number of the identity's other clips, also of
    those without a descriptor, which are never retrieved. A query without one scores 0 and stays.

    Args:
        descriptors: (n_clips, d) float32 rows of norm 1, or zero for no descriptor. Not changed.
        identities: n_clips names; "" is a distractor: never a query, always in the way.
        clip_ids: n_clips names, each once.
        k: how many ranks count.
        bootstrap: also resample the identities, for intervals; the pool of clips is held fixed.
        memory_bytes: bound for the working arrays, beside two copies of the descriptors.

    Raises:
        VidfaceError: shapes that disagree, rows neither of norm 1 nor zero, NaN, repeated clip ids.

    Source: leave-one-out retrieval as for image retrieval sets (Oxford and Paris buildings), with
    the iQIYI-VID challenge's AP@k.

    >>> import numpy as np
    >>> clips = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0, 1]], dtype=np.float32)
    >>> result = score_clip_retrieval(clips, ["ann", "ann", "", "bob"], ["v1", "v2", "v3", "v4"])
    >>> result.map_at_k, result.precision_at_1  # v3 is nearer to either; v2's next is v4
    (0.41666666666666663, 0.0)
    >>> result.queries, result.queries_without_positive
    (2, 1)
    """
    check_k(k)
    descriptors, has_direction = check_descriptors(descriptors)
    codes = identity_codes(identities, len(descriptors), "identities")
    check_clip_ids(clip_ids, len(descriptors))
    check_memory(memory_bytes)

    n_identities = int(codes.max(initial=-1)) + 1
    sizes = np.bincount(codes[codes >= 0], minlength=n_identities)
    positives = np.where(codes >= 0, sizes[codes] - 1, 0) if n_identities else codes * 0
    is_query = positives > 0
    precisions = np.zeros(len(codes))
    first_is_right = np.zeros(len(codes), dtype=bool)

    pool = rows_by_clip_id(clip_ids, has_direction)
    queries = np.flatnonzero(is_query & has_direction)
    templates = Templates(descriptors[queries], np.arange(len(queries) + 1))
    # One more than k, for the query finds itself.
    for number, best in ranked_columns(
        templates, np.arange(len(queries)), descriptors[pool], k + 1, memory_bytes
    ):
        query = queries[number]
        others = pool[best]
        is_hit = codes[others[others != query]] == codes[query]
        precisions[query] = average_precision(is_hit, int(positives[query]), k)
        first_is_right[query] = is_hit[:1].any()

    queries_of = np.where(sizes > 1, sizes, 0)  # of each identity
    with_query = queries_of > 0
    n_queries = int(queries_of.sum())
    labelled = codes >= 0
    sums = np.bincount(codes[labelled], precisions[labelled], minlength=n_identities)
    hits = np.bincount(codes[labelled], first_is_right[labelled], minlength=n_identities)
    means = sums / np.maximum(queries_of, 1)
    replicates = {}
    if bootstrap is not None:
        parts = {
            "replicates": (sums, queries_of),
            "replicates_by_identity": (means, with_query),
            "replicates_at_1": (hits, queries_of),
        }
        for name, (numerators, denominators) in parts.items():
            replicates[name] = ratio_replicates(numerators, denominators, bootstrap, POOL_IS_FIXED)
    return ClipRetrieval(
        map_at_k=math.fsum(precisions) / n_queries if n_queries else None,
        map_by_identity=math.fsum(means) / int(with_query.sum()) if n_queries else None,
        precision_at_1=int(first_is_right.sum()) / n_queries if n_queries else None,
        k=k,
        queries=n_queries,
        queries_without_descriptor=int((is_query & ~has_direction).sum()),
        queries_without_positive=int((sizes == 1).sum()),
        identities=int(with_query.sum()),
        **replicates,
    )
