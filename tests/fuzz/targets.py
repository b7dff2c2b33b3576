"""Every parser of files that strangers hand in, with seeds small enough to read. See `harness`."""

from __future__ import annotations

import functools
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fuzz.harness import Target
from vidface.core.files import named_errors, write_json
from vidface.storage.names import is_image_name

TARGETS: dict[str, Target] = {}

Files = Mapping[str, "str | bytes"]


def _register(
    room: str, files: Files, shape: str | None = None, least: float = 0.5, **shapes: str
) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Register what parses these files; `shape` is that of all, `shapes` those of some by name."""

    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            data = content.encode() if isinstance(content, str) else content
            (folder / name).write_bytes(data)

    some = {name.replace("_", "."): value for name, value in shapes.items()}
    return _register_made(room, make, some or dict.fromkeys(files, str(shape)), least)


def _register_made(
    room: str, make: Callable[[Path], None], shapes: dict[str, str], least: float = 0.5
) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    def register(parse: Callable[[Path], Any]) -> Callable[[Path], Any]:
        TARGETS[parse.__name__.removeprefix("parse_")] = Target(room, make, shapes, parse, least)
        return parse

    return register


@functools.cache
def _png(side: int = 8) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


# settings

MANIFEST = """clip_id,path,identity,split,start_seconds,end_seconds,more
c1,a.mp4,ann,train,,,x
c2,p/b.mp4,bob,val,0.5,2,
"c 3","http://h.example/c.mp4?s=1",,val,,1e1,"y, z"
"""


@_register("settings", {"manifest.csv": MANIFEST}, "lines")
def parse_manifest(path: Path) -> None:
    from vidface.settings.doubles import warn_of_doubles
    from vidface.settings.manifests import manifest_bytes, read_manifest

    manifest = read_manifest(path, check_files=False)
    list(warn_of_doubles(manifest))
    assert manifest.clips_sha256
    manifest_bytes(manifest.clips)


PIPELINE = """
[manifest]
path = "manifest.csv"
root = "clips"
allow_missing = true
[frames]
fps = 8
[faces]
source = "aligned"
[backbone]
weights = "sface"
color = "rgb"
mean = 127.5
std = [127.5, 127.5, 127.5]
[cluster]
threshold = 0.4
[score]
fars = "1e-2,1e-3"
k = 10
[run]
dir = "${RUNS:-runs}/a"
[[published]]
name = "paper"
figure = "tar_at_far.1e-4"
value = 0.5
"""


@_register("settings", {"p.toml": PIPELINE}, "toml")
def parse_pipeline(path: Path) -> None:
    from vidface.settings.pipeline import load_pipeline

    load_pipeline(path)


TEXTS = {
    "http.address": "https://h.example:443/a/b%20c.mp4?X-Amz-Signature=1&id=2#x",
    "s3.address": "s3://bucket/run/a",
    "list.thresholds": "0.4,0.5,none,0.1:0.6:0.1",
    "one.threshold": "0.40",
    "file.place": "file:///data/my%20clips",
}


@_register("settings", TEXTS, "lines", least=0.3)
def parse_texts(path: Path) -> None:
    """What flags and cells hold: addresses, thresholds, rates."""
    from vidface.core.redaction import is_url, redacted, redacted_text
    from vidface.core.thresholds import parse_threshold, parse_thresholds
    from vidface.core.values import exact_rate, printable, split_list
    from vidface.storage.media import as_location
    from vidface.storage.urls import Address, base_name, unsigned

    text = path.read_bytes().decode("utf-8", "surrogateescape")
    for look in (redacted, redacted_text, unsigned, base_name, printable, is_image_name, is_url):
        look(text)
    for part in split_list(text):
        exact_rate(part)
    parse: dict[str, Callable[[str], Any]] = {
        ".thresholds": parse_thresholds, ".threshold": parse_threshold, ".place": as_location
    }  # fmt: skip
    parse.get(path.suffix, lambda text: Address(text).key)(text)


# datasets

FACES = {
    f"faces/{name}/{name}_000{k}.jpg": _png() for name in ("ann", "bob", "c d") for k in (1, 2)
}


def _embeddings(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"clip_id": ["a", "a", "b"], "identity": ["x", "x", "y"], "frame": [3, 1, 0]}
    vectors = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    np.savez(folder / "rows.npz", embedding=vectors, **columns)
    np.save(folder / "plain.npy", vectors)
    (folder / "plain.txt").write_text("a\na\nb\n")
    table = pa.table({**columns, "embedding": vectors.tolist()})
    pq.write_table(table, folder / "rows.parquet")


EMBEDDING_FILES = {
    "*.npz": "zip",
    "plain.npy": "bytes",
    "plain.txt": "lines",
    "*.parquet": "parquet",
}


@_register_made("datasets", _embeddings, EMBEDDING_FILES, least=0.3)
def parse_embeddings(path: Path) -> None:
    from vidface.challenges.embeddings import list_clips
    from vidface.datasets.embedding_files import iter_embeddings, read_embeddings

    path = path.with_suffix(".npy") if path.suffix == ".txt" else path
    for video in iter_embeddings(path):
        assert len(video.features) == len(video.frames)
    rows = read_embeddings(path)
    rows.describe_lengths()
    if path.suffix != ".npy":  # which names nobody
        list_clips(rows, path.name)


@_register(
    "datasets",
    {
        "a.txt": "ann/0 ann/1 1\nann/0 bob/4 0\nbob/3 bob/4 same\n",
        "b.csv": 'fold, first name, second name, is same\n1, ann/0, "ann, 1", 1\n2, ann/0, c, 0\n',
        "c.tsv": "template_1\ttemplate_2\tlabel\na b\tc d\t1\nx\ty\t0\n",
    },
    "lines",
)
def parse_pair_list(path: Path) -> None:
    from vidface.datasets import pair_lists

    for least in (2**20, 0):  # line by line, and as large lists are read
        pair_lists._FAST_FROM_BYTES = least
        len(pair_lists.read_pair_list(path).names)
    assert pair_lists.read_pair_list(path).repeated >= 0


LISTS = {
    "lfw.txt": "1 2\nann 1 2\nbob 1 2\nann 1 bob 2\nc d\t1\tbob\t1\n".replace("c d", "ann"),
    "kaggle.csv": "name,imagenum1,imagenum2,\nann,1,2,\nbob,1,2,\nann,1,bob,2\nbob,1,ann,2\n",
    "paths.txt": "ann/ann_0001.jpg ann/ann_0002.jpg 1\nann/ann_0001.jpg bob/bob_0001.jpg 0\n",
    "two.txt": "ann/ann_0001.jpg 1\nann/ann_0002.jpg 1\nann/ann_0001.jpg 0\nbob/bob_0001.jpg 0\n",
    "head.csv": "path1,path2,same,fold\nann/ann_0001.jpg,ann/ann_0002.jpg,1,1\n"
    "ann/ann_0001.jpg,bob/bob_0001.jpg,0,2\n",
}


@_register("datasets", {**FACES, **LISTS}, **{"*_txt": "lines", "*_csv": "lines"})
def parse_face_pairs(path: Path) -> None:
    from vidface.datasets.pair_sources import open_pairs

    pairs = open_pairs(path.parent / "faces", path)
    with named_errors(path):  # as its callers do: single images may be missing
        pairs.read(0)


@_register(
    "datasets",
    {
        "a.txt": "1.jpg 7 70\n2.jpg 7 71\n3.jpg 9 71\n",
        "b.csv": "TEMPLATE_ID,SUBJECT_ID,FILENAME,MEDIA_ID\n7,1,a.jpg,70\n8,1,b.jpg,71\n9,2,c,7\n",
    },
    "lines",
)
def parse_templates(path: Path) -> None:
    from vidface.datasets.templates import read_templates

    str(read_templates(path))


@_register(
    "datasets",
    {
        f"{protocol}.bin": pickle.dumps(([_png()] * 4, [True, False]), protocol=protocol)
        for protocol in (0, 2, 4)
    }
    | {"array.bin": pickle.dumps(([np.frombuffer(_png(), np.uint8)] * 4, np.array([1, 0])))},
    "pickle",
)
def parse_insightface_bin(path: Path) -> None:
    from vidface.datasets.insightface_bin import read_insightface_bin

    pairs = read_insightface_bin(path)
    pairs.read(0)


def _features() -> bytes:
    face = [["v_000012.jpg", (1.0, 2.0, 3.0, 4.0), 0.9, 80.5, np.ones(4, np.float16)]]
    return pickle.dumps({"v1.mp4": face, "v2.mp4": [], b"v3": face * 2}, protocol=2)


@_register("datasets", {"face_val_v2.pickle": _features()}, "pickle")
def parse_iqiyi_features(path: Path) -> None:
    from vidface.datasets.iqiyi_features import iter_features

    for video in iter_features(path):
        str(video)


@_register(
    "datasets",
    {
        "train_gt.txt": "v1.mp4 1\nv2.mp4 2\nv3.mp4 1\n",
        "val_gt.txt": "1 v1.mp4 v2.mp4\n2 v4.mp4\n3\n",
        "ranked.txt": "1 v1.mp4 v2.mp4\n2 v4\n",
        "filelist.txt": "video_2 31\n./video_1/\na//b\n",
    },
    "lines",
)
def parse_challenge_lists(path: Path) -> None:
    from vidface.datasets.iqiyi import read_ground_truth
    from vidface.datasets.lfrc import read_filelist
    from vidface.datasets.submissions import read_ranked_list

    read = {"filelist.txt": read_filelist, "ranked.txt": read_ranked_list}
    read.get(path.name, read_ground_truth)(path)


SUBMISSION = struct.pack("<4i", 2, 3, 12, 5) + np.ones((2, 3), "<f4").tobytes()


@_register("datasets", {"s.bin": SUBMISSION, "filelist.txt": "a\nb\n"}, s_bin="bytes", least=0.4)
def parse_submission(path: Path) -> None:
    from vidface.datasets.submissions import check_submission

    check_submission(path, path.with_name("filelist.txt"))


def _record(flag: int, labels: list[float], number: int, data: bytes) -> bytes:
    head = struct.pack("<IfQQ", flag, 0.0 if flag else labels[0], number, 0)
    body = head + (np.array(labels, "<f4").tobytes() if flag else b"") + data
    return struct.pack("<II", 0xCED7230A, len(body)) + body + b"\0" * (-len(body) % 4)


def _record_set() -> dict[str, bytes]:
    """Two people, three pictures, as InsightFace packs them."""
    records = [_record(2, [4, 6], 0, b"")]
    records += [_record(0, [label], k + 1, _png(112)) for k, label in enumerate((0.0, 0.0, 1.0))]
    records += [_record(2, [1, 3], 4, b""), _record(2, [3, 4], 5, b"")]
    places = np.cumsum([0, *(len(r) for r in records[:-1])])
    index = "".join(f"{key}\t{at}\n" for key, at in enumerate(places))
    return {"train.rec": b"".join(records), "train.idx": index.encode(), "property": b"2,112,112"}


@_register(
    "training", _record_set(), least=0.4, train_rec="bytes", train_idx="lines", property="lines"
)
def parse_record_set(path: Path) -> None:
    from vidface.training.sources.recordio import open_recordio

    source = open_recordio(path.parent)
    for index in range(len(source.labels)):
        source.pictures.read(index)


TRUTH = "clip_id,frame_index,kind\nc1,0,own\nc1,1,other\nc2,7,own\n"


@_register(
    "noise", {"truth.csv": TRUTH, "b.csv": "noise,file,clip_id\n1,a/b.jpg,c\n"}, "lines", 0.3
)
def parse_truth(path: Path) -> None:
    from vidface.noise.truth import read_truth

    read_truth(path)


# training


@functools.cache
def _recipe() -> str:
    from vidface.settings.pipeline import shipped_trainings

    return min((path.read_text() for path in shipped_trainings().values()), key=len)


@_register("training", {"train.toml": _recipe()}, "toml")
def parse_recipe(path: Path) -> None:
    from vidface.training.recipes import load_training

    load_training(path)


SAMPLES = {"0/a.png": _png(112), "0/a.cls": b"3", "0/b.png": _png(112), "0/b.json": b'{"label": 4}'}


@_register("training", {"faces-000000.tar": _tar(SAMPLES)}, "tar")
def parse_shards(path: Path) -> None:
    from vidface.training.sources.shards import open_shards

    source = open_shards(path)
    for index in range(len(source.labels)):
        source.pictures.read(index)


@_register("training", {"faces.tar": _tar({"ann/1.png": _png(112), "bob/2.png": _png(112)})}, "tar")
def parse_folders(path: Path) -> None:
    from vidface.training.sources.folders import open_folders

    source = open_folders(path)
    for index in range(len(source.labels)):
        source.pictures.read(index)


def _checkpoint() -> bytes:
    from safetensors.numpy import save

    from vidface.training.checkpoints import FORMAT, KEY, TrainingPosition

    about = {"format": FORMAT, "position": vars(TrainingPosition())}
    tensors = {"a.w": np.ones((2, 3), np.float32), "a.n": np.array(3)}
    return save(tensors, metadata={KEY: json.dumps(about)})


@_register("training", {"checkpoint.safetensors": _checkpoint()}, "safetensors", least=0.1)
def parse_checkpoint(path: Path) -> None:
    from vidface.training.checkpoints import TrainingPosition, load_checkpoint

    _, about = load_checkpoint(path)
    TrainingPosition.from_json(about.get("position"), 3, str(path))


# storage and frames


@_register(
    "storage",
    {"root.tar": _tar({"a/1.png": _png(), "a/2.png": _png(), "b.mp4": b"x" * 700})},
    "tar",
)
def parse_tar_root(path: Path) -> None:
    from vidface.storage.media import TarRoot

    root = TarRoot(path)
    with named_errors(path):  # as its callers do
        for name in root.image_names("a") if root.kind("a") == "folder" else ():
            root.read(f"a/{name}")


@_register(
    "storage",
    {
        "index.json": json.dumps(
            {"entries": {"a/b.json": [3, "e", [1, 2, 3]], "c": [1, "", None]}}
        ),
        ".lock.json": '{"pid": 1, "host": "h", "what": "extract", "reads": ["a"], "replaces": [], '
        '"since": "2026-01-01T00:00:00+00:00"}',
        "lock.json": '{"token": "t", "host": "h", "pid": 1, "what": "extract", "time": 1.5}',
    },
    "json",
    least=0.7,
)
def parse_locks_and_index(path: Path) -> None:
    from vidface.storage.locks import _read_worker
    from vidface.storage.mirror import _read_index
    from vidface.storage.mirror_lock import RemoteLock, _age_seconds

    class OneObject:
        def read(self, *_: object) -> bytes:
            return path.read_bytes()

    if path.name == "index.json":
        _read_index(path)
    elif path.name == ".lock.json":
        str(_read_worker(path))
    else:
        lock = RemoteLock.__new__(RemoteLock)
        lock._store, lock._address, lock._folder = OneObject(), None, "s3://b/run"
        owner = lock._owner()
        lock._refusal(owner, _age_seconds(owner))


def _pictures() -> dict[str, bytes]:
    from PIL import Image

    pictures = {}
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"):
        file = io.BytesIO()
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind)
        pictures[f"a.{kind.lower()}"] = file.getvalue()
    return pictures


@_register("storage", _pictures(), "bytes", least=0.1)
def parse_picture(path: Path) -> None:
    from vidface.storage.images import decode_image, is_animated

    is_animated(path.read_bytes())
    decode_image(path.read_bytes(), path.name)


def _clips(folder: Path) -> None:
    for name in ("rich.mp4", "rich.mkv", "rich.avi", "fps5.mp4"):
        content = (Path(__file__).parent.parent / "golden" / name).read_bytes()
        (folder / name).write_bytes(content[:2048] + content[-2048:])


@_register_made("storage", _clips, {"*": "bytes"})
def parse_video_header(path: Path) -> None:
    from vidface.frames.headers import header_fault, lost_its_index, unfinished_part

    for look in (header_fault, lost_its_index, unfinished_part):
        with path.open("rb") as file:
            look(file)
            assert file.tell() == 0


# backbones


CARD = """weights = "c.onnx"
sha256 = "@"
licence = "c"
[preprocessing]
color = "rgb"
mean = 127.5
std = 128
"""


@_register("backbones", {"card.toml": CARD, "c.onnx": b"x"}, card_toml="toml", least=0.3)
def parse_card(path: Path) -> None:
    from vidface.backbones.cards import find_card

    card = find_card(str(path))
    assert card is not None


def _graph(folder: Path) -> None:
    """(x − 127.5) / 128, a convolution, the mean, a linear layer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 4])
    weights = {
        "mean": np.float32(127.5),
        "std": np.full((3, 1, 1), 1 / 128, np.float32),
        "kernel": np.ones((4, 3, 3, 3), np.float32),
        "slope": np.full((4, 1, 1), 0.25, np.float32),
        "linear": np.eye(4, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["image", "mean"], ["a"]),
        helper.make_node("Mul", ["a", "std"], ["b"]),
        helper.make_node("Conv", ["b", "kernel"], ["c"], strides=[2, 2]),
        helper.make_node("PRelu", ["c", "slope"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "linear"], ["vector"]),
    ]
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [image], [vector], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entry = model.metadata_props.add()
    entry.key, entry.value = "vidface", '{"preprocessing": {"color": "rgb", "std": 128.0}}'
    onnx.save(model, str(folder / "g.onnx"))


@_register_made("backbones", _graph, {"g.onnx": "onnx"}, least=0.4)
def parse_onnx(path: Path) -> None:
    """Everything but running it, which is done in another process."""
    from vidface.backbones.budget import count_graph
    from vidface.backbones.conforming import fit_to_graph, fixed_batch
    from vidface.backbones.files import read_bare_graph, read_network
    from vidface.backbones.graphs import fix_batch, split_prelu, with_preprocessing
    from vidface.backbones.own_affine import _cut_front
    from vidface.backbones.preprocessing import Preprocessing

    read_bare_graph(path)
    model = read_network(path, path.name).graph()
    fed = fit_to_graph(Preprocessing(), model, path.name)
    fixed_batch(model)
    _cut_front(model)
    with_preprocessing(split_prelu(fix_batch(model, 2)), fed)
    count_graph(model, path.name)


def _weights(folder: Path) -> None:
    import torch

    tensors = {"module.a": torch.ones(2, 3), "module.b": torch.arange(4)}
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "a.pt")
    (folder / "b.safetensors").write_bytes(_checkpoint())
    array = struct.pack("<IiI2q3i", 0xF993FAC9, 0, 2, 2, 3, 1, 0, 0) + np.ones(6, "<f4").tobytes()
    names = [b"arg:conv_1_conv2d_weight", b"aux:fc1_moving_mean"]
    listed = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    (folder / "c-0000.params").write_bytes(
        struct.pack("<QQQ", 0x112, 0, 2) + array * 2 + struct.pack("<Q", 2) + listed
    )


@_register_made(
    "backbones",
    _weights,
    {"*.pt": "zip", "*.safetensors": "safetensors", "*.params": "bytes"},
    least=0.2,
)
def parse_weights(path: Path) -> None:
    from vidface.backbones.files import read_declaration, read_state

    read_declaration(path)
    read_state(path)


# runs and reports


@functools.cache
def _run_files() -> dict[str, bytes]:
    """The files of a small run with an artefact of every kind, without digests."""
    import tempfile

    import pyarrow as pa

    from tests.conftest import write_colour_network
    from tests.made_runs import made_run
    from vidface.cli.commands import main
    from vidface.runs import artefacts
    from vidface.runs.profiles import Profile
    from vidface.settings.pipeline import pipeline_document

    with tempfile.TemporaryDirectory() as text:
        folder = Path(text, "made")  # its name is a setting of the run
        folder.mkdir()
        run = made_run(folder, write_colour_network(folder / "c.onnx"), clips=20, shard_clips=20)
        flags = ("--pipeline", str(folder / "made.toml"), "--threshold", "0.4")
        for words in (
            ("cluster", *flags),
            ("score", *flags),
            ("sweep", *flags[:2], "--thresholds", "0.2:0.6:0.2"),
            ("sweep", *flags[:2], "--thresholds", "0.2:0.6:0.2", "--folds", "2"),
        ):
            with pytest.raises(SystemExit) as stop, redirect_stdout(io.StringIO()):
                main(words)
            assert not stop.value.code, words
        write_json(run.folder.pipeline_path, pipeline_document(run.pipeline))
        profile = Profile({"embed": 2.5}, 2.5, 20, 9, 9, 2, "serial", "torch")
        write_json(run.folder.profile_path, profile.to_dict())
        shard, made = artefacts.read_shard(run.folder.shard_path(0))
        crops = shard.table.select(["clip_id", "frame_index", "face_index"])
        crops = crops.append_column("jpeg", pa.array([_png(112)] * len(crops), pa.binary()))
        artefacts.write_parquet(run.folder.crops_path(0), crops, made)
        return {
            str(path.relative_to(text)): path.read_bytes().replace(text.encode(), b"@FOLDER@")
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("_")
        }


def _make_run(folder: Path) -> None:
    for name, content in _run_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.replace(b"@FOLDER@", str(folder).encode()))


ARTEFACTS = {
    "made/run/embeddings/*.arrow": "arrow",
    "made/run/linkage/*.arrow": "arrow",
    "made/run/clips.parquet": "parquet",
    "made/run/clusters/*/*.parquet": "parquet",
    "made/run/crops/*.parquet": "parquet",
}


@_register_made("runs", _make_run, ARTEFACTS)
def parse_run_artefacts(path: Path) -> None:
    """Open, cluster, list and show a run, as far as reading goes."""
    from vidface.runs.clips import list_clips
    from vidface.runs.clusterings import name_unusable_faces
    from vidface.runs.crops import read_clip_faces
    from vidface.runs.noise_removal import denoise
    from vidface.runs.run import open_run
    from vidface.runs.scoring import load_denoised, score_descriptors
    from vidface.settings.pipeline import load_pipeline

    folder = next(parent for parent in path.parents if (parent / "made.toml").is_file())
    run = open_run(load_pipeline(folder / "made.toml"), check_files=False)
    list_clips(run)
    denoised, denoising = load_denoised(run)
    if path.suffix == ".arrow":
        denoise(run, denoising)
    elif path.name == "descriptors.parquet":
        settings = replace(run.pipeline.score, bootstrap=0)
        score_descriptors(run, denoised, "val", "train", settings=settings)
    else:
        name_unusable_faces(run, denoised)
        read_clip_faces(run, "c3", denoising)


@_register_made(
    "reports", _make_run, {**ARTEFACTS, "made/run/s*/*.json": "json", "made/run/*.json": "json"}
)
def parse_report(path: Path) -> None:
    """What a report reads; it notes what is wrong with most files."""
    from vidface.reports.gather import gather_run

    folder = next(parent for parent in path.parents if (parent / "clips.parquet").is_file())
    gather_run(folder)


FORGOTTEN = {
    **{"version": 1, "salt": "00ff", "clips": ["0123"], "people": ["4567"]},
    "unfinished": {"remove": ["a.png"], "clips_sha256": ["89", "ab"]},
}


@_register("runs", {"forgotten.json": json.dumps(FORGOTTEN)}, "json", least=0.2)
def parse_forgotten(path: Path) -> None:
    from vidface.runs.forgotten import read_forgotten

    read_forgotten(path.parent).forgets_clip("a")


@_register_made("runs", _make_run, {"made/run/run.json": "json"})
def parse_run_json(path: Path) -> None:
    from vidface.reports.figures.sources import find_chosen_threshold
    from vidface.runs.run import open_run_folder

    find_chosen_threshold(path.parent)
    open_run_folder(path.parent)


@_register_made("runs", _make_run, {"made/run/profile.json": "json"})
def parse_profile(path: Path) -> None:
    from vidface.runs.profiles import read_profile
    from vidface.runs.run_folder import RunFolder

    str(read_profile(RunFolder(path.parent)))


@_register_made(
    "reports", _make_run, {"made/run/s*/*.json": "json", "made/run/scores/*.csv": "lines"}
)
def parse_score_files(path: Path) -> None:
    from vidface.reports import scores
    from vidface.reports.figures.roc import read_roc
    from vidface.reports.figures.sweep import read_series
    from vidface.runs.score_documents import read_document

    if path.suffix == ".csv":
        scores.read_average_precision(path)
    elif path.name.startswith("selected_"):
        read_document(path, "selection")
    elif path.parent.name == "sweeps":
        scores.read_sweep(path)
        read_series("a", read_document(path, "sweep"))
    elif path.name.endswith(".curves.json"):
        read_roc("a", read_document(path, "curves"), "verification")
    else:
        list(scores.read_score(path).failures())
