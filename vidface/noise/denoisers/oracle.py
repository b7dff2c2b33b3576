"""The denoiser "oracle": what the truth does not call noise; what perfect removal would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vidface.noise.denoisers.base import Denoiser

if TYPE_CHECKING:
    from vidface.noise.removal import FaceSet, Labels


@dataclass(frozen=True)
class Oracle(Denoiser):
    """Drop exactly what is known to be noise (label 1): what the best denoiser could do.

    A clip whose usable faces are all noise has no row with label 0.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> frames = np.array([[0, 1], [9, 1], [0, 0]], dtype=np.float32)
    >>> noise = np.array([True, False, False])
    >>> remove_noise(FaceSet(frames, np.array([0, 3]), noise=noise), Oracle())
    array([ 1,  0, -1], dtype=int32)
    """

    makes_clusters: ClassVar[bool] = False
    needs_truth: ClassVar[bool] = True

    def label(self, faces: FaceSet) -> Labels:
        labels = faces.label_unclustered(None)
        labels[faces.noise & (labels == 0)] = 1
        return labels
