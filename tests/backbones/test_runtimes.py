"""Which runtime, precision and device run a network, and which of them is fastest here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.backbones.test_loading import real_crops
from tests.conftest import absent, crop_of
from vidface.backbones.embedder import Embedder
from vidface.backbones.export import cosine_rows
from vidface.backbones.files import read_network
from vidface.backbones.loading import load_backbone, load_network
from vidface.backbones.network import Network, wrap_module
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes import RUNTIMES, Runner, Runtime, RuntimePlan, trial
from vidface.backbones.runtimes.plans import possible_plans
from vidface.core.errors import VidfaceError
from vidface.storage.cache import cache_folder

PLAIN = Preprocessing("rgb", 0.0, 1.0)
ONNXRUNTIME = [
    RuntimePlan("onnxruntime", threads=2, split_prelu=True),
    RuntimePlan("onnxruntime", threads=2),
]
OPENVINO, TORCH = RuntimePlan("openvino", threads=2), RuntimePlan("torch", threads=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


class Colour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.mean(dim=(2, 3)) * self.scale


@pytest.fixture
def graph(colour_network: Path) -> Network:
    return read_network(colour_network, "colour.onnx")


@pytest.fixture
def on_torch() -> Network:
    """A network out of a file of parameters."""
    return Network("net.pt", "1" * 64, module=Colour().eval())


@pytest.fixture
def live() -> Network:
    return wrap_module(Colour())


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def not_installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in packages else object()
    )


@pytest.mark.usefixtures("no_cuda", "all_installed")
def test_plans_by_kind_of_network(graph: Network, on_torch: Network, live: Network) -> None:
    everything = [*ONNXRUNTIME, OPENVINO, TORCH]
    assert possible_plans(graph, "auto", "float32", "auto", 2) == [*ONNXRUNTIME, OPENVINO]
    assert possible_plans(on_torch, "auto", "float32", "auto", 2) == everything
    assert possible_plans(on_torch, "auto", "float32", "cpu", 2) == everything
    assert possible_plans(live, "auto", "float32", "auto", 2) == [TORCH]
    assert possible_plans(live, "torch", "float32", "cpu", 2) == [TORCH]
    assert possible_plans(graph, "onnxruntime", "float32", "auto", 2) == ONNXRUNTIME
    assert possible_plans(on_torch, "openvino", "float32", "auto", 2) == [OPENVINO]
    assert possible_plans(on_torch, "torch", "float32", "auto", 2) == [TORCH]
    bf16 = [replace(OPENVINO, precision="bf16"), replace(TORCH, precision="bf16")]
    assert possible_plans(on_torch, "auto", "bf16", "auto", 2) == bf16
    assert possible_plans(graph, "auto", "bf16", "auto", 2) == bf16[:1]
    fp16 = [replace(TORCH, precision="fp16")]
    assert possible_plans(on_torch, "auto", "fp16", "auto", 2) == fp16


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("tensorrt", "float32", "auto"), r"runtime: unknown value 'tensorrt' \(known: auto, onnx"),
        (("auto", "int8", "auto"), r"precision: unknown value 'int8' \(known: float32, bf16, fp16"),
        (("auto", "float32", "tpu"), r"device: unknown value 'tpu' \(known: auto, cpu, cuda\)"),
        (("torch", "float32", "auto"), "colour.onnx is an ONNX graph; use onnxruntime or openv"),
        (
            ("onnxruntime", "bf16", "auto"),
            r"precision 'bf16': .*\(onnxruntime: float32\).*quantize",
        ),
        (("auto", "fp16", "auto"), r"precision 'fp16'.*openvino: float32, bf16.*models quantize"),
        (("auto", "float32", "cuda"), "device 'cuda': colour.onnx: only torch networks run on"),
        (("openvino", "float32", "cuda:0"), "device 'cuda:0'.*only torch networks.*use the cpu"),
    ],
)
@pytest.mark.usefixtures("no_cuda", "all_installed")
def test_what_cannot_be(graph: Network, asked: tuple[str, str, str], message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        possible_plans(graph, *asked, 2)


@pytest.mark.usefixtures("no_cuda", "all_installed")
def test_what_cannot_be_of_torch_networks(on_torch: Network, live: Network) -> None:
    for network in (on_torch, live):
        with pytest.raises(VidfaceError, match=r"device 'cuda': .*torch finds no CUDA device"):
            possible_plans(network, "auto", "float32", "cuda", 2)
    with pytest.raises(VidfaceError, match="runtime 'openvino': Colour runs with torch alone: a m"):
        possible_plans(live, "openvino", "float32", "auto", 2)
    with pytest.raises(VidfaceError, match="precision 'bf16': Colour is a module of yours; conv"):
        Embedder(live, PLAIN, precision="bf16")
    with pytest.raises(VidfaceError, match="torch finds no CUDA device here; use the cpu"):
        load_backbone(Colour(), PLAIN, device="cuda")


def test_where_there_is_cuda(
    graph: Network, on_torch: Network, live: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one: the plans alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    not_installed(monkeypatch)
    on_cuda = RuntimePlan("torch", device="cuda", threads=2)
    assert possible_plans(on_torch, "auto", "float32", "auto", 2) == [on_cuda]
    assert possible_plans(on_torch, "torch", "fp16", "cuda:1", 2) == [
        RuntimePlan("torch", "fp16", "cuda:1", 2)
    ]
    assert OPENVINO in possible_plans(on_torch, "auto", "float32", "cpu", 2)
    assert possible_plans(on_torch, "openvino", "float32", "auto", 2) == [OPENVINO]
    assert possible_plans(graph, "auto", "float32", "auto", 2) == [*ONNXRUNTIME, OPENVINO]
    # A module of the caller's stays where it is.
    assert possible_plans(live, "auto", "float32", "auto", 2) == [TORCH]
    with pytest.raises(VidfaceError, match="Colour is a module of yours and stays on cpu; move it"):
        Embedder(live, PLAIN, device="cuda")


def test_what_is_not_installed(
    graph: Network, on_torch: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_installed(monkeypatch, "openvino")
    assert possible_plans(graph, "auto", "float32", "auto", 2) == ONNXRUNTIME
    with pytest.raises(
        VidfaceError, match=r"'openvino' is not installed: pip install 'vidface\[op"
    ):
        Embedder(graph, PLAIN, runtime="openvino")
    with pytest.raises(VidfaceError, match=r"precision 'bf16'.*models quantize"):
        possible_plans(graph, "auto", "bf16", "auto", 2)
    crops = np.stack([crop_of("red")])
    found = Embedder(graph, PLAIN, threads=1).embed(crops)  # auto does without
    assert np.allclose(found, crops.mean(axis=(1, 2)), atol=1e-3)


def embedded(network: Network, crops: np.ndarray, *plans: RuntimePlan) -> list[np.ndarray]:
    found = []
    for plan in plans:
        if not RUNTIMES[plan.runtime].is_installed:
            absent(f"{plan.runtime} is not installed")
        found.append(Embedder(network, PLAIN, plans=[plan]).embed(crops))
    return found


def test_float32_is_float32(data: Path) -> None:
    """Where the processor has bf16, OpenVINO would take that if it were let."""
    network = load_network(data / "weights" / "insightface_y1.onnx")
    plans = [*ONNXRUNTIME, OPENVINO, replace(OPENVINO, precision="bf16")]
    first, second, ours, rounded = embedded(network, real_crops(data, 12), *plans)
    assert cosine_rows(first, second).min() >= 0.9999999
    assert cosine_rows(first, ours).min() >= 0.999999
    assert np.abs(first - ours).max() <= 1e-4 * np.abs(first).max()
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    cosines = cosine_rows(first, rounded)
    assert cosines.min() >= 0.99
    assert cosines.max() < 0.999999  # it is not float32 under another name


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_torch_in_half_the_bits(data: Path, precision: str) -> None:
    network = load_network(data / "weights" / "mobilefacenet_foamliu.pt", "mobilefacenet")
    fed = Preprocessing("rgb", 127.5, 128.0)
    crops = real_crops(data, 2)
    whole = Embedder(network, fed, plans=[RuntimePlan("torch")]).embed(crops)
    half = Embedder(network, fed, plans=[RuntimePlan("torch", precision)]).embed(crops)
    assert half.dtype == np.float32
    assert 0.99 <= cosine_rows(whole, half).min() < 0.9999999
    assert network.module is not None
    assert next(network.module.parameters()).dtype == torch.float32  # it is left as it was


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(
    ("precision", "least"), [("float32", 0.999999), ("bf16", 0.99), ("fp16", 0.999)]
)
def test_cuda(data: Path, precision: str, least: float) -> None:
    network = load_network(data / "weights" / "mobilefacenet_foamliu.pt", "mobilefacenet")
    fed = Preprocessing("rgb", 127.5, 128.0)
    crops = real_crops(data, 300)  # more than a batch
    wanted = Embedder(network, fed, device="cpu", runtime="onnxruntime").embed(crops)
    backbone = Embedder(network, fed, precision=precision)
    assert backbone.plan.device == "cuda"
    found = backbone.embed(crops)
    assert cosine_rows(found, wanted).min() >= least
    if precision == "float32":
        alone = np.concatenate([backbone.embed(crops[i : i + 1]) for i in range(9)])
        assert np.abs(alone - found[:9]).max() <= 1e-5 * np.abs(found).max()


class Sleeper(Runner):
    """A runner that takes its time: `seconds` a batch."""

    batch = 4

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self, batches):
        time.sleep(self.seconds * len(batches))
        return [np.zeros((4, 3), np.float32) for _ in batches]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch):
    """Runners by plan are given out of a table: seconds a batch, or an error."""
    table: dict[RuntimePlan, float | VidfaceError] = {}
    asked: list[RuntimePlan] = []

    def make(network: Network, preprocessing: Preprocessing, plan: RuntimePlan) -> Runner:
        asked.append(plan)
        found = table[replace(plan, threads=2)]
        if isinstance(found, VidfaceError):
            raise found
        return Sleeper(found)

    monkeypatch.setattr(trial, "make_runner", make)

    def of(**seconds: float | VidfaceError):
        plans = {"slow": TORCH, "fast": OPENVINO, "middle": ONNXRUNTIME[1]}
        table.clear()
        asked.clear()
        table.update({plans[name]: value for name, value in seconds.items()})
        return list(table)

    return of, asked


NETWORK = Network("net", "2" * 64)
SPEEDS = {"middle": 0.002, "fast": 0.0002, "slow": 0.006}


def records() -> list[Path]:
    return sorted((cache_folder() / "trials").glob("*"))


@pytest.mark.parametrize("order", [("middle", "fast", "slow"), ("slow", "middle", "fast"),
                                   ("fast", "slow", "middle")])  # fmt: skip
def test_the_fastest_is_taken_and_remembered(made, order: tuple[str, ...]) -> None:
    of, asked = made
    plans = of(**{name: SPEEDS[name] for name in order})
    plan, runner = trial.fastest(NETWORK, PLAIN, plans)
    assert plan == OPENVINO
    assert runner.seconds == SPEEDS["fast"]
    assert asked == plans
    [record] = records()
    document = json.loads(record.read_text())
    assert document["chosen"] == asdict(OPENVINO)
    rates = {RuntimePlan(**each["plan"]): each["images_per_second"] for each in document["trial"]}
    assert list(rates) == plans
    assert rates[TORCH] < rates[ONNXRUNTIME[1]] < rates[OPENVINO]
    assert 400 < rates[TORCH] <= 4 / 0.006

    asked.clear()
    plan, runner = trial.fastest(NETWORK, PLAIN, plans)
    assert (plan, asked) == (OPENVINO, [OPENVINO])  # no trial
    record.write_text(json.dumps({"chosen": asdict(TORCH)}))
    plan, runner = trial.fastest(NETWORK, PLAIN, plans)
    assert (plan, runner.seconds) == (TORCH, SPEEDS["slow"])  # it is read
    assert records() == [record]


def test_rounds_are_measured_by_the_best_of_them() -> None:
    class Hiccup(Sleeper):
        rounds = 0

        def run(self, batches):
            if len(batches) > 1:
                self.rounds += 1
                time.sleep(0.2 if self.rounds == 2 else 0)
            return super().run(batches)

    runner = Hiccup(0.001)
    crops = np.zeros((32, 112, 112, 3), np.uint8)
    rate = trial.measure(runner, crops)
    assert runner.rounds == trial.TRIAL_ROUNDS
    assert 4 / 0.2 * 8 < rate <= 4 / 0.001


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"nonsense", b"[]", b'"chosen"', b"{}", b"[" * 100_000,
     b'{"chosen": null}', b'{"chosen": {"runtime": "tensorrt"}}', b'{"chosen": [1]}'],
    ids=["empty", "bytes", "text", "list", "string", "nothing", "deep", "null", "unknown", "odd"],
)  # fmt: skip
def test_a_damaged_record_costs_a_trial(made, content: bytes) -> None:
    of, asked = made
    plans = of(fast=0.0, slow=0.002)
    trial.fastest(NETWORK, PLAIN, plans)
    [record] = records()
    record.write_bytes(content)
    asked.clear()
    assert trial.fastest(NETWORK, PLAIN, plans)[0] == OPENVINO
    assert asked == plans
    assert json.loads(record.read_bytes())["chosen"] == asdict(OPENVINO)  # and it is mended


def test_a_cache_that_cannot_be_written_costs_a_trial(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "file"))
    of, asked = made
    plans = of(slow=0.002, fast=0.0)
    for _ in range(2):
        asked.clear()
        assert trial.fastest(NETWORK, PLAIN, plans)[0] == OPENVINO
        assert asked == plans


def test_each_machine_version_and_network_has_its_own_record(
    made, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, asked = made
    plans = of(fast=0.0, slow=0.001)

    def tried(network: Network = NETWORK, among: list[RuntimePlan] = plans) -> bool:
        asked.clear()
        trial.fastest(network, PLAIN, among)
        return len(asked) > 1

    assert tried()
    assert not tried()
    assert tried(Network("net", "3" * 64))
    threaded = [replace(plan, threads=7) for plan in plans]
    assert tried(among=threaded)
    with monkeypatch.context() as patch:
        patch.setattr(trial, "machine_name", lambda: "another")
        assert tried()
        assert not tried()
    with monkeypatch.context() as patch:
        patch.setattr(trial.metadata, "version", lambda package: "99.0")
        assert tried()
    assert not tried()
    assert len(records()) == 5


def test_packages_of_another_name(made, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu brings the module onnxruntime, and no distribution of that name."""

    def version(package: str) -> str:
        raise trial.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(trial.metadata, "version", version)
    of, _ = made
    assert trial.fastest(NETWORK, PLAIN, of(slow=0.001, fast=0.0))[0] == OPENVINO


def test_what_fails_is_passed_over(made) -> None:
    of, _ = made
    plans = of(fast=VidfaceError("no such instruction"), middle=0.0, slow=0.002)
    assert trial.fastest(NETWORK, PLAIN, plans)[0] == ONNXRUNTIME[1]
    plans = of(fast=VidfaceError("the first"), middle=VidfaceError("the second"))
    with pytest.raises(VidfaceError, match="the first"):
        trial.fastest(Network("net", "4" * 64), PLAIN, plans)
    assert len(records()) == 1


def test_one_plan_needs_no_trial(made) -> None:
    of, asked = made
    [plan] = of(slow=0.0)
    assert trial.fastest(NETWORK, PLAIN, [plan])[0] == plan
    assert asked == [plan]
    assert not cache_folder().exists()
    with pytest.raises(VidfaceError, match="alone"):
        trial.fastest(NETWORK, PLAIN, of(slow=VidfaceError("alone")))


def test_the_trial_of_a_real_network(colour_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` leaves a record; the next load believes it and times nothing."""
    backbone = load_backbone(colour_network, PLAIN, threads=2)
    [record] = records()
    assert json.loads(record.read_text())["chosen"] == asdict(backbone.plan)

    def measure(*_: object) -> float:
        raise AssertionError

    monkeypatch.setattr(trial, "measure", measure)
    assert load_backbone(colour_network, PLAIN, threads=2).plan == backbone.plan


def test_a_module_that_gives_no_tensor() -> None:
    class Pair(nn.Module):
        def forward(self, x):
            return {"embedding": x.mean(dim=(2, 3))}

    with pytest.raises(VidfaceError, match="weights Pair: gives a dict, no tensor"):
        load_backbone(Pair(), PLAIN)


class ToyRunner(Runner):
    """Gives every face the same numbers."""

    batch = 3

    def run(self, batches):
        return [np.ones((len(crops), 5), np.float32) for crops in batches]


def make_toy(*_: object) -> ToyRunner:
    return ToyRunner()


def test_a_runtime_is_one_row(colour_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the registry can be asked for by name, is checked and is tried by `auto`."""
    toy = Runtime("toy", "json", ("float32", "bf16"), make_toy)
    monkeypatch.setitem(RUNTIMES, "toy", toy)
    backbone = load_backbone(colour_network, PLAIN, runtime="toy", precision="bf16", threads=1)
    assert str(backbone.plan) == "toy bf16"
    assert backbone.embed(np.zeros((4, 112, 112, 3), np.uint8)).tolist() == [[1.0] * 5] * 4
    network = load_network(colour_network)
    plans = possible_plans(network, "auto", "float32", "cpu", 1)
    assert RuntimePlan("toy") in plans
    with pytest.raises(VidfaceError, match=r"fp16.*toy: float32, bf16"):
        possible_plans(network, "toy", "fp16", "cpu", 1)


def test_runtimes_are_read_without_heavy_libraries() -> None:
    code = (
        "import sys, vidface.backbones.settings; "
        "print(sorted({'numpy', 'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_openvino_leaves_the_stack_for_signals_alone(colour_network: Path) -> None:
    """Its plugin registers one and takes the memory back from another thread: Ctrl-C then kills."""
    if importlib.util.find_spec("openvino") is None:
        absent("openvino is not installed")
    command = [sys.executable, "-c", SIGNAL_AFTER_OPENVINO, str(colour_network)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled 1\n"), done.stderr


SIGNAL_AFTER_OPENVINO = """
import ctypes, gc, signal, sys, threading, time
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing

class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def registered():
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.sp, found.flags, found.size

before = registered()
held = [load_backbone(sys.argv[1], Preprocessing("rgb", 0.0, 1.0), runtime="openvino")]
assert registered() == before, (before, registered())
other = threading.Thread(target=held.clear)  # the plugin goes in another thread
other.start()
other.join()
gc.collect()
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.2)
print("handled", len(seen))
"""
