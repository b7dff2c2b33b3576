"""The denoiser "union-find": the largest connected component, the paper's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.noise.denoisers.base import ThresholdDenoiser

if TYPE_CHECKING:
    from vidface.noise.removal import FaceSet, Labels


@dataclass(frozen=True)
class UnionFind(ThresholdDenoiser):
    """Single linkage: clusters are the connected components of ``cosine > threshold``.

    The linkage tree is cut at the threshold, so that a run that keeps the tree computes every
    similarity once for all thresholds; the labels are those of
    `vidface.noise.clusters.cluster_frames`, which says more.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> frames = np.array([[1, 0], [4, 3], [0, 1]], dtype=np.float32)
    >>> remove_noise(FaceSet(frames, np.array([0, 3])), UnionFind(threshold=0.75))
    array([0, 0, 1], dtype=int32)
    """

    uses_tree: ClassVar[bool] = True

    def label(self, faces: FaceSet) -> Labels:
        from vidface.noise.clusters import cut

        return cut(faces.tree, self.threshold)
