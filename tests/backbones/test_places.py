"""Strangers' networks in a process of their own: bounded, stopped, and the same to the last bit."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.backbones.test_conforming import write_graph
from tests.backbones.test_loading import save
from tests.conftest import crop_of
from vidface.backbones import weights
from vidface.backbones.catalogue import count_file
from vidface.backbones.embedder import Embedder
from vidface.backbones.files import read_network
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes import RUNTIMES, RuntimePlan, places
from vidface.backbones.runtimes.base import NetworkLimits, NetworkTimeoutError
from vidface.backbones.runtimes.places import HERE, OwnProcess
from vidface.backbones.settings import BackboneSettings
from vidface.core.errors import VidfaceError
from vidface.storage.cache import sha256_of

FED = Preprocessing("rgb", 0.0, 1.0)
QUICK = NetworkLimits(0.4, 2**30)
ENDLESS = 2**62
GRAPH_RUNTIMES = [n for n in ("onnxruntime", "openvino") if RUNTIMES[n].is_installed]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def place() -> OwnProcess:
    return OwnProcess("net.onnx", NetworkLimits(30, 2**30))


def write_mean(path: Path, nodes: list, constants: dict[str, np.ndarray]) -> Path:
    """The mean colour m, and `nodes` that make y of it."""
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    mean = helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0)
    return save(path, [mean, *nodes], [("x", ["n", 3, 112, 112])], [("y", ["n", 3])], tensors)


def write_loop(path: Path, turns: int = ENDLESS) -> Path:
    """The mean colour, times one, again and again."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_still"]),
            helper.make_node("Mul", ["v", "one"], ["w"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on_still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "go", "m"], ["y"], body=body)
    return write_mean(
        path,
        [loop],
        {"turns": np.array(turns), "go": np.array(True), "one": np.ones((), np.float32)},
    )


def write_filled(path: Path, operator: str, size: int) -> Path:
    """The mean colour and the sum of `size` numbers that the graph makes of one."""
    one = np.ones(1, np.float32)
    if operator == "Range":
        fill = helper.make_node("Range", ["zero", "size", "step"], ["f"])
        constants = {"zero": np.float32(0), "size": np.float32(size), "step": np.float32(1)}
    elif operator == "ConstantOfShape":
        value = numpy_helper.from_array(one)
        fill = helper.make_node(operator, ["size"], ["f"], value=value)
        constants = {"size": np.array([size])}
    else:
        fill = helper.make_node(operator, ["unit", "size"], ["f"])
        constants = {"size": np.array([size]), "unit": one}
    nodes = [
        fill,
        helper.make_node("ReduceSum", ["f"], ["s"], keepdims=0),
        helper.make_node("Add", ["m", "s"], ["y"]),
    ]
    return write_mean(path, nodes, {name: np.array(a) for name, a in constants.items()})


def write_sparse(path: Path, size: int) -> Path:
    """The mean colour and the sum of a tensor of `size` numbers, of which one is stored."""
    write_filled(path, "Expand", 1)
    model = onnx.load(path)
    del model.graph.node[1], model.graph.initializer[:]
    values, places_ = (
        numpy_helper.from_array(np.array([number], kind), name)
        for number, kind, name in ((1, np.float32, "f"), (0, np.int64, "places"))
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places_, [size]))
    onnx.save(model, path)
    return path


def child_of(place: OwnProcess) -> psutil.Process:
    return psutil.Process(place.call(os.getpid))


def is_gone(process: psutil.Process, within: float = 2.0) -> bool:
    return not psutil.wait_procs([process], within)[1]


def test_what_it_gives_and_what_it_takes(place: OwnProcess) -> None:
    assert place.call(divmod, 7, 2) == (3, 1)
    assert place.call(os.getpid) not in (os.getpid(), HERE.call(os.getpid))
    assert place.call(os.getpid) == place.call(os.getpid)
    with pytest.raises(VidfaceError, match=r"^weights net\.onnx: invalid literal"):
        place.call(int, "x")
    with pytest.raises(VidfaceError, match=r"^weights net\.onnx: Can't pickle"):
        place.call(lambda: 1)
    assert place.call(divmod, 7, 2) == (3, 1)  # none of which ended it


def test_the_time_limit() -> None:
    place = OwnProcess("net.onnx", QUICK)
    child, begun = child_of(place), time.monotonic()
    with pytest.raises(NetworkTimeoutError) as caught:
        place.call(time.sleep, 60)
    assert time.monotonic() - begun < 2
    assert str(caught.value) == (
        "weights net.onnx: stopped after 0.4 s without a result; if it is just slow, give it more "
        "with --batch-timeout (extract, run, verify), or batch_timeout_seconds in [backbone]"
    )
    assert is_gone(child)
    assert place.call(divmod, 7, 2) == (3, 1)  # by another


STEPS = """
import time
from vidface.backbones.runtimes.base import note_progress
for _ in range({steps}):
    time.sleep({seconds})
    note_progress()
"""


def work_in_steps(place: OwnProcess, seconds: float, steps: int) -> None:
    place.call(exec, STEPS.format(seconds=seconds, steps=steps))


def test_the_time_is_that_of_a_batch() -> None:
    place = OwnProcess("net.onnx", NetworkLimits(0.8, 2**30))
    work_in_steps(place, 0.1, 9)  # 0.9 s, each of them well within 0.8
    with pytest.raises(NetworkTimeoutError):
        work_in_steps(place, 5, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by Linux")
def test_the_memory_limit(place: OwnProcess) -> None:
    assert place.call(eval, "len(bytes(2**28))") == 2**28
    with pytest.raises(VidfaceError, match=r"net\.onnx: out of memory.*1GiB.*--network-memory"):
        place.call(bytes, 2**31)
    assert place.call(divmod, 7, 2) == (3, 1)


def test_a_process_that_dies(place: OwnProcess) -> None:
    with pytest.raises(VidfaceError, match=r"net\.onnx: its process was killed by SIGABRT.*memory"):
        place.call(os.abort)
    with pytest.raises(VidfaceError, match=r"net\.onnx: its process ended with exit code 3"):
        place.call(os._exit, 3)
    assert place.call(divmod, 7, 2) == (3, 1)


def test_ctrl_c(place: OwnProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the child gets it too, and leaves it to us."""
    place = OwnProcess("net.onnx")  # of 300 s
    child, before = child_of(place), signal.signal(signal.SIGINT, signal.default_int_handler)
    child.send_signal(signal.SIGINT)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            place.call(time.sleep, 60)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begun < 2
    assert is_gone(child)


def test_a_process_goes_on_to_the_next_network() -> None:
    place = OwnProcess("a", QUICK)
    pid = place.call(os.getpid)
    held = place.hold(bytearray, 2)
    del held, place
    gc.collect()
    assert OwnProcess("b", replace(QUICK, memory_bytes=2**31)).call(os.getpid) != pid
    gc.collect()
    first, second = OwnProcess("c", QUICK), OwnProcess("d", QUICK)
    assert first.call(os.getpid) != second.call(os.getpid)  # never of two at once
    del first, second
    gc.collect()
    assert len(places._idle) == 1


ORPHAN = """
import os
from vidface.backbones.runtimes.places import OwnProcess
place = OwnProcess("n")
print(place.call(os.getpid), flush=True)
place.call(exec, "import ctypes; ctypes.PyDLL(None).sleep(60)")
"""


@pytest.mark.slow
def test_nobody_outlives_the_program() -> None:
    """Though it ends by SIGKILL, and a library holds Python's lock in the child."""
    command = [sys.executable, "-c", ORPHAN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        child = psutil.Process(int(program.stdout.readline()))
        time.sleep(0.1)
        program.kill()
    assert is_gone(child)


@pytest.mark.parametrize("runtime", GRAPH_RUNTIMES)
def test_figures_are_the_same_bits(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what is more than the shared block holds, and after its process was killed."""
    monkeypatch.setattr(places, "BLOCK_BYTES", 200_000)  # five faces
    places._end_idle()
    path, rng = tmp_path / "n.onnx", np.random.default_rng(0)
    kernel = rng.normal(size=(16, 3, 5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    kernels = [numpy_helper.from_array(kernel, "k")]
    save(path, nodes, [("x", ["n", 3, 112, 112])], [("y", ["n", 16])], kernels)
    network = read_network(path, "n")
    plans = [RuntimePlan(runtime, threads=2)]
    here = Embedder(replace(network, place=HERE), FED, plans=plans)
    there = Embedder(network, FED, plans=plans)
    crops = rng.integers(0, 256, (11, 112, 112, 3), np.uint8)
    wanted = here.embed(crops)
    assert np.array_equal(there.embed(crops), wanted)
    child = child_of(network.place)
    child.kill()
    assert is_gone(child)
    assert np.array_equal(there.embed(crops), wanted)
    del there, network
    gc.collect()
    places._end_idle()


def test_known_files_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_loop(tmp_path / "n.onnx", 1)
    assert isinstance(read_network(path, "n").place, OwnProcess)
    record = replace(weights.WEIGHTS["sface"], sha256=sha256_of(path))
    monkeypatch.setitem(weights.WEIGHTS, "sface", record)
    assert read_network(path, "n").place is HERE


def test_nothing_of_a_stranger_is_run_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a stranger's graph in this process")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", refuse)
    path = write_graph(tmp_path / "n.onnx", outputs=("feature", "norm", "map"), batch=2)
    for runtime in ("auto", *GRAPH_RUNTIMES):  # several outputs, a built-in batch, a trial
        backbone = load_backbone(path, runtime=runtime, threads=2)
        assert backbone.embed(np.stack([crop_of("red")] * 5)).shape == (5, 12)
    assert count_file(path).parameters >= 0


@pytest.mark.parametrize("runtime", GRAPH_RUNTIMES)
def test_a_loop_without_end(runtime: str, tmp_path: Path) -> None:
    short = load_backbone(write_loop(tmp_path / "a.onnx", 3), FED, runtime=runtime, threads=1)
    crop = crop_of("red")
    assert np.allclose(short.embed(crop[None]), crop.mean(axis=(0, 1)), atol=1e-3)
    path = write_loop(tmp_path / "loop.onnx")
    with pytest.raises(NetworkTimeoutError, match=r"loop\.onnx: stopped after 0\.4 s"):
        load_backbone(path, FED, runtime=runtime, threads=1, limits=QUICK)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by Linux")
@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile", "Range", "sparse"])
def test_numbers_without_end(operator: str, tmp_path: Path) -> None:
    """2^40 of them are too many for any machine."""

    def load(size: int) -> Embedder:
        path = tmp_path / f"{size}.onnx"
        if operator == "sparse":
            write_sparse(path, size)
        else:
            write_filled(path, operator, size)
        limits = NetworkLimits(20, 2**29)
        return load_backbone(path, FED, runtime="onnxruntime", threads=1, limits=limits)

    crop, added = crop_of("red"), 1 if operator == "sparse" else 3
    assert np.allclose(load(3).embed(crop[None]), crop.mean(axis=(0, 1)) + added, atol=1e-3)
    with pytest.raises(VidfaceError, match=rf"^weights {2**40}\.onnx: [^\n]+$"):
        load(2**40)


def test_limits_are_settings() -> None:
    limits = BackboneSettings(batch_timeout_seconds=5.0, network_memory="1GiB").limits
    assert limits == NetworkLimits(5.0, 2**30)
    assert BackboneSettings().limits == NetworkLimits()
    for bad in ({"batch_timeout_seconds": 0.0}, {"network_memory": "511MiB"},
                {"network_memory": "much"}):  # fmt: skip
        with pytest.raises(VidfaceError, match=next(iter(bad))):
            BackboneSettings(**bad)


@pytest.mark.slow
def test_a_run_with_a_loop_without_end(colour_pipeline: Path, tmp_path: Path) -> None:
    """In `vidface extract`: the limit is one line, Ctrl-C is heard, nobody is left behind."""
    command = [sys.executable, "-m", "vidface", "extract", "--pipeline", str(colour_pipeline)]
    command += [
        "--run",
        str(tmp_path / "run"),
        "--weights",
        str(write_loop(tmp_path / "loop.onnx")),
    ]

    def start(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, *more],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    limited = start("--batch-timeout", "1")
    said = limited.communicate(timeout=60)[1]
    assert limited.returncode == 1
    assert said == (
        "vidface: error: weights loop.onnx: stopped after 1 s without a result; if it is just "
        "slow, give it more with --batch-timeout (extract, run, verify), or "
        "batch_timeout_seconds in [backbone]\n"
    )
    for number in (signal.SIGINT, signal.SIGKILL):
        program = start()
        children: list[psutil.Process] = []
        while not any(child.cpu_times().user > 1 for child in children):  # it is at its loop
            assert program.poll() is None
            time.sleep(0.1)
            children = psutil.Process(program.pid).children(recursive=True)
        begun = time.monotonic()
        program.send_signal(number)
        said = program.communicate(timeout=60)[1]
        assert time.monotonic() - begun < 2
        assert all(is_gone(child) for child in children)
        if number == signal.SIGINT:
            assert program.returncode == 1
            assert said.strip() == (
                "vidface: error: interrupted; what was finished before stays as it was"
            )
