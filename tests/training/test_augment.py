from __future__ import annotations

import numpy as np
import pytest

from vidface.core.errors import VidfaceError
from vidface.training.augment import (
    AUGMENTATIONS,
    Chain,
    Colour,
    Degrade,
    Flip,
    Move,
    Occlude,
    build_augmentation,
)


def face(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8)


def smooth() -> np.ndarray:
    """Red rises to the right, green downwards, blue is 100."""
    ramp = np.linspace(20, 220, 112)
    rows, columns = np.meshgrid(ramp, ramp, indexing="ij")
    return np.stack([columns, rows, np.full_like(rows, 100)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_same_generator_same_face_and_the_callers_is_not_written(name: str) -> None:
    change = AUGMENTATIONS[name]()
    for seed in range(20):
        given = face(seed)
        kept = given.copy()
        given.flags.writeable = False
        one = change(given, np.random.default_rng(seed))
        other = change(given, np.random.default_rng(seed))
        assert one.shape == (112, 112, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, other)
        assert np.array_equal(given, kept)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_another_generator_another_face(name: str) -> None:
    made = {AUGMENTATIONS[name]()(face(), np.random.default_rng(s)).tobytes() for s in range(40)}
    assert len(made) > 1


@pytest.mark.parametrize("kind", [Flip, Degrade, Occlude])
def test_share_is_the_share_of_faces_that_change(kind: type) -> None:
    def changed(share: float) -> float:
        change = kind(share=share)
        return float(
            np.mean(
                [not np.array_equal(change(face(), np.random.default_rng(s)), face())
                 for s in range(400)]
            )
        )  # fmt: skip

    assert changed(0.0) == 0
    # Of degraded faces 1 in 16 has none of the four faults; an occlusion hides something always.
    assert changed(1.0) == pytest.approx(15 / 16 if kind is Degrade else 1, abs=0.04)
    assert changed(0.3) == pytest.approx(0.3, abs=0.08)


def test_flip_mirrors_left_to_right() -> None:
    assert np.array_equal(Flip(share=1.0)(face(), np.random.default_rng(0)), face()[:, ::-1])


def test_move_by_nothing_changes_nothing() -> None:
    still = Move(shift_pixels=0, turn_degrees=0, scale=0)
    assert np.array_equal(still(face(), np.random.default_rng(0)), face())


def test_move_moves_by_its_standard_deviation() -> None:
    shift = Move(shift_pixels=3, turn_degrees=0, scale=0)
    middles = []
    for seed in range(300):
        moved = shift(smooth(), np.random.default_rng(seed)).astype(float)
        middles.append((smooth()[56, 56].astype(float) - moved[56, 56])[:2] / (200 / 111))
    assert np.std(middles) == pytest.approx(3, rel=0.15)
    assert np.mean(middles) == pytest.approx(0, abs=0.5)


def test_colour_of_no_change_is_the_face_itself() -> None:
    plain = Colour(gain=0, gamma=0, offset_levels=0, saturation=0, tint=0, grey_share=0)
    assert np.array_equal(plain(face(), np.random.default_rng(3)), face())


def test_grey_is_grey_by_bt601() -> None:
    grey = Colour(gain=0, gamma=0, offset_levels=0, saturation=0, tint=0, grey_share=1)
    made = grey(smooth(), np.random.default_rng(0)).astype(float)
    assert np.array_equal(made[..., 0], made[..., 1])
    assert np.array_equal(made[..., 0], made[..., 2])
    wanted = smooth() @ np.array([0.299, 0.587, 0.114])
    assert np.abs(made[..., 0] - wanted).max() <= 1


def test_offset_adds_grey_levels() -> None:
    brighter = Colour(gain=0, gamma=0, offset_levels=10, saturation=0, tint=0, grey_share=0)
    steps = [
        float(np.mean(brighter(smooth(), np.random.default_rng(s)).astype(float) - smooth()))
        for s in range(300)
    ]
    assert np.std(steps) == pytest.approx(10, rel=0.2)


def test_occlusion_is_one_rectangle_of_one_colour_not_larger_than_said() -> None:
    cover = Occlude(share=1.0, largest=0.25)
    for seed in range(50):
        made = cover(smooth(), np.random.default_rng(seed))
        hidden = (made != smooth()).any(axis=2)
        rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
        inside = made[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert len(np.unique(inside.reshape(-1, 3), axis=0)) == 1
        assert max(len(rows), len(columns)) <= 0.25 * 112 + 1


def test_the_chain_keeps_the_registrys_order_whatever_the_tables() -> None:
    chain = build_augmentation({"flip": {"share": 1.0}, "occlude": True, "move": False})
    assert chain == Chain((Occlude(), Flip(share=1.0)))
    assert build_augmentation({}) == Chain(())
    assert np.array_equal(Chain(())(face(), np.random.default_rng(0)), face())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": True}, r"'mixup' \(known: move, colour, degrade, occlude, flip\)"),
        ({"flip": {"chance": 1}}, r"'flip' has no setting 'chance' \(known: share\)"),
        ({"flip": 0.5}, "'flip': true, false or a table"),
        ({"flip": {"share": 1.5}}, r"flip share: must lie in \[0, 1\], not 1.5"),
        ({"flip": {"share": "all"}}, "flip share"),
        ({"move": {"scale": -1}}, "move scale: must be at least 0"),
        ({"move": {"scale": float("nan")}}, "move scale"),
        ({"degrade": {"smallest_pixels": 4}}, r"smallest_pixels: must lie in \[8, 112\], not 4"),
        ({"degrade": {"worst_quality": 0}}, "worst_quality"),
    ],
)
def test_wrong_settings_are_said(settings: dict[str, object], message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        build_augmentation(settings)
