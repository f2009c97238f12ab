"""Textures of FRGC: the commented header, round trips and damage."""

import pytest
import torch
from PIL import Image

from facerecon_torch.data.frgc.files import Texture, read_texture, write_texture
from facerecon_torch.errors import DataFileError
from facerecon_torch.images.read import read_image
from tests.data.format_error_cases import all_finite, flipped, read_or_error

COMMENTS = ("vivid 3D Data", "width", " pitchX 0.5", " focus 7.919691", " viewPoint", "")
HEAD = b"P6\n#vivid 3D Data\n# focus 7.919691\n2 3\n255\n"
PIXELS = bytes(range(0, 180, 10))


def texture_of(rows=3, columns=4, comments=COMMENTS):
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (3, rows, columns), generator=draw).float() / 255
    return Texture(values, comments)


@pytest.mark.parametrize("suffix", [".ppm", ".ppm.gz"])
@pytest.mark.parametrize("comments", [COMMENTS, ()], ids=["commented", "bare"])
def test_a_written_texture_is_read_back_identically(suffix, comments, tmp_path):
    texture = texture_of(5, 7, comments)
    back = read_texture(write_texture(texture, tmp_path / f"a{suffix}"))
    assert torch.equal(back.image, texture.image)
    assert back.comments == comments


def test_pillow_sees_the_same_picture(tmp_path):
    """Ours written, Pillow's read; and Pillow's written, ours read."""
    texture = texture_of(5, 7)
    assert torch.equal(read_image(write_texture(texture, tmp_path / "a.ppm")), texture.image)
    with Image.open(tmp_path / "a.ppm") as picture:
        picture.save(tmp_path / "b.ppm")
    assert torch.equal(read_texture(tmp_path / "b.ppm").image, texture.image)


@pytest.mark.parametrize(
    "head",
    [HEAD, HEAD.replace(b"\n", b"\r\n"), b"P6\n2\n# between\n3\n255\n", b"P6\n2 3 255\n", b"P6\n2 3 # after\n255\n"],
)
def test_headers_mean_the_same_however_they_are_broken(head, tmp_path):
    (tmp_path / "a.ppm").write_bytes(head + PIXELS)
    texture = read_texture(tmp_path / "a.ppm")
    assert texture.image.shape == (3, 3, 2)
    assert torch.equal(texture.image[:, 0, 1], torch.tensor([30.0, 40.0, 50.0]) / 255)


@pytest.mark.parametrize("suffix", [".ppm", ".ppm.gz"])
def test_every_truncation_is_an_error(suffix, tmp_path):
    content = write_texture(texture_of(), tmp_path / f"a{suffix}").read_bytes()
    for length in range(len(content)):
        assert read_or_error(read_texture, tmp_path / f"cut{suffix}", content[:length])[0] is None, length


@pytest.mark.parametrize("suffix", [".ppm", ".ppm.gz"])
def test_random_flips_give_an_error_or_a_finite_picture(suffix, tmp_path):
    content = write_texture(texture_of(), tmp_path / f"a{suffix}").read_bytes()
    read = [read_or_error(read_texture, tmp_path / f"flip{suffix}", c)[0] for c in flipped(content, 1000)]
    textures = [texture for texture in read if texture is not None]
    assert 0 < len(textures) < 1000
    for texture in textures:
        assert texture.image.ndim == 3
        assert texture.image.numel() == 3 * 3 * 4
        assert all_finite(texture.image)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"P6", b"P5", "heading: expected 'P6'"),
        (b"255\n", b"65535\n", "largest value: expected 255; got 65535"),
        (b"2 3\n", b"0 3\n", "size: expected 1 to"),
        (b"2 3\n", b"99999 99999\n", "size: expected 1 to"),
        (b"2 3\n", b"2 -3\n", "header: expected width"),
        (b"2 3\n", b"2 3 4 5\n", "header: expected width"),
        (b"2 3\n", b"3 3\n", "pixels: expected 27 bytes for 3 x 3 pixels; got 18 bytes"),
        (b"2 3\n", b"1 3\n", "pixels: expected 9 bytes for 1 x 3 pixels; got more"),
        (b"vivid", b"viv\xefd", "comment: expected ASCII"),
        (b"#vivid", b"#" + b"x" * 5000, "header: expected width"),
    ],
)
def test_damage_is_named(old, new, message, tmp_path):
    content = HEAD.replace(old, new, 1) + PIXELS
    assert message in read_or_error(read_texture, tmp_path / "a.ppm", content)[1]


def test_endless_comments_are_refused(tmp_path):
    assert "header" in read_or_error(read_texture, tmp_path / "a.ppm", b"P6\n" + b"#\n" * 5000 + b"1 1\n255\nabc")[1]


def test_textures_refuse_what_no_file_can_hold(tmp_path):
    for image in (torch.zeros(1, 2, 2), torch.zeros(3, 2, 0), torch.zeros(3, 2, 2, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="image must be"):
            Texture(image)
    for comment in ("two\nlines", "x" * 5000, "caf\u00e9", "ends in \r"):
        with pytest.raises(ValueError, match="comment"):
            Texture(torch.zeros(3, 2, 2), (comment,))
    with pytest.raises(ValueError, match=r"must end in \.ppm"):
        write_texture(texture_of(), tmp_path / "a.png")
    with pytest.raises(DataFileError, match="got nothing"):
        read_texture(tmp_path / "none.ppm")
