"""Poolings: the ways to make one vector of a clip's kept faces, each by its name.

A pooling is a class here and a row in `POOLINGS`. `vidface.vectors.descriptors.pool_faces` runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidface.core.values import check_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pooling:
    """The sum of a clip's kept unit rows, normalised.

    `column` is what weighs the faces: a column of the embeddings artefact; None: all count alike.
    """

    column: str | None = None

    def pool(
        self,
        unit: NDArray[np.float64],
        starts: NDArray[np.integer[Any]],
        weights: NDArray[np.float64] | None,
    ) -> NDArray[np.float64]:
        """Make one row of norm 1, or 0 where there is no direction, of each run of rows.

        Args:
            unit: (n, d) rows of norm 1, which may be written to.
            starts: (n_runs,) the first row of each run; a run ends where the next begins.
            weights: (n,) in [0, 1], the largest of each run 1; None without a column.
        """
        from vidface.vectors.directions import sum_directions

        return sum_directions(unit, starts, weights)


class MedoidPooling(Pooling):
    """No sum: the one kept face that is most similar to all the others."""

    def pool(
        self,
        unit: NDArray[np.float64],
        starts: NDArray[np.integer[Any]],
        weights: NDArray[np.float64] | None,
    ) -> NDArray[np.float64]:
        from vidface.vectors.directions import find_medoids

        return unit[find_medoids(unit, starts)]


POOLINGS: dict[str, Pooling] = {
    "mean": Pooling(),
    "det-score": Pooling("det_score"),
    "norm": Pooling("norm"),
    "quality": Pooling("quality"),
    "medoid": MedoidPooling(),
}
"""Every pooling by its name.

- mean: every kept face counts the same.
- det-score: by `det_score`, how sure the detector was, in [0, 1].
- norm: by `norm`, the length of the raw embedding: long ones are often the better pictures.
- quality: by `quality`, a face quality network's answer; only artefacts that have it.
- medoid: no sum: the one kept face that is most similar to all the others.
"""


def find_pooling(name: str) -> Pooling:
    """Look up a pooling by its name.

    Raises:
        VidfaceError: an unknown name.
    """
    check_name("pooling", name, POOLINGS)
    return POOLINGS[name]
