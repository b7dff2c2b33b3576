"""A recogniser that has been read: an ONNX graph, or a torch module that can become one."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.conforming import crop_size, fit_to_graph, fixed_batch
from vidface.backbones.export import OPSET, export_onnx, write_onnx
from vidface.backbones.graphs import fix_batch, read_onnx
from vidface.backbones.runtimes.base import library_errors
from vidface.backbones.runtimes.places import HERE, Place
from vidface.backbones.runtimes.with_function import FUNCTION_BATCH, Function, FunctionRunner
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE
from vidface.storage.cache import EXPORTS, cache_folder

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from vidface.backbones.preprocessing import Preprocessing

MICRO_BATCH = 4  # crops a run of a graph: larger ones leave the cache of a core (docs/log.md)


@dataclass
class Network:
    """A recogniser that has been read and not yet prepared for running."""

    name: str
    sha256: str  # of the file and what belongs to it, or of a module's state
    model: onnx.ModelProto | None = None
    module: nn.Module | None = None
    function: Function | None = None
    architecture: str | None = None
    declaration: Mapping[str, Any] = field(default_factory=dict)  # what the file says of itself
    live: bool = False  # a module of the caller's, who may go on training it
    output: str | None = None  # the embedding's name, where it had to be said
    batch: int = MICRO_BATCH
    size: tuple[int, int] = (CROP_SIZE, CROP_SIZE)  # of its faces, where the graph leaves it open
    place: Place = HERE  # where its graph is worked on
    batch_is_settled: bool = False

    def graph(self, *, alone: bool = False) -> onnx.ModelProto:
        """The ONNX graph, fixed to `batch` faces; a torch network is exported, once (cached).

        alone: fixed to one face instead, where the batch is not built in.
        """
        model = self.settle_batch()
        free = fixed_batch(model) != self.batch
        return fix_batch(model, 1 if alone and free else self.batch, self.size)

    def settle_batch(self) -> onnx.ModelProto:
        """The graph as it was read, with `batch` the size that it has to run at."""
        if self.model is None:
            self.model = _export_cached(self)
        fixed = fixed_batch(self.model)
        if not self.batch_is_settled and fixed not in (None, self.batch):
            about = self.model, self.name, self.batch, self.size
            if not self.place.call(_can_free_batch, *about):
                self.batch = fixed  # built in: it runs at that size
        self.batch_is_settled = True
        return self.model

    def fit_preprocessing(self, fed: Preprocessing) -> Preprocessing:
        """What it is fed, in the size that it is built for; its open dimensions become that size.

        Raises:
            VidfaceError: it is built for other faces, or takes bytes and scales them itself.
        """
        if self.model is not None:
            fed = fit_to_graph(fed, self.model, self.name)
        elif self.architecture is not None and fed.shape != (CROP_SIZE, CROP_SIZE, 3):
            raise VidfaceError(
                f"weights {self.name}: {self.architecture} takes faces of {CROP_SIZE}x{CROP_SIZE} "
                f"pixels, not {fed.size_text}"
            )
        self.size = fed.shape[:2]
        return fed

    def require_module(self) -> nn.Module:
        """The torch module.

        Raises:
            VidfaceError: it is a graph.
        """
        if self.module is None:
            raise VidfaceError(f"weights {self.name}: not a torch network")
        return self.module


def wrap_module(module: nn.Module) -> Network:
    """A network around a module of the caller's."""
    return Network(type(module).__name__, _hash_state(module), module=module, live=True)


def wrap_function(function: Function, fed: Preprocessing) -> Network:
    """A network around a function of the caller's; it is known by its answer to fixed pictures."""
    shape = FUNCTION_BATCH, *fed.shape
    pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    [answer] = FunctionRunner(function, name, alone=False).run([pictures])
    return Network(name, hashlib.sha256(answer.tobytes()).hexdigest(), function=function, live=True)


def _hash_state(module: nn.Module) -> str:
    """A hash of the parameters and buffers: the module came without a file to name it by."""
    import torch

    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()


def _export_cached(network: Network) -> onnx.ModelProto:
    """The network as ONNX, from the cache where it was exported before."""
    import torch

    key = f"{network.sha256} {network.architecture} {OPSET} {torch.__version__}"
    path = cache_folder() / EXPORTS / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.onnx"
    if path.is_file():
        try:
            return read_onnx(path)
        except VidfaceError:
            path.unlink(missing_ok=True)
    model = export_onnx(network.require_module(), network.declaration, network.name)
    with contextlib.suppress(VidfaceError):  # a cache that can't be written costs the next run one
        write_onnx(model, path)
    return model


def _can_free_batch(model: onnx.ModelProto, name: str, batch: int, size: tuple[int, int]) -> bool:
    """Whether a graph with its batch built in gives the same for several faces at once."""
    built_in = fixed_batch(model) or 1
    image = model.graph.input[0].name
    n = -(-batch // built_in) * built_in  # all of them different
    filled = np.random.default_rng(0).uniform(-1, 1, (n, 3, *(crop_size(model) or size)))
    filled = filled.astype(np.float32)
    session = open_session(model, name, threads=1)
    with library_errors(f"weights {name}"):
        pieces = np.split(filled, len(filled) // built_in)
        apart = np.concatenate([session.run(None, {image: piece})[0] for piece in pieces])
    try:
        freed = open_session(fix_batch(model, batch, size), name, threads=1)
        together = freed.run(None, {image: filled[:batch]})[0]
    except Exception:
        return False
    apart = apart[:batch]
    return together.shape == apart.shape and bool(np.allclose(together, apart, 1e-3, 1e-4))
