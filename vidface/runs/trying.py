"""A recogniser is tried before a run relies on it: on made-up pictures, then on its first faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vidface.backbones.behaviour import (
    TRIED,
    advise,
    check_behaviour,
    keep_answer,
    made_pictures,
    read_answer,
)
from vidface.backbones.embedder import Embedder
from vidface.core.clips import Clip
from vidface.core.progress import Notify, quiet

FACES_A_CLIP = 4  # that advice is built on
CLIPS = 16  # likewise
FEWEST_PAIRS = 12  # of one person, and of two: below, nothing is said


class Trial:
    """The trial of one recogniser in one run; what an earlier one found is not tried again.

    Call `try_pictures` before there is a face, `see` for each clip's faces, `try_faces` before the
    first are embedded, and `finish` at the end.
    """

    def __init__(self, recogniser: Embedder, notify: Notify = quiet) -> None:
        self._recogniser, self._notify = recogniser, notify
        self._answer = read_answer(recogniser)
        self._is_new = self._answer == type(self._answer)()
        self._seen: dict[str, _SeenClip] = {}
        self.forced = ""  # a fault that --force-recogniser overrode
        if recogniser.feed.known:
            self._answer = replace(self._answer, advice="")  # what it is fed is published
        elif self._answer.advice:
            notify(self._answer.advice)

    @property
    def is_over(self) -> bool:
        """Whether all is known, so that no face need be kept."""
        return self._answer.on_faces and self._answer.advice is not None

    def try_pictures(self) -> None:
        """Do the checks that need no face.

        Raises:
            VidfaceError: what is wrong with the recogniser.
        """
        if self._is_new:
            self._check(made_pictures(self._recogniser.crop_shape))

    def see(self, clip: Clip, crops: np.ndarray) -> None:
        """Keep a few faces of a run's first clips, until all is known."""
        if self.is_over:
            return
        if clip.clip_id in self._seen or len(self._seen) < CLIPS:
            self._seen.setdefault(clip.clip_id, _SeenClip(clip.identity)).add(crops)
        elif self._answer.on_faces:
            self.finish()

    def try_faces(self) -> None:
        """Do all checks on the faces seen so far.

        Raises:
            VidfaceError: what is wrong with the recogniser.
        """
        if self._seen:
            self._try(np.concatenate([np.stack(clip.crops) for clip in self._seen.values()]))

    def try_pairs(self, crops: np.ndarray, same: np.ndarray, different: np.ndarray) -> None:
        """Do all checks on faces (n, *crop_shape) of which pairs (k, 2) are one person, or two.

        Raises:
            VidfaceError: what is wrong with the recogniser.
        """
        self._try(crops)
        if self._answer.advice is None and min(len(same), len(different)) >= FEWEST_PAIRS:
            advice = advise(self._recogniser, crops, same, different)
            if advice:
                self._notify(advice)
            self._answer = replace(self._answer, advice=advice)
            self._keep()

    def finish(self) -> None:
        """Say what would be better to feed, as far as the clips seen tell."""
        if self._answer.advice is not None or not self._answer.on_faces:
            return
        numbered = list(enumerate(self._seen.values()))
        crops = [crop for _, clip in numbered for crop in clip.crops]
        clips = np.array([number for number, clip in numbered for _ in clip.crops])
        people = np.array([clip.person or f" {n}" for n, clip in numbered for _ in clip.crops])
        first, second = np.triu_indices(len(crops), 1)
        pairs = np.stack([first, second], axis=1)
        same = pairs[clips[first] == clips[second]]
        different = pairs[people[first] != people[second]]
        self._seen.clear()
        self.try_pairs(np.stack(crops), same, different)

    def _try(self, crops: np.ndarray) -> None:
        if self._answer.on_faces:
            return
        # A picture of one colour is no face, and one that is there twice differs from none.
        crops = np.unique(crops[[crop.min() < crop.max() for crop in crops]], axis=0)
        if len(crops):
            self._check(crops[np.linspace(0, len(crops) - 1, min(TRIED, len(crops))).astype(int)])
            self._answer = replace(self._answer, on_faces=True)
            self._keep()

    def _check(self, crops: np.ndarray) -> None:
        fault = check_behaviour(self._recogniser, crops)
        if fault and not self.forced:
            self.forced = fault
            self._notify(f"{self._recogniser.name}: {fault}; going on, as forced")

    def _keep(self) -> None:
        if not self.forced:
            keep_answer(self._recogniser, self._answer)


class _SeenClip:
    """A few faces of a clip, spread over what came of it so far."""

    def __init__(self, person: str) -> None:
        self.person = person
        self.crops: list[np.ndarray] = []
        self._n_faces, self._stride = 0, 1

    def add(self, crops: np.ndarray) -> None:
        for crop in crops:
            if self._n_faces % self._stride == 0:
                if len(self.crops) == FACES_A_CLIP:
                    self.crops, self._stride = self.crops[::2], 2 * self._stride
                if self._n_faces % self._stride == 0:
                    self.crops.append(crop.copy())
            self._n_faces += 1
