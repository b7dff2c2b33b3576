"""Checks of what scores are worked out from: descriptors, identities, clip ids, a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import check_name
from vidface.metrics.conventions import ENROLMENTS
from vidface.vectors.descriptors import check_descriptors


@dataclass(frozen=True, eq=False)
class CheckedSearch:
    """A gallery and the clips that are searched, checked."""

    gallery: NDArray[np.float32]  # (n_gallery, d)
    gallery_has_direction: NDArray[np.bool_]  # (n_gallery,)
    gallery_identities: Sequence[str]
    descriptors: NDArray[np.float32]  # (n_clips, d)
    has_direction: NDArray[np.bool_]  # (n_clips,)

    def __str__(self) -> str:
        return f"CheckedSearch(gallery {self.gallery.shape}, clips {self.descriptors.shape})"


def check_search(
    gallery_descriptors: NDArray[np.floating[Any]],
    gallery_identities: Sequence[str],
    descriptors: NDArray[np.floating[Any]],
    enrolment: str,
    memory_bytes: int,
) -> CheckedSearch:
    """Check a gallery and the clips that are searched.

    Raises:
        VidfaceError: shapes that disagree, rows neither of norm 1 nor zero, NaN, an unknown
            enrolment, no memory.
    """
    gallery, gallery_has_direction = check_descriptors(gallery_descriptors, "gallery_descriptors")
    clips, has_direction = check_descriptors(descriptors)
    check_dimensions(gallery, clips)
    identity_codes(gallery_identities, len(gallery), "gallery_identities")
    check_memory(memory_bytes)
    check_enrolment(enrolment)
    return CheckedSearch(gallery, gallery_has_direction, gallery_identities, clips, has_direction)


def identity_codes(identities: Sequence[str], n: int, name: str) -> NDArray[np.int64]:
    """Number the identities 0, 1, 2, … in string order; −1 is a distractor ("").

    Raises:
        VidfaceError: not n of them, or one that is not text.
    """
    names = list(identities)
    if len(names) != n:
        raise VidfaceError(f"{name} must have one entry a descriptor: {len(names)} for {n} rows")
    for row, value in enumerate(names):
        if not isinstance(value, str):
            raise VidfaceError(f"{name}[{row}] is {value!r}; it must be text, '' for a distractor")
    numbers = {value: code for code, value in enumerate(sorted(set(names) - {""}))}
    numbers[""] = -1
    return np.array([numbers[value] for value in names], dtype=np.int64)


def check_k(k: int) -> None:
    if k < 1:
        raise VidfaceError(f"k is the number of ranks that count, at least 1, got {k}")


def check_clip_ids(clip_ids: Sequence[str], n: int) -> None:
    if len(clip_ids) != n:
        raise VidfaceError(
            f"clip_ids must have one entry a descriptor: {len(clip_ids)} for {n} rows"
        )
    seen = set()
    for clip_id in clip_ids:
        if not isinstance(clip_id, str):
            raise VidfaceError(f"a clip_id must be text, got {clip_id!r}")
        if clip_id in seen:
            raise VidfaceError(f"clip_id {clip_id!r} stands twice; ties rank by it, so name each")
        seen.add(clip_id)


def check_enrolment(enrolment: str) -> None:
    """Refuse a name that is not in `ENROLMENTS`."""
    check_name("enrolment", enrolment, ENROLMENTS)


def check_dimensions(
    gallery: NDArray[np.float32], descriptors: NDArray[np.float32], what: str = "split"
) -> None:
    """Refuse a gallery and a split of other dimensions; no rows at all fit any."""
    if len(gallery) and len(descriptors) and gallery.shape[1] != descriptors.shape[1]:
        raise VidfaceError(
            f"the gallery has {gallery.shape[1]} dimensions, the {what} {descriptors.shape[1]}; "
            "make both with the same backbone"
        )


def check_memory(memory_bytes: int) -> None:
    if memory_bytes < 1:
        raise VidfaceError(f"memory_bytes must be positive, got {memory_bytes}")


_KINDS = {"numbers": "fiu", "whole numbers": "iu", "bool": "b"}


def check_of_pairs(name: str, values: ArrayLike, kind: str, n: int) -> NDArray[Any]:
    """An argument that says something of each of n pairs, as an array.

    Raises:
        VidfaceError: no pair, another shape, or values of another kind.
    """
    array = np.asarray(values)
    if n == 0:
        raise VidfaceError("there is no pair to score")
    if array.shape != (n,) or array.dtype.kind not in _KINDS[kind]:
        raise VidfaceError(f"{name} must be ({n},) {kind}, got {array.shape} {array.dtype}")
    return array


def number_units(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Who each row is of: an identity as `codes` numbers it, after them each other row by itself.

    >>> number_units(np.array([1, -1, 0, -1]))
    array([1, 2, 0, 3])
    """
    units = codes.copy()
    is_distractor = codes < 0
    first = int(codes.max(initial=-1)) + 1
    units[is_distractor] = first + np.arange(np.count_nonzero(is_distractor))
    return units
