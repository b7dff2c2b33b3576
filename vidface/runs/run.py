"""A run: a pipeline with its manifest and its run directory, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vidface.backbones.cards import find_card
from vidface.backbones.embedder import Embedder
from vidface.backbones.feeding import Feed, decide_feed
from vidface.backbones.loading import weights_sha256
from vidface.backbones.runtimes.places import OwnProcess
from vidface.backbones.weights import weights_record
from vidface.challenges.registry import CHALLENGES
from vidface.core.digests import digest_path
from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.core.rules import NEW_RULES, ReadingRules
from vidface.core.values import check_choice
from vidface.demo.preparation import prepare_demo_manifest
from vidface.runs import artefacts
from vidface.runs.artefacts import EmbeddingShard
from vidface.runs.clip_changes import refuse_other_clips
from vidface.runs.forgotten import NOBODY, Forgotten, read_forgotten
from vidface.runs.rewriting import finish_forgetting
from vidface.runs.run_folder import EXTRACTION, RunFolder, read_run_settings
from vidface.settings.doubles import warn_of_doubles
from vidface.settings.manifests import IN_MEMORY, Manifest, ManifestSource, read_manifest
from vidface.settings.pipeline import Overrides, Pipeline, parse_pipeline
from vidface.storage.mirror import Mirror, open_mirror
from vidface.storage.urls import Address, base_name

if TYPE_CHECKING:
    import pyarrow as pa


Result = TypeVar("Result")

PREPARERS: dict[str, Callable[..., None]] = {
    "demo": prepare_demo_manifest,
    **{name: entry.prepare for name, entry in CHALLENGES.items() if entry.prepare is not None},
}
"""Manifests that vidface makes itself where they are missing: [manifest] prepare → who does it."""


def reading(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a function that reads runs and writes into none: see `RunFolder.reading`."""

    @wraps(function)
    def read_unchanged(*arguments: Any, **named: Any) -> Result:
        with ExitStack() as stack:
            for run in (*arguments, *named.values()):
                if isinstance(run, Run):
                    stack.enter_context(run.folder.reading())
            return function(*arguments, **named)

    return read_unchanged


@dataclass(frozen=True)
class Run:
    """A pipeline with its manifest read and its run directory."""

    pipeline: Pipeline
    manifest: Manifest
    folder: RunFolder
    backbone: Embedder | None = None  # loaded already, instead of the pipeline's
    mirror: Mirror | None = None  # of a run directory at a URL, whose files `folder` holds
    new_rules: ReadingRules = NEW_RULES  # of an extraction that begins
    forgotten: Forgotten = NOBODY  # whom the manifest is without

    @cached_property
    def feed(self) -> Feed:
        """What the recogniser is fed."""
        if self.backbone is not None:
            return self.backbone.feed
        wanted = self.pipeline.backbone
        place = OwnProcess(Path(wanted.weights).name, wanted.limits)
        return decide_feed(
            wanted.weights, wanted.preprocessing, force=wanted.force_recogniser, place=place
        )

    @cached_property
    def extraction_settings(self) -> dict[str, Any]:
        """All that the embeddings depend on, as artefacts record and compare it."""

        frames, faces = self.pipeline.frames, self.pipeline.faces
        weights: str | None
        precision: str | None
        if self.of_features:
            # Which files: their paths are the clips'; sizes and hashes are in the provenance.
            weights = precision = None
        elif self.backbone is None:
            weights = weights_sha256(self.pipeline.backbone.weights)
            precision = self.pipeline.backbone.precision
        else:
            weights, precision = self.backbone.sha256, self.backbone.precision
        detect = faces.source == "detect"
        card = find_card(self.pipeline.backbone.weights) if self.backbone is None else None
        output = (self.backbone or card or self.pipeline.backbone).output if weights else None
        return {
            "manifest.clips_sha256": self.manifest.clips_sha256,
            "manifest.root": self.manifest.root_location.resolve().name,
            **({"manifest.limit": limit} if (limit := self.pipeline.manifest.limit) else {}),
            "frames.fps": frames.fps if detect else None,
            "frames.decoder": frames.decoder if detect else None,
            **({"frames.keep_damaged": True} if frames.keep_damaged else {}),
            "faces.source": faces.source,
            "faces.which": faces.which if detect else None,
            "faces.detector_sha256": weights_record(faces.detector).sha256 if detect else None,
            "faces.detector_long_side": faces.detector_long_side if detect else None,
            "faces.min_det_score": faces.min_det_score if detect else None,
            "faces.min_face_pixels": faces.min_face_pixels if detect else None,
            "backbone.weights_sha256": weights,
            "backbone.preprocessing": self.feed.preprocessing.to_dict() if weights else None,
            "backbone.precision": precision,
            # What few runs have stands only where it is, so that older ones fit.
            **({"faces.resize": True} if faces.source == "aligned" and faces.resize else {}),
            **({"backbone.output": output} if output is not None else {}),
        }

    @contextmanager
    def writing(
        self, what: str, *, replaces: Iterable[str] = (EXTRACTION,), reads: Iterable[str] = ()
    ) -> Iterator[None]:
        """Write into the run directory, beside those who write other things: `RunFolder.at_work`.

        One at a URL is one writer's at a time, whatever he writes; it is stored there at the end.
        """
        with ExitStack() as stack:
            if self.mirror is not None and not self.mirror.is_held:
                stack.enter_context(self.mirror.lock(what))
                self.mirror.pull()
                stack.enter_context(_storing(self.mirror))
            stack.enter_context(self.folder.at_work(what, replaces=replaces, reads=reads))
            if read_forgotten(self.folder.folder) != self.forgotten:
                raise VidfaceError(
                    f"run directory {self.folder.folder}: clips of it were forgotten since it was "
                    "opened; open it again"
                )
            yield

    def store(self) -> None:
        """Store what was written so far, where the run directory is at a URL."""
        if self.mirror is not None:
            self.mirror.push_new()

    @property
    def of_features(self) -> bool:
        """Whether the embeddings come from feature files, and no recogniser is run."""
        return self.pipeline.faces.source == "features"

    @property
    def weights_name(self) -> str:
        """The recogniser's name in tables; with features, the file's if there is one."""
        if self.of_features:
            names = {base_name(clip.path) for clip in self.manifest.clips}
            return names.pop() if len(names) == 1 else "features"
        return self.backbone.name if self.backbone else Path(self.pipeline.backbone.weights).name

    @property
    def rules(self) -> ReadingRules:
        """The rules of the finished extraction that is there, or else those of a new one."""
        if not self.folder.clips_path.is_file():
            return self.new_rules
        made = artefacts.read_provenance(self.folder.clips_path)
        return ReadingRules.from_record(made.get("rules"))

    def check(self, made: Mapping[str, Any], path: Path) -> None:
        """Refuse an extraction that was made with other settings than this pipeline's."""
        remedy = "give the flags or the pipeline it was made with, or extract into another --run"
        artefacts.check_fit(made, self.extraction_settings, path, remedy)

    def clips(self) -> pa.Table:
        """The extraction's clips, which are those of the manifest.

        Raises:
            VidfaceError: other settings, or clips that came, went or changed in the manifest.
        """
        table, made = self.folder.read_clips()
        self.check(made, self.folder.clips_path)
        refuse_other_clips(
            self.manifest, table, made, self.folder.clips_path, by_file=not self.of_features
        )
        return table

    def each_shard(self) -> Iterator[tuple[int, EmbeddingShard]]:
        """Number and embeddings, mapped, of one shard after the other, checked.

        Raises:
            VidfaceError: other settings, or shards that are not those of this extraction.
        """
        clips, extraction = self.folder.read_clips()

        def check(made: Mapping[str, Any], path: Path) -> None:
            self.check(made, path)
            if made["created"] != extraction["created"]:
                raise VidfaceError(f"{path}: of another extraction; `vidface extract --force`")

        ids, counts = clips["clip_id"].to_pylist(), clips["faces"].to_pylist()
        left = {clip_id: n for clip_id, n in zip(ids, counts, strict=True) if n}
        fits = True
        for number, shard in self.folder.shards(check):
            lengths = np.diff(shard.offsets).tolist()
            for clip_id, n in zip(shard.clip_ids, lengths, strict=True):
                fits = fits and left.pop(clip_id, None) == n
            if not fits:
                break
            yield number, shard
        if left or not fits:
            raise VidfaceError(
                f"{self.folder.folder / 'embeddings'}: the faces are not those of clips.parquet; "
                "`vidface extract` makes lost shards again, with --force all"
            )

    def shards(self) -> list[EmbeddingShard]:
        """The embeddings of all shards, mapped; raises as `each_shard`."""
        return [shard for _, shard in self.each_shard()]


@contextmanager
def _storing(mirror: Mirror) -> Iterator[None]:
    """Store what was written, unless it broke off."""
    yield
    mirror.push_new()


def open_run(
    pipeline: Pipeline,
    notify: Notify = quiet,
    *,
    clips: ManifestSource | None = None,
    backbone: Embedder | None = None,
    check_files: bool = True,
) -> Run:
    """Read the manifest of a pipeline; one that vidface makes itself is made on first use.

    Args:
        clips: a manifest as `read_manifest` takes it, such as a table, instead of the pipeline's.
        backbone: a recogniser that is loaded already, instead of the pipeline's.
        check_files: whether the clips must be there: extraction alone reads them.

    Raises:
        VidfaceError: see `read_manifest`.
    """
    settings = pipeline.manifest
    path, root = settings.path, settings.root
    if settings.prepare is not None and clips is None:
        if isinstance(path, Address) or isinstance(root, Address):
            raise VidfaceError("[manifest] prepare: path and root must lie on this machine")
        if check_files or not path.is_file():
            prepare_manifest(settings.prepare, path, notify, root=root)  # mends lost clips, too
    folder = pipeline.run.dir
    mirror = None
    if isinstance(folder, Address):
        mirror = _open_mirror(folder)
        folder = mirror.folder
    forgotten = read_forgotten(folder)
    if forgotten.unfinished is not None:  # whatever has become of the manifest meanwhile
        notify(f"run directory {folder}: `vidface forget` was broken off; it is finished now")
        nobody = Manifest((), IN_MEMORY, Path.cwd(), sha256="")
        run = Run(pipeline, nobody, RunFolder(folder), backbone, mirror, forgotten=forgotten)
        with run.writing("forget"):
            forgotten = finish_forgetting(run.folder, forgotten)
    manifest = read_manifest(
        settings.path if clips is None else clips,
        settings.root,
        allow_missing=settings.allow_missing,
        allow_private=settings.allow_private,
        check_files=check_files,
        limit=settings.limit,
        leave_out=forgotten.forgets if forgotten.salt else None,
    )
    if manifest.left_out:
        notify(f"{manifest.left_out} clip(s) of the manifest are left out: forgotten in this run")
    if manifest.unused_columns:
        notify(f"columns not used: {', '.join(c or '(no name)' for c in manifest.unused_columns)}")
    share_files = pipeline.faces.source == "features"
    for warning in warn_of_doubles(manifest, share_files=share_files):
        notify(warning)
    here = RunFolder(folder)
    if here.clips_path.is_file() and not digest_path(here.clips_path).is_file():
        notify(f"{folder}: has no digests, as older runs: damage to its files goes unnoticed")
    return Run(pipeline, manifest, here, backbone, mirror, forgotten=forgotten)


def _open_mirror(address: Address) -> Mirror:
    """The mirror of a run directory at a URL, filled."""
    mirror = open_mirror(address.url)
    mirror.pull()
    return mirror


def find_settings_file(folder: Path | Address) -> Path:
    """Where a run directory's settings are, or would be; one at a URL is mirrored first."""
    here = _open_mirror(folder).folder if isinstance(folder, Address) else folder
    return RunFolder(here).pipeline_path


def read_run_pipeline(folder: Path | Address, overrides: Overrides | None = None) -> Pipeline:
    """The settings that a run directory was last extracted with; `overrides` replace single keys.

    Raises:
        VidfaceError: no finished extraction there, or one that a program made with its own module.
    """
    path = find_settings_file(folder)
    if not path.is_file():
        raise VidfaceError(
            f"{folder}: no {path.name} in it, so its settings are not known; name the pipeline "
            "instead, or run `vidface extract` once more"
        )
    document = read_run_settings(path)
    where = folder.url if isinstance(folder, Address) else str(folder.absolute())
    document["run"] = {"dir": where}  # wherever it was moved; who does the work is not the run's
    if isinstance(document.get("manifest"), dict):
        document["manifest"].pop("prepare", None)  # a stranger's run would write where it says
    return parse_pipeline(document, path, overrides)


def open_run_folder(
    folder: Path | Address, overrides: Overrides | None = None, notify: Notify = quiet
) -> Run:
    """A run by its directory alone: raises as `read_run_pipeline`."""
    return open_run(read_run_pipeline(folder, overrides), notify, check_files=False)


def prepare_manifest(
    name: str, path: Path, notify: Notify = quiet, *, root: Path | None = None
) -> None:
    """Make a manifest with the preparer called `name`; the demo's makes the clips, too.

    Args:
        root: where the data are that the others make a manifest of.
    """
    check_choice("[manifest] prepare", name, tuple(PREPARERS))
    PREPARERS[name](path, root, say=notify)
