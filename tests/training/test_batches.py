from __future__ import annotations

import numpy as np
import pytest
import torch

from vidface.training.augment import Chain, Flip, build_augmentation
from vidface.training.batches import StageBatches, TrainingBatch
from vidface.training.processes import Processes
from vidface.training.sampling import make_sampler


class Numbered:
    """Face i is of grey level i, its left column black."""

    def __len__(self) -> int:
        return 20

    def image(self, index: int) -> np.ndarray:
        face = np.full((112, 112, 3), index, np.uint8)
        face[:, 0] = 0
        return face


def batches(
    *, seed: int = 0, augmentation: Chain | None = None,
    processes: Processes | None = None, workers: int = 0,
) -> StageBatches:  # fmt: skip
    order = make_sampler("shuffled", np.zeros(20, np.int64), 6, seed=seed, stage=2)
    return StageBatches(
        Numbered(), augmentation or Chain(), order, seed, 2, processes or Processes(), workers
    )


def levels(batch: TrainingBatch) -> list[int]:
    return batch.images[:, 50, 50, 0].tolist()


def test_images_are_those_of_the_indices_and_an_epoch_has_each_face_once() -> None:
    made = batches()
    assert len(made) == 3  # 20 faces in batches of 6: two are left out
    found = list(made.between(0, 6))
    for batch in found:
        assert levels(batch) == batch.indices.tolist()
        assert batch.images.shape == (6, 112, 112, 3)
        assert batch.images.dtype == torch.uint8
    for epoch in (found[:3], found[3:]):
        seen = torch.cat([batch.indices for batch in epoch]).tolist()
        assert len(set(seen)) == 18
    assert [b.indices.tolist() for b in found[:3]] != [b.indices.tolist() for b in found[3:]]


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (2, 5), (3, 7), (6, 7), (5, 5)])
def test_any_part_is_the_same_as_in_the_whole(start: int, stop: int) -> None:
    chain = build_augmentation({"flip": True, "move": True, "colour": True})
    whole = list(batches(augmentation=chain).between(0, 7))
    part = list(batches(augmentation=chain).between(start, stop))
    assert len(part) == stop - start
    for one, other in zip(whole[start:stop], part, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.slow
def test_processes_share_a_batch_and_augment_it_as_one_would(workers: int) -> None:
    chain = Chain((Flip(),))
    whole = list(batches(augmentation=chain).between(1, 5))
    shares = [
        list(
            batches(augmentation=chain, processes=Processes(rank, 3), workers=workers).between(1, 5)
        )
        for rank in range(3)
    ]
    for step, batch in enumerate(whole):
        together = torch.cat([share[step].images for share in shares])
        assert torch.equal(together, batch.images)
        assert all(torch.equal(share[step].indices, batch.indices) for share in shares)


def test_the_same_face_is_augmented_differently_in_another_epoch() -> None:
    chain = Chain((Flip(),))
    sides: dict[int, set[bool]] = {}
    for batch in batches(augmentation=chain).between(0, 60):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            if index:
                sides.setdefault(index, set()).add(bool(image[0, 0, 0] == 0))
    assert all(both == {True, False} for both in sides.values())


def test_another_seed_another_order() -> None:
    one = [b.indices.tolist() for b in batches(seed=0).between(0, 3)]
    other = [b.indices.tolist() for b in batches(seed=1).between(0, 3)]
    assert one != other
