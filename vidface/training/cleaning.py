"""Cleaning: cut long-tail identities and images that teach the wrong thing.

The paper's section 3.3 cuts long-tail identities and shows in Figure 5 three kinds of images "which
will lead to bad results": (a) poor quality, (b) wrong label, (c) hard example, the same person in
another domain. It prints no rule. The rule here looks at embeddings under the current model, and
`cut_images` says it in full. Its thresholds hang on the model: the defaults suit SFace, whose faces
of one person have a median cosine of 0.75 to their centre. Look at what is cut before using it
(`Cut.table` lists it).

To tell another domain of a person from a coherent group of a stranger's images, an embedding is not
enough where the model has never seen that domain: `stranger_cosine` is where the line is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.noise.clusters import cluster_frames
from vidface.vectors.batches import on_device
from vidface.vectors.rows import check_embeddings, unit_rows

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_BYTES = 2**28
"""The default budget of `cut_images` for its blocks, beside the centres."""

_COLUMNS = 8192  # centres a block: products that stay in the cache


class Reason(IntEnum):
    """Why an image is cut; `KEPT`: it is not."""

    KEPT = 0
    LONG_TAIL = 1
    QUALITY = 2
    WRONG_LABEL = 3
    OTHER_DOMAIN = 4
    SURPLUS = 5
    NO_DIRECTION = 6  # an embedding that is NaN, infinite or zero


_SETTINGS_OF = {
    Reason.LONG_TAIL: ("min_images",),
    Reason.QUALITY: ("quality_quantile", "quality_cosine"),
    Reason.WRONG_LABEL: ("own_cosine", "other_margin", "stranger_cosine"),
    Reason.OTHER_DOMAIN: ("domain_images", "domain_link", "domain_cosine"),
}


@dataclass(frozen=True)
class CutSettings:
    """What to cut. None turns a part off; a value equal to its threshold stays, unless said so.

    Attributes:
        min_images: identities with fewer images are long tail. ≥ 1.
        max_images: of identities with more, so many are kept. ≥ min_images.
        own_cosine: an image below it to its own centre, but not to another one, may have a wrong
            label, in [−1, 1].
        other_margin: it has one where the other's is the larger by at least this, in [0, 2].
        stranger_cosine: an image below it is nobody's whom its label names, in [−1, own_cosine]
            where that is given. Also a coherent group is another domain only from here on.
        quality_quantile: the share of all images that a quality measure calls poor, in [0, 1]
        quality_cosine: and which are cut where below this cosine to their own centre, in [−1, 1].
        domain_images: so many images of a group make a domain, ≥ 2.
        domain_link: they are joined where their cosine is above, in (−1, 1).
        domain_cosine: and cut where their centre's cosine to the identity's is below, in [−1, 1].

    Raises:
        VidfaceError: a value out of range.

    >>> print(CutSettings(min_images=5, quality_quantile=None, domain_images=None))
    CutSettings(min_images 5, own_cosine 0.4, other_margin 0.1, stranger_cosine 0.2)
    """

    min_images: int | None = 10
    max_images: int | None = None
    own_cosine: float | None = 0.4
    other_margin: float = 0.1
    stranger_cosine: float | None = 0.2
    quality_quantile: float | None = 0.05
    quality_cosine: float = 0.4
    domain_images: int | None = 4
    domain_link: float = 0.4
    domain_cosine: float = 0.5

    def __post_init__(self) -> None:
        _check_count("min_images", self.min_images, 1)
        _check_count("max_images", self.max_images, self.min_images or 1)
        _check_number("own_cosine", self.own_cosine, -1, 1)
        _check_number("other_margin", self.other_margin, 0, 2)
        highest = 1 if self.own_cosine is None else self.own_cosine
        _check_number("stranger_cosine", self.stranger_cosine, -1, highest)
        _check_number("quality_quantile", self.quality_quantile, 0, 1)
        _check_number("quality_cosine", self.quality_cosine, -1, 1)
        _check_count("domain_images", self.domain_images, 2)
        _check_number("domain_link", self.domain_link, -1, 1)
        _check_number("domain_cosine", self.domain_cosine, -1, 1)
        for name in ("other_margin", "quality_cosine", "domain_link", "domain_cosine"):
            if getattr(self, name) is None:
                raise VidfaceError(f"{name} must be a number, got None")

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


@dataclass(frozen=True)
class Cut:
    """What is kept of n images, and why the others are not."""

    labels: NDArray[np.int64]  # (n,)
    reason: NDArray[np.int8]  # (n,) a Reason each
    own_cosine: NDArray[np.float32]  # (n,) to the own identity's centre; NaN: it was gone by then
    other: NDArray[np.int64]  # (n,) nearest other identity's label; −1: not looked for, or none
    other_cosine: NDArray[np.float32]  # (n,) to its centre; NaN where there is none

    def __post_init__(self) -> None:
        n = len(self.labels)
        for name in ("labels", "reason", "own_cosine", "other", "other_cosine"):
            if getattr(self, name).shape != (n,):
                raise VidfaceError(
                    f"Cut: {name} must be ({n},), got the shape {getattr(self, name).shape}"
                )

    @property
    def keep(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        return self.reason == Reason.KEPT

    @property
    def counts(self) -> dict[str, int]:
        """Images by reason, "kept" included: {"kept": 90, "long_tail": 3, …}."""
        counts = np.bincount(self.reason, minlength=len(Reason)).tolist()
        return {reason.name.lower(): counts[reason] for reason in Reason}

    @property
    def identities(self) -> tuple[int, int]:
        """Identities before, and those of which images are kept."""
        return len(np.unique(self.labels)), len(np.unique(self.labels[self.keep]))

    def __str__(self) -> str:
        before, after = self.identities
        counts = self.counts
        cut = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != "kept")
        return (
            f"Cut({counts['kept']} of {len(self.labels)} images, {after} of {before} identities "
            f"kept; {cut or 'none'} cut)"
        )

    def table(
        self, images: Sequence[str], identities: Sequence[str], *, kept: bool = False
    ) -> pa.Table:
        """A row for every image that is cut, in their order, as a log.

        Columns: image, identity, reason (strings), own_cosine (float32), nearest_identity (string)
        and nearest_cosine (float32); null: not known.

        Args:
            images: (n,) their names.
            identities: names by label.
            kept: also the images that are kept.

        Raises:
            VidfaceError: names that do not fit the labels.
        """
        import pyarrow as pa

        if len(images) != len(self.labels):
            raise VidfaceError(f"{len(images)} image names for {len(self.labels)} images")
        if len(self.labels) and self.labels.max() >= len(identities):
            raise VidfaceError(
                f"{len(identities)} identities, but an image has the label {self.labels.max()}"
            )
        rows = np.arange(len(self.labels)) if kept else np.flatnonzero(~self.keep)
        names = pa.array([str(name) for name in identities], pa.string())
        reasons = pa.array([reason.name.lower() for reason in Reason], pa.string())
        other = self.other[rows]
        none = other < 0
        return pa.table(
            {
                "image": pa.array([str(images[i]) for i in rows.tolist()], pa.string()),
                "identity": names.take(pa.array(self.labels[rows])),
                "reason": reasons.take(pa.array(self.reason[rows].astype(np.int64))),
                "own_cosine": pa.array(self.own_cosine[rows], from_pandas=True),
                "nearest_identity": names.take(pa.array(other, mask=none)),
                "nearest_cosine": pa.array(self.other_cosine[rows], from_pandas=True),
            }
        )


def cut_images(
    embeddings: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    settings: CutSettings | None = None,
    *,
    quality: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
) -> Cut:
    """Which images to train on, by what the current model makes of them.

    Centres are those of `identity_centres`, "cosine" is an image's to its own one. In this order,
    an image keeping the first reason that it gets:

    1. NO_DIRECTION: its embedding is NaN, infinite or zero. Always cut.
    2. LONG_TAIL: its identity has fewer than `min_images` images with a direction. Such identities
       take part in nothing that follows: the centre of one or two images is no witness.
    3. QUALITY: a measure is below its `quality_quantile` (of all images then left; NaN counts as
       below) and the cosine below `quality_cosine`. Blur alone does no harm.
    4. WRONG_LABEL: the cosine is below `own_cosine`, that to another identity's centre is not, and
       is the larger by at least `other_margin`. (Far from both says nothing about the other.)
    5. OTHER_DOMAIN: the image is in a coherent minority. Of an identity's images then left,
       single linkage joins those with a cosine above `domain_link` (`vidface.cluster_frames`); a
       cluster of `domain_images` or more, yet fewer than half, is cut where its own centre (the
       normalised mean) has a cosine below `domain_cosine` to the identity's, but not below
       `stranger_cosine`.
    6. WRONG_LABEL: the cosine is below `stranger_cosine`, whoever it shows.
    7. SURPLUS: its identity still has more than `max_images`. Kept are those at evenly spaced
       ranks of the cosine, the highest among them: the easy ones get no preference.
    8. LONG_TAIL: its identity has fewer than `min_images` left.

    Args:
        embeddings: (n, d) floats, any norm; may be a memory map. Not changed.
        labels: (n,) whole numbers ≥ 0.
        settings: what to cut; None for the defaults.
        quality: measures by name, (n,) each, higher is better: `sharpness`, `contrast`, the norms
            of raw embeddings, … Without them nothing is cut for its quality.
        memory_bytes: for the blocks that embeddings are worked on in. Beside it there are the
            centres, a few numbers an image, and the embeddings of the largest identity.
        device: None for NumPy; else PyTorch's name of where the nearest centres are looked for.

    Raises:
        VidfaceError: shapes or labels that do not fit, no images, or nothing is left: it says
            which settings were too strict.

    Source: Chai et al., "A Progressive Learning Framework for Unconstrained Face Recognition",
    section 3.3 and Figure 5, which name the kinds and no rule.

    >>> degrees = np.radians([0, 2, 4, 6, 85, 90, 92, 94, 96])
    >>> faces = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    >>> people = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    >>> cut = cut_images(faces, people, CutSettings(min_images=3))
    >>> print(cut)
    Cut(8 of 9 images, 2 of 2 identities kept; 1 wrong_label cut)
    >>> cut.reason
    array([0, 0, 0, 0, 3, 0, 0, 0, 0], dtype=int8)
    """
    settings = CutSettings() if settings is None else settings
    if memory_bytes < 1:
        raise VidfaceError(f"memory_bytes must be positive, got {memory_bytes}")
    embeddings, labels = _checked(embeddings, labels)
    measures = _checked_quality(quality or {}, len(labels))
    values, inverse = np.unique(labels, return_inverse=True)
    people = _People(embeddings, inverse, len(values), memory_bytes)
    work = _Work(people, settings, np.where(people.usable, Reason.KEPT, Reason.NO_DIRECTION))
    work.cut_long_tail()
    centres = people.centres(work.left)
    own = people.own_cosines(centres, work.left)
    other, other_cosine = _nearest_others(people, centres, _doubtful(own, settings), device)
    work.cut_quality(own, measures)
    work.cut_wrong_labels(own, other_cosine)
    work.cut_other_domains(own, centres)
    work.cut_strangers(own)
    work.cut_surplus(own)
    work.cut_long_tail()
    if not work.left.any():
        raise _nothing_left(work.reason, settings)
    return Cut(
        labels,
        work.reason.astype(np.int8),
        own,
        np.where(other < 0, -1, values[other]),
        other_cosine,
    )


def identity_centres(
    embeddings: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The direction of each identity, which a minority of wrong labels does not move.

    First the mean of the identity's unit embeddings. The image nearest to it is the medoid (the
    sum of its cosines to all others is the largest). Then the mean of those images whose cosine to
    it is at least the identity's (lower) median: the nearer half and one. (One concentration step
    of Rousseeuw and Van Driessen, "A Fast Algorithm for the Minimum Covariance Determinant
    Estimator", 1999.)

    Args:
        embeddings: (n, d) floats, any norm; those without a direction count for nothing.
        labels: (n,) whole numbers ≥ 0.
        memory_bytes: for the blocks that embeddings are worked on in.

    Returns:
        (C,) the labels there are, rising, and (C, d) float32 their centres, of length one, or
        zero for an identity whose embeddings have no direction or cancel out.

    Raises:
        VidfaceError: shapes or labels that do not fit.

    >>> faces = np.array([[1, 0], [2, 0], [0, 1], [0, -3], [5, 0], [0, 0]], dtype=np.float32)
    >>> identity_centres(faces, np.array([3, 3, 3, 8, 3, 9]))
    (array([3, 8, 9]), array([[ 1.,  0.], [ 0., -1.], [ 0.,  0.]], dtype=float32))
    """
    embeddings, labels = _checked(embeddings, labels)
    values, inverse = np.unique(labels, return_inverse=True)
    people = _People(embeddings, inverse, len(values), memory_bytes)
    return values, people.centres(people.usable)


def sharpness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How sharp images are: the variance of the Laplacian of their grey values.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000 (LAPV). The Laplacian
    is the sum of the four neighbours minus four times the pixel.

    Args:
        images: (n, 112, 112, 3) uint8 RGB; other sizes of 3x3 and more are taken, too.

    Returns:
        (n,) float32, ≥ 0; 0 for one colour all over.

    Raises:
        VidfaceError: another shape or type.

    >>> flat, striped = np.zeros((2, 112, 112, 3), np.uint8)
    >>> striped[::2] = 255
    >>> sharpness(np.stack([flat, striped])).tolist()
    [0.0, 260100.0]
    """
    import cv2

    found = np.empty(len(_checked_images(images)), np.float32)
    for i, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found[i] = cv2.Laplacian(grey, cv2.CV_64F).var()
    return found


def contrast(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The standard deviation of the grey values of images.

    Args:
        images: (n, 112, 112, 3) uint8 RGB, as for `sharpness`.

    Returns:
        (n,) float32 in [0, 127.5].

    Raises:
        VidfaceError: another shape or type.

    >>> half = np.zeros((1, 112, 112, 3), np.uint8)
    >>> half[:, :56] = 100
    >>> contrast(half).tolist()
    [50.0]
    """
    import cv2

    found = np.empty(len(_checked_images(images)), np.float32)
    for i, image in enumerate(images):
        found[i] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).std()
    return found


class _People:
    """Embeddings by identity, read in blocks that fit into the budget."""

    def __init__(
        self,
        embeddings: NDArray[np.floating[Any]],
        identities: NDArray[np.int64],
        n_identities: int,
        memory_bytes: int,
    ) -> None:
        self.embeddings = embeddings
        self.identities = identities  # (n,) in [0, n_identities)
        self.n_identities = n_identities
        self.order = np.argsort(identities, kind="stable")
        # the rows as they are, float32 and float64 copies of them, and a row of products
        row_bytes = embeddings.shape[1] * (embeddings.itemsize + 4 + 8) + 4 * _COLUMNS + 64
        self.block_rows = max(1, memory_bytes // row_bytes)
        self.usable = np.zeros(len(identities), bool)
        for rows in self.blocks(np.arange(len(identities))):
            self.usable[rows] = unit_rows(embeddings[rows])[1]

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(rows), self.block_rows):
            yield rows[start : start + self.block_rows]

    def unit(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return unit_rows(self.embeddings[rows])[0]

    def means(
        self, rows: NDArray[np.int64], groups: NDArray[np.int64], n_groups: int
    ) -> NDArray[np.float32]:
        """(n_groups, d) directions of the mean of the rows of each group; `groups` do not fall."""
        sums = np.zeros((n_groups, self.embeddings.shape[1]))
        done = 0
        for block in self.blocks(rows):
            own = groups[done : done + len(block)]
            starts = np.flatnonzero(np.diff(own, prepend=-1))
            # float64, so that the borders of blocks make no difference
            sums[own[starts]] += np.add.reduceat(self.unit(block).astype(np.float64), starts)
            done += len(block)
        # What cancels out has no direction, though rounding leaves it one.
        sums[np.einsum("ij,ij->i", sums, sums) < 1e-12] = 0
        return unit_rows(sums)[0]

    def centres(self, among: NDArray[np.bool_]) -> NDArray[np.float32]:
        """See `identity_centres`; only of the images `among`."""
        rows = self.order[among[self.order]]
        first = self.means(rows, self.identities[rows], self.n_identities)
        cosines = self.own_cosines(first, among)[rows]
        near = cosines >= _medians(cosines, self.identities[rows], self.n_identities)
        return self.means(rows[near], self.identities[rows[near]], self.n_identities)

    def own_cosines(
        self, centres: NDArray[np.float32], among: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """(n,) float32, NaN for images that are not `among`."""
        found = np.full(len(self.identities), np.nan, np.float32)
        for rows in self.blocks(np.flatnonzero(among)):
            found[rows] = np.einsum("ij,ij->i", self.unit(rows), centres[self.identities[rows]])
        return found


def _medians(
    values: NDArray[np.float32], groups: NDArray[np.int64], n_groups: int
) -> NDArray[np.float32]:
    """(len(values),) the lower median of each one's group; `groups` do not fall."""
    sizes = np.bincount(groups, minlength=n_groups)
    ordered = values[np.lexsort((values, groups))]
    middles = np.cumsum(sizes) - sizes + (sizes - 1) // 2
    return np.repeat(ordered[middles[sizes > 0]], sizes[sizes > 0])


class _Work:
    """Images losing their place one rule after the other."""

    def __init__(
        self, people: _People, settings: CutSettings, reason: NDArray[np.signedinteger[Any]]
    ) -> None:
        self.people, self.settings, self.reason = people, settings, reason

    @property
    def left(self) -> NDArray[np.bool_]:
        return self.reason == Reason.KEPT

    @property
    def sizes(self) -> NDArray[np.int64]:
        people = self.people
        return np.bincount(people.identities[self.left], minlength=people.n_identities)

    def cut(self, which: NDArray[np.bool_], reason: Reason) -> None:
        self.reason[which & self.left] = reason

    def cut_long_tail(self) -> None:
        if self.settings.min_images is not None:
            few = self.sizes < self.settings.min_images
            self.cut(few[self.people.identities], Reason.LONG_TAIL)

    def cut_quality(
        self, own: NDArray[np.float32], measures: Mapping[str, NDArray[np.float64]]
    ) -> None:
        quantile, left = self.settings.quality_quantile, self.left
        if quantile is None:
            return
        for measure in measures.values():
            known = measure[left & ~np.isnan(measure)]
            poor = np.isnan(measure)
            if len(known):
                poor |= measure < np.quantile(known, quantile, method="higher")
            self.cut(poor & (own < _float32(self.settings.quality_cosine)), Reason.QUALITY)

    def cut_wrong_labels(self, own: NDArray[np.float32], other_cosine: NDArray[np.float32]) -> None:
        if self.settings.own_cosine is not None:
            least = _float32(self.settings.own_cosine)
            nearer = other_cosine - own >= _float32(self.settings.other_margin)  # False for NaN
            self.cut((own < least) & (other_cosine >= least) & nearer, Reason.WRONG_LABEL)

    def cut_strangers(self, own: NDArray[np.float32]) -> None:
        if self.settings.stranger_cosine is not None:
            self.cut(own < _float32(self.settings.stranger_cosine), Reason.WRONG_LABEL)

    def cut_other_domains(self, own: NDArray[np.float32], centres: NDArray[np.float32]) -> None:
        settings, people = self.settings, self.people
        if settings.domain_images is None:
            return
        # A cluster's centre is below the cosine only where one of its images is, too.
        far = own < _float32(settings.domain_cosine)
        doubtful = np.bincount(people.identities[far & self.left], minlength=people.n_identities)
        rows = people.order[(self.left & (doubtful > 0)[people.identities])[people.order]]
        for some in _whole_identities(rows, people.identities, people.block_rows):
            self._cut_domains_of(some, centres)

    def _cut_domains_of(self, rows: NDArray[np.int64], centres: NDArray[np.float32]) -> None:
        settings, people = self.settings, self.people
        starts = np.flatnonzero(np.diff(people.identities[rows], prepend=-1))
        offsets = np.append(starts, len(rows))
        clusters = cluster_frames(people.unit(rows), offsets, settings.domain_link)
        sizes = np.repeat(np.diff(offsets), np.diff(offsets))
        owners = np.repeat(np.arange(len(starts)), np.diff(offsets))
        by_cluster = np.lexsort((clusters, owners))
        new = np.diff(owners[by_cluster], prepend=-1) | np.diff(clusters[by_cluster], prepend=-1)
        groups = np.cumsum(new != 0) - 1
        counts = np.bincount(groups)
        members = rows[by_cluster]
        firsts = np.flatnonzero(new)
        means = people.means(members, groups, len(counts))
        own = centres[people.identities[members[firsts]]]
        cosines = np.einsum("ij,ij->i", means, own)
        domain = (counts >= (settings.domain_images or 0)) & (
            2 * counts < sizes[by_cluster[firsts]]
        )
        domain &= cosines < _float32(settings.domain_cosine)
        if settings.stranger_cosine is not None:
            domain &= cosines >= _float32(settings.stranger_cosine)
        self.reason[members[domain[groups]]] = Reason.OTHER_DOMAIN

    def cut_surplus(self, own: NDArray[np.float32]) -> None:
        most, people = self.settings.max_images, self.people
        if most is None:
            return
        rows = np.flatnonzero(self.left)
        rows = rows[np.lexsort((rows, -own[rows], people.identities[rows]))]
        sizes = self.sizes
        ranks = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        n = np.repeat(sizes, sizes)
        # Rank r of n is kept where r·most/n reaches a new whole number: `most` of them, or all.
        kept = ranks * most // n != (ranks * most - most) // n
        self.reason[rows[~kept]] = Reason.SURPLUS


def _whole_identities(
    rows: NDArray[np.int64], identities: NDArray[np.int64], most: int
) -> Iterator[NDArray[np.int64]]:
    """Rows in pieces of about `most`, no identity in two of them."""
    starts = np.flatnonzero(np.diff(identities[rows], prepend=-1))
    ends = np.append(starts[1:], len(rows))
    begin = 0
    while begin < len(rows):
        fit = int(np.searchsorted(ends, begin + most, side="right")) - 1
        end = int(ends[max(fit, int(np.searchsorted(starts, begin)))])
        yield rows[begin:end]
        begin = end


def _doubtful(own: NDArray[np.float32], settings: CutSettings) -> NDArray[np.bool_]:
    """Images whose nearest other identity decides, or is worth a look in the log."""
    highest = settings.own_cosine
    for value, on in (
        (settings.stranger_cosine, True),
        (settings.quality_cosine, settings.quality_quantile is not None),
        (settings.domain_cosine, settings.domain_images is not None),
    ):
        if on and value is not None:
            highest = value if highest is None else max(highest, value)
    return np.zeros(len(own), bool) if highest is None else own < _float32(highest)


def _nearest_others(
    people: _People,
    centres: NDArray[np.float32],
    which: NDArray[np.bool_],
    device: str | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n,) the identity, not the own, with the nearest centre (−1: none), (n,) the cosine.

    A block of images at a time against a block of centres; the first of equal ones is taken.
    """
    other = np.full(len(which), -1, np.int64)
    cosine = np.full(len(which), np.nan, np.float32)
    candidates = np.flatnonzero(centres.any(axis=1))
    columns = centres[candidates]
    places = np.full(people.n_identities, -1, np.int64)
    places[candidates] = np.arange(len(candidates))
    for rows in people.blocks(np.flatnonzero(which)):
        best = np.full(len(rows), -np.inf, np.float32)
        found = np.full(len(rows), -1, np.int64)
        unit, own = people.unit(rows), places[people.identities[rows]]
        numbers = np.arange(len(rows))
        for start in range(0, len(candidates), _COLUMNS):
            block = columns[start : start + _COLUMNS]
            place, value = on_device(device, _best_of_block, unit, block, own - start, numbers)
            better = value > best
            best[better], found[better] = value[better], place[better] + start
        known = found >= 0
        other[rows[known]], cosine[rows[known]] = candidates[found[known]], best[known]
    return other, cosine


def _best_of_block(unit: Any, block: Any, own: Any, numbers: Any) -> tuple[Any, Any]:
    """(b,) the place of the nearest centre but the own, (b,) its cosine: NumPy's or PyTorch's."""
    products = unit @ block.T
    inside = numbers[(own >= 0) & (own < len(block))]
    products[inside, own[inside]] = -np.inf
    places = products.argmax(1)
    return places, products[numbers, places]


def _nothing_left(reasons: NDArray[np.signedinteger[Any]], settings: CutSettings) -> VidfaceError:
    counts = np.bincount(reasons, minlength=len(Reason))
    if counts[Reason.NO_DIRECTION] == len(reasons):
        return VidfaceError("no embedding has a direction: all are NaN, infinite or zero")
    parts = []
    for reason in sorted(_SETTINGS_OF, key=lambda r: -counts[r]):
        if counts[reason]:
            names = [n for n in _SETTINGS_OF[reason] if getattr(settings, n) is not None]
            values = ", ".join(f"{name} {getattr(settings, name)}" for name in names)
            parts.append(f"{counts[reason]} as {reason.name.lower()} ({values})")
    return VidfaceError(
        f"all {len(reasons)} images would be cut, {', '.join(parts)}; "
        "the first of these is too strict"
    )


def _checked(
    embeddings: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    embeddings = check_embeddings(embeddings)
    array = np.asarray(labels)
    if array.shape != (len(embeddings),) or array.dtype.kind not in "iu":
        raise VidfaceError(
            f"labels must be ({len(embeddings)},) whole numbers, one an embedding, "
            f"got the shape {array.shape} of {array.dtype}"
        )
    if not len(array):
        raise VidfaceError("there are no images to clean")
    array = array.astype(np.int64, copy=False)
    if array.min() < 0:  # also of a number that int64 does not hold
        i = int(np.argmin(array))
        raise VidfaceError(f"image {i} has the label {labels[i]}; labels are in [0, 2^63)")
    return embeddings, array


def _checked_quality(
    quality: Mapping[str, NDArray[np.floating[Any]]], n: int
) -> dict[str, NDArray[np.float64]]:
    measures = {}
    for name, values in quality.items():
        array = np.asarray(values)
        if array.shape != (n,) or array.dtype.kind not in "fiu":
            raise VidfaceError(
                f"quality '{name}' must be ({n},) numbers, one an image, "
                f"got the shape {array.shape} of {array.dtype}"
            )
        measures[name] = array.astype(np.float64)
    return measures


def _checked_images(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array = np.asarray(images)
    if (
        array.ndim != 4
        or array.shape[3] != 3
        or min(array.shape[1:3]) < 3
        or array.dtype != np.uint8
    ):
        raise VidfaceError(
            f"images must be (n, 112, 112, 3) uint8 RGB, got {array.shape} {array.dtype}"
        )
    return array


def _float32(value: float) -> np.float32:
    """A threshold as the cosines are: equal stays equal."""
    return np.float32(value)


def _check_count(name: str, value: int | None, least: int) -> None:
    if value is None:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise VidfaceError(f"{name} must be a whole number ≥ {least} or None, got {value!r}")


def _check_number(name: str, value: float | None, least: float, most: float) -> None:
    if value is None:
        return
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # NaN is not, either
        raise VidfaceError(f"{name} must lie in [{least}, {most}], got {value!r}")
