"""The examples of the documents and of the README, run one after the other as they are printed."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def examples(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S)


@pytest.fixture
def folder_with_a_photo(tmp_path, monkeypatch):
    pytest.importorskip("dlib")
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    Image.fromarray(data.astronaut()).save(tmp_path / "photo.jpg", quality=95)
    Image.fromarray(data.astronaut()[:400]).save(tmp_path / "a.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_runs(folder_with_a_photo):
    names = {}
    blocks = examples("docs/python.md")
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["face"].vertices.shape == (3960, 3)
    assert [len(faces) > 0 for faces in names["answers"]] == [True, False, False, True]
    assert len(names["faces"]) == 4
    assert torch.equal(names["rows"].vertices, names["faces"].vertices)
    assert float(names["face"].expression_weights["jawOpen"]) >= 0


def test_the_page_of_the_detectors_runs(folder_with_a_photo):
    names = {}
    (block,) = examples("docs/detectors.md")
    exec(compile(block, "docs/detectors.md", "exec"), names)
    assert names["points"].shape == (1, 478, 3)
    assert names["presence"] > 0.9


def test_the_readme_runs(folder_with_a_photo):
    from facerecon_torch.images import read_image

    (block,) = examples("README.md")
    image = read_image("photo.jpg")
    # What the reader brings: an image in two forms, and landmarks.
    names = {"array": image.permute(1, 2, 0).numpy(), "tensor": image, "images": [image]}
    first, second = block.split("answers = ")
    exec(first, names)
    names["landmarks"] = names["faces"].landmarks[:1]
    exec(f"answers = {second}", names)
    assert len(names["answers"]) == 3
    assert names["faces"].vertices.shape == (1, 3960, 3)
