"""The denoiser "hdbscan": the largest cluster of HDBSCAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidface.core.settings import setting
from vidface.noise.denoisers.base import Denoiser

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vidface.noise.removal import FaceSet, Labels


@dataclass(frozen=True)
class Hdbscan(Denoiser):
    """HDBSCAN within each clip: clusters of any density, without a threshold.

    Distances are those of the unit rows, in float64. One cluster alone is allowed: most clips show
    one person, and scikit-learn's default, which never finds that, keeps all of them (on YTF's
    noisy clips it drops 0.4 % of the noise). The price: of a person whose faces are spread evenly
    it may keep the densest few alone, the more so the longer the clip. A clip without any cluster,
    or with fewer usable faces than min_cluster_size, keeps all usable faces. Noise points become
    clusters of their own, ranked behind all others.

    Source: Campello et al., "Density-based clustering based on hierarchical density estimates",
    PAKDD 2013; `sklearn.cluster.HDBSCAN`.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> frames = np.array([[0, 9], [9, 0], [9, 1], [1, 9], [9, 2]], dtype=np.float32)
    >>> remove_noise(FaceSet(frames, np.array([0, 5])), Hdbscan(min_cluster_size=2))
    array([1, 0, 0, 1, 0], dtype=int32)
    """

    min_cluster_size: int = setting(
        5, help="Faces of the smallest cluster of hdbscan.", bounds="[2, inf)", rare=True
    )

    def label(self, faces: FaceSet) -> Labels:
        import numpy as np
        from sklearn.cluster import HDBSCAN

        least = int(self.min_cluster_size)
        # copy: a new version of scikit-learn changes its default, and warns of that until then.
        method = HDBSCAN(min_cluster_size=least, allow_single_cluster=True, copy=True)

        def find_groups(unit: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
            everything = np.zeros(len(unit), np.int64)
            if len(unit) < least:
                return everything
            groups = method.fit_predict(unit)
            return groups if (groups >= 0).any() else everything

        return faces.label_each_clip(find_groups)
