"""Batches of pictures through the real face-alignment package with random weights, against its own calls one by one."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.landmarks import build_detector, fan
from facerecon_torch.landmarks import face_alignment_detector as adapter
from facerecon_torch.landmarks.detector import as_bytes, resize
from facerecon_torch.landmarks.fan import decode_heatmaps
from tests.reference.face_alignment_loop import detect_one_by_one

numba = pytest.importorskip("numba")
# Compiling the package's two small numba functions takes longer than running them.
with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    patch.setattr(numba.config, "DISABLE_JIT", True)
    pytest.importorskip("face_alignment")

SEARCHED = 128  # px
OPTIONS = {"download": False, "max_side": SEARCHED, "min_score": 0.64}


def _store_random_weights(folder: Path) -> None:
    """Both networks drawn anew, with boxes of about 45 px; in the files and layout of the published weights."""
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        points, faces = FAN(4).state_dict(), s3fd().state_dict()
    faces["conv3_3_norm_mbox_loc.bias"][2:] += 5.0
    faces["conv3_3_norm_mbox_conf.weight"] *= 2.0
    torch.save(points, folder / adapter.WEIGHT_FILES[0])
    torch.save(faces, folder / adapter.WEIGHT_FILES[1])


@pytest.fixture(scope="module")
def detections(tmp_path_factory):
    """Pictures of three sizes, two of which are searched at one; the detector's answer, and its native part."""
    home = tmp_path_factory.mktemp("random_weights")
    _store_random_weights(home / "hub" / "checkpoints")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        patch.setattr(fan, "_TOGETHER", 3)
        detector = build_detector("face_alignment", **OPTIONS)
        rng = torch.Generator().manual_seed(4)
        pictures = [
            resize(torch.rand(3, height // 8, width // 8, generator=rng), 8.0)
            for height, width in ((96, 128), (128, 96), (192, 256), (96, 128), (24, 64))
        ]
        yield pictures, detector.detect(pictures), detector
    torch.set_num_threads(threads)
    shutil.rmtree(home)  # 180 MB


def test_a_batch_answers_as_the_package_does_one_by_one(detections) -> None:
    pictures, answers, detector = detections
    assert [len(faces) for faces in answers][4:] == [0]  # too small to be searched
    assert all(answers[:4])
    small = [as_bytes(resize(p, min(1.0, SEARCHED / max(p.shape[-2:])))) for p in pictures[:4]]
    expected = detect_one_by_one(detector._load(), [as_bytes(p) for p in pictures[:4]], small)
    for faces, rows in zip(answers, expected):
        rows.sort(key=lambda row: row[0][4] * (row[0][2] - row[0][0]) * (row[0][3] - row[0][1]), reverse=True)
        assert len(faces) == len(rows)
        for face, (box, points, scores) in zip(faces, rows):
            assert_close(torch.tensor([*face.box, face.score]), torch.from_numpy(box).float(), atol=1e-3, rtol=1e-5)
            assert_close(face.point_scores, torch.from_numpy(scores).double(), atol=1e-3, rtol=1e-4)
            # the package cuts towards zero
            assert torch.equal(face.points.trunc(), torch.from_numpy(points).double())


def test_points_are_finer_than_pixels(detections) -> None:
    _, answers, _ = detections
    points = torch.cat([face.points for faces in answers for face in faces])
    assert 0.4 < float((points - points.floor()).mean()) < 0.6


def test_a_selection_is_made_before_landmarks(detections, monkeypatch) -> None:
    pictures, answers, _ = detections
    seen = []
    monkeypatch.setattr(adapter, "predict_points", lambda native, p, faces: seen.append(faces) or [])
    build_detector("face_alignment", max_faces=1, **OPTIONS).detect(pictures[:2])
    assert [[face.box for face in faces] for faces in seen[0]] == [[faces[0].box] for faces in answers[:2]]
    sides = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (face.box for face in answers[1])]
    assert len(set(sides)) > 1
    build_detector("face_alignment", min_face=max(sides) / 128, **OPTIONS).detect(pictures[1:2])
    assert [face.box for face in seen[1][0]] == [answers[1][sides.index(max(sides))].box]


def test_half_precision_is_that_of_the_points(detections) -> None:
    pictures, answers, _ = detections
    ((face,),) = build_detector("face_alignment", dtype="bfloat16", **OPTIONS).detect(pictures[3:4])
    (expected,) = answers[3]
    assert (face.box, face.points.dtype) == (expected.box, torch.float64)
    assert not torch.equal(face.point_scores, expected.point_scores)
    assert_close(face.point_scores, expected.point_scores, atol=0.03, rtol=0.05)
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, bfloat16; got 'float64'"):
        build_detector("face_alignment", dtype="float64", **OPTIONS)


def test_known_heat_maps() -> None:
    maps = torch.zeros(1, 4, 64, 64)
    maps[0, 0, 10, 20] = maps[0, 1, 10, 20] = maps[0, 2, 0, 63] = maps[0, 3, 5, 6] = 2.0
    maps[0, 1, 10, 21] = maps[0, 1, 9, 20] = maps[0, 2, 1, 63] = 1.0  # larger on the right and above; at the border
    maps[0, 3, 5, 5] = maps[0, 3, 5, 7] = 1.0  # alike on both sides
    points, scores = decode_heatmaps(maps, torch.tensor([[100.0, 50.0]]).double(), torch.tensor([128.0]).double())
    assert scores.tolist() == [[2.0] * 4]
    cells = torch.tensor([[20.5, 10.5], [20.75, 10.25], [63.5, 0.5], [6.5, 5.5]]).double()
    assert_close(points[0], torch.tensor([100.0, 50.0]) + 128 * (cells / 64 - 0.5))
