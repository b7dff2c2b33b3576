from __future__ import annotations

from pathlib import Path

import pytest

from vidface.backbones.settings import BackboneSettings
from vidface.core.errors import UsageError, VidfaceError
from vidface.noise.denoisers import UnionFind
from vidface.noise.settings import ClusterSettings
from vidface.settings.pipeline import load_pipeline, shipped_pipelines
from vidface.settings.run_settings import RunSettings

MINIMAL = '[manifest]\npath = "clips.csv"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    pipeline = load_pipeline(written(tmp_path / "sub", MINIMAL))
    assert pipeline.manifest.path == tmp_path / "sub" / "clips.csv"
    assert pipeline.run.dir == tmp_path / "runs" / "my"
    assert (pipeline.frames.fps, pipeline.frames.decoder) == (8.0, "pyav")
    assert (pipeline.faces.source, pipeline.faces.which) == ("detect", "largest")
    assert pipeline.backbone.weights == "sface"
    assert pipeline.cluster.denoiser == UnionFind(0.4)
    assert (pipeline.score.gallery, pipeline.score.split) == ("train", "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[frame]\nfps = 8\n", r"unknown table \[frame\] \(known: manifest, frames, faces"),
        (
            "[frames]\nfsp = 8\n",
            r"unknown key 'fsp' in \[frames\] \(known: fps, decoder, keep",
        ),
        ('[frames]\nfps = "8"\n', r"\[frames\] fps: must be a number, not '8'"),
        ("[frames]\nfps = true\n", r"\[frames\] fps: must be a number, not True"),
        ("[frames]\nfps = 0\n", r"\[frames\] fps: must be above 0"),
        ("[frames]\nfps = nan\n", r"\[frames\] fps: must be finite, not nan"),
        ('[frames]\ndecoder = "ffmpeg"\n', r"unknown value 'ffmpeg' \(known: pyav, decord\)"),
        (
            '[faces]\nsource = "crops"\n',
            r"unknown value 'crops' \(known: detect, aligned, features\)",
        ),
        ("[faces]\nkeep_crops = 1\n", r"keep_crops: must be true or false, not 1"),
        ("[faces]\ndetector_long_side = 1.5\n", "must be a whole number, not 1.5"),
        ("[faces]\nmin_det_score = 2\n", r"must lie in \[0, 1\]"),
        ('[backbone]\ncolor = "gray"\n', r"unknown value 'gray' \(known: rgb, bgr\)"),
        ("[backbone]\nstd = 0\n", r"\[backbone\] std: must be above 0"),
        ("[backbone]\nmean = [1, 2]\n", "one finite number or three"),
        (
            '[backbone]\nruntime = "tensorrt"\n',
            r"'tensorrt' \(known: auto, onnxruntime, openvino, t",
        ),
        ('[backbone]\nprecision = "int8"\n', r"'int8' \(known: float32, bf16, fp16\)"),
        ('[backbone]\ndevice = "gpu"\n', r"unknown value 'gpu' \(known: auto, cpu, cuda\)"),
        ("[backbone]\nruntime = 3\n", r"\[backbone\] runtime: must be a string, not 3"),
        ("[backbone]\narchitecture = true\n", "architecture: must be a string, not True"),
        ('[cluster]\nthreshold = "high"\n', "must be a number or \"none\", not 'high'"),
        ("[cluster]\nthreshold = 1.5\n", r"a cosine in \[-1, 1\]"),
        (
            '[cluster]\nmethod = "kmeans"\n',
            r"\[cluster\] method: unknown value 'kmeans' \(known: un",
        ),
        (
            '[cluster]\nmethod = "oracle"\n',
            r"\[cluster\] truth: the method \"oracle\" needs a truth",
        ),
        ("[cluster]\nmin_samples = 0\n", r"\[cluster\] min_samples: must be at least 1, not 0"),
        ("[cluster]\nmin_samples = 2.5\n", "min_samples: must be a whole number, not 2.5"),
        ("[cluster]\nmin_cluster_size = 1\n", r"min_cluster_size: must be at least 2, not 1"),
        ("[cluster]\ntrim_share = 1\n", r"trim_share: must lie in \[0, 1\), not 1.0"),
        ("[cluster]\ntrim_share = -0.1\n", r"trim_share: must lie in \[0, 1\), not -0.1"),
        ("[cluster]\ntrim_share = nan\n", "trim_share: must be finite, not nan"),
        ("[cluster]\ntruth = 3\n", r"truth: must be a path \(a string\), not 3"),
        ("[cluster]\nmemory = 3\n", r"memory: must be a string, not 3"),
        ('[descriptor]\npooling = "max"\n', r"pooling: unknown value 'max' \(known: mean, det-sc"),
        ("[descriptor]\npool = 1\n", r"unknown key 'pool' in \[descriptor\] \(known: pooling\)"),
        ('[score]\nsplit = "dev"\n', r"unknown value 'dev' \(known: train, val, test"),
        ("frames = 8\n", r"\[frames\] must be a table"),
        ("[frames\n", "not TOML"),
        ('[run]\ndir = ""\n', "empty path"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    first, rest = (text, MINIMAL) if text.startswith("frames =") else (MINIMAL, text)
    with pytest.raises(VidfaceError, match=message) as caught:
        load_pipeline(written(tmp_path, first + rest))
    assert "my.toml" in str(caught.value) or "[run]" in str(caught.value)


def test_manifest_path_is_needed(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"\[manifest\] path is missing"):
        load_pipeline(written(tmp_path, "[frames]\nfps = 8\n"))


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    text = """
[manifest]
path = "${CLIPS:-../data}/clips.csv"
[frames]
fps = "${FPS:-8}"
[run]
dir = "${PWD}/runs/x"
"""
    path = written(tmp_path, text)
    pipeline = load_pipeline(path)
    assert pipeline.manifest.path == tmp_path.parent / "data" / "clips.csv"  # from the file
    assert pipeline.run.dir == work / "runs" / "x"
    assert pipeline.frames.fps == 8.0
    monkeypatch.setenv("CLIPS", "../data")  # whoever sets it means their own working directory
    monkeypatch.setenv("FPS", "4")
    pipeline = load_pipeline(path)
    assert pipeline.manifest.path == tmp_path / "data" / "clips.csv"
    assert pipeline.frames.fps == 4.0
    monkeypatch.delenv("CLIPS")
    needed = written(tmp_path, '[manifest]\npath = "${NOBODY_SET_THIS}/clips.csv"\n')
    with pytest.raises(VidfaceError, match="environment variable NOBODY_SET_THIS is not set"):
        load_pipeline(needed)


def test_nested_variables_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, '[manifest]\npath = "${A:-${B:-x}}"\n')
    with pytest.raises(VidfaceError, match="not nested"):
        load_pipeline(path)


def test_another_manifest_is_not_prepared(tmp_path: Path) -> None:
    overrides = {("manifest", "path"): str(tmp_path / "mine.csv")}
    assert load_pipeline("demo", overrides).manifest.prepare is None


def test_threshold_spellings(tmp_path: Path) -> None:
    for text, value in (('"none"', None), ("-1", None), ("-1.0", None), ("0", 0.0), ("0.35", 0.35)):
        path = written(tmp_path, MINIMAL + f"[cluster]\nthreshold = {text}\n")
        assert load_pipeline(path).cluster.denoiser == UnionFind(value)


def test_weights_are_a_name_or_a_path(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL + '[backbone]\nweights = "nets/mine.onnx"\nmean = [1, 2, 3]\n')
    backbone = load_pipeline(path).backbone
    assert backbone.weights == str(tmp_path / "nets" / "mine.onnx")
    assert backbone.mean == (1.0, 2.0, 3.0)


def test_what_runs_the_recogniser(tmp_path: Path) -> None:
    backbone = load_pipeline(written(tmp_path, MINIMAL)).backbone
    assert (backbone.architecture, backbone.runtime, backbone.precision, backbone.device) == (
        None, "auto", "float32", "auto",
    )  # fmt: skip
    text = """
[backbone]
weights = "net.safetensors"
architecture = "paper-x0.5"
color = "bgr"
mean = 127.5
std = [1, 2, 3]
size = 112
runtime = "torch"
precision = "bf16"
device = "cuda:1"
"""
    path = written(tmp_path, MINIMAL + text)
    backbone = load_pipeline(path).backbone
    assert backbone.architecture == "paper-x0.5"
    assert (backbone.runtime, backbone.precision, backbone.device) == ("torch", "bf16", "cuda:1")

    # What the file says its recogniser is does not hold for another; what runs it does.
    backbone = load_pipeline(path, {("backbone", "weights"): "sface"}).backbone
    assert backbone == BackboneSettings(
        weights="sface", runtime="torch", precision="bf16", device="cuda:1"
    )
    overrides = {("backbone", "weights"): "a.pt", ("backbone", "architecture"): "y1",
                 ("backbone", "runtime"): "openvino", ("backbone", "mean"): 0.0}  # fmt: skip
    backbone = load_pipeline(path, overrides).backbone
    assert (backbone.architecture, backbone.color, backbone.mean) == ("y1", None, 0.0)
    assert (backbone.runtime, backbone.precision) == ("openvino", "bf16")
    with pytest.raises(UsageError, match=r"^--precision: unknown value 'int8' \(known: float32"):
        load_pipeline(path, {("backbone", "precision"): "int8"})


def test_flags_override_and_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = {("frames", "fps"): 2.0, ("run", "dir"): "out", ("backbone", "weights"): "a.onnx"}
    (tmp_path / "deep").mkdir()
    pipeline = load_pipeline(written(tmp_path / "deep", MINIMAL), overrides)
    assert pipeline.frames.fps == 2.0
    assert pipeline.run.dir == tmp_path / "out"
    assert pipeline.backbone.weights == str(tmp_path / "a.onnx")
    with pytest.raises(VidfaceError, match=r"--fps: must be above 0, not -1.0"):
        load_pipeline(tmp_path / "deep" / "my.toml", {("frames", "fps"): -1.0})


def test_which_file_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no vidface.toml here: vidface run FOLDER, or vidface"):
        load_pipeline()
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "vidface.toml").write_text(MINIMAL, encoding="utf-8")
    with pytest.raises(UsageError, match=r"no vidface.toml here: cd 'a b', where one is, or vidf"):
        load_pipeline()
    (tmp_path / "vidface.toml").write_text(MINIMAL, encoding="utf-8")
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path / "clips")
    with pytest.raises(
        UsageError, match=r"no vidface.toml here: cd \.\., where one is, or vidface"
    ):
        load_pipeline()
    monkeypatch.chdir(tmp_path)
    assert load_pipeline().manifest.path == tmp_path / "clips.csv"
    assert load_pipeline("demo").manifest.prepare == "demo"
    with pytest.raises(VidfaceError, match=r"no such file; .*shipped recipes: demo, hard"):
        load_pipeline("demmo")


@pytest.mark.parametrize("name", sorted(shipped_pipelines()))
def test_shipped_recipes_load_and_their_manifests_exist(name: str) -> None:
    pipeline = load_pipeline(name)
    assert pipeline.manifest.prepare is not None or pipeline.manifest.path.is_file()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 1024**3),
        ("500MB", 500_000_000),
        ("1.5GiB", 3 * 2**29),
        ("7", 7),
        ("7B", 7),
        ("1K", 1000),
        ("1Ki", 1024),
        (" 2 TB ", 2 * 10**12),
        ("0.001K", 1),
    ],
)
def test_memory_sizes(text: str, size: int) -> None:
    assert ClusterSettings(memory=text).memory_bytes == size


@pytest.mark.parametrize(
    "text",
    ["0", "0GiB", "0.5", "0.9B", "lots", "", "-1GiB", "-1", "1e9", "1 GiB more", "1iB", "GiB",
     "1gib", "nan", "inf", "9999999999TiB", "1" + "0" * 400, "9223372036854775808"],
)  # fmt: skip
def test_what_is_no_memory_size(text: str, tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r'^\[cluster\] memory: a size such as "2GiB"'):
        ClusterSettings(memory=text)
    overrides = {("cluster", "memory"): text}
    with pytest.raises(UsageError, match=r"^--memory: a size such as"):
        load_pipeline(written(tmp_path, MINIMAL), overrides)


def test_what_the_truths_path_is_relative_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "sub", MINIMAL + '[cluster]\nmethod = "oracle"\ntruth = "t.csv"\n')
    assert load_pipeline(path).cluster.truth == tmp_path / "sub" / "t.csv"
    overrides = {("cluster", "truth"): "t.csv"}
    assert load_pipeline(path, overrides).cluster.truth == tmp_path / "t.csv"


def test_noise_settings_of_a_file(tmp_path: Path) -> None:
    text = """
[cluster]
method = "dbscan"
threshold = 0.3
min_samples = 2
min_cluster_size = 4
trim_share = 0
memory = "1GiB"
[descriptor]
pooling = "norm"
"""
    from vidface.noise.denoisers import Dbscan
    from vidface.runs.denoising import Denoising

    pipeline = load_pipeline(written(tmp_path, MINIMAL + text))
    assert Denoising.from_pipeline(pipeline) == Denoising(
        Dbscan(0.3, min_samples=2), "norm", None, 2**30
    )
    overrides = {("cluster", "method"): "none", ("descriptor", "pooling"): "medoid"}
    changed = load_pipeline(tmp_path / "my.toml", overrides)
    assert (changed.cluster.method, changed.descriptor.pooling) == ("none", "medoid")


class TestRunSettings:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                {"executor": "slurm"},
                r"executor: unknown value 'slurm' \(known: serial, joblib, dask",
            ),
            ({"scheduler": "tcp://a:1"}, r"scheduler: only with executor = \"dask\""),
            ({"workers": 0}, "workers: must be at least 1, not 0"),
            ({"shard_clips": 0}, "shard_clips: must be at least 1, not 0"),
            ({"stall_timeout_seconds": 0}, "stall_timeout_seconds: must be above 0, not 0"),
            (
                {"clip_timeout_seconds": float("nan")},
                "clip_timeout_seconds: must be finite, not nan",
            ),
            ({"clip_memory": "much"}, "clip_memory: a size such as"),
            ({"clip_memory": "1MB"}, "clip_memory: at least 64MiB, not 1MB"),
        ],
    )
    def test_wrong_values(self, given: dict, message: str) -> None:
        with pytest.raises(VidfaceError, match=rf"\[run\] {message}"):
            RunSettings(Path("run"), **given)

    def test_sizes(self) -> None:
        assert RunSettings(Path("run"), clip_memory="64MiB").clip_memory_bytes == 2**26
        assert RunSettings(Path("run")).clip_memory_bytes == 2**31
