"""Detectors that say so answer on several threads at once as they do on one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from facerecon_torch.images import save_png
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.dlib_detector import DlibDetector
from facerecon_torch.landmarks.file_landmarks import FileLandmarks
from facerecon_torch.landmarks.mediapipe_detector import MediapipeDetector
from facerecon_torch.landmarks.registry import DETECTORS, find_detector

THREADS = 4


def _made(name: str) -> LandmarkDetector:
    if name == "dlib":
        pytest.importorskip("dlib")
        return DlibDetector()
    return MediapipeDetector() if name == "mediapipe" else FileLandmarks()


def test_those_that_say_so(tmp_path: Path) -> None:
    known = {name for name in DETECTORS if getattr(find_detector(name), "side_by_side", False)}
    assert known == {"dlib", "file", "mediapipe"}
    assert FileLandmarks().side_by_side
    assert FileLandmarks(source=tmp_path).side_by_side
    np.save(tmp_path / "points.npy", np.zeros((68, 2)))
    assert not FileLandmarks(source=tmp_path / "points.npy").side_by_side  # the first picture gets the only file


@pytest.mark.parametrize("name", ["dlib", "file", "mediapipe"])
def test_answers_are_those_of_one_thread(name: str, astronaut: Tensor, tmp_path: Path) -> None:
    pictures = [astronaut.roll(8 * k, dims=-1) for k in range(THREADS)]
    files = [tmp_path / f"{k}.png" for k in range(THREADS)]
    for k, file in enumerate(files):
        save_png(pictures[k], file)
        np.save(file.with_suffix(".npy"), torch.rand(68, 2, generator=torch.Generator().manual_seed(k)).numpy() * 100)
    alone = [_made(name).detect([picture], paths=[file])[0] for picture, file in zip(pictures, files)]
    shared = _made(name)  # and its networks are loaded by several threads at once
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(shared.detect, [pictures[k % THREADS]], paths=[files[k % THREADS]]) for k in range(12)]
        together = [job.result()[0] for job in jobs]
    for k, faces in enumerate(together):
        own = alone[k % THREADS]
        assert len(faces) == len(own) == 1
        assert_close(faces[0].points, own[0].points, rtol=0, atol=0)
        assert faces[0].score == own[0].score
