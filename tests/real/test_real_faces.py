"""Real photographs and a real scan, with the shipped cascade and a real detector. Skipped without the data."""

import math
import os
from pathlib import Path

import pytest

from benchmarks.accuracy.scan import Errors, figures, measure_scan
from benchmarks.accuracy.scan_photo import read_scan
from facerecon_torch import FaceReconstructor

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


@pytest.fixture(scope="module")
def on_scan(face) -> dict[str, Errors]:
    return figures(measure_scan(face, read_scan(DATA / "james")))


@pytest.mark.slow
def test_a_real_scan_is_met(face, on_scan, capsys):
    """The calibrated mean face is within the aim for this scan; docs/results.md has all figures."""
    errors = on_scan
    with capsys.disabled():
        for name, values in errors.items():
            print(f"\n{name:<14}", ", ".join(f"{key} {value:.3f}" for key, value in values.items()), end="")  # noqa: T201
    assert all(math.isfinite(value) for values in errors.values() for value in values.values())
    assert errors["mean face"]["median"] < 1.25
    assert all(abs(values["size"]) < 6.0 for values in errors.values())


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="neither fit nor cascade comes as near to this scan as the calibrated mean")
def test_no_method_is_worse_on_the_scan_than_the_mean_face(on_scan):
    assert all(errors["mean"] <= on_scan["mean face"]["mean"] for errors in on_scan.values())


@pytest.mark.slow
def test_a_cascade_meets_the_scan_better_than_its_landmark_fit(on_scan, face, request):
    if face.spec.convention == "mediapipe":
        reason = "what this cascade learns from renders does not carry over to this scan"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    assert on_scan["cascade"]["mean"] <= on_scan["landmark fit"]["mean"]
