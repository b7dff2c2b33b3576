"""What the demo shows, decided before a pixel is drawn: the same for the same plan and seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from typing import Literal

from vidface.core.errors import VidfaceError
from vidface.demo.photographs import PEOPLE, PHOTOGRAPHS_PER_PERSON

SAMPLES_PER_SECOND = 8  # the truth is stated for the frames at k / 8 s

Kind = Literal["own", "other person", "blurred", "occluded", "no face"]


@dataclass(frozen=True)
class Recipe:
    """How many of a clip's sampled frames are noise, in sixteenths of the clip."""

    other: int = 0
    blurred: int = 0
    occluded: int = 0
    empty: int = 0


@dataclass(frozen=True)
class DemoPlan:
    """How much is rendered. The defaults are the demo; tests render less of the same."""

    people: int = 40
    enrolled: int = 36  # the others have no identity: distractors, in `val` alone
    train_clips: int = 1  # for each enrolled person
    val_clips: int = 3  # for each person
    train_photographs: int = 5  # of ten; the other ones are for `val`
    seconds: int = 2
    width: int = 320  # pixels
    height: int = 240
    frame_rates: tuple[str, ...] = ("24", "25", "30000/1001", "30")  # frames a second
    companion_share: float = 0.5  # how often a clip's other person is its person's companion
    train_recipes: tuple[Recipe, ...] = (
        Recipe(other=5, blurred=1, occluded=1),
        Recipe(other=6, empty=1),
    )
    val_recipes: tuple[Recipe, ...] = (
        Recipe(blurred=2, occluded=1),
        Recipe(other=5, blurred=2, empty=1),
        Recipe(other=6, occluded=2),
        Recipe(other=6, empty=1),
    )

    def __post_init__(self) -> None:
        counts = 2 <= self.enrolled <= self.people <= PEOPLE and self.seconds > 0
        halves = 0 < self.train_photographs < PHOTOGRAPHS_PER_PERSON
        if not (counts and halves and self.train_clips > 0 and self.val_clips > 0):
            raise VidfaceError(
                f"cannot plan a demo of {self.people} people, {self.enrolled} enrolled, with "
                f"{self.train_photographs} photographs for train: take 2 <= enrolled <= people "
                f"<= {PEOPLE}, 1 to {PHOTOGRAPHS_PER_PERSON - 1} photographs, and at least one "
                "clip and one second"
            )


@dataclass(frozen=True)
class Segment:
    """Sampled frames [start, stop) that show one photograph in one way."""

    kind: Kind
    start: int
    stop: int
    photograph: tuple[int, int] | None  # None where there is no face


@dataclass(frozen=True)
class PlannedClip:
    """All that is decided about a clip before a pixel is drawn."""

    clip_id: str
    split: Literal["train", "val"]
    person: int
    identity: str  # empty for a distractor
    frame_rate: Fraction
    segments: tuple[Segment, ...]


def plan_clips(plan: DemoPlan, seed: int) -> list[PlannedClip]:
    """The clips of a plan in the manifest's order: the same for the same plan and seed."""
    draw = random.Random(f"vidface demo, seed {seed}")
    people = sorted(draw.sample(range(1, PEOPLE + 1), plan.people))
    enrolled = sorted(draw.sample(people, plan.enrolled))
    company = _couples(people, draw)
    halves = {}
    for person in people:
        numbers = list(range(1, PHOTOGRAPHS_PER_PERSON + 1))
        draw.shuffle(numbers)
        halves[person, "train"] = numbers[: plan.train_photographs]
        halves[person, "val"] = numbers[plan.train_photographs :]

    clips = []
    splits: list[tuple[Literal["train", "val"], list[int], int, tuple[Recipe, ...]]] = [
        ("train", enrolled, plan.train_clips, plan.train_recipes),
        ("val", people, plan.val_clips, plan.val_recipes),
    ]
    for split, shown, clips_per_person, recipes in splits:
        # Dealt out, not drawn, so that every seed has the same shares of noise.
        deal = [recipes[i % len(recipes)] for i in range(len(shown) * clips_per_person)]
        draw.shuffle(deal)
        for i, recipe in enumerate(deal):
            person = shown[i // clips_per_person]
            companion = company[person]
            if companion not in shown or draw.random() >= plan.companion_share:
                companion = draw.choice([p for p in shown if p != person])
            segments = _segments(
                recipe,
                plan.seconds * SAMPLES_PER_SECOND,
                [(person, n) for n in halves[person, split]],
                [(companion, n) for n in halves[companion, split]],
                draw,
            )
            clips.append(
                PlannedClip(
                    clip_id=f"{split}-s{person:02d}-{i % clips_per_person + 1}",
                    split=split,
                    person=person,
                    identity=f"s{person:02d}" if person in enrolled else "",
                    frame_rate=Fraction(plan.frame_rates[i % len(plan.frame_rates)]),
                    segments=segments,
                )
            )
    return clips


def _couples(people: list[int], draw: random.Random) -> dict[int, int]:
    """Each person's companion, whose face often turns up in the same clips."""
    row = draw.sample(people, len(people))
    return {person: row[(i ^ 1) % len(row)] for i, person in enumerate(row)}


def _segments(
    recipe: Recipe,
    samples: int,
    own: list[tuple[int, int]],
    other: list[tuple[int, int]],
    draw: random.Random,
) -> tuple[Segment, ...]:
    def frames(sixteenths: int) -> int:
        return round(sixteenths * samples / 16)

    draw.shuffle(own)
    draw.shuffle(other)
    noise = {
        "other person": frames(recipe.other),
        "blurred": frames(recipe.blurred),
        "occluded": frames(recipe.occluded),
        "no face": frames(recipe.empty),
    }
    pieces: list[tuple[Kind, int]] = []
    for kind, total in {"own": samples - sum(noise.values()), **noise}.items():
        # A photograph stays for about half a second.
        pieces += [(kind, min(4, total - start)) for start in range(0, total, 4)]  # type: ignore[misc]
    draw.shuffle(pieces)

    own_faces, other_faces = cycle(own), cycle(other)
    segments, start = [], 0
    for kind, length in pieces:
        faces = other_faces if kind == "other person" else own_faces
        photograph = None if kind == "no face" else next(faces)
        segments.append(Segment(kind, start, start + length, photograph))
        start += length
    return tuple(segments)
