from __future__ import annotations

import numpy as np
import pytest

from vidface.faces import recent
from vidface.faces.recent import REMEMBERED_PICTURES, RecentPictures


def shade(value: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def test_a_picture_of_equal_bytes_is_recalled() -> None:
    pictures: RecentPictures[str] = RecentPictures()
    assert pictures.recall(shade(1)) is None
    pictures.remember(shade(1), "one")
    pictures.remember(shade(2), "two")
    assert [pictures.recall(shade(value)) for value in (1, 2, 3)] == ["one", "two", None]
    assert pictures.recall(shade(1, (50, 40))) is None


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 1, 2), (39, 49, 1), (16, 16, 0)])
def test_one_value_makes_another_picture(place: tuple[int, int, int]) -> None:
    pictures: RecentPictures[str] = RecentPictures()
    pictures.remember(shade(1), "one")
    other = shade(1)
    other[place] = 2
    assert pictures.recall(other) is None


def test_the_oldest_is_forgotten() -> None:
    pictures: RecentPictures[int] = RecentPictures()
    for value in range(REMEMBERED_PICTURES + 1):
        pictures.remember(shade(value), value)
    assert [pictures.recall(shade(value)) for value in (0, 1, REMEMBERED_PICTURES)] == [
        None, 1, REMEMBERED_PICTURES,
    ]  # fmt: skip


def test_memory_is_bounded_but_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "REMEMBERED_BYTES", 2 * shade(0).nbytes)
    pictures: RecentPictures[int] = RecentPictures()
    for value in range(3):
        pictures.remember(shade(value), value)
    assert [pictures.recall(shade(value)) for value in range(3)] == [None, 1, 2]
    pictures.remember(shade(9, (400, 500)), 9)
    assert pictures.recall(shade(2)) is None
    assert pictures.recall(shade(9, (400, 500))) == 9
