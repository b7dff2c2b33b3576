"""Embeddings of one's own program become a run, and its figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidface.challenges.embeddings import import_embeddings
from vidface.cli.commands import main
from vidface.core.errors import VidfaceError
from vidface.settings.manifests import read_manifest
from vidface.settings.pipeline import load_pipeline

# ann and bob are at right angles; clip 3 of ann has a face of bob in it, which noise removal drops.
ROWS = [
    ("1", "ann", "train", [1, 0]),
    ("2", "bob", "train", [0, 3]),
    ("3", "ann", "val", [5, 0]),
    ("3", "ann", "val", [5, 1]),
    ("3", "ann", "val", [0, 1]),
    ("4", "bob", "val", [0, 1]),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    ids, identities, splits, vectors = zip(*ROWS, strict=True)
    np.savez(tmp_path / "rows.npz", clip_id=ids, identity=identities, split=splits,
             embedding=np.array(vectors, np.float32))  # fmt: skip
    return tmp_path / "rows.npz"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert not stop.value.code
    return capsys.readouterr().out


def test_from_a_file_to_a_score(
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["import", "embeddings", "rows.npz", "--out", "mine"])
    said = capsys.readouterr()
    assert "rows of length 1 to 5.1 are scaled to length 1" in said.err
    assert "two splits" not in said.err  # many clips are one file here
    assert "mine/manifest.csv: 4 clips (train 2, val 2), 6 faces" in said.out
    steps = said.out.strip().splitlines()[-1].split(" && ")
    assert [step.split()[1] for step in steps] == ["cluster", "score"]
    flags = ("--pipeline", "mine/vidface.toml")
    run(capsys, "cluster", *flags)
    scored = json.loads(run(capsys, "score", *flags, "--json"))
    assert scored["retrieval"]["map_at_100"] == 1
    assert scored["counts"]["kept"] == 3
    assert scored["counts"]["faces"] == 4


def test_a_manifest_says_who_it_is(file: Path, tmp_path: Path) -> None:
    table = tmp_path / "who.csv"
    table.write_text("clip_id,path,identity,split\n3,x,bob,test\n9,x,bob,test\n")
    said: list[str] = []
    done = import_embeddings(file, tmp_path / "out", manifest=table, say=said.append)
    assert (done.clips, done.absent, done.faces) == (2, 1, 6)
    assert [clip.path for clip in read_manifest(done.manifest, tmp_path).clips] == ["rows.npz"] * 2
    settings = load_pipeline(done.pipeline).score
    assert (settings.split, settings.protocol_names) == ("test", ("verification",))
    assert len(said) == 1
    table.write_text("clip_id,path,identity,split\n8,x,bob,test\n")
    with pytest.raises(VidfaceError, match=r"none of its clip ids .* first is '1' here, '8' there"):
        import_embeddings(file, tmp_path / "out", manifest=table)


def test_labels_that_contradict_or_are_not_there(tmp_path: Path) -> None:
    path, vectors = tmp_path / "a.npz", np.eye(2)
    for columns, message in [
        ({}, "nobody says who is who"),
        ({"identity": ["x", "y"]}, r"'c' has another identity or split in row 1 \(from 0\)"),
        (
            {"identity": ["x"] * 2, "split": ["val", "dev"]},
            r"unknown split of row 1 \(from 0\) 'dev'",
        ),
    ]:
        np.savez(path, clip_id=["c", "c"], embedding=vectors, **columns)
        with pytest.raises(VidfaceError, match=message):
            import_embeddings(path, tmp_path / "out")
    np.savez(path, clip_id=["c", "d"], embedding=vectors, identity=["x", "y"])
    with pytest.raises(VidfaceError, match="unknown split 'dev'"):
        import_embeddings(path, tmp_path / "out", split="dev")
    assert not (tmp_path / "out").exists()
