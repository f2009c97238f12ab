"""Where the landmarks of the photographs of a data set come from."""

import torch

from facerecon_torch.data.specs import DataSpec, SyntheticPhotos
from facerecon_torch.landmarks.source import LandmarkSourceSpec

__all__ = ["settled_landmarks"]


def settled_landmarks(landmarks: LandmarkSourceSpec, data: DataSpec, device: torch.device) -> LandmarkSourceSpec:
    """The source as it will be used: `auto` becomes a named detector for synthetic sets, and `set` for prepared and
    fitted ones, which bring landmarks.

    Args:
        device: where a detector may run.

    Raises:
        ValueError: `set` landmarks of synthetic sets, `noise` or `truth` of others.
        DetectorError: `auto` landmarks of synthetic sets, and no detector can run.
    """
    if isinstance(data, SyntheticPhotos):
        if landmarks.source == "set":
            raise ValueError("landmarks.source=set is for prepared sets; synthetic ones take noise, truth, a detector")
        return landmarks.settled(device)
    if landmarks.source in ("noise", "truth"):
        raise ValueError(
            f"landmarks.source={landmarks.source} is for synthetic sets; prepared and fitted ones take set "
            "(what they bring) or a detector"
        )
    return LandmarkSourceSpec(source="set") if landmarks.source == "auto" else landmarks
