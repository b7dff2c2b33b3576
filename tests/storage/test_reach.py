"""Redirections, and how far a table from the net may lead: 127.0.0.1 plays the public net here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import absent
from vidface.core.errors import VidfaceError
from vidface.settings.manifests import read_manifest
from vidface.storage import reach as reach_module
from vidface.storage.clip_urls import UrlReader
from vidface.storage.objects import Retries
from vidface.storage.reach import OWN_REACH, Reach, is_private, is_private_host, is_private_ip
from vidface.storage.urls import Address

HEADER = "clip_id,path,identity,split\n"
PUBLIC = Reach(public_only=True)


class Server(BaseHTTPRequestHandler):
    """`/to/URL` redirects to URL, `/table` is a manifest, all else is four bytes."""

    protocol_version = "HTTP/1.1"
    table = b""
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.headers["Host"] + self.path, self.headers.get("Authorization")))
        is_redirect = self.path.startswith("/to/")
        body = b"" if is_redirect else self.table if self.path == "/table" else b"data"
        self.send_response(302 if is_redirect else 200)
        if is_redirect:
            self.send_header("Location", self.path.removeprefix("/to/"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class Net:
    """A public and a private server, and a name of each."""

    def __init__(self, public: int, private: int, server: type[Server]) -> None:
        self.public, self.private = f"http://public.test:{public}", f"http://private.test:{private}"
        self.public_ip = f"http://127.0.0.1:{public}"
        self.private_ip = f"http://127.0.0.2:{private}"
        self.server = server
        self.rebound = 0

    @property
    def asked(self) -> list[str]:
        return [path for path, _ in self.server.seen]


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        absent("no aiohttp; pip install 'vidface[urls]'")
    handler = type("Handler", (Server,), {"seen": []})
    try:
        servers = [ThreadingHTTPServer((f"127.0.0.{n}", 0), handler) for n in (1, 2)]
    except OSError:
        absent("127.0.0.2 is no address of this machine")
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    places = Net(servers[0].server_port, servers[1].server_port, handler)
    look_up = socket.getaddrinfo

    def fake(host, *arguments, **more):
        if host == "rebinding.test":  # public when it is looked up first, private ever after
            places.rebound += 1
            host = "127.0.0.1" if places.rebound == 1 else "127.0.0.2"
        known = {"public.test": "127.0.0.1", "cdn.test": "127.0.0.1", "private.test": "127.0.0.2"}
        return look_up(known.get(host, host), *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    monkeypatch.setattr(
        reach_module, "is_private_ip", lambda ip: ip != "127.0.0.1" and is_private_ip(ip)
    )
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    yield places
    for server in servers:
        server.shutdown()
        server.server_close()


def read(url: str, reach: Reach = OWN_REACH) -> bytes:
    return UrlReader(Retries(tries=1), reach).read(url)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.32.0.1", False),
        ("192.168.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("::", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:192.168.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("64:ff9b::a00:1", True),  # 10.0.0.1 behind NAT64
        ("2002:a00:1::", True),  # 10.0.0.1 behind 6to4
    ],
)
def test_private_addresses(ip: str, expected: bool) -> None:
    assert is_private_ip(ip) is expected


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
def test_other_spellings_of_a_private_address(host: str) -> None:
    assert is_private_host(host)


def test_a_name_that_nobody_knows_is_not_private(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert not is_private_host("no.such.host.test")


def test_an_object_store_is_where_its_endpoint_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert not is_private(Address("s3://bucket/a.csv"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert is_private(Address("s3://bucket/a.csv"))
    with pytest.raises(OSError, match="private network"):
        read("s3://bucket/a.png", PUBLIC)


class TestRedirections:
    def test_within_a_site_nothing_is_said(self, net: Net) -> None:
        reader = UrlReader(Retries(tries=1))
        path = f"{net.public}/to/{net.public}/b.png"
        assert reader.read(path) == b"data"
        assert reader.other_site(path) == ""
        assert reader.read(f"{net.public}/to//b.png") == b"data"  # a path alone

    def test_another_site_is_named(self, net: Net) -> None:
        reader = UrlReader(Retries(tries=1))
        cdn = net.public.replace("public.test", "cdn.test")
        path = f"{net.public}/to/{cdn}/b.png"
        assert reader.other_site(path) == cdn
        assert reader.read(path) == b"data"

    def test_credentials_stay_with_their_host(self, net: Net) -> None:
        cdn = net.public.replace("public.test", "cdn.test")
        start = net.public.replace("://", "://me:secret@")
        assert read(f"{start}/to/{cdn}/b.png") == b"data"
        (first, sent), (second, passed_on) = net.server.seen
        assert first.startswith("public.test")
        assert second.startswith("cdn.test")
        assert (sent is None, passed_on) == (False, None)

    def test_a_circle_ends(self, net: Net) -> None:
        with pytest.raises(OSError, match="redirects more than 5 times"):
            read(f"{net.public}/to//to//to//to//to//to//b.png")
        assert len(net.asked) == 6
        assert read(f"{net.public}/to//to//to//to//to//b.png") == b"data"

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://public.test/a", "http://["])
    def test_to_something_else(self, net: Net, target: str) -> None:
        with pytest.raises(OSError, match="no http address"):
            read(f"{net.public}/to/{target}")

    def test_from_public_to_private(self, net: Net) -> None:
        for private in (net.private, net.private_ip):
            with pytest.raises(OSError, match=r"private network.*--allow-private"):
                read(f"{net.public}/to/{private}/b.png")
            assert read(f"{net.public}/to/{private}/b.png", Reach(allow_private=True)) == b"data"
        assert sum("private" in path.partition("/")[0] for path in net.asked) == 1

    def test_within_an_intranet(self, net: Net) -> None:
        assert read(f"{net.private}/to/{net.private_ip}/b.png") == b"data"


class TestTablesFromTheNet:
    def test_a_public_table_names_public_clips_alone(self, net: Net) -> None:
        table = f"{net.public}/table"
        net.server.table = f"{HEADER}a,{net.private}/a.png,x,val\n".encode()
        with pytest.raises(VidfaceError, match=r"line 2.*private network.*--allow-private"):
            read_manifest(table)
        assert net.asked == [table.removeprefix("http://")]
        assert len(read_manifest(table, allow_private=True).clips) == 1
        net.server.table = f"{HEADER}a,{net.public}/a.png,x,val\n".encode()
        manifest = read_manifest(table)
        assert manifest.root.read(f"{net.public}/a.png") == b"data"

    @pytest.mark.parametrize("host", ["2130706434", "0x7f.2", "[::ffff:127.0.0.2]", "127.0.0.2"])
    def test_in_any_spelling(self, net: Net, host: str) -> None:
        port = net.private.rpartition(":")[2]
        with pytest.raises(OSError, match="private network"):
            read(f"http://{host}:{port}/a.png", PUBLIC)
        assert net.asked == []

    def test_a_name_that_changes_is_checked_where_it_connects(self, net: Net) -> None:
        port = net.private.rpartition(":")[2]
        with pytest.raises(OSError, match="private network"):
            read(f"http://rebinding.test:{port}/a.png", PUBLIC)
        assert net.rebound >= 2
        assert net.asked == []

    def test_private_tables_and_files_name_what_they_like(self, net: Net, tmp_path: Path) -> None:
        row = f"{HEADER}a,{net.private}/a.png,x,val\n"
        (tmp_path / "m.csv").write_text(row)
        net.server.table = row.encode()
        for place in (tmp_path / "m.csv", f"{net.private}/table"):
            assert len(read_manifest(place).clips) == 1

    def test_a_root_that_the_user_names_is_his_word(self, net: Net) -> None:
        net.server.table = f"{HEADER}a,a.png,x,val\n".encode()
        manifest = read_manifest(f"{net.public}/table", f"{net.private}/media")
        assert manifest.root.read("a.png") == b"data"
        assert manifest.root.read(f"{net.private}/media/a.png") == b"data"
        with pytest.raises(OSError, match="private network"):
            manifest.root.read(f"{net.private}/other/a.png")

    @pytest.mark.parametrize("step", ["..", "%2e%2E", "a/..", "..%2f..", "..%5C"])
    def test_nothing_climbs_out_of_that_root(self, net: Net, step: str) -> None:
        net.server.table = f"{HEADER}a,a..b.png,x,val\n".encode()
        root = read_manifest(f"{net.public}/table", f"{net.private}/media").root
        assert root.read(f"{net.private}/media/a..b.png") == b"data"
        with pytest.raises(OSError, match="private network"):
            root.read(f"{net.private}/media/{step}/admin.png")
        assert not any("admin" in path for path in net.asked)

    def test_workers_keep_it(self, net: Net) -> None:
        import pickle

        net.server.table = f"{HEADER}a,{net.public}/a.png,x,val\n".encode()
        root = pickle.loads(pickle.dumps(read_manifest(f"{net.public}/table").root))
        with pytest.raises(OSError, match="private network"):
            root.read(f"{net.private}/a.png")

    def test_the_users_own_proxy_may_be_private(
        self, net: Net, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", net.private)
        assert read(f"{net.public}/a.png", PUBLIC) == b"data"
        host = net.public.removeprefix("http://")
        assert net.asked == [f"{host}{net.public}/a.png"]  # as a proxy is asked
        with pytest.raises(OSError, match="private network"):
            read("http://192.168.0.1/a.png", PUBLIC)
