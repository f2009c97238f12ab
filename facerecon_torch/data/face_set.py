"""One labelled set of photographs: what training and evaluation read, whichever data set it came from."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool, Float, Int
from torch import Tensor

from facerecon_torch.structures import FaceParameters

__all__ = ["FaceSet"]


@dataclass(frozen=True)
class FaceSet:
    """Photographs with landmarks and true meshes.

    `landmarks` are 66 points in image px in the paper's order, as a detector would give them, or NaN. `meshes` are M:
    the true surface on the model's topology in the model frame (mm), moved by the ground-truth pose and nothing else.

    Sets made of scans also know g* (`parameters`), which vertices of M the scan holds (`covered`; the others are
    carried along by the registration) and the class of each photograph (`kinds`, as in E_HAPPY).
    """

    name: str
    images: tuple[Path, ...]
    subjects: Int[Tensor, "samples"]
    landmarks: Float[Tensor, "samples 66 2"]
    meshes: Float[Tensor, "samples vertices 3"]
    parameters: FaceParameters | None = None
    covered: Bool[Tensor, "samples vertices"] | None = None
    kinds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        counts = {"images": len(self.images), "subjects": len(self.subjects)}
        counts |= {"landmarks": len(self.landmarks), "meshes": len(self.meshes)}
        counts |= {} if self.parameters is None else {"parameters": len(self.parameters.identity)}
        counts |= {} if self.covered is None else {"covered": len(self.covered)}
        counts |= {} if self.kinds is None else {"kinds": len(self.kinds)}
        if len(set(counts.values())) != 1:
            raise ValueError(f"every column of the set {self.name!r} must have one row a sample; got {counts}")
        if not len(self.images):
            raise ValueError(f"the set {self.name!r} must hold at least one sample; it is empty")

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Int[Tensor, "rows"]) -> "FaceSet":
        """The samples `rows`."""
        return FaceSet(
            self.name,
            tuple(self.images[k] for k in rows.tolist()),
            self.subjects[rows],
            self.landmarks[rows],
            self.meshes[rows],
            None if self.parameters is None else self.parameters[rows],
            None if self.covered is None else self.covered[rows],
            None if self.kinds is None else tuple(self.kinds[k] for k in rows.tolist()),
        )
