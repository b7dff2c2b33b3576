"""What to cut, and the reasons that there are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from vidface.core.settings import check_bounds, check_settings, setting
from vidface.core.values import check


class Reason(IntEnum):
    """Why an image is cut; `KEPT`: it is not."""

    KEPT = 0
    LONG_TAIL = 1
    QUALITY = 2
    WRONG_LABEL = 3
    OTHER_DOMAIN = 4
    SURPLUS = 5
    NO_DIRECTION = 6  # an embedding that is NaN, infinite or zero


SETTINGS_OF: dict[Reason, tuple[str, ...]] = {  # what makes cutting for a reason stricter
    Reason.LONG_TAIL: ("min_images",),
    Reason.QUALITY: ("quality_quantile", "quality_cosine"),
    Reason.WRONG_LABEL: ("own_cosine", "other_margin", "stranger_cosine"),
    Reason.OTHER_DOMAIN: ("domain_images", "domain_link", "domain_cosine"),
}


@dataclass(frozen=True)
class CutSettings:
    """What to cut. None turns a part off; a value equal to its threshold stays, unless said so.

    `cut_images` says the rules in full.

    Raises:
        VidfaceError: a value out of range, max_images below min_images, or stranger_cosine above
            own_cosine.

    >>> print(CutSettings(min_images=5, quality_quantile=None, domain_images=None))
    CutSettings(min_images 5, own_cosine 0.4, other_margin 0.1, stranger_cosine 0.2)
    """

    min_images: int | None = setting(
        10, bounds="[1, inf)", help="Identities with fewer images are long tail."
    )
    max_images: int | None = setting(
        None, bounds="[1, inf)", help="Images kept of an identity that has more."
    )
    own_cosine: float | None = setting(
        0.4, bounds="[-1, 1]", help="Cosine to its own centre below which a label may be wrong."
    )
    other_margin: float = setting(
        0.1, bounds="[0, 2]", help="By how much another centre must be nearer for a wrong label."
    )
    stranger_cosine: float | None = setting(
        0.2, bounds="[-1, 1]", help="Cosine to its own centre below which a label is wrong."
    )
    quality_quantile: float | None = setting(
        0.05, bounds="[0, 1]", help="Share of the images that a quality measure calls poor."
    )
    quality_cosine: float = setting(
        0.4, bounds="[-1, 1]", help="Cosine to its own centre below which a poor image is cut."
    )
    domain_images: int | None = setting(
        4, bounds="[2, inf)", help="Images of a coherent group that make a domain."
    )
    domain_link: float = setting(
        0.4, bounds="[-1, 1]", help="Cosine above which two images are of one group."
    )
    domain_cosine: float = setting(
        0.5, bounds="[-1, 1]", help="Cosine of a group's centre to its identity's, below it is cut."
    )

    def __post_init__(self) -> None:
        check_settings(self, "cut")
        if self.max_images is not None and self.min_images is not None:
            check_bounds("cut max_images", self.max_images, f"[{self.min_images}, inf)")
        if self.stranger_cosine is not None and self.own_cosine is not None:
            check(
                self.stranger_cosine <= self.own_cosine,
                "cut stranger_cosine",
                f"must be at most own_cosine {self.own_cosine}, not {self.stranger_cosine}",
            )

    def __str__(self) -> str:
        names = ["min_images", "max_images", "own_cosine", "stranger_cosine"]
        if self.own_cosine is not None:
            names.insert(3, "other_margin")
        if self.quality_quantile is not None:
            names += ["quality_quantile", "quality_cosine"]
        if self.domain_images is not None:
            names += ["domain_images", "domain_link", "domain_cosine"]
        values = [(name, getattr(self, name)) for name in names]
        text = ", ".join(f"{name} {value}" for name, value in values if value is not None)
        return f"CutSettings({text or 'nothing is cut'})"
