"""A real S3 server (moto's) on a free port of this machine, behind a proxy that makes trouble.

The proxy asks for the right access key, denies what lies below `denied/`, and does to every n-th
request what `Faults` says: an error status, a connection reset, a body cut in half.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import absent

ACCESS_KEY = "AKIDTESTTESTTEST0001"
SECRET_KEY = "sEcReT0000000000000000000000000000000000"
BUCKET = "bucket"


@dataclass
class Faults:
    """Every `every`-th request of `methods` goes wrong in the next of `ways`; 0: none does."""

    every: int = 0
    ways: tuple[str, ...] = ("500", "503", "reset", "cut")
    methods: tuple[str, ...] = ("GET",)
    seen: int = 0
    made: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def next(self, method: str, path: str) -> str:
        self.requests.append((method, path))
        if method not in self.methods or not self.every:
            return ""
        self.seen += 1
        if self.seen % self.every:
            return ""
        self.made.append(self.ways[len(self.made) % len(self.ways)])
        return self.made[-1]


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream_port = 0
    faults: Faults
    lock: threading.Lock

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        with self.lock:
            fault = self.faults.next(self.command, self.path)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if ACCESS_KEY not in self.headers.get("Authorization", ""):
            self._refuse(403, "InvalidAccessKeyId")
        elif "/denied/" in self.path:
            self._refuse(403, "AccessDenied")
        elif fault.isdigit():
            self._refuse(int(fault), "SlowDown" if fault == "503" else "InternalError")
        else:
            self._forward(sent, cut=fault == "cut")

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _forward(self, sent: bytes, *, cut: bool) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream_port, timeout=20)
        names = ("connection", "expect", "host")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in names}
        upstream.request(self.command, self.path, sent, headers)
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        self.send_response(answer.status)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else len(body)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


@dataclass
class S3Server:
    """The address to talk to, and what goes wrong there."""

    endpoint: str
    faults: Faults
    client: object  # boto3's, straight to moto: what is really there

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)  # type: ignore[attr-defined]

    def get(self, key: str) -> bytes:
        found = self.client.get_object(Bucket=BUCKET, Key=key)  # type: ignore[attr-defined]
        return found["Body"].read()

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET)  # type: ignore[attr-defined]
        return [entry["Key"] for entry in found.get("Contents", [])]


@pytest.fixture(scope="session", name="moto_port")
def moto_port_fixture() -> Iterator[int]:
    try:
        import flask_cors  # noqa: F401
        import s3fs  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        absent(f"no S3 server: {error}; pip install 's3fs' 'moto[server]'")
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(name="s3")
def s3_fixture(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An S3 server with an empty bucket; the environment holds its address and credentials."""
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto_port}")
    client.create_bucket(Bucket=BUCKET)
    faults = Faults()
    handler = type(
        "Proxy", (_Proxy,), {"upstream_port": moto_port, "faults": faults, "lock": threading.Lock()}
    )
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{proxy.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    yield S3Server(endpoint, faults, client)
    proxy.shutdown()
    proxy.server_close()
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
