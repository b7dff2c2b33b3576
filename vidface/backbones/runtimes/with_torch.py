"""PyTorch, on the CPU or a CUDA device: batch norm folded, channels last, one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vidface.backbones.graphs import first_line
from vidface.backbones.runtimes import Plan, Runner
from vidface.errors import VidfaceError

if TYPE_CHECKING:
    import torch

    from vidface.backbones.files import Network
    from vidface.backbones.preprocessing import Preprocessing

CPU_BATCH, CUDA_BATCH = 16, 256  # crops


def make(network: Network, preprocessing: Preprocessing, plan: Plan) -> TorchRunner:
    """See `vidface.backbones.runtimes.make_runner`."""
    return TorchRunner(network, preprocessing, plan)


class TorchRunner(Runner):
    """A module in evaluation mode. One that the caller holds is neither moved nor rewritten.

    Crops arrive as bytes, (n, 112, 112, 3), which is what channels-last means: the permuted view is
    in that layout already, and they become numbers on the device.
    """

    def __init__(self, network: Network, preprocessing: Preprocessing, plan: Plan) -> None:
        import torch

        from vidface.backbones.export import folded

        own = network.module
        if own is None:
            raise VidfaceError(f"weights {network.name}: not a torch network")
        self._name = network.name
        self._live = network.live
        self._type = {
            "float32": torch.float32,
            "bf16": torch.bfloat16,
            "fp16": torch.float16,
        }[plan.precision]
        if network.live:
            if plan.precision != "float32":
                raise VidfaceError(
                    f"precision '{plan.precision}': {network.name} is a module of yours; "
                    "convert it, or load its weights from a file"
                )
            self._module = own
            parameter = next(own.parameters(), torch.zeros(()))
            self._device, self._type = parameter.device, parameter.dtype
        else:
            self._device = torch.device(plan.device)
            module = folded(own).to(self._device, self._type)
            self._module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch = CPU_BATCH if self._device.type == "cpu" else CUDA_BATCH
        self._order = [0, 1, 2] if preprocessing.color == "rgb" else [2, 1, 0]
        shape = (-1, 1, 1)
        self._mean = torch.tensor(preprocessing.mean, device=self._device).reshape(shape)
        self._std = torch.tensor(preprocessing.std, device=self._device).reshape(shape)
        if self._device.type == "cpu" and torch.get_num_threads() != plan.threads:
            torch.set_num_threads(plan.threads)

    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        import torch

        modes = {module: module.training for module in self._module.modules()}
        self._module.eval()
        try:
            # TF32 would round to 10 bits behind the back of whoever asked for float32.
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                outputs = [self._run(torch.from_numpy(crops)) for crops in batches]
                return [output.float().cpu().numpy() for output in outputs]
        except (RuntimeError, TypeError, ValueError) as error:
            raise VidfaceError(f"weights {self._name}: {first_line(error)}") from None
        finally:
            for module, training in modes.items():  # one by one: parts may be frozen
                module.training = training

    def _run(self, crops: torch.Tensor) -> torch.Tensor:
        import torch

        planes = crops.to(self._device).permute(0, 3, 1, 2)[:, self._order].float()
        output = self._module(((planes - self._mean) / self._std).to(self._type))
        if not isinstance(output, torch.Tensor):
            raise VidfaceError(f"weights {self._name}: gives a {type(output).__name__}, no tensor")
        return output
