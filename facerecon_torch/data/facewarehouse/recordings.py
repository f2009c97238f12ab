"""FaceWarehouse as recordings: each pose is a mesh with its photograph.

The 66 landmarks of a mesh are vertices of the data set's topology. The meshes are not in the camera's frame. The pixels
of the vertices therefore come from a pose that is fitted to the points of the .land file, for a camera like the one
that was used: focal length 525 px at a width of 640 px, axis through the middle of the picture.

    pose_k.poses: int32 frames (1) | uint8 RGB [480, 640, 3] | uint16 depth [480, 640] in mm | 12 bytes of zero

little-endian, rows from the top; the depth is registered to the colours, and 0 where nothing was measured.
"""

import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.data.facewarehouse.landmarks74 import read_land, save_land, to_ibug68
from facerecon_torch.data.facewarehouse.photo_pose import solve_pinhole
from facerecon_torch.data.recordings import LARGEST_COORDINATE, RecordedScan, Recording
from facerecon_torch.files import replacing
from facerecon_torch.formats.facewarehouse import (
    TESTER,
    QuadMesh,
    blendshape_file,
    find_testers,
    read_blendshape_header,
    save_quads,
)
from facerecon_torch.formats.format_errors import format_error
from facerecon_torch.formats.polygon_mesh import read_polygon_mesh
from facerecon_torch.images.read import read_image
from facerecon_torch.images.write import save_png
from facerecon_torch.landmarks.scheme import IBUG_OF_PAPER, N_INNER, N_LANDMARKS, to_paper66
from facerecon_torch.model.default_face import load_topology
from facerecon_torch.model.topology import known_landmarks
from facerecon_torch.structures import Mesh

__all__ = [
    "POSE_NAMES",
    "PoseFiles",
    "PoseSample",
    "pose_files",
    "save_pose",
    "DEFAULT_KINDS",
    "FOCAL_SHARE",
    "KINDS",
    "list_recordings",
    "read_recording",
]

POSE_NAMES = (
    "neutral",
    "mouth stretch",
    "smile",
    "brow lower",
    "brow raiser",
    "anger",
    "jaw left",
    "jaw right",
    "jaw forward",
    "mouth left",
    "mouth right",
    "dimpler",
    "chin raiser",
    "lip puckerer",
    "lip funneler",
    "sadness",
    "lip roll",
    "grin",
    "cheek blowing",
    "eyes closed",
)
"""The 20 photographed expressions, in the order of the files pose_0 .. pose_19."""
_LARGEST_DEPTH = 65535.0
_log = logging.getLogger(__name__)
KINDS = tuple(name.replace(" ", "_") for name in POSE_NAMES)
DEFAULT_KINDS = KINDS
FOCAL_SHARE = 525 / 640
"""Focal length of the camera over the width of its picture."""
_TOPOLOGY, _N_VERTICES = "facewarehouse_11510", 11510
_DM = 2  # decimal exponent of mm per dm
_MOST_NAMED = 8
_FARTHEST_SHARE = 15 / 640  # of the picture's width; real points lie about 3 px of 640 from the mesh's


@dataclass(frozen=True, slots=True)
class PoseFiles:
    """The files of one photograph; `pose` counts from 0 and is an index of POSE_NAMES."""

    tester: int
    pose: int
    obj: Path
    png: Path
    land: Path
    poses: Path


@dataclass(frozen=True, slots=True)
class PoseSample:
    """One photograph: RGB in [0, 1], the person's mesh in this expression (mm), 74 points in px."""

    image: Float[Tensor, "3 height width"]
    mesh: QuadMesh
    landmarks: Float[Tensor, "74 2"]


def pose_files(tester: Path, pose: int) -> PoseFiles:
    """The paths of one pose's files, whether they exist or not. Raises ValueError for a pose outside 0..19."""
    match = TESTER.fullmatch(tester.name)
    if match is None or not 0 <= pose < len(POSE_NAMES):
        raise ValueError(f"a folder Tester_N and a pose in 0..{len(POSE_NAMES) - 1} are required; got {tester}, {pose}")
    stem = tester / "TrainingPose" / f"pose_{pose}"
    obj, png, land, poses = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("obj", "png", "land", "poses"))
    return PoseFiles(tester=int(match.group(1)), pose=pose, obj=obj, png=png, land=land, poses=poses)


def save_pose(sample: PoseSample, files: PoseFiles, *, depth: Float[Tensor, "height width"] | None = None) -> None:
    """Write the files of one pose, the .poses file only with `depth` in mm. Raises ValueError as each writer does."""
    height, width = sample.image.shape[1:]
    save_quads(sample.mesh, files.obj)
    save_png(sample.image, files.png)
    save_land(sample.landmarks, files.land, height=height, width=width)
    if depth is not None:
        _save_poses(sample.image, depth, files.poses)


def _save_poses(colour: Float[Tensor, "3 height width"], depth: Float[Tensor, "height width"], path: Path) -> None:
    """Write one frame; colours are rounded to 8 bits, depths to whole mm."""
    require_shape("colour", colour, (3, *depth.shape))
    for name, values, high in (("colour", colour, 1.0), ("depth", depth, _LARGEST_DEPTH)):
        require_finite(name, values)
        if values.numel() == 0 or float(values.min()) < 0 or float(values.max()) > high:
            raise ValueError(f"{name} must hold values in 0..{high:g}; got {tuple(values.shape)} outside of it")
    pixels = (colour.detach().cpu() * 255).round().byte().permute(1, 2, 0).numpy()
    millimetres = depth.detach().cpu().round().numpy().astype("<u2")
    with replacing(path) as aside:
        aside.write_bytes(struct.pack("<i", 1) + pixels.tobytes() + millimetres.tobytes() + bytes(12))


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
