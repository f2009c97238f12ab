import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.cascade.reconstruct import KnownSize, reconstruct, reconstruct_landmarks
from facerecon_torch.errors import NoFaceError
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.structures import Detection


class Known:
    """A detector that knows the answer."""

    name, licence = "known", "none"

    def __init__(self, *points):
        self.points = points

    def detect(self, image, *, path=None):
        return [
            Detection(
                box=(float(p[:, 0].min()), float(p[:, 1].min()), float(p[:, 0].max()), float(p[:, 1].max())),
                score=1.0,
                points=p,
            )
            for p in (from_paper66(q[None])[0] for q in self.points)
        ]


def test_a_batch_equals_its_faces_one_by_one(photographs, tiny_outcome):
    images, landmarks = photographs
    batch = reconstruct_landmarks(images, landmarks, tiny_outcome.cascade)
    for k, image in enumerate(images):
        one = reconstruct_landmarks([image], landmarks[k : k + 1], tiny_outcome.cascade)
        assert_close(one.landmarks_2d[0], batch.landmarks_2d[k], rtol=0.0, atol=1e-2)
        assert_close(one.landmarks_3d[0], batch.landmarks_3d[k], rtol=0.0, atol=1e-2)


def test_the_answer_moves_with_the_picture(photographs, tiny_outcome):
    images, landmarks = photographs
    there = reconstruct_landmarks(images, landmarks, tiny_outcome.cascade)
    padded = [torch.nn.functional.pad(image[None], (20, 0, 30, 0), mode="replicate")[0] for image in images]
    moved = reconstruct_landmarks(padded, landmarks + torch.tensor([20.0, 30.0]), tiny_outcome.cascade)
    assert_close(moved.landmarks_2d - torch.tensor([20.0, 30.0]), there.landmarks_2d, rtol=0.0, atol=0.5)


def test_projected_landmarks_are_where_they_were_seen(photographs, tiny_outcome):
    images, landmarks = photographs
    answer = reconstruct_landmarks(images, landmarks, tiny_outcome.cascade)
    assert float((answer.landmarks_2d - landmarks)[:, :49].norm(dim=-1).mean()) < 3.0


@pytest.mark.parametrize("size", [KnownSize(px_per_mm=0.5), KnownSize(interpupillary_mm=63.0)])
def test_a_known_size_scales_the_shape_and_not_the_picture(photographs, tiny_outcome, size):
    images, landmarks = photographs
    free = reconstruct_landmarks(images, landmarks, tiny_outcome.cascade)
    told = reconstruct_landmarks(images, landmarks, tiny_outcome.cascade, size=size)
    assert_close(told.landmarks_2d, free.landmarks_2d, rtol=0.0, atol=1e-3)
    assert_close(told.landmarks_3d, free.landmarks_3d * told.size[:, None, None])
    if size.px_per_mm is not None:
        assert_close(told.camera.scale, torch.full_like(told.camera.scale, 0.5))


def test_moving_a_cascade_leaves_the_original_where_it_was(tiny_outcome):
    face = tiny_outcome.cascade
    wide = face.to("cpu", torch.float64)
    assert wide.model.dtype == wide.cascade.stages[0].ridge.weight.dtype == torch.float64
    assert face.model.dtype == face.cascade.stages[0].ridge.weight.dtype == torch.float32


def test_float64_agrees_with_float32(photographs, tiny_outcome):
    images, landmarks = photographs
    narrow = reconstruct_landmarks(images, landmarks, tiny_outcome.cascade)
    wide = reconstruct_landmarks(images, landmarks, tiny_outcome.cascade.to("cpu", torch.float64))
    assert_close(wide.landmarks_3d.float(), narrow.landmarks_3d, rtol=0.0, atol=2e-2)


def test_both_sizes_at_once_are_refused():
    with pytest.raises(ValueError, match="must not both be given"):
        KnownSize(px_per_mm=1.0, interpupillary_mm=63.0)
    with pytest.raises(ValueError, match=r"size.px_per_mm must be positive; got -1"):
        KnownSize(px_per_mm=-1.0)


def test_reconstruct_takes_arrays_tensors_and_files(photographs, tiny_outcome, tmp_path):
    images, landmarks = photographs
    array = (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    first, second = (reconstruct(i, tiny_outcome.cascade, detector=Known(landmarks[0])) for i in (array, tensor))
    assert torch.equal(first[0].mesh.vertices, second[0].mesh.vertices)
    assert first[0].mesh.vertices.shape == (tiny_outcome.cascade.model.n_vertices, 3)
    assert set(first[0].expression_weights) == set(tiny_outcome.cascade.model.expression_names)


def test_nobody_and_nonsense_are_said(photographs, tiny_outcome):
    images, landmarks = photographs
    with pytest.raises(NoFaceError, match="at least one face"):
        reconstruct(images[0], tiny_outcome.cascade, detector=Known())
    with pytest.raises(NoFaceError, match="landmarks that fix a pose"):
        reconstruct(images[0], tiny_outcome.cascade, detector=Known(torch.ones(66, 2)))
    with pytest.raises(TypeError, match="a file, a tensor or an array; got list"):
        reconstruct([1], tiny_outcome.cascade, detector=Known(landmarks[0]))
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint16)):
        with pytest.raises(ValueError, match=r"an array \[H, W, 3\] of uint8 or float; got"):
            reconstruct(wrong, tiny_outcome.cascade, detector=Known(landmarks[0]))
    for wrong in (255 * images[0], -images[0], images[0] * float("nan")):
        with pytest.raises(ValueError, match=r"image must lie in \[0, 1\]"):
            reconstruct(wrong, tiny_outcome.cascade, detector=Known(landmarks[0]))
    with pytest.raises(ValueError, match="one image per row"):
        reconstruct_landmarks(images, landmarks[:2], tiny_outcome.cascade)
