"""300W-LP and AFLW2000-3D: keys, shapes, index bases and the projection of their .mat files."""

import math
import zlib

import numpy as np
import pytest
import scipy.io
import torch

from facerecon_torch.data.aflw.faces import read_aflw2000, read_lp, save_aflw2000, save_lp
from facerecon_torch.data.aflw.folders import iter_aflw2000, iter_lp, read_lp_points
from facerecon_torch.data.aflw.projection import camera_from_pose, pose_from_camera
from facerecon_torch.errors import DataFileError
from facerecon_torch.geometry.projection import project


def _arrays(seed=0):
    """The variables of an AFLW2000-3D file, as MATLAB stores them."""
    draw = np.random.default_rng(seed)
    pt2d = draw.uniform(1, 450, (2, 21))
    pt2d[:, 4] = -1
    return {
        "pt2d": pt2d,
        "roi": np.array([[11, 21, 461, 471]], np.int16),
        "Illum_Para": draw.normal(size=(1, 10)).astype(np.float32),
        "Color_Para": np.ones((1, 7), np.float32),
        "Tex_Para": draw.normal(size=(199, 1)),
        "Shape_Para": draw.normal(size=(199, 1)) * 1e5,
        "Exp_Para": draw.normal(size=(29, 1)),
        "Pose_Para": np.array([[0.1, -0.4, 0.05, 200, 210, -60, 1.2e-3]], np.float32),
        "pt3d_68": draw.uniform(1, 450, (3, 68)).astype(np.float32),
    }


def _lp_arrays():
    arrays = _arrays()
    del arrays["pt3d_68"]
    return {**arrays, "pt2d": np.random.default_rng(1).uniform(1, 450, (2, 68))}


@pytest.mark.parametrize("compressed", [False, True])
def test_aflw2000_counts_from_1_and_marks_hidden_points(compressed, tmp_path):
    file, arrays = tmp_path / "image00002.mat", _arrays()
    scipy.io.savemat(file, arrays, do_compression=compressed)
    face = read_aflw2000(file)
    want = arrays["pt3d_68"].T.astype(np.float64) - [1, 1, 0]
    assert torch.equal(face.points, torch.from_numpy(want))
    assert torch.nonzero(~face.visible).flatten().tolist() == [4]
    assert face.aflw_points[4].tolist() == [0, 0]
    assert torch.equal(face.aflw_points[5], torch.from_numpy(arrays["pt2d"][:, 5] - 1))
    assert face.fit.crop.tolist() == [10, 20, 460, 470]
    assert torch.equal(face.fit.shape, torch.from_numpy(arrays["Shape_Para"][:, 0]))
    assert torch.equal(face.fit.pose, torch.from_numpy(arrays["Pose_Para"][0].astype(np.float64)))


@pytest.mark.parametrize(
    ("arrays", "read", "save"),
    [(_arrays(), read_aflw2000, save_aflw2000), (_lp_arrays(), read_lp, save_lp)],
    ids=["aflw2000", "300w-lp"],
)
def test_a_file_of_others_is_written_again_value_by_value(arrays, read, save, tmp_path):
    file, again = tmp_path / "a.mat", tmp_path / "b.mat"
    scipy.io.savemat(file, arrays)
    save(read(file), again)
    stored = scipy.io.loadmat(again)
    for key, values in arrays.items():
        assert stored[key].dtype == values.dtype
        np.testing.assert_array_equal(stored[key], values)


def test_lp_points_count_from_1(tmp_path):
    file, arrays = tmp_path / "a.mat", _lp_arrays()
    scipy.io.savemat(file, {**arrays, "other": {"deep": [1, 2]}, "text": "abc"})
    assert torch.equal(read_lp(file).points, torch.from_numpy(arrays["pt2d"].T - 1))
    scipy.io.savemat(file, {"pts_2d": arrays["pt2d"].T, "pts_3d": arrays["pt2d"].T + 3})
    visible, projected = read_lp_points(file)
    assert torch.equal(visible, torch.from_numpy(arrays["pt2d"].T - 1))
    torch.testing.assert_close(projected, visible + 3)


@pytest.mark.parametrize(
    ("key", "value", "came"),
    [
        ("pt2d", np.zeros((2, 68)), r"of shape \(2, 68\)"),
        ("Exp_Para", np.zeros((10, 1)), r"of shape \(10, 1\)"),
        ("Shape_Para", np.full((199, 1), np.nan), r"199 others \(nan\)"),
        ("Shape_Para", np.full((199, 1), 1e13), "199 others"),
        ("Tex_Para", np.ones((199, 1)) * 1j, "no such array"),
        ("Tex_Para", np.empty((199, 1), object), "no such array"),
        ("Pose_Para", np.zeros((1, 7), np.float32), "0"),
        ("Pose_Para", None, "pt2d, roi"),
    ],
)
def test_a_wrong_variable_is_named(key, value, came, tmp_path):
    file, arrays = tmp_path / "a.mat", _arrays()
    arrays.pop(key)
    if value is not None:
        if value.dtype == object:
            value[:] = 1.0
        arrays[key] = value
    scipy.io.savemat(file, arrays)
    with pytest.raises(DataFileError, match=rf"a\.mat: {key}: expected .*; got .*{came}"):
        read_aflw2000(file)


def test_other_versions_and_repeated_variables_are_refused(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, _arrays(), format="4")
    with pytest.raises(DataFileError, match="header: expected a little-endian MATLAB 5 file"):
        read_aflw2000(file)
    scipy.io.savemat(file, _arrays())
    content = file.read_bytes()
    file.write_bytes(content + content[128:])
    with pytest.raises(DataFileError, match="pt2d: expected one variable of this name; got two"):
        read_aflw2000(file)


def test_a_variable_that_unpacks_without_end_is_refused(tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, _arrays())
    packed = zlib.compress(bytes(64 * 1024 * 1024), 9)
    tag = np.array([15, len(packed)], "<u4").tobytes()
    file.write_bytes(file.read_bytes()[:128] + tag + packed)
    with pytest.raises(DataFileError, match="compressed variable: expected a whole stream"):
        read_aflw2000(file)


def test_the_camera_follows_the_files_projection(rng):
    pitch, yaw, roll, scale = 0.3, -0.7, 0.2, 1.1e-3
    pose = torch.tensor([pitch, yaw, roll, 220.0, 190.0, -50.0, scale], dtype=torch.float64)
    vertices = torch.randn(30, 3, generator=rng, dtype=torch.float64) * 6e4
    (cp, sp), (cy, sy), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (pitch, yaw, roll))
    about_x = torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]], dtype=torch.float64)
    about_y = torch.tensor([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]], dtype=torch.float64)
    about_z = torch.tensor([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]], dtype=torch.float64)
    turned = scale * vertices @ (about_x @ about_y @ about_z).mT + pose[3:6]
    from_one = torch.stack([turned[:, 0], 450 + 1 - turned[:, 1]], dim=-1)
    torch.testing.assert_close(project(vertices / 1000, camera_from_pose(pose)), from_one - 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_pose_and_camera_are_inverses(batch, rng):
    pose = torch.rand(*batch, 7, generator=rng, dtype=torch.float64) * 2.8 - 1.4
    pose[..., 6] = 1e-3
    again = pose_from_camera(camera_from_pose(pose, height=300), height=300, depth=pose[..., 5])
    torch.testing.assert_close(again, pose, rtol=0, atol=1e-9)


@pytest.mark.parametrize("yaw", [math.pi / 2, -math.pi / 2, 1.7])
def test_a_profile_keeps_its_rotation(yaw):
    pose = torch.tensor([0.2, yaw, -0.3, 1.0, 2.0, 0.0, 1e-3], dtype=torch.float64)
    camera = camera_from_pose(pose)
    again = camera_from_pose(pose_from_camera(camera))
    torch.testing.assert_close(again.rotation, camera.rotation, rtol=0, atol=1e-7)


def test_a_positive_yaw_of_the_file_turns_the_nose_to_image_left():
    pose = torch.tensor([0.0, 0.5, 0.0, 225.0, 225.0, 0.0, 1e-3], dtype=torch.float64)
    nose = torch.tensor([[0.0, 0.0, 100.0]], dtype=torch.float64)
    assert float(project(nose, camera_from_pose(pose))[0, 0]) < 200


@pytest.mark.parametrize("save", [save_lp, save_aflw2000])
def test_nothing_is_written_of_a_face_with_nan(save, tmp_path):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, _lp_arrays() if save is save_lp else _arrays())
    face = (read_lp if save is save_lp else read_aflw2000)(file)
    face.fit.shape[3] = math.nan
    with pytest.raises(ValueError, match="shape must be finite"):
        save(face, tmp_path / "b.mat")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mat"]


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
