"""`make gpu` without a GPU: its answer there, its steps, and a stand-in for a machine that lacks packages."""

import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks import gpu, suite
from benchmarks.gpu import ROOT, Step

BLOCKED = ("warp", "dlib", "face_alignment")
# Python imports this file at its start wherever it lies on the path: the packages cannot be imported.
SITE = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
TESTS = {
    "test_plain.py": "def test_passes(): pass\ndef test_skips():\n    import pytest\n    pytest.skip('no camera')\n",
    "test_top.py": "import warp\ndef test_never(): pass\n",
    "test_inside.py": "def test_late(): import warp.types\n",
    "test_polite.py": "import pytest\npytest.importorskip('dlib')\n",
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that claims to have a CUDA device, and where three packages are missing."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(ROOT)]))
    monkeypatch.setattr(gpu, "_no_device", lambda: None)
    monkeypatch.setattr(gpu, "missing_packages", lambda names: [n for n in names if n in BLOCKED])
    (tmp_path / "tests").mkdir()

    def run(*steps):
        out = tmp_path / "out"
        out.mkdir()
        status = gpu.run(steps, out)
        (path,) = out.glob("gpu--*.json")
        return status, json.loads(path.read_text())

    return run


def small_tests(folder, **files):
    for name, text in files.items():
        (folder / name).write_text(text)
    # pytest names tests relative to its root folder, which would depend on where the checkout lies.
    roots = ("--rootdir", str(folder), "--confcutdir", str(folder))
    return Step("tests", ("-q", "--continue-on-collection-errors", *roots, str(folder)), 120)


def test_without_a_device_one_line_and_status_0():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "sees no CUDA device; nothing was run" in done.stdout


def test_a_missing_package_that_all_need_is_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "_no_device", lambda: None)
    monkeypatch.setattr(gpu, "missing_packages", lambda names: [n for n in names if n == "kornia"])
    assert gpu.main([]) == 1
    assert "lacks kornia; nothing was run" in capsys.readouterr().out


def test_missing_packages_are_found_without_importing_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    monkeypatch.delitem(sys.modules, "dlib", raising=False)
    assert gpu.missing_packages(["warp", "torch", "no_such_package"]) == ["warp", "no_such_package"]


def test_every_step_is_a_bench_with_words_that_it_knows():
    for step in gpu.STEPS:
        if step.name != "tests":
            assert suite.parse([step.name, *step.words]).names == (step.name,)
    assert gpu.BUDGET_S <= 9 * 60


def test_on_a_machine_that_lacks_packages(machine, tmp_path, capfd):
    tests = small_tests(tmp_path / "tests", **TESTS)
    status, written = machine(tests, Step("model", ("sizes=tiny", "rounds=1"), 120))
    told = capfd.readouterr().out.split("what, time per item")[1]
    assert status == 0
    assert [(step["name"], step["status"]) for step in written["steps"]] == [("tests", "passed"), ("model", "passed")]
    assert written["steps"][0]["missing"] == {"warp": 2, "dlib": 1}
    assert written["not_installed"] == list(BLOCKED)
    assert "1 passed, 0 failed, 1 skipped, 3 for want of a package" in told
    assert "skipped for want of warp: 2\n" in told
    assert "model: 2 faces: vertices" in told
    assert all(row["cpu"]["median_ms"] > 0 for row in written["rows"])


def test_failures_and_long_steps(machine, tmp_path):
    tests = small_tests(tmp_path / "tests", **{"test_bad.py": "def test_bad(): assert False\n"})
    began = time.monotonic()
    status, written = machine(tests, Step("model", ("sizes=full",), 5))
    assert status == 1
    assert [step["status"] for step in written["steps"]] == ["failed", "stopped"]
    assert "FAILED test_bad::test_bad" in written["steps"][0]["note"]
    assert time.monotonic() - began < 120


@pytest.mark.slow
@pytest.mark.parametrize("name", [step.name for step in gpu.STEPS if step.name != "tests"])
def test_every_bench_runs_without_those_packages(machine, name):
    status, written = machine(Step(name, ("sizes=tiny", "rounds=1"), 600))
    assert status == 0
    assert all("is not installed" in (row["cpu"]["skipped"] or "is not installed") for row in written["rows"])
    assert any(row["cpu"]["median_ms"] for row in written["rows"])
