"""Pickles of plain values and of arrays of plain numbers, read by an unpickler that can't call.

A pickle is a program, and these are passed from hand to hand. The standard library's unpickler, in
its Python form, is given the opcodes that such files have, a closed set of names that stand for
calls and are never looked up, and bounds. The C form can't be used: five bytes can make its memo
ask for gigabytes, and it gives a whole dict at its end (2.4 GB for iQIYI-VID).

Memory is bounded by an item, not by the file. An item leaves as soon as it is complete. The memo
then forgets its lists, tuples, arrays and long strings; what writers share between items stays:
short strings, numbers, dtypes and names. Nothing is allocated for a length that the file declares
before it is compared with what the file holds.
"""

from __future__ import annotations

import codecs
import os
import pickle
import pickletools
import re
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.datasets.pickled_arrays import (
    NAMES,
    PickledArray,
    PickledDtype,
    PickledName,
    RefusedError,
)

MAX_ITEM_BYTES = 2**28
"""The most that one item may take of the file; 200,000 faces of 512 float16."""

MAX_ITEM_CONTAINERS = 2**22
"""The most lists, tuples and marks that one item may make."""

MAX_ITEM_OPCODES = 2**24
"""The most opcodes of one item; a face has some 40."""

MAX_VALUE_OPCODES = 2**22
"""The most opcodes of a file that is one value; 14,000 pictures take 400,000."""

MAX_DEPTH = 64
"""Open marks; a face's array has 5."""

MAX_KEPT_BYTES = 2**31
"""The memo's short values, 128 bytes and their length each: 16 million, 8 a face."""

SHORT = 256  # bytes of a string that later items may refer to

_STEP = 256  # opcodes between two looks at the bounds
_SMALL_READ = 2**12  # bytes that are read without asking whether the file has them
_LONGEST_LINE = 2**20  # bytes of an argument that ends with a newline: protocol 0 has all so
_ENTRY_BYTES = 128  # of the memo: key, value and their place

_ESCAPED = re.compile(rb"(?:[^\\]|\\(?:[\\'\"nrt]|x[0-9a-fA-F]{2}))*+")


def read_value(file: BinaryIO) -> Any:
    """The one value of a pickle: plain values, lists and tuples of them, `PickledArray`s.

    Plain values are bytes (a str of Python 2 and bytearrays among them), text, int, float, bool and
    None; NumPy's scalars become int, float and bool. A list may hold itself. Reads up to the
    pickle's end; memory grows with what the file holds, not with what it declares.

    Raises:
        RefusedError: no pickle, damaged, or one that asks for anything else.
    """
    return _Unpickler(file).value()


def iter_items(path: Path) -> Iterator[tuple[str | bytes, Any]]:
    """The (key, value) pairs of the dict that a pickle holds, each as soon as it is complete.

    Reads what Python 2's pickle and cPickle write (protocols 0 to 2) and Python 3's (0 to 5), up to
    the pickle's end; what follows is ignored, as pickle.load does. Values are those of
    `read_value`. Keys are not compared: one may come twice.

    Raises:
        VidfaceError: the file can't be read, ends early, is no pickle of a dict, asks for anything
            but arrays of plain numbers, or has an item beyond the bounds above.
    """
    with named_errors(path), path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise VidfaceError(f"{path}: not a regular file; unpack or copy it first")
        yield from _ItemUnpickler(file).items(path)


class _StopError(Exception):
    """The pickle has ended."""


_Handler = Callable[[Any], None]
_STANDARD: Any = pickle._Unpickler


def _counted(load: _Handler) -> _Handler:
    """An opcode that makes a container."""

    def load_counted(unpickler: _Unpickler) -> None:
        unpickler.n_containers += 1
        load(unpickler)

    return load_counted


def _bounded_integer(load: _Handler) -> _Handler:
    """An opcode that makes a whole number of any length, refused beyond 64 bits."""

    def load_bounded(unpickler: _Unpickler) -> None:
        load(unpickler)
        if not -(2**63) <= unpickler.stack[-1] < 2**63:
            raise RefusedError("has a whole number of more than 64 bits")

    return load_bounded


class _Unpickler(_STANDARD):
    """The standard unpickler with a closed set of opcodes and names, and bounds.

    A mark puts the stack aside and begins a new one, so that no opcode can reach below it.
    """

    opcodes = (
        b"\x80\x95.(N\x88\x89ILJKM\x8aFGSTUBC\x8e\x96VX\x8c\x8d)t\x85\x86\x87]laepqr\x94ghjc\x93Rb"
    )

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, fix_imports=False, encoding="bytes")
        self.file = file
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.max_opcodes, self.max_bytes = MAX_VALUE_OPCODES, self.size_bytes
        self.handlers: dict[bytes, _Handler] = {
            bytes([code]): getattr(type(self), handler.__name__)
            for code, handler in _STANDARD.dispatch.items()
            if code in self.opcodes
        }
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.append = self.stack.append
        self.memo: Mapping[int, Any] = {}
        self.n_opcodes = 0  # of the items that have not left
        self.n_containers = 0
        self.item_start = 0  # in the file

    def value(self) -> Any:
        """Run to the end."""
        while True:
            try:
                self.step()
            except _StopError:
                return self.stack.pop()

    def step(self) -> None:
        """Run some opcodes; raises _StopError at the pickle's end, or RefusedError."""
        handlers, read = self.handlers, self.file.read
        opcode = b""
        try:
            for _ in range(_STEP):
                opcode = read(1)
                handlers[opcode](self)
        except KeyError:
            _refuse_opcode(opcode)
        except RefusedError:
            raise
        except pickle.UnpicklingError as error:
            raise RefusedError(f"is damaged ({error})") from None
        except (IndexError, ValueError, TypeError, AttributeError, struct.error):
            raise RefusedError("is damaged") from None
        self.n_opcodes += _STEP
        self._check_bytes(0)
        if self.n_opcodes > self.max_opcodes:
            raise RefusedError(f"has an item of more than {self.max_opcodes:,} opcodes")
        if self.n_containers > MAX_ITEM_CONTAINERS:
            raise RefusedError(f"has an item of more than {MAX_ITEM_CONTAINERS:,} lists")

    def read(self, n_bytes: int) -> bytes:
        """That many bytes; makes no room for more than the file holds."""
        if n_bytes > _SMALL_READ:
            self._check_bytes(n_bytes)
            if n_bytes > self.size_bytes - self.file.tell():
                raise RefusedError("ends too early")
        data = self.file.read(n_bytes)
        if len(data) != n_bytes:
            raise RefusedError("ends too early")
        return data

    def readline(self) -> bytes:
        line = self.file.readline(_LONGEST_LINE)
        if line[-1:] != b"\n":
            if len(line) == _LONGEST_LINE:
                raise RefusedError(f"has a line of more than {_LONGEST_LINE:,} bytes")
            raise RefusedError("ends too early")
        return line

    def _check_bytes(self, n_more: int) -> None:
        if self.file.tell() - self.item_start + n_more > self.max_bytes:
            raise RefusedError(f"has an item of more than {self.max_bytes:,} bytes")

    def find_class(self, module: str, name: str) -> PickledName:
        if (module, name) not in NAMES:
            shown = f"{module}.{name}"[:80]
            raise RefusedError(f"asks for {shown!a}, which plain arrays don't need")
        return NAMES[module, name]

    def load_proto(self) -> None:
        protocol = self.read(1)[0]
        if protocol > 5:
            raise RefusedError(f"is of pickle protocol {protocol}; save it with 5 or lower")

    def load_frame(self) -> None:
        self.read(8)  # a hint for buffering

    def load_stop(self) -> None:
        if len(self.stack) != 1 or self.metastack:
            raise RefusedError("ends with values left over")
        raise _StopError

    def load_mark(self) -> None:
        if len(self.metastack) >= MAX_DEPTH:
            raise RefusedError(f"is nested deeper than {MAX_DEPTH}")
        self.n_containers += 1
        super().load_mark()

    def load_string(self) -> None:
        line = self.readline()[:-1]
        if not _ESCAPED.fullmatch(line):
            raise RefusedError("has a string with other escapes than Python 2 writes")
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise RefusedError("has a string without quotes")
        # Undocumented, but what the standard unpickler uses for them.
        self.append(codecs.escape_decode(line[1:-1])[0])

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if type(function) is not PickledName or type(arguments) is not tuple:
            raise RefusedError("calls something that makes no array")
        self.stack[-1] = function.call(arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is PickledArray and type(state) is tuple and len(state) == 5:
            target.fill(state[1], state[2], state[4])  # version, shape, dtype, Fortran, data
        elif type(target) is PickledDtype:
            target.build(state)
        else:
            raise RefusedError("builds something that is no array")

    load_bytearray8 = _STANDARD.load_binbytes8
    load_int = _bounded_integer(_STANDARD.load_int)
    load_long = _bounded_integer(_STANDARD.load_long)
    load_long1 = _bounded_integer(_STANDARD.load_long1)
    load_empty_list = _counted(_STANDARD.load_empty_list)
    load_list = _counted(_STANDARD.load_list)
    load_tuple = _counted(_STANDARD.load_tuple)
    load_tuple1 = _counted(_STANDARD.load_tuple1)
    load_tuple2 = _counted(_STANDARD.load_tuple2)
    load_tuple3 = _counted(_STANDARD.load_tuple3)


class _Root:
    """The outermost dict: its items leave, so it holds nothing."""

    __slots__ = ()


class _Memo(dict[int, Any]):
    """What was stored since items last left; what is older is looked up in the memo before."""

    def __init__(self, n_older: int, find_older: Callable[[int], Any]) -> None:
        super().__init__()
        self.n_older, self.find_older = n_older, find_older

    def __missing__(self, key: int) -> Any:
        return self.find_older(key)

    def __len__(self) -> int:  # MEMOIZE's next key
        return self.n_older + super().__len__()


_KEPT_TYPES = frozenset((int, float, PickledName, PickledDtype, _Root))


class _ItemUnpickler(_Unpickler):
    """Gives the items of the outermost dict away while it reads."""

    opcodes = _Unpickler.opcodes + b"}dsu"

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.max_opcodes, self.max_bytes = MAX_ITEM_OPCODES, MAX_ITEM_BYTES
        self.root: _Root | None = None
        self.ready: deque[tuple[str | bytes, Any]] = deque()
        self.memo: _Memo = _Memo(0, self._find_older)
        self.aging: dict[int, Any] = {}  # stored in the round before: the item in work may use it
        self.kept: dict[int, Any] = {}
        self.kept_bytes = 0
        self.last_dropped = -1

    def items(self, path: Path) -> Iterator[tuple[str | bytes, Any]]:
        n_items, more = 0, True
        problem: RefusedError | None = None
        while more:
            try:
                self.step()
            except _StopError:
                more = False
            except RefusedError as error:
                problem, more = error, False
            while self.ready:
                n_items += 1
                yield self.ready.popleft()
        if problem:
            raise VidfaceError(
                f"{path}: {problem} (at byte {self.file.tell():,}, after {n_items:,} videos); "
                "is it the whole file, and a pickle of {video: faces}?"
            ) from problem

    def load_mark(self) -> None:
        stack = self.stack
        # Items come in batches of a thousand. What stands below the next key is complete.
        if len(self.metastack) == 1 and len(stack) > 2 and self.metastack[0] == [self.root]:
            n = 0
            while len(stack) > n + 2 and type(stack[n + 2]) in (bytes, str):
                n += 2
            if n:
                self._give_away(stack[:n])
                del stack[:n]
        super().load_mark()

    def load_stop(self) -> None:
        if self.root is None or self.stack != [self.root] or self.metastack:
            raise RefusedError("does not hold one dict alone")
        raise _StopError

    def load_empty_dictionary(self) -> None:
        if self.stack or self.metastack:
            raise RefusedError("has a dict within its value")
        self.root = _Root()
        self.append(self.root)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.load_empty_dictionary()
        self._set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not _Root or len(self.stack) != 1 or self.metastack:
            raise RefusedError("sets items of something that is not its outermost dict")
        if len(items) % 2:
            raise RefusedError("has a key without a value")
        self._give_away(items)

    def _give_away(self, items: list[Any]) -> None:
        """Complete items, key and value in turn, leave; the memo forgets what is large."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not bytes and type(key) is not str:
                raise RefusedError("has a key that is no text")
            self.ready.append((key, value))
        self.item_start = self.file.tell()
        self.n_opcodes = self.n_containers = 0
        kept = self.kept
        for key, value in self.aging.items():
            cost = _ENTRY_BYTES
            if type(value) is bytes or type(value) is str:
                cost += len(value)
                keep = len(value) <= SHORT
            else:
                keep = type(value) in _KEPT_TYPES
            if keep and self.kept_bytes + cost <= MAX_KEPT_BYTES:
                self.kept_bytes += cost
                kept[key] = value
            else:
                kept.pop(key, None)
                self.last_dropped = max(self.last_dropped, key)
        self.aging, self.memo = self.memo, _Memo(len(self.memo), self._find_older)

    def _find_older(self, key: int) -> Any:
        if dict.__contains__(self.aging, key):
            return self.aging[key]
        if key in self.kept:
            return self.kept[key]
        if 0 <= key <= self.last_dropped:
            raise RefusedError("refers to an object of an earlier video, which is not kept")
        raise RefusedError("refers to an object that it has not stored")


def _refuse_opcode(opcode: bytes) -> NoReturn:
    if not opcode:
        raise RefusedError("ends too early") from None
    names = {known.code: known.name for known in pickletools.opcodes}
    name = names.get(opcode.decode("latin-1"))
    if name is None:
        raise RefusedError("is no pickle, or damaged") from None
    raise RefusedError(f"asks for {name}, which plain arrays don't need") from None
