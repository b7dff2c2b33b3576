"""NumPy's arrays in a pickle: the few names that they call for, and what the calls stand for.

Nothing here is NumPy's own: a pickle that names `numpy.dtype` gets a `PickledDtype`, and so on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

_STRUCT_CODES = {
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
}
"""NumPy's plain types by the letters of `struct`."""


class RefusedError(ValueError):
    """What a pickle does wrong."""


class PickledArray:
    """A NumPy array of plain numbers; `data` is None until the pickle has given it."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.dtype = np.dtype(np.uint8)
        self.shape: tuple[int, ...] = ()

    def fill(self, shape: Any, dtype: Any, data: Any) -> None:
        """Take what a pickle says the array is, checked."""
        if type(dtype) is not PickledDtype:
            raise RefusedError("has an array that is not of plain numbers")
        if type(shape) is not tuple or len(shape) > 4:
            raise RefusedError("has an array whose shape is not up to 4 whole numbers")
        n_bytes = dtype.plain.itemsize
        for length in shape:
            if type(length) is not int or length < 0:
                raise RefusedError("has an array whose shape is not up to 4 whole numbers")
            n_bytes *= length
        if type(data) is not bytes or len(data) != n_bytes:
            raise RefusedError(f"has an array of shape {shape} whose data are not {n_bytes} bytes")
        self.shape, self.dtype, self.data = shape, dtype.plain, data

    def numbers(self) -> NDArray[Any]:
        """The array's values in one row, in the file's byte order; read-only.

        Raises:
            ValueError: no data, or a table: rows and columns.
        """
        if self.data is None:
            raise ValueError("an array without data")
        values = np.frombuffer(self.data, dtype=self.dtype)
        if max(self.shape, default=1) != len(values) and len(values):
            raise ValueError(f"an array of shape {self.shape}, not one row")
        return values


class PickledDtype:
    """A dtype; the same object in the memo once its byte order is known, as NumPy writes it."""

    __slots__ = ("code", "plain", "unpack")

    def __init__(self, code: str) -> None:
        self.code = code
        self.plain, self.unpack = _plain_type("<", code)

    def build(self, state: Any) -> None:
        match state:
            case (int(), str() | bytes() as order, None, None, None, int(), int(), int()):
                text = order if isinstance(order, str) else order.decode("latin-1")
                if text in ("<", ">", "|", "="):
                    self.plain, self.unpack = _plain_type("<" if text == "=" else text, self.code)
                    return
        raise RefusedError("has a dtype that is not one of plain numbers")


@cache
def _plain_type(order: str, code: str) -> tuple[np.dtype[Any], Callable[[bytes], tuple[Any, ...]]]:
    order = "<" if order == "|" else order  # of one byte, or damaged: then NumPy's own reading
    return np.dtype(order + code), struct.Struct(order + _STRUCT_CODES[code]).unpack


class PickledName:
    """A name that a pickle refers to; `call` gives what a call of it would, or None."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[tuple[Any, ...]], Any]) -> None:
        self.call = call


def _make_dtype(arguments: tuple[Any, ...]) -> PickledDtype:
    code = arguments[0] if arguments else None
    if isinstance(code, bytes):
        code = code.decode("latin-1")
    if not isinstance(code, str) or code not in _STRUCT_CODES or len(arguments) != 3:
        raise RefusedError("has a dtype that is not one of plain numbers")
    return PickledDtype(code)


def _make_empty_array(arguments: tuple[Any, ...]) -> PickledArray:
    if len(arguments) != 3 or arguments[0] is not _NDARRAY:
        _refuse_call("_reconstruct")
    return PickledArray()


def _make_array(arguments: tuple[Any, ...]) -> PickledArray:
    if len(arguments) != 4:
        _refuse_call("_frombuffer")
    array = PickledArray()
    array.fill(arguments[2], arguments[1], arguments[0])
    return array


def _make_number(arguments: tuple[Any, ...]) -> int | float:
    dtype, data = arguments if len(arguments) == 2 else (None, None)
    if type(dtype) is not PickledDtype or type(data) is not bytes:
        _refuse_call("scalar")
    return dtype.unpack(data)[0]  # refuses another length than its own


def _make_bytes(arguments: tuple[Any, ...]) -> bytes:
    """Bytes, as Python 3 writes them below protocol 3."""
    text, encoding = arguments if len(arguments) == 2 else (None, None)
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        _refuse_call("_codecs encode")
    return text.encode("latin-1")


def _make_empty_bytes(arguments: tuple[Any, ...]) -> bytes:
    if arguments:  # b"" alone is written so
        _refuse_call("bytes")
    return b""


def _make_nothing(arguments: tuple[Any, ...]) -> NoReturn:
    _refuse_call("ndarray")


def _refuse_call(name: str) -> NoReturn:
    raise RefusedError(f"calls {name} in another way than NumPy writes it")


_NDARRAY = PickledName(_make_nothing)
NAMES = (
    {
        (f"numpy.{core}.{module}", name): PickledName(call)
        for core in ("core", "_core")  # before NumPy 2, and since
        for module, name, call in (
            ("multiarray", "_reconstruct", _make_empty_array),
            ("multiarray", "scalar", _make_number),
            ("numeric", "_frombuffer", _make_array),
        )
    }
    | {("numpy", "ndarray"): _NDARRAY, ("numpy", "dtype"): PickledName(_make_dtype)}
    | {("_codecs", "encode"): PickledName(_make_bytes)}
    | {(module, "bytes"): PickledName(_make_empty_bytes) for module in ("__builtin__", "builtins")}
)
