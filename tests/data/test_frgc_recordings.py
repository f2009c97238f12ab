"""FRGC as recordings: which texture belongs to which range file, and where the cells lie in it."""

import random

import pytest
import torch

from facerecon_torch.data.frgc import recordings as frgc
from facerecon_torch.data.frgc.files import Texture, write_abs, write_texture
from facerecon_torch.data.frgc.signature_set import Presentation, read_signature_set
from facerecon_torch.data.recordings import RangeGrid, RecordingSource
from facerecon_torch.errors import DataFileError
from tests.data.frgc.signature_writer import write_signature_set

_ROWS, _COLUMNS = 3, 4
_SESSION = "FRGC-2.0-dist/nd1/Fall2003range"


def _grid(rng):
    points = torch.rand(_ROWS, _COLUMNS, 3, generator=rng, dtype=torch.float64).mul(1000).round() / 8
    return RangeGrid(points - torch.tensor([0.0, 0.0, 1200.0]), torch.arange(12).reshape(_ROWS, _COLUMNS) != 5)


def _texture(rng, factor=1):
    return Texture(torch.randint(256, (3, _ROWS * factor, _COLUMNS * factor), generator=rng).float() / 255)


def _write(folder, rng, stem, texture=None, *, factor=1, ending=".ppm"):
    write_abs(_grid(rng), folder / f"{stem}.abs.gz")
    if texture:
        write_texture(_texture(rng, factor), folder / f"{texture}{ending}")


@pytest.fixture
def root(tmp_path, rng):
    folder = tmp_path / _SESSION
    _write(folder, rng, "02463d452", "02463d452")
    _write(folder, rng, "02463d454", "02463d455")
    _write(tmp_path / "elsewhere", rng, "04200d07", "04200d07", ending=".ppm.gz")
    return tmp_path


def test_the_module_is_a_source_of_recordings():
    assert isinstance(frgc, RecordingSource)


def test_textures_of_the_same_and_of_the_next_number_are_found(root):
    found = frgc.list_recordings(root)
    assert [(one.name, one.subject, one.kind, one.code, one.image.name) for one in found] == [
        ("02463d452", "02463", "Fall2003range", "452", "02463d452.ppm"),
        ("02463d454", "02463", "Fall2003range", "454", "02463d455.ppm"),
        ("04200d07", "04200", "other", "07", "04200d07.ppm.gz"),
    ]


def test_cells_are_pixels_and_no_point_is_labelled(root):
    for recording in frgc.list_recordings(str(root)):
        scan = frgc.read_recording(recording)
        assert scan.image.shape == (3, _ROWS, _COLUMNS)
        assert scan.pixels[2, 3].tolist() == [3.0, 2.0]
        assert scan.pixels[0, 0].tolist() == [0.0, 0.0]
        assert not bool(scan.surface.valid[1, 1])
        assert bool(torch.isnan(scan.labelled).all())


def test_a_finer_texture_has_several_pixels_a_cell(tmp_path, rng):
    _write(tmp_path, rng, "00001d1", "00001d1", factor=3)
    scan = frgc.read_recording(frgc.list_recordings(tmp_path)[0])
    assert scan.pixels[0, 0].tolist() == [1.0, 1.0]  # the middle of the first three pixels
    assert scan.pixels[2, 1].tolist() == [4.0, 7.0]


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (2, 4), (6, 4)])
def test_a_texture_of_another_shape_is_refused(shape, tmp_path, rng):
    _write(tmp_path, rng, "00001d1")
    write_texture(Texture(torch.zeros(3, *shape)), tmp_path / "00001d1.ppm")
    with pytest.raises(DataFileError, match=r"00001d1\.ppm: rows, columns: expected 3 x 4, or a multiple; got"):
        frgc.read_recording(frgc.list_recordings(tmp_path)[0])


def test_a_missing_texture_is_said_when_the_recording_is_read(root):
    (root / _SESSION / "02463d455.ppm").unlink()
    first, second, _ = frgc.list_recordings(root)
    frgc.read_recording(first)
    with pytest.raises(DataFileError, match=r"texture: expected 02463d454\.ppm or 02463d455\.ppm"):
        frgc.read_recording(second)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "bs000").mkdir()
    with pytest.raises(DataFileError, match=r"expected range grids SSSSSdNNN\.abs .* got none"):
        frgc.list_recordings(tmp_path)
    with pytest.raises(DataFileError, match="got no folder"):
        frgc.list_recordings(tmp_path / "nowhere")


_NAMESPACED = """<?xml version="1.0" encoding="UTF-8"?>
<biometric-signature-set xmlns="http://www.bee-biometrics.org/schemas/sigset/0.1">
<complex-biometric-signature name="nd1S02463"><complex-presentation name="nd1R1" modality="3D face">
<presentation-component><data file-name="nd1\\Fall2003range\\02463d452.abs.gz"/></presentation-component>
<presentation-component><data file-name="nd1/Fall2003range/02463d455.ppm"/></presentation-component>
</complex-presentation></complex-biometric-signature>
<biometric-signature name="nd1S1"><presentation name="p" file-name="a.jpg"/></biometric-signature>
</biometric-signature-set>"""


def test_both_forms_of_signature_are_read(tmp_path):
    file = tmp_path / "set.xml"
    file.write_text(_NAMESPACED)
    ranged, still = read_signature_set(file)
    assert ranged == Presentation(
        "nd1S02463", "nd1R1", ("nd1/Fall2003range/02463d452.abs.gz", "nd1/Fall2003range/02463d455.ppm")
    )
    assert still == Presentation("nd1S1", "p", ("a.jpg",))


def test_a_signature_set_wins_over_equal_names(root, tmp_path):
    file = tmp_path / "set.xml"
    file.write_text(_NAMESPACED)
    found = frgc.list_recordings(root, signatures=[file])
    assert found[0].image == root / _SESSION / "02463d455.ppm"
    assert found[2].image.name == "04200d07.ppm.gz"


def test_sets_that_contradict_each_other_or_lead_elsewhere_are_refused(root):
    pair = Presentation("s", "p", ("02463d452.abs", "02463d452.ppm"))
    other = Presentation("s", "q", ("02463d452.abs", "../02463d455.ppm"))
    one, two = write_signature_set([pair], root / "1.xml"), write_signature_set([other], root / "2.xml")
    with pytest.raises(DataFileError, match=r"2\.xml: texture of 02463d452: expected the same one everywhere"):
        frgc.list_recordings(root, signatures=[one, two])
    with pytest.raises(DataFileError, match="expected a name below the data set's folder"):
        frgc.list_recordings(root, signatures=[two])


def _presentations():
    return [Presentation('a & "b"', f"r{k}", (f"x/{k:05d}d1.abs.gz", f"x/{k:05d}d2.ppm")) for k in range(3)]


def test_a_written_set_is_read_back_identically(tmp_path):
    file = write_signature_set(_presentations(), tmp_path / "set.xml")
    assert read_signature_set(file) == _presentations()
    content = file.read_bytes()
    write_signature_set(read_signature_set(file), file)
    assert file.read_bytes() == content


_OPEN = "<biometric-signature-set>"
_BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text: expected well-formed XML"),
        (_OPEN, "text: expected well-formed XML"),
        ("<html></html>", "root: expected <biometric-signature-set>; got 'html'"),
        (_BOMB + _OPEN + "&b;</biometric-signature-set>", "expected XML without a document type"),
        (_OPEN + "<a>" * 40 + "</a>" * 40, "elements: expected at most 16"),
        (_OPEN + '<presentation name="a" file-name="b"/>', "expected one inside of a signature"),
        (_OPEN + '<biometric-signature name="a"><presentation name="a"/>', "expected a file-name; got none"),
        (_OPEN + '<biometric-signature name=""/>', "name of biometric-signature: expected 1 to 1024 printable"),
        ('<?xml version="1.0" encoding="klingon"?>' + _OPEN, "expected well-formed XML"),
    ],
)
def test_other_xml_is_refused(text, message, tmp_path):
    file = tmp_path / "set.xml"
    file.write_text(text)
    with pytest.raises(DataFileError, match=message):
        read_signature_set(file)


def _read_or_message(file):
    try:
        return read_signature_set(file), None
    except DataFileError as error:
        return None, str(error)


def test_every_truncation_and_flipped_bytes_give_an_error_or_presentations(tmp_path):
    file = write_signature_set(_presentations(), tmp_path / "set.xml")
    content = file.read_bytes()
    for size in range(len(content) - 1):  # the last byte is a line break
        file.write_bytes(content[:size])
        found, message = _read_or_message(file)
        assert found is None
        assert message.startswith(f"{file}: ")
        assert "expected" in message
    draw, refused = random.Random(3), 0
    for _ in range(1000):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        file.write_bytes(changed)
        found, message = _read_or_message(file)
        refused += found is None
        assert message is None or (message.startswith(f"{file}: ") and "expected" in message)
        assert found is None or all(one.files for one in found)
    assert refused > 200


def test_flipped_bytes_of_a_recording_give_an_error_or_a_finite_scan(root):
    recording = frgc.list_recordings(root)[0]
    draw, refused = random.Random(5), 0
    for file in (recording.image, *recording.files):
        content = file.read_bytes()
        for _ in range(150):
            changed = bytearray(content)
            changed[draw.randrange(len(content))] ^= draw.randrange(1, 256)
            file.write_bytes(changed)
            try:
                scan = frgc.read_recording(recording)
            except DataFileError as error:
                refused += 1
                assert str(file) in str(error)  # noqa: PT017 - either answer is right
            else:
                assert bool(torch.isfinite(scan.points).all() & torch.isfinite(scan.image).all())
                assert scan.pixels.shape[:2] == scan.surface.shape
        file.write_bytes(content)
    assert refused > 150
