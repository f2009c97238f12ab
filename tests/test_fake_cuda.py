"""The path from landmarks to scores on a CUDA device that is not there: no mixed devices, no unlisted wait."""

from dataclasses import replace

import pytest
import torch

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.build_assets.landmark_networks import SOURCES
from facerecon_torch.features.hog import HogSpec, hog, hog_field, use_kernel
from facerecon_torch.features.joint import JointSpec, displacement, joint_feature
from facerecon_torch.fitting.crop import FaceCropper
from facerecon_torch.landmarks.mediapipe import FaceMesh
from facerecon_torch.landmarks.mediapipe.weights import load_network
from facerecon_torch.metrics.vertex_error import ALIGNMENTS, vertex_errors
from facerecon_torch.regression import fit_ridge
from tests.fake_cuda import FakeCuda, HiddenWait

pytestmark = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch was built without CUDA")

# The waits that the host is allowed: function -> how often, and the values that it receives.
_UPRIGHT = torch.tensor([[1.1, 0.0, -3.0], [0.0, 1.1, 7.0]], dtype=torch.float64)
RANGE = {"images.read:require_unit_range": [0.0, 1.0]}  # smallest and largest value of the images
CROP_WINDOWS = {"fitting.crop:crop_faces": [_UPRIGHT.expand(3, 2, 3)]}
FACE_REGIONS = {"landmarks.mediapipe.regions:cut_faces": [_UPRIGHT.expand(3, 2, 3)]}
RECONSTRUCTION = {**RANGE, "cascade.crops:crop": [_UPRIGHT.expand(3, 2, 3)], **CROP_WINDOWS}
RIDGE = {
    "checks:require_finite": [True],  # targets
    "regression.moments:agree": [40, 12, 0],  # rows, columns and float64 of each process
    "regression.ridge:make_problem": [True],  # features are finite
}
PRIMAL = {**RIDGE, "regression.ridge:factorise": [0]}  # the Cholesky factor exists
DUAL = {**RIDGE, "regression.ridge:factorise": [1.5, 0]}  # the mean of the diagonal; the factor exists


@pytest.fixture(scope="module")
def trained():
    reconstructor = FaceReconstructor.from_pretrained()
    assert reconstructor.solvers  # tables of the face model, made once per device
    return reconstructor


@pytest.fixture(autouse=True)
def _eager_maps():
    use_kernel("eager")
    yield
    use_kernel("auto")


@pytest.fixture
def cuda():
    """No wait is allowed."""
    with FakeCuda() as mode:
        yield mode
    assert not mode.waits


def on_cuda(mode, trained):
    """The reconstructor on the fake device."""
    reconstructor = mode.put(trained)
    reconstructor._solvers = replace(mode.put(trained.solvers), device=reconstructor.device)
    return reconstructor


def photographs(mode):
    return [mode.put(torch.rand(3, 400, 500)) for _ in range(3)], mode.put(100 + 60 * torch.rand(3, 66, 2))


def lies_on_cuda(*tensors):
    return all(tensor.device.type == "cuda" for tensor in tensors)


def test_landmark_fit(cuda, trained):
    _, landmarks = photographs(cuda)
    fitter = on_cuda(cuda, trained).solvers.fitter
    for weights in (None, torch.ones_like(landmarks[..., 0])):
        fit = fitter.fit(landmarks, weights)
        assert lies_on_cuda(fit.parameters.identity, fit.camera.rotation, fit.contour_vertices, fit.inner_residual)
    camera, points, contour = fitter.refine(fit.parameters, landmarks, fit.camera)
    assert lies_on_cuda(camera.scale, points, contour)


@pytest.mark.parametrize("derotate", [False, True])
def test_crop(trained, derotate):
    cropper = FaceCropper(trained.face_model, replace(trained.spec.crop, derotate=derotate))
    with FakeCuda({**RANGE, **CROP_WINDOWS}) as mode:
        images, landmarks = photographs(mode)
        cropper = mode.put(cropper)
        camera = cropper.camera(landmarks)
        assert lies_on_cuda(cropper.needs_recrop(camera, camera), cropper.crop(images, camera).image)
    assert mode.waits == {"images.read:require_unit_range": 2, **dict.fromkeys(CROP_WINDOWS, 1)}


@pytest.mark.parametrize("evaluation", ["dense", "patch", "patch_halo"])
@pytest.mark.parametrize("variant", ["uoctti", "dalal"])
def test_hog(cuda, variant, evaluation):
    spec = HogSpec(variant=variant, evaluation=evaluation)
    crops, points = cuda.put(torch.rand(2, 3, 128, 128)), cuda.put(128 * torch.rand(2, 5, 2))
    assert lies_on_cuda(hog(crops, points, spec))
    # The differentiable path; its way back would need the driver.
    assert lies_on_cuda(hog(crops.requires_grad_(), points.requires_grad_(), spec))


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_landmark_networks(cuda, name, dtype):
    network = load_network(SOURCES[name].network, name)
    inputs = cuda.put(torch.rand(2, 3, network.size, network.size, dtype=dtype))
    first, second = cuda.put(network.to(dtype))(inputs)
    assert lies_on_cuda(first, second)
    assert first.dtype == second.dtype == torch.float32


def test_face_mesh():
    with FakeCuda(FACE_REGIONS) as mode:
        images, _ = photographs(mode)
        boxes, points = mode.put(100 + torch.rand(3, 4).cumsum(1)), mode.put(100 * torch.rand(3, 6, 2))
        assert lies_on_cuda(*mode.put(FaceMesh())(images, boxes, points))
    assert mode.waits == dict.fromkeys(FACE_REGIONS, 1)


def test_joint_feature_and_displacement(cuda):
    detected, projected = (cuda.put(320 * torch.rand(2, 66, 2)) for _ in range(2))
    scale = cuda.put(torch.ones(2))
    for component in ("normal", "full"):
        assert lies_on_cuda(displacement(detected, projected, scale, component))
    field = hog_field(cuda.put(torch.rand(2, 3, 320, 320)), HogSpec())
    assert lies_on_cuda(joint_feature(field, detected, projected, scale, JointSpec()))


def test_reconstruction_from_landmarks(trained):
    with FakeCuda(RECONSTRUCTION) as mode:
        faces = on_cuda(mode, trained).reconstruct(*photographs(mode))
        assert lies_on_cuda(faces.parameters.identity, faces.camera.rotation, faces.projected_2d, faces.vertices)
    assert mode.waits == {**dict.fromkeys(RECONSTRUCTION, 1), "images.read:require_unit_range": 2}


def test_forward(cuda, trained):
    crops, landmarks = cuda.put(torch.rand(3, 3, 320, 320)), cuda.put(100 + 120 * torch.rand(3, 66, 2))
    faces = on_cuda(cuda, trained)(crops, landmarks)
    assert lies_on_cuda(faces.parameters.expression, faces.camera.scale, faces.landmarks_3d, faces.vertices)
    assert lies_on_cuda(faces[1].projected_2d, faces.euler_degrees)


def test_vertices(cuda, trained):
    model = cuda.put(trained.face_model)
    assert lies_on_cuda(model.vertices(model.identity_mean.expand(3, -1), model.expression_mean.expand(3, -1)))


def test_expression_weights(cuda, trained):
    model = cuda.put(trained.face_model)
    assert lies_on_cuda(model.expression_weights(model.expression_mean.expand(3, -1)))


@pytest.mark.parametrize(("form", "allowed"), [("primal", PRIMAL), ("dual", DUAL)])
def test_ridge(form, allowed):
    with FakeCuda(allowed) as mode:
        x, y = mode.put(torch.rand(40, 12)), mode.put(torch.rand(40, 3))
        ridge = fit_ridge(x, y, 0.5, form=form)
        assert lies_on_cuda(ridge.weight, ridge.bias, ridge(x))
    assert mode.waits == {site: len(values) for site, values in allowed.items()}


@pytest.mark.parametrize("align", ALIGNMENTS)
def test_scores(cuda, align):
    estimate, truth = (cuda.put(torch.rand(3, 50, 3)) for _ in range(2))
    rows, known = cuda.put(torch.arange(0, 50, 2)), cuda.put(torch.rand(3, 50) > 0.2)
    for options in ({}, {"rows": rows}, {"rows": rows, "known": known}):
        error = vertex_errors(estimate, truth, align, **options)
        assert lies_on_cuda(error.mae, error.rmse_z, error.size_error_percent)


@pytest.mark.parametrize(
    "hidden",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", torch.float64),
        lambda x: torch.empty(3).copy_(x),
        lambda x: torch.equal(x, x),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.tolist(),
    ],
    ids=["item", "bool", "cpu", "to", "copy_", "equal", "mask", "nonzero", "unique", "tolist"],
)
def test_a_hidden_wait_is_found(hidden):
    with FakeCuda() as mode, pytest.raises(HiddenWait):
        hidden(mode.put(torch.rand(3)))


def test_mixed_devices_are_refused(cuda):
    with pytest.raises(RuntimeError, match="device"):
        cuda.put(torch.rand(3)) + torch.rand(3)


def test_tensors_of_the_host_stay_real(cuda):
    cuda.put(torch.rand(3))
    assert torch.arange(4).sum().item() == 6
    assert torch.arange(4, device="cuda").device.type == "cuda"
