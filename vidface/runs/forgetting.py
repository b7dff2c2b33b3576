"""Forgetting people: out of every file of a run, for good; what remains is as if they never were.

The list of the forgotten (`vidface.runs.forgotten`) is written first, with what is yet to be done,
so that whoever opens the run after a kill finishes it. Embeddings and crops are written anew
without the forgotten rows; what mixes people (linkage, clusterings, scores, sweeps, reports) goes.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidface.core.clips import Clip
from vidface.core.digests import DIGEST_SUFFIX, check_digest, digested_path
from vidface.core.errors import VidfaceError
from vidface.core.files import PART_SUFFIX
from vidface.core.progress import Notify, quiet
from vidface.core.redaction import redacted
from vidface.core.values import check_name
from vidface.runs import artefacts
from vidface.runs.forgotten import FORGOTTEN, same_name
from vidface.runs.rewriting import MADE_OF_ALL, finish_forgetting
from vidface.runs.run import Run
from vidface.runs.run_folder import STAGING
from vidface.storage.locks import LOCK, WORKERS

_OUTPUTS = {".arrow", ".bin", ".html", ".jpeg", ".jpg", ".npy", ".npz", ".parquet", ".pdf", ".png",
            ".svg", ".webp", PART_SUFFIX}  # fmt: skip
"""Suffixes of what commands write where `--out` says: it can't be seen whose faces are in it."""
_TEXTS = {".csv", ".json", ".md", ".toml", ".tsv", ".txt"}
"""Of texts, which go where a forgotten name stands in them."""
_OF_SHARDS = ("embeddings", "crops")
_NEAR = 5  # names that are shown where one is unknown
_SHOWN = 8  # names that a line shows


@dataclass(frozen=True)
class Forgetting:
    """What is forgotten, or would be.

    Attributes:
        people: identities of the manifest, in each of their spellings.
        faces: of the clips, as they were extracted.
        rewritten: files that are written without them.
        removed: files and folders that go whole.
        untouched: what vidface leaves alone, a line each.
        again: commands that make what was removed again.
    """

    run: str
    people: tuple[str, ...]
    clips: tuple[str, ...]
    faces: int
    rewritten: tuple[str, ...]
    removed: tuple[str, ...]
    untouched: tuple[str, ...]
    again: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if not self.clips:
            return f"{self.run}: nothing to forget"
        of = f" of {', '.join(self.people)}" if self.people else ""
        lines = [f"{self.run}: {len(self.clips)} clip(s){of}, {self.faces} faces: "
                 f"{_shorten(self.clips)}"]  # fmt: skip
        for what, names in (("written without them", self.rewritten), ("removed", self.removed)):
            files = [name for name in names if not name.endswith(DIGEST_SUFFIX)]
            tops = Counter(name.partition("/")[0] for name in files)
            parts = [name if name in files else f"{name}/ ({n} files)" for name, n in tops.items()]
            lines += [f"{what}: {_shorten(parts)}"] * bool(parts)
        lines += [f"untouched: {line}" for line in self.untouched]
        if self.again:
            lines.append(f"to make again what was removed: {'; '.join(self.again)}")
        return "\n".join(lines)


def plan_forgetting(
    run: Run, people: Sequence[str] = (), clips: Sequence[str] = (), notify: Notify = quiet
) -> Forgetting:
    """What `forget` with these arguments would do.

    Raises:
        UsageError: a name that neither the manifest nor the extraction knows.
        VidfaceError: nothing would be left; files of the run are lost or damaged.
    """
    identities, clip_ids = _find_clips(run, people, clips, notify)
    folder, gone = run.folder, set(clip_ids)
    faces, n_stay = 0, sum(clip.clip_id not in gone for clip in run.manifest.clips)
    if folder.clips_path.is_file():
        table, made = folder.read_clips()
        if lost := folder.find_lost_files(len(table), made):
            raise VidfaceError(
                f"{lost[0]}: lost or damaged, so it can't be written anew; `vidface extract` makes "
                "it again"
            )
        is_gone = pc.is_in(table["clip_id"], pa.array(clip_ids, pa.string()))
        faces = pc.sum(table.filter(is_gone)["faces"]).as_py() or 0
        n_stay = min(n_stay, len(table.filter(pc.invert(is_gone))))
    if clip_ids and not n_stay:
        raise VidfaceError(
            f"run directory {folder.folder}: no clip would be left; remove the whole directory"
        )
    files = _sort_files(run, identities, clip_ids) if clip_ids else _Files((), (), ())
    tops = {name.split("/")[0] for name in files.removed}
    name = shlex.quote(str(run.pipeline.run.dir))
    again = [f"vidface sweep {name}"] * ("sweeps" in tops)
    if {"clusters", "scores"} & tops or any(path.endswith(".html") for path in files.removed):
        again.insert(0, f"vidface run {name}")
    return Forgetting(
        run=str(run.pipeline.run.dir),
        people=identities,
        clips=clip_ids,
        faces=faces,
        rewritten=files.rewritten,
        removed=files.removed,
        untouched=tuple(_list_untouched(run, clip_ids, files.kept)) if clip_ids else (),
        again=tuple(again),
    )


def forget(
    run: Run, people: Sequence[str] = (), clips: Sequence[str] = (), notify: Notify = quiet
) -> Forgetting:
    """Remove people's clips, or single clips, from every file of a run, for good.

    The run has to be opened again afterwards: this one's manifest still names them.

    Args:
        people: identities of the manifest; any Unicode form of a name is that name.
        clips: ids of the manifest, or of the extraction.

    Raises:
        UsageError, VidfaceError: see `plan_forgetting`; another process works on the run.
    """
    with run.writing("forget"):
        plan = plan_forgetting(run, people, clips, notify)
        if not plan.clips:
            return plan
        for name in plan.rewritten:  # before anything is changed: none may prove damaged then
            path = run.folder.folder / name
            check_digest(path, artefacts.remake_remedy(path))
        gone = set(plan.clips)
        rest = tuple(clip for clip in run.manifest.clips if clip.clip_id not in gone)
        hashes = (run.manifest.clips_sha256, replace(run.manifest, clips=rest).clips_sha256)
        unfinished = {"remove": list(plan.removed), "clips_sha256": list(hashes)}
        kept_files = {_file_of(clip) for clip in rest}
        files = [
            clip
            for clip in run.manifest.clips
            if clip.clip_id in gone and _file_of(clip) not in kept_files
        ]
        forgotten = run.forgotten.with_more(plan.clips, files, plan.people, unfinished)
        forgotten.write(run.folder.folder)
        run.store()
        finish_forgetting(run.folder, forgotten)
    return plan


def _file_of(clip: Clip) -> tuple[str, float | None, float | None]:
    return clip.path, clip.start_seconds, clip.end_seconds


def _find_clips(
    run: Run, people: Sequence[str], clips: Sequence[str], notify: Notify
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The identities and clip ids that are meant, in the manifest's order."""
    extracted: list[str] = []
    if run.folder.clips_path.is_file():
        extracted = run.folder.read_clips()[0]["clip_id"].to_pylist()
    in_manifest = [clip.clip_id for clip in run.manifest.clips]
    known = dict.fromkeys((*in_manifest, *extracted))
    spellings = dict.fromkeys(clip.identity for clip in run.manifest.clips if clip.identity)
    wanted, named = set(), set()
    for name in people:
        if run.forgotten.forgets_person(name):
            notify(f"'{name}': forgotten already")
            continue
        alike = [spelling for spelling in spellings if same_name(spelling) == same_name(name)]
        if not alike:
            _check_known("person", name, spellings)
        if alike != [name]:
            notify(f"'{name}' is written {', '.join(map(ascii, alike))} in the manifest")
        wanted.update(alike)
    for clip_id in clips:
        if clip_id not in known and run.forgotten.forgets_clip(clip_id):
            notify(f"clip '{clip_id}': forgotten already")
            continue
        _check_known("clip", clip_id, known)
        named.add(clip_id)
    named |= {clip.clip_id for clip in run.manifest.clips if clip.identity in wanted}
    return tuple(s for s in spellings if s in wanted), tuple(c for c in known if c in named)


def _check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse an unknown name, and list those near to it: there may be a million others."""
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, _NEAR) or names[:_NEAR]
        check_name(what, name, near if len(near) == len(names) else [*near, "…"])


@dataclass(frozen=True)
class _Files:
    """The files of a run directory by what becomes of them, relative and sorted."""

    rewritten: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]  # the user's own, that is


def _sort_files(run: Run, people: Sequence[str], clip_ids: Sequence[str]) -> _Files:
    """Say of every file in a run directory what becomes of it."""
    folder = run.folder.folder
    gone = set(clip_ids)
    forgotten_clips = [clip for clip in run.manifest.clips if clip.clip_id in gone]
    texts = {*people, *clip_ids, *(redacted(clip.path) for clip in forgotten_clips)}
    words = {word for text in texts if text for word in _spell(text)}
    users, real = _list_users_files(run), folder.resolve()
    # Where people work in the run directory, pictures in its folders may be their own, of others.
    is_shared = any(path.is_relative_to(real) and path.exists() for path in users)
    rewritten: list[str] = []
    removed: list[str] = []
    kept: list[str] = []
    removed += [path.name for path in sorted(folder.glob(f"{STAGING}*"))]
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        source = digested_path(path) if path.suffix == DIGEST_SUFFIX else path
        top, suffix = name.split("/")[0], source.suffix.lower()
        may_be_own = is_shared and "/" in name and top not in _OF_SHARDS
        if source in (run.folder.pipeline_path, folder / FORGOTTEN):
            continue
        if top == WORKERS or path.name.startswith((LOCK, ".mirror")) or top.startswith(STAGING):
            continue
        if source == run.folder.clips_path or (
            top in _OF_SHARDS and source.name.startswith("shard-")
        ):
            if source == path:
                rewritten.append(name)
        elif top in MADE_OF_ALL or source == run.folder.profile_path:
            removed.append(name)
        elif not users.isdisjoint((real / name, *(real / name).parents)):
            continue  # `untouched` names the manifest and the clips
        elif (suffix in _OUTPUTS and not may_be_own) or (
            suffix in _TEXTS and _contains(source, words)
        ):
            removed.append(name)
        else:
            kept.append(name)
    return _Files(tuple(rewritten), tuple(removed), tuple(kept))


def _walk(folder: Path) -> list[Path]:
    """All files below a folder, links among them, which are not followed."""
    paths = (
        Path(where, name)
        for where, folders, names in os.walk(folder)
        for name in (*names, *(f for f in folders if Path(where, f).is_symlink()))
    )
    return sorted(paths)


def _list_users_files(run: Run) -> set[Path]:
    """Manifest and clips, which may lie below a run directory."""
    location, manifest = run.manifest.root_location, run.manifest.path
    folder = run.folder.folder.resolve()
    users = {folder / "vidface.toml"}
    if isinstance(manifest, Path):
        users.add(manifest.resolve())
    if isinstance(location, Path):
        root = location.resolve()
        users |= {root, *(Path(os.path.normpath(root / c.path)) for c in run.manifest.clips)}
    return users - {folder, *folder.parents}


def _spell(text: str) -> Iterator[bytes]:
    """A name as texts may hold it: in either Unicode form, and as JSON and CSV write it."""
    for form in (text, same_name(text), unicodedata.normalize("NFD", text)):
        in_json = (json.dumps(form, ensure_ascii=escapes)[1:-1] for escapes in (True, False))
        for spelling in (form, *in_json, form.replace('"', '""')):
            yield spelling.encode("utf-8", "surrogatepass")


def _contains(path: Path, words: Iterable[bytes]) -> bool:
    """Whether a text holds any of the words; one that can't be read may."""
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError:
        return True
    return any(word in content for word in words)


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)


def _list_untouched(run: Run, clip_ids: Sequence[str], kept: Sequence[str]) -> Iterator[str]:
    """What still knows the forgotten, a line each."""
    manifest, gone = run.manifest, set(clip_ids)
    n_lines = sum(clip.clip_id in gone for clip in manifest.clips)
    if n_lines:
        yield (
            f"{n_lines} line(s) of your manifest {manifest.path}, and their clips: this run passes "
            "over them from now on"
        )
    if kept:
        yield f"your own files in the run directory: {_shorten(kept)}"
    folder = run.folder.folder
    beside = sorted(folder.absolute().parent.glob("*/clips.parquet")) if run.mirror is None else ()
    for path in beside:
        if path.parent == folder.absolute():
            continue
        with contextlib.suppress(VidfaceError):
            ids = artefacts.read_parquet(path)[0]["clip_id"]
            n_same = pc.sum(pc.is_in(ids, pa.array(clip_ids, pa.string()))).as_py() or 0
            if n_same:
                yield f"another run, {path.parent}: {n_same} clip(s) of these ids"
    if run.mirror is not None:
        yield "old versions that the bucket keeps, and other machines' mirrors until they open it"
    yield "reports, figures, exports and trainings outside of the run directory; backups"
    yield "blocks of removed files that the disk has not used again"
