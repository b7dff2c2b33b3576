"""The denoiser "trim": all but a fixed share, the faces least similar to the medoid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from vidface.core.settings import setting
from vidface.noise.denoisers.base import Denoiser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vidface.noise.removal import FaceSet, Labels


@dataclass(frozen=True)
class Trim(Denoiser):
    """Drop a fixed share of every clip (label 1): the faces least similar to its medoid.

    The medoid is the usable face with the largest sum of cosines to the clip's other usable faces,
    the earliest where several are best. Of n usable faces, ``floor(trim_share · n)`` (exact in
    decimals: 0.29 of 100 is 29) are dropped, those with the lowest cosine to the medoid; of equal
    ones the later. In float64; what differs by less than 1e-9 (for the medoid: in the mean) is
    equal.

    Source: the trimmed mean of robust statistics, in its simplest form.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> frames = np.array([[0, 1], [9, 1], [9, 0], [9, 2]], dtype=np.float32)
    >>> remove_noise(FaceSet(frames, np.array([0, 4])), Trim(trim_share=0.25))
    array([1, 0, 0, 0], dtype=int32)
    """

    makes_clusters: ClassVar[bool] = False

    trim_share: float = setting(
        0.25,
        help="Share of a clip's faces that trim drops, from 0 to below 1.",
        bounds="[0, 1)",
        rare=True,
    )

    def label(self, faces: FaceSet) -> Labels:
        import numpy as np

        from vidface.vectors.directions import find_medoids

        share = Fraction(repr(float(self.trim_share)))

        def find_groups(unit: NDArray[np.float64]) -> NDArray[np.integer[Any]]:
            is_dropped = np.zeros(len(unit), np.int64)
            count = math.floor(share * len(unit))
            if count:
                medoid = find_medoids(unit, np.array([0]))[0]
                is_dropped[find_lowest(unit @ unit[medoid], count)] = 1
            return is_dropped

        return faces.label_each_clip(find_groups, ranked=False)


def find_lowest(cosines: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Find the rows of the `count` lowest cosines, count ≥ 1; of equal ones at the cut, the later.

    >>> import numpy as np
    >>> find_lowest(np.array([0.5, 0.2, 0.5 + 1e-12]), 2)
    array([1, 2])
    """
    import numpy as np

    from vidface.vectors.directions import COSINE_TIE

    cut = np.partition(cosines, count - 1)[count - 1]
    below = np.flatnonzero(cosines < cut - COSINE_TIE)
    equal = np.flatnonzero(np.abs(cosines - cut) <= COSINE_TIE)
    return np.concatenate([below, equal[len(equal) - (count - len(below)) :]])
