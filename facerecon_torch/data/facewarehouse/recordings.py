"""FaceWarehouse as recordings: each pose is a mesh with its photograph.

The 66 landmarks of a mesh are vertices of the data set's topology. The meshes are not in the camera's frame. The pixels
of the vertices therefore come from a pose that is fitted to the points of the .land file, for a camera like the one
that was used: focal length 525 px at a width of 640 px, axis through the middle of the picture.
"""

import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.data.facewarehouse.folders import POSE_NAMES, pose_files
from facerecon_torch.data.facewarehouse.landmarks74 import read_land, to_ibug68
from facerecon_torch.data.facewarehouse.photo_pose import solve_pinhole
from facerecon_torch.data.range_grid import LARGEST_COORDINATE
from facerecon_torch.data.recordings import RecordedScan, Recording
from facerecon_torch.formats.facewarehouse import blendshape_file, find_testers, read_blendshape_header
from facerecon_torch.formats.format_errors import format_error
from facerecon_torch.formats.polygon_mesh import read_polygon_mesh
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, N_INNER, N_LANDMARKS, to_paper66
from facerecon_torch.model.default_face import load_topology
from facerecon_torch.model.landmark_vertices import known_landmarks
from facerecon_torch.structures import Mesh

__all__ = ["DEFAULT_KINDS", "FOCAL_SHARE", "KINDS", "list_recordings", "read_recording"]

_log = logging.getLogger(__name__)

KINDS = tuple(name.replace(" ", "_") for name in POSE_NAMES)
DEFAULT_KINDS = KINDS
FOCAL_SHARE = 525 / 640
"""Focal length of the camera over the width of its picture."""
_TOPOLOGY, _N_VERTICES = "facewarehouse_11510", 11510
_DM = 2  # decimal exponent of mm per dm
_MOST_NAMED = 8
_FARTHEST_SHARE = 15 / 640  # of the picture's width; real points lie about 3 px of 640 from the mesh's


def list_recordings(root: str | os.PathLike[str]) -> list[Recording]:
    """The poses of which at least one file exists, by name; missing poses are logged as a warning.

    Args:
        root: The data set's folder, with folders Tester_N or FaceWarehouse_Data_* in it.

    Raises:
        DataFileError: There is no person or no pose, or a person has two folders.
    """
    recordings: list[Recording] = []
    gaps: list[str] = []
    for number, folder in find_testers(root):
        poses = [pose_files(folder, pose) for pose in range(len(POSE_NAMES))]
        present = [pose for pose in poses if any(file.exists() for file in (pose.obj, pose.png, pose.land))]
        gaps += _describe_gaps(number, [pose.pose for pose in present])
        recordings += [
            Recording(
                name=f"Tester_{number:03d}_pose_{pose.pose:02d}",
                subject=folder.name,
                kind=KINDS[pose.pose],
                code=f"pose_{pose.pose}",
                image=pose.png,
                files=(pose.obj, pose.land),
            )
            for pose in present
        ]
    if not recordings:
        actual = "; ".join(gaps[:_MOST_NAMED])
        raise format_error(Path(root), "poses", "TrainingPose/pose_0 .. pose_19 in a folder Tester_N", actual)
    if gaps:
        more = f"; and {len(gaps) - _MOST_NAMED} more people" if len(gaps) > _MOST_NAMED else ""
        _log.warning("%s: missing poses: %s%s", root, "; ".join(gaps[:_MOST_NAMED]), more)
    return sorted(recordings, key=lambda recording: recording.name)


def _describe_gaps(number: int, poses: Sequence[int]) -> list[str]:
    """At most one sentence with the missing poses of one person."""
    missing = sorted(set(range(len(POSE_NAMES))) - set(poses))
    if not missing:
        return []
    if len(missing) == len(POSE_NAMES):
        return [f"Tester_{number} has none"]
    return [f"Tester_{number} lacks {', '.join(map(str, missing))}"]


def read_recording(recording: Recording) -> RecordedScan:
    """The mesh, photograph and landmarks of one pose, in float64.

    Landmarks and pixels are NaN for a mesh that has neither the data set's topology nor that of the default face.

    Raises:
        DataFileError: A file is missing or damaged, or mesh and landmarks contradict each other.
        ImageFileError: The photograph cannot be read.
    """
    obj, land = recording.files
    for file in (recording.image, land):
        if not file.is_file():
            raise format_error(file, "partner file", f"one beside {obj.name}", "nothing")
    shapes = blendshape_file(obj.parents[1])
    count = read_blendshape_header(shapes).n_vertices if shapes.exists() else None
    mesh = read_polygon_mesh(obj, n_vertices=count, exponent=_DM)
    if not bool((mesh.vertices.abs() <= LARGEST_COORDINATE).all()):
        raise format_error(obj, "vertices", f"positions within {LARGEST_COORDINATE / 1000:g} m", "others")
    image = read_image(recording.image)
    height, width = image.shape[1:]
    marks = read_land(land, height=height, width=width)
    rows = _landmark_rows(len(mesh.vertices))
    labelled = torch.full((N_LANDMARKS, 3), torch.nan, dtype=torch.float64)
    pixels = torch.full((len(mesh.vertices), 2), torch.nan, dtype=torch.float64)
    if rows is not None:
        labelled = mesh.vertices[rows]
        pixels = _pixels(land, mesh.vertices, rows, marks, (height, width))
    return RecordedScan(Mesh(vertices=mesh.vertices, triangles=mesh.triangles), pixels, image, labelled)


@lru_cache(maxsize=4)
def _landmark_rows(n_vertices: int) -> Tensor | None:
    """The vertices of the 66 landmarks; None for an unknown topology."""
    if n_vertices == _N_VERTICES:
        vertices = known_landmarks(_TOPOLOGY, _N_VERTICES)
        return torch.tensor([vertices[point] for point in IBUG_OF_PAPER])
    default = load_topology()
    return default.landmark_vertices if n_vertices == default.n_vertices else None


def _pixels(land: Path, vertices: Tensor, rows: Tensor, marks: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels of the vertices in the photograph."""
    inner = to_paper66(to_ibug68(marks))[:N_INNER]  # contour points lie on the silhouette, not at a fixed vertex
    use = torch.isfinite(inner).all(dim=1)
    height, width = size
    solid = vertices[rows[:N_INNER][use]]
    try:
        pose = solve_pinhole(solid, inner[use], focal=FOCAL_SHARE * width, height=height, width=width)
    except ValueError as error:
        raise format_error(land, "points", "the places of the mesh's landmarks in one photograph", error) from error
    apart = float((pose.project(solid) - inner[use]).norm(dim=1).median())
    if not apart <= _FARTHEST_SHARE * width:
        expected = f"places within {_FARTHEST_SHARE * width:g} px of the mesh's landmarks"
        raise format_error(land, "points", expected, f"a median of {apart:.3g} px")
    depth = -(vertices @ pose.rotation.mT + pose.translation)[:, 2]
    if not bool((depth > 1.0).all()):
        raise format_error(
            land, "points", "places that put the mesh before the camera", f"a depth of {depth.min():g} mm"
        )
    return pose.project(vertices)
