"""A teacher's answers: its unit embeddings of many faces, kept in pieces in a folder.

Knowledge distillation: a small network learns to give what a teacher gives, which says far more of
a face than the name of one of a few people. Answers are computed once; a call that was cut off goes
on where it was. The folder holds `answers.json`, which says of whom and by whom, and pieces of
`PIECE` faces, `answers-00000000.safetensors` (float16: rounding moves a cosine by less than 0.001).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file

if TYPE_CHECKING:
    from vidface.backbones.embedder import Embedder
    from vidface.training.synthetic import Faces

PIECE = 2048  # faces a file
_BATCH = 64  # faces at once
ANSWERS = "answers.json"


@dataclass(frozen=True)
class Answers:
    """A teacher's unit embeddings: `embeddings` (n, d) float32, one row a face."""

    embeddings: np.ndarray
    about: dict[str, Any]

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or not np.isfinite(self.embeddings).all():
            raise VidfaceError("a teacher's answers must be an array (n, d) of finite numbers")

    def __str__(self) -> str:
        n, d = self.embeddings.shape
        return f"answers of {self.about.get('teacher', 'a teacher')}: ({n}, {d})"


def teach(
    faces: Faces,
    teacher: Embedder,
    folder: Path,
    about: dict[str, Any],
    *,
    progress: Callable[[int], None] | None = None,
) -> Answers:
    """Ask the teacher about every face, or read what it said before.

    Args:
        faces: `len(faces)` faces by `image(index)`.
        teacher: a recogniser; its preprocessing is its own.
        folder: where the answers are kept.
        about: what the faces are made of (fingerprint, seed …); answers about other faces, or by
            another teacher, are refused. Of the same faces there may be more or fewer than before.
        progress: called after each new piece, with the number of faces that are done.

    Raises:
        VidfaceError: the folder holds answers about other faces, or damaged ones; the teacher gave
            no finite embedding for a face.
    """
    said = {**about, "teacher": teacher.name, "teacher_sha256": teacher.sha256}
    _claim(folder, said)
    pieces = []
    for start in range(0, len(faces), PIECE):
        stop = min(start + PIECE, len(faces))
        path = folder / f"answers-{start:08d}.safetensors"
        piece = _read(path, teacher.dimension)[: stop - start] if path.is_file() else None
        if piece is None or len(piece) < stop - start:  # none, or of when there were fewer faces
            piece = _ask(faces, teacher, start, stop)
            _write(path, piece)
            if progress is not None:
                progress(stop)
        pieces.append(piece)
    rows = np.concatenate(pieces).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Answers(rows, said)


def _ask(faces: Faces, teacher: Embedder, start: int, stop: int) -> np.ndarray:
    found = np.empty((stop - start, teacher.dimension), np.float16)
    for first in range(start, stop, _BATCH):
        last = min(first + _BATCH, stop)
        rows = teacher.embed(np.stack([faces.image(index) for index in range(first, last)]))
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
        if len(bad):
            raise VidfaceError(f"teacher {teacher.name}: no embedding of face {first + bad[0]}")
        found[first - start : last - start] = rows / norms
    return found


def _claim(folder: Path, said: dict[str, Any]) -> None:

    path = folder / ANSWERS
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(json.dumps(said, indent=2, sort_keys=True).encode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != said:
        keys = [k for k in said if not isinstance(found, dict) or found.get(k) != said[k]]
        raise VidfaceError(
            f"{folder}: holds a teacher's answers about something else "
            f"({', '.join(keys) or 'more'} differ): remove the folder, or name another"
        )


def _write(path: Path, piece: np.ndarray) -> None:
    from safetensors.numpy import save

    with atomic_file(path) as file:
        file.write(save({"answers": piece}))


def _read(path: Path, dimension: int) -> np.ndarray:
    from safetensors.numpy import load_file

    try:
        piece = load_file(path)["answers"]
    except Exception:
        raise VidfaceError(f"{path}: damaged: remove it, and it is made again") from None
    fits = piece.ndim == 2 and piece.shape[1] == dimension and piece.dtype == np.float16
    norms = np.linalg.norm(piece.astype(np.float32), axis=1) if fits else np.zeros(1)
    if not (np.abs(norms - 1) < 0.01).all():
        raise VidfaceError(
            f"{path}: not unit rows of {dimension} numbers: remove it, and it is made again"
        )
    return piece
