"""Every mode and every kind of damage that a user's picture may have."""

import logging
import os
import re
import struct
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.testing import assert_close

import facerecon_torch
from facerecon_torch.errors import ImageFileError
from facerecon_torch.images import read as read_module
from facerecon_torch.images import read_image
from facerecon_torch.images.convert import as_pixels
from facerecon_torch.images.read import _say_first_frame


def _rgb(height: int = 6, width: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _as_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).permute(2, 0, 1).float() / 255


def test_rgb_bytes_come_back_exactly(tmp_path: Path) -> None:
    values = _rgb()
    Image.fromarray(values).save(tmp_path / "a b,c=d.png")
    image = read_image(tmp_path / "a b,c=d.png")
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert torch.equal(image, _as_tensor(values))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_mode_gives_three_channels_in_range(mode: str, tmp_path: Path) -> None:
    grey = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4)
    if mode == "I;16":
        picture = Image.fromarray((grey * 65535).astype(np.uint16))
    elif mode == "F":
        picture = Image.fromarray(grey)
    else:
        picture = Image.fromarray((grey * 255).astype(np.uint8)).convert(mode)
    picture.save(tmp_path / "x.tif")
    image = read_image(tmp_path / "x.tif")
    assert image.shape == (3, 6, 4)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    if mode != "1":
        assert_close(image, torch.from_numpy(grey).expand(3, 6, 4), atol=2.5 / 255, rtol=0)


def test_sixteen_bit_grey_keeps_its_low_byte(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255, 256], [30000, 30001, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = torch.from_numpy(values.astype(np.float64) / 65535).float()
    assert torch.equal(read_image(tmp_path / "deep.png"), expected.expand(3, 2, 4))


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    values = np.zeros((1, 3, 4), dtype=np.uint8)
    values[0, :, 3] = [0, 51, 255]  # black at 0, 20 and 100 %
    Image.fromarray(values).save(tmp_path / "cut.png")
    assert_close(read_image(tmp_path / "cut.png")[0, 0], torch.tensor([1.0, 0.8, 0.0]), atol=1 / 255, rtol=0)


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "p.gif", transparency=1)
    expected = torch.tensor([[[1.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]])  # red, then white through the hole
    assert torch.equal(read_image(tmp_path / "p.gif"), expected)


def test_cmyk_jpeg_keeps_its_colour(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=95)
    colour = read_image(tmp_path / "red.jpg").mean(dim=(1, 2))
    assert_close(colour, torch.tensor([1.0, 0.0, 0.0]), atol=0.03, rtol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = _rgb()
    stored = {  # how a camera stores the upright picture under this tag
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "turned.png"), _as_tensor(upright))


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("L", (1, 1), 51).save(tmp_path / "dot.png")
    assert_close(read_image(str(tmp_path / "dot.png")), torch.full((3, 1, 1), 0.2))


def test_animation_gives_its_first_frame_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "b.gif", "c.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    _say_first_frame.cache_clear()
    with caplog.at_level(logging.WARNING):
        colours = [read_image(tmp_path / name)[:, 0, 0] for name in ("a.gif", "b.gif")]
    assert all(torch.equal(c, torch.tensor([1.0, 0.0, 0.0])) for c in colours)
    assert len(caplog.records) == 1
    assert_close(read_image(tmp_path / "c.webp")[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def _damaged(kind: str, folder: Path) -> Path:
    file = folder / f"{kind}.png"
    if kind == "folder":
        file.mkdir()
    elif kind == "zero bytes":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("this is not a picture")
    elif kind == "heic":
        file.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    elif kind == "truncated png":
        Image.fromarray(_rgb(60, 60)).save(file)
        file.write_bytes(file.read_bytes()[:-3000])
    elif kind == "truncated jpeg":
        Image.fromarray(_rgb(60, 60)).save(file, "JPEG")
        file.write_bytes(file.read_bytes()[:-800])
    elif kind == "bomb":
        size = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        crc = struct.pack(">I", zlib.crc32(b"IHDR" + size))
        file.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + crc + b"\0\0\0\0IDAT" + bytes(4))
    return file


@pytest.mark.parametrize(
    ("kind", "came"),
    [
        ("missing", "got nothing"),
        ("folder", "got a folder"),
        ("zero bytes", "got a file of zero bytes"),
        ("text", "got 21 bytes that begin with b'this is not '"),
        ("heic", "got an HEIC file"),
        ("truncated png", "got a damaged, truncated"),
        ("truncated jpeg", "got a damaged, truncated"),
        ("bomb", "got 60000 x 60000, 3600 megapixels"),
    ],
)
def test_bad_file_is_named_with_what_was_expected_and_what_came(kind: str, came: str, tmp_path: Path) -> None:
    file = _damaged(kind, tmp_path)
    with pytest.raises(ImageFileError, match=re.escape(came)) as caught:
        read_image(file)
    assert str(caught.value).startswith(f"{file}: expected ")


@pytest.mark.parametrize("values", [np.array([[v, 0.5]]) for v in (-1.0, np.nan, 300.0, 255.0, 1.5)])
def test_float_grey_out_of_range_is_refused(values: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageFileError, match=r"grey values must be numbers in \[0, 1\]; got"):
        read_image(tmp_path / "f.tif")


def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    values = _rgb()
    Image.fromarray(values).save(tmp_path / "e.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        assert torch.equal(read_image(tmp_path / "e.png"), _as_tensor(values))


def _tiff(file: Path, values: np.ndarray, bits: int, sample_format: int = 1) -> None:
    """A grey TIFF of one strip with the given BitsPerSample and SampleFormat."""
    height, width = values.shape
    data = values.tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, len(data)), (339, 3, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    file.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory)


def test_the_range_of_deep_grey_is_told_by_the_file_or_refused(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 4095]], dtype=np.uint16)
    packed = np.array([[0x00, 0x03, 0xE8, 0xFF, 0xF0]], dtype=np.uint8)  # the same numbers in 12 bits each
    _tiff(tmp_path / "12.tif", packed, 12)
    raw = bytearray((tmp_path / "12.tif").read_bytes())
    raw[raw.index(struct.pack("<HHII", 256, 4, 1, 5)) + 8] = 3  # three pixels wide
    (tmp_path / "12.tif").write_bytes(bytes(raw))
    expected = torch.from_numpy(values.astype(np.float64) / 4095).float()
    assert_close(read_image(tmp_path / "12.tif"), expected.expand(3, 1, 3), atol=1e-7, rtol=0)
    _tiff(tmp_path / "32.tif", values.astype(np.uint32), 32)
    _tiff(tmp_path / "signed.tif", values.astype(np.int16), 16, sample_format=2)
    for name in ("32.tif", "signed.tif"):
        with pytest.raises(ImageFileError, match="grey values must be unsigned numbers of at most 16 bits"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"8BPS\0\1" + bytes(40)])
def test_other_decoders_are_not_started(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ImageFileError, match="bytes that begin with"):
        read_image(tmp_path / "x.jpg")


def test_no_file_of_the_package_opens_images_with_every_decoder() -> None:
    package = Path(facerecon_torch.__file__).parent
    assert not [p for p in package.rglob("*.py") if re.search(r"(?<!`)Image\.open\(", p.read_text())]


def test_pixels_are_bounded_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.jpg", "a.png", "a.webp", "a.tif", "a.gif", "a.bmp"]
    for name in names:
        Image.fromarray(_rgb(50, 40)).save(tmp_path / name)
    for name in names:
        assert read_image(tmp_path / name, max_megapixels=0.002).shape == (3, 50, 40)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    for name in names:
        message = r"at most 0\.0019 megapixels \(images\.max_megapixels\); got 40 x 50"
        with pytest.raises(ImageFileError, match=message):
            read_image(tmp_path / name, max_megapixels=0.0019)


def _claiming(name: str, folder: Path) -> Path:
    """A small file of the format whose header claims 9,000 x 9,000 pixels."""
    file, size = folder / f"a.{name}", struct.pack
    Image.fromarray(_rgb(50, 40)).save(file)
    data = bytearray(file.read_bytes())
    if name == "png":
        data[16:24] = size(">II", 9000, 9000)
        data[29:33] = size(">I", zlib.crc32(data[12:29]))
    elif name == "jpg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = size(">HH", 9000, 9000)
    elif name == "bmp":
        data[18:26] = size("<ii", 9000, 9000)
    elif name == "gif":
        data[6:10] = size("<HH", 9000, 9000)
    elif name == "ppm":
        data = bytearray(data.replace(b"40 50", b"9000 9000", 1))
    elif name == "tif":
        for tag, old in ((256, 40), (257, 50)):
            at = next(k for k in range(len(data)) if data[k : k + 2] == size("<H", tag) and data[k + 4] == 1)
            width = 2 if data[at + 2] == 3 else 4
            assert int.from_bytes(data[at + 8 : at + 8 + width], "little") == old
            data[at + 8 : at + 8 + width] = (9000).to_bytes(width, "little")
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("name", ["png", "jpg", "bmp", "gif", "ppm", "tif"])
def test_a_header_that_claims_more_than_the_file_can_hold(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_module, "_values", Mock(side_effect=AssertionError("decoded")))
    with pytest.raises(ImageFileError, match=r"9000 x 9000 pixels that its header claims; got \d+ bytes"):
        read_image(_claiming(name, tmp_path))


@pytest.mark.parametrize("name", ["png", "jpg", "gif", "tif"])
def test_blank_images_are_within_what_a_file_can_hold(name: str, tmp_path: Path) -> None:
    options = {"tif": {"compression": "tiff_lzw"}, "jpg": {"progressive": True, "quality": 1}}.get(name, {})
    for mode in ("RGB", "L", "1"):
        if (name, mode) not in (("jpg", "1"), ("tif", "1")):
            Image.new(mode, (3000, 2000)).save(tmp_path / f"a.{name}", optimize=True, **options)
            assert read_image(tmp_path / f"a.{name}").shape == (3, 2000, 3000)


def test_between_the_bound_of_pillow_and_ours_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(read_module, "_BAND_PIXELS", 8)
    values = _rgb(6, 4)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), _as_tensor(values))
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "I;16", "F"])
def test_bands_are_the_whole(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(_rgb(40, 30))
    if mode == "F":
        picture = Image.fromarray(_rgb(40, 30)[..., 0].astype(np.float32) / 255)
    elif mode == "I;16":
        picture = Image.fromarray(_rgb(40, 30)[..., 0].astype(np.uint16) * 200)
    else:
        picture = picture.convert("RGBA" if mode == "PA" else mode)
        if mode in ("RGBA", "LA", "PA"):
            picture.putalpha(Image.fromarray(_rgb(40, 30)[..., 1]))
    whole = as_pixels(picture)
    monkeypatch.setattr(read_module, "_BAND_PIXELS", 90)
    assert torch.equal(as_pixels(picture), whole)


def test_what_cannot_be_read_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(2**40)  # sparse
    for name, came in (
        ("pipe.jpg", "got a pipe, socket or device"),
        ("link.jpg", "got a link to nothing"),
        ("loop.jpg", "got a file that cannot be read"),
        ("huge.jpg", r"got 1099512 MB, more than 200 megapixels \(images.max_megapixels\) can need"),
        ("a\0b.jpg", "got a file that cannot be read"),
        ("n" * 300 + ".jpg", "got a file that cannot be read"),
    ):
        with pytest.raises(ImageFileError, match=came):
            read_image(tmp_path / name)


def test_an_image_that_does_not_fit_the_memory_is_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(_rgb()).save(tmp_path / "a.png")
    for error in (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")):
        monkeypatch.setattr(read_module, "_values", Mock(side_effect=error))
        with pytest.raises(ImageFileError, match="got 4 x 6 pixels, for which the memory is too small"):
            read_image(tmp_path / "a.png")
