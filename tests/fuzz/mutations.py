"""Mutations of files by their structure, so that most get behind a parser's first check.

`mutate(draw, content, shape)` is deterministic in `draw`. A shape is a name of `SHAPES`.
"""

from __future__ import annotations

import io
import json
import math
import pickletools
import re
import struct
import tomllib
import zipfile
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

_ENDLESS = "@endless@"  # stands for a number of 5,000 digits, which json.dumps can't write
_DEEP = "@deep@"  # for 3,000 nested lists

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, math.nan),
    *(
        math.inf,
        "",
        " ",
        "\0",
        "\ud800",
        "é\u202e",
        "1",
        "nan",
        "2026-01-01",
        "../../x",
        "http://u:p@h/a?s=1",
    ),
    *("x" * 3000, "${HOME", "a\nb", [], [[]], [None], [1, "a"], {}, {"": {}}, {"a": [1]}),
    *(_ENDLESS, _DEEP),
)
ODD_TOKENS = (
    *("", " ", "0", "1", "-1", "+1", "1e9", "nan", "inf", "9" * 25, "9" * 5000, "²", "٣", "01"),
    *("\0", "\x1b[2J", '"', "'", '"a', ",", ",,", "\t", "\r", "\n", "\ufeff", "\u202e", "\u2028"),
    *("../x", "/etc/passwd", "C:\\x", "file:///x", "http://h/x", "s3://", "a::b", "~", "${HOME}"),
    *("[", "]", "[[a]]", "=", "#", "{", "é", "x" * 5000, "=cmd|'/c'!A0", "clip_id", "train", "\\"),
)
_TOKENS = re.compile(r"([\s,;=\[\]{}\"/:.]+)")


def mutate(draw: Random, content: bytes, shape: str) -> bytes:
    """Another content; one in five is mutated byte by byte, whatever its shape."""
    if draw.random() < 0.2:
        shape = "bytes"
    return SHAPES[shape](draw, content)


def _mutate_bytes(draw: Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + draw.choice((1, 2, 4, 8))] = draw.randbytes(draw.choice((1, 2, 4, 8)))
        elif kind == 2:
            data[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\x80"))
        elif kind == 3:
            del data[at : at + draw.choice((1, 4, 64))]
        elif kind == 4:
            data[at:at] = data[at : at + draw.choice((1, 16, 512))]
        elif kind == 5 and draw.random() < 0.3:
            del data[at:]
        else:
            data[at:at] = draw.choice(
                (b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n")
            )
    return bytes(data)


def _mutate_lines(draw: Random, content: bytes) -> bytes:
    """Tokens and lines of a text: dropped, doubled, swapped or odd; its newlines and beginning."""
    lines = content.decode("utf-8").splitlines()
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
        kind = draw.randrange(8)
        if kind == 0:
            lines.insert(other, lines[at])
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            tokens = _TOKENS.split(lines[at])
            places = draw.randrange(len(tokens)), draw.randrange(len(tokens))
            if kind == 3:
                tokens[places[0]], tokens[places[1]] = tokens[places[1]], tokens[places[0]]
            elif kind == 4:
                tokens[places[0]] *= draw.choice((0, 2, 3))
            else:
                tokens[places[0]] = draw.choice(ODD_TOKENS)
            lines[at] = "".join(tokens)
    ends = draw.choice((("\n",), ("\n",), ("\r\n",), ("\r",), ("\n", "\r\n", "\r", "\n\n", "\v")))
    text = "".join(line + draw.choice(ends) for line in lines)
    return (draw.choice(("", "", "", "\ufeff")) + text).encode("utf-8", "surrogatepass")


def mutate_value(draw: Random, document: Any) -> Any:
    """A document of JSON's values with one to three odd places."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        holder, places = {"": document}, []
        _list_places(holder, places)
        inside, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind == 0 and inside is not holder:
            del inside[key]
        elif kind == 1 and isinstance(inside, dict) and inside is not holder:
            inside[draw.choice(ODD_TOKENS)] = inside.pop(key)
        elif kind == 2:
            other, name = draw.choice(places)
            inside[key] = json.loads(json.dumps(other[name]))
        elif isinstance(inside[key], str) and inside[key].startswith("{"):
            inside[key] = _dump(mutate_value(draw, json.loads(inside[key])))
        else:
            inside[key] = deepcopy(draw.choice(ODD_VALUES))
        document = holder.get("")
    return document


def _list_places(inside: Any, places: list[tuple[Any, Any]]) -> None:
    keys = inside if isinstance(inside, dict) else range(len(inside))
    for key in list(keys):
        places.append((inside, key))
        if isinstance(inside[key], dict | list):
            _list_places(inside[key], places)


def _dump(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text = text.replace(f'"{_ENDLESS}"', "9" * 5000)
    return text.replace(f'"{_DEEP}"', "[" * 3000 + "]" * 3000)


def _mutate_json(draw: Random, content: bytes) -> bytes:
    text = _dump(mutate_value(draw, json.loads(content)))
    return text.encode("utf-8", "surrogatepass")


def _mutate_toml(draw: Random, content: bytes) -> bytes:
    if draw.random() < 0.3:
        return _mutate_lines(draw, content)
    document = mutate_value(draw, tomllib.loads(content.decode("utf-8")))
    if not isinstance(document, dict):
        document = {"a": document}
    lines = (f"{_key(name)} = {_toml_value(value)}\n" for name, value in document.items())
    return "".join(lines).encode("utf-8", "surrogatepass")


def _key(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{_key(k)} = {_toml_value(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return '""' if value is None else _dump(value)


def _mutate_zip(draw: Random, content: bytes) -> bytes:
    """One member of a zip, its checksum made anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickles = [name for name in members if name.endswith(".pkl")]
    name = draw.choice(pickles if pickles and draw.random() < 0.8 else list(members))
    if draw.random() < 0.1:
        members[draw.choice(ODD_TOKENS[:40])] = members.pop(name)
    else:
        members[name] = SHAPES["pickle" if name in pickles else "bytes"](draw, members[name])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for each, data in members.items():
            archive.writestr(each.replace("\0", "") or "x", data)
    return packed.getvalue()


_OPCODES = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"R", b"b", b"(", b"]", b"}", b"N", b"K\x05", b"."),
    *(b"I9999999999\n", b"M\xff\xff", b"J\xff\xff\xff\xff", b"X\x02\0\0\0ab", b"C\x02ab", b"0"),
    *(
        b"t",
        b"\x85",
        b"\x86",
        b"a",
        b"e",
        b"s",
        b"u",
        b"2",
        b"h\x00",
        b"r\xff\xff\xff\x7f",
        b"\x93",
    ),
    *(b"F1e999\n", b"\x88", b"\x81", b"\x8a\x09" + b"\xff" * 9, b"T\xff\xff\xff\x7f"),
)


def _mutate_pickle(draw: Random, content: bytes) -> bytes:
    """Opcodes of a pickle: dropped, doubled, swapped, others put in, arguments changed."""
    starts = [at for _, _, at in pickletools.genops(content) if at is not None]
    codes = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, other = draw.randrange(len(codes)), draw.randrange(len(codes))
        kind = draw.randrange(5)
        if kind == 0 and len(codes) > 1:
            del codes[at]
        elif kind == 1:
            codes.insert(other, codes[at])
        elif kind == 2:
            codes[at], codes[other] = codes[other], codes[at]
        elif kind == 3:
            codes.insert(at, draw.choice(_OPCODES))
        else:
            codes[at] = codes[at][:1] + _mutate_bytes(draw, codes[at][1:])
    return b"".join(codes)


def _mutate_safetensors(draw: Random, content: bytes) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    head, body = content[8 : 8 + length], content[8 + length :]
    if draw.random() < 0.3:
        head = _mutate_json(draw, head)
    else:  # what it says of itself, which libraries hand on as it is
        document = json.loads(head)
        about = document["__metadata__"]
        key = draw.choice(list(about))
        about[key] = _dump(mutate_value(draw, json.loads(about[key])))
        head = json.dumps(document).encode()
    return struct.pack("<Q", len(head)) + head + body


def _mutate_onnx(draw: Random, content: bytes) -> bytes:
    import onnx

    model = onnx.ModelProto.FromString(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        places: list[tuple[Any, Any, int | None]] = []
        _list_fields(model, places)
        message, field, row = draw.choice(places)
        values = getattr(message, field.name)
        value = values if row is None else values[row]
        kind = draw.randrange(4)
        if kind == 0:
            message.ClearField(field.name) if row is None else values.pop(row)
        elif kind == 1 and row is not None:
            values.extend([value])
        elif field.message_type is None:
            nodes = model.graph.node
            names = [n for node in nodes for n in (*node.input, *node.output, node.op_type)]
            odd = {
                str: draw.choice((*names, *ODD_TOKENS)),
                bytes: _mutate_bytes(draw, value) if isinstance(value, bytes) else b"",
                bool: not value,
                float: draw.choice((0.0, -1.0, math.nan, math.inf, 1e38)),
                int: draw.choice((0, 1, 2, 3, 7, -1, 100, 2**31 - 1, 10, 16)),
            }[type(value)]
            try:
                if row is None:
                    setattr(message, field.name, odd)
                else:
                    values[row] = odd
            except ValueError:
                continue  # no number that this field may hold
    return model.SerializeToString()


def _list_fields(message: Any, places: list[tuple[Any, Any, int | None]]) -> None:
    for field, value in message.ListFields():
        repeated = field.is_repeated
        for row, each in enumerate(value if repeated else [value]):
            places.append((message, field, row if repeated else None))
            if field.message_type is not None:
                _list_fields(each, places)
            if row >= 20:
                break


def _mutate_table(draw: Random, table: Any) -> Any:
    """Columns dropped, renamed, of other types or with odd values; rows; what it says of itself."""
    import pyarrow as pa

    for _ in range(draw.choice((1, 1, 2))):
        if not table.num_columns:
            break
        at = draw.randrange(table.num_columns)
        column, field = table.column(at), table.schema.field(at)
        kind = draw.randrange(9)
        if kind == 0:
            table = table.remove_column(at)
        elif kind == 1:
            names = list(table.column_names)
            names[at] = draw.choice((*names, "x", ""))
            table = table.rename_columns(names)
        elif kind == 2:
            odd = draw.choice((None, "a", 2**62, [1.0], math.nan, b"\xff", True, {"a": 1}))
            table = table.set_column(at, field.name, pa.array([odd] * len(table)))
        elif kind == 3:
            table = table.slice(*draw.choice(((0, 0), (0, 1), (1, 3), (2, None))))
        elif kind == 4:
            rows = draw.choices(range(len(table)), k=len(table)) if len(table) else []
            table = table.take(pa.array(rows, pa.int64()))
        elif kind == 5 and pa.types.is_string(field.type):
            table = table.set_column(at, field.name, column.dictionary_encode())
        elif kind in (5, 6, 7):
            values = column.to_pylist()
            odd = draw.choice((None, 0, -1, 2**31 - 1, 2**62, math.nan, math.inf, "", "\0", b""))
            if values:
                values[draw.randrange(len(values))] = odd
            try:
                table = table.set_column(at, field, pa.array(values, field.type))
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                continue  # no value of this type
        else:
            made = json.loads((table.schema.metadata or {}).get(b"vidface", b"{}"))
            text = _dump(mutate_value(draw, made)).encode("utf-8", "surrogatepass")
            table = table.replace_schema_metadata({"vidface": text} if draw.random() < 0.95 else {})
    return table


def _mutate_arrow(draw: Random, content: bytes) -> bytes:
    import pyarrow as pa

    table = _mutate_table(draw, pa.ipc.open_file(content).read_all())
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=draw.choice((1, 7, 10_000)))
    return file.getvalue()


def _mutate_parquet(draw: Random, content: bytes) -> bytes:
    import pyarrow.parquet as pq

    table = _mutate_table(draw, pq.read_table(io.BytesIO(content)))
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _mutate_tar(draw: Random, content: bytes) -> bytes:
    """Fields of a header with its checksum made anew; whole blocks."""
    blocks = [bytearray(content[at : at + 512]) for at in range(0, len(content), 512)]
    heads = [block for block in blocks if block[257:262] == b"ustar"]
    if draw.random() < 0.25:
        at, other = draw.randrange(len(blocks)), draw.randrange(len(blocks))
        draw.choice((lambda: blocks.pop(at), lambda: blocks.insert(other, blocks[at])))()
    for _ in range(draw.choice((1, 1, 2))):
        head = draw.choice(heads)
        begin, end = draw.choice(((0, 100), (124, 136), (156, 157), (157, 257), (345, 500)))
        odd = draw.choice(
            (b"", b"../x", b"/x", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777")
        )
        if end - begin == 1:
            odd = bytes((draw.choice(b"0123456LKxgSV\0"),))
        elif draw.random() < 0.3:
            odd = _mutate_bytes(draw, bytes(head[begin:end]))
        head[begin:end] = odd[: end - begin].ljust(end - begin, b"\0")
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
    return b"".join(blocks)


SHAPES: dict[str, Callable[[Random, bytes], bytes]] = {
    "bytes": _mutate_bytes,
    "lines": _mutate_lines,
    "json": _mutate_json,
    "toml": _mutate_toml,
    "zip": _mutate_zip,
    "pickle": _mutate_pickle,
    "safetensors": _mutate_safetensors,
    "onnx": _mutate_onnx,
    "arrow": _mutate_arrow,
    "parquet": _mutate_parquet,
    "tar": _mutate_tar,
}
