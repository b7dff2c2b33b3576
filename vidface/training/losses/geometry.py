"""What every loss sees: unit embeddings, unit class centres and the cosines between them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ZERO_NORM = 1e-12  # shorter vectors have no direction that float32 can tell


@dataclass(frozen=True, eq=False)
class Geometry:
    """A batch on the unit sphere, equation (2); `Geometry.of` makes one from raw vectors.

    Attributes:
        embeddings: (n, d) unit rows (a zero vector stays zero), float32.
        centres: (c, d) unit rows, W of the paper transposed: all classes, or those that a step of
            sampled softmax (PartialFC) drew.
        labels: (n,) int64 rows of `centres`.
        identities: (c,) int64, the global class number of each row of `centres`.
        cosines: (n, c), cos θ_j of every embedding to every centre; rounding may leave [−1, 1] by
            a few ulp.
    """

    embeddings: Tensor
    centres: Tensor
    labels: Tensor
    identities: Tensor
    cosines: Tensor

    @classmethod
    def of(
        cls,
        embeddings: Tensor,
        centres: Tensor,
        labels: Tensor,
        identities: Tensor | None = None,
    ) -> Geometry:
        """Normalise and multiply in float32, also under autocast; float64 stays float64.

        NaN and infinity come out as NaN and are no error here: the loss becomes NaN and the
        training loop stops on it. On a GPU the check of the labels waits for the device once.

        Args:
            embeddings: (n, d) raw rows of any floating type, n ≥ 1.
            centres: (c, d) raw rows of any floating type, c ≥ 1.
            labels: (n,) integers in [0, c), rows of `centres`.
            identities: (c,) integers, the global class numbers; None: row number = class number.

        Raises:
            VidfaceError: shapes or types that do not fit, or a label out of range.

        >>> import torch
        >>> faces, centres = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> geometry = Geometry.of(faces, centres, torch.tensor([1]))
        >>> print(geometry)
        1 embedding and 2 centres of 2 numbers, torch.float32 on cpu
        >>> geometry.cosines
        tensor([[0.6000, 0.8000]])
        >>> geometry.cos_own
        tensor([0.8000])
        """
        import torch

        _check_rows("embeddings", embeddings)
        _check_rows("centres", centres)
        if embeddings.shape[1] != centres.shape[1]:
            raise VidfaceError(
                f"embeddings have {embeddings.shape[1]} numbers and centres {centres.shape[1]}: "
                "the classes belong to another backbone"
            )
        _check_integers("labels", labels, len(embeddings), "one an embedding")
        _check_labels(labels, len(centres))
        if identities is None:
            identities = torch.arange(len(centres), device=centres.device)
        _check_integers("identities", identities, len(centres), "one a centre")
        with full_precision(embeddings):
            embeddings, centres = unit_rows(embeddings), unit_rows(centres)
            cosines = embeddings @ centres.T
        return cls(embeddings, centres, labels.long(), identities.long(), cosines)

    @property
    def cos_own(self) -> Tensor:
        """(n,), the cosine of every embedding to the centre of its own class."""
        return self.cosines.gather(1, self.labels[:, None]).squeeze(1)

    def __str__(self) -> str:
        (n, d), c = self.embeddings.shape, len(self.centres)
        return (
            f"{n} embedding{'s' * (n != 1)} and {c} centre{'s' * (c != 1)} of {d} numbers, "
            f"{self.cosines.dtype} on {self.cosines.device}"
        )


def unit_rows(rows: Tensor) -> Tensor:
    """Each row over its norm, as float32 (float64 stays float64).

    A row shorter than 1e-12 has no direction: it is handed on as it is, with a gradient that is
    not blown up. A row whose norm is not finite becomes NaN, so that a run that diverged shows it.

    >>> import torch
    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float16))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    import torch

    rows = rows if rows.dtype == torch.float64 else rows.float()
    norms = torch.linalg.vector_norm(rows.detach(), dim=1, keepdim=True)
    norms = torch.where(norms < _ZERO_NORM, 1.0, norms)
    return _row_division().apply(rows, torch.where(torch.isfinite(norms), norms, torch.nan))


@functools.cache
def _row_division() -> Any:
    """The function (n, d) rows, (n, 1) norms → rows / norms, where the norms follow from the rows.

    At 93,431 class centres a training step spends more time on the gradient of the division than
    on any other thing beside the matrix products. Written out, with u = x / ‖x‖, it is
    (g − u (u·g)) / ‖x‖: two products instead of six passes. torch is loaded when it is first used.
    """
    import torch
    from torch.autograd.function import once_differentiable

    class RowDivision(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: Tensor, norms: Tensor) -> Tensor:
            unit = rows / norms
            ctx.save_for_backward(unit, norms)
            return unit

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            unit, norms = ctx.saved_tensors
            along = torch.linalg.vecdot(gradient, unit, dim=1)[:, None]
            return torch.addcmul(gradient, unit, along, value=-1).div_(norms), None

    return RowDivision


def angles(cosines: Tensor) -> Tensor:
    """θ = arccos in radians, in [0, π], with a gradient that is finite everywhere.

    The slope −1/sin θ is unbounded at cos = ±1. Within 4 ulp of ±1 (θ < 0.001 in float32), and
    beyond, the angle is exact and its gradient is 0.

    >>> import torch
    >>> angles(torch.tensor([1.0000001, 0.0, -1.0]))
    tensor([0.0000, 1.5708, 3.1416])
    """
    import torch

    limit = 1 - 4 * torch.finfo(cosines.dtype).eps
    ends = torch.acos(cosines.detach().clamp(-1, 1))
    inside = torch.acos(cosines.clamp(-limit, limit))
    return torch.where(cosines.abs() <= limit, inside, ends)


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast does not lower the precision on this tensor's device."""
    import torch

    return torch.autocast(tensor.device.type, enabled=False)


def zero(tensor: Tensor) -> Tensor:
    """Exactly 0 with a gradient of zeros; NaN where the tensor has one.

    >>> import torch
    >>> zero(torch.tensor([2.0, -3.0])), zero(torch.tensor([2.0, torch.nan]))
    (tensor(0.), tensor(nan))
    """
    return tensor.square().sum() * 0.0


def _check_rows(name: str, rows: Tensor) -> None:
    if rows.ndim != 2 or 0 in rows.shape or not rows.is_floating_point():
        raise VidfaceError(
            f"{name} must be a matrix of floats with at least one row and one column, "
            f"got {tuple(rows.shape)} {rows.dtype}"
        )


def _check_integers(name: str, values: Tensor, n: int, what: str) -> None:
    import torch

    whole = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if tuple(values.shape) != (n,) or not whole:
        raise VidfaceError(
            f"{name} must be {n} integers, {what}, got {tuple(values.shape)} {values.dtype}"
        )


def _check_labels(labels: Tensor, c: int) -> None:
    import torch

    low, high = torch.stack(torch.aminmax(labels)).tolist()  # one wait for the device, not two
    if low < 0 or high >= c:
        wrong = low if low < 0 else high
        raise VidfaceError(
            f"label {wrong} is out of range: there are {c} centres, so labels are 0 to {c - 1}"
        )
