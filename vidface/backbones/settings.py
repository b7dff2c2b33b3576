"""The table [backbone] of a pipeline file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vidface.backbones.preprocessing import TEMPLATES, Preprocessing
from vidface.backbones.runtimes import DEVICES, PRECISIONS, RUNTIMES
from vidface.backbones.runtimes.base import NetworkLimits
from vidface.core.errors import VidfaceError
from vidface.core.files import absolute_path
from vidface.core.settings import check_settings, setting
from vidface.core.values import check, check_device, size_bytes


def resolve_weights(text: str, start: Path) -> str:
    """A recogniser: a name as it is, anything with a dot or slash as a path from `start`."""
    if text and not re.search(r"[./\\]", text):
        return text  # a registered name, or one that load_backbone will refuse by name
    return str(absolute_path(text, start))


@dataclass(frozen=True)
class BackboneSettings:
    """The recogniser: what it is, what it is fed, and what runs it."""

    GROUP: ClassVar[str] = "Recogniser"

    weights: str = setting(
        "sface",
        metavar="NAME|FILE",
        help="The recogniser: a name of `vidface models`, a card (.toml), or a file: .onnx (faces "
        "to nxD), .safetensors, a state dict (.pt, .pth) or MXNet's .params.",
        parse=resolve_weights,
    )
    architecture: str | None = setting(
        None,
        metavar="NAME",
        help="The architecture of a file of bare parameters: a name of `vidface models`, or one "
        "such as paper-x0.5.",
        default_text="what fits",
        rare=True,
    )
    color: str | None = setting(
        None,
        metavar="ORDER",
        help="The order of colours that weights given as a file are fed: rgb or bgr.",
        choices=("rgb", "bgr"),
        default_text="the file's own, else rgb",
    )
    mean: float | tuple[float, ...] | None = setting(
        None,
        help="What is subtracted from pixels (0 to 255) for weights given as a file; a pipeline "
        "file may name three numbers.",
        default_text="the file's own, else 127.5",
    )
    std: float | tuple[float, ...] | None = setting(
        None,
        help="What divides pixels after the mean for weights given as a file; a pipeline file may "
        "name three numbers.",
        default_text="the file's own, else 127.5",
    )
    output: str | None = setting(
        None,
        flag="--output-name",
        metavar="NAME",
        help="The embedding among the outputs of an .onnx file, where several could be it.",
        default_text="the only one",
        rare=True,
    )
    size: int | tuple[int, int] | None = setting(
        None,
        flag=None,
        help="The side of the faces that the recogniser takes, or [height, width], where an .onnx "
        "file leaves it open.",
        unit="pixels",
        default_text="the file's own, else 112",
        rare=True,
    )
    template: str | None = setting(
        None,
        metavar="NAME",
        help="How faces are cut out for weights given as a file: arcface-112, by five landmarks, "
        "scaled to its size; or facenet-160, the box and a margin of a quarter.",
        choices=TEMPLATES,
        default_text="the file's own, else arcface-112",
        rare=True,
    )
    force_recogniser: bool = setting(
        False,
        help="Go on where color, mean and std contradict what weights given as a file are known or "
        "seen to want, or where the recogniser fails its trial; score files say so.",
        rare=True,
    )
    runtime: str = setting(
        "auto",
        metavar="NAME",
        help="What runs the recogniser: onnxruntime, openvino (an extra), torch, or auto, which "
        "tries them for a moment, once a machine.",
        choices=("auto", *RUNTIMES),
        rare=True,
    )
    precision: str = setting(
        "float32",
        metavar="TYPE",
        help="The arithmetic of the recogniser: float32, bf16 (openvino, torch) or fp16 (torch). "
        "An int8 recogniser is a file: `vidface models quantize`.",
        choices=PRECISIONS,
        rare=True,
    )
    batch_timeout_seconds: float = setting(
        300.0,
        metavar="SECONDS",
        help="An .onnx file that vidface doesn't know is given up where it takes longer than this "
        "to load, or for a batch.",
        unit="seconds",
        bounds="(0, inf)",
        rare=True,
    )
    network_memory: str = setting(
        "8GiB",
        metavar="SIZE",
        help="An .onnx file that vidface doesn't know is given up where it needs more memory than "
        "this.",
        rare=True,
    )
    device: str = setting(
        "auto",
        metavar="NAME",
        help="Where the recogniser runs: cpu, cuda, or auto, which is CUDA for torch networks "
        "where there is one.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check_settings(self, "[backbone]")
        check_device("[backbone] device", self.device, ("auto", *DEVICES))
        _ = self.limits
        try:
            _ = self.preprocessing
        except VidfaceError as error:
            raise VidfaceError(f"[backbone] {error}") from None

    @property
    def limits(self) -> NetworkLimits:
        """What a stranger's network may take; below 512 MiB no runtime starts."""
        size = size_bytes(self.network_memory, "[backbone] network_memory")
        check(size >= 512 * 2**20, "[backbone] network_memory", "must be at least 512MiB")
        return NetworkLimits(self.batch_timeout_seconds, size)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the recogniser is fed, as far as it is said here; None where nothing is."""
        said = self.color, self.mean, self.std, self.size, self.template
        if all(value is None for value in said):
            return None
        return Preprocessing(*said)
