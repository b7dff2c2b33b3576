"""Static int8: a second file of a network, smaller and faster, that is never taken by itself.

Weights are rounded once, per output channel; the ranges of what flows between the layers are taken
from calibration crops. The result is an ONNX file like any other, with its own sha256: its figures
are its own, and artefacts tell it from the float32 network.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.declarations import declare_in_graph, graph_declaration
from vidface.backbones.embedder import Embedder
from vidface.backbones.export import cosine_rows, quiet_output
from vidface.backbones.graphs import free_batch
from vidface.backbones.network import MICRO_BATCH, Network
from vidface.backbones.preprocessing import USUAL, Preprocessing
from vidface.backbones.runtimes.base import library_errors, note_progress
from vidface.backbones.runtimes.places import HERE
from vidface.core.errors import ClipError, VidfaceError
from vidface.core.files import output_file
from vidface.storage.images import decode_image

if TYPE_CHECKING:
    import onnx

    from vidface.storage.media import MediaRoot

# Of the ranges that calibration saw, the outermost ten-thousandth is cut off at both ends. With the
# full ranges y1's embeddings kept a cosine of 0.78 to the float32 ones; so, and with the layers of
# `_kept_in_float` left alone, 0.996 (docs/log.md).
PERCENTILE = 99.99
OLDEST_OPSET = 13  # of a scale for each channel


@dataclass(frozen=True)
class Quantised:
    """What came of `quantize_file`."""

    path: Path
    sha256: str
    bytes: int
    calibration_images: int
    images: int  # on which the cosines were measured, none of them used for calibration
    mean_cosine: float  # to the float32 network's embeddings
    lowest_cosine: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "calibration_images": self.calibration_images,
            "cosine_to_float32": {
                "images": self.images,
                "mean": self.mean_cosine,
                "lowest": self.lowest_cosine,
            },
        }


def quantize_file(
    network: Network,
    preprocessing: Preprocessing,
    crops: MediaRoot,
    out: Path,
    *,
    count: int = 256,
    seed: int = 0,
) -> Quantised:
    """Write the int8 twin of a network, calibrated on `count` aligned faces, and measure it.

    Args:
        crops: a folder or tar of face crops of the network's size; as many again as are calibrated
            on are kept apart for measuring.
        seed: of the choice of crops.

    Raises:
        VidfaceError: too few crops, or a network that cannot be quantised.
    """

    if out.suffix.lower() != ".onnx":
        raise VidfaceError(f"{out}: a quantised network's file ends in .onnx")
    images = sampled_crops(crops, 2 * count, seed, preprocessing.shape)
    half = len(images) // 2
    network_there = replace(network, place=HERE)
    model = network.place.call(quantize_network, network_there, preprocessing, images[:half])
    data = model.SerializeToString()
    small = Network(out.name, hashlib.sha256(data).hexdigest(), model, place=network.place)
    held_out = images[half:]
    cosines = cosine_rows(
        Embedder(network, preprocessing).embed(held_out),
        Embedder(small, preprocessing).embed(held_out),
    )
    with output_file(out) as file:  # not before it has run
        file.write(data)
    return Quantised(
        out, small.sha256, len(data), graph_declaration(model, out.name)["calibration_images"],
        len(held_out), float(cosines.mean()), float(cosines.min()),
    )  # fmt: skip


def quantize_network(
    network: Network, preprocessing: Preprocessing, crops: np.ndarray
) -> onnx.ModelProto:
    """The int8 twin of a network; crops (n, h, w, 3) uint8 RGB are what it is calibrated on."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
        shape_inference,
    )

    preprocessing = network.fit_preprocessing(preprocessing)
    graph = network.graph()  # which also finds out whether the batch is free
    if network.model is not None and network.batch == MICRO_BATCH:
        graph = free_batch(network.model)
    if len(crops) < network.batch:
        raise VidfaceError(
            f"weights {network.name}: {len(crops)} {preprocessing.size_text} face crops to "
            f"calibrate on; at least {network.batch} are needed, and as many again for measuring"
        )
    crops = crops[: len(crops) // network.batch * network.batch]
    with (
        library_errors(f"weights {network.name}: cannot be quantised"),
        tempfile.TemporaryDirectory(prefix="vidface-") as folder,
        quiet_output(None),  # onnxruntime's advice goes to the root logger
    ):
        source, prepared = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        target = Path(folder) / "int8.onnx"
        [opset] = [o.version for o in graph.opset_import if o.domain in ("", "ai.onnx")]
        if opset < OLDEST_OPSET:
            graph = onnx.version_converter.convert_version(graph, OLDEST_OPSET)
        onnx.save(graph, source)
        # Folds batch norm where the file has not.
        shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        folded = onnx.load(prepared)
        for number, node in enumerate(folded.graph.node):
            node.name = f"{node.op_type}_{number}"  # by their names layers are left out
        onnx.save(folded, prepared)
        batches = np.split(crops, len(crops) // network.batch)
        image = graph.graph.input[0].name

        def feed() -> Iterator[dict[str, np.ndarray]]:
            for batch in batches:
                note_progress()
                yield {image: preprocessing.apply(batch)}

        feeds = feed()
        quantize_static(
            prepared,
            target,
            SimpleNamespace(get_next=lambda: next(feeds, None)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_kept_in_float(folded),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )
        model = onnx.load(target)
    declaration = {
        **network.declaration,
        "preprocessing": preprocessing.to_dict(),
        "numbers": "int8",
        "made_from_sha256": network.sha256,
        "calibration_images": len(crops),
    }
    declare_in_graph(model, declaration)
    return model


def _kept_in_float(model: onnx.ModelProto) -> list[str]:
    """The convolutions that stay float32: little of the work and most of the error.

    The first one, those with a filter a channel, and of a network that ends in a global depthwise
    convolution what stands around it.
    """
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    grouped = [
        number
        for number, node in enumerate(convolutions)
        if any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    kept = {0, *grouped}
    if grouped:
        kept.update(range(max(grouped) - 1, len(convolutions)))
    if kept.issuperset(range(len(convolutions))):
        raise VidfaceError("it has no convolution that int8 would make faster")
    return [node.name for number, node in enumerate(convolutions) if number in kept]


def sampled_crops(
    root: MediaRoot, count: int, seed: int, shape: tuple[int, int, int] = USUAL.shape
) -> np.ndarray:
    """Up to `count` crops of a folder or tar, drawn by the seed; what is no crop is passed over."""

    names = root.all_images()
    crops = []
    for index in np.random.default_rng(seed).permutation(len(names)):
        try:
            image = decode_image(root.read(names[index]), names[index])
        except (ClipError, OSError):
            continue
        if image.shape == shape:
            crops.append(image)
        if len(crops) == count:
            break
    return np.stack(crops) if crops else np.empty((0, *shape), np.uint8)
