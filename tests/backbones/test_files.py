"""Files of weights: every kind of them, and what strangers may put into one."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import write_colour_network
from vidface.backbones.architectures import find_architecture
from vidface.backbones.files import read_network, save_safetensors
from vidface.backbones.loading import load_backbone, load_network, weights_sha256
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError
from vidface.storage.cache import sha256_of

SMALL = "y1-x0.25"
FED = Preprocessing("bgr", (120.0, 110.0, 100.0), 64.0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """A small network of the family with its numbers moved off their first values."""
    made = find_architecture(SMALL).build(seed=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if name.endswith(("norm.weight", "norm.bias", "running_mean", "activation.weight")):
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return made.eval()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (3, 112, 112, 3), np.uint8)


@pytest.fixture(scope="module")
def wanted(module: nn.Module, crops: np.ndarray) -> np.ndarray:
    """The module's own answer, its input prepared by NumPy."""
    with torch.inference_mode():
        return module(torch.from_numpy(FED.apply(crops))).numpy()


def save_tensors(path: Path, state: dict, metadata: dict[str, str] | None = None) -> Path:
    from safetensors.torch import save

    path.write_bytes(save({k: v.contiguous() for k, v in state.items()}, metadata=metadata))
    return path


def prefixed(state: dict) -> dict:
    return {f"module.{name}": tensor for name, tensor in state.items()}


WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "DataParallel": prefixed,
    "both": lambda state: {"state_dict": prefixed(state)},
    "half": lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
    "no counters": lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
}


@pytest.mark.parametrize(
    ("wrapping", "suffix"), [*((w, ".pt") for w in WRAPPINGS), ("plain", ".pth"), ("both", ".pth")]
)
def test_torch_files(tmp_path: Path, module, crops, wanted, wrapping: str, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    torch.save(WRAPPINGS[wrapping](module.state_dict()), path,
               _use_new_zipfile_serialization=suffix == ".pt")  # fmt: skip
    backbone = load_backbone(path, FED, architecture=SMALL, runtime="torch", threads=1)
    assert np.allclose(backbone.embed(crops), wanted, atol=2e-2 if wrapping == "half" else 1e-5)
    assert (backbone.architecture, backbone.dimension) == (SMALL, 128)
    assert (backbone.assumed, backbone.precision) == (False, "float32")
    assert backbone.sha256 == sha256_of(path) == weights_sha256(str(path))


def test_safetensors_that_say_nothing(tmp_path: Path, module, crops, wanted) -> None:
    path = save_tensors(tmp_path / "net.safetensors", module.state_dict())
    with pytest.raises(VidfaceError, match=r"fit none of paper, y2.*--architecture paper-x0\.5"):
        load_network(path)
    backbone = load_backbone(path, architecture=SMALL, runtime="torch", threads=1)
    assert backbone.assumed
    assert backbone.preprocessing == Preprocessing("rgb", 127.5, 127.5)
    backbone = load_backbone(path, FED, architecture=SMALL, runtime="torch", threads=1)
    assert np.allclose(backbone.embed(crops), wanted, atol=1e-5)


def test_safetensors_that_say_everything(tmp_path: Path, module, crops, wanted) -> None:
    path = tmp_path / "net.safetensors"
    save_safetensors(module, path, SMALL, FED, licence="Apache-2.0")
    backbone = load_backbone(path, runtime="torch", threads=1)
    assert (backbone.architecture, backbone.assumed) == (SMALL, False)
    assert backbone.preprocessing == FED
    assert np.allclose(backbone.embed(crops), wanted, atol=1e-5)
    said = load_network(path).declaration
    fed = {"color": "bgr", "mean": [120.0, 110.0, 100.0], "std": 64.0, "size": 112}
    assert said == {"architecture": SMALL, "preprocessing": fed, "licence": "Apache-2.0"}

    other = Preprocessing("rgb", 0.0, 1.0)  # whoever says it outright knows better
    backbone = load_backbone(path, other, runtime="torch", threads=1)
    assert (backbone.preprocessing, backbone.assumed) == (other, False)
    with pytest.raises(VidfaceError, match=r"not of architecture 'y1': 'stem\.conv\.weight' is"):
        load_backbone(path, architecture="y1")


def test_where_nobody_says_it_the_architecture_is_found(data: Path) -> None:
    found = {name: load_network(data / "weights" / name).architecture
             for name in ("mobilefacenet_foamliu.pt", "insightface_y1-0000.params")}  # fmt: skip
    assert list(found.values()) == ["mobilefacenet", "y1"]


def test_a_file_saved_on_cuda(data: Path, crops: np.ndarray) -> None:
    """MobileFaceNet's state dict names the GPU that its tensors lay on; and it is its ONNX twin."""
    path = data / "weights" / "mobilefacenet_foamliu.pt"
    assert b"cuda:0" in path.read_bytes()
    fed = Preprocessing("rgb", 127.5, 128.0)
    ours = load_backbone(path, fed, runtime="torch", device="cpu", threads=1).embed(crops)
    theirs = load_backbone(path.with_suffix(".onnx"), fed, runtime="onnxruntime").embed(crops)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


class Hostile:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def write_hostile(path: Path, marker: Path, how: str) -> None:
    if how.startswith("protocol"):
        path.write_bytes(pickle.dumps({"w": Hostile(marker)}, protocol=int(how[-1])))
    else:
        torch.save({"stem.conv.weight": torch.zeros(3), "w": Hostile(marker)}, path,
                   _use_new_zipfile_serialization=how == "zip")  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("how", ["zip", "legacy", "protocol 0", "protocol 2", "protocol 4"])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_code_in_a_torch_file_does_not_run(tmp_path: Path, how: str, suffix: str) -> None:
    path, marker = tmp_path / f"net{suffix}", tmp_path / "marker"
    write_hostile(path, marker, how)
    if how.startswith("protocol"):
        pickle.loads(path.read_bytes())
        assert marker.exists()  # it would run
        marker.unlink()
    for load in (load_network, load_backbone, lambda p: load_backbone(p, architecture="y1")):
        with pytest.raises(VidfaceError, match=r"net\.pth?: ") as caught:
            load(path)
        assert not marker.exists()
    message = str(caught.value)
    assert "holds more than numbers" in message
    assert "save the state_dict alone, best as .safetensors" in message


def test_a_whole_pickled_module_is_refused(tmp_path: Path, module: nn.Module) -> None:
    torch.save(module, tmp_path / "net.pt")
    with pytest.raises(VidfaceError, match=r"holds more than numbers.*save the state_dict alone"):
        load_backbone(tmp_path / "net.pt", architecture=SMALL)


def mxnet_file(path: Path) -> None:
    """A parameter file of one array of two numbers; test_mxnet_params.py says more."""
    array = struct.pack("<IiIqiii2f", 0xF993FAC9, 0, 1, 2, 1, 0, 0, 1.0, 2.0)
    name = b"arg:fc1_bias"
    head = struct.pack("<QQQ", 0x112, 0, 1)
    path.write_bytes(head + array + struct.pack("<QQ", 1, len(name)) + name)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".pt", ".pth", ".params"])
def test_cut_files(tmp_path: Path, module: nn.Module, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".onnx":
        write_colour_network(whole)
    elif suffix == ".safetensors":
        save_safetensors(module, whole, SMALL, FED)
    elif suffix == ".params":
        mxnet_file(whole)
    else:
        torch.save(module.state_dict(), whole, _use_new_zipfile_serialization=suffix == ".pt")
    content = whole.read_bytes()
    if suffix == ".params":
        with pytest.raises(VidfaceError, match="not of architecture"):  # so it is read
            load_network(whole, SMALL)
    else:
        load_network(whole, None if suffix == ".onnx" else SMALL)
    n = len(content)
    offsets = {*range(0, min(n, 200)), *np.linspace(0, n - 1, 40).astype(int), n - 1, n - 2}
    for offset in sorted(offsets):
        cut.write_bytes(content[:offset])
        with pytest.raises(VidfaceError, match=re.escape(f"{cut}: ")) as caught:
            load_network(cut, None if suffix == ".onnx" else SMALL)
        assert "cut off" in str(caught.value) or f"is no {suffix} file" in str(caught.value), offset


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".pt", ".pth", ".params"])
@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"just a text\n" * 100, b"<!doctype html><html>", bytes(4096), b"\xff" * 4096],
    ids=["empty", "x", "text", "html", "zeros", "ones"],
)
def test_another_kind_of_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    for load in (load_network, load_backbone):
        with pytest.raises(VidfaceError, match=re.escape(f"{path}: ")):
            load(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    for suffix in (".onnx", ".safetensors", ".pt", ".params", ""):
        folder = tmp_path / f"net{suffix}"
        folder.mkdir()
        with pytest.raises(VidfaceError, match=re.escape(str(folder))):
            load_backbone(folder)
        with pytest.raises(VidfaceError, match=re.escape(str(folder))):
            read_network(folder, "net")
        with pytest.raises(VidfaceError, match=rf"none{suffix}.*no such file"):
            load_backbone(tmp_path / f"none{suffix}")
    (tmp_path / "net.caffemodel").write_bytes(b"x")
    with pytest.raises(VidfaceError, match=r"known: \.onnx, \.safetensors, \.pt.*export the netw"):
        load_backbone(tmp_path / "net.caffemodel")


def test_what_fits_no_architecture(tmp_path: Path, module: nn.Module) -> None:
    """The message names the first thing that is wrong."""
    state = module.state_dict()
    path = tmp_path / "net.pt"

    def says(changed: dict, message: str) -> None:
        torch.save(changed, path)
        with pytest.raises(VidfaceError, match=message):
            load_network(path, SMALL)

    without = {k: v for k, v in state.items() if k not in ("last.conv.weight", "stem.norm.bias")}
    says(without, "not of architecture 'y1-x0.25': 2 parameters are missing, 'last.conv.weight'")
    says(state | {"b": torch.zeros(1), "a": torch.zeros(1)}, "2 parameters are not its own, 'a'")
    other = state | {"embedding.linear.bias": torch.zeros(127)}
    says(other, r"'embedding\.linear\.bias' is \(127,\), not \(128,\)")
    flat = state | {"embedding.linear.bias": torch.zeros(128, 1)}
    says(flat, r"'embedding\.linear\.bias' is \(128, 1\), not \(128,\)")
    says({"fc.weight": torch.zeros(2, 2)}, "parameters are missing")
    with pytest.raises(VidfaceError, match="its parameters fit none of paper, y2"):
        load_network(path)
    with pytest.raises(VidfaceError, match=r"net\.pt: no architecture named 'resnet'.*known: pap"):
        load_network(path, "resnet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds a list, not a state dict"),
        (torch.zeros(2), "holds a Tensor, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"a": torch.zeros(2), "b": 3}, "'b' is a int; a state dict holds tensors"),
        ({1: torch.zeros(2)}, "'1' is a Tensor"),
        ({"state_dict": {"a": "b"}}, "'a' is a str"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, content, message: str) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(VidfaceError, match=message):
        load_network(tmp_path / "net.pt")


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated.*:UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantised", "complex"])
def test_tensors_that_are_no_plain_numbers(tmp_path: Path, module, kind: str) -> None:
    changed = {
        "sparse": lambda t: t.to_sparse(),
        "meta": lambda t: t.to("meta"),
        "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "complex": lambda t: t + 1j,
    }[kind]
    state = dict(module.state_dict())
    state["last.conv.weight"] = changed(state["last.conv.weight"])
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(VidfaceError, match=r"'last\.conv\.weight' is no plain array of real n"):
        load_network(tmp_path / "net.pt", SMALL)


def test_names_where_files_are_wanted(tmp_path: Path) -> None:
    for name in ("paper", "y1", "paper-step0", "paper-x0.5"):
        with pytest.raises(VidfaceError, match=rf"'{name}' is an architecture without weights: .*"
                                               rf"--architecture {name}"):  # fmt: skip
            load_backbone(name)
    path = write_colour_network(tmp_path / "net.onnx")
    with pytest.raises(VidfaceError, match="an ONNX file holds its own network; leave --archit"):
        load_backbone(path, architecture="y1")


NO_WORD = "its metadata 'vidface' is not what vidface writes"
DECLARATIONS = [
    ("nan", NO_WORD),
    ("not JSON", NO_WORD),
    ("", NO_WORD),
    ("[]", NO_WORD),
    ("[" * 100_000, NO_WORD),
    ('{"preprocessing": null}', NO_WORD),
    ('{"preprocessing": "rgb"}', NO_WORD),
    ('{"architecture": 5}', NO_WORD),
    ('{"architecture": ["y1"]}', NO_WORD),
    ('{"architecture": NaN}', NO_WORD),
    ('{"preprocessing": {"colour": "rgb"}}', "unknown preprocessing key 'colour'"),
    ('{"preprocessing": {}}', "its preprocessing does not say 'color'"),
    ('{"preprocessing": {"color": "rgb", "mean": 0}}', "does not say 'std'"),
    ('{"preprocessing": {"color": "rgb", "mean": null, "std": 1}}', "does not say 'mean'"),
]
VALUES = [
    ("mean", "NaN", "mean: must be one finite number or three, not nan"),
    ("mean", "Infinity", "mean: must be one finite number"),
    ("mean", "1" + "0" * 400, "preprocessing: int too large"),
    ("mean", '"x"', "preprocessing: must be real number, not str"),
    ("mean", '{"a": 1}', "preprocessing: "),
    ("mean", "[1, [2], 3]", "preprocessing: "),
    ("mean", "[1, 2]", "mean: must be one finite number or three"),
    ("std", "0", "std: must be above 0"),
    ("std", "[1, -1, 1]", "std: must be above 0"),
    ("color", '"grey"', "color: unknown value 'grey'"),
    ("size", "224", "takes faces of 112x112 pixels, not 224x224"),
]
for key, value, message in VALUES:
    said = {"color": '"rgb"', "mean": "0", "std": "1", key: value}
    text = ", ".join(f'"{k}": {v}' for k, v in said.items())
    DECLARATIONS.append((f'{{"preprocessing": {{{text}}}}}', message))


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
@pytest.mark.parametrize(("text", "message"), DECLARATIONS, ids=[d[0][:60] for d in DECLARATIONS])
def test_a_files_own_word_in_a_form_of_no_use(
    tmp_path: Path, module: nn.Module, suffix: str, text: str, message: str
) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".onnx":
        write_declaring(path, text)
    else:
        save_tensors(path, module.state_dict(), {"vidface": text})
    with pytest.raises(VidfaceError, match=rf"net\{suffix}: .*{re.escape(message)}"):
        load_backbone(path, architecture=None if suffix == ".onnx" else SMALL)


def write_declaring(path: Path, text: str) -> Path:
    import onnx

    model = onnx.load(write_colour_network(path))
    entry = model.metadata_props.add()
    entry.key, entry.value = "vidface", text
    onnx.save(model, path)
    return path


def test_onnx_that_says_what_it_is_fed(tmp_path: Path, crops: np.ndarray) -> None:
    said = {"architecture": "paper-x0.5", "preprocessing": FED.to_dict()}
    path = write_declaring(tmp_path / "net.onnx", json.dumps(said))
    backbone = load_backbone(path)
    assert (backbone.preprocessing, backbone.assumed) == (FED, False)
    assert backbone.architecture == "paper-x0.5"
    assert np.allclose(backbone.embed(crops), FED.apply(crops).mean(axis=(2, 3)), atol=1e-5)
    other = Preprocessing("rgb", 0.0, 1.0)
    assert load_backbone(path, other).preprocessing == other

    path = write_declaring(tmp_path / "silent.onnx", '{"licence": "MIT"}')
    assert load_backbone(path).assumed


def test_onnx_of_an_unknown_type_of_numbers(tmp_path: Path) -> None:
    import onnx

    path = write_colour_network(tmp_path / "net.onnx")
    model = onnx.load(path)
    for number, name in ((11, "double"), (999, "an unknown type")):
        model.graph.input[0].type.tensor_type.elem_type = number
        onnx.save(model, path)
        with pytest.raises(VidfaceError, match=rf"\['batch', 3, 112, 112\] of {name}; a recog"):
            load_network(path)


def test_weights_listed_as_inputs_are_no_inputs(tmp_path: Path, crops: np.ndarray) -> None:
    """As exporters of 2021 did, SFace's among them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = write_colour_network(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.node[1].output[0] = "flat"
    model.graph.node.append(helper.make_node("Mul", ["flat", "two"], ["vector"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32([2, 2, 2]), "two"))
    model.graph.input.append(helper.make_tensor_value_info("two", TensorProto.FLOAT, [3]))
    onnx.save(model, path)
    fed = Preprocessing("rgb", 0.0, 1.0)
    assert np.allclose(load_backbone(path, fed).embed(crops), 2 * crops.mean(axis=(1, 2)), 1e-4)


def test_weights_beside_the_file_that_are_no_file(tmp_path: Path) -> None:
    """A graph may name anything as the place of its weights: not all of it is read for a hash."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = write_colour_network(tmp_path / "net.onnx")
    model = onnx.load(path)
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/dev/null"  # /dev/zero has no end
    model.graph.initializer.append(tensor)
    model.graph.node.append(helper.make_node("Identity", ["w"], ["unused"]))
    path.write_bytes(model.SerializeToString())
    assert weights_sha256(str(path)) == sha256_of(path)
    with pytest.raises(VidfaceError, match=r"net\.onnx: not an ONNX file, or cut off \("):
        load_network(path)


def test_a_state_dict_from_memory_alone_is_no_path() -> None:
    with pytest.raises(
        VidfaceError, match=r"want a name, a path, a function or a torch\.nn\.Module, not Byte"
    ):
        load_backbone(io.BytesIO(b"x"))


def hide_outside(model, place: str, entries: dict[str, str]) -> None:
    """Let a tensor of 3 numbers somewhere in a graph lie in another file."""
    from onnx import TensorProto, helper, numpy_helper

    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse":
        indices = numpy_helper.from_array(np.arange(3), "i")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [3]))
    else:
        node = helper.make_node("Constant", [], ["unused"], value=tensor)
        if place == "body":
            body = helper.make_graph(
                [node], "b", [], [helper.make_tensor_value_info("unused", 1, [3])]
            )
            node = helper.make_node("If", ["on"], ["either"], then_branch=body, else_branch=body)
            model.graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
        model.graph.node.append(node)


@pytest.mark.parametrize("place", ["initializer", "constant", "body"])
def test_weights_beside_the_file_are_part_of_it_wherever_they_are_used(
    tmp_path: Path, place: str
) -> None:
    import onnx

    path = write_colour_network(tmp_path / "net.onnx")
    model = onnx.load(path)
    hide_outside(model, place, {"location": "w.bin"})
    path.write_bytes(model.SerializeToString())
    hashes = set()
    for value in (1, 2):
        (tmp_path / "w.bin").write_bytes(np.full(3, value, np.float32).tobytes())
        hashes.add(weights_sha256(str(path)))
        assert load_network(path).sha256 in hashes
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("place", "entries", "message"),
    [
        ("initializer", {"location": "../w.bin"}, "net.onnx: not an ONNX file, or cut off"),
        ("initializer", {"location": "w.bin", "length": str(2**40)}, r"net.onnx: 1.02e\+03 GiB"),
        ("body", {"location": "w.bin", "offset": "13"}, "net.onnx: not an ONNX file, or cut off"),
        ("sparse", {"location": "w.bin"}, "net.onnx: weights of a kind that lies in no other"),
    ],
)
def test_lies_about_weights_beside_the_file(
    tmp_path: Path, place: str, entries: dict[str, str], message: str
) -> None:
    import onnx

    (tmp_path / "w.bin").write_bytes(bytes(12))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(12))
    path = write_colour_network(folder / "net.onnx")
    model = onnx.load(path)
    hide_outside(model, place, entries)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(VidfaceError, match=message):
        load_network(path)


def test_files_too_large_to_be_read(tmp_path: Path) -> None:
    """A hole of 4 GiB takes no room on a disk, and all memory when it is read."""
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(VidfaceError, match=r"net\.onnx: 4 GiB.*up to 2 GiB"):
        load_network(path)


def test_parts_that_unfold(tmp_path: Path, module: nn.Module) -> None:
    """A megabyte of a zip file may be a gigabyte of zeros; so may a counter, by its strides."""
    plain, folded = tmp_path / "plain.pt", tmp_path / "folded.pt"
    torch.save(module.state_dict(), plain)
    with zipfile.ZipFile(plain) as parts, zipfile.ZipFile(folded, "w", zipfile.ZIP_DEFLATED) as out:
        for name in parts.namelist():
            out.writestr(name, parts.read(name))
    assert load_network(plain, SMALL).module is not None
    with pytest.raises(VidfaceError, match="its parts are compressed and may unfold"):
        load_network(folded, SMALL)
    counter = torch.zeros(1, dtype=torch.int64).expand(2**40)
    torch.save(module.state_dict() | {"stem.norm.num_batches_tracked": counter}, plain)
    with pytest.raises(VidfaceError, match=r"'stem\.norm\.num_batches_tracked' is no plain array"):
        load_network(plain, SMALL)
