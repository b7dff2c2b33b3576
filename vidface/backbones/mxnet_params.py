"""MXNet parameter files (`model-0000.params`), read without MXNet.

A plain binary format: a list of arrays with their names behind it, all little-endian. Source:
apache/mxnet, src/ndarray/ndarray.cc (NDArray::Save) and include/mxnet/tuple.h.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np

from vidface.core.errors import VidfaceError

_LIST_MAGIC = 0x112
_ARRAY_V2, _ARRAY_V3 = 0xF993FAC9, 0xF993FACA
_TYPES = (np.float32, np.float64, np.float16, np.uint8, np.int32, np.int8, np.int64)
_LARGEST_RANK = 32


def read_mxnet_params(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a parameter file by name; "arg:" and "aux:" stay in front of it.

    Raises:
        VidfaceError: not such a file, cut off, or of a kind that is not dense arrays.
    """
    data = _Reader(path.read_bytes(), path)
    magic, _ = data.take("<QQ")
    if magic != _LIST_MAGIC:
        raise VidfaceError(f"weights {path}: not an MXNet parameter file")
    arrays = [_array(data) for _ in range(data.count())]
    names = [data.text() for _ in range(data.count())]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise VidfaceError(f"weights {path}: {len(arrays)} arrays, {len(set(names))} names")
    return dict(zip(names, arrays, strict=True))


class _Reader:
    def __init__(self, data: bytes, path: Path) -> None:
        self._data, self._path, self._at = data, path, 0

    def raw(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise VidfaceError(f"weights {self._path}: cut off, or not an MXNet parameter file")
        self._at += size
        return piece

    def take(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.raw(struct.calcsize(form)))

    def count(self) -> int:
        [number] = self.take("<Q")
        if number > len(self._data):  # every entry takes a byte at least
            raise VidfaceError(f"weights {self._path}: damaged (declares {number} entries)")
        return number

    def text(self) -> str:
        return self.raw(self.count()).decode("utf-8", errors="replace")

    def refuse(self, why: str) -> VidfaceError:
        return VidfaceError(f"weights {self._path}: {why}")


def _array(data: _Reader) -> np.ndarray:
    [magic] = data.take("<I")
    if magic not in (_ARRAY_V2, _ARRAY_V3):
        raise data.refuse("an array of another MXNet version, or a damaged file")
    [storage] = data.take("<i")
    if storage != 0:
        raise data.refuse("sparse arrays are not read")
    [rank] = data.take("<I")
    if not 0 < rank <= _LARGEST_RANK:
        raise data.refuse(f"an array of {rank} dimensions")
    shape = data.take(f"<{rank}q")
    _, _, kind = data.take("<iii")  # device type, device number, type of the numbers
    if not 0 <= kind < len(_TYPES) or min(shape) < 0:
        raise data.refuse(f"an array of unknown type {kind} or shape {shape}")
    dtype = np.dtype(_TYPES[kind]).newbyteorder("<")
    numbers = np.frombuffer(data.raw(math.prod(shape) * dtype.itemsize), dtype)
    try:
        return numbers.reshape(shape)
    except ValueError:  # nothing in one dimension, more than there can be in others
        raise data.refuse(f"an array of a shape of no use, {shape}") from None


_LAYERS = {
    "conv_1": "stem",
    "conv_2_dw": "stages.0.0",
    "conv_6sep": "last",
    "conv_6dw7_7": "gdc",
    "pre_fc1": "embedding.linear",
    "fc1": "embedding.norm",
}
_PARTS = {"conv_sep": "expand", "conv_dw": "depthwise", "conv_proj": "project"}
_NUMBERS = {
    "conv2d_weight": "conv.weight",
    "batchnorm_gamma": "norm.weight",
    "batchnorm_beta": "norm.bias",
    "batchnorm_moving_mean": "norm.running_mean",
    "batchnorm_moving_var": "norm.running_var",
    "relu_gamma": "activation.weight",
    "weight": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}
_NAME = re.compile(
    rf"(?:arg|aux):(?:(?P<layer>{'|'.join(_LAYERS)})"
    rf"|(?:dconv_(?P<down>23|34|45)|res_(?P<stage>[2-5])_block(?P<block>\d+))"
    rf"_(?P<part>{'|'.join(_PARTS)}))_(?P<number>{'|'.join(_NUMBERS)})"
)


def insightface_state(params: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The parameters of InsightFace's MobileFaceNets under the names of `BottleneckNetwork`.

    `fc1` is a batch norm whose scale its symbol fixes to 1, whatever the file says.

    Raises:
        VidfaceError: a name that those networks do not have.
    """
    state = {}
    for name, array in params.items():
        # MXNet's fully connected layer `pre_fc1` shares its weight under the name of what follows.
        match = _NAME.fullmatch(name.replace(":fc1_weight", ":pre_fc1_weight"))
        if match is None:
            raise VidfaceError(
                f"weights {path}: '{name}' is of no network of InsightFace's MobileFaceNet family"
            )
        if match["layer"]:
            prefix = _LAYERS[match["layer"]]
        else:
            # Stages: 0 is conv_2 or res_2, then a downsampling and a residual one for 3, 4 and 5.
            stage = 2 * int(match["down"][1]) - 5 if match["down"] else 2 * int(match["stage"]) - 4
            prefix = f"stages.{stage}.{match['block'] or 0}.{_PARTS[match['part']]}"
        key = f"{prefix}.{_NUMBERS[match['number']]}"
        state[key] = np.ones_like(array) if key == "embedding.norm.weight" else array
    return state
