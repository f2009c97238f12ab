"""The tutorials, every block of every page run as it is printed, in a folder with what the reader brings."""

import json
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

from facerecon_torch.export import save_obj
from facerecon_torch.images.video import write_video
from facerecon_torch.structures import Mesh
from tests.registration.foreign_face import make_foreign_face

PAGES = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
SLOW = {"many_photographs", "video", "train_on_scans", "own_model"}
BEGINNING = (
    2  # blocks of the page on many photographs that are run with the quick tests: a run, its summary, its tables
)


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


def _model(folder: Path) -> None:
    """A face of other vertices that stretches, widens and opens its mouth, with nine known landmarks."""
    foreign = make_foreign_face(seed=5)
    save_obj(Mesh(vertices=foreign.vertices.float(), triangles=foreign.triangles), folder / "template.obj")
    vertices = foreign.vertices.numpy()
    centred = vertices - vertices.mean(0)
    chin = foreign.truth[foreign.topology.landmark_vertices[49 + 8]].numpy()
    drop = np.exp(-(((vertices - chin) / 30) ** 2).sum(1))[:, None] * [0.0, -8.0, -2.0]
    identity = np.stack([0.03 * centred * [1, 0, 0], 0.03 * centred * [0, 1, 0]])
    np.savez(folder / "modes.npz", identity=identity, expression=drop[None], expression_names=np.array(["jawOpen"]))
    (folder / "marks.json").write_text(json.dumps(foreign.known([30, 36, 39, 42, 45, 48, 51, 54, 57])))
    _photo(folder)


BRINGS = {
    "one_photograph": _photo, "many_photographs": _photos, "video": _clip, "train_on_scans": _photo,
    "own_model": _model,
}  # fmt: skip
GIVES = {
    "one_photograph": ["out/photo_overlay.jpg", "out/photo.glb", "out/photo_texture.png"],
    "many_photographs": ["out/gallery.html", "people/subjects/part-00000.parquet"],
    "video": ["out/overlay.mp4", "out/expressions.png"],
    "train_on_scans": ["run/cascade.safetensors", "report/report.html", "out/photo.obj"],
    "own_model": ["own.png", "own.review.png", "run/cascade.safetensors", "out/photo.obj"],
}


def test_every_page_is_run():
    assert {page.stem for page in PAGES.glob("*.md")} == set(BRINGS) == set(GIVES)


def blocks_of(name):
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(r"```(bash|python)\n(.*?)```", page, flags=re.S)


def run_blocks(blocks, folder):
    """Run the blocks of a page as they are printed. Returns what they print."""
    surroundings = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PAGES.parents[1]),
    }
    printed = []
    for language, block in blocks:
        call = ["bash", "-euc", block] if language == "bash" else [sys.executable, "-c", block]
        answer = subprocess.run(call, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=1800)
        assert answer.returncode == 0, f"{block}\n{answer.stdout}\n{answer.stderr}"
        printed.append(answer.stdout)
    return printed


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(BRINGS)]
)
def test_the_page_runs(name, tmp_path):
    BRINGS[name](tmp_path)
    blocks = blocks_of(name)
    assert blocks
    run_blocks(blocks, tmp_path)
    missing = [path for path in GIVES[name] if not (tmp_path / path).is_file()]
    assert not missing


def test_the_page_on_many_photographs_begins_with_a_run_and_its_tables(tmp_path):
    _photos(tmp_path)
    command, table = run_blocks(blocks_of("many_photographs")[:BEGINNING], tmp_path)
    assert "ok 3 + bad_image 1 + no_face 1 = 5 inputs" in command
    assert table.startswith("3 faces; ")
    assert "bad_image" in table
    assert (tmp_path / "out" / "gallery.html").is_file()
