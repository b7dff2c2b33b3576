"""What a protocol is: a frozen dataclass of its settings with one verb, `score`.

Read for `--help`, so free of NumPy; the verb loads its body. Settings that several protocols share
stand in a common base class, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vidface.core.settings import check_settings, setting, settings_of
from vidface.core.values import check, exact_rate, split_list
from vidface.metrics.conventions import CONVENTIONS, DEFAULT_FARS, DEFAULT_K, ENROLMENTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vidface.executor.shards import Executor
    from vidface.metrics.figures import ProtocolResult
    from vidface.metrics.uncertainty import Bootstrap


@dataclass(frozen=True, eq=False)
class ScoringTask:
    """The clips of a split, those of the gallery, and how the work is done."""

    descriptors: NDArray[np.float32]  # (n_clips, d), rows of norm 1, or zero for none
    identities: Sequence[str]  # of each clip; "" is a distractor
    clip_ids: Sequence[str]
    gallery_descriptors: NDArray[np.float32]  # (n_gallery, d); no row where none is needed
    gallery_identities: Sequence[str]
    bootstrap: Bootstrap | None = None
    progress: Callable[[int], None] | None = None  # pairs counted since the last call
    device: str | None = None  # None: NumPy
    executor: Executor | None = None

    def __str__(self) -> str:
        return f"ScoringTask({len(self.clip_ids)} clips, {len(self.gallery_identities)} of gallery)"


@dataclass(frozen=True)
class ScoringProtocol(ABC):
    """A way to score a split."""

    needs_gallery: ClassVar[bool] = False
    is_headline: ClassVar[bool] = False  # its section stands first in files and tables
    in_sweeps: ClassVar[bool] = True  # False: not worth its time at every threshold
    table_names: ClassVar[tuple[str, ...]] = ()  # the CSV files that may lie beside the score file

    def __post_init__(self) -> None:
        check_settings(self, "[score]")

    @abstractmethod
    def score(self, task: ScoringTask) -> ProtocolResult:
        """Score the split."""

    def recorded_settings(self) -> dict[str, Any]:
        """The settings as the provenance of a score records them."""
        return {field.name: getattr(self, field.name) for field in settings_of(type(self))}

    def name_parts(self) -> tuple[str, ...]:
        """What of the settings the score file's name says; nothing where all is as usual."""
        return ()


@dataclass(frozen=True)
class PairProtocol(ScoringProtocol):
    """Protocols over pairs of clips: TAR at target FARs."""

    fars: str = setting(
        ",".join(DEFAULT_FARS),
        metavar="LIST",
        help="Target false accept rates of TAR@FAR, such as 1e-3,1e-4.",
    )
    convention: str = setting(
        "step",
        metavar="NAME",
        help="How TAR@FAR is read off: step, the largest TAR with a FAR at most the target; "
        "nearest, as common scripts do.",
        choices=CONVENTIONS,
        rare=True,
    )
    exact: bool = setting(
        False, help="Go over large splits twice, so that no figure has a bound left."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.far_list) > 0, "[score] fars", "names none")
        check_rates("fars", self.far_list)

    @property
    def far_list(self) -> tuple[str, ...]:
        """The target FARs: exact decimal texts."""
        return split_list(self.fars)

    def pair_options(self, task: ScoringTask) -> dict[str, Any]:
        """How pairs are counted and figures read, as the scoring functions take it."""
        return {
            "convention": self.convention,
            "exact": self.exact,
            "bootstrap": task.bootstrap,
            "device": task.device,
            "progress": task.progress,
            "executor": task.executor,
        }

    def recorded_settings(self) -> dict[str, Any]:
        return {**super().recorded_settings(), "fars": list(self.far_list)}

    def name_parts(self) -> tuple[str, ...]:
        parts = super().name_parts()
        return parts if self.convention == "step" else (*parts, self.convention)


@dataclass(frozen=True)
class RankedListProtocol(ScoringProtocol):
    """Protocols over ranked lists of clips."""

    k: int = setting(
        DEFAULT_K, help="How many ranks of a retrieved list count: mAP@k.", bounds="[1, inf)"
    )

    def name_parts(self) -> tuple[str, ...]:
        parts = super().name_parts()
        return parts if self.k == DEFAULT_K else (*parts, f"k_{self.k}")


@dataclass(frozen=True)
class EnrolledProtocol(ScoringProtocol):
    """Protocols that search the identities of a gallery."""

    needs_gallery: ClassVar[bool] = True

    enrolment: str = setting(
        "mean",
        metavar="NAME",
        help="How an identity's gallery clips are enrolled: mean of their descriptors, or max, "
        "where its best match counts.",
        choices=ENROLMENTS,
        rare=True,
    )

    def name_parts(self) -> tuple[str, ...]:
        parts = super().name_parts()
        return parts if self.enrolment == "mean" else (*parts, self.enrolment)


def check_rates(key: str, texts: Sequence[str]) -> None:
    """Refuse texts that are no rates, or one that is listed twice."""
    for text in texts:
        check(exact_rate(text) is not None, f"[score] {key}", f"'{text}' is no rate in (0, 1]")
    check(len(set(texts)) == len(texts), f"[score] {key}", "one is listed twice")
