"""The table [score] of a pipeline file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from vidface.core.clips import SPLITS
from vidface.core.errors import VidfaceError
from vidface.core.settings import build_entry, check_settings, setting, settings_of, table_settings
from vidface.core.values import check, check_device, split_list
from vidface.metrics.protocols import PROTOCOLS
from vidface.metrics.protocols.base import ScoringProtocol

Kind = TypeVar("Kind", bound=ScoringProtocol)


@dataclass(frozen=True)
class ScoreSettings:
    """Which split is reported, from which split its identities are enrolled, and how.

    The settings of the protocols themselves, `fars` and `k` and the like, are in `parameters`: of
    those that are not given the usual ones. `protocol` makes a protocol of them.
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
    bootstrap: int = setting(
        1000, help="Resamples of the identities for 95 % intervals; 0 for no intervals."
    )
    seed: int = setting(
        0, help="Seed of the resamples of the identities.", bounds="[0, inf)", rare=True
    )
    device: str = setting(
        "cpu",
        flag="--score-device",
        metavar="NAME",
        help="Where pairs of clips are compared: cpu or cuda.",
        rare=True,
    )
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self, "[score]")
        check_device("[score] device", self.device, ("cpu", "cuda"))
        check(len(self.protocol_names) > 0, "[score] protocols", "names none")
        several = f"0 for none, or at least 2, not {self.bootstrap}"
        check(self.bootstrap >= 0 and self.bootstrap != 1, "[score] bootstrap", several)
        known = [setting.name for setting in table_settings(ScoreSettings)]
        for name in self.parameters:
            if name not in known:
                raise VidfaceError(f"[score] has no setting '{name}' (known: {', '.join(known)})")
        complete: dict[str, Any] = {}  # so that settings that mean the same are equal
        for kind in PROTOCOLS.values():
            protocol = self.protocol(kind)  # which checks its settings
            complete |= {f.name: getattr(protocol, f.name) for f in settings_of(kind)}
        object.__setattr__(self, "parameters", complete)

    @staticmethod
    def entries() -> Mapping[str, type[ScoringProtocol]]:
        """The protocols, whose settings are keys of the table."""
        return PROTOCOLS

    def protocol(self, kind: type[Kind]) -> Kind:
        """A protocol with these settings.

        >>> from vidface.metrics.protocols.retrieval import RetrievalProtocol
        >>> ScoreSettings(parameters={"k": 10}).protocol(RetrievalProtocol)
        RetrievalProtocol(k=10, enrolment='mean')
        """
        protocol: Kind = build_entry(kind, self.parameters)
        return protocol

    def replaced(self, **changes: Any) -> ScoreSettings:
        """As `dataclasses.replace`, for settings of the protocols, too.

        >>> ScoreSettings().replaced(bootstrap=0, k=10).parameters["k"]
        10
        """
        names = {field.name for field in dataclasses.fields(self)}
        own = {name: value for name, value in changes.items() if name in names}
        others = {name: value for name, value in changes.items() if name not in names}
        parameters = {**own.pop("parameters", self.parameters), **others}
        return dataclasses.replace(self, **own, parameters=parameters)

    @property
    def protocol_names(self) -> tuple[str, ...]:
        """The protocols, in the order of `PROTOCOLS`, whatever order they were given in.

        >>> ScoreSettings(protocols="retrieval, verification").protocol_names
        ('verification', 'retrieval')
        """
        listed = split_list(self.protocols)
        return tuple(name for name in PROTOCOLS if name in listed)

    @property
    def needs_gallery(self) -> bool:
        """Whether one of the protocols needs a gallery."""
        return any(PROTOCOLS[name].needs_gallery for name in self.protocol_names)

    @property
    def name_suffix(self) -> str:
        """What the name of a score file says of settings that are not the usual ones.

        >>> ScoreSettings(parameters={"convention": "nearest", "k": 10}).name_suffix
        '_k_10_nearest'
        """
        headline_first = sorted(PROTOCOLS.values(), key=lambda kind: not kind.is_headline)
        parts = [part for kind in headline_first for part in self.protocol(kind).name_parts()]
        return "".join(f"_{part}" for part in dict.fromkeys(parts))
