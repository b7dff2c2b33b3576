"""Faces of a clips manifest: every image of a clip shows the clip's person."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.settings.doubles import warn_of_like_names
from vidface.settings.manifests import Manifest, read_manifest
from vidface.storage.media import MediaRoot
from vidface.storage.names import is_image_name
from vidface.training.sources.base import Pictures, PictureSource, open_pictures
from vidface.training.sources.packed_names import PackedNames


def open_manifest(
    path: Path, *, split: str = "train", root: str | Path | None = None, resize: bool = False
) -> PictureSource:
    """The images of one split's clips. Clips of nobody known are left out and counted.

    Args:
        path: the manifest, a CSV file (data_manifests/README.md).
        split: which clips.
        root: where the clips' paths start, a folder or an uncompressed tar; default: the
            manifest's own folder.

    Raises:
        VidfaceError: what `read_manifest` finds wrong; an unknown split, or one that has no clip of
            a known person; a clip that is a video or a folder without an image.
    """
    if split not in SPLITS:
        raise VidfaceError(f"{path}: split {split!r} is unknown (known: {', '.join(SPLITS)})")
    if not isinstance(root, str | Path | None):
        raise VidfaceError(f"{path}: root = {root!r} is not the name of a folder or tar")
    manifest = read_manifest(path, root)
    clips = manifest.of_split(split)
    known = [clip for clip in clips if clip.identity]
    if not known:
        raise VidfaceError(
            f"{path}: split '{split}' has {len(clips)} clips, none with an identity; "
            f"its splits: {', '.join(manifest.splits)}"
        )
    names: list[str] = []
    people: list[str] = []
    try:
        for clip in known:
            images = _list_images(clip, manifest)
            names += images
            people += [clip.identity] * len(images)
        sizes = np.array([manifest.root.size(name) for name in names], dtype=np.int64)
    except OSError as error:
        raise VidfaceError(f"{path}: {error.filename}: {error.strerror or error}") from None
    n_unknown = len(clips) - len(known)
    note = f"{len(known)} clips" + f", {n_unknown} of nobody known left out" * bool(n_unknown)
    lines: dict[str, list[int]] = {}
    for clip in known:
        lines.setdefault(clip.identity, []).append(clip.line)
    note += "".join(f"; {warning}" for warning in warn_of_like_names("identities", lines))
    pictures = RootPictures(PackedNames(names), manifest.root)
    return open_pictures(f"{path}, {split}", people, pictures, sizes, resize, note)


@dataclass(frozen=True, eq=False)
class RootPictures(Pictures):
    """Picture files below a manifest's root."""

    root: MediaRoot

    def read(self, index: int) -> bytes:
        return self.root.read(self.names[index])


def _list_images(clip: Clip, manifest: Manifest) -> list[str]:
    """Paths of a clip's images, in natural order."""
    where = f"{manifest.path}, line {clip.line}: clip '{clip.clip_id}'"
    with named_errors(f"{where}: {clip.path}"):
        kind = manifest.root.kind(clip.path)
    if kind == "folder":
        names = manifest.root.image_names(clip.path)
        if not names:
            raise VidfaceError(f"{where}: no image in {clip.path}")
        return [posixpath.join(clip.path, name) for name in names]
    if not is_image_name(clip.path):
        raise VidfaceError(
            f"{where}: {clip.path} is no folder of images; training takes aligned faces: "
            "`vidface extract --keep-crops` makes them from videos"
        )
    return [clip.path]
