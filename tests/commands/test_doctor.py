"""What `facerecon doctor` says on healthy and on broken installations."""

import json
from pathlib import Path

import pytest
import torch

from facerecon_torch.commands import doctor
from facerecon_torch.landmarks import mediapipe_detector
from facerecon_torch.landmarks.face_alignment_detector import WEIGHT_FILES
from facerecon_torch.landmarks.registry import DETECTORS, find_detector

pytest.importorskip("dlib")


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_this_installation_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run_doctor(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["problems"] == []
    assert facts["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert facts["detectors"]["dlib"]["works"]
    assert facts["detectors"]["dlib"]["weights"][0]["bytes"] > 90e6
    assert facts["gpu"]["works"] == torch.cuda.is_available()
    assert len(facts["gpu"]["devices"]) == torch.cuda.device_count()


def test_missing_weights_are_named_with_their_place(no_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run_doctor(["--quick"]) == 0
    text = capsys.readouterr().out
    for name in WEIGHT_FILES:
        assert f"weights {no_weights / name}: missing" in text
    for name in DETECTORS:
        assert name == "auto" or f"licence: {find_detector(name).licence}" in text
    assert text.endswith("no problems found\n")


def test_damaged_weights_are_found_by_loading_them(no_weights: Path) -> None:
    pytest.importorskip("face_alignment")
    no_weights.mkdir(parents=True)
    for name in WEIGHT_FILES:
        (no_weights / name).write_bytes(b"damaged")
    assert doctor.examine(run_detectors=False)["detectors"]["face_alignment"]["works"]
    facts = doctor.examine()["detectors"]["face_alignment"]
    assert not facts["works"]
    assert "loading failed" in facts["problem"]
    assert [w["bytes"] for w in facts["weights"]] == [7, 7]


def test_no_detector_at_all_is_a_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.setattr(mediapipe_detector, "weight_file", lambda name: Path("gone") / name)
    assert doctor.run_doctor(["--quick"]) == 1
    text = capsys.readouterr().out
    assert 'pip install "facerecon-torch[dlib]"' in text
    assert "PROBLEM: no landmark detector works" in text


def test_driver_without_cuda_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_driver", lambda: "535.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    facts = doctor.examine(run_detectors=False)
    assert not facts["gpu"]["works"]
    assert ["NVIDIA driver (535.1)" in p for p in facts["problems"]] == [True]
    assert "driver 535.1" in doctor.report_text(facts)


def test_driver_is_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 550.54.15\necho 550.54.15\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor._driver() == "550.54.15"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert doctor._driver() is None


def test_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor.package_version
    monkeypatch.setattr(doctor, "package_version", lambda name: None if name == "kornia" else known(name))
    facts = doctor.examine(run_detectors=False)
    assert facts["problems"] == ["kornia is not installed: pip install kornia"]
    assert "kornia MISSING" in doctor.report_text(facts)
