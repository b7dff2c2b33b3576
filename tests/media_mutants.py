"""Damaged and malicious media files, made from the valid clips of tests/golden.

    for mutant in mutants(seed=1): ...            # about 430 files of at most 2 MB
    for mutant in hostile(): ...                  # bombs, cycles and nonsense, no seed needed

Everything is decided by the seed and the clips' bytes. Nothing here imports vidface.
Fields: MP4/MOV ISO/IEC 14496-12 (version 0 boxes), Matroska RFC 9559, AVI as in Microsoft's
"AVI RIFF file reference", GIF 89a.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
# By container; the rich ones are picture for the most part, the others header.
SOURCES = {
    "mp4": ("rich.mp4", "bframes.mp4", "fps25.mp4"),
    "mov": ("rich.mov", "hevc.mov", "alpha_prores.mov"),
    "mkv": ("rich.mkv", "vfr.mkv", "av1.mkv"),
    "avi": ("rich.avi", "h264.avi", "mpeg4.avi"),
    "webm": ("rich.webm", "vp9.webm", "odd.webm"),
}
HUGE = (0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0)
MAX_BYTES = 2_000_000  # of one file


@dataclass(frozen=True)
class Mutant:
    """A file: what was done to which clip, the extension it goes under, its bytes."""

    name: str  # "rich.mp4: cut at 1234"
    extension: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.name} (.{self.extension}, {len(self.data)} bytes)"


def mutants(seed: int) -> Iterator[Mutant]:
    """Every kind of damage to every source."""
    for extension, names in SOURCES.items():
        for name in names:
            data = (GOLDEN / name).read_bytes()
            number = 10 if name.startswith("rich") else 4
            rng = random.Random(f"{seed} {name}")
            for change, damage in DAMAGES.items():
                for k in range(number if change in SEVERAL else 2):
                    what, damaged = damage(data, rng)
                    yield Mutant(f"{name}: {change} {k}, {what}", extension, damaged)
            for what, damaged in FIELDS[extension](data):
                yield Mutant(f"{name}: {what}", extension, damaged)
            yield from _mixed(name, extension, data)


def hundred(name: str, data: bytes, seed: int = 1, number: int = 100) -> list[Mutant]:
    """So many, of a clip in any format, every kind of damage in turn."""
    rng = random.Random(f"{seed} {name}")
    found = []
    for k in range(number):
        change = list(DAMAGES)[k % len(DAMAGES)]
        what, damaged = DAMAGES[change](data, rng)
        found.append(Mutant(f"{name}: {change} {k}, {what}", name.rsplit(".")[-1], damaged))
    return found


# --- damage without knowledge of the format ---------------------------------------------------


def _flip_bits(data: bytes, rng: random.Random, low: float, high: float) -> tuple[str, bytes]:
    damaged = bytearray(data)
    places = sorted(
        rng.randrange(int(low * len(data)), int(high * len(data)))
        for _ in range(rng.choice((1, 1, 4)))
    )
    for at in places:
        damaged[at] ^= 1 << rng.randrange(8)
    return f"at {places}", bytes(damaged)


def _random_bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    at, length = rng.randrange(len(data)), rng.choice((2, 20, 200))
    return f"{length} at {at}", data[:at] + rng.randbytes(length) + data[at + length :]


def _zeros(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    at, length = rng.randrange(len(data) // 8, len(data)), rng.choice((8, 64, 512))
    length = min(length, len(data) - at)
    return f"{length} at {at}", data[:at] + bytes(length) + data[at + length :]


def _cut(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    at = rng.randrange(1, len(data))
    return f"at {at}", data[:at]


def _without_front(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    at = rng.randrange(1, len(data) // 2)
    return f"of {at}", data[at:]


def _left_out(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    at, length = rng.randrange(len(data)), rng.choice((1, 7, 300))
    return f"{length} at {at}", data[:at] + data[at + length :]


def _twice(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    at, length = rng.randrange(len(data)), rng.choice((1, 16, 400))
    return f"{length} at {at}", data[: at + length] + data[at:]


DAMAGES: dict[str, Callable[[bytes, random.Random], tuple[str, bytes]]] = {
    "bits flipped in the head": lambda data, rng: _flip_bits(data, rng, 0, 0.1),
    "bits flipped in the middle": lambda data, rng: _flip_bits(data, rng, 0.1, 0.9),
    "bits flipped in the tail": lambda data, rng: _flip_bits(data, rng, 0.9, 1),
    "random bytes": _random_bytes,
    "zeros": _zeros,
    "cut": _cut,
    "front missing": _without_front,
    "bytes left out": _left_out,
    "bytes twice": _twice,
}
SEVERAL = {"bits flipped in the middle", "random bytes", "cut"}


def _mixed(name: str, extension: str, data: bytes) -> Iterator[Mutant]:
    """Under another name; with another format's head."""
    others = [other for other in SOURCES if other != extension]
    other = others[len(name) % len(others)]
    yield Mutant(f"{name}: untouched", extension, data)
    yield Mutant(f"{name}: wrong extension", other, data)
    head = (GOLDEN / SOURCES[other][0]).read_bytes()
    for length in (12, 48, 400):
        swapped = head[:length] + data[length:]
        yield Mutant(f"{name}: {length} bytes of {other} at its head", extension, swapped)


# --- fields of the formats ----------------------------------------------------------------------

Changes = Iterator[tuple[str, bytes]]


def _put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _boxes(data: bytes) -> Changes:
    """MP4, MOV: (box, offset behind its name) of 32-bit fields, and two of 16 bits."""
    wide = [(b"mvhd", 12), (b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 12), (b"mdhd", 16)]
    wide += [(b"elst", 8), (b"elst", 12), (b"stts", 4), (b"stts", 8), (b"stts", 12)]
    wide += [(b"stsz", 4), (b"stsz", 8), (b"stsz", 12), (b"stsc", 4), (b"stsc", 12)]
    wide += [(b"stco", 4), (b"stco", 8), (b"ctts", 4), (b"ctts", 12), (b"stss", 4)]
    wide += [(b"moov", -8), (b"mdat", -8), (b"stbl", -8), (b"stsd", 4)]
    for k, (box, offset) in enumerate(wide):
        at = data.find(box)
        if at >= 0:
            value = HUGE[k % len(HUGE)]
            what = f"{box.decode()}{offset:+d} = {value:#x}"
            yield what, _put(data, at + 4 + offset, struct.pack(">I", value))
    start = data.find(b"mvhd") + 4
    timescale, length = struct.unpack_from(">II", data, start + 12)
    for factor in (2, 1000):
        longer = struct.pack(">I", min(length * factor, 0xFFFFFFFF))
        all_longer = _put(data, start + 16, longer)
        for box, offset in ((b"tkhd", 20), (b"elst", 8)):
            at = data.find(box)
            if at >= 0:
                all_longer = _put(all_longer, at + 4 + offset, longer)
        yield f"mvhd, tkhd, elst say {factor} times the length ({timescale})", all_longer
        at = data.find(b"mdhd") + 4 + 16
        (length,) = struct.unpack_from(">I", data, at)
        longer = struct.pack(">I", min(length * factor, 0xFFFFFFFF))
        yield f"mdhd says {factor} times the length", _put(data, at, longer)
    entry = data.find(b"stsd") + 12 + 8  # behind version, count, size and codec
    for width, height in ((65535, 65535), (8192, 8192), (0, 0)):
        yield (
            f"stsd says {width} x {height}",
            _put(data, entry + 24, struct.pack(">HH", width, height)),
        )


def _elements(data: bytes) -> Changes:
    """Matroska, WebM: ids followed by a one-byte length, and the masters' eight-byte lengths."""
    at = data.find(b"\x44\x89\x88")
    if at >= 0:
        (length,) = struct.unpack_from(">d", data, at + 3)
        for value in (length * 2, length * 1000, 1e300, float("inf"), float("nan"), -5.0, 0.0):
            yield f"Duration = {value}", _put(data, at + 3, struct.pack(">d", value))
    for text in (b"00:00:30.0", b"99:59:59.0", b"9999999999", b"-1:00:00.0", b"\xff\xfe:00:00:0"):
        at = data.find(b"\x44\x87", max(data.find(b"DURATION"), 0))
        if data.find(b"DURATION") >= 0 and at >= 0:
            yield f"tag DURATION = {text!r}", _put(data, at + 3, text[:10])
    for name, element in (("Segment", b"\x18\x53\x80\x67"), ("Cluster", b"\x1f\x43\xb6\x75")):
        at = data.find(element)
        for size in (b"\x01" + b"\xff" * 7, b"\x01\x7f" + b"\xff" * 6, b"\x01" + bytes(7)):
            yield f"{name} of {size.hex()}", _put(data, at + 4, size)
    for name, element in (("PixelWidth", b"\xb0"), ("PixelHeight", b"\xba")):
        at = data.find(element, data.find(b"\xe0"))
        size = data[at + 1] & 0x7F
        for fill in (b"\xff", b"\0"):
            yield f"{name} = {fill.hex()}...", _put(data, at + 2, fill * min(size, 4))
    at = data.find(b"\x2a\xd7\xb1\x83")
    if at >= 0:
        for scale in (b"\xff\xff\xff", b"\0\0\0", b"\0\0\1"):
            yield f"TimestampScale = {scale.hex()}", _put(data, at + 4, scale)
    at = data.find(b"\x23\xe3\x83\x84")
    if at >= 0:
        for value in HUGE:
            yield f"DefaultDuration = {value:#x}", _put(data, at + 4, struct.pack(">I", value))


def _chunks(data: bytes) -> Changes:
    """AVI: 32-bit fields, little end first."""
    avih, strh, strf = (data.find(name) + 8 for name in (b"avih", b"strh", b"strf"))
    fields = {"RIFF size": 4, "usPerFrame": avih, "dwTotalFrames": avih + 16}
    fields |= {"avih width": avih + 32, "dwScale": strh + 20, "dwRate": strh + 24}
    fields |= {"dwStart": strh + 28, "dwLength": strh + 32, "dwSampleSize": strh + 44}
    fields |= {"biSize": strf, "biWidth": strf + 4, "biHeight": strf + 8}
    fields |= {"movi size": data.find(b"movi") - 4, "idx1 size": data.find(b"idx1") + 4}
    fields |= {"first chunk's size": data.find(b"00dc", data.find(b"movi")) + 4}
    for k, (name, at) in enumerate(fields.items()):
        for value in (HUGE[k % 4], HUGE[(k + 1) % 4]):
            yield f"{name} = {value:#x}", _put(data, at, struct.pack("<I", value))
    (frames,) = struct.unpack_from("<I", data, avih + 16)
    for factor in (2, 1000):
        longer = struct.pack("<I", frames * factor)
        both = _put(_put(data, avih + 16, longer), strh + 32, longer)
        yield f"dwTotalFrames and dwLength say {factor} times the frames", both


FIELDS: dict[str, Callable[[bytes], Changes]] = {
    "mp4": _boxes,
    "mov": _boxes,
    "mkv": _elements,
    "webm": _elements,
    "avi": _chunks,
}


# --- made to hurt -------------------------------------------------------------------------------


def hostile() -> Iterator[Mutant]:
    """Files that are no damaged clip but an attack, or nothing at all."""
    yield Mutant("empty", "mp4", b"")
    yield Mutant("one byte", "mkv", b"\x1a")
    yield Mutant("text", "mp4", b"This is no film.\n" * 400)
    yield Mutant("web page", "mp4", b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 9)
    yield Mutant("playlist of a file", "mp4", b"#EXTM3U\n#EXTINF:1,\nfps25.mp4\n")
    yield Mutant("concat script", "avi", b"ffconcat version 1.0\nfile fps25.mp4\n")
    yield Mutant("subtitles", "mkv", b"1\n00:00:01,000 --> 00:00:02,000\nHello\n")
    yield Mutant("zeros", "webm", bytes(100_000))
    yield Mutant("ones", "avi", b"\xff" * 100_000)
    yield Mutant("noise", "mov", random.Random(5).randbytes(100_000))
    yield from _gifs()
    yield from _box_attacks()
    yield from _element_attacks()


def gif(width: int, height: int, delays: list[int]) -> bytes:
    """A GIF with a big canvas and a frame of one pixel for each delay (hundredths of a second)."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frames = (
        b"!\xf9\x04\0" + struct.pack("<H", delay) + b"\0\0"
        b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
        for delay in delays
    )
    return head + b"".join(frames) + b";"


def _gifs() -> Iterator[Mutant]:
    yield Mutant("GIF of 65535 x 65535, 2000 frames", "gif", gif(65535, 65535, [4] * 2000))
    yield Mutant("GIF of 8192 x 8192, 12 frames", "gif", gif(8192, 8192, [4] * 12))
    yield Mutant("GIF of 3000 x 3000, 80 frames", "gif", gif(3000, 3000, [2] * 80))
    yield Mutant("GIF of 8 x 8, 3000 frames of 655 s", "gif", gif(8, 8, [65535] * 3000))
    yield Mutant("GIF of 8 x 8, 4000 frames of 0 s", "gif", gif(8, 8, [0] * 4000))
    yield Mutant("GIF of 0 x 0", "gif", gif(0, 0, [4] * 9))
    yield Mutant("GIF that breaks off", "gif", gif(8, 8, [4] * 9)[:100])


def _box(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", 8 + len(content) if size is None else size) + name + content


def _table(box: bytes, *values: int) -> bytes:
    return _box(box, struct.pack(f">{len(values) + 1}I", 0, *values))


def _box_attacks() -> Iterator[Mutant]:
    whole = (GOLDEN / "single.mp4").read_bytes()
    kind = _box(b"ftyp", b"isom\0\0\2\0isom")
    nested = b""
    for _ in range(20_000):
        nested = _box(b"moov", nested) if len(nested) < 150_000 else nested
    yield Mutant("moov in moov, 18,000 deep", "mp4", kind + nested)
    for name in (b"udta", b"trak"):
        nested = b""
        for _ in range(5_000):
            nested = _box(name, nested)
        moov = _box(b"moov", nested)
        yield Mutant(f"{name.decode()}, 5,000 deep, in moov", "mp4", kind + moov)
    yield Mutant("box of size 0 in moov", "mp4", kind + _box(b"moov", _box(b"trak", b"", 0)))
    for size in (1, 7):
        yield Mutant(f"box of size {size}", "mp4", kind + _box(b"moov", b"", size) + bytes(64))
    backwards = struct.pack(">I4sQ", 1, b"free", 2**64 - 16)
    yield Mutant("box that ends before it begins", "mp4", kind + backwards + whole)
    yield Mutant("200,000 empty boxes", "mp4", kind + _box(b"free", b"") * 200_000 + whole)
    for declared in (2**31 - 1, 900_000_000):
        packed = zlib.compress(bytes(60_000_000 if declared < 2**30 else 1_000_000), 9)
        header = _box(b"dcom", b"zlib") + _box(b"cmvd", struct.pack(">I", declared) + packed)
        name = f"compressed moov, said to be of {declared} bytes"
        yield Mutant(name, "mov", kind + _box(b"moov", _box(b"cmov", header)))
    # The index of a clip: one sample size for all, a count out of thin air.
    at = whole.find(b"stsz")
    for count in (20_000_000, 200_000_000):
        bomb = _put(whole, at + 8, struct.pack(">II", 1, count))
        at_time, at_chunk = whole.find(b"stts"), whole.find(b"stsc")
        bomb = _put(bomb, at_time + 12, struct.pack(">I", count))
        bomb = _put(bomb, at_chunk + 16, struct.pack(">I", count))
        yield Mutant(f"index of {count} samples in no table", "mp4", bomb)
    yield Mutant("edit list of 50,000 times the same", "mp4", _many_edits(50_000))


def _many_edits(number: int) -> bytes:
    """fps25.mp4, its index moved to the end, with an edit list that repeats the film."""
    data = (GOLDEN / "fps24.mp4").read_bytes()  # its moov comes last: no offset changes
    moov, trak, edts = (data.find(name) - 4 for name in (b"moov", b"trak", b"edts"))
    (old,) = struct.unpack_from(">I", data, edts)
    entries = struct.pack(">IiI", 2000, 0, 65536) * number
    new = _box(b"edts", _box(b"elst", struct.pack(">II", 0, number) + entries))
    data = data[:edts] + new + data[edts + old :]
    for at in (moov, trak):
        (size,) = struct.unpack_from(">I", data, at)
        data = _put(data, at, struct.pack(">I", size + len(new) - old))
    return data


def _element_attacks() -> Iterator[Mutant]:
    whole = (GOLDEN / "vfr.mkv").read_bytes()
    head = whole[: whole.find(b"\x18\x53\x80\x67")]
    unknown = b"\x01" + b"\xff" * 7
    nested = (b"\x16\x54\xae\x6b" + unknown) * 10_000  # Tracks
    yield Mutant(
        "Tracks in Tracks, 10,000 deep", "mkv", head + b"\x18\x53\x80\x67" + unknown + nested
    )
    nested = (b"\x67\xc8" + unknown) * 20_000  # SimpleTag, which may hold itself
    tags = b"\x12\x54\xc3\x67" + unknown + b"\x73\x73" + unknown
    yield Mutant(
        "SimpleTag, 20,000 deep", "mkv", head + b"\x18\x53\x80\x67" + unknown + tags + nested
    )
    # A SeekHead that points to itself, and to the Segment.
    at = whole.find(b"\x11\x4d\x9b\x74")
    segment = whole.find(b"\x18\x53\x80\x67") + 12
    seek = whole.find(b"\x53\xac", at)
    for goal, target in (("itself", at - segment), ("0", 0)):
        position = struct.pack(">I", target)[-(whole[seek + 2] & 0x7F) :]
        name = whole.find(b"\x53\xab\x84", at) + 3
        loop = _put(_put(whole, seek + 3, position), name, b"\x11\x4d\x9b\x74")
        yield Mutant(f"SeekHead that points to {goal}", "mkv", loop)
    length = struct.pack(">Q", 2**40 | 1 << 56)
    yield Mutant("CodecPrivate of 2^40 bytes", "mkv", _private(whole, length))
    yield Mutant(
        "EBML version 200", "mkv", whole.replace(b"\x42\x86\x81\x01", b"\x42\x86\x81\xc8", 1)
    )


def _private(whole: bytes, length: bytes) -> bytes:
    at = whole.find(b"\x63\xa2")
    return whole[: at + 2] + length + whole[at + 3 :]
