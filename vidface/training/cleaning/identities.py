"""Embeddings of identities: their centres, and each image's cosine to its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.training.labels import check_labels
from vidface.vectors.rows import check_embeddings, unit_rows

MEMORY_BYTES = 2**28
"""The default budget of blocks of embeddings, beside the centres."""

CENTRES_AT_ONCE = 8192  # products of a block with so many centres stay in the cache


class IdentityEmbeddings:
    """Embeddings by identity, read in blocks that fit into the budget.

    Args:
        embeddings: (n, d) floats, any norm; those without a direction count for nothing.
        labels: (n,) whole numbers ≥ 0.
        memory_bytes: for the blocks that embeddings are worked on in.

    Raises:
        VidfaceError: shapes or labels that do not fit.

    Attributes:
        labels: (C,) the labels that there are, rising.
        identities: (n,) int64 in [0, C), of each image.
        usable: (n,) bool, whether an embedding has a direction.
        order: (n,) int64, images by identity.
    """

    def __init__(
        self,
        embeddings: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if memory_bytes < 1:
            raise VidfaceError(f"memory_bytes must be positive, got {memory_bytes}")
        embeddings = check_embeddings(embeddings)
        labels = check_labels(labels, len(embeddings))
        if not len(labels):
            raise VidfaceError("there are no images to clean")
        self.embeddings = embeddings
        self.labels, self.identities = np.unique(labels, return_inverse=True)
        self.n_identities = len(self.labels)
        self.order = np.argsort(self.identities, kind="stable")
        # the rows as they are, float32 and float64 copies of them, and a row of products
        row_bytes = embeddings.shape[1] * (embeddings.itemsize + 4 + 8) + 4 * CENTRES_AT_ONCE + 64
        self.block_rows = max(1, memory_bytes // row_bytes)
        self.usable = np.zeros(len(labels), bool)
        for rows in self.blocks(np.arange(len(labels))):
            self.usable[rows] = unit_rows(embeddings[rows])[1]

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(rows), self.block_rows):
            yield rows[start : start + self.block_rows]

    def unit(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return unit_rows(self.embeddings[rows])[0]

    def means(
        self, rows: NDArray[np.int64], groups: NDArray[np.int64], n_groups: int
    ) -> NDArray[np.float32]:
        """(n_groups, d) directions of the mean of the rows of each group; `groups` do not fall."""
        sums = np.zeros((n_groups, self.embeddings.shape[1]))
        begin = 0
        # Rows of a group stand side by side, so that a block adds one sum to each of its groups;
        # in float64, so that the borders of blocks make no difference.
        for block in self.blocks(rows):
            block_groups = groups[begin : begin + len(block)]
            starts = np.flatnonzero(np.diff(block_groups, prepend=-1))
            sums[block_groups[starts]] += np.add.reduceat(
                self.unit(block).astype(np.float64), starts
            )
            begin += len(block)
        # What cancels out has no direction, though rounding leaves it one.
        sums[np.einsum("ij,ij->i", sums, sums) < 1e-12] = 0
        return unit_rows(sums)[0]

    def centres(self, among: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The direction of each identity, which a minority of wrong labels does not move.

        First the mean of the identity's unit embeddings. The image nearest to it is the medoid (the
        sum of its cosines to all others is the largest). Then the mean of those images whose cosine
        to it is at least the identity's (lower) median: the nearer half and one. (One concentration
        step of Rousseeuw and Van Driessen, "A Fast Algorithm for the Minimum Covariance Determinant
        Estimator", 1999.)

        Args:
            among: (n,) bool, the images that count; `usable` ones.

        Returns:
            (C, d) float32, of length one, or zero for an identity whose embeddings have no
            direction or cancel out.

        >>> faces = np.array([[1, 0], [2, 0], [0, 1], [0, -3], [5, 0], [0, 0]], dtype=np.float32)
        >>> people = IdentityEmbeddings(faces, np.array([3, 3, 3, 8, 3, 9]))
        >>> people.labels, people.centres(people.usable)
        (array([3, 8, 9]), array([[ 1.,  0.], [ 0., -1.], [ 0.,  0.]], dtype=float32))
        """
        rows = self.order[among[self.order]]
        first = self.means(rows, self.identities[rows], self.n_identities)
        cosines = self.own_cosines(first, among)[rows]
        near = cosines >= _medians(cosines, self.identities[rows], self.n_identities)
        return self.means(rows[near], self.identities[rows[near]], self.n_identities)

    def own_cosines(
        self, centres: NDArray[np.float32], among: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """(n,) float32, NaN for images that are not `among`."""
        cosines = np.full(len(self.identities), np.nan, np.float32)
        for rows in self.blocks(np.flatnonzero(among)):
            cosines[rows] = np.einsum("ij,ij->i", self.unit(rows), centres[self.identities[rows]])
        return cosines


def _medians(
    values: NDArray[np.float32], groups: NDArray[np.int64], n_groups: int
) -> NDArray[np.float32]:
    """(len(values),) the lower median of each one's group; `groups` do not fall."""
    sizes = np.bincount(groups, minlength=n_groups)
    ordered = values[np.lexsort((values, groups))]
    middles = np.cumsum(sizes) - sizes + (sizes - 1) // 2
    return np.repeat(ordered[middles[sizes > 0]], sizes[sizes > 0])
