"""Torch networks as ONNX: batch norm folded, the same embeddings, kept in the cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from vidface.backbones import export
from vidface.backbones import network as network_module
from vidface.backbones.architectures import Architecture, StageRow, find_architecture
from vidface.backbones.export import OPSET, cosine_rows, export_onnx, write_onnx
from vidface.backbones.files import read_network, save_safetensors
from vidface.backbones.folding import fold_batch_norm
from vidface.backbones.graphs import read_onnx
from vidface.backbones.loading import load_backbone
from vidface.backbones.network import Network
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.storage.cache import cache_folder

ROWS = (
    StageRow(None, 8, 1, 1),
    StageRow(12, 10, 1, 2),
    StageRow(12, 10, 2, 1),
    StageRow(16, 12, 1, 2),
    StageRow(16, 8, 1, 2),
)
BUILDER = "vidface.backbones.bottlenecks:BottleneckNetwork"
# Every kind of layer that the family has: plain depthwise, strided and residual bottlenecks, SE,
# and both heads.
TABLES = {
    "SE, convolution": Architecture("tiny", 6, "", BUILDER, 8, ROWS, 16, se_reduction=4),
    "linear head": Architecture("tiny", 6, "", BUILDER, 8, ROWS, 16, head="linear"),
    "MobileFaceNet": Architecture(
        "tiny", 6, "", "vidface.backbones.mobilefacenet:MobileFaceNet", 8,
        (StageRow(12, 10, 1, 2), StageRow(12, 10, 1, 1), StageRow(12, 10, 1, 2),
         StageRow(16, 12, 1, 2)), 16,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


def moved(module: nn.Module) -> nn.Module:
    """The module with batch norms and slopes moved off their first values."""
    generator = torch.Generator().manual_seed(1)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                uniform(layer.weight, 0.5, 1.5)
                uniform(layer.bias, -0.5, 0.5)
                uniform(layer.running_mean, -0.5, 0.5)
                uniform(layer.running_var, 0.3, 2)
            if isinstance(layer, nn.PReLU):
                uniform(layer.weight, -0.5, 1.5)
    return module


@pytest.fixture(params=TABLES)
def module(request: pytest.FixtureRequest) -> nn.Module:
    return moved(TABLES[request.param].build()).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return 2 * torch.rand((3, 3, 112, 112), generator=generator) - 1


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in module.modules())


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_folded_networks_give_the_same(module: nn.Module, images: torch.Tensor) -> None:
    module.train()
    before, text = state_of(module), repr(module)
    made = fold_batch_norm(module)
    assert norms(made) == 0
    assert norms(module) > 10
    assert repr(module) == text
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(m.training for m in module.modules())
    assert not any(m.training for m in made.modules())
    module.eval()
    with torch.inference_mode():
        wanted, found = module(images), made(images)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    with torch.no_grad():  # the copy shares nothing
        for tensor in made.parameters():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


class Twice(nn.Module):
    """One convolution for two batch norms, and one batch norm for two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 3, 1)
        self.one, self.two, self.both = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x):
        x = self.two(self.shared(self.one(self.shared(x))))
        x = self.both(self.last(self.both(self.other(x))))
        return x.mean(dim=(2, 3))


class Skipping(nn.Module):
    """What goes into the batch norm is used beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.first = nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(self.first(x))
        return (y + self.norm(y)).mean(dim=(2, 3))


class ByValue(nn.Module):
    """Control flow that cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return y.mean(dim=(2, 3)) if y.sum() > 0 else y.amax(dim=(2, 3))


@pytest.mark.parametrize(("kind", "left"), [(Twice, 2), (Skipping, 2), (ByValue, 1)])
def test_layers_that_cannot_be_folded_stay(images: torch.Tensor, kind, left: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = moved(kind()).eval()
    made = fold_batch_norm(module)
    assert norms(made) == left
    with torch.inference_mode():
        assert torch.allclose(made(images), module(images), atol=1e-5)


@pytest.mark.slow
def test_exported_networks_give_the_same(module: nn.Module, images: torch.Tensor) -> None:
    import onnxruntime

    before = state_of(module)
    model = export_onnx(module, {"architecture": "tiny", "number": 3}, "tiny")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if o.domain == ""] == [("", OPSET)]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert [(p.key, json.loads(p.value)) for p in model.metadata_props] == [
        ("vidface", {"architecture": "tiny", "number": 3})
    ]
    [image], [vector] = model.graph.input, model.graph.output
    assert (image.name, vector.name) == ("images", "embeddings")
    shape = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert (isinstance(shape[0], str), shape[1:]) == (True, [3, 112, 112])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    with torch.inference_mode():
        for n in (1, 2, 3):
            [found] = session.run(None, {"images": images[:n].numpy()})
            wanted = module(images[:n]).numpy()
            assert cosine_rows(found, wanted).min() >= 0.999999
            assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


class Colour(nn.Module):
    """The mean of each channel, times a number."""

    def __init__(self, *scales: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scales or (1.0, 1.0, 1.0), dtype=torch.float32))

    def forward(self, x):
        return x.mean(dim=(2, 3)) * self.scale


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(1, 1, 1.02), (1, -1, 1), (1, float("nan"), 1)])
def test_a_wrong_export_is_noticed(monkeypatch: pytest.MonkeyPatch, scales) -> None:
    monkeypatch.setattr(export, "fold_batch_norm", lambda module: Colour(*scales))
    with pytest.raises(
        VidfaceError, match=r"colour: the exported graph gives other embeddings \(c"
    ):
        export_onnx(Colour(), {}, "colour")


def test_what_torch_cannot_export() -> None:
    with pytest.raises(VidfaceError, match="odd: torch cannot export it: "):
        export_onnx(ByValue(), {}, "odd")


def test_cosines_by_eye() -> None:
    a = np.array([[3, 0], [1, 1], [2, 0], [1, 2]], np.float32)
    b = np.array([[5, 0], [1, 0], [-1, 0], [2, -1]], np.float32)
    assert np.allclose(cosine_rows(a, b), [1, 0.5**0.5, -1, 0])


@pytest.fixture
def network() -> Network:
    return Network("colour", "5" * 64, module=Colour(1, 2, 3).eval())


@pytest.fixture
def asked(colour_network: Path, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that are exported, in an instant and in no earnest."""
    modules: list[nn.Module] = []

    def export_at_once(module: nn.Module, declaration, name: str) -> onnx.ModelProto:
        modules.append(module)
        return onnx.load(colour_network)

    monkeypatch.setattr(network_module, "export_onnx", export_at_once)
    return modules


def exports() -> list[Path]:
    return sorted((cache_folder() / "exports").glob("*"))


def anew(network: Network, **changed: object) -> Network:
    """The same network as if read again."""
    values = {"name": network.name, "sha256": network.sha256, "module": network.module}
    return Network(**{**values, **changed})


def test_exports_are_kept(network: Network, asked: list[nn.Module]) -> None:
    graph = network.graph()
    assert network.graph() == graph  # from memory
    [kept] = exports()
    assert kept.suffix == ".onnx"
    assert anew(network).graph() == graph  # from the cache
    assert asked == [network.module]
    for number, changed in enumerate(({"sha256": "6" * 64}, {"architecture": "another"}), 2):
        anew(network, **changed).graph()
        assert (len(asked), len(exports())) == (number, number)


@pytest.mark.slow
def test_damaged_exports_are_made_again(network: Network, asked: list[nn.Module]) -> None:
    graph = network.graph()
    [kept] = exports()
    content = kept.read_bytes()
    parts = onnx.load(kept)
    parts.ClearField("opset_import")
    asked.clear()
    damaged = [b"", b"text", content[: len(content) // 2], content[:-1], parts.SerializeToString()]
    for number, wrong in enumerate(damaged, 1):
        kept.write_bytes(wrong)
        assert anew(network).graph() == graph
        assert len(asked) == number
        assert kept.read_bytes() == content


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_an_export(
    network: Network, asked: list[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "file"))
    graph = network.graph()
    assert anew(network).graph() == graph
    assert len(asked) == 2


@pytest.mark.slow
def test_an_exported_file_needs_no_more_words(tmp_path: Path) -> None:
    """Parameters → ONNX on disk → embeddings, with all that the first file said of itself."""
    fed = Preprocessing("bgr", (120.0, 110.0, 100.0), 64.0)
    module = moved(find_architecture("y1-x0.25").build(seed=2)).eval()
    save_safetensors(module, tmp_path / "net.safetensors", "y1-x0.25", fed)
    network = read_network(tmp_path / "net.safetensors", "net")
    model = export_onnx(network.module, network.declaration, "net")
    write_onnx(model, tmp_path / "net.onnx")
    assert read_onnx(tmp_path / "net.onnx").graph.node == model.graph.node
    crops = np.random.default_rng(3).integers(0, 256, (5, 112, 112, 3), np.uint8)
    first = load_backbone(tmp_path / "net.safetensors", runtime="torch")
    second = load_backbone(tmp_path / "net.onnx", runtime="onnxruntime")
    for backbone in (first, second):
        assert (backbone.preprocessing, backbone.assumed) == (fed, False)
        assert backbone.architecture == "y1-x0.25"
    assert cosine_rows(first.embed(crops), second.embed(crops)).min() >= 0.999999
