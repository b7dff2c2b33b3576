"""`Embedder`: crops in, embeddings out, whatever runs them and however many they are."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from tests.backbones.test_loading import save
from tests.conftest import COLOURS, absent, crop_of, write_colour_network
from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.backbones.network import MICRO_BATCH, Network
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes import RUNTIMES, RuntimePlan
from vidface.backbones.runtimes.with_torch import CPU_BATCH
from vidface.core.errors import VidfaceError

PLAIN = Preprocessing("rgb", 0.0, 1.0)
PLANS = {
    "onnxruntime": RuntimePlan("onnxruntime", threads=2),
    "onnxruntime, PReLUs split": RuntimePlan("onnxruntime", threads=2, split_prelu=True),
    "openvino": RuntimePlan("openvino", threads=2),
    "torch": RuntimePlan("torch", threads=1),
}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """One for all: the small network is exported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDFACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Small(nn.Module):
    """A small recogniser of the usual layers, its embeddings about 1 in size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.PReLU(8),
            nn.Conv2d(8, 8, 3, 4, 1, groups=8), nn.BatchNorm2d(8), nn.PReLU(8),
            nn.Conv2d(8, 16, 7),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x).flatten(1)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Small()
        with torch.no_grad():
            for layer in made.body:
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_var.uniform_(0.05, 0.2)
                    layer.running_mean.normal_()
                if isinstance(layer, nn.PReLU):
                    layer.weight.uniform_(-1, 2)
    return made.eval()


FED = Preprocessing("bgr", 127.5, 64.0)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (41, 112, 112, 3), np.uint8)


@pytest.fixture(scope="module")
def wanted(module: nn.Module, crops: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module(torch.from_numpy(FED.apply(crops))).numpy()


def embedder_of(module: nn.Module, plan: RuntimePlan) -> Embedder:
    if not RUNTIMES[plan.runtime].is_installed:
        absent(f"{plan.runtime} is not installed")
    return Embedder(Network("small", "0" * 64, module=module), FED, plans=[plan])


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_an_embedding_does_not_depend_on_its_neighbours(
    module: nn.Module, crops: np.ndarray, wanted: np.ndarray, plan: RuntimePlan
) -> None:
    """Alone, in every place of batches of 1 to 9, and across the batches of the runtimes."""
    backbone = embedder_of(module, plan)
    assert backbone.plan == plan
    assert np.abs(wanted).mean() > 0.3  # 1e-5 means something
    alone = np.concatenate([backbone.embed(crops[i : i + 1]) for i in range(9)])
    assert np.abs(alone - wanted[:9]).max() <= 1e-5
    for n in range(1, 10):
        for turn in range(n):
            rows = np.roll(np.arange(n), turn)
            assert np.abs(backbone.embed(crops[rows]) - alone[rows]).max() <= 1e-5, (n, turn)
    for n in (CPU_BATCH - 1, CPU_BATCH, CPU_BATCH + 1, 2 * CPU_BATCH + 4, 2 * CPU_BATCH + 5, 41):
        found = backbone.embed(crops[:n])
        assert found.shape == (n, 16)
        assert np.abs(found - wanted[:n]).max() <= 1e-5, n


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_what_an_array_may_be_like(
    module: nn.Module, crops: np.ndarray, wanted: np.ndarray, plan: RuntimePlan
) -> None:
    backbone = embedder_of(module, plan)
    none = backbone.embed(crops[:0])
    assert (none.shape, none.dtype) == ((0, 16), np.dtype(np.float32))
    given = crops[:6].copy()
    assert backbone.embed(given).dtype == np.float32
    assert (given == crops[:6]).all()  # it is not written
    mirrored = np.ascontiguousarray(given[:, :, ::-1])
    for view, copy in (
        (given[:, :, ::-1], mirrored),
        (given[::-1], given[::-1].copy()),
        (crops[::7], crops[::7].copy()),
        (np.asfortranarray(given), given),
        (given.transpose(0, 2, 1, 3), np.ascontiguousarray(given.transpose(0, 2, 1, 3))),
    ):
        assert np.abs(backbone.embed(view) - backbone.embed(copy)).max() <= 1e-5
    assert np.abs(backbone.embed(mirrored) - wanted[:6]).max() > 0.01
    whole = crops[:CPU_BATCH].copy()  # nothing of it needs to be filled up
    whole.flags.writeable = False  # as mapped from a file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(backbone.embed(whole) - wanted[:CPU_BATCH]).max() <= 1e-5
    assert np.allclose(backbone.embed(list(given)), wanted[:6], atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_order_is_kept(colour_network: Path, runtime: str, threads: int) -> None:
    """Many batches on several threads; each crop's colour tells its number."""
    if not RUNTIMES[runtime].is_installed:
        absent(f"{runtime} is not installed")
    backbone = load_backbone(colour_network, PLAIN, runtime=runtime, threads=threads)
    assert backbone.plan.threads == threads
    crops = np.zeros((203, 112, 112, 3), np.uint8)
    crops[:, :, :, 0] = np.arange(203)[:, None, None]
    crops[:, :, :, 2] = 255 - np.arange(203)[:, None, None]
    for _ in range(5):
        found = backbone.embed(crops)
        assert np.abs(found - crops[:, 0, 0]).max() <= 1e-3


def test_what_it_says_of_itself(tmp_path: Path, colour_network: Path, module: nn.Module) -> None:
    backbone = load_backbone(colour_network, runtime="onnxruntime")
    assert str(backbone) == (
        "colour.onnx (onnxruntime, 3-d, rgb (x − 127.5) / 127.5, assumed)"
    )  # fmt: skip
    assert (backbone.name, backbone.runtime, backbone.precision, backbone.live) == (
        "colour.onnx", "onnxruntime", "float32", False,
    )  # fmt: skip
    said = Preprocessing("bgr", (1.0, 2.5, 3.0), 128.0)
    network = Network("net", "0" * 64, module=module, architecture="y1-x0.25")
    backbone = Embedder(network, said, plans=[RuntimePlan("torch", "bf16")])
    assert str(backbone) == "net (y1-x0.25, torch bf16, 16-d, bgr (x − 1, 2.5, 3) / 128)"
    assert backbone.precision == "bf16"
    assert str(RuntimePlan("torch", "fp16", "cuda:1")) == "torch fp16 cuda:1"


def test_vectors_in_the_form_of_pictures(tmp_path: Path) -> None:
    """(n, d, 1, 1) is a vector, too; (n, 1) and (n, d, 2) are not."""
    pool = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    inputs = [("x", ["n", 3, 112, 112])]
    path = save(tmp_path / "a.onnx", [pool], inputs, [("y", ["n", 3, 1, 1])])
    crops = np.stack([crop_of("red"), crop_of("blue")])
    found = load_backbone(path, PLAIN).embed(crops)
    assert np.allclose(found, crops.mean(axis=(1, 2)), atol=1e-3)

    one = [helper.make_node("ReduceMean", ["x"], ["p"], axes=[1, 2, 3], keepdims=0),
           helper.make_node("Unsqueeze", ["p", "axis"], ["y"])]  # fmt: skip
    from onnx import numpy_helper

    axis = numpy_helper.from_array(np.array([1]), "axis")
    path = save(tmp_path / "b.onnx", one, inputs, [("y", ["n", 1])], [axis])
    with pytest.raises(VidfaceError, match=r"4 faces give an output of shape \(4, 1\)"):
        load_backbone(path, PLAIN)
    rows = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[3], keepdims=0)]
    path = save(tmp_path / "c.onnx", rows, inputs, [("y", ["n", 3, 112])])
    with pytest.raises(
        VidfaceError, match=r"c\.onnx: 4 faces give .* \(4, 3, 112\).*gives \(4, d\)"
    ):
        load_backbone(path, PLAIN)


@pytest.mark.parametrize("batch", [2, 6, 16])
def test_a_built_in_batch_of_several(tmp_path: Path, batch: int) -> None:
    """The graph subtracts the batch's largest values, so that it runs at its own size alone."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("ReduceMax", ["f"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["f", "m"], ["y"]),
    ]
    path = save(tmp_path / "n.onnx", nodes, [("x", [batch, 3, 112, 112])], [("y", [batch, 3])])
    crops = np.stack([crop_of(c, seed=s) for s in range(5) for c in COLOURS])
    backbone = load_backbone(path, PLAIN, runtime="onnxruntime")
    means = crops.mean(axis=(1, 2))
    for n in (1, 2, 5, 6, 7, 17, 20):
        filled = np.zeros((-(-n // batch) * batch, 3))
        filled[:n] = means[:n]
        batches = filled.reshape(-1, batch, 3)
        wanted = (batches - batches.max(axis=1, keepdims=True)).reshape(-1, 3)[:n]
        assert np.allclose(backbone.embed(crops[:n]), wanted, atol=1e-3), n


def test_threads_are_at_least_one(colour_network: Path) -> None:
    for threads in (0, -1):
        with pytest.raises(VidfaceError, match=f"threads must be at least 1, not {threads}"):
            load_backbone(colour_network, PLAIN, threads=threads)


def test_a_live_module_is_used_as_it_is_now(crops: np.ndarray) -> None:
    """Also by what embeds a few faces; training goes on undisturbed."""

    class Colour(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x.mean(dim=(2, 3)) * self.scale

    module = Colour().train()
    backbone = load_backbone(module, PLAIN)
    means = crops.mean(axis=(1, 2))
    for n in (1, CPU_BATCH, CPU_BATCH + 1):
        with torch.no_grad():
            module.scale.fill_(n + 1)
        assert np.allclose(backbone.embed(crops[:n]), (n + 1) * means[:n], rtol=1e-5), n
    assert module.training
    assert (backbone.live, str(backbone.plan)) == (True, "torch")


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_memory_does_not_grow_with_calls(
    module: nn.Module, crops: np.ndarray, plan: RuntimePlan
) -> None:
    """1,025 crops are 39 MB; none of them may be left behind."""
    if not Path("/proc/self/statm").is_file():
        absent("no /proc here")
    backbone = embedder_of(module, plan)
    for _ in range(5):
        backbone.embed(crops.copy())
    before = resident_bytes()
    for _ in range(25):
        backbone.embed(crops.copy())
    assert resident_bytes() - before < 20e6


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_memory_does_not_grow_with_crops(module: nn.Module, plan: RuntimePlan) -> None:
    """600 crops are 23 MB as bytes and 90 MB as float32: they are not prepared all at once."""
    backbone = embedder_of(module, plan)
    crops = np.zeros((600, 112, 112, 3), np.uint8)
    backbone.embed(crops[: 2 * CPU_BATCH])
    tracemalloc.start()
    try:
        backbone.embed(crops)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5e6
    assert MICRO_BATCH * crops[0].nbytes * 4 < 5e6  # a batch as float32 would do


def test_crops_that_are_none(colour_network: Path) -> None:
    backbone = load_backbone(colour_network, PLAIN)
    for crops in (np.zeros((112, 112, 3), np.uint8), np.zeros((2, 3, 112, 112), np.uint8),
                  np.zeros((1, 112, 112, 4), np.uint8), np.zeros((1, 112, 112, 3), np.int64),
                  [], "crops"):  # fmt: skip
        with pytest.raises(VidfaceError, match=r"crops: want \(n, 112, 112, 3\) uint8 RGB, got"):
            backbone.embed(crops)


def test_a_network_of_another_batch_behind_a_name(tmp_path: Path) -> None:
    """A fixed batch is freed once and for all plans: two of them are tried by `auto`."""
    path = write_colour_network(tmp_path / "n.onnx", batch=1)
    crops = np.stack([crop_of("red", seed=s) for s in range(7)])
    backbone = load_backbone(path, PLAIN, threads=2)
    assert np.allclose(backbone.embed(crops), crops.mean(axis=(1, 2)), atol=1e-3)
