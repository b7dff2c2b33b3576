"""The values of a pickle of pictures, without running it.

A pickle is a program, and these are passed from hand to hand. Nothing of it is run here, nor given
to `pickle`, whose memo alone can be made to ask for gigabytes: its opcodes, as `pickletools` lists
them, work on a small stack of plain values, and any that a verification set doesn't need is
refused.

InsightFace's lfw.bin holds its pictures as byte strings; cfp_fp.bin and agedb_30.bin were made with
cv2.imencode and hold them as NumPy arrays of bytes. So the four names that such arrays call for are
known, as mere names: what calls them is matched against the forms that NumPy writes.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, BinaryIO, NoReturn

MAX_OPCODES = 2**22  # 14,000 pictures take 400,000; bounds the work and the memory of the stack
_LONGEST_LINE = 256  # bytes of an argument that ends with a newline: a name, a small number


def read_pickle(file: BinaryIO) -> Any:
    """The value of a pickle: bytes, text, numbers, None, and tuples and lists of them.

    Lists hold bytes, booleans and `ByteArray`s alone. Reads up to the end of the pickle; memory
    grows with what the file holds, not with what it declares.

    Raises:
        ValueError: no pickle, damaged, or one that asks for anything else.
    """
    return _Machine().run(_Bounded(file))


@dataclass
class ByteArray:
    """A NumPy array of bytes, of whatever shape; None until the pickle has given its data."""

    data: bytes | None = None


class _Bounded:
    """A file that makes room for no more than it holds, whatever length it declares itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, n: int) -> bytes:
        return self._file.read(min(n, self._size))

    def readline(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        if len(line) == _LONGEST_LINE and line[-1:] != b"\n":
            raise ValueError(
                "holds text where bytes are due (protocol 0?); save it with protocol 3"
            )
        return line


class _Name(Enum):
    """What a picture that is a NumPy array refers to; never looked up."""

    RECONSTRUCT = "multiarray _reconstruct"
    FROMBUFFER = "numeric _frombuffer"
    NDARRAY = "ndarray"
    DTYPE = "dtype"
    UINT8 = "uint8"  # not a name in the file: what dtype('u1', …) stands for


_NAMES = {
    f"{module}{name.value}": name
    for name in (_Name.RECONSTRUCT, _Name.FROMBUFFER)
    for module in ("numpy.core.", "numpy._core.")  # before NumPy 2, and since
} | {f"numpy {name.value}": name for name in (_Name.NDARRAY, _Name.DTYPE)}


_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The opcodes of a verification set over a stack of bytes, text, numbers, tuples and lists."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        operations: Iterator[Any] = pickletools.genops(file)  # type: ignore[arg-type]
        try:
            for count, (opcode, argument, _) in enumerate(operations):
                if count == MAX_OPCODES:
                    raise ValueError(f"has more than {MAX_OPCODES:,} opcodes")
                self._step(opcode.name, argument)
        except UnicodeDecodeError as error:  # while pickletools reads an argument
            raise ValueError(f"holds text where bytes are due ({error.reason})") from None
        if len(self.stack) != 1 or self.marks:
            raise ValueError("ends with values left over")
        return self.stack.pop()

    def _step(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                return
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                value: Any = argument
            case "BINSTRING" | "SHORT_BINSTRING":
                value = argument.encode("latin-1")  # a str of Python 2; pickletools decodes it so
            case "BYTEARRAY8":
                value = bytes(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                value = argument
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                value = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode]
            case "INT" if isinstance(argument, bool):  # protocol 1 has no other booleans
                value = argument
            case "EMPTY_LIST":
                value = []
            case "LIST" | "TUPLE":
                items = self._pop_mark()
                value = _checked(items) if opcode == "LIST" else tuple(items)
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                value = tuple([self._pop() for _ in range(_TUPLE_SIZES[opcode])][::-1])
            case "GLOBAL":
                value = _name(argument)
            case "STACK_GLOBAL":
                name, module = self._pop(), self._pop()
                if not (isinstance(name, str) and isinstance(module, str)):
                    _refuse(opcode, None)
                value = _name(f"{module} {name}")
            case "REDUCE":
                arguments, function = self._pop(), self._pop()
                value = _reduced(function, arguments)
            case "BUILD":
                state = self._pop()
                _build(self._top(), state)
                return
            case "APPEND" | "APPENDS":
                items = [self._pop()] if opcode == "APPEND" else self._pop_mark()
                target = self._top()
                if not isinstance(target, list):
                    raise ValueError(f"asks for {opcode} to something that is no list")
                target += _checked(items)
                return
            case "MARK":
                self.marks.append(len(self.stack))
                return
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self._top()
                return
            case "MEMOIZE":
                self.memo[len(self.memo)] = self._top()
                return
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError(f"asks for {opcode} of what it has not stored")
                value = self.memo[argument]
            case _:
                _refuse(opcode, argument)
        self.stack.append(value)

    def _top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("asks for a value where there is none")
        return self.stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self.stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("asks for a mark where there is none")
        height = self.marks.pop()
        items = self.stack[height:]
        del self.stack[height:]
        return items


def _checked(items: list[Any]) -> list[Any]:
    """Items for a list; a list never holds a list, so that none can hold itself."""
    for item in items:
        if not isinstance(item, bytes | bool | ByteArray):
            raise ValueError(f"has a list that holds a {type(item).__name__}")
    return items


def _name(text: str) -> _Name:
    if text == "_codecs encode":
        raise ValueError(
            "asks for _codecs encode, as Python 3 writes bytes below protocol 3; save it with that"
        )
    if text not in _NAMES:
        _refuse("GLOBAL", text)
    return _NAMES[text]


def _reduced(function: Any, arguments: Any) -> Any:
    """What a call would give, of the calls that arrays of bytes are written as."""
    match function, arguments:
        case _Name.DTYPE, ("u1" | b"u1", *_):
            return _Name.UINT8
        case _Name.RECONSTRUCT, (_Name.NDARRAY, *_):
            return ByteArray()
        case _Name.FROMBUFFER, (bytes() as data, _Name.UINT8, *_):
            return data
    raise ValueError("asks for REDUCE to something that is no array of bytes")


def _build(target: Any, state: Any) -> None:
    match target, state:
        case _Name.UINT8, tuple():  # byte order and the like, which a byte hasn't
            pass
        case ByteArray(), (_, _, _Name.UINT8, _, bytes() as data):  # version, shape, dtype, Fortran
            target.data = data
        case _:
            raise ValueError("asks for BUILD of something that is no array of bytes")


def _refuse(opcode: str, argument: Any) -> NoReturn:
    shown = argument[:80] if isinstance(argument, str) else ""
    raise ValueError(f"asks for {opcode} {shown if shown.isprintable() else repr(shown)}".rstrip())
