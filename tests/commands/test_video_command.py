"""A face through a video of the tiny world: its frames, one identity, and the files."""

import csv
from copy import deepcopy

import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.commands.video.run import follow_face, settle_track, write_track
from facerecon_torch.errors import NoFaceError
from facerecon_torch.images.video import read_frames, write_video
from facerecon_torch.tracking.smooth import SmoothingSpec
from tests.cascade.test_reconstructor import Known

FRAMES = 6
pytest.importorskip("av")


class Blinking(Known):
    """A detector that misses the face in every third frame."""

    def __init__(self, *points):
        super().__init__(*points)
        self.seen = 0

    def faces_of(self, image):
        self.seen += 1
        return [] if self.seen % 3 == 0 else super().faces_of(image)


@pytest.fixture(scope="module")
def clip(photographs, tmp_path_factory):
    images, landmarks = photographs
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    still = (images[0] * 255).round().to(torch.uint8)
    return write_video(path, 25, [still] * FRAMES), landmarks[0]


def test_a_track_has_one_identity_and_its_files(clip, tiny_outcome, tmp_path):
    path, points = clip
    model = deepcopy(tiny_outcome.reconstructor)
    track = follow_face(path, model, Blinking(points))
    assert (track.frames, track.total, float(track.rate)) == ((0, 1, 3, 4), FRAMES, 25.0)
    assert_close(track.seconds, torch.tensor([0.0, 0.04, 0.12, 0.16], dtype=torch.float64), atol=1e-3, rtol=0)
    settled = settle_track(track, model, joint=True, smoothing=SmoothingSpec())
    alpha = settled.faces.parameters.identity
    assert_close(alpha, alpha[:1].expand(4, -1))
    assert_close(settled.faces.camera.rotation.det(), torch.ones(4))
    write_track(settled, path, tmp_path, model, overlay=True)
    rows = list(csv.DictReader((tmp_path / "expressions.csv").read_text().splitlines()))
    assert [int(row["frame"]) for row in rows] == [0, 1, 3, 4]
    assert float(rows[2]["yaw"]) == pytest.approx(float(settled.faces.euler_degrees[2, 0]), abs=1e-4)
    table = pq.read_table(tmp_path / "parameters.parquet")
    assert table["frame"].to_pylist() == [0, 1, 3, 4]
    assert set(table["path"].to_pylist()) == {str(path)}
    drawn, plain = list(read_frames(tmp_path / "overlay.mp4")), list(read_frames(path))
    gaps = [float((a.pixels.float() - b.pixels.float()).abs().mean()) for a, b in zip(drawn, plain, strict=True)]
    assert min(gaps[k] for k in track.frames) > 2 * max(gaps[2], gaps[5])
    assert (tmp_path / "expressions.png").read_bytes().startswith(b"\x89PNG")


def test_switched_off_steps_change_nothing(clip, tiny_outcome):
    path, points = clip
    model = tiny_outcome.reconstructor
    track = follow_face(path, model, Known(points))
    same = settle_track(track, model, joint=False, smoothing=SmoothingSpec(enabled=False))
    assert_close(same.faces.parameters.flat, track.faces.parameters.flat)
    assert same.person is None


def test_a_video_without_a_face_is_refused(clip, tiny_outcome):
    with pytest.raises(NoFaceError, match=f"at least one of {FRAMES} frames; found none"):
        follow_face(clip[0], tiny_outcome.reconstructor, Known())
