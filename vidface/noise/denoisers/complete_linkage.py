"""The denoiser "complete-linkage": the largest cluster in which every pair is similar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidface.noise.denoisers.base import ThresholdDenoiser

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vidface.noise.removal import FaceSet, Labels

# Peak of one long clip of near faces over the square of its length: 12.6 with scipy 1.17, and some
# air.
_PAIR_BYTES = 16

_NEVER = 4.0  # what is added to the distance of a pair that must not share a cluster; others ≤ 2


@dataclass(frozen=True)
class CompleteLinkage(ThresholdDenoiser):
    """Clusters in which every pair has ``cosine > threshold``: no chains, unlike union-find.

    The two clusters whose least similar pair is most similar are merged, again and again, as long
    as that pair's cosine is above the threshold, strictly and compared as float32, as in
    `cluster_frames`. Between merges that are equally good, the order is that of
    `scipy.cluster.hierarchy.linkage`. A clip needs 16 bytes · faces² of working memory.

    Source: Defays, "An efficient algorithm for a complete link method", 1977;
    `scipy.cluster.hierarchy`.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> chain = np.array([[1, 0], [4, 3], [3, 4]], dtype=np.float32)  # cosines 0.8, 0.96; 0.6
    >>> remove_noise(FaceSet(chain, np.array([0, 3])), CompleteLinkage(threshold=0.75))
    array([1, 0, 0], dtype=int32)
    """

    def label(self, faces: FaceSet) -> Labels:
        from vidface.vectors.rows import float32_threshold

        cosine_threshold = float32_threshold(self.threshold)
        if cosine_threshold is None or cosine_threshold >= 1:
            return faces.label_unclustered(self.threshold)
        import numpy as np
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform

        def find_groups(unit: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
            faces.check_pairs_fit(len(unit), _PAIR_BYTES)
            if len(unit) == 1:
                return np.zeros(1, np.int64)
            cosines = squareform(unit @ unit.T, checks=False)  # (pairs,)
            # Rounding may make 1 − cosine equal 1 − threshold; far away, the cut is strict for
            # sure.
            is_apart = cosines.astype(np.float32) <= cosine_threshold
            distances = np.maximum(1 - cosines, 0) + _NEVER * is_apart
            return fcluster(linkage(distances, "complete"), _NEVER - 1, "distance")

        return faces.label_each_clip(find_groups)
