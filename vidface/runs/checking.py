"""Whether all files of a run directory are what was written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidface.core.digests import DIGEST_SUFFIX, check_digest, digest_path, digested_path
from vidface.core.errors import VidfaceError
from vidface.core.files import PART_SUFFIX
from vidface.runs.artefacts import remake_remedy
from vidface.runs.run_folder import RunFolder


@dataclass(frozen=True)
class CheckedFiles:
    """What `check_files` found.

    Attributes:
        intact: number of files that are what was written.
        unchecked: paths of files without a digest, as an older vidface wrote them.
        damaged: a line a file that is not what was written, or that is gone.
    """

    folder: Path
    intact: int
    intact_bytes: int
    unchecked: tuple[str, ...]
    damaged: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}

    def __str__(self) -> str:
        lines = [f"{self.folder}: {self.intact} files ({self.intact_bytes} bytes) are intact"]
        if self.unchecked:
            lines.append(
                f"{len(self.unchecked)} files have no digest (an older vidface wrote them): "
                + ", ".join(self.unchecked[:5])
                + (", …" if len(self.unchecked) > 5 else "")
            )
        return "\n".join([*lines, *self.damaged])


def check_files(folder: Path) -> CheckedFiles:
    """Compare every artefact of a run directory with its digest.

    Raises:
        VidfaceError: no run directory.
    """
    if not RunFolder(folder).clips_path.is_file():
        raise VidfaceError(f"{folder}: no finished extraction in it; name a run directory")
    intact_bytes, intact = 0, 0
    unchecked: list[str] = []
    damaged: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name.startswith(".") or path.suffix == PART_SUFFIX:
            continue
        if path.suffix == DIGEST_SUFFIX:
            source = digested_path(path)
            if not source.is_file():
                damaged.append(f"{source}: gone; {remake_remedy(source)}")
            continue
        if not digest_path(path).is_file():
            if path.suffix in (".html", ".htm"):
                continue  # a report, which nothing reads
            unchecked.append(path.relative_to(folder).as_posix())
            continue
        try:
            check_digest(path, remake_remedy(path))
        except VidfaceError as error:
            damaged.append(str(error))
            continue
        intact, intact_bytes = intact + 1, intact_bytes + path.stat().st_size
    return CheckedFiles(folder, intact, intact_bytes, tuple(unchecked), tuple(damaged))
