"""Closed-form ridge regression, its out-of-group choice of penalty, and cascades of it. Knows no faces."""

from facerecon_torch.regression.cascade import Cascade, CascadeSpec, StageReport, train_cascade
from facerecon_torch.regression.gram import SampleGram, compute_sample_gram
from facerecon_torch.regression.ridge import Ridge, fit_ridge
from facerecon_torch.regression.selection import leave_group_out_dual, leave_group_out_primal
from facerecon_torch.regression.stage import DEFAULT_RHOS, PathPoint, Stage, StageFit, StageSpec, fit_stage, predict
from facerecon_torch.regression.streaming import Features, RowSource, select_rows

__all__ = [
    "DEFAULT_RHOS",
    "Cascade",
    "CascadeSpec",
    "Features",
    "PathPoint",
    "Ridge",
    "RowSource",
    "SampleGram",
    "Stage",
    "StageFit",
    "StageReport",
    "StageSpec",
    "compute_sample_gram",
    "fit_ridge",
    "fit_stage",
    "leave_group_out_dual",
    "leave_group_out_primal",
    "predict",
    "select_rows",
    "train_cascade",
]
