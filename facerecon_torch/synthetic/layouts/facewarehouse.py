"""The FaceWarehouse layout: per person a model of 47 expressions, and 20 poses with image and depth.

The meshes have the free default face's topology (the real ones have 11510 vertices of a topology that is not
public). Their frame is a random rotation and translation of the model frame; pose_0 is shape_0 in it. The images are
taken by another camera.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.data.facewarehouse.landmarks74 import from_ibug68
from facerecon_torch.data.facewarehouse.recordings import FOCAL_SHARE, POSE_NAMES, PoseSample, pose_files, save_pose
from facerecon_torch.files import write_bytes
from facerecon_torch.formats.facewarehouse import (
    EXPRESSION_NAMES,
    MM_PER_DM,
    QuadMesh,
    blendshape_file,
    save_blendshapes,
    save_quads,
)
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.model.default_face import load_topology
from facerecon_torch.synthetic.layouts.pinhole import Pinhole, pinhole_landmarks, render_pinhole_image, scan_pinhole
from facerecon_torch.synthetic.layouts.spec import Layout, LayoutSpec, stack_rows
from facerecon_torch.synthetic.layouts.subject import LayoutSubject, draw_layout_subject
from facerecon_torch.synthetic.people.expression_names import FACEWAREHOUSE_UNITS
from facerecon_torch.synthetic.people.sampling import pose_expression
from facerecon_torch.synthetic.procedural import clipped_normal, smooth_step, uniform
from facerecon_torch.synthetic.render.range_sensor import SensorSpec

__all__ = ["LAYOUT", "POSES", "SHAPES", "shape_meshes"]

_HEIGHT, _WIDTH = 480, 640
_SENSOR = SensorSpec(noise_sd=1.5, spike_share=1e-4, projector=8)
_STEP_MM = 1e-4  # positions are rounded to it, six decimals of the files' decimetres
_FOLDER = "FaceWarehouse_Data_0"
_BYTES = (34_000_000, 2_600_000)  # a person's shapes, one pose

POSES: dict[str, dict[str, float]] = {
    "neutral": {},
    "mouth stretch": {"jawOpen": 0.9, "mouthStretch": 0.3},
    "smile": {"mouthSmile": 0.75, "cheekSquint": 0.35},
    "brow lower": {"browDown": 0.95},
    "brow raiser": {"browInnerUp": 0.8, "browOuterUp": 0.8},
    "anger": {"browDown": 0.9, "noseSneer": 0.45, "eyeSquint": 0.4, "mouthPress": 0.4},
    "jaw left": {"jawLeft": 0.85},
    "jaw right": {"jawRight": 0.85},
    "jaw forward": {"jawForward": 0.85},
    "mouth left": {"mouthLeft": 0.8},
    "mouth right": {"mouthRight": 0.8},
    "dimpler": {"mouthDimple": 0.85},
    "chin raiser": {"mouthShrugLower": 0.85, "mouthShrugUpper": 0.4},
    "lip puckerer": {"mouthPucker": 0.85},
    "lip funneler": {"mouthFunnel": 0.8},
    "sadness": {"browInnerUp": 0.7, "mouthFrown": 0.7},
    "lip roll": {"mouthRollUpper": 0.7, "mouthRollLower": 0.7},
    "grin": {"mouthSmile": 0.6, "mouthUpperUp": 0.6, "mouthLowerDown": 0.5},
    "cheek blowing": {"cheekPuff": 0.9, "mouthPress": 0.3},
    "eyes closed": {"eyeBlink": 1.0},
}
"""Pose -> weights of the default face's expressions at full intensity; a name without its side stands for both."""
_MIXED: dict[str, dict[str, float]] = {"Neutral": {}, "LipsLowerOpen": {"mouthLowerDown": 0.6, "jawOpen": 0.2}}


def _levels(name: str) -> dict[str, float]:
    if name in _MIXED:
        return _MIXED[name]
    if name in FACEWAREHOUSE_UNITS:
        return {FACEWAREHOUSE_UNITS[name]: 1.0}
    stem, side = name.rsplit("_", 1)
    unit = FACEWAREHOUSE_UNITS[stem]
    return {unit if unit == "cheekSquint" else f"{unit}{'Left' if side == 'L' else 'Right'}": 1.0}


SHAPES: dict[str, dict[str, float]] = {name: _levels(name) for name in EXPRESSION_NAMES}
"""Shape -> weights of the default face's expressions. L is +x, the person's left."""


class _FaceWarehouse:
    """Layout with one unit per person, Tester_1 to Tester_150."""

    full_subjects = 150

    def units(self, spec: LayoutSpec) -> list[str]:
        return [f"Tester_{subject + 1}" for subject in range(spec.subjects)]

    def names(self, spec: LayoutSpec, unit: str) -> list[str]:
        return [f"Tester_{_number(unit):03d}_pose_{pose:02d}" for pose in _poses(spec)]

    def write(self, spec: LayoutSpec, unit: str, output: Path) -> dict[str, Tensor]:
        number = _number(unit) - 1
        subject = draw_layout_subject(spec, number)
        folder = output / _FOLDER / unit
        frame = _draw_frame(spec.generator(number, "frame"), 2.0, 10.0)
        shapes = shape_meshes(subject) @ frame[0].mT + frame[1]
        _write_shapes(shapes, folder)
        return stack_rows([_write_pose(spec, subject, frame, folder, pose) for pose in _poses(spec)])

    def bytes_needed(self, spec: LayoutSpec) -> int:
        return spec.subjects * (_BYTES[0] + _BYTES[1] * len(_poses(spec)))


LAYOUT: Layout = _FaceWarehouse()


def _number(unit: str) -> int:
    return int(unit.removeprefix("Tester_"))


def _poses(spec: LayoutSpec) -> list[int]:
    """The poses of each person; any number of samples includes the neutral pose."""
    last = len(POSE_NAMES) - 1
    count = last + 1 if spec.samples is None else min(spec.samples, last + 1)
    return [round(k * last / max(count - 1, 1)) for k in range(count)]


def shape_meshes(subject: LayoutSubject) -> Float[Tensor, "47 v 3"]:
    """The 47 shapes of a person on the face model's vertices, mm in the model frame."""
    rows = {name: row for row, name in enumerate(subject.expression_names)}
    basis, neutral = subject.basis[:, : subject.n_face], subject.neutral[: subject.n_face]
    meshes = []
    for name, levels in SHAPES.items():
        offset = sum((level * basis[rows[unit]] for unit, level in levels.items()), torch.zeros_like(neutral))
        if name.startswith("CheekSquint"):  # one unit of both sides in the default face
            sign = 1.0 if name.endswith("_L") else -1.0
            offset = offset * smooth_step(sign * neutral[:, :1], -10.0, 10.0)
        meshes.append(neutral + offset)
    return torch.stack(meshes)


def _draw_frame(generator: torch.Generator, degrees: float, reach: float) -> tuple[Tensor, Tensor]:
    angles = torch.randn(3, generator=generator).clamp(-2, 2) * degrees * (torch.pi / 180)
    return euler_to_matrix(*angles.unbind()), torch.randn(3, generator=generator).clamp(-2, 2) * reach


def _quads(vertices: Float[Tensor, "v 3"]) -> QuadMesh:
    topology = load_topology()
    rounded = (vertices.double() / _STEP_MM).round() * _STEP_MM
    uv = (topology.uv.double() * 1e6).round() / 1e6
    return QuadMesh(vertices=rounded, uv=uv, faces=topology.triangles, face_uv=topology.triangles)


def _write_shapes(shapes: Float[Tensor, "47 v 3"], folder: Path) -> None:
    """Write shape.bs and shape_k.obj; the .obj files differ in their vertex lines only."""
    file = blendshape_file(folder)
    meshes = [_quads(shape) for shape in shapes]
    first = save_quads(meshes[0], file.with_name("shape_0.obj")).read_bytes()
    shared = first[first.index(b"vt ") :]
    for k, mesh in enumerate(meshes[1:], start=1):
        lines = (f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in (mesh.vertices / MM_PER_DM).tolist())
        write_bytes(file.with_name(f"shape_{k}.obj"), "".join(lines).encode("ascii") + shared)
    save_blendshapes(torch.stack([mesh.vertices for mesh in meshes]), file, n_faces=len(meshes[0].faces))


def _draw_camera(generator: torch.Generator) -> Pinhole:
    angles = [clipped_normal(generator, 0.0, sd, -3 * sd, 3 * sd) * (torch.pi / 180) for sd in (6.0, 4.0, 2.5)]
    place = [clipped_normal(generator, 0.0, 12.0, -30.0, 30.0), clipped_normal(generator, -40.0, 8.0, -60.0, -15.0)]
    return Pinhole(
        focal=FOCAL_SHARE * _WIDTH,
        height=_HEIGHT,
        width=_WIDTH,
        rotation=euler_to_matrix(*torch.tensor(angles).unbind()),
        translation=torch.tensor([*place, -uniform(generator, 480.0, 560.0)]),
    )


def _write_pose(
    spec: LayoutSpec, subject: LayoutSubject, frame: tuple[Tensor, Tensor], folder: Path, pose: int
) -> dict[str, Tensor]:
    """The truth of one pose, whose files are written to `folder`."""
    number = _number(folder.name)
    generator = spec.generator(number - 1, "pose", pose)
    strength = uniform(generator, 0.85, 1.05)
    drawn = pose_expression(subject.expression_names, POSES[POSE_NAMES[pose]], strength, generator)
    weights = subject.limit_blinks(drawn)
    bust = subject.expression_vertices(weights)
    face = bust[: subject.n_face].contiguous()
    rotation, translation = frame
    if pose:  # each pose is fitted on its own, so its frame differs a little
        turn, shift = _draw_frame(generator, 1.5, 3.0)
        rotation, translation = turn @ rotation, turn @ translation + shift
    pinhole = _draw_camera(generator)
    landmarks = pinhole_landmarks(pinhole, face)
    image = render_pinhole_image(subject, bust, pinhole, generator)
    grid = scan_pinhole(subject, bust, pinhole, _SENSOR, generator)
    marks = from_ibug68(from_paper66(landmarks.double()))
    sample = PoseSample(image=image, mesh=_quads(face @ rotation.mT + translation), landmarks=marks)
    save_pose(sample, pose_files(folder, pose), depth=-grid.points[..., 2])
    return {
        "subjects": torch.tensor(number),
        "vertices": face,
        "rotation": rotation,
        "translation": translation,
        "landmarks": landmarks,
        "expression_weights": weights,
        "camera_rotation": pinhole.rotation,
        "camera_translation": pinhole.translation,
    }
