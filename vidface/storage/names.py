"""Names of pictures and videos: which are one by their suffix, and in which order they come."""

from __future__ import annotations

import posixpath
import re
import sys
from typing import Literal

from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.storage.urls import base_name

_IMAGE_SUFFIXES_BEFORE = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
)
IMAGE_SUFFIXES = _IMAGE_SUFFIXES_BEFORE | frozenset(
    (
        *(".jpe", ".jfif", ".dib", ".pbm", ".pnm", ".avif", ".avifs"),
        *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    )
)
"""Of pictures that are read."""
ANIMATED_SUFFIXES = frozenset((".webp", ".png", ".avif", ".avifs"))
UNREAD_IMAGE_SUFFIXES = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".psd", ".tga", ".exr", ".svg", ".dng"),
        *(".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    )
)
"""Of pictures that nothing here reads."""
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


def is_image_name(name: str, rules: ReadingRules = NEW_RULES) -> bool:
    """Whether a file name is that of a picture that is read; hidden files (`._a.jpg`) are not."""
    return _has_suffix(name, IMAGE_SUFFIXES if rules.all_pictures else _IMAGE_SUFFIXES_BEFORE)


def may_be_animated(name: str) -> bool:
    """Whether a picture of this name may be a clip; its content says whether it is."""
    return _has_suffix(name, ANIMATED_SUFFIXES)


def is_unread_picture_name(name: str) -> bool:
    """Whether a file name is that of a picture that nothing here reads."""
    return _has_suffix(name, UNREAD_IMAGE_SUFFIXES)


def is_unread_name(name: str) -> bool:
    """Whether a file name among pictures is that of a video, or a picture that nothing reads."""
    return is_unread_picture_name(name) or _has_suffix(name, VIDEO_SUFFIXES)


def _has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    base = base_name(name)
    return not base.startswith(".") and posixpath.splitext(base)[1].lower() in suffixes


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
