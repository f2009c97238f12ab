"""FaceWarehouse as recordings: each pose a mesh scan with its photograph.

The 66 landmarks of the mesh are vertices of the data set's topology. Its meshes do not stand in the camera's frame, so
the places of the vertices in the photograph come from the points of the .land file: the pose of the mesh before a
camera like the one that was used (focal length 525 px at 640 px, its axis through the picture's middle).
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from facerecon_torch.data.facewarehouse.folders import blendshape_file, find_testers, pose_files
from facerecon_torch.data.facewarehouse.land import read_land
from facerecon_torch.data.facewarehouse.names import POSE_NAMES
from facerecon_torch.data.facewarehouse.photo_pose import solve_pinhole
from facerecon_torch.data.facewarehouse.points74 import to_ibug68
from facerecon_torch.data.range_grid import LARGEST_COORDINATE
from facerecon_torch.data.recordings import RecordedScan, Recording
from facerecon_torch.formats.blendshapes import read_blendshape_header, read_blendshapes
from facerecon_torch.formats.format_errors import damaged
from facerecon_torch.formats.quads import read_quads, split_quads
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, N_INNER, to_paper66
from facerecon_torch.model.default_face import load_topology
from facerecon_torch.model.landmark_vertices import known_landmarks
from facerecon_torch.structures import Mesh

__all__ = [
    "DEFAULT_KINDS",
    "FOCAL_SHARE",
    "KINDS",
    "TesterShapes",
    "describe_gaps",
    "list_recordings",
    "read_recording",
    "read_tester_shapes",
]

_log = logging.getLogger(__name__)

KINDS = tuple(name.replace(" ", "_") for name in POSE_NAMES)
DEFAULT_KINDS = KINDS
FOCAL_SHARE = 525 / 640
"""Focal length of the camera in widths of its picture."""
_TOPOLOGY, _N_VERTICES = "facewarehouse_11510", 11510
_MOST_NAMED = 8
_FARTHEST_SHARE = 15 / 640  # of the picture's width; real points lie about 3 px of 640 from the mesh's


@dataclass(frozen=True)
class TesterShapes:
    """The blendshapes of one person in mm, the neutral one first, and the triangles of all of them."""

    vertices: Float[Tensor, "shapes V 3"]
    triangles: Int64[Tensor, "T 3"]


def list_recordings(root: str | os.PathLike[str]) -> list[Recording]:
    """Every pose of every person below `root` of which any file is there, by name; the rest is logged as a warning.

    Raises DataFileError where no folder Tester_N is there, for a person found twice, and where nobody has a pose.
    """
    found: list[Recording] = []
    gaps: list[str] = []
    for number, folder in find_testers(root):
        several = [pose_files(folder, pose) for pose in range(len(POSE_NAMES))]
        there = [one for one in several if any(file.exists() for file in (one.obj, one.png, one.land))]
        gaps += describe_gaps(number, [one.pose for one in there])
        found += [
            Recording(
                name=f"Tester_{number:03d}_pose_{one.pose:02d}",
                subject=folder.name,
                kind=KINDS[one.pose],
                code=f"pose_{one.pose}",
                image=one.png,
                files=(one.obj, one.land),
            )
            for one in there
        ]
    if not found:
        got = "; ".join(gaps[:_MOST_NAMED])
        raise damaged(Path(root), "poses", "TrainingPose/pose_0 .. pose_19 in a folder Tester_N", got)
    if gaps:
        more = f"; and {len(gaps) - _MOST_NAMED} more people" if len(gaps) > _MOST_NAMED else ""
        _log.warning("%s: poses that are not there: %s%s", root, "; ".join(gaps[:_MOST_NAMED]), more)
    return sorted(found, key=lambda recording: recording.name)


def describe_gaps(number: int, poses: Sequence[int]) -> list[str]:
    """What Tester_<number> lacks of the 20 poses, in words; nothing where all are there."""
    lacking = sorted(set(range(len(POSE_NAMES))) - set(poses))
    if not lacking:
        return []
    if len(lacking) == len(POSE_NAMES):
        return [f"Tester_{number} has none"]
    return [f"Tester_{number} lacks {', '.join(map(str, lacking))}"]


def read_recording(recording: Recording) -> RecordedScan:
    """Mesh, photograph and landmarks of one pose, in float64.

    A mesh of another topology than the data set's and the free default face's has neither landmarks nor pixels (NaN).
    Raises DataFileError or ImageFileError, naming the file.
    """
    obj, land = recording.files
    for file in (recording.image, land):
        if not file.is_file():
            raise damaged(file, "partner file", f"one beside {obj.name}", "nothing")
    shapes = blendshape_file(obj.parents[1])
    count = read_blendshape_header(shapes).n_vertices if shapes.exists() else None
    mesh = read_quads(obj, n_vertices=count)
    if not bool((mesh.vertices.abs() <= LARGEST_COORDINATE).all()):
        raise damaged(obj, "vertices", f"positions within {LARGEST_COORDINATE / 1000:g} m", "others")
    image = read_image(recording.image)
    height, width = image.shape[1:]
    marks = read_land(land, height=height, width=width)
    rows = _landmark_rows(len(mesh.vertices))
    labelled = torch.full((66, 3), torch.nan, dtype=torch.float64)
    pixels = torch.full((len(mesh.vertices), 2), torch.nan, dtype=torch.float64)
    if rows is not None:
        labelled = mesh.vertices[rows]
        pixels = _places(land, mesh.vertices, rows, marks, (height, width))
    return RecordedScan(Mesh(vertices=mesh.vertices, triangles=split_quads(mesh.faces)), pixels, image, labelled)


@lru_cache(maxsize=4)
def _landmark_rows(n_vertices: int) -> Tensor | None:
    """Vertices of the 66 landmarks; None for a topology that is not known."""
    if n_vertices == _N_VERTICES:
        known = known_landmarks(_TOPOLOGY, _N_VERTICES)
        return torch.tensor([known[point] for point in IBUG_OF_PAPER])
    default = load_topology()
    return default.landmark_vertices if n_vertices == default.n_vertices else None


def _places(land: Path, vertices: Tensor, rows: Tensor, marks: Tensor, size: tuple[int, int]) -> Tensor:
    """Places of the vertices in the photograph, px."""
    known = to_paper66(to_ibug68(marks))[:N_INNER]  # the contour is seen at the silhouette, not at a fixed vertex
    use = torch.isfinite(known).all(dim=1)
    height, width = size
    solid = vertices[rows[:N_INNER][use]]
    try:
        pose = solve_pinhole(solid, known[use], focal=FOCAL_SHARE * width, height=height, width=width)
    except ValueError as error:
        raise damaged(land, "points", "the places of the mesh's landmarks in one photograph", error) from error
    apart = float((pose.project(solid) - known[use]).norm(dim=1).median())
    if not apart <= _FARTHEST_SHARE * width:
        expected = f"places within {_FARTHEST_SHARE * width:g} px of the mesh's landmarks"
        raise damaged(land, "points", expected, f"a median of {apart:.3g} px")
    depth = -(vertices @ pose.rotation.mT + pose.translation)[:, 2]
    if not bool((depth > 1.0).all()):
        raise damaged(land, "points", "places that put the mesh before the camera", f"a depth of {depth.min():g} mm")
    return pose.project(vertices)


def read_tester_shapes(tester: str | os.PathLike[str]) -> TesterShapes:
    """shape.bs of one person's folder with the triangles of shape_0.obj, any number of vertices.

    Raises DataFileError for damage, and where the two differ in their number of vertices.
    """
    file = blendshape_file(Path(tester))
    shapes = read_blendshapes(file)
    mesh = read_quads(file.with_name("shape_0.obj"), n_vertices=shapes.shape[1])
    return TesterShapes(shapes, split_quads(mesh.faces))
