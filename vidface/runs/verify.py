"""`vidface verify`: a recogniser on a set of face pairs, as papers report it for LFW."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.errors import ClipError, VidfaceError
from vidface.core.progress import CountProgress, Notify, quiet
from vidface.metrics.pairs import score_pairs
from vidface.runs import artefacts
from vidface.runs.trying import Trial

if TYPE_CHECKING:
    from vidface.backbones.embedder import Embedder
    from vidface.datasets.pairs import PairSet
    from vidface.metrics.pairs import PairScore

IMAGES_AT_ONCE = 256  # held in memory as pictures
PAIRS_AT_ONCE = 2**15  # whose embeddings are multiplied
PAIRS_TRIED = 24  # of one person, and of two; their images fit one load
NO_EMBEDDING_SCORE = -1.0  # of a pair whose image is missing or broken: it stays in the counts


@dataclass(frozen=True)
class Verified:
    """The figures of a recogniser on a set, and what they were measured with."""

    score: PairScore
    pairs: str
    origin: str  # of pairs that nobody listed
    images: int
    failed: tuple[str, ...]  # one line an image that could not be used
    flip: bool
    recogniser: str
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.score.to_dict(),
            "images": {"used": self.images - len(self.failed), "failed": len(self.failed)},
            "failed": list(self.failed),
            "flip": self.flip,
            **({"pairs_origin": self.origin} if self.origin else {}),
            "provenance": self.provenance,
        }


def verify(
    embedder: Embedder,
    pairs: PairSet,
    *,
    flip: bool = False,
    resize: bool = False,
    progress: CountProgress | None = None,
    notify: Notify = quiet,
) -> Verified:
    """Embed every image of the pairs once, score the pairs by cosine.

    Args:
        flip: the flip test: raw embeddings of a face and of its mirror image are summed, then
            normalised.
        resize: images of another size than the recogniser's are scaled, instead of failing.
        progress: called after every load of images.
        notify: told of what the recogniser should rather be fed.

    An image that is missing, broken or of another size fails its pairs: they score −1, and stay in
    every denominator.

    Raises:
        VidfaceError: no image can be used, or the recogniser fails its trial.
    """
    trial = Trial(embedder, notify)
    trial.try_pictures()
    if not trial.is_over:
        _try_pairs(trial, pairs, embedder.crop_shape[:2], resize)
    wanted = np.unique(np.concatenate([pairs.first, pairs.second]))
    embeddings = np.zeros((pairs.n_images, embedder.dimension), np.float32)
    failed = []
    for rows, crops, messages in _loads(pairs, wanted, embedder.crop_shape[:2], resize):
        failed += messages
        if len(rows):
            embedded = embedder.embed(crops)
            if flip:
                embedded = embedded + embedder.embed(np.ascontiguousarray(crops[:, :, ::-1]))
            embeddings[rows] = embedded
        if progress is not None:
            progress(len(rows) + len(messages))
    if len(failed) == len(wanted):
        raise VidfaceError(f"{pairs.name}: none of {len(wanted)} images can be used: {failed[0]}")
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    usable = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        units = np.where(usable[:, None], embeddings / norms, 0)
    starts = range(PAIRS_AT_ONCE, len(pairs.first), PAIRS_AT_ONCE)
    blocks = zip(np.split(pairs.first, starts), np.split(pairs.second, starts), strict=True)
    scores = np.concatenate([np.einsum("nd,nd->n", units[a], units[b]) for a, b in blocks])
    scores = np.clip(scores, -1, 1)
    scores[~(usable[pairs.first] & usable[pairs.second])] = NO_EMBEDDING_SCORE
    return Verified(
        score_pairs(scores, pairs.same, pairs.folds),
        pairs.name,
        pairs.origin,
        len(wanted),
        tuple(failed),
        flip,
        str(embedder),
        _provenance(embedder, pairs, resize, trial),
    )


def _loads(
    pairs: PairSet, wanted: np.ndarray, size: tuple[int, int], resize: bool
) -> Iterator[tuple[list[int], np.ndarray, list[str]]]:
    """Images in loads that fit the memory: their numbers, the pictures, and what went wrong."""
    for start in range(0, len(wanted), IMAGES_AT_ONCE):
        rows, crops, messages = [], [], []
        for index in wanted[start : start + IMAGES_AT_ONCE].tolist():
            try:
                crops.append(pairs.image(index, size, resize=resize))
                rows.append(index)
            except (ClipError, VidfaceError, OSError) as error:
                messages.append(" ".join(str(error).split()))
        yield rows, np.stack(crops) if crops else np.empty(0, np.uint8), messages


def _try_pairs(trial: Trial, pairs: PairSet, size: tuple[int, int], resize: bool) -> None:
    """Try the recogniser on the faces of a few pairs from all over the set."""
    numbers = [np.flatnonzero(pairs.same == same) for same in (True, False)]
    few = [each[:: max(1, len(each) // PAIRS_TRIED)][:PAIRS_TRIED] for each in numbers]
    images = np.stack([pairs.first, pairs.second], axis=1)
    wanted = np.unique(images[np.concatenate(few)])
    [(rows, crops, _)] = _loads(pairs, wanted, size, resize)
    row_of = {image: row for row, image in enumerate(rows)}
    same, different = (
        np.array(
            [[row_of[i] for i in pair] for pair in images[each].tolist() if {*pair} <= {*rows}]
        )
        for each in few
    )
    if len(rows):
        trial.try_pairs(crops, same, different)


def _provenance(embedder: Embedder, pairs: PairSet, resize: bool, trial: Trial) -> dict[str, Any]:
    settings = {
        "backbone.weights_sha256": embedder.sha256,
        "backbone.preprocessing": embedder.preprocessing.to_dict(),
        "backbone.precision": embedder.precision,
        "backbone.runtime": embedder.runtime,
        "pairs_sha256": pairs.sha256,
        **({"faces.resize": True} if resize else {}),
        **({"backbone.output": embedder.output} if embedder.output is not None else {}),
    }
    forced = "; ".join(text for text in (embedder.feed.forced, trial.forced) if text)
    return artefacts.provenance("verify", settings, **({"forced": forced} if forced else {}))
