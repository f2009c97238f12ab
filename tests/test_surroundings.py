"""What surrounds a call changes no answer: autocast, torch's default dtype, inference mode, the dtype of pictures."""

import pickle
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch import FaceReconstructor
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.run import infer
from facerecon_torch.commands.train.train import train_methods
from facerecon_torch.features.hog import hog, patch_hog
from facerecon_torch.fitting.camera import solve_camera
from facerecon_torch.fitting.crop import crop_faces
from facerecon_torch.fitting.dense_fit import DenseFitter
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.geometry.align import align_similarity
from facerecon_torch.geometry.projection import project, project_with_depth
from facerecon_torch.geometry.rotation import euler_to_matrix, matrix_to_euler
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.batches import detect_faces
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.points import as_points66
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.metrics.bootstrap import paired_bootstrap
from facerecon_torch.metrics.vertex_error import vertex_errors
from facerecon_torch.model.factored import FactoredVertices
from facerecon_torch.report.overlay import draw_overlay
from facerecon_torch.runtime.precision import in_own_precision
from tests.tiny_world import make_samples


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to half": lambda: torch.autocast("cpu", dtype=torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "inference mode": torch.inference_mode,
}


@pytest.fixture(params=SURROUNDINGS)
def surroundings(request):
    return SURROUNDINGS[request.param]


class World:
    """A reconstructor of its own, pictures with landmarks, and a file of each."""

    def __init__(self, outcome, photographs, folder):
        self.outcome, self.folder = outcome, folder
        self.model = deepcopy(outcome.reconstructor)
        self.images, self.landmarks = photographs
        self.points = [(p.double() + 1 / 3) for p in self.landmarks]
        for k, (image, points) in enumerate(zip(self.images, self.points)):
            save_png(image, folder / f"{k}.png")
            np.save(folder / f"{k}.npy", from_paper66(points[None])[0].numpy())
        self.files = sorted(folder.glob("*.png"))

    def faces(self, faces):
        weights = faces.expression_weights.values()
        return [
            faces.vertices,
            faces.parameters.flat,
            faces.landmarks,
            faces.projected_2d,
            faces.euler_degrees,
            *weights,
        ]


@pytest.fixture
def world(tiny_outcome, photographs, tmp_path):
    return World(tiny_outcome, photographs, tmp_path)


def given_landmarks(world):
    return world.faces(world.model.predict(world.images[0], landmarks=[world.points[0]])[0])


def landmarks_in_lists(world):
    return [as_points66(world.points[0].tolist()), *given_lists(world)]


def given_lists(world):
    return world.faces(world.model.predict(world.files[0], landmarks=[world.points[0].tolist()])[0])


def landmarks_of_files(world):
    world.model.detector = FileLandmarks()
    (found,) = detect_faces(FileLandmarks(), world.images[:1], world.files[:1])[0]
    return [found.points, *world.faces(world.model.predict(world.files)[0])]


def known_landmarks(world):
    faces = world.model.reconstruct(world.images, world.landmarks)
    return [*world.faces(faces), faces[1].mesh.vertices]


def crops(world):
    solvers = world.model.solvers
    camera, fit = world.model.locate(world.landmarks)
    cut = solvers.cropper.crop(world.images, camera)
    inside = torch.full((len(world.images), 66, 2), (cut.image.shape[-1] - 1) / 2, dtype=torch.float32)
    faces = world.faces(world.model.solve_crops(cut, world.landmarks, fit))
    return [cut.image, fit.parameters.flat, hog(cut.image, inside, world.model.spec.features.hog), *faces]


def crops_of_one_tensor(world):
    to_crop = world.model.solvers.cropper.to_crop(world.model.locate(world.landmarks)[0])
    return [crop_faces(torch.stack(world.images), to_crop, world.model.spec.crop).image]


def geometry(world):
    face_model, fit = world.model.face_model, world.model.locate(world.landmarks)[1]
    shapes = face_model.vertices(fit.parameters.identity, fit.parameters.expression)
    drawn = draw_overlay(
        world.images[0], project_with_depth(shapes[0], fit.camera[0]), face_model.topology.triangles,
        landmarks=world.landmarks[0],
    )  # fmt: skip
    fixed = world.model.cascade.retract(fit.parameters.flat)
    return [shapes, project(shapes, fit.camera), drawn, fixed, DenseFitter(face_model)(shapes).flat]


def features_of_patches(world):
    size = world.model.spec.crop.size
    crops = torch.rand(2, 3, size, size, dtype=torch.float32, generator=torch.Generator().manual_seed(4))
    points = torch.full((2, 5, 2), size / 2, dtype=torch.float32)
    spec = replace(world.model.spec.features.hog, evaluation="patch_halo")
    return [hog(crops, points, spec), patch_hog(crops, points, spec, halo=True)]


def measures(world):
    generator = torch.Generator().manual_seed(4)
    one, other = torch.rand(2, 3, 50, 3, dtype=torch.float32, generator=generator).unbind()
    errors = [vertex_errors(one, other, align) for align in ("none", "translation", "similarity")]
    moved = align_similarity(one, other)
    angles = torch.stack(matrix_to_euler(moved.rotation))
    known = paired_bootstrap(one[:, 0, 0], other[:, 0, 0], torch.arange(3), torch.Generator().manual_seed(1), 10)
    camera = solve_camera(other, one[..., :2])
    factored = FactoredVertices(world.model.face_model, world.model.face_model.n_expression)
    fit = world.model.locate(world.landmarks)[1].parameters
    return [
        *(value for error in errors for value in (error.mae, error.rmse_z)),
        *(moved.apply(one), angles, euler_to_matrix(*angles), camera.scale, factored(fit.identity, fit.expression)),
        torch.tensor([known.low, known.high], dtype=torch.float64),
    ]


def loading(world):
    world.model.save_pretrained(world.folder / "cascade.safetensors")
    model = FaceReconstructor.from_pretrained(
        world.folder / "cascade.safetensors", face_model=deepcopy(world.model.face_model)
    )
    return world.faces(model.reconstruct(world.images, world.landmarks))


def inference(world):
    output = world.folder / f"out{len(list(world.folder.iterdir()))}"
    options = InferOptions(formats=["json"], progress=False, workers=1)
    assert infer(world.files, output, world.model, FileLandmarks(), options).faces == len(world.files)
    rows = pq.read_table(output / "parameters").to_pylist()
    return [torch.tensor(row[name], dtype=torch.float64) for row in rows for name in ("alpha", "beta", "projected_2d")]


@pytest.mark.parametrize(
    "work",
    [
        given_landmarks, landmarks_in_lists, landmarks_of_files, known_landmarks, crops, crops_of_one_tensor, geometry,
        features_of_patches, measures, loading, inference,
    ],
    ids=lambda work: work.__name__,
)  # fmt: skip
def test_surroundings_change_no_answer(work, world, surroundings):
    expected = work(world)
    world.model._solvers = None  # built inside, too
    with surroundings():
        answers = work(world)
    for answer, value in zip(answers, expected, strict=True):
        assert answer.dtype == value.dtype
        assert torch.equal(answer, value)


def test_surroundings_change_no_training(tiny_setup, surroundings):
    train = make_samples(tiny_setup, people=6, images=3, seed=1)
    test = make_samples(tiny_setup, people=3, images=2, seed=2, first_subject=100)
    expected = train_methods(tiny_setup, train, {"test": test}, names=("landmark_fit", "cascade"))
    with surroundings():
        outcome = train_methods(tiny_setup, train, {"test": test}, names=("landmark_fit", "cascade"))
    for name, value in expected.reconstructor.state_dict().items():
        assert torch.equal(outcome.reconstructor.state_dict()[name], value)
    for name, errors in expected.errors["test"].methods.items():
        same = outcome.errors["test"].methods[name]
        for answers, values in ((same.mae, errors.mae), (same.rmse_z, errors.rmse_z)):
            assert all(torch.equal(answers[key], value) for key, value in values.items())
        assert torch.equal(same.size_error, errors.size_error)


def test_shapes_made_later_are_those_of_the_path(world):
    """Vertices and weights are computed on first use, wherever that is."""
    expected = world.faces(world.model.reconstruct(world.images, world.landmarks))
    faces = world.model.reconstruct(world.images, world.landmarks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers = world.faces(faces)
    assert all(torch.equal(answer, value) for answer, value in zip(answers, expected))


def test_what_inference_mode_built_serves_gradients(world, tiny_outcome):
    world.model.save_pretrained(world.folder / "cascade.safetensors")
    with torch.inference_mode():
        model = FaceReconstructor.from_pretrained(
            world.folder / "cascade.safetensors", face_model=world.model.face_model
        )
        model.reconstruct(world.images, world.landmarks)
    size = model.spec.crop.size
    crops = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(3)).requires_grad_()
    inside = model.solvers.cropper.landmarks[None, :, :2].float() * torch.tensor([1.0, -1.0]) + size / 2
    model(crops, inside).parameters.flat.sum().backward()
    assert float(crops.grad.abs().max()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_landmarks_never_take_the_dtype_of_a_picture(dtype, world):
    world.model.detector = FileLandmarks()
    image, path = world.images[0].to(dtype), world.files[0]
    points = FileLandmarks().detect([image], paths=[path])[0][0].points
    assert_close(points, from_paper66(world.points[0][None])[0], rtol=0, atol=1e-12)
    (faces,) = world.model.predict(image, landmarks=[world.points[0]])
    assert_close(faces.landmarks[0].double(), world.points[0], rtol=0, atol=1e-5)
    wide = deepcopy(world.model).double()
    (faces,) = wide.predict([path])
    assert_close(faces.landmarks[0], world.points[0], rtol=0, atol=1e-12)


def test_half_landmarks_of_a_drawing_keep_their_place(world):
    """A picture in half precision, whose landmarks lie where half precision counts by twos."""
    image = torch.zeros(3, 16, 4096, dtype=torch.float16)
    triangles = torch.tensor([[0, 1, 2]])
    corners = torch.tensor([[3001.0, 4.0, 0.0], [3011.0, 4.0, 0.0], [3001.0, 12.0, 0.0]])
    drawn = draw_overlay(image, corners, triangles)
    same = draw_overlay(image.float(), corners, triangles)
    assert_close(drawn.float(), same, rtol=0, atol=1e-3)


def test_a_picture_of_0_to_255_is_refused_everywhere(world):
    wrong, points = [image * 255 for image in world.images], world.landmarks
    model, camera = world.model, world.model.locate(points)[0]
    for call in (
        lambda: model.predict(wrong, landmarks=list(points)),
        lambda: model.predict(wrong[0].permute(1, 2, 0).numpy(), landmarks=[points[0]]),
        lambda: model.reconstruct(wrong, points),
        lambda: model.solvers.cropper.crop(wrong, camera),
        lambda: model(model.solvers.cropper.crop(world.images, camera).image * 255, points),
        lambda: FileLandmarks().detect(wrong[:1], paths=world.files[:1]),
        lambda: save_png(wrong[0], world.folder / "x.png"),
        lambda: draw_overlay(wrong[0], torch.zeros(3, 3), torch.tensor([[0, 1, 2]])),
        lambda: crop_faces(wrong, model.solvers.cropper.to_crop(camera), model.spec.crop),
        lambda: crop_faces(torch.stack(wrong), model.solvers.cropper.to_crop(camera), model.spec.crop),
    ):
        with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
            call()


def test_own_precision_is_that_of_the_tensors():
    @in_own_precision
    def product(a, b):
        return a @ b

    a = torch.rand(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(a, a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16  # the caller's own setting stays
    assert product.__name__ == "product"


def test_a_cascade_can_be_pickled(world):
    cascade = pickle.loads(pickle.dumps(world.model.cascade))
    flat = torch.rand(3, world.model.face_model.n_identity + world.model.face_model.n_expression)
    assert torch.equal(cascade.retract(flat), world.model.cascade.retract(flat))
    again = pickle.loads(pickle.dumps(world.model))
    faces = again.reconstruct(world.images, world.landmarks)
    assert torch.equal(faces.vertices, world.model.reconstruct(world.images, world.landmarks).vertices)


def test_empty_batches_give_empty_answers(world):
    model, none = world.model, torch.zeros(0, 66, 2)
    assert len(LandmarkFitter(model.face_model, model.spec.fit).fit(none).parameters) == 0
    camera, fit = model.locate(none)
    crops = model.solvers.cropper.crop([], camera)
    assert crops.image.shape == (0, 3, model.spec.crop.size, model.spec.crop.size)
    assert len(model.solve_crops(crops, none, fit)) == 0
    assert [len(faces) for faces in model.predict(world.images[0], landmarks=[torch.zeros(0, 68, 2)])] == [0]
    assert hog(crops.image, none, model.spec.features.hog).shape[0] == 0
    assert len(crop_faces([], crops.to_crop, model.spec.crop).image) == 0
    faces = model.reconstruct([], none)
    assert faces.vertices.shape == (0, model.face_model.n_vertices, 3)
    assert all(weights.shape == (0,) for weights in faces.expression_weights.values())
    assert len(faces.cpu()) == len(faces[:0]) == 0
    assert len(pickle.loads(pickle.dumps(faces))) == 0
