"""The settings of a training, as a recipe's tables say them (`vidface.training.recipes`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.backbones.architectures import find_architecture
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.settings import resolve_weights
from vidface.core.settings import check_settings, file_setting, setting
from vidface.core.values import check
from vidface.training.optimisers import OPTIMISERS, SCHEDULES
from vidface.training.sampling import SHORTS
from vidface.training.sources import SOURCES

HELD_OUT = "held-out"  # the name of the verification on people who were held out
LAST = "last"
_SEEDS = f"[0, {2**63 - 1}]"
_PROCESSES = "[0, 1024]"


@dataclass(frozen=True)
class TrainSettings:
    """The network, and how it is run."""

    architecture: str = file_setting(
        "paper",
        help="The network: a name of `vidface models`; -x0.5 scales its channels, -d0.33 its "
        "blocks, -e128 is its dimension.",
    )
    init: Path | None = file_setting(
        None, help="A file of weights of this architecture to begin with, instead of random ones."
    )
    seed: int = setting(0, bounds=_SEEDS, help="Seed of weights, order and augmentation.")
    color: str = file_setting(
        "rgb", choices=("rgb", "bgr"), help="Order of colours the network is fed."
    )
    mean: float = file_setting(127.5, help="What is subtracted from pixels (0 to 255).")
    std: float = file_setting(128.0, bounds="(0, inf)", help="What divides pixels after the mean.")
    scale: float = file_setting(64.0, bounds="(0, inf)", help="Scale s of the softmax losses.")
    sample_rate: float = file_setting(
        1.0,
        bounds="(0, 1]",
        help="Share of the class centres that a step compares with (PartialFC); 1 is all.",
    )
    batch_size: int = file_setting(128, bounds="[2, inf)", help="Faces a step, over all processes.")
    precision: str = setting(
        "float32",
        choices=("float32", "bf16", "fp16"),
        help="Numbers of the network's products: float32, or bf16 and fp16 for mixed precision.",
    )
    channels_last: bool = file_setting(True, help="Keep a pixel's channels together in memory.")
    device: str = setting(
        "auto", choices=("auto", "cpu", "cuda"), help="Where it trains: auto, cpu or cuda."
    )
    threads: int = setting(
        0, bounds=_PROCESSES, default_text="torch's own", help="Threads of torch on a CPU."
    )
    workers: int = setting(
        0, bounds=_PROCESSES, help="Processes that read faces; 0 reads them in between."
    )
    checkpoint_steps: int = file_setting(
        500, bounds="[1, inf)", help="Steps from one checkpoint to the next."
    )
    validate_epochs: float = file_setting(
        1.0,
        bounds="(0, inf)",
        help="Epochs from one validation to the next; a stage's end is one always.",
    )
    choose_by: str = file_setting(
        "",
        default_text="held-out if people are held out, else last",
        help="The verification whose accuracy says which model is a stage's best: held-out, a "
        "benchmark's name, or last for the model at the stage's end.",
    )
    log_steps: int = file_setting(
        10, bounds="[1, inf)", help="Steps from one line of the log to the next."
    )
    tensorboard: bool = file_setting(True, help="Write TensorBoard's files beside the log.")
    save_half: bool = file_setting(False, help="Save the finished model's file as float16.")

    def __post_init__(self) -> None:
        check_settings(self, "[train]")
        find_architecture(self.architecture)


@dataclass(frozen=True)
class DataSettings:
    """The training faces: a kind and a place (`vidface.training.sources`)."""

    path: Path = setting(flag="--data", help="Where the training faces lie.")
    kind: str = file_setting(
        "folders", choices=SOURCES, help="Of what kind the training faces are."
    )
    split: str = file_setting("train", help="Rows of a manifest that are trained on.")
    resize: bool = file_setting(
        False, help="Resize square images of another size to 112x112, which is else an error."
    )
    hold_out_people: int = file_setting(
        0,
        help="People, drawn by [train] seed, who are not trained on: pairs of their faces choose a "
        "stage's best model. 0, or at least 2.",
    )

    def __post_init__(self) -> None:
        check_settings(self, "[data]")
        people = self.hold_out_people
        check(people == 0 or people >= 2, "[data] hold_out_people", f"0, or at least 2: {people}")


@dataclass(frozen=True)
class OptimiserSettings:
    """Steps of the weights. Class centres always go by SGD."""

    name: str = file_setting(
        "sgd",
        choices=OPTIMISERS,
        help="How weights are moved: sgd with momentum (the field's habit), adamw, or muon (Muon "
        "for linear layers and 1x1 convolutions, AdamW for the rest), which learns more of a face.",
    )
    learning_rate: float = file_setting(
        0.1, bounds="(0, inf)", help="Highest learning rate of a stage."
    )
    momentum: float = file_setting(0.9, bounds="[0, 1)", help="Momentum of sgd and muon.")
    weight_decay: float = file_setting(5e-4, bounds="[0, inf)", help="Pull of weights towards 0.")
    decay_all: bool = file_setting(False, help="Pull biases, slopes and batch norm towards 0 too.")
    schedule: str = file_setting(
        "cosine",
        choices=SCHEDULES,
        help="The learning rate after warming up: cosine falls along half a cosine to nothing at "
        "the stage's end, constant stays.",
    )
    warmup_steps: int = file_setting(
        0, bounds="[0, inf)", help="Steps in which a stage's learning rate rises to its highest."
    )
    clip_norm: float = file_setting(
        5.0, bounds="[0, inf)", help="Bound of the norm of the backbone's gradient; 0: none."
    )
    centres_learning_rate: float | None = file_setting(
        None,
        bounds="(0, inf)",
        default_text="the backbone's",
        help="Highest learning rate of the class centres.",
    )

    def __post_init__(self) -> None:
        check_settings(self, "[optimiser]")


@dataclass(frozen=True)
class TeacherSettings:
    """Who is asked about how many faces, in a knowledge distillation.

    The first faces are the training faces themselves, the others are mixtures and bent ones
    (`vidface.training.synthetic`).
    """

    weights: str = file_setting(
        "sface", help="The teacher: a name of `vidface models`, or a file.", parse=resolve_weights
    )
    count: int = file_setting(
        50_000,
        bounds="[1, inf)",
        help="Faces that the teacher is asked about: the training faces, then mixtures of two and "
        "bent ones.",
    )
    seed: int = file_setting(0, bounds=_SEEDS, help="Seed of the mixtures.")
    mix_share: float = file_setting(
        0.7, bounds="[0, 1]", help="Share of the further faces mixed of two."
    )
    bend_share: float = file_setting(
        0.5, bounds="[0, 1]", help="Share of the further faces that are bent."
    )
    bend_pixels: float = file_setting(
        2.5, bounds="[0, 20]", unit="pixels", help="Standard deviation of the bending."
    )
    dir: Path | None = file_setting(
        None, default_text="the run's `answers/`", help="Where the teacher's answers are kept."
    )
    color: str | None = file_setting(
        None,
        choices=("rgb", "bgr"),
        default_text="the file's word",
        help="Order of colours that a teacher's file that does not say so is fed.",
    )
    mean: float | None = file_setting(
        None,
        default_text="the file's word",
        help="What is subtracted from pixels for a teacher's file that does not say so.",
    )
    std: float | None = file_setting(
        None,
        bounds="(0, inf)",
        default_text="the file's word",
        help="What divides pixels after the mean for a teacher's file that does not say so.",
    )
    live: bool = file_setting(
        False,
        help="Ask at every step about what the student sees, after augmentation, instead of once "
        "about each face; nothing is kept.",
    )
    hints: Mapping[str, Any] = file_setting(
        factory=dict,
        help="A table: part of the student, and the map of a live teacher's graph it is to follow.",
    )

    def __post_init__(self) -> None:
        check_settings(self, "[teacher]")
        check(self.live or not self.hints, "[teacher] hints", "need live = true")
        for part, name in self.hints.items():
            named = isinstance(name, str) and name != ""
            check(named, f"[teacher.hints] {part!r}", f"must be a map's name, not {name!r}")

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the recipe says that the teacher is fed; None where it says nothing."""
        if self.color is None and self.mean is None and self.std is None:
            return None
        return Preprocessing(self.color, self.mean, self.std)


@dataclass(frozen=True)
class BenchmarkSettings:
    """Pairs of faces: an InsightFace .bin, or images with a list in LFW's format."""

    name: str = file_setting(help="The benchmark's name in tables.")
    images: Path = file_setting(help="An InsightFace .bin, or the folder of the images.")
    pairs: Path | None = file_setting(None, help="The list of pairs, in LFW's format.")
    flip: bool = file_setting(False, help="Add the embedding of the mirrored face (the flip test).")
    optional: bool = file_setting(
        False, help="Show a benchmark that is not at hand as n/a, instead of an error."
    )
    each_validation: bool = file_setting(
        False, help="Verify at every validation, not at a stage's end alone."
    )


@dataclass(frozen=True)
class StageSettings:
    """One stage as the file says it."""

    name: str = file_setting(help="The stage's name in tables and folder names.")
    losses: Mapping[str, Mapping[str, Any]] = file_setting(
        factory=dict,
        help="A table a loss that is added or changed. A margin takes the place of the margin "
        "before; the others stay until they are removed.",
    )
    remove: tuple[str, ...] = file_setting(
        (),
        default_text="none",
        help='Losses of the stage before that end here; "cut" brings all faces back.',
    )
    epochs: float | None = file_setting(
        None, bounds="(0, inf)", help="How long the stage takes, unless steps say so."
    )
    steps: int | None = file_setting(
        None, bounds="[1, inf)", help="How long the stage takes, unless epochs say so."
    )
    patience: int = file_setting(
        0,
        bounds="[0, inf)",
        help="Validations without a better model after which the stage ends early; 0: never.",
    )
    start: str = file_setting(
        "best",
        choices=("best", "last", "scratch"),
        help="The weights to begin with: the best of the stage before, its last, or scratch.",
    )
    learning_rate: float | None = file_setting(
        None,
        bounds="(0, inf)",
        default_text="[optimiser]'s",
        help="The stage's highest learning rate.",
    )
    warmup_steps: int | None = file_setting(
        None,
        bounds="[0, inf)",
        default_text="[optimiser]'s",
        help="Steps in which the stage's learning rate rises to its highest.",
    )
    batch_size: int | None = file_setting(
        None,
        bounds="[2, inf)",
        default_text="[train]'s",
        help="Faces a step of this stage, over all processes.",
    )
    images_per_person: int | None = file_setting(
        None,
        default_text="the stage before's, else 0",
        help="K of P×K sampling, batches of batch_size / K people; 0: plain shuffling.",
    )
    short: str | None = file_setting(
        None,
        choices=SHORTS,
        default_text="the stage before's, else error",
        help="What is done with a person of fewer faces than K.",
    )
    cut: Mapping[str, Any] | None = file_setting(
        None,
        default_text="the stage before's, else none",
        help="A table: faces that are cut, by the model that the stage starts from.",
    )
    augment: Mapping[str, Any] = file_setting(
        factory=dict, help="A table: changes of the stage before's [augment]."
    )

    def __post_init__(self) -> None:
        where = f"[[stage]] {self.name!r}"
        check(bool(self.name.strip()), "[[stage]] name", "is empty")
        check(self.name.isprintable(), where, "a name of one line, without control characters")
        check_settings(self, where)
        one_length = (self.epochs is None) != (self.steps is None)
        check(one_length, where, "say how long: epochs or steps, one of them")
        images = self.images_per_person
        check(images in (None, 0) or images >= 2, f"{where} images_per_person", "0, or at least 2")


@dataclass(frozen=True)
class TrainingRunSettings:
    """Where the models and logs of a training go."""

    dir: Path = setting(
        flag="--run",
        default_text="`runs/` and the recipe's name",
        help="Where checkpoints, logs and results go.",
    )


@dataclass(frozen=True)
class TrainingPipeline:
    """All settings of a training, checked."""

    train: TrainSettings
    data: DataSettings
    run: TrainingRunSettings
    stages: tuple[StageSettings, ...]
    optimiser: OptimiserSettings
    augment: Mapping[str, Any]
    benchmarks: tuple[BenchmarkSettings, ...]
    teacher: TeacherSettings | None = None

    @property
    def verifications(self) -> tuple[str, ...]:
        """The names of all verifications, of those that are not at hand too."""
        held_out = (HELD_OUT,) if self.data.hold_out_people else ()
        return (*held_out, *(benchmark.name for benchmark in self.benchmarks))

    @property
    def choose_by(self) -> str:
        """The verification that chooses a stage's best model, or "last"."""
        return self.train.choose_by or (HELD_OUT if self.data.hold_out_people else LAST)

    def document(self) -> dict[str, Any]:
        """Everything that decides the weights, as JSON; a resumed run must have the same."""
        document = dataclasses.asdict(self)
        for table, keys in _NOT_DECIDING.items():
            for key in keys if document[table] is not None else ():
                del document[table][key]
        return {name: document[name] for name in (*_NOT_DECIDING, "augment", "stages")}


_NOT_DECIDING = {
    # Weights to begin with are told by their hash, the faces by their fingerprint.
    "train": ("init", "device", "threads", "workers", "checkpoint_steps", "log_steps",
              "tensorboard", "save_half"),
    "data": ("path", "resize"),
    "optimiser": (),
    "teacher": ("dir",),
}  # fmt: skip


TABLES: dict[str, type] = {
    "train": TrainSettings,
    "data": DataSettings,
    "optimiser": OptimiserSettings,
    "teacher": TeacherSettings,
    "run": TrainingRunSettings,
}
LISTS: dict[str, type] = {"benchmark": BenchmarkSettings, "stage": StageSettings}
