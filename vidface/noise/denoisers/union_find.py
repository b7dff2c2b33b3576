"""The denoiser "union-find": the largest connected component, the paper's method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from vidface.core.settings import setting
from vidface.noise.denoisers.base import ThresholdDenoiser

if TYPE_CHECKING:
    from vidface.noise.removal import FaceSet, Labels


@dataclass(frozen=True)
class UnionFind(ThresholdDenoiser):
    """Single linkage: clusters are the connected components of ``cosine > threshold``.

    With `same_frame` "free" that is all, as published. With "apart" pairs are taken by falling
    cosine, and one that would put two faces of one frame into a cluster joins nothing, unless
    these two are so alike (`same_person_threshold`) that they are one person, in a mirror, say;
    `vidface.noise.same_frame` says more. None, left open, is "free" where nobody settles it.

    The linkage tree is cut at the threshold, so that a run that keeps the tree computes every
    similarity once for all thresholds; the labels of "free" are those of
    `vidface.noise.clusters.cluster_frames`.

    >>> import numpy as np
    >>> from vidface.noise.removal import FaceSet, remove_noise
    >>> rows = np.array([[1, 0], [4, 3], [0, 1]], dtype=np.float32)
    >>> faces = FaceSet(rows, np.array([0, 3]), frames=np.array([0, 0, 1]))
    >>> remove_noise(faces, UnionFind(threshold=0.75))
    array([0, 0, 1], dtype=int32)
    >>> apart = UnionFind(threshold=0.5, same_frame="apart", same_person_threshold=0.85)
    >>> remove_noise(faces, apart)  # cosines 0.8 in one frame, then 0.6
    array([1, 0, 0], dtype=int32)
    """

    uses_tree: ClassVar[bool] = True

    same_frame: str | None = setting(
        None,
        metavar="RULE",
        help="Whether union-find may put two faces of one frame into one cluster: apart (they are "
        "two people) or free (as published).",
        choices=("apart", "free"),
        default_text='apart with [faces] which = "all", else free',
    )
    same_person_threshold: float = setting(
        0.7,
        metavar="COSINE",
        help="Cosine above which two faces of one frame may be one person after all, as in a "
        "mirror, for same_frame apart.",
        bounds="(0, 1]",
        rare=True,
    )

    @property
    def same_person(self) -> float | None:
        return self.same_person_threshold if self.same_frame == "apart" else None

    def settle(self, *, faces_apart: bool) -> UnionFind:
        if self.same_frame is not None:
            return self
        return replace(self, same_frame="apart" if faces_apart else "free")

    def to_record(self) -> dict[str, Any]:
        record = super().to_record()
        if self.same_frame == "apart":
            return record
        return {"threshold": record["threshold"]}  # as before there was a choice

    def label(self, faces: FaceSet) -> Labels:
        from vidface.noise.clusters import cut

        return cut(faces.link(self.same_person), self.threshold)
