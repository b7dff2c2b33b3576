"""Files of weights, read as a `Network` and written.

Strangers' files run no code here: ONNX and safetensors hold numbers, PyTorch files are read with
`weights_only=True`, MXNet's by a reader of their format.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.backbones.architectures import ARCHITECTURES, Architecture, find_architecture
from vidface.backbones.conforming import conform_graph
from vidface.backbones.declarations import (
    METADATA_KEY,
    MXNET_DECLARATION,
    graph_declaration,
    parse_declaration,
)
from vidface.backbones.graphs import drop_weight_inputs, load_graph_alone, onnx_sha256, read_onnx
from vidface.backbones.mxnet_params import insightface_state, read_mxnet_params
from vidface.backbones.network import Network
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes.base import NetworkLimits
from vidface.backbones.runtimes.places import HERE, OwnProcess
from vidface.backbones.weights import WEIGHTS
from vidface.core.errors import UsageError, VidfaceError, first_line
from vidface.core.files import atomic_file
from vidface.storage.cache import sha256_of

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

SUFFIXES = (".onnx", ".safetensors", ".pt", ".pth", ".params")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "backbone", "net", "network")


def read_network(
    path: Path,
    name: str,
    architecture_name: str | None = None,
    output: str | None = None,
    limits: NetworkLimits | None = None,
) -> Network:
    """Read a file of weights.

    Args:
        architecture_name: what a file of bare parameters is of; where nobody says, the
            architecture that fits it name by name and shape by shape.
        output: the embedding's name among an ONNX file's outputs, where it isn't plain.
        limits: of an ONNX file that vidface doesn't know.

    Raises:
        VidfaceError: no such file, another kind of file, damaged, or not fitting.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VidfaceError(
            f"weights {path}: unknown kind of file (known: {', '.join(SUFFIXES)}); export the "
            "network to ONNX with input (n, 3, height, width) and output (n, d)"
        )
    if suffix == ".onnx":
        if architecture_name is not None:
            raise UsageError(
                f"weights {path}: an ONNX file holds its own network; leave --architecture out"
            )
        model, sha256 = read_onnx(path), onnx_sha256(path)
        is_known = any(record.sha256 == sha256 for record in WEIGHTS.values())
        place = HERE if is_known else OwnProcess(name, limits)
        model = conform_graph(model, name, output, place)
        declared = graph_declaration(model, name)
        return Network(
            name,
            sha256,
            model,
            architecture=declared.get("architecture"),
            declaration=declared,
            output=output,
            place=place,
        )
    if output is not None:
        raise VidfaceError(f"weights {path}: has no outputs to choose from; leave the output out")
    state, declaration = read_state(path)
    fitting = _find_fitting(state, architecture_name or declaration.get("architecture"), path)
    module = fitting.build()
    _load(module, state, path)
    return Network(
        name,
        sha256_of(path),
        module=module.eval(),
        architecture=fitting.name,
        declaration=declaration,
    )


def read_bare_graph(path: Path) -> onnx.ModelProto | None:
    """An ONNX file without what lies in others beside it; None where it can't be read.

    Reading it in earnest says what is wrong.
    """
    try:
        model = load_graph_alone(path)
    except Exception:
        return None
    drop_weight_inputs(model)
    return model


def read_declaration(path: Path) -> Mapping[str, Any]:
    """What a file of bare parameters says of itself, without building the network."""
    if path.suffix.lower() == ".params":
        return MXNET_DECLARATION
    return read_state(path)[1] if path.suffix.lower() == ".safetensors" else {}


def read_state(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors of a file of bare parameters, and what it says of itself."""
    import torch

    suffix = path.suffix.lower()
    try:
        if suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                declaration = parse_declaration(
                    (file.metadata() or {}).get(METADATA_KEY, "{}"), path.name
                )
                return {key: file.get_tensor(key) for key in file.keys()}, declaration  # noqa: SIM118
        if suffix == ".params":
            arrays = insightface_state(read_mxnet_params(path), path)
            return (
                {name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
                MXNET_DECLARATION,
            )
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:
                if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                    raise VidfaceError(
                        f"weights {path}: its parts are compressed and may unfold to any size; "
                        "torch.save writes none such: load it and save it again"
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
    return _find_tensors(loaded, path), {}


def _find_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what `torch.load` gave, out of a checkpoint's wrapping."""
    import torch

    for key in _WRAPPERS:
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


def _find_fitting(state: Mapping[str, Tensor], wanted: str | None, path: Path) -> Architecture:
    """The architecture named, if the parameters are its own; or the one that they fit."""
    shapes = _shapes_of(state)
    if wanted is not None:
        try:
            named = find_architecture(wanted)
        except VidfaceError as error:
            raise VidfaceError(f"weights {path}: {error}") from None
        misfit = _describe_misfit(shapes, named)
        if misfit:
            raise VidfaceError(f"weights {path}: not of architecture '{wanted}': {misfit}")
        return named
    for each in ARCHITECTURES.values():
        if _describe_misfit(shapes, each) is None:
            return each
    raise VidfaceError(
        f"weights {path}: its parameters fit none of {', '.join(ARCHITECTURES)}; name the "
        "architecture (--architecture paper-x0.5, for instance), or export the network to ONNX"
    )


def _shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {n: tuple(t.shape) for n, t in state.items() if not n.endswith(_COUNTER)}


def _describe_misfit(shapes: Mapping[str, tuple[int, ...]], named: Architecture) -> str | None:
    """The first thing that does not fit, in words; None where all does."""
    wanted = _shapes_of(named.build().state_dict())
    missing, unknown = sorted(set(wanted) - set(shapes)), sorted(set(shapes) - set(wanted))
    if missing:
        return f"{len(missing)} parameters are missing, '{missing[0]}' first"
    if unknown:
        return f"{len(unknown)} parameters are not its own, '{unknown[0]}' first"
    for name, shape in wanted.items():
        if shapes[name] != shape:
            return f"'{name}' is {shapes[name]}, not {shape}"
    return None


def _load(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    import torch

    for name, tensor in state.items():
        counts = name.endswith(_COUNTER) and tensor.numel() != 1
        odd = counts or tensor.is_meta or tensor.is_quantized or tensor.is_complex()
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

    declaration = {
        "architecture": architecture_name,
        "preprocessing": preprocessing.to_dict(),
        **more,
    }
    state = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    if half:
        state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                raise VidfaceError(f"weights {path}: '{name}' leaves float16's range")
    with atomic_file(path) as file:
        file.write(save(state, metadata={METADATA_KEY: json.dumps(declaration)}))
