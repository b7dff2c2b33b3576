"""Figures that others published on the Lightweight Face Recognition Challenge's track 3.

Nothing of this was measured here. They stand in a report only where its data is that of the track,
and always under the word "published".
"""

from __future__ import annotations

from dataclasses import dataclass

# Recipes' preparers (`vidface.runs.run.PREPARERS`) whose manifests are iQIYI-VID's.
TRACK_3 = ("lfrc", "iqiyi")

TABLE_5_FIGURE = "TAR @ FAR 1e-4"
TABLE_5_SOURCE = (
    "Chai et al., A Progressive Learning Framework for Unconstrained Face Recognition, "
    "ICCV Workshops 2019, table 5"
)


@dataclass(frozen=True)
class PublishedCurve:
    """TAR at FAR 1e-4 over the threshold of Union-Find, as a paper prints it."""

    name: str  # of the paper's model
    thresholds: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def label(self) -> str:
        """What a legend calls it."""
        return f"published: paper, {self.name}"


TABLE_5 = (
    PublishedCurve(
        "baseline",
        (0.0, 0.3, 0.4, 0.5, 0.6),
        (0.57201, 0.57191, 0.57442, 0.57191, 0.56473),
    ),
    PublishedCurve("best model", (0.3, 0.4, 0.5), (0.57952, 0.58207, 0.57894)),
)

# (name, figure, value, source), as a recipe's [[published]] has them.
TRACK_3_ROWS = (
    ("y2, the challenge's baseline", "tar_at_far.1e-4", 0.47191,
     "deepinsight/insightface, challenges/iccv19-lfr"),
    ("r100 (24 GFLOPs)", "tar_at_far.1e-4", 0.64894,
     "deepinsight/insightface, challenges/iccv19-lfr"),
    ("track 3, first", "tar_at_far.1e-4", 0.6323, "leaderboard of track 3"),
    ("track 3, second", "tar_at_far.1e-4", 0.6187, "leaderboard of track 3"),
    ("track 3, third", "tar_at_far.1e-4", 0.6105, "leaderboard of track 3"),
)  # fmt: skip
