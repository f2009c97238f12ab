"""Closed-form ridge regression, its out-of-group choice of penalty, and cascades of it. Knows no faces."""

from facerecon_torch.regression.cascade import Cascade, CascadeSpec, train_cascade
from facerecon_torch.regression.io import cascade_from_tensors, cascade_meta, cascade_to_tensors
from facerecon_torch.regression.logo import leave_group_out
from facerecon_torch.regression.moments import compute_moments, compute_sample_gram, select_rows
from facerecon_torch.regression.ridge import Ridge, choose_form, fit_ridge
from facerecon_torch.regression.stage import (
    DEFAULT_RELATIVE_PENALTIES,
    RidgeSpec,
    Stage,
    StageFit,
    fit_stage,
    predict,
)

__all__ = [
    "DEFAULT_RELATIVE_PENALTIES",
    "Cascade",
    "CascadeSpec",
    "Ridge",
    "RidgeSpec",
    "Stage",
    "StageFit",
    "cascade_from_tensors",
    "cascade_meta",
    "cascade_to_tensors",
    "choose_form",
    "compute_moments",
    "compute_sample_gram",
    "fit_ridge",
    "fit_stage",
    "leave_group_out",
    "predict",
    "select_rows",
    "train_cascade",
]
