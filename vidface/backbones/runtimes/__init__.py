"""What runs a network: `RUNTIMES` by name, and the plan that is fastest on this machine.

    onnxruntime   any network, CPU, float32; int8 from files made by `vidface models quantize`
    openvino      any network, CPU, float32 or bf16; int8 likewise; an extra: pip install
                  'vidface[openvino]'
    torch         torch networks, CPU or CUDA, float32, bf16 or fp16

A runtime is given a network and runs batches of one fixed shape, several side by side where that
is faster: one thread a batch keeps a batch in its core's cache.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.errors import VidfaceError

if TYPE_CHECKING:
    from vidface.backbones.files import Network
    from vidface.backbones.preprocessing import Preprocessing

PRECISIONS = ("float32", "bf16", "fp16")


class Runner(ABC):
    """A network ready to run on batches of exactly `batch` crops."""

    batch: int

    @abstractmethod
    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(batch, 112, 112, 3) uint8 RGB each → (batch, …) float32 each, in order."""


@dataclass(frozen=True)
class Plan:
    """How a network is run. `split_prelu`: see `vidface.backbones.graphs.split_prelu`."""

    runtime: str
    precision: str = "float32"
    device: str = "cpu"
    threads: int = 1
    split_prelu: bool = False

    def __str__(self) -> str:
        extra = [] if self.precision == "float32" else [self.precision]
        extra += [] if self.device == "cpu" else [self.device]
        return " ".join([self.runtime, *extra])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Runtime:
    """A runtime's name, the package it needs, what it can do, and where its code is."""

    package: str
    module: str
    precisions: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": Runtime(
        "onnxruntime", "vidface.backbones.runtimes.with_onnxruntime", ("float32",)
    ),
    "openvino": Runtime(
        "openvino", "vidface.backbones.runtimes.with_openvino", ("float32", "bf16")
    ),
    "torch": Runtime("torch", "vidface.backbones.runtimes.with_torch", PRECISIONS, ("cpu", "cuda")),
}


def make_runner(
    network: Network, preprocessing: Preprocessing, plan: Plan, *, alone: bool = False
) -> Runner:
    """The network, ready to run as the plan says.

    Args:
        alone: for one face at a time, with all threads on it, where the network's batch is free.

    Raises:
        VidfaceError: the runtime is not installed, or cannot run this network.
    """
    runtime = RUNTIMES[plan.runtime]
    if not runtime.installed:
        raise VidfaceError(
            f"runtime '{plan.runtime}' is not installed: pip install 'vidface[{plan.runtime}]'"
        )
    return importlib.import_module(runtime.module).make(network, preprocessing, plan, alone)


def possible_plans(
    network: Network, runtime: str, precision: str, device: str, threads: int
) -> list[Plan]:
    """The plans that could run a network as asked for, the likely best first.

    Args:
        runtime: a name, or "auto" for all that are installed.
        device: "auto" (CUDA for torch networks where there is one, else the CPU), "cpu", "cuda".

    Raises:
        VidfaceError: unknown names, or nothing that can do what was asked.
    """
    _known("runtime", runtime, ("auto", *RUNTIMES))
    _known("precision", precision, PRECISIONS)
    _known("device", device.split(":")[0], ("auto", "cpu", "cuda"))
    on_torch = network.module is not None and runtime in ("auto", "torch")
    if device == "auto":
        on_cuda = _is_on_cuda(network) if network.live else on_torch and _has_cuda()
        device = "cuda" if on_cuda else "cpu"
    if device != "cpu" and not (on_torch and _has_cuda()):
        why = "torch finds no CUDA device here" if on_torch else "only torch networks run on CUDA"
        raise VidfaceError(f"device '{device}': {network.name}: {why}; use the cpu")
    if network.live:
        _only(network, runtime, "torch", "a module of yours may change while it is used")
        names = ["torch"]
    elif runtime != "auto":
        names = [runtime]
        if runtime == "torch" and network.module is None:
            raise VidfaceError(
                f"runtime 'torch': {network.name} is an ONNX graph; use onnxruntime or openvino"
            )
    else:
        names = [n for n, r in RUNTIMES.items() if r.installed and (n != "torch" or on_torch)]
    if device != "cpu":
        names = ["torch"]
    able = [n for n in names if precision in RUNTIMES[n].precisions]
    if not able:
        offers = "; ".join(f"{n}: {', '.join(RUNTIMES[n].precisions)}" for n in names)
        raise VidfaceError(
            f"precision '{precision}': not with what can run {network.name} here ({offers}). "
            "int8 is a file of its own: vidface models quantize"
        )
    plans = []
    for name in able:
        plan = Plan(name, precision, device, threads)
        if name == "onnxruntime":
            plans.append(Plan(name, precision, device, threads, split_prelu=True))
        plans.append(plan)
    return plans


def _known(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise VidfaceError(f"{what}: unknown value '{value}' (known: {', '.join(known)})")


def _only(network: Network, asked: str, able: str, why: str) -> None:
    if asked not in ("auto", able):
        raise VidfaceError(f"runtime '{asked}': {network.name} runs with {able} alone: {why}")


def _is_on_cuda(network: Network) -> bool:
    """Whether a module of the caller's, which is not moved, lies on a CUDA device."""
    parameter = next(network.module.parameters(), None) if network.module else None
    return parameter is not None and parameter.device.type == "cuda"


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
