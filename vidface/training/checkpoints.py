"""Checkpoints: safetensors files that appear complete or not at all, and are read without code.

A file holds tensors, and JSON beside them under the metadata key `vidface_training`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vidface.core.digests import check_digest
from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.training.results import StageResult

KEY = "vidface_training"
FORMAT = 1


@dataclass
class TrainingPosition:
    """Where a training stands: what a checkpoint says beside its tensors."""

    stage: int = 1
    step: int = 0  # of the stage
    done: int = 0  # of all stages before
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0  # validations since the best
    seconds: float = 0.0  # of the stage's steps
    losses: list[float] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Any, stages: int, where: str) -> TrainingPosition:
        """Read what a checkpoint says.

        Raises:
            VidfaceError: other keys or types than a position's, or no place in so many stages.
        """
        defaults = vars(cls())
        fits = isinstance(values, dict) and values.keys() == defaults.keys()
        if fits:
            # A whole number can stand for a fraction in JSON.
            kinds = {
                key: (int, float) if type(value) is float else type(value)
                for key, value in defaults.items()
            }
            fits = all(isinstance(values[key], kind) for key, kind in kinds.items())
        if (
            not fits
            or not 1 <= values["stage"] <= stages + 1
            or min(values["step"], values["done"]) < 0
        ):
            raise VidfaceError(f"{where}: does not say where the training stood; give --restart")
        return cls(**values)

    def next_stage(self, result: StageResult) -> TrainingPosition:
        """The position before the first step of the stage that follows; the result is kept."""
        return TrainingPosition(
            stage=self.stage + 1,
            done=self.done + self.step,
            results=[*self.results, asdict(result)],
            scaler=self.scaler,
        )


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what is said of them; a kill in between leaves the old file."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {KEY: json.dumps({"format": FORMAT, **about})}
    with atomic_file(path, digest=True) as file:
        file.write(save(on_cpu, metadata=metadata))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, on the CPU, and what is said of them.

    Raises:
        VidfaceError: no such file, damaged, or not a checkpoint of vidface's.
    """
    check_digest(path, "--restart trains anew")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise VidfaceError(f"checkpoint {path}: no such file") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise VidfaceError(
            f"checkpoint {path}: damaged, or not a safetensors file ({reason})"
        ) from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise VidfaceError(f"checkpoint {path}: not written by `vidface train` of this version")
    return tensors, about


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix and a dot in front of all names.

    >>> add_prefix("backbone", {"w": 1}), select_prefix("backbone", {"backbone.w": 1, "head.w": 2})
    ({'backbone.w': 1}, {'w': 1})
    """
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def select_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors whose names begin with a prefix and a dot, and take it off."""
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def load_module(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Take over a module's parameters and buffers.

    Raises:
        VidfaceError: they are of another architecture, or another number of classes.
    """
    current = module.state_dict()
    unmatched = sorted(set(current) ^ set(state))
    if unmatched:
        raise VidfaceError(
            f"{what}: of another architecture: '{unmatched[0]}' is in one of the two only"
        )
    for name, tensor in current.items():
        if tensor.shape != state[name].shape:
            raise VidfaceError(
                f"{what}: '{name}' is {tuple(state[name].shape)} there and {tuple(tensor.shape)} "
                "here: another architecture, or another number of classes"
            )
    module.load_state_dict(dict(state))


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name what an optimiser remembers: the parameter's number, a dot, the key."""
    return {
        f"{number}.{key}": value
        for number, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what an optimiser of the same kind and parameters remembered.

    Raises:
        VidfaceError: it was of other parameters.
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        index = int(number) if number.isdecimal() and len(number) < 9 else len(parameters)
        if index >= len(parameters) or tensor.shape not in (parameters[index].shape, ()):
            raise VidfaceError(f"the optimiser's '{name}' {tuple(tensor.shape)} fits no parameter")
        state.setdefault(index, {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
