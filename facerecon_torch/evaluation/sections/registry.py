"""The experiments by name, in the order of the paper, and what each shows of a study."""

from collections.abc import Callable
from typing import TypeAlias

import torch

from facerecon_torch.evaluation.sections.convergence import ablation
from facerecon_torch.evaluation.sections.curves import fig4_expressions, fig5_poses, fig7_ced
from facerecon_torch.evaluation.sections.numbers import fig10_cross_dataset, methods, table1
from facerecon_torch.evaluation.sections.pictures import fig3_error_maps, fig6_poses_gallery
from facerecon_torch.evaluation.sections.systems import fig8_external, fig9_external_gallery
from facerecon_torch.evaluation.study import Study
from facerecon_torch.evaluation.tables import Section

__all__ = ["SECTIONS", "Builder"]

Builder: TypeAlias = Callable[[Study, torch.Generator], Section]
"""The builder of a section of one study; the generator draws the resamples of intervals."""

SECTIONS: dict[str, Builder] = {
    "methods": methods,
    "table1": table1,
    "fig3_error_maps": fig3_error_maps,
    "fig4_expressions": fig4_expressions,
    "fig5_poses": fig5_poses,
    "fig6_poses_gallery": fig6_poses_gallery,
    "fig7_ced": fig7_ced,
    "fig8_external": fig8_external,
    "fig9_external_gallery": fig9_external_gallery,
    "fig10_cross_dataset": fig10_cross_dataset,
    "ablation": ablation,
}
"""A new experiment is one line here and a file in configs/experiment/ that names it in `sections`."""
