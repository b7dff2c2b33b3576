from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.training import centres as module
from vidface.training.centres import (
    CentreSGD,
    ClassCentres,
    SelectedCentres,
    choose_classes,
    resize_centres,
)


def labels_of(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


class NaiveSGD:
    """Momentum row by row in Python floats; a row that is not chosen keeps all it has."""

    def __init__(self, rows: list[list[float]], lr: float, momentum: float, decay: float) -> None:
        self.rows = [list(row) for row in rows]
        self.momenta = [[0.0] * len(row) for row in rows]
        self.lr, self.momentum, self.decay = lr, momentum, decay

    def step(self, chosen: list[int], gradients: list[list[float]]) -> None:
        for row, gradient in zip(chosen, gradients, strict=True):
            for k, slope in enumerate(gradient):
                slope += self.decay * self.rows[row][k]
                self.momenta[row][k] = self.momentum * self.momenta[row][k] + slope
                self.rows[row][k] -= self.lr * self.momenta[row][k]


def slopes(selected: SelectedCentres, step: int) -> torch.Tensor:
    """A gradient of its own for every row and step; made by a real backward pass."""
    factors = (selected.rows[:, None] + 1.0) * torch.tensor([1.0, -2.0, 0.5]) + step
    (selected.weight * factors).sum().backward()
    return factors


class TestFirstValues:
    def test_drawn_from_the_seed(self):
        one = ClassCentres(50, 40, seed=3)
        assert one.weight.shape == (50, 40)
        assert one.weight.dtype == torch.float32
        assert one.weight.requires_grad
        assert one.weight.equal(ClassCentres(50, 40, seed=3, sample_rate=0.1).weight)
        assert not one.weight.equal(ClassCentres(50, 40, seed=4).weight)
        assert float(one.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert float(one.weight.detach().mean()) == pytest.approx(0, abs=0.001)

    def test_leaves_the_global_random_state(self):
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        ClassCentres(5, 4, sample_rate=0.5).select(labels_of(1), [0])
        assert torch.get_rng_state().equal(torch_state)
        assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002

    def test_one_parameter_and_a_clear_repr(self):
        centres = ClassCentres(7, 2, sample_rate=0.5)
        assert list(centres.state_dict()) == ["weight"]
        assert str(centres) == "ClassCentres(7, 2, sample_rate=0.5)"

    @pytest.mark.parametrize(("classes", "dimension"), [(0, 2), (2, 0), (-1, 2)])
    def test_no_classes_or_dimension(self, classes, dimension):
        with pytest.raises(VidfaceError, match=f"{classes} classes of dimension {dimension}"):
            ClassCentres(classes, dimension)

    @pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
    def test_sample_rate_out_of_range(self, rate):
        with pytest.raises(VidfaceError, match="sample_rate"):
            ClassCentres(3, 2, sample_rate=rate)


class TestChoice:
    @given(
        classes=st.integers(1, 60),
        rate=st.floats(0.001, 1),
        seed_ints=st.lists(st.integers(0, 2**40), max_size=4),
        data=st.data(),
    )
    @examples(150)
    def test_all_of_the_batch_and_no_more_than_wanted(self, classes, rate, seed_ints, data):
        labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), max_size=20)), np.int64)
        chosen = choose_classes(labels, classes, rate, seed_ints)
        wanted = math.ceil(rate * classes - 1e-6)
        assert len(chosen) == max(wanted, len(set(labels.tolist())))
        assert set(labels.tolist()) <= set(chosen.tolist())
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        assert all(0 <= number < classes for number in chosen)
        assert chosen.dtype == np.int64
        assert chosen.tolist() == choose_classes(labels, classes, rate, seed_ints).tolist()

    def test_every_integer_counts(self):
        labels = np.array([4, 9])
        drawn = {
            tuple(choose_classes(labels, 1000, 0.05, ints))
            for ints in ([0, 0], [0, 1], [1, 0], [0, 0, 1], [2**33, 0])
        }
        assert len(drawn) == 5

    def test_others_are_drawn_evenly(self):
        counts = np.zeros(10)
        for step in range(2000):
            counts[choose_classes(np.array([3]), 10, 0.4, [step])] += 1
        assert counts[3] == 2000
        others = np.delete(counts, 3)  # 3 of 9 each time: 667 expected, 21 standard deviation
        assert others.min() > 560
        assert others.max() < 770

    @pytest.mark.parametrize(
        ("rate", "classes", "wanted"), [(0.07, 100, 7), (0.1, 30, 3), (0.11, 10, 2), (1e-9, 10, 1)]
    )
    def test_rounded_up_but_not_by_rounding_errors(self, rate, classes, wanted):
        assert len(choose_classes(np.array([0]), classes, rate, [0])) == wanted

    def test_negative_seed(self):
        with pytest.raises(VidfaceError, match=r"seed integers \[1, -2\]"):
            choose_classes(np.array([0]), 10, 0.5, [1, -2])


class TestSelect:
    def test_all_classes_without_a_copy(self):
        centres = ClassCentres(5, 3)
        chosen = centres.select(labels_of(4, 0, 4), [0])
        assert chosen.weight is centres.weight
        assert chosen.rows.tolist() == [0, 1, 2, 3, 4]
        assert chosen.labels.tolist() == [4, 0, 4]

    def test_part_of_the_classes(self):
        centres = ClassCentres(20, 3, sample_rate=0.3)
        labels = labels_of(17, 2, 17, 9)
        chosen = centres.select(labels, [5, 1])
        assert chosen.rows.tolist() == choose_classes(labels.numpy(), 20, 0.3, [5, 1]).tolist()
        assert chosen.rows[chosen.labels].equal(labels)
        assert chosen.rows.dtype == chosen.labels.dtype == torch.int64
        assert chosen.weight.equal(centres.weight[chosen.rows])
        assert chosen.weight.is_leaf
        assert chosen.weight.requires_grad
        assert str(chosen) == "SelectedCentres(rows (6,), labels (4,), weight (6, 3))"

    def test_gradient_goes_to_the_chosen_rows_alone(self):
        centres = ClassCentres(20, 3, sample_rate=0.3)
        chosen = centres.select(labels_of(3, 8), [0])
        nn.functional.cross_entropy(torch.ones(2, 3) @ chosen.weight.T, chosen.labels).backward()
        assert chosen.weight.grad.shape == (6, 3)
        assert centres.weight.grad is None  # nothing of (C, d)

    def test_tiny_rate_keeps_the_batchs_classes_alone(self):
        chosen = ClassCentres(1000, 2, sample_rate=1e-6).select(labels_of(7, 7, 999, 0), [0])
        assert chosen.rows.tolist() == [0, 7, 999]
        assert chosen.labels.tolist() == [1, 1, 2, 0]

    def test_all_labels_equal(self):
        chosen = ClassCentres(9, 2, sample_rate=0.01).select(labels_of(6, 6, 6), [0])
        assert chosen.rows.tolist() == [6]
        assert chosen.labels.tolist() == [0, 0, 0]

    @pytest.mark.parametrize("rate", [0.001, 1.0])
    def test_one_class(self, rate):
        centres = ClassCentres(1, 2, sample_rate=rate)
        chosen = centres.select(labels_of(0, 0), [0])
        assert chosen.weight is centres.weight
        assert (chosen.rows.tolist(), chosen.labels.tolist()) == ([0], [0, 0])

    def test_batch_of_all_classes_is_no_copy(self):
        centres = ClassCentres(3, 2, sample_rate=0.1)
        chosen = centres.select(labels_of(2, 1, 0), [0])
        assert chosen.weight is centres.weight
        assert chosen.labels.tolist() == [2, 1, 0]

    @pytest.mark.parametrize("rate", [0.5, 1.0])
    def test_no_samples(self, rate):
        chosen = ClassCentres(4, 2, sample_rate=rate).select(labels_of(), [0])
        assert len(chosen.rows) == 4 * rate
        assert chosen.labels.tolist() == []

    @pytest.mark.parametrize("rate", [0.5, 1.0])
    @pytest.mark.parametrize("wrong", [-1, 10, 2**40])
    def test_label_out_of_range(self, rate, wrong):
        centres = ClassCentres(10, 2, sample_rate=rate)
        with pytest.raises(VidfaceError, match=f"label {wrong} of sample 2: .*C = 10 classes"):
            centres.select(labels_of(9, 0, wrong, -5), [0])

    @pytest.mark.parametrize("rate", [0.5, 1.0])
    def test_small_integers_will_do(self, rate):
        chosen = ClassCentres(10, 2, sample_rate=rate).select(torch.tensor([9, 1]).int(), [0])
        assert chosen.labels.dtype == torch.int64
        assert chosen.rows[chosen.labels].tolist() == [9, 1]

    @pytest.mark.parametrize(
        "labels", [torch.zeros(2, 1).long(), torch.tensor(1), torch.ones(2), torch.ones(2) > 0]
    )
    def test_labels_of_another_kind(self, labels):
        with pytest.raises(VidfaceError, match=r"want \(n,\) integers"):
            ClassCentres(10, 2).select(labels, [0])

    @pytest.mark.parametrize(
        ("rows", "labels", "weight"),
        [((2,), (1,), (3, 2)), ((2, 1), (1,), (2, 2)), ((2,), (1, 1), (2, 2)), ((2,), (1,), (2,))],
    )
    def test_selected_checks_itself(self, rows, labels, weight):
        with pytest.raises(VidfaceError, match="want"):
            SelectedCentres(
                torch.zeros(rows).long(), torch.zeros(labels).long(), torch.zeros(weight)
            )


@pytest.fixture(params=[3, 2**18], ids=["blocks of one row", "one block"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._BLOCK_NUMBERS, "cpu", request.param)


class TestCentreSGD:
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("decay", [0.0, 0.1])
    @pytest.mark.usefixtures("blocks")
    def test_equals_torchs_where_all_are_chosen(self, momentum, decay):
        centres = ClassCentres(6, 3, seed=1)
        twin = nn.Parameter(centres.weight.detach().clone())
        ours = CentreSGD(centres, 0.5, momentum, decay)
        theirs = torch.optim.SGD([twin], 0.5, momentum, weight_decay=decay)
        for step in range(4):
            ours.lr = theirs.param_groups[0]["lr"] = 0.5 / (step + 1)
            chosen = centres.select(labels_of(0), [step])
            twin.grad = slopes(chosen, step)
            ours.step(chosen)
            theirs.step()
        torch.testing.assert_close(centres.weight.detach(), twin.detach(), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.usefixtures("blocks")
    def test_sampled_rows_against_a_loop(self, momentum):
        centres = ClassCentres(8, 3, seed=1, sample_rate=0.5)
        naive = NaiveSGD(centres.weight.tolist(), 0.5, momentum, 0.1)
        ours = CentreSGD(centres, 0.5, momentum, 0.1)
        for step in range(6):
            chosen = centres.select(labels_of(step, 2), [step])
            naive.step(chosen.rows.tolist(), slopes(chosen, step).tolist())
            ours.step(chosen)
        torch.testing.assert_close(
            centres.weight.detach(), torch.tensor(naive.rows), rtol=1e-5, atol=1e-5
        )
        if momentum:
            torch.testing.assert_close(
                ours.state_dict()["momentum"], torch.tensor(naive.momenta), rtol=1e-5, atol=1e-5
            )

    def test_by_eye(self):
        centres = ClassCentres(3, 1, sample_rate=0.1)
        with torch.no_grad():
            centres.weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        ours = CentreSGD(centres, lr=0.5, momentum=0.5, weight_decay=0.25)
        for _ in range(2):
            chosen = centres.select(labels_of(1), [0])
            (4 * chosen.weight).sum().backward()
            ours.step(chosen)
        # 4 + 2/4 = 4.5; 2 − 4.5/2 = −0.25; 4.5/2 + 4 − 0.25/4 = 6.1875; −0.25 − 6.1875/2
        assert centres.weight.flatten().tolist() == [1, -3.34375, 3]
        assert ours.state_dict()["momentum"].flatten().tolist() == [0, 6.1875, 0]

    def test_rows_not_chosen_keep_value_and_momentum_to_the_bit(self):
        centres = ClassCentres(8, 3, seed=1, sample_rate=0.3)
        ours = CentreSGD(centres, 0.5)
        for label in range(8):
            chosen = centres.select(labels_of(label), [label])
            slopes(chosen, label)
            before = centres.weight.detach().clone(), ours.state_dict()["momentum"].clone()
            ours.step(chosen)
            rest = torch.ones(8, dtype=torch.bool)
            rest[chosen.rows] = False
            after = centres.weight, ours.state_dict()["momentum"]
            for was, now in zip(before, after, strict=True):
                assert now[rest].equal(was[rest])
                assert not now[chosen.rows].eq(was[chosen.rows]).any()

    def test_two_selections_of_one_row_both_count(self):
        centres = ClassCentres(4, 3, sample_rate=0.1)
        first, second = (centres.select(labels_of(2), [step]) for step in range(2))
        before = centres.weight[2].detach().clone()
        ours = CentreSGD(centres, 1.0, momentum=0, weight_decay=0)
        for chosen in (first, second):
            chosen.weight.sum().backward()
            ours.step(chosen)
        assert centres.weight[2].tolist() == pytest.approx((before - 2).tolist())

    @pytest.mark.parametrize("rate", [0.1, 1.0])
    def test_gradient_is_spent(self, rate):
        centres = ClassCentres(4, 3, sample_rate=rate)
        ours = CentreSGD(centres, 1.0)
        chosen = centres.select(labels_of(2), [0])
        chosen.weight.sum().backward()
        ours.step(chosen)
        with pytest.raises(VidfaceError, match="no gradient"):
            ours.step(chosen)

    @pytest.mark.parametrize("rate", [0.1, 1.0])
    def test_does_not_write_into_the_gradient(self, rate):
        centres = ClassCentres(4, 3, sample_rate=rate)
        chosen = centres.select(labels_of(2), [0])
        chosen.weight.sum().backward()
        gradient = chosen.weight.grad
        CentreSGD(centres, 1.0, weight_decay=0.5).step(chosen)
        assert gradient.eq(1).all()

    def test_resumes_where_it_was(self):
        def train(centres: ClassCentres, ours: CentreSGD, steps: range) -> torch.Tensor:
            for step in steps:
                chosen = centres.select(labels_of(step), [step])
                slopes(chosen, step)
                ours.step(chosen)
            return centres.weight.detach()

        unbroken = ClassCentres(8, 3, sample_rate=0.4)
        whole = train(unbroken, CentreSGD(unbroken, 0.1), range(6))
        begun = ClassCentres(8, 3, sample_rate=0.4)
        optimiser = CentreSGD(begun, 0.1)
        train(begun, optimiser, range(3))
        resumed = ClassCentres(8, 3, seed=9, sample_rate=0.4)
        resumed.load_state_dict(begun.state_dict())
        going_on = CentreSGD(resumed, 0.1)
        going_on.load_state_dict(optimiser.state_dict())
        optimiser.state_dict()["momentum"].fill_(7)  # what was loaded is a copy
        assert train(resumed, going_on, range(3, 6)).equal(whole)

    @pytest.mark.parametrize(
        "state", [{}, {"momentum": torch.zeros(5, 2)}, {"other": torch.zeros(4, 2)}]
    )
    def test_state_of_another(self, state):
        with pytest.raises(VidfaceError, match=r"this one momentum \(4, 2\)"):
            CentreSGD(ClassCentres(4, 2), 0.1).load_state_dict(state)

    def test_without_momentum_there_is_no_state(self):
        ours = CentreSGD(ClassCentres(4, 2), 0.1, momentum=0)
        assert ours.state_dict() == {}
        ours.load_state_dict({})
        with pytest.raises(VidfaceError, match="no momentum"):
            ours.load_state_dict({"momentum": torch.zeros(4, 2)})

    @pytest.mark.parametrize(
        ("lr", "momentum", "decay"),
        [(-0.1, 0.9, 0), (math.nan, 0.9, 0), (0.1, 1.0, 0), (0.1, -0.1, 0), (0.1, 0.9, -1e-9)],
    )
    def test_settings_out_of_range(self, lr, momentum, decay):
        with pytest.raises(VidfaceError, match="momentum in"):
            CentreSGD(ClassCentres(4, 2), lr, momentum, decay)


class TestResized:
    def test_those_who_stay_keep_their_centre(self):
        old = ClassCentres(4, 3, seed=1, sample_rate=0.25)
        before = old.weight.detach().clone()
        new = resize_centres(old, ["a", "b", "c", "d"], ["d", "new", "b"], seed=7)
        assert new.classes == 3
        assert new.sample_rate == 0.25
        assert new.weight[0].equal(before[3])
        assert new.weight[2].equal(before[1])
        assert new.weight[1].equal(ClassCentres(3, 3, seed=7).weight[1])
        assert old.weight.equal(before)
        assert new.weight.is_leaf
        assert new.weight.requires_grad

    def test_nobody_stays(self):
        new = resize_centres(ClassCentres(1, 2, seed=1), ["a"], ["b", "c"], seed=3)
        assert new.weight.equal(ClassCentres(2, 2, seed=3).weight)

    def test_same_people_same_centres_and_no_shared_memory(self):
        old = ClassCentres(2, 2)
        new = resize_centres(old, ["a", "b"], ["a", "b"], seed=5)
        assert new.weight.equal(old.weight)
        with torch.no_grad():
            new.weight.fill_(1)
        assert not old.weight.eq(1).any()

    def test_not_one_name_a_centre(self):
        with pytest.raises(VidfaceError, match="2 identities for 3 class centres"):
            resize_centres(ClassCentres(3, 2), ["a", "b"], ["a"])

    @pytest.mark.parametrize(("old", "new"), [("aba", "abc"), ("abc", "cbb")])
    def test_named_twice(self, old, new):
        twice = {"aba": "a", "cbb": "b"}[old if old != "abc" else new]
        with pytest.raises(VidfaceError, match=f"'{twice}' is named twice"):
            resize_centres(ClassCentres(3, 2), list(old), list(new))

    def test_nobody_left(self):
        with pytest.raises(VidfaceError, match="0 classes"):
            resize_centres(ClassCentres(1, 2), ["a"], [])
