"""Names and counts of FaceWarehouse: 150 people, 20 photographed poses, 47 expressions of a blendshape model."""

from facerecon_torch.formats.testers import EXPRESSION_NAMES

__all__ = ["EXPRESSION_NAMES", "LANDMARK_GROUPS", "N_LANDMARKS", "POSE_NAMES"]

N_LANDMARKS = 74

POSE_NAMES = (
    "neutral",
    "mouth stretch",
    "smile",
    "brow lower",
    "brow raiser",
    "anger",
    "jaw left",
    "jaw right",
    "jaw forward",
    "mouth left",
    "mouth right",
    "dimpler",
    "chin raiser",
    "lip puckerer",
    "lip funneler",
    "sadness",
    "lip roll",
    "grin",
    "cheek blowing",
    "eyes closed",
)

# Rows of a .land file; left and right are those of the picture.
LANDMARK_GROUPS: dict[str, tuple[int, ...]] = {
    "contour": tuple(range(15)),
    "brow_image_right": tuple(range(15, 21)),
    "brow_image_left": tuple(range(21, 27)),
    "eye_image_left": (27, 28, 29, 30, 66, 67, 68, 69),
    "eye_image_right": (31, 32, 33, 34, 70, 71, 72, 73),
    "nose_outline": tuple(range(35, 46)),
    "mouth_outer": tuple(range(46, 58)),
    "mouth_inner": tuple(range(58, 64)),
    "mouth_centre": (64,),
    "nose_tip": (65,),
}
