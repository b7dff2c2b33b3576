"""Measures of an image's quality: `quality` of `cut_images`, higher is better."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError


def sharpness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How sharp images are: the variance of the Laplacian of their grey values.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000 (LAPV). The Laplacian
    is the sum of the four neighbours minus four times the pixel.

    Args:
        images: (n, 112, 112, 3) uint8 RGB; other sizes of 3x3 and more are taken, too.

    Returns:
        (n,) float32, ≥ 0; 0 for one colour all over.

    Raises:
        VidfaceError: another shape or type.

    >>> flat, striped = np.zeros((2, 112, 112, 3), np.uint8)
    >>> striped[::2] = 255
    >>> sharpness(np.stack([flat, striped])).tolist()
    [0.0, 260100.0]
    """
    import cv2

    greys = _grey_images(images)
    return np.array([cv2.Laplacian(grey, cv2.CV_64F).var() for grey in greys], np.float32)


def contrast(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The standard deviation of the grey values of images.

    Args:
        images: (n, 112, 112, 3) uint8 RGB, as for `sharpness`.

    Returns:
        (n,) float32 in [0, 127.5].

    Raises:
        VidfaceError: another shape or type.

    >>> half = np.zeros((1, 112, 112, 3), np.uint8)
    >>> half[:, :56] = 100
    >>> contrast(half).tolist()
    [50.0]
    """
    return np.array([grey.std() for grey in _grey_images(images)], np.float32)


def _grey_images(images: NDArray[np.uint8]) -> Iterator[np.ndarray]:
    import cv2

    array = np.asarray(images)
    fits = array.ndim == 4 and array.shape[3] == 3 and min(array.shape[1:3]) >= 3
    if not fits or array.dtype != np.uint8:
        raise VidfaceError(
            f"images must be (n, 112, 112, 3) uint8 RGB, got {array.shape} {array.dtype}"
        )
    return (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in array)
