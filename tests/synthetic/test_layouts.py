"""Writing sets in real layouts: what is refused, what is resumed, and that a killed run leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from facerecon_torch.files import write_bytes
from facerecon_torch.synthetic import layouts
from facerecon_torch.synthetic.layouts import (
    LAYOUTS,
    Layout,
    LayoutSpec,
    find_layout,
    load_truth,
    runner,
    write_set,
)

SPEC = LayoutSpec(layout="bosphorus", subjects=4)


class Fake:
    """A layout of one small file per person; `pause` makes it slow enough to be killed."""

    full_subjects = 9

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.written: list[str] = []

    def units(self, spec: LayoutSpec) -> list[str]:
        return [f"u{subject}" for subject in range(spec.subjects)]

    def names(self, spec: LayoutSpec, unit: str) -> list[str]:
        return [f"{unit}_{i}" for i in range(spec.samples or 2)]

    def write(self, spec: LayoutSpec, unit: str, out: Path) -> dict[str, torch.Tensor]:
        self.written.append(unit)
        number = int(unit[1:])
        n = len(self.names(spec, unit))
        draws = torch.rand(n, 4, 3, generator=spec.generator(number, "shape"))
        for i, name in enumerate(self.names(spec, unit)):
            write_bytes(out / unit / f"{name}.txt", f"{draws[i].tolist()}".encode())
            time.sleep(self.pause)
        return {
            "subjects": torch.full((n,), number),
            "vertices": draws,
            "rotation": torch.eye(3).expand(n, 3, 3),
            "translation": torch.zeros(n, 3),
            "landmarks": torch.zeros(n, 66, 2),
            "expression_weights": torch.zeros(n, 46),
            "wheels": torch.full((n,), 4),
        }

    def bytes_needed(self, spec: LayoutSpec) -> int:
        return 1000 * spec.subjects


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    layout = Fake()
    monkeypatch.setattr(runner, "find_layout", lambda name: layout)
    return layout


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write(spec: LayoutSpec, out: Path) -> layouts.LayoutTruth:
    return write_set(spec, out, workers=1, progress=False)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_can_be_found(name):
    layout = find_layout(name)
    assert isinstance(layout, Layout)
    spec = LayoutSpec(layout=name, subjects=2, samples=3)
    units = layout.units(spec)
    assert len(units) == len(set(units)) >= 2
    assert all(1 <= len(layout.names(spec, unit)) <= 3 for unit in units)
    assert 0 < layout.bytes_needed(spec) < layout.bytes_needed(replace(spec, subjects=layout.full_subjects))


def test_truth_comes_back_in_the_order_of_the_units(fake, tmp_path):
    truth = write(SPEC, tmp_path)
    assert truth.names == tuple(f"u{s}_{i}" for s in range(4) for i in range(2))
    assert truth.subjects.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert truth.extra["wheels"].tolist() == [4] * 8
    assert truth.spec == SPEC
    assert len(truth.expression_names) == 46
    assert json.loads((tmp_path / "truth.json").read_text())["hash"] == SPEC.hash
    with safe_open(tmp_path / "truth.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("vertices"), truth.vertices)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["truth.json", "truth.safetensors", "u0", "u1", "u2", "u3"]


def test_a_complete_set_is_not_written_again(fake, tmp_path):
    write(SPEC, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    write(SPEC, tmp_path)
    assert fake.written == ["u0", "u1", "u2", "u3"]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_the_first_people_are_the_same_in_a_larger_set(fake, tmp_path):
    few, many = write(replace(SPEC, subjects=2), tmp_path / "few"), write(SPEC, tmp_path / "many")
    assert torch.equal(few.vertices, many.vertices[: len(few.vertices)])
    other = write(replace(SPEC, subjects=2, seed=1), tmp_path / "other")
    assert not torch.equal(few.vertices, other.vertices)


def test_a_folder_of_another_set_is_left_alone(fake, tmp_path):
    write(SPEC, tmp_path)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"already holds another set: seed 0, now 1; hash \w+, now \w+\. Give"):
        write(replace(SPEC, seed=1), tmp_path)
    assert content(tmp_path) == before


def test_the_beginning_of_another_set_is_left_alone(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(SPEC, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"truth\.json"):
        load_truth(tmp_path)
    with pytest.raises(ValueError, match="already holds"):
        write(replace(SPEC, seed=1), tmp_path)


def test_space_is_asked_for_before_anything_is_written(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "bytes_needed", lambda spec: 10**18)
    with pytest.raises(OSError, match=r"needs about 1000000000\.0 GB more; [\d.]+ GB are free at"):
        write(SPEC, tmp_path / "a" / "b")
    assert fake.written == []


def test_a_disk_that_fills_up_leaves_a_run_to_go_on_with(fake, tmp_path, monkeypatch):
    real = fake.write

    def full(spec: LayoutSpec, unit: str, out: Path) -> dict[str, torch.Tensor]:
        if unit == "u2":
            raise OSError(28, "No space left on device", str(out / unit))
        return real(spec, unit, out)

    monkeypatch.setattr(fake, "write", full)
    with pytest.raises(OSError, match="no room is left on the disk; finished shards stay"):
        write(SPEC, tmp_path)
    monkeypatch.setattr(fake, "write", real)
    write(SPEC, tmp_path)
    assert fake.written == ["u0", "u1", "u2", "u3"]


SPOILT = {
    "too few": lambda rows: {**rows, "wheels": rows["wheels"][:1]},
    "none": lambda rows: {key: value for key, value in rows.items() if key != "rotation"},
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_layout_that_forgets_rows_is_found_out(fake, tmp_path, monkeypatch, spoil):
    real = fake.write
    monkeypatch.setattr(fake, "write", lambda *given: spoil(real(*given)))
    with pytest.raises(ValueError, match="a layout must give 8 rows of each of subjects, vertices, rotation"):
        write(SPEC, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layout": "bosporus"}, "layout must be one of bosphorus, facewarehouse, frgc"),
        ({"subjects": 0}, "at least 1"),
        ({"samples": 0}, "at least 1"),
    ],
)
def test_wrong_specs_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LayoutSpec(**{"layout": "frgc", "subjects": 1, **wrong})


_KILLED = """
import sys
from pathlib import Path
from tests.synthetic.test_layouts import Fake, SPEC, runner
runner.find_layout = lambda name, layout=Fake(0.1): layout
runner.write_set(SPEC, Path(sys.argv[1]), workers=1, progress=False)
"""


def test_a_killed_run_goes_on_to_the_same_set(fake, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write(SPEC, whole)
    child = subprocess.Popen([sys.executable, "-c", _KILLED, str(killed)], cwd=Path(__file__).parents[2])
    limit = time.monotonic() + 60
    while not (killed / "shards" / "u0.safetensors").is_file():
        assert child.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (killed / "truth.json").exists()
    (killed / "u1").mkdir(exist_ok=True)
    (killed / "u1" / ".u1_0.txt.0123.part").write_bytes(b"half a fi")  # what a kill in mid-write leaves
    fake.written.clear()
    write(SPEC, killed)
    assert "u0" not in fake.written
    assert content(killed) == content(whole)
