"""The tutorials, every block of every page run as it is printed, in a folder with what the reader brings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from facerecon_torch.images.video import write_video
from tests.model.importers.writers_linear import Face, flame_arrays
from tests.registration.foreign_face import make_foreign_face

PAGES = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
SLOW = {"video", "train_on_scans", "own_model"}


def _photo(folder: Path) -> None:
    Image.fromarray(data.astronaut()).save(folder / "photo.jpg", quality=95)


def _photos(folder: Path) -> None:
    (folder / "photos").mkdir()
    for k in range(3):
        Image.fromarray(data.astronaut()[: 512 - 40 * k]).save(folder / "photos" / f"anna_{k}.jpg", quality=95)
    Image.fromarray(np.full((90, 120, 3), 90, np.uint8)).save(folder / "photos" / "wall_0.jpg")
    (folder / "photos" / "cut_0.jpg").write_bytes(b"no picture")


def _clip(folder: Path) -> None:
    still = torch.from_numpy(data.astronaut()).permute(2, 0, 1)
    write_video(folder / "clip.mp4", 25, [torch.roll(still, k, 2) for k in range(8)])


def _flame(folder: Path) -> None:
    foreign = make_foreign_face(seed=7)
    draw = np.random.default_rng(1)
    n = len(foreign.vertices)
    bases = [np.linalg.qr(draw.normal(size=(3 * n, k)))[0].reshape(n, 3, k) for k in (300, 100)]
    mean = foreign.vertices.numpy().astype(np.float64)
    face = Face(mean, bases[0], np.full(300, 5.0), bases[1], np.full(100, 5.0), foreign.triangles.numpy())
    np.savez(folder / "flame.npz", **flame_arrays(face))
    _photo(folder)


BRINGS = {
    "one_photograph": _photo, "many_photographs": _photos, "video": _clip, "train_on_scans": _photo,
    "own_model": _flame,
}  # fmt: skip
GIVES = {
    "one_photograph": ["out/photo_overlay.jpg", "out/photo.glb", "out/photo_texture.png"],
    "many_photographs": ["out/gallery.html", "people/subjects/part-00000.parquet"],
    "video": ["out/overlay.mp4", "out/expressions.png"],
    "train_on_scans": ["run/cascade.safetensors", "report/report.html", "out/photo.obj"],
    "own_model": ["own.review.png", "run/cascade.safetensors", "out/photo.obj"],
}


def test_every_page_is_run():
    assert {page.stem for page in PAGES.glob("*.md")} == set(BRINGS) == set(GIVES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(BRINGS)]
)
def test_the_page_runs(name, tmp_path):
    BRINGS[name](tmp_path)
    blocks = re.findall(r"```(bash|python)\n(.*?)```", (PAGES / f"{name}.md").read_text(encoding="utf-8"), flags=re.S)
    assert blocks
    surroundings = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PAGES.parents[1]),
    }
    for language, block in blocks:
        call = ["bash", "-euc", block] if language == "bash" else [sys.executable, "-c", block]
        answer = subprocess.run(call, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=1800)
        assert answer.returncode == 0, f"{block}\n{answer.stdout}\n{answer.stderr}"
    missing = [path for path in GIVES[name] if not (tmp_path / path).is_file()]
    assert not missing
