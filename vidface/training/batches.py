"""Batches of faces for a stage, in an order that depends on (seed, stage, epoch, place) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidface.core.errors import VidfaceError
from vidface.training.augment import Chain
from vidface.training.processes import Processes
from vidface.training.sampling import Sampler
from vidface.training.synthetic import FaceImages

_AUGMENT = 0x415547  # sets the augmentation's random numbers apart from the sampler's


class TrainingBatch(NamedTuple):
    """A step's faces.

    Attributes:
        images: (n / processes, 112, 112, 3) uint8 RGB, this process's share.
        indices: (n,) int64, the numbers of all the batch's faces.
    """

    images: Tensor
    indices: Tensor


class SeededFace(NamedTuple):
    """A face's number, and the integers that seed its augmentation."""

    number: int
    seed_ints: tuple[int, ...]


class AugmentedFaces(Dataset["Tensor | str"]):
    """Faces as they are trained on.

    A face that can't be read is what is wrong with it, as text: not every error gets out of a
    reading process whole.
    """

    def __init__(self, faces: FaceImages, augmentation: Chain) -> None:
        self._faces, self._augmentation = faces, augmentation

    def __len__(self) -> int:
        return len(self._faces)

    def __getitem__(self, seeded: SeededFace) -> Tensor | str:
        try:
            face = self._faces.image(seeded.number)
        except (VidfaceError, OSError) as error:
            return " ".join(str(error).split())
        face = self._augmentation(face, np.random.default_rng(seeded.seed_ints))
        return torch.from_numpy(np.require(face, requirements=["C", "W"]))


@dataclass(frozen=True)
class StageBatches:
    """All batches of a stage; `between(start, stop)` gives those of the steps [start, stop).

    Attributes:
        faces, augmentation: what is read, and what is done to it.
        sampler: the order of the faces' numbers.
        seed, stage: of the augmentation.
        workers: processes that read; 0: this one, in between.
    """

    faces: FaceImages
    augmentation: Chain
    sampler: Sampler
    seed: int
    stage: int
    processes: Processes
    workers: int = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.sampler)

    def between(self, start: int, stop: int) -> Iterator[TrainingBatch]:
        """The batches of the stage's steps [start, stop), an epoch's order in memory at once."""
        if stop <= start:
            return
        loader: DataLoader[Tensor | str] = DataLoader(
            AugmentedFaces(self.faces, self.augmentation),
            batch_sampler=self._shares(start, stop),
            collate_fn=_stack_faces,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_use_one_thread if self.workers else None,
            # A fork of a process whose libraries run threads can wait for ever.
            multiprocessing_context="spawn" if self.workers else None,
            generator=torch.Generator(),  # or it would draw from torch's own
        )
        for indices, images in zip(self._face_numbers(start, stop), loader, strict=True):
            if isinstance(images, str):
                raise VidfaceError(images)
            yield TrainingBatch(images, torch.from_numpy(indices))

    def _face_numbers(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """For each step of [start, stop) the faces of its batch, (n,) int64."""
        epoch, order = -1, np.empty((0, 0), np.int64)
        for step in range(start, stop):
            if step // len(self) != epoch:
                epoch = step // len(self)
                order = self.sampler.epoch(epoch)
            yield order[step % len(self)]

    def _shares(self, start: int, stop: int) -> Iterator[list[SeededFace]]:
        """For each step of [start, stop) what this process reads, seeded by step and place."""
        for step, indices in enumerate(self._face_numbers(start, stop), start):
            first, last = self.processes.share(len(indices))
            yield [
                SeededFace(int(indices[place]), (self.seed, self.stage, step, place, _AUGMENT))
                for place in range(first, last)
            ]


def _stack_faces(faces: list[Tensor | str]) -> Tensor | str:
    """(n, 112, 112, 3), or what is wrong with the first face that can't be read."""
    for face in faces:
        if isinstance(face, str):
            return face
    return torch.stack([face for face in faces if isinstance(face, Tensor)])


def _use_one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
