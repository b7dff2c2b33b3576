"""What a teacher whose answers are kept and one that is asked live have in common."""

from __future__ import annotations

import numpy as np

from vidface.backbones.architectures import Architecture
from vidface.core.errors import VidfaceError


def unit_answers(rows: np.ndarray, teacher: str, first: int = 0, where: str = "") -> np.ndarray:
    """Normalise a teacher's embeddings (n, d) of the faces from number `first` on.

    Raises:
        VidfaceError: a row is not finite, or zero.
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(bad):
        raise VidfaceError(f"teacher {teacher}: no embedding of face {first + bad[0]}{where}")
    return rows / norms


def check_dimensions(student: Architecture, teacher: int) -> None:
    """Raise VidfaceError where the student's embedding has another dimension than the teacher's."""
    if student.dimension != teacher:
        raise VidfaceError(
            f"[train] architecture '{student.name}' gives {student.dimension} numbers and the "
            f"teacher {teacher}: name it with -e{teacher} behind"
        )
