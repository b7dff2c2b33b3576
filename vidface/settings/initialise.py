"""`vidface init`: a first manifest and pipeline file for a folder of clips."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.settings.folders import FolderClips, clips_in_folder
from vidface.settings.manifests import write_manifest
from vidface.settings.pipeline import LOCAL_PIPELINE

PIPELINE_TEXT = """\
# Written by `vidface init`. Every vidface command that is started in this folder reads it.
# All keys: pipelines/README.md of vidface.

[manifest]
path = {manifest}

[frames]
fps = 8

[faces]
source = "detect" # "aligned": folders of 112x112 crops, used as they are
which = "largest"

[backbone]
weights = "sface" # or the path of an .onnx recogniser, with color, mean and std

[cluster]
threshold = 0.4

[score]
gallery = "train"
split = "val"

[run]
dir = {run_folder}
"""


@dataclass(frozen=True)
class InitialFiles:
    """What `vidface init` wrote."""

    manifest: Path
    pipeline: Path | None  # None: there was one already
    clips: int
    identities: int
    splits: dict[str, int]
    contents: FolderClips

    def to_dict(self) -> dict[str, Any]:
        return {
            "manifest": str(self.manifest),
            "pipeline": str(self.pipeline) if self.pipeline else None,
            "clips": self.clips,
            "identities": self.identities,
            "splits": self.splits,
            "skipped": self.contents.skipped,
            "notes": list(self.contents.notes),
        }

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        note, flags = f"{self.pipeline}: the settings, to be changed there", ""
        if self.pipeline is None:
            note = f"{LOCAL_PIPELINE} was there already and stays as it is"
            flags = f" --manifest {shlex.quote(str(self.manifest))}"
        elif self.pipeline.parent != Path():
            flags = f" --pipeline {shlex.quote(str(self.pipeline))}"
        lines = [
            f"{self.manifest}: {self.clips} clips, {self.identities} identities ({splits})",
            *([str(self.contents)] if str(self.contents) else []),
            note,
            "Edit identity and split (an empty identity is a distractor), then:",
        ]
        if not self.identities:
            lines.append("  (no person folders: fill in who is in each clip first)")
        lines.append(f"  vidface extract{flags} && vidface cluster{flags} && vidface score{flags}")
        return "\n".join(lines)


def initialise(folder: Path, out: Path, *, force: bool = False) -> InitialFiles:
    """Write a manifest of the clips in a folder, and a pipeline file beside it if there is none.

    Raises:
        VidfaceError: no clips there, or a manifest that would be overwritten.
    """
    manifest_name = toml_string(out.name)
    if out.exists() and not force:
        raise VidfaceError(f"{out} exists; --force replaces it, --out writes another")
    start = out.parent.resolve()
    if not start.is_dir():
        raise VidfaceError(f"{start}: no such folder to write {out.name} into")
    where = folder.resolve()
    prefix = Path(os.path.relpath(where, start)) if where.is_relative_to(start) else where
    contents = clips_in_folder(folder)
    clips = [
        dataclasses.replace(clip, path=(prefix / clip.path).as_posix()) for clip in contents.clips
    ]
    pipeline = out.parent / LOCAL_PIPELINE
    try:
        write_manifest(clips, out)
        written = not pipeline.exists()
        if written:
            name = (where.name or "clips").replace("${", "$ {")  # a folder may be called anything
            run_folder = toml_string(f"runs/{name}")
            text = PIPELINE_TEXT.format(manifest=manifest_name, run_folder=run_folder)
            pipeline.write_text(text, encoding="utf-8")
    except OSError as error:
        raise VidfaceError(f"{error.filename}: {error.strerror or error}") from None
    return InitialFiles(
        manifest=out,
        pipeline=pipeline if written else None,
        clips=len(clips),
        identities=len({clip.identity for clip in clips if clip.identity}),
        splits=dict(Counter(clip.split for clip in clips)),
        contents=contents,
    )


def toml_string(text: str) -> str:
    """A TOML string: its basic strings take JSON's escapes."""
    if "${" in text:
        raise VidfaceError(f"{text}: '${{' stands for a variable in {LOCAL_PIPELINE}; rename it")
    return json.dumps(text, ensure_ascii=False)
