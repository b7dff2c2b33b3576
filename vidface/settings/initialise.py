"""`vidface init`: a first manifest and pipeline file for a folder of clips."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shlex
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import csv_rows, output_file
from vidface.core.settings import table_settings
from vidface.settings.folders import FolderClips, clips_in_folder
from vidface.settings.manifests import manifest_bytes, read_manifest, write_manifest
from vidface.settings.pipeline import LOCAL_PIPELINE
from vidface.settings.tables import TABLES, ManifestSettings

CROPS_KEPT_UP_TO = 1000  # clips of a set whose faces are kept as pictures, unless it says otherwise
_LINE_WIDTH = 98


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

    @property
    def decisions(self) -> str:
        """What was written, left out and decided, a line each."""
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        settings = (
            f"{LOCAL_PIPELINE} was there already and stays as it is"
            if self.pipeline is None
            else f"{self.pipeline}: the settings, to be changed there"
        )
        lines = [
            f"{self.manifest}: {self.clips} clips, {self.identities} identities ({splits})",
            *([str(self.contents)] if str(self.contents) else []),
            *([] if self.identities else ["no person folders: nobody is known yet"]),
            settings,
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        flags = ""
        if self.pipeline is None:
            flags = f" --manifest {shlex.quote(str(self.manifest))}"
        elif self.pipeline.parent != Path():
            flags = f" {shlex.quote(str(self.pipeline))}"
        edit = "Edit identity and split (an empty identity is a distractor), then:"
        return f"{self.decisions}\n{edit}\n  vidface run{flags}"


def initialise(folder: Path, out: Path, *, force: bool = False) -> InitialFiles:
    """Write a manifest of the clips in a folder, and a pipeline file beside it if there is none.

    Raises:
        VidfaceError: no clips there, or a manifest that would be overwritten.
    """
    toml_string(out.name)  # raises
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
            text = pipeline_text(
                out.name, f"runs/{name}", keep_crops=len(clips) <= CROPS_KEPT_UP_TO
            )
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


@dataclass(frozen=True)
class AddedClips:
    """Clips that `vidface init --add` wrote below a manifest's lines."""

    manifest: Path
    clips: tuple[Clip, ...]
    listed: int  # clips of the folder that were there already

    def to_dict(self) -> dict[str, Any]:
        added = [clip.clip_id for clip in self.clips]
        return {"manifest": str(self.manifest), "added": added, "listed": self.listed}

    def __str__(self) -> str:
        lines = [f"{self.manifest}: {len(self.clips)} clips added, {self.listed} were there"]
        lines += [f"  {clip.clip_id}: {clip.identity or 'nobody known'}, {clip.split}"
                  for clip in self.clips[:20]]  # fmt: skip
        if len(self.clips) > 20:
            lines.append(f"  and {len(self.clips) - 20} more")
        return "\n".join(lines)


def compare_with_folder(
    settings: ManifestSettings, folder: Path
) -> tuple[tuple[Clip, ...], tuple[Clip, ...]]:
    """The clips of a folder that a manifest lists, and those that it does not, as drafted for it.

    Paths are the manifest's, relative to its root where they lie in it.

    Raises:
        VidfaceError: no clips in the folder, no readable manifest.
    """
    manifest = read_manifest(settings.path, settings.root, check_files=False)
    start = manifest.root_location
    if not isinstance(start, Path):
        return (), ()
    start = start.resolve()
    places = {os.path.normpath(start / clip.path) for clip in manifest.clips}
    drafted = [(clip, folder.resolve() / clip.path) for clip in clips_in_folder(folder).clips]
    listed = tuple(clip for clip, place in drafted if str(place) in places)
    enrolled = {clip.identity for clip in manifest.clips if clip.split == "train"}
    taken = {clip.clip_id for clip in manifest.clips}
    unlisted = []
    for clip, place in drafted:
        if str(place) in places:
            continue
        names = (f"{clip.clip_id}-{n}" for n in itertools.count(2))
        clip_id = next(n for n in itertools.chain([clip.clip_id], names) if n not in taken)
        taken.add(clip_id)
        path = place.relative_to(start) if place.is_relative_to(start) else place
        split = "val" if clip.identity in enrolled and clip.split == "train" else clip.split
        unlisted.append(
            dataclasses.replace(clip, clip_id=clip_id, path=path.as_posix(), split=split)
        )
    return listed, tuple(unlisted)


def add_clips(folder: Path, out: Path) -> AddedClips:
    """Write the clips of a folder that a manifest does not list below its lines, which stay.

    A person who is enrolled there already gets no second clip in the gallery.

    Raises:
        VidfaceError: no clips there, no manifest.
    """
    listed, added = compare_with_folder(ManifestSettings(path=out), folder)
    before = out.read_bytes()
    header = next(csv_rows(before.decode("utf-8-sig"), f"manifest {out}"))[1]
    data = manifest_bytes(added, header, with_header=False)
    if added:
        with output_file(out) as file:
            file.write(before + (b"" if before.endswith(b"\n") else b"\r\n") + data)
    return AddedClips(out, added, len(listed))


def pipeline_text(manifest: str, run_folder: str, *, keep_crops: bool) -> str:
    """A vidface.toml: what people set, with its value; what else they may set, as comments.

    Every key comes from the settings of the rooms; rare ones are left to pipelines/README.md.
    """
    values = {
        ("manifest", "path"): manifest,
        ("frames", "fps"): None,
        ("faces", "source"): None,
        ("faces", "which"): None,
        ("faces", "keep_crops"): keep_crops,
        ("backbone", "weights"): None,
        ("cluster", "threshold"): 0.4,
        ("score", "gallery"): None,
        ("score", "split"): None,
        ("run", "dir"): run_folder,
    }
    remarks = {
        ("faces", "keep_crops"): "`vidface show` and the report's pictures need them: about 4 kB a "
        "face, and personal data. Turned on later, everything is extracted again.",
    }
    lines = [
        "# Written by `vidface init`; edit it. Every vidface command in this folder reads it.",
        "# What begins with # is a default, or not used. All keys: pipelines/README.md of vidface.",
    ]
    for table, kind in TABLES.items():
        lines += ["", f"[{table}]"]
        for field in table_settings(kind):
            key = (table, field.name)
            if key not in values and (field.rare or field.flag is None):
                continue
            default = None if field.default is dataclasses.MISSING else field.default
            value = default if values.get(key) is None else values[key]
            unit = f" [{field.unit}]" if field.unit else ""
            text = " ".join(filter(None, [field.text + unit, remarks.get(key)]))
            if value is None:  # TOML has no word for nothing
                text = f"{field.name}: {text}"
            lines += textwrap.wrap(
                text,
                _LINE_WIDTH,
                initial_indent="# ",
                subsequent_indent="# ",
                break_on_hyphens=False,
            )
            if value is not None:
                lines.append(f"{'' if key in values else '# '}{field.name} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A setting's value as TOML.

    >>> toml_value(True), toml_value(8.0), toml_value((1, 2)), toml_value("val")
    ('true', '8', '[1, 2]', '"val"')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if value == float(f"{value:g}") else repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    return toml_string(str(value))


def toml_string(text: str) -> str:
    """A TOML string: its basic strings take JSON's escapes."""
    if "${" in text:
        raise VidfaceError(f"{text}: '${{' stands for a variable in {LOCAL_PIPELINE}; rename it")
    return json.dumps(text, ensure_ascii=False)
