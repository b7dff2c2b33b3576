"""How good a model is while it is trained: verification of held-out people and of benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidface.backbones.embedder import Embedder
from vidface.backbones.files import Network, module_network
from vidface.core.errors import VidfaceError
from vidface.datasets import open_pairs
from vidface.metrics.pairs import score_pairs
from vidface.runs.verify import verify
from vidface.training.settings import HELD_OUT, BenchmarkSettings

if TYPE_CHECKING:
    from torch import nn

    from vidface.backbones.architectures import Architecture
    from vidface.backbones.embedder import Embedder
    from vidface.backbones.preprocessing import Preprocessing
    from vidface.datasets.pairs import PairSet
    from vidface.training.synthetic import Faces

_AT_ONCE = 256  # faces held in memory as pictures
PAIRS_A_FOLD, FOLDS = 300, 10  # of held-out people: as many of either kind as LFW has


def embedder_of(
    module: nn.Module,
    table: Architecture,
    preprocessing: Preprocessing,
    threads: int | None = None,
) -> Embedder:
    """The model as it is now, ready to embed, its batch norm folded; the module is not changed.

    Run by torch: an export to ONNX would run somewhat faster, and takes 17 s each time.
    """
    import torch

    plain = (
        table.build()
    )  # without what a training puts in the layers' place, which can't be folded
    plain.load_state_dict(module.state_dict())
    network = module_network(plain)
    device = "cuda" if next(module.parameters()).is_cuda else "cpu"
    frozen = Network(network.name, network.sha256, module=plain)
    # The runtime sets torch's threads: to what they are, or the training would go on with others.
    threads = threads or torch.get_num_threads()
    return Embedder(frozen, preprocessing, runtime="torch", device=device, threads=threads)


def embed_all(embedder: Embedder, faces: Faces, numbers: np.ndarray | None = None) -> np.ndarray:
    """Raw embeddings (n, d) float32 of faces, a few hundred in memory at once."""
    wanted = np.arange(len(faces)) if numbers is None else numbers
    rows = np.empty((len(wanted), embedder.dimension), np.float32)
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        rows[start : start + len(part)] = embedder.embed(
            np.stack([faces.image(int(index)) for index in part])
        )
    return rows


@dataclass(frozen=True, eq=False)
class HeldOutPairs:
    """Pairs of faces of people who are not trained on, drawn once by a seed.

    Each fold has `PAIRS_A_FOLD` pairs of one person and as many of two, as LFW's have; pairs may
    repeat where there are few faces.
    """

    faces: Faces
    first: np.ndarray  # (n,) numbers of faces
    second: np.ndarray
    same: np.ndarray  # (n,) bool
    folds: np.ndarray

    @classmethod
    def draw(cls, faces: Faces, labels: np.ndarray, seed: int) -> HeldOutPairs:
        """Draw the pairs.

        Raises:
            VidfaceError: fewer than two people, or nobody with two faces.
        """
        rng = np.random.default_rng([seed, 0x484F])
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels)
        starts = np.cumsum(counts) - counts
        several = np.flatnonzero(counts >= 2)
        if len(several) == 0 or np.count_nonzero(counts) < 2:
            raise VidfaceError(
                "held-out people: want two or more, and one of them with two faces; raise "
                "[data] hold_out_people"
            )
        n = PAIRS_A_FOLD * FOLDS
        person = rng.choice(several, n)
        one = rng.integers(counts[person])
        other = (one + 1 + rng.integers(counts[person] - 1)) % counts[person]
        genuine = np.stack([order[starts[person] + one], order[starts[person] + other]])
        present = np.flatnonzero(counts)
        a = rng.integers(len(present), size=n)
        b = (a + 1 + rng.integers(len(present) - 1, size=n)) % len(present)
        people = present[np.stack([a, b])]
        impostor = order[starts[people] + rng.integers(counts[people])]
        first, second = np.concatenate([genuine, impostor], axis=1)
        folds = np.tile(np.arange(FOLDS).repeat(PAIRS_A_FOLD), 2)
        return cls(faces, first, second, np.arange(2 * n) < n, folds)

    def accuracy(self, embedder: Embedder) -> float:
        """Mean accuracy over the folds, in [0, 1]."""

        rows = embed_all(embedder, self.faces)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        units = rows / np.where(norms > 0, norms, 1)
        scores = np.clip(np.einsum("nd,nd->n", units[self.first], units[self.second]), -1, 1)
        return score_pairs(scores, self.same, self.folds).accuracy


@dataclass(frozen=True)
class Validation:
    """The verifications at hand, by name."""

    held_out: HeldOutPairs | None
    benchmarks: dict[str, tuple[PairSet, bool]]  # and whether with the flip test

    @property
    def names(self) -> tuple[str, ...]:
        return ((HELD_OUT,) if self.held_out else ()) + tuple(self.benchmarks)

    def accuracy(self, name: str, embedder: Embedder) -> float:
        """Accuracy in [0, 1] of a verification."""

        if name == HELD_OUT and self.held_out is not None:
            return self.held_out.accuracy(embedder)
        pairs, flip = self.benchmarks[name]
        return verify(embedder, pairs, flip=flip).score.accuracy


def open_benchmarks(
    benchmarks: tuple[BenchmarkSettings, ...], notify: Callable[[str], None]
) -> dict[str, tuple[PairSet, bool]]:
    """The benchmarks that are there; of optional ones that are not, a line is told."""

    found = {}
    for each in benchmarks:
        absent = [path for path in (each.images, each.pairs) if path and not path.exists()]
        if absent and each.optional:
            notify(f"benchmark {each.name}: n/a, {absent[0]} is not there")
            continue
        found[each.name] = (open_pairs(each.images, each.pairs), each.flip)
    return found
