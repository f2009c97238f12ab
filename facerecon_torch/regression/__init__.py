"""Closed-form ridge regression, its out-of-group choice of penalty, and cascades of it. Knows no faces."""

from facerecon_torch.regression.cascade import Cascade, CascadeSpec, StageReport, train_cascade
from facerecon_torch.regression.gram import Moments, SampleGram, compute_moments, compute_sample_gram
from facerecon_torch.regression.ridge import Ridge, fit_ridge
from facerecon_torch.regression.row_pass import leave_group_out_primal
from facerecon_torch.regression.search import PathPoint
from facerecon_torch.regression.selection import leave_group_out_dual
from facerecon_torch.regression.stage import Stage, StageFit, fit_stage, predict
from facerecon_torch.regression.stage_spec import DEFAULT_RHOS, StageSpec
from facerecon_torch.regression.streaming import Features, RowSource, select_rows

__all__ = [
    "DEFAULT_RHOS",
    "Cascade",
    "CascadeSpec",
    "Features",
    "Moments",
    "PathPoint",
    "Ridge",
    "RowSource",
    "SampleGram",
    "Stage",
    "StageFit",
    "StageReport",
    "StageSpec",
    "compute_moments",
    "compute_sample_gram",
    "fit_ridge",
    "fit_stage",
    "leave_group_out_dual",
    "leave_group_out_primal",
    "predict",
    "select_rows",
    "train_cascade",
]
