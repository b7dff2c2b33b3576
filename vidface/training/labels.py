"""Labels of training images, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError


def check_labels(labels: NDArray[np.integer[Any]], n: int | None = None) -> NDArray[np.int64]:
    """Labels as (n,) int64, in [0, 2^63).

    Args:
        n: how many there must be; None: any number.

    Raises:
        VidfaceError: another shape or type, or a label out of range.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu" or n not in (None, len(array)):
        wanted = "n" if n is None else n
        raise VidfaceError(
            f"labels must be ({wanted},) whole numbers, one an image, got the shape "
            f"{array.shape} of {array.dtype}"
        )
    array = array.astype(np.int64, copy=False)
    if len(array) and array.min() < 0:  # also of a number that int64 does not hold
        i = int(np.argmin(array))
        raise VidfaceError(f"image {i} has the label {labels[i]}; labels are in [0, 2^63)")
    return array
