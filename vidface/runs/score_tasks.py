"""From the settings of scores to what protocols work on: for scores, sweeps and chosen thresholds.

Whoever scores clips makes its task here and names its file here, so that a setting of [score] that
one command honours, all do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.progress import CountProgress
from vidface.core.thresholds import threshold_name
from vidface.executor.shards import Executor
from vidface.metrics.protocols.base import ScoringTask
from vidface.metrics.settings import ScoreSettings
from vidface.metrics.uncertainty import Bootstrap
from vidface.runs.denoised import Denoised
from vidface.settings.manifests import Manifest


@dataclass(frozen=True)
class LabelledClips:
    """Some clips in the order of their ids, so that the manifest's order can't change a figure."""

    ids: tuple[str, ...]
    who: tuple[str, ...]  # the identity of each; "" is a distractor

    def keep_identities(self, identities: Iterable[str]) -> LabelledClips:
        """Leave out the clips of all but these identities."""
        wanted = set(identities)
        pairs = zip(self.ids, self.who, strict=True)
        return sort_clips(pair for pair in pairs if pair[1] in wanted)

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """The identities, each once, in string order, without the distractors'."""
        return tuple(sorted(set(self.who) - {""}))

    @cached_property
    def pairs(self) -> tuple[int, int]:
        """Genuine and impostor pairs, as `score_verification` counts them."""
        sizes = Counter(self.who)
        distractors = sizes.pop("", 0)
        genuine = sum(math.comb(size, 2) for size in sizes.values())
        return genuine, math.comb(len(self.who), 2) - math.comb(distractors, 2) - genuine

    def resolves(self, far: Fraction) -> bool:
        """Whether there is a TAR at this FAR."""
        genuine, impostor = self.pairs
        return genuine > 0 and far * impostor >= 1


NO_CLIPS = LabelledClips((), ())


def sort_clips(clips: Iterable[tuple[str, str]]) -> LabelledClips:
    """Put clips, (clip_id, identity) in any order, into the order of their ids."""
    ordered = sorted(clips)
    return LabelledClips(tuple(i for i, _ in ordered), tuple(who for _, who in ordered))


def clips_of_split(manifest: Manifest, split: str) -> LabelledClips:
    """The clips of one split."""
    return sort_clips((clip.clip_id, clip.identity) for clip in manifest.of_split(split))


def find_rows(denoised: Denoised, clips: LabelledClips) -> np.ndarray:
    """(n_clips,) int64: the rows of some clips.

    Raises:
        VidfaceError: a clip that is not there.
    """
    row_of = {clip_id: row for row, clip_id in enumerate(denoised.clip_ids)}
    try:
        return np.array([row_of[clip_id] for clip_id in clips.ids], dtype=np.int64)
    except KeyError as error:
        raise VidfaceError(
            f"clip {error} of the manifest has no descriptor row at threshold "
            f"{threshold_name(denoised.threshold)}; give the manifest it was made with"
        ) from None


def make_task(
    denoised: Denoised,
    clips: LabelledClips,
    gallery: LabelledClips,
    settings: ScoreSettings,
    *,
    executor: Executor | None = None,
    progress: CountProgress | None = None,
) -> ScoringTask:
    """What a protocol scores: the descriptors of some clips, and of those that are enrolled.

    Args:
        gallery: `NO_CLIPS` where no protocol needs one.
        settings: how the work is done; each protocol takes its own from them.
    """
    return ScoringTask(
        descriptors=denoised.descriptors[find_rows(denoised, clips)],
        identities=clips.who,
        clip_ids=clips.ids,
        gallery_descriptors=denoised.descriptors[find_rows(denoised, gallery)],
        gallery_identities=gallery.who,
        bootstrap=make_bootstrap(settings),
        progress=progress,
        device=None if settings.device == "cpu" else settings.device,
        executor=executor,
    )


def make_bootstrap(settings: ScoreSettings) -> Bootstrap | None:
    """The resamples that the settings ask for; None for none."""
    return Bootstrap(settings.bootstrap, settings.seed) if settings.bootstrap else None


def name_score_file(
    scored: str, gallery: str | None, denoising: str, settings: ScoreSettings
) -> str:
    """The name of a file of scores or sweeps: other settings of figures, another file.

    Args:
        scored: what is scored: a split, or a choice of a threshold.
        gallery: None where no protocol needs one.
        denoising: which noise removal; "" for the usual one.

    >>> from vidface.metrics.settings import ScoreSettings
    >>> name_score_file("val", "train", "threshold_0.4", ScoreSettings(parameters={"k": 1}))
    'val_against_train_threshold_0.4_k_1.json'
    """
    against = f"_against_{gallery}" if gallery else ""
    denoising = f"_{denoising}" if denoising else ""
    return f"{scored}{against}{denoising}{settings.name_suffix}.json"
