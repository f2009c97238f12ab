"""A folder in the layout of Bosphorus whose heads are those of the tiny model: small grids, written in no time."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facerecon_torch.data.bosphorus.bnt import BosphorusScan, write_bnt
from facerecon_torch.data.bosphorus.landmarks import IBUG_OF_NAME, NamedLandmarks, write_landmarks
from facerecon_torch.data.recordings import RangeGrid
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.images.write import save_png
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.model.io import save_model
from tests.registration.scanning import scan_grid
from tests.tiny_model import tiny_bilinear

SPACING = 2.5  # mm between the cells of a grid
DENSITY = 1.2  # px per mm of the photographs
KINDS = ("N_N", "E_HAPPY", "LFAU_12", "YR_R10", "O_EYE")


def write_folder(root: Path, subjects: int, scans: int, *, seed: int = 0) -> Path:
    """`scans` recordings of every subject and, beside each picture, its landmarks as .npy; and tiny.safetensors."""
    model = tiny_bilinear()
    save_model(model, root / "tiny.safetensors", storage="float32")
    generator = torch.Generator().manual_seed(seed)
    for subject in range(subjects):
        identity = model.identity_mean + model.identity_variance.sqrt() * torch.randn(6, generator=generator)
        for scan in range(scans):
            kind = KINDS[scan % len(KINDS)]
            stem = root / f"bs{subject:03d}" / f"bs{subject:03d}_{kind}_{scan // len(KINDS)}"
            spread = model.expression_variance.sqrt() * torch.randn(4, generator=generator)
            expression = model.expression_mean + (0 if kind == "N_N" else 0.7) * spread
            vertices = model.vertices(identity, expression)
            _write_recording(stem, vertices, model.topology, generator)
    return root


def _write_recording(stem: Path, vertices: Tensor, topology, generator: torch.Generator) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    angles = 0.15 * torch.randn(3, generator=generator)
    placed = vertices @ euler_to_matrix(*angles.unbind()).mT + torch.tensor([4.0, -6.0, 20.0])
    points, valid = scan_grid(placed, topology.triangles, generator, spacing=SPACING, noise_sd=0.05, spikes=0.0)
    # the photograph is an orthographic one of the same frame: 200 x 260 px around the head
    low, high = placed[:, 0].min() - 15, placed[:, 1].max() + 15
    width, height = 230, 300
    save_png(torch.rand(3, height, width, generator=generator), stem.with_suffix(".png"))

    def seen(where: Tensor) -> Tensor:
        return torch.stack([(where[..., 0] - low) * DENSITY, (high - where[..., 1]) * DENSITY], dim=-1)

    texture = (seen(points) + 1) / torch.tensor([width, height])
    texture = texture.where(valid[..., None], 0.5).double()
    write_bnt(BosphorusScan(RangeGrid(points.double(), valid), texture, f"{stem.name}.png"), stem.with_suffix(".bnt"))
    landmarks = placed[topology.landmark_vertices]
    ibug = from_paper66(landmarks)
    names = tuple(IBUG_OF_NAME)
    named = ibug[list(IBUG_OF_NAME.values())].double()
    write_landmarks(NamedLandmarks(names, named), stem.with_suffix(".lm3"))
    write_landmarks(NamedLandmarks(names, seen(named)), stem.with_suffix(".lm2"))
    np.save(stem.with_suffix(".npy"), seen(ibug).numpy())


def words(root: Path, output: Path, *more: str) -> list[str]:
    """The call that prepares such a folder."""
    told = ["data=bosphorus", f"data.root={root}", f"output={output}", f"model.path={root / 'tiny.safetensors'}"]
    told += ["landmarks=file", "prepare.batch=4", f"prepare.spacing={SPACING}", "prepare.pictures=0"]
    told += ["runtime.device=cpu", "runtime.workers=1", "runtime.progress=false"]
    changed = {word.partition("=")[0] for word in more}
    return ["prepare", *(word for word in told if word.partition("=")[0] not in changed), *more]


def content(folder: Path) -> dict[str, bytes]:
    """Every file whose bytes the recordings alone decide: the report tells the time, the config the workers."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in ("report.json", "config.yaml"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
