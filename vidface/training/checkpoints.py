"""Checkpoints: safetensors files that appear complete or not at all, and are read without code.

A file holds tensors, and JSON beside them under the metadata key `vidface_training`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KEY = "vidface_training"
FORMAT = 1


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what is said of them; a kill in between leaves the old file."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    said = json.dumps({"format": FORMAT, **about})
    with atomic_file(path) as file:
        file.write(save(plain, metadata={KEY: said}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and what is said of them.

    Raises:
        VidfaceError: no such file, damaged, or not a checkpoint of vidface's.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise VidfaceError(f"checkpoint {path}: no such file") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise VidfaceError(
            f"checkpoint {path}: damaged, or not a safetensors file ({reason})"
        ) from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise VidfaceError(f"checkpoint {path}: not written by `vidface train` of this version")
    return tensors, said


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with a prefix in front.

    >>> under("backbone", {"w": 1}), part("backbone", {"backbone.w": 1, "head.w": 2})
    ({'backbone.w': 1}, {'w': 1})
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def load_module(module: torch.nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Take over a module's parameters and buffers.

    Raises:
        VidfaceError: they are of another architecture, or another number of classes.
    """
    own = module.state_dict()
    odd = sorted(set(own) ^ set(state))
    if odd:
        raise VidfaceError(f"{what}: of another architecture: '{odd[0]}' is in one of the two only")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise VidfaceError(
                f"{what}: '{name}' is {tuple(state[name].shape)} there and {tuple(tensor.shape)} "
                "here: another architecture, or another number of classes"
            )
    module.load_state_dict(dict(state))


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, as named tensors: parameter's number, then the key."""
    import torch

    found = {}
    for number, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                found[f"{number}.{key}"] = value
    return found


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what an optimiser of the same kind and parameters remembered.

    Raises:
        VidfaceError: it was of other parameters.
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        place = int(number) if number.isdecimal() and len(number) < 9 else len(parameters)
        fits = place < len(parameters) and tensor.shape in (parameters[place].shape, ())
        if not fits:
            raise VidfaceError(f"the optimiser's '{name}' {tuple(tensor.shape)} fits no parameter")
        state.setdefault(place, {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
