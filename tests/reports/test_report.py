"""`vidface report` without a browser: what is gathered, escaped and left out."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import write_crop
from vidface.core.digests import DIGEST_SUFFIX
from vidface.core.errors import UsageError, VidfaceError
from vidface.reports.contents import ReportContents
from vidface.reports.gather import RunData, gather_run
from vidface.reports.hard_pairs import hardest_pairs
from vidface.reports.page import ReportSettings, write_report
from vidface.reports.page_data import choose_rows, page_document
from vidface.reports.picks import pick_clips
from vidface.reports.printed_charts import ChartPrinter
from vidface.reports.pseudonyms import Names
from vidface.reports.scores import list_figures, read_score
from vidface.reports.sprites import MOST_FACES, TILE, make_sprite, read_shown_faces
from vidface.reports.templating import clean_text, read_asset, report_templates
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import open_run
from vidface.runs.scoring import score
from vidface.runs.sweeps import sweep
from vidface.settings.pipeline import load_pipeline

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three people, one with a hostile name: extracted, clustered, scored, swept."""
    from tests.conftest import write_colour_network

    folder = tmp_path_factory.mktemp("report")
    network = write_colour_network(folder / "colour.onnx")
    people = {HOSTILE: "red", "green": "green", "blue": "blue"}
    intruders = {"red": "green", "green": "blue", "blue": "red"}
    lines = ["clip_id,path,identity,split"]
    for person, colour in people.items():
        for k in range(3):
            write_crop(folder / "set" / colour / "train" / f"{k}.png", colour, seed=k)
        for k in range(5):
            who = colour if k % 2 == 0 else intruders[colour]
            write_crop(folder / "set" / colour / "val" / f"{k}.png", who, seed=10 + k)
        lines.append(f"{colour}.t,{colour}/train,{person},train")
        lines.append(f"{'</script>' if colour == 'red' else colour}.v,{colour}/val,{person},val")
    write_crop(folder / "set" / "stranger" / "0.png", "yellow")
    lines.append("stranger,stranger,,val")
    lines.append("lost,nowhere,green,val")
    (folder / "set" / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "colours.toml").write_text(
        f"""
[manifest]
path = "{(folder / "set" / "manifest.csv").as_posix()}"
allow_missing = true
[faces]
source = "aligned"
keep_crops = true
[backbone]
weights = "{network.as_posix()}"
color = "rgb"
mean = 127.5
std = 127.5
[cluster]
threshold = 0.5
[score]
fars = "1e-1,1e-2"
bootstrap = 50
[run]
dir = "run"
""",
        encoding="utf-8",
    )
    run = open_run(load_pipeline(folder / "colours.toml"))
    extract(run)
    cluster(run, 0.5)
    score(run, None)
    score(run, 0.5)
    sweep(run, [0.0, 0.5, 0.9])
    return run.folder.folder


@pytest.fixture(autouse=True)
def _no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib takes a second a report; `page` alone, which is made before this, has it."""
    monkeypatch.setattr("vidface.reports.printed_charts.can_draw", lambda: False)


@pytest.fixture
def run_folder(scored: Path, tmp_path: Path) -> Path:
    """A copy that a test may change: it has no digests, as older runs."""
    ignored = shutil.ignore_patterns(f"*{DIGEST_SUFFIX}")
    return Path(shutil.copytree(scored, tmp_path / "run", ignore=ignored))


@pytest.fixture(scope="module")
def page(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    made = write_report([scored], out)
    assert made.bytes == out.stat().st_size
    assert (made.runs, made.clips, made.pictures) == (1, 8, 7)
    return out.read_text(encoding="utf-8")


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def tags_of(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    found = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            found.append((tag, attrs))

    Tags().feed(text)
    return found


# What is gathered --------------------------------------------------------------------------------


def test_a_run_is_gathered_from_its_files(scored: Path) -> None:
    run = gather_run(scored)
    assert run.notes == ()
    assert run.clips.clip_ids[1] == "</script>.v"
    assert run.clips.identities == (
        HOSTILE, HOSTILE, "green", "green", "blue", "blue", "", "green",
    )  # fmt: skip
    assert run.clips.states[-1] == "missing"
    assert run.clips.counts["dropped"].tolist() == [0, 2, 0, 2, 0, 2, 0, 0]
    assert run.denoising == "threshold 0.5"
    assert [s.denoising for s in run.scores] == ["threshold none", "threshold 0.5"]
    assert run.sweep is not None
    assert [row.threshold for row in run.sweep.rows] == [None, 0.0, 0.5, 0.9]
    assert set(run.average_precision) == {HOSTILE, "green", "blue"}
    with pytest.raises(VidfaceError, match="no finished extraction"):
        gather_run(scored / "scores")


def test_figures_are_those_of_the_score_file(scored: Path) -> None:
    path = next(scored.glob("scores/*_0.5.json"))
    document = json.loads(path.read_text())
    found = {figure.name: figure for figure in read_score(path).figures}
    assert found["map_at_100"].value == document["retrieval"]["map_at_100"]
    assert found["map_at_100"].ci95 == tuple(document["retrieval"]["ci95"])
    tar = document["verification"]["tar_at_far"]
    assert found["tar_at_far.1e-1"].value == tar["1e-1"]["tar"]
    assert found["tar_at_far.1e-2"].value is None
    assert found["tar_at_far.1e-2"].note == "needs ≥ 100 impostor pairs"
    assert found["eer"].value == document["verification"]["eer"]["value"]
    assert found["cmc.1"].value == document["identification"]["cmc"]["1"]["value"]


def test_few_people_are_said_where_intervals_are_shown(run_folder: Path, page: str) -> None:
    few = "3 people are few: intervals called 95 % cover the truth"
    assert f"in brackets 95 % intervals; {few}" in page
    path = next(run_folder.glob("scores/*_0.5.json"))
    document = json.loads(path.read_text())
    for people, note in ((3, few), (99, "99 people are few"), (100, ""), (None, "")):
        document["people"] = people
        if people is None:  # as older files are
            del document["people"]
        path.write_text(json.dumps(document))
        found = read_score(path).interval_note
        assert found.startswith(note)
        assert bool(found) == bool(note)


def test_a_protocol_that_the_report_does_not_know_is_shown(run_folder: Path) -> None:
    path = next(run_folder.glob("scores/*_0.5.json"))
    document = json.loads(path.read_text())
    document["toy_protocol"] = {
        "hit_rate": {"value": 0.8125, "ci95": [0.75, 0.875], "ci95_note": "toys are resampled"},
        "nothing <b>": {"value": None, "ci95": None},
        "odd": {"value": "0.5", "ci95": [1]},
        "toys": 3,
    }
    path.write_text(json.dumps(document))
    figures = {f.label: f for f in read_score(path).figures}
    assert figures["toy protocol: hit rate"].value == 0.8125
    assert figures["toy protocol: hit rate"].name == "toy_protocol.hit_rate"
    assert figures["toy protocol: odd"].value is figures["toy protocol: odd"].ci95 is None
    assert "toy protocol: toys" not in figures
    write_report([run_folder], run_folder / "r.html")
    text = (run_folder / "r.html").read_text(encoding="utf-8")
    row = re.search(r'<tr><th scope="row">toy protocol: hit rate</th>.*?</tr>', text, re.S)
    assert row is not None
    assert "0.8125" in row[0]
    assert "[0.7500, 0.8750]*" in row[0]
    assert "* toys are resampled" in text
    assert "toy protocol: nothing &lt;b&gt;" in text


def test_a_section_that_is_hostile_is_left_out() -> None:
    assert list_figures({"toy": [1], "counts": {"clips": {"value": 1}}, "other": None}) == ()


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b"[" * 100_000], ids=["cut", "list", "bytes", "deep"]
)
def test_a_damaged_file_is_a_note_not_an_error(run_folder: Path, content: bytes) -> None:
    path = next(run_folder.glob("scores/*_0.5.json"))
    path.write_bytes(content)
    (run_folder / "sweeps" / "bad.json").write_bytes(content)
    run = gather_run(run_folder)
    assert len(run.scores) == 1
    assert any(str(path) in note for note in run.notes)
    assert any("bad.json" in note for note in run.notes)


def test_a_changed_manifest_takes_the_identities_away(run_folder: Path, tmp_path: Path) -> None:
    document = json.loads((run_folder / "run.json").read_text())
    manifest = tmp_path / "other.csv"
    text = Path(document["manifest"]["path"]).read_text()
    manifest.write_text(text.replace("stranger,,", "stranger,ann,"))
    document["manifest"].update(path=str(manifest), root=str(tmp_path))
    (run_folder / "run.json").write_text(json.dumps(document))
    run = gather_run(run_folder)
    assert run.clips.identities[6] == "ann"  # identities may be edited; scores are older then
    assert "edited since the newest score" in run.notes[0]
    manifest.write_text(text.replace("stranger,stranger", "stranger,elsewhere"))
    run = gather_run(run_folder)
    assert set(run.clips.identities) == {""}
    assert "changed since the extraction" in run.notes[0]
    manifest.unlink()
    assert "identities and splits are not known" in gather_run(run_folder).notes[0]


def test_an_outdated_or_damaged_clustering_is_not_shown(run_folder: Path) -> None:
    from vidface.runs import artefacts

    path = next(run_folder.glob("clusters/*/descriptors.parquet"))
    table, made = artefacts.read_parquet(path)
    artefacts.write_parquet(path, table, {**made, "extraction_created": "another"})
    run = gather_run(run_folder)
    assert run.clustering is None
    assert "of another extraction" in run.notes[0]
    artefacts.write_parquet(path, table.drop_columns(["kept"]), made)
    assert "unreadable" in gather_run(run_folder).notes[0]
    assert write_report([run_folder], run_folder / "x.html").pictures == 7  # all count as kept


# Hard pairs and picks ----------------------------------------------------------------------------


def naive_pairs(rows: np.ndarray, who: list[str], count: int) -> tuple[list, list]:
    impostor, genuine = [], []
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            if not rows[a].any() or not rows[b].any() or (who[a] == "" and who[b] == ""):
                continue
            kind = genuine if who[a] == who[b] else impostor
            kind.append((float(rows[a] @ rows[b]), a, b))
    impostor.sort(key=lambda p: (-p[0], *p[1:]))
    genuine.sort()
    return impostor[:count], genuine[:count]


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_hardest_pairs_are_those_of_the_naive_loop(n: int, monkeypatch) -> None:
    monkeypatch.setattr("vidface.reports.hard_pairs._BLOCK_BYTES", 4 * 40 * 7)  # blocks of 7 rows
    rng = np.random.default_rng(n)
    rows = rng.integers(-2, 3, (n, 3)).astype(np.float32)  # exact products, many ties, zero rows
    who = [rng.choice(["", "a", "b", "c"]) for _ in range(n)]
    found = hardest_pairs(rows, who, 9)
    impostor, genuine = naive_pairs(rows, who, 9)
    assert [(p.score, p.a, p.b) for p in found.impostor] == impostor
    assert [(p.score, p.a, p.b) for p in found.genuine] == genuine


def test_of_too_many_clips_some_are_compared() -> None:
    rows = np.ones((10, 1), np.float32)
    found = hardest_pairs(rows, ["a"] * 10, 3, most_clips=4)
    assert (found.compared, found.of, len(found.genuine)) == (4, 10, 3)
    assert hardest_pairs(rows, ["a"] * 10, 0).genuine == ()
    with pytest.raises(VidfaceError, match="9 identities for 10"):
        hardest_pairs(rows, ["a"] * 9, 1)


def gather_moving(folder: Path) -> RunData:
    """The run without the flag `still`: flat colours are stills, and every clip would have it."""
    run = gather_run(folder)
    assert run.clips.flags["still"].any()
    run.clips.flags["still"][:] = False
    return run


def test_stills_are_shown_the_stillest_first(scored: Path) -> None:
    run = gather_run(scored)
    still = [row for row, why in pick_clips(run, 100).reasons.items() if "still" in why]
    shares = run.clips.cosines["still_share"]
    assert sorted(still) == np.flatnonzero(run.clips.flags["still"]).tolist()
    assert min(shares[still]) >= 0.3
    assert pick_clips(run, 100).reasons[0] == ("still",)  # train: not among the scored


def test_picks_say_why(scored: Path) -> None:
    picks = pick_clips(gather_moving(scored), 100)
    assert sorted(picks.reasons) == [0, 1, 2, 3, 4, 5, 6]  # the lost clip has no face
    assert {row for row, why in picks.reasons.items() if "contested" in why} == {1, 3, 5}
    assert "thin" in picks.reasons[6]
    assert picks.reasons[0] == ("other",)  # train: not among the scored, and nothing wrong
    few = pick_clips(gather_moving(scored), 2)
    assert (len(few.reasons), few.left_out) == (2, 2)
    assert "other" not in {why for names in few.reasons.values() for why in names}


# Faces -------------------------------------------------------------------------------------------


def test_faces_are_of_the_clip_in_time_order(scored: Path) -> None:
    run = gather_run(scored)
    [faces] = read_shown_faces(open_folder(scored), run.clustering, {"</script>.v": 1})
    assert (faces.row, faces.of) == (1, 5)
    assert faces.clusters.tolist() == [0, 1, 0, 1, 0]
    assert faces.order.tolist() == [0, 2, 4, 1, 3]
    assert faces.captions == tuple(f"{k}.png" for k in range(5))
    assert faces.matrix.shape == (5, 5)
    assert (np.diag(faces.matrix) == 254).all()
    assert (faces.matrix[:3, :3] > 250).all()
    assert (faces.matrix[:3, 3:] < 127).all()  # red and green look away from each other
    picture = np.asarray(Image.open(io.BytesIO(faces.webp or b"")).convert("RGB")).astype(int)
    assert picture.shape == (TILE, 5 * TILE, 3)
    for k, colour in enumerate([0, 1, 0, 1, 0]):  # red, green
        assert picture[:, k * TILE : (k + 1) * TILE].mean((0, 1)).argmax() == colour


def open_folder(path: Path):
    from vidface.runs.run_folder import RunFolder

    return RunFolder(path)


def test_a_long_clip_is_thinned_and_noise_does_not_blow_up() -> None:
    rng = np.random.default_rng(0)
    jpegs: list[bytes | None] = []
    for _ in range(MOST_FACES):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (112, 112, 3), np.uint8)).save(out, "JPEG", quality=95)
        jpegs.append(out.getvalue())
    made = make_sprite(jpegs, 70_000)
    assert made is not None
    assert len(made) <= 70_000
    assert make_sprite(jpegs, 1000) is None
    grey = make_sprite([None, b"no picture", jpegs[0]], 50_000)
    assert grey is not None
    tiles = np.asarray(Image.open(io.BytesIO(grey)).convert("RGB"))
    assert abs(int(tiles[:, : 2 * TILE].mean()) - 128) < 3
    assert make_sprite([], 50_000) is None


def test_clusters_that_do_not_fit_are_refused(run_folder: Path) -> None:
    from vidface.runs import artefacts

    run = gather_run(run_folder)
    assert run.clustering is not None
    path = run.clustering / "faces.parquet"
    table, made = artefacts.read_parquet(path)
    artefacts.write_parquet(path, table.slice(0, 5), made)
    with pytest.raises(VidfaceError, match="clusters do not fit the faces"):
        write_report([run_folder], run_folder / "x.html")
    assert not (run_folder / "x.html").exists()


def test_show_and_plot_read_the_same_faces(scored: Path, tmp_path: Path) -> None:
    from vidface.cli.plots import plot
    from vidface.runs.clusterings import find_latest_denoising
    from vidface.runs.crops import read_clip_faces
    from vidface.runs.run import open_run_folder

    run = open_run_folder(scored)
    faces = read_clip_faces(run, "green.v", find_latest_denoising(run))
    assert faces.clusters.tolist() == [0, 1, 0, 1, 0]
    assert faces.captions == [f"{k}.png" for k in range(5)]
    out = tmp_path / "clip.svg"
    drawn = CliRunner().invoke(plot, ["clip", "green.v", str(scored), "--out", str(out), "--json"])
    assert json.loads(drawn.stdout) == {"out": str(out), "faces": 5}
    assert out.read_bytes().count(b"<image") == 5
    words = ["clip", "green.v", str(scored), "--threshold", "0.9", "--out", str(out)]
    refused = CliRunner().invoke(plot, words).exception
    assert "no clustering at threshold 0.9; run `vidface cluster`" in str(refused)


# The page ----------------------------------------------------------------------------------------


def test_hostile_names_stay_text(page: str) -> None:
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    assert "</script>.v" not in page
    document = data_of(page)
    assert document["runs"][0]["clips"]["identity"][0] == HOSTILE
    assert document["runs"][0]["clips"]["clip_id"][1] == "</script>.v"
    assert clean_text("\x00\u202ea\ud800").encode("utf-8") == "��a�".encode()
    template = report_templates().from_string("{{ a }}<b title='{{ a }}'>{{ b | tojson }}")
    text = template.render(a="{{b}}'\"\x00<", b={"</script>": "<!--\u2028&"})
    assert text.startswith("{{b}}&#39;&#34;�&lt;<b title='{{b}}&#39;&#34;�&lt;'>")
    block = text.rpartition(">")[2]
    assert not set("<>&\u2028") & set(block)
    assert json.loads(block) == {"</script>": "<!--\u2028&"}


def test_the_policy_names_what_runs_and_nothing_else(page: str) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = html.unescape(found[1])
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    styles = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert (len(scripts), len(styles)) == (2, 1)
    for text in scripts + styles:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for name, attributes in tags_of(page):
        for key, value in attributes:
            assert not key.startswith("on"), (name, key)
            assert key not in ("style", "src"), (name, key)
            assert key != "href" or value.startswith(("#", "data:")), (name, value)


def test_the_page_holds_the_figures_of_the_files(page: str, scored: Path) -> None:
    run = gather_run(scored)
    for figure in run.scores[-1].figures:
        if figure.value is not None:
            assert f"{figure.value:.4f}" in page
    assert run.clips.clip_ids[0] in page
    for hash_ in re.findall(r"[0-9a-f]{64}", json.dumps(dict(run.extraction))):
        assert hash_ in page
    assert "This file contains faces of people, of 7 clips" in page
    assert "The MIT License" in page
    assert "Leon Sorokin" in page
    assert "Seconds a stage" in page
    assert page.count('class="printed"') == page.count('class="has-print"') >= 5
    assert "published" not in page.partition("<script")[0].lower()


def test_the_chart_library_is_the_one_that_is_named() -> None:
    assert read_asset("uPlot.iife.min.js").startswith(
        "/*! https://github.com/leeoniya/uPlot (v1.6.32)"
    )
    assert "Permission is hereby granted" in read_asset("uPlot.LICENSE")


def test_without_faces_there_is_no_picture(scored: Path, tmp_path: Path) -> None:
    made = write_report([scored], tmp_path / "r.html", ReportSettings(faces=False))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert made.pictures == 0
    assert 'id="sprite-' not in text
    assert "UklGR" not in text
    assert "no faces (made with --no-faces)" in text
    assert len(data_of(text)["runs"][0]["faces"]) == 7  # their clusters and cosines are there


def test_pseudonyms_hide_every_name(run_folder: Path, tmp_path: Path) -> None:
    settings = ReportSettings(pseudonymise=True, command="vidface report secret")
    write_report([run_folder], tmp_path / "r.html", settings)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    document = data_of(text)
    clips = document["runs"][0]["clips"]
    assert {i for i in clips["identity"] if i} == {"person 1", "person 2", "person 3"}
    assert len(set(clips["identity"])) == 4
    assert sorted(clips["clip_id"]) == sorted(f"clip {n}" for n in range(1, 9))
    visible = text.partition("<script>")[0]
    for name in ("green", "stranger", "lost", "nowhere", str(run_folder), "secret", "manifest.csv"):
        assert name not in visible
    assert document["runs"][0]["label"] == "run 1"


def test_pseudonyms_do_not_follow_the_alphabet_or_the_order() -> None:
    names = [f"p{k:02}" for k in range(20)]
    one, other = (Names(order, [], hidden=True) for order in (names, names[::-1]))
    numbers = [one.identity(name) for name in names]
    assert numbers == [other.identity(name) for name in names]
    assert numbers != [f"person {k}" for k in range(1, 21)]
    assert len(set(numbers)) == 20
    assert Names(names, []).identity("p03") == "p03"


def test_two_runs_stand_side_by_side(run_folder: Path, scored: Path, tmp_path: Path) -> None:
    document = json.loads((run_folder / "run.json").read_text())
    document["manifest"]["prepare"] = "lfrc"
    (run_folder / "run.json").write_text(json.dumps(document))
    profile = {"stages": {"decode": 1.0, "detect": 3.0, "align": 0, "embed": 0}, "wall_seconds": 8,
               "clips": 8, "frames": 80, "faces": 40, "workers": 2, "executor": "serial",
               "runtime": "onnx"}  # fmt: skip
    (run_folder / "profile.json").write_text(json.dumps(profile))
    made = write_report([scored, run_folder], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    visible = text.partition("<script")[0]
    assert (made.runs, made.clips) == (2, 16)
    assert 'id="differences"' in visible
    assert "+0.0000" in visible
    assert "80, 10.0 a second" in visible
    assert "<dt>limit</dt><dd>detect</dd>" in visible
    assert "75.0%" in visible
    assert "published: y2" in visible
    assert "0.47191" in visible
    references = [len(sweep["references"]) for sweep in data_of(text)["sweeps"]]
    assert references == [0, 2]
    assert len({curve["label"] for curve in data_of(text)["curves"]}) == 4


def test_runs_that_do_not_fit_are_shown_all_the_same(run_folder: Path, scored: Path) -> None:
    (run_folder / "run.json").unlink()
    out = run_folder / "r.html"
    write_report([scored, run_folder], out)
    assert "cannot be compared" in out.read_text(encoding="utf-8")


def test_of_many_clips_those_that_matter_are_in_the_table(scored: Path, monkeypatch) -> None:
    run = gather_moving(scored)
    picks = pick_clips(run, 2)
    monkeypatch.setattr("vidface.reports.page_data.MOST_ROWS", 6)
    rows = choose_rows(run, picks)
    assert rows == sorted(rows)
    assert len(rows) == 6
    assert {*picks.reasons, 1, 3, 5, 6, 7} <= set(rows)  # contested, thin, missing
    contents = ReportContents(
        [run], [picks], [], Names([], []), ReportSettings(), ChartPrinter([run])
    )
    document = page_document(contents, [[]])
    [shown] = document["runs"]
    picked = [shown["clips"]["clip_id"][at] for at in shown["reasons"]]
    assert picked == [run.clips.clip_ids[row] for row in picks.reasons]


def test_an_extraction_alone_has_a_report(run_folder: Path) -> None:
    for name in ("clusters", "scores", "sweeps", "crops"):
        shutil.rmtree(run_folder / name)
    (run_folder / "profile.json").unlink()
    made = write_report([run_folder], run_folder / "r.html")
    text = (run_folder / "r.html").read_text(encoding="utf-8")
    assert (made.clips, made.pictures) == (8, 0)
    assert "No scores yet" in text
    assert "No profile" in text
    assert "no faces: the runs were extracted without keep_crops" in text


@pytest.mark.parametrize(
    ("folders", "out", "match"),
    [(0, "r.html", "1 to 8 runs, got 0"), (9, "r.html", "got 9"), (1, "r.pdf", "written as .html")],
)
def test_what_cannot_be_written_is_refused(
    scored: Path, tmp_path: Path, folders: int, out: str, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        write_report([scored] * folders, tmp_path / out)
    with pytest.raises(VidfaceError, match="most_clips must be 0 or more"):
        ReportSettings(most_clips=-1)
