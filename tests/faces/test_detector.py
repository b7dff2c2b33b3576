from __future__ import annotations

import numpy as np
import pytest

from vidface.backbones.weights import weights_path
from vidface.core.errors import VidfaceError
from vidface.faces.detector import (
    ARCFACE_TEMPLATE,
    DetectedFaces,
    DroppedFaces,
    FaceDetector,
    align_face,
    similarity_transform,
)

TEMPLATE = np.array(ARCFACE_TEMPLATE)


def moved(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return scale * points @ np.array([[c, s], [-s, c]]) + shift


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 2), (-170, 0.3), (90, 5)])
def test_similarity_is_undone_exactly(degrees: float, scale: float) -> None:
    landmarks = moved(TEMPLATE, degrees, scale, (300, -20))
    matrix = similarity_transform(landmarks, TEMPLATE)
    back = landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(back - TEMPLATE).max() < 1e-9


def test_similarity_is_the_least_squares_one() -> None:
    """Against the plain normal equations of [a −b tx; b a ty], on points that do not fit."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = moved(TEMPLATE, rng.uniform(-90, 90), rng.uniform(0.5, 3), (50, 60))
        points += rng.normal(0, 5, points.shape)
        rows, targets = [], []
        for (x, y), (u, v) in zip(points, TEMPLATE, strict=True):
            rows += [[x, -y, 1, 0], [y, x, 0, 1]]
            targets += [u, v]
        a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
        expected = np.array([[a, -b, tx], [b, a, ty]])
        assert np.allclose(similarity_transform(points, TEMPLATE), expected, atol=1e-9)


def test_similarity_does_not_mirror() -> None:
    mirrored = TEMPLATE * (-1, 1)
    matrix = similarity_transform(mirrored, TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("bad", [np.zeros((5, 2)), np.full((5, 2), 7.0), np.full((5, 2), np.nan)])
def test_landmarks_without_extent(bad: np.ndarray) -> None:
    with pytest.raises(VidfaceError, match="landmarks coincide or are not finite"):
        similarity_transform(bad, TEMPLATE)


def test_align_puts_landmarks_onto_the_template() -> None:
    """Five coloured discs at the landmarks of a turned face come to lie on the template."""
    import cv2

    landmarks = moved(TEMPLATE, 25, 2.0, (120, 40)).astype(np.float32)
    image = np.zeros((400, 500, 3), np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    for (x, y), colour in zip(landmarks, colours, strict=True):
        cv2.circle(image, (round(float(x)), round(float(y))), 8, colour, -1)
    before = image.copy()
    crop = align_face(image, landmarks)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    assert (image == before).all()
    for (x, y), colour in zip(TEMPLATE, colours, strict=True):
        assert crop[round(y), round(x)].tolist() == list(colour)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_not_an_image(image: np.ndarray) -> None:
    with pytest.raises(VidfaceError, match=r"want \(height, width, 3\) uint8 RGB"):
        align_face(image, TEMPLATE)


def test_faces_check_themselves() -> None:
    with pytest.raises(VidfaceError, match="do not fit"):
        DetectedFaces(np.zeros((2, 4)), np.zeros((1, 5, 2)), np.zeros(2))


def test_not_a_detector(tmp_path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(VidfaceError, match="not a YuNet network"):
        FaceDetector(model=path)
    with pytest.raises(VidfaceError, match="known: largest, all"):
        FaceDetector(which="biggest", model=path)


@pytest.fixture(scope="module")
def portrait(data) -> np.ndarray:
    """A frame with one real face, (256, 256, 3)."""
    from vidface.frames.sampling import sample_frames

    return next(iter(sample_frames(data / "clips" / "wlasl" / "01377.mp4"))).image


@pytest.mark.usefixtures("weights_at_hand")
class TestOnRealFaces:
    def test_one_face_with_sane_landmarks(self, portrait: np.ndarray) -> None:
        faces = FaceDetector().detect(portrait)
        assert len(faces) == 1
        left, top, right, bottom = faces.boxes[0]
        x, y = faces.landmarks[0].T
        assert left < x.min() < x.max() < right
        assert top < y.min() < y.max() < bottom
        assert x[0] < x[1]  # the eye on the image's left first, as the template wants
        assert x[3] < x[4]
        assert y[:2].max() < y[2] < y[3:].min()
        assert 0.7 <= faces.scores[0] <= 1

    def test_largest_and_all(self, portrait: np.ndarray) -> None:
        import cv2

        height, width = portrait.shape[:2]
        big = cv2.resize(portrait, (2 * width, 2 * height))
        two = np.zeros((2 * height, 3 * width, 3), np.uint8)
        two[:height, :width] = portrait
        two[:, width:] = big
        everyone = FaceDetector(which="all").detect(two)
        assert len(everyone) == 2
        areas = np.prod(everyone.boxes[:, 2:] - everyone.boxes[:, :2], axis=1)
        assert areas[0] > areas[1]
        [largest] = FaceDetector().detect(two).boxes
        assert largest.tolist() == everyone.boxes[0].tolist()
        assert largest[0] > width

    def test_limits(self, portrait: np.ndarray) -> None:
        [box] = FaceDetector().detect(portrait).boxes
        side = float((box[2:] - box[:2]).min())
        assert len(FaceDetector(min_face_pixels=side - 0.1).detect(portrait)) == 1
        assert len(FaceDetector(min_face_pixels=side + 0.1).detect(portrait)) == 0
        assert len(FaceDetector(min_score=0.99).detect(portrait)) == 0

    def test_what_is_dropped_is_counted_once(self, portrait: np.ndarray) -> None:
        found = FaceDetector().detect(portrait)
        side, score = float((found.boxes[0, 2:] - found.boxes[0, :2]).min()), found.scores[0]
        limits = [(side, score), (side + 1, score), (side, score + 0.01), (side + 1, score + 0.01)]
        counted = [
            FaceDetector(min_face_pixels=pixels, min_score=float(least)).detect(portrait).dropped
            for pixels, least in limits
        ]
        assert counted == [
            DroppedFaces(), DroppedFaces(small=1), DroppedFaces(faint=1), DroppedFaces(both=1),
        ]  # fmt: skip

    def test_counting_fainter_candidates_changes_no_face(self, portrait: np.ndarray) -> None:
        """Against YuNet with the score as its own threshold, on noise around and over the face."""
        import cv2

        rng = np.random.default_rng(0)
        for level in (10, 40, 70):
            image = np.clip(portrait + rng.normal(0, level, portrait.shape), 0, 255)
            image = image.astype(np.uint8)
            for score in (0.1, 0.3, 0.5, 0.7):
                yunet = cv2.FaceDetectorYN.create(
                    str(weights_path("yunet")), "", image.shape[1::-1], score_threshold=score
                )
                _, rows = yunet.detect(image[:, :, ::-1].copy())
                rows = np.zeros((0, 15), np.float32) if rows is None else rows
                found = FaceDetector(min_score=score, min_face_pixels=0, which="all").detect(image)
                assert sorted(found.scores.tolist()) == sorted(rows[:, 14].tolist())
                assert sorted(found.boxes[:, 0].tolist()) == sorted(rows[:, 0].tolist())

    def test_boxes_are_in_pixels_of_the_frame(self, portrait: np.ndarray) -> None:
        import cv2

        big = cv2.resize(portrait, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
        [small_box] = FaceDetector(long_side=256).detect(portrait).boxes
        [big_box] = FaceDetector(long_side=256).detect(big).boxes
        assert np.abs(big_box / 4 - small_box).max() < 3

    def test_no_face(self) -> None:
        faces = FaceDetector().detect(np.full((120, 160, 3), 90, np.uint8))
        assert len(faces) == 0
        assert faces.landmarks.shape == (0, 5, 2)
