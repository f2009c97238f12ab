"""Synthetic data sets in the files and folders of real data sets (Bosphorus, FaceWarehouse, FRGC)."""

from facerecon_torch.synthetic.layouts.runner import load_truth, write_set
from facerecon_torch.synthetic.layouts.spec import LAYOUTS, Layout, LayoutSpec, LayoutTruth, find_layout

__all__ = ["LAYOUTS", "Layout", "LayoutSpec", "LayoutTruth", "find_layout", "load_truth", "write_set"]
