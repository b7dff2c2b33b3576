from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidface.core.errors import VidfaceError
from vidface.datasets.templates import TemplateList
from vidface.metrics import templates as module
from vidface.metrics.templates import PooledTemplates, pool_templates


def listed(images: list[tuple[int, str, str]]) -> TemplateList:
    """Of (template, medium, path), templates numbered 0, 1, …"""
    rows, media, paths = zip(*images, strict=True)
    ids = tuple(f"t{i}" for i in range(max(rows) + 1))
    return TemplateList(ids, np.array(rows), media, paths)


def naive(descriptors, clip_ids, images):
    """As InsightFace does it, in plain Python; (row, media, missing images) of each template."""
    found = {}
    for name, row in zip(clip_ids, descriptors.tolist(), strict=True):
        length = math.sqrt(math.fsum(x * x for x in row))
        found[name] = [x / length for x in row] if length else None
    results = []
    d = descriptors.shape[1]
    for template in range(max(t for t, _, _ in images) + 1):
        by_medium = {}
        missing = 0
        for t, medium, path in images:
            if t == template:
                if found[path] is None:
                    missing += 1
                else:
                    by_medium.setdefault(medium, []).append(found[path])
        means = [[math.fsum(c) / len(rows) for c in zip(*rows, strict=True)]
                 for rows in by_medium.values()]  # fmt: skip
        total = [math.fsum(c) for c in zip(*means, strict=True)] if means else [0.0] * d
        length = math.sqrt(math.fsum(x * x for x in total))
        clear = bool(means) and length >= 1e-6 * len(means)
        row = [x / length for x in total] if clear else [0.0] * d
        results.append((row, len(means), missing))
    return results


def check_against_naive(descriptors, clip_ids, images):
    pooled = pool_templates(descriptors, clip_ids, listed(images))
    expected = naive(descriptors, clip_ids, images)
    assert pooled.descriptors.dtype == np.float32
    np.testing.assert_allclose(pooled.descriptors, [row for row, _, _ in expected], atol=1e-6)
    assert pooled.media.tolist() == [media for _, media, _ in expected]
    assert pooled.missing_images.tolist() == [missing for _, _, missing in expected]
    return pooled


def unit(rows) -> np.ndarray:
    rows = np.array(rows, dtype=np.float64)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)).astype("f4")


def test_by_eye():
    faces = unit([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    images = [
        (0, "photo", "x"),
        (0, "video", "y"),
        (0, "video", "z"),  # the mean of y and z is (0, 1/2, 1/2), shorter than 1, and stays so
        (1, "video", "none"),
        (2, "video", "y"),  # the video of another template is another medium
        (2, "video", "none"),
    ]
    pooled = pool_templates(faces, ["x", "y", "z", "none"], listed(images))
    first = np.array([1, 0.5, 0.5]) / math.sqrt(1.5)
    np.testing.assert_allclose(pooled.descriptors, [first, [0, 0, 0], [0, 1, 0]], atol=1e-7)
    assert pooled.template_ids == ("t0", "t1", "t2")
    assert pooled.media.tolist() == [2, 0, 1]
    assert pooled.missing_images.tolist() == [0, 1, 1]
    assert pooled.n_failed == 1
    assert str(pooled) == (
        "PooledTemplates(descriptors (3, 3) float32, 1 without direction; 3 media pooled, "
        "2 images missing)"
    )


@given(
    images=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("mnop"), st.sampled_from("abcdefghij")),
        min_size=1,
        max_size=40,
        unique=True,
    ),
    seed=st.integers(0, 99),
    block=st.sampled_from([1, 200, 2**26]),
)
def test_equals_the_naive_twin(images, seed, block):
    numbers = sorted({t for t, _, _ in images})
    images = [(numbers.index(t), m, p) for t, m, p in images]
    rng = np.random.default_rng(seed)
    faces = rng.standard_normal((12, 4))
    faces[rng.random(12) < 0.25] = 0
    faces[3] = -faces[2]
    clip_ids = list("lkjihgfedcba")  # in another order than the list, and more
    before = (given_faces := unit(faces)).copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block)
        check_against_naive(given_faces, clip_ids, images)
    np.testing.assert_array_equal(given_faces, before)


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(3)
    images = [(int(t), str(m), str(i)) for i, (t, m) in enumerate(rng.integers(0, 6, (200, 2)))]
    faces, ids = unit(rng.standard_normal((200, 16))), [str(i) for i in range(200)]
    whole = check_against_naive(faces, ids, images).descriptors
    for rows in (1, 2, 7, 199):
        monkeypatch.setattr(module, "_BLOCK_BYTES", rows * (24 * 16 + 1))
        parts = check_against_naive(faces, ids, images).descriptors
        np.testing.assert_allclose(parts, whole, atol=1e-7)


def test_a_long_video_weighs_as_much_as_a_photograph():
    images = [(0, "photo", "x"), *((0, "video", f"y{i}") for i in range(99))]
    faces = unit([[1, 0]] + [[0, 1]] * 99)
    pooled = pool_templates(faces, [path for _, _, path in images], listed(images))
    np.testing.assert_allclose(pooled.descriptors, [[math.sqrt(0.5)] * 2], atol=1e-7)


def test_a_zero_frame_does_not_thin_its_video():
    images = [(0, "photo", "x"), (0, "video", "y"), (0, "video", "z")]
    pooled = pool_templates(unit([[1, 0], [0, 1], [0, 0]]), "xyz", listed(images))
    np.testing.assert_allclose(pooled.descriptors, [[math.sqrt(0.5)] * 2], atol=1e-7)


def test_rows_are_scaled_to_norm_one():
    rows = np.array([[1.0009, 0], [0, 0.9991]], dtype=np.float32)
    pooled = pool_templates(rows, "xy", listed([(0, "m", "x"), (0, "n", "y")]))
    np.testing.assert_allclose(pooled.descriptors, [[math.sqrt(0.5)] * 2], atol=1e-7)


@pytest.mark.parametrize(("angle", "clear"), [(0.0, False), (1e-6, False), (4e-6, True)])
@pytest.mark.parametrize("copies", [1, 50])
def test_media_that_cancel(angle, clear, copies):
    """The mean of two opposite rows, one turned by an angle, is half the angle long."""
    rows = np.array([[1, 0], [-math.cos(angle), math.sin(angle)]], dtype=np.float32)
    images = [(0, f"{m}{i}", m) for m in "xy" for i in range(copies)]
    pooled = pool_templates(rows, "xy", listed(images))
    assert pooled.n_failed == (not clear)
    assert pooled.media.tolist() == [2 * copies]
    np.testing.assert_allclose(pooled.descriptors, [[0, 1 if clear else 0]], atol=1e-5)


def test_one_image_and_none_at_all():
    one = listed([(0, "m", "a")])
    pooled = pool_templates(unit([[3, 4]]), ["a"], one)
    np.testing.assert_allclose(pooled.descriptors, [[0.6, 0.8]], atol=1e-7)
    pooled = pool_templates(np.zeros((1, 2), np.float32), ["a"], one)
    assert pooled.descriptors.tolist() == [[0, 0]]
    assert (pooled.media.tolist(), pooled.missing_images.tolist()) == ([0], [1])
    assert pool_templates(np.zeros((1, 0), np.float32), ["a"], one).descriptors.shape == (1, 0)


def test_paths_without_a_clip():
    images = [(0, "m", "a"), *((0, "m", f"x{i}") for i in range(7)), (0, "n", "x0")]
    with pytest.raises(VidfaceError, match=r"7 path.s. of the templates") as caught:
        pool_templates(unit([[1, 0]]), ["a"], listed(images))
    assert "'x0', 'x1', 'x2', 'x3', 'x4' and 2 more; " in str(caught.value)
    with pytest.raises(VidfaceError, match=r"1 path.s. .* no clip: 'b'; "):
        pool_templates(unit([[1, 0]]), ["a"], listed([(0, "m", "b")]))


def test_wrong_input():
    one = listed([(0, "m", "a")])
    with pytest.raises(VidfaceError, match="1 clip ids for 2 descriptors"):
        pool_templates(unit([[1, 0], [0, 1]]), ["a"], one)
    with pytest.raises(VidfaceError, match="'b' stands twice"):
        pool_templates(unit([[1, 0]] * 4), ["a", "b", "c", "b"], one)
    with pytest.raises(VidfaceError, match="row 1 of descriptors has norm 2"):
        pool_templates(np.array([[1, 0], [2, 0]], np.float32), ["a", "b"], one)
    with pytest.raises(VidfaceError, match="is not finite"):
        pool_templates(np.array([[np.nan, 0]], np.float32), ["a"], one)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"descriptors": np.zeros((1, 2), np.float32)}, r"descriptors must be \(2, d\)"),
        ({"descriptors": np.zeros(2, np.float32)}, r"descriptors must be \(2, d\)"),
        ({"media": np.zeros(1, np.int64)}, r"media must be \(2,\)"),
        ({"missing_images": np.zeros((2, 1), np.int64)}, r"missing_images must be \(2,\)"),
    ],
)
def test_wrong_pooled_templates(change, expected):
    fields = {
        "template_ids": ("a", "b"),
        "descriptors": np.zeros((2, 3), np.float32),
        "media": np.zeros(2, np.int64),
        "missing_images": np.zeros(2, np.int64),
    }
    assert PooledTemplates(**fields).n_failed == 2
    with pytest.raises(VidfaceError, match=expected):
        PooledTemplates(**{**fields, **change})
