"""A recogniser that is a PyTorch module already, in a notebook or a training loop."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from vidface.backbones.base import BATCH_SIZE, Backbone, Preprocessing
from vidface.errors import VidfaceError
from vidface.faces import CROP_SIZE

if TYPE_CHECKING:
    import torch


class ModuleBackbone(Backbone):
    """A `torch.nn.Module` from (n, 3, 112, 112) float32 to (n, d), on the device it lies on.

    It is put into evaluation mode while it embeds, and each part back into its own afterwards.
    """

    runtime = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        preprocessing: Preprocessing | None,
        *,
        threads: int | None = None,
    ) -> None:
        import torch

        if not isinstance(module, torch.nn.Module):
            raise VidfaceError(
                f"weights: want a name, a path or a torch.nn.Module, not {type(module).__name__}"
            )
        if threads is not None:
            torch.set_num_threads(threads)
        self.name = type(module).__name__
        self.sha256 = _state_sha256(module)
        self.assumed = preprocessing is None
        self.preprocessing = preprocessing or Preprocessing()
        self._module = module
        trial = self._run(np.zeros((BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE), np.float32))
        self.dimension = self._check_output(trial, BATCH_SIZE)

    def _run(self, images: np.ndarray) -> np.ndarray:
        import torch

        parameter = next(self._module.parameters(), torch.zeros(()))
        modes = {module: module.training for module in self._module.modules()}
        self._module.eval()
        try:
            with torch.inference_mode():
                output = self._module(torch.from_numpy(images).to(parameter.device))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise VidfaceError(f"weights {self.name}: {reason}") from None
        finally:
            for module, training in modes.items():  # one by one: parts may be frozen
                module.training = training
        if not isinstance(output, torch.Tensor):
            raise VidfaceError(f"weights {self.name}: gives a {type(output).__name__}, no tensor")
        return output.float().cpu().numpy()


def _state_sha256(module: torch.nn.Module) -> str:
    """A hash of the parameters and buffers: the module came without a file to name it by."""
    import torch

    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()
