"""What a runtime is: what it can do, and one verb that makes a network ready to run."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vidface.core.errors import VidfaceError, first_line

if TYPE_CHECKING:
    import numpy as np

    from vidface.backbones.network import Network
    from vidface.backbones.preprocessing import Preprocessing


WITH_NORM = "vidface_embedding_and_norm"
"""The output of a graph whose last column is the norm: `vidface.backbones.conforming.join_norm`."""


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Turn any error within the block into a VidfaceError: libraries' share no base class."""
    try:
        yield
    except Exception as error:
        raise VidfaceError(f"{what}: {first_line(error)}") from None


@dataclass(frozen=True)
class RuntimePlan:
    """How a network is run. `split_prelu`: see `vidface.backbones.graphs.split_prelu`."""

    runtime: str
    precision: str = "float32"
    device: str = "cpu"
    threads: int = 1
    split_prelu: bool = False

    def __str__(self) -> str:
        unusual = [] if self.precision == "float32" else [self.precision]
        unusual += [] if self.device == "cpu" else [self.device]
        return " ".join([self.runtime, *unusual])


class Runner(ABC):
    """A network ready to run on batches of exactly `batch` crops.

    Where it `gives_norm`, the last column of its rows is no part of the embedding but its norm.
    """

    batch: int
    gives_norm = False

    @abstractmethod
    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(batch, height, width, 3) uint8 RGB each → (batch, …) float32 each, in order."""


@dataclass(frozen=True)
class Runtime:
    """A row of the registry of runtimes.

    Attributes:
        package: what must be installed.
        takes: "graph" for any network, as ONNX; "module" for torch networks as they are.
        splits_prelu: whether a plan with `split_prelu` is worth a trial beside the plain one.
        make_runner: the verb, called with (network, preprocessing, plan, alone); `alone` asks for
            one face at a time, with all threads on it, where the network's batch is free.
    """

    name: str
    package: str
    precisions: tuple[str, ...]
    make_runner: Callable[[Network, Preprocessing, RuntimePlan, bool], Runner]
    devices: tuple[str, ...] = ("cpu",)
    takes: Literal["graph", "module"] = "graph"
    splits_prelu: bool = False

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None
