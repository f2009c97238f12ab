"""The FRGC v2 layout: compressed range grids of a perspective scanner, with textures aligned to them.

Its size is that of the validation set: 4007 recordings of 466 people. A texture's number is one above that of its range
file; in session Spring2003range the two are equal. Both forms occur in real copies.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from facerecon_torch.data.frgc.files import Texture, write_abs, write_texture
from facerecon_torch.data.frgc.recordings import RecordingName
from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.synthetic.layouts.pinhole import Pinhole, pinhole_landmarks, render_pinhole_image, scan_pinhole
from facerecon_torch.synthetic.layouts.spec import Layout, LayoutSpec, stack_rows
from facerecon_torch.synthetic.layouts.subject import LayoutSubject, draw_layout_subject
from facerecon_torch.synthetic.people.sampling import pose_expression
from facerecon_torch.synthetic.procedural import clipped_normal, uniform
from facerecon_torch.synthetic.render.lighting import draw_light
from facerecon_torch.synthetic.render.photograph import draw_background, draw_camera_settings
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
_BACKGROUND_PX = 256  # px; backgrounds are out of focus
_BYTES = 3_000_000  # one recording
_SENSOR = SensorSpec()

# Share of the recordings and weights of the default face's expressions.
_EXPRESSIONS: tuple[tuple[float, dict[str, float]], ...] = (
    (0.57, {}),
    (0.13, {"mouthSmile": 0.8, "cheekSquint": 0.4, "mouthDimple": 0.2}),
    (0.09, {"jawOpen": 0.55, "browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.7}),
    (0.07, {"noseSneer": 0.8, "mouthUpperUp": 0.4, "browDown": 0.5, "eyeSquint": 0.4}),
    (0.07, {"browInnerUp": 0.7, "mouthFrown": 0.7}),
    (0.07, {"cheekPuff": 0.9, "mouthPress": 0.3}),
)


class _Frgc:
    """Layout with one unit per person, 04200 and up."""

    full_subjects = 466

    def units(self, spec: LayoutSpec) -> list[str]:
        if spec.subjects > 99999 - _FIRST_SUBJECT:
            raise ValueError(f"a subject of FRGC has five digits; got {spec.subjects} subjects")
        return [f"{_FIRST_SUBJECT + subject:05d}" for subject in range(spec.subjects)]

    def names(self, spec: LayoutSpec, unit: str) -> list[str]:
        return [_name(unit, index).stem for index in range(_recordings(spec, unit))]

    def write(self, spec: LayoutSpec, unit: str, output: Path) -> dict[str, Tensor]:
        subject = draw_layout_subject(spec, int(unit) - _FIRST_SUBJECT)
        numbers = range(_recordings(spec, unit))
        return stack_rows([_write_recording(spec, subject, unit, index, output) for index in numbers])

    def bytes_needed(self, spec: LayoutSpec) -> int:
        return _BYTES * sum(_recordings(spec, unit) for unit in self.units(spec))


LAYOUT: Layout = _Frgc()


def _recordings(spec: LayoutSpec, unit: str) -> int:
    count = 9 if int(unit) - _FIRST_SUBJECT < _MORE_OFTEN else 8
    return count if spec.samples is None else min(count, spec.samples)


def _name(unit: str, index: int) -> RecordingName:
    return RecordingName(unit, f"{_FIRST_RECORDING + 2 * index}")


def _write_recording(
    spec: LayoutSpec, subject: LayoutSubject, unit: str, index: int, output: Path
) -> dict[str, Tensor]:
    """The truth of one recording, whose range grid and texture are written below `output`."""
    generator = spec.generator(int(unit) - _FIRST_SUBJECT, "take", index)
    weights = subject.limit_blinks(_draw_expression(subject.expression_names, generator))
    bust = subject.expression_vertices(weights)
    face = bust[: subject.n_face].contiguous()
    pinhole = _draw_scanner(generator)
    image = render_pinhole_image(_with_new_light(subject, generator), bust, pinhole, generator)
    grid = scan_pinhole(subject, bust, pinhole, _SENSOR, generator)
    rounded = RangeGrid((grid.points.double() / _STEP_MM).round() * _STEP_MM, grid.valid)
    session = _SESSIONS[index * len(_SESSIONS) // max(_recordings(spec, unit), len(_SESSIONS))]
    name = _name(unit, index)
    folder = output / _FOLDER / session
    shared = session == _SESSIONS[0]
    comments = ("vivid 3D Data", f"width {_COLUMNS}", f"height {_ROWS}")
    write_texture(Texture(image, comments), folder / f"{(name if shared else name.next).stem}.ppm")
    write_abs(rounded, folder / f"{name.stem}.abs.gz")
    return {
        "subjects": torch.tensor(int(unit)),
        "vertices": face,
        "rotation": pinhole.rotation,
        "translation": pinhole.translation,
        "landmarks": pinhole_landmarks(pinhole, face),
        "expression_weights": weights,
    }


def _draw_expression(names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    shares = torch.tensor([share for share, _ in _EXPRESSIONS])
    recipe = _EXPRESSIONS[int(torch.multinomial(shares, 1, generator=generator))][1]
    return pose_expression(names, recipe, uniform(generator, 0.75, 1.05), generator)


def _with_new_light(subject: LayoutSubject, generator: torch.Generator) -> LayoutSubject:
    """The person with another light, camera setting and background."""
    settings = draw_camera_settings(generator)
    return replace(
        subject,
        light=draw_light(generator),
        settings=replace(settings, blur=min(settings.blur, _MOST_BLUR), grey=False),
        background=draw_background(_BACKGROUND_PX, generator),
    )


def _draw_scanner(generator: torch.Generator) -> Pinhole:
    angles = [clipped_normal(generator, 0.0, sd, -3 * sd, 3 * sd) * (torch.pi / 180) for sd in (4.0, 4.0, 2.5)]
    place = [clipped_normal(generator, 0.0, 10.0, -25.0, 25.0), clipped_normal(generator, -8.0, 6.0, -20.0, 10.0)]
    return Pinhole(
        focal=_FOCAL,
        height=_ROWS,
        width=_COLUMNS,
        rotation=euler_to_matrix(*torch.tensor(angles).unbind()),
        translation=torch.tensor([*place, -uniform(generator, 1030.0, 1700.0)]),
    )
