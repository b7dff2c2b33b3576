"""Draws a planned clip and writes it as H.264."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.demo.photographs import PHOTOGRAPH_HEIGHT, PHOTOGRAPH_WIDTH, Photographs
from vidface.demo.plan import SAMPLES_PER_SECOND, DemoPlan, PlannedClip, Segment

_AVX_512F = 13  # OpenCV's number for it; version 5 no longer exports the name


def render_clip(
    clip: PlannedClip, plan: DemoPlan, photographs: Photographs, path: Path, seed: int
) -> None:
    """Write one clip as H.264 in MP4, `plan.seconds` long, grey faces on a grey ground.

    One encoder thread and a generator of the clip's own: the same pixels in any order of work.
    """
    import av
    import cv2

    draw = np.random.default_rng([seed, *clip.clip_id.encode()])
    scene = _Scene(clip, plan, photographs, draw)
    with av.open(os.fspath(path), "w", format="mp4") as container:
        options = {"preset": "veryfast", "crf": "28", "threads": "1"}
        if cv2.checkHardwareSupport(_AVX_512F):
            # x264's AVX-512 code gives other bytes now and then for the same frames (0.2 % to
            # 10 % of clips); its AVX2 code gives those that AVX-512 gives mostly, always.
            options["x264-params"] = "asm=avx2"
        try:
            stream = container.add_stream("libx264", rate=clip.frame_rate, options=options)
        except ValueError as error:
            raise VidfaceError(
                f"cannot render the demo: this PyAV has no H.264 encoder ({error}); "
                "pip's own build of av has one"
            ) from error
        stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, "yuv420p"
        planes = np.full((plan.height * 3 // 2, plan.width), 128, np.uint8)  # luma, then chroma
        for i in range(int(plan.seconds * clip.frame_rate)):
            grey = scene.frame(i / clip.frame_rate)  # (height, width) uint8, 0–255
            planes[: plan.height] = (16 + grey * (219 / 255) + 0.5).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = i
            frame.time_base = 1 / clip.frame_rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class _Scene:
    """Draws a clip's frames: a ground, a face on it that drifts, and the noise."""

    def __init__(
        self, clip: PlannedClip, plan: DemoPlan, photographs: Photographs, draw: np.random.Generator
    ) -> None:
        import cv2

        self._size = (plan.width, plan.height)
        self._scale = draw.uniform(0.5, 1.5) * plan.height / 240
        slope = draw.uniform(-0.5, 0.5)
        self._light = draw.uniform(0.6, 1.1) * (
            1 + slope * np.linspace(-1, 1, plan.width, dtype=np.float32)
        )
        self._seconds = plan.seconds
        cells = draw.uniform(40, 150, (4, 5)).astype(np.float32)
        self._ground = cv2.resize(cells, self._size, interpolation=cv2.INTER_CUBIC)
        # Amplitude, turns a clip, and phase of x, y (pixels of the photograph), zoom and angle
        # (degrees).
        self._reach = draw.uniform(0.4, 1.0, 4) * (9, 4.5, 0.06, 5)
        self._turns = draw.uniform(0.3, 0.8, 4)
        self._phase = draw.uniform(0, 2 * np.pi, 4)
        self._edge = _soft_edge()
        self._by_sample = [s for s in clip.segments for _ in range(s.start, s.stop)]
        self._pictures = {
            segment: _picture(segment, photographs, draw) for segment in clip.segments
        }

    def frame(self, time_seconds: Fraction) -> NDArray[np.uint8]:
        """The frame at that time, (height, width) uint8."""
        import cv2

        # Cuts fall halfway between two sampled times, so that neither the nearest frame nor the
        # last one before k / 8 s can belong to a neighbour.
        k = min(int(time_seconds * SAMPLES_PER_SECOND + Fraction(1, 2)), len(self._by_sample) - 1)
        picture = self._pictures[self._by_sample[k]]
        ground = self._ground
        if picture is not None:
            turn = self._turns * float(time_seconds) / self._seconds * 2 * np.pi + self._phase
            x, y, zoom, angle = self._reach * np.sin(turn)
            scale = self._scale * (1 + zoom)
            matrix = cv2.getRotationMatrix2D(
                (PHOTOGRAPH_WIDTH / 2, PHOTOGRAPH_HEIGHT / 2), angle, scale
            )
            matrix[:, 2] += (
                self._size[0] / 2 - PHOTOGRAPH_WIDTH / 2 + x * self._scale,
                self._size[1] / 2 - PHOTOGRAPH_HEIGHT / 2 + y * self._scale,
            )
            # Only the box that the turned photograph can reach: most of the frame is ground.
            centre = matrix @ (PHOTOGRAPH_WIDTH / 2, PHOTOGRAPH_HEIGHT / 2, 1)
            reach = scale * np.hypot(PHOTOGRAPH_WIDTH, PHOTOGRAPH_HEIGHT) / 2 + 2
            left, top = np.maximum(centre - reach, 0).astype(int)
            right, bottom = np.minimum(centre + reach, self._size).astype(int)
            matrix[:, 2] -= left, top
            box = (int(right - left), int(bottom - top))
            face = cv2.warpAffine(
                picture, matrix, box, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
            edge = cv2.warpAffine(self._edge, matrix, box)  # 0 outside the photograph
            ground = ground.copy()
            ground[top:bottom, left:right] += edge * (face - ground[top:bottom, left:right])
        return np.clip(ground * self._light, 0, 255).astype(np.uint8)


def _picture(
    segment: Segment, photographs: Photographs, draw: np.random.Generator
) -> NDArray[np.float32] | None:
    """The photograph as a segment shows it, (112, 92) float32 on 0–255; None without a face."""
    import cv2

    if segment.photograph is None:
        return None
    picture = photographs[segment.photograph].astype(np.float32)
    if segment.kind == "blurred":
        return cv2.GaussianBlur(picture, (0, 0), draw.uniform(3.5, 5.5))
    if segment.kind == "occluded":
        # Something dull before the face, from the eyes or the nose downwards.
        top = draw.uniform(0.35, 0.5) * PHOTOGRAPH_HEIGHT
        cover = np.zeros_like(picture)
        centre = (int(draw.uniform(0.35, 0.65) * PHOTOGRAPH_WIDTH), int(top + 45))
        cv2.ellipse(cover, centre, (42, 45), draw.uniform(-15, 15), 0, 360, 1.0, -1)
        cover = cv2.GaussianBlur(cover, (0, 0), 1.5)
        grain = draw.normal(draw.uniform(60, 170), 25, picture.shape).astype(np.float32)
        return picture + cover * (cv2.GaussianBlur(grain, (0, 0), 1.2) - picture)
    return picture


def _soft_edge() -> NDArray[np.float32]:
    """How much of each pixel of a photograph shows, (112, 92) float32 in 0–1: it fades out."""

    def ramp(length: int) -> NDArray[np.float32]:
        inwards = np.minimum(np.arange(length), np.arange(length)[::-1])
        return np.clip(inwards / 7, 0, 1).astype(np.float32)

    return np.outer(ramp(PHOTOGRAPH_HEIGHT), ramp(PHOTOGRAPH_WIDTH))
