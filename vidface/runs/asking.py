"""Clips that somebody asks about: a run's own, or others, worked on as the run's own were."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.backbones.embedder import Embedder
from vidface.core.clips import Clip
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import named_errors
from vidface.core.progress import Notify, quiet
from vidface.core.redaction import redacted
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.core.states import FAILED_STATES
from vidface.core.values import exact_rate
from vidface.metrics.uncertainty import few_people_note
from vidface.runs.clip_drawing import ClipFaces
from vidface.runs.clusterings import require_clustering
from vidface.runs.crops import read_clip_faces
from vidface.runs.denoised import Denoised
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import Run
from vidface.runs.run_folder import RunFolder
from vidface.runs.score_tasks import NO_CLIPS, LabelledClips, find_rows, sort_clips
from vidface.runs.scoring import ClusteringChoice, WhichClustering, check_split, choose_clustering
from vidface.settings.manifests import Manifest
from vidface.settings.pipeline import Pipeline, parse_pipeline
from vidface.storage.media import as_location, path_kind
from vidface.storage.urls import Address

NO_PROMISE = "measured on these people, not yet a promise for others"
_ONE_AND_THE_SAME = 0.9999  # cosine of two clips that hold the same pictures
_NOBODY_KNOWS = "asked"  # one name for all, so that no two are taken for two people


class Told:
    """A dataclass whose shown fields are its JSON form."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        shown: Any = fields(self)  # type: ignore[arg-type]
        return {field.name: _tell(getattr(self, field.name)) for field in shown if field.repr}


def _tell(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_tell(entry) for entry in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


@dataclass(frozen=True)
class AskedClip(Told):
    """A clip that somebody asks about."""

    name: str  # as it was given, without secrets
    clip_id: str | None  # of the run; None for a file
    identity: str  # that the run's manifest gives it
    split: str
    state: str
    message: str
    faces: int
    kept: int
    problem: str  # why there is nothing to compare; empty where there is
    descriptor: NDArray[np.float32] = field(repr=False, compare=False)  # (d,) unit, or zero
    drawn: ClipFaces | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Calibration(Told):
    """What says how high a score is: clips of a run, without those that were asked about."""

    run: str
    split: str
    people: int
    clips: int  # of people, and of nobody known
    left_out: tuple[str, ...]  # clips that were asked about
    target: str  # the error rate of the decision; empty where the clips are too few for any
    gallery: str | None = None
    means: str = NO_PROMISE


@dataclass(frozen=True)
class Answer(Told):
    """What was asked, how it was worked on, and what the answer rests on."""

    asked: tuple[AskedClip, ...]
    recogniser: str
    denoising: str
    calibration: Calibration | None
    notes: tuple[str, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The clips that failed, in whole or in part: a line each."""
        lines = {
            clip.problem or f"{clip.name}: {clip.state}: {clip.message}": None
            for clip in self.asked
            if clip.problem or clip.state in FAILED_STATES
        }
        return tuple(lines)

    @property
    def can_compare(self) -> bool:
        """Whether every clip has a usable face."""
        return not any(clip.problem for clip in self.asked)


@dataclass(frozen=True)
class Asking:
    """How clips that are asked about are worked on, and the run that says what scores mean."""

    pipeline: Pipeline
    denoising: Denoising
    rules: ReadingRules = NEW_RULES
    backbone: Embedder | None = None
    run: Run | None = None
    denoised: Denoised | None = None  # of the run

    @classmethod
    def of_run(cls, run: Run, threshold: ClusteringChoice) -> Asking:
        """Ask a run.

        Raises:
            VidfaceError: no extraction, one with other settings, or no such clustering.
        """
        denoising = choose_clustering(run, threshold)
        denoised = require_clustering(run, denoising)
        return cls(run.pipeline, denoising, run.rules, run.backbone, run, denoised)

    @classmethod
    def of_recogniser(cls, backbone: Embedder, threshold: ClusteringChoice) -> Asking:
        """Ask without a run, with the usual settings: what scores mean isn't known."""
        document = {"manifest": {"path": _NOBODY_KNOWS}}
        pipeline = parse_pipeline(document, Path.cwd() / _NOBODY_KNOWS)
        denoising = Denoising.from_pipeline(pipeline)
        if isinstance(threshold, Denoising):
            denoising = threshold
        elif not isinstance(threshold, WhichClustering):
            denoising = denoising.with_threshold(threshold)
        return cls(pipeline, denoising, backbone=backbone)

    @property
    def recogniser(self) -> str:
        """The recogniser's name."""
        if self.run is not None:
            return self.run.weights_name
        return self.backbone.name if self.backbone else self.pipeline.backbone.weights

    def choose_clips(
        self, flag: str, asked: str | None, usual: str, own: Collection[str]
    ) -> LabelledClips:
        """The run's clips of a split, without some; none without a run.

        Args:
            asked: a split that must have clips; None for the usual one, which may have none.

        Raises:
            UsageError: a split without a clip.
        """
        split = asked or usual
        if self.run is None or (asked is None and usual not in self.run.manifest.splits):
            return NO_CLIPS
        check_split(self.run, f"--{flag}", split)
        clips = self.run.manifest.of_split(split)
        return sort_clips((c.clip_id, c.identity) for c in clips if c.clip_id not in own)

    def descriptors_of(self, clips: LabelledClips) -> NDArray[np.float32]:
        """(n_clips, d) of clips of the run."""
        if self.denoised is None:
            return np.zeros((0, 0), np.float32)
        rows: NDArray[np.float32] = self.denoised.descriptors[find_rows(self.denoised, clips)]
        return rows

    def describe_calibration(
        self, split: str, clips: LabelledClips, own: Collection[str], target: str, gallery: str = ""
    ) -> Calibration | None:
        """What an answer rests on; None without a run."""
        if self.run is None:
            return None
        splits = split, gallery
        used = (c.clip_id for c in self.run.manifest.clips if c.split in splits)
        return Calibration(
            run=str(self.run.folder.folder),
            split=split,
            people=len(clips.identities),
            clips=len(clips.ids),
            left_out=tuple(clip_id for clip_id in used if clip_id in own),
            target=target,
            gallery=gallery or None,
        )

    def read_clips(
        self, names: Sequence[str | Path], *, draws: bool = False, notify: Notify = quiet
    ) -> tuple[AskedClip, ...]:
        """Each clip with its descriptor: of the run where it names one, else worked on now.

        Args:
            names: clip ids of the run, or files, folders of images and URLs.
            draws: whether their faces are wanted as pictures.

        Raises:
            VidfaceError: a name that leads nowhere; no pictures of a run's clip.
        """
        clips: dict[str | Path, AskedClip] = {}
        files: dict[str | Path, str] = {}
        for name in names:
            clip = self._find_clip(name)
            if clip is None or self.run is None or self.denoised is None:
                files[name] = _locate(name, self.run)
            else:
                row = self.denoised.clip_ids.index(clip.clip_id)
                drawn = read_clip_faces(self.run, clip.clip_id, self.denoising) if draws else None
                clips[name] = _describe(name, self.run, self.denoised, row, drawn, clip)
        if files:
            clips.update(self._read_files(files, draws, notify))
        return tuple(clips[name] for name in names)

    def _find_clip(self, name: str | Path) -> Clip | None:
        """The run's clip that an id names, or a path, where the run has its file as one clip."""
        if self.run is None:
            return None
        clips = self.run.manifest.clips
        if isinstance(name, str):
            of_name = [clip for clip in clips if clip.clip_id == name]
            if of_name:
                return of_name[0]
        of_file = self._find_clips_of_file(name)
        whole = [c for c in of_file if c.start_seconds is None and c.end_seconds is None]
        return whole[0] if len(of_file) == len(whole) == 1 else None

    def _find_clips_of_file(self, name: str | Path) -> list[Clip]:
        """The run's clips that are this file, or parts of it."""
        if self.run is None:
            return []
        manifest, place = self.run.manifest, as_location(name)
        if isinstance(place, Address) or not isinstance(manifest.root_location, Path):
            return [clip for clip in manifest.clips if clip.path == str(name)]
        root, path = manifest.root_location, place.resolve()
        # Paths are resolved, which asks the disk, only of files that are called the same.
        alike = (clip for clip in manifest.clips if Path(clip.path).name == path.name)
        return [clip for clip in alike if (root / clip.path).resolve() == path]

    def find_own_clips(self, *names: str | Path) -> list[str]:
        """The ids of the run's clips that these name, or that are parts of these files."""
        own = []
        for name in names:
            clip = self._find_clip(name)
            own += self._find_clips_of_file(name) if clip is None else [clip]
        return [clip.clip_id for clip in own]

    def _read_files(
        self, files: Mapping[str | Path, str], draws: bool, notify: Notify
    ) -> dict[str | Path, AskedClip]:
        """Work on files as on the run's clips, in a run directory that is thrown away."""
        pipeline = self.pipeline
        if pipeline.faces.source == "features":
            raise VidfaceError(
                f"{next(iter(files))}: this run's embeddings come from feature files, which no "
                "recogniser here can add to; ask for its clip ids"
            )
        if self.denoising.denoiser.needs_truth:
            raise VidfaceError(
                f"the clustering at {self.denoising} is that of a truth file, which knows no other "
                "clips; name another one (--threshold)"
            )
        clips = tuple(
            Clip(f"asked {number}", path, _NOBODY_KNOWS, "probe")
            for number, path in enumerate(files.values())
        )
        with tempfile.TemporaryDirectory(prefix="vidface-", ignore_cleanup_errors=True) as folder:
            settings = replace(pipeline.run, dir=Path(folder), executor=None, scheduler=None)
            faces = replace(pipeline.faces, keep_crops=draws)
            run = Run(
                replace(pipeline, run=settings, faces=faces),
                Manifest(clips, Path(_NOBODY_KNOWS), Path.cwd(), sha256=""),
                RunFolder(Path(folder)),
                self.backbone,
                new_rules=self.rules,
            )
            extract(run, notify=notify)
            denoising = replace(self.denoising, truth_path=None)
            denoised = cluster(run, denoising)
            asked = {}
            for row, name in enumerate(files):
                has_faces = draws and denoised.faces[row]
                drawn = read_clip_faces(run, clips[row].clip_id, denoising) if has_faces else None
                asked[name] = _describe(name, run, denoised, row, drawn)
            return asked


def _locate(name: str | Path, run: Run | None) -> str:
    """Where a file, a folder or a URL is."""
    if name == "":  # a shell's variable that is not set, which Path takes for this very folder
        raise UsageError("an empty name is no clip; give its id, a file or a folder")
    place = as_location(name)
    if isinstance(place, Address):
        return str(name)
    path = place.absolute()
    with named_errors(path):
        if path_kind(path) is None:
            of_run = "" if run is None else f", and no clip of run directory {run.folder.folder}"
            raise UsageError(f"{redacted(str(name))}: no such file or folder{of_run}")
    return str(path)


def _describe(
    name: str | Path,
    run: Run,
    denoised: Denoised,
    row: int,
    drawn: ClipFaces | None,
    clip: Clip | None = None,
) -> AskedClip:
    """What became of a clip of a run."""
    shown, state, faces = redacted(str(name)), denoised.states[row], int(denoised.faces[row])
    message, problem = run.folder.read_clips()[0].column("message")[row].as_py(), ""
    path, _, rest = message.partition(": ")
    if rest and Path(path).name == Path(name).name:  # which is named already
        message = rest
    if not denoised.descriptors[row].any():
        problem = f"{shown}: {state}: {message or f'none of its {faces} faces can be used'}"
    return AskedClip(
        shown,
        None if clip is None else clip.clip_id,
        "" if clip is None else clip.identity,
        "" if clip is None else clip.split,
        state,
        message,
        faces,
        int(denoised.kept[row]),
        problem,
        denoised.descriptors[row],
        drawn,
    )


def choose_target(asked: str | None, what: str, trials: int, of: str) -> str:
    """A target rate that so many trials resolve: the one asked for, or else 1e-2, or 1e-1.

    Args:
        what: FAR or FPIR.
        of: what the trials are.

    Returns:
        Decimal text; empty where nobody asked for one and the trials are too few for any.

    Raises:
        VidfaceError: one that was asked for and isn't resolved, or is no rate.

    >>> choose_target(None, "FAR", 7560, "impostor pairs"), choose_target(None, "FAR", 9, "pairs")
    ('1e-2', '')
    """
    flag = f"--{what.lower()}"
    resolved = [f"1e-{k}" for k in range(6, 0, -1) if trials >= 10**k]
    if asked is None:
        return "1e-2" if "1e-2" in resolved else resolved[0] if resolved else ""
    rate = exact_rate(asked) if isinstance(asked, str) else None
    if rate is None:
        raise UsageError(f"{flag}: a rate in (0, 1] as decimal text, 1e-3, not {asked!r}")
    if rate * trials < 1:
        instead = f"; the tightest of 1e-1, 1e-2, … is {resolved[0]}" if resolved else ""
        raise VidfaceError(
            f"{what} {asked} needs ≥ {-(-rate.denominator // rate.numerator):,} {of}; "
            f"there are {trials:,}{instead}"
        )
    return asked


def note_doubts(
    asking: Asking, asked: Sequence[AskedClip], calibration: LabelledClips
) -> list[str]:
    """What makes an answer less sure than the rates say: few faces, few people, a double."""
    denoised, notes = asking.denoised, []
    if denoised is None or not calibration.ids:
        return []
    kept = denoised.kept[find_rows(denoised, calibration)]
    usual = int(np.median(kept[kept > 0])) if kept.any() else 0
    for clip in asked:
        if not clip.problem and clip.kept * 4 <= usual:
            notes.append(
                f"{clip.name} has {clip.kept} face(s), the clips measured {usual} (median): with "
                "so few faces more decisions are wrong than these rates say"
            )
        if clip.clip_id is None and not clip.problem:
            alike = np.flatnonzero(denoised.descriptors @ clip.descriptor > _ONE_AND_THE_SAME)
            if len(alike):
                named = ", ".join(denoised.clip_ids[row] for row in alike[:3].tolist())
                notes.append(f"{clip.name} seems to be the run's own {named}")
    few = few_people_note(len(calibration.identities))
    return [*notes, few] if few else notes
