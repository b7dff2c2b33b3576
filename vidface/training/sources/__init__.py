"""Where training images come from: `open_source(kind, path)` for each of `SOURCES`.

    folders    a folder, or an uncompressed tar, of person/image.jpg
    manifest   a clips manifest (data_manifests/README.md) whose clips are aligned images
    recordio   InsightFace's train.rec, train.idx, property (MS1M-RetinaFace), read without mxnet
    shards     tar shards as WebDataset writes them: key.jpg with key.cls or key.json

A source knows the people, the class of every image, and gives any image by its number. It can be
pickled and used by many threads and forked workers: files are opened where they are read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.values import check_name
from vidface.training.sources.base import FaceSource, PictureSource
from vidface.training.sources.folders import open_folders
from vidface.training.sources.manifest import open_manifest
from vidface.training.sources.recordio import open_recordio
from vidface.training.sources.shards import open_shards

SOURCES: dict[str, Callable[..., PictureSource]] = {
    "folders": open_folders,
    "manifest": open_manifest,
    "recordio": open_recordio,
    "shards": open_shards,
}


def open_source(kind: str, path: str | Path, **settings: Any) -> FaceSource:
    """The images at `path`.

    Args:
        kind: one of `SOURCES`.
        path: a folder, a tar, a manifest or a pattern, as the kind has it.
        settings: of the kind; all of them know `resize` (False: an image that is not 112x112 is
            an error; True: square ones of any size are resized).

    Raises:
        VidfaceError: unknown kind or setting; nothing there, or not what the kind asks for; no
            image, a person without an image.

    >>> open_source("folder", "faces")
    Traceback (most recent call last):
        ...
    vidface.core.errors.UsageError: unknown source kind 'folder' (known: folders, manifest,
    recordio, shards)
    """
    check_name("source kind", kind, SOURCES)
    opener = SOURCES[kind]
    known = [name for name in inspect.signature(opener).parameters if name != "path"]
    for name in settings:
        if name not in known:
            raise VidfaceError(
                f"source kind '{kind}' has no setting {name!r} (known: {', '.join(known)})"
            )
    if not isinstance(settings.get("resize", False), bool):
        raise VidfaceError(f"source setting resize = {settings['resize']!r}: give true or false")
    return opener(Path(path), **settings)
