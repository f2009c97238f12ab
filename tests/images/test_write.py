"""PNG files appear whole or not at all."""

from pathlib import Path

import pytest
import torch

from facerecon_torch.files import replacing
from facerecon_torch.images import read_image, save_png


def test_png_round_trip(tmp_path: Path, rng: torch.Generator, device: torch.device, dtype: torch.dtype) -> None:
    image = (torch.randint(0, 256, (3, 5, 7), generator=rng) / 255).to(device, dtype)
    assert save_png(image, tmp_path / "new" / "x.png") == tmp_path / "new" / "x.png"
    assert torch.equal(read_image(tmp_path / "new" / "x.png"), image.cpu().float())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.png"]


def test_grey_and_bytes(tmp_path: Path) -> None:
    save_png(torch.tensor([[[-1e-6, 0.5, 1 + 1e-6]]]), tmp_path / "g.png")
    assert torch.equal(read_image(tmp_path / "g.png") * 255, torch.tensor([0.0, 128.0, 255.0]).expand(3, 1, 3))
    pixels = torch.arange(60, dtype=torch.uint8).reshape(3, 4, 5)
    save_png(pixels, tmp_path / "b.png")
    assert torch.equal(read_image(tmp_path / "b.png"), pixels.float() / 255)


@pytest.mark.parametrize("shape", [(2, 3), (4, 5, 5), (3, 0, 4), (1, 3, 5, 5)])
def test_wrong_shape_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image must be a float or uint8 tensor"):
        save_png(torch.zeros(shape), tmp_path / "x.png")


def test_nan_and_wrong_suffix_are_refused(tmp_path: Path) -> None:
    for wrong in (float("nan"), 255.0, -1.0):
        with pytest.raises(ValueError, match=r"finite and lie in \[0, 1\]"):
            save_png(torch.full((3, 2, 2), wrong), tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"must end in \.png"):
        save_png(torch.zeros(3, 2, 2), tmp_path / "x.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")

    def write_half() -> None:
        with replacing(target) as aside:
            aside.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_writer_makes_private_gets_the_users_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "model.safetensors") as aside:
        aside.touch(mode=0o600)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode
