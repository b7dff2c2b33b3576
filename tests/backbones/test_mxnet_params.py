"""MXNet's parameter files: made by hand, damaged by hand, and the real one of y1."""

from __future__ import annotations

import importlib
import re
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.backbones.test_loading import real_crops
from vidface.backbones.export import cosine_rows
from vidface.backbones.loading import load_backbone, load_network
from vidface.backbones.mxnet_params import insightface_state, read_mxnet_params
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.errors import VidfaceError

V2, V3 = 0xF993FAC9, 0xF993FACA


def array(
    shape: tuple[int, ...],
    content: bytes = b"",
    *,
    kind: int = 0,
    magic: int = V2,
    storage: int = 0,
    rank: int | None = None,
) -> bytes:
    """One array: magic, storage, shape, device (CPU 0), type, numbers."""
    dimensions = struct.pack(f"<{len(shape)}q", *shape)
    head = struct.pack("<IiI", magic, storage, len(shape) if rank is None else rank)
    return head + dimensions + struct.pack("<iii", 1, 0, kind) + content


def params_file(
    path: Path,
    arrays: list[bytes],
    names: list[bytes],
    *,
    magic: int = 0x112,
    arrays_said: int | None = None,
    names_said: int | None = None,
) -> Path:
    content = struct.pack("<QQQ", magic, 0, len(arrays) if arrays_said is None else arrays_said)
    content += b"".join(arrays)
    content += struct.pack("<Q", len(names) if names_said is None else names_said)
    content += b"".join(struct.pack("<Q", len(name)) + name for name in names)
    path.write_bytes(content)
    return path


def test_arrays_by_eye(tmp_path: Path) -> None:
    path = params_file(
        tmp_path / "a.params",
        [
            array((2, 3), struct.pack("<6f", 1, 2, 3, 4, 5, 6.5)),
            array((2,), struct.pack("<2d", 0.1, -7), kind=1),
            array((3,), struct.pack("<3e", 0.5, -2, 65504), kind=2, magic=V3),
            array((4,), bytes([0, 1, 254, 255]), kind=3),
            array((2,), struct.pack("<2i", -5, 2**31 - 1), kind=4),
            array((2,), struct.pack("<2b", -128, 127), kind=5),
            array((1, 1, 2), struct.pack("<2q", -(2**63), 9), kind=6),
            array((0, 5)),
        ],
        [b"arg:a", b"aux:b", b"c", b"d", b"e", b"f", b"g", "größe".encode()],
    )
    found = read_mxnet_params(path)
    assert {k: (v.dtype.name, v.tolist()) for k, v in found.items()} == {
        "arg:a": ("float32", [[1, 2, 3], [4, 5, 6.5]]),
        "aux:b": ("float64", [0.1, -7]),
        "c": ("float16", [0.5, -2, 65504]),
        "d": ("uint8", [0, 1, 254, 255]),
        "e": ("int32", [-5, 2**31 - 1]),
        "f": ("int8", [-128, 127]),
        "g": ("int64", [[[-(2**63), 9]]]),
        "größe": ("float32", []),
    }
    assert found["größe"].shape == (0, 5)


ONE = array((2,), struct.pack("<2f", 1, 2))
DAMAGED = {
    "another magic": ({"arrays": [ONE], "names": [b"a"], "magic": 0x113}, "not an MXNet param"),
    "2^63 arrays": ({"arrays": [ONE], "names": [b"a"], "arrays_said": 2**63}, "declares 9223"),
    "2^63 names": ({"arrays": [ONE], "names": [b"a"], "names_said": 2**63}, "declares 9223"),
    "an array too many": ({"arrays": [ONE], "names": [b"a"], "arrays_said": 2}, "damaged|cut off"),
    "a name too few": ({"arrays": [ONE, ONE], "names": [b"a"]}, "2 arrays, 1 names"),
    "a name twice": ({"arrays": [ONE, ONE], "names": [b"a", b"a"]}, "2 arrays, 1 names"),
    "an old array": ({"arrays": [array((2,), magic=0xF993FAC8)], "names": [b"a"]}, "another MXN"),
    "sparse": ({"arrays": [array((2,), storage=1)], "names": [b"a"]}, "sparse arrays are not r"),
    "no dimensions": ({"arrays": [array(())], "names": [b"a"]}, "an array of 0 dimensions"),
    "2^31 dimensions": ({"arrays": [array((), rank=2**31)], "names": [b"a"]}, "2147483648 dimens"),
    "33 dimensions": ({"arrays": [array((1,) * 33, bytes(4))], "names": [b"a"]}, "33 dimensions"),
    "huge": ({"arrays": [array((2**62, 2**62))], "names": [b"a"]}, "cut off"),
    "large": ({"arrays": [array((2**20, 2**12))], "names": [b"a"]}, "cut off"),
    "negative": ({"arrays": [array((-1, -2), bytes(8))], "names": [b"a"]}, r"shape \(-1, -2\)"),
    "nothing of huge": ({"arrays": [array((0, 2**62, 2**62))], "names": [b"a"]}, "a shape of no"),
    "unknown type": ({"arrays": [array((1,), bytes(8), kind=7)], "names": [b"a"]}, "type 7"),
    "type below 0": ({"arrays": [array((1,), bytes(8), kind=-1)], "names": [b"a"]}, "type -1"),
}


@pytest.mark.parametrize(("written", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(tmp_path: Path, written: dict, message: str) -> None:
    importlib.import_module("torch")  # not to be measured
    path = params_file(tmp_path / "a.params", **written)
    tracemalloc.start()
    try:
        began = time.monotonic()
        for read in (read_mxnet_params, load_network):
            with pytest.raises(VidfaceError, match=rf"{re.escape(str(path))}: .*({message})"):
                read(path)
        assert time.monotonic() - began < 2
        assert tracemalloc.get_traced_memory()[1] < 5e6  # bytes
    finally:
        tracemalloc.stop()


def test_cut_at_every_byte(tmp_path: Path) -> None:
    path = params_file(tmp_path / "a.params", [ONE, array((1,), bytes(2), kind=2)], [b"a", b"bc"])
    content = path.read_bytes()
    assert len(read_mxnet_params(path)) == 2
    for offset in range(len(content)):
        path.write_bytes(content[:offset])
        with pytest.raises(VidfaceError, match=r"a\.params: (cut off|damaged)"):
            read_mxnet_params(path)


def test_names_of_insightface() -> None:
    numbers = {
        name: np.full(1, value, np.float32)
        for value, name in enumerate(
            (
                "arg:conv_1_conv2d_weight",
                "aux:conv_2_dw_batchnorm_moving_mean",
                "arg:dconv_23_conv_sep_relu_gamma",
                "arg:res_3_block2_conv_dw_batchnorm_beta",
                "arg:dconv_45_conv_proj_conv2d_weight",
                "aux:res_5_block1_conv_proj_batchnorm_moving_var",
                "arg:conv_6dw7_7_conv2d_weight",
                "arg:fc1_weight",
                "arg:pre_fc1_bias",
                "arg:fc1_gamma",
                "aux:fc1_moving_mean",
            )
        )
    }
    state = insightface_state(numbers, Path("a.params"))
    assert {name: value.tolist() for name, value in state.items()} == {
        "stem.conv.weight": [0],
        "stages.0.0.norm.running_mean": [1],
        "stages.1.0.expand.activation.weight": [2],
        "stages.2.2.depthwise.norm.bias": [3],
        "stages.5.0.project.conv.weight": [4],
        "stages.6.1.project.norm.running_var": [5],
        "gdc.conv.weight": [6],
        "embedding.linear.weight": [7],
        "embedding.linear.bias": [8],
        "embedding.norm.weight": [1],  # its symbol fixes the scale
        "embedding.norm.running_mean": [10],
    }
    for name in ("arg:stage1_unit1_conv1_weight", "conv_1_conv2d_weight", "arg:conv_1_conv2d_x"):
        with pytest.raises(VidfaceError, match=rf"a\.params: '{name}' is of no network of"):
            insightface_state({name: np.zeros(1)}, Path("a.params"))


@pytest.fixture(scope="module")
def faces(data: Path) -> np.ndarray:
    return real_crops(data, 36)


@pytest.fixture(scope="module")
def wanted(data: Path, faces: np.ndarray) -> np.ndarray:
    """What InsightFace's ONNX file makes of the faces, by ONNX Runtime and none of our own code.

    The graph begins with (x − 127.5) / 128 of its own, and is fed 0–255.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data / "weights" / "insightface_y1.onnx")
    planes = faces.transpose(0, 3, 1, 2).astype(np.float32)
    return session.run(None, {session.get_inputs()[0].name: planes})[0]


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
@pytest.mark.slow
def test_y1_is_the_y1_that_others_exported(
    data: Path,
    faces: np.ndarray,
    wanted: np.ndarray,
    runtime: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """InsightFace's parameters in our own network against their ONNX file, on faces of LFW."""
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path))
    path = data / "weights" / "insightface_y1-0000.params"
    ours = load_backbone(path, runtime=runtime, threads=1)
    assert (ours.architecture, ours.dimension, ours.assumed) == ("y1", 128, False)
    assert ours.preprocessing == Preprocessing("rgb", 127.5, 128.0)
    found = ours.embed(faces)
    assert cosine_rows(found, wanted).min() >= 0.99999
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    others = cosine_rows(wanted, np.roll(wanted, 1, axis=0))
    assert np.median(others) < 0.5  # they are different people
