"""478 points of each face: Face Mesh V2 on a region around it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facerecon_torch.landmarks.mediapipe.networks import FaceMeshNetwork
from facerecon_torch.landmarks.mediapipe.regions import chunks, cut_faces, face_regions, region_scale, to_image
from facerecon_torch.landmarks.mediapipe.weights import load_network
from facerecon_torch.runtime.precision import in_own_precision

__all__ = ["FaceMesh"]


class FaceMesh(nn.Module):
    """Face Mesh V2 on faces in pictures of any sizes, in batches on the module's device.

    Example:
        >>> faces = FaceDetector()([picture])[0]
        >>> points, presence = FaceMesh()([picture] * len(faces), faces.boxes, faces.points)
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = load_network(FaceMeshNetwork, "face_mesh")

    @torch.no_grad()
    @in_own_precision
    def forward(
        self, images: Sequence[Tensor], boxes: Float[Tensor, "n 4"], points: Float[Tensor, "n 6 2"] | None = None
    ) -> tuple[Float[Tensor, "n 478 3"], Float[Tensor, "n"]]:
        """The points (x, y in image px, z in the same unit away from the camera) and the presence of each face.

        Args:
            images: one for each face: [3, height, width], RGB bytes or floats in [0, 1].
            boxes: (x0, y0, x1, y1) in px, from the brows to the chin.
            points: of `FaceDetector`, whose eyes tell the roll; None: upright faces.

        Returns:
            Points in float64, and probabilities that a face is there.

        Raises:
            ValueError: not one image per box.
        """
        if len(images) != len(boxes):
            raise ValueError(f"there must be one image per box; got {len(images)} and {len(boxes)}")
        network = self.network
        weight = network.stem.weight
        to_region = face_regions(
            boxes.to(weight.device), None if points is None else points.to(weight.device), network.size
        )
        meshes = [boxes.new_zeros(0, network.points, 3, dtype=torch.float64, device=weight.device)]
        presences = [weight.new_zeros(0, dtype=torch.float32)]
        for part in chunks(len(images), weight.device):
            crops = cut_faces(images[part], to_region[part], network.size)
            inside, presence = network(crops.to(weight.dtype))
            meshes.append(_in_image(inside.double(), to_region[part]))
            presences.append(presence.sigmoid())
        return torch.cat(meshes), torch.cat(presences)


def _in_image(points: Float[Tensor, "n 478 3"], to_region: Float[Tensor, "n 2 3"]) -> Float[Tensor, "n 478 3"]:
    """Points of the network, (0, 0) being the corner of the region, in image px."""
    flat = to_image(points[..., :2] - 0.5, to_region)
    return torch.cat([flat, points[..., 2:] / region_scale(to_region)[:, None, None]], -1)
