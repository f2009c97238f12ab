"""Pictures of a few samples of a prepared set for review: landmarks on the photograph, and scan, S* and M."""

from collections.abc import Sequence
from pathlib import Path

import torch

from facerecon_torch.commands.prepare.read import ReadyScan
from facerecon_torch.data.prepared import CROPS
from facerecon_torch.data.recordings import Recording
from facerecon_torch.images.read import read_image
from facerecon_torch.images.write import save_png
from facerecon_torch.model.base import FaceModel
from facerecon_torch.registration.scan.register import Registered
from facerecon_torch.report.registration import draw_landmark_pair, draw_shaded, grid_mesh

__all__ = ["choose_pictured", "draw_sample"]

_PICTURES = "pictures"


def choose_pictured(recordings: Sequence[Recording], count: int) -> frozenset[str]:
    """Names of `count` recordings: one of every class in turn, and within a class one of every subject in turn."""
    turns: list[tuple[int, int, str]] = []
    kinds = list(dict.fromkeys(recording.kind for recording in recordings))
    for place, kind in enumerate(kinds):
        repeats: dict[str, int] = {}
        ordered = []
        for recording in (recording for recording in recordings if recording.kind == kind):
            repeats[recording.subject] = repeats.get(recording.subject, -1) + 1
            ordered.append((repeats[recording.subject], recording.name))
        ordered.sort()
        # the classes start at different subjects; otherwise one person would stand for all of them
        shift = place % len(ordered)
        turns += [(turn, place, name) for turn, (_, name) in enumerate((*ordered[shift:], *ordered[:shift]))]
    return frozenset(name for _, _, name in sorted(turns)[:count])


def draw_sample(folder: Path, image: str, ready: ReadyScan, registered: Registered, model: FaceModel) -> None:
    """Write pictures/NAME_landmarks.png, the crop with the data set's own landmarks beside that with the 66 used, and
    pictures/NAME_scan_fit_mesh.png: scan, S* and M, seen from the sensor. `registered` holds this sample alone.

    Raises ValueError for a model without topology.
    """
    if model.topology is None:
        raise ValueError("a picture needs a whole model; this one was restricted to some vertices")
    name = ready.recording.name
    pair = draw_landmark_pair(read_image(folder / CROPS / image), ready.marks, ready.landmarks)
    save_png(pair, folder / _PICTURES / f"{name}_landmarks.png")
    triangles = model.topology.triangles.cpu()
    parameters = registered.parameters.to(model.device, model.dtype)
    fitted = model.vertices(parameters.identity, parameters.expression).float().cpu()
    meshes = [mesh @ registered.rotation.mT + registered.translation[:, None] for mesh in (fitted, registered.mesh)]
    scan = grid_mesh(ready.scan.points[0], ready.scan.valid[0], longest=4 * ready.scan.spacing)
    with torch.no_grad():
        panels = [scan, *((mesh[0], triangles) for mesh in meshes)]
        save_png(draw_shaded(panels), folder / _PICTURES / f"{name}_scan_fit_mesh.png")
