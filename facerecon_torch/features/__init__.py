"""The features of the regressor: HOG around the projected landmarks, and landmark displacements (LD)."""

from facerecon_torch.features.hog import (
    HogField,
    HogMaps,
    HogSpec,
    describe_patches,
    gather_hog,
    hog_field,
    hog_maps,
    patch_hog,
    use_kernel,
)
from facerecon_torch.features.joint import JointSpec, displacement, joint_feature

__all__ = [
    "HogField",
    "HogMaps",
    "HogSpec",
    "JointSpec",
    "describe_patches",
    "displacement",
    "gather_hog",
    "hog_field",
    "hog_maps",
    "joint_feature",
    "patch_hog",
    "use_kernel",
]
