"""Mutated images and landmark files: the package's own errors, in little time and memory, and no value out of range."""

import io
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from facerecon_torch.errors import ImageFileError, LandmarkFileError
from facerecon_torch.images.read import decode_pixels
from facerecon_torch.landmarks.point_files import read_points

SEED = 20260101
_SECONDS, _BYTES = 5.0, 2e9  # for one input, and above what the process had
_PIECES = (
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff", b"\0", b"[", b"{", b"}", b"(",
    b"'", b",", b"-", b"1e999", b"NaN", b"null", b"9" * 30,
)  # fmt: skip


def _pictures() -> dict[str, bytes]:
    values = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    rgb, deep = Image.fromarray(values), Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    real = Image.fromarray(values[..., 0].astype(np.float32) / 255)
    kinds = {
        "JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "P", "LA", "1", "I;16"), "WEBP": ("RGB", "RGBA"),
        "TIFF": ("RGB", "I;16", "F", "P", "1"), "BMP": ("RGB", "P"), "GIF": ("P",), "PPM": ("RGB", "L"),
        "JPEG2000": ("RGB",), "AVIF": ("RGB",),
    }  # fmt: skip
    if not features.check("avif"):
        del kinds["AVIF"]
    written = {}
    for kind, modes in kinds.items():
        for mode in modes:
            for lzw in (False, True) if kind == "TIFF" else (False,):
                picture = {"I;16": deep, "F": real}.get(mode) or rgb.convert(mode)
                stream = io.BytesIO()
                picture.save(stream, kind, **({"compression": "tiff_lzw"} if lzw else {}))
                written[f"{kind} {mode}{' lzw' if lzw else ''}"] = stream.getvalue()
    return written


def _points() -> dict[str, bytes]:
    values = np.random.default_rng(1).random((68, 2)) * 100
    stream = io.BytesIO()
    np.save(stream, values)
    lines = "\n".join(f"{x} {y}" for x, y in values)
    return {
        ".npy": stream.getvalue(),
        ".json": json.dumps({"faces": [{"points": values.tolist()}]}).encode(),
        ".pts": f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n".encode(),
    }


def _mutated(data: bytes, choices: random.Random) -> bytes:
    """One to eight bits, bytes, numbers or words changed, taken out, put in, or the end cut off; often in the head."""
    changed = bytearray(data)
    for _ in range(choices.choice([1, 1, 1, 2, 3, 8])):
        if not changed:
            break
        at = choices.randrange(min(len(changed), 200) if choices.random() < 0.5 else len(changed))
        piece = choices.choice(_PIECES)
        match choices.randrange(6):
            case 0:
                changed[at] ^= 1 << choices.randrange(8)
            case 1:
                changed[at] = choices.randrange(256)
            case 2:
                changed[at : at + len(piece)] = piece
            case 3:
                del changed[at : at + choices.randrange(1, 20)]
            case 4:
                changed[at:at] = piece
            case _:
                del changed[at:]
    return bytes(changed)


def _run(name, seeds, count, read, own):
    choices, counts, longest = random.Random(SEED), Counter(), 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        kind = choices.choice(sorted(seeds))
        data = _mutated(seeds[kind], choices)
        began = time.perf_counter()
        try:
            read(kind, data)
        except own:
            counts["refused"] += 1
        longest = max(longest, time.perf_counter() - began)
        counts[kind] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    said = f"{name}: seed {SEED}, {count} inputs, longest {longest:.1f} s, {grown / 1e6:.0f} MB more, {dict(counts)}\n"
    sys.stdout.write(said)
    assert longest < _SECONDS
    assert grown < _BYTES


def _decode(kind: str, data: bytes) -> None:
    pixels = decode_pixels(data, Path("x.jpg"))
    assert pixels.shape[0] == 3
    if pixels.is_floating_point():
        assert 0 <= float(pixels[0].min()) <= float(pixels[0].max()) <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [1000, pytest.param(150_000, marks=pytest.mark.slow)])
def test_mutated_images(count):
    _run("images", _pictures(), count, _decode, ImageFileError)


@pytest.mark.parametrize("count", [500, pytest.param(50_000, marks=pytest.mark.slow)])
def test_mutated_landmark_files(count, tmp_path):
    def read(kind: str, data: bytes) -> None:
        file = tmp_path / f"a{kind}"
        file.write_bytes(data)
        assert bool(torch.isfinite(read_points(file)).all())

    _run("landmark files", _points(), count, read, LandmarkFileError)
