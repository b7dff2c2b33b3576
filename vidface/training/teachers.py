"""Who is asked, about which faces: a recipe's [teacher] made ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.loading import load_backbone, weights_sha256
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.core.values import available_cores
from vidface.training.distillation import Distil
from vidface.training.folder import TrainingFolder
from vidface.training.hints import Adapters, channel_statistics, check_sizes, student_shapes
from vidface.training.live import LiveTeacher
from vidface.training.processes import Processes
from vidface.training.settings import OptimiserSettings, TeacherSettings
from vidface.training.sources import FaceSource
from vidface.training.synthetic import SyntheticFaces
from vidface.training.tasks import LiveRepetition
from vidface.training.teaching import Answers, teach

if TYPE_CHECKING:
    from vidface.training.opening import Setting

STATISTICS_FACES = 256  # that the teacher's means and deviations are taken of
_AT_ONCE = 32


def synthetic_faces(teacher: TeacherSettings, source: FaceSource) -> SyntheticFaces:
    """The faces that a distillation goes through."""
    return SyntheticFaces(
        source, teacher.count, teacher.seed, teacher.mix_share, teacher.bend_share,
        teacher.bend_pixels,
    )  # fmt: skip


def preprocessing_of(teacher: TeacherSettings) -> Preprocessing | None:
    """What the recipe says that the teacher is fed; None: nothing."""
    if teacher.color is None and teacher.mean is None and teacher.std is None:
        return None
    return Preprocessing(teacher.color, teacher.mean, teacher.std)


def deciding(teacher: TeacherSettings) -> dict[str, str]:
    """What of a live teacher decides the weights; the kept answers of another know their own."""
    return {"teacher": weights_sha256(teacher.weights)} if teacher.live else {}


def kept_answers(
    teacher: TeacherSettings,
    faces: SyntheticFaces,
    source: FaceSource,
    processes: Processes,
    folder: TrainingFolder,
    threads: int,
    notify: Callable[[str], None],
) -> Answers:
    """A teacher's answers about all faces, once and for all; the first process asks."""
    about: dict[str, Any] = {
        "data": source.fingerprint,
        "seed": teacher.seed,
        "mix_share": teacher.mix_share,
        "bend_share": teacher.bend_share,
        "bend_pixels": teacher.bend_pixels,
    }
    fed = preprocessing_of(teacher)
    if fed is not None:
        about["fed"] = asdict(fed)

    def progress(done: int) -> None:
        notify(f"{teacher.weights} answers: {done:,} of {len(faces):,}")

    answers: Answers | None = None
    place = teacher.dir or folder.answers
    for turn in range(2):  # the first process asks, the others read what it wrote
        if (turn == 0) == processes.is_first:
            embedder = load_backbone(
                teacher.weights, fed, device=processes.device.type, threads=threads or None
            )
            answers = teach(faces, embedder, place, about, progress=progress)
        processes.barrier()
    if answers is None:
        raise VidfaceError(f"{place}: no answers")
    return answers


def live_repetition(
    objective: Distil,
    teacher: TeacherSettings,
    faces: SyntheticFaces,
    setting: Setting,
    optimiser: OptimiserSettings,
    processes: Processes,
) -> LiveRepetition:
    """The task of a stage whose teacher is asked at every step.

    Raises:
        VidfaceError: several processes; a part or a map that is not there, or of another size; a
            teacher of another dimension.
    """

    if processes.size > 1:
        raise VidfaceError(
            f"a live teacher trains in one process, not in {processes.size}: leave [teacher] live "
            "and hints out, or train alone"
        )
    hints = {part: str(name) for part, name in teacher.hints.items()} if objective.hints else {}
    own = student_shapes(setting.architecture, tuple(hints))
    live = LiveTeacher(
        teacher.weights,
        preprocessing_of(teacher),
        tuple(hints.values()),
        setting.threads or available_cores(),
    )
    if live.dimension != setting.architecture.dimension:
        raise VidfaceError(
            f"[train] architecture '{setting.architecture.name}' gives "
            f"{setting.architecture.dimension} numbers and the teacher {live.dimension}: name it "
            f"with -e{live.dimension} behind"
        )
    check_sizes(hints, own, live.shapes)
    channels = {part: (own[part][0], live.shapes[name][0]) for part, name in hints.items()}
    adapters = Adapters(channels, _statistics(live, faces, hints))
    return LiveRepetition(
        objective, live, setting.plain, hints, adapters.to(setting.device), optimiser
    )


def _statistics(
    live: LiveTeacher, faces: SyntheticFaces, hints: dict[str, str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation of the teacher's channels, of faces spread evenly."""
    if not hints:
        return {}
    some = np.unique(np.linspace(0, len(faces) - 1, STATISTICS_FACES).astype(int))
    said = [
        live(np.stack([faces.image(int(index)) for index in some[start : start + _AT_ONCE]])).maps
        for start in range(0, len(some), _AT_ONCE)
    ]
    return {
        part: channel_statistics(np.concatenate([each[name] for each in said]))
        for part, name in hints.items()
    }
