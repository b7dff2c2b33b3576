"""The table [cluster] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vidface.core.settings import check_settings, setting
from vidface.core.values import check, size_bytes

# The names of vidface.noise.denoisers and vidface.vectors.descriptors, which a test keeps equal:
# `--help` and a typing error are answered without NumPy.
METHODS = ("union-find", "none", "dbscan", "hdbscan", "complete-linkage", "trim", "oracle")


@dataclass(frozen=True)
class ClusterSettings:
    """Which faces are noise: the method and its settings (`vidface.noise.denoisers`).

    `threshold` is a cosine; "none" (or -1) keeps every usable face. `truth` is a CSV that says
    which frames are noise: the method "oracle" needs it, and for the others it gives the precision
    and recall of what they drop. `memory` bounds the working arrays.
    """

    GROUP: ClassVar[str] = "Noise removal and pooling"

    threshold: float | None = setting(
        0.4,
        flag=None,  # commands that read a clustering, and those that make one, word theirs
        help="Cosine above which union-find, dbscan and complete-linkage join two faces; none "
        "(or -1) keeps every usable face.",
        none_text="none",
    )
    method: str = setting(
        "union-find",
        metavar="NAME",
        help="How noise faces of a clip are found.",
        choices=METHODS,
    )
    min_samples: int = setting(
        3, help="How many similar faces make a face the core of a cluster, for dbscan.", rare=True
    )
    min_cluster_size: int = setting(5, help="Faces of the smallest cluster of hdbscan.", rare=True)
    trim_share: float = setting(
        0.25, help="Share of a clip's faces that trim drops, from 0 to below 1.", rare=True
    )
    truth: Path | None = setting(
        None,
        metavar="CSV",
        help="A file that says which frames are noise: the method oracle needs it, the others get "
        "precision and recall (also a member of a tar: clips.tar/truth.csv).",
    )
    memory: str = setting(
        "2GiB",
        metavar="SIZE",
        help="What the working arrays of clustering may take; pooling and diagnostics take about "
        "100 MiB beside it.",
        rare=True,
    )

    def __post_init__(self) -> None:
        if self.threshold is not None:
            fits = -1 <= self.threshold <= 1
            problem = f'a cosine in [-1, 1] or "none", not {self.threshold}'
            check(fits, "[cluster] threshold", problem)
            if self.threshold == -1:  # by definition no clustering: one spelling inside
                object.__setattr__(self, "threshold", None)
        check_settings(self, "[cluster]")
        check(self.min_samples >= 1, "[cluster] min_samples", f"at least 1, not {self.min_samples}")
        least = f"at least 2, not {self.min_cluster_size}"
        check(self.min_cluster_size >= 2, "[cluster] min_cluster_size", least)
        share = f"must lie in [0, 1), not {self.trim_share}"
        check(0 <= self.trim_share < 1, "[cluster] trim_share", share)
        oracle = self.method != "oracle" or self.truth is not None
        check(oracle, "[cluster] truth", 'the method "oracle" needs a truth file')
        self.memory_bytes  # noqa: B018 - raises

    @property
    def memory_bytes(self) -> int:
        """`memory` as a number of bytes.

        >>> ClusterSettings(memory="1.5GiB").memory_bytes
        1610612736
        """
        return size_bytes(self.memory, "[cluster] memory")
