"""The figure by which a threshold is chosen: mAP, or TAR at one target FAR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.values import exact_rate
from vidface.metrics.protocols.verification import VerificationProtocol
from vidface.metrics.settings import ScoreSettings

CRITERIA = ("map", "tar")


@dataclass(frozen=True)
class Criterion:
    """The figure that a threshold makes as large as possible."""

    figure: str  # of CRITERIA
    far: str | None = None  # the one target of "tar"; None: the lowest that has a figure

    @staticmethod
    def of(text: str, settings: ScoreSettings) -> Criterion:
        """Read "map", "tar" or "tar@1e-4"; a single target of the settings needs no name.

        >>> Criterion.of("tar@1e-4", ScoreSettings())
        Criterion(figure='tar', far='1e-4')
        """
        figure, at, far = text.partition("@")
        if figure not in CRITERIA or (at and figure != "tar"):
            raise UsageError(
                f"--select-by {text}: there are {' and '.join(CRITERIA)}, and tar@FAR at one "
                "target, such as tar@1e-4"
            )
        if at and exact_rate(far) is None:
            raise UsageError(f"--select-by {text}: '{far}' is no rate in (0, 1], such as 1e-4")
        if figure == "tar" and "verification" not in settings.protocol_names:
            raise UsageError(
                f"--select-by {text}: TAR is chosen by over all pairs of a split; add verification "
                f"to --protocols {settings.protocols}"
            )
        targets = settings.protocol(VerificationProtocol).far_list
        if figure == "tar" and not at and len(targets) == 1:
            return Criterion(figure, targets[0])
        return Criterion(figure, far or None)

    def add_target(self, settings: ScoreSettings) -> ScoreSettings:
        """Settings whose targets hold the criterion's; nothing is resampled for a choice."""
        targets = settings.protocol(VerificationProtocol).far_list
        if self.far is not None and self.far not in targets:
            targets = (*targets, self.far)
        return settings.replaced(fars=",".join(targets), bootstrap=0)

    def check_gallery(self, gallery: str | None, searched: Mapping[str, str | None]) -> None:
        """Refuse to choose by mAP without a gallery, or in the gallery itself.

        Args:
            searched: the splits that are searched, by flag.
        """
        if self.figure != "map":
            return
        remedy = "name another --gallery, or use --select-by tar, which needs no gallery"
        if gallery is None:
            raise VidfaceError(f"--select-by map has no gallery to enrol people from; {remedy}")
        for flag, split in searched.items():
            if split == gallery:
                raise VidfaceError(
                    f"{flag} {split} is its own gallery: every clip would find itself; {remedy}"
                )
