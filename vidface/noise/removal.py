"""Noise removal: `remove_noise`, the one function by which faces are dropped."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import UNUSABLE
from vidface.noise.clusters import MEMORY_BYTES, LinkageTree, cluster_frames, linkage_tree
from vidface.noise.denoisers import Denoiser, name_of_denoiser
from vidface.noise.repeats import check_repeats, find_repeats
from vidface.noise.same_frame import link_apart
from vidface.vectors.rows import (
    check_embeddings,
    check_labels,
    check_offsets,
    unit_rows_float64,
)

Labels = NDArray[np.int32]


def remove_noise(faces: FaceSet, denoiser: Denoiser) -> Labels:
    """Label every face of many clips: 0 is kept, everything else is noise.

    Returns:
        (n_rows,) int32: 0 kept; 1, 2, … other clusters by falling size (equal ones by their
        earliest row); −1 an embedding that is NaN, infinite or zero, which is never kept.

    Raises:
        VidfaceError: what the denoiser refuses; noise missing for "oracle" or given to another.

    >>> import numpy as np
    >>> from vidface.noise.denoisers import CompleteLinkage, UnionFind
    >>> frames = np.array([[1, 0], [4, 3], [3, 4], [0, 0]], dtype=np.float32)
    >>> faces = FaceSet(frames, np.array([0, 4]))
    >>> remove_noise(faces, UnionFind(threshold=0.75))
    array([ 0,  0,  0, -1], dtype=int32)
    >>> remove_noise(faces, CompleteLinkage(threshold=0.75))
    array([ 1,  0,  0, -1], dtype=int32)
    """
    if faces.has_noise and not denoiser.needs_truth:
        raise VidfaceError(
            f"denoiser '{name_of_denoiser(denoiser)}' must not see which faces are noise; "
            "leave noise out"
        )
    if denoiser.needs_truth and not faces.has_noise:
        raise VidfaceError(
            f"denoiser '{name_of_denoiser(denoiser)}' needs to know which faces are noise; "
            "give a truth"
        )
    return faces.label_repeats(denoiser.label(faces))


class FaceSet:
    """The faces of many clips that vote, and what denoisers ask of them.

    Args:
        embeddings: (n_rows, d) float16, float32 or float64, raw; the rows of a clip stand together
            in time order. Not changed.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).
        noise: (n_rows,) bool, what is known to be noise, as `vidface.noise.truth.Truth.noise_of`
            gives it; for the denoiser "oracle", and for it alone.
        memory_bytes: upper bound for working arrays that grow with the square of a clip.
        read_tree: who gives what a face set's `link` does, where linkage trees are kept somewhere.
        frames: (n_rows,) integers, which frame of its clip each row is of; for denoisers that keep
            faces of one frame apart.
        repeats: "count", every row votes; or "once": of rows that show one picture
            (`vidface.noise.repeats.find_repeats`) the first alone is among the faces that denoisers
            see, and the others get its label.

    Attributes:
        votes: (n_rows,) bool: which of the rows given are among the faces.

    Raises:
        VidfaceError: shapes or offsets that disagree.
    """

    def __init__(
        self,
        embeddings: NDArray[np.floating[Any]],
        offsets: NDArray[np.integer[Any]],
        *,
        noise: NDArray[np.bool_] | None = None,
        memory_bytes: int = MEMORY_BYTES,
        read_tree: Callable[[FaceSet, float | None], LinkageTree] | None = None,
        frames: NDArray[np.integer[Any]] | None = None,
        repeats: str = "count",
    ) -> None:
        check_repeats(repeats)
        self.embeddings = check_embeddings(embeddings)
        self.offsets = check_offsets(offsets, len(self.embeddings))
        self.votes = np.ones(len(self.embeddings), dtype=bool)
        self._firsts: NDArray[np.int64] | None = None
        self.memory_bytes = memory_bytes
        self._noise = None if noise is None else np.asarray(noise)
        self._read_tree = read_tree or FaceSet.compute_tree
        self._trees: dict[float | None, LinkageTree] = {}
        n_rows = len(self.embeddings)
        self._frames = None if frames is None else check_labels(frames, n_rows, "frames")
        if self._noise is not None and (
            self._noise.shape != (n_rows,) or self._noise.dtype != np.bool_
        ):
            raise VidfaceError(
                f"noise must be ({n_rows},) bool, one an embedding, "
                f"got the shape {self._noise.shape} of {self._noise.dtype}"
            )
        if repeats == "once":
            self._leave_repeats_out()

    def _leave_repeats_out(self) -> None:
        firsts = find_repeats(self.embeddings, self.offsets)
        self.votes = firsts == np.arange(len(firsts))
        if self.votes.all():
            return
        votes_before = np.concatenate([[0], np.cumsum(self.votes)])
        self._firsts = votes_before[firsts]
        self.embeddings = self.embeddings[self.votes]
        self.offsets = votes_before[self.offsets]
        self._noise = None if self._noise is None else self._noise[self.votes]
        self._frames = None if self._frames is None else self._frames[self.votes]

    def label_repeats(self, labels: Labels) -> Labels:
        """Give every row the label of its picture."""
        return labels if self._firsts is None else labels[self._firsts]

    def __str__(self) -> str:
        return f"FaceSet({len(self.offsets) - 1} clips, {len(self.embeddings)} faces)"

    @property
    def has_noise(self) -> bool:
        """Whether it is known which faces are noise."""
        return self._noise is not None

    @property
    def noise(self) -> NDArray[np.bool_]:
        """(n_rows,) bool: which faces are known to be noise."""
        if self._noise is None:
            raise VidfaceError("nobody said which faces are noise; give a truth")
        return self._noise

    def link(self, same_person: float | None = None) -> LinkageTree:
        """The linkage tree, read or computed once.

        Args:
            same_person: two faces of one frame stay apart, unless their cosine is above it; None:
                frames don't count.
        """
        if same_person not in self._trees:
            self._trees[same_person] = self._read_tree(self, same_person)
        return self._trees[same_person]

    def compute_tree(self, same_person: float | None = None) -> LinkageTree:
        """Compute what `link` gives."""
        memory_bytes = self.memory_bytes
        if same_person is None:
            return linkage_tree(self.embeddings, self.offsets, memory_bytes=memory_bytes)
        if self._frames is None:
            raise VidfaceError(
                "nobody said which frame each face is in; give frames, or same_frame free"
            )
        return link_apart(self.embeddings, self.offsets, self._frames, same_person, memory_bytes)

    def label_unclustered(self, threshold: float | None) -> Labels:
        """Label at a threshold at which no similarity counts: None keeps all, 1 joins nothing."""
        return cluster_frames(self.embeddings, self.offsets, threshold)

    def label_each_clip(
        self,
        find_groups: Callable[[NDArray[np.float64]], NDArray[np.integer[Any]]],
        *,
        ranked: bool = True,
    ) -> Labels:
        """Label clip by clip; unusable faces get −1 and are not shown to `find_groups`.

        Args:
            find_groups: numbers the usable unit rows of one clip, (n, d) float64, n ≥ 1.
            ranked: the numbers are groups in any order, −1 is "alone"; labels are their ranks by
                falling size. Else the numbers are the labels.
        """
        labels = np.full(len(self.embeddings), UNUSABLE, dtype=np.int32)
        for start, stop in pairwise(self.offsets.tolist()):
            unit, usable = unit_rows_float64(self.embeddings[start:stop])
            if usable.any():
                groups = find_groups(unit[usable])
                labels[start + np.flatnonzero(usable)] = rank_groups(groups) if ranked else groups
        return labels

    def check_pairs_fit(self, n_faces: int, pair_bytes: int) -> None:
        """Refuse a clip whose pairs of usable faces do not fit into the memory."""
        needed = pair_bytes * n_faces * n_faces
        if needed > self.memory_bytes:
            raise VidfaceError(
                f"a clip with {n_faces} usable faces needs {needed} bytes to cluster, memory_bytes "
                f"is {self.memory_bytes}; raise it (--memory), or take union-find, which compares "
                "in blocks"
            )


def rank_groups(groups: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Number groups by falling size, then by first row; rows of −1, each alone, come behind.

    >>> import numpy as np
    >>> rank_groups(np.array([-1, 7, 2, 2, -1])).tolist()
    [2, 1, 0, 0, 3]
    """
    is_alone = groups < 0
    distinct = np.where(is_alone, groups.max() + 1 + np.arange(len(groups)), groups)
    _, firsts, inverse, sizes = np.unique(
        distinct, return_index=True, return_inverse=True, return_counts=True
    )
    ranks = np.empty(len(firsts), np.int64)
    ranks[np.lexsort((firsts, -sizes, is_alone[firsts]))] = np.arange(len(firsts))
    return ranks[inverse]
