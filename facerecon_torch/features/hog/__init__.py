"""The three evaluations of HOG behind one call: `hog_field` prepares crops once, the field describes points."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog.dense import HogMaps, gather_hog, hog_maps
from facerecon_torch.features.hog.kernels import use_kernel
from facerecon_torch.features.hog.patch import describe_patches, patch_hog
from facerecon_torch.features.hog.spec import HogSpec

__all__ = [
    "HogField",
    "HogMaps",
    "HogSpec",
    "describe_patches",
    "gather_hog",
    "hog",
    "hog_field",
    "hog_maps",
    "patch_hog",
    "use_kernel",
]


@dataclass(frozen=True)
class HogField:
    """Everything of a batch of crops that does not depend on the landmarks: maps (dense) or the crops themselves."""

    source: HogMaps | Float[Tensor, "*b c h w"]
    spec: HogSpec

    def __call__(self, points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n length"]:
        """Descriptors around points in crop px."""
        if isinstance(self.source, HogMaps):
            return gather_hog(self.source, points, self.spec)
        return patch_hog(self.source, points, self.spec, halo=self.spec.evaluation == "patch_halo")


def hog_field(crops: Float[Tensor, "*b c h w"], spec: HogSpec) -> HogField:
    """What `spec.evaluation` can compute before the landmarks are known. Crops in [0, 1], 1 or 3 channels."""
    return HogField(hog_maps(crops, spec) if spec.evaluation == "dense" else crops, spec)


def hog(
    crops: Float[Tensor, "*b c h w"], points: Float[Tensor, "*b n 2"], spec: HogSpec
) -> Float[Tensor, "*b n length"]:
    """Descriptors around points in crop px, evaluated as `spec.evaluation` says."""
    return hog_field(crops, spec)(points)
