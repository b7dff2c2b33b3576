"""PyTorch, on the CPU or a CUDA device: batch norm folded, channels last, one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vidface.backbones.folding import fold_batch_norm
from vidface.backbones.runtimes.base import Runner, Runtime, RuntimePlan, join_outputs
from vidface.core.errors import VidfaceError, first_line

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vidface.backbones.network import Network
    from vidface.backbones.preprocessing import Preprocessing

CPU_BATCH, CUDA_BATCH = 16, 256  # crops
_TYPES = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names


class TorchRunner(Runner):
    """A module in evaluation mode. One that the caller holds is neither moved nor rewritten.

    Crops arrive as bytes, (n, height, width, 3), which is what channels-last means: the permuted
    view is in that layout already, and they become numbers on the device.
    """

    def __init__(
        self, network: Network, preprocessing: Preprocessing, plan: RuntimePlan, alone: bool
    ) -> None:
        import torch

        module = network.require_module()
        self._name = network.name
        self._type = getattr(torch, _TYPES[plan.precision])
        if network.live:
            if plan.precision != "float32":
                raise VidfaceError(
                    f"precision '{plan.precision}': {network.name} is a module of yours; "
                    "convert it, or load its weights from a file"
                )
            self._module = module
            parameter = next(module.parameters(), torch.zeros(()))
            self._device, self._type = parameter.device, parameter.dtype
            if plan.device.startswith("cuda") != (self._device.type == "cuda"):
                raise VidfaceError(
                    f"device '{plan.device}': {network.name} is a module of yours and stays on "
                    f"{self._device}; move it, or leave device out"
                )
        else:
            self._device = torch.device(plan.device)
            folded = fold_batch_norm(module).to(self._device, self._type)
            self._module = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch = CPU_BATCH if self._device.type == "cpu" else CUDA_BATCH
        if alone and self._device.type == "cpu":
            self.batch = 1
        self._turned = preprocessing.color == "bgr"
        self._mean, self._std = (
            torch.tensor(value, dtype=torch.float32, device=self._device).reshape(-1, 1, 1)
            for value in (preprocessing.mean, preprocessing.std)
        )
        if self._device.type == "cpu" and torch.get_num_threads() != plan.threads:
            torch.set_num_threads(plan.threads)

    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        import torch

        modes = {module: module.training for module in self._module.modules()}
        self._module.eval()
        try:
            # TF32 would round to 10 bits behind the back of whoever asked for float32.
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                # torch warns of arrays that cannot be written, as mapped ones cannot.
                owned = (crops if crops.flags.writeable else crops.copy() for crops in batches)
                return [self._run(torch.from_numpy(crops)) for crops in owned]
        except (RuntimeError, TypeError, ValueError) as error:
            raise VidfaceError(f"weights {self._name}: {first_line(error)}") from None
        finally:
            for module, training in modes.items():  # one by one: parts may be frozen
                module.training = training

    def _run(self, crops: torch.Tensor) -> np.ndarray:
        import torch

        planes = crops.to(self._device).permute(0, 3, 1, 2).float()
        planes = planes.flip(1) if self._turned else planes
        output = self._module(((planes - self._mean) / self._std).to(self._type))
        outputs = output if isinstance(output, tuple) else (output,)
        for each in outputs:
            if not isinstance(each, torch.Tensor):
                raise VidfaceError(
                    f"weights {self._name}: gives a {type(each).__name__}, no tensor"
                )
        arrays = [each.float().cpu().numpy() for each in outputs]
        rows, self.gives_norm = join_outputs(arrays, len(crops), self._name)
        return rows


TORCH = Runtime("torch", "torch", tuple(_TYPES), TorchRunner, ("cpu", "cuda"), takes="module")
