"""Pictures of a few samples of a prepared set, for the eye: landmarks on the photograph, and scan, S* and M."""

from collections.abc import Sequence
from pathlib import Path

import torch

from facerecon_torch.commands.prepare.read import ReadyScan
from facerecon_torch.data.prepared import CROPS, PreparedRows
from facerecon_torch.data.recordings import Recording
from facerecon_torch.images.read import read_image
from facerecon_torch.images.write import save_png
from facerecon_torch.model.base import FaceModel
from facerecon_torch.report.registration import draw_landmark_pair, draw_shaded, grid_mesh

__all__ = ["PICTURES", "choose_pictured", "draw_sample"]

PICTURES = "pictures"


def choose_pictured(recordings: Sequence[Recording], count: int) -> frozenset[str]:
    """Names of `count` recordings: of every class in turn, and within a class of one subject after the other."""
    turns: list[tuple[int, int, str]] = []
    kinds = list(dict.fromkeys(recording.kind for recording in recordings))
    for place, kind in enumerate(kinds):
        of_kind = [recording for recording in recordings if recording.kind == kind]
        seen: dict[str, int] = {}
        ordered = []
        for recording in of_kind:
            seen[recording.subject] = seen.get(recording.subject, -1) + 1
            ordered.append((seen[recording.subject], recording.name))
        # the classes start at different subjects, or one person would stand for all of them
        ordered.sort()
        shift = place % len(ordered)
        turned = [name for _, name in (*ordered[shift:], *ordered[:shift])]
        turns += [(turn, place, name) for turn, name in enumerate(turned)]
    return frozenset(name for _, _, name in sorted(turns)[:count])


def draw_sample(folder: Path, ready: ReadyScan, rows: PreparedRows, row: int, model: FaceModel) -> None:
    """Write pictures/NAME_landmarks.png, the crop with the data set's own landmarks beside that with the 66 used, and
    pictures/NAME_scan_fit_mesh.png: scan, S* and M, seen from the sensor.

    Raises ValueError for a model without topology.
    """
    if model.topology is None:
        raise ValueError("a picture needs a whole model; this one was restricted to some vertices")
    name = rows.names[row]
    crop = read_image(folder / CROPS / rows.images[row])
    pair = draw_landmark_pair(crop, ready.marks, ready.landmarks)
    save_png(pair, folder / PICTURES / f"{name}_landmarks.png")
    triangles = model.topology.triangles.cpu()
    weights = (rows.tables[key][row].to(model.device, model.dtype) for key in ("identity", "expression"))
    fitted = model.vertices(*weights).float().cpu()
    rotation, translation = rows.tables["rotation"][row], rows.tables["translation"][row]
    posed = [(mesh @ rotation.mT + translation, triangles) for mesh in (fitted, rows.tables["meshes"][row])]
    scan = grid_mesh(ready.scan.points[0], ready.scan.valid[0], longest=4 * ready.scan.spacing)
    with torch.no_grad():
        save_png(draw_shaded([scan, *posed]), folder / PICTURES / f"{name}_scan_fit_mesh.png")
