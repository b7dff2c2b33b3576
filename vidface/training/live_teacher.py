"""A teacher that is asked at every step, about exactly the faces that the student sees.

Teacher and student then see the same picture however it was moved, lit or blurred, and the teacher
can be asked for more than its embedding: any map inside its graph. Beyer et al., Knowledge
distillation: a good teacher is patient and consistent (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from vidface.backbones.feeding import decide_feed
from vidface.backbones.graphs import inferred_shapes, with_preprocessing
from vidface.backbones.loading import load_network
from vidface.backbones.preprocessing import USUAL, Preprocessing
from vidface.backbones.runtimes.places import Place
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.errors import VidfaceError, first_line
from vidface.core.values import CROP_SIZE
from vidface.training.teachers import unit_answers

MAX_VALUES = 4_000_000  # a face's map; 64 channels at 112x112 are 800,000
_LISTED = 12  # names that a message lists


@dataclass(frozen=True)
class TeacherAnswers:
    """What a teacher says of n faces.

    Attributes:
        embeddings: (n, d) float32, unit rows.
        maps: name → (n, c, h, w) float32.
    """

    embeddings: np.ndarray
    maps: Mapping[str, np.ndarray]


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
        feed = decide_feed(str(weights), preprocessing, place=network.place)
        fed = network.fit_preprocessing(feed.preprocessing)
        if fed.shape != USUAL.shape:
            raise VidfaceError(
                f"teacher {self.name}: takes faces of {fed.size_text} pixels; training's are "
                f"{USUAL.size_text}"
            )
        graph = network.graph()
        self.shapes = _map_shapes(graph, self.name, maps, network.place)
        model = with_preprocessing(_with_outputs(graph, self.shapes), fed)
        self.batch: int = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self._session: Any = network.place.hold(open_session, model, self.name, threads)
        self._input: str = model.graph.input[0].name
        self._outputs = [model.graph.output[0].name, *self.shapes]
        self.dimension = self._measure_dimension()

    def __call__(self, crops: np.ndarray) -> TeacherAnswers:
        """Answer about faces (n, 112, 112, 3) uint8 RGB.

        Raises:
            VidfaceError: no finite embedding of one of them; faces of another shape.
        """
        shape = (CROP_SIZE, CROP_SIZE, 3)
        if crops.ndim != 4 or crops.shape[1:] != shape or crops.dtype != np.uint8 or not len(crops):
            raise VidfaceError(
                f"teacher {self.name}: want faces (n, {CROP_SIZE}, {CROP_SIZE}, 3) uint8, got "
                f"{crops.shape} {crops.dtype}"
            )
        rows, *outputs = self._run(crops)
        rows = unit_answers(rows.reshape(len(rows), -1), self.name, where=" of a batch")
        maps = dict(zip(self.shapes, outputs, strict=True))
        for name, values in maps.items():
            if not np.isfinite(values.sum(dtype=np.float64)):
                raise VidfaceError(f"teacher {self.name}: '{name}' is not finite")
        return TeacherAnswers(rows, maps)

    def _run(self, crops: np.ndarray) -> list[np.ndarray]:
        """All outputs for n faces, in batches of one shape, the last filled up with black."""
        outputs = []
        for start in range(0, len(crops), self.batch):
            faces = crops[start : start + self.batch]
            batch = np.zeros((self.batch, *crops.shape[1:]), np.uint8)
            batch[: len(faces)] = faces
            try:
                outputs.append(self._session.run(self._outputs, {self._input: batch}))
            except VidfaceError:
                raise
            except Exception as error:  # its exceptions share no public base class
                raise VidfaceError(f"teacher {self.name}: {first_line(error)}") from None
        return [np.concatenate(parts)[: len(crops)] for parts in zip(*outputs, strict=True)]

    def _measure_dimension(self) -> int:
        """The embedding's dimension, by a trial."""
        rows = self._run(np.zeros((1, CROP_SIZE, CROP_SIZE, 3), np.uint8))[0]
        if rows.ndim < 2 or np.prod(rows.shape[2:]) != 1 or rows.shape[1] < 2:
            raise VidfaceError(f"teacher {self.name}: a face gives {rows.shape[1:]}, not (d,)")
        return int(rows.shape[1])


def _map_shapes(
    model: ModelProto, name: str, maps: Sequence[str], place: Place
) -> dict[str, tuple[int, int, int]]:
    """(c, h, w) of each map; nothing is inferred where none is wanted."""
    if not maps:
        return {}
    outputs = [output for node in model.graph.node for output in node.output]
    known = place.call(inferred_shapes, model, name)
    shapes = {}
    for wanted in dict.fromkeys(maps):
        if wanted not in outputs:
            four = [output for output in outputs if len(known.get(output, ())) == 4]
            listed = four[:: max(1, len(four) // _LISTED)]
            raise VidfaceError(
                f"teacher {name}: its graph has no '{wanted}' (it has, among {len(four)} maps: "
                f"{', '.join(listed)})"
            )
        shape = known.get(wanted, ())
        if len(shape) != 4 or min(shape) < 1 or np.prod(shape[1:]) > MAX_VALUES:
            raise VidfaceError(
                f"teacher {name}: '{wanted}' is {shape or 'of no known shape'}: want a map "
                f"(n, c, h, w) of at most {MAX_VALUES:,} values a face"
            )
        shapes[wanted] = (shape[1], shape[2], shape[3])
    return shapes


def _with_outputs(model: ModelProto, shapes: Mapping[str, tuple[int, int, int]]) -> ModelProto:
    """The graph with values inside it given out too."""
    extended = ModelProto()
    extended.CopyFrom(model)
    batch = extended.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    outputs = {value.name for value in extended.graph.output}
    for name, shape in shapes.items():
        if name not in outputs:
            value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
            extended.graph.output.append(value)
    return extended
