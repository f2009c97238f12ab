"""MediaPipe's face mesh as a peer: the region it looks at, and the axes of its mesh."""

import pytest
import torch
from PIL import Image
from skimage import data

from facerecon_torch.external.peers import _region, mediapipe_faces
from facerecon_torch.external.truth import Truth
from facerecon_torch.landmarks.mediapipe import FaceBoxes
from facerecon_torch.landmarks.mediapipe.mesh_points import N_MESH
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.landmarks.scheme import to_paper66


@pytest.fixture(scope="module")
def photograph(tmp_path_factory) -> Truth:
    """A photograph with landmarks and no scan."""
    file = tmp_path_factory.mktemp("photograph") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(file)
    (face,) = build_detector("mediapipe").detect([torch.from_numpy(data.astronaut()).permute(2, 0, 1)])[0]
    points = to_paper66(face.points[None]).float()
    return Truth(
        name="one", names=("astronaut",), images=(file,), subjects=torch.tensor([0]), scans=(), landmarks=points
    )


def test_the_mesh_lies_on_the_face_and_in_the_axes_of_the_model(photograph):
    faces = mediapipe_faces(photograph, torch.device("cpu"))
    (group,) = faces.groups
    assert group.vertices.shape == (1, N_MESH, 3)
    assert int(group.triangles.max()) == N_MESH - 1
    gap = (to_paper66(faces.image_points) - photograph.landmarks).norm(dim=-1)
    assert float(gap.mean()) < 0.5  # px; the detector of the landmarks is the same network
    x, y, z = group.seven[0].mT
    assert x[:4].diff().min() > 0  # eye corners from the image's left to its right
    assert y[:4].min() > y[4] > y[5:].max()  # eyes over nose over mouth
    width = x[3] - x[0]
    assert 0.05 * width < z[4] - z[:4].max() < 0.5 * width  # the nose stands out towards the viewer


def test_the_region_is_the_detected_face_at_the_landmarks():
    landmarks = 100 + 50 * torch.rand(66, 2, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[300.0, 300, 400, 400], [95.0, 95, 160, 160]])
    six = torch.arange(24.0).reshape(2, 6, 2)
    found = FaceBoxes(boxes=boxes, points=six, scores=torch.ones(2))
    assert [part.tolist() for part in _region(found, landmarks)] == [boxes[1].tolist(), six[1].tolist()]
    box, points = _region(found[:1], landmarks)
    assert box.tolist() == [*landmarks.amin(0).tolist(), *landmarks.amax(0).tolist()]
    assert bool((points > 100).all())
    landmarks[20:30] = torch.nan
    box, points = _region(found[:0], landmarks)
    assert points[0, 1] == points[1, 1] == box[1]


def test_a_photograph_is_needed(photograph):
    without = Truth(**{**vars(photograph), "images": (None,)})
    with pytest.raises(ValueError, match="mediapipe needs a photograph"):
        mediapipe_faces(without, torch.device("cpu"))
