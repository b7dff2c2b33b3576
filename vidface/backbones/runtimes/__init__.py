"""What runs a network: `RUNTIMES` by name, one file each.

    onnxruntime   any network, CPU, float32; int8 from files made by `vidface models quantize`
    openvino      any network, CPU, float32 or bf16; int8 likewise; an extra: pip install
                  'vidface[openvino]'
    torch         torch networks, CPU or CUDA, float32, bf16 or fp16

A runtime is given a network and runs batches of one fixed shape, several side by side where that
is faster: one thread a batch keeps a batch in its core's cache. No heavy library is imported here:
`--help` and pipeline files take their choices from the registry.
"""

from __future__ import annotations

from vidface.backbones.runtimes.base import Runner, Runtime, RuntimePlan
from vidface.backbones.runtimes.with_onnxruntime import ONNXRUNTIME
from vidface.backbones.runtimes.with_openvino import OPENVINO
from vidface.backbones.runtimes.with_torch import TORCH

__all__ = ["DEVICES", "PRECISIONS", "RUNTIMES", "Runner", "Runtime", "RuntimePlan"]

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (ONNXRUNTIME, OPENVINO, TORCH)}
PRECISIONS = tuple(dict.fromkeys(p for runtime in RUNTIMES.values() for p in runtime.precisions))
DEVICES = tuple(dict.fromkeys(d for runtime in RUNTIMES.values() for d in runtime.devices))
