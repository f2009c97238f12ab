"""Numbers of points other than 66 and 68, missing contours, meshes and several faces, in every kind of file."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from torch.testing import assert_close

from facerecon_torch.errors import LandmarkFileError
from facerecon_torch.landmarks import build_detector, from_paper66, is_present, to_paper66
from facerecon_torch.landmarks.mediapipe import FaceDetector, FaceMesh
from facerecon_torch.landmarks.mediapipe.mesh_points import mesh_to_ibug68
from facerecon_torch.landmarks.point_files import read_points
from facerecon_torch.landmarks.points import as_points66
from facerecon_torch.landmarks.scheme import interocular

WIDTH, HEIGHT = 100, 120
IMAGE = torch.zeros(3, HEIGHT, WIDTH)
KINDS = ("pts", "json", "npy", "csv", "parquet")
INNER = {51: list(range(17, 68)), 49: [i for i in range(17, 68) if i not in (60, 64)]}


@pytest.fixture
def points() -> torch.Tensor:
    return torch.rand(68, 2, generator=torch.Generator().manual_seed(0)).double() * 80 + 10


@pytest.fixture
def mesh() -> torch.Tensor:
    return torch.rand(478, 3, generator=torch.Generator().manual_seed(1)).double() * 80 + 10


def write(folder: Path, kind: str, faces: list[torch.Tensor]) -> dict[str, object]:
    """Write a landmark file of a.jpg, in which NaN is what the format has for it; the options to read it."""
    file = folder / f"a.{kind}"
    if kind == "pts":
        blocks = ("\n".join(" ".join(map(str, row)) for row in (face + 1).tolist()) for face in faces)
        file.write_text("".join(f"version: 1\nn_points: {len(f)}\n{{\n{b}\n}}\n" for f, b in zip(faces, blocks)))
    elif kind == "json":
        lists = [[[None if x != x else x for x in row] for row in face.tolist()] for face in faces]
        file.write_text(json.dumps({"faces": [{"points": face} for face in lists]}))
    elif kind == "npy":
        np.save(file, torch.stack(faces).numpy())
    else:
        stacked = torch.stack(faces).numpy()
        columns: dict[str, object] = {"image": ["a.jpg"] * len(faces)}
        for i in range(stacked.shape[1]):
            for axis, values in zip("xyz", stacked[:, i].T):
                columns[f"{axis}{i}"] = pa.array(values, from_pandas=True)
        (pa.csv.write_csv if kind == "csv" else pa.parquet.write_table)(pa.table(columns), file)
        return {"source": file}
    return {}


def detect(folder: Path, **options: object) -> list[torch.Tensor]:
    faces = build_detector("file", convention="mediapipe", **options).detect([IMAGE], paths=[folder / "a.jpg"])[0]
    for face in faces:
        there = face.points[is_present(face.points)]
        assert face.box == pytest.approx((*there.amin(0).tolist(), *there.amax(0).tolist()))
    return [face.points for face in faces]


@pytest.mark.parametrize("count", [51, 49])
@pytest.mark.parametrize("kind", KINDS)
def test_inner_points_leave_the_contour_missing(kind: str, count: int, points: torch.Tensor, tmp_path: Path) -> None:
    (face,) = detect(tmp_path, **write(tmp_path, kind, [points[INNER[count]]]))
    assert is_present(face).tolist() == [False] * 17 + [True] * 51
    assert_close(face[INNER[count]], points[INNER[count]])
    assert_close(face[17:], (points if count == 51 else from_paper66(to_paper66(points)))[17:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_contour_may_be_left_empty_as_a_whole_and_not_in_parts(
    kind: str, points: torch.Tensor, tmp_path: Path
) -> None:
    points[:17] = torch.nan
    (face,) = detect(tmp_path, **write(tmp_path, kind, [points]))
    assert_close(face, points, equal_nan=True)
    for wrong, broken in (((3, 1), 16), ((20, 1), 1)):
        spoiled = points.clone()
        spoiled[wrong] = 5.0 if wrong[0] < 17 else torch.nan
        with pytest.raises(LandmarkFileError, match=f"expected finite points; got {broken + (wrong[0] < 17)} with"):
            detect(tmp_path, **write(tmp_path, kind, [spoiled]))


@pytest.mark.parametrize("kind", KINDS)
def test_several_faces_in_a_file(kind: str, points: torch.Tensor, tmp_path: Path) -> None:
    found = detect(tmp_path, **write(tmp_path, kind, [points, points / 2, points / 3]))
    for face, k in zip(found, (1, 2, 3), strict=True):  # the largest first
        assert_close(face, points / k)


def test_faces_of_one_file_may_have_different_layouts(points: torch.Tensor, tmp_path: Path) -> None:
    for kind in ("pts", "json"):
        whole, inner = detect(tmp_path, **write(tmp_path, kind, [points, points[17:] / 2]))
        (tmp_path / f"a.{kind}").unlink()
        assert_close(whole, points)
        assert_close(inner[17:], points[17:] / 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [5, 21, 29, 98, 106])
def test_other_numbers_are_refused_with_those_that_are_taken(count: int, kind: str, tmp_path: Path) -> None:
    face = torch.rand(count, 2).double() * 80 + 10
    came = rf"a\.{kind}: expected 68 points .*66 .*51 .*49 .*468 or 478 .*got (shape .*\b{count}, 2\)|{count} points)"
    with pytest.raises(LandmarkFileError, match=came):
        detect(tmp_path, **write(tmp_path, kind, [face]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "coordinates"), [(468, 2), (478, 2), (468, 3), (478, 3)])
def test_a_mesh_in_px_or_in_shares(count: int, coordinates: int, kind: str, mesh: torch.Tensor, tmp_path: Path) -> None:
    given = mesh[:count, :coordinates]
    expected = mesh_to_ibug68(mesh)
    (face,) = detect(tmp_path, **write(tmp_path, kind, [given]))
    assert_close(face, expected)
    size = torch.tensor([WIDTH, HEIGHT, WIDTH])[:coordinates].double()
    shares = (given + 0.5) / size
    if kind == "pts":
        shares = shares - 1  # the writer counts from one, which shares do not
    (face,) = detect(tmp_path, **write(tmp_path, kind, [shares]))
    assert_close(face, expected)


def test_a_mesh_in_shares_may_pass_the_border(mesh: torch.Tensor, tmp_path: Path) -> None:
    outside = mesh - torch.tensor([45.0, 0.0, 0.0])
    shares = (outside[:, :2] + 0.5) / torch.tensor([WIDTH, HEIGHT])
    assert float(shares.min()) < 0
    (face,) = detect(tmp_path, **write(tmp_path, "npy", [shares]))
    assert_close(face, mesh_to_ibug68(outside))


def test_shares_need_the_size_of_the_picture_and_a_mesh(
    mesh: torch.Tensor, points: torch.Tensor, tmp_path: Path
) -> None:
    write(tmp_path, "npy", [mesh / 120])
    with pytest.raises(LandmarkFileError, match=r"a\.npy: expected a mesh in px; got shares of a picture of unknown"):
        read_points(tmp_path / "a.npy")
    assert read_points(tmp_path / "a.npy", size=(10, 10)).shape == (1, 68, 2)
    write(tmp_path, "npy", [points[17:] / 120])
    with pytest.raises(LandmarkFileError, match=r"expected landmarks in px; got points that span 0\..* \(shares"):
        detect(tmp_path)


def test_as_points66_takes_every_layout(points: torch.Tensor, mesh: torch.Tensor) -> None:
    paper = to_paper66(points)
    assert_close(as_points66(paper), paper)
    for inner in INNER.values():
        both = as_points66(torch.stack([points[inner], points[inner] + 1]))
        assert_close(both[:, :49], torch.stack([paper[:49], paper[:49] + 1]))
        assert bool(both[:, 49:].isnan().all())
        assert_close(as_points66(both), both, equal_nan=True)  # a result is taken again
    for given in (mesh, mesh[:468], mesh[:, :2].numpy(), mesh.tolist()):
        assert_close(as_points66(given), to_paper66(mesh_to_ibug68(mesh)))
    assert as_points66(torch.zeros(0, 478, 3)).shape == (0, 66, 2)
    with pytest.raises(ValueError, match="shares of the picture's size: x is share"):
        as_points66(mesh / 100)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("count", [66, 68, 51, 49])
def test_as_points66_refuses_points_that_are_broken(count: int, wrong: float, points: torch.Tensor) -> None:
    broken = {66: to_paper66(points), 68: points.clone()}.get(count, points[INNER.get(count, [])])
    broken[5 if count != 68 else 30, 1] = wrong
    with pytest.raises(ValueError, match="landmarks must be finite"):
        as_points66(broken)


@pytest.mark.parametrize("shape", [(5, 2), (98, 2), (68, 3), (51, 3), (478, 4), (68,)])
def test_as_points66_refuses_other_layouts(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"landmarks must be 68 points \(iBUG\), 66 .*; got shape"):
        as_points66(torch.zeros(shape))


def test_mesh_points_lie_where_ibug_has_them(astronaut: torch.Tensor, dtype: torch.dtype) -> None:
    (found,) = FaceDetector()([astronaut])
    points, _ = FaceMesh()([astronaut] * len(found), found.boxes, found.points)
    mapped = mesh_to_ibug68(points.to(dtype))[0]
    assert mapped.dtype == dtype
    stored = read_points(Path(__file__).with_name("astronaut.pts"))[0]
    apart = (mapped - stored).norm(dim=-1) / interocular(stored)
    assert float(apart[17:].mean()) < 0.06
    assert float(apart.mean()) < 0.08
