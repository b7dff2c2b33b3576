"""What was cut of a training set, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.training.cleaning.settings import Reason

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Cut:
    """What is kept of n images, and why the others are not."""

    labels: NDArray[np.int64]  # (n,)
    reason: NDArray[np.int8]  # (n,) a Reason each
    own_cosine: NDArray[np.float32]  # (n,) to the own identity's centre; NaN: it was gone by then
    other: NDArray[np.int64]  # (n,) nearest other identity's label; −1: not looked for, or none
    other_cosine: NDArray[np.float32]  # (n,) to its centre; NaN where there is none

    def __post_init__(self) -> None:
        n = len(self.labels)
        for name in ("labels", "reason", "own_cosine", "other", "other_cosine"):
            if getattr(self, name).shape != (n,):
                raise VidfaceError(
                    f"Cut: {name} must be ({n},), got the shape {getattr(self, name).shape}"
                )

    @property
    def keep(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        return self.reason == Reason.KEPT

    @property
    def counts(self) -> dict[str, int]:
        """Images by reason, "kept" included: {"kept": 90, "long_tail": 3, …}."""
        counts = np.bincount(self.reason, minlength=len(Reason)).tolist()
        return {reason.name.lower(): counts[reason] for reason in Reason}

    @property
    def identities(self) -> tuple[int, int]:
        """Identities before, and those of which images are kept."""
        return len(np.unique(self.labels)), len(np.unique(self.labels[self.keep]))

    def __str__(self) -> str:
        before, after = self.identities
        counts = self.counts
        cut = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != "kept")
        return (
            f"Cut({counts['kept']} of {len(self.labels)} images, {after} of {before} identities "
            f"kept; {cut or 'none'} cut)"
        )

    def table(
        self, images: Sequence[str], identities: Sequence[str], *, kept: bool = False
    ) -> pa.Table:
        """A row for every image that is cut, in their order, as a log.

        Columns: image, identity, reason (strings), own_cosine (float32), nearest_identity (string)
        and nearest_cosine (float32); null: not known.

        Args:
            images: (n,) their names.
            identities: names by label.
            kept: also the images that are kept.

        Raises:
            VidfaceError: names that do not fit the labels.
        """
        import pyarrow as pa

        if len(images) != len(self.labels):
            raise VidfaceError(f"{len(images)} image names for {len(self.labels)} images")
        if len(self.labels) and self.labels.max() >= len(identities):
            raise VidfaceError(
                f"{len(identities)} identities, but an image has the label {self.labels.max()}"
            )
        rows = np.arange(len(self.labels)) if kept else np.flatnonzero(~self.keep)
        names = pa.array([str(name) for name in identities], pa.string())
        reasons = pa.array([reason.name.lower() for reason in Reason], pa.string())
        other = self.other[rows]
        none = other < 0
        return pa.table(
            {
                "image": pa.array([str(images[i]) for i in rows.tolist()], pa.string()),
                "identity": names.take(pa.array(self.labels[rows])),
                "reason": reasons.take(pa.array(self.reason[rows].astype(np.int64))),
                "own_cosine": pa.array(self.own_cosine[rows], from_pandas=True),
                "nearest_identity": names.take(pa.array(other, mask=none)),
                "nearest_cosine": pa.array(self.other_cosine[rows], from_pandas=True),
            }
        )
