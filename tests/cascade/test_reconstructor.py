"""The one path from images to faces: known landmarks, detected faces, every form of an image."""

import io
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset

from facerecon_torch import FaceReconstructor, ImageFileError, KnownSize, LandmarkFileError, Reconstruction
from facerecon_torch.cascade.crops import canonical_crops
from facerecon_torch.cascade.export import probe
from facerecon_torch.images import save_png
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.structures import Detection


class Known:
    """A detector that gives the faces it was built with."""

    name, licence, convention = "known", "none", "ibug"

    def __init__(self, *points):
        self.points = points

    def detect(self, images, *, paths=None):
        return [self.faces_of(image) for image in images]

    def faces_of(self, image):
        return [
            Detection(
                box=(float(p[:, 0].min()), float(p[:, 1].min()), float(p[:, 0].max()), float(p[:, 1].max())),
                score=1.0,
                points=p,
            )
            for p in (from_paper66(q[None])[0] for q in self.points)
        ]


@pytest.fixture
def model(tiny_outcome):
    return deepcopy(tiny_outcome.reconstructor)


def seeing(model, *points):
    model.detector = Known(*points)
    return model


def assert_faces_close(one, other, atol=1e-5):
    for name in ("landmarks_3d", "projected_2d", "size"):
        assert_close(getattr(one, name), getattr(other, name), rtol=0.0, atol=atol)
    assert_close(one.parameters.flat, other.parameters.flat, rtol=0.0, atol=atol)


def test_a_batch_equals_its_faces_one_by_one(photographs, model):
    images, landmarks = photographs
    batch = model.reconstruct(images, landmarks)
    for k, image in enumerate(images):
        assert_faces_close(model.reconstruct([image], landmarks[k : k + 1]), batch[k : k + 1], atol=1e-2)


def test_faces_move_with_the_image(photographs, model):
    images, landmarks = photographs
    there = model.reconstruct(images, landmarks)
    padded = [torch.nn.functional.pad(image[None], (20, 0, 30, 0), mode="replicate")[0] for image in images]
    moved = model.reconstruct(padded, landmarks + torch.tensor([20.0, 30.0]))
    assert_close(moved.projected_2d - torch.tensor([20.0, 30.0]), there.projected_2d, rtol=0.0, atol=0.5)


def test_projected_landmarks_lie_on_the_given_ones(photographs, model):
    images, landmarks = photographs
    faces = model.reconstruct(images, landmarks)
    assert float((faces.projected_2d - landmarks)[:, :49].norm(dim=-1).mean()) < 3.0


@pytest.mark.parametrize("size", [KnownSize(px_per_mm=0.5), KnownSize(interpupillary_mm=63.0)])
def test_a_known_size_scales_the_shape_and_not_the_projection(photographs, model, size):
    images, landmarks = photographs
    free, sized = model.reconstruct(images, landmarks), model.reconstruct(images, landmarks, size=size)
    assert_close(sized.projected_2d, free.projected_2d, rtol=0.0, atol=1e-3)
    assert_close(sized.landmarks_3d, free.landmarks_3d * sized.size[:, None, None])
    assert_close(sized.vertices, free.vertices * sized.size[:, None, None])
    if size.px_per_mm is not None:
        assert_close(sized.camera.scale, torch.full_like(sized.camera.scale, 0.5))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="must not both be given"):
        KnownSize(px_per_mm=1.0, interpupillary_mm=63.0)
    for wrong in (-1.0, 0, float("inf"), float("nan"), True, 1e-30):
        with pytest.raises(ValueError, match=r"size.px_per_mm must be a positive number"):
            KnownSize(px_per_mm=wrong)
    with pytest.raises((ValueError, TypeError)):  # the type checker of the tests may be first
        KnownSize(px_per_mm="63")


def test_forward_on_crops_is_the_path_of_images(photographs, model):
    images, landmarks = photographs
    solvers = model.solvers
    crops, inside = canonical_crops(images, landmarks, solvers.crop_fitter, solvers.cropper)
    assert_faces_close(
        model(crops.image, inside), model.solve_crops(crops, landmarks, model.locate(landmarks)[1]), atol=1e-3
    )
    with pytest.raises(ValueError, match=r"crops must be floating point \[n, 3"):
        model(crops.image[:, :2], inside)
    with pytest.raises(ValueError, match="one row per crop"):
        model(crops.image, inside[:1])


def test_forward_is_differentiable_in_the_crops(model):
    crops, landmarks = probe(model, 2)
    crops.requires_grad_()
    model(crops, landmarks).parameters.flat.sum().backward()
    assert float(crops.grad.abs().max()) > 0


def test_float64_agrees_with_float32(photographs, model):
    images, landmarks = photographs
    narrow, wide = model.reconstruct(images, landmarks), deepcopy(model).double().reconstruct(images, landmarks)
    assert wide.vertices.dtype == torch.float64
    assert narrow.vertices.dtype == torch.float32
    assert_close(wide.landmarks_3d.float(), narrow.landmarks_3d, rtol=0.0, atol=2e-2)


def test_copies_pickles_and_states_give_the_same_faces(photographs, model, tmp_path):
    images, landmarks = photographs
    expected = model.reconstruct(images, landmarks)
    for other in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_faces_close(other.reconstruct(images, landmarks), expected, atol=0.0)
    blank = deepcopy(model)
    for module in blank.stages:
        module.weight = torch.zeros_like(module.weight)
    assert float((blank.reconstruct(images, landmarks).parameters.flat - expected.parameters.flat).abs().max()) > 0.01
    blank.load_state_dict(model.state_dict())
    assert_faces_close(blank.reconstruct(images, landmarks), expected, atol=0.0)
    assert set(model.state_dict()) == {
        f"stages.{k}.{name}" for k in range(len(model.stages)) for name in ("weight", "bias", "block_scales")
    }
    model.save_pretrained(tmp_path / "cascade.safetensors")
    again = FaceReconstructor.from_pretrained(tmp_path / "cascade.safetensors", face_model=model.face_model)
    assert_faces_close(again.reconstruct(images, landmarks), expected, atol=0.0)


def test_surroundings_change_no_face(photographs, model):
    images, landmarks = photographs
    expected = model.reconstruct(images, landmarks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_faces_close(model.reconstruct(images, landmarks), expected, atol=0.0)
    with torch.inference_mode():
        assert_faces_close(model.reconstruct(images, landmarks), expected, atol=0.0)
    torch.set_default_dtype(torch.float64)
    try:
        faces = deepcopy(model).reconstruct(images, landmarks)
    finally:
        torch.set_default_dtype(torch.float32)
    assert faces.landmarks_3d.dtype == torch.float32
    assert_faces_close(faces, expected, atol=0.0)


def test_landmarks_are_not_rounded_by_the_image(photographs, model):
    images, landmarks = photographs
    bytes_ = (images[0] * 255).round().to(torch.uint8)
    as_float = model.reconstruct([bytes_.float() / 255], landmarks[:1] + 0.37)
    assert_faces_close(model.reconstruct([bytes_], landmarks[:1] + 0.37), as_float, atol=1e-5)
    (half,) = model.predict([images[0].half()], landmarks=[landmarks[0] + 0.37])
    assert_close(half.landmarks[0], landmarks[0] + 0.37)


def test_predict_takes_every_form_of_an_image(photographs, model, tmp_path):
    images, landmarks = photographs
    array = (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    file = tmp_path / "face.png"
    Image.fromarray(array).save(file)
    opaque = np.concatenate([array, np.full_like(array[..., :1], 255)], axis=2)
    forms = [
        file, str(file), file.read_bytes(), io.BytesIO(file.read_bytes()), Image.fromarray(array), array, opaque,
        array.astype(np.uint16) * 257, array.astype(np.float32) / 255, torch.from_numpy(array).permute(2, 0, 1),
        torch.from_numpy(array).permute(2, 0, 1).double() / 255,
    ]  # fmt: skip
    answers = seeing(model, landmarks[0]).predict(forms)
    assert len(answers) == len(forms)
    for faces in answers:
        assert isinstance(faces, Reconstruction)
        assert_close(faces.vertices, answers[0].vertices, rtol=0.0, atol=1e-3)


def test_predict_keeps_images_apart(photographs, model):
    images, landmarks = photographs
    mixed = [images[0], torch.nn.functional.pad(images[1][None], (0, 40, 0, 7), mode="replicate")[0], images[2]]
    points = [landmarks[0], landmarks[[1, 1]], landmarks[2]]
    for batch in (1, 2, 8):
        answers = model.predict(mixed, landmarks=points, batch=batch)
        assert [len(faces) for faces in answers] == [1, 2, 1]
        for k, faces in enumerate(answers):
            alone = model.predict(mixed[k], landmarks=[points[k]])[0]
            assert_faces_close(faces, alone, atol=1e-2)


def test_one_face_has_a_mesh_weights_and_angles(photographs, model):
    images, landmarks = photographs
    faces = model.predict(images[0], landmarks=[landmarks[:2]])[0]
    face, topology = faces[1], model.face_model.topology
    assert face.mesh.vertices.shape == (model.face_model.n_vertices, 3)
    assert torch.equal(face.mesh.triangles, topology.triangles)
    assert list(face.expression_weights) == list(model.face_model.expression_names)
    assert face.euler_degrees.shape == (3,)
    assert_close(face.vertices, faces.vertices[1])
    with pytest.raises(ValueError, match=r"a batch of 2: take faces\[k\]\.mesh"):
        _ = faces.mesh


def test_faces_are_pickled_with_their_shapes_and_without_the_model(photographs, model):
    images, landmarks = photographs
    faces = model.predict(images[0], landmarks=[landmarks[:2]])[0]
    sent = pickle.dumps(faces)
    assert len(sent) < 4 * faces.vertices.nbytes + 200_000
    again = pickle.loads(sent)
    assert_close(again[1].vertices, faces[1].vertices)
    assert again[0].expression_weights.keys() == faces[0].expression_weights.keys()
    assert torch.equal(again[0].mesh.triangles, faces[0].mesh.triangles)


def test_nothing_gives_nothing(photographs, model):
    images, _ = photographs
    assert model.predict([]) == []
    none = model.reconstruct([], torch.zeros(0, 66, 2))
    assert len(none) == 0
    assert none.vertices.shape == (0, model.face_model.n_vertices, 3)
    size = model.spec.crop.size
    assert len(model(torch.zeros(0, 3, size, size), torch.zeros(0, 66, 2))) == 0
    (without,) = seeing(model).predict(images[0])
    assert len(without) == 0


def test_degenerate_landmarks_are_left_out_or_marked(photographs, model):
    images, landmarks = photographs
    point = torch.ones(66, 2)
    (found,) = seeing(model, landmarks[0], point).predict(images[0])
    assert len(found) == 1
    (given,) = model.predict(images[0], landmarks=[torch.stack([landmarks[0], point])])
    assert given.camera.degenerate.tolist() == [False, True]


def test_wrong_images_and_landmarks_are_refused(photographs, model, tmp_path):
    images, landmarks = photographs
    seeing(model, landmarks[0])
    for wrong in (np.zeros((4, 4, 2), np.uint8), torch.zeros(4, 4), torch.zeros(5, 4, 3)):
        with pytest.raises(ValueError, match=r"image must be a path.*; got (an array|a tensor) of"):
            model.predict([wrong])
    for wrong in (np.zeros((4, 4, 3), np.int32), torch.zeros(3, 4, 4, dtype=torch.int64), 7, io.StringIO("x")):
        with pytest.raises(TypeError, match="image must be a path"):
            model.predict([wrong])
    for wrong in (255 * images[0], -images[0], images[0] * float("nan")):
        with pytest.raises(ValueError, match=r"image must lie in \[0, 1\]"):
            model.predict([wrong])
    with pytest.raises(ValueError, match="one image per row"):
        model.reconstruct(images, landmarks[:2])
    with pytest.raises(ValueError, match="landmarks for every image; got 1 for 2"):
        model.predict(images[:2], landmarks=[landmarks[0]])
    with pytest.raises(ValueError, match=r"landmarks must be 68 points .* got shape \[5, 2\]"):
        model.predict(images[0], landmarks=[landmarks[0, :5]])
    mesh = 60 + 40 * torch.rand(478, 3)
    with pytest.raises(ValueError, match="of the convention ibug, as the cascade; got MediaPipe's mesh"):
        model.predict(images[0], landmarks=[mesh])
    with pytest.raises(ValueError, match="landmarks must be finite"):
        model.predict(images[0], landmarks=[landmarks[0] / 0])


def test_an_unreadable_image_raises_or_gives_no_faces(photographs, model, tmp_path):
    images, landmarks = photographs
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    seeing(model, landmarks[0])
    with pytest.raises(ImageFileError, match=r"bad\.png"):
        model.predict([images[0], bad])
    assert [len(faces) for faces in model.predict([bad, images[0]], on_error="empty")] == [0, 1]


def test_an_image_without_a_face_at_the_position_has_none(photographs, model):
    images, landmarks = photographs
    model.detector = ByBrightness({images[0].mean().item(): landmarks[:1], images[1].mean().item(): landmarks[:2]})
    assert [len(faces) for faces in model.predict(images[:2], faces=1)] == [0, 1]
    with pytest.raises(ValueError, match="which must be"):
        model.predict(images[:2], faces="second")


def test_a_damaged_landmark_file_raises_or_gives_no_faces(photographs, model, tmp_path):
    images, landmarks = photographs
    model.detector = "file"
    for name, points in (("a", landmarks[0]), ("b", landmarks[1])):
        save_png(images[0], tmp_path / f"{name}.png")
        np.save(tmp_path / f"{name}.npy", from_paper66(points[None])[0].numpy())
    (tmp_path / "a.npy").write_bytes(b"no array")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    with pytest.raises(LandmarkFileError, match=r"a\.npy"):
        model.predict(paths)
    assert [len(faces) for faces in model.predict(paths, on_error="empty")] == [0, 1]


class ByBrightness(Known):
    """A detector that knows the faces of each image by the image's mean."""

    def __init__(self, faces):
        self.faces = faces

    def faces_of(self, image):
        mean = image.mean().item()
        return Known(*self.faces[min(self.faces, key=lambda known: abs(known - mean))]).faces_of(image)


class _Files(Dataset):
    def __init__(self, images, landmarks):
        self.images, self.landmarks = images, landmarks

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        return self.images[k], self.landmarks[k]


def test_a_data_loader_feeds_the_batch_path(photographs, model):
    images, landmarks = photographs
    loader = DataLoader(_Files(images, landmarks), batch_size=2, num_workers=1)
    faces = Reconstruction.cat([model.reconstruct(list(part), points) for part, points in loader])
    assert_faces_close(faces, model.reconstruct(images, landmarks), atol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_module_moves_to_cuda(photographs, model):
    images, landmarks = photographs
    expected = model.reconstruct(images, landmarks)
    faces = model.to("cuda").reconstruct(images, landmarks)
    assert faces.vertices.device.type == "cuda"
    assert_faces_close(faces.cpu(), expected, atol=1e-3)
