"""Records of tensors: moving, rows, joining."""

import pickle

import pytest
import torch

from facerecon_torch.structures import Camera, FaceParameters, LandmarkFit


def _fit(n, *, start=0.0):
    values = start + torch.arange(n, dtype=torch.float32)
    return LandmarkFit(
        parameters=FaceParameters(values[:, None].expand(n, 3), values[:, None].expand(n, 2)),
        camera=Camera(
            rotation=torch.eye(3).expand(n, 3, 3),
            scale=values,
            translation=values[:, None].expand(n, 2),
            degenerate=torch.zeros(n, dtype=torch.bool),
        ),
        contour_vertices=torch.arange(17).expand(n, 17),
        inner_residual=values,
        contour_residual=values,
    )


@pytest.mark.parametrize("index", [1, slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_rows_of_every_tensor(index):
    fit = _fit(3)
    rows = fit[index]
    assert torch.equal(rows.inner_residual, fit.inner_residual[index])
    assert torch.equal(rows.camera.rotation, fit.camera.rotation[index])
    assert torch.equal(rows.parameters.expression, fit.parameters.expression[index])


def test_a_dtype_leaves_whole_numbers_alone():
    fit = _fit(2).to(torch.float64)
    assert fit.camera.scale.dtype == torch.float64
    assert fit.contour_vertices.dtype == torch.int64
    assert fit.camera.degenerate.dtype == torch.bool


def test_joining_is_the_inverse_of_taking_rows():
    fit = _fit(4)
    for joined in (LandmarkFit.cat([fit[:1], fit[1:]]), LandmarkFit.stack([fit[k] for k in range(4)])):
        assert len(joined) == 4
        assert torch.equal(joined.camera.translation, fit.camera.translation)
        assert torch.equal(joined.contour_vertices, fit.contour_vertices)
    with pytest.raises(ValueError, match="at least one record"):
        LandmarkFit.cat([])


def test_fields_are_named():
    with pytest.raises(TypeError):
        Camera(torch.eye(3), torch.ones(()), torch.zeros(2), torch.zeros((), dtype=torch.bool))


def test_records_are_pickled():
    fit = _fit(2)
    assert torch.equal(pickle.loads(pickle.dumps(fit)).camera.scale, fit.camera.scale)
