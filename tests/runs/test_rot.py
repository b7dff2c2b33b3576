"""A bit that flips in an artefact is noticed before a figure is made of it."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import absent
from vidface.cli.commands import main
from vidface.core import digests
from vidface.core.digests import check_digest, digest_file, digest_path
from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file, read_json_object
from vidface.reports.scores import read_average_precision
from vidface.runs import artefacts
from vidface.runs.checking import check_files


def read_rows(path: Path) -> object:
    read = artefacts.read_parquet if path.suffix == ".parquet" else artefacts.read_arrow
    return read(path)[0].to_pylist()


READERS: dict[str, Callable[[Path], object]] = {
    "embeddings/shard-00000.arrow": lambda path: artefacts.read_shard(path)[0].table.to_pylist(),
    "crops/shard-00000.parquet": read_rows,
    "linkage/shard-00000.arrow": read_rows,
    "clusters/threshold_0.4/faces.parquet": read_rows,
    "clusters/threshold_0.4/descriptors.parquet": read_rows,
    "clips.parquet": read_rows,
    "run.json": read_json_object,
    "profile.json": read_json_object,
    "scores/*.curves.json": read_json_object,
    "scores/*_precision.csv": read_average_precision,
    "sweeps/*.json": read_json_object,
}
"""Artefact → what reads it."""


def run_main(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def run(colour_pipeline: Path) -> Path:
    """A run directory with an artefact of every kind."""
    flags = ("--pipeline", colour_pipeline, "--threshold", "0.4")
    for command in ("cluster", "score", "sweep"):
        if command == "cluster":
            assert run_main("extract", *flags[:2]) == 0
        more = flags if command != "sweep" else (*flags[:2], "--thresholds", "0.2:0.6:0.2")
        assert run_main(command, *more) == 0
    return colour_pipeline.parent / "run"


def artefact(run: Path, pattern: str) -> Path:
    return next(run.glob(pattern))


def flip_bit(path: Path, place: int, bit: int) -> None:
    """Flip a bit in the place, as a disk does: no time of change tells of it."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_every_artefact_has_a_digest_and_check_finds_what_rots(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = check_files(run)
    assert (checked.unchecked, checked.damaged) == ((), ())
    assert checked.intact >= len(READERS)
    assert run_main("check", run) == 0
    for pattern, read in READERS.items():
        path = artefact(run, pattern)
        before = path.read_bytes()
        digests._checked.clear()  # as in a process of its own
        flip_bit(path, len(before) // 2, 3)
        with pytest.raises(VidfaceError, match=r"damaged.*(makes it again|again)") as caught:
            read(path)
        assert str(path) in str(caught.value)
        capsys.readouterr()
        assert run_main("check", run) == 1
        assert str(path) in capsys.readouterr().out
        path.write_bytes(before)
    path.unlink()
    assert check_files(run).damaged == (f"{path}: gone; `vidface sweep` makes it again",)


def test_a_rotten_run_prints_no_figure(
    run: Path, colour_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "embeddings" / "shard-00000.arrow"
    flip_bit(path, path.stat().st_size // 2, 6)
    digests._checked.clear()
    capsys.readouterr()
    assert run_main("sweep", "--pipeline", colour_pipeline, "--thresholds", "0.3") == 1
    printed, said = capsys.readouterr()
    assert printed == ""
    assert "`vidface extract --force` makes it again" in said


def test_an_older_runs_files_have_no_digest_and_are_read(
    run: Path, colour_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in run.rglob(f"*{digests.DIGEST_SUFFIX}"):
        path.unlink()
    for pattern, read in READERS.items():
        assert read(artefact(run, pattern))
    capsys.readouterr()
    assert run_main("clips", "--pipeline", colour_pipeline) == 0
    assert capsys.readouterr().err.count("has no digests") == 1
    checked = check_files(run)
    assert checked.intact == 0
    assert len(checked.unchecked) >= len(READERS)


def test_a_folder_of_artefacts_is_read_as_one_table(run: Path) -> None:
    import pyarrow.parquet as pq

    assert (
        pq.read_table(run / "crops").num_rows
        == pq.read_table(artefact(run, "crops/*.parquet")).num_rows
    )


def test_a_kill_between_the_renames_leaves_a_pair_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for number in range(6):
        with atomic_file(path, digest=True) as file:
            file.write(b"%d" % number)
        assert check_digest(path)
    old = path.read_bytes()
    part = tmp_path / "part"
    part.write_bytes(b"newer")
    digests.write_digest(part, path)  # and here it is killed
    assert path.read_bytes() == old
    assert check_digest(path)
    part.replace(path)
    assert check_digest(path)
    assert len(digest_path(path).read_text().split()) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["_a.xxh3", "a"]


def test_the_digest_is_xxh3_of_the_whole_file(tmp_path: Path) -> None:
    try:
        import xxhash
    except ImportError:
        absent("no xxhash")
    for size in (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
        (tmp_path / "a").write_bytes(bytes(size))
        assert digest_file(tmp_path / "a") == xxhash.xxh3_128_hexdigest(bytes(size))


OUTCOMES = ("right", "refused", "silently wrong", "another error")


def read_flipped(
    path: Path, read: Callable[[Path], object], whole: object, flips: list[tuple[int, int]]
) -> Counter[str]:
    """What becomes of each flip (place, bit), in a process that may die of it.

    One process reads one flip after the other, and another goes on where it dies: to fork a test
    process for each takes a tenth of a second.
    """
    counts: Counter[str] = Counter()
    done = 0
    while done < len(flips):
        answers, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for place, bit in flips[done:]:
                signal.alarm(30)
                flip_bit(path, place, bit)
                digests._checked.clear()
                try:
                    code = 0 if read(path) == whole else 2
                except VidfaceError:
                    code = 1
                except BaseException:
                    code = 3
                flip_bit(path, place, bit)
                os.write(writer, bytes([code]))
            os._exit(0)
        os.close(writer)
        with os.fdopen(answers, "rb") as file:
            codes = file.read()
        status = os.waitpid(child, 0)[1]
        counts.update(OUTCOMES[code] for code in codes)
        done += len(codes)
        if os.WIFSIGNALED(status):
            counts[f"killed by {signal.Signals(os.WTERMSIG(status)).name}"] += 1
            flip_bit(path, *flips[done])  # as it was
            done += 1
    return counts


def flip_at_random(run: Path, flips: int) -> dict[str, Counter[str]]:
    """What becomes of flips of random bits, as many in every kind of artefact."""
    draw = random.Random(20261130)
    outcomes: dict[str, Counter[str]] = {}
    for pattern, read in READERS.items():
        path = artefact(run, pattern)
        size, content = path.stat().st_size, path.read_bytes()
        places = [(draw.randrange(size), draw.randrange(8)) for _ in range(flips)]
        outcomes[pattern] = read_flipped(path, read, read(path), places)
        assert path.read_bytes() == content
        assert sum(outcomes[pattern].values()) == flips
    return outcomes


@pytest.mark.slow
def test_two_thousand_flips_are_refused_or_harmless(run: Path) -> None:
    outcomes = flip_at_random(run, 2000 // len(READERS) + 1)
    for pattern, counts in outcomes.items():
        print(f"{pattern}: {dict(counts)}")
        assert set(counts) <= {"right", "refused"}, (pattern, counts)


@pytest.mark.slow
def test_without_digests_flips_change_figures(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in run.rglob(f"*{digests.DIGEST_SUFFIX}"):
        path.unlink()
    outcomes = flip_at_random(run, 60)
    assert sum(counts["silently wrong"] for counts in outcomes.values()) > 60
    # A stranger's run has no digests either: whatever it holds, no signal.
    killed = {
        kind: counts for kind, counts in outcomes.items() if any("killed" in c for c in counts)
    }
    assert not killed
