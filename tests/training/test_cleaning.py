import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.training.cleaning import identities, rules
from vidface.training.cleaning.identities import IdentityEmbeddings
from vidface.training.cleaning.quality import contrast, sharpness
from vidface.training.cleaning.result import Cut
from vidface.training.cleaning.rules import cut_images
from vidface.training.cleaning.settings import CutSettings, Reason

OFF = {
    "min_images": None,
    "own_cosine": None,
    "stranger_cosine": None,
    "quality_quantile": None,
    "domain_images": None,
}


def only(**on):
    return CutSettings(**{**OFF, **on})


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def reasons(cut):
    return [Reason(r).name.lower() for r in cut.reason]


def identity_centres(embeddings, labels, **settings):
    people = IdentityEmbeddings(embeddings, labels, **settings)
    return people.labels, people.centres(people.usable)


def cos(degrees):
    return math.cos(math.radians(degrees))


# A picture of all rules: person 0 around 0°, 1 around 90°, 2 (long tail) at 180°.
EYE = {
    # degrees: (person, poor quality, what becomes of it)
    **dict.fromkeys((-3, -2, -1, 0, 1, 2, 3), (0, False, "kept")),
    86: (0, False, "wrong_label"),  # 4° from person 1
    75: (0, True, "quality"),  # person 1 is near, but it's poor
    3.5: (0, True, "kept"),  # poor, but near its centre
    -70: (0, False, "other_domain"),  # three of a kind, 70° away
    -71: (0, False, "other_domain"),
    -72: (0, False, "other_domain"),
    -120: (0, False, "wrong_label"),  # 120° away: whoever it is
    -60: (1, False, "wrong_label"),
    **dict.fromkeys((87, 88, 89, 90, 91, 92), (1, False, "kept")),
    180: (2, False, "long_tail"),
    181: (2, False, "long_tail"),
}
EYE_SETTINGS = CutSettings(
    min_images=3,
    own_cosine=cos(50),
    other_margin=0.1,
    stranger_cosine=cos(100),
    quality_quantile=0.1,
    quality_cosine=cos(30),
    domain_images=3,
    domain_link=cos(5),
    domain_cosine=cos(40),
)


def eye(**changed):
    embeddings = on_circle(*EYE)
    labels = np.array([person for person, _, _ in EYE.values()])
    sharp = np.array([0.0 if poor else 1.0 for _, poor, _ in EYE.values()])
    return cut_images(embeddings, labels, EYE_SETTINGS, quality={"sharpness": sharp}, **changed)


def test_the_picture_of_all_rules():
    cut = eye()
    assert reasons(cut) == [what for _, _, what in EYE.values()]
    assert cut.counts == {
        "kept": 14,
        "long_tail": 2,
        "quality": 1,
        "wrong_label": 3,
        "other_domain": 3,
        "surplus": 0,
        "no_direction": 0,
    }
    assert cut.keep.tolist() == [what == "kept" for _, _, what in EYE.values()]
    assert cut.identities == (3, 2)
    assert str(cut) == (
        "Cut(14 of 23 images, 2 of 3 identities kept; "
        "2 long_tail, 1 quality, 3 wrong_label, 3 other_domain cut)"
    )


def test_blocks_and_devices_make_no_difference(monkeypatch):
    whole = eye()
    for changed in ({"memory_bytes": 1}, {"device": "cpu"}):
        monkeypatch.setattr(rules, "CENTRES_AT_ONCE", 1)
        monkeypatch.setattr(identities, "CENTRES_AT_ONCE", 1)
        cut = eye(**changed)
        assert cut.reason.tolist() == whole.reason.tolist()
        assert cut.other.tolist() == whole.other.tolist()
        np.testing.assert_allclose(cut.own_cosine, whole.own_cosine, atol=1e-6)
        np.testing.assert_allclose(cut.other_cosine, whole.other_cosine, atol=1e-6)


def test_the_table():
    cut = eye()
    images = [f"{a}.jpg" for a in EYE]
    table = cut.table(images, ["Ann", "Ben", "Cat"])
    assert table.column_names == [
        "image",
        "identity",
        "reason",
        "own_cosine",
        "nearest_identity",
        "nearest_cosine",
    ]
    rows = {row.pop("image"): row for row in table.to_pylist()}
    assert list(rows) == [f"{a}.jpg" for a, (_, _, what) in EYE.items() if what != "kept"]
    assert rows["86.jpg"] == {
        "identity": "Ann",
        "reason": "wrong_label",
        "own_cosine": pytest.approx(cos(86), abs=0.05),
        "nearest_identity": "Ben",
        "nearest_cosine": pytest.approx(cos(4), abs=0.01),
    }
    assert rows["-60.jpg"]["nearest_identity"] == "Ann"
    assert rows["181.jpg"] == {
        "identity": "Cat",
        "reason": "long_tail",
        "own_cosine": None,
        "nearest_identity": None,
        "nearest_cosine": None,
    }
    everything = cut.table(images, ["Ann", "Ben", "Cat"], kept=True)
    assert everything.column("image").to_pylist() == images
    assert everything.column("reason").to_pylist() == reasons(cut)
    assert everything.schema == table.schema
    with pytest.raises(VidfaceError, match="22 image names for 23 images"):
        cut.table(images[1:], ["Ann", "Ben", "Cat"])
    with pytest.raises(VidfaceError, match="2 identities, but an image has the label 2"):
        cut.table(images, ["Ann", "Ben"])


def test_a_log_without_any_cut_image_has_its_columns():
    cut = cut_images(on_circle(0, 1), np.array([0, 0]), only())
    table = cut.table(["a", "b"], ["Ann"])
    assert (table.num_rows, table.num_columns) == (0, 6)
    assert str(cut) == "Cut(2 of 2 images, 1 of 1 identities kept; none cut)"


# Centres


def naive_centres(embeddings, labels):
    """As the docstring says it, with plain loops in float64."""
    found = {}
    for label in sorted(set(labels)):
        own = [
            [float(x) for x in e] for e, at in zip(embeddings, labels, strict=True) if at == label
        ]
        own = [unit(e) for e in own if all(map(math.isfinite, e)) and any(e)]
        if not own:
            found[label] = [0.0] * len(embeddings[0])
            continue
        centre = unit([sum(column) for column in zip(*own, strict=True)])
        cosines = [dot(e, centre) for e in own]
        median = sorted(cosines)[(len(own) - 1) // 2]
        near = [e for e, cosine in zip(own, cosines, strict=True) if cosine >= median]
        found[label] = unit([sum(column) for column in zip(*near, strict=True)])
    return found


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(vector):
    norm = math.sqrt(dot(vector, vector))
    return [x / norm for x in vector]


@examples(40)
@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(0, 999), st.sampled_from([1, 2000, 2**20])
)
def test_centres_are_those_of_plain_loops(n, people, seed, memory_bytes):
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(n, 4)).astype(np.float32) + 1
    embeddings[random.random(n) < 0.1] = np.nan
    labels = random.integers(0, people, n) * 5
    values, centres = identity_centres(embeddings, labels, memory_bytes=memory_bytes)
    wanted = naive_centres(embeddings.tolist(), labels.tolist())
    assert values.tolist() == list(wanted)
    np.testing.assert_allclose(centres, list(wanted.values()), atol=1e-5)


def test_wrong_labels_do_not_pull_a_centre():
    faces = on_circle(-2, -1, 0, 1, 2, 90, 91, 92)
    _, centres = identity_centres(faces, np.zeros(8, np.int64))
    assert math.degrees(math.atan2(centres[0, 1], centres[0, 0])) == pytest.approx(0, abs=0.1)


def test_two_opposite_images_have_no_centre():
    opposite = on_circle(30, 210), np.array([0, 0])
    assert identity_centres(*opposite)[1].tolist() == [[0, 0]]
    assert cut_images(*opposite, only(own_cosine=0.5)).own_cosine.tolist() == [0, 0]
    star = on_circle(10, 130, 250), np.array([0, 0, 0])  # its sum is 0 but for rounding
    assert cut_images(*star, only(own_cosine=0.5)).own_cosine.tolist() == [0, 0, 0]


# Thresholds: what equals one stays


EXACT = np.array([[1, 0], [1, 0], [1, 0], [3, 4], [0, 1], [0, 1]], np.float32)  # cosine 0.6, 0.8
EXACT_LABELS = np.array([0, 0, 0, 0, 1, 1])


def bits(value, steps):
    for _ in range(abs(steps)):
        value = np.nextafter(np.float32(value), np.float32(2 if steps > 0 else -2))
    return float(value)


def image_3(**on):
    cut = cut_images(EXACT, EXACT_LABELS, only(**on))
    assert reasons(cut)[:3] + reasons(cut)[4:] == ["kept"] * 5
    return reasons(cut)[3]


def test_own_cosine_and_margin():
    cut = cut_images(EXACT, EXACT_LABELS, only(own_cosine=0.7))
    own, other = cut.own_cosine[3], cut.other_cosine[3]
    assert (own, other) == (pytest.approx(0.6), pytest.approx(0.8))
    assert cut_images(EXACT, 7 * EXACT_LABELS + 3, only(own_cosine=0.7)).other[3] == 10
    assert image_3(own_cosine=0.7) == "wrong_label"
    assert image_3(own_cosine=float(own)) == "kept"
    assert image_3(own_cosine=float(own), domain_images=9, domain_cosine=0.9) == "kept"
    assert image_3(own_cosine=bits(own, 1)) == "wrong_label"
    assert image_3(own_cosine=float(other)) == "wrong_label"  # the other's may equal it, too
    assert image_3(own_cosine=bits(other, 1)) == "kept"
    margin = float(other - own)
    assert image_3(own_cosine=0.7, other_margin=margin) == "wrong_label"  # "at least"
    assert image_3(own_cosine=0.7, other_margin=bits(margin, 1)) == "kept"


def test_stranger_cosine():
    own = cut_images(EXACT, EXACT_LABELS, only()).own_cosine[3]
    assert image_3(stranger_cosine=float(own)) == "kept"
    assert image_3(stranger_cosine=bits(own, 1)) == "wrong_label"
    assert image_3(stranger_cosine=np.float64(own) + 1e-9) == "kept"  # equal as float32


def test_quality():
    def cut(sharp, **on):
        return reasons(cut_images(EXACT, EXACT_LABELS, only(**on), quality={"sharpness": sharp}))[3]

    own = float(cut_images(EXACT, EXACT_LABELS, only()).own_cosine[3])
    low = np.array([5, 5, 5, 1, 5, 5])
    assert cut(low, quality_quantile=0.2, quality_cosine=0.7) == "quality"
    assert cut(low, quality_quantile=0.2, quality_cosine=own) == "kept"
    assert cut(low, quality_quantile=0.2, quality_cosine=bits(own, 1)) == "quality"
    assert cut(low, quality_quantile=0, quality_cosine=0.7) == "kept"  # nothing is below the least
    assert cut(low, quality_quantile=None, quality_cosine=0.7) == "kept"
    second = np.array([5, 5, 5, 2, 1, 5])
    assert cut(second, quality_quantile=0.2, quality_cosine=0.7) == "kept"  # equals the quantile
    assert cut(second, quality_quantile=0.21, quality_cosine=0.7) == "quality"
    unknown = np.array([5, 5, 5, np.nan, 5, 5])
    assert cut(unknown, quality_quantile=0.5, quality_cosine=0.7) == "quality"
    assert cut(np.full(6, np.nan), quality_quantile=0.5, quality_cosine=0.7) == "quality"
    infinite = np.array([np.inf, np.inf, np.inf, -np.inf, np.inf, np.inf])
    assert cut(infinite, quality_quantile=0.2, quality_cosine=0.7) == "quality"


def test_the_quantile_is_of_the_images_left_before_any_is_cut_for_quality():
    embeddings = np.concatenate([EXACT, on_circle(180)])
    labels = np.append(EXACT_LABELS, 2)
    rule = only(quality_quantile=0.1, quality_cosine=0.7, min_images=2)
    sharp = np.array([5, 5, 5, 1, 5, 5, 0])  # the last is long tail, and counts for nothing
    cut = cut_images(embeddings, labels, rule, quality={"sharpness": sharp})
    assert reasons(cut)[3:] == ["quality", "kept", "kept", "long_tail"]
    faces = on_circle(0, 0, 0, 0, 0, 0, 0, 60, 300)
    quality = {  # without the first of the two poor ones, a fifth would reach the second
        "a": np.array([5, 5, 5, 5, 5, 5, 5, 1, 5]),
        "b": np.array([5, 5, 5, 5, 5, 5, 1, 2, 3]),
    }
    rule = only(quality_quantile=0.25, quality_cosine=0.7)
    assert reasons(cut_images(faces, np.zeros(9, np.int64), rule, quality=quality))[7:] == [
        "quality",
        "kept",
    ]


def test_each_quality_measure_counts_for_itself():
    quality = {"a": np.array([1, 9, 9, 9, 9, 9]), "b": np.array([9, 9, 9, 1, 9, 9])}
    rule = only(quality_quantile=0.1, quality_cosine=0.7)
    assert reasons(cut_images(EXACT, EXACT_LABELS, rule, quality=quality)).count("quality") == 1
    del quality["b"]
    assert "quality" not in reasons(cut_images(EXACT, EXACT_LABELS, rule, quality=quality))


DOMAIN = on_circle(-1, 0, 1, -1, 0, 1, 0, 60, 61, 62, 0)
DOMAIN_LABELS = np.array([0] * 10 + [1])


def domains(embeddings=DOMAIN, labels=DOMAIN_LABELS, **on):
    rule = only(**{"domain_images": 3, "domain_link": 0.9, "domain_cosine": 0.7, **on})
    return np.flatnonzero(
        cut_images(embeddings, labels, rule).reason == Reason.OTHER_DOMAIN
    ).tolist()


def test_a_coherent_minority_is_another_domain():
    centre = cos(61)
    assert domains() == [7, 8, 9]
    assert domains(domain_images=4) == []
    assert domains(domain_cosine=centre - 1e-3) == []
    assert domains(domain_cosine=centre + 1e-3) == [7, 8, 9]
    assert domains(domain_link=0.99999) == []  # not near each other
    assert domains(stranger_cosine=centre - 1e-3) == [7, 8, 9]
    # Further away it's a group of strangers.
    strangers = cut_images(
        DOMAIN,
        DOMAIN_LABELS,
        only(domain_images=3, domain_link=0.9, domain_cosine=0.7, stranger_cosine=centre + 0.05),
    )
    assert reasons(strangers)[7:10] == ["wrong_label"] * 3


def test_a_domain_is_fewer_than_half():
    half = on_circle(0, 0.2, 0.4, 60, 61, 62)
    assert domains(half, np.zeros(6, np.int64), domain_cosine=0.99) == []
    assert domains(np.concatenate([half, on_circle(0)]), np.zeros(7, np.int64)) == [3, 4, 5]


def test_a_domain_decides_before_a_stranger_does():
    """One of the group is far away by itself; its group is not."""
    faces = on_circle(-1, 0, 1, -1, 0, 1, 0, 72, 73, 74, 79)
    rule = only(domain_images=3, domain_link=cos(6), domain_cosine=0.7, stranger_cosine=cos(76))
    assert reasons(cut_images(faces, np.zeros(11, np.int64), rule))[7:] == ["other_domain"] * 4


# Long tail and surplus


def test_long_tail_before_and_after_the_noise():
    embeddings = on_circle(0, 1, 2, 85, 90, 90, 91, 180, 182)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    rule = only(min_images=3, own_cosine=0.5)
    assert reasons(cut_images(embeddings, labels, rule)) == [
        *["kept"] * 3,
        "wrong_label",
        *["kept"] * 3,
        "long_tail",
        "long_tail",
    ]
    strict = only(min_images=4, own_cosine=0.5)
    embeddings, labels = np.append(embeddings, on_circle(92), axis=0), np.append(labels, 1)
    assert reasons(cut_images(embeddings, labels, strict)) == [
        *["long_tail"] * 3,  # four before the wrong label went
        "wrong_label",
        *["kept"] * 3,
        "long_tail",
        "long_tail",
        "kept",
    ]


def test_long_tail_identities_are_no_witnesses():
    embeddings = on_circle(0, 1, 2, 80, 80, 200, 200, 200)
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 2])
    assert reasons(cut_images(embeddings, labels, only(own_cosine=0.5)))[3] == "wrong_label"
    assert reasons(cut_images(embeddings, labels, only(own_cosine=0.5, min_images=3)))[3] == "kept"


@pytest.mark.parametrize(
    ("most", "kept"),
    [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (5, [0, 2, 3, 4, 5]), (6, [0, 1, 2, 3, 4, 5])],
)
def test_the_surplus_is_taken_evenly(most, kept):
    faces = on_circle(0, 0, 0, 0, 0, 0, 0, 10, 20, 30, 40, 50, 60)
    cut = cut_images(faces[7:], np.full(6, 4), only(max_images=most))
    near = np.argsort(-cut.own_cosine, kind="stable")  # the ranks of the images
    assert np.flatnonzero(cut.keep[near]).tolist() == kept
    assert set(reasons(cut)) <= {"kept", "surplus"}


def test_the_surplus_of_each_identity_is_its_own():
    labels = np.array([0, 1, 0, 1, 0, 1, 2])
    cut = cut_images(on_circle(0, 90, 1, 91, 3, 93, 180), labels, only(max_images=2))
    assert np.bincount(labels[cut.keep]).tolist() == [2, 2, 1]


# Boundaries


def test_an_identity_of_one_image():
    cut = cut_images(on_circle(0, 90), np.array([0, 7]), CutSettings(min_images=1))
    assert reasons(cut) == ["kept", "kept"]
    np.testing.assert_allclose(cut.own_cosine, 1, atol=1e-6)
    assert reasons(cut_images(on_circle(0, 1, 2, 90), np.array([0, 0, 0, 7]), CutSettings(2)))[
        3
    ] == ("long_tail")


def test_one_identity_has_no_other():
    cut = cut_images(on_circle(0, 1, 2, 150), np.zeros(4, np.int64), only(own_cosine=0.9))
    assert reasons(cut) == ["kept"] * 4
    assert cut.other.tolist() == [-1] * 4
    assert np.isnan(cut.other_cosine).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_an_embedding_without_direction_has_its_reason(bad):
    embeddings = np.append(on_circle(0, 1, 2, 90, 91, 92), [[bad, bad]], axis=0)
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    cut = cut_images(embeddings, labels, CutSettings(min_images=3))
    assert reasons(cut) == ["kept"] * 6 + ["no_direction"]
    assert np.isnan(cut.own_cosine[6])
    assert reasons(cut_images(embeddings, labels, CutSettings(min_images=3, max_images=3)))[6] == (
        "no_direction"
    )
    few = cut_images(embeddings[[0, 1, 2, 5, 6]], labels[[0, 1, 2, 5, 6]], only(min_images=2))
    assert reasons(few) == ["kept"] * 3 + ["long_tail", "no_direction"]


def test_norms_and_types_make_no_difference():
    labels = np.array([person for person, _, _ in EYE.values()])
    raw = on_circle(*EYE).astype(np.float64) * np.linspace(1e-3, 1e3, len(EYE))[:, None]
    rule = CutSettings(min_images=3)
    assert (
        cut_images(raw, labels.astype(np.uint8), rule).reason.tolist()
        == cut_images(on_circle(*EYE), labels, rule).reason.tolist()
    )


def test_inputs_are_not_changed():
    embeddings, labels, sharp = 2 * EXACT, EXACT_LABELS.copy(), np.arange(6.0)
    for array in (embeddings, labels, sharp):
        array.flags.writeable = False
    cut_images(embeddings, labels, CutSettings(min_images=1), quality={"sharpness": sharp})


def test_all_cut_says_which_setting_is_too_strict():
    with pytest.raises(VidfaceError, match=r"all 6 images .* 6 as long_tail \(min_images 9\)"):
        cut_images(EXACT, EXACT_LABELS, CutSettings(min_images=9))
    ring = on_circle(0, 60, 120, 180, 240, 300, 300)
    rule = only(min_images=4, stranger_cosine=0.9)
    with pytest.raises(VidfaceError, match=r"5 as wrong_label \(.*stranger_cosine 0.9\), 2 as lo"):
        cut_images(ring, np.zeros(7, np.int64), rule)
    with pytest.raises(VidfaceError, match="no embedding has a direction"):
        cut_images(np.zeros((3, 2)), np.zeros(3, np.int64))


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, np.int64), "there are no images"),
        (np.zeros(3), np.zeros(3, np.int64), "embeddings must be"),
        (EXACT, np.zeros(5, np.int64), r"labels must be \(6,\)"),
        (EXACT, np.zeros(6), "whole numbers"),
        (EXACT, np.array([0, 0, 0, -4, 0, 0]), "image 3 has the label -4"),
        (EXACT, np.array([0, 0, 2**63, 0, 0, 0], np.uint64), "image 2 has the label 9223372036854"),
    ],
)
def test_bad_inputs_are_refused(embeddings, labels, message):
    with pytest.raises(VidfaceError, match=message):
        cut_images(embeddings, labels)


def test_more_bad_inputs_are_refused():
    with pytest.raises(VidfaceError, match=r"quality 'norm' must be \(6,\)"):
        cut_images(EXACT, EXACT_LABELS, quality={"norm": np.zeros(5)})
    with pytest.raises(VidfaceError, match="memory_bytes"):
        cut_images(EXACT, EXACT_LABELS, memory_bytes=0)
    with pytest.raises(VidfaceError, match="device 'nowhere'"):
        cut_images(EXACT, EXACT_LABELS, only(own_cosine=0.7), device="nowhere")
    with pytest.raises(VidfaceError, match="Cut: reason must be"):
        Cut(EXACT_LABELS, np.zeros(5, np.int8), *[np.zeros(6)] * 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_images": 0},
        {"min_images": 2.5},
        {"min_images": True},
        {"min_images": 5, "max_images": 4},
        {"max_images": 0},
        {"own_cosine": 1.1},
        {"own_cosine": math.nan},
        {"own_cosine": "0.4"},
        {"other_margin": -0.1},
        {"other_margin": None},
        {"own_cosine": 0.3, "stranger_cosine": 0.31},
        {"stranger_cosine": -1.1},
        {"quality_quantile": 1.01},
        {"quality_cosine": None},
        {"domain_images": 1},
        {"domain_link": 2},
        {"domain_link": None},
        {"domain_cosine": -2},
        {"domain_cosine": None},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(VidfaceError, match=list(wrong)[-1]):
        CutSettings(**{"min_images": None, **wrong})


def test_settings_say_what_is_on():
    assert str(only()) == "CutSettings(nothing is cut)"
    assert str(only(own_cosine=0.3)) == "CutSettings(own_cosine 0.3, other_margin 0.1)"
    assert "quality_quantile 0.05, quality_cosine 0.4, domain_images 4, domain_link 0.4" in str(
        CutSettings()
    )
    CutSettings(min_images=4, max_images=4, own_cosine=0.3, stranger_cosine=0.3)


# Planted noise among many


def test_planted_noise_is_found():
    random = np.random.default_rng(0)
    people, each, d = 30, 40, 256
    directions = random.normal(size=(people + 10, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    truth = np.zeros((people, each), np.int8)
    shown = np.repeat(np.arange(people), each).reshape(people, each)
    shown[:, 0] = (np.arange(people) + 7) % people  # another one of them
    truth[:, 0] = Reason.WRONG_LABEL
    shown[:10, 1] = np.arange(people, people + 10)  # people who are nobody's
    truth[:10, 1] = Reason.WRONG_LABEL
    faces = directions[shown]
    domain = random.normal(size=d)
    domain /= np.linalg.norm(domain)
    faces[:3, 2:8] = 0.4 * faces[:3, 2:8] + 0.9 * domain
    truth[:3, 2:8] = Reason.OTHER_DOMAIN
    sharp = np.full(truth.shape, 100.0)
    faces[5:25, 9] = directions[people + 9]  # blur looks like nobody
    sharp[5:25, 9] = 1
    truth[5:25, 9] = Reason.QUALITY
    faces = faces + random.normal(size=faces.shape) * 0.3 / math.sqrt(d)
    labels = np.repeat(np.arange(people), each)
    shuffle = random.permutation(people * each)
    cut = cut_images(
        faces.reshape(-1, d)[shuffle],
        labels[shuffle],
        CutSettings(domain_link=0.7),
        quality={"sharpness": sharp.ravel()[shuffle]},
    )
    assert cut.reason.tolist() == truth.ravel()[shuffle].tolist()


def test_no_array_of_images_by_identities_is_made():
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(6000, 16)).astype(np.float32)
    labels = np.arange(6000) // 2
    tracemalloc.start()
    cut_images(embeddings, labels, only(own_cosine=1), memory_bytes=2**21)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 2**20  # the whole would take 69 MiB


# Image measures


def naive_grey(image):
    return np.round(image.astype(np.float64) @ [0.299, 0.587, 0.114])


def test_measures_are_those_of_plain_loops():
    image = np.random.default_rng(0).integers(0, 256, (7, 6, 3), dtype=np.uint8)
    grey = np.pad(naive_grey(image), 1, mode="reflect")
    laplacian = [
        grey[y - 1, x] + grey[y + 1, x] + grey[y, x - 1] + grey[y, x + 1] - 4 * grey[y, x]
        for y in range(1, 8)
        for x in range(1, 7)
    ]
    assert sharpness(image[None])[0] == pytest.approx(np.var(laplacian), rel=0.02)  # grey ± 1
    assert contrast(image[None])[0] == pytest.approx(naive_grey(image).std(), rel=0.01)


def test_blur_is_less_sharp():
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    found = sharpness(np.stack([image, cv2.GaussianBlur(image, (0, 0), 1)]))
    assert found.dtype == np.float32
    assert found[1] < found[0] / 10


def test_red_weighs_more_than_blue():
    red, blue = np.zeros((2, 1, 112, 112, 3), np.uint8)
    red[:, ::2, :, 0] = blue[:, ::2, :, 2] = 200
    assert contrast(red)[0] > 2 * contrast(blue)[0]
    assert sharpness(red)[0] > 4 * sharpness(blue)[0]


@pytest.mark.parametrize("measure", [sharpness, contrast])
def test_images_of_other_shapes_are_refused(measure):
    assert measure(np.zeros((0, 112, 112, 3), np.uint8)).shape == (0,)
    for images in (
        np.zeros((112, 112, 3), np.uint8),
        np.zeros((1, 112, 112, 1), np.uint8),
        np.zeros((1, 112, 112, 3), np.float32),
        np.zeros((1, 2, 112, 3), np.uint8),
    ):
        with pytest.raises(VidfaceError, match=r"images must be \(n, 112, 112, 3\) uint8 RGB"):
            measure(images)
