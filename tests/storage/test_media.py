from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from vidface.core.errors import VidfaceError
from vidface.core.rules import ReadingRules
from vidface.storage.media import FolderRoot, TarRoot, open_root
from vidface.storage.names import natural_key


def tar_with(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


FILES = {
    "./set/p/10.jpg": b"ten",
    "./set/p/2.jpg": b"two",
    "./set/p/._2.jpg": b"apple",
    "./set/p/notes.txt": b"text",
    "./set/clip.mp4": bytes(range(256)) * 40,
}


@pytest.fixture(params=["folder", "tar"])
def root(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "tar":
        return open_root(tar_with(tmp_path / "a.tar", FILES))
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return open_root(tmp_path)


def test_folder_and_tar_answer_alike(root) -> None:
    assert root.kind("set/p") == "folder"
    assert root.kind("set/p/") == "folder"
    assert root.kind("set") == "folder"
    assert root.kind("set/clip.mp4") == "file"
    assert root.kind("set/no.mp4") is None
    assert root.kind("x" * 5000) is None
    assert root.image_names("set/p") == ["2.jpg", "10.jpg"]
    assert root.image_names("set") == []
    assert root.read("set/p/2.jpg") == b"two"
    video = root.open_video("set/clip.mp4")
    content = Path(video).read_bytes() if isinstance(video, str) else video.read()
    assert content == FILES["./set/clip.mp4"]


MIXED = [
    *("1.jpg", "2.JPE", "3.jfif", "4.avif", "5.jp2", "6.pbm", "7.heic", "8.jxl", "9.mp4"),
    *("10.gif", "notes.txt", ".hidden.jfif"),
]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_pictures_that_are_read_and_those_that_are_not(kind: str, tmp_path: Path) -> None:
    files = {f"p/{name}": name.encode() for name in MIXED}
    if kind == "tar":
        root = open_root(tar_with(tmp_path / "a.tar", files))
    else:
        (tmp_path / "p").mkdir()
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        root = open_root(tmp_path)
    assert root.image_names("p") == MIXED[:6]
    assert root.unread_names("p") == MIXED[6:10]
    assert root.size("p") == sum(map(len, MIXED[:6]))
    before = ReadingRules.as_before()
    assert root.image_names("p", before) == ["1.jpg"]
    assert root.size("p", before) == len("1.jpg")


def test_links_of_a_tar_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("p/1.jpg", tarfile.REGTYPE), ("p/2.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "1.jpg"
            archive.addfile(info, io.BytesIO())
    root = open_root(tmp_path / "a.tar")
    assert (root.image_names("p"), root.unread_names("p")) == (["1.jpg"], ["2.jpg"])


def test_what_is_neither_file_nor_folder_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "astray.mp4").symlink_to("nothing.mp4")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        root = open_root(tmp_path)
        for name, error, message in (
            ("pipe.mp4", OSError, "a named pipe"),
            ("circle.mp4", OSError, "symbolic links"),
            ("astray.mp4", FileNotFoundError, "a link that leads to nothing"),
            ("zero", OSError, "a device, not a file"),
            ("s", OSError, "a socket, not a file"),
        ):
            with pytest.raises(error, match=message):
                root.kind(name)
    with pytest.raises(
        VidfaceError, match=r"pipe.mp4: a named pipe \(FIFO\), not a file or folder"
    ):
        open_root(tmp_path / "pipe.mp4")
    assert root.kind("pipe.mp4/deeper") is None
    assert root.kind("nul\0") is None
    os.mkfifo(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").symlink_to("nothing.jpg")
    (tmp_path / "3.jpg").write_bytes(b"")
    assert root.image_names("") == ["3.jpg"]
    assert {"1.jpg", "2.jpg"} <= set(root.unread_names(""))


def test_all_images_of_folder_and_tar(root) -> None:
    """Below every folder, by their paths, in natural order; hidden files and others are none."""
    assert root.all_images() == ["set/p/2.jpg", "set/p/10.jpg"]
    assert [root.read(name) for name in root.all_images()] == [b"two", b"ten"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_all_images_of_many_folders(tmp_path: Path, kind: str) -> None:
    files = {
        "b/10.png": b"1",
        "b/9.JPEG": b"2",
        "b/deep/er/1.webp": b"3",
        "a10/1.jpg": b"4",
        "a9/1.jpg": b"5",
        "top.pgm": b"6",
        "a9/.hidden.jpg": b"7",
        "a9/clip.mp4": b"8",
        "a9/jpg": b"9",
    }
    if kind == "tar":
        root = open_root(tar_with(tmp_path / "a.tar", {**files, "./top.pgm": b"later"}))
    else:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        (tmp_path / "folder.jpg").mkdir()
        root = open_root(tmp_path)
    assert root.all_images() == [
        "a9/1.jpg", "a10/1.jpg", "b/9.JPEG", "b/10.png", "b/deep/er/1.webp", "top.pgm",
    ]  # fmt: skip
    assert root.read("b/deep/er/1.webp") == b"3"
    (tmp_path / "empty").mkdir()
    assert FolderRoot(tmp_path / "empty").all_images() == []


def test_video_in_tar_is_a_seekable_file(tmp_path: Path) -> None:
    video = TarRoot(tar_with(tmp_path / "a.tar", FILES)).open_video("set/clip.mp4")
    assert not isinstance(video, str)
    with video:
        assert video.seek(-3, io.SEEK_END) == 40 * 256 - 3
        assert video.read(10) == bytes([253, 254, 255])
        assert video.read(10) == b""
        assert video.seek(256 + 7) == 256 + 7
        assert video.read(2) == bytes([7, 8])
        video.seek(2, io.SEEK_CUR)
        assert video.read(1) == bytes([11])


def test_nothing_outside_of_the_tar(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind, target in (
            ("p/link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("p/hard.jpg", tarfile.LNKTYPE, "../secret.jpg"),
            ("p/pipe.jpg", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
        for name in ("../up.jpg", "/abs.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    root = TarRoot(tmp_path / "a.tar")
    for path in (
        "p/link.jpg",
        "p/hard.jpg",
        "p/pipe.jpg",
        "../up.jpg",
        "../secret.jpg",
        "/abs.jpg",
    ):
        assert root.kind(path) is None, path


def test_compressed_or_broken_tar(tmp_path: Path) -> None:
    tar_with(tmp_path / "a.tar.gz", FILES, "w:gz")
    with pytest.raises(VidfaceError, match=r"uncompressed tar.*decompress"):
        open_root(tmp_path / "a.tar.gz")
    (tmp_path / "b.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(VidfaceError, match="not a readable uncompressed tar"):
        open_root(tmp_path / "b.tar")


def test_cut_tar_is_refused(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "a.tar", {"one.jpg": b"1" * 100, "two.jpg": b"2" * 5000})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(VidfaceError, match=r"not a readable uncompressed tar \(unexpected end"):
        TarRoot(path)


def test_tar_cut_later_tells_on_reading(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "a.tar", {"one.jpg": b"1" * 100, "two.jpg": b"2" * 5000})
    root = TarRoot(path)
    path.write_bytes(path.read_bytes()[:3000])
    assert root.read("one.jpg") == b"1" * 100
    with pytest.raises(OSError, match=r"ends inside two\.jpg"):
        root.read("two.jpg")


def test_numbers_of_any_size_sort() -> None:
    big, bigger = "9" * 5000 + ".jpg", "1" + "0" * 5000 + ".jpg"
    assert sorted([bigger, big, "2.jpg"], key=natural_key) == ["2.jpg", big, bigger]


def test_size_is_that_of_the_clip(root) -> None:
    assert root.size("set/clip.mp4") == 256 * 40
    assert root.size("set/p") == len(b"ten") + len(b"two")
    assert root.size("set") == 0
    assert root.size("nothing") == 0


def test_absolute_paths_stand_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert FolderRoot(tmp_path / "elsewhere").kind(str(tmp_path / "a.mp4")) == "file"


@pytest.mark.parametrize("size", [-512, -1024, -1536])
def test_a_tar_that_leads_back_is_refused_and_not_read_for_ever(tmp_path: Path, size: int) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("a.jpg", "b.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 512
            archive.addfile(member, io.BytesIO(b"x" * 512))
    data = bytearray(packed.getvalue())
    header = data[1024:1536]
    header[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    (tmp_path / "clips.tar").write_bytes(data)
    with pytest.raises(VidfaceError, match="leads back"):
        open_root(tmp_path / "clips.tar")
