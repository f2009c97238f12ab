"""Real photographs and a real scan, with the shipped cascade and a real detector. Skipped without the data."""

import os
from pathlib import Path

import pytest
import torch

from facerecon_torch import FaceReconstructor
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.landmarks.detector import choose_faces
from facerecon_torch.landmarks.scheme import to_paper66
from facerecon_torch.metrics.scan import SEVEN_POINTS, scan_to_mesh
from facerecon_torch.structures import FaceParameters
from tests.real.scan_photo import photograph, read_scan

DATA = Path(os.environ.get("FACERECON_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "real"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real faces are not here; set FACERECON_DATA")


@pytest.fixture(scope="module", params=["mediapipe", "dlib"])
def face(request: pytest.FixtureRequest) -> FaceReconstructor:
    """Each shipped cascade with a detector of its landmarks."""
    if request.param == "dlib":
        pytest.importorskip("dlib")
    return FaceReconstructor.from_pretrained(detector=request.param)


@pytest.mark.parametrize("name", ["obama.jpg", "biden.jpg"])
def test_a_portrait_is_reconstructed_onto_itself(face, name):
    (one,) = face.predict(DATA / "photos" / name, faces="largest")[0]
    seen = one.landmarks
    width = float(seen[:, 0].max() - seen[:, 0].min())
    miss = (one.projected_2d - seen).norm(dim=-1) / width
    # inside the face within a few hundredths of its width; the contour slides along itself
    assert float(miss[:49].mean()) < 0.03
    assert float(miss.mean()) < 0.05
    x0, _, x1, _ = one.boxes.tolist()
    assert abs(float(one.projected_2d[:, 0].mean()) - (x0 + x1) / 2) < 0.15 * (x1 - x0)


def scan_errors(face: FaceReconstructor) -> dict[str, tuple[float, float, float]]:
    """Median and mean scan-to-mesh distance in mm after similarity, and the size error in percent, of each method."""
    scan = read_scan(DATA / "james")
    picture = photograph(scan)
    found = choose_faces(face.landmark_detector.detect([picture])[0], "largest")
    landmarks = to_paper66(found[0].points[None]).float()  # the precision of the model
    model, topology = face.face_model, face.face_model.topology
    fitted = LandmarkFitter(model, face.spec.fit).fit(landmarks).parameters
    answers = {
        "mean face": FaceParameters(identity=model.identity_mean[None], expression=model.expression_mean[None]),
        "landmark fit": fitted,
        "cascade": face.reconstruct([picture], landmarks).parameters,
    }
    inner = {ibug: row for row, ibug in enumerate([*range(17, 60), *range(61, 64), *range(65, 68)])}
    seven = topology.landmark_vertices[[inner[i] for i in SEVEN_POINTS]]
    errors = {}
    for name, answer in answers.items():
        mesh = model.vertices(answer.identity, answer.expression)[0]
        result = scan_to_mesh(scan.vertices, scan.landmarks[list(SEVEN_POINTS)], mesh, topology.triangles, mesh[seven])
        errors[name] = (float(result.median), float(result.mean), 100 * (1 / float(result.alignment.scale) - 1))
    return errors


@pytest.fixture(scope="module")
def on_scan(face) -> dict[str, tuple[float, float, float]]:
    return scan_errors(face)


@pytest.mark.slow
def test_a_real_scan_is_met(face, on_scan, capsys):
    """The calibrated mean face is within the aim for this scan; docs/results.md has all figures."""
    errors = on_scan
    with capsys.disabled():
        for name, (median, mean, size) in errors.items():
            print(f"\n{name:<14} median {median:.3f} mm, mean {mean:.3f} mm, size {size:+.1f} %", end="")  # noqa: T201
    assert all(torch.isfinite(torch.tensor(v)).all() for v in errors.values())
    assert errors["mean face"][0] < 1.25
    assert all(abs(size) < 6.0 for _, _, size in errors.values())


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="neither fit nor cascade comes as near to this scan as the calibrated mean")
def test_no_method_is_worse_on_the_scan_than_the_mean_face(on_scan):
    assert all(mean <= on_scan["mean face"][1] for _, mean, _ in on_scan.values())


@pytest.mark.slow
def test_a_cascade_meets_the_scan_better_than_its_landmark_fit(on_scan, face, request):
    if face.spec.convention == "mediapipe":
        reason = "what this cascade learns from renders does not carry over to this scan"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    assert on_scan["cascade"][1] <= on_scan["landmark fit"][1]
