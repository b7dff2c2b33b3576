"""Denoisers: the ways to decide which faces of a clip are noise, each by its name.

All of them label faces as `vidface.noise.clusters.cluster_frames` does: 0 is kept, 1, 2, … are
dropped, −1 is an embedding without a direction. `DENOISERS` is the registry, `label_faces` picks
from it.
- union-find (threshold): the largest connected component, the paper's method.
- none: every usable face.
- dbscan (threshold, min_samples): the largest cluster of DBSCAN.
- hdbscan (min_cluster_size): the largest cluster of HDBSCAN.
- complete-linkage (threshold): the largest cluster in which every pair is similar.
- trim (trim_share): all but a fixed share, the faces least similar to the medoid.
- oracle: what the truth does not call noise; what perfect noise removal would give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.noise.clusters import MEMORY_BYTES, NO_CLUSTERING, cluster_frames
from vidface.vectors.descriptors import COSINE_TIE, medoids
from vidface.vectors.rows import (
    check_embeddings,
    check_offsets,
    float32_threshold,
    unit_rows_float64,
)

Embeddings = NDArray[np.floating[Any]]
Offsets = NDArray[np.integer[Any]]
Labels = NDArray[np.int32]

# Peaks of one long clip of near faces over the square of its length: 19.1 and 12.6 with
# scikit-learn 1.9 and scipy 1.17, and some air.
_DBSCAN_PAIR_BYTES = 24
_LINKAGE_PAIR_BYTES = 16

_NEVER = 4.0  # what is added to the distance of a pair that must not share a cluster; others ≤ 2


def union_find(
    embeddings: Embeddings,
    offsets: Offsets,
    *,
    threshold: float | None = 0.4,
    memory_bytes: int = MEMORY_BYTES,
) -> Labels:
    """The paper's method: `vidface.noise.clusters.cluster_frames`, whose arguments and errors it
    has.

    >>> import numpy as np
    >>> frames = np.array([[1, 0], [4, 3], [0, 1]], dtype=np.float32)
    >>> union_find(frames, np.array([0, 3]), threshold=0.75)
    array([0, 0, 1], dtype=int32)
    """
    return cluster_frames(embeddings, offsets, threshold, memory_bytes=memory_bytes)


def keep_all(embeddings: Embeddings, offsets: Offsets) -> Labels:
    """No noise removal: every usable face is kept (label 0), the others are −1.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).

    Returns:
        (n_rows,) int32 labels.

    Raises:
        VidfaceError: shapes or offsets that disagree.

    >>> import numpy as np
    >>> keep_all(np.array([[1, 0], [0, 0], [0, 1]], dtype=np.float32), np.array([0, 3]))
    array([ 0, -1,  0], dtype=int32)
    """
    return cluster_frames(embeddings, offsets, NO_CLUSTERING)


def dbscan(
    embeddings: Embeddings,
    offsets: Offsets,
    *,
    threshold: float | None = 0.4,
    min_samples: int = 3,
    memory_bytes: int = MEMORY_BYTES,
) -> Labels:
    """DBSCAN within each clip: like union-find, but a bridge of too few faces joins nothing.

    Faces are neighbours where ``1 − cosine ≤ 1 − threshold``, computed as float64 (here equality
    does count, as everywhere in DBSCAN; with min_samples = 1 it is union-find but for that). A
    face with min_samples neighbours, itself included, is a core; clusters are cores joined through
    cores, and the faces near one of them. What is in no cluster (DBSCAN's noise) becomes a cluster
    of its own, ranked behind all others; where a clip has no cluster at all, the first of these is
    label 0, so that exactly one face is kept.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        threshold: cosine, in (−1, 1). None or −1 and less: every usable face is kept. 1 and more:
            nothing joins.
        min_samples: faces, 1 or more.
        memory_bytes: upper bound for what grows with the square of a clip: 24 bytes · faces².

    Returns:
        (n_rows,) int32 labels; clusters by falling size, equal ones by their earliest row.

    Raises:
        VidfaceError: shapes or offsets that disagree, a wrong setting, or a clip that does not
            fit into memory_bytes.

    Source: Ester et al., "A density-based algorithm for discovering clusters in large spatial
    databases with noise", KDD 1996; `sklearn.cluster.DBSCAN`.

    >>> import numpy as np
    >>> frames = np.array([[0, 1], [9, 1], [9, 0], [9, 2], [-1, 0]], dtype=np.float32)
    >>> dbscan(frames, np.array([0, 5]), threshold=0.9)
    array([1, 0, 0, 0, 2], dtype=int32)
    """
    _check_count("min_samples", min_samples, 1)
    cosine_threshold = float32_threshold(threshold)
    if threshold is None or cosine_threshold is None:
        return keep_all(embeddings, offsets)
    if cosine_threshold >= 1:
        return cluster_frames(embeddings, offsets, 1.0)
    from sklearn.cluster import DBSCAN

    method = DBSCAN(eps=1 - float(threshold), min_samples=int(min_samples), metric="cosine")

    def group(unit: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
        _check_fits(len(unit), _DBSCAN_PAIR_BYTES, memory_bytes)
        return method.fit_predict(unit)

    return _clip_by_clip(embeddings, offsets, group)


def hdbscan(embeddings: Embeddings, offsets: Offsets, *, min_cluster_size: int = 5) -> Labels:
    """HDBSCAN within each clip: clusters of any density, without a threshold.

    Distances are those of the unit rows, in float64. One cluster alone is allowed: most clips show
    one person, and scikit-learn's default, which never finds that, keeps all of them (on YTF's
    noisy clips it drops 0.4 % of the noise). The price: of a person whose faces are spread evenly
    it may keep the densest few alone, the more so the longer the clip. A clip without any cluster,
    or with fewer usable faces than min_cluster_size, keeps all usable faces. Noise points become
    clusters of their own, ranked behind all others.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        min_cluster_size: faces, 2 or more.

    Returns:
        (n_rows,) int32 labels; clusters by falling size, equal ones by their earliest row.

    Raises:
        VidfaceError: shapes or offsets that disagree, or a wrong min_cluster_size.

    Source: Campello et al., "Density-based clustering based on hierarchical density estimates",
    PAKDD 2013; `sklearn.cluster.HDBSCAN`.

    >>> import numpy as np
    >>> frames = np.array([[0, 9], [9, 0], [9, 1], [1, 9], [9, 2]], dtype=np.float32)
    >>> hdbscan(frames, np.array([0, 5]), min_cluster_size=2)
    array([1, 0, 0, 1, 0], dtype=int32)
    """
    _check_count("min_cluster_size", min_cluster_size, 2)
    from sklearn.cluster import HDBSCAN

    # copy: a new version of scikit-learn changes its default, and warns of that until then.
    method = HDBSCAN(min_cluster_size=int(min_cluster_size), allow_single_cluster=True, copy=True)

    def group(unit: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
        if len(unit) < min_cluster_size:
            return np.zeros(len(unit), np.int64)
        found = method.fit_predict(unit)
        return found if (found >= 0).any() else np.zeros(len(unit), np.int64)

    return _clip_by_clip(embeddings, offsets, group)


def complete_linkage(
    embeddings: Embeddings,
    offsets: Offsets,
    *,
    threshold: float | None = 0.4,
    memory_bytes: int = MEMORY_BYTES,
) -> Labels:
    """Clusters in which every pair has ``cosine > threshold``: no chains, unlike union-find.

    The two clusters whose least similar pair is most similar are merged, again and again, as long
    as that pair's cosine is above the threshold, strictly and compared as float32, as in
    `cluster_frames`. Between merges that are equally good, the order is that of
    `scipy.cluster.hierarchy.linkage`.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        threshold: cosine, in (−1, 1). None or −1 and less: every usable face is kept. 1 and more:
            nothing joins.
        memory_bytes: upper bound for what grows with the square of a clip: 16 bytes · faces².

    Returns:
        (n_rows,) int32 labels; clusters by falling size, equal ones by their earliest row.

    Raises:
        VidfaceError: shapes or offsets that disagree, a NaN threshold, or a clip that does not
            fit into memory_bytes.

    Source: Defays, "An efficient algorithm for a complete link method", 1977;
    `scipy.cluster.hierarchy`.

    >>> import numpy as np
    >>> chain = np.array([[1, 0], [4, 3], [3, 4]], dtype=np.float32)  # cosines 0.8, 0.96; 0.6
    >>> complete_linkage(chain, np.array([0, 3]), threshold=0.75)
    array([1, 0, 0], dtype=int32)
    """
    cosine_threshold = float32_threshold(threshold)
    if cosine_threshold is None:
        return keep_all(embeddings, offsets)
    if cosine_threshold >= 1:
        return cluster_frames(embeddings, offsets, 1.0)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    def group(unit: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
        _check_fits(len(unit), _LINKAGE_PAIR_BYTES, memory_bytes)
        if len(unit) == 1:
            return np.zeros(1, np.int64)
        cosines = squareform(unit @ unit.T, checks=False)  # (pairs,)
        # Rounding may make 1 − cosine equal 1 − threshold; far away, the cut is strict for sure.
        apart = cosines.astype(np.float32) <= cosine_threshold
        distances = np.maximum(1 - cosines, 0) + _NEVER * apart
        return fcluster(linkage(distances, "complete"), _NEVER - 1, "distance")

    return _clip_by_clip(embeddings, offsets, group)


def trim(embeddings: Embeddings, offsets: Offsets, *, trim_share: float = 0.25) -> Labels:
    """Drop a fixed share of every clip: the faces least similar to its medoid.

    The medoid is the usable face with the largest sum of cosines to the clip's other usable faces,
    the earliest where several are best. Of n usable faces, ``floor(trim_share · n)`` (exact in
    decimals: 0.29 of 100 is 29) are dropped, those with the lowest cosine to the medoid; of equal
    ones the later. In float64; what differs by less than 1e-9 (for the medoid: in the mean) is
    equal.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        trim_share: in [0, 1).

    Returns:
        (n_rows,) int32 labels: 0 kept, 1 dropped, −1 unusable.

    Raises:
        VidfaceError: shapes or offsets that disagree, or a wrong trim_share.

    Source: the trimmed mean of robust statistics, in its simplest form.

    >>> import numpy as np
    >>> frames = np.array([[0, 1], [9, 1], [9, 0], [9, 2]], dtype=np.float32)
    >>> trim(frames, np.array([0, 4]), trim_share=0.25)
    array([1, 0, 0, 0], dtype=int32)
    """
    _check_share(trim_share)
    share = Fraction(repr(float(trim_share)))
    embeddings, offsets = _checked(embeddings, offsets)
    labels = np.full(len(embeddings), UNUSABLE, dtype=np.int32)
    for a, b in pairwise(offsets.tolist()):
        unit, usable = unit_rows_float64(embeddings[a:b])
        rows = a + np.flatnonzero(usable)
        labels[rows] = 0
        count = math.floor(share * len(rows))
        if count:
            unit = unit[usable]
            medoid = medoids(unit, np.array([0]))[0]
            labels[rows[_lowest(unit @ unit[medoid], count)]] = 1
    return labels


def oracle(embeddings: Embeddings, offsets: Offsets, *, noise: NDArray[np.bool_]) -> Labels:
    """Drop exactly what is noise: what the best denoiser could do.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        noise: (n_rows,) bool, as `vidface.noise.truth.Truth.noise_of` gives it.

    Returns:
        (n_rows,) int32 labels: 0 kept, 1 noise, −1 unusable. A clip whose usable faces are all
        noise has no row with label 0.

    Raises:
        VidfaceError: shapes or offsets that disagree.

    >>> import numpy as np
    >>> frames = np.array([[0, 1], [9, 1], [0, 0]], dtype=np.float32)
    >>> oracle(frames, np.array([0, 3]), noise=np.array([True, False, False]))
    array([ 1,  0, -1], dtype=int32)
    """
    labels = keep_all(embeddings, offsets)
    noise = np.asarray(noise)
    if noise.shape != labels.shape or noise.dtype != np.bool_:
        raise VidfaceError(
            f"noise must be ({len(labels)},) bool, one an embedding, "
            f"got the shape {noise.shape} of {noise.dtype}"
        )
    labels[noise & (labels == 0)] = 1
    return labels


@dataclass(frozen=True)
class Denoiser:
    """A way to remove noise: its function, and which fields of `DenoiserSettings` it takes."""

    function: Callable[..., Labels]
    settings: tuple[str, ...] = ()
    takes_memory: bool = False  # the keyword memory_bytes
    takes_noise: bool = False  # the keyword noise
    clusters: bool = True  # labels above 0 are clusters; else just what was dropped


DENOISERS: dict[str, Denoiser] = {
    "union-find": Denoiser(union_find, ("threshold",), takes_memory=True),
    "none": Denoiser(keep_all),
    "dbscan": Denoiser(dbscan, ("threshold", "min_samples"), takes_memory=True),
    "hdbscan": Denoiser(hdbscan, ("min_cluster_size",)),
    "complete-linkage": Denoiser(complete_linkage, ("threshold",), takes_memory=True),
    "trim": Denoiser(trim, ("trim_share",), clusters=False),
    "oracle": Denoiser(oracle, takes_noise=True, clusters=False),
}
"""Every denoiser by its name."""


@dataclass(frozen=True)
class DenoiserSettings:
    """Which denoiser, and the settings of all of them; each takes its own and ignores the rest.

    Raises:
        VidfaceError: an unknown method or a setting out of range, whether the method takes it or
            not.
    """

    method: str = "union-find"
    threshold: float | None = 0.4  # a cosine; None = no clustering
    min_samples: int = 3  # faces, ≥ 1
    min_cluster_size: int = 5  # faces, ≥ 2
    trim_share: float = 0.25  # in [0, 1)

    def __post_init__(self) -> None:
        _denoiser(self.method)
        if self.threshold is not None:
            if not isinstance(self.threshold, Real) or isinstance(self.threshold, bool):
                raise VidfaceError(f"threshold must be a cosine or None, got {self.threshold!r}")
            float32_threshold(self.threshold)
        _check_count("min_samples", self.min_samples, 1)
        _check_count("min_cluster_size", self.min_cluster_size, 2)
        _check_share(self.trim_share)

    def used(self) -> dict[str, Any]:
        """The method and the settings that it takes, for artefacts and tables.

        >>> DenoiserSettings("trim").used()
        {'method': 'trim', 'trim_share': 0.25}
        """
        names = DENOISERS[self.method].settings
        return {"method": self.method, **{name: getattr(self, name) for name in names}}


def label_faces(
    embeddings: Embeddings,
    offsets: Offsets,
    settings: DenoiserSettings,
    noise: NDArray[np.bool_] | None = None,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> Labels:
    """Label every face by the denoiser that `settings` name.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw; the rows of a clip stand together
            in time order. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        settings: the method and its settings.
        noise: (n_rows,) bool, what the truth calls noise; for "oracle", and for it alone.
        memory_bytes: upper bound for union-find, dbscan and complete-linkage, as they state it;
            the others need a few copies of a clip in float64.

    Returns:
        (n_rows,) int32: 0 kept; 1, 2, … other clusters by falling size (equal ones by their
        earliest row); −1 an embedding that is NaN, infinite or zero, which is never kept.

    Raises:
        VidfaceError: what the denoiser refuses; noise missing for "oracle" or given to another.

    >>> import numpy as np
    >>> frames = np.array([[1, 0], [4, 3], [3, 4], [0, 0]], dtype=np.float32)
    >>> label_faces(frames, np.array([0, 4]), DenoiserSettings(threshold=0.75))
    array([ 0,  0,  0, -1], dtype=int32)
    >>> label_faces(frames, np.array([0, 4]), DenoiserSettings("complete-linkage", 0.75))
    array([ 1,  0,  0, -1], dtype=int32)
    """
    denoiser = DENOISERS[settings.method]
    arguments = {name: getattr(settings, name) for name in denoiser.settings}
    if denoiser.takes_memory:
        arguments["memory_bytes"] = memory_bytes
    if denoiser.takes_noise:
        if noise is None:
            raise VidfaceError(
                f"denoiser '{settings.method}' needs to know which faces are noise; give a truth"
            )
        arguments["noise"] = noise
    elif noise is not None:
        raise VidfaceError(
            f"denoiser '{settings.method}' must not see which faces are noise; leave noise out"
        )
    return denoiser.function(embeddings, offsets, **arguments)


def uses_threshold(method: str) -> bool:
    """Whether a denoiser takes a cosine threshold, so that it can be swept.

    Raises:
        VidfaceError: an unknown method.

    >>> [name for name in DENOISERS if uses_threshold(name)]
    ['union-find', 'dbscan', 'complete-linkage']
    """
    return "threshold" in _denoiser(method).settings


def _denoiser(method: str) -> Denoiser:
    # A list (from a settings file) is not hashable, so it's compared and not looked up.
    if method not in list(DENOISERS):
        raise VidfaceError(f"unknown denoiser '{method}' (known: {', '.join(DENOISERS)})")
    return DENOISERS[method]


def _check_count(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise VidfaceError(f"{name} must be a whole number of faces ≥ {least}, got {value!r}")


def _check_share(trim_share: float) -> None:
    number = isinstance(trim_share, Real) and not isinstance(trim_share, bool)
    if not number or not 0 <= trim_share < 1:  # NaN is not, either
        raise VidfaceError(f"trim_share must lie in [0, 1), got {trim_share!r}")


def _check_fits(n: int, pair_bytes: int, memory_bytes: int) -> None:
    needed = pair_bytes * n * n
    if needed > memory_bytes:
        raise VidfaceError(
            f"a clip with {n} usable faces needs {needed} bytes to cluster, memory_bytes is "
            f"{memory_bytes}; raise it (--memory), or take union-find, which compares in blocks"
        )


def _checked(embeddings: Embeddings, offsets: Offsets) -> tuple[Embeddings, NDArray[np.int64]]:
    embeddings = check_embeddings(embeddings)
    return embeddings, check_offsets(offsets, len(embeddings))


def _clip_by_clip(
    embeddings: Embeddings,
    offsets: Offsets,
    group: Callable[[NDArray[np.float64]], NDArray[np.integer[Any]]],
) -> Labels:
    """Labels from `group`, which numbers the usable unit rows of one clip; −1 is "alone"."""
    embeddings, offsets = _checked(embeddings, offsets)
    labels = np.full(len(embeddings), UNUSABLE, dtype=np.int32)
    for a, b in pairwise(offsets.tolist()):
        unit, usable = unit_rows_float64(embeddings[a:b])
        if usable.any():
            labels[a + np.flatnonzero(usable)] = _ranks(group(unit[usable]))
    return labels


def _ranks(groups: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Number groups by falling size, then by first row; rows of −1, each alone, come behind.

    >>> import numpy as np
    >>> _ranks(np.array([-1, 7, 2, 2, -1])).tolist()
    [2, 1, 0, 0, 3]
    """
    alone = groups < 0
    distinct = np.where(alone, groups.max() + 1 + np.arange(len(groups)), groups)
    _, firsts, inverse, sizes = np.unique(
        distinct, return_index=True, return_inverse=True, return_counts=True
    )
    ranks = np.empty(len(firsts), np.int64)
    ranks[np.lexsort((firsts, -sizes, alone[firsts]))] = np.arange(len(firsts))
    return ranks[inverse]


def _lowest(cosines: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The rows of the `count` lowest cosines, count ≥ 1; of equal ones at the cut, the later."""
    cut = np.partition(cosines, count - 1)[count - 1]
    below = np.flatnonzero(cosines < cut - COSINE_TIE)
    equal = np.flatnonzero(np.abs(cosines - cut) <= COSINE_TIE)
    return np.concatenate([below, equal[len(equal) - (count - len(below)) :]])
