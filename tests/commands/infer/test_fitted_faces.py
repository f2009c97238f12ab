"""300W-LP and AFLW2000-3D folders become labelled sets on a model with their coefficients."""

import math

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facerecon_torch.data.aflw import FittedPhoto, load_fitted_faces
from facerecon_torch.data.specs import FittedPhotos
from facerecon_torch.errors import DataFileError
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.model.linear import LinearModel
from tests.data.aflw_mat import write_fitted_mat
from tests.tiny_model import tiny_linear


@pytest.fixture
def bfm():
    """The tiny mesh with as many coefficients as the real model."""
    tiny, generator = tiny_linear(), torch.Generator().manual_seed(3)
    bases = [torch.randn(tiny.n_vertices, 3, n, generator=generator) for n in (199, 29)]
    return LinearModel(tiny.mean, *bases, tiny.topology)


def a_photo(yaw: float, generator: torch.Generator) -> FittedPhoto:
    points = 100 * torch.rand(68, 2, generator=generator, dtype=torch.float64)
    pose = torch.tensor([0.1, yaw, 0.0, 200.0, 220.0, -50.0, 1e-3], dtype=torch.float64)
    shape = 1e5 * torch.randn(199, generator=generator, dtype=torch.float64)
    return FittedPhoto(points, shape, torch.randn(29, generator=generator, dtype=torch.float64), pose)


def write_lp(root, names, rng, yaws):
    faces = {}
    for (part, name), yaw in zip(names, yaws):
        faces[part, name] = a_photo(yaw, rng)
        write_fitted_mat(root / part / f"{name}.mat", "w300lp", faces[part, name])
        Image.new("RGB", (8, 8)).save(root / part / f"{name}.jpg")
    return faces


def test_meshes_and_landmarks_follow_the_files(bfm, tmp_path, rng):
    names = [("AFW", "AFW_1_0"), ("AFW", "AFW_1_1"), ("AFW_Flip", "AFW_1_0"), ("HELEN", "HELEN_2_1_0")]
    faces = write_lp(tmp_path, names, rng, [0.0, 0.5, -0.5, 0.2])
    loaded = load_fitted_faces(FittedPhotos(name="w300lp", root=str(tmp_path)), bfm)
    assert [(p.parent.name, p.stem) for p in loaded.images] == names
    assert loaded.subjects.tolist() == [0, 0, 0, 1]
    first = faces[names[0]]
    assert_close(loaded.landmarks[0], to_paper66(first.points[None])[0].float())
    assert_close(loaded.parameters.identity[0], (1e-5 * first.shape).float())
    expected = bfm.mean + bfm.identity_basis @ (1e-5 * first.shape).float()
    assert_close(loaded.meshes[0], expected + bfm.expression_basis @ first.expression.float(), rtol=1e-5, atol=1e-3)


def test_far_turned_faces_are_left_out_and_the_rest_spread(bfm, tmp_path, rng):
    names = [("LFPW", f"LFPW_{k:02d}_0") for k in range(12)]
    write_lp(tmp_path, names, rng, [math.radians(120 if k == 6 else 10) for k in range(12)])
    loaded = load_fitted_faces(FittedPhotos(name="w300lp", root=str(tmp_path), images=4), bfm)
    assert [p.stem for p in loaded.images] == ["LFPW_00_0", "LFPW_03_0", "LFPW_09_0"]


def test_aflw2000_uses_the_points_of_the_surface(bfm, tmp_path, rng):
    photo = a_photo(0.1, rng)
    for name in ("image00002", "image00004"):
        write_fitted_mat(tmp_path / f"{name}.mat", "aflw2000", photo)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg")
    loaded = load_fitted_faces(FittedPhotos(name="aflw2000", root=str(tmp_path)), bfm)
    assert loaded.subjects.tolist() == [0, 1]
    assert_close(loaded.landmarks[0], to_paper66(photo.points[None])[0].float(), rtol=1e-5, atol=1e-4)


def test_another_model_or_folder_is_refused(bfm, tmp_path):
    with pytest.raises(ValueError, match=r"199 identities and 29 expressions; this model is a LinearModel with 6 and"):
        load_fitted_faces(FittedPhotos(name="w300lp", root=str(tmp_path)), tiny_linear())
    with pytest.raises(DataFileError, match=r"expected one of AFW, AFW_Flip.*got none of them"):
        load_fitted_faces(FittedPhotos(name="w300lp", root=str(tmp_path)), bfm)
    with pytest.raises(ValueError, match=r"data=aflw2000 needs data\.root"):
        load_fitted_faces(FittedPhotos(name="aflw2000"), bfm)
