"""The inter-class term, equation (8), RegularFace: push each centre off its nearest other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidface.core.settings import check_bounds, setting
from vidface.training.losses.base import Term
from vidface.training.losses.geometry import Geometry, full_precision, zero

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class InterClass(Term):
    """The mean over the centres of the cosine to the nearest other centre, in [−1, 1].

    Equation (8): L_Inter = (1/C) Σ_i max_{j≠i} W_i·W_j / (‖W_i‖·‖W_j‖). The nearest is looked for
    without gradient, a block of centres against a block at a time: block² floats of memory (64
    MiB) and rows · C · d multiply-adds. The gradient flows through the chosen pairs only, into
    both centres of each. With one centre there is no other: 0. Of equally near ones any is taken.

    C is the number of centres of the batch's geometry. Where sampled softmax drew them, only those
    are compared, and the value is lower than that of all centres.

    A step may draw a sample of the centres i; j still runs over all of them, and the draw is a
    function of seed and step alone. All 93,431 centres are 2.5·10^12 multiply-adds a step, 1,024 of
    them 2.7·10^10.

    Raises:
        VidfaceError: when called, a negative step.

    Source: Zhao et al., "RegularFace: Deep Face Recognition via Exclusive Regularization", CVPR
    2019.

    >>> import torch
    >>> centres = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> InterClass()(Geometry.of(centres, centres, torch.arange(3)))  # (0.6 + 0.8 + 0.8) / 3
    tensor(0.7333)
    """

    name = "inter"

    block: int = setting(4096, bounds="[1, inf)", help="Centres compared at once.")
    sample: int = setting(0, bounds="[0, inf)", help="Centres that a step draws; 0: all of them.")
    seed: int = setting(0, bounds="[0, inf)", help="Seed of the drawn centres.")

    def __call__(self, geometry: Geometry, step: int = 0) -> Tensor:
        centres = geometry.centres
        if len(centres) == 1:
            return zero(centres)
        rows = self._draw_rows(len(centres), step).to(centres.device)
        others = nearest_others(centres, rows, self.block)
        return (centres[rows] * centres[others]).sum(dim=1).mean()

    def _draw_rows(self, c: int, step: int) -> Tensor:
        import torch

        check_bounds("step", step, "[0, inf)")
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
        return torch.cat([_nearest_of(centres, some, block) for some in rows.split(block)])


def _nearest_of(centres: Tensor, rows: Tensor, block: int) -> Tensor:
    import torch

    c = len(centres)
    best = torch.full(rows.shape, -torch.inf, dtype=centres.dtype, device=centres.device)
    nearest = rows
    columns = torch.arange(c, device=centres.device)
    # `nearest` and `best` are those among all centres before `start`; the first of equals stays.
    for start in range(0, c, block):
        cosines = centres[rows] @ centres[start : start + block].T
        own = rows[:, None] == columns[None, start : start + block]
        cosines.masked_fill_(own, -torch.inf)
        highest, where = cosines.max(dim=1)
        nearer = highest > best
        best = torch.where(nearer, highest, best)
        nearest = torch.where(nearer, where + start, nearest)
    return nearest
