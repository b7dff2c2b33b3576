"""A recogniser ready to use: one verb, `embed`, whatever network it is and whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vidface.backbones.feeding import Feed
from vidface.backbones.preprocessing import ARCFACE
from vidface.backbones.runtimes import Runner, RuntimePlan
from vidface.backbones.runtimes.plans import make_runner, possible_plans
from vidface.backbones.runtimes.trial import fastest
from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE, available_cores

if TYPE_CHECKING:
    from vidface.backbones.network import Network
    from vidface.backbones.preprocessing import Preprocessing

FEW = 4  # faces that fill no more than 1/FEW of a batch are embedded one by one


class Embedder:
    """Aligned faces → embeddings. `vidface.load_backbone` makes one.

    Attributes:
        name, sha256: of the weights (a module's: of its state).
        output: the embedding's name among the network's outputs, where it had to be said.
        architecture: the name of its architecture, where it is one of vidface's.
        dimension: d of its embeddings.
        feed: what the network is fed and who says so; `preprocessing`, `assumed` are of it.
        plan: runtime, precision and device that run it.
    """

    def __init__(
        self,
        network: Network,
        fed: Preprocessing | Feed,
        *,
        runtime: str = "auto",
        precision: str = "float32",
        device: str = "auto",
        threads: int | None = None,
        plans: Sequence[RuntimePlan] | None = None,  # instead of those that the four before allow
    ) -> None:
        self._network = network
        self.name, self.sha256 = network.name, network.sha256
        self.architecture, self.live = network.architecture, network.live
        self.output = network.output
        feed = fed if isinstance(fed, Feed) else Feed(fed)
        self.feed = replace(feed, preprocessing=network.fit_preprocessing(feed.preprocessing))
        self.preprocessing, self.assumed = self.feed.preprocessing, self.feed.assumed
        if plans is None:
            threads = available_cores() if threads is None else threads
            if threads < 1:
                raise VidfaceError(f"threads must be at least 1, not {threads}")
            plans = possible_plans(network, runtime, precision, device, threads)
        self.plan, self._runner = fastest(network, self.preprocessing, plans)
        self._alone: Runner | None = None  # made when it is first of use
        trial = np.zeros((self._runner.batch, *self.crop_shape), np.uint8)
        width = self._vectors(self._runner.run([trial])[0], len(trial)).shape[1]
        self.dimension = width - self._runner.gives_norm

    def __str__(self) -> str:
        kind = f"{self.architecture}, " if self.architecture else ""
        fed = self.preprocessing
        unusual = fed.size != CROP_SIZE or fed.template != ARCFACE
        crops = f", {fed.template} {fed.size_text}" if unusual else ""
        return (
            f"{self.name} ({kind}{self.plan}, {self.dimension}-d, {self.preprocessing}{crops}"
            f"{', assumed' if self.assumed else ''})"
        )

    def fed_with(self, other: Preprocessing) -> Embedder:
        """The same network, fed otherwise."""
        return Embedder(self._network, other, plans=[self.plan])

    @property
    def runtime(self) -> str:
        """The runtime's name."""
        return self.plan.runtime

    @property
    def precision(self) -> str:
        """The type of the numbers in the network's products: "float32", "bf16" or "fp16"."""
        return self.plan.precision

    @property
    def crop_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of the faces that it takes."""
        return self.preprocessing.shape

    def embed(self, crops: np.ndarray, *, whole_batches: bool = False) -> np.ndarray:
        """Embeddings of aligned faces, raw (not normalised), (n, d) float32; see `embed_faces`."""
        return self.embed_faces(crops, whole_batches=whole_batches)[0]

    def embed_faces(
        self, crops: np.ndarray, *, whole_batches: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of aligned faces, raw (not normalised), and how long each is.

        All batches have the same shape, the last one filled up with black, so that an embedding
        does not depend on its neighbours; a last few faces are embedded one by one, which moves
        a value by rounding at most.

        Args:
            crops: (n, *crop_shape) uint8 RGB. Not changed.
            whole_batches: also the last few, so that a face's bits are the same however faces are
                spread over calls.

        Returns:
            (n, d) float32, and (n,) float32: what the network itself gives as the norm, if it does,
            else the lengths of the embeddings.

        Raises:
            VidfaceError: another shape or type.
        """
        crops = np.asarray(crops)
        shape = self.crop_shape
        if crops.ndim != 4 or crops.shape[1:] != shape or crops.dtype != np.uint8:
            raise VidfaceError(
                f"crops: want (n, {shape[0]}, {shape[1]}, 3) uint8 RGB, "
                f"got {crops.shape} {crops.dtype}"
            )
        n, batch = len(crops), self._runner.batch
        if n == 0:
            return np.empty((0, self.dimension), np.float32), np.empty(0, np.float32)
        few = n % batch if n % batch * FEW <= batch and self.plan.device == "cpu" else 0
        few = 0 if whole_batches else few
        batches = [np.ascontiguousarray(crops[i : i + batch]) for i in range(0, n - few, batch)]
        if batches and len(batches[-1]) < batch:
            filled = np.zeros((batch, *shape), np.uint8)
            filled[: len(batches[-1])] = batches[-1]
            batches[-1] = filled
        outputs = [self._vectors(output, batch) for output in self._runner.run(batches)]
        if few:
            outputs.append(self._embed_alone(np.ascontiguousarray(crops[n - few :])))
        rows = np.concatenate(outputs)[:n].astype(np.float32, copy=False)
        if self._runner.gives_norm:
            return np.ascontiguousarray(rows[:, :-1]), rows[:, -1].copy()
        with np.errstate(over="ignore", invalid="ignore"):
            return rows, np.linalg.norm(rows, axis=1).astype(np.float32)

    def _embed_alone(self, crops: np.ndarray) -> np.ndarray:
        """The last few faces, one by one: faster than a batch that is mostly black."""
        if self._alone is None:
            self._alone = make_runner(self._network, self.preprocessing, self.plan, alone=True)
        batch = self._alone.batch
        if batch > 1:  # built in
            crops = np.concatenate([crops, np.zeros((batch, *crops.shape[1:]), np.uint8)])
        pieces = [crops[i : i + batch] for i in range(0, len(crops) - batch + 1, batch)]
        return np.concatenate([self._vectors(output, batch) for output in self._alone.run(pieces)])

    def _vectors(self, output: np.ndarray, n: int) -> np.ndarray:
        """The output for n faces as (n, d), or a clear error."""
        if output.ndim > 2 and np.prod(output.shape[2:]) == 1:  # (n, d, 1, 1)
            output = output.reshape(output.shape[:2])
        if output.ndim != 2 or output.shape[0] != n or output.shape[1] < 2:
            raise VidfaceError(
                f"weights {self.name}: {n} faces give an output of shape {output.shape}; "
                f"a recogniser gives ({n}, d)"
            )
        return output
