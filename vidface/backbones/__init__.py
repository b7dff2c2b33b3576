"""Recognisers behind one verb: `load_backbone(name_or_path)`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vidface.backbones.base import Backbone, Preprocessing
from vidface.errors import VidfaceError

if TYPE_CHECKING:
    import torch

__all__ = ["Backbone", "Preprocessing", "load_backbone"]


def load_backbone(
    weights: str | Path | torch.nn.Module,
    preprocessing: Preprocessing | None = None,
    *,
    threads: int | None = None,
) -> Backbone:
    """Load a recogniser.

    Args:
        weights: a registered name ("sface"), the path of an ONNX file with one image input
            (n, 3, 112, 112) and one output (n, d), or a torch module of the same form.
        preprocessing: what the network wants to be fed. A registered name brings its own; for a
            path or a module, InsightFace's usual (RGB, (x − 127.5)/127.5) is assumed if nothing is
            said, and `Backbone.assumed` is then True.
        threads: threads of the runtime (default: all cores).

    Raises:
        VidfaceError: unknown name, no such file, not a recogniser, wrong size.
    """
    from vidface.weights import WEIGHTS, weights_path

    if not isinstance(weights, str | Path):
        from vidface.backbones.module import ModuleBackbone

        return ModuleBackbone(weights, preprocessing, threads=threads)
    name = str(weights)
    if name in WEIGHTS:
        record = WEIGHTS[name]
        if record.kind != "recogniser":
            raise VidfaceError(f"weights '{name}' are a {record.kind}, not a recogniser")
        own = declared_preprocessing(name, preprocessing)
        return _onnx(weights_path(name), name, own, threads)
    path = Path(weights)
    if not path.is_file():
        known = ", ".join(n for n, r in WEIGHTS.items() if r.kind == "recogniser")
        raise VidfaceError(f"weights '{name}': no such file, and no known name (known: {known})")
    if path.suffix.lower() != ".onnx":
        raise VidfaceError(
            f"weights {path}: only .onnx files can be loaded by path; export the network to ONNX "
            "with input (n, 3, 112, 112) and output (n, d)"
        )
    return _onnx(path, path.name, preprocessing, threads)


def _onnx(
    path: Path, name: str, preprocessing: Preprocessing | None, threads: int | None
) -> Backbone:
    from vidface.backbones.onnx_file import OnnxBackbone

    return OnnxBackbone(path, name, preprocessing, threads=threads)


def declared_preprocessing(weights: str, given: Preprocessing | None) -> Preprocessing:
    """What a recogniser will be fed: its record's, or what was given, or the usual.

    Raises:
        VidfaceError: a registered name and another preprocessing beside it.
    """
    from vidface.weights import WEIGHTS

    if weights not in WEIGHTS:
        return given or Preprocessing()
    if given is not None:
        raise VidfaceError(
            f"weights '{weights}' bring their own preprocessing; "
            "leave color, mean, std and size out"
        )
    record = WEIGHTS[weights]
    return Preprocessing(record.color, record.mean, record.std, record.input_size)


def weights_sha256(weights: str) -> str:
    """The hash by which artefacts know a recogniser; for a name no file is needed."""
    from vidface.backbones.onnx_file import onnx_sha256
    from vidface.weights import WEIGHTS

    if weights in WEIGHTS:
        return WEIGHTS[weights].sha256
    if not Path(weights).is_file():
        load_backbone(weights)  # raises, and says what is known
    return onnx_sha256(Path(weights))
