"""Writes what an import of a challenge's files makes: a manifest and a pipeline file."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.challenges.preparing import read_if_there
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import output_file
from vidface.settings.initialise import toml_string
from vidface.settings.manifests import manifest_bytes, read_manifest
from vidface.settings.pipeline import LOCAL_PIPELINE, load_pipeline

MANIFEST = "manifest.csv"

PIPELINE_TEXT = """\
# Written by `vidface import {kind}`. Every vidface command that is started in this folder reads it.
# All keys: pipelines/README.md of vidface.

[manifest]
path = {manifest}
root = {root}

[faces]
source = "{source}" # {what}

[cluster]
threshold = 0.4

[score]
{score}

[run]
dir = "runs/{kind}"
"""

WHAT = {
    "features": "clips are videos in files of features; no recogniser is run",
    "aligned": "112x112 crops, never aligned or resized again",
    "detect": "faces are found and aligned first",
}

WITHOUT_GALLERY = 'protocols = "verification" # the others need a split to enrol from: gallery'


def score_keys(clips: Sequence[Clip]) -> str:
    """The keys of [score] for the splits that there are."""
    present = {clip.split for clip in clips}
    scored = next((name for name in ("val", "test", "probe") if name in present), None)
    gallery = next((name for name in ("train", "gallery") if name in present), None)
    if scored and gallery:
        return f'gallery = "{gallery}"\nsplit = "{scored}"'
    return f'split = "{scored or sorted(present)[0]}"\n{WITHOUT_GALLERY}'


@dataclass(frozen=True)
class Challenge:
    """A challenge whose files vidface takes."""

    name: str  # of commands, and of `[manifest] prepare`
    source: str  # [faces] source
    absent: str  # what is said of clips of which there is nothing
    import_data: Callable[..., Imported]
    prepare: Callable[..., None] | None = None  # (manifest, root, *, say): makes the manifest


@dataclass(frozen=True)
class Imported:
    """What an import found, and what it wrote."""

    challenge: Challenge
    manifest: Path
    pipeline: Path
    clips: int  # lines of the manifest
    labelled: int
    identities: int
    splits: dict[str, int]
    absent: int  # clips of which there is nothing; they stay in every denominator
    faces: int | None = None  # where the files say so
    templates: Path | None = None  # of "ijb": the list
    order: str = "auto"  # of its fields

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        faces = "" if self.faces is None else f", {self.faces} faces"
        lines = [
            f"{self.manifest}: {self.clips} clips ({splits}){faces}",
            f"{self.labelled} labelled ({self.identities} identities), "
            f"{self.distractors} distractors",
        ]
        if self.absent:
            lines.append(f"{self.absent} of them {self.challenge.absent}; they count as missing")
        lines += [f"{self.pipeline}: the settings, to be changed there", f"  {self.commands}"]
        return "\n".join(lines)

    @property
    def distractors(self) -> int:
        return self.clips - self.labelled

    @property
    def commands(self) -> str:
        """What to type next."""
        here = self.pipeline.parent == Path()
        flags = "" if here else f" --pipeline {shlex.quote(str(self.pipeline))}"
        is_extracted = self.challenge.source == "features"  # reading, which the command has done
        missing = " --allow-missing" if self.absent and not is_extracted else ""
        steps = [f"vidface extract{flags}{missing}", f"vidface cluster{flags}"]
        lists = ""
        if self.templates is not None:
            lists = f" --templates {shlex.quote(str(self.templates))} --pairs PAIRS"
            if self.order != "auto":
                lists += f" --order {self.order}"
        steps.append(f"vidface score{flags}{lists}")
        return " && ".join(steps[1:] if is_extracted else steps)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "manifest": str(self.manifest),
            "pipeline": str(self.pipeline),
            "clips": self.clips,
            "faces": self.faces,
            "labelled": self.labelled,
            "distractors": self.distractors,
            "identities": self.identities,
            "splits": self.splits,
            "absent": self.absent,
        }


def write_import(
    challenge: Challenge,
    clips: Sequence[Clip],
    root: Path,
    score: str,
    out: Path,
    force: bool,
    *,
    absent: int | None = None,
    faces: int | None = None,
) -> Imported:
    """Write the manifest and the pipeline file of an import.

    Args:
        root: the folder at which the clips' paths start.
        score: the keys of the pipeline's table [score].
        out: the folder to write into.
        absent: how many clips there is nothing of; None to look for their files.

    Raises:
        VidfaceError: files in `out` that say something else, unless `force` replaces them.
    """
    manifest = out / MANIFEST
    place_manifest(clips, manifest, force)
    pipeline = _place_pipeline(challenge, root, score, out, force)
    if absent is None:
        absent = len(read_manifest(manifest, root, allow_missing=True).missing)
    labelled = [clip.identity for clip in clips if clip.identity]
    return Imported(
        challenge=challenge,
        manifest=manifest,
        pipeline=pipeline,
        clips=len(clips),
        labelled=len(labelled),
        identities=len(set(labelled)),
        splits=dict(Counter(clip.split for clip in clips)),
        absent=absent,
        faces=faces,
    )


def place_manifest(clips: Sequence[Clip], path: Path, force: bool) -> None:
    """Write a manifest, unless the same is there."""
    data = manifest_bytes(clips)
    present = read_if_there(path)
    if present == data:
        return
    if present is not None and not force:
        raise VidfaceError(
            f"{path}: a manifest with other content is there; --out names another folder, "
            "--force replaces it"
        )
    with output_file(path) as file:
        file.write(data)


def _place_pipeline(challenge: Challenge, root: Path, score: str, out: Path, force: bool) -> Path:
    """Write the pipeline file; one that is there stays if it works on the same clips."""
    path = out / LOCAL_PIPELINE
    start, where = out.resolve(), root.resolve()
    inside = where.is_relative_to(start)
    text = PIPELINE_TEXT.format(
        kind=challenge.name,
        manifest=toml_string(MANIFEST),
        root=toml_string((where.relative_to(start) if inside else where).as_posix()),
        source=challenge.source,
        what=WHAT[challenge.source],
        score=score,
    )
    if path.exists() and not force:
        there = load_pipeline(path)
        same = (
            there.manifest.path == Path(os.path.abspath(out / MANIFEST))  # noqa: PTH100
            and there.manifest.root is not None
            and there.manifest.root.resolve() == where
            and there.faces.source == challenge.source
        )
        if not same:
            raise VidfaceError(
                f"{path}: is of other clips; --out names another folder, --force replaces it"
            )
        return path
    with output_file(path) as file:
        file.write(text.encode("utf-8"))
    return path
