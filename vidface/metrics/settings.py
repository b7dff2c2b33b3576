"""The table [score] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vidface.core.clips import SPLITS
from vidface.core.settings import check_settings, setting
from vidface.core.values import check, check_device, exact_rate, split_list

ENROLMENT_NAMES = ("mean", "max")


CONVENTION_NAMES = ("step", "nearest")


PROTOCOLS = (
    "verification",
    "cross-verification",
    "retrieval",
    "clip-retrieval",
    "identification",
)


NEED_GALLERY = frozenset({"cross-verification", "retrieval", "identification"})


@dataclass(frozen=True)
class ScoreSettings:
    """Which split is reported, from which split its identities are enrolled, and how.

    `fars`, `fpirs`, `ranks` and `protocols` are comma lists: a FAR is the exact fraction of its
    text. `bootstrap` is the number of resamples, 0 for no intervals. `device` is where pairs are
    compared.
    """

    GROUP: ClassVar[str] = "Scores"

    gallery: str = setting(
        "train",
        flag=None,  # an argument of scoring: one run is scored on several splits
        help="The split whose identities are enrolled.",
        choices=SPLITS,
    )
    split: str = setting("val", flag=None, help="The split that is scored.", choices=SPLITS)
    protocols: str = setting(
        "verification,retrieval,identification",
        metavar="LIST",
        help="What is measured. verification and clip-retrieval need no gallery.",
        choices=PROTOCOLS,
        many=True,
    )
    fars: str = setting(
        "1e-1,1e-2,1e-3,1e-4,1e-5,1e-6",
        metavar="LIST",
        help="Target false accept rates of TAR@FAR, such as 1e-3,1e-4.",
    )
    fpirs: str = setting(
        "1e-1,1e-2,1e-3",
        metavar="LIST",
        help="Target false positive identification rates of TPIR@FPIR.",
        rare=True,
    )
    ranks: str = setting("1,5,10", metavar="LIST", help="Ranks of the CMC.", rare=True)
    k: int = setting(100, help="How many ranks of a retrieved list count: mAP@k.")
    enrolment: str = setting(
        "mean",
        metavar="NAME",
        help="How an identity's gallery clips are enrolled: mean of their descriptors, or max, "
        "where its best match counts.",
        choices=ENROLMENT_NAMES,
        rare=True,
    )
    convention: str = setting(
        "step",
        metavar="NAME",
        help="How TAR@FAR is read off: step, the largest TAR with a FAR at most the target; "
        "nearest, as common scripts do.",
        choices=CONVENTION_NAMES,
        rare=True,
    )
    exact: bool = setting(
        False, help="Go over large splits twice, so that no figure has a bound left."
    )
    bootstrap: int = setting(
        1000, help="Resamples of the identities for 95 % intervals; 0 for no intervals."
    )
    seed: int = setting(0, help="Seed of the resamples of the identities.", rare=True)
    device: str = setting(
        "cpu",
        flag="--score-device",
        metavar="NAME",
        help="Where pairs of clips are compared: cpu or cuda.",
        rare=True,
    )

    def __post_init__(self) -> None:
        check_settings(self, "[score]")
        check_device("[score] device", self.device, ("cpu", "cuda"))
        check(len(self.far_list) > 0, "[score] fars", "names none")
        check(len(self.protocol_names) > 0, "[score] protocols", "names none")
        check(self.k >= 1, "[score] k", f"at least 1, not {self.k}")
        several = f"0 for none, or at least 2, not {self.bootstrap}"
        check(self.bootstrap >= 0 and self.bootstrap != 1, "[score] bootstrap", several)
        check(self.seed >= 0, "[score] seed", f"must be ≥ 0, not {self.seed}")
        for key in ("fars", "fpirs"):
            for text in getattr(self, f"{key[:-1]}_list"):
                check(
                    exact_rate(text) is not None, f"[score] {key}", f"'{text}' is no rate in (0, 1]"
                )
            listed = getattr(self, f"{key[:-1]}_list")
            check(len(set(listed)) == len(listed), f"[score] {key}", "one is listed twice")
        digits = all(rank.isdecimal() and int(rank) >= 1 for rank in split_list(self.ranks))
        check(digits, "[score] ranks", f"whole numbers from 1, not '{self.ranks}'")

    @property
    def protocol_names(self) -> tuple[str, ...]:
        """The protocols, in the order of `PROTOCOLS`, whatever order they were given in.

        >>> ScoreSettings(protocols="retrieval, verification").protocol_names
        ('verification', 'retrieval')
        """
        given = split_list(self.protocols)
        known = [name for name in PROTOCOLS if name in given]
        return (*known, *(name for name in given if name not in PROTOCOLS))

    @property
    def far_list(self) -> tuple[str, ...]:
        return split_list(self.fars)

    @property
    def fpir_list(self) -> tuple[str, ...]:
        return split_list(self.fpirs)

    @property
    def rank_list(self) -> tuple[int, ...]:
        return tuple(sorted({int(rank) for rank in split_list(self.ranks)}))

    @property
    def needs_gallery(self) -> bool:
        return any(name in NEED_GALLERY for name in self.protocol_names)
