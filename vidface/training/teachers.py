"""What a teacher whose answers are kept and one that is asked live have in common."""

from __future__ import annotations

import numpy as np

from vidface.backbones.architectures import Architecture
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.training.settings import TeacherSettings
from vidface.training.synthetic import FaceImages, SyntheticFaces


def open_taught_faces(teacher: TeacherSettings, source: FaceImages) -> SyntheticFaces:
    """The faces that a distillation goes through."""
    return SyntheticFaces(
        source, teacher.count, teacher.seed, teacher.mix_share, teacher.bend_share,
        teacher.bend_pixels,
    )  # fmt: skip


def describe_preprocessing(teacher: TeacherSettings) -> Preprocessing | None:
    """What the recipe says that the teacher is fed; None: nothing."""
    if teacher.color is None and teacher.mean is None and teacher.std is None:
        return None
    return Preprocessing(teacher.color, teacher.mean, teacher.std)


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
