"""The Bosphorus layout: bsSSS/bsSSS_CLASS_CODE_REP.{png,bnt,lm2,lm3} with synthetic people.

A scan is an orthographic grid of 0.765 mm. Its image is the same view with 6 x 6 px per cell: cell (row, column) lies
at px (6 column, 6 row + 4). Scan frame: mm, +x to image right, +y up, +z to the sensor, any origin.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from facerecon_torch.data.bosphorus.bnt import BosphorusScan, write_bnt
from facerecon_torch.data.bosphorus.landmarks import write_landmarks
from facerecon_torch.data.bosphorus.recordings import ScanName
from facerecon_torch.files import replacing
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.layouts.bosphorus_plan import ANGLES, PEOPLE, draw_angles, draw_weights, plan_subject
from facerecon_torch.synthetic.layouts.bosphorus_points import mark_points, point_vertices, visible_points
from facerecon_torch.synthetic.layouts.spec import LayoutSpec, stack_rows
from facerecon_torch.synthetic.layouts.subject import LayoutSubject, draw_layout_subject, render_image
from facerecon_torch.synthetic.people.head import true_landmarks
from facerecon_torch.synthetic.people.occluders import Occluder, make_glasses, make_hand, make_locks
from facerecon_torch.synthetic.procedural import clipped_normal, smooth_step, uniform
from facerecon_torch.synthetic.render.range_sensor import GridWindow, scan_mesh
from facerecon_torch.synthetic.render.subject import full_mesh

__all__ = ["LAYOUT", "BosphorusLayout"]

_SPACING = 0.765  # mm
_CELL_PX = 6  # image px per cell
_FINER = 2  # the image is rendered at half its resolution
_SCAN_BYTES = 5_000_000  # a scan's four files and its rows of the truth
_HAIR_MEASURED = 0.2  # share of the cells on hair


@dataclass(frozen=True)
class BosphorusLayout:
    """Layout with one unit per person, bs000 to bs104."""

    full_subjects: int = PEOPLE

    def units(self, spec: LayoutSpec) -> list[str]:
        """One name per person. Raises ValueError for more people than the database has."""
        if spec.subjects > PEOPLE:
            raise ValueError(f"subjects must be at most {PEOPLE} in the Bosphorus layout; got {spec.subjects}")
        return [f"bs{subject:03d}" for subject in range(spec.subjects)]

    def names(self, spec: LayoutSpec, unit: str) -> list[str]:
        """The stems of a person's scan files."""
        return [scan.stem for scan in plan_subject(int(unit[2:]), spec.samples)]

    def bytes_needed(self, spec: LayoutSpec) -> int:
        """The estimated size of the whole set."""
        return _SCAN_BYTES * sum(len(self.names(spec, unit)) for unit in self.units(spec))

    def write(self, spec: LayoutSpec, unit: str, output: Path) -> dict[str, Tensor]:
        """The truth of a person's scans, whose files are written below `output`."""
        number = int(unit[2:])
        subject = draw_layout_subject(spec, number)
        scans = plan_subject(number, spec.samples)
        return stack_rows([_write_scan(spec, subject, scan, output / unit) for scan in scans])


LAYOUT = BosphorusLayout()


def _write_scan(spec: LayoutSpec, subject: LayoutSubject, name: ScanName, folder: Path) -> dict[str, Tensor]:
    """The truth of one scan, whose four files are written to `folder`."""
    draw = spec.generator(name.subject, name.kind, name.code, name.repetition)
    weights = subject.limit_blinks(draw_weights(subject.expression_names, name, draw))
    vertices = subject.expression_vertices(weights)
    rotation = euler_to_matrix(*draw_angles(name, draw).unbind())
    shift = torch.tensor([clipped_normal(draw, 0.0, 25.0, -60.0, 60.0) for _ in range(3)])
    occluders, lenses = _occluders(subject, vertices, name, draw)
    window = _window(subject, vertices @ rotation.mT + shift, name, draw)
    head, triangles = full_mesh(subject.head, subject.painted, subject.neutral, vertices)
    share = _reflectance(subject, triangles, lenses)
    n_head = len(head)
    for each in occluders:
        triangles = torch.cat([triangles, each.triangles + len(head)])
        head = torch.cat([head, each.vertices])
        share = torch.cat([share, torch.full((len(each.triangles),), each.reflectance)])
    scene = head @ rotation.mT + shift
    grid = scan_mesh(scene, triangles, generator=draw, window=window, reflectance=share)
    camera = _camera(rotation, shift, window)
    shape = (_CELL_PX * window.rows, _CELL_PX * window.columns)
    image = render_image(subject, vertices, camera, shape, generator=draw, occluders=occluders, finer=_FINER)
    visible = visible_points(scene, triangles, n_head)
    if abs(ANGLES.get(name.code, (0.0, 0.0))[0]) < 20:
        visible[-2:] = False  # ear lobes are marked on turned heads only
    points_2d, points_3d = mark_points(scene[point_vertices()], visible, grid, window, draw)
    with replacing(folder / f"{name.stem}.png") as aside:
        Image.fromarray(image).save(aside, "PNG", compress_level=1)
    write_bnt(BosphorusScan(grid, _texture(window), f"{name.stem}.png"), folder / f"{name.stem}.bnt")
    write_landmarks(points_2d, folder / f"{name.stem}.lm2")
    write_landmarks(points_3d, folder / f"{name.stem}.lm3")
    return {
        "subjects": torch.tensor(name.subject),
        "vertices": vertices[: subject.n_face].contiguous(),
        "rotation": rotation,
        "translation": shift,
        "landmarks": true_landmarks(vertices[: subject.n_face], camera)[0],
        "expression_weights": weights,
        "sliders": subject.sliders,
    }


def _occluders(
    subject: LayoutSubject, vertices: Float[Tensor, "s 3"], name: ScanName, draw: torch.Generator
) -> tuple[list[Occluder], Float[Tensor, "lenses 3"]]:
    """The objects in front of the face in class O, and the centres of spectacle lenses."""
    none = torch.zeros(0, 3)
    if name.kind != "O":
        return [], none
    marks = vertices[subject.head.marks]
    left, right = marks[[36, 39]].mean(0), marks[[42, 45]].mean(0)
    mirrored = uniform(draw) < 0.5
    if name.code == "GLASSES":
        ears = torch.where(subject.head.ears[: len(vertices), None] > 0.5, vertices, torch.nan)
        middle = [ears[side * ears[:, 0] > 0].nanmean(0) for side in (-1.0, 1.0)]
        glasses, lenses = make_glasses(torch.stack([left, right]), torch.stack(middle), draw)
        return [glasses], lenses
    if name.code == "HAIR":
        return [make_locks(vertices[: subject.n_face], subject.painted.look.hair, draw)], none
    skin = subject.painted.look.skin
    if name.code == "EYE":
        eye = (right if mirrored else left) + torch.tensor([0.0, 3.0, 8.0])
        return [make_hand(eye, uniform(draw, 1.0, 1.4), skin, draw, mirrored=mirrored)], none
    mouth = marks[[62]].mean(0) + torch.tensor([0.0, -9.0, 4.0])
    return [make_hand(mouth, uniform(draw, 0.1, 0.5), skin, draw, mirrored=mirrored)], none


def _window(subject: LayoutSubject, scene: Float[Tensor, "s 3"], name: ScanName, draw: torch.Generator) -> GridWindow:
    """The grid cells around the face, with the ears where the head is turned; margins are random."""
    mean = subject.head.source.mean[: subject.n_face]
    turned = abs(ANGLES.get(name.code, (0.0, 0.0))[0]) >= 20
    part = scene[: subject.n_face][(mean[:, 1] < 72) & ((mean[:, 2] > -50) | turned)]
    low, high = part.amin(0), part.amax(0)
    left, top = float(low[0]) - uniform(draw, 2.0, 8.0), float(high[1]) + uniform(draw, 0.0, 6.0)
    width = float(high[0]) + uniform(draw, 2.0, 8.0) - left
    height = top - float(low[1]) + uniform(draw, 1.0, 9.0)
    return GridWindow(
        left=left, top=top, rows=math.ceil(height / _SPACING), columns=math.ceil(width / _SPACING), spacing=_SPACING
    )


def _reflectance(
    subject: LayoutSubject, triangles: Int[Tensor, "t 3"], lenses: Float[Tensor, "lenses 3"]
) -> Float[Tensor, "t"]:
    """The share of each triangle's cells that are measured: 0.2 on hair, half as many behind lenses."""
    head = subject.head
    n = head.n_source
    azimuth, _ = subject.painted.hair.polar(head.reference[:n])
    above = subject.painted.hair.above_line(head.reference[:n], azimuth)
    hairy = smooth_step(above, -3.0, 6.0) * (1 - head.ears[:n])
    if subject.painted.look.hair_style == "bald":
        hairy = torch.zeros_like(hairy)
    share = torch.ones(len(head.reference))
    share[:n] = 1 - (1 - _HAIR_MEASURED) * hairy
    share[head.curtain] = _HAIR_MEASURED
    for lens in lenses:
        off = (head.reference[:, :2] - lens[:2]) / torch.tensor([26.0, 19.0])
        behind = (off.square().sum(1) < 1) & (head.reference[:, 2] > 0)
        share = torch.where(behind, 0.5 * share, share)
    return share[triangles].mean(1)


def _camera(rotation: Float[Tensor, "3 3"], shift: Float[Tensor, "3"], window: GridWindow) -> Camera:
    """The camera from the model frame to px of the scan's image."""
    scale = _CELL_PX / window.spacing
    place = torch.tensor([shift[0] - window.left, window.top - shift[1]]) * scale
    return Camera(
        rotation=rotation,
        scale=torch.tensor(scale),
        translation=place + torch.tensor([0.0, 4.0]),
        degenerate=torch.tensor(False),
    )


def _texture(window: GridWindow) -> Float[Tensor, "rows columns 2"]:
    """Texture coordinates of every cell: u W = 1 + 6 column, v H = H - 1 - 6 row, with row 0 at the bottom."""
    width, height = _CELL_PX * window.columns, _CELL_PX * window.rows
    u = (1 + _CELL_PX * torch.arange(window.columns, dtype=torch.float64)) / width
    v = (height - 1 - _CELL_PX * torch.arange(window.rows - 1, -1, -1, dtype=torch.float64)) / height
    return torch.stack([u.expand(window.rows, -1), v[:, None].expand(-1, window.columns)], dim=-1)
