"""The log of a training: lines of JSON, and TensorBoard's scalars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file, make_folder


class TrainingLog:
    """Writes scalars by step; `step` counts over all stages, from 1.

    Args:
        path: of the lines; those after `after_step` are forgotten (`forget_later_lines`).
        tensorboard: the folder of TensorBoard's files; None: none.
        after_step, ends_again: where the training goes on.
    """

    def __init__(
        self, path: Path, tensorboard: Path | None, *, after_step: int, ends_again: bool
    ) -> None:
        forget_later_lines(path, after_step, ends_again=ends_again)
        self._writer: Any = None
        if tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise VidfaceError(
                    "TensorBoard is not installed: pip install 'vidface[train]', or set "
                    "[train] tensorboard = false"
                ) from None
            make_folder(tensorboard)
            self._writer = SummaryWriter(str(tensorboard), purge_step=after_step + 1)
        self._lines = path.open("a", encoding="utf-8")

    def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        self._lines.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
        self._lines.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Send what was written on its way to the disk, as the checkpoint is."""
        self._lines.flush()
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        self._lines.close()
        if self._writer is not None:
            self._writer.close()


def forget_later_lines(path: Path, step: int, *, ends_again: bool = False) -> None:
    """Forget a log's lines after a step, which are written again; so may be a stage's end."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if _step_of(line) <= step]
    if ends_again:
        kept = [line for line in kept if _step_of(line) < step or '"best/' not in line]
    with atomic_file(path) as file:
        file.write("".join(f"{line}\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")  # cut off by the kill
