"""The last pictures of a clip, so that one that comes again costs nothing."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import numpy as np

REMEMBERED_PICTURES = 8
REMEMBERED_BYTES = 48 * 2**20  # 8 pictures of 1920x1080
_STEP = 16  # rows and columns between the pixels that are compared first

Result = TypeVar("Result")


class RecentPictures(Generic[Result]):
    """The last distinct pictures, at most 8 and 48 MiB (one at least), and what came of each.

    A still that a decoder hands out anew has equal bytes, and an encoder of stills alternates
    between a handful of pictures. Two pictures that differ are mostly told apart by a 256th of
    their pixels, so that a clip that moves pays next to nothing.
    """

    def __init__(self) -> None:
        self._pictures: deque[tuple[np.ndarray, Result]] = deque()

    def recall(self, image: np.ndarray) -> Result | None:
        """What came of the picture with the same bytes; None where it isn't remembered."""
        for picture, result in reversed(self._pictures):
            if picture is image or (
                picture.shape == image.shape
                and np.array_equal(picture[::_STEP, ::_STEP], image[::_STEP, ::_STEP])
                and np.array_equal(picture, image)
            ):
                return result
        return None

    def remember(self, image: np.ndarray, result: Result) -> None:
        """Keep a picture, unchanged from now on, in the place of the oldest ones."""
        self._pictures.append((image, result))
        while len(self._pictures) > 1 and (
            len(self._pictures) > REMEMBERED_PICTURES
            or sum(picture.nbytes for picture, _ in self._pictures) > REMEMBERED_BYTES
        ):
            self._pictures.popleft()
