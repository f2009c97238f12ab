"""The table of faces found, with a detector whose answers are known."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from benchmarks.accuracy import detection
from facerecon_torch.errors import DetectorError
from facerecon_torch.structures import Detection

pytest.importorskip("skimage")


def _face(x, y):
    return Detection(box=(x - 5, y - 5, x + 5, y + 5), score=1.0, points=torch.tensor([x, y]).expand(68, 2))


class _ByRedness:
    """As many faces as the first pixel's red says, the first in the middle of the truth, the others far off."""

    name, licence, convention = "dlib", "none", "ibug"

    def detect(self, images, *, paths=None):
        return [[_face(20.0, 20.0), _face(300.0, 20.0)][: int(image[0, 0, 0]) % 4] for image in images]


def _picture(path, red):
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)
    return path


@pytest.fixture
def world(tmp_path, monkeypatch):
    reds, yaws = [1, 0, 2, 1, 0], [0.0, 44.0, -45.0, 46.0, -60.0]
    renders = SimpleNamespace(
        images=[_picture(tmp_path / f"{k}.png", red) for k, red in enumerate(reds)],
        landmarks=torch.tensor([[10.0, 10.0], [30.0, 30.0]]).expand(5, 2, 2),
        angles=torch.tensor([[yaw, 0.0, 0.0] for yaw in yaws]).deg2rad() * 0.9999,
    )
    monkeypatch.setattr(detection, "renders", lambda family: renders)
    monkeypatch.setattr(detection, "_astronaut", list)
    monkeypatch.setattr(detection, "example_picture", lambda name: _picture(tmp_path / name, int(name == "moon.png")))
    return tmp_path


def test_every_group_is_counted(world, monkeypatch, capsys):
    monkeypatch.setattr(detection, "build_detector", lambda name, **_: _ByRedness())
    one, two = _picture(world / "one.png", 2), _picture(world / "two.png", 1)
    assert detection.main(["landmarks=dlib", f"photos={one},{two}:2"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert " ".join(row.split()) == "dlib 2 of 3 + 1 wrong 1 of 23 (moon) 2 of 3 + 1 wrong 1 of 2 0 of 0 0 of 0 0 of 0"


def test_groups_are_pictures_of_several_renders(tmp_path):
    """Of nine frontal renders eight make two groups of four; a face is found where a render's first pixel is red."""

    class _ByBlock:
        name, licence, convention = "dlib", "none", "ibug"

        def detect(self, images, *, paths=None):
            return [[_face(x + 4.0, y + 4.0) for y in (0, 8) for x in (0, 8) if image[0, y, x]] for image in images]

    reds = [1, 0, 1, 1, 1, 1, 1, 1, 1]
    renders = SimpleNamespace(
        images=[_picture(tmp_path / f"{k}.png", red) for k, red in enumerate(reds)],
        landmarks=torch.tensor([[1.0, 1.0], [7.0, 7.0]]).expand(9, 2, 2),
        angles=torch.zeros(9, 3),
    )
    assert str(detection._on_groups(_ByBlock(), renders, 2)) == "7 of 8"


@pytest.mark.usefixtures("world")
def test_a_detector_that_cannot_run_is_a_row(monkeypatch, capsys):
    def fail(name, **_):
        raise DetectorError("no weights")

    monkeypatch.setattr(detection, "build_detector", fail)
    assert detection.main(["landmarks=auto"]) == 1
    assert "cannot run: no weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photographs=a.jpg"], "keys must be landmarks, photos, device, tiles; got photographs"),
        (["landmarks=dlib,file"], "landmarks must be among auto, .*; got file"),
        (["photos=a.jpg:many"], "photos must be FILE or FILE:FACES; got 'a.jpg:many'"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        detection.main(words)
