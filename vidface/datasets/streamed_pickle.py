"""The items of a pickled dict of arrays, one after the other, without running the pickle.

A pickle is a program, and these are passed from hand to hand. Nothing of it is run here. Its
opcodes work on a stack of plain values; names are compared with the few that NumPy writes for
arrays, never looked up; what else it asks for is refused. The standard unpickler can't be used, not
even with `find_class` overridden: it gives the whole dict at its end (2.4 GB for iQIYI-VID), and
five bytes can make its memo ask for gigabytes.

Memory is bounded by an item, not by the file. An item leaves as soon as it is complete. The memo
then forgets its lists, tuples, arrays and long strings; what writers share between items stays:
short strings, numbers, dtypes and names. Nothing is allocated for a length that the file declares
before it is compared with what the file holds.

`inert_pickle` does the same for small files with pickletools, which is ten times as slow.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError

MAX_ITEM_BYTES = 2**28
"""The most that one item may take of the file; 200,000 faces of 512 float16."""

MAX_ITEM_CONTAINERS = 2**22
"""The most lists, tuples and marks that one item may make."""

MAX_DEPTH = 64
"""Open marks; a face's array has 5."""

MAX_KEPT_BYTES = 2**31
"""The memo's short values, 128 bytes and their length each: 16 million, 8 a face."""

SHORT = 256  # bytes of a string that later items may refer to

_CHUNK = 2**18  # bytes read at a time, not fewer than the look-ahead
_LOOKAHEAD = 16  # bytes that an opcode with its fixed argument takes at most
_LONGEST_LINE = 2**20  # bytes of an argument that ends with a newline: protocol 0 has all so
_ENTRY_BYTES = 128  # of the memo: key, value and their place

_CODES = {
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


_UNKNOWN = np.dtype(np.uint8)  # of an array whose data have not come


class PickledArray:
    """A NumPy array of plain numbers; `data` is None until the pickle has given it."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.dtype = _UNKNOWN
        self.shape: tuple[int, ...] = ()

    def fill(self, shape: Any, dtype: Any, data: Any) -> None:
        if type(dtype) is not _Dtype:
            raise _RefusedError("has an array that is not of plain numbers")
        if type(shape) is not tuple or len(shape) > 4:
            raise _RefusedError("has an array whose shape is not up to 4 whole numbers")
        size = dtype.plain.itemsize
        for length in shape:
            if type(length) is not int or length < 0:
                raise _RefusedError("has an array whose shape is not up to 4 whole numbers")
            size *= length
        if type(data) is not bytes or len(data) != size:
            raise _RefusedError(f"has an array of shape {shape} whose data are not {size} bytes")
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


def iter_items(path: Path) -> Iterator[tuple[str | bytes, Any]]:
    """The (key, value) pairs of the dict that a pickle holds, each as soon as it is complete.

    Reads what Python 2's pickle and cPickle write (protocols 0 to 2) and Python 3's (0 to 5), up to
    the pickle's end; what follows is ignored, as pickle.load does. Values are lists and tuples of
    bytes (a str of Python 2), text, int, float, bool, None and `PickledArray`; NumPy's scalars
    become int and float. A list may hold itself. Keys are not compared: one may come twice.

    Raises:
        VidfaceError: the file can't be read, ends early, is no pickle of a dict, asks for anything
            but arrays of plain numbers, or has an item beyond the bounds above.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise VidfaceError(f"{path}: not a regular file; unpack or copy it first")
            yield from _Machine(path, file, status.st_size).items()
    except OSError as error:
        raise VidfaceError(f"{path}: {error.strerror or error}") from None


class _RefusedError(Exception):
    """What the pickle does wrong; becomes a VidfaceError that says where."""


class _MoreError(Exception):
    """An opcode reaches beyond the buffer: read on, and do it again."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes  # from the opcode's own byte


class _StopError(Exception):
    """The pickle has ended."""


class _Name:
    """A name of NumPy's that the pickle refers to, and what a call of it would give."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[tuple[Any, ...]], Any]) -> None:
        self.call = call


class _Dtype:
    """A dtype; the same object in the memo once its byte order is known, as NumPy writes it."""

    __slots__ = ("code", "plain", "unpack")

    def __init__(self, code: str) -> None:
        self.code = code
        self.plain, self.unpack = _plain("<", code)

    def build(self, state: Any) -> None:
        match state:
            case (int(), str() | bytes() as order, None, None, None, int(), int(), int()):
                text = order if isinstance(order, str) else order.decode("latin-1")
                if text in ("<", ">", "|", "="):
                    self.plain, self.unpack = _plain("<" if text == "=" else text, self.code)
                    return
        raise _RefusedError("has a dtype that is not one of plain numbers")


class _Root:
    """The outermost dict: its items leave, so it holds nothing."""

    __slots__ = ()


@cache
def _plain(order: str, code: str) -> tuple[np.dtype[Any], Callable[[bytes], tuple[Any, ...]]]:
    order = "<" if order == "|" else order  # of one byte, or damaged: then NumPy's own reading
    return np.dtype(order + code), struct.Struct(order + _CODES[code]).unpack


def _call_dtype(arguments: tuple[Any, ...]) -> _Dtype:
    code = arguments[0] if arguments else None
    if isinstance(code, bytes):
        code = code.decode("latin-1")
    if not isinstance(code, str) or code not in _CODES or len(arguments) != 3:
        raise _RefusedError("has a dtype that is not one of plain numbers")
    return _Dtype(code)


def _call_reconstruct(arguments: tuple[Any, ...]) -> PickledArray:
    if len(arguments) != 3 or arguments[0] is not _NDARRAY:
        _refuse_call("_reconstruct")
    return PickledArray()


def _call_frombuffer(arguments: tuple[Any, ...]) -> PickledArray:
    if len(arguments) != 4:
        _refuse_call("_frombuffer")
    array = PickledArray()
    array.fill(arguments[2], arguments[1], arguments[0])
    return array


def _call_scalar(arguments: tuple[Any, ...]) -> int | float:
    dtype, data = arguments if len(arguments) == 2 else (None, None)
    if type(dtype) is not _Dtype or type(data) is not bytes:
        _refuse_call("scalar")
    return dtype.unpack(data)[0]  # refuses another length than its own


def _call_encode(arguments: tuple[Any, ...]) -> bytes:
    """Bytes, as Python 3 writes them below protocol 3."""
    text, encoding = arguments if len(arguments) == 2 else (None, None)
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        _refuse_call("_codecs encode")
    return text.encode("latin-1")


def _call_bytes(arguments: tuple[Any, ...]) -> bytes:
    if arguments:  # b"" alone is written so
        _refuse_call("bytes")
    return b""


def _call_ndarray(arguments: tuple[Any, ...]) -> NoReturn:
    _refuse_call("ndarray")


def _refuse_call(name: str) -> NoReturn:
    raise _RefusedError(f"calls {name} in another way than NumPy writes it")


_NDARRAY = _Name(_call_ndarray)
_NAMES = (
    {
        f"numpy.{core}.{name}": _Name(call)
        for core in ("core", "_core")  # before NumPy 2, and since
        for name, call in (
            ("multiarray _reconstruct", _call_reconstruct),
            ("multiarray scalar", _call_scalar),
            ("numeric _frombuffer", _call_frombuffer),
        )
    }
    | {"numpy ndarray": _NDARRAY, "numpy dtype": _Name(_call_dtype)}
    | {"_codecs encode": _Name(_call_encode)}
    | {f"{module} bytes": _Name(_call_bytes) for module in ("__builtin__", "builtins")}
)

_KEPT_TYPES = frozenset((int, float, _Name, _Dtype, _Root))

_ESCAPED = re.compile(rb"(?:[^\\]|\\(?:[\\'\"nrt]|x[0-9a-fA-F]{2}))*+")

_Handler = Callable[[bytes, int], int]
"""An opcode: the buffer, the place after the opcode → the place after its argument."""

_uint16 = struct.Struct("<H").unpack_from
_int32 = struct.Struct("<i").unpack_from
_uint32 = struct.Struct("<I").unpack_from
_uint64 = struct.Struct("<Q").unpack_from
_float64 = struct.Struct(">d").unpack_from


class _Machine:
    """The opcodes over a stack; a mark puts the stack aside and begins a new one.

    So no opcode can reach below the last mark. Opcodes read their whole argument before they change
    anything, since one that reaches beyond the buffer is done again.
    """

    def __init__(self, path: Path, file: BinaryIO, size_bytes: int) -> None:
        self.path = path
        self.file = file
        self.unread_bytes = size_bytes
        self.buffer = b""
        self.base = 0  # the buffer's place in the file
        self.item_start = 0  # in the file
        self.containers = 0  # made for the items that have not left
        self.n_items = 0
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.root: _Root | None = None
        self.ready: deque[tuple[str | bytes, Any]] = deque()
        self.memo: dict[int, Any] = {}
        self.n_stored = 0
        self.fresh: list[int] = []  # keys stored since items last left
        self.aging: list[int] = []  # and in the round before: the item in work may have some
        self.kept_bytes = 0
        self.last_dropped = -1

    def items(self) -> Iterator[tuple[str | bytes, Any]]:
        handlers, ready = self._handlers(), self.ready
        buffer, place, limit = b"", 0, 0
        while True:
            try:
                if place >= limit:
                    buffer, place, limit = self._read_on(buffer, place, 1)
                while place < limit:
                    place = handlers[buffer[place]](buffer, place + 1)
                    if ready:
                        break
            except _MoreError as more:
                try:
                    buffer, place, limit = self._read_on(buffer, place, more.n_bytes)
                except _RefusedError as error:
                    self._fail(str(error), place)
            except _StopError:
                return
            except _RefusedError as error:
                self._fail(str(error), place)
            except KeyError as error:  # of the memo
                self._fail(self._missing(error.args[0]), place)
            except (IndexError, ValueError, struct.error):
                cut = self.unread_bytes == 0 and len(buffer) - place < _LOOKAHEAD
                self._fail("ends too early" if cut else "is damaged", place)
            while ready:
                self.n_items += 1
                yield ready.popleft()

    def _fail(self, what: str, place: int) -> NoReturn:
        raise VidfaceError(
            f"{self.path}: {what} (at byte {self.base + place:,}, after {self.n_items:,} videos); "
            "is it the whole file, and a pickle of {video: faces}?"
        ) from None

    def _missing(self, key: Any) -> str:
        if isinstance(key, int) and 0 <= key <= self.last_dropped:
            return "refers to an object of an earlier video, which is not kept"
        return "refers to an object that it has not stored"

    def _read_on(self, buffer: bytes, place: int, n_bytes: int) -> tuple[bytes, int, int]:
        """A buffer with at least n_bytes from place on, the new place, and where to read on."""
        if self.base + place - self.item_start + n_bytes > MAX_ITEM_BYTES:
            raise _RefusedError(f"has a video of more than {MAX_ITEM_BYTES:,} bytes")
        if self.containers > MAX_ITEM_CONTAINERS:
            raise _RefusedError(f"has a video of more than {MAX_ITEM_CONTAINERS:,} lists")
        left = len(buffer) - place
        if n_bytes - left > self.unread_bytes:
            raise _RefusedError("ends too early")
        data = self.file.read(min(max(_CHUNK, n_bytes - left), self.unread_bytes))
        self.unread_bytes = self.unread_bytes - len(data) if data else 0
        self.base += place
        buffer = buffer[place:] + data
        if len(buffer) < n_bytes:  # the file has shrunk meanwhile
            raise _RefusedError("ends too early")
        lookahead = _LOOKAHEAD if self.unread_bytes else 0
        return buffer, 0, max(len(buffer) - lookahead, 1)

    def _leave(self, items: list[Any], place: int) -> None:
        """Complete items, key and value in turn, leave; the memo forgets what is large."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not bytes and type(key) is not str:
                raise _RefusedError("has a key that is no text")
            self.ready.append((key, value))
        self.item_start = self.base + place
        self.containers = 0
        memo = self.memo
        for key in self.aging:
            kept: Any = memo.get(key)
            kind = type(kept)
            if kind is bytes or kind is str:
                cost = _ENTRY_BYTES + len(kept)
                keep = len(kept) <= SHORT
            else:
                cost = _ENTRY_BYTES
                keep = kind in _KEPT_TYPES
            if keep and self.kept_bytes + cost <= MAX_KEPT_BYTES:
                self.kept_bytes += cost
            else:
                memo.pop(key, None)
                self.last_dropped = max(self.last_dropped, key)
        self.aging, self.fresh = self.fresh, []

    # Opcodes, in pickletools' names.

    def _handlers(self) -> list[_Handler]:
        handlers: list[_Handler] = [self._unknown] * 256
        for opcode, handler in {
            b"\x80": self._proto,
            b"\x95": self._frame,
            b".": self._stop,
            b"(": self._mark,
            b"N": self._none,
            b"\x88": self._newtrue,
            b"\x89": self._newfalse,
            b"I": self._int,
            b"L": self._long,
            b"J": self._binint,
            b"K": self._binint1,
            b"M": self._binint2,
            b"\x8a": self._long1,
            b"F": self._float,
            b"G": self._binfloat,
            b"S": self._string,
            b"T": self._binstring,
            b"U": self._short_binbytes,
            b"B": self._binbytes,
            b"C": self._short_binbytes,
            b"\x8e": self._binbytes8,
            b"\x96": self._binbytes8,
            b"V": self._unicode,
            b"X": self._binunicode,
            b"\x8c": self._short_binunicode,
            b"\x8d": self._binunicode8,
            b")": self._empty_tuple,
            b"t": self._tuple,
            b"\x85": self._tuple1,
            b"\x86": self._tuple2,
            b"\x87": self._tuple3,
            b"]": self._empty_list,
            b"l": self._list,
            b"a": self._append,
            b"e": self._appends,
            b"}": self._empty_dict,
            b"d": self._dict,
            b"s": self._setitem,
            b"u": self._setitems,
            b"p": self._put,
            b"q": self._binput,
            b"r": self._long_binput,
            b"\x94": self._memoize,
            b"g": self._get,
            b"h": self._binget,
            b"j": self._long_binget,
            b"c": self._global,
            b"\x93": self._stack_global,
            b"R": self._reduce,
            b"b": self._build,
        }.items():
            handlers[opcode[0]] = handler
        return handlers

    def _unknown(self, buffer: bytes, place: int) -> int:
        import pickletools

        names = {opcode.code: opcode.name for opcode in pickletools.opcodes}
        name = names.get(buffer[place - 1 : place].decode("latin-1"))
        if name is None:
            raise _RefusedError("is no pickle, or damaged")
        raise _RefusedError(f"asks for {name}, which plain arrays don't need")

    def _proto(self, buffer: bytes, place: int) -> int:
        if buffer[place] > 5:
            raise _RefusedError(f"is of pickle protocol {buffer[place]}; save it with 5 or lower")
        return place + 1

    def _frame(self, buffer: bytes, place: int) -> int:
        _uint64(buffer, place)  # a hint for buffering
        return place + 8

    def _stop(self, buffer: bytes, place: int) -> int:
        if self.root is None or self.stack != [self.root] or self.aside:
            raise _RefusedError("does not hold one dict alone")
        raise _StopError

    def _mark(self, buffer: bytes, place: int) -> int:
        aside, stack = self.aside, self.stack
        if len(aside) >= MAX_DEPTH:
            raise _RefusedError(f"is nested deeper than {MAX_DEPTH}")
        # Items come in batches of a thousand. What stands below the next key is complete.
        if len(aside) == 1 and len(stack) > 2 and aside[0] == [self.root]:
            n = 0
            while len(stack) > n + 2 and type(stack[n + 2]) in (bytes, str):
                n += 2
            if n:
                self._leave(stack[:n], place)
                del stack[:n]
        aside.append(stack)
        self.stack = []
        self.containers += 1
        return place

    def _none(self, buffer: bytes, place: int) -> int:
        self.stack.append(None)
        return place

    def _newtrue(self, buffer: bytes, place: int) -> int:
        self.stack.append(True)
        return place

    def _newfalse(self, buffer: bytes, place: int) -> int:
        self.stack.append(False)
        return place

    def _int(self, buffer: bytes, place: int) -> int:
        line, end = _line(buffer, place)
        flag = {b"00": False, b"01": True}.get(line)  # protocol 1 has no other booleans
        self.stack.append(_small(line) if flag is None else flag)
        return end

    def _long(self, buffer: bytes, place: int) -> int:
        line, end = _line(buffer, place)
        self.stack.append(_small(line.removesuffix(b"L")))
        return end

    def _binint(self, buffer: bytes, place: int) -> int:
        self.stack.append(_int32(buffer, place)[0])
        return place + 4

    def _binint1(self, buffer: bytes, place: int) -> int:
        self.stack.append(buffer[place])
        return place + 1

    def _binint2(self, buffer: bytes, place: int) -> int:
        self.stack.append(_uint16(buffer, place)[0])
        return place + 2

    def _long1(self, buffer: bytes, place: int) -> int:
        length = buffer[place]
        if length > 8:
            raise _RefusedError("has a whole number of more than 64 bits")
        end = place + 1 + length
        if end > len(buffer):
            raise _MoreError(2 + length)
        self.stack.append(int.from_bytes(buffer[place + 1 : end], "little", signed=True))
        return end

    def _float(self, buffer: bytes, place: int) -> int:
        line, end = _line(buffer, place)
        self.stack.append(float(line))
        return end

    def _binfloat(self, buffer: bytes, place: int) -> int:
        self.stack.append(_float64(buffer, place)[0])
        return place + 8

    def _string(self, buffer: bytes, place: int) -> int:
        line, end = _line(buffer, place)
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise _RefusedError("has a string without quotes")
        if not _ESCAPED.fullmatch(line):
            raise _RefusedError("has a string with other escapes than Python 2 writes")
        # Undocumented, but what the standard unpickler uses for them.
        self.stack.append(codecs.escape_decode(line[1:-1])[0])
        return end

    def _data(self, buffer: bytes, start: int, length: int, width: int) -> int:
        """Where a string ends whose length took `width` bytes."""
        end = start + length
        if end > len(buffer):
            raise _MoreError(1 + width + length)
        return end

    def _short_binbytes(self, buffer: bytes, place: int) -> int:
        start = place + 1
        end = start + buffer[place]
        if end > len(buffer):
            raise _MoreError(end - place + 1)
        self.stack.append(buffer[start:end])
        return end

    def _binstring(self, buffer: bytes, place: int) -> int:
        length = _int32(buffer, place)[0]
        if length < 0:
            raise _RefusedError("has a string of negative length")
        end = self._data(buffer, place + 4, length, 4)
        self.stack.append(buffer[place + 4 : end])
        return end

    def _binbytes(self, buffer: bytes, place: int) -> int:
        end = self._data(buffer, place + 4, _uint32(buffer, place)[0], 4)
        self.stack.append(buffer[place + 4 : end])
        return end

    def _binbytes8(self, buffer: bytes, place: int) -> int:
        end = self._data(buffer, place + 8, _uint64(buffer, place)[0], 8)
        self.stack.append(buffer[place + 8 : end])
        return end

    def _unicode(self, buffer: bytes, place: int) -> int:
        line, end = _line(buffer, place)
        self.stack.append(line.decode("raw-unicode-escape"))
        return end

    def _short_binunicode(self, buffer: bytes, place: int) -> int:
        end = self._data(buffer, place + 1, buffer[place], 1)
        self.stack.append(buffer[place + 1 : end].decode("utf-8"))
        return end

    def _binunicode(self, buffer: bytes, place: int) -> int:
        end = self._data(buffer, place + 4, _uint32(buffer, place)[0], 4)
        self.stack.append(buffer[place + 4 : end].decode("utf-8"))
        return end

    def _binunicode8(self, buffer: bytes, place: int) -> int:
        end = self._data(buffer, place + 8, _uint64(buffer, place)[0], 8)
        self.stack.append(buffer[place + 8 : end].decode("utf-8"))
        return end

    def _empty_tuple(self, buffer: bytes, place: int) -> int:
        self.stack.append(())
        return place

    def _tuple(self, buffer: bytes, place: int) -> int:
        items, self.stack = self.stack, self.aside.pop()
        self.stack.append(tuple(items))
        self.containers += 1
        return place

    def _tuple1(self, buffer: bytes, place: int) -> int:
        stack = self.stack
        stack[-1] = (stack[-1],)
        self.containers += 1
        return place

    def _tuple2(self, buffer: bytes, place: int) -> int:
        stack = self.stack
        last = stack.pop()
        stack[-1] = (stack[-1], last)
        self.containers += 1
        return place

    def _tuple3(self, buffer: bytes, place: int) -> int:
        stack = self.stack
        last, middle = stack.pop(), stack.pop()
        stack[-1] = (stack[-1], middle, last)
        self.containers += 1
        return place

    def _empty_list(self, buffer: bytes, place: int) -> int:
        self.stack.append([])
        self.containers += 1
        return place

    def _list(self, buffer: bytes, place: int) -> int:
        items, self.stack = self.stack, self.aside.pop()
        self.stack.append(items)
        self.containers += 1
        return place

    def _append(self, buffer: bytes, place: int) -> int:
        item = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not list:
            raise _RefusedError("appends to something that is no list")
        target.append(item)
        return place

    def _appends(self, buffer: bytes, place: int) -> int:
        items, self.stack = self.stack, self.aside.pop()
        target = self.stack[-1]
        if type(target) is not list:
            raise _RefusedError("appends to something that is no list")
        target += items
        return place

    def _begin(self) -> None:
        if self.stack or self.aside:
            raise _RefusedError("has a dict within its value")
        self.root = _Root()
        self.stack.append(self.root)

    def _empty_dict(self, buffer: bytes, place: int) -> int:
        self._begin()
        return place

    def _dict(self, buffer: bytes, place: int) -> int:
        items, self.stack = self.stack, self.aside.pop()
        self._begin()
        self._set(items, place)
        return place

    def _setitem(self, buffer: bytes, place: int) -> int:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value], place)
        return place

    def _setitems(self, buffer: bytes, place: int) -> int:
        items, self.stack = self.stack, self.aside.pop()
        self._set(items, place)
        return place

    def _set(self, items: list[Any], place: int) -> None:
        if type(self.stack[-1]) is not _Root or len(self.stack) != 1 or self.aside:
            raise _RefusedError("sets items of something that is not its outermost dict")
        if len(items) % 2:
            raise _RefusedError("has a key without a value")
        self._leave(items, place)

    def _store(self, key: int) -> None:
        self.memo[key] = self.stack[-1]
        self.fresh.append(key)
        self.n_stored += 1

    def _put(self, buffer: bytes, place: int) -> int:
        line, end = _line(buffer, place)
        self._store(_small(line))
        return end

    def _binput(self, buffer: bytes, place: int) -> int:
        key = buffer[place]
        self.memo[key] = self.stack[-1]  # as _store, without a further call
        self.fresh.append(key)
        self.n_stored += 1
        return place + 1

    def _long_binput(self, buffer: bytes, place: int) -> int:
        key = _uint32(buffer, place)[0]
        self.memo[key] = self.stack[-1]
        self.fresh.append(key)
        self.n_stored += 1
        return place + 4

    def _memoize(self, buffer: bytes, place: int) -> int:
        self._store(self.n_stored)
        return place

    def _get(self, buffer: bytes, place: int) -> int:
        line, end = _line(buffer, place)
        self.stack.append(self.memo[_small(line)])
        return end

    def _binget(self, buffer: bytes, place: int) -> int:
        self.stack.append(self.memo[buffer[place]])
        return place + 1

    def _long_binget(self, buffer: bytes, place: int) -> int:
        self.stack.append(self.memo[_uint32(buffer, place)[0]])
        return place + 4

    def _global(self, buffer: bytes, place: int) -> int:
        module, end = _line(buffer, place)
        name, end = _line(buffer, end, behind=end - place)
        self.stack.append(_named(module.decode("utf-8"), name.decode("utf-8")))
        return end

    def _stack_global(self, buffer: bytes, place: int) -> int:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise _RefusedError("has a name that is no text")
        self.stack.append(_named(module, name))
        return place

    def _reduce(self, buffer: bytes, place: int) -> int:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if type(function) is not _Name or type(arguments) is not tuple:
            raise _RefusedError("calls something that makes no array")
        self.stack[-1] = function.call(arguments)
        return place

    def _build(self, buffer: bytes, place: int) -> int:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is PickledArray and type(state) is tuple and len(state) == 5:
            target.fill(state[1], state[2], state[4])  # version, shape, dtype, Fortran, data
        elif type(target) is _Dtype:
            target.build(state)
        else:
            raise _RefusedError("builds something that is no array")
        return place


def _line(buffer: bytes, place: int, behind: int = 0) -> tuple[bytes, int]:
    """A text argument and the place after its newline; behind: bytes of the argument before it."""
    end = buffer.find(b"\n", place, place + _LONGEST_LINE)
    if end < 0:
        if len(buffer) - place >= _LONGEST_LINE:
            raise _RefusedError(f"has a line of more than {_LONGEST_LINE:,} bytes")
        raise _MoreError(len(buffer) - place + behind + 2)
    return buffer[place:end], end + 1


def _small(text: bytes) -> int:
    """A whole number of up to 64 bits."""
    if len(text) > 20:
        raise _RefusedError("has a whole number of more than 64 bits")
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise _RefusedError("has a whole number of more than 64 bits")
    return value


def _named(module: str, name: str) -> _Name:
    text = f"{module} {name}"
    if text not in _NAMES:
        shown = f"{module}.{name}"[:80]
        raise _RefusedError(f"asks for {shown!a}, which plain arrays don't need")
    return _NAMES[text]
