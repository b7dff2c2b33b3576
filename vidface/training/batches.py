"""Batches of faces for a stage, in an order that depends on (seed, stage, epoch, place) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidface.training.augment import Chain
from vidface.training.processes import Processes
from vidface.training.sampling import Sampler
from vidface.training.synthetic import Faces

_AUGMENT = 0x415547  # sets the augmentation's random numbers apart from the sampler's


class Batch(NamedTuple):
    """A step's faces.

    Attributes:
        images: (n / processes, 112, 112, 3) uint8 RGB, this process's share.
        indices: (n,) int64, the numbers of all the batch's faces.
    """

    images: Tensor
    indices: Tensor


class Item(NamedTuple):
    face: int
    seed_ints: tuple[int, ...]


class AugmentedFaces(Dataset[Tensor]):
    """Faces as they are trained on; an item is a face's number and its random seed."""

    def __init__(self, faces: Faces, augmentation: Chain) -> None:
        self._faces, self._augmentation = faces, augmentation

    def __len__(self) -> int:
        return len(self._faces)

    def __getitem__(self, item: Item) -> Tensor:
        face = self._faces.image(item.face)
        face = self._augmentation(face, np.random.default_rng(item.seed_ints))
        return torch.from_numpy(np.require(face, requirements=["C", "W"]))


@dataclass(frozen=True)
class StageBatches:
    """All batches of a stage; `between(start, stop)` gives those of the steps [start, stop).

    Attributes:
        faces, augmentation: what is read, and what is done to it.
        sampler: the order; a batch holds numbers of `numbers`.
        numbers: (m,) int64 numbers of the faces that the stage trains on.
        seed, stage: of the augmentation.
        workers: processes that read; 0: this one, in between.
    """

    faces: Faces
    augmentation: Chain
    sampler: Sampler
    numbers: np.ndarray
    seed: int
    stage: int
    processes: Processes
    workers: int = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.sampler)

    def between(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the stage's steps [start, stop)."""
        wanted = list(self._indices(start, stop))
        loader: DataLoader[Tensor] = DataLoader(
            AugmentedFaces(self.faces, self.augmentation),
            batch_sampler=_Listed(self._items(start, wanted), len(wanted)),
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_one_thread if self.workers else None,
            generator=torch.Generator(),  # or it would draw from torch's own
        )
        for indices, images in zip(wanted, loader, strict=True):
            yield Batch(images, torch.from_numpy(indices))

    def _indices(self, start: int, stop: int) -> Iterator[np.ndarray]:
        epoch, rows = -1, np.empty((0, 0), np.int64)
        for step in range(start, stop):
            if step // len(self.sampler) != epoch:
                epoch = step // len(self.sampler)
                rows = self.sampler.epoch(epoch)
            yield self.numbers[rows[step % len(self.sampler)]]

    def _items(self, start: int, wanted: list[np.ndarray]) -> Callable[[], Iterator[list[Item]]]:
        def items() -> Iterator[list[Item]]:
            for step, indices in enumerate(wanted, start):
                first, last = self.processes.share(len(indices))
                yield [
                    Item(int(indices[place]), (self.seed, self.stage, step, place, _AUGMENT))
                    for place in range(first, last)
                ]

        return items


class _Listed:
    """A batch sampler over prepared items."""

    def __init__(self, items: Callable[[], Iterator[list[Item]]], count: int) -> None:
        self._items, self._count = items, count

    def __iter__(self) -> Iterator[list[Item]]:
        return self._items()

    def __len__(self) -> int:
        return self._count


def _one_thread(_: int) -> None:
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
