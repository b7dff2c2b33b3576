"""A training's folder: what lies in it, who it belongs to, and its log.

training.json            settings, data and versions; another training is refused
checkpoint.safetensors   where it goes on after a kill
log.jsonl, tensorboard/  losses, learning rate, images/s and accuracies by step
answers/                 of the teacher
stages/01-arcface/       best.safetensors, cut.parquet
results.json             the table, a row a stage
model.safetensors        the backbone alone, for load_backbone; written last
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file, write_json
from vidface.runs.artefacts import provenance


class TrainingFolder:
    """The paths of a training, and its claim."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = path / "training.json"
        self.checkpoint = path / "checkpoint.safetensors"
        self.log = path / "log.jsonl"
        self.tensorboard = path / "tensorboard"
        self.answers = path / "answers"
        self.results = path / "results.json"
        self.model = path / "model.safetensors"

    def best(self, stage_folder: str) -> Path:
        return self.path / "stages" / stage_folder / "best.safetensors"

    def cut(self, stage_folder: str) -> Path:
        return self.path / "stages" / stage_folder / "cut.parquet"

    def refuse_foreign(self) -> None:
        """Raise VidfaceError where the folder is in use for something else."""
        if self.about.is_file():
            return
        if self.path.exists() and not self.path.is_dir():
            raise VidfaceError(f"{self.path}: is a file; name a folder (--run)")
        others = self.path.iterdir() if self.path.is_dir() else iter(())
        if any(path != self.answers for path in others):  # left by a training before its claim
            raise VidfaceError(
                f"{self.path}: is not empty and holds no training; name another --run"
            )

    def claim(self, document: Mapping[str, Any], *, restart: bool) -> None:
        """Make the folder this training's, or go on in one that is.

        Raises:
            VidfaceError: it holds another training, or something else.
        """

        if restart:
            self._clear()
        if self.about.is_file():
            try:
                found = json.loads(self.about.read_text(encoding="utf-8"))["settings"]
            except (OSError, ValueError, KeyError, TypeError):
                raise VidfaceError(
                    f"{self.about}: damaged; give --restart to begin anew, or another --run"
                ) from None
            wanted = json.loads(json.dumps(document))
            if found != wanted:
                raise VidfaceError(
                    f"{self.path}: holds a training with other settings "
                    f"({', '.join(differing(found, wanted))}); give --restart to begin anew, or "
                    "another --run"
                )
            return
        self.refuse_foreign()
        write_json(self.about, {"settings": document, "provenance": provenance("train", {})})

    def _clear(self) -> None:
        """Remove what a training of ours left; nothing else is touched."""
        if not self.about.is_file():
            return
        for path in (self.checkpoint, self.log, self.results, self.model):
            path.unlink(missing_ok=True)
        self.forget_stages()
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        self.about.unlink(missing_ok=True)
        # Answers are about faces, not about settings: `teach` refuses those that do not fit.

    def forget_stages(self) -> None:
        """Remove the stages' models and cuts."""
        shutil.rmtree(self.path / "stages", ignore_errors=True)

    def trim_log(self, step: int, *, ends_again: bool = False) -> None:
        """Forget lines after a step: the steps are taken again, and so may be a stage's end."""
        if not self.log.is_file():
            return

        lines = self.log.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step(line) <= step]
        if ends_again:
            kept = [line for line in kept if _step(line) < step or '"best/' not in line]
        with atomic_file(self.log) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off by the kill


def differing(found: Any, wanted: Any, where: str = "") -> list[str]:
    """The places where two documents differ.

    >>> differing({"a": 1, "b": [1, 2]}, {"a": 2, "b": [1, 3]})
    ['a', 'b[1]']
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        places = []
        for key in sorted({*found, *wanted}):
            spot = f"{where}.{key}" if where else key
            places += differing(found.get(key), wanted.get(key), spot)
        return places
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [
            place
            for i, pair in enumerate(zip(found, wanted, strict=True))
            for place in differing(*pair, f"{where}[{i}]")
        ]
    return [] if found == wanted else [where or "all"]
