"""Some images of a source: what a cut keeps, and people who are held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.training.sources.base import (
    FaceSource,
    check_index,
    describe_shapes,
    read_only,
)


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a source, as a `FaceSource`; made by `take_images`."""

    source: FaceSource
    indices: NDArray[np.int64]  # (n,) of the source, rising
    identities: tuple[str, ...]
    labels: NDArray[np.int64]  # (n,)
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def __str__(self) -> str:
        return f"Subset({describe_shapes(self)}; of {self.source})"

    def name(self, index: int) -> str:
        """Which image that is, for messages."""
        return self.source.name(int(self.indices[check_index(index, self, "subset")]))

    def image(self, index: int) -> NDArray[np.uint8]:
        """(112, 112, 3) uint8 RGB; VidfaceError as the source has it."""
        return self.source.image(int(self.indices[check_index(index, self, "subset")]))


def take_images(source: FaceSource, keep: NDArray[np.bool_]) -> Subset:
    """The images that `keep` says, (n,) bool; in the source's order.

    People without an image leave, the others are numbered anew. A subset of a subset is one of the
    first source.

    Raises:
        VidfaceError: keep has another shape or type, or keeps nothing.
    """
    n = len(source)
    if not isinstance(keep, np.ndarray) or keep.shape != (n,) or keep.dtype != np.bool_:
        form = f"{keep.shape} {keep.dtype}" if isinstance(keep, np.ndarray) else repr(type(keep))
        raise VidfaceError(f"subset: keep must be ({n},) bool, got {form}")
    if not keep.any():
        raise VidfaceError(f"subset: none of {n} images is kept")
    classes, labels = np.unique(source.labels[keep], return_inverse=True)
    indices = np.flatnonzero(keep).astype(np.int64)
    names = tuple(source.identities[c] for c in classes)
    whole: FaceSource = source
    if isinstance(source, Subset):
        whole, indices = source.source, source.indices[indices]
    digest = hashlib.sha256(f"subset {whole.fingerprint}".encode())
    digest.update(indices.astype("<i8").tobytes())
    numbers = read_only(labels.astype(np.int64))
    return Subset(whole, read_only(indices), names, numbers, digest.hexdigest())


def hold_out(source: FaceSource, people: int, seed: int) -> tuple[Subset, Subset]:
    """(train, held out): `people` of the C people, chosen by the seed, leave with all their images.

    Raises:
        VidfaceError: people is not in 1 … C − 1, or seed is negative.
    """
    n_people = len(source.identities)
    if not 1 <= people < n_people:
        raise VidfaceError(
            f"hold_out: {people} of {n_people} people; give a number from 1 to {n_people - 1}"
        )
    if seed < 0:
        raise VidfaceError(f"hold_out: seed {seed}; give a number from 0")
    leaves = np.zeros(n_people, dtype=np.bool_)
    leaves[np.random.default_rng([seed]).permutation(n_people)[:people]] = True
    held_out = leaves[source.labels]
    return take_images(source, ~held_out), take_images(source, held_out)
