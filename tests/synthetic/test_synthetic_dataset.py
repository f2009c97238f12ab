"""Rendered sets: reproducible, resumable, and true to their own truth."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import DataFileError
from facerecon_torch.geometry.projection import project
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.images.read import read_image
from facerecon_torch.model.default_face import load_topology
from facerecon_torch.synthetic import SyntheticSet, dataset, load_set, render_set


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_two_workers_write_the_same_bytes_as_one(tiny: tuple[Path, SyntheticSet], tmp_path: Path) -> None:
    render_set(tiny[1].spec, tmp_path / "again", workers=2, progress=False)
    first, second = _bytes(tiny[0]), _bytes(tmp_path / "again")
    assert set(first) == {
        "set.json",
        "truth.safetensors",
        *(f"images/{s:05d}_{i:03d}.jpg" for s in range(2) for i in range(2)),
    }
    assert [name for name in first if first[name] != second.get(name)] == []


def test_an_interrupted_run_goes_on(
    tiny: tuple[Path, SyntheticSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = dataset.render_subject, []

    def dies_in_the_second_subject(spec: object, subject: int, model: object) -> Iterator[object]:
        seen.append(subject)
        for image, result in enumerate(real(spec, subject, model)):  # type: ignore[arg-type]
            if subject == 1 and image == 1 and len(seen) == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(dataset, "render_subject", dies_in_the_second_subject)
    with pytest.raises(KeyboardInterrupt):
        render_set(tiny[1].spec, tmp_path, workers=1, progress=False)
    with pytest.raises(FileNotFoundError, match=r"set\.json"):
        load_set(tmp_path)
    render_set(tiny[1].spec, tmp_path, workers=1, progress=False)
    assert seen == [0, 1, 1]  # the finished subject is not rendered again
    assert _bytes(tmp_path) == _bytes(tiny[0])


def test_a_complete_set_is_read_not_rendered(tiny: tuple[Path, SyntheticSet], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "render_subject", None)
    again = render_set(tiny[1].spec, tiny[0], progress=False)
    assert again.images == tiny[1].images
    assert_close(again.vertices, tiny[1].vertices, rtol=0, atol=0)


def test_a_folder_of_another_set_is_left_alone(tiny: tuple[Path, SyntheticSet]) -> None:
    before = _bytes(tiny[0])
    with pytest.raises(ValueError, match="already holds"):
        render_set(replace(tiny[1].spec, seed=4), tiny[0], progress=False)
    assert _bytes(tiny[0]) == before


def test_another_format_is_refused(tiny: tuple[Path, SyntheticSet], tmp_path: Path) -> None:
    header = json.loads((tiny[0] / "set.json").read_text()) | {"format": "something/9"}
    (tmp_path / "set.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match="something/9"):
        load_set(tmp_path)


def test_damage_is_refused_by_name(tiny: tuple[Path, SyntheticSet], tmp_path: Path) -> None:
    for name in ("images/00001_001.jpg", "truth.safetensors"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(tiny[0], copy)
        content = bytearray((copy / name).read_bytes())
        content[-3] ^= 1
        (copy / name).write_bytes(bytes(content))
        with pytest.raises(DataFileError, match=name):
            load_set(copy)
        (copy / name).unlink()
        with pytest.raises(DataFileError, match=f"{name}.*got nothing"):
            load_set(copy)
    (tmp_path / "set.json").write_text('{"format": ')
    with pytest.raises(DataFileError, match=r"set\.json: expected a JSON document"):
        load_set(tmp_path)


def test_landmarks_are_projected_vertices(tiny: tuple[Path, SyntheticSet]) -> None:
    rendered = tiny[1]
    inner = load_topology().landmark_vertices[:49]
    rows = torch.cat([inner.expand(len(rendered), -1), rendered.contour_vertices], dim=1)
    points = rendered.vertices.gather(1, rows[..., None].expand(-1, -1, 3))
    assert_close(project(points, rendered.camera), rendered.landmarks, rtol=0, atol=1e-3)
    assert_close(euler_to_matrix(*rendered.angles.unbind(1)), rendered.camera.rotation, rtol=0, atol=1e-6)
    assert bool(((rendered.landmarks > 0) & (rendered.landmarks < tiny[1].spec.size - 1)).all())


def test_a_subject_keeps_one_identity(tiny: tuple[Path, SyntheticSet]) -> None:
    rendered = tiny[1]
    assert rendered.subjects.tolist() == [0, 0, 1, 1]
    assert_close(rendered.macro[0], rendered.macro[1], rtol=0, atol=0)
    skull = rendered.vertices[:, rendered.vertices[0, :, 1].argmax()]  # no expression reaches the top of the crop
    assert float((skull[0] - skull[1]).norm()) < 0.5
    assert float((skull[0] - skull[2]).norm()) > 0.5


def test_pictures_have_the_size_asked_for_and_show_something(tiny: tuple[Path, SyntheticSet]) -> None:
    for path in tiny[1].images:
        picture = read_image(path)
        assert picture.shape == (3, tiny[1].spec.size, tiny[1].spec.size)
        assert float(picture.std()) > 0.05
