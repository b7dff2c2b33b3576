"""The table [backbone] of a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass

from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes import DEVICES, PRECISIONS, RUNTIMES
from vidface.core.errors import VidfaceError
from vidface.core.values import check_choice


@dataclass(frozen=True)
class BackboneSettings:
    """The recogniser: a name, or a path with its preprocessing (0–255 scale); what runs it."""

    weights: str = "sface"
    architecture: str | None = None
    color: str | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    size: int | None = None
    runtime: str = "auto"
    precision: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choice("[backbone] runtime", self.runtime, ("auto", *RUNTIMES))
        check_choice("[backbone] precision", self.precision, PRECISIONS)
        check_choice("[backbone] device", self.device.split(":")[0], ("auto", *DEVICES))
        try:
            _ = self.preprocessing
        except VidfaceError as error:
            raise VidfaceError(f"[backbone] {error}") from None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the recogniser is fed, as far as it is said here; None where nothing is."""
        if self.color is None and self.mean is None and self.std is None and self.size is None:
            return None
        return Preprocessing(self.color, self.mean, self.std, self.size)
