"""Recognisers behind one verb: `load_backbone(name_or_path)`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from vidface.backbones.architectures import is_architecture
from vidface.backbones.cards import find_card, hash_weights, known_cards
from vidface.backbones.embedder import Embedder
from vidface.backbones.feeding import RAW, Feed, decide_feed
from vidface.backbones.files import read_network
from vidface.backbones.network import wrap_function, wrap_module
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes.base import NetworkLimits
from vidface.backbones.runtimes.with_function import Function
from vidface.backbones.settings import BackboneSettings
from vidface.backbones.weights import WEIGHTS, weights_path
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.progress import Notify, quiet

if TYPE_CHECKING:
    import torch

    from vidface.backbones.network import Network


def load_backbone(
    weights: str | Path | torch.nn.Module | Function,
    preprocessing: Preprocessing | None = None,
    *,
    architecture: str | None = None,
    output: str | None = None,
    runtime: str = "auto",
    precision: str = "float32",
    device: str = "auto",
    threads: int | None = None,
    force: bool = False,
    limits: NetworkLimits | None = None,
) -> Embedder:
    """Load a recogniser.

    Args:
        weights: a registered name ("sface"); a card (`.toml`, see docs/recognisers.md); a function
            from crops (n, height, width, 3) uint8 RGB to embeddings (n, d), or to those and their
            norms (n, 1); a file: `.onnx` with one image input and an output (n, d),
            `.safetensors`, a PyTorch state dict (`.pt`, `.pth`), MXNet's `.params` of an
            InsightFace MobileFaceNet; or a torch module, which is used as it is at every call, so
            that a training loop can watch itself.
        preprocessing: what the network wants to be fed. A registered name brings its own, and so
            does a file that vidface wrote or knows; a graph that normalises its pictures itself is
            fed raw pixels; where nobody says, InsightFace's usual (RGB, (x − 127.5)/127.5) is
            assumed, and `Embedder.assumed` is then True.
        architecture: what a file of bare parameters is of; where nobody says, the one of vidface's
            that it fits in all names and shapes.
        output: the embedding's name, where several outputs of an ONNX file could be it.
        runtime: "onnxruntime", "openvino", "torch", or "auto": a short trial on this machine, its
            outcome kept in the cache.
        precision: "float32", "bf16" or "fp16", as the runtime can.
        device: "cpu", "cuda", or "auto": CUDA for torch networks where there is one.
        threads: threads of the runtime (default: all cores).
        force: go on where `preprocessing` contradicts the file, or a run's trial fails.
        limits: of time and memory, for an ONNX file that vidface doesn't know: it runs in a process
            of its own.

    Raises:
        VidfaceError: unknown name, no such file, not a recogniser, wrong size, damaged file, a
            preprocessing that contradicts it.
    """
    feed = Feed(preprocessing or Preprocessing(), assumed=preprocessing is None)
    if callable(weights) and not _is_module(weights):
        feed = Feed((preprocessing or RAW).over(RAW))
        if feed.preprocessing.saying(size=None, template=None) != RAW:
            raise VidfaceError(
                "weights: a function is handed crops as they are, uint8 RGB; leave color, mean and "
                "std out (size and template may be given)"
            )
        network = wrap_function(weights, feed.preprocessing)
    else:
        network = load_network(weights, architecture, output, limits)
    if isinstance(weights, str | Path):
        feed = decide_feed(str(weights), preprocessing, force=force, place=network.place)
    return Embedder(
        network,
        replace(feed, force=force),
        runtime=runtime,
        precision=precision,
        device=device,
        threads=threads,
    )


def open_backbone(settings: BackboneSettings, notify: Notify = quiet) -> Embedder:
    """The recogniser of a table [backbone], with a word on what it is fed where one is due."""
    backbone = load_backbone(
        settings.weights,
        settings.preprocessing,
        architecture=settings.architecture,
        output=settings.output,
        runtime=settings.runtime,
        precision=settings.precision,
        device=settings.device,
        force=settings.force_recogniser,
        limits=settings.limits,
    )
    if backbone.feed.remark:
        notify(backbone.feed.remark)
    return backbone


def load_network(
    weights: str | Path | torch.nn.Module | Function,
    architecture: str | None = None,
    output: str | None = None,
    limits: NetworkLimits | None = None,
) -> Network:
    """Read a recogniser without preparing it for running; arguments as `load_backbone`'s."""

    if not isinstance(weights, str | Path):
        if not _is_module(weights):
            raise VidfaceError(
                "weights: want a name, a path, a function or a torch.nn.Module, not "
                f"{type(weights).__name__}"
            )
        return wrap_module(weights)
    name = str(weights)
    if name in WEIGHTS:
        if name in known_cards():
            raise VidfaceError(
                f"weights '{name}': vidface knows some by this name itself; rename the card "
                f"{known_cards()[name]}, or give its path"
            )
        if WEIGHTS[name].kind != "recogniser":
            raise VidfaceError(f"weights '{name}' are a {WEIGHTS[name].kind}, not a recogniser")
        return read_network(weights_path(name), name, architecture, output)
    path = Path(weights)
    if (card := find_card(name)) is not None:
        for key, said in (("output", output), ("architecture", architecture)):
            if said not in (None, getattr(card, key)):
                raise VidfaceError(f"weights {name}: a card says its {key}; leave '{said}' out")
        return read_network(card.check_file(), path.name, card.architecture, card.output, limits)
    if path.is_file():
        return read_network(path, path.name, architecture, output, limits)
    if is_architecture(name):
        raise VidfaceError(
            f"'{name}' is an architecture without weights: it can be shown, counted, exported and "
            "trained, but not extract; give a file of weights that fits it (--weights FILE "
            f"--architecture {name})"
        )
    known = ", ".join([*(n for n, r in WEIGHTS.items() if r.kind == "recogniser"), *known_cards()])
    raise UsageError(f"weights '{name}': no such file, and no known name (known: {known})")


def _is_module(weights: object) -> TypeGuard[torch.nn.Module]:
    """Whether it is a torch module, which there are none of before torch is loaded."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(weights, torch.nn.Module)


def weights_sha256(weights: str) -> str:
    """The hash by which artefacts know a recogniser; for a name no file is needed."""

    if weights in WEIGHTS:
        return WEIGHTS[weights].sha256
    card = find_card(weights)
    path = card.check_file() if card is not None else Path(weights)
    if not path.is_file():
        load_network(weights)  # raises, and says what is known
    return hash_weights(path)
