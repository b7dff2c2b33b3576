"""One loss out of parts: a margin, hard negatives, class weights, and terms that are added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.core.errors import VidfaceError
from vidface.core.settings import check_settings, setting
from vidface.training.losses.base import Balance, Margin, Negatives, Term
from vidface.training.losses.geometry import Geometry, full_precision

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class LossParts:
    """What a step's loss is made of.

    Attributes:
        total: scalar with a gradient: softmax + Σ weight · term.
        parts: scalars without one, for the log: "softmax" and each term by its name, unweighted.
    """

    total: Tensor
    parts: Mapping[str, Tensor]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {float(value):.4g}" for name, value in self.parts.items())
        return f"loss {float(self.total.detach()):.4g} ({parts})"


@dataclass(frozen=True)
class Objective:
    """The softmax of equations (1), (3), (5), weighted as in (9), plus the terms (7), (8).

    total = (1/n) Σ_i w_i · −log(e^z_y / Σ_j e^z_j) + Σ_terms weight · term, where z_y is
    scale · the margin's logit, the other z_j are scale · cos θ_j or what `negatives` makes of it,
    and w_i is 1 or what `balance` says. The log-sum-exp is one of float32, also under autocast.

    Attributes:
        margin: `ArcFace` or `CombinedMargin`.
        scale: s; 64 is usual.
        negatives: `SVGuided`, or None.
        balance: `ClassBalance`, or None.
        terms: `IntraClass`, `InterClass`, `Triplet`, in any order, each at most once.

    Raises:
        VidfaceError: a scale that is not positive and finite, or two terms of one name.

    >>> import torch
    >>> from vidface.training.losses import ArcFace, Geometry, IntraClass
    >>> geometry = Geometry.of(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
    >>> print(Objective(ArcFace(0.5), scale=1, terms=(IntraClass(2.0),))(geometry))
    loss 0.3477 (softmax 0.3477, intra 0)
    """

    margin: Margin
    scale: float = setting(64.0, bounds="(0, inf)", help="Factor s of the cosines.")
    negatives: Negatives | None = None
    balance: Balance | None = None
    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, "objective")
        names = [term.name for term in self.terms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise VidfaceError(f"each term can be added once, got twice: {', '.join(twice)}")

    def __call__(
        self, geometry: Geometry, class_counts: Tensor | None = None, step: int = 0
    ) -> LossParts:
        """The loss of a batch.

        Args:
            geometry: the batch; NaN in it gives a NaN total.
            class_counts: (C,) integers ≥ 1, the training images of each global class; needed
                where there is a `balance`, else not looked at. A tensor on the batch's device
                spares a copy each step.
            step: ≥ 0, the number of the training step; terms that draw, draw by it.

        Raises:
            VidfaceError: a balance without class counts, or counts that do not cover the batch.
        """
        with full_precision(geometry.cosines):
            softmax = self._softmax(geometry, class_counts)
            total, parts = softmax, {"softmax": softmax.detach()}
            for term in self.terms:
                value = term(geometry, step)
                total = total + term.weight * value
                parts[term.name] = value.detach()
        return LossParts(total, parts)

    def _softmax(self, geometry: Geometry, class_counts: Tensor | None) -> Tensor:
        from torch.nn.functional import cross_entropy

        losses = cross_entropy(self.logits(geometry), geometry.labels, reduction="none")
        if self.balance is not None:
            counts = _counts_of_labels(geometry, class_counts)
            losses = losses * self.balance.weights(counts).to(losses.dtype)
        return losses.mean()

    def logits(self, geometry: Geometry) -> Tensor:
        """(n, c) scaled logits of a batch, margins and hard negatives applied.

        >>> import torch
        >>> from vidface.training.losses import CombinedMargin, Geometry
        >>> geometry = Geometry.of(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
        >>> Objective(CombinedMargin(1, 0, 0.25), scale=8).logits(geometry)
        tensor([[6., 0.],
                [0., 6.]])
        """
        import torch

        own = self.margin.own_logit(geometry.cos_own)
        if self.negatives is None:
            logits = geometry.cosines * self.scale
        else:
            logits = self.negatives.other_logits(geometry.cosines, own, geometry.labels, self.scale)
        rows = torch.arange(len(own), device=own.device)
        # In place: at 93,431 classes one copy less is 191 MB for a batch of 512.
        return logits.index_put_((rows, geometry.labels), own * self.scale)


def _counts_of_labels(geometry: Geometry, class_counts: Tensor | None) -> Tensor:
    """(n,) images of the class of each sample."""
    import torch

    if class_counts is None:
        raise VidfaceError("class-balance needs the number of training images of each class")
    counts = torch.as_tensor(class_counts, device=geometry.labels.device)
    classes = geometry.identities[geometry.labels]
    low, high = torch.stack(torch.aminmax(classes)).tolist()
    if counts.ndim != 1 or low < 0 or high >= len(counts):
        raise VidfaceError(
            f"class counts of shape {tuple(counts.shape)} do not cover classes {low} to {high}"
        )
    return counts[classes]
