"""The losses of the paper, equations (1) to (9), one a file, and the objective made of them.

A pipeline names losses with their settings; `build_objective` puts them together:

- one margin: arcface (margin_radians) or combined (m1, m2_radians, m3);
- negatives: sv-guided (t), on top of any margin;
- balance: class-balance (beta, normalise), a weight on each sample's softmax;
- terms, added with their weight: intra, inter (block, sample, seed), triplet (margin, mining).

torch is imported by what is called with tensors, not by building an objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.settings import build_settings
from vidface.core.values import check_name
from vidface.training.losses.arcface import ArcFace
from vidface.training.losses.base import Loss, Term
from vidface.training.losses.class_balance import ClassBalance
from vidface.training.losses.combined import CombinedMargin
from vidface.training.losses.geometry import Geometry
from vidface.training.losses.inter import InterClass
from vidface.training.losses.intra import IntraClass
from vidface.training.losses.objective import LossParts, Objective
from vidface.training.losses.sv_guided import SVGuided
from vidface.training.losses.triplet import Triplet

__all__ = [
    "LOSSES",
    "ROLES",
    "ArcFace",
    "ClassBalance",
    "CombinedMargin",
    "Geometry",
    "InterClass",
    "IntraClass",
    "LossParts",
    "Objective",
    "SVGuided",
    "Triplet",
    "build_objective",
]

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss
    for loss in (ArcFace, CombinedMargin, SVGuided, ClassBalance, IntraClass, InterClass, Triplet)
}
ROLES: dict[str, str] = {name: loss.role for name, loss in LOSSES.items()}


def build_objective(
    settings: Mapping[str, Mapping[str, float | int | str]], scale: float = 64.0
) -> Objective:
    """The objective that a pipeline file describes.

    Args:
        settings: {name of a loss: {setting: value}}; an empty table is the loss's defaults. The
            order does not matter but for the terms' order in the log.
        scale: s > 0.

    Raises:
        VidfaceError: an unknown loss, setting or value; no margin, or two.

    >>> build_objective({"arcface": {"margin_radians": 0.4}, "intra": {}}, scale=32)
    Objective(margin=ArcFace(margin_radians=0.4), scale=32, negatives=None, balance=None,
              terms=(IntraClass(weight=1.0),))
    """
    losses = {name: _build_loss(name, values) for name, values in settings.items()}
    return Objective(
        margin=_only("margin", losses, needed=True),
        scale=scale,
        negatives=_only("negatives", losses),
        balance=_only("balance", losses),
        terms=tuple(loss for loss in losses.values() if isinstance(loss, Term)),
    )


def _only(role: str, losses: Mapping[str, Loss], *, needed: bool = False) -> Any:
    """The one loss of a role; None where there is none and none is needed."""
    names = [name for name in losses if ROLES[name] == role]
    if len(names) > 1 or (needed and not names):
        known = " or ".join(name for name in ROLES if ROLES[name] == role)
        raise VidfaceError(
            f"{'exactly' if needed else 'at most'} one {role} fits in an objective ({known}), "
            f"got {' and '.join(names) or 'none'}"
        )
    return losses[names[0]] if names else None


def _build_loss(name: str, values: Any) -> Loss:
    check_name("loss", name, LOSSES)
    return build_settings(LOSSES[name], values, f"loss '{name}'")
