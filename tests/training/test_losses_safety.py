"""The losses where numbers or batches are extreme: no NaN that was not put in, clear errors."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from vidface.core.errors import VidfaceError
from vidface.training.losses import (
    LOSSES,
    ROLES,
    ArcFace,
    ClassBalance,
    CombinedMargin,
    Geometry,
    InterClass,
    IntraClass,
    Objective,
    SVGuided,
    Triplet,
    build_objective,
)
from vidface.training.losses import triplet as triplet_module
from vidface.training.losses.geometry import angles, unit_rows

ALL = Objective(
    CombinedMargin(1.0, 0.5, 0.1),
    64.0,
    SVGuided(1.2),
    ClassBalance(0.99),
    (IntraClass(), InterClass(), Triplet(margin=0.5)),
)


def backward(faces, centres, labels, objective=ALL, counts=None):
    faces, centres = faces.detach().clone(), centres.detach().clone()
    faces.requires_grad_()
    centres.requires_grad_()
    geometry = Geometry.of(faces, centres, torch.as_tensor(labels))
    counts = torch.arange(1, len(centres) + 1) if counts is None else counts
    found = objective(geometry, counts)
    found.total.backward()
    return found, faces.grad, centres.grad


def assert_finite(found, *gradients):
    assert torch.isfinite(found.total)
    assert all(torch.isfinite(value) for value in found.parts.values())
    for gradient in gradients:
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() < 1e4


# --- cosines at and beyond ±1 ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "margin",
    [
        ArcFace(0.5),
        ArcFace(1.5),
        CombinedMargin(),
        CombinedMargin(1, 0, 0.35),
        CombinedMargin(1.35, 0.0, 0.0),
        CombinedMargin(0.9, 0.0, 0.0),
        CombinedMargin(4.0, 0.3, 0.0),
    ],
    ids=str,
)
def test_margins_are_exact_and_their_slopes_finite_at_the_ends(margin, dtype):
    ulp = torch.finfo(dtype).eps
    cos = torch.tensor([1, 1 + ulp, 1 - ulp / 2, -1, -1 - ulp, -1 + ulp / 2], dtype=dtype)
    cos.requires_grad_()
    logits = margin.own_logit(cos)
    logits.sum().backward()
    assert torch.isfinite(cos.grad).all()
    assert (cos.grad >= 0).all()
    twin = (
        CombinedMargin(1.0, margin.margin_radians, 0.0) if isinstance(margin, ArcFace) else margin
    )
    at_one = math.cos(twin.m2_radians) - twin.m3
    assert logits[0].item() == pytest.approx(at_one, abs=2 * ulp)
    turned = twin.m1 * math.pi + twin.m2_radians
    if turned <= math.pi:
        assert logits[3].item() == pytest.approx(math.cos(turned) - twin.m3, abs=4 * ulp)
    else:  # the slope at the worst face of all is that of the cosine, not 0
        assert cos.grad[3].item() == 1
        assert logits[3].item() < -1 - twin.m3


def test_angles_are_exact_at_the_ends_and_have_bounded_slopes():
    near = 1 - 2**-23
    cos = torch.tensor([1.0, 1.5, -1.0, -1.5, near, 0.5, 0.0, 0.99999], requires_grad=True)
    found = angles(cos)
    expected = [0, 0, math.pi, math.pi, math.acos(near), math.pi / 3, math.pi / 2]
    np.testing.assert_allclose(found.detach()[:7], expected, rtol=1e-6)
    found.sum().backward()
    assert cos.grad[:5].tolist() == [0] * 5
    slopes = [-1 / math.sqrt(1 - c * c) for c in (0.5, 0.0, float(np.float32(0.99999)))]
    np.testing.assert_allclose(cos.grad[5:], slopes, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_faces_on_their_centre_and_opposite_of_it(dtype):
    centres = torch.eye(3, dtype=dtype)
    faces = torch.cat([centres * 7, -centres, centres[:1] + 1e-6])
    assert_finite(*backward(faces, centres, [0, 1, 2, 0, 1, 2, 0]))


def test_a_thousand_faces_in_float32_stay_finite():
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 16, generator=draw)
    labels = torch.arange(100) % 20
    noise = torch.randn(100, 16, generator=draw)
    for size in (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1.0, 100.0):
        for sign in (1, -1):
            faces = sign * centres[labels] + size * noise
            assert_finite(*backward(faces, centres, labels))


# --- half precision ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_lifted_before_anything_is_computed(dtype):
    draw = torch.Generator().manual_seed(1)
    centres = torch.randn(6, 8, generator=draw).to(dtype)
    faces = (300 * torch.randn(12, 8, generator=draw)).to(dtype)  # squares beyond float16
    labels = torch.arange(12) % 6
    found, *gradients = backward(faces, centres, labels)
    assert_finite(found, *gradients)
    assert [gradient.dtype for gradient in gradients] == [dtype, dtype]
    expected, *_ = backward(faces.float(), centres.float(), labels)
    assert torch.equal(found.total, expected.total)
    assert found.total.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    draw = torch.Generator().manual_seed(2)
    centres, faces = torch.randn(40, 8, generator=draw), torch.randn(32, 8, generator=draw)
    labels, counts = torch.arange(32) % 8, torch.arange(1, 41)
    plain = ALL(Geometry.of(faces, centres, labels), counts)
    with torch.autocast("cpu", dtype=dtype):
        assert (faces @ centres.T).dtype == dtype  # it is on
        geometry = Geometry.of(faces, centres, labels)
        found = ALL(geometry, counts)
        alone = [term(geometry) for term in ALL.terms]
    assert geometry.cosines.dtype == torch.float32
    assert torch.equal(plain.total, found.total)
    for name in plain.parts:
        assert torch.equal(plain.parts[name], found.parts[name])
    assert [value.item() for value in alone] == [plain.parts[t.name].item() for t in ALL.terms]


def test_the_nearest_centre_is_found_in_full_precision():
    draw = torch.Generator().manual_seed(6)
    centres = torch.randn(300, 3, generator=draw)  # so dense that bfloat16 takes wrong ones
    geometry = Geometry.of(centres[:1], centres, torch.tensor([0]))
    plain = InterClass()(geometry)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(InterClass()(geometry), plain)


def test_a_term_of_one_s_own_is_spared_autocast_too():
    class Products:
        name, weight = "products", 1.0

        def __call__(self, geometry, step=0):
            return (geometry.centres @ geometry.centres.T).mean()

    geometry = Geometry.of(torch.eye(3), torch.eye(3) + 0.1, torch.arange(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Objective(ArcFace(), terms=(Products(),))(geometry)
    assert found.parts["products"].dtype == torch.float32


# --- small batches ---


def test_a_batch_of_one_class_has_no_triplets_and_an_exact_zero():
    draw = torch.Generator().manual_seed(3)
    faces, centres = torch.randn(6, 4, generator=draw), torch.randn(5, 4, generator=draw)
    found, *gradients = backward(faces, centres, [2] * 6)
    assert_finite(found, *gradients)
    assert found.parts["triplet"].item() == 0
    geometry = Geometry.of(faces.requires_grad_(), centres, torch.tensor([2] * 6))
    Triplet()(geometry).backward()
    assert torch.equal(faces.grad, torch.zeros(6, 4))


def test_no_triplet_near_enough_is_an_exact_zero_too():
    faces = torch.tensor([[1.0, 0.01], [1.0, -0.01], [-1.0, 0.01], [-1.0, -0.01]])
    geometry = Geometry.of(faces.requires_grad_(), torch.eye(2), torch.tensor([0, 0, 1, 1]))
    value = Triplet()(geometry)
    value.backward()
    assert value.item() == 0
    assert math.copysign(1, value.item()) == 1
    assert torch.equal(faces.grad, torch.zeros(4, 2))


def test_equal_faces_have_finite_triplet_gradients():
    faces = torch.tensor([[1.0, 0.0]] * 4 + [[0.99, 0.1411]], requires_grad=True)
    geometry = Geometry.of(faces, torch.eye(2), torch.tensor([0, 0, 1, 1, 1]))
    value = Triplet(mining="all")(geometry)
    value.backward()
    assert value.item() > 0.1
    assert torch.isfinite(faces.grad).all()


def test_one_face_and_one_centre():
    found, *gradients = backward(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]]), [0])
    assert_finite(found, *gradients)
    assert found.parts["softmax"].item() == 0
    assert found.parts["inter"].item() == 0
    assert found.parts["triplet"].item() == 0
    assert found.parts["intra"].item() == pytest.approx(math.acos(0.8), rel=1e-6)
    centres = torch.tensor([[-2.0, 1.0]], requires_grad=True)
    value = InterClass()(Geometry.of(torch.ones(1, 2), centres, torch.tensor([0])))
    value.backward()
    assert math.copysign(1, value.item()) == 1  # no "-0" in the log
    assert torch.equal(centres.grad, torch.zeros(1, 2))


def test_equal_centres_are_each_other_s_nearest():
    centres = torch.ones(3, 2, requires_grad=True)
    value = InterClass(block=2)(Geometry.of(torch.ones(1, 2), centres, torch.tensor([0])))
    value.backward()
    assert value.item() == pytest.approx(1, rel=1e-6)
    assert torch.isfinite(centres.grad).all()


# --- zero vectors, NaN, infinity ---


@pytest.mark.parametrize("tiny", [0.0, 1e-30, 1e-13])
def test_zero_vectors_give_no_nan_and_no_gradient_that_explodes(tiny):
    centres = torch.eye(3)
    faces = torch.eye(3) + 0.1
    faces[1] = tiny
    assert_finite(*backward(faces, centres, [0, 1, 2]))
    centres[2] = tiny
    assert_finite(*backward(faces, centres, [0, 1, 2]))


def test_short_vectors_are_still_normalised():
    rows = torch.tensor([[3e-10, 4e-10], [3e10, 4e10]])
    torch.testing.assert_close(unit_rows(rows), torch.tensor([[0.6, 0.8], [0.6, 0.8]]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("place", ["face", "centre"])
def test_nan_and_overflow_pass_through_as_nan(bad, place):
    draw = torch.Generator().manual_seed(4)
    faces, centres = torch.randn(8, 4, generator=draw), torch.randn(5, 4, generator=draw)
    (faces if place == "face" else centres)[1, 2] = bad
    geometry = Geometry.of(faces, centres, torch.arange(8) % 4)
    found = ALL(geometry, torch.arange(1, 6))
    assert torch.isnan(found.total)
    seeing = {"face": {"softmax", "intra", "triplet"}, "centre": {"softmax", "intra", "inter"}}
    assert {n for n, v in found.parts.items() if torch.isnan(v)} == seeing[place]


def test_nothing_that_is_handed_in_is_changed():
    draw = torch.Generator().manual_seed(5)
    faces, centres = torch.randn(8, 4, generator=draw), torch.randn(5, 4, generator=draw)
    labels, counts = torch.arange(8) % 4, torch.arange(1, 6)
    before = [t.clone() for t in (faces, centres, labels, counts)]
    geometry = Geometry.of(faces, centres, labels)
    cosines = geometry.cosines.clone()
    first = ALL(geometry, counts).total
    assert torch.equal(first, ALL(geometry, counts).total)
    assert torch.equal(cosines, geometry.cosines)
    after = (faces, centres, labels, counts)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# --- errors of batches ---


def test_labels_out_of_range_are_named():
    faces, centres = torch.ones(3, 2), torch.ones(4, 2)
    for wrong in (4, 99, -1):
        with pytest.raises(VidfaceError, match=f"label {wrong} is out of range.*4 centres.*0 to 3"):
            Geometry.of(faces, centres, torch.tensor([0, wrong, 3]))
    Geometry.of(faces, centres, torch.tensor([0, 3, 3]))


@pytest.mark.parametrize(
    ("faces", "centres", "labels", "identities", "message"),
    [
        (torch.ones(3), torch.ones(4, 2), [0], None, "embeddings must be a matrix"),
        (torch.ones(0, 2), torch.ones(4, 2), [], None, "embeddings must be a matrix"),
        (torch.ones(1, 2).int(), torch.ones(4, 2), [0], None, "embeddings must be .*int32"),
        (torch.ones(1, 2), torch.ones(0, 2), [0], None, "centres must be a matrix"),
        (torch.ones(1, 2), torch.ones(4, 3), [0], None, "2 numbers and centres 3"),
        (torch.ones(2, 2), torch.ones(4, 2), [0], None, "labels must be 2 integers"),
        (torch.ones(1, 2), torch.ones(4, 2), [[0]], None, "labels must be 1 integers"),
        (torch.ones(1, 2), torch.ones(4, 2), [0.0], None, "labels must be .*float32"),
        (torch.ones(1, 2), torch.ones(4, 2), [True], None, "labels must be .*bool"),
        (torch.ones(1, 2), torch.ones(4, 2), [0], [1, 2, 3], "identities must be 4 integers"),
        (torch.ones(1, 2), torch.ones(2, 2), [0], [1.0, 2.0], "identities must be .*float32"),
    ],
)
def test_batches_that_do_not_fit_are_refused(faces, centres, labels, identities, message):
    identities = None if identities is None else torch.tensor(identities)
    with pytest.raises(VidfaceError, match=message):
        Geometry.of(faces, centres, torch.tensor(labels), identities)


def test_small_integers_are_labels_too():
    geometry = Geometry.of(torch.ones(1, 2), torch.ones(2, 2), torch.tensor([1], dtype=torch.int32))
    assert geometry.labels.dtype == geometry.identities.dtype == torch.int64
    assert geometry.identities.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, "class-balance needs the number of training images"),
        (torch.tensor([1, 2]), r"shape \(2,\) do not cover classes 1 to 2"),
        (torch.ones(3, 2), r"shape \(3, 2\) do not cover"),
        (torch.tensor([5, 0, 5]), "say 0 images"),
    ],
)
def test_class_counts_that_do_not_fit_are_refused(counts, message):
    geometry = Geometry.of(torch.eye(3)[:2], torch.eye(3), torch.tensor([1, 2]))
    objective = Objective(ArcFace(), balance=ClassBalance())
    with pytest.raises(VidfaceError, match=message):
        objective(geometry, counts)
    assert torch.isfinite(Objective(ArcFace())(geometry, counts).total)  # nobody needs them


def test_negative_identities_are_no_classes():
    geometry = Geometry.of(torch.ones(1, 2), torch.eye(2), torch.tensor([1]), torch.tensor([0, -1]))
    with pytest.raises(VidfaceError, match="do not cover classes -1 to -1"):
        Objective(ArcFace(), balance=ClassBalance())(geometry, torch.tensor([1, 2, 3]))


def test_a_negative_step_is_refused_where_it_matters():
    geometry = Geometry.of(torch.eye(3), torch.eye(3), torch.arange(3))
    with pytest.raises(VidfaceError, match="step: must be at least 0, not -1"):
        InterClass(sample=2)(geometry, -1)


def test_without_pytorch_metric_learning_the_triplet_loss_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.miners", None)
    geometry = Geometry.of(torch.eye(3), torch.eye(3), torch.arange(3))
    with pytest.raises(VidfaceError, match=r"install vidface\[train\]"):
        triplet_module.Triplet()(geometry)


# --- settings ---


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("arcface", {"margin_radians": 28.6}, "if these are degrees, say 0.499"),
        ("arcface", {"margin_radians": math.pi / 2}, "must be radians"),
        ("arcface", {"margin_radians": -0.1}, "arcface margin_radians: must be at least 0"),
        ("arcface", {"margin_radians": math.nan}, "must be finite"),
        ("arcface", {"margin_radians": "0.5"}, "finite number"),
        ("arcface", {"margin_radians": True}, "finite number"),
        ("arcface", {"margin": 0.5}, r"no setting 'margin' \(known: margin_radians\)"),
        ("combined", {"m1": 0}, "combined m1: must be above 0"),
        ("combined", {"m1": math.inf}, "combined m1"),
        ("combined", {"m2_radians": 17.2}, "combined m2_radians"),
        ("combined", {"m3": -0.1}, "combined m3"),
        ("combined", {"m3": 2.1}, r"must lie in \[0, 2\]"),
        ("combined", {"name": "x"}, "known: m1, m2_radians, m3"),
        ("sv-guided", {"t": 0.99}, "sv-guided t: must be at least 1"),
        ("class-balance", {"beta": 1.0}, r"beta: must lie in \[0, 1\)"),
        ("class-balance", {"beta": -0.1}, "class-balance beta"),
        ("class-balance", {"normalise": 1}, "true or false"),
        ("intra", {"weight": -1}, "intra weight"),
        ("inter", {"weight": math.inf}, "inter weight"),
        ("inter", {"block": 0}, "inter block: must be at least 1"),
        ("inter", {"block": 1.5}, "inter block: must be a whole number"),
        ("inter", {"sample": -1}, "inter sample"),
        ("inter", {"sample": True}, "inter sample"),
        ("inter", {"seed": -1}, "inter seed"),
        ("triplet", {"weight": -1}, "triplet weight"),
        ("triplet", {"margin": 0}, r"triplet margin: must lie in \(0, 4\]"),
        ("triplet", {"margin": 4.1}, "triplet margin"),
        ("triplet", {"mining": "easy"}, "known: semi-hard, hard, all"),
        ("triplet", {"mining": ["all"]}, "mining: unknown value"),
        ("arcface", 0.5, "takes a table of settings, not 0.5"),
        ("sphereface", {}, "unknown loss 'sphereface' .known: arcface, combined, sv-guided"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, wrong, message):
    table = {"arcface": {}} if ROLES.get(name) != "margin" else {}
    with pytest.raises(VidfaceError, match=message):
        build_objective({**table, name: wrong})


def test_the_ends_of_the_ranges_are_allowed():
    for name, values in {
        "arcface": {"margin_radians": 0},
        "combined": {"m1": 1, "m2_radians": 0, "m3": 2},
        "sv-guided": {"t": 1},
        "class-balance": {"beta": 0},
        "intra": {"weight": 0},
        "inter": {"weight": 0, "block": 1},
        "triplet": {"weight": 0, "margin": 4},
    }.items():
        LOSSES[name](**values)


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf, "64", None])
def test_a_scale_must_be_positive(scale):
    with pytest.raises(VidfaceError, match="objective scale: must be"):
        build_objective({"arcface": {}}, scale=scale)


def test_plain_dictionaries_become_an_objective():
    found = build_objective(
        {
            "triplet": {"weight": 0.5, "mining": "hard"},
            "class-balance": {"beta": 0.9, "normalise": False},
            "combined": {"m2_radians": 0.1},
            "inter": {"sample": 64},
            "sv-guided": {},
            "intra": {"weight": 2},
        },
        scale=30,
    )
    assert found == Objective(
        CombinedMargin(1.0, 0.1, 0.2),
        30,
        SVGuided(1.2),
        ClassBalance(0.9, normalise=False),
        (Triplet(0.5, mining="hard"), InterClass(sample=64), IntraClass(2)),
    )
    plain = build_objective({"arcface": {}})
    assert plain == Objective(ArcFace(0.5), 64.0)


@pytest.mark.parametrize(
    ("names", "got"), [([], "none"), (["intra"], "none"), (["combined", "arcface"], "combined and")]
)
def test_exactly_one_margin_is_needed(names, got):
    message = rf"exactly one margin .*\(arcface or combined\), got {got}"
    with pytest.raises(VidfaceError, match=message):
        build_objective({name: {} for name in names})


def test_at_most_one_of_the_other_roles(monkeypatch):
    monkeypatch.setitem(LOSSES, "other", SVGuided)
    monkeypatch.setitem(ROLES, "other", "negatives")
    with pytest.raises(VidfaceError, match="at most one negatives"):
        build_objective({"arcface": {}, "sv-guided": {}, "other": {}})
    assert build_objective({"arcface": {}, "other": {"t": 1.5}}).negatives == SVGuided(1.5)


def test_a_term_is_added_once():
    with pytest.raises(VidfaceError, match="got twice: intra"):
        Objective(ArcFace(), terms=(IntraClass(), InterClass(), IntraClass(2)))


def test_the_registry():
    assert list(LOSSES) == list(ROLES)
    assert ROLES == {
        "arcface": "margin",
        "combined": "margin",
        "sv-guided": "negatives",
        "class-balance": "balance",
        "intra": "term",
        "inter": "term",
        "triplet": "term",
    }


def test_building_an_objective_imports_no_torch():
    code = (
        "import sys; from vidface.training.losses import build_objective, LOSSES;"
        "build_objective({n: {} for n in LOSSES if n != 'combined'});"
        "print(sorted({'torch', 'pytorch_metric_learning', 'sklearn'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_what_is_printed():
    geometry = Geometry.of(torch.ones(2, 3), torch.ones(1, 3), torch.tensor([0, 0]))
    assert str(geometry) == "2 embeddings and 1 centre of 3 numbers, torch.float32 on cpu"
    found = Objective(ArcFace(0), terms=(InterClass(),))(geometry)
    assert str(found) == "loss 0 (softmax 0, inter 0)"
