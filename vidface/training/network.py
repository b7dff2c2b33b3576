"""The network that is trained, on its device: how faces are fed to it, and how it embeds."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from vidface.backbones.architectures import Architecture, find_architecture
from vidface.backbones.embedder import Embedder
from vidface.backbones.files import read_network
from vidface.backbones.network import Network, wrap_module
from vidface.backbones.preprocessing import Preprocessing
from vidface.training.batch_norm import synchronise_batch_norm
from vidface.training.fast_prelu import use_fast_prelu
from vidface.training.processes import Processes
from vidface.training.settings import TrainSettings

_MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingNetwork:
    """The network on its device.

    Attributes:
        plain: the network.
        module: what a step calls: `plain`, wrapped where several processes train it.
        threads: of torch on a CPU; None leaves torch's own choice.
    """

    def __init__(self, settings: TrainSettings, processes: Processes) -> None:
        self.architecture: Architecture = find_architecture(settings.architecture)
        self.preprocessing = Preprocessing(settings.color, settings.mean, settings.std)
        self.device = processes.device
        self.precision = settings.precision
        self.threads = settings.threads or None
        self._channels_last = settings.channels_last
        plain = self.architecture.build(seed=settings.seed)
        if settings.init is not None:
            weights = read_network(settings.init, settings.init.name, self.architecture.name)
            if weights.module is not None:
                plain.load_state_dict(weights.module.state_dict())
        plain = use_fast_prelu(plain)
        if processes.size > 1:
            plain = synchronise_batch_norm(plain)
        plain = plain.to(self.device)
        if settings.channels_last:
            plain = plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plain: nn.Module = plain
        self.module: nn.Module = plain
        self._first_weights = {name: t.detach().clone() for name, t in plain.state_dict().items()}
        if processes.size > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(
                plain, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self._mean, self._std = (
            torch.tensor(each, dtype=torch.float32, device=self.device).reshape(1, -1, 1, 1)
            for each in (self.preprocessing.mean, self.preprocessing.std)
        )

    def restore_first_weights(self) -> None:
        """Go back to the weights from before the first step."""
        self.plain.load_state_dict(self._first_weights)

    def weights(self) -> dict[str, Tensor]:
        """All parameters and buffers, by reference."""
        return dict(self.plain.state_dict())

    def prepare(self, images: Tensor) -> Tensor:
        """(n, 112, 112, 3) uint8 RGB → what the network is fed, on its device."""
        planes = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        planes = planes.flip(1) if self.preprocessing.color == "bgr" else planes
        fed = (planes - self._mean) / self._std
        return fed if self._channels_last else fed.contiguous()

    def mixed_precision(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the network is called."""
        if self.precision not in _MIXED:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_MIXED[self.precision])

    def embedder(self) -> Embedder:
        """The model as it is now, ready to embed."""
        return build_embedder(self.plain, self.architecture, self.preprocessing, self.threads)


def build_embedder(
    module: nn.Module,
    architecture: Architecture,
    preprocessing: Preprocessing,
    threads: int | None = None,
) -> Embedder:
    """Make the model as it is now ready to embed, its batch norm folded; `module` is not changed.

    Run by torch: an export to ONNX would run somewhat faster, and takes 17 s each time.
    """
    # What a training puts in the layers' place can't be folded.
    plain = architecture.build()
    plain.load_state_dict(module.state_dict())
    network = wrap_module(plain)
    device = "cuda" if next(module.parameters()).is_cuda else "cpu"
    frozen = Network(network.name, network.sha256, module=plain)
    # The runtime sets torch's threads: to what they are, or the training would go on with others.
    threads = threads or torch.get_num_threads()
    return Embedder(frozen, preprocessing, runtime="torch", device=device, threads=threads)
