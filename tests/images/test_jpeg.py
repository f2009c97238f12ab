"""The short way from a JPEG to bytes gives what Pillow gives, or leaves the file to Pillow."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from facerecon_torch.errors import ImageFileError
from facerecon_torch.images import jpeg as jpeg_module
from facerecon_torch.images.jpeg import decode_ordinary_jpeg, jpeg_header
from facerecon_torch.images.read import decode_pixels, in_unit_range, read_image, read_pixels


def smooth(height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> torch.Tensor:
    with Image.open(BytesIO(data)) as opened:
        turned = ImageOps.exif_transpose(opened).convert("RGB")
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1)


def oriented(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    exif[0x0112] = value
    return exif.tobytes()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_ordinary_jpeg_is_decoded_to_the_bytes_of_pillow(subsampling: int, progressive: bool) -> None:
    for height, width in ((33, 47), (64, 48)):
        data = jpeg(smooth(height, width), quality=83, subsampling=subsampling, progressive=progressive)
        header = jpeg_header(data)
        assert (header.height, header.width, header.baseline) == (height, width, not progressive)
        assert torch.equal(decode_ordinary_jpeg(data), by_pillow(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int) -> None:
    data = jpeg(smooth(33, 47), exif=oriented(orientation))
    assert jpeg_header(data).orientation == orientation
    assert torch.equal(decode_ordinary_jpeg(data), by_pillow(data))


def test_what_is_not_ordinary_is_left_to_pillow() -> None:
    picture = smooth(20, 30)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>'
    for other in (
        jpeg(picture.convert("L")),
        jpeg(picture.convert("CMYK")),
        jpeg(picture, xmp=xmp),
        jpeg(picture, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"),
        jpeg(picture, exif=oriented(9)),
        jpeg(picture)[:200],
        b"\xff\xd8\xff",
        b"not a picture",
        b"",
    ):
        assert jpeg_header(other) is None
        assert decode_ordinary_jpeg(other) is None


def test_a_cut_jpeg_is_refused_wherever_it_is_cut() -> None:
    data = jpeg(smooth(64, 64), quality=95)
    for end in range(4, len(data) - 2, len(data) // 40):
        with pytest.raises(ImageFileError, match="got"):
            decode_pixels(data[:end], Path("cut.jpg"))


def test_floats_are_the_bytes_over_255_bit_for_bit(tmp_path: Path, device: torch.device) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(smooth(40, 30), exif=oriented(6)))
    smooth(40, 30).convert("RGBA").save(tmp_path / "a.png")
    for name in ("a.jpg", "a.png"):
        pixels, floats = read_pixels(tmp_path / name), read_image(tmp_path / name)
        assert pixels.dtype == torch.uint8
        expected = np.asarray(pixels, dtype=np.float32) / np.float32(255)
        assert np.array_equal(floats.numpy(), expected)
        assert floats.is_contiguous()
        assert np.array_equal(in_unit_range(pixels.to(device)).cpu().numpy(), expected)


def test_deep_grey_stays_deep(tmp_path: Path) -> None:
    values = np.array([[0, 1, 30001, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    deep = read_pixels(tmp_path / "deep.png")
    assert deep.dtype == torch.float32
    assert in_unit_range(deep) is deep


def test_the_short_way_is_there_and_files_are_read_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(smooth(40, 30), exif=oriented(6)))
    assert jpeg_module._decoder() is not None
    short = read_image(tmp_path / "a.jpg")
    monkeypatch.setattr(jpeg_module, "_decoder", lambda: None)
    assert decode_ordinary_jpeg((tmp_path / "a.jpg").read_bytes()) is None
    assert torch.equal(read_image(tmp_path / "a.jpg"), short)
