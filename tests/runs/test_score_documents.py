"""The one reader of vidface's own score JSON, and the schema that it checks files against."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from tests.made_runs import made_run
from vidface.core.errors import VidfaceError
from vidface.core.files import read_json_object
from vidface.runs.noise_removal import cluster
from vidface.runs.pair_scoring import score_listed_pairs
from vidface.runs.score_documents import (
    WRITTEN_BY,
    CheckedDocument,
    check_document,
    read_document,
    score_schema,
)
from vidface.runs.scoring import score
from vidface.runs.sweeps import select, sweep

PROTOCOLS = "retrieval,verification,cross-verification,clip-retrieval,identification"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Kind → real files of that kind, from every protocol, with and without a bootstrap."""
    from tests.conftest import write_colour_network

    folder = tmp_path_factory.mktemp("documents")
    run = made_run(folder, write_colour_network(folder / "colour.onnx"), clips=20)
    settings = run.pipeline.score
    cluster(run, 0.5)
    for bootstrap in (0, 20):
        chosen = settings.replaced(protocols=PROTOCOLS, bootstrap=bootstrap, fars="1e-1,1e-3")
        score(run, 0.5 if bootstrap else None, settings=chosen)
    (folder / "pairs.txt").write_text("c0 c5 1\nc1 c6 1\nc0 c6 0\nc1 c5 0\n")
    score_listed_pairs(run, folder / "pairs.txt", threshold=0.5)
    sweep(run, [0.0, 0.5])
    select(run, [0.0, 0.5], folds=2)
    files: dict[str, list[Path]] = {kind: [] for kind in WRITTEN_BY}
    for path in sorted(run.folder.folder.glob("s*s/*.json")):
        if path.name.endswith(".curves.json"):
            files["curves"].append(path)
        elif path.parent.name == "scores":
            files["score"].append(path)
        else:
            files["selection" if path.name.startswith("selected_") else "sweep"].append(path)
    return files


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(score_schema())
    assert set(WRITTEN_BY) <= set(score_schema()["$defs"])
    assert score_schema()["$id"] == "urn:vidface:score:1"


@pytest.mark.parametrize("kind", WRITTEN_BY)
def test_what_vidface_writes_passes_and_stays_as_it_is(kind: str, written: dict) -> None:
    assert written[kind]
    for path in written[kind]:
        assert read_document(path, kind) == json.loads(path.read_text(encoding="utf-8"))
    names = {path.name[:5] for path in written["score"]}
    assert names == {"val_a", "pairs"}


def test_every_protocol_is_among_them(written: dict) -> None:
    sections = {key for path in written["score"] for key in json.loads(path.read_text())}
    assert {name.replace("-", "_") for name in PROTOCOLS.split(",")} <= sections


def test_later_keys_are_let_through(written: dict) -> None:
    document = json.loads(written["score"][-1].read_text())
    document["new_protocol"] = {"hit_rate": {"value": 0.5, "ci95": None}}
    document["retrieval"]["new_key"] = [1, "a"]
    assert check_document(document, "score", "x") == document


@pytest.mark.parametrize(
    ("kind", "where", "value", "message"),
    [
        ("score", ("denoising",), None, r"denoising: must be string; not what vidface wrote, run "
         "`vidface score` again"),
        ("score", ("retrieval", "map_at_100"), 1.5, "retrieval.map_at_100: must be at most 1"),
        ("score", ("verification", "tar_at_far"), [], "verification.tar_at_far: must be object"),
        ("score", ("verification", "eer"), 3, "verification.eer: must be a figure or null"),
        ("score", ("provenance", "format_version"), 2, "score of version 2, this vidface reads 1"),
        ("score", ("provenance",), {}, "provenance: no created in it"),
        ("curves", ("format",), "x", "not curves; name a file of scores/ that ends in .curves"),
        ("curves", ("version",), 2, "curves of version 2, this vidface reads 1; run `vidface sc"),
        ("curves", ("verification", "roc", "far"), [0.5], "verification.roc: columns of several"),
        ("curves", ("verification", "roc", "far"), ["x"], r"roc.far.0: must be number"),
        ("curves", ("verification", "histogram", "edges"), [0, 1], "histogram: columns of several"),
        ("curves", ("verification", "points"), [{}], "points.0: no target_far in it"),
        ("sweep", ("rows",), [], "rows: .*run `vidface sweep` again"),
        ("sweep", ("rows", 0, "denoised"), {}, "rows.0.denoised: no dropped_share in it"),
        ("sweep", ("rows", 0, "threshold"), 2, "rows.0.threshold: must be at most 1"),
        ("selection", ("honest", "thresholds"), [], "honest.thresholds: .*vidface sweep --folds"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(
    kind: str, where: tuple, value: object, message: str, written: dict, tmp_path: Path
) -> None:
    document = json.loads(written[kind][-1].read_text())
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(document))
    with pytest.raises(VidfaceError, match=message) as refused:
        read_document(path, kind)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_file_of_another_kind_is_refused(written: dict) -> None:
    with pytest.raises(VidfaceError, match="not a sweep; name a file of sweeps/"):
        read_document(written["curves"][0], "sweep")
    with pytest.raises(VidfaceError, match="no honest in it"):
        read_document(written["sweep"][0], "selection")
    with pytest.raises(VidfaceError, match="x: must be an object"):
        check_document([1], "score", "x")


@pytest.mark.parametrize("value", [True, "1", 10**400, 1e400, [1], 1.5, -0.5])
def test_what_is_no_rate(value: object, written: dict) -> None:
    document = json.loads(written["curves"][0].read_text())
    bad = copy.deepcopy(document)
    bad["verification"]["roc"]["tar"][0] = value
    with pytest.raises(VidfaceError, match=r"x: verification.roc.tar.0: must be"):
        check_document(bad, "curves", "x")


def test_a_checked_document_is_not_checked_again(written: dict) -> None:
    document = read_document(written["score"][-1], "score")
    assert isinstance(document, CheckedDocument)
    assert check_document(document, "score", "x") is document


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"a": NaN}', "NaN in it"),
        (b'{"a": -Infinity}', "Infinity in it"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
    ],
)
def test_files_that_are_not_ours(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(VidfaceError, match=message):
        read_json_object(path)
