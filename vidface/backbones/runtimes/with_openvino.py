"""OpenVINO on the CPU: one stream a thread, each with a batch of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

# Where the processor has bf16, OpenVINO's own default is to use it.
_PRECISION_HINTS = {"float32": "f32", "bf16": "bf16"}


def make_runner(
    network: Network, preprocessing: Preprocessing, plan: RuntimePlan, alone: bool
) -> Runner:
    from vidface.backbones.graphs import join_norm, with_preprocessing

    model = with_preprocessing(join_norm(network.graph(alone=alone)), preprocessing)
    return OpenvinoRunner(model, network.name, plan, 1 if alone else plan.threads)


class OpenvinoRunner(Runner):
    """A compiled graph of fixed shape behind a queue of requests."""

    def __init__(self, model: onnx.ModelProto, name: str, plan: RuntimePlan, streams: int) -> None:
        import openvino

        self.batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self.gives_norm = model.graph.output[0].name == WITH_NORM
        self._name = name
        options = {
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[plan.precision],
            "INFERENCE_NUM_THREADS": plan.threads,
            "NUM_STREAMS": streams,
        }

        def compile_model() -> Any:
            core = openvino.Core()
            return core.compile_model(core.read_model(model.SerializeToString()), "CPU", options)

        with library_errors(f"weights {name}: OpenVINO cannot load it"):
            compiled = _run_elsewhere(compile_model)
        self._queue = openvino.AsyncInferQueue(compiled, streams)

    def run(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs: dict[int, np.ndarray] = {}

        def keep_output(request: Any, number: int) -> None:
            outputs[number] = request.get_output_tensor(0).data.copy()
            note_progress()

        self._queue.set_callback(keep_output)
        with library_errors(f"weights {self._name}"):
            for number, crops in enumerate(batches):
                self._queue.start_async([crops], number)
            self._queue.wait_all()
        return [outputs[number] for number in range(len(batches))]


def _run_elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns, done by a thread of its own.

    OpenVINO's CPU plugin gives the thread that loads it another stack for signals, and takes the
    memory back when the plugin goes, from whichever thread that happens to be in. Python's handlers
    run on that stack: had the main thread loaded the plugin, the next Ctrl-C or the end of a child
    would kill the process without a word.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="vidface-openvino") as pool:
        return pool.submit(work).result()


OPENVINO = Runtime("openvino", "openvino", tuple(_PRECISION_HINTS), make_runner)
