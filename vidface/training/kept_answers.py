"""A teacher's answers: its unit embeddings of many faces, kept in pieces in a folder.

Knowledge distillation: a small network learns to give what a teacher gives, which says far more of
a face than the name of one of a few people. Answers are computed once; a call that was cut off goes
on where it was. The folder holds `answers.json`, which says of whom and by whom, and pieces of
`PIECE` faces, `answers-00000000.safetensors` (float16: rounding moves a cosine by less than 0.001).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.core.errors import VidfaceError
from vidface.core.files import (
    atomic_file,
    make_private_folder,
    named_errors,
    read_json_object,
    write_json,
)
from vidface.core.progress import Notify
from vidface.training.folder import list_differences
from vidface.training.processes import Processes
from vidface.training.synthetic import FaceImages, SyntheticFaces, read_blocks
from vidface.training.teachers import unit_answers

PIECE = 2048  # faces a file
_BATCH = 64  # faces at once
ANSWERS = "answers.json"


def open_kept_answers(
    faces: SyntheticFaces,
    fingerprint: str,
    folder: Path,
    processes: Processes,
    threads: int | None,
    notify: Notify,
) -> np.ndarray:
    """Ask a recipe's teacher about all faces; the first process asks, the others read.

    Args:
        faces: their settings say which teacher is asked.
        fingerprint: of the source that they are made of.
        folder: where the answers are kept, unless the recipe says otherwise.

    Returns:
        (n, d) float32, unit rows.
    """
    teacher = faces.settings
    deciding = ("seed", "mix_share", "bend_share", "bend_pixels")
    about: dict[str, Any] = {
        "data": fingerprint,
        **{name: getattr(teacher, name) for name in deciding},
    }
    if teacher.preprocessing is not None:
        about["fed"] = teacher.preprocessing.to_dict()

    def open_answers() -> np.ndarray:
        if teacher.dir:
            with named_errors(teacher.dir):
                make_private_folder(teacher.dir)
        embedder = load_backbone(
            teacher.weights, teacher.preprocessing, device=processes.device.type, threads=threads
        )
        return ask_about_all(
            faces,
            embedder,
            teacher.dir or folder,
            about,
            progress=lambda n: notify(f"{teacher.weights} answers: {n:,} of {len(faces):,}"),
        )

    if processes.is_first:
        answers = open_answers()
    processes.barrier()
    if not processes.is_first:
        answers = open_answers()
    processes.barrier()
    return answers


def ask_about_all(
    faces: FaceImages,
    teacher: Embedder,
    folder: Path,
    about: dict[str, Any],
    *,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Ask the teacher about every face, or read what it said before.

    Args:
        faces: `len(faces)` faces by `image(index)`.
        teacher: a recogniser; its preprocessing is its own.
        folder: where the answers are kept.
        about: what the faces are made of (fingerprint, seed …); answers about other faces, or by
            another teacher, are refused. Of the same faces there may be more or fewer than before.
        progress: called after each new piece, with the number of faces that are done.

    Returns:
        (n, d) float32, unit rows.

    Raises:
        VidfaceError: the folder holds answers about other faces, or damaged ones; the teacher gave
            no finite embedding for a face.
    """
    _claim(folder, {**about, "teacher": teacher.name, "teacher_sha256": teacher.sha256})
    pieces = []
    for start in range(0, len(faces), PIECE):
        stop = min(start + PIECE, len(faces))
        path = folder / f"answers-{start:08d}.safetensors"
        piece = _read_piece(path, teacher.dimension)[: stop - start] if path.is_file() else None
        if piece is None or len(piece) < stop - start:  # none, or of when there were fewer faces
            piece = _ask(faces, teacher, start, stop)
            with atomic_file(path) as file:
                file.write(save({"answers": piece}))
            if progress is not None:
                progress(stop)
        pieces.append(piece)
    rows = np.concatenate(pieces).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _ask(faces: FaceImages, teacher: Embedder, start: int, stop: int) -> np.ndarray:
    """(stop − start, d) float16 unit rows."""
    answers = np.empty((stop - start, teacher.dimension), np.float16)
    for block, images in read_blocks(faces, range(start, stop), _BATCH):
        rows = teacher.embed(images)
        answers[block] = unit_answers(rows, teacher.name, start + block.start)
    return answers


def _claim(folder: Path, description: dict[str, Any]) -> None:
    """Make the folder that of these answers, or see that it is."""
    path = folder / ANSWERS
    if not path.is_file():
        write_json(path, description)
        return
    try:
        kept = read_json_object(path)
    except VidfaceError:
        kept = {}
    if kept != description:
        raise VidfaceError(
            f"{folder}: holds a teacher's answers about something else "
            f"({', '.join(list_differences(kept, description))} differ): remove the folder, or "
            "name another"
        )


def _read_piece(path: Path, dimension: int) -> np.ndarray:
    """(n, d) float16 unit rows."""
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
