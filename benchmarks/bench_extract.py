"""How fast are clips extracted, against what people run today and against the machine's limit?

    VIDFACE_DATA=../shared/data python benchmarks/bench_extract.py          # about ten minutes
    VIDFACE_DATA=../shared/data python benchmarks/bench_extract.py --quick  # a quarter of the clips

Every figure is frames/s (sampled frames) on the same clips, models and cores, all in one run:

- each stage alone at full use of the machine: decoding, detection with alignment (one process a
  core each), embedding (the recogniser's own plan). All share the same cores, so nothing end to end
  can be faster than 1 / (1/decode + 1/detect + 1/embed): that is the floor printed beside the
  slowest stage, which is the limit only where stages have hardware of their own;
- end to end: `vidface extract` into a fresh run directory, starting of processes and models left
  out (they are loaded once a run) and counted apart;
- the script that people write: cv2.VideoCapture, every n-th frame, detector on the whole frame, one
  ONNX call a face; the libraries' own threads;
- the decoders alone, one thread each, on the same clips;
- folders of aligned crops: end to end against cv2.imread and batches of 32.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.backbones.weights import weights_path
from vidface.core.clips import Clip
from vidface.core.values import available_cores
from vidface.faces.detector import FaceDetector, align_face
from vidface.faces.events import ClipLimits
from vidface.faces.settings import FaceSettings
from vidface.frames.sampling import sample_frames
from vidface.frames.settings import FrameSettings
from vidface.runs.clip_extraction import ClipEmbedder
from vidface.storage.media import FolderRoot, TarRoot

FPS = 8
BATCH = 32  # of the challenge's own loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="sface")
    parser.add_argument("--quick", action="store_true", help="a quarter of the clips")
    parser.add_argument("--repeats", type=int, default=3, help="of each, in turn; medians are told")
    options = parser.parse_args()
    data = Path(os.environ["VIDFACE_DATA"]).resolve()
    clips = sorted((data / "clips" / "wlasl").glob("*.mp4"))
    clips = clips[::4] if options.quick else clips
    model, detector = weights_path(options.weights), weights_path("yunet")
    cores = available_cores()
    backbone = load_backbone(options.weights)
    print(f"{len(clips)} clips, {cores} cores, {options.weights} by {backbone.plan}")

    images = [frame.image for path in clips[::4] for frame in sample_frames(path, FPS)][:200]
    crops = np.stack(list(crops_of(images, detector)))
    aligned = aligned_folders(data, 40 if options.quick else 160)

    contestants: dict[str, Callable[[], tuple[int, float]]] = {
        "decode alone": lambda: in_processes(count_frames, clips, cores),
        "detect + align alone": lambda: detect_alone(images, detector, cores),
        "embed alone": lambda: timed(lambda: len(backbone.embed(repeated(crops, 400)))),
        "end to end": lambda: end_to_end(clips, backbone, detector, cores),
        "peer script": lambda: timed(lambda: peer_script(clips, model, detector)),
        "crops: end to end": lambda: end_to_end_crops(aligned, backbone, cores),
        "crops: peer loop": lambda: timed(lambda: peer_loop(aligned, model)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.repeats):
        for name, run in contestants.items():
            count, seconds = run()
            rates[name].append(count / seconds)
    median = {name: float(np.median(found)) for name, found in rates.items()}
    for name, found in rates.items():
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name:22} {median[name]:8.1f} frames/s   ({spread})")
    stages = [median[name] for name in ("decode alone", "detect + align alone", "embed alone")]
    floor = 1 / sum(1 / rate for rate in stages)
    ours = median["end to end"]
    verdict(ours / min(stages), 0.85, "end to end / slowest stage alone")
    print(f"  end to end / what these cores can do at all: {ours / floor:.2f}")
    verdict(ours / median["peer script"], 2.5, "end to end / the script people write")
    of_crops = median["crops: end to end"] / median["crops: peer loop"]
    print(f"  crops: end to end / cv2.imread and batches of {BATCH}: {of_crops:.2f}")
    compare_decoders(clips)
    shutil.rmtree(aligned, ignore_errors=True)


def verdict(ratio: float, target: float, what: str) -> None:
    said = "met" if ratio >= target else "missed"
    print(f"  {what}: {ratio:.2f} (target {target}: {said})")


def timed(work: Callable[[], int]) -> tuple[int, float]:
    begun = time.perf_counter()
    return work(), time.perf_counter() - begun


# Stages alone.


def count_frames(path: Path) -> int:
    return sum(1 for _ in sample_frames(path, FPS, threads=1))


def in_processes(work: Callable[[Path], int], paths: list[Path], cores: int) -> tuple[int, float]:
    with processes(cores) as pool:
        list(pool.map(warm, range(cores)))
        return timed(lambda: sum(pool.map(work, paths)))


def processes(cores: int) -> ProcessPoolExecutor:
    """Spawned: forks of a process with running threads hang."""
    return ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn"))


def warm(_: int) -> None:
    """Import what decoding imports at its first frame, before the time is taken."""
    import av  # noqa: F401
    import cv2

    cv2.setNumThreads(1)


def detect_all(images: list[np.ndarray], detector: Path) -> tuple[int, float]:
    import cv2

    cv2.setNumThreads(1)
    found = FaceDetector(model=detector)
    found.detect(images[0])
    return timed(lambda: sum(1 for _ in faces_of(images, found)))


def faces_of(images: list[np.ndarray], detector: FaceDetector) -> Iterator[np.ndarray | None]:
    for image in images:
        faces = detector.detect(image)
        yield align_face(image, faces.landmarks[0]) if len(faces) else None


def detect_alone(images: list[np.ndarray], detector: Path, cores: int) -> tuple[int, float]:
    """Each process its share; the slowest one's time counts."""
    with processes(cores) as pool:
        parts = [images[k::cores] for k in range(cores)]
        done = list(pool.map(detect_all, parts, [detector] * cores))
    return sum(n for n, _ in done), max(seconds for _, seconds in done)


def crops_of(images: list[np.ndarray], detector: Path) -> Iterator[np.ndarray]:
    yield from (crop for crop in faces_of(images, FaceDetector(model=detector)) if crop is not None)


def repeated(crops: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([crops] * (n // len(crops) + 1))[:n]


# End to end.


def end_to_end(
    clips: list[Path], backbone: Embedder, detector: Path, cores: int
) -> tuple[int, float]:
    """From the first clip's end to the last one's: starting the processes is not counted."""
    root = FolderRoot(clips[0].parent)
    rows = [Clip(path.stem, path.name, "", "val") for path in clips]
    work = ClipEmbedder(root, FrameSettings(fps=FPS), FaceSettings(), ClipLimits(), cores, detector)
    return frames_between(work, rows, backbone)


def frames_between(work: ClipEmbedder, rows: list[Clip], backbone: Embedder) -> tuple[int, float]:
    begun = time.perf_counter()
    done = sum(clip.frames for clip in work.embed(rows, backbone))
    whole = time.perf_counter() - begun
    return done, whole - start_seconds(work, rows)


def start_seconds(work: ClipEmbedder, rows: list[Clip]) -> float:
    """What it takes until the processes have started, by a manifest of nothing."""
    nothing = [replace(row, path="not there") for row in rows[: work.workers]]
    begun = time.perf_counter()
    from vidface.faces.pool import decode_clips

    list(
        decode_clips(
            nothing,
            work.root,
            work.frames,
            work.faces,
            workers=work.workers,
            detector_model=work.detector,
        )
    )
    return time.perf_counter() - begun


def aligned_folders(data: Path, n: int) -> Path:
    """Some clips of aligned crops, unpacked."""
    root = TarRoot(data / "images" / "ytf_aligned112.tar")
    target = Path(tempfile.mkdtemp())
    folders: dict[str, list[str]] = {}
    for image in root.all_images():
        folders.setdefault(image.rpartition("/")[0], []).append(image)
    for number, images in enumerate(list(folders.values())[:n]):
        (target / str(number)).mkdir()
        for k, image in enumerate(images):
            (target / str(number) / f"{k}{Path(image).suffix}").write_bytes(root.read(image))
    return target


def end_to_end_crops(folder: Path, backbone: Embedder, cores: int) -> tuple[int, float]:
    rows = [Clip(p.name, p.name, "", "val") for p in sorted(folder.iterdir())]
    aligned = FaceSettings(source="aligned")
    work = ClipEmbedder(FolderRoot(folder), FrameSettings(), aligned, ClipLimits(), cores, None)
    return frames_between(work, rows, backbone)


# What people run.


def session_of(model: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a word for each weight otherwise
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def peer_script(clips: list[Path], model: Path, detector: Path) -> int:
    """Every n-th frame, the detector on the whole frame, one call a face."""
    import cv2

    cv2.setNumThreads(available_cores())
    session = session_of(model)
    name = session.get_inputs()[0].name
    network = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), 0.7)
    frames = 0
    for path in clips:
        video = cv2.VideoCapture(str(path))
        every = max(1, round(video.get(cv2.CAP_PROP_FPS) / FPS))
        number = 0
        while True:
            there, image = video.read()
            if not there:
                break
            if number % every == 0:
                frames += 1
                network.setInputSize((image.shape[1], image.shape[0]))
                _, found = network.detect(image)
                for row in [] if found is None else found[:1]:
                    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    crop = align_face(rgb, row[4:14].reshape(5, 2))
                    session.run(None, {name: crop.transpose(2, 0, 1)[None].astype(np.float32)})
            number += 1
    return frames


def peer_loop(folder: Path, model: Path) -> int:
    """The challenge's own kind: cv2.imread, batches of 32 across clips."""
    import cv2

    session = session_of(model)
    name, fixed = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]
    paths = [path for clip in sorted(folder.iterdir()) for path in sorted(clip.iterdir())]
    step = fixed if isinstance(fixed, int) else BATCH  # a file may allow one face a call only
    for start in range(0, len(paths), step):
        images = [cv2.imread(str(path))[:, :, ::-1] for path in paths[start : start + step]]
        batch = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
        session.run(None, {name: batch})
    return len(paths)


# Decoders.


def compare_decoders(clips: list[Path]) -> None:
    print("decoders, one thread, all frames that 8 FPS needs as RGB (tests/frames/test_frames.py):")
    for name, decode in (
        ("pyav (vidface)", lambda p: sum(1 for _ in sample_frames(p, FPS, threads=1))),
        (
            "decord (vidface)",
            lambda p: sum(1 for _ in sample_frames(p, FPS, decoder="decord", threads=1)),
        ),
        ("opencv, every n-th", opencv_frames),
        ("torchcodec", torchcodec_frames),
    ):
        try:
            count, seconds = timed(lambda d=decode: sum(d(path) for path in clips[::2]))
            print(f"  {name:20} {count / seconds:8.1f} frames/s")
        except Exception as error:
            print(f"  {name:20} not measured: {' '.join(str(error).split())[:60]}")


def opencv_frames(path: Path) -> int:
    import cv2

    cv2.setNumThreads(1)
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    every, number, count = max(1, round(video.get(cv2.CAP_PROP_FPS) / FPS)), 0, 0
    while video.grab():
        if number % every == 0:
            _, image = video.retrieve()
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            count += 1
        number += 1
    return count


def torchcodec_frames(path: Path) -> int:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
    end = decoder.metadata.end_stream_seconds
    times = [k / FPS for k in range(int(end * FPS) + 1) if k / FPS < end]
    return len(decoder.get_frames_played_at(times))


if __name__ == "__main__":
    main()
