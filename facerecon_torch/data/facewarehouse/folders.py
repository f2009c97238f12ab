"""The folders of FaceWarehouse: where each person's files lie, found or made one after the other."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.facewarehouse.land import read_land, save_land
from facerecon_torch.data.facewarehouse.names import POSE_NAMES
from facerecon_torch.data.facewarehouse.poses import ColourDepth, read_poses, save_poses
from facerecon_torch.formats.blendshapes import read_blendshape_header
from facerecon_torch.formats.format_errors import damaged
from facerecon_torch.formats.quads import QuadMesh, read_quads, save_quads
from facerecon_torch.formats.testers import TESTER, blendshape_file, find_testers
from facerecon_torch.images.read import read_image
from facerecon_torch.images.write import save_png

__all__ = [
    "PoseFiles",
    "PoseSample",
    "blendshape_file",
    "find_testers",
    "iter_poses",
    "pose_files",
    "read_depth",
    "read_pose",
    "save_pose",
]


@dataclass(frozen=True, slots=True)
class PoseFiles:
    """Files of one photograph; `pose` counts from 0 and names an entry of POSE_NAMES."""

    tester: int
    pose: int
    obj: Path
    png: Path
    land: Path
    poses: Path


@dataclass(frozen=True, slots=True)
class PoseSample:
    """One photograph: RGB in [0, 1], the person's mesh in this expression (mm, its pose unknown), 74 points in px."""

    image: Float[Tensor, "3 height width"]
    mesh: QuadMesh
    landmarks: Float[Tensor, "74 2"]


def pose_files(tester: Path, pose: int) -> PoseFiles:
    """Names of the files of one pose, present or not. Raises ValueError for a pose outside 0..19."""
    match = TESTER.fullmatch(tester.name)
    if match is None or not 0 <= pose < len(POSE_NAMES):
        raise ValueError(f"a folder Tester_N and a pose in 0..{len(POSE_NAMES) - 1} are required; got {tester}, {pose}")
    stem = tester / "TrainingPose" / f"pose_{pose}"
    obj, png, land, poses = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("obj", "png", "land", "poses"))
    return PoseFiles(tester=int(match.group(1)), pose=pose, obj=obj, png=png, land=land, poses=poses)


def iter_poses(root: str | os.PathLike[str]) -> Iterator[PoseFiles]:
    """The poses of every person in order, one by one; a person may lack whole poses.

    Raises DataFileError for a pose that lacks its .obj, .png or .land, and for a person without any pose.
    """
    for _, folder in find_testers(root):
        several = [pose_files(folder, pose) for pose in range(len(POSE_NAMES))]
        present = [one for one in several if any(file.exists() for file in (one.obj, one.png, one.land))]
        if not present:
            raise damaged(folder / "TrainingPose", "poses", "pose_0 .. pose_19", "none of them")
        for one in present:
            for file in (one.obj, one.png, one.land):
                if not file.is_file():
                    raise damaged(file, "partner file", f"one beside the others of {file.stem}", "nothing")
            yield one


def read_pose(files: PoseFiles) -> PoseSample:
    """Photograph, mesh and landmarks of one pose; the mesh must have the vertex count of the person's shape.bs,
    where that exists. Raises DataFileError, or ImageFileError for the photograph."""
    image = read_image(files.png)
    shapes = blendshape_file(files.obj.parents[1])
    count = read_blendshape_header(shapes).n_vertices if shapes.exists() else None
    height, width = image.shape[1:]
    return PoseSample(
        image=image,
        mesh=read_quads(files.obj, n_vertices=count),
        landmarks=read_land(files.land, height=height, width=width),
    )


def save_pose(sample: PoseSample, files: PoseFiles, *, depth: Float[Tensor, "height width"] | None = None) -> None:
    """Write the files of one pose, .poses only with `depth` in mm. Raises ValueError as each writer does."""
    height, width = sample.image.shape[1:]
    save_quads(sample.mesh, files.obj)
    save_png(sample.image, files.png)
    save_land(sample.landmarks, files.land, height=height, width=width)
    if depth is not None:
        save_poses(ColourDepth(colour=sample.image, depth=depth), files.poses)


def read_depth(files: PoseFiles) -> ColourDepth:
    """Colour and depth of one pose, of the size of its photograph. Raises DataFileError."""
    height, width = read_image(files.png).shape[1:]
    return read_poses(files.poses, height=height, width=width)
