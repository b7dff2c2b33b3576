"""`vidface forget`: nothing of them remains, and the others' figures are as in a fresh run."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.budgets import mostly_slow
from tests.conftest import write_colour_clips, write_colour_pipeline
from tests.made_runs import made_run
from vidface.core.errors import UsageError, VidfaceError
from vidface.reports.gather import gather_run
from vidface.runs.extraction import extract
from vidface.runs.forgetting import forget, plan_forgetting
from vidface.runs.forgotten import FORGOTTEN, NOBODY, read_forgotten
from vidface.runs.noise_removal import cluster
from vidface.runs.rewriting import _cut_rows
from vidface.runs.run import Run, open_run
from vidface.runs.run_folder import STAGING
from vidface.runs.scoring import score
from vidface.settings.pipeline import load_pipeline

PERSON = "quirinus"  # a name that is part of no other word
CLIPS = ("quirinus.t", "quirinus.v")


@pytest.fixture
def pipeline(tmp_path: Path, colour_network: Path) -> Path:
    """The colours' clips, red called by a name; shards of two clips."""
    manifest = write_colour_clips(tmp_path / "set")
    (tmp_path / "set" / "red").rename(tmp_path / "set" / PERSON)
    text = manifest.read_text().replace("red", PERSON)
    manifest.write_text(text)
    rest = [line for line in text.splitlines(keepends=True) if PERSON not in line]
    (tmp_path / "set" / "others.csv").write_text("".join(rest))
    path = write_colour_pipeline(tmp_path / "vidface.toml", manifest, colour_network)
    path.write_text(path.read_text().replace("workers = 1", "workers = 1\nshard_clips = 2"))
    return path


def read_tables(run: Path) -> dict[str, pa.Table]:
    """Every Arrow and Parquet file of a run, without its provenance."""
    tables = {}
    for path in sorted(path for path in run.rglob("*") if path.suffix in (".arrow", ".parquet")):
        name = path.relative_to(run).as_posix()
        with path.open("rb") as file:
            arrow = path.suffix == ".arrow"
            table = pa.ipc.open_file(file).read_all() if arrow else pq.read_table(file)
        tables[name] = table.replace_schema_metadata(None)
    return tables


def every_text(run: Path) -> Iterator[tuple[Path, bytes]]:
    """Names, contents, and what Arrow and Parquet hold compressed."""
    for path in sorted(run.rglob("*")):
        yield path, path.relative_to(run).as_posix().encode()
        if path.is_file():
            yield path, path.read_bytes()
            if path.suffix in (".arrow", ".parquet"):
                read = (
                    pa.ipc.open_file(path).schema
                    if path.suffix == ".arrow"
                    else pq.read_schema(path)
                )
                table = read_tables(path.parent)[path.name]
                yield path, f"{read.metadata}{table.to_pydict()}".encode()
                yield path, b"".join(pieces_of({"": table}))


def pieces_of(tables: dict[str, pa.Table]) -> set[bytes]:
    """Every embedding, descriptor and picture in tables."""
    return {
        piece
        for table in tables.values()
        for name in {"jpeg", "embedding", "descriptor"} & set(table.column_names)
        for piece in as_bytes(table[name])
    }


def as_bytes(column: pa.ChunkedArray) -> list[bytes]:
    rows = column.drop_null().to_pylist()
    return [r if isinstance(r, bytes) else np.array(r, np.float32).tobytes() for r in rows]


@pytest.mark.slow
def test_nothing_of_them_remains_and_the_others_are_as_in_a_fresh_run(
    vidface, pipeline: Path, tmp_path: Path
) -> None:
    run, fresh = tmp_path / "run", tmp_path / "fresh"
    protocols = "retrieval,verification,identification"
    stages = ("extract", "cluster", "cluster --repeats once", f"score --protocols {protocols}",
              "sweep", "sweep --folds 2")  # fmt: skip
    for stage in stages:
        assert vidface(*stage.split()).code == 0
    files = ("report --out run/report.html", "plot sweep run --out run/s.svg",
             "export iqiyi --out run/ranked.txt", "export lfrc --out run/deep/lists.bin",
             f"show {CLIPS[1]} --out run/sheet.png",
             "report run --pseudonymise --out run/p.html")  # fmt: skip
    (run / "deep").mkdir()
    for command in files:
        done = vidface(*command.split())
        assert done.code == 0, (command, done.err)
    (run / "notes.txt").write_text("look at the light")
    (run / ".scores.json.12.part").write_text(f'["{PERSON}"')
    others = ("--manifest", "set/others.csv", "--run", "fresh")
    for stage in stages:
        assert vidface(*stage.split(), *others).code == 0
    before, expected = read_tables(run), read_tables(fresh)
    pieces = pieces_of(before) - pieces_of(expected)
    assert len(pieces) == 2 * 8 + 2 * 2  # 8 faces as embeddings and JPEGs; descriptors
    holding = {path.suffix for path, text in every_text(run) if PERSON.encode() in text}
    assert holding >= {".arrow", ".parquet", ".csv", ".txt", ".html", ".part"}
    (run / STAGING / "clips").mkdir(parents=True)
    (run / STAGING / "clips" / "shard-00000.parquet").write_bytes(PERSON.encode())

    done = vidface("forget", PERSON, "--yes", "--json")
    assert (done.code, done.json["done"], done.json["faces"]) == (0, True, 8), done.err
    assert done.json["clips"] == list(CLIPS)
    wanted = [PERSON.encode(), *pieces]
    for path, text in every_text(run):
        assert not [word for word in wanted if word in text], path
    assert (run / "notes.txt").read_text() == "look at the light"
    assert not [*run.rglob("*.html"), *run.glob("deep"), *run.glob("clusters")]
    assert "vidface sweep" in " ".join(done.json["again"])
    assert any("manifest.csv" in line for line in done.json["untouched"])

    assert "2 clip(s) of the manifest are left out: forgotten" in vidface("extract").err
    for stage in stages:
        assert vidface(*stage.split()).code == 0, stage
    now = read_tables(run)
    assert list(now) == list(expected)
    assert not [name for name, table in now.items() if not table.equals(expected[name])]
    for path in sorted([*fresh.glob("scores/*"), *fresh.glob("sweeps/*")]):
        if path.suffix == ".csv":
            assert (run / path.relative_to(fresh)).read_bytes() == path.read_bytes()
        elif path.suffix == ".json":
            figures = [json.loads(p.read_text()) for p in (path, run / path.relative_to(fresh))]
            assert figures[0].pop("provenance") != figures[1].pop("provenance")
            assert figures[0] == figures[1], path
    assert "green" in gather_run(run).clips.identities
    assert vidface("check", "run").code == 0


@pytest.mark.slow
def test_a_new_extraction_does_not_bring_them_back(vidface, pipeline: Path, tmp_path: Path) -> None:
    assert vidface("forget", "--clip", "stranger", "--yes").code == 0  # nothing is extracted yet
    assert vidface("extract", "--json").json["clips"] == 6
    assert vidface("forget", PERSON, "--yes").code == 0
    manifest = tmp_path / "set" / "manifest.csv"
    shutil.rmtree(tmp_path / "set" / PERSON / "val")  # nobody looks for it any more
    manifest.write_text(manifest.read_text() + f"new,green/val,{PERSON},val\n")
    for flags in (("--force",), (), ("--force", "--shard-clips", "3")):
        done = vidface("extract", *flags, "--json")
        assert done.json["clips"] == 4
        assert "4 clip(s) of the manifest are left out: forgotten in this run" in done.err
    shutil.rmtree(tmp_path / "set" / PERSON)
    manifest.write_text("clip_id,path,identity,split\nnew,green/val,quirinus,val\n")
    assert "all of its clips are left out" in vidface("clips").err


def test_a_forgotten_file_stays_away_under_another_id(
    vidface, pipeline: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "set" / "manifest.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    lines.append("twin,green/train,green,train\n")  # green.t's file, which stays for its sake
    manifest.write_text("".join(lines))
    assert vidface("forget", "--clip", "stranger", "--clip", "green.t", "--yes").code == 0
    manifest.write_text(manifest.read_text().replace("stranger,stranger", "again,stranger"))
    done = vidface("extract", "--json")
    assert done.json["clips"] == 6
    assert "2 clip(s) of the manifest are left out" in done.err


def open_made(folder: Path) -> Run:
    return open_run(load_pipeline(folder / "made.toml"), check_files=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, colour_network: Path) -> Path:
    """Ten clips of five people with a clustering; by hand, so without a number of shard clips."""
    folder = tmp_path_factory.mktemp("made") / "a"
    run = made_run(folder, colour_network)
    cluster(run, 0.4)
    score(run, 0.4)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """`made`, to be changed."""
    shutil.copytree(made, tmp_path / "a")
    toml = tmp_path / "a" / "made.toml"
    toml.write_text(toml.read_text().replace(made.as_posix(), (tmp_path / "a").as_posix()))
    return tmp_path / "a"


def rows_of(run: Run) -> list[dict]:
    return [row for shard in run.shards() for row in shard.table.to_pylist()]


def test_rows_of_an_older_run(copied: Path) -> None:
    """Its shards keep their cut, and an empty one goes: they may be of feature files."""
    run = open_made(copied)
    expected = [row for row in rows_of(run) if row["clip_id"] not in ("c0", "c1", "c2", "c5")]
    plan = forget(run, clips=["c0", "c1", "c2", "c5"])
    assert (plan.people, plan.faces) == ((), 2 + 3 + 4 + 7)
    run = open_made(copied)
    assert rows_of(run) == expected
    assert [len(shard.clip_ids) for shard in run.shards()] == [2, 3, 1]
    assert not run.folder.clusterings()
    assert not (run.folder.folder / "scores").exists()
    assert cluster(run, 0.4).clip_ids == ("c3", "c4", "c6", "c7", "c8", "c9")


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_cut_anew_as_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces = rng.integers(0, 4, 12)  # of each clip; some have none
    stays = rng.random(12) < 0.6
    old, new = rng.integers(1, 5, 2)
    rows = [[(c, k) for c in range(s, min(s + old, 12)) for k in range(faces[c])]
            for s in range(0, 12, old)]  # fmt: skip
    schema = pa.schema([("clip_id", pa.string()), ("k", pa.int64())])
    tables = [
        pa.Table.from_pylist([{"clip_id": str(c), "k": k} for c, k in r], schema) for r in rows
    ]
    left = np.flatnonzero(stays)
    lengths = [int(faces[left[s : s + new]].sum()) for s in range(0, len(left), new)]
    cut = list(_cut_rows(tables, pa.chunked_array([list(map(str, left))], pa.string()), lengths))
    by_hand = [[(str(c), k) for c in left[s : s + new] for k in range(faces[c])]
               for s in range(0, len(left), new)]  # fmt: skip
    assert [[tuple(row.values()) for row in table.to_pylist()] for table in cut] == by_hand


class Killed(BaseException):
    """No `except Exception` stops it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, folder: Path, step: int) -> None:
    """Raise `Killed` in the place of the operation number `step`, and of all later ones."""
    steps = itertools.count()

    def stop(operation, path: Path, *arguments: object, **named: object) -> object:
        if folder in path.parents and ".at_work" not in path.parts and next(steps) >= step:
            raise Killed
        return operation(path, *arguments, **named)

    for name in ("unlink", "replace", "rmdir", "touch"):
        monkeypatch.setattr(Path, name, partialmethod(partial(stop, getattr(Path, name))))


@pytest.mark.parametrize("stride", mostly_slow((1, 9), 9))
def test_killed_at_any_file_operation_it_is_finished(
    copied: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    """Half of it is never read: whoever opens the run finishes it, or none of it was begun."""
    run, whole = copied / "run", copied / "whole"
    (run / "a.png").touch()
    shutil.copytree(run, whole)
    forget(open_made(copied), ["p1"])
    expected = rows_of(open_made(copied))
    kills = {"before": 0, "unfinished": 0}
    for step in itertools.count(0, stride):
        shutil.rmtree(run)
        shutil.copytree(whole, run)
        opened = open_made(copied)
        try:
            with monkeypatch.context() as patched:
                kill_at(patched, run, step)
                forget(opened, ["p1"])
            break
        except Killed:
            pass
        if read_forgotten(run) == NOBODY:
            kills["before"] += 1
            assert len(rows_of(open_made(copied))) == 49
            continue
        if read_forgotten(run).unfinished is not None:
            kills["unfinished"] += 1
            with pytest.raises(VidfaceError, match="broken off"):
                gather_run(run)
        assert rows_of(open_made(copied)) == expected, step
        left = {path.name for path in run.iterdir() if path.name[0] not in "._"}
        assert left == {"clips.parquet", "embeddings", "forgotten.json"}
    assert kills["before"] > 0
    assert kills["unfinished"] > 20 / stride


def test_broken_off_it_is_finished_without_the_manifest(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_made(copied)
    with monkeypatch.context() as patched:
        patched.setattr("vidface.runs.forgetting.finish_forgetting", lambda *_: None)
        forget(run, ["p1"])
    assert read_forgotten(copied / "run").unfinished is not None
    (copied / "manifest.csv").rename(copied / "moved.csv")
    with pytest.raises(VidfaceError, match=r"manifest.csv: No such file"):
        open_made(copied)
    assert read_forgotten(copied / "run").unfinished is None
    left = pq.read_table(copied / "run" / "clips.parquet")["clip_id"].to_pylist()
    assert left == [f"c{number}" for number in range(10) if number % 5 != 1]


def test_a_run_that_was_opened_before_writes_nothing_after(copied: Path) -> None:
    stale = open_made(copied)
    forget(open_made(copied), ["p1"])
    for work in (lambda: extract(stale, force=True), lambda: cluster(stale, 0.4),
                 lambda: forget(stale, ["p2"])):  # fmt: skip
        with pytest.raises(VidfaceError, match="forgotten since it was opened"):
            work()


def test_two_spellings_of_a_name(copied: Path) -> None:
    manifest = copied / "manifest.csv"
    text = manifest.read_text().replace("c1,p1", "c1,Jos\u00e9").replace("c6,p1", "c6,Jose\u0301")
    manifest.write_text(text)
    notes: list[str] = []
    plan = plan_forgetting(open_made(copied), ["Jose\u0301"], notify=notes.append)
    assert plan.clips == ("c1", "c6")
    assert notes == ["'Jose\u0301' is written 'Jos\\xe9', 'Jose\\u0301' in the manifest"]
    forget(open_made(copied), ["Jos\u00e9"])
    for name in ("Jos\u00e9", "Jose\u0301"):
        assert read_forgotten(copied / "run").forgets_person(name)
    assert plan_forgetting(open_made(copied), ["Jose\u0301"]).clips == ()


def test_whom_it_does_not_know(copied: Path) -> None:
    run = open_made(copied)
    with pytest.raises(UsageError, match=r"unknown person 'p11' \(known: p1"):
        plan_forgetting(run, ["p11"])
    with pytest.raises(UsageError, match=r"unknown clip 'zzz' \(known: c0, c1, c2, c3, c4, …\)"):
        plan_forgetting(run, clips=["zzz"])
    with pytest.raises(UsageError, match="unknown person ''"):
        plan_forgetting(run, [""])
    with pytest.raises(VidfaceError, match="no clip would be left; remove the whole directory"):
        forget(run, [f"p{number}" for number in range(5)])
    run.folder.shard_path(1).unlink()
    with pytest.raises(VidfaceError, match=r"shard-00001.arrow.*`vidface extract` makes it again"):
        forget(run, ["p1"])
    assert not (copied / "run" / FORGOTTEN).exists()


def test_of_a_limited_run_the_others_stay(tmp_path: Path) -> None:
    """Nobody takes the place of the forgotten, so what was extracted is the manifest's still."""
    ids = [f"p{k % 4}-{k}" for k in range(12)]
    np.savez(tmp_path / "rows.npz", clip_id=ids, embedding=np.eye(12, dtype="f4"))
    lines = [f"{clip_id},rows.npz,{clip_id[:2]},val" for clip_id in ids]
    (tmp_path / "all.csv").write_text("\n".join(["clip_id,path,identity,split", *lines]))
    (tmp_path / "few.toml").write_text(
        '[manifest]\npath = "all.csv"\nlimit = 8\n[faces]\nsource = "features"\n'
        '[run]\ndir = "run"\n'
    )
    run = open_run(load_pipeline(tmp_path / "few.toml"))
    extract(run)
    before = gather_run(tmp_path / "run").clips
    person = before.identities[0]
    forget(run, [person])
    left = [clip_id for clip_id in before.clip_ids if not clip_id.startswith(person)]
    opened = open_run(load_pipeline(tmp_path / "few.toml"))
    assert opened.clips()["clip_id"].to_pylist() == left
    assert len(left) < 8
    assert gather_run(tmp_path / "run").clips.identities == tuple(name[:2] for name in left)


def test_texts_that_name_them_however_they_are_written(copied: Path) -> None:
    """JSON escapes, CSV doubles quotation marks, and é may be one character or two."""
    manifest = copied / "manifest.csv"
    rows = manifest.read_text().replace("p1", '"Jos\u00e9 ""Pepe"" P"')
    manifest.write_text(rows, encoding="utf-8")
    name, run = 'Jos\u00e9 "Pepe" P', copied / "run"
    texts = {
        "escaped.json": json.dumps(name),
        "plain.json": json.dumps(name, ensure_ascii=False),
        "list.csv": rows,
        "decomposed.txt": 'x Jose\u0301 "Pepe" P x',
    }
    for file, text in {**texts, "other.txt": "Jose"}.items():
        (run / file).write_text(text, encoding="utf-8")
    plan = plan_forgetting(open_made(copied), [name])
    assert texts.keys() <= set(plan.removed)
    assert "other.txt" not in plan.removed


def test_what_is_damaged_is_found_before_anything_is_changed(copied: Path) -> None:
    path = open_made(copied).folder.shard_path(2)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(VidfaceError, match=r"shard-00002.arrow: damaged"):
        forget(open_made(copied), ["p1"])
    assert not (copied / "run" / FORGOTTEN).exists()


def test_the_users_own_files_stay_wherever_they_lie(
    vidface, pipeline: Path, tmp_path: Path
) -> None:
    """The run directory is the working directory, with manifest, clips and settings in it."""
    assert vidface("extract", "--run", ".").code == 0
    (tmp_path / "mail.txt").write_text("see quirinus.t")
    (tmp_path / "mine.png").write_bytes(b"")
    (tmp_path / "own.mp4").write_bytes(b"")
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "sea.png").write_bytes(b"")
    (tmp_path / "out.png").symlink_to(tmp_path / "set" / "green" / "val" / "0.png")
    before = {p: p.read_bytes() for p in [pipeline, *(tmp_path / "set").rglob("*.*")]}
    done = vidface("forget", "--clip", CLIPS[0], "--run", ".", "--dry-run", "--json")
    assert set(done.json["removed"]) == {
        "_profile.json.xxh3", "profile.json", "mail.txt", "mine.png", "out.png"
    }  # fmt: skip
    assert any("holiday/sea.png" in line for line in done.json["untouched"])
    assert not done.json["done"]
    assert (tmp_path / "mail.txt").exists()
    assert vidface("forget", "--clip", CLIPS[0], "--run", ".", "--yes").code == 0
    assert before == {p: p.read_bytes() for p in before}
    assert (tmp_path / "own.mp4").exists()
    assert (tmp_path / "holiday" / "sea.png").exists()
    assert not (tmp_path / "mail.txt").exists()


def test_a_strangers_list_leads_nowhere_else(copied: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / "deep").mkdir(parents=True)
    (precious / "x").touch()
    run = copied / "run"
    (run / "link").symlink_to(precious)
    names = ["../../precious/x", "link/x", str(precious / "x"), "link", ".", "..", ""]
    begun = NOBODY.with_more([], [], ["p1"], {"remove": names, "clips_sha256": ["", ""]})
    begun.write(run)
    open_made(copied)
    assert (precious / "x").exists()
    path = run / FORGOTTEN
    for wrong in ("{}", '{"salt": "", "clips": [], "people": [], "version": 1}', "[]", "nope"):
        path.write_text(wrong)
        (run / "_forgotten.json.xxh3").unlink(missing_ok=True)
        with pytest.raises(VidfaceError, match=r"forgotten.json"):
            open_made(copied)


def test_it_asks(vidface, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vidface("extract").code == 0
    assert "name a PERSON" in vidface("forget").err
    assert "add --yes" in vidface("forget", PERSON).err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert vidface("forget", PERSON).code == 1
    assert not (tmp_path / "run" / FORGOTTEN).exists()
    shutil.copytree(tmp_path / "run", tmp_path / "run-b")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y")
    done = vidface("forget", PERSON)
    assert (done.code, "another run" in done.out, "run-b: 2 clip(s)" in done.out) == (0, True, True)


@pytest.mark.slow
def test_out_of_a_bucket(vidface, pipeline: Path, monkeypatch, tmp_path: Path) -> None:
    import fsspec

    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))
    flags = ("--run", "memory://bucket/forget")
    for stage in ("extract", "cluster", "score"):
        assert vidface(stage, *flags).code == 0
    bucket = fsspec.filesystem("memory")
    done = vidface("forget", PERSON, *flags, "--yes")
    assert "old versions that the bucket keeps" in done.out, done.err
    objects = {path: bucket.cat(path) for path in bucket.find("bucket/forget")}
    assert not [path for path, content in objects.items() if PERSON.encode() in content]
    assert any(path.endswith("forgotten.json") for path in objects)
    shutil.rmtree(tmp_path / "cache")
    assert "2 clip(s)" in vidface("cluster", *flags).err
