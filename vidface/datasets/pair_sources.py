"""Opens a set of pairs of faces to verify, in whichever of its forms it lies on disk."""

from __future__ import annotations

from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.datasets.insightface_bin import read_insightface_bin
from vidface.datasets.pairs import PairSet, read_lfw_pairs
from vidface.datasets.path_pairs import lists_paths, read_cfp_pairs, read_path_pairs


def open_pairs(faces: Path, pairs: Path | None) -> PairSet:
    """The pairs of a folder or tar with a list (LFW's, of paths, CFP's own), or of a `.bin`.

    Raises:
        VidfaceError: neither, or not what it should be.
    """
    if faces.suffix.lower() == ".bin" and not faces.is_dir():
        if pairs is not None:
            raise VidfaceError(f"{faces}: an InsightFace set has its own pairs; leave --pairs out")
        return read_insightface_bin(faces)
    if pairs is None:
        raise VidfaceError(
            f"{faces}: which pairs? --pairs pairs.txt for a folder or tar of faces, or give an "
            "InsightFace .bin"
        )
    if pairs.is_dir():
        return read_cfp_pairs(faces, pairs)
    return read_path_pairs(faces, pairs) if lists_paths(pairs) else read_lfw_pairs(faces, pairs)
