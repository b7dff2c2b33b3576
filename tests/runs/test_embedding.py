"""Events of decoding → rows, by a network that gives a crop's mean colour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import crop_of
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.core.clips import Clip, FileState
from vidface.faces.events import ClipEnd, Face, FoundFaces
from vidface.runs import embedding as embeddings
from vidface.runs.embedding import EmbeddedClip, embed_clips, encode_jpeg, summarise

CLIPS = [Clip(name, f"{name}.mp4", "", "val") for name in "abc"]
Event = FoundFaces | ClipEnd


@pytest.fixture
def backbone(colour_network: Path):
    return load_backbone(colour_network, Preprocessing("rgb", 0.0, 1.0))


def found(number: int, *colours: str, start: int = 0) -> FoundFaces:
    box, landmarks = np.arange(4, dtype=np.float32), np.ones((5, 2), np.float32)
    faces = tuple(
        Face(start + k, (start + k) / 8, (start + k) / 8, None, 0, box, landmarks, 0.9)
        for k in range(len(colours))
    )
    return FoundFaces(number, faces, np.stack([crop_of(colour) for colour in colours]))


def ended(number: int, state: str = "ok", frames: int = 2, message: str = "") -> ClipEnd:
    return ClipEnd(number, state, message, frames, 0, FileState(99))


def made(events: list[Event], backbone, **more) -> list[EmbeddedClip]:
    return list(embed_clips(CLIPS, events, backbone, **more))


def vectors(clip: EmbeddedClip) -> np.ndarray:
    flat = clip.rows["embedding"].combine_chunks()
    return np.asarray(flat.to_pylist(), np.float32).reshape(-1, 3)


def test_clips_come_in_order_with_their_own_faces(backbone) -> None:
    """b ends first and a last; a's two pieces stand in the order of their frames."""
    events: list[Event] = [
        found(1, "green"),
        found(0, "red"),
        ended(1, frames=1),
        found(2, "blue", "blue"),
        found(0, "yellow", start=1),
        ended(2),
        ended(0),
    ]
    clips = made(events, backbone)
    assert [clip.clip.clip_id for clip in clips] == ["a", "b", "c"]
    means = [[crop_of(c).mean(axis=(0, 1)) for c in cs]
             for cs in (["red", "yellow"], ["green"], ["blue", "blue"])]  # fmt: skip
    for clip, want in zip(clips, means, strict=True):
        assert np.allclose(vectors(clip), want, atol=1e-3)
        assert clip.state == "ok"
        assert clip.file.bytes == 99
    rows = clips[0].rows.to_pylist()
    assert [row["frame_index"] for row in rows] == [0, 1]
    assert rows[1]["time_seconds"] == 0.125
    assert rows[0]["box"] == [0, 1, 2, 3]
    assert rows[0]["det_score"] == pytest.approx(0.9)
    assert rows[0]["norm"] == pytest.approx(np.linalg.norm(rows[0]["embedding"]), rel=1e-6)
    assert clips[2].to_row()["faces"] == 2


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_bits_do_not_depend_on_how_faces_come(backbone, monkeypatch, at_once: int) -> None:
    names = ["red", "green", "blue", "yellow"]
    parts: list[Event] = [found(0, *names), ended(0), ended(1), found(2, *names), ended(2)]
    expected = made(parts, backbone)
    monkeypatch.setattr(embeddings, "EMBED_AT_ONCE", at_once)
    spread: list[Event] = [
        *(found(2, name, start=k) for k, name in enumerate(names)),
        ended(2),
        ended(1),
        *(found(0, name, start=k) for k, name in enumerate(names)),
        ended(0),
    ]
    got = made(spread, backbone)
    for one, other in zip(expected, got, strict=True):
        assert one.rows.equals(other.rows)


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_a_crop_that_comes_again_is_embedded_once_a_clip(backbone, monkeypatch, at_once) -> None:
    """Rows and pictures are those of clips whose every face is embedded by itself."""
    monkeypatch.setattr(embeddings, "EMBED_AT_ONCE", at_once)
    embedded = []
    embed, embed_faces = backbone.embed, backbone.embed_faces
    monkeypatch.setattr(
        backbone,
        "embed_faces",
        lambda crops, **more: embedded.append(len(crops)) or embed_faces(crops, **more),
    )
    names = ["red", "red", "green", "red", "green", "blue"]
    events: list[Event] = [
        found(0, *names),
        found(1, "red"),
        found(0, "blue", "blue", start=6),
        ended(0, frames=8),
        ended(1),
        ended(2),
    ]
    first, second, _ = made(events, backbone, keep_crops=True)
    assert sum(embedded) == 3 + 1
    shown = [*names, "blue", "blue"]
    assert vectors(first).tolist() == [
        embed(crop_of(name)[None], whole_batches=True)[0].tolist() for name in shown
    ]
    assert first.rows["frame_index"].to_pylist() == list(range(8))
    assert first.jpegs == tuple(encode_jpeg(crop_of(name)) for name in shown)
    assert vectors(second).tolist() == vectors(first)[:1].tolist()


@pytest.mark.parametrize("state", ["corrupt", "timeout", "crashed", "missing", "no_video_stream"])
def test_of_a_failed_clip_nothing_is_kept(backbone, state: str) -> None:
    events: list[Event] = [
        found(0, "red", "red"),
        ended(0, state, message="broken\nin two lines"),
        found(1, "green"),
        ended(1, "truncated", 1, "ends early"),
        ended(2, "no_face", 5),
    ]
    failed, cut, empty = made(events, backbone, keep_crops=True)
    assert (failed.state, len(failed.rows), failed.frames, failed.jpegs) == (state, 0, 0, ())
    assert failed.message == "broken in two lines"
    assert (cut.state, len(cut.rows), cut.frames, len(cut.jpegs)) == ("truncated", 1, 1, 1)
    assert (empty.state, len(empty.rows), empty.frames) == ("no_face", 0, 5)
    assert "b: truncated, 1 faces" in str(cut)


def test_a_clip_is_given_out_once_all_before_it_are(backbone, monkeypatch) -> None:
    monkeypatch.setattr(embeddings, "EMBED_AT_ONCE", 1)
    taken: list[str] = []

    def events() -> Iterator[Event]:
        yield found(1, "red")
        yield ended(1)
        taken.append("before a")
        yield ended(0, "no_face")
        taken.append("after a")
        yield ended(2, "missing")

    stream = embed_clips(CLIPS, events(), backbone)
    assert next(stream).clip.clip_id == "a"
    assert taken == ["before a"]
    assert next(stream).clip.clip_id == "b"
    assert taken == ["before a"]
    assert [clip.state for clip in stream] == ["missing"]


def test_without_clips_and_without_faces(backbone) -> None:
    assert list(embed_clips([], [], backbone)) == []
    only = made([ended(0, "missing"), ended(1, "no_face"), ended(2, "corrupt")], backbone)
    assert [len(clip.rows) for clip in only] == [0, 0, 0]
    assert only[0].rows.schema.field("embedding").type.list_size == 3


def test_crops_are_kept_face_by_face(backbone) -> None:
    events: list[Event] = [found(0, "red", "blue"), ended(0), ended(1), ended(2)]
    [clip, *_] = made(events, backbone, keep_crops=True)
    assert clip.jpegs == (encode_jpeg(crop_of("red")), encode_jpeg(crop_of("blue")))
    assert clip.jpegs[0][:2] == b"\xff\xd8"


def test_time_of_the_stages_is_kept(backbone) -> None:
    events: list[Event] = [found(0, "red"), ended(0), ended(1), ended(2)]
    clips = made(events, backbone)
    assert sum(clip.seconds["embed"] for clip in clips) > 0
    assert set(clips[0].seconds) >= {"decode", "detect", "align", "embed"}


def test_summary_counts_every_state() -> None:
    import pyarrow as pa

    from vidface.runs.columns import CLIPS_SCHEMA

    rows = [
        dict(zip(CLIPS_SCHEMA.names, row, strict=False))
        for row in [
            ("a", "a", 1, "ok", "", 5, 1, 4),
            ("b", "b", 1, "no_face", "none", 3, 3, 0),
            ("c", "c", 0, "timeout", "late", 0, 0, 0),
            ("d", "d", 1, "truncated", "cut", 2, 0, 2),
        ]
    ]
    summary = summarise(pa.Table.from_pylist(rows, schema=CLIPS_SCHEMA))
    assert summary.states == {"ok": 1, "no_face": 1, "truncated": 1, "timeout": 1}
    assert (summary.clips, summary.frames, summary.faces) == (4, 10, 6)
    assert summary.failed == (("c", "timeout", "late"), ("d", "truncated", "cut"))
    assert summary.to_dict()["failed"][0]["state"] == "timeout"
    assert summary.no_face == (("b", "no_face", "none"),)
    assert summary.to_dict()["no_face"] == [{"clip_id": "b", "state": "no_face", "message": "none"}]
