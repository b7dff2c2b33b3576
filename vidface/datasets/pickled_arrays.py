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

_STRUCT_CODES = dict(
    zip(
        ["b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"],
        "?efdbhiqBHIQ",
        strict=True,
    )
)
"""NumPy's plain types by the letters of `struct`."""


_NOT_PLAIN = "has a dtype that is not one of plain numbers"


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
        raise RefusedError(_NOT_PLAIN)


@cache
def _plain_type(order: str, code: str) -> tuple[np.dtype[Any], Callable[[bytes], tuple[Any, ...]]]:
    order = "<" if order == "|" else order  # of one byte, or damaged: then NumPy's own reading
    return np.dtype(order + code), struct.Struct(order + _STRUCT_CODES[code]).unpack


class PickledName:
    """A name that a pickle refers to, and what a call of it gives."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self.make = name, make

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """What the call stands for; TypeError is what NumPy would not have written."""
        try:
            return self.make(*arguments)
        except TypeError:
            raise RefusedError(f"calls {self.name} in another way than NumPy writes it") from None


def _make_dtype(code: Any, align: Any, copy: Any) -> PickledDtype:
    if isinstance(code, bytes):
        code = code.decode("latin-1")
    if not isinstance(code, str) or code not in _STRUCT_CODES:
        raise RefusedError(_NOT_PLAIN)
    return PickledDtype(code)


def _make_empty_array(kind: Any, shape: Any, code: Any) -> PickledArray:
    if kind is not _NDARRAY:
        raise TypeError
    return PickledArray()


def _make_array(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    array = PickledArray()
    array.fill(shape, dtype, data)
    return array


def _make_number(dtype: Any, data: Any) -> int | float:
    if type(dtype) is not PickledDtype or type(data) is not bytes:
        raise TypeError
    return dtype.unpack(data)[0]  # refuses another length than its own


def _make_bytes(text: Any, encoding: Any) -> bytes:
    """Bytes, as Python 3 writes them below protocol 3."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise TypeError
    return text.encode("latin-1")


def _make_bytearray(data: Any = b"", encoding: Any = None) -> bytes:
    """A bytearray as bytes: of bytes, or of text with its encoding; never of a length."""
    if type(data) is bytes and encoding is None:
        return data
    return _make_bytes(data, encoding)


def _make_nothing() -> NoReturn:
    raise TypeError


_NDARRAY = PickledName("ndarray", _make_nothing)
NAMES = {
    (module, name): PickledName(name, make)
    for modules, name, make in (
        (("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", _make_empty_array),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "scalar", _make_number),
        (("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer", _make_array),
        (("numpy",), "dtype", _make_dtype),
        (("_codecs",), "encode", _make_bytes),
        (("__builtin__", "builtins"), "bytes", lambda: b""),  # empty bytes alone are written so
        (("__builtin__", "builtins"), "bytearray", _make_bytearray),
    )
    for module in modules  # NumPy's before version 2, and since; Python 2's and 3's
} | {("numpy", "ndarray"): _NDARRAY}
"""All that a pickle may name, by module and name."""
