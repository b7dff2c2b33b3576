"""What a file of weights says of itself: its architecture, its preprocessing, how it was made.

It stands as JSON in the file's metadata, in ONNX and safetensors alike, so that it need not be said
again by whoever uses the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError

if TYPE_CHECKING:
    import onnx

METADATA_KEY = "vidface"

# InsightFace's symbols begin with (x − 127.5) · 0.0078125 on RGB.
MXNET_DECLARATION: Mapping[str, Any] = {
    "preprocessing": {"color": "rgb", "mean": 127.5, "std": 128.0}
}


def declare_in_graph(model: onnx.ModelProto, declaration: Mapping[str, Any]) -> None:
    """Let a graph say this of itself, and nothing else; in place."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(dict(declaration))


def graph_declaration(model: onnx.ModelProto, name: str) -> dict[str, Any]:
    """What an ONNX file says of itself, under the metadata key `vidface`; {} where nothing."""
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return parse_declaration(entry.value, name)
    return {}


def parse_declaration(text: str, name: str) -> dict[str, Any]:
    """A file's own word on its architecture and preprocessing, from a stranger's JSON."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if (
        not isinstance(document, dict)
        or not isinstance(document.get("preprocessing", {}), dict)
        or not isinstance(document.get("architecture"), str | None)
    ):
        raise VidfaceError(
            f"weights {name}: its metadata '{METADATA_KEY}' is not what vidface writes"
        )
    return document
