"""Names of millions of images in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class PackedNames(Sequence[str]):
    """Millions of names in two buffers: small, and forked workers share them without copying.

    >>> names = PackedNames(["ann/1.jpg", "", "zoë"])
    >>> len(names), names[2], names[-3]
    (3, 'zoë', 'ann/1.jpg')
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self.data = b"".join(encoded)
        self.ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)

    @classmethod
    def of(cls, names: Sequence[str]) -> PackedNames:
        """The names packed, or as they are where they are packed already."""
        return names if isinstance(names, PackedNames) else cls(names)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]  # an IndexError ends iteration
        start = int(self.ends[i - 1]) if i else 0
        return self.data[start : int(self.ends[i])].decode("utf-8", "surrogatepass")
