"""The losses against their equations, sample by sample; gradients; cases solvable by eye."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss
from torch.utils._python_dispatch import TorchDispatchMode

from tests import oracles_losses as oracles
from tests.budgets import examples
from vidface.training.losses import (
    ArcFace,
    ClassBalance,
    CombinedMargin,
    Geometry,
    InterClass,
    IntraClass,
    Objective,
    SVGuided,
    Triplet,
)

MARGINS = {
    "arcface": (ArcFace(0.5), (1.0, 0.5, 0.0)),
    "cosface": (CombinedMargin(1.0, 0.0, 0.35), (1.0, 0.0, 0.35)),
    "combined": (CombinedMargin(1.0, 0.3, 0.2), (1.0, 0.3, 0.2)),
    "sphere": (CombinedMargin(1.35, 0.2, 0.1), (1.35, 0.2, 0.1)),
    "below one": (CombinedMargin(0.9, 0.4, 0.15), (0.9, 0.4, 0.15)),
    "none": (CombinedMargin(1.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
}


def batch(seed, n=12, c=7, d=5, spread=1.0):
    """Raw float64 rows: faces around their centres, the fifths opposite of them."""
    draw = np.random.default_rng([seed, n, c, d])
    centres = draw.normal(size=(c, d))
    labels = np.arange(n) % max(1, c - 1)
    faces = centres[labels] + spread * draw.normal(size=(n, d))
    faces[4::5] = -centres[labels[4::5]] + 0.2 * draw.normal(size=faces[4::5].shape)
    return faces * draw.uniform(0.5, 9, size=(n, 1)), centres, labels


def geometry_of(faces, centres, labels, identities=None, dtype=torch.float64):
    faces = torch.as_tensor(faces).to(dtype)
    centres = torch.as_tensor(centres).to(dtype)
    return Geometry.of(faces, centres, torch.as_tensor(labels), identities)


def per_sample(objective, geometry):
    logits = objective.logits(geometry)
    return torch.nn.functional.cross_entropy(logits, geometry.labels, reduction="none")


# --- equation (2) ---


def test_the_cosines_are_those_of_the_equation():
    faces, centres, labels = batch(0)
    geometry = geometry_of(faces, centres, labels)
    np.testing.assert_allclose(geometry.cosines, oracles.cosines(faces, centres), atol=1e-14)
    np.testing.assert_allclose(
        geometry.cos_own, [oracles.cosine(faces[i], centres[y]) for i, y in enumerate(labels)]
    )


# --- equations (1), (3), (5) ---


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("t", [1.0, 1.2, 2.0])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_each_sample_s_softmax_is_the_equation_s(margin, t, spread):
    loss, (m1, m2, m3) = MARGINS[margin]
    faces, centres, labels = batch(1, n=30, spread=spread)
    objective = Objective(loss, scale=16, negatives=SVGuided(t))
    expected = oracles.softmax_losses(faces, centres, labels, 16, m1, m2, m3, t)
    geometry = geometry_of(faces, centres, labels)
    np.testing.assert_allclose(per_sample(objective, geometry), expected, rtol=1e-10, atol=1e-12)
    found = objective(geometry)
    assert found.total.item() == pytest.approx(sum(expected) / len(expected), rel=1e-12)
    single = per_sample(objective, geometry_of(faces, centres, labels, dtype=torch.float32))
    np.testing.assert_allclose(single, expected, rtol=2e-4, atol=2e-4)


def test_the_batches_have_turns_beyond_pi_and_hard_negatives():
    # or the test above would not reach them
    faces, centres, labels = batch(1, n=30, spread=3.0)
    own = geometry_of(faces, centres, labels).cos_own
    assert (torch.acos(own) + 0.5 > math.pi).any()
    assert (1.35 * torch.acos(own) + 0.2 > math.pi).any()
    cosines = torch.tensor(oracles.cosines(faces, centres))
    assert (cosines > MARGINS["arcface"][0].own_logit(own)[:, None]).any()


@pytest.mark.parametrize("spread", [0.3, 3.0])
@pytest.mark.parametrize("margin_radians", [0.0, 0.2, 0.5, 1.0])
def test_arcface_is_pytorch_metric_learning_s_whose_margin_is_in_degrees(margin_radians, spread):
    faces, centres, labels = batch(2, n=30, spread=spread)
    theirs = ArcFaceLoss(7, 5, margin=math.degrees(margin_radians), scale=16)
    theirs.W.data = torch.tensor(centres.T)
    expected = theirs(torch.tensor(faces), torch.tensor(labels))
    found = Objective(ArcFace(margin_radians), 16)(geometry_of(faces, centres, labels)).total
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.35])
def test_cosface_is_pytorch_metric_learning_s(margin):
    faces, centres, labels = batch(3, n=30)
    theirs = CosFaceLoss(7, 5, margin=margin, scale=16)
    theirs.W.data = torch.tensor(centres.T)
    expected = theirs(torch.tensor(faces), torch.tensor(labels))
    loss = CombinedMargin(1, 0, margin)
    found = Objective(loss, 16)(geometry_of(faces, centres, labels)).total
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_special_cases_of_the_margin_collapse_to_the_last_bit():
    cos = torch.linspace(-1, 1, 401, dtype=torch.float32)
    arc = CombinedMargin(1.0, 0.4, 0.0).own_logit(cos)
    assert torch.equal(arc, ArcFace(0.4).own_logit(cos))
    assert torch.equal(CombinedMargin(1.0, 0.0, 0.3).own_logit(cos), cos - 0.3)
    assert torch.equal(ArcFace(0.0).own_logit(cos), cos)


@given(st.floats(0.2, 5), st.floats(0, 1.57), st.floats(0, 1))
@examples(60)
def test_a_margin_never_rises_with_the_angle(m1, m2_radians, m3):
    theta = torch.linspace(0, math.pi, 721, dtype=torch.float64)
    logits = CombinedMargin(m1, m2_radians, m3).own_logit(torch.cos(theta))
    assert (logits.diff() <= 1e-12).all()


def test_the_turn_at_pi_itself_is_not_continued():
    # m1·θ + m2 = π as float64 computes it, and one step beyond
    theta = math.pi - 0.5
    cos = math.cos(theta)
    while math.acos(cos) + 0.5 > math.pi:
        cos = math.nextafter(cos, 1)
    at = ArcFace(0.5).own_logit(torch.tensor([cos, cos - 1e-9], dtype=torch.float64))
    assert at[0].item() == pytest.approx(-1, abs=1e-12)
    assert at[1].item() == pytest.approx(cos - 0.5 * math.sin(0.5), abs=1e-8)


# --- equation (6) ---


def test_hard_negatives_are_raised_and_equality_is_not_hard():
    cosines = torch.tensor([[0.9, 0.5, 0.25, -1.0, 0.75]], dtype=torch.float64)
    own, labels = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0])
    logits = SVGuided(1.5).other_logits(cosines, own, labels, 2.0)
    assert logits.tolist() == [[1.8, 1.0, 0.5, -2.0, 2 * (0.75 + 0.5 * 1.75)]]


def test_t_of_1_turns_guiding_off_to_the_last_bit():
    faces, centres, labels = batch(4, spread=3.0)
    geometry = geometry_of(faces, centres, labels, dtype=torch.float32)
    plain = Objective(ArcFace()).logits(geometry)
    assert torch.equal(plain, Objective(ArcFace(), negatives=SVGuided(1.0)).logits(geometry))
    assert not torch.equal(plain, Objective(ArcFace(), negatives=SVGuided(1.2)).logits(geometry))


def test_the_mask_has_no_gradient():
    cosines = torch.tensor([[0.9, 0.8, 0.1]], requires_grad=True)
    own = torch.tensor([0.5], requires_grad=True)
    SVGuided(1.5).other_logits(cosines, own, torch.tensor([0]), 2.0).sum().backward()
    assert own.grad is None
    torch.testing.assert_close(cosines.grad, torch.tensor([[2.0, 3.0, 2.0]]))


# --- equation (7) ---


def test_intra_is_the_equation_s():
    faces, centres, labels = batch(5, n=20)
    found = IntraClass()(geometry_of(faces, centres, labels))
    assert found.item() == pytest.approx(oracles.intra(faces, centres, labels), rel=1e-12)


# --- equation (8) ---


@pytest.mark.parametrize("block", [1, 2, 3, 7, 8, 4096])
def test_inter_is_the_equation_s_whatever_the_block(block):
    faces, centres, labels = batch(6)
    found = InterClass(block=block)(geometry_of(faces, centres, labels))
    assert found.item() == pytest.approx(oracles.inter(centres), rel=1e-12)


@pytest.mark.parametrize("c", [2, 3, 50])
def test_inter_of_few_and_many_centres(c):
    faces, centres, labels = batch(7, n=4, c=c)
    found = InterClass(block=16)(geometry_of(faces, centres, labels))
    assert found.item() == pytest.approx(oracles.inter(centres), rel=1e-12)


def test_a_sample_of_centres_is_drawn_by_the_step_alone_against_all_others():
    centres = np.random.default_rng(8).normal(size=(40, 6))
    geometry = geometry_of(centres, centres, np.arange(40))
    each = [oracles.inter(centres, [i]) for i in range(40)]
    term, drawn = InterClass(sample=5, block=7, seed=3), []
    for step in range(30):
        rows = term._draw_rows(40, step).tolist()
        assert len(set(rows)) == 5
        drawn += rows
        expected = sum(each[i] for i in rows) / 5
        assert term(geometry, step).item() == pytest.approx(expected, rel=1e-12)
        assert InterClass(sample=5, seed=3)._draw_rows(40, step).tolist() == rows
    assert len(set(drawn)) == 40  # 150 draws: none is left out
    assert term._draw_rows(40, 1).tolist() != term._draw_rows(40, 2).tolist()
    assert (
        term._draw_rows(40, 1).tolist() != InterClass(sample=5, seed=4)._draw_rows(40, 1).tolist()
    )


@pytest.mark.parametrize("sample", [0, 40, 99])
def test_a_sample_that_is_no_sample_takes_all(sample):
    assert InterClass(sample=sample)._draw_rows(40, 5).tolist() == list(range(40))


class Largest(TorchDispatchMode):
    """The numbers of the largest tensor that any operation returned."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return found


def test_inter_never_holds_more_than_the_centres_and_a_block():
    centres = torch.tensor(np.random.default_rng(9).normal(size=(300, 4)))
    geometry = geometry_of(centres[:1], centres, [0])
    with Largest() as largest:
        InterClass(block=16)(geometry)
    assert largest.numbers == 300 * 4


def test_inter_moves_both_centres_of_a_pair_and_no_others():
    # 0 and 1 are each other's nearest; 2's nearest is 1; 3 is nobody's, and its own nearest is 2
    centres = torch.tensor(
        [[1.0, 0.0], [0.9, 0.1], [0.5, 0.9], [-1.0, 0.2]], dtype=torch.float64, requires_grad=True
    )
    one = InterClass(sample=1)
    step = next(i for i in range(99) if one._draw_rows(4, i).tolist() == [2])
    one(Geometry.of(centres.detach(), centres, torch.arange(4)), step).backward()
    moved = centres.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [False, True, True, False]


# --- equation (9) ---


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999, 0.9999])
def test_class_weights_are_the_equation_s(beta):
    counts = [1, 2, 7, 100, 600]
    raw = oracles.class_weights(counts, beta)
    found = ClassBalance(beta, normalise=False).weights(torch.tensor(counts))
    np.testing.assert_allclose(found, raw, rtol=1e-9)
    np.testing.assert_allclose(
        ClassBalance(beta).weights(torch.tensor(counts)), np.array(raw) / np.mean(raw), rtol=1e-9
    )


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12])
def test_class_weights_keep_their_digits_for_beta_near_1(gap):
    # (1 − β)/(1 − β^n) = 1/(1 + β + … + β^(n−1)), which subtracts nothing
    beta, counts = 1 - gap, [1, 3, 40]
    exact = [1 / math.fsum(beta**k for k in range(n)) for n in counts]
    found = ClassBalance(beta, normalise=False).weights(torch.tensor(counts))
    np.testing.assert_allclose(found, exact, rtol=1e-13)


def test_class_weights_of_huge_classes():
    found = ClassBalance(0.9, normalise=False).weights(torch.tensor([10**9]))
    np.testing.assert_allclose(found, [0.1], rtol=1e-12)
    found = ClassBalance(1 - 2**-50, normalise=False).weights(torch.tensor([10**6]))
    np.testing.assert_allclose(found, [1e-6], rtol=1e-8)


@pytest.mark.parametrize("normalise", [True, False])
def test_beta_of_0_turns_the_balance_off_to_the_last_bit(normalise):
    faces, centres, labels = batch(9)
    geometry = geometry_of(faces, centres, labels, dtype=torch.float32)
    plain = Objective(ArcFace())(geometry).total
    counts = torch.arange(1, 8)
    off = Objective(ArcFace(), balance=ClassBalance(0, normalise=normalise))(geometry, counts)
    assert torch.equal(plain, off.total)
    on = Objective(ArcFace(), balance=ClassBalance(0.9, normalise=normalise))(geometry, counts)
    assert not torch.equal(plain, on.total)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_balanced_softmax_takes_counts_by_global_class(normalise):
    faces, centres, labels = batch(10, n=9, c=4)
    identities = torch.tensor([8, 2, 5, 3])
    counts = np.array([900, 901, 3, 40, 902, 7, 903, 904, 100])
    beta = 0.99
    objective = Objective(ArcFace(0.5), 16, balance=ClassBalance(beta, normalise=normalise))
    geometry = geometry_of(faces, centres, labels, identities)
    losses = oracles.softmax_losses(faces, centres, labels, 16, 1, 0.5, 0)
    weights = oracles.class_weights([counts[identities[y]] for y in labels], beta)
    scale = sum(weights) / len(weights) if normalise else 1
    expected = sum(w * x for w, x in zip(weights, losses, strict=True)) / scale / len(losses)
    for given_counts in (torch.tensor(counts), counts):
        found = objective(geometry, given_counts)
        assert found.parts["softmax"].item() == pytest.approx(expected, rel=1e-9)


# --- triplets ---


@pytest.mark.parametrize("mining", ["semi-hard", "hard", "all"])
@pytest.mark.parametrize("n", [9, 40])  # cdist takes another way beyond 25 rows
def test_triplets_are_facenet_s(mining, n):
    faces, centres, labels = batch(11, n=n, spread=0.8)
    assert oracles.triplets(faces, labels, 0.2, mining)
    found = Triplet(margin=0.2, mining=mining)(geometry_of(faces, centres, labels))
    assert found.item() == pytest.approx(oracles.triplet(faces, labels, 0.2, mining), rel=1e-9)


def test_triplets_in_the_plane_by_eye():
    # a at 0°, p at 60°: ‖a − p‖² = 1. n at 90° from a: 2; 30° from p: 2 − √3.
    turn = [0, math.pi / 3, math.pi / 2]
    faces = np.array([[math.cos(t), math.sin(t)] for t in turn])
    geometry = geometry_of(faces, np.eye(2), [0, 0, 1])
    assert Triplet(margin=1.5)(geometry).item() == pytest.approx(0.5)  # only (a, p, n)
    assert Triplet(margin=0.5)(geometry).item() == 0
    hard = Triplet(margin=0.5, mining="hard")(geometry).item()  # only (p, a, n)
    assert hard == pytest.approx(1 - (2 - math.sqrt(3)) + 0.5)
    both = Triplet(margin=1.5, mining="all")(geometry).item()
    assert both == pytest.approx((0.5 + 1 - (2 - math.sqrt(3)) + 1.5) / 2)


# --- the objective ---


def test_two_classes_in_the_plane_by_eye():
    # Centres at 0° and 90°, faces at 30° and 90°, s = 1, m = 0: the margin is none.
    faces = np.array([[math.sqrt(3), 1.0], [0.0, 5.0]])
    geometry = geometry_of(faces, np.eye(2), [0, 1])
    objective = Objective(
        ArcFace(0.0), 1, terms=(IntraClass(2.0), InterClass(10.0), Triplet(1.0, 3.0))
    )
    found = objective(geometry)
    first = math.log(1 + math.exp(0.5 - math.sqrt(3) / 2))
    second = math.log(1 + math.exp(0 - 1))
    parts = {name: value.item() for name, value in found.parts.items()}
    assert parts == pytest.approx(
        {"softmax": (first + second) / 2, "intra": math.pi / 12, "inter": 0, "triplet": 0}
    )
    assert found.total.item() == pytest.approx((first + second) / 2 + 2 * math.pi / 12)
    # A margin of 30° moves the first face to 60° from its centre, the second to 30°.
    turned = Objective(ArcFace(math.pi / 6), 1)(geometry).total
    first = math.log(1 + math.exp(0.5 - 0.5))
    second = math.log(1 + math.exp(0 - math.sqrt(3) / 2))
    assert turned.item() == pytest.approx((first + second) / 2)
    # Then the first one's other centre, at cos 0.5, is as near as its own: not hard. Any more is.
    guided = Objective(ArcFace(math.pi / 6 + 0.01), 1, SVGuided(2.0))(geometry).total
    first = math.log(1 + math.exp(2 * 0.5 + 1 - math.cos(math.pi / 3 + 0.01)))
    second = math.log(1 + math.exp(0 - math.cos(math.pi / 6 + 0.01)))
    assert guided.item() == pytest.approx((first + second) / 2)


def test_the_total_is_the_softmax_plus_the_weighted_terms_and_parts_have_no_gradient():
    faces, centres, labels = batch(12, spread=0.8)
    faces = torch.tensor(faces, requires_grad=True)
    geometry = geometry_of(faces, centres, labels)
    terms = (InterClass(0.5, sample=3), IntraClass(0.25), Triplet(4.0))
    found = Objective(ArcFace(), 16, SVGuided(), ClassBalance(0.9), terms)(
        geometry, torch.arange(1, 8), step=5
    )
    assert list(found.parts) == ["softmax", "inter", "intra", "triplet"]
    assert found.parts["inter"].item() == terms[0](geometry, 5).item() != terms[0](geometry).item()
    assert found.parts["intra"].item() == pytest.approx(oracles.intra(*batch(12, spread=0.8)))
    assert found.parts["triplet"].item() > 0
    p = {name: value.item() for name, value in found.parts.items()}
    expected = p["softmax"] + 0.5 * p["inter"] + 0.25 * p["intra"] + 4 * p["triplet"]
    assert found.total.item() == pytest.approx(expected, rel=1e-12)
    assert found.total.requires_grad
    assert not any(value.requires_grad for value in found.parts.values())


# --- gradients ---

PARTS = {
    **{name: Objective(loss, 8) for name, (loss, _) in MARGINS.items()},
    "guided": Objective(CombinedMargin(), 8, SVGuided(1.3)),
    "balanced": Objective(ArcFace(), 8, balance=ClassBalance(0.9)),
    "intra": Objective(ArcFace(), 1, terms=(IntraClass(5.0),)),
    "inter": Objective(ArcFace(), 1, terms=(InterClass(5.0, block=3),)),
    "triplet": Objective(ArcFace(), 1, terms=(Triplet(5.0),)),
    "all": Objective(
        CombinedMargin(), 8, SVGuided(), ClassBalance(), (IntraClass(), InterClass(), Triplet())
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_gradients_are_those_of_finite_differences(part):
    faces, centres, labels = batch(13, n=8, c=4, d=3, spread=1.5)
    counts, labels = torch.tensor([3, 1, 50, 9]), torch.tensor(labels)

    def total(faces, centres):
        return PARTS[part](Geometry.of(faces, centres, labels), counts).total

    x = torch.tensor(faces, requires_grad=True)
    w = torch.tensor(centres, requires_grad=True)
    assert torch.autograd.gradcheck(total, (x, w), eps=1e-7, atol=1e-5)
    total(x, w).backward()
    by_faces = oracles.central_difference(
        lambda a: total(torch.tensor(a), w.detach()).item(), faces
    )
    by_centres = oracles.central_difference(
        lambda a: total(x.detach(), torch.tensor(a)).item(), centres
    )
    np.testing.assert_allclose(x.grad, by_faces, atol=1e-6)
    np.testing.assert_allclose(w.grad, by_centres, atol=1e-6)
    assert x.grad.abs().max() > 1e-3
    assert w.grad.abs().max() > 1e-3


def test_the_gradient_batch_has_turns_beyond_pi_hard_negatives_and_triplets():
    faces, centres, labels = batch(13, n=8, c=4, d=3, spread=1.5)
    own = geometry_of(faces, centres, labels).cos_own
    assert (torch.acos(own) + 0.5 > math.pi).any()
    assert (torch.acos(own) + 0.5 < math.pi).any()
    assert oracles.triplets(faces, labels, 0.2, "semi-hard")
