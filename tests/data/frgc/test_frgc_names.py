"""Names of FRGC recordings and which texture belongs to which range grid."""

import pytest

from facerecon_torch.data.frgc.recordings import RecordingName, find_texture, list_range_files, parse_name
from facerecon_torch.errors import DataFileError


@pytest.mark.parametrize("suffix", ["", ".abs", ".abs.gz", ".ppm", ".ppm.gz", ".ABS.GZ"])
def test_names_give_person_and_recording(suffix):
    name = parse_name(f"/nd1/Fall2003range/02463d452{suffix}")
    assert name == RecordingName("02463", "452")
    assert name.stem == "02463d452"


@pytest.mark.parametrize("name", ["2463d452.abs", "02463d.abs", "02463d45x.abs", "02463d452.bnt", "02463D452.abs", ""])
def test_other_names_are_errors(name):
    with pytest.raises(DataFileError, match="name: expected SSSSSdNNN"):
        parse_name(name)


@pytest.mark.parametrize(
    ("number", "after"), [("452", "453"), ("99", "100"), ("099", "100"), ("007", "008"), ("9", "10")]
)
def test_the_next_number_keeps_its_zeros(number, after):
    assert RecordingName("02463", number).next == RecordingName("02463", after)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["04200d10.ppm"], "04200d10.ppm"),
        (["04200d10.ppm.gz"], "04200d10.ppm.gz"),
        (["04200d11.ppm"], "04200d11.ppm"),
        (["04200d10.ppm", "04200d11.ppm"], "04200d10.ppm"),
        (["04200d11.ppm.gz", "04200d12.ppm", "04200d12.abs.gz"], "04200d11.ppm.gz"),
    ],
)
def test_the_texture_has_the_same_number_or_the_next(files, wanted, tmp_path):
    for name in ("04200d10.abs.gz", *files):
        (tmp_path / name).touch()
    assert find_texture(tmp_path / "04200d10.abs.gz").name == wanted


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "got neither"),
        (["04200d12.ppm", "04201d10.ppm", "04200d09.ppm"], "got neither"),
        (["04200d11.ppm", "04200d11.abs"], r"got only 04200d11\.ppm, which belongs to 04200d11\.abs"),
    ],
)
def test_a_missing_texture_is_an_error(files, message, tmp_path):
    for name in ("04200d10.abs.gz", *files):
        (tmp_path / name).touch()
    with pytest.raises(DataFileError, match=f"texture: expected .*{message}"):
        find_texture(tmp_path / "04200d10.abs.gz")


def test_recordings_are_listed_by_person_and_number(tmp_path):
    for name in ("Fall2003range/04200d9.abs.gz", "Fall2003range/04200d10.abs", "Spring2003range/02463d452.abs.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Fall2003range" / "04200d9.ppm").touch()
    (tmp_path / "Fall2003range" / "._04200d9.abs.gz").touch()
    assert [p.name for p in list_range_files(tmp_path)] == ["02463d452.abs.gz", "04200d9.abs.gz", "04200d10.abs"]
    (tmp_path / "04200d10.abs.gz").touch()
    with pytest.raises(DataFileError, match="every recording once"):
        list_range_files(tmp_path)


def test_a_folder_that_is_not_the_data_set_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"range grids .* got none"):
        list_range_files(tmp_path)
    with pytest.raises(DataFileError, match="got no folder"):
        list_range_files(tmp_path / "none")
    (tmp_path / "face.abs").touch()
    with pytest.raises(DataFileError, match="SSSSSdNNN"):
        list_range_files(tmp_path)
