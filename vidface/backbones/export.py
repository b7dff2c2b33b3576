"""Torch networks for running and for other tools: batch norm folded, ONNX with a dynamic batch."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.declarations import declare_in_graph
from vidface.backbones.folding import fold_batch_norm
from vidface.backbones.graphs import fix_batch
from vidface.backbones.runtimes.base import library_errors
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.errors import VidfaceError
from vidface.core.files import output_file
from vidface.core.values import CROP_SIZE

if TYPE_CHECKING:
    import onnx
    from torch import nn

OPSET = 20
SAME_COSINE = 0.99999  # what an export must agree to with the module it was made from


def export_onnx(module: nn.Module, declaration: Mapping[str, Any], name: str) -> onnx.ModelProto:
    """The network as ONNX: `images` (batch, 3, 112, 112) float32 → `embeddings` (batch, d).

    Batch norm is folded, the batch is free, the opset is `OPSET`, and `declaration` (architecture,
    preprocessing, …) goes into the file's metadata, so that it need not be said again.

    Raises:
        VidfaceError: torch cannot export it, or the exported graph gives other embeddings than the
            module (cosine below `SAME_COSINE` on any of a few pictures).
    """
    import torch

    network = fold_batch_norm(module).cpu().float()
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, CROP_SIZE, CROP_SIZE))
    pictures = torch.from_numpy(images.astype(np.float32))
    with (
        library_errors(f"{name}: torch cannot export it"),
        quiet_output("torch.onnx"),  # of what is not installed and not needed
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (pictures[:2],),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise VidfaceError(f"{name}: torch exported nothing")
    model = program.model_proto
    declare_in_graph(model, declaration)
    _check_same(module, model, pictures, name)
    return model


@contextlib.contextmanager
def quiet_output(logger_name: str | None) -> Iterator[None]:
    """Let a library's logger speak of errors alone within the block, and its prints go nowhere."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _check_same(module: nn.Module, model: onnx.ModelProto, pictures: Any, name: str) -> None:
    import torch

    with torch.inference_mode():
        wanted = copy.deepcopy(module).eval().cpu().float()(pictures).numpy()
    session = open_session(fix_batch(model, len(pictures)), name, threads=1)
    [embeddings] = session.run(None, {"images": pictures.numpy()})
    cosines = cosine_rows(wanted, embeddings)
    if not cosines.min() >= SAME_COSINE:  # NaN is not the same either
        raise VidfaceError(
            f"{name}: the exported graph gives other embeddings (cosine {cosines.min():.6f})"
        )


def cosine_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine between the rows of two arrays, (n, d) each → (n,)."""
    products = np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
    return products / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def write_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write an ONNX file that appears complete or not at all."""
    with output_file(path) as file:
        file.write(model.SerializeToString())
