"""The name grammar of Bosphorus and its folders."""

import pytest

from facerecon_torch.data.bosphorus.recordings import ScanName, list_scans, parse_name, partner
from facerecon_torch.errors import DataFileError


@pytest.mark.parametrize(
    ("stem", "parts"),
    [
        ("bs000_CAU_A22A25_0", (0, "CAU", "A22A25", 0)),
        ("bs104_N_N_3", (104, "N", "N", 3)),
        ("bs017_YR_R90_0", (17, "YR", "R90", 0)),
        ("bs001_LFAU_12LW_0", (1, "LFAU", "12LW", 0)),
        ("bs001_LFAU_10LL?_12", (1, "LFAU", "10LL?", 12)),
        ("bs001_IGN_whatever-1_0", (1, "IGN", "whatever-1", 0)),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".bnt", ".lm2", ".LM3", ".png"])
def test_names_fall_into_their_four_parts(stem, parts, suffix):
    name = parse_name(f"/some/folder/{stem}{suffix}")
    assert name == ScanName(*parts)
    assert name.stem == stem


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("bs00_N_N_0", "subject"),
        ("cs000_N_N_0", "subject"),
        ("bs\u0660\u0660\u0660_N_N_0", "subject"),
        ("bs000_X_N_0", "class"),
        ("bs000_N__0", "code"),
        ("bs000_N_a b_0", "code"),
        ("bs000_N_N_00", "repetition"),
        ("bs000_N_N_x", "repetition"),
        ("bs000_N_0", "name"),
        ("bs000_N_N_0_1.bnt", "name"),
        ("", "name"),
    ],
)
def test_other_names_are_errors_that_name_the_part(name, field):
    with pytest.raises(DataFileError, match=f"{field}.*expected.*got"):
        parse_name(name)


def test_a_name_that_no_file_can_have_is_refused():
    for parts in ((1000, "N", "N", 0), (0, "M", "N", 0), (0, "N", "a_b", 0), (0, "N", "N", -1)):
        with pytest.raises(ValueError, match="must"):
            ScanName(*parts)


def fill(root, *stems):
    for stem in stems:
        folder = root / stem[:5]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.bnt").touch()


def test_scans_are_listed_by_name_and_class(tmp_path):
    fill(tmp_path, "bs001_N_N_0", "bs000_YR_R10_0", "bs000_E_HAPPY_0")
    (tmp_path / "bs000" / "bs000_E_HAPPY_0.png").touch()
    (tmp_path / "bs000" / "._bs000_E_HAPPY_0.bnt").touch()
    (tmp_path / "notes").mkdir()
    assert [p.stem for p in list_scans(tmp_path)] == ["bs000_E_HAPPY_0", "bs000_YR_R10_0", "bs001_N_N_0"]
    assert [p.stem for p in list_scans(tmp_path, ("N", "E"))] == [
        "bs000_E_HAPPY_0",
        "bs001_N_N_0",
    ]
    with pytest.raises(DataFileError, match="classes O; got none"):
        list_scans(tmp_path, ["O"])
    with pytest.raises(ValueError, match="got Q"):
        list_scans(tmp_path, ["Q"])


def test_a_folder_that_is_not_the_data_set_is_named(tmp_path):
    with pytest.raises(DataFileError, match="an empty folder"):
        list_scans(tmp_path)
    with pytest.raises(DataFileError, match="no such folder"):
        list_scans(tmp_path / "none")


def test_a_scan_in_another_subjects_folder_is_an_error(tmp_path):
    fill(tmp_path, "bs001_N_N_0")
    (tmp_path / "bs001" / "bs002_N_N_0.bnt").touch()
    with pytest.raises(DataFileError, match="folder, bs001; got 002"):
        list_scans(tmp_path)


def test_a_missing_partner_is_named(tmp_path):
    fill(tmp_path, "bs001_N_N_0")
    scan = tmp_path / "bs001" / "bs001_N_N_0.bnt"
    with pytest.raises(DataFileError, match=r"bs001_N_N_0\.lm3: file: expected .* got only bs001_N_N_0\.bnt"):
        partner(scan, ".lm3")
    scan.with_suffix(".lm3").touch()
    assert partner(scan, ".lm3").name == "bs001_N_N_0.lm3"
