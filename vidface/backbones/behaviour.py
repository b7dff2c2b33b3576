"""Whether a recogniser behaves like one, tried on a few faces before a run relies on it.

Five faults that a run would not show: NaN, zeros, one embedding for everybody, another one at every
call, and one that depends on the faces beside it. And a warning: fed with other colours or another
scale it would tell these faces apart far better. What was found is kept in the cache, by the
weights' hash, the runtime, the precision and what is fed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vidface.backbones.embedder import Embedder
from vidface.backbones.preprocessing import COLORS, Preprocessing, plain_numbers
from vidface.core.errors import VidfaceError
from vidface.core.files import write_json
from vidface.storage.cache import BEHAVIOUR, cache_folder

TOLERANCES = {"float32": 1e-3, "bf16": 0.1, "fp16": 0.02}
"""How far two embeddings of one face may lie apart, in parts of their length."""
APART = 1e-5  # in parts of their length, embeddings of different faces differ by more than this
LEVELS = 1.0  # pixels of different faces do by more on average; less is an encoder's noise
TRIED = 8  # faces at once
ALONE = 3  # of them once more without the others
FAR_BETTER, LEAST = 2.5, 2.5  # times the separation of what is fed, and at least
GOOD = 3.0  # a separation from which on nothing is asked: of few people it may be any number
ALIKE = 1.1  # times: of two feeds this near to each other the one that turns no colours is named
SCALES = ((0.0, 1.0), (127.5, 127.5), (0.0, 255.0))  # mean and std that are in use


@dataclass(frozen=True)
class Answer:
    """What a trial found of a recogniser.

    Attributes:
        on_faces: whether it passed with faces; else with made-up pictures alone.
        advice: a warning about what it is fed; "" for none, None where there were too few faces.
    """

    on_faces: bool = False
    advice: str | None = None


def made_pictures(shape: tuple[int, int, int]) -> np.ndarray:
    """(n, height, width, 3) uint8: soft coloured waves, for checks before there is a face."""
    down, across = (np.linspace(0, 1, side) for side in shape[:2])
    numbers = np.random.default_rng(0).uniform(0.5, 6, (TRIED, 1, 1, 3, 3))  # of each channel
    waves = np.sin(numbers[..., 0] * 2 * down[:, None, None] + numbers[..., 2])
    waves = waves * np.cos(numbers[..., 1] * 2 * across[:, None] + numbers[..., 0])
    return (128 + 120 * waves).astype(np.uint8)


def find_fault(recogniser: Embedder, crops: np.ndarray) -> str:
    """What is wrong with the embeddings of a few different pictures, in words; "" for nothing.

    Args:
        crops: (n, *crop_shape) uint8 RGB, n ≥ 1, all different. A single one is tried beside
            made-up pictures; that faces differ is asked of three and more, by a level on average.
    """
    tolerance = TOLERANCES[recogniser.precision]
    n = len(crops)
    with np.errstate(all="ignore"):
        batch = recogniser.embed(crops, whole_batches=True).astype(np.float64)
        if bad := int((~np.isfinite(batch).all(axis=1)).sum()):
            return f"gives NaN or infinite numbers for {bad} of {n} faces"
        if bad := int((~batch.any(axis=1)).sum()):
            return f"gives nothing but zeros for {bad} of {n} faces"
        levels = np.abs(crops - crops[0].astype(float)).mean(axis=(1, 2, 3))
        others = batch[levels >= LEVELS]
        if len(others) > 1 and _distances(batch[:1], others).max() <= APART:
            return f"gives {1 + len(others)} different faces one and the same embedding"
        again = recogniser.embed(crops, whole_batches=True)
        if not (apart := _distances(batch, again).max()) <= tolerance:
            return (
                f"gives the same faces another embedding the second time ({apart:.2g} of its "
                f"length away; {tolerance:g} is rounding)"
            )
        neighbours = made_pictures(recogniser.crop_shape)[: TRIED - 1]
        for number in range(min(n, ALONE)):
            face = crops[number : number + 1]
            together = recogniser.embed(np.concatenate([face, neighbours]), whole_batches=True)[:1]
            for other in (
                batch[number : number + 1],
                recogniser.embed(face, whole_batches=True),
                recogniser.embed(face),
            ):
                if not (apart := _distances(together, other).max()) <= tolerance:
                    return (
                        "gives a face another embedding beside other faces "
                        f"({apart:.2g} of its length away; {tolerance:g} is rounding)"
                    )
    return ""


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """‖a − b‖ / ‖a‖ of rows."""
    return np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)


def check_behaviour(recogniser: Embedder, crops: np.ndarray) -> str:
    """Stop where a recogniser has a fault; the fault's words where it goes on by force, else "".

    Raises:
        VidfaceError: which fault it is.
    """
    fault = find_fault(recogniser, crops)
    if fault and not recogniser.feed.force:
        raise VidfaceError(
            f"weights {recogniser.name}: {fault}, so no figure of it would mean anything; "
            f"look at the file, and at how {recogniser.plan} runs it (--runtime, --precision), or "
            "go on by --force-recogniser"
        )
    return fault


def read_answer(recogniser: Embedder) -> Answer:
    """What an earlier trial found; nothing of a module that may have changed since."""
    if recogniser.live:
        return Answer()
    try:
        kept = json.loads(_answer_path(recogniser).read_text(encoding="utf-8"))
        return Answer(kept["on_faces"] is True, kept["advice"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Answer()


def keep_answer(recogniser: Embedder, answer: Answer) -> None:
    """Keep what was found, where the cache can be written."""
    if not recogniser.live:
        with contextlib.suppress(VidfaceError):
            about = {"recogniser": str(recogniser), "sha256": recogniser.sha256}
            write_json(_answer_path(recogniser), {**asdict(answer), **about})


def _answer_path(recogniser: Embedder) -> Path:
    plan, fed = recogniser.plan, recogniser.preprocessing.to_dict()
    key = [recogniser.sha256, plan.runtime, plan.precision, plan.device.split(":")[0], fed]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return cache_folder() / BEHAVIOUR / f"{digest[:32]}.json"


def other_feeds(fed: Preprocessing) -> list[Preprocessing]:
    """Colour orders and scales in use other than what is fed, those of its order first."""
    feeds = []
    for mean, std in SCALES:
        alike = np.allclose(np.asarray(fed.mean), mean, atol=8)
        alike = alike and np.allclose(np.asarray(fed.std), std, rtol=0.1)
        scaled = fed if alike else Preprocessing(mean=mean, std=std).over(fed)
        feeds += [Preprocessing(color).over(scaled) for color in COLORS]
    return sorted((f for f in feeds if f != fed), key=lambda feed: feed.color != fed.color)


def separation(embeddings: np.ndarray, same: np.ndarray, different: np.ndarray) -> float:
    """(median of the same − median of different) / spread of different, of the pairs' cosines.

    The spread is the median distance from the median, as 1.48 of it is a normal one's deviation.
    Strangers in a clip move medians little. Unlike an error rate it goes on growing where all pairs
    are told apart, as neighbouring frames are by any network.

    Args:
        embeddings: (n, d).
        same, different: (k, 2) rows of one person, and of two.

    >>> e = np.array([[1.0, 0], [1, 0], [0, 1], [3, 4], [4, 3]])
    >>> round(separation(e, np.array([[0, 1]]), np.array([[0, 2], [0, 3], [0, 4]])), 3)
    1.349
    """
    with np.errstate(all="ignore"):
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).astype(np.float64)
        near, far = (
            np.einsum("nd,nd->n", units[p[:, 0]], units[p[:, 1]]) for p in (same, different)
        )
        spread = 1.4826 * np.median(np.abs(far - np.median(far)))
        return float(np.nan_to_num((np.median(near) - np.median(far)) / spread))


def advise(recogniser: Embedder, crops: np.ndarray, same: np.ndarray, different: np.ndarray) -> str:
    """A warning where another colour order or scale tells faces apart far better; else "".

    Args:
        crops: (n, *crop_shape) uint8 RGB.
        same, different: (k, 2) rows of one person, and of two.
    """
    found = separation(recogniser.embed(crops), same, different)
    if found >= GOOD:
        return ""
    best, best_feed = found, recogniser.preprocessing
    for feed in other_feeds(recogniser.preprocessing):
        try:
            value = separation(recogniser.fed_with(feed).embed(crops), same, different)
        except VidfaceError:  # one that takes bytes scales them itself
            continue
        if value > ALIKE * best:
            best, best_feed = value, feed
    if best < max(FAR_BETTER * found, LEAST):
        return ""
    mean, std = (plain_numbers(value) for value in (best_feed.mean, best_feed.std))
    return (
        f"{recogniser.name}: fed {best_feed} it would tell the first faces apart far better than "
        f"fed {recogniser.preprocessing} ({best:.1f} spreads between one person and two, not "
        f"{found:.1f}); was it trained so? --color {best_feed.color} --mean {mean} --std {std}"
    )
