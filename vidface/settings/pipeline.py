"""Pipeline files: `pipelines/*.toml` → frozen dataclasses.

One table a stage. An unknown key or a wrong type is an error that names it and lists what is
known. In strings, `${NAME}` and `${NAME:-default}` are replaced by environment variables; `${PWD}`
(the working directory) and `${VIDFACE_CACHE}` (the cache) are always defined. Relative paths are
relative to the file; only where a path begins with a variable that is set in the environment is it
relative to the working directory, as the person who set it means it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidface.core.errors import UsageError, VidfaceError
from vidface.settings.manifests import SPLITS
from vidface.settings.run_settings import RunSettings, size_bytes
from vidface.storage.media import as_location
from vidface.storage.urls import Address, is_url

LOCAL_PIPELINE = "vidface.toml"
DEMO_PIPELINE = "demo"

# The names of vidface.noise.denoisers and vidface.vectors.descriptors, which a test keeps equal:
# `--help` and a typing error are answered without NumPy.
METHODS = ("union-find", "none", "dbscan", "hdbscan", "complete-linkage", "trim", "oracle")
POOLING_NAMES = ("mean", "det-score", "norm", "quality", "medoid")
ENROLMENT_NAMES = ("mean", "max")
CONVENTION_NAMES = ("step", "nearest")
PROTOCOLS = (
    "verification",
    "cross-verification",
    "retrieval",
    "clip-retrieval",
    "identification",
)
NEED_GALLERY = frozenset({"cross-verification", "retrieval", "identification"})


def check(condition: bool, key: str, problem: str) -> None:
    """Raise VidfaceError "key: problem" unless the condition holds."""
    if not condition:
        raise VidfaceError(f"{key}: {problem}")


def check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    """Raise VidfaceError that lists what is known unless the value is one of it."""
    check(value in known, key, f"unknown value '{value}' (known: {', '.join(known)})")


@dataclass(frozen=True)
class ManifestSettings:
    """Which clips: the CSV file, and where its relative paths start (a folder or a tar)."""

    path: Path | Address
    root: Path | Address | None = None
    prepare: str | None = None  # makes the manifest: a name of vidface.runs.run.PREPARERS
    allow_missing: bool = False


@dataclass(frozen=True)
class FrameSettings:
    """Which frames of a video: sampled by time, `fps` a second."""

    fps: float = 8.0
    decoder: str = "pyav"

    def __post_init__(self) -> None:
        fits = math.isfinite(self.fps) and self.fps > 0
        check(fits, "[frames] fps", f"must be above 0, not {self.fps}")
        check_choice("[frames] decoder", self.decoder, ("pyav", "decord"))


@dataclass(frozen=True)
class FaceSettings:
    """Which faces of a frame. `source = "aligned"`: images are 112x112 crops, used as they are.

    `source = "features"`: a clip is a video in a pickle of embeddings (`vidface.runs.features`),
    and no recogniser is run.
    """

    source: str = "detect"
    which: str = "largest"
    detector: str = "yunet"
    detector_long_side: int = 640  # pixels; larger frames are shrunk for the detector alone
    min_det_score: float = 0.7
    min_face_pixels: float = 20.0  # shorter side of the box, in pixels of the frame
    keep_crops: bool = False

    def __post_init__(self) -> None:
        check_choice("[faces] source", self.source, ("detect", "aligned", "features"))
        check_choice("[faces] which", self.which, ("largest", "all"))
        score = self.min_det_score
        check(0 <= score <= 1, "[faces] min_det_score", f"must lie in [0, 1], not {score}")
        pixels = self.min_face_pixels
        check(0 <= pixels < math.inf, "[faces] min_face_pixels", f"must be ≥ 0, not {pixels}")
        side = self.detector_long_side
        check(side >= 64, "[faces] detector_long_side", f"must be ≥ 64, not {side}")
        pictures = not self.keep_crops or self.source != "features"
        check(pictures, "[faces] keep_crops", "features have no pictures to keep")


@dataclass(frozen=True)
class BackboneSettings:
    """The recogniser: a name, or a path with its preprocessing (0–255 scale); what runs it."""

    weights: str = "sface"
    architecture: str | None = None
    color: str | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    size: int | None = None
    runtime: str = "auto"
    precision: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choice(
            "[backbone] runtime", self.runtime, ("auto", "onnxruntime", "openvino", "torch")
        )
        check_choice("[backbone] precision", self.precision, ("float32", "bf16", "fp16"))
        check_choice("[backbone] device", self.device.split(":")[0], ("auto", "cpu", "cuda"))
        if self.color is not None:
            check_choice("[backbone] color", self.color, ("rgb", "bgr"))
        for name in ("mean", "std"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (0.0 if value is None else value,)
            fits = len(values) in (1, 3) and all(math.isfinite(v) for v in values)
            check(fits, f"[backbone] {name}", f"must be one finite number or three, not {value}")
        std = self.std if isinstance(self.std, tuple) else (1.0 if self.std is None else self.std,)
        check(all(v > 0 for v in std), "[backbone] std", f"must be above 0, not {self.std}")


@dataclass(frozen=True)
class ClusterSettings:
    """Which faces are noise: the method and its settings (`vidface.noise.denoisers`).

    `threshold` is a cosine; "none" (or -1) keeps every usable face. `truth` is a CSV that says
    which frames are noise: the method "oracle" needs it, and for the others it gives the precision
    and recall of what they drop. `memory` bounds the working arrays.
    """

    threshold: float | None = 0.4
    method: str = "union-find"
    min_samples: int = 3
    min_cluster_size: int = 5
    trim_share: float = 0.25
    truth: Path | None = None
    memory: str = "2GiB"

    def __post_init__(self) -> None:
        if self.threshold is not None:
            fits = -1 <= self.threshold <= 1
            problem = f'a cosine in [-1, 1] or "none", not {self.threshold}'
            check(fits, "[cluster] threshold", problem)
            if self.threshold == -1:  # by definition no clustering: one spelling inside
                object.__setattr__(self, "threshold", None)
        check_choice("[cluster] method", self.method, METHODS)
        check(self.min_samples >= 1, "[cluster] min_samples", f"at least 1, not {self.min_samples}")
        least = f"at least 2, not {self.min_cluster_size}"
        check(self.min_cluster_size >= 2, "[cluster] min_cluster_size", least)
        share = f"must lie in [0, 1), not {self.trim_share}"
        check(0 <= self.trim_share < 1, "[cluster] trim_share", share)
        oracle = self.method != "oracle" or self.truth is not None
        check(oracle, "[cluster] truth", 'the method "oracle" needs a truth file')
        self.memory_bytes  # noqa: B018 - raises

    @property
    def memory_bytes(self) -> int:
        """`memory` as a number of bytes.

        >>> ClusterSettings(memory="1.5GiB").memory_bytes
        1610612736
        """
        return size_bytes(self.memory, "[cluster] memory")


@dataclass(frozen=True)
class DescriptorSettings:
    """How the kept faces of a clip become one vector (`vidface.vectors.descriptors.POOLINGS`)."""

    pooling: str = "mean"

    def __post_init__(self) -> None:
        check_choice("[descriptor] pooling", self.pooling, POOLING_NAMES)


@dataclass(frozen=True)
class ScoreSettings:
    """Which split is reported, from which split its identities are enrolled, and how.

    `fars`, `fpirs`, `ranks` and `protocols` are comma lists: a FAR is the exact fraction of its
    text. `bootstrap` is the number of resamples, 0 for no intervals. `device` is where pairs are
    compared.
    """

    gallery: str = "train"
    split: str = "val"
    protocols: str = "verification,retrieval,identification"
    fars: str = "1e-1,1e-2,1e-3,1e-4,1e-5,1e-6"
    fpirs: str = "1e-1,1e-2,1e-3"
    ranks: str = "1,5,10"
    k: int = 100
    enrolment: str = "mean"
    convention: str = "step"
    exact: bool = False
    bootstrap: int = 1000
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice("[score] device", self.device.split(":")[0], ("cpu", "cuda"))
        check(len(self.far_list) > 0, "[score] fars", "names none")
        check_choice("[score] gallery", self.gallery, SPLITS)
        check_choice("[score] split", self.split, SPLITS)
        for name in self.protocol_names:
            check_choice("[score] protocols", name, PROTOCOLS)
        check(len(self.protocol_names) > 0, "[score] protocols", "names none")
        check_choice("[score] enrolment", self.enrolment, ENROLMENT_NAMES)
        check_choice("[score] convention", self.convention, CONVENTION_NAMES)
        check(self.k >= 1, "[score] k", f"at least 1, not {self.k}")
        several = f"0 for none, or at least 2, not {self.bootstrap}"
        check(self.bootstrap >= 0 and self.bootstrap != 1, "[score] bootstrap", several)
        check(self.seed >= 0, "[score] seed", f"must be ≥ 0, not {self.seed}")
        for key in ("fars", "fpirs"):
            for text in getattr(self, f"{key[:-1]}_list"):
                check(
                    exact_rate(text) is not None, f"[score] {key}", f"'{text}' is no rate in (0, 1]"
                )
            listed = getattr(self, f"{key[:-1]}_list")
            check(len(set(listed)) == len(listed), f"[score] {key}", "one is listed twice")
        digits = all(rank.isdecimal() and int(rank) >= 1 for rank in split_list(self.ranks))
        check(digits, "[score] ranks", f"whole numbers from 1, not '{self.ranks}'")

    @property
    def protocol_names(self) -> tuple[str, ...]:
        """The protocols, in the order of `PROTOCOLS`, whatever order they were given in.

        >>> ScoreSettings(protocols="retrieval, verification").protocol_names
        ('verification', 'retrieval')
        """
        given = split_list(self.protocols)
        known = [name for name in PROTOCOLS if name in given]
        return (*known, *(name for name in given if name not in PROTOCOLS))

    @property
    def far_list(self) -> tuple[str, ...]:
        return split_list(self.fars)

    @property
    def fpir_list(self) -> tuple[str, ...]:
        return split_list(self.fpirs)

    @property
    def rank_list(self) -> tuple[int, ...]:
        return tuple(sorted({int(rank) for rank in split_list(self.ranks)}))

    @property
    def needs_gallery(self) -> bool:
        return any(name in NEED_GALLERY for name in self.protocol_names)


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma list.

    >>> split_list("1e-3, 1e-4,")
    ('1e-3', '1e-4')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def exact_rate(text: str) -> Fraction | None:
    """The exact value of a rate's text, in (0, 1]; None for anything else.

    >>> exact_rate("1e-4"), exact_rate("2"), exact_rate("1e-99999999")
    (Fraction(1, 10000), None, None)
    """
    exponent = re.search(r"[eE][+-]?([0-9_]+)\s*$", text)
    if len(text) > 64 or (exponent and len(exponent[1]) > 3):
        return None  # an exact fraction of it would take hours
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return value if 0 < value <= 1 else None


@dataclass(frozen=True)
class Published:
    """A figure that somebody published, to be printed beside ours: clearly theirs."""

    name: str
    figure: str  # as `vidface.runs.scoring.Score.figures` names it, "tar_at_far.1e-4"
    value: float
    source: str = ""


@dataclass(frozen=True)
class Pipeline:
    """All settings of a run, checked."""

    manifest: ManifestSettings
    run: RunSettings
    frames: FrameSettings = field(default_factory=FrameSettings)
    faces: FaceSettings = field(default_factory=FaceSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    descriptor: DescriptorSettings = field(default_factory=DescriptorSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    published: tuple[Published, ...] = ()
    file: Path | None = None


TABLES: dict[str, type] = {
    "manifest": ManifestSettings,
    "frames": FrameSettings,
    "faces": FaceSettings,
    "backbone": BackboneSettings,
    "cluster": ClusterSettings,
    "descriptor": DescriptorSettings,
    "score": ScoreSettings,
    "run": RunSettings,
}

Overrides = Mapping[tuple[str, str], Any]


TRAINING_PREFIX = "train"  # of recipes that `vidface train` reads


def shipped_pipelines() -> dict[str, Path]:
    """Name → file of the recipes that come with vidface, also from an installed wheel."""
    return {n: f for n, f in _shipped().items() if not n.startswith(TRAINING_PREFIX)}


def shipped_trainings() -> dict[str, Path]:
    """Name → file of the training recipes (`vidface.training.settings`) among them."""
    return {n: f for n, f in _shipped().items() if n.startswith(TRAINING_PREFIX)}


def _shipped() -> dict[str, Path]:
    package = Path(__file__).parents[1]
    for folder in (package / "pipelines", package.parent / "pipelines"):
        files = sorted(folder.glob("*.toml"))
        if files:
            return {file.stem: file for file in files}
    return {}


def pipeline_document(pipeline: Pipeline) -> dict[str, Any]:
    """A pipeline as a document that `parse_pipeline` reads back, its paths absolute."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path | Address):
            return str(value)
        return list(value) if isinstance(value, tuple) else value

    document: dict[str, Any] = {}
    for name in TABLES:
        table = dataclasses.asdict(getattr(pipeline, name))
        document[name] = {k: plain(v) for k, v in table.items() if v is not None}
    if pipeline.faces.source == "features":
        document["backbone"] = {}  # there is none
    if pipeline.cluster.threshold is None:
        document["cluster"]["threshold"] = "none"
    document["published"] = [dataclasses.asdict(row) for row in pipeline.published]
    return document


def find_pipeline(name_or_path: str | Path | None) -> Path:
    """The pipeline file meant: a path, a shipped recipe's name, ./vidface.toml, or the demo's."""
    shipped = shipped_pipelines()
    if name_or_path is None:
        local = Path(LOCAL_PIPELINE)
        return local if local.is_file() else shipped[DEMO_PIPELINE]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    raise VidfaceError(
        f"pipeline {name_or_path}: no such file; give a path, or one of the shipped recipes: "
        + ", ".join(shipped)
    )


def load_pipeline(
    name_or_path: str | Path | None = None, overrides: Overrides | None = None
) -> Pipeline:
    """Read a pipeline file; `overrides` (from flags) replace its keys.

    Args:
        name_or_path: see `find_pipeline`.
        overrides: {(table, key): value}; paths in it are relative to the working directory.

    Raises:
        VidfaceError: unreadable, unknown table or key, wrong type or value.
    """
    file = find_pipeline(name_or_path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise VidfaceError(f"pipeline {file}: not TOML: {error}") from None
    except OSError as error:
        raise VidfaceError(f"pipeline {file}: {error.strerror or error}") from None
    return parse_pipeline(document, file, overrides)


def parse_pipeline(
    document: Mapping[str, Any], file: Path, overrides: Overrides | None = None
) -> Pipeline:
    """Settings from a parsed TOML document; `file` is where relative paths start."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    where = f"pipeline {file}"
    document = dict(document)
    published = _published(document.pop("published", []), where)
    for name, table in document.items():
        if name not in TABLES:
            raise VidfaceError(
                f"{where}: unknown table [{name}] (known: {', '.join(TABLES)}, published)"
            )
        if not isinstance(table, dict):
            raise VidfaceError(f"{where}: [{name}] must be a table")
        for key, value in table.items():
            tables[name][key] = _typed(name, key, value, file, where)
    overrides = overrides or {}
    if ("backbone", "weights") in overrides:
        # What the file says its own recogniser is and is fed does not hold for another one.
        for key in ("weights", "architecture", "color", "mean", "std", "size"):
            tables["backbone"].pop(key, None)
    if ("manifest", "path") in overrides:
        tables["manifest"].pop("prepare", None)  # makes the file's own manifest, no other
    for (name, key), value in overrides.items():
        tables[name][key] = _typed(name, key, value, Path.cwd() / "flags", "flag")
    if tables["faces"].get("source") == "features" and "weights" in tables["backbone"]:
        # Whoever names a recogniser would take the figures for its own.
        raise VidfaceError(
            f'{where}: [faces] source = "features" runs no recogniser; leave [backbone] weights '
            "and --weights out"
        )
    if "path" not in tables["manifest"]:
        raise VidfaceError(f"{where}: [manifest] path is missing; it names the CSV of clips")
    if "dir" not in tables["run"]:
        tables["run"]["dir"] = Path.cwd() / "runs" / file.stem
    try:
        built = {name: TABLES[name](**values) for name, values in tables.items()}
    except VidfaceError as error:
        raise where_said(str(error), where, overrides) from None
    return Pipeline(file=file, published=published, **built)


def where_said(text: str, where: str, overrides: Overrides) -> VidfaceError:
    """The error of a setting "[table] key: …": wrong usage if a flag gave it, else the file's.

    >>> where_said("[score] k: at least 1, not 0", "pipeline a.toml", {("score", "k"): 0})
    UsageError('--k: at least 1, not 0')
    """
    for table, key in overrides:
        if text.startswith(f"[{table}] {key}:"):
            flag = key.removesuffix("_seconds").replace("_", "-")
            return UsageError(f"--{flag}{text.removeprefix(f'[{table}] {key}')}")
    return VidfaceError(text if text.startswith(where) else f"{where}: {text}")


def _published(rows: Any, where: str) -> tuple[Published, ...]:
    """The tables [[published]]."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise VidfaceError(f"{where}: write [[published]], a table a figure")
    found = []
    hints = typing.get_type_hints(Published)
    for row in rows:
        for key, value in row.items():
            if key not in hints:
                raise VidfaceError(
                    f"{where}: unknown key '{key}' in [[published]] (known: {', '.join(hints)})"
                )
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number if hints[key] is float else isinstance(value, str)):
                kind = _TYPE_NAMES[hints[key]]
                raise VidfaceError(f"{where}: [[published]] {key}: must be {kind}, not {value!r}")
        absent = [key for key in ("name", "figure", "value") if key not in row]
        if absent:
            raise VidfaceError(f"{where}: [[published]] lacks {', '.join(absent)}")
        found.append(Published(**{**row, "value": float(row["value"])}))
    return tuple(found)


def _typed(table: str, key: str, value: Any, file: Path, where: str) -> Any:
    """A TOML value as the field's type says, with what only a run's pipeline knows."""
    spot = f"{where}: [{table}] {key}"
    threshold = (table, key) == ("cluster", "threshold")
    if threshold and isinstance(value, str) and expand(value, spot)[0] == "none":
        return None
    if (table, key) == ("backbone", "weights") and isinstance(value, str | Path):
        text, from_environment = expand(str(value), spot)
        return weights_value(text, Path.cwd() if from_environment else file.parent, table)
    more = ' or "none"' if threshold else ""
    return typed_value(TABLES[table], f"[{table}]", key, value, file, where, more)


def typed_value(
    kind: type, table: str, key: str, value: Any, file: Path, where: str, more: str = ""
) -> Any:
    """A TOML value as `kind`'s field `key` says: variables expanded, paths resolved.

    Args:
        kind: the dataclass of the table.
        table: how the table is written, "[score]".
        file: where relative paths start (its folder).
        where: what a message begins with.
        more: what else a message says is allowed.

    Raises:
        VidfaceError: unknown key, wrong type, a variable that is not set.
    """
    hints = typing.get_type_hints(kind)
    if key not in hints:
        raise VidfaceError(f"{where}: unknown key '{key}' in {table} (known: {', '.join(hints)})")
    kinds = _members(hints[key])
    spot = f"{where}: {table} {key}"
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, Address):
        value = value.url
    if isinstance(value, str):
        text, from_environment = expand(value, spot)
        if Path in kinds and is_url(text):
            place = as_location(text)
            if isinstance(place, Path) or Address in kinds:
                return place
            raise VidfaceError(f"{spot}: must lie on this machine, not at {place}")
        if Path in kinds:
            return _path(text, Path.cwd() if from_environment else file.parent, table)
        if str in kinds:
            return text
        if text != value or text == "":  # an expanded variable may hold a number or a truth value
            value = _literal(text)
    if isinstance(value, bool):
        if bool in kinds:
            return value
    elif isinstance(value, int | float):
        if float in kinds:
            try:
                return float(value)
            except OverflowError:
                raise VidfaceError(f"{spot}: a number beyond all bounds") from None
        if int in kinds and isinstance(value, int):
            return value
    elif isinstance(value, list | tuple) and tuple in kinds:
        texts = "str" in str(hints[key])
        if texts and all(isinstance(v, str) for v in value):
            return tuple(value)
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(value) and not texts:
            return tuple(float(v) for v in value)
    elif isinstance(value, dict) and Mapping in kinds:
        return value
    elif value is None and type(None) in kinds:
        return None
    names = " or ".join(_TYPE_NAMES[kind] for kind in kinds if kind in _TYPE_NAMES)
    if tuple in kinds and "str" in str(hints[key]):
        names = "a list of strings"
    raise VidfaceError(f"{spot}: must be {names}{more}, not {value!r}")


_TYPE_NAMES: dict[Any, str] = {
    str: "a string",
    Path: "a path (a string)",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "three numbers",
    Mapping: "a table",
}


def _members(hint: Any) -> list[Any]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [typing.get_origin(option) or option for option in options]


def _literal(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")


def expand(text: str, spot: str) -> tuple[str, bool]:
    """Expanded text, and whether it begins with a variable that the environment set."""
    from vidface.storage.cache import cache_folder

    leading = False

    def value_of(match: re.Match[str]) -> str:
        nonlocal leading
        name, default = match.group(1), match.group(2)
        if name == "PWD":
            return str(Path.cwd())
        if name == "VIDFACE_CACHE":
            return str(cache_folder())
        if os.environ.get(name):
            leading = leading or match.start() == 0
            return os.environ[name]
        if default is None:
            raise VidfaceError(f"{spot}: the environment variable {name} is not set")
        return default

    expanded = _VARIABLE.sub(value_of, text)
    if re.search(r"\$\{[A-Za-z_]", expanded):
        raise VidfaceError(f"{spot}: '{text}': write ${{NAME}} or ${{NAME:-default}}, not nested")
    return expanded, leading


def _path(text: str, start: Path, table: str) -> Path:
    if not text:
        raise VidfaceError(f"{table}: an empty path")
    return Path(os.path.normpath((start / Path(text).expanduser()).absolute()))


def weights_value(text: str, start: Path, table: str) -> str:
    """A recogniser: a registered name as it is, anything else as a path."""
    from vidface.backbones.weights import WEIGHTS

    if text and (text in WEIGHTS or not re.search(r"[./\\]", text)):
        return text  # a registered name, or one that load_backbone will refuse by name
    return str(_path(text, start, f"[{table}]"))
