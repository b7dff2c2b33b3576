from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidface.core.digests import digest_path
from vidface.core.errors import VidfaceError
from vidface.core.files import write_json
from vidface.core.thresholds import threshold_name
from vidface.runs import artefacts
from vidface.runs.artefacts import atomic_file, check_fit, fixed_lists, provenance
from vidface.runs.columns import embeddings_schema
from vidface.runs.run_folder import RunFolder

SETTINGS = {"frames.fps": 8.0, "backbone.mean": (1.0, 2.0), "weights": "a" * 64}


def shard_table(clip_ids: list[str], d: int = 4) -> pa.Table:
    n = len(clip_ids)
    columns = {
        name: pa.nulls(n, embeddings_schema(d).field(name).type)
        for name in embeddings_schema(d).names
    }
    columns["clip_id"] = pa.array(clip_ids, pa.string())
    columns["embedding"] = fixed_lists(np.arange(n * d, dtype=np.float32).reshape(n, d))
    return pa.table(columns, schema=embeddings_schema(d))


def test_a_shard_is_mapped_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.arrow"
    artefacts.write_arrow(path, shard_table(["a", "a", "b", "c", "c", "c"]), provenance("x", {}))
    shard, made = artefacts.read_shard(path)
    assert shard.clip_ids == ("a", "b", "c")
    assert shard.offsets.tolist() == [0, 2, 3, 6]
    assert shard.embeddings.tolist() == np.arange(24).reshape(6, 4).tolist()
    assert not shard.embeddings.flags.owndata
    assert not shard.embeddings.flags.writeable  # it is the file

    assert made["stage"] == "x"
    assert "3 clips, 6 faces x 4" in str(shard)


def test_mapping_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.arrow"
    artefacts.write_arrow(path, shard_table(["a"] * 20_000, d=256), provenance("x", {}))
    before = pa.total_allocated_bytes()
    shard, _ = artefacts.read_shard(path)
    assert shard.embeddings.nbytes == 20_000 * 256 * 4
    assert pa.total_allocated_bytes() - before < 1e6


def test_an_empty_shard(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.arrow"
    artefacts.write_arrow(path, shard_table([]), provenance("x", {}))
    shard, _ = artefacts.read_shard(path)
    assert shard.clip_ids == ()
    assert shard.offsets.tolist() == [0]
    assert shard.embeddings.shape == (0, 4)


def test_clips_must_stand_together(tmp_path: Path) -> None:
    path = tmp_path / "s.arrow"
    artefacts.write_arrow(path, shard_table(["a", "b", "a"]), provenance("x", {}))
    with pytest.raises(VidfaceError, match="do not stand together"):
        artefacts.read_shard(path)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "s.arrow"
    artefacts.write_arrow(path, shard_table(["a"] * 50), provenance("x", {}))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(VidfaceError, match="damaged"):
        artefacts.read_shard(path)
    digest_path(path).unlink()  # as of an older run
    with pytest.raises(VidfaceError, match="unreadable artefact"):
        artefacts.read_shard(path)
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(VidfaceError, match="unreadable artefact"):
        artefacts.read_parquet(tmp_path / "t.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "f.parquet")
    with pytest.raises(VidfaceError, match="no vidface provenance"):
        artefacts.read_parquet(tmp_path / "f.parquet")


def test_provenance_travels(tmp_path: Path) -> None:
    made = provenance("extract", SETTINGS, manifest_sha256="abc")
    artefacts.write_parquet(tmp_path / "a.parquet", pa.table({"a": [1]}), made)
    _, read = artefacts.read_parquet(tmp_path / "a.parquet")
    assert read["manifest_sha256"] == "abc"
    assert read["format_version"] == artefacts.FORMAT_VERSION
    assert {"vidface_version", "created", "versions"} <= set(read)
    check_fit(read, SETTINGS, tmp_path, "")  # tuples and JSON's lists are the same


def test_a_misfit_names_the_setting() -> None:
    made = json.loads(json.dumps(provenance("extract", SETTINGS)))
    asked = {**SETTINGS, "frames.fps": 4.0, "weights": "b" * 64}
    with pytest.raises(VidfaceError) as caught:
        check_fit(made, asked, Path("run/clips.parquet"), "do this")
    message = str(caught.value)
    assert "frames.fps: 8.0 (there) ≠ 4.0 (asked for)" in message
    assert "weights: aaaaaaaaaaaa… (there) ≠ bbbbbbbbbbbb… (asked for)" in message
    assert "backbone.mean" not in message
    assert message.endswith("do this")
    with pytest.raises(VidfaceError, match="format version 99"):
        check_fit({**made, "format_version": 99}, SETTINGS, Path("x"), "")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def broken() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_no_extraction_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match="run `vidface extract` first"):
        RunFolder(tmp_path).read_clips()


def test_nulls_in_fixed_lists() -> None:
    array = fixed_lists(np.ones((3, 2)), np.array([True, False, True]))
    assert array.to_pylist() == [[1, 1], None, [1, 1]]
    assert threshold_name(None) == "none"
    assert threshold_name(0.4) == "0.4"
    assert threshold_name(0) == "0.0"


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/bin/vidface", "score", "--split", "a b"], "vidface score --split 'a b'"),
        (["x/__main__.py", "extract", "--run", "s3://me:secret@b/run"], "vidface extract --run"),
        (["pytest"], None),
        ([""], None),
    ],
)
def test_the_command_is_recorded_without_secrets(monkeypatch, argv, command) -> None:
    monkeypatch.setattr("sys.argv", argv)
    found = artefacts.provenance("score", {})["command"]
    assert found is None if command is None else found.startswith(command)
    assert "secret" not in str(found)
