"""Photographs among bad files, which are named by decoder and failure: one command, one outcome for every input."""

import io
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from facerecon_torch.commands.cli import main
from facerecon_torch.commands.infer.inputs.listing import InputSpec
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.parts import read_quarantine
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.model.io import save_model
from tests.commands.infer.test_infer_borders import AWKWARD, _bomb

# Pillow's name of the decoder -> suffix and options of the writer
DECODERS = {
    "JPEG": ("jpg", {"quality": 92}),
    "JPEG progressive": ("jpg", {"quality": 92, "progressive": True}),
    "PNG": ("png", {}),
    "WEBP": ("webp", {"quality": 90}),
    "WEBP lossless": ("webp", {"lossless": True}),
    "TIFF": ("tif", {}),
    "TIFF deflate": ("tiff", {"compression": "tiff_deflate"}),
    "BMP": ("bmp", {}),
    "GIF": ("gif", {}),
    "PPM": ("ppm", {}),
    "JPEG2000": ("jp2", {}),
    "AVIF": ("avif", {}),
}
FAILURES = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "head alone": lambda data: data[:16],
    "cut in the middle": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"this is no picture\n" * 40,
}


def encoded(image: Image.Image, decoder: str) -> tuple[bytes, str]:
    suffix, options = DECODERS[decoder]
    stream = io.BytesIO()
    image.save(stream, decoder.split()[0], **options)
    return stream.getvalue(), suffix


def tall_jpeg(image: Image.Image) -> bytes:
    """18 kB that claim 640 x 60,000."""
    stream = io.BytesIO()
    image.resize((640, 640)).save(stream, "JPEG", quality=60)
    content = bytearray(stream.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 7] = struct.pack(">H", 60_000)
    return bytes(content[:18_000])


def corpus(folder: Path, image: Image.Image) -> dict[str, str]:
    """Write the bad files; their names -> `decoder, failure`."""
    named = {}
    for decoder in DECODERS:
        data, suffix = encoded(image, decoder)
        for failure, damage in FAILURES.items():
            name = f"bad {decoder} {failure}.{suffix}"
            (folder / name).write_bytes(damage(data))
            named[name] = f"{decoder}, {failure}"
    single = {
        "bad a folder.jpg": lambda path: path.mkdir(),
        "bad a pipe.jpg": os.mkfifo,
        "bad a dangling link.jpg": lambda path: path.symlink_to("nowhere"),
        "bad a loop of links.jpg": lambda path: path.symlink_to(path.name),
        "bad a device.jpg": lambda path: path.symlink_to("/dev/zero"),
        "bad a tebibyte.jpg": lambda path: (path.touch(), os.truncate(path, 2**40)),
        "bad 30000 x 30000.png": lambda path: _bomb(path, 30_000, 30_000),
        "bad 640 x 60000.jpg": lambda path: path.write_bytes(tall_jpeg(image)),
    }
    for name, make in single.items():
        make(folder / name)
        named[name] = f"file system or header, {name[4:].rsplit('.', 1)[0]}"
    return named


def odd(folder: Path, image: Image.Image) -> list[str]:
    """Write photographs in unusual forms, all of which can be read; their names."""
    turned = Image.Exif()
    turned[0x0112] = 6
    grey16 = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [image.rotate(180)], "duration": 50}
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    grey16.save(folder / "16 bits.png")
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=turned.tobytes(), quality=95)
    image.save(folder / "animated.gif", **frames)
    image.save(folder / "animated.webp", **frames)
    image.convert("RGBA").save(folder / "transparent.png")
    image.convert("P").save(folder / "palette.png")
    image.save(folder / "a PNG named.jpg", "PNG")
    image.save(folder / "a JPEG named.png", "JPEG", quality=95)
    return sorted(p.name for p in folder.iterdir())


def write_folder(folder: Path, photographs, count: int) -> tuple[set[str], dict[str, str]]:
    """A folder of `count` good photographs and the corpus: names of the good ones, and of the bad ones."""
    folder.mkdir()
    pictures = [Image.fromarray((i * 255).round().byte().permute(1, 2, 0).numpy()) for i in photographs[0]]
    points = [from_paper66(p[None])[0].numpy() for p in photographs[1]]
    good = {}
    for name in odd(folder, pictures[0]):
        good[name] = 0
    for k, name in enumerate(AWKWARD):
        good[name] = k % len(pictures)
    for k in range(count - len(good)):
        data, suffix = encoded(pictures[k % len(pictures)], list(DECODERS)[k % len(DECODERS)])
        name = f"good {k}.{suffix}"
        (folder / name).write_bytes(data)
        good[name] = k % len(pictures)
    for name in AWKWARD:
        pictures[good[name]].save(folder / "aside.png")
        os.replace(folder / "aside.png", folder / name)
    bad = corpus(folder, pictures[0])
    for name, k in {**good, **dict.fromkeys(bad, 0)}.items():
        with open(folder / f"{os.path.splitext(name)[0]}.npy", "wb") as file:
            np.save(file, points[k])
    return set(good), bad


def saved(outcome, folder):
    """The words that name the cascade and its model, which are written to the folder."""
    outcome.reconstructor.save_pretrained(folder / "cascade.safetensors")
    save_model(outcome.reconstructor.face_model, folder / "model.safetensors", storage="float32")
    return [f"{key}.path={folder / key}.safetensors" for key in ("cascade", "model")]


def check(tmp_path, photographs, outcome, count, capfd):
    good, bad = write_folder(tmp_path / "in", photographs, count)
    assert len(set(bad.values())) >= 60
    words = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", *saved(outcome, tmp_path)]
    words += ["landmarks=file", "runtime.progress=false", "shard_size=64"]
    assert main(["infer", *words]) == 1
    rows = list(read_quarantine(tmp_path / "out"))
    failed = Counter(os.path.basename(row["path"]) for row in rows)
    assert failed == Counter(list(bad))
    assert {row["status"] for row in rows} == {"bad_image"}
    done = Counter(os.path.basename(row["path"]) for row in pq.read_table(tmp_path / "out" / "parameters").to_pylist())
    assert {os.fsencode(name) for name in done} == {os.fsencode(name) for name in good}
    assert set(done.values()) == {1}
    total = len(good) + len(bad)
    line = f"every input has one outcome: ok {len(good)} + bad_image {len(bad)} = {total} inputs"
    assert line in "".join(capfd.readouterr())
    for row in rows:
        path = tmp_path / "in" / os.path.basename(row["path"])
        if path.is_file() and path.stat().st_size < 2**30:
            assert row["size"] == path.stat().st_size
            assert len(row["sha256"]) == 64


def test_200_photographs_among_bad_files(tmp_path, photographs, tiny_outcome, capfd):
    check(tmp_path, photographs, tiny_outcome, 200, capfd)


@pytest.mark.slow
def test_2000_photographs_among_bad_files(tmp_path, photographs, tiny_outcome, capfd):
    check(tmp_path, photographs, tiny_outcome, 2000, capfd)


@pytest.fixture
def pictures(photographs, tmp_path):
    """Twelve photographs with their landmarks, one of them no picture."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(12):
        image = (photographs[0][k % 5] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(image).save(folder / f"p{k}.png")
        np.save(folder / f"p{k}.npy", from_paper66(photographs[1][k % 5][None])[0].numpy())
    (folder / "p4.png").write_text("no picture")
    return folder


def run(source, output, outcome, detector=None, **changes):
    options = InferOptions(**{"formats": [], "progress": False, "workers": 2, **changes})
    return infer(InputSpec(path=str(source)), output, outcome.reconstructor, detector or FileLandmarks(), options)


def test_a_batch_that_fails_is_halved_until_the_culprit_stands_alone(pictures, tmp_path, tiny_outcome, monkeypatch):
    sizes, real = [], type(tiny_outcome.reconstructor).reconstruct
    np.save(pictures / "p7.npy", np.load(pictures / "p7.npy") + 0.25)
    culprit = float(np.load(pictures / "p7.npy")[30, 0])

    def fails(self, images, landmarks, **options):
        sizes.append(len(images))
        if bool((landmarks[:, 13, 0] - culprit).abs().min() < 1e-3):
            raise RuntimeError("device-side assert")
        return real(self, images, landmarks, **options)

    monkeypatch.setattr(type(tiny_outcome.reconstructor), "reconstruct", fails)
    report = run(pictures, tmp_path / "out", tiny_outcome)
    assert dict(report.counts.statuses) == {"ok": 10, "bad_image": 1, "failed": 1}
    failed = {os.path.basename(r["path"]): (r["stage"], r["exception"]) for r in read_quarantine(tmp_path / "out")}
    assert failed["p7.png"] == ("fit", "RuntimeError")
    assert sizes[0] == 11
    assert len(sizes) < 11


def test_what_takes_too_long_fails_alone(pictures, tmp_path, tiny_outcome):
    class Slow:
        name, licence, convention = "slow", "none", "ibug"

        def detect(self, images, *, paths=None):
            if "p9.png" in [path.name for path in paths]:
                while True:
                    time.sleep(0.01)
            return FileLandmarks().detect(images, paths=paths)

    (pictures / "p4.png").unlink()
    report = run(pictures, tmp_path / "out", tiny_outcome, Slow(), image_seconds=0.3)
    assert report.counts.statuses["timeout"] >= 1
    (row,) = [row for row in read_quarantine(tmp_path / "out") if row["path"].endswith("p9.png")]
    assert (row["status"], row["stage"]) == ("timeout", "detect")
    assert report.counts.inputs == 11


def test_a_file_that_vanishes_while_the_run_is_on(pictures, tmp_path, tiny_outcome):
    class Removes:
        name, licence, convention = "removes", "none", "ibug"

        def detect(self, images, *, paths=None):
            (pictures / "p11.png").unlink(missing_ok=True)
            return FileLandmarks().detect(images, paths=paths)

    report = run(pictures, tmp_path / "out", tiny_outcome, Removes(), shard_size=2)
    assert dict(report.counts.statuses) == {"ok": 10, "bad_image": 2}
    reasons = {os.path.basename(row["path"]): row["reason"] for row in read_quarantine(tmp_path / "out")}
    assert "there is no such file" in reasons["p11.png"]


FOUR_RUNS = """
import sys
import time
import psutil
from facerecon_torch.commands.cli import main

output, *words = sys.argv[1:]

def held():
    return psutil.Process().num_fds(), len(psutil.Process().children())

counts = []
for k in range(4):
    assert main(["infer", f"output={output}/{k}", *words]) == 1
    counts.append(held())
end = time.monotonic() + 5  # what a thread has open for a moment is closed again; a leak stays
while held() != counts[0] and time.monotonic() < end:
    time.sleep(0.05)
assert held() == counts[0], counts
"""


def test_a_run_leaves_no_file_open(pictures, tmp_path, tiny_outcome):
    # In a process of its own: threads of other tests open and close files too.
    words = [f"input={pictures}", *saved(tiny_outcome, tmp_path), "landmarks=file", "shard_size=3", "runtime.workers=2"]
    call = [sys.executable, "-c", FOUR_RUNS, str(tmp_path), *words, "runtime.progress=false"]
    answer = subprocess.run(call, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # by ray, of its own options
def test_ray_gives_the_rows_of_the_local_engine(pictures, tmp_path, tiny_outcome):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    try:
        report = run(pictures, tmp_path / "ray", tiny_outcome, engine="ray", actors=2, shard_size=4)
    finally:
        ray.shutdown()
    local = run(pictures, tmp_path / "local", tiny_outcome, shard_size=4)
    assert report.total == local.total == report.counts
    for kind in ("parameters", "quarantine"):
        tables = [pq.read_table(tmp_path / engine / kind).to_pylist() for engine in ("ray", "local")]
        assert tables[0] == tables[1]
