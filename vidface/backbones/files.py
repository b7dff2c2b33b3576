"""Files of weights → a `Network`: what it is, how it is fed, as a graph or as a torch module.

Strangers' files run no code here: ONNX and safetensors hold numbers, PyTorch files are read with
`weights_only=True`, MXNet's by a reader of their format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture,
    is_architecture,
)
from vidface.backbones.export import OPSET, export_onnx, write_onnx
from vidface.backbones.graphs import (
    METADATA_KEY,
    at_batch,
    check_recogniser,
    declared,
    onnx_sha256,
    parse_declaration,
    read_onnx,
)
from vidface.backbones.mxnet_params import insightface_state, read_mxnet_params
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.errors import VidfaceError, first_line
from vidface.core.files import atomic_file
from vidface.core.values import CROP_SIZE
from vidface.storage.cache import EXPORTS, cache_folder, sha256_of

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

MICRO_BATCH = 4  # crops a run of a graph: larger ones leave the cache of a core (docs/log.md)
SUFFIXES = (".onnx", ".safetensors", ".pt", ".pth", ".params")
_TORCH_SUFFIXES = (".pt", ".pth")
_WRAPPINGS = ("state_dict", "model_state_dict", "model", "backbone", "net", "network")


@dataclass
class Network:
    """A recogniser that has been read and not yet prepared for running."""

    name: str
    sha256: str  # of the file and what belongs to it, or of a module's state
    model: onnx.ModelProto | None = None
    module: nn.Module | None = None
    architecture: str | None = None
    declaration: Mapping[str, Any] = field(default_factory=dict)  # what the file says of itself
    live: bool = False  # a module of the caller's, who may go on training it
    batch: int = MICRO_BATCH

    def graph(self, *, alone: bool = False) -> onnx.ModelProto:
        """The ONNX graph, fixed to `batch` faces; a torch network is exported, once (cached).

        alone: fixed to one face instead, where the batch is not built in.
        """
        if self.model is None:
            self.model = _exported(self)
        fixed = check_recogniser(self.model, self.name)
        if fixed is not None and fixed != self.batch and not _frees_batch(self.model, self):
            self.batch = fixed  # built in: it runs at that size
        free = fixed is None or fixed != self.batch
        return at_batch(self.model, 1 if alone and free else self.batch)


def read_network(path: Path, name: str, architecture_name: str | None = None) -> Network:
    """Read a file of weights.

    Args:
        architecture_name: what a file of bare parameters is of; where nobody says, the
            architecture that fits it name by name and shape by shape.

    Raises:
        VidfaceError: no such file, another kind of file, damaged, or not fitting.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VidfaceError(
            f"weights {path}: unknown kind of file (known: {', '.join(SUFFIXES)}); export the "
            f"network to ONNX with input (n, 3, {CROP_SIZE}, {CROP_SIZE}) and output (n, d)"
        )
    if suffix == ".onnx":
        if architecture_name is not None:
            raise VidfaceError(
                f"weights {path}: an ONNX file holds its own network; leave --architecture out"
            )
        model = read_onnx(path)
        check_recogniser(model, name)
        own = declared(model, name)
        return Network(name, onnx_sha256(path), model, declaration=own,
                       architecture=own.get("architecture"))  # fmt: skip

    state, said = read_state(path)
    wanted = architecture_name or said.get("architecture")
    found = _fitting(state, wanted, path)
    module = found.build()
    _load(module, state, path)
    return Network(name, sha256_of(path), module=module.eval(), architecture=found.name,
                   declaration=said)  # fmt: skip


def declaration_of(path: Path) -> Mapping[str, Any]:
    """What a file of weights says of itself, without building the network."""
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        import onnx

        try:
            return declared(onnx.load(str(path), load_external_data=False), path.name)
        except VidfaceError:
            raise
        except Exception:
            return {}  # reading it in earnest says what is wrong
    if suffix == ".params":
        return _MXNET_DECLARATION
    if suffix == ".safetensors":
        return read_state(path)[1]
    return {}


# InsightFace's symbols begin with (x − 127.5) · 0.0078125 on RGB.
_MXNET_DECLARATION = {"preprocessing": {"color": "rgb", "mean": 127.5, "std": 128.0}}


def read_state(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors of a file of bare parameters, and what it says of itself."""
    import torch

    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                said = parse_declaration((file.metadata() or {}).get(METADATA_KEY, "{}"), path.name)
                return {key: file.get_tensor(key) for key in file.keys()}, said  # noqa: SIM118
        if suffix == ".params":
            arrays = insightface_state(read_mxnet_params(path), path)
            return (
                {name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
                _MXNET_DECLARATION,
            )
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except VidfaceError:
        raise
    except FileNotFoundError:
        raise VidfaceError(f"weights {path}: no such file") from None
    except Exception as error:
        if "weights_only" in str(error).lower() or "weights only" in str(error).lower():
            raise VidfaceError(
                f"weights {path}: holds more than numbers, or is no {suffix} file; code of "
                "strangers is not run: save the state_dict alone, best as .safetensors"
            ) from None
        raise VidfaceError(
            f"weights {path}: not a {suffix} file, or cut off ({first_line(error)})"
        ) from None
    return _tensors(loaded, path), {}


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what `torch.load` gave, out of a checkpoint's wrapping."""
    import torch

    for key in _WRAPPINGS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise VidfaceError(f"weights {path}: holds a {type(loaded).__name__}, not a state dict")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise VidfaceError(
                f"weights {path}: '{name}' is a {type(value).__name__}; a state dict holds tensors"
            )
    prefix = "module."  # of torch's DataParallel
    if all(name.startswith(prefix) for name in loaded):
        return {name.removeprefix(prefix): value for name, value in loaded.items()}
    return dict(loaded)


_COUNTER = "num_batches_tracked"  # of batch norm: plays no part in what it gives


def _fitting(state: Mapping[str, Tensor], wanted: str | None, path: Path) -> Architecture:
    """The architecture named, if the parameters are its own; or the one that they fit."""
    found = {n: tuple(t.shape) for n, t in state.items() if not n.endswith(_COUNTER)}
    if wanted is not None:
        try:
            named = architecture(wanted)
        except VidfaceError as error:
            raise VidfaceError(f"weights {path}: {error}") from None
        misfit = _misfit(found, named)
        if misfit:
            raise VidfaceError(f"weights {path}: not of architecture '{wanted}': {misfit}")
        return named
    for each in ARCHITECTURES.values():
        if _misfit(found, each) is None:
            return each
    raise VidfaceError(
        f"weights {path}: its parameters fit none of {', '.join(ARCHITECTURES)}; name the "
        "architecture (--architecture paper-x0.5, for instance), or export the network to ONNX"
    )


def _misfit(found: Mapping[str, tuple[int, ...]], named: Architecture) -> str | None:
    """The first thing that does not fit, in words; None where all does."""
    wanted = {
        name: tuple(t.shape)
        for name, t in named.build().state_dict().items()
        if not name.endswith(_COUNTER)
    }
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing:
        return f"{len(missing)} parameters are missing, '{missing[0]}' first"
    if unknown:
        return f"{len(unknown)} parameters are not its own, '{unknown[0]}' first"
    for name, shape in wanted.items():
        if found[name] != shape:
            return f"'{name}' is {found[name]}, not {shape}"
    return None


def _load(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    import torch

    for name, tensor in state.items():
        odd = tensor.is_meta or tensor.is_quantized or tensor.is_complex()
        if odd or tensor.layout != torch.strided:
            raise VidfaceError(f"weights {path}: '{name}' is no plain array of real numbers")
    own = module.state_dict()
    counters = {name: own[name] for name in own if name.endswith(_COUNTER)}
    module.load_state_dict({**counters, **{n: t.float() for n, t in state.items() if n in own}})


def save_safetensors(
    module: nn.Module,
    path: Path,
    architecture_name: str,
    preprocessing: Preprocessing,
    *,
    half: bool = False,
    **more: Any,
) -> None:
    """Write a module's parameters with all that is needed to use them again.

    Args:
        half: as float16, half the size; whoever reads them computes in float32 all the same.
        more: further entries of the declaration, such as licence or how it was trained.
    """
    from safetensors.torch import save

    said = {"architecture": architecture_name, "preprocessing": preprocessing.to_dict(), **more}
    state = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    if half:
        state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                raise VidfaceError(f"weights {path}: '{name}' leaves float16's range")
    with atomic_file(path) as file:
        file.write(save(state, metadata={METADATA_KEY: json.dumps(said)}))


def module_network(module: nn.Module) -> Network:
    """A network around a module of the caller's."""
    return Network(type(module).__name__, _state_sha256(module), module=module, live=True)


def _state_sha256(module: nn.Module) -> str:
    """A hash of the parameters and buffers: the module came without a file to name it by."""
    import torch

    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()


def _exported(network: Network) -> onnx.ModelProto:
    """The network as ONNX, from the cache where it was exported before."""

    if network.module is None:
        raise VidfaceError(f"weights {network.name}: neither a graph nor a module")
    import torch

    key = f"{network.sha256} {network.architecture} {OPSET} {torch.__version__}"
    path = cache_folder() / EXPORTS / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.onnx"
    if path.is_file():
        try:
            return read_onnx(path)
        except VidfaceError:
            path.unlink(missing_ok=True)
    model = export_onnx(network.module, network.declaration, network.name)
    try:
        write_onnx(model, path)
    except VidfaceError:
        return model  # a cache that can't be written costs the next run an export
    return model


def _frees_batch(model: onnx.ModelProto, network: Network) -> bool:
    """Whether a graph with its batch built in gives the same for several faces at once."""

    built_in = check_recogniser(model, network.name) or 1
    image = model.graph.input[0].name
    n = -(-network.batch // built_in) * built_in  # all of them different
    filled = np.random.default_rng(0).uniform(-1, 1, (n, 3, CROP_SIZE, CROP_SIZE))
    filled = filled.astype(np.float32)
    one_by_one = open_session(model, network.name, threads=1)
    try:
        pieces = np.split(filled, len(filled) // built_in)
        apart = np.concatenate([one_by_one.run(None, {image: piece})[0] for piece in pieces])
    except Exception as error:
        raise VidfaceError(f"weights {network.name}: {first_line(error)}") from None
    try:
        freed = open_session(at_batch(model, network.batch), network.name, threads=1)
        together = freed.run(None, {image: filled[: network.batch]})[0]
    except Exception:
        return False
    apart = apart[: network.batch]
    return together.shape == apart.shape and bool(np.allclose(together, apart, 1e-3, 1e-4))


def no_weights(name: str) -> VidfaceError:
    """What to say of an architecture where a recogniser is wanted."""
    return VidfaceError(
        f"'{name}' is an architecture without weights: it can be shown, counted, exported and "
        f"trained, but not extract; give a file of weights that fits it (--weights FILE "
        f"--architecture {name})"
    )


__all__ = [
    "MICRO_BATCH", "SUFFIXES", "Network", "declaration_of", "is_architecture", "module_network",
    "no_weights", "read_network", "read_state", "save_safetensors",
]  # fmt: skip
