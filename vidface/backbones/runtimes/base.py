"""What a runtime is: what it can do, and one verb that makes a network ready to run."""

from __future__ import annotations

import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vidface.core.errors import UsageError, VidfaceError, first_line

if TYPE_CHECKING:
    import numpy as np

    from vidface.backbones.network import Network
    from vidface.backbones.preprocessing import Preprocessing


WITH_NORM = "vidface_embedding_and_norm"
"""The output of a graph whose last column is the norm: `vidface.backbones.conforming.join_norm`."""


@dataclass(frozen=True)
class NetworkLimits:
    """What a stranger's network may take.

    Attributes:
        batch_seconds: from one sign of progress, such as a batch that is done, to the next.
        memory_bytes: of all that is done with it, its weights included.
    """

    batch_seconds: float = 300.0
    memory_bytes: int = 8 * 2**30


class NetworkTimeoutError(VidfaceError):
    """A network was stopped because it took too long."""


on_progress: list[Callable[[], None]] = []
"""Who is told of progress; a process that works on a stranger's network tells its parent."""


def note_progress() -> None:
    """Say that a batch is done, from whichever thread."""
    for tell in on_progress:
        tell()


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Turn any error within the block into a VidfaceError: libraries' share no base class."""
    try:
        yield
    except Exception as error:
        raise VidfaceError(f"{what}: {first_line(error)}") from None


def choose_outputs(
    shapes: Mapping[str, Sequence[int]], n: int, wanted: str | None, what: str
) -> tuple[str, str | None]:
    """The names of the embedding and of the norm (None where there is none) of n faces.

    An embedding is the only output of a row of several numbers a face, a norm the only one of a
    single number.

    >>> choose_outputs({"feature": (4, 512), "norm": (4, 1), "map": (4, 64, 7, 7)}, 4, None, "")
    ('feature', 'norm')

    Raises:
        VidfaceError: an unknown name, none, or several, of which one must be named.
    """
    widths = {
        name: shape[1] if len(shape) > 1 else 1
        for name, shape in shapes.items()
        if len(shape) and shape[0] == n and math.prod(shape[2:]) == 1
    }
    features = [name for name, width in widths.items() if width > 1]
    norms = [name for name, width in widths.items() if width == 1]
    listed = ", ".join(f"'{name}' {tuple(shape)}" for name, shape in shapes.items())
    if wanted is not None and wanted not in features:
        raise UsageError(f"{what}: no output '{wanted}' of (n, d) (its outputs: {listed})")
    if wanted is None and len(features) != 1:
        lack = "several could be the embedding" if features else "none is an embedding (n, d)"
        remedy = '; name it: --output-name NAME, or output = "NAME" in [backbone]'
        raise VidfaceError(f"{what}: of its outputs {lack}: {listed}{remedy if features else ''}")
    return wanted or features[0], norms[0] if len(norms) == 1 else None


def join_outputs(outputs: Sequence[Any], n: int, name: str) -> tuple[np.ndarray, bool]:
    """What a network gives for n faces as one (n, …) float32, and whether its norms end it."""
    import numpy as np

    arrays = [np.asarray(output, np.float32) for output in outputs]
    if len(arrays) == 1:
        return arrays[0], False
    shapes = {str(number): array.shape for number, array in enumerate(arrays)}
    feature, norm = choose_outputs(shapes, n, None, f"weights {name}")
    rows = arrays[int(feature)].reshape(n, -1)
    if norm is None:
        return rows, False
    return np.column_stack([rows, arrays[int(norm)].reshape(n, 1)]), True


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
