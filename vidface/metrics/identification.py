"""Identification: whose clip is this, if of anyone enrolled? CMC, and TPIR at FPIR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.metrics.bands import Draws
from vidface.metrics.conventions import DEFAULT_FPIRS, DEFAULT_RANKS
from vidface.metrics.curves import identification_block
from vidface.metrics.enrolment import MEMORY_BYTES, enrol
from vidface.metrics.figures import (
    NamedFigure,
    ProtocolResult,
    TextTable,
    describe_points,
    figure_dict,
    interval_dict,
)
from vidface.metrics.inputs import check_search, identity_codes, number_units
from vidface.metrics.operating_points import check_targets
from vidface.metrics.probes import Probes, find_highest_scores, rank_own_identities
from vidface.metrics.roc import Steps
from vidface.metrics.uncertainty import Bootstrap, Replicates, ratio_replicates

GALLERY_IS_FIXED = "the split's people are resampled; the gallery is held fixed"
"""Of the intervals: a resample has other probes, against the same enrolled people."""


@dataclass(frozen=True)
class OpenSetPoint:
    """TPIR at one target FPIR. All rates are fractions in [0, 1].

    `tpir` is None, and threshold, fpir and the accepted counts with it, where the split can't tell:
    it has fewer than 1/FPIR non-mated probes (then `needs_non_mated` says how many it takes), or
    enough of those but no mated one (then `needs_non_mated` is None).
    """

    target_fpir: str
    tpir: float | None
    threshold: float | None  # accept = score ≥ threshold; None: nothing is accepted
    fpir: float | None  # achieved: accepted non-mated probes / non-mated probes
    mated: int  # the denominator of TPIR
    non_mated: int  # the denominator of FPIR
    needs_non_mated: int | None
    accepted_mated: int | None = None
    accepted_non_mated: int | None = None
    replicates: Replicates | None = field(default=None, compare=False)

    @property
    def shortage(self) -> tuple[int, int] | None:
        """Non-mated probes that it takes and that there are; None where they are enough."""
        return None if self.needs_non_mated is None else (self.needs_non_mated, self.non_mated)

    @property
    def note(self) -> str:
        """Why there is no figure, for a table; empty where there is one."""
        if self.needs_non_mated is not None:
            return f"n/a: needs ≥ {self.needs_non_mated} non-mated probes"
        return "n/a: no mated probe" if self.tpir is None else ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        if self.tpir is None:
            return {"tpir": None, "needs_non_mated": self.needs_non_mated}
        return {
            "tpir": self.tpir,
            **interval_dict(self.replicates),
            "threshold": self.threshold,
            "fpir": self.fpir,
            "mated": self.mated,
            "non_mated": self.non_mated,
        }


@dataclass(frozen=True)
class RankPoint:
    """CMC at one rank: how often the right identity is among the first."""

    rank: int
    value: float | None  # a fraction in [0, 1]; None without a mated probe
    found: int  # mated probes at this rank or before
    mated: int
    replicates: Replicates | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**figure_dict(self.value, self.replicates), "found": self.found}


@dataclass(frozen=True, eq=False)
class Ranked:
    """The ranks of all mated probes, of which the whole CMC can be drawn."""

    ranks: NDArray[np.int64]  # (n_mated,) from 1; 0: a miss at any rank
    units: NDArray[np.int64]  # (n_mated,) the number of its identity: what a bootstrap draws
    n_units: int  # identities of the split, mated or not

    def __str__(self) -> str:
        return f"Ranked(({len(self.ranks)},) ranks of {self.n_units} identities)"


@dataclass(frozen=True)
class Identification(ProtocolResult):
    """What a split's clips, as probes, find in a gallery."""

    cmc: tuple[RankPoint, ...]  # in the order of the ranks asked for
    points: tuple[OpenSetPoint, ...]  # in the order of the targets
    mated: int
    non_mated: int
    without_descriptor: int  # probes, of both kinds
    mated_without_template: int  # whose identity's gallery clips have no direction: misses
    gallery_identities: int
    enrolment: str
    ranked: Ranked = field(repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"Identification({self.mated} mated and {self.non_mated} non-mated probes against "
            f"{self.gallery_identities} identities)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: {"cmc": {rank: …}, "tpir_at_fpir": {target: …}, counts}."""
        return {
            "cmc": {str(point.rank): point.to_dict() for point in self.cmc},
            "tpir_at_fpir": {point.target_fpir: point.to_dict() for point in self.points},
            "mated": self.mated,
            "non_mated": self.non_mated,
            "without_descriptor": self.without_descriptor,
            "mated_without_template": self.mated_without_template,
            "gallery_identities": self.gallery_identities,
            "enrolment": self.enrolment,
        }

    def figures(self) -> list[NamedFigure]:
        """CMC at each rank, TPIR at each target."""
        ranks = [
            NamedFigure(f"cmc.{p.rank}", f"rank {p.rank}", p.value, p.replicates, is_main=False)
            for p in self.cmc
        ]
        points = [
            NamedFigure(
                f"tpir_at_fpir.{p.target_fpir}",
                f"TPIR@FPIR {p.target_fpir}",
                p.tpir,
                p.replicates,
                p.note,
                is_main=False,
            )
            for p in self.points
        ]
        return [*ranks, *points]

    def describe(self, split: str, gallery: str | None) -> list[str | TextTable]:
        """CMC, the table of operating points, and the counts of probes."""
        ranked = self.figures()[: len(self.cmc)]
        width = max((len(figure.label) for figure in ranked), default=0)
        ranks = [f"  {figure.label:<{width}}  {figure.text}" for figure in ranked]
        counts = (
            f"{self.mated} mated and {self.non_mated} non-mated probes "
            f"against {self.gallery_identities} identities"
        )
        points = describe_points("TPIR", "FPIR", self.points, "non-mated probes")
        return ["identification", *ranks, *points, counts]

    def curves(self, draws: Draws) -> dict[str, Any] | None:
        """CMC at all ranks, with its band, and the open-set points."""
        return identification_block(self, draws)


def score_identification(
    gallery_descriptors: NDArray[np.floating[Any]],
    gallery_identities: Sequence[str],
    descriptors: NDArray[np.floating[Any]],
    identities: Sequence[str],
    *,
    ranks: Sequence[int] = DEFAULT_RANKS,
    fpirs: Sequence[str] = DEFAULT_FPIRS,
    enrolment: str = "mean",
    bootstrap: Bootstrap | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Identification:
    """Search every clip of a split in the gallery: closed-set CMC, open-set TPIR at FPIR.

    A probe is *mated* where its identity is in the gallery. All others are *non-mated*:
    distractors, and people outside of the gallery. A distractor that is somebody enrolled after
    all, unknown to the tables, counts as a false positive, so FPIR is an upper bound there.

    Scores are those of `score_retrieval`: exact inner products with what an identity is enrolled
    as, rounded to float32, clipped to [−1, 1]. The rank of a mated probe is 1 + the number of other
    enrolled identities whose score is at least its own identity's: ties count against it. A mated
    probe without a descriptor, or whose identity's gallery clips have none, has no rank: a miss
    that stays in the denominator.

        CMC(r) = mated probes of rank ≤ r / mated probes
        TPIR(t) = mated probes of rank 1 whose score ≥ t / mated probes
        FPIR(t) = non-mated probes whose highest score ≥ t / non-mated probes

    A non-mated probe without a descriptor is never a false positive, and stays in the denominator.
    Thresholds are observed scores (of mated probes of rank 1, and the highest of non-mated ones),
    or nothing is accepted (threshold None, TPIR 0, FPIR 0). The figure for a target is the largest
    TPIR whose FPIR ≤ target, the target taken as the exact fraction of its text: ``floor(target ×
    |non-mated|)`` false positives are allowed. The lowest observed threshold that honours the
    target is reported. A target with fewer than 1/FPIR non-mated probes has no figure.

    Args:
        gallery_descriptors: (n_gallery, d) float32 rows of norm 1, or zero for no descriptor.
        gallery_identities: n_gallery names; "" (a distractor) enrols no one.
        descriptors: (n_clips, d) float32, the split, in the same form. Not changed.
        identities: n_clips names; "" is a distractor.
        ranks: the r of CMC(r), each at least 1.
        fpirs: target FPIRs as decimal text ("1e-2"), each in (0, 1].
        enrolment: a name of `vidface.metrics.conventions.ENROLMENTS`: "mean" or "max".
        bootstrap: also resample people and distractors, for intervals: thresholds are found again
            in each resample, the gallery is held fixed.
        memory_bytes: bound for the working arrays, beside a copy of the descriptors and the
            templates. There is no probes × gallery array.

    Raises:
        VidfaceError: shapes that disagree, rows neither of norm 1 nor zero, NaN, a bad rank or
            target, an unknown enrolment.

    Source: ISO/IEC 19795-1 (CMC, TPIR, FPIR); NIST FRVT part 2, identification (NISTIR 8271),
    whose FNIR(N, R, T) with R = 1 is 1 − TPIR here. NIST often lets the mate stand at any rank
    that is returned, which is never less; and breaks ties by the order of the returned list.

    >>> import numpy as np
    >>> gallery = np.eye(2, dtype=np.float32)
    >>> clips = np.array([[0.8, 0.6], [0.6, 0.8], [1, 0], [0, -1]], dtype=np.float32)
    >>> result = score_identification(
    ...     gallery, ["ann", "bob"], clips, ["ann", "ann", "", "cy"], ranks=[1, 2], fpirs=["0.5"]
    ... )
    >>> [point.value for point in result.cmc]  # the second clip is nearer to bob
    [0.5, 1.0]
    >>> result.points[0].tpir, result.points[0].fpir, result.points[0].threshold
    (0.5, 0.5, 0.800000011920929)
    """
    check_ranks(ranks)
    targets = _check_fpirs(fpirs)
    search = check_search(
        gallery_descriptors, gallery_identities, descriptors, enrolment, memory_bytes
    )
    descriptors, has_direction = search.descriptors, search.has_direction
    codes = identity_codes(identities, len(descriptors), "identities")

    names = sorted(set(gallery_identities) - {""})
    templates = enrol(
        search.gallery, search.gallery_has_direction, gallery_identities, names, enrolment
    )
    numbers = {name: i for i, name in enumerate(names)}
    own_identities = np.array([numbers.get(name, -1) for name in identities], dtype=np.int64)
    probes = Probes(
        is_mated=own_identities >= 0,
        units=number_units(codes),
        n_identities=int(codes.max(initial=-1)) + 1,
        ranks=np.zeros(len(own_identities), dtype=np.int64),
        scores=np.full(len(own_identities), np.nan, dtype=np.float32),
    )
    enrolled = templates.sizes > 0
    has_rank = probes.is_mated & has_direction
    has_rank[has_rank] = enrolled[own_identities[has_rank]]
    mated = np.flatnonzero(has_rank)
    probes.ranks[mated], probes.scores[mated] = rank_own_identities(
        templates, own_identities[mated], descriptors[mated], memory_bytes
    )
    if enrolled.any():
        others = np.flatnonzero(~probes.is_mated & has_direction)
        probes.scores[others] = find_highest_scores(templates, descriptors[others], memory_bytes)

    replicates = {}
    if bootstrap is not None:
        replicates = _replicates_of_points(probes, targets, bootstrap)
    return Identification(
        cmc=tuple(_rank_point(probes, rank, bootstrap) for rank in ranks),
        points=tuple(
            _open_set_point(probes, text, target, replicates.get(text))
            for text, target in targets.items()
        ),
        mated=probes.n_mated,
        non_mated=probes.n_non_mated,
        without_descriptor=int((~has_direction).sum()),
        mated_without_template=int((~enrolled[own_identities[probes.is_mated]]).sum()),
        gallery_identities=len(names),
        enrolment=enrolment,
        ranked=Ranked(
            probes.ranks[probes.is_mated], probes.units[probes.is_mated], probes.n_identities
        ),
    )


def check_ranks(ranks: Sequence[int]) -> None:
    """Refuse ranks that are not whole numbers of at least 1, each once."""
    for rank in ranks:
        if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or rank < 1:
            raise VidfaceError(f"a rank is a whole number, at least 1, got {rank!r}")
    if len(set(ranks)) < len(ranks):
        raise VidfaceError(f"each rank once, got {list(ranks)}")


def _check_fpirs(fpirs: Sequence[str]) -> dict[str, Fraction]:
    try:
        return check_targets(fpirs)
    except VidfaceError as error:
        message = str(error).replace("fars", "fpirs").replace("FAR", "FPIR")
        raise VidfaceError(message) from None


def _rank_point(probes: Probes, rank: int, bootstrap: Bootstrap | None) -> RankPoint:
    is_found = (probes.ranks > 0) & (probes.ranks <= rank)
    n_found = int(np.count_nonzero(is_found))
    replicates = None
    if bootstrap is not None:
        replicates = ratio_replicates(
            np.bincount(probes.units[is_found], minlength=probes.n_identities),
            np.bincount(probes.units[probes.is_mated], minlength=probes.n_identities),
            bootstrap,
            GALLERY_IS_FIXED,
        )
    value = n_found / probes.n_mated if probes.n_mated else None
    return RankPoint(int(rank), value, n_found, probes.n_mated, replicates)


def _open_set_point(
    probes: Probes, text: str, target: Fraction, replicates: Replicates | None
) -> OpenSetPoint:
    n_mated, n_non_mated = probes.n_mated, probes.n_non_mated
    needed = math.ceil(1 / target)
    if n_mated == 0 or n_non_mated < needed:
        needs = needed if n_non_mated < needed else None
        return OpenSetPoint(
            text, None, None, None, n_mated, n_non_mated, needs, replicates=replicates
        )
    rows = np.concatenate(probes.falling())
    steps = Steps.of(probes.scores[rows].astype(np.float64), probes.is_mated[rows])
    allowed = math.floor(target * n_non_mated)
    threshold, right, wrong = steps.at(steps.accepting_at_most(allowed))
    tpir, fpir = right / n_mated, wrong / n_non_mated
    return OpenSetPoint(
        text, tpir, threshold, fpir, n_mated, n_non_mated, None, right, wrong, replicates
    )


def _replicates_of_points(
    probes: Probes, targets: dict[str, Fraction], bootstrap: Bootstrap
) -> dict[str, Replicates]:
    """TPIR at each target in every resample, its threshold found anew; by the target's text.

    The probes are sorted once. In a resample each counts as often as its unit was drawn, and sums
    from the highest score down take the place of counts.
    """
    firsts, others = probes.falling()
    n_distractors = int(probes.units.max(initial=-1)) + 1 - probes.n_identities
    # How many mated probes score above each of the others, and above none of them.
    rising = probes.scores[firsts][::-1]
    above = len(firsts) - np.searchsorted(rising, probes.scores[others], side="right")
    above = np.append(above, len(firsts))
    units_of_firsts, units_of_others = probes.units[firsts], probes.units[others]
    n_units = probes.n_identities + n_distractors
    mated_of_unit = np.bincount(probes.units[probes.is_mated], minlength=n_units)
    others_of_unit = np.bincount(probes.units[~probes.is_mated], minlength=n_units)

    values = {text: np.full(bootstrap.resamples, np.nan) for text in targets}
    for resample in range(bootstrap.resamples):
        weights = bootstrap.weights(resample, probes.n_identities, n_distractors)
        n_mated, n_non_mated = int(weights @ mated_of_unit), int(weights @ others_of_unit)
        accepted = np.concatenate([[0], np.cumsum(weights[units_of_firsts])])
        false = np.cumsum(weights[units_of_others])
        for text, target in targets.items():
            allowed = math.floor(target * n_non_mated)
            if n_mated and allowed:
                one_too_many = int(np.searchsorted(false, allowed, side="right"))
                values[text][resample] = accepted[above[one_too_many]] / n_mated
    return {text: Replicates(tpirs, GALLERY_IS_FIXED) for text, tpirs in values.items()}
