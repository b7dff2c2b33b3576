"""Training recipes: `pipelines/train_*.toml` → frozen dataclasses; unknown keys are errors.

    [train]      the network, and how it is run
    [data]       the faces
    [augment]    what is done to them (`vidface.training.augment`)
    [optimiser]  steps of the weights
    [teacher]    for knowledge distillation: who is asked, and about how many faces
    [run] dir    where checkpoints, logs and results go
    [[benchmark]]  pairs of faces that a stage's best model is verified on
    [[stage]]    the schedule, first to last: what is added, for how long, what stops it

Paths and `${NAME:-default}` are as in every pipeline file (`vidface.settings.pipeline`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidface.backbones.architectures import architecture
from vidface.backbones.settings import resolve_weights
from vidface.core.errors import VidfaceError
from vidface.core.values import check, check_choice
from vidface.settings.pipeline import locate_error, read_toml, shipped_trainings
from vidface.settings.values import expand, plain_settings, read_table
from vidface.training.augment import build_augmentation
from vidface.training.sources import SOURCES
from vidface.training.stages import resolve_stages

MAX_SEED = 2**63 - 1
MAX_PROCESSES = 1024
HELD_OUT = "held-out"  # the name of the verification on people who were held out
LAST = "last"


def _check_finite(settings: Any, table: str) -> None:
    """TOML has inf and nan; no setting of a training may be one."""
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, float):
            check(math.isfinite(value), f"{table} {each.name}", f"must be finite, not {value}")


@dataclass(frozen=True)
class TrainSettings:
    """The network, and how it is run.

    Attributes:
        architecture: a name of `vidface.backbones.architectures`, "paper-x0.5-d0.33-e128" too.
        color, mean, std: what the network is fed, on the 0–255 scale.
        scale: s of the softmax losses.
        sample_rate: share of the class centres that a step compares with (PartialFC); 1 is all.
        batch_size: faces a step, over all processes.
        precision: "float32", or "bf16" and "fp16" for mixed precision.
        threads: of torch on a CPU; 0 leaves torch's own choice.
        workers: processes that read faces; 0 reads them in between.
        checkpoint_steps: steps from one checkpoint to the next.
        validate_epochs: epochs from one validation to the next (a stage's end is one always).
        init: a file of weights of this architecture to begin with, instead of random ones.
        choose_by: the verification whose accuracy says which model is a stage's best: "held-out", a
            benchmark's name, or "last" for the model at the stage's end. Where nothing is said it
            is "held-out" if people are held out, and "last" if not.
        log_steps: steps from one line of the log to the next.
        save_half: the finished model's file as float16.
    """

    architecture: str = "paper"
    init: Path | None = None
    seed: int = 0
    color: str = "rgb"
    mean: float = 127.5
    std: float = 128.0
    scale: float = 64.0
    sample_rate: float = 1.0
    batch_size: int = 128
    precision: str = "float32"
    channels_last: bool = True
    device: str = "auto"
    threads: int = 0
    workers: int = 0
    checkpoint_steps: int = 500
    validate_epochs: float = 1.0
    choose_by: str = ""
    log_steps: int = 10
    tensorboard: bool = True
    save_half: bool = False

    def __post_init__(self) -> None:

        _check_finite(self, "[train]")
        architecture(self.architecture)
        check_choice("[train] color", self.color, ("rgb", "bgr"))
        check_choice("[train] precision", self.precision, ("float32", "bf16", "fp16"))
        check_choice("[train] device", self.device, ("auto", "cpu", "cuda"))
        check(self.std > 0, "[train] std", f"must be above 0, not {self.std}")
        check(self.scale > 0, "[train] scale", f"must be above 0, not {self.scale}")
        rate = self.sample_rate
        check(0 < rate <= 1, "[train] sample_rate", f"must lie in (0, 1], not {rate}")
        least = {"seed": 0, "batch_size": 2, "threads": 0, "workers": 0, "log_steps": 1}
        least["checkpoint_steps"] = 1
        for name, low in least.items():
            value = getattr(self, name)
            check(value >= low, f"[train] {name}", f"must be at least {low}, not {value}")
        most = {"seed": MAX_SEED, "threads": MAX_PROCESSES, "workers": MAX_PROCESSES}
        for name, high in most.items():
            value = getattr(self, name)
            check(value <= high, f"[train] {name}", f"must be at most {high}, not {value}")
        often = self.validate_epochs
        check(often > 0, "[train] validate_epochs", f"must be above 0, not {often}")


@dataclass(frozen=True)
class DataSettings:
    """The training faces: a kind and a place (`vidface.training.sources`).

    `hold_out_people` identities, drawn by [train] seed, are not trained on: pairs of their faces
    are the validation that chooses a stage's best model. `resize`: square images of another size
    are resized to 112x112, which is else an error.
    """

    path: Path
    kind: str = "folders"
    split: str = "train"
    resize: bool = False
    hold_out_people: int = 0

    def __post_init__(self) -> None:
        check_choice("[data] kind", self.kind, tuple(SOURCES))
        people = self.hold_out_people
        check(people == 0 or people >= 2, "[data] hold_out_people", f"0, or at least 2: {people}")


@dataclass(frozen=True)
class OptimiserSettings:
    """Steps of the weights: SGD with momentum (the field's habit), AdamW, or Muon
    (`vidface.training.muon`), which learns more from a face.

    A stage warms up over `warmup_steps`, and then goes from `learning_rate` to nothing along half
    a cosine ("cosine"), or stays ("constant"). `clip_norm` bounds the backbone's gradient, 0 does
    not. Class centres always go by SGD; `centres_learning_rate` is theirs where it is not the
    backbone's. Weight decay spares biases, slopes and batch norm where `decay_all` is false.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_all: bool = False
    schedule: str = "cosine"
    warmup_steps: int = 0
    clip_norm: float = 5.0
    centres_learning_rate: float | None = None

    def __post_init__(self) -> None:
        _check_finite(self, "[optimiser]")
        check_choice("[optimiser] name", self.name, ("sgd", "adamw", "muon"))
        check_choice("[optimiser] schedule", self.schedule, ("cosine", "constant"))
        check(0 <= self.momentum < 1, "[optimiser] momentum", f"in [0, 1), not {self.momentum}")
        centres = self.centres_learning_rate
        positive = self.learning_rate > 0 and (centres is None or centres > 0)
        check(positive, "[optimiser] learning_rate", f"above 0, not {self.learning_rate}")
        for name in ("weight_decay", "warmup_steps", "clip_norm"):
            value = getattr(self, name)
            check(value >= 0, f"[optimiser] {name}", f"must be ≥ 0, not {value}")


@dataclass(frozen=True)
class TeacherSettings:
    """Who is asked about how many faces; answers are kept in `dir` (default: in the run's).

    The first faces are the training faces themselves, the others are mixtures and bent ones
    (`vidface.training.synthetic`), drawn by `seed`.

    Attributes:
        color, mean, std: what a file that does not say so is fed; for a name, and where nobody
            says, as everywhere.
        live: ask at every step about what the student sees, after augmentation, instead of once
            about each face; the teacher then runs beside the training, and nothing is kept.
        hints: part of the student → map of a live teacher's graph that it is to follow.
    """

    weights: str = "sface"
    count: int = 50_000
    seed: int = 0
    mix_share: float = 0.7
    bend_share: float = 0.5
    bend_pixels: float = 2.5
    dir: Path | None = None
    color: str | None = None
    mean: float | None = None
    std: float | None = None
    live: bool = False
    hints: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_finite(self, "[teacher]")
        check(self.live or not self.hints, "[teacher] hints", "need live = true")
        for part, name in self.hints.items():
            said = isinstance(name, str) and name != ""
            check(said, f"[teacher.hints] {part!r}", f"must be a map's name, not {name!r}")
        check_choice("[teacher] color", self.color or "rgb", ("rgb", "bgr"))
        check(self.std is None or self.std > 0, "[teacher] std", f"must be above 0, not {self.std}")
        check(self.count >= 1, "[teacher] count", f"at least 1, not {self.count}")
        seeds = 0 <= self.seed <= MAX_SEED
        check(seeds, "[teacher] seed", f"must lie in [0, {MAX_SEED}], not {self.seed}")
        for name in ("mix_share", "bend_share"):
            share = getattr(self, name)
            check(0 <= share <= 1, f"[teacher] {name}", f"must lie in [0, 1], not {share}")
        pixels = self.bend_pixels
        check(0 <= pixels <= 20, "[teacher] bend_pixels", f"must lie in [0, 20], not {pixels}")


@dataclass(frozen=True)
class BenchmarkSettings:
    """Pairs of faces: an InsightFace .bin, or images with a list in LFW's format.

    `optional`: a benchmark that is not at hand is n/a in the table instead of an error. It is
    verified at each stage's end, with `each_validation` at every validation too.
    """

    name: str
    images: Path
    pairs: Path | None = None
    flip: bool = False
    optional: bool = False
    each_validation: bool = False


@dataclass(frozen=True)
class StageSettings:
    """One stage as the file says it.

    Attributes:
        name: in tables and folder names.
        losses: losses that are added or changed: name → settings. A margin takes the place of the
            margin before; the others stay until they are removed.
        remove: losses of the stage before that end here; "cut" brings all faces back.
        epochs, steps: how long; one of them.
        patience: validations without a better model after which the stage ends early; 0: never.
        start: "best" model of the stage before, its "last", or "scratch".
        learning_rate, warmup_steps, batch_size: instead of the file's.
        images_per_person: K of P×K sampling, batches of batch_size / K people; 0: plain shuffling.
            It stays for the stages that follow, as `short`, `cut` and `augment` do.
        short: what is done with a person of fewer faces than K: "error", "skip" or "repeat".
        cut: settings of `vidface.training.cleaning`, by the model that the stage starts from; an
            empty table is the default settings.
        augment: changes of the file's [augment] table, for this stage.
    """

    name: str
    losses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    epochs: float | None = None
    steps: int | None = None
    patience: int = 0
    start: str = "best"
    learning_rate: float | None = None
    warmup_steps: int | None = None
    batch_size: int | None = None
    images_per_person: int | None = None
    short: str | None = None
    cut: Mapping[str, Any] | None = None
    augment: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"[[stage]] {self.name!r}"
        check(bool(self.name.strip()), "[[stage]] name", "is empty")
        check(self.name.isprintable(), where, "a name of one line, without control characters")
        _check_finite(self, where)
        one = (self.epochs is None) != (self.steps is None)
        check(one, where, "say how long: epochs or steps, one of them")
        taken = (self.epochs is None or self.epochs > 0) and (self.steps is None or self.steps >= 1)
        check(taken, where, "must take a step at least")
        check(self.patience >= 0, f"{where} patience", f"must be ≥ 0, not {self.patience}")
        check_choice(f"{where} start", self.start, ("best", "last", "scratch"))
        check_choice(f"{where} short", self.short or "error", ("error", "skip", "repeat"))
        rate = self.learning_rate
        check(rate is None or rate > 0, f"{where} learning_rate", f"above 0, not {rate}")
        check((self.warmup_steps or 0) >= 0, f"{where} warmup_steps", "must be ≥ 0")
        batch = self.batch_size
        check(batch is None or batch >= 2, where, "batch_size must be at least 2")
        images = self.images_per_person
        check(images in (None, 0) or images >= 2, f"{where} images_per_person", "0, or at least 2")


@dataclass(frozen=True)
class TrainingRunSettings:
    """Where the models and logs of a training go."""

    dir: Path


@dataclass(frozen=True)
class TrainingPipeline:
    """All settings of a training, checked."""

    train: TrainSettings
    data: DataSettings
    run: TrainingRunSettings
    stages: tuple[StageSettings, ...]
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    teacher: TeacherSettings | None = None
    augment: Mapping[str, Any] = field(default_factory=lambda: {"flip": True})
    benchmarks: tuple[BenchmarkSettings, ...] = ()
    file: Path | None = None

    @property
    def choose_by(self) -> str:
        """The verification that chooses a stage's best model, or "last"."""
        return self.train.choose_by or (HELD_OUT if self.data.hold_out_people else LAST)

    def document(self) -> dict[str, Any]:
        """Everything that decides the weights, as JSON; a resumed run must have the same."""
        free = {"device", "threads", "workers", "checkpoint_steps", "log_steps", "tensorboard"}
        free.add("save_half")
        train = {k: v for k, v in dataclasses.asdict(self.train).items() if k not in free}
        teacher = dataclasses.asdict(self.teacher) if self.teacher else None
        if teacher is not None:
            teacher.pop("dir")
        data = dataclasses.asdict(self.data)
        data.pop("path")  # the data's fingerprint says more
        train.pop("init")  # the loop adds its hash
        data.pop("resize")
        return {
            "train": train,
            "data": data,
            "optimiser": dataclasses.asdict(self.optimiser),
            "teacher": teacher,
            "augment": _plain(self.augment),
            "stages": [_plain(dataclasses.asdict(stage)) for stage in self.stages],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


TABLES: dict[str, type] = {
    "train": TrainSettings,
    "data": DataSettings,
    "optimiser": OptimiserSettings,
    "teacher": TeacherSettings,
    "run": TrainingRunSettings,
}
LISTS: dict[str, type] = {"benchmark": BenchmarkSettings, "stage": StageSettings}


def find_training(name_or_path: str | Path) -> Path:
    """A training recipe: a path, or the name of a shipped one."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = shipped_trainings()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise VidfaceError(
        f"training {name_or_path}: no such file; give a path, or one of the shipped recipes: "
        + ", ".join(shipped)
    )


def load_training(
    name_or_path: str | Path, overrides: Mapping[tuple[str, str], Any] | None = None
) -> TrainingPipeline:
    """Read a training recipe; `overrides` {(table, key): value} replace its keys.

    Raises:
        VidfaceError: unreadable, unknown table, key, loss or setting, wrong type or value.
    """
    file = find_training(name_or_path)
    return parse_training(read_toml(file, "training"), file, overrides)


def parse_training(
    document: Mapping[str, Any],
    file: Path,
    overrides: Mapping[tuple[str, str], Any] | None = None,
) -> TrainingPipeline:
    """Settings from a parsed TOML document; `file` is where relative paths start."""

    where = f"training {file}"
    known = (*TABLES, "augment", *(f"[{name}]" for name in LISTS))
    for name in document:
        if name not in (*TABLES, *LISTS, "augment"):
            raise VidfaceError(f"{where}: unknown table [{name}] (known: {', '.join(known)})")
    tables = {}
    for name, kind in TABLES.items():
        table = document.get(name)
        if table is None and name == "teacher":
            continue
        if not isinstance(table, dict | None):
            raise VidfaceError(f"{where}: [{name}] must be a table")
        tables[name] = _values(kind, f"[{name}]", table or {}, file, where)
    if "weights" in tables.get("teacher", {}):
        text, from_environment = expand(document["teacher"]["weights"], f"{where}: [teacher]")
        start = Path.cwd() if from_environment else file.parent
        tables["teacher"]["weights"] = resolve_weights(text, start)
    for (name, key), value in (overrides or {}).items():
        values = _values(TABLES[name], f"[{name}]", {key: value}, Path.cwd() / "flags", "flag")
        tables.setdefault(name, {}).update(values)
    tables["run"].setdefault("dir", Path.cwd() / "runs" / file.stem)
    if "path" not in tables["data"]:
        raise VidfaceError(f"{where}: [data] path is missing; it names the training faces")
    lists: dict[str, tuple[Any, ...]] = {}
    try:
        for name, kind in LISTS.items():
            rows = document.get(name, [])
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise VidfaceError(f"write [[{name}]], a table each")
            built = []
            for row in rows:
                values = _values(kind, f"[[{name}]]", row, file, where)
                absent = [each for each in _required(kind) if each not in values]
                check(not absent, f"[[{name}]]", f"lacks {', '.join(absent)}")
                built.append(kind(**values))
            lists[name] = tuple(built)
        augment = document.get("augment", {"flip": True})
        check(isinstance(augment, dict), "[augment]", "must be a table")
        build_augmentation(augment)
        made = {name: TABLES[name](**values) for name, values in tables.items()}
        pipeline = TrainingPipeline(
            stages=lists["stage"], benchmarks=lists["benchmark"], augment=augment, file=file, **made
        )
        _check_whole(pipeline)
        resolve_stages(pipeline)
    except VidfaceError as error:
        fields = {name: plain_settings(kind) for name, kind in TABLES.items()}
        raise locate_error(str(error), where, fields, overrides or {}) from None
    return pipeline


def _check_whole(pipeline: TrainingPipeline) -> None:
    check(len(pipeline.stages) > 0, "[[stage]]", "there is none")
    names = [HELD_OUT] * (pipeline.data.hold_out_people > 0)
    names += [each.name for each in pipeline.benchmarks]
    for what, given in (("benchmark", names), ("stage", [s.name for s in pipeline.stages])):
        twice = sorted({name for name in given if given.count(name) > 1})
        check(not twice, f"[[{what}]]", f"two have the name {', '.join(twice)}")
    if pipeline.train.choose_by:
        check_choice("[train] choose_by", pipeline.train.choose_by, (*names, LAST))


def _required(kind: type) -> list[str]:
    missing = dataclasses.MISSING
    return [
        each.name
        for each in dataclasses.fields(kind)
        if each.default is missing and each.default_factory is missing
    ]


def _values(
    kind: type, table: str, given: Mapping[str, Any], file: Path, where: str
) -> dict[str, Any]:
    return read_table(plain_settings(kind), table, given, file, where)
