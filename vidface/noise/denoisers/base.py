"""What all denoisers are: a frozen dataclass of settings with one verb, `label`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vidface.core.settings import check_settings, setting
from vidface.core.thresholds import NO_CLUSTERING, check_threshold

if TYPE_CHECKING:
    from vidface.noise.removal import FaceSet, Labels


@dataclass(frozen=True)
class Denoiser:
    """A way to decide which faces of a clip are noise; its fields are its settings.

    Raises:
        VidfaceError: a setting out of its bounds, or no number where it must be one.
    """

    makes_clusters: ClassVar[bool] = True  # labels above 0 are clusters; else just what was dropped
    uses_tree: ClassVar[bool] = False  # asks for `faces.tree`, which a run keeps
    needs_truth: ClassVar[bool] = False  # asks for `faces.noise`, what is known to be noise

    def __post_init__(self) -> None:
        check_settings(self, "[cluster]")

    @property
    def same_person(self) -> float | None:
        """Cosine above which two faces of one frame may be one person; None: frames don't count."""
        return None

    def settle(self, *, faces_apart: bool) -> Denoiser:
        """Decide what the settings leave open: whether two faces of one frame are two people."""
        return self

    def to_record(self) -> dict[str, Any]:
        """Its settings, as far as labels depend on them."""
        return asdict(self)

    def label(self, faces: FaceSet) -> Labels:
        """Label every face; called by `vidface.noise.removal.remove_noise`.

        Returns:
            (n_rows,) int32: 0 kept; 1, 2, … other clusters by falling size (equal ones by their
            earliest row); −1 an embedding that is NaN, infinite or zero, which is never kept.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class ThresholdDenoiser(Denoiser):
    """A denoiser that joins faces above a cosine; a run can sweep its threshold.

    At None every usable face is kept; −1 means the same and becomes None. At 1 nothing joins.
    """

    threshold: float | None = setting(
        0.4,
        flag=None,  # commands that read a clustering, and those that make one, word theirs
        help="Cosine above which union-find, dbscan and complete-linkage join two faces; none "
        "(or -1) keeps every usable face.",
        none_text=NO_CLUSTERING,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        cosine = check_threshold("[cluster] threshold", self.threshold)
        object.__setattr__(self, "threshold", cosine)
