"""A teacher that is asked at every step, about exactly the faces that the student sees.

Teacher and student then see the same picture however it was moved, lit or blurred, and the teacher
can be asked for more than its embedding: any map inside its graph. Beyer et al., Knowledge
distillation: a good teacher is patient and consistent (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.graphs import first_line, inferred_shapes, with_preprocessing
from vidface.backbones.loading import declared_preprocessing, load_network
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE

if TYPE_CHECKING:
    import onnx

    from vidface.backbones.preprocessing import Preprocessing

MAX_VALUES = 4_000_000  # a face's map; 64 channels at 112x112 are 800,000
_LISTED = 12  # names that a message lists


@dataclass(frozen=True)
class Said:
    """What a teacher says of n faces.

    Attributes:
        embeddings: (n, d) float32, unit rows.
        maps: name → (n, c, h, w) float32.
    """

    embeddings: np.ndarray
    maps: Mapping[str, np.ndarray]

    def __str__(self) -> str:
        shapes = "".join(f", {name} {each.shape}" for name, each in self.maps.items())
        return f"said: embeddings {self.embeddings.shape}{shapes}"


class LiveTeacher:
    """A recogniser run by ONNX Runtime on the CPU, with maps of its graph beside its embedding.

    Args:
        weights: a registered name or a file, as `vidface.load_backbone` takes.
        preprocessing: what it is fed; None: its own word, or InsightFace's usual.
        maps: names of values in its graph (a viewer such as Netron shows them), each (n, c, h, w).
        threads: of ONNX Runtime.

    Raises:
        VidfaceError: as `load_backbone`'s; a map that the graph has not (some that it has are
            listed), or that is no map.
    """

    def __init__(
        self,
        weights: str,
        preprocessing: Preprocessing | None = None,
        maps: Sequence[str] = (),
        threads: int = 1,
    ) -> None:

        network = load_network(weights)
        self.name, self.sha256 = network.name, network.sha256
        fed = declared_preprocessing(str(weights), preprocessing) or Preprocessing()
        graph = network.graph()
        self.shapes = _map_shapes(graph, self.name, maps)
        model = with_preprocessing(_with_outputs(graph, self.shapes), fed)
        self.batch: int = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self._session: Any = open_session(model, self.name, threads)
        self._input: str = self._session.get_inputs()[0].name
        self._outputs = [model.graph.output[0].name, *self.shapes]
        self.dimension = self._try()

    def __str__(self) -> str:
        return f"{self.name}, live: {self.dimension}-d, {len(self.shapes)} maps"

    def __call__(self, crops: np.ndarray) -> Said:
        """What it says of faces (n, 112, 112, 3) uint8 RGB.

        Raises:
            VidfaceError: no finite embedding of one of them; faces of another shape.
        """
        shape = (CROP_SIZE, CROP_SIZE, 3)
        if crops.ndim != 4 or crops.shape[1:] != shape or crops.dtype != np.uint8 or not len(crops):
            raise VidfaceError(
                f"teacher {self.name}: want faces (n, {CROP_SIZE}, {CROP_SIZE}, 3) uint8, got "
                f"{crops.shape} {crops.dtype}"
            )
        rows, *maps = self._run(crops)
        rows = rows.reshape(len(rows), -1)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
        if len(bad):
            raise VidfaceError(f"teacher {self.name}: no embedding of face {bad[0]} of a batch")
        for name, each in zip(self.shapes, maps, strict=True):
            if not np.isfinite(each.sum(dtype=np.float64)):
                raise VidfaceError(f"teacher {self.name}: '{name}' is not finite")
        return Said(rows / norms, dict(zip(self.shapes, maps, strict=True)))

    def _run(self, crops: np.ndarray) -> list[np.ndarray]:
        """All outputs for n faces, in batches of one shape, the last filled up with black."""

        parts = []
        for start in range(0, len(crops), self.batch):
            piece = np.ascontiguousarray(crops[start : start + self.batch])
            if len(piece) < self.batch:
                filled = np.zeros((self.batch, *piece.shape[1:]), np.uint8)
                filled[: len(piece)] = piece
                piece = filled
            try:
                parts.append(self._session.run(self._outputs, {self._input: piece}))
            except Exception as error:  # its exceptions share no public base class
                raise VidfaceError(f"teacher {self.name}: {first_line(error)}") from None
        return [np.concatenate(each)[: len(crops)] for each in zip(*parts, strict=True)]

    def _try(self) -> int:
        """The embedding's dimension, by a trial."""
        rows = self._run(np.zeros((1, CROP_SIZE, CROP_SIZE, 3), np.uint8))[0]
        if rows.ndim < 2 or np.prod(rows.shape[2:]) != 1 or rows.shape[1] < 2:
            raise VidfaceError(f"teacher {self.name}: a face gives {rows.shape[1:]}, not (d,)")
        return int(rows.shape[1])


def _map_shapes(
    model: onnx.ModelProto, name: str, maps: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """(c, h, w) of each map; nothing is inferred where none is wanted."""

    if not maps:
        return {}
    made = [output for node in model.graph.node for output in node.output]
    known = inferred_shapes(model.graph, model, name)
    found = {}
    for each in dict.fromkeys(maps):
        if each not in made:
            some = [n for n in made if len(known.get(n, ())) == 4]
            listed = some[:: max(1, len(some) // _LISTED)]
            raise VidfaceError(
                f"teacher {name}: its graph has no '{each}' (it has, among {len(some)} maps: "
                f"{', '.join(listed)})"
            )
        shape = known.get(each, ())
        if len(shape) != 4 or min(shape) < 1 or np.prod(shape[1:]) > MAX_VALUES:
            raise VidfaceError(
                f"teacher {name}: '{each}' is {shape or 'of no known shape'}: want a map "
                f"(n, c, h, w) of at most {MAX_VALUES:,} values a face"
            )
        found[each] = (shape[1], shape[2], shape[3])
    return found


def _with_outputs(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, int, int]]
) -> onnx.ModelProto:
    """The graph with values inside it given out too."""
    from onnx import TensorProto, helper

    made = type(model)()
    made.CopyFrom(model)
    batch = made.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    there = {value.name for value in made.graph.output}
    for name, shape in shapes.items():
        if name not in there:
            value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
            made.graph.output.append(value)
    return made
