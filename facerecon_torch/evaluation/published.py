"""Figures of the paper that tables show beside measured ones."""

__all__ = ["EXPRESSION_SPREAD", "RMSE"]

_PAPER = {("S", "centre"): 2.4628, ("S", "whole"): 2.8522, ("M", "centre"): 2.6308, ("M", "whole"): 3.5101}
RMSE: dict[str, dict[tuple[str, str], float]] = {
    "ours": _PAPER,
    "ours_paper": _PAPER,
    "zhu_fg2015": {("S", "centre"): 2.7586, ("S", "whole"): 3.0641, ("M", "centre"): 2.8437, ("M", "whole"): 3.8224},
}
"""Table 1: RMSE (Eq. 14) in mm on frontal neutral faces of Bosphorus, by method, then (truth, vertex set)."""
EXPRESSION_SPREAD = 3.0
"""Percent by which the MAE of expression classes differs at most (Section 4)."""
