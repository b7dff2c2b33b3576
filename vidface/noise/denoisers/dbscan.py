"""The denoiser "dbscan": the largest cluster of DBSCAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidface.core.settings import setting
from vidface.noise.denoisers.base import ThresholdDenoiser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vidface.noise.removal import FaceSet, Labels

# Peak of one long clip of near faces over the square of its length: 19.1 with scikit-learn 1.9,
# and some air.
_PAIR_BYTES = 24


@dataclass(frozen=True)
class Dbscan(ThresholdDenoiser):
    """DBSCAN within each clip: like union-find, but a bridge of too few faces joins nothing.

    Faces are neighbours where ``1 − cosine ≤ 1 − threshold``, computed as float64 (here equality
    does count, as everywhere in DBSCAN; with min_samples = 1 it is union-find but for that). A
    face with min_samples neighbours, itself included, is a core; clusters are cores joined through
    cores, and the faces near one of them. What is in no cluster (DBSCAN's noise) becomes a cluster
    of its own, ranked behind all others; where a clip has no cluster at all, the first of these is
    label 0, so that exactly one face is kept. A clip needs 24 bytes · faces² of working memory.

    Source: Ester et al., "A density-based algorithm for discovering clusters in large spatial
    databases with noise", KDD 1996; `sklearn.cluster.DBSCAN`.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> frames = np.array([[0, 1], [9, 1], [9, 0], [9, 2], [-1, 0]], dtype=np.float32)
    >>> remove_noise(FaceSet(frames, np.array([0, 5])), Dbscan(threshold=0.9))
    array([1, 0, 0, 0, 2], dtype=int32)
    """

    min_samples: int = setting(
        3,
        help="How many similar faces make a face the core of a cluster, for dbscan.",
        bounds="[1, inf)",
        rare=True,
    )

    def label(self, faces: FaceSet) -> Labels:
        from vidface.vectors.rows import float32_threshold

        cosine_threshold = float32_threshold(self.threshold)
        if self.threshold is None or cosine_threshold is None or cosine_threshold >= 1:
            return faces.label_unclustered(self.threshold)
        from sklearn.cluster import DBSCAN

        eps, least = 1 - float(self.threshold), int(self.min_samples)
        method = DBSCAN(eps=eps, min_samples=least, metric="cosine")

        def find_groups(unit: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
            faces.check_pairs_fit(len(unit), _PAIR_BYTES)
            return method.fit_predict(unit)

        return faces.label_each_clip(find_groups)
