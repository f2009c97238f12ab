"""The stages of a cascade as modules, whose tensors move and are saved with the reconstructor."""

from torch import Tensor, nn

from facerecon_torch.cascade.checkpoint import ReconstructorSpec
from facerecon_torch.model.base import FaceModel
from facerecon_torch.regression.cascade import Cascade
from facerecon_torch.regression.ridge import Ridge
from facerecon_torch.regression.stage import Stage

__all__ = ["StageModule", "require_stages"]


class StageModule(nn.Module):
    """The tensors of one stage as buffers; `stage` is the stage on their device and in their dtype."""

    weight: Tensor
    bias: Tensor
    block_scales: Tensor

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.register_buffer("weight", stage.ridge.weight)
        self.register_buffer("bias", stage.ridge.bias)
        self.register_buffer("block_scales", stage.block_scales)
        self._penalty, self._form, self._block_sizes = stage.ridge.penalty, stage.ridge.form, stage.block_sizes

    @property
    def stage(self) -> Stage:
        ridge = Ridge(self.weight, self.bias, self._penalty, self._form)
        return Stage(ridge, self._block_sizes, self.block_scales)


def require_stages(model: FaceModel, cascade: Cascade, spec: ReconstructorSpec) -> None:
    """Raise ValueError unless every stage fits the face model and the features."""
    targets = model.n_identity + model.n_expression
    for k, stage in enumerate(cascade.stages):
        if stage.ridge.weight.shape[1] != targets:
            raise ValueError(f"stage {k}: expected {targets} parameters; got {stage.ridge.weight.shape[1]}")
        if stage.block_sizes != spec.features.block_sizes:
            raise ValueError(f"stage {k}: expected feature blocks {spec.features.block_sizes}; got {stage.block_sizes}")
