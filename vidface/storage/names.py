"""Names of pictures and videos: which are one by their suffix, and in which order they come."""

from __future__ import annotations

import posixpath
import re
import sys
from typing import Literal

from vidface.storage.urls import base_name

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
)
VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".asf", ".wmv", ".flv"),
        *(".f4v", ".3gp", ".3g2", ".ogv", ".ogm", ".rm", ".rmvb", ".mxf", ".nut", ".gif", ".apng"),
        *(".mpg", ".mpeg", ".mpe", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mod", ".tod", ".dv"),
        *(".h264", ".264", ".h265", ".265", ".hevc", ".ivf", ".y4m", ".mjpeg", ".insv", ".lrv"),
    )
)
"""What vidface takes for a video where it looks through folders; a manifest may name any file."""

Kind = Literal["file", "folder"]


def is_image_name(name: str) -> bool:
    """Whether a file name is that of a picture; hidden files (`._a.jpg`) are not."""
    base = base_name(name)
    return not base.startswith(".") and posixpath.splitext(base)[1].lower() in IMAGE_SUFFIXES


def natural_key(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """Sort key by which `2.jpg` comes before `10.jpg`; equal numbers fall back to the text.

    >>> sorted(["10.jpg", "2.jpg", "a1", "02.jpg", "a"], key=natural_key)
    ['02.jpg', '2.jpg', '10.jpg', 'a', 'a1']
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    key = []
    for part in parts:
        digits = part.lstrip("0")  # compared by length, then as text: numbers of any size
        key.append((len(digits), digits) if part[0] in "0123456789" else (sys.maxsize, part))
    return tuple(key), name
