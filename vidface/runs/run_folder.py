"""The files of a run directory by name, and how a finished extraction takes an old one's place."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from vidface.core.digests import DIGEST_SUFFIX, digest_path, digested_path, remove_with_digest
from vidface.core.errors import VidfaceError
from vidface.core.files import (
    PART_SUFFIX,
    can_be_written,
    make_folder,
    make_private_folder,
    named_errors,
    read_json_object,
)
from vidface.runs.artefacts import EmbeddingShard, read_parquet, read_provenance, read_shard
from vidface.runs.columns import complete_clips
from vidface.runs.forgotten import check_finished
from vidface.storage import locks

STAGING = ".extracting"  # in a run directory, while an extraction is being made
EXTRACTION = "extraction"  # clips, embeddings and crops, as a name of what a command replaces
_TREES = ("linkage/**/shard-*.arrow",)
_RESULTS = ("clusters/*/*.parquet", "scores/*.json", "scores/*.csv", "sweeps/*.json")
_LEFTOVER_SECONDS = 60.0
_MOVING = "moving"  # in it, once what it replaces is gone


def clustering_order(made: Mapping[str, Any]) -> tuple[int, str]:
    """By what clusterings are ordered, oldest first: those of older versions have no number."""
    number = made.get("number")
    return number if isinstance(number, int) else 0, str(made.get("created"))


def shard_number(path: Path) -> int:
    """The number of a shard, by one of its files."""
    return int(path.stem.removeprefix("shard-"))


class RunFolder:
    """The files of one run directory, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def clips_path(self) -> Path:
        return self.folder / "clips.parquet"

    @property
    def pipeline_path(self) -> Path:
        """The settings of the run, as `vidface.runs.run` writes them."""
        return self.folder / "run.json"

    @property
    def profile_path(self) -> Path:
        """Where the time of the extraction went (`vidface.runs.profiles`)."""
        return self.folder / "profile.json"

    @property
    def shard_paths(self) -> list[Path]:
        return sorted((self.folder / "embeddings").glob("shard-*.arrow"))

    def shard_path(self, number: int) -> Path:
        return self.folder / "embeddings" / f"shard-{number:05d}.arrow"

    def crops_path(self, number: int) -> Path:
        return self.folder / "crops" / f"shard-{number:05d}.parquet"

    @property
    def has_crops(self) -> bool:
        """Whether the extraction kept crops: some are there, or the digests of those deleted."""
        return any((self.folder / "crops").glob("*shard-*"))

    @property
    def has_results(self) -> bool:
        """Whether something was made of the extraction: clusterings, scores, sweeps."""
        return any(any(self.folder.glob(pattern)) for pattern in _RESULTS)

    def find_lost_files(self, clips: int, made: Mapping[str, Any]) -> list[Path]:
        """Shards of the finished extraction that are gone, cut off, or of another extraction.

        Names and footers are looked at, not contents: `vidface check` reads those.

        Args:
            clips: of the extraction, all of them.
            made: the provenance of the extraction.
        """
        size = made.get("shard_clips")
        embeddings = set(self.shard_paths)
        embeddings |= set(map(digested_path, self.folder.glob(f"embeddings/_*{DIGEST_SUFFIX}")))
        if isinstance(size, int) and size > 0:  # features and older runs don't say how many
            embeddings |= {self.shard_path(number) for number in range(-(-clips // size))}
        crops = {
            self.folder / "crops" / f"{path.stem}.parquet" for path in embeddings if self.has_crops
        }
        return [path for path in sorted(embeddings | crops) if not _is_of(path, made)]

    def linkage_path(
        self, number: int, repeats: str = "count", same_person: float | None = None
    ) -> Path:
        """Where a shard's linkage tree lies: of all rows, or of those that vote with "once".

        Where faces of one frame stay apart, the folder says up to which cosine.
        """
        name = f"shard-{number:05d}" + ("" if repeats == "count" else f".{repeats}")
        folder = self.folder / "linkage" / ("" if same_person is None else f"apart_{same_person}")
        return folder / f"{name}.arrow"

    def clustering(self, name: str) -> Path:
        return self.folder / "clusters" / name

    def clusterings(self) -> list[dict[str, Any]]:
        """`Denoising.record` of every finished clustering, oldest first."""
        # Those of an older vidface have no denoiser, and are made again.
        provenances = sorted(self._read_clustering_provenances(), key=clustering_order)
        return [dict(made["denoiser"]) for made in provenances if "denoiser" in made]

    def next_clustering_number(self) -> int:
        """One more than the highest number of a clustering here: a clock may be set back."""
        orders = map(clustering_order, self._read_clustering_provenances())
        return 1 + max((number for number, _ in orders), default=0)

    def _read_clustering_provenances(self) -> list[dict[str, Any]]:
        paths = (self.folder / "clusters").glob("*/descriptors.parquet")
        return [read_provenance(path) for path in paths]

    def read_clips(self) -> tuple[pa.Table, dict[str, Any]]:
        """The extraction's states; their presence means that extraction finished."""
        check_finished(self.folder)
        if not self.clips_path.is_file():
            workers = [w for w in locks.list_workers(self.folder) if EXTRACTION in w.replaces]
            at_it = "; ".join(map(str, workers))
            hint = f"{at_it} is at it" if at_it else "run `vidface extract` first"
            raise VidfaceError(f"run directory {self.folder}: no finished extraction; {hint}")
        table, made = read_parquet(self.clips_path)
        return complete_clips(table), made

    @contextmanager
    def at_work(
        self, what: str, *, replaces: Iterable[str] = (EXTRACTION,), reads: Iterable[str] = ()
    ) -> Iterator[None]:
        """Work here as `vidface.storage.locks.at_work`: what isn't the extraction's is made of it.

        Where nothing can be written, and the extraction is only read, it is read as by `reading`.
        """
        needs_writing = EXTRACTION in replaces
        if not needs_writing and not (self.folder.is_dir() and can_be_written(self.folder)):
            with self.reading():
                yield
            return
        reads = reads if needs_writing else {EXTRACTION, *reads}
        with locks.at_work(self.folder, what, replaces=replaces, reads=reads):
            if len(locks.list_workers(self.folder)) == 1:
                self._remove_leftovers()
            yield

    def _remove_leftovers(self) -> None:
        """Remove what killed commands were writing; nobody else is at work here.

        What is a minute old, that is: settings are written by commands that only look, too.
        """
        for part in self.folder.rglob(f".*{PART_SUFFIX}"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _LEFTOVER_SECONDS:
                    part.unlink()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read without a lock, and fail where what was read was replaced in the meantime.

        Raises:
            VidfaceError: the extraction, or a clustering, is not the one that it was.
        """
        before = self._generation()
        try:
            yield
        except (VidfaceError, OSError):
            self._check_generation(before)
            raise
        self._check_generation(before)

    def _generation(self) -> dict[Path, tuple[int, ...]]:
        """What tells the extraction and each clustering from a later one."""
        generation: dict[Path, tuple[int, ...]] = {}
        for path in (self.clips_path, *self.folder.glob("clusters/*/descriptors.parquet")):
            with suppress(FileNotFoundError):
                state = path.stat()
                generation[path] = (state.st_ino, state.st_mtime_ns, state.st_size)
        return generation

    def _check_generation(self, before: Mapping[Path, tuple[int, ...]]) -> None:
        now = self._generation()
        changed = [path for path, state in before.items() if now.get(path) != state]
        if changed:
            by = ", ".join(map(str, locks.list_workers(self.folder)))
            raise VidfaceError(
                f"run directory {self.folder}: {changed[0].relative_to(self.folder)} was replaced "
                f"while it was read{f' by {by}' if by else ''}; run the command again"
            )

    def shards(
        self, check: Callable[[dict[str, Any], Path], None]
    ) -> Iterator[tuple[int, EmbeddingShard]]:
        """Number and embeddings, shard by shard; `check` sees each one's provenance."""
        for path in self.shard_paths:
            shard, made = read_shard(path)
            check(made, path)
            yield shard_number(path), shard

    @property
    def stagings(self) -> list[Path]:
        """Extractions that are not finished, the one that is made now first."""
        aside = self.folder.glob(f"{STAGING}-*")
        newest_first = sorted(aside, key=lambda path: (len(path.name), path.name), reverse=True)
        return [path for path in (self.folder / STAGING, *newest_first) if path.is_dir()]

    def new_staging(self, *, keep: bool = False) -> RunFolder:
        """An empty run directory inside of this one, for an extraction that is being made.

        Args:
            keep: what was begun before is set aside.

        Raises:
            VidfaceError: it cannot be made.
        """
        staging = self.folder / STAGING
        with self._named_errors():
            if keep and staging.is_dir() and any(staging.iterdir()):
                aside = [path.name.rpartition("-")[2] for path in self.stagings]
                last = max((int(name) for name in aside if name.isdecimal()), default=0)
                staging.rename(self.folder / f"{STAGING}-{last + 1}")
            for path in self.stagings:
                if path == staging or not keep:
                    shutil.rmtree(path)  # of a run that was killed
            make_private_folder(self.folder)
            make_folder(staging)
        return RunFolder(staging)

    def replace_extraction(self, staging: RunFolder, *, keep_results: bool = False) -> None:
        """Put a finished extraction in the place of this one's, and of all made from it.

        Args:
            keep_results: leave what was made from it, for the faces are the same.

        `clips.parquet`, whose presence means that an extraction is finished, goes first and comes
        last: whoever is killed in between has none, and not a mixture; the next call goes on.
        """
        patterns = (
            "embeddings/shard-*.arrow",
            "crops/shard-*.parquet",
        )
        leftovers = (
            f"**/.*{PART_SUFFIX}",  # what a killed run was writing
        )
        with self._named_errors():
            if not staging.is_moving:
                remove_with_digest(self.clips_path)
                going: tuple[str, ...] = (
                    *patterns,
                    *_TREES,
                    *_RESULTS,
                    *leftovers,
                    f"*/**/*{DIGEST_SUFFIX}",
                )
                if keep_results:
                    kinds = ("embeddings", "crops")
                    digests = (f"{kind}/*{DIGEST_SUFFIX}" for kind in kinds)
                    going = (*patterns, *leftovers, *digests)
                for pattern in going:
                    for path in self.folder.glob(pattern):
                        if staging.folder not in path.parents:
                            path.unlink()
                (staging.folder / _MOVING).touch()
            made = sorted(
                path
                for path in staging.folder.glob("*/*")
                if path.is_file() and path.parent.name != "clips" and path.suffix != PART_SUFFIX
            )
            last = (
                staging.profile_path,
                digest_path(staging.profile_path),
                digest_path(staging.clips_path),
            )
            for path in (*made, *filter(Path.is_file, last), staging.clips_path):
                target = self.folder / path.relative_to(staging.folder)
                make_folder(target.parent)
                path.replace(target)
            for folder in self.stagings:
                shutil.rmtree(folder)

    @property
    def is_moving(self) -> bool:
        """Whether `replace_extraction` of this staging was cut off between its steps."""
        return (self.folder / _MOVING).is_file() and self.clips_path.is_file()

    def _named_errors(self) -> AbstractContextManager[None]:
        return named_errors(f"run directory {self.folder}")


def _is_of(path: Path, made: Mapping[str, Any]) -> bool:
    """Whether a whole shard lies there, of the extraction that `made` tells of."""
    if path.is_dir():
        raise VidfaceError(f"{path}: a folder in a file's place; remove it, and extract again")
    try:
        return bool(read_provenance(path).get("created") == made.get("created"))
    except VidfaceError:
        return False


def read_run_settings(path: Path) -> dict[str, Any]:
    """The settings in a run.json; of files that moved along with the run directory, as a whole
    project is moved, the paths where they are now.

    Raises:
        VidfaceError: see `read_json_object`.
    """
    document = read_json_object(path)
    run = document.get("run")
    before, here = run.get("dir") if isinstance(run, dict) else None, path.parent.absolute()
    if not isinstance(before, str) or before == str(here) or not Path(before).is_absolute():
        return document
    is_there = os.path.exists  # which a name that no disk can have doesn't stop
    for table in document.values():
        for key, value in table.items() if isinstance(table, dict) else ():
            if isinstance(value, str) and Path(value).is_absolute() and not is_there(value):
                now = os.path.normpath(here / os.path.relpath(value, before))
                table[key] = now if is_there(now) else value
    return document
