"""Knowledge distillation: the student's embeddings follow a teacher's (Hinton et al., 2015).

    L = (1/n) Σ_i (1 − cos(f_i, g_i)) + relation · (1/n²) Σ_ij (cos(f_i, f_j) − cos(g_i, g_j))²
        + hints · Σ_l H_l

f are the student's embeddings and g the teacher's, of the same dimension. The second sum is the
relational term (Park et al., Relational Knowledge Distillation, 2019, with cosines for distances),
the third that of the hints (`vidface.training.hints`), where a recipe names some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.core.errors import VidfaceError
from vidface.core.settings import setting
from vidface.training.losses import LossParts
from vidface.training.losses.base import Loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Distil(Loss):
    """The loss above; `relation` ≥ 0 and `hints` ≥ 0 are the weights of its second and third sum.

    >>> import torch
    >>> loss = Distil(relation=1.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    >>> float(loss.total), float(loss.parts["relation"])
    (1.0, 0.0)
    """

    name = "distil"
    role = "distil"

    relation: float = setting(
        0.0, bounds="[0, inf)", help="Weight of the cosines of a batch's faces among themselves."
    )
    hints: float = setting(1.0, bounds="[0, inf)", help="Weight of following the teacher's maps.")

    def __call__(
        self, student: Tensor, teacher: Tensor, hints: Mapping[str, Tensor] | None = None
    ) -> LossParts:
        """The loss of a batch.

        Args:
            student: (n, d), raw.
            teacher: (n, d), unit.
            hints: H_l by the part of the network.

        Raises:
            VidfaceError: other dimensions.
        """
        from torch.nn.functional import normalize

        if student.shape != teacher.shape:
            raise VidfaceError(
                f"loss 'distil': embeddings are {tuple(student.shape)} and the teacher's "
                f"{tuple(teacher.shape)}: name an architecture of the teacher's dimension "
                f"(…-e{teacher.shape[-1]})"
            )
        unit = normalize(student.float(), dim=1)
        distance = (1 - (unit * teacher).sum(dim=1)).mean()
        relation = (unit @ unit.T - teacher @ teacher.T).square().mean()
        total = distance + self.relation * relation if self.relation else distance
        parts = {"distance": distance.detach(), "relation": relation.detach()}
        for name, hint in (hints or {}).items():
            total = total + self.hints * hint
            parts[f"hint {name}"] = hint.detach()
        return LossParts(total, parts)
