"""The layout of FRGC v2: compressed range grids of a perspective scanner, with textures that lie on them.

The numbers are those of the validation set: 4007 recordings of 466 people. Its textures carry the number after their
range file's, but for the session Spring2003range, where both have one number: both forms occur in real copies.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.data.frgc.abs_file import write_abs
from facerecon_torch.data.frgc.names import RecordingName
from facerecon_torch.data.frgc.texture import Texture, write_texture
from facerecon_torch.data.range_grid import RangeGrid
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.synthetic.layouts.pinhole import Pinhole, find_landmarks, measure, photograph
from facerecon_torch.synthetic.layouts.spec import Layout, LayoutSpec
from facerecon_torch.synthetic.layouts.subject import Sitter, invite
from facerecon_torch.synthetic.people.sampling import pose_expression
from facerecon_torch.synthetic.procedural import between, uniform
from facerecon_torch.synthetic.render.background import draw_background
from facerecon_torch.synthetic.render.camera_effects import draw_shot
from facerecon_torch.synthetic.render.lighting import draw_light
from facerecon_torch.synthetic.render.range_sensor import SensorSpec

__all__ = ["LAYOUT"]

_ROWS, _COLUMNS = 480, 640
_FOCAL = 1800.0  # px
_FOLDER = "FRGC-2.0-dist/nd1"
_SESSIONS = ("Spring2003range", "Fall2003range", "Spring2004range")
_FIRST_SUBJECT, _FIRST_RECORDING = 4200, 201
_MORE_OFTEN = 279  # people with nine recordings; the others have eight: 4007 in all
_STEP_MM = 1e-4
_MOST_BLUR = 0.8  # px
_BACKDROP = 256  # px; backgrounds are out of focus
_BYTES = 3_000_000  # of one recording
_SENSOR = SensorSpec()

# What people show, and how often.
_EXPRESSIONS: tuple[tuple[float, dict[str, float]], ...] = (
    (0.57, {}),
    (0.13, {"mouthSmile": 0.8, "cheekSquint": 0.4, "mouthDimple": 0.2}),
    (0.09, {"jawOpen": 0.55, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.7}),
    (0.07, {"noseSneer": 0.8, "mouthUpperUp": 0.4, "browDown": 0.5, "eyeSquint": 0.4}),
    (0.07, {"browInnerUp": 0.7, "mouthFrown": 0.7}),
    (0.07, {"cheekPuff": 0.9, "mouthPress": 0.3}),
)


class _Frgc:
    full_subjects = 466

    def units(self, spec: LayoutSpec) -> list[str]:
        if spec.subjects > 99999 - _FIRST_SUBJECT:
            raise ValueError(f"a subject of FRGC has five digits; got {spec.subjects} subjects")
        return [f"{_FIRST_SUBJECT + subject:05d}" for subject in range(spec.subjects)]

    def names(self, spec: LayoutSpec, unit: str) -> list[str]:
        return [_name(unit, take).stem for take in range(_takes(spec, unit))]

    def write(self, spec: LayoutSpec, unit: str, out: Path) -> dict[str, Tensor]:
        sitter = invite(spec, int(unit) - _FIRST_SUBJECT)
        rows = [_write_take(spec, sitter, unit, take, out) for take in range(_takes(spec, unit))]
        table = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        return table | {"subjects": torch.full((len(rows),), int(unit))}

    def bytes_needed(self, spec: LayoutSpec) -> int:
        return _BYTES * sum(_takes(spec, unit) for unit in self.units(spec))


LAYOUT: Layout = _Frgc()


def _takes(spec: LayoutSpec, unit: str) -> int:
    count = 9 if int(unit) - _FIRST_SUBJECT < _MORE_OFTEN else 8
    return count if spec.samples is None else min(count, spec.samples)


def _name(unit: str, take: int) -> RecordingName:
    return RecordingName(unit, f"{_FIRST_RECORDING + 2 * take}")


def _write_take(spec: LayoutSpec, sitter: Sitter, unit: str, take: int, out: Path) -> dict[str, Tensor]:
    """Range grid and texture of one recording, and its row of the truth."""
    generator = spec.generator(int(unit) - _FIRST_SUBJECT, "take", take)
    weights = sitter.meet_lids(_draw_expression(sitter.expression_names, generator))
    bust = sitter.express(weights)
    face = bust[: sitter.n_face].contiguous()
    pinhole = _draw_scanner(generator)
    picture = photograph(_relight(sitter, generator), bust, pinhole, generator)
    grid = measure(sitter, bust, pinhole, _SENSOR, generator)
    rounded = RangeGrid((grid.points.double() / _STEP_MM).round() * _STEP_MM, grid.valid)
    session = _SESSIONS[take * len(_SESSIONS) // max(_takes(spec, unit), len(_SESSIONS))]
    name = _name(unit, take)
    folder = out / _FOLDER / session
    shared = session == _SESSIONS[0]
    comments = ("vivid 3D Data", f"width {_COLUMNS}", f"height {_ROWS}")
    write_texture(Texture(picture, comments), folder / f"{(name if shared else name.next).stem}.ppm")
    write_abs(rounded, folder / f"{name.stem}.abs.gz")
    return {
        "vertices": face,
        "rotation": pinhole.rotation,
        "translation": pinhole.translation,
        "landmarks": find_landmarks(pinhole, face),
        "expression_weights": weights,
    }


def _draw_expression(names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    shares = torch.tensor([share for share, _ in _EXPRESSIONS])
    recipe = _EXPRESSIONS[int(torch.multinomial(shares, 1, generator=generator))][1]
    return pose_expression(names, recipe, uniform(generator, 0.75, 1.05), generator)


def _relight(sitter: Sitter, generator: torch.Generator) -> Sitter:
    """The same person on another day."""
    shot = draw_shot(generator)
    return replace(
        sitter,
        light=draw_light(generator),
        shot=replace(shot, blur=min(shot.blur, _MOST_BLUR), grey=False),
        backdrop=draw_background(_BACKDROP, generator),
    )


def _draw_scanner(generator: torch.Generator) -> Pinhole:
    angles = [between(generator, 0.0, sd, -3 * sd, 3 * sd) * (torch.pi / 180) for sd in (4.0, 4.0, 2.5)]
    place = [between(generator, 0.0, 10.0, -25.0, 25.0), between(generator, -8.0, 6.0, -20.0, 10.0)]
    return Pinhole(
        focal=_FOCAL,
        height=_ROWS,
        width=_COLUMNS,
        rotation=euler_to_matrix(*torch.tensor(angles).unbind()),
        translation=torch.tensor([*place, -uniform(generator, 1030.0, 1700.0)]),
    )
