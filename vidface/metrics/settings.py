"""The table [score] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass

from vidface.core.clips import SPLITS
from vidface.core.values import check, check_choice, exact_rate, split_list

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

    gallery: str = "train"
    split: str = "val"
    protocols: str = "verification,retrieval,identification"
    fars: str = "1e-1,1e-2,1e-3,1e-4,1e-5,1e-6"
    fpirs: str = "1e-1,1e-2,1e-3"
    ranks: str = "1,5,10"
    k: int = 100
    enrolment: str = "mean"
    convention: str = "step"
    exact: bool = False
    bootstrap: int = 1000
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_choice("[score] device", self.device.split(":")[0], ("cpu", "cuda"))
        check(len(self.far_list) > 0, "[score] fars", "names none")
        check_choice("[score] gallery", self.gallery, SPLITS)
        check_choice("[score] split", self.split, SPLITS)
        for name in self.protocol_names:
            check_choice("[score] protocols", name, PROTOCOLS)
        check(len(self.protocol_names) > 0, "[score] protocols", "names none")
        check_choice("[score] enrolment", self.enrolment, ENROLMENT_NAMES)
        check_choice("[score] convention", self.convention, CONVENTION_NAMES)
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
