"""Which runtimes can run a network as asked for, and a network made ready by one of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from vidface.backbones.runtimes import DEVICES, PRECISIONS, RUNTIMES, Runner, RuntimePlan
from vidface.backbones.runtimes.places import HERE
from vidface.backbones.runtimes.with_function import FunctionRunner
from vidface.core.errors import VidfaceError
from vidface.core.values import check_choice

if TYPE_CHECKING:
    from vidface.backbones.network import Network
    from vidface.backbones.preprocessing import Preprocessing


def make_runner(
    network: Network, preprocessing: Preprocessing, plan: RuntimePlan, *, alone: bool = False
) -> Runner:
    """The network, ready to run as the plan says.

    Args:
        alone: for one face at a time, with all threads on it, where the network's batch is free.

    Raises:
        VidfaceError: the runtime is not installed, or cannot run this network.
    """
    if network.function is not None:
        return FunctionRunner(network.function, network.name, alone=alone)
    runtime = RUNTIMES[plan.runtime]
    if not runtime.is_installed:
        raise VidfaceError(
            f"runtime '{plan.runtime}' is not installed: pip install 'vidface[{plan.runtime}]'"
        )
    if network.place is HERE:
        return runtime.make_runner(network, preprocessing, plan, alone)
    network.settle_batch()  # once, and not for every runner
    network_there = replace(network, place=HERE)
    held: Runner = network.place.hold(
        runtime.make_runner, network_there, preprocessing, plan, alone
    )
    return held


def possible_plans(
    network: Network, runtime: str, precision: str, device: str, threads: int
) -> list[RuntimePlan]:
    """The plans that could run a network as asked for, the likely best first.

    Args:
        runtime: a name, or "auto" for all that are installed.
        device: "auto" (CUDA for torch networks where there is one, else the CPU), "cpu", "cuda".

    Raises:
        VidfaceError: unknown names, or nothing that can do what was asked.
    """
    if network.function is not None:
        if (runtime, precision, device) not in product(("auto",), ("float32",), ("auto", "cpu")):
            raise VidfaceError(
                f"weights {network.name}: a function runs as it runs; leave runtime, precision and "
                "device out"
            )
        return [RuntimePlan("python", threads=threads)]
    check_choice("runtime", runtime, ("auto", *RUNTIMES))
    check_choice("precision", precision, PRECISIONS)
    check_choice("device", device.split(":")[0], ("auto", *DEVICES))
    allowed = list(RUNTIMES.values()) if runtime == "auto" else [RUNTIMES[runtime]]
    if network.live:
        allowed = [each for each in allowed if each.takes == "module"]
        if not allowed:
            able = ", ".join(each.name for each in RUNTIMES.values() if each.takes == "module")
            raise VidfaceError(
                f"runtime '{runtime}': {network.name} runs with {able} alone: a module of yours "
                "may change while it is used"
            )
    on_device = [each for each in allowed if "cuda" in each.devices and network.module is not None]
    if device == "auto":
        on_cuda = _is_on_cuda(network) if network.live else bool(on_device) and _has_cuda()
        device = "cuda" if on_cuda else "cpu"
    if device != "cpu":
        if not (on_device and _has_cuda()):
            lack = "torch finds no CUDA device here"
            why = lack if on_device else "only torch networks run on CUDA"
            raise VidfaceError(f"device '{device}': {network.name}: {why}; use the cpu")
        allowed = on_device
    if network.module is None:
        allowed = [each for each in allowed if each.takes == "graph"]
        if not allowed:
            others = " or ".join(n for n, each in RUNTIMES.items() if each.takes == "graph")
            raise VidfaceError(
                f"runtime '{runtime}': {network.name} is an ONNX graph; use {others}"
            )
    if runtime == "auto" and device == "cpu" and not network.live:
        allowed = [each for each in allowed if each.is_installed]
    precise = [each for each in allowed if precision in each.precisions]
    if not precise:
        offers = "; ".join(f"{each.name}: {', '.join(each.precisions)}" for each in allowed)
        raise VidfaceError(
            f"precision '{precision}': not with what can run {network.name} here ({offers}). "
            "int8 is a file of its own: vidface models quantize"
        )
    return [
        RuntimePlan(each.name, precision, device, threads, split_prelu)
        for each in precise
        for split_prelu in ((True, False) if each.splits_prelu else (False,))
    ]


def _is_on_cuda(network: Network) -> bool:
    """Whether a module of the caller's, which is not moved, lies on a CUDA device."""
    parameter = next(network.module.parameters(), None) if network.module else None
    return parameter is not None and parameter.device.type == "cuda"


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
