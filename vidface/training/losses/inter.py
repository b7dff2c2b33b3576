"""The inter-class term, equation (8), RegularFace: push each centre off its nearest other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vidface.training.losses.geometry import Geometry, full_precision, zero
from vidface.training.losses.objective import check_count, check_number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class InterClass:
    """The mean over the centres of the cosine to the nearest other centre, in [−1, 1].

    Equation (8): L_Inter = (1/C) Σ_i max_{j≠i} W_i·W_j / (‖W_i‖·‖W_j‖). The nearest is looked for
    without gradient, a block of centres against a block at a time: block² floats of memory (64
    MiB) and rows · C · d multiply-adds. The gradient flows through the chosen pairs only, into
    both centres of each. With one centre there is no other: 0. Of equally near ones any is taken.

    C is the number of centres of the batch's geometry. Where sampled softmax drew them, only those
    are compared, and the value is lower than that of all centres.

    Attributes:
        weight: ≥ 0, times the term in the total. The paper does not print its own.
        block: centres a block, ≥ 1.
        sample: centres i of the mean that a step draws; j still runs over all. 0, or as many as
            there are: all. All 93,431 are 2.5·10^12 multiply-adds a step, 1,024 of them 2.7·10^10.
        seed: ≥ 0; the draw is a function of seed and step alone.

    Raises:
        VidfaceError: a setting out of its range, or a negative step.

    Source: Zhao et al., "RegularFace: Deep Face Recognition via Exclusive Regularization", CVPR
    2019.

    >>> import torch
    >>> centres = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> InterClass()(Geometry.of(centres, centres, torch.arange(3)))  # (0.6 + 0.8 + 0.8) / 3
    tensor(0.7333)
    """

    name: ClassVar[str] = "inter"
    role: ClassVar[str] = "term"

    weight: float = 1.0
    block: int = 4096
    sample: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("inter: weight", self.weight)
        check_count("inter: block", self.block, low=1)
        check_count("inter: sample", self.sample, low=0)
        check_count("inter: seed", self.seed, low=0)

    def __call__(self, geometry: Geometry, step: int = 0) -> Tensor:
        """The unweighted value, a scalar."""
        centres = geometry.centres
        if len(centres) == 1:
            return zero(centres)
        rows = self._rows(len(centres), step).to(centres.device)
        others = nearest_others(centres, rows, self.block)
        return (centres[rows] * centres[others]).sum(dim=1).mean()

    def _rows(self, c: int, step: int) -> Tensor:
        import torch

        check_count("step", step, low=0)
        if self.sample in (0, c) or self.sample > c:
            return torch.arange(c)
        draw = np.random.default_rng([self.seed, step])
        return torch.from_numpy(draw.choice(c, self.sample, replace=False).astype(np.int64))


def nearest_others(centres: Tensor, rows: Tensor, block: int) -> Tensor:
    """For each of `rows`, the row of the other centre with the largest cosine; no gradient.

    Args:
        centres: (c, d) unit rows, c ≥ 2.
        rows: (r,) int64 rows of `centres`.
        block: centres a block, ≥ 1.

    Returns:
        (r,) int64; the row itself only where NaN leaves nothing to compare.

    >>> import torch
    >>> nearest_others(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.tensor([0, 2]), 1)
    tensor([1, 1])
    """
    import torch

    with torch.no_grad(), full_precision(centres):
        return torch.cat([_nearest(centres, mine, block) for mine in rows.split(block)])


def _nearest(centres: Tensor, mine: Tensor, block: int) -> Tensor:
    import torch

    c = len(centres)
    best = torch.full(mine.shape, -torch.inf, dtype=centres.dtype, device=centres.device)
    found = mine
    columns = torch.arange(c, device=centres.device)
    for a in range(0, c, block):
        cosines = centres[mine] @ centres[a : a + block].T
        cosines.masked_fill_(mine[:, None] == columns[None, a : a + block], -torch.inf)
        highest, where = cosines.max(dim=1)
        nearer = highest > best
        best, found = torch.where(nearer, highest, best), torch.where(nearer, where + a, found)
    return found
