"""The table [backbone] of a pipeline file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vidface.core.values import check, check_choice


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
        check_choice(
            "[backbone] runtime", self.runtime, ("auto", "onnxruntime", "openvino", "torch")
        )
        check_choice("[backbone] precision", self.precision, ("float32", "bf16", "fp16"))
        check_choice("[backbone] device", self.device.split(":")[0], ("auto", "cpu", "cuda"))
        if self.color is not None:
            check_choice("[backbone] color", self.color, ("rgb", "bgr"))
        for name in ("mean", "std"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (0.0 if value is None else value,)
            fits = len(values) in (1, 3) and all(math.isfinite(v) for v in values)
            check(fits, f"[backbone] {name}", f"must be one finite number or three, not {value}")
        std = self.std if isinstance(self.std, tuple) else (1.0 if self.std is None else self.std,)
        check(all(v > 0 for v in std), "[backbone] std", f"must be above 0, not {self.std}")
