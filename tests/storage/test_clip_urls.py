"""Clips at URLs: a real S3 server, a web server that lies, memory://; against files here."""

from __future__ import annotations

import errno
import io
import pickle
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import absent
from tests.s3_server import (
    ACCESS_KEY,
    SECRET_KEY,
    S3Server,
    moto_port_fixture,  # noqa: F401
    s3_fixture,  # noqa: F401
)
from vidface.core.errors import VidfaceError
from vidface.core.redaction import is_url, redacted, redacted_text
from vidface.frames.sampling import sample_frames
from vidface.settings.manifests import read_manifest
from vidface.storage import clip_urls as media_urls
from vidface.storage import objects as stores
from vidface.storage import store_failures
from vidface.storage.clip_urls import UrlReader
from vidface.storage.media import FolderRoot, MediaRoot, UrlRoot, open_root
from vidface.storage.names import is_image_name
from vidface.storage.objects import Retries
from vidface.storage.urls import Address, base_name, unsigned

GOLDEN = Path(__file__).parents[1] / "golden" / "bframes.mp4"
VIDEO = bytes(np.random.default_rng(0).integers(0, 256, 40_000, dtype=np.uint8))
FILES = {
    "set/p/10.jpg": b"ten",
    "set/p/2.jpg": b"two",
    "set/p/._2.jpg": b"apple",
    "set/p/notes.txt": b"text",
    "set/p/deeper/1.png": b"one",
    "set/a b#1?.jpg": b"odd",
    "set/clip.mp4": VIDEO,
    "set/empty.mp4": b"",
}
SECRET = "hunter2"


class Pauses:
    """In place of sleeping: what the pauses would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def reader(pauses: Pauses) -> UrlReader:
    return UrlReader(Retries(tries=3, first_pause_seconds=0.5, sleep=pauses))


class Web(BaseHTTPRequestHandler):
    """A web server with ranges; the first part of a path says how it misbehaves."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    files: dict[str, bytes]
    asked: list[str]
    failures: dict[str, int]

    def do_GET(self) -> None:
        from urllib.parse import unquote

        path, _, query = self.path.partition("?")
        mode, _, name = unquote(path).lstrip("/").partition("/")
        self.asked.append(self.headers.get("Range", "") + " " + self.path)
        self.close_connection = mode in ("endless", "ignores_endless", "short")
        if self.failures.get(mode, 0) > 0:
            self.failures[mode] -= 1
            return self.send(503, b"")
        if mode == "signed" and query != f"X-Amz-Signature={SECRET}/b%2F":
            return self.send(403, f"bad {self.path}".encode())
        if mode == "private" and "Authorization" not in self.headers:
            return self.send(401, b"who?")
        if name not in self.files:
            return self.send(404, b"none")
        data = self.files[name]
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None or mode in ("ignores", "ignores_endless"):
            if mode in ("endless", "ignores_endless"):
                return self.endless(200)
            if mode == "packed":
                return self.send(200, data, ("Content-Encoding", "gzip"))
            return self.send(200, data)
        start, end = int(found[1]), min(int(found[2]) + 1, len(data))
        if start >= len(data):
            return self.send(416, b"", ("Content-Range", f"bytes */{len(data)}"))
        total = 10**15 if mode == "huge" else len(data)
        where = ("Content-Range", f"bytes {start}-{end - 1}/{total}")
        if mode == "elsewhere" and end - start > 1:
            where = ("Content-Range", f"bytes {start + 1}-{end}/{total}")
        if mode == "endless" and end - start > 1:
            return self.endless(206, where)
        if mode == "changing":
            return self.send(206, data[start:end], where, ("ETag", f'"{len(self.asked)}"'))
        if mode == "short" and end - start > 1:
            return self.send(206, data[start : end - 1], where, length=end - start)
        if mode == "silent_short" and end - start > 1:
            return self.send(206, data[start : end - 1], where)
        return self.send(206, data[start:end], where)

    def send(
        self, status: int, body: bytes, *headers: tuple[str, str], length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def endless(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        try:
            for _ in range(64):  # 64 MiB: far more than anybody asks for
                self.wfile.write(bytes(1 << 20))
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Web]]]:
    """Address of the web server, and what it was asked."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        absent("no aiohttp; pip install 'vidface[urls]'")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Handler", (Web,), {"files": dict(FILES), "asked": [], "failures": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def memory() -> Iterator[str]:
    import fsspec

    system = fsspec.filesystem("memory")
    for name, data in FILES.items():
        system.pipe_file(f"/media/{name}", data)
    yield "memory://media"
    system.rm("/media", recursive=True)


# --- addresses ---


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "github://o:r@main/x.jpg",
        "reference://x",
        "local:///etc/passwd",
        "simplecache::s3://b/k.mp4",
        "zip://a::https://h/b.zip",
        "https://h/a::file:///etc/passwd",
        "s3://",
        "s3:///key",
        "https:///a",
        "https://h:99999/a",
        "s3://key:secret@bucket/a",
        "https://h/a\nb",
        "https://h/" + "a" * 9000,
        "clips/a.mp4",
    ],
)
def test_refused_addresses(url: str) -> None:
    with pytest.raises(VidfaceError) as caught:
        Address(url)
    assert "secret" not in str(caught.value).replace("secret@", "")


def test_addresses_join_and_stay_below() -> None:
    root = Address("https://h/p/")
    assert (root / "a b#1?.jpg").url == "https://h/p/a%20b%231%3F.jpg"
    assert (Address("s3://b/p") / "a b?.jpg").key == "b/p/a b?.jpg"
    assert (Address("s3://b/p") / "./x//y").url == "s3://b/p/x/y"
    assert (Address("s3://b/p") / "").url == "s3://b/p"
    assert Address("s3://b/p/m.csv").parent.url == "s3://b/p"
    assert Address("https://h/m.csv?sig=1").parent.url == "https://h"
    assert Address("HTTPS://h/a b").url == "https://h/a%20b"
    assert Address("https://h/a%20b?x=%2F#part").url == "https://h/a%20b?x=%2F"
    for path in ("../x", "a/../../x", "/etc/passwd", "..\\x", "\\x"):
        with pytest.raises(VidfaceError, match="leads out"):
            _ = root / path
    with pytest.raises(VidfaceError, match="query"):
        _ = Address("https://h/p?sig=1") / "a"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:pw@h/a/b.mp4", "https://***@h/a/b.mp4"),
        ("https://h/a?X-Amz-Signature=1&b=2#c", "https://h/a?***"),
        ("https://h/a#token", "https://h/a?***"),
        ("https://u:p/w@h/a", "https://***"),
        ("https://h/@user/a", "https://h/@user/a"),
        ("https://h:80/@user/a", "https://h:80/@user/a"),
        ("abfs://box@account.net/a", "abfs://box@account.net/a"),
        ("abfs://box:key@account.net/a", "abfs://***@account.net/a"),
        ("zip::https://u:p@h/a", "zip::https://***@h/a"),
        ("s3://b/k", "s3://b/k"),
        ("a/b?c.mp4", "a/b?c.mp4"),
        ("/data/a@b.mp4", "/data/a@b.mp4"),
    ],
)
def test_redacted(url: str, shown: str) -> None:
    assert redacted(url) == shown
    if is_url(url):
        assert redacted_text(f"cannot open '{url}' now") == f"cannot open '{shown}' now"


def test_an_address_never_shows_its_secret() -> None:
    address = Address(f"https://me:{SECRET}@h/a.mp4?token={SECRET}")
    shown = f"{address} {address!r} {[address]} {address.name} {address.parent}"
    assert SECRET not in shown
    assert SECRET in address.url
    assert not address.is_plain
    assert Address("https://h/a").is_plain


def test_signing_anew_is_the_same_clip(tmp_path: Path) -> None:
    assert unsigned("https://h/a?id=1&X-Amz-Date=5&sig=3") == "https://h/a?id=1"
    assert unsigned("https://h/a?id=1") != unsigned("https://h/a?id=2")
    assert unsigned("p/a?sig=1.mp4") == "p/a?sig=1.mp4"
    hashes = []
    for sign in ("1", "2"):
        path = tmp_path / "m.csv"
        path.write_text(f"clip_id,path,identity,split\na,https://h/a.mp4?sig={sign},x,val\n")
        hashes.append(read_manifest(path, check_files=False).clips_sha256)
    assert hashes[0] == hashes[1]


def test_names_of_signed_images() -> None:
    assert is_image_name("https://h/p/a.jpg?sig=x/y.mp4")
    assert not is_image_name("https://h/p/a.mp4?name=x.jpg")
    assert base_name("https://h/p/a.jpg?sig=x/y") == "a.jpg"


# --- the same answers everywhere ---


def local_copy(folder: Path) -> Path:
    for name, data in FILES.items():
        path = folder / "local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "local"


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_answers_as_a_folder_does(
    where: str, tmp_path: Path, reader: UrlReader, request: pytest.FixtureRequest
) -> None:
    here = open_root(local_copy(tmp_path))
    if where == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        for name, data in FILES.items():
            s3.put(f"media/{name}", data)
        there: MediaRoot = UrlRoot(Address("s3://bucket/media"), reader.retries)
    else:
        there = UrlRoot(Address(request.getfixturevalue("memory")), reader.retries)
    there = pickle.loads(pickle.dumps(there))  # as worker processes get it
    for path in ("set", "set/p", "set/p/", "set/p/2.jpg", "set/clip.mp4", "set/no.mp4", "no",
                 "set/p/deeper", "../set", "/set", "set/empty.mp4", "set/a b#1?.jpg"):  # fmt: skip
        expected = None if path.startswith(("/", "..")) else here.kind(path)
        assert there.kind(path) == expected, path
        assert there.size(path) == (here.size(path) if expected else 0), path
    assert there.image_names("set/p") == here.image_names("set/p") == ["2.jpg", "10.jpg"]
    assert there.image_names("set/p/deeper") == ["1.png"]
    assert there.all_images() == here.all_images()
    assert there.read("set/p/2.jpg") == b"two"
    assert there.read("set/a b#1?.jpg") == b"odd"
    with there.open_video("set/clip.mp4") as video:
        assert video.read() == VIDEO
    with there.open_video("set/empty.mp4") as video:
        assert video.read() == b""
    for call in (there.read, there.open_video, there.image_names):
        with pytest.raises(FileNotFoundError):
            call("set/no.mp4")
        with pytest.raises(FileNotFoundError):
            call("../set/p")


def test_answers_over_http(web: tuple[str, type[Web]], reader: UrlReader) -> None:
    root = UrlRoot(Address(f"{web[0]}/good"), reader.retries)
    assert root.kind("set/clip.mp4") == "file"
    assert root.kind("set/no.mp4") is None
    assert root.size("set/clip.mp4") == len(VIDEO)
    assert root.size("set/empty.mp4") == 0
    assert root.size("set/no.mp4") == 0
    assert root.read("set/a b#1?.jpg") == b"odd"
    with root.open_video("set/clip.mp4") as video:
        assert video.read() == VIDEO
    with pytest.raises(OSError, match="no listings"):
        root.image_names("set/p")
    with pytest.raises(VidfaceError, match="no listings"):
        root.all_images()


def test_a_folder_hands_urls_on(tmp_path: Path, memory: str) -> None:
    root = pickle.loads(pickle.dumps(open_root(local_copy(tmp_path))))
    assert isinstance(root, FolderRoot)
    assert root.kind(f"{memory}/set/p") == "folder"
    assert root.image_names(f"{memory}/set/p") == ["2.jpg", "10.jpg"]
    assert root.size(f"{memory}/set/p") == 6
    assert root.read(f"{memory}/set/p/2.jpg") == b"two"
    video = root.open_video(f"{memory}/set/clip.mp4")
    assert not isinstance(video, str)
    assert video.read() == VIDEO
    assert root.read(str(tmp_path / "local" / "set" / "p" / "2.jpg")) == b"two"  # as before
    for url in ("file:///etc/passwd", "github://a:b@c/d", "simplecache::memory://media/set"):
        for call in (root.kind, root.read, root.open_video, root.size):
            with pytest.raises(PermissionError):
                call(url)


def test_a_root_may_be_a_file_url(tmp_path: Path) -> None:
    root = open_root(local_copy(tmp_path).as_uri())
    assert isinstance(root, FolderRoot)
    assert root.read("set/p/2.jpg") == b"two"
    for url in (f"https://me:{SECRET}@h/p", f"https://h/p?sig={SECRET}"):
        with pytest.raises(VidfaceError, match="neither a query") as caught:
            open_root(url)
        assert SECRET not in str(caught.value)


# --- videos ---


def test_a_video_can_be_sought_in_and_is_fetched_in_blocks(
    web: tuple[str, type[Web]], reader: UrlReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_urls, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(media_urls, "BLOCKS", 3)
    video = reader.open_video(f"{web[0]}/good/set/clip.mp4")
    twin = io.BytesIO(VIDEO)
    rng = np.random.default_rng(1)
    for _ in range(60):
        offset, length = int(rng.integers(0, 41_000)), int(rng.integers(0, 3000))
        assert video.seek(offset) == twin.seek(offset)
        assert video.read(length) == twin.read(length)
        assert video.tell() == twin.tell()
    assert video.seek(-5, io.SEEK_END) == len(VIDEO) - 5
    assert video.read() == VIDEO[-5:]
    ranges = [re.match(r"bytes=(\d+)-(\d+)", asked) for asked in web[1].asked]
    sizes = [int(found[2]) + 1 - int(found[1]) for found in ranges if found]
    assert max(sizes) == 1000  # never the whole of it
    before = len(web[1].asked)
    video.seek(-5, io.SEEK_END)
    video.read()
    assert len(web[1].asked) == before  # the latest blocks are kept
    video.raw.seek(500)
    assert video.raw.read(5000) == VIDEO[500:1000]  # a block at most is put together


def test_frames_of_a_video_on_s3_with_faults(
    s3: S3Server, reader: UrlReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third request fails, in four ways: the same frames, bit by bit."""
    monkeypatch.setattr(media_urls, "BLOCK_BYTES", max(1, GOLDEN.stat().st_size // 12))
    s3.put("clips/a.mp4", GOLDEN.read_bytes())
    s3.faults.every, s3.faults.methods = 3, ("GET", "HEAD")
    root = UrlRoot(Address("s3://bucket/clips"), reader.retries)
    assert root.kind("a.mp4") == "file"
    with root.open_video("a.mp4") as video:
        there = [frame.image for frame in sample_frames(video, 8.0, name="a.mp4")]
    here = [frame.image for frame in sample_frames(GOLDEN, 8.0)]
    assert len(there) == len(here) > 3
    assert all(np.array_equal(a, b) for a, b in zip(there, here, strict=True))
    assert {"500", "503", "reset", "cut"} <= set(s3.faults.made)


# --- servers that fail, deny or lie ---


def test_short_troubles_are_tried_again_with_growing_pauses(
    web: tuple[str, type[Web]], reader: UrlReader, pauses: Pauses
) -> None:
    address = f"{web[0]}/weak/set/p/2.jpg"
    web[1].failures["weak"] = 2
    assert reader.read(address) == b"two"
    assert pauses.seconds == [0.5, 1.0]
    web[1].failures["weak"] = 3
    with pytest.raises(OSError, match="status 503, tried 3 times"):
        reader.read(address)
    assert pauses.seconds == [0.5, 1.0, 0.5, 1.0]
    with pytest.raises(FileNotFoundError):
        reader.read(f"{web[0]}/good/none.jpg")
    assert len(pauses.seconds) == 4  # what is not there is not asked for again


def test_a_server_that_is_not_there(pauses: Pauses) -> None:
    reader = UrlReader(Retries(tries=2, first_pause_seconds=1, sleep=pauses))
    with pytest.raises(OSError, match=r"no answer.*tried 2 times"):
        reader.kind("http://127.0.0.1:9/a.mp4")
    assert pauses.seconds == [1]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("ignores", "ignores ranges"),
        ("ignores_endless", "how long"),
        ("endless", "at most"),
        ("elsewhere", "another part"),
        ("short", "no answer, or one broken off"),
        ("silent_short", "ends after"),
        ("changing", "changed while"),
        ("private", "denied"),
    ],
)
def test_lies_about_ranges(
    mode: str,
    message: str,
    web: tuple[str, type[Web]],
    reader: UrlReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media_urls, "BLOCK_BYTES", 10_000)
    address = f"{web[0]}/{mode}/set/clip.mp4"
    with pytest.raises(OSError, match=message) as caught:
        reader.open_video(address).read()
    assert caught.value.strerror  # what clips' states show


def test_a_huge_declared_size_allocates_nothing(
    web: tuple[str, type[Web]], reader: UrlReader
) -> None:
    video = reader.open_video(f"{web[0]}/huge/set/clip.mp4")
    assert video.seek(0, io.SEEK_END) == 10**15
    video.seek(10**14)
    with pytest.raises(OSError, match="changed while"):
        video.read(10)


def test_images_have_a_limit(web: tuple[str, type[Web]], reader: UrlReader, memory: str) -> None:
    for url in (f"{web[0]}/good/set/clip.mp4", f"{memory}/set/clip.mp4"):
        with pytest.raises(OSError, match="at most 1000 bytes") as caught:
            reader.read(url, 1000)
        assert caught.value.errno == errno.EFBIG
        assert reader.read(url, len(VIDEO)) == VIDEO
    with pytest.raises(OSError, match="at most 1000 bytes"):
        reader.read(f"{web[0]}/endless/set/clip.mp4", 1000)
    with pytest.raises(OSError, match="packs"):
        reader.read(f"{web[0]}/packed/set/p/2.jpg")


def test_s3_denied_missing_and_wrong_key(
    s3: S3Server, reader: UrlReader, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> None:
    s3.put("denied/a.jpg", b"x")
    with pytest.raises(PermissionError, match="denied"):
        reader.read("s3://bucket/denied/a.jpg")
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        reader.read("s3://nobucket/a.jpg")
    assert reader.kind("s3://bucket/no.jpg") is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDWRONG")
    with pytest.raises(PermissionError) as caught:
        UrlReader().kind("s3://bucket/denied/a.jpg")
    assert not pauses.seconds
    text = f"{caught.value} {caught.value!r}"
    assert "AKIDWRONG" not in text
    assert SECRET_KEY not in text


def test_secrets_stay_out_of_errors(
    web: tuple[str, type[Web]], caplog: pytest.LogCaptureFixture, pauses: Pauses
) -> None:
    caplog.set_level("DEBUG", logger="vidface")
    reader = UrlReader(Retries(tries=2, sleep=pauses))
    host = web[0].removeprefix("http://")
    good = f"{web[0]}/signed/set/p/2.jpg?X-Amz-Signature={SECRET}/b%2F"
    assert reader.read(good) == b"two"  # the signature arrives as it was written
    for url in (
        f"{web[0]}/signed/set/p/2.jpg?X-Amz-Signature=x{SECRET}",
        f"http://me:{SECRET}@{host}/good/none.jpg",
        f"http://me:{SECRET}@127.0.0.1:9/a.jpg?sig={SECRET}",
        f"http://me:{SECRET}@{host}/elsewhere/none.jpg?token={SECRET}",
    ):
        for call in (reader.read, reader.open_video):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                call(url)
            assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.args}"
    assert SECRET not in caplog.text
    assert reader.read(f"http://me:{SECRET}@{host}/private/set/p/2.jpg") == b"two"


def test_unknown_errors_are_cleaned() -> None:
    error = ValueError(f"bad https://h/a?sig={SECRET} and token={SECRET}")
    failure, may_pass = store_failures.translate_failure(error)
    assert not may_pass
    assert SECRET not in str(failure)
    assert "ValueError" in str(failure)


def test_a_missing_library_says_what_to_install(
    reader: UrlReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from fsspec.registry import _registry

    for protocol, name in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.delitem(_registry, protocol, raising=False)
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(VidfaceError, match=r"pip install 'vidface\[s3\]'"):
        reader.kind("s3://bucket/a.mp4")
    with pytest.raises(VidfaceError, match=r"pip install 'vidface\[gs\]'"):
        UrlRoot(Address("gs://bucket"), reader.retries).size("a.mp4")


def test_what_is_known_is_not_asked_again(web: tuple[str, type[Web]], reader: UrlReader) -> None:
    root = UrlRoot(Address(f"{web[0]}/good"), reader.retries)
    root.kind("set/clip.mp4")
    root.size("set/clip.mp4")
    root.open_video("set/clip.mp4").close()
    assert len(web[1].asked) == 1


def test_images_of_a_folder_are_asked_for_once(s3: S3Server, reader: UrlReader) -> None:
    for number in range(20):
        s3.put(f"p/{number}.jpg", b"x" * number)
    root = UrlRoot(Address("s3://bucket"), reader.retries)
    assert root.kind("p") == "folder"
    names = root.image_names("p")
    assert root.size("p") == sum(range(20))
    s3.faults.requests.clear()
    assert [len(root.read(f"p/{name}")) for name in names] == list(range(20))
    assert [root.size(f"p/{name}") for name in names] == list(range(20))
    assert [method for method, _ in s3.faults.requests] == ["GET"] * 19  # none for 0 bytes


def test_retries_check_themselves() -> None:
    with pytest.raises(VidfaceError, match="tries"):
        Retries(tries=0)


# --- manifests ---

HEADER = "clip_id,path,identity,split"


def test_manifest_with_urls(tmp_path: Path, memory: str) -> None:
    local_copy(tmp_path)
    lines = [
        HEADER,
        "one,set/clip.mp4,ann,train",
        f"two,{memory}/set/p,ann,val",
        f"three,{memory}/set/gone.mp4?token={SECRET},,val",
        "four,file:///etc/passwd,,val",
        "five,simplecache::https://h/a.mp4,,val",
    ]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(VidfaceError) as caught:
        read_manifest(path, tmp_path / "local")
    text = str(caught.value)
    assert "3 problem(s)" in text
    assert "line 4: no file or folder 'memory://media/set/gone.mp4?***'" in text
    assert "line 5: file:///etc/passwd: a local file" in text
    assert "line 6: simplecache::https://h/a.mp4: chained" in text
    assert SECRET not in text
    with pytest.raises(VidfaceError, match=r"2 problem\(s\)"):  # those are never excused
        read_manifest(path, tmp_path / "local", allow_missing=True)
    path.write_text("\n".join(lines[:4]))
    manifest = read_manifest(path, tmp_path / "local", allow_missing=True)
    assert manifest.missing == {"three"}


def test_manifest_at_a_url(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    text = f"{HEADER}\none,clip.mp4,ann,train\ntwo,p,ann,val\n"
    fsspec.filesystem("memory").pipe_file("/media/set/m.csv", text.encode())
    manifest = read_manifest(f"{memory}/set/m.csv")
    assert str(manifest) == "Manifest(m.csv: 2 clips; train 1, val 1)"
    assert manifest.root_location.resolve().name == "set"
    assert manifest.root.read("p/2.jpg") == b"two"
    with pytest.raises(VidfaceError, match=r"memory://media/set/no.csv: no such file"):
        read_manifest(f"{memory}/set/no.csv")
    bad = f"{HEADER}\none,/etc/passwd,ann,train\ntwo,../../x,ann,val\n"
    fsspec.filesystem("memory").pipe_file("/media/set/bad.csv", bad.encode())
    with pytest.raises(VidfaceError, match=r"2 problem\(s\)"):
        read_manifest(f"{memory}/set/bad.csv")
    monkeypatch.setattr("vidface.settings.manifests.MAX_MANIFEST_BYTES", len(text) - 1)
    with pytest.raises(VidfaceError, match="at most"):
        read_manifest(f"{memory}/set/m.csv")


def test_a_server_that_denies_everything_ends_the_search(
    tmp_path: Path, web: tuple[str, type[Web]]
) -> None:
    lines = [f"c{n},{web[0]}/private/{n}.mp4?sig={SECRET},,val" for n in range(100)]
    path = tmp_path / "m.csv"
    path.write_text("\n".join([HEADER, *lines]))
    with pytest.raises(VidfaceError, match="cannot be looked for: 20 problem") as caught:
        read_manifest(path, allow_missing=True)
    assert "denied" in str(caught.value)
    assert SECRET not in str(caught.value)
    path.write_text("\n".join([HEADER, *lines[:3]]))
    assert len(read_manifest(path, allow_missing=True).missing) == 3


def test_many_clips_are_looked_for_side_by_side(
    tmp_path: Path, web: tuple[str, type[Web]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the manifest's order whatever the answers' order; more than one batch of them."""
    monkeypatch.setattr("vidface.settings.manifests.ASKED_AT_ONCE", 2)
    names = ["clip.mp4" if n % 3 else f"no{n}.mp4" for n in range(150)]
    lines = [f"c{n},{web[0]}/good/set/{name},,val" for n, name in enumerate(names)]
    path = tmp_path / "m.csv"
    path.write_text("\n".join([HEADER, *lines]))
    missing = read_manifest(path, allow_missing=True).missing
    assert missing == {f"c{n}" for n in range(0, 150, 3)}


def test_credentials_of_the_fixture_are_not_shown(s3: S3Server) -> None:
    """A manifest's error over S3 names neither key."""
    with pytest.raises(VidfaceError) as caught:
        read_manifest("s3://bucket/denied/m.csv")
    assert "denied" in str(caught.value)
    assert ACCESS_KEY not in str(caught.value)
    assert SECRET_KEY not in str(caught.value)
    assert stores.PROTOCOLS["s3"] == "s3"
