"""Any ONNX recogniser (one image in, one vector out) through ONNX Runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.base import BATCH_SIZE, Backbone, Preprocessing, available_cores
from vidface.errors import VidfaceError
from vidface.faces import CROP_SIZE

if TYPE_CHECKING:
    import onnx

SILENT = 3  # ONNX Runtime's severity "error"; it warns of every initialiser of old exports


class OnnxBackbone(Backbone):
    """An ONNX file. A graph whose batch is fixed to 1 is freed where that changes no result.

    Old exports (SFace among them) also list their weights as inputs, which keeps ONNX Runtime from
    folding batch norm; dropping those made SFace 1.25 times as fast, with equal embeddings.
    """

    runtime = "onnxruntime"

    def __init__(
        self,
        path: Path,
        name: str,
        preprocessing: Preprocessing | None,
        *,
        threads: int | None = None,
    ) -> None:
        self.name = name
        self.sha256 = onnx_sha256(path)
        self.assumed = preprocessing is None
        self.preprocessing = preprocessing or Preprocessing()
        self._threads = threads or available_cores()
        model = _read(path)
        self._session = self._open(model.SerializeToString(), path)
        self._input = _image_input(self._session, path)
        fixed = self._input.shape[0]
        self._batch = fixed if isinstance(fixed, int) else BATCH_SIZE
        if self._batch != BATCH_SIZE:
            self._free_batch(model, path)
        trial = self._run(np.zeros((BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE), np.float32))
        self.dimension = self._check_output(trial, BATCH_SIZE)

    def _open(self, graph: bytes, path: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = SILENT
        try:
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no public base class
            raise VidfaceError(
                f"weights {path}: ONNX Runtime cannot load it: {_line(error)}"
            ) from None

    def _free_batch(self, model: onnx.ModelProto, path: Path) -> None:
        """Let the graph take BATCH_SIZE faces at once, if that gives what one by one gives."""
        freed = type(model)()
        freed.CopyFrom(model)
        for value in (*freed.graph.input, *freed.graph.output):
            for dim in value.type.tensor_type.shape.dim[:1]:  # an output need not declare a shape
                dim.dim_param = "batch"
        del freed.graph.value_info[:]
        images = np.random.default_rng(0).uniform(-1, 1, (self._batch + 1, 3, CROP_SIZE, CROP_SIZE))
        images = images.astype(np.float32)
        one_by_one = self._run(images)
        try:
            session = self._open(freed.SerializeToString(), path)
            together = session.run(None, {self._input.name: images})[0]
        except Exception:
            return  # the graph has its batch size built in; it runs at that size
        if together.shape == one_by_one.shape and np.allclose(together, one_by_one, 1e-3, 1e-4):
            self._session, self._batch = session, BATCH_SIZE

    def _run(self, images: np.ndarray) -> np.ndarray:
        outputs = []
        for start in range(0, len(images), self._batch):
            batch = images[start : start + self._batch]
            short = self._batch - len(batch)
            if short and self._batch != BATCH_SIZE:
                batch = np.concatenate([batch, np.zeros((short, *batch.shape[1:]), np.float32)])
            try:
                output = self._session.run(None, {self._input.name: batch})[0]
            except Exception as error:
                raise VidfaceError(f"weights {self.name}: {_line(error)}") from None
            if output.ndim > 2 and np.prod(output.shape[2:]) == 1:  # (n, d, 1, 1)
                output = output.reshape(output.shape[:2])
            outputs.append(output)
        return np.concatenate(outputs)[: len(images)].astype(np.float32, copy=False)


def onnx_sha256(path: Path) -> str:
    """The hash of an ONNX file and of the files beside it that hold its weights, if any do."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    from vidface.weights import sha256_of

    own = sha256_of(path)
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        outside = sorted(
            {ExternalDataInfo(t).location for t in graph.initializer if uses_external_data(t)}
        )
        parts = [sha256_of(path.parent / name) for name in outside]
    except Exception:  # not a whole ONNX file: loading it says so
        return own
    if not parts:
        return own
    return hashlib.sha256(" ".join([own, *parts]).encode()).hexdigest()


def _read(path: Path) -> onnx.ModelProto:
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's DecodeError and onnx's own, by file content
        raise VidfaceError(
            f"weights {path}: not an ONNX file, or cut off ({_line(error)})"
        ) from None
    if not model.graph.node:
        raise VidfaceError(f"weights {path}: not an ONNX file, or cut off (no graph in it)")
    weights = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(images)
    return model


def _image_input(session: Any, path: Path) -> Any:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise VidfaceError(
            f"weights {path}: {len(inputs)} inputs and {len(outputs)} outputs; "
            "a recogniser has one image input and one output"
        )
    shape = inputs[0].shape
    wanted = ("n", 3, CROP_SIZE, CROP_SIZE)
    fits = len(shape) == 4 and all(
        not isinstance(have, int) or have == want
        for have, want in zip(shape[1:], wanted[1:], strict=True)
    )
    if not fits or inputs[0].type != "tensor(float)":
        raise VidfaceError(
            f"weights {path}: input {shape} {inputs[0].type}; a recogniser takes "
            f"(n, 3, {CROP_SIZE}, {CROP_SIZE}) float32"
        )
    return inputs[0]


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
