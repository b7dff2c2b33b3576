"""A training's folder: what lies in it, and who it belongs to.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidface.core.digests import remove_with_digest
from vidface.core.errors import VidfaceError
from vidface.core.files import make_private_folder, named_errors, read_json_object, write_json
from vidface.runs.artefacts import provenance
from vidface.storage.locks import LOCK, WORKERS, at_work


class TrainingFolder:
    """The paths of a training, and its claim."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = path / "training.json"
        self.checkpoint = path / "checkpoint.safetensors"
        self.log = path / "log.jsonl"
        self.tensorboard = path / "tensorboard"
        self.answers = path / "answers"
        self.results = path / "results.json"
        self.model = path / "model.safetensors"

    def best_model(self, stage_folder: str) -> Path:
        return self.path / "stages" / stage_folder / "best.safetensors"

    def cut(self, stage_folder: str) -> Path:
        return self.path / "stages" / stage_folder / "cut.parquet"

    def refuse_foreign(self) -> None:
        """Raise VidfaceError where the folder is in use for something else."""
        if self.description.is_file():
            return
        if self.path.exists() and not self.path.is_dir():
            raise VidfaceError(f"{self.path}: is a file; name a folder (--run)")
        entries = self.path.iterdir() if self.path.is_dir() else iter(())
        # Left by a training before its claim, or while it makes it.
        if any(path.name not in (self.answers.name, LOCK, WORKERS) for path in entries):
            raise VidfaceError(
                f"{self.path}: is not empty and holds no training; name another --run"
            )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Train here, alone.

        Raises:
            VidfaceError: another process trains here.
        """
        with at_work(self.path, "train", replaces=("training",)):
            yield

    def claim(self, document: Mapping[str, Any], *, restart: bool) -> None:
        """Make the folder this training's, or go on in one that is.

        Args:
            document: everything that decides the weights; it is kept, and compared next time.
            restart: remove what a training left here, and begin anew.

        Raises:
            VidfaceError: it holds another training, or something else.
        """
        if restart:
            self._clear()
        if not self.description.is_file():
            self.refuse_foreign()
            about = {"settings": document, "provenance": provenance("train", {})}
            with named_errors(self.path):
                make_private_folder(self.path)
            write_json(self.description, about)
            return
        try:
            kept = read_json_object(self.description)["settings"]
        except (VidfaceError, KeyError):
            raise VidfaceError(
                f"{self.description}: damaged; give --restart to begin anew, or another --run"
            ) from None
        wanted = json.loads(json.dumps(document))
        if kept != wanted:
            raise VidfaceError(
                f"{self.path}: holds a training with other settings "
                f"({', '.join(list_differences(kept, wanted))}); give --restart to begin anew, or "
                "another --run"
            )

    def _clear(self) -> None:
        """Remove what a training of ours left; nothing else is touched."""
        if not self.description.is_file():
            return
        for path in (self.checkpoint, self.log, self.results, self.model):
            remove_with_digest(path)
        self.forget_stages()
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        self.description.unlink(missing_ok=True)
        # Answers are about faces, not about settings: `ask_about_all` refuses those of others.

    def forget_stages(self) -> None:
        """Remove the stages' models and cuts."""
        shutil.rmtree(self.path / "stages", ignore_errors=True)


def list_differences(kept: Any, wanted: Any, where: str = "") -> list[str]:
    """The places where two documents differ.

    >>> list_differences({"a": 1, "b": [1, 2]}, {"a": 2, "b": [1, 3]})
    ['a', 'b[1]']
    """
    if isinstance(kept, dict) and isinstance(wanted, dict):
        pairs = {
            f"{where}.{key}" if where else key: (kept.get(key), wanted.get(key))
            for key in sorted({*kept, *wanted})
        }
    elif isinstance(kept, list) and isinstance(wanted, list) and len(kept) == len(wanted):
        pairs = {
            f"{where}[{place}]": pair for place, pair in enumerate(zip(kept, wanted, strict=True))
        }
    else:
        return [] if kept == wanted else [where or "all"]
    return [spot for place, pair in pairs.items() for spot in list_differences(*pair, place)]
