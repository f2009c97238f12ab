"""The files of FaceWarehouse's photographs: where they lie, and how they are written.

    pose_k.poses: int32 frames (1) | uint8 RGB [480, 640, 3] | uint16 depth [480, 640] in mm | 12 bytes of zero

little-endian, rows from the top; the depth is registered to the colours, and 0 where nothing was measured.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.checks import require_finite, require_shape
from facerecon_torch.data.facewarehouse.landmarks74 import save_land
from facerecon_torch.files import replacing
from facerecon_torch.formats.facewarehouse import TESTER
from facerecon_torch.formats.quads import QuadMesh, save_quads
from facerecon_torch.images.write import save_png

__all__ = ["POSE_NAMES", "PoseFiles", "PoseSample", "pose_files", "save_pose"]

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
