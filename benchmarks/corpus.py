"""Photographs a second of `facerecon infer` over many files, and its resident memory over their number.

    python -m benchmarks.corpus photos=FOLDER images=512 rounds=3 of=memory,files,detection,all
    python -m benchmarks.corpus photos=FOLDER images=5000 of=growth

`photos` is a rendered set (`facerecon synth`). Its photographs are enlarged to `size` px and stored as JPEG; further
files are links to them under other names. `memory` reconstructs decoded pictures with given landmarks, batches side by
side as `infer` does, `files` does the same from files to tables, `detection` finds the landmarks too, `all` writes
every file of every face. All take turns in each round. The first call of each, which compiles, is not counted.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.images.read import decode_pixels
from facerecon_torch.landmarks import build_detector
from facerecon_torch.runtime.lanes import Lanes
from facerecon_torch.synthetic.dataset import load_set

from .keys import read_keys

__all__ = ["Corpus", "growth", "main"]

_KEYS = ("photos", "images", "size", "rounds", "of")
_WAYS = ("memory", "files", "detection", "all", "growth")
_ALL = ("json", "obj", "ply", "glb", "texture", "overlay")
_BATCH = 32
_SETTLED = 0.25  # of a run, from which on memory is looked at


class Corpus:
    """Files of photographs with their landmarks, and what is done with them."""

    def __init__(self, photos: Path, folder: Path, images: int, size: int) -> None:
        rendered = load_set(photos)
        self.folder, self.images = folder, images
        self._names = [f"{k:07d}.jpg" for k in range(images)]
        distinct, points = [], []
        for k, (name, path) in enumerate(zip(self._names, rendered.images)):
            with Image.open(path) as image:
                scale = size / max(image.size)
                shown = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
            distinct.append(folder / name)
            shown.save(distinct[-1], quality=92)
            points.append(rendered.landmarks[k] * scale)
        self.points: Tensor = torch.stack(points)[torch.arange(images) % len(points)]
        for k in range(len(distinct), images):
            (folder / self._names[k]).hardlink_to(distinct[k % len(distinct)])
        self.pictures = [decode_pixels(path.read_bytes(), path) for path in distinct]
        self.model = FaceReconstructor.from_pretrained()
        self.manifest = self._write_manifest()

    def _write_manifest(self) -> Path:
        manifest = self.folder / "given.parquet"
        pq.write_table(pa.table({"path": self._names, "landmarks": self.points.tolist()}), manifest)
        return manifest

    def in_memory(self) -> None:
        """Reconstruct decoded pictures."""
        lanes = Lanes(self.model.device, None)
        parts = [range(k, min(k + _BATCH, self.images)) for k in range(0, self.images, _BATCH)]
        try:
            done = sum(lanes.worked(parts, self._reconstructed, lambda row, error: 0))
        finally:
            lanes.close()
        if done != self.images:
            raise RuntimeError(f"{self.images} pictures were given; {done} were reconstructed")

    def _reconstructed(self, rows: Sequence[int]) -> list[int]:
        pictures = [self.pictures[k % len(self.pictures)] for k in rows]
        faces = self.model.reconstruct(pictures, self.points[list(rows)])
        _ = faces.expression_weights, faces.plausibility  # which the tables hold
        return [len(faces)]

    def run(self, path: Path, formats: Sequence[str] = ()) -> None:
        """Reconstruct files into tables and files of `formats`.

        Raises:
            RuntimeError: an input is missing from the outputs.
        """
        detector = build_detector("mediapipe")
        options = InferOptions(formats=formats, progress=False)
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as out:
            report = infer(InputSpec(path=str(path)), Path(out), self.model, detector, options)
        if report.total is None or report.total.inputs != self.images:
            raise RuntimeError(f"{self.images} inputs were given; the tables hold {report.total}")

    def ways(self) -> dict[str, Callable[[], None]]:
        """What can be timed, by name."""
        return {
            "memory": self.in_memory,
            "files": lambda: self.run(self.manifest),
            "detection": lambda: self.run(self.folder),
            "all": lambda: self.run(self.folder, _ALL),
        }


def growth(work: Callable[[], None], every: float = 0.5) -> tuple[float, float, float]:
    """The slope of this process's resident memory over the time of `work`, in MB per run, what the samples scatter
    about the line, MB, and the largest sample; a sample `every` so many seconds. The first quarter of the run is left
    out of the line."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            samples.append((time.perf_counter(), psutil.Process().memory_info().rss / 2**20))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    moments, memory = np.array(samples).T
    share = (moments - moments[0]) / (moments[-1] - moments[0])
    late = share >= _SETTLED
    slope, start = np.polyfit(share[late], memory[late], 1)
    scatter = np.std(memory[late] - start - slope * share[late])
    return float(slope), float(scatter), float(memory.max())


def main(words: Sequence[str]) -> int:
    """Print the rates.

    Raises:
        ValueError: an unknown key or way, or no photographs.
    """
    keys = read_keys(words, _KEYS)
    chosen = keys.get("of", "memory,files,detection,all").split(",")
    if "photos" not in keys or set(chosen) - set(_WAYS):
        raise ValueError(f"photos must be a rendered set, and of among {', '.join(_WAYS)}; got {keys}")
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "photographs"
        folder.mkdir()
        corpus = Corpus(Path(keys["photos"]), folder, int(keys.get("images", 512)), int(keys.get("size", 640)))
        if "growth" in chosen:
            slope, scatter, peak = growth(lambda: corpus.run(folder))
            told = f"{1000 * slope / corpus.images:+.1f} MB per 1,000 images, scatter {scatter:.1f} MB"
            sys.stdout.write(f"{corpus.images} images: {told}, at most {peak:.0f} MB\n")
        ways = {name: work for name, work in corpus.ways().items() if name in chosen}
        _time(ways, corpus, int(keys.get("rounds", 3)))
    return 0


def _time(ways: dict[str, Callable[[], None]], corpus: Corpus, rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, work in ways.items():
            began, used = time.perf_counter(), time.process_time()
            work()
            took, processor = time.perf_counter() - began, time.process_time() - used
            if turn:
                seconds[name].append(took)
            sys.stdout.write(f"round {turn} {name}: {took:.1f} s, {processor:.1f} s of processor\n")
            sys.stdout.flush()
    for name, all_rounds in seconds.items():
        sys.stdout.write(f"{name}: {corpus.images / median(all_rounds):.1f} photographs/s\n")
    if {"memory", "files"} <= set(seconds):
        shares = [m / f for m, f in zip(seconds["memory"], seconds["files"])]
        sys.stdout.write(f"files reach {100 * median(shares):.0f} % of memory\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
