"""Class centres: one vector an identity, and an optimiser that touches only those in use.

A softmax over C identities keeps a (C, d) matrix, its gradient and its momentum: 93,431 identities
of 282 numbers are 100 MiB each. With `sample_rate` below 1 a step works on a part of the rows.

Source: An et al., Partial FC (2021) and Killing Two Birds with One Stone (2022); InsightFace's
partial_fc, where momentum and weight decay too touch only the rows that a step has chosen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vidface.core.errors import VidfaceError

INITIAL_STD = 0.01
"""Standard deviation of a centre's numbers before training, InsightFace's."""

_BLOCK_NUMBERS = {"cpu": 2**18}
"""An update runs over this many numbers at a time, so that on a CPU it stays in the cache."""

_BLOCK_NUMBERS_ELSEWHERE = 2**25


@dataclass(frozen=True, eq=False)
class SelectedCentres:
    """The centres that one step uses.

    Attributes:
        rows: (c,) int64, class numbers, ascending.
        labels: (n,) int64, where in `rows` each sample's class is.
        weight: (c, d) float32, the centres, not normalised. It is a leaf: after `backward` its
            `grad` is what `CentreSGD.step` takes. Where all classes are chosen it is the parameter
            itself, otherwise a copy of the rows.
    """

    rows: Tensor
    labels: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        if self.rows.ndim != 1 or self.labels.ndim != 1 or self.weight.ndim != 2:
            raise VidfaceError(f"{self}: want rows (c,), labels (n,) and weight (c, d)")
        if len(self.rows) != len(self.weight):
            raise VidfaceError(f"{self}: want as many rows as centres")

    def __str__(self) -> str:
        rows, labels, weight = (tuple(t.shape) for t in (self.rows, self.labels, self.weight))
        return f"SelectedCentres(rows {rows}, labels {labels}, weight {weight})"


class ClassCentres(nn.Module):
    """One centre a class: `weight`, (classes, dimension) float32, not normalised.

    Args:
        classes: C, how many identities.
        dimension: d, of the embeddings.
        seed: of the first values; the global random state is neither read nor changed.
        sample_rate: in (0, 1]: the part of all classes that a step uses, at least those of its
            batch. 1 is the full softmax.

    Raises:
        VidfaceError: a value out of its range.

    >>> centres = ClassCentres(10, 4, seed=0, sample_rate=0.3)
    >>> chosen = centres.select(torch.tensor([7, 2, 7]), seed_ints=[0, 1])
    >>> print(chosen)
    SelectedCentres(rows (3,), labels (3,), weight (3, 4))
    >>> chosen.rows[chosen.labels].tolist()
    [7, 2, 7]
    """

    def __init__(
        self, classes: int, dimension: int, seed: int = 0, sample_rate: float = 1.0
    ) -> None:
        super().__init__()
        if classes < 1 or dimension < 1:
            raise VidfaceError(
                f"class centres: {classes} classes of dimension {dimension}; want one of each or "
                "more"
            )
        if not 0 < sample_rate <= 1:
            raise VidfaceError(f"class centres: sample_rate {sample_rate} is not in (0, 1]")
        self.sample_rate = sample_rate
        generator = torch.Generator().manual_seed(seed)
        first = torch.empty(classes, dimension, dtype=torch.float32)
        self.weight = nn.Parameter(first.normal_(0, INITIAL_STD, generator=generator))

    @property
    def classes(self) -> int:
        return self.weight.shape[0]

    @property
    def dimension(self) -> int:
        return self.weight.shape[1]

    def extra_repr(self) -> str:
        return f"{self.classes}, {self.dimension}, sample_rate={self.sample_rate}"

    def select(self, labels: Tensor, seed_ints: Sequence[int]) -> SelectedCentres:
        """Choose the centres of a step: the batch's classes, and random others beside them.

        There are ceil(sample_rate · C) of them, or as many as the batch has classes if that is
        more. The choice depends on the arguments alone, so several processes that give the labels
        of the whole batch agree on it.

        Args:
            labels: (n,) integers, class numbers in [0, C), on any device. Those on a GPU are waited
                for; give them from the CPU where that matters.
            seed_ints: integers ≥ 0 that name the step, such as seed, stage, epoch and step.

        Raises:
            VidfaceError: a label that is no class; labels of another shape or type.
        """
        self._check(labels)
        device = self.weight.device
        if self.sample_rate < 1:
            numbers = labels.detach().cpu().numpy().astype(np.int64)
            rows = choose_classes(numbers, self.classes, self.sample_rate, seed_ints)
            if len(rows) < self.classes:
                chosen = torch.from_numpy(rows).to(device)
                return SelectedCentres(
                    rows=chosen,
                    labels=torch.from_numpy(np.searchsorted(rows, numbers)).to(device),
                    weight=self.weight.detach().index_select(0, chosen).requires_grad_(),
                )
        everyone = torch.arange(self.classes, device=device)
        return SelectedCentres(everyone, labels.to(device, torch.int64), self.weight)

    def _check(self, labels: Tensor) -> None:
        if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
            raise VidfaceError(
                f"labels are {tuple(labels.shape)} {labels.dtype}; want (n,) integers, a class "
                "number a sample"
            )
        wrong = (labels < 0) | (labels >= self.classes)
        if wrong.any():
            place = int(wrong.nonzero()[0])
            raise VidfaceError(
                f"label {int(labels[place])} of sample {place}: class numbers go from 0 to "
                f"{self.classes - 1}, there are C = {self.classes} classes; were these centres "
                "made for this data set?"
            )


def choose_classes(
    labels: np.ndarray, classes: int, sample_rate: float, seed_ints: Sequence[int]
) -> np.ndarray:
    """The class numbers of a step, (c,) int64, ascending: see `ClassCentres.select`.

    Raises:
        VidfaceError: a negative seed integer.

    >>> choose_classes(np.array([5, 5, 1]), 6, 0.1, [0]).tolist()
    [1, 5]
    """
    positive = np.unique(labels)
    # 0.07 · 100 is 7.000000000000001, which must not become 8.
    wanted = max(1, math.ceil(sample_rate * classes - 1e-6))
    others = min(wanted, classes) - len(positive)
    if others <= 0:
        return positive
    free = np.ones(classes, bool)
    free[positive] = False
    try:
        rng = np.random.default_rng([int(number) for number in seed_ints])
    except ValueError as error:
        raise VidfaceError(f"seed integers {list(seed_ints)}: want none below 0") from error
    drawn = rng.choice(np.flatnonzero(free), others, replace=False, shuffle=False)
    return np.sort(np.concatenate([positive, drawn]))


class CentreSGD:
    """SGD with momentum over the chosen rows of the centres, in place.

    What `torch.optim.SGD` does (momentum without dampening, weight decay added to the gradient),
    but rows that a step has not chosen keep their value and their momentum, and no (C, d) gradient
    is made for them. Set `lr` before a step to follow a schedule.

    Args:
        centres: on the device where they stay; the momentum is made beside them.
        lr: learning rate, ≥ 0.
        momentum: in [0, 1).
        weight_decay: ≥ 0.

    Raises:
        VidfaceError: a value out of its range.

    >>> centres = ClassCentres(3, 2, sample_rate=0.3)
    >>> optimiser = CentreSGD(centres, lr=0.1)
    >>> chosen = centres.select(torch.tensor([1]), [0])
    >>> chosen.weight.sum().backward()
    >>> optimiser.step(chosen)
    >>> optimiser.state_dict()["momentum"].ne(0).any(dim=1).tolist()
    [False, True, False]
    """

    def __init__(
        self,
        centres: ClassCentres,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
    ) -> None:
        if not (lr >= 0 and 0 <= momentum < 1 and weight_decay >= 0):
            raise VidfaceError(
                f"centres' optimiser: lr {lr}, momentum {momentum}, weight_decay {weight_decay}; "
                "want lr and weight_decay ≥ 0 and momentum in [0, 1)"
            )
        self.centres, self.lr = centres, lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self._momenta = torch.zeros_like(centres.weight.detach()) if momentum else None

    @torch.no_grad()
    def step(self, selected: SelectedCentres) -> None:
        """Move the chosen centres by `selected.weight.grad`, and drop that gradient.

        Raises:
            VidfaceError: there is no gradient yet.
        """
        gradient = selected.weight.grad
        if gradient is None:
            raise VidfaceError(f"{selected} has no gradient: call backward on the loss first")
        weight, momenta = self.centres.weight, self._momenta
        for block in _blocks(weight, len(selected.rows)):
            if selected.weight is weight:
                self._update(
                    weight[block], None if momenta is None else momenta[block], gradient[block]
                )
                continue
            # The rows as they are now: another step may have moved them since they were chosen.
            rows = selected.rows[block]
            moved = weight.index_select(0, rows)
            moving = None if momenta is None else momenta.index_select(0, rows)
            self._update(moved, moving, gradient[block])
            weight.index_copy_(0, rows, moved)
            if momenta is not None and moving is not None:
                momenta.index_copy_(0, rows, moving)
        selected.weight.grad = None

    def _update(self, weight: Tensor, momenta: Tensor | None, gradient: Tensor) -> None:
        """One step of SGD, in place on weight and momenta; all (rows, d)."""
        if self.weight_decay:
            gradient = gradient.add(weight, alpha=self.weight_decay)
        if momenta is not None:
            gradient = momenta.mul_(self.momentum).add_(gradient)
        weight.add_(gradient, alpha=-self.lr)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: `momentum` (C, d), no copy; empty where there is none."""
        return {} if self._momenta is None else {"momentum": self._momenta}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of another optimiser's `state_dict`.

        Raises:
            VidfaceError: the state of another number of classes, another dimension or none.
        """
        own = self.state_dict()
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in state.items()}:
            raise VidfaceError(
                f"centres' optimiser: the state has {_shapes(state)}, this one {_shapes(own)}; was "
                "it saved with other classes or another momentum?"
            )
        for name, values in own.items():
            values.copy_(state[name])


def resize_centres(
    centres: ClassCentres,
    old_classes: Sequence[str],
    new_classes: Sequence[str],
    *,
    seed: int = 0,
) -> ClassCentres:
    """Centres for other identities: those that stay keep theirs, under their new number.

    Args:
        centres: not changed.
        old_classes: identities by class number, one a centre.
        new_classes: identities by their new class number.
        seed: of the centres of identities that were not there before.

    Returns:
        Centres of `new_classes`, on the same device, with the same sample rate.

    Raises:
        VidfaceError: identities named twice, none, or not as many as there are centres.

    >>> old = ClassCentres(3, 2, seed=1)
    >>> new = resize_centres(old, ["ann", "bob", "cy"], ["cy", "ann"])
    >>> torch.equal(new.weight, old.weight[[2, 0]])
    True
    """
    if len(old_classes) != centres.classes:
        raise VidfaceError(
            f"{len(old_classes)} identities for {centres.classes} class centres: want one each"
        )
    for names in (old_classes, new_classes):
        twice = next((name for name, times in Counter(names).items() if times > 1), None)
        if twice is not None:
            raise VidfaceError(
                f"identity '{twice}' is named twice: want each once, with one centre"
            )
    number_of = {name: number for number, name in enumerate(old_classes)}
    kept = [(i, number_of[name]) for i, name in enumerate(new_classes) if name in number_of]
    resized = ClassCentres(len(new_classes), centres.dimension, seed, centres.sample_rate)
    resized = resized.to(centres.weight.device)
    if kept:
        new, old = torch.tensor(kept, device=centres.weight.device).T
        with torch.no_grad():
            resized.weight[new] = centres.weight[old]
    return resized


def _blocks(weight: Tensor, rows: int) -> Iterator[slice]:
    numbers = _BLOCK_NUMBERS.get(weight.device.type, _BLOCK_NUMBERS_ELSEWHERE)
    step = max(1, numbers // weight.shape[1])
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def _shapes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{k} {tuple(v.shape)}" for k, v in state.items()) or "no momentum"
