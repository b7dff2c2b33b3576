"""ONNX Runtime on the CPU: one thread a batch, a batch a thread side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vidface.backbones.runtimes.base import (
    WITH_NORM,
    Runner,
    Runtime,
    RuntimePlan,
    library_errors,
    note_progress,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from vidface.backbones.network import Network
    from vidface.backbones.preprocessing import Preprocessing

SILENT = 3  # severity "error"; it warns of every initialiser of old exports


def make_runner(
    network: Network, preprocessing: Preprocessing, plan: RuntimePlan, alone: bool
) -> Runner:
    from vidface.backbones.graphs import join_norm, split_prelu, with_preprocessing

    graph = network.graph(alone=alone)
    if plan.split_prelu:
        graph = split_prelu(graph)
    model = with_preprocessing(join_norm(graph), preprocessing)
    streams = 1 if alone else plan.threads
    return OnnxRuntimeRunner(model, network.name, streams, plan.threads // streams)


class OnnxRuntimeRunner(Runner):
    """A graph of fixed shape.

    Two threads in one batch of 16 gave 91 images/s on the paper's network, one thread in each of
    two batches of 4 gave 96, and with split PReLUs 133 and 148 (docs/log.md).
    """

    def __init__(self, model: onnx.ModelProto, name: str, streams: int, threads: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self.gives_norm = model.graph.output[0].name == WITH_NORM
        self._name = name
        self._session = open_session(model, name, threads)
        self._input = self._session.get_inputs()[0].name
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="vidface-onnxruntime")

    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(self._pool.map(self._run, batches))

    def _run(self, crops: np.ndarray) -> np.ndarray:
        with library_errors(f"weights {self._name}"):
            rows = self._session.run(None, {self._input: crops})[0]
        note_progress()
        return rows


def open_session(model: onnx.ModelProto, name: str, threads: int) -> Any:
    """A session on the CPU, or a VidfaceError that says why there is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = SILENT
    with library_errors(f"weights {name}: ONNX Runtime cannot load it"):
        graph = model.SerializeToString()
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


ONNXRUNTIME = Runtime("onnxruntime", "onnxruntime", ("float32",), make_runner, splits_prelu=True)
