"""Histograms of oriented gradients (HOG) around points of crops, evaluated from maps or from patches.

`hog_field` prepares crops once, as `HogSpec.evaluation` says, and the field describes points; `hog` does both.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from facerecon_torch.features.hog.dense import HogMaps, gather_hog, hog_maps, use_kernel
from facerecon_torch.features.hog.patch import describe_patches, patch_hog
from facerecon_torch.features.hog.spec import HogSpec
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.structures import TensorRecord

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
class HogField(TensorRecord):
    """The part of HOG that does not depend on the landmarks: maps (dense evaluation), or the crops themselves.

    Example:
        >>> field = hog_field(torch.rand(2, 3, 320, 320), HogSpec())
        >>> descriptors = field(torch.full((2, 66, 2), 160.0))
    """

    source: HogMaps | Float[Tensor, "*b c h w"]
    spec: HogSpec

    @in_own_precision
    def __call__(self, points: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n length"]:
        """Descriptors around points in crop px."""
        if isinstance(self.source, HogMaps):
            return gather_hog(self.source, points, self.spec)
        return patch_hog(self.source, points, self.spec, halo=self.spec.evaluation == "patch_halo")


@in_own_precision
def hog_field(crops: Float[Tensor, "*b c h w"], spec: HogSpec) -> HogField:
    """The HOG field of crops: maps are made here, patches when points are described.

    Args:
        crops: images in [0, 1] with 1 or 3 channels.
        spec: geometry, variant and evaluation.

    Returns:
        A callable from points in crop px to descriptors.

    Raises:
        ValueError: unless crops have 1 or 3 channels.

    Example:
        >>> field = hog_field(torch.rand(2, 3, 320, 320), HogSpec())
    """
    return HogField(hog_maps(crops, spec) if spec.evaluation == "dense" else crops, spec)


def hog(
    crops: Float[Tensor, "*b c h w"], points: Float[Tensor, "*b n 2"], spec: HogSpec
) -> Float[Tensor, "*b n length"]:
    """HOG descriptors around points. Differentiable with respect to crops and points.

    Args:
        crops: images in [0, 1] with 1 or 3 channels.
        points: in crop px; integers are pixel centres.
        spec: geometry, variant and evaluation.

    Returns:
        A descriptor per point; NaN for a NaN point.

    Raises:
        ValueError: unless crops have 1 or 3 channels.

    Example:
        >>> hog(torch.rand(2, 3, 320, 320), torch.full((2, 66, 2), 160.0), HogSpec()).shape
        torch.Size([2, 66, 496])
    """
    return hog_field(crops, spec)(points)
