"""Class-balanced cross-entropy, equation (9): small classes count for more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.core.errors import VidfaceError
from vidface.core.settings import setting
from vidface.training.losses.base import Balance

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClassBalance(Balance):
    """The weight (1 − β)/(1 − β^n_y) on a sample's softmax loss, n_y the images of its class.

    Equation (9): L_Ce = (1 − β)/(1 − β^n_y) · log(e^z_y / Σ_j e^z_j), the loss its negative. 1/(1 −
    β) is about the number of images beyond which more of them no longer lower the weight.

    As printed, a class of 100 images weighs 0.0105 at β = 0.999: the softmax shrinks a hundredfold
    against every added term and the weight decay. So by default the weights of a batch are divided
    by their mean. With β = 0 every weight is exactly 1, either way.

    The source uses β from 0.9 to 0.9999; the paper does not state its own.

    Source: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019; it
    normalises too, over all classes instead of the batch.

    >>> import torch
    >>> ClassBalance(beta=0.5, normalise=False).weights(torch.tensor([1, 2, 60]))
    tensor([1.0000, 0.6667, 0.5000], dtype=torch.float64)
    >>> ClassBalance(beta=0.5).weights(torch.tensor([1, 2, 60])).mean()
    tensor(1., dtype=torch.float64)
    """

    name = "class-balance"

    beta: float = setting(0.999, bounds="[0, 1)", help="Base β of the weights; 0 weighs all alike.")
    normalise: bool = setting(True, help="Divide the weights of a batch by their mean.")

    def weights(self, counts: Tensor) -> Tensor:
        """The weights of a batch, float64. Exact for β near 1 and large classes.

        Args:
            counts: (n,) integers ≥ 1, the images of each sample's class.

        Raises:
            VidfaceError: a count below 1, which a class with a sample in the batch cannot have.
        """
        import torch

        least = counts.min().item()
        if least < 1:
            raise VidfaceError(
                f"class counts say {least} images for a class that has one in the batch; "
                "count the images that are trained on"
            )
        if self.beta == 0:
            return torch.ones_like(counts, dtype=torch.float64)
        # 1 − β^n loses its digits for β near 1; −expm1(n · log β) keeps them.
        shares = -torch.expm1(counts.double() * math.log(self.beta))
        weights = (1 - self.beta) / shares
        return weights / weights.mean() if self.normalise else weights
