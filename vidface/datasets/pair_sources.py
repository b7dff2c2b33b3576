"""Opens a set of pairs of faces to verify, in whichever of its forms it lies on disk."""

from __future__ import annotations

from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.datasets.drawn_pairs import MOST_DRAWN, draw_pairs
from vidface.datasets.insightface_bin import read_insightface_bin
from vidface.datasets.pairs import PairSet, read_lfw_pairs
from vidface.datasets.path_pairs import lists_paths, read_cfp_pairs, read_path_pairs


def open_pairs(
    faces: Path, pairs: Path | None = None, *, most: int | None = MOST_DRAWN, seed: int = 0
) -> PairSet:
    """The pairs of a folder or tar with a list (LFW's, of paths, CFP's own), or of a `.bin`.

    Args:
        pairs: the list, or CFP's folder of them; None to draw pairs of the people in `faces`.
        most, seed: of pairs that are drawn, see `draw_pairs`.

    Raises:
        VidfaceError: none of them, or not what it should be.
    """
    if faces.suffix.lower() == ".bin" and not faces.is_dir():
        if pairs is not None:
            raise VidfaceError(f"{faces}: an InsightFace set has its own pairs; leave --pairs out")
        return read_insightface_bin(faces)
    if pairs is None:
        return draw_pairs(faces, most=most, seed=seed)
    if pairs.is_dir():
        return read_cfp_pairs(faces, pairs)
    return read_path_pairs(faces, pairs) if lists_paths(pairs) else read_lfw_pairs(faces, pairs)
