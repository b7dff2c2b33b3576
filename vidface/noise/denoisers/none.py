"""The denoiser "none": every usable face is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.noise.denoisers.base import Denoiser

if TYPE_CHECKING:
    from vidface.noise.removal import FaceSet, Labels


@dataclass(frozen=True)
class KeepAll(Denoiser):
    """No noise removal: every usable face is kept (label 0), the others are −1.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> frames = np.array([[1, 0], [0, 0], [0, 1]], dtype=np.float32)
    >>> remove_noise(FaceSet(frames, np.array([0, 3])), KeepAll())
    array([ 0, -1,  0], dtype=int32)
    """

    def label(self, faces: FaceSet) -> Labels:
        return faces.label_unclustered(None)
