"""Sampling: which images make up the batch of a step.

The samplers have no state. The batches of an epoch are a pure function of (seed, stage, epoch), so
that a killed run goes on exactly where it was and several processes agree without a word: each
takes its slice of the same row. Two kinds, in the registry `SAMPLERS`:

- "shuffled": every image once an epoch, in a fresh order.
- "people-by-images": P identities with K images each (Hermans, Beyer, Leibe, "In Defense of the
  Triplet Loss for Person Re-Identification", 2017, section 2), as the paper's stage 3 has it with
  K = 4. pytorch-metric-learning's `MPerClassSampler` is not used: it draws from a global random
  state, so a resumed run and several processes would each see other batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import check_name
from vidface.training.labels import check_labels

SHORTS = ("error", "repeat", "skip")
"""What to do with an identity that has fewer than K images."""

# First of the seed's integers, so that no other use of (seed, stage, epoch) draws the same numbers.
# (NumPy fills short seeds up with zeros: a mark at the end would not do.)
_SHUFFLED, _PEOPLE = 0x5A4D01, 0x5A4D02


class Sampler(ABC):
    """Batches of image numbers. `len(sampler)` is the number of batches of an epoch.

    Attributes:
        batch_size: images a batch, of all processes together.
        seed, stage: with the epoch's number all that a batch depends on, beside the labels.
    """

    batch_size: int

    def __init__(self, seed: int, stage: int) -> None:
        self.seed = _whole("seed", seed, 0)
        self.stage = _whole("stage", stage, 0)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """All batches of an epoch.

        Args:
            epoch: its number, from 0.

        Returns:
            (len(self), batch_size) int64 image numbers: positions in the labels.

        Raises:
            VidfaceError: an epoch below 0.
        """

    def _random(self, mark: int, epoch: int) -> np.random.Generator:
        epoch = _whole("epoch", epoch, 0)
        return np.random.default_rng([mark, self.seed, self.stage, epoch])


class Shuffled(Sampler):
    """Every image once an epoch, in a fresh order each time.

    The last images of the order, too few for a batch, are left out of that epoch (other ones each
    time). All batches have the same size, then: a loss over the batch weighs every image alike, and
    the batch divides among the processes.

    Args:
        n: images.
        batch_size: images a batch, at most n.
        seed, stage: whole numbers from 0.

    Raises:
        VidfaceError: fewer images than a batch has, or a number out of range.

    >>> Shuffled(7, 3).epoch(0).tolist(), Shuffled(7, 3).epoch(1).tolist()
    ([[2, 3, 0], [5, 1, 6]], [[5, 2, 0], [6, 4, 1]])
    """

    def __init__(self, n: int, batch_size: int, *, seed: int = 0, stage: int = 0) -> None:
        super().__init__(seed, stage)
        self.n = _whole("n", n, 0)
        self.batch_size = _whole("batch_size", batch_size, 1)
        if self.n < self.batch_size:
            raise VidfaceError(
                f"batch_size is {batch_size}, but there are only {n} images to train on; "
                "lower it or add images"
            )

    def __str__(self) -> str:
        return f"Shuffled({self.n} images, {len(self)} batches x {self.batch_size})"

    def __len__(self) -> int:
        return self.n // self.batch_size

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        order = self._random(_SHUFFLED, epoch).permutation(self.n)
        return order[: len(self) * self.batch_size].reshape(-1, self.batch_size)


class PeopleByImages(Sampler):
    """P distinct identities a batch, K distinct images of each (P×K sampling).

    An epoch has n // (P·K) batches, n the images of all identities drawn from: as many as a plain
    epoch. Identities are dealt like cards: a shuffled deck of all of them is dealt to the end, then
    shuffled again, so that at any moment each has had the same number of turns, or one more. (A
    batch across two decks takes from the second those that it does not hold yet.) An identity's
    images are dealt to its turns in the same way, none a second time before all were used. So
    identities are drawn evenly whatever their size, as Hermans et al. do: an image is seen once an
    epoch on average, more often in a small identity and less often in a large one.

    A row of `epoch` holds the K images of the first identity, then those of the second, …

    Args:
        labels: (n,) whole numbers ≥ 0, the identity of each image. Numbers may be missing.
        people: P, at least 1.
        images: K, at least 1.
        seed, stage: whole numbers from 0.
        short: identities with fewer than K images: "error" refuses them; "repeat" deals on,
            so that an image comes several times in a batch; "skip" leaves them out.
        identities: names by number, for messages.

    Raises:
        VidfaceError: an identity with too few images, too few identities, or a number or shape out
            of range.

    >>> sampler = PeopleByImages(np.array([0, 0, 1, 1, 1, 2, 2]), people=2, images=2)
    >>> str(sampler)
    'PeopleByImages(7 images of 3 identities, 1 batches x 2 people x 2 images)'
    >>> sampler.epoch(0).tolist(), sampler.epoch(1).tolist()
    ([[6, 5, 3, 2]], [[1, 0, 5, 6]])
    """

    def __init__(
        self,
        labels: NDArray[np.integer[Any]],
        people: int,
        images: int,
        *,
        seed: int = 0,
        stage: int = 0,
        short: str = "error",
        identities: Sequence[str] | None = None,
    ) -> None:
        super().__init__(seed, stage)
        self.people = _whole("people", people, 1)
        self.images = _whole("images_per_person", images, 1)
        self.batch_size = self.people * self.images
        check_name("short", short, SHORTS)
        labels = check_labels(labels)
        self._order = np.argsort(labels, kind="stable")  # image numbers, identity by identity
        numbers, starts, sizes = np.unique(
            labels[self._order], return_index=True, return_counts=True
        )
        enough = sizes >= self.images
        if short == "error" and not enough.all():
            raise _too_few_images(numbers[~enough], sizes[~enough], self.images, identities)
        if short == "skip":
            starts, sizes = starts[enough], sizes[enough]
        self._starts, self._sizes = starts, sizes
        if len(sizes) < self.people:
            skipped = f" (of {len(enough)}, the others are skipped)" if short == "skip" else ""
            raise VidfaceError(
                f"a batch of {self.people} identities x {self.images} images needs "
                f"{self.people} identities, found {len(sizes)}{skipped}; lower the batch size"
            )
        # With "repeat" there may be fewer images than a batch has.
        self._batches = max(1, int(sizes.sum()) // self.batch_size)

    def __str__(self) -> str:
        return (
            f"PeopleByImages({self._sizes.sum()} images of {len(self._sizes)} identities, "
            f"{len(self)} batches x {self.people} people x {self.images} images)"
        )

    def __len__(self) -> int:
        return self._batches

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        random = self._random(_PEOPLE, epoch)
        everyone = np.array([len(self._sizes)])
        who = _deal(everyone, np.array([len(self)]), self.people, random).ravel()
        turns = np.bincount(who, minlength=len(self._sizes))
        hands = _deal(self._sizes, turns, self.images, random)
        places = np.empty((len(who), self.images), np.int64)
        places[np.argsort(who, kind="stable")] = hands  # hands come identity by identity
        places += self._starts[who][:, None]
        return self._order[places].reshape(len(self), self.batch_size)


def _deal(
    sizes: NDArray[np.int64],
    hands: NDArray[np.int64],
    k: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Deal hands of k cards from decks; a deck that runs out is shuffled and dealt again.

    No card comes twice in a hand, unless its deck has fewer than k cards; no card comes again
    before all of its deck were dealt. All decks are shuffled at once.

    Args:
        sizes: (decks,) cards of each, at least 1.
        hands: (decks,) hands to deal from each.

    Returns:
        (hands.sum(), k) int64 cards in [0, size), deck by deck, in the order of their dealing.
    """
    needed = hands * k
    begins = np.cumsum(needed) - needed
    dealt = np.zeros(len(sizes), np.int64)
    cards = np.empty(int(needed.sum()), np.int64)
    while len(decks := np.flatnonzero(dealt < needed)):
        # A hand that the last shuffle left open must not get a card again that it holds.
        held = np.where(sizes[decks] >= k, dealt[decks] % k, 0)
        ends = begins[decks] + dealt[decks]
        order = _shuffle(sizes[decks], cards, ends, held, k, random)
        take = np.minimum(sizes[decks], needed[decks] - dealt[decks])
        lengths = sizes[decks]
        cards[_ranges(ends, take)] = order[_ranges(np.cumsum(lengths) - lengths, take)]
        dealt[decks] += take
    return cards.reshape(-1, k)


def _shuffle(
    sizes: NDArray[np.int64],
    cards: NDArray[np.int64],
    ends: NDArray[np.int64],
    held: NDArray[np.int64],
    k: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """(sizes.sum(),) the cards of each deck in a new order, deck by deck.

    The last `held` cards before `ends` are in an open hand: each deck's order begins with k − held
    others, and is otherwise as shuffled.
    """
    starts = np.cumsum(sizes) - sizes
    deck = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(deck + random.random(len(deck)), kind="stable")
    if held.any():
        is_held = np.zeros(len(deck), bool)
        is_held[np.repeat(starts, held) + cards[_ranges(ends - held, held)]] = True
        free = ~is_held[order]
        before = np.cumsum(free) - free  # free cards before this one, of all decks
        first = free & (before - before[starts][deck] < np.where(held, k - held, 0)[deck])
        order = order[np.argsort(2 * deck + ~first, kind="stable")]
    return order - starts[deck]


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, …, for each start its length, joined."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def make_sampler(
    kind: str,
    labels: NDArray[np.integer[Any]],
    batch_size: int,
    *,
    images_per_person: int = 4,
    seed: int = 0,
    stage: int = 0,
    short: str = "error",
    identities: Sequence[str] | None = None,
) -> Sampler:
    """The sampler of that name.

    After a cut of images give the labels of the kept ones: with `kept = np.flatnonzero(keep)`, it
    is `kept[make_sampler("shuffled", labels[kept], 512).epoch(0)]`.

    Args:
        kind: a name in `SAMPLERS`.
        labels: (n,) whole numbers ≥ 0, the identity of each image.
        batch_size: images a batch, of all processes together.
        images_per_person: K of "people-by-images", which must divide the batch size.
        seed, stage: whole numbers from 0.
        short: "error", "repeat" or "skip", see `PeopleByImages`.
        identities: names by number, for messages.

    Raises:
        VidfaceError: an unknown name, or what the sampler refuses.

    >>> print(make_sampler("shuffled", np.zeros(10, np.int64), 4))
    Shuffled(10 images, 2 batches x 4)
    >>> print(make_sampler("people-by-images", np.arange(24) // 6, 12))
    PeopleByImages(24 images of 4 identities, 2 batches x 3 people x 4 images)
    """
    check_name("sampler", kind, SAMPLERS)
    return SAMPLERS[kind](
        check_labels(labels),
        _whole("batch_size", batch_size, 1),
        images_per_person=_whole("images_per_person", images_per_person, 1),
        seed=seed,
        stage=stage,
        short=short,
        identities=identities,
    )


def _shuffled(
    labels: NDArray[np.int64], batch_size: int, *, seed: int, stage: int, **_: Any
) -> Sampler:
    return Shuffled(len(labels), batch_size, seed=seed, stage=stage)


def _people_by_images(
    labels: NDArray[np.int64], batch_size: int, *, images_per_person: int, **settings: Any
) -> Sampler:
    people, rest = divmod(batch_size, images_per_person)
    if rest:
        raise VidfaceError(
            f"batch_size {batch_size} is no multiple of {images_per_person} images a person; "
            f"take {max(1, people) * images_per_person} or {(people + 1) * images_per_person}"
        )
    return PeopleByImages(labels, people, images_per_person, **settings)


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "shuffled": _shuffled,
    "people-by-images": _people_by_images,
}


def _too_few_images(
    numbers: NDArray[np.int64],
    sizes: NDArray[np.int64],
    k: int,
    identities: Sequence[str] | None,
) -> VidfaceError:
    number, size = int(numbers[0]), int(sizes[0])
    known = identities is not None and number < len(identities)
    name = f"'{identities[number]}'" if identities is not None and known else str(number)
    more = f" ({len(numbers) - 1} more like it)" if len(numbers) > 1 else ""
    images = "one image" if size == 1 else f"{size} images"
    return VidfaceError(
        f"identity {name} has {images} where {k} are needed{more}; "
        "cut such identities (min_images), or set short to 'repeat' or 'skip'"
    )


def _whole(name: str, value: int, least: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise VidfaceError(f"{name} must be a whole number ≥ {least}, got {value!r}")
    return int(value)
