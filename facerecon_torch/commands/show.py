"""`facerecon show`: an image of a face model (mean face, identity modes, expression components), or the summary and
gallery of a result folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.commands.own_files import require_own
from facerecon_torch.commands.run_summary import GALLERY, gallery_of, summary_of
from facerecon_torch.errors import FaceReconError
from facerecon_torch.files import path_text
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.images.write import save_png
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.io import load_model
from facerecon_torch.report.overlay import OverlaySpec, draw_overlay

__all__ = ["draw_model", "run_show"]

_TILE = 224  # px
_FILLED = 0.94  # of a tile's side, by the largest head
_COLUMNS = 8
_CARDS = 500
_SPREAD = 2.5  # standard deviations of an identity mode


def draw_model(model: FaceModel, *, tile: int = _TILE, columns: int = _COLUMNS) -> Float[Tensor, "3 height width"]:
    """Image of the model: the mean face at several yaws, then identity modes and expressions at +-2.5 sd."""
    alphas, betas, yaws = _examples(model, columns)
    shapes = model.vertices(alphas, betas).float().cpu()
    turned = euler_to_matrix(yaws, torch.zeros_like(yaws), torch.zeros_like(yaws))
    seen = shapes @ turned.mT
    low, high = seen.amin(dim=1), seen.amax(dim=1)
    # One scale for all, at which the largest head leaves a margin; each head in the middle of its tile.
    scale = _FILLED * tile / float((high - low)[:, :2].max())
    middles = (low + high) / 2
    tiles = [_render_tile(shape, middle, scale, model, tile) for shape, middle in zip(seen, middles)]
    return _sheet(tiles, (columns, *(2 * min(columns, n) for n in (model.n_identity, model.n_expression))), columns)


def _sheet(tiles: list[Tensor], groups: tuple[int, ...], columns: int) -> Float[Tensor, "3 height width"]:
    """The tiles in rows of `columns`; every group of them begins a row, and white tiles fill its last one."""
    rows, start = [], 0
    for size in groups:
        group = tiles[start : start + size]
        group += [torch.ones_like(tiles[0])] * (-size % columns)
        rows += [torch.cat(group[i : i + columns], dim=2) for i in range(0, len(group), columns)]
        start += size
    return torch.cat(rows, dim=1)


def _examples(model: FaceModel, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Identity weights, expression weights and yaw (rad) of every tile."""
    mean_alpha, mean_beta = model.identity_mean, model.expression_mean
    alphas, betas = [mean_alpha] * columns, [mean_beta] * columns
    yaws = torch.linspace(-60, 60, columns).deg2rad().tolist()
    sds = model.identity_variance.sqrt()
    for mode in range(min(columns, model.n_identity)):
        step = torch.zeros_like(mean_alpha)
        step[mode] = _SPREAD * sds[mode]
        alphas += [mean_alpha - step, mean_alpha + step]
        betas += [mean_beta] * 2
    sds = model.expression_variance.sqrt()
    for mode in range(min(columns, model.n_expression)):
        step = torch.zeros_like(mean_beta)
        step[mode] = _SPREAD * sds[mode]
        alphas += [mean_alpha] * 2
        betas += [mean_beta - step, mean_beta + step]
    yaws += [0.0] * (len(alphas) - len(yaws))
    return torch.stack(alphas), torch.stack(betas), torch.tensor(yaws)


def _render_tile(
    seen: Float[Tensor, "vertices 3"], middle: Float[Tensor, "3"], scale: float, model: FaceModel, tile: int
) -> Float[Tensor, "3 tile tile"]:
    """A head in the viewer's axes (mm), drawn with `middle` in the middle of the tile at `scale` px/mm."""
    topology = model.topology
    if topology is None:
        raise ValueError("an image needs a complete model with its topology; this model is restricted to some vertices")
    points = (seen - middle) * scale * torch.tensor([1.0, -1.0, 1.0])
    points = points + torch.tensor([(tile - 1) / 2, (tile - 1) / 2, 0.0])
    style = OverlaySpec(opacity=1.0, colour=(0.82, 0.78, 0.74))
    return draw_overlay(torch.ones(3, tile, tile), points, topology.triangles.cpu(), spec=style)


def run_show(arguments: Sequence[str]) -> int:
    """Draw a model, or sum up a result folder; returns 0, or 2 for a wrong call or file."""
    parser = argparse.ArgumentParser(
        prog="facerecon show",
        description="Draw a face model: turned mean face, identity modes, expression components. Or sum up a result "
        "folder of facerecon infer, and write its gallery.html.",
    )
    parser.add_argument("source", help="a native model file (.safetensors), `default`, or a result folder")
    parser.add_argument("output", type=Path, nargs="?", help="the image of a model (.png)")
    parser.add_argument("--cards", type=int, default=_CARDS, help=f"faces of the gallery at most ({_CARDS}); 0: none")
    options = parser.parse_args(arguments)
    folder = Path(options.source)
    try:
        if options.output is None and folder.is_dir():
            return _show_run(folder, options.cards)
        if options.output is None:
            raise ValueError(f"a picture of a model needs OUT.png; a summary needs a result folder; got {folder}")
        model = load_default_face() if options.source == "default" else load_model(options.source)
        save_png(draw_model(model), options.output)
    except (FaceReconError, ValueError, OSError) as error:
        sys.stderr.write(f"facerecon show: {error}\n")
        return 2
    sys.stdout.write(f"{options.output}: {model.n_vertices} vertices, {model.n_identity} x {model.n_expression}\n")
    return 0


def _show_run(folder: Path, cards: int) -> int:
    summary = summary_of(folder)
    facts = summary.facts()
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {value}" for name, value in facts.items()]
    if cards > 0:
        require_own([folder / GALLERY])
        lines.append(f"{'gallery':<{width}}  {gallery_of(folder, summary, limit=cards)}")
    sys.stdout.write("\n".join(map(path_text, lines)) + "\n")
    return 0
