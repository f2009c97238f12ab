"""The penalties of Eq. 7 chosen on training people, the grid dealt out among the processes of a run."""

from dataclasses import replace

import torch
from torch import Tensor

from facerecon_torch.commands.train.samples import Samples
from facerecon_torch.fitting.landmark_fit import FitSpec
from facerecon_torch.fitting.penalties import EXPRESSION_GRID, IDENTITY_GRID, evaluation_faces, select_penalties
from facerecon_torch.model.base import FaceModel
from facerecon_torch.runtime.ranks import SINGLE, Ranks

__all__ = ["choose_penalties"]


def choose_penalties(model: FaceModel, people: Samples, spec: FitSpec, ranks: Ranks = SINGLE) -> FitSpec:
    """`spec` with the pair of penalties of least vertex error on `people`, the samples of all processes.

    The faces that the choice is made on are sent to all processes; each tries some of the identity penalties.
    """
    everyone = people.everyone(ranks)
    chosen = everyone.places_of(evaluation_faces(len(everyone)))
    own = torch.nonzero(torch.isin(everyone.places, chosen)).flatten()
    judged = people.at(own.to(people.subjects.device))
    among = judged.everyone(ranks)
    landmarks = among.gather(judged.landmarks)
    meshes = among.gather(judged.truth.true_meshes(slice(0, len(judged)), model.identity_mean))
    grid = IDENTITY_GRID[ranks.rank :: ranks.world]
    error = torch.empty(0, len(EXPRESSION_GRID), device=model.device, dtype=model.dtype)
    if grid:
        tried = select_penalties(model, landmarks, meshes, spec, identity_grid=grid, expression_grid=EXPRESSION_GRID)
        error = tried.error.to(model.device)
    order = [k for rank in range(ranks.world) for k in range(rank, len(IDENTITY_GRID), ranks.world)]
    table: Tensor = ranks.gather(error)[torch.argsort(torch.tensor(order, device=error.device))]
    identity, expression = divmod(int(table.argmin()), len(EXPRESSION_GRID))
    return replace(spec, identity_penalty=IDENTITY_GRID[identity], expression_penalty=EXPRESSION_GRID[expression])
