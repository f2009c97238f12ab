"""300W-LP and AFLW2000-3D: keys, shapes and index bases of their .mat files, and their folders."""

import zlib

import numpy as np
import pytest
import scipy.io
import torch

from facerecon_torch.data.aflw import FittedPhoto, iter_aflw2000, iter_lp, read_fitted_photo
from facerecon_torch.errors import DataFileError
from tests.data.aflw_mat import fitted_arrays, write_fitted_mat


def _photo():
    draw = np.random.default_rng(0)
    # float32 holds 1/16 of a pixel exactly, also after 1 is added
    values = (
        draw.integers(0, 7200, (68, 2)) / 16,
        draw.normal(size=199) * 1e5,
        draw.normal(size=29),
        np.array([0.125, -0.5, 0.0625, 200, 210, -60, 2.0**-10]),
    )
    return FittedPhoto(*(torch.from_numpy(value) for value in values))


def _arrays():
    return fitted_arrays("aflw2000", _photo())


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("data_set", ["w300lp", "aflw2000"])
def test_points_count_from_1_and_weights_come_as_they_are(data_set, compressed, tmp_path):
    want = _photo()
    got = read_fitted_photo(write_fitted_mat(tmp_path / "a.mat", data_set, want, compressed=compressed), data_set)
    for name in ("points", "shape", "expression", "pose"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name


def test_other_variables_are_skipped(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {**fitted_arrays("w300lp", _photo()), "other": {"deep": [1, 2]}, "text": "abc"})
    assert torch.equal(read_fitted_photo(file, "w300lp").points, _photo().points)


@pytest.mark.parametrize(
    ("key", "value", "actual"),
    [
        ("pt3d_68", np.zeros((2, 68)), r"of shape \(2, 68\)"),
        ("Exp_Para", np.zeros((10, 1)), r"of shape \(10, 1\)"),
        ("Shape_Para", np.full((199, 1), np.nan), r"199 others \(nan\)"),
        ("Shape_Para", np.full((199, 1), 1e13), "199 others"),
        ("Shape_Para", np.ones((199, 1)) * 1j, "no such array"),
        ("Shape_Para", np.empty((199, 1), object), "no such array"),
        ("Pose_Para", np.zeros((1, 7), np.float32), "0"),
        ("Pose_Para", None, "pt2d, roi"),
    ],
)
def test_a_wrong_variable_is_named(key, value, actual, tmp_path):
    file, arrays = tmp_path / "a.mat", _arrays()
    arrays.pop(key)
    if value is not None:
        if value.dtype == object:
            value[:] = 1.0
        arrays[key] = value
    scipy.io.savemat(file, arrays)
    with pytest.raises(DataFileError, match=rf"a\.mat: {key}: expected .*; got .*{actual}"):
        read_fitted_photo(file, "aflw2000")


def test_other_versions_and_repeated_variables_are_refused(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, _arrays(), format="4")
    with pytest.raises(DataFileError, match="header: expected a little-endian MATLAB 5 file"):
        read_fitted_photo(file, "aflw2000")
    scipy.io.savemat(file, fitted_arrays("w300lp", _photo()))
    content = file.read_bytes()
    file.write_bytes(content + content[128:])
    with pytest.raises(DataFileError, match="pt2d: expected one variable of this name; got two"):
        read_fitted_photo(file, "w300lp")


def test_a_variable_that_unpacks_without_end_is_refused(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, _arrays())
    packed = zlib.compress(bytes(64 * 1024 * 1024), 9)
    tag = np.array([15, len(packed)], "<u4").tobytes()
    file.write_bytes(file.read_bytes()[:128] + tag + packed)
    with pytest.raises(DataFileError, match="compressed variable: expected a whole stream"):
        read_fitted_photo(file, "aflw2000")


def test_photographs_come_with_their_mat(tmp_path):
    for name in ("AFW/b", "AFW/a", "LFPW_Flip/c", "notes/d"):
        for suffix in (".jpg", ".mat"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / f"{name}{suffix}").touch()
    assert [(f.part, f.mat.name) for f in iter_lp(tmp_path)] == [
        ("AFW", "a.mat"),
        ("AFW", "b.mat"),
        ("LFPW_Flip", "c.mat"),
    ]
    (tmp_path / "AFW" / "b.mat").unlink()
    with pytest.raises(DataFileError, match=r"b\.mat: partner file: expected .*; got nothing"):
        list(iter_aflw2000(tmp_path / "AFW"))
    with pytest.raises(DataFileError, match="folder: expected one of AFW"):
        list(iter_lp(tmp_path / "notes"))
    with pytest.raises(DataFileError, match=r"expected NAME\.jpg with NAME\.mat; got no folder"):
        list(iter_aflw2000(tmp_path / "nowhere"))
