"""How good a model is while it is trained: verification of held-out people and of benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vidface.backbones.embedder import Embedder
from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify
from vidface.datasets.pair_sources import open_pairs
from vidface.datasets.pairs import PairSet
from vidface.metrics.pairs import NO_ACCURACY, score_pairs
from vidface.runs.verify import verify
from vidface.training.settings import BenchmarkSettings
from vidface.training.synthetic import FaceImages, read_blocks

PAIRS_A_FOLD, FOLDS = 300, 10  # of held-out people: as many of either kind as LFW has


def embed_all(embedder: Embedder, faces: FaceImages) -> np.ndarray:
    """Embed faces, a few hundred in memory at once: (n, d) float32, raw."""
    rows = np.empty((len(faces), embedder.dimension), np.float32)
    for block, images in read_blocks(faces, range(len(faces))):
        rows[block] = embedder.embed(images)
    return rows


class PairVerification(Protocol):
    """Pairs of faces that a model is verified on."""

    def accuracy(self, embedder: Embedder) -> float:
        """Mean accuracy over the folds, in [0, 1]."""


@dataclass(frozen=True, eq=False)
class HeldOutPairs:
    """Pairs of faces of people who are not trained on, drawn once by a seed.

    Each fold has `PAIRS_A_FOLD` pairs of one person and as many of two, as LFW's have; pairs may
    repeat where there are few faces.
    """

    faces: FaceImages
    first: np.ndarray  # (n,) numbers of faces
    second: np.ndarray  # (n,) numbers of faces
    same: np.ndarray  # (n,) bool
    folds: np.ndarray  # (n,)

    @classmethod
    def draw(cls, faces: FaceImages, labels: np.ndarray, seed: int) -> HeldOutPairs:
        """Draw the pairs.

        Raises:
            VidfaceError: fewer than two people, or nobody with two faces.
        """
        rng = np.random.default_rng([seed, 0x484F])
        # Faces in the order of their people: person p's begin at starts[p] and are counts[p].
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
        # A second one that is drawn 1 to count − 1 places further round is never the first.
        person = rng.choice(several, n)
        face = rng.integers(counts[person])
        other_face = (face + 1 + rng.integers(counts[person] - 1)) % counts[person]
        genuine = np.stack([order[starts[person] + face], order[starts[person] + other_face]])
        present = np.flatnonzero(counts)
        place = rng.integers(len(present), size=n)
        other_place = (place + 1 + rng.integers(len(present) - 1, size=n)) % len(present)
        people = present[np.stack([place, other_place])]
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
        return _known(score_pairs(scores, self.same, self.folds).accuracy)


@dataclass(frozen=True)
class BenchmarkPairs:
    """A public benchmark of pairs; `flip`: verified with the flip test."""

    pairs: PairSet
    flip: bool

    def accuracy(self, embedder: Embedder) -> float:
        """Mean accuracy over the folds, in [0, 1]."""
        return _known(verify(embedder, self.pairs, flip=self.flip).score.accuracy)

    @property
    def fingerprint(self) -> str:
        """What of it decides the weights where it chooses a stage's best model."""
        return f"{self.pairs.sha256} {'with' if self.flip else 'without'} the flip test"


def _known(accuracy: float | None) -> float:
    if accuracy is None:
        raise VidfaceError(f"accuracy {NO_ACCURACY}")
    return accuracy


def open_benchmarks(
    benchmarks: tuple[BenchmarkSettings, ...], notify: Notify
) -> dict[str, BenchmarkPairs]:
    """Open the benchmarks that are there; a line is told of optional ones that are not."""
    opened = {}
    for settings in benchmarks:
        paths = [path for path in (settings.images, settings.pairs) if path]
        absent = [path for path in paths if not path.exists()]
        if absent and settings.optional:
            notify(f"benchmark {settings.name}: n/a, {absent[0]} is not there")
            continue
        pairs = open_pairs(settings.images, settings.pairs)
        if pairs.n_folds == 1:
            raise VidfaceError(f"benchmark {settings.name}: accuracy {NO_ACCURACY}; name folds")
        opened[settings.name] = BenchmarkPairs(pairs, settings.flip)
    return opened
