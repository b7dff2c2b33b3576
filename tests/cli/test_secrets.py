"""No credential of a URL in any artefact, message, traceback or report."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import absent
from vidface.cli.commands import main
from vidface.core.errors import VidfaceError
from vidface.core.redaction import redacted_argument
from vidface.runs.run import open_run_folder
from vidface.storage.urls import Address

SECRET = "Sup3rSecret"
HIDDEN_URL = f"http://user:{SECRET}@127.0.0.1:9/x.csv?sig={SECRET}&token={SECRET}"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def served_clips(colour_clips: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """host:port of a server with a manifest of pictures, each at a signed address."""
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        absent("no aiohttp; pip install 'vidface[urls]'")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    handler = functools.partial(QuietHandler, directory=str(colour_clips.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    place = f"127.0.0.1:{server.server_port}"
    lines = ["clip_id,path,identity,split"]
    for person in ("red", "green", "blue"):
        for split in ("train", "val"):
            signed = f"http://user:{SECRET}@{place}/{person}/{split}/0.png?sig={SECRET}"
            lines.append(f"{person}.{split},{signed},{person},{split}")
    lines.append(f"gone,http://user:{SECRET}@{place}/gone.png?token={SECRET},red,val")
    (colour_clips.parent / "signed.csv").write_text("\n".join(lines) + "\n")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield place
    server.shutdown()
    server.server_close()


def written_text(folder: Path) -> str:
    """All that lies in a folder, with tables unpacked."""
    parts = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts.append(f"{path}: {path.read_bytes().decode('latin-1')}")
        table = None
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
        elif path.suffix == ".arrow":
            table = pa.ipc.open_file(path).read_all()
        if table is not None:
            parts.append(f"{table.schema.metadata} {table.to_pylist()}")
    return "\n".join(parts)


def run_command(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code and all that a command prints."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    printed = capfd.readouterr()
    return int(stop.value.code or 0), printed.out + printed.err


def test_a_run_of_signed_addresses_stores_no_secret(
    served_clips: str, colour_pipeline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = f"http://user:{SECRET}@{served_clips}/signed.csv?sig={SECRET}"
    run = tmp_path / "kept" / "run"
    flags = ["--pipeline", colour_pipeline, "--run", run, "--debug"]
    flags += ["--manifest", manifest, "--root", f"http://{served_clips}/", "--allow-missing"]
    texts = []
    for command in ("extract", "cluster", "score", "sweep", "clips"):
        code, text = run_command(capfd, command, *flags)
        assert code == (3 if command == "extract" else 0), text
        texts.append(text)
    texts.append(run_command(capfd, "report", run, "--out", tmp_path / "kept" / "r.html")[1])
    assert run.joinpath("scores").is_dir()
    text = written_text(tmp_path / "kept") + "\n".join(texts)
    assert "clip_id" in text
    assert served_clips in text
    assert SECRET not in text

    with pytest.raises(VidfaceError, match=r"was not stored; give the whole URL again"):
        open_run_folder(run)
    given_again = open_run_folder(run, {("manifest", "path"): manifest})
    assert len(given_again.manifest.clips) == 7
    assert str(given_again.manifest.root_location) == f"http://{served_clips}/"


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "--pipeline", HIDDEN_URL),
        ("extract", "--manifest", HIDDEN_URL),
        ("extract", "--root", HIDDEN_URL),
        ("extract", "--run", HIDDEN_URL),
        ("extract", "--weights", HIDDEN_URL),
        ("extract", f"--fps={HIDDEN_URL}"),
        ("cluster", "--truth", HIDDEN_URL),
        ("run", "--pipeline", HIDDEN_URL),
        ("report", HIDDEN_URL),
        ("compare", HIDDEN_URL, HIDDEN_URL),
        ("plot", "roc", HIDDEN_URL),
        ("import", "lfrc", HIDDEN_URL),
        ("import", HIDDEN_URL),
        ("export", "iqiyi", "--pipeline", HIDDEN_URL),
        ("init", HIDDEN_URL),
        ("verify", HIDDEN_URL),
        ("models", "show", HIDDEN_URL),
        ("models", "count", HIDDEN_URL),
        ("train", HIDDEN_URL),
        ("train", "--config", HIDDEN_URL),
        (HIDDEN_URL,),
    ],
    ids=lambda arguments: "-".join(a for a in arguments if SECRET not in a) or "command",
)
def test_no_message_shows_a_secret(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run_command(capfd, *arguments, "--debug")
    assert code in (1, 2)
    assert SECRET not in text + written_text(tmp_path)


def test_a_traceback_shows_no_secret() -> None:
    script = (
        "import sys; from vidface.cli import commands, stages\n"
        "def fail(*a, **k): raise RuntimeError('cannot open ' + sys.argv[1])\n"
        "commands.cli.main = fail\n"
        "commands.main(['extract', '--debug'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, HIDDEN_URL], capture_output=True, text=True, check=False
    )
    assert "Traceback" in done.stderr
    assert "internal error" in done.stderr
    assert SECRET not in done.stderr


def test_a_command_is_recorded_without_secrets_whatever_stands_in_them() -> None:
    for odd in ("p'w", 'p"w', "p w", "p<w", "p)w"):
        argument = f"--root=https://user:{odd}{SECRET}@h/a?k={odd}{SECRET}"
        assert redacted_argument(argument) == "--root=https://***@h/a?***"


def test_an_address_hides_itself_from_whatever_serialises() -> None:
    from dataclasses import asdict, dataclass
    from json import dumps

    @dataclass(frozen=True)
    class Holder:
        place: Address

    holder = Holder(Address(f"https://u:{SECRET}@h/a?sig={SECRET}"))
    assert (
        SECRET not in f"{holder} {holder!r} {asdict(holder)} {dumps(asdict(holder), default=str)}"
    )
    with pytest.raises(TypeError):
        dumps(asdict(holder))
