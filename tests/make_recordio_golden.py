"""Make tests/golden/recordio with MXNet's own writer; and a writer of the format in plain Python.

    python -m venv mx && mx/bin/pip install mxnet==1.9.1 numpy==1.23.5 pillow
    mx/bin/python tests/make_recordio_golden.py

Nothing here imports vidface. Two sets, each train.rec, train.idx and property:
    faces   as InsightFace's face2rec2.py lays them out: record 0 says which records are people's,
            images of three people (2, 3, 1) under the keys 1 … 6, people under 7 … 9
    split   records whose data hold the magic, which MXNet writes in parts; images with one label
`golden_payloads` says what is in them, the plain writer must make the same bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden" / "recordio"
MAGIC = struct.pack("<I", 0xCED7230A)

Payloads = dict[int, bytes]  # key → what the record holds


def packed(labels: float | list[float], number: int, data: bytes) -> bytes:
    """An image record: flag, label, id, id2; a list of labels stands behind them."""
    if isinstance(labels, list):
        head = struct.pack("<IfQQ", len(labels), 0.0, number, 0)
        return head + struct.pack(f"<{len(labels)}f", *labels) + data
    return struct.pack("<IfQQ", 0, labels, number, 0) + data


def framed(payload: bytes) -> bytes:
    """The record as it stands in the file: split where it holds the magic, padded to 4."""
    parts, start = [], 0
    for at in range(0, len(payload) - 3, 4):
        if payload[at : at + 4] == MAGIC:
            parts.append(payload[start:at])
            start = at + 4
    parts.append(payload[start:])
    written = b""
    for number, part in enumerate(parts):
        first, last = number == 0, number == len(parts) - 1
        kind = 0 if first and last else 1 if first else 3 if last else 2
        written += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part
        written += b"\0" * (-len(part) % 4)
    return written


def write_records(folder: Path, payloads: Payloads, classes: int | None = None) -> Path:
    """train.rec and train.idx, and property where the classes are given."""
    folder.mkdir(parents=True, exist_ok=True)
    rec, idx = b"", ""
    for key, payload in payloads.items():
        idx += f"{key}\t{len(rec)}\n"
        rec += framed(payload)
    (folder / "train.rec").write_bytes(rec)
    (folder / "train.idx").write_text(idx)
    if classes is not None:
        (folder / "property").write_text(f"{classes},112,112\n")
    return folder


def faces_payloads(people: list[list[bytes]]) -> Payloads:
    """InsightFace's layout of each person's picture files."""
    payloads: Payloads = {}
    ranges, key = [], 1
    for label, pictures in enumerate(people):
        ranges.append([float(key), float(key + len(pictures))])
        for data in pictures:
            payloads[key] = packed([float(label), 0.0], key, data)
            key += 1
    header = packed([float(key), float(key + len(people))], 0, b"")
    for number, bounds in enumerate(ranges):
        payloads[key + number] = packed(bounds, key + number, b"")
    return {0: header, **payloads}


def golden_payloads() -> dict[str, Payloads]:
    pictures = [bytes([65 + k]) * (9 + k) for k in range(6)]
    magics = [b"", MAGIC, MAGIC * 3, b"ab" + MAGIC, b"abcd" + MAGIC + b"xyz", MAGIC[:3], b"12345"]
    return {
        "faces": faces_payloads([pictures[:2], pictures[2:5], pictures[5:]]),
        "split": {k: packed(float(k % 2), k, data) for k, data in enumerate(magics)}
        | {7: struct.pack("<IfQQ", 0, 1.0, 0xCED7230A, 5) + b"magic in the header"},
    }


def main() -> None:
    from mxnet.recordio import IRHeader, MXIndexedRecordIO, pack, unpack

    for name, payloads in golden_payloads().items():
        folder = write_records(GOLDEN / name, payloads, 3 if name == "faces" else 2)
        plain = [(folder / file).read_bytes() for file in ("train.rec", "train.idx")]
        writer = MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
        for key, payload in payloads.items():
            header, data = unpack(payload)
            again = pack(IRHeader(0, header.label, header.id, header.id2), data)
            if again != payload:
                raise SystemExit(f"{name}: MXNet packs record {key} otherwise")
            writer.write_idx(key, again)
        writer.close()
        if plain != [(folder / file).read_bytes() for file in ("train.rec", "train.idx")]:
            raise SystemExit(f"{name}: MXNet writes other bytes than the plain writer")


if __name__ == "__main__":
    main()
