"""The log of a training: lines of JSON, and TensorBoard's scalars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.training.folder import TrainingFolder


class Log:
    """Writes scalars by step; `step` counts over all stages, from 1."""

    def __init__(
        self, folder: TrainingFolder, *, tensorboard: bool, after_step: int, ends_again: bool
    ) -> None:
        folder.trim_log(after_step, ends_again=ends_again)
        self._lines = folder.log.open("a", encoding="utf-8")
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._lines.close()
                raise VidfaceError(
                    "TensorBoard is not installed: pip install 'vidface[train]', or set "
                    "[train] tensorboard = false"
                ) from None
            self._writer = SummaryWriter(str(folder.tensorboard), purge_step=after_step + 1)

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        self._lines.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
        self._lines.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """What was written is on its way to the disk, as the checkpoint is."""
        self._lines.flush()
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        self._lines.close()
        if self._writer is not None:
            self._writer.close()
