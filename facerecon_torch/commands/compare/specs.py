"""The configuration of `facerecon compare`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facerecon_torch.checks import require_count
from facerecon_torch.config.runtime import RuntimeSpec
from facerecon_torch.data.specs import DataSpec
from facerecon_torch.external.folder import system_folders
from facerecon_torch.external.peers import PEERS, EosSpec
from facerecon_torch.landmarks.source import LandmarkSourceSpec
from facerecon_torch.model.load import ModelSpec

__all__ = ["CompareSpecs", "compare_specs"]


@dataclass(frozen=True, kw_only=True)
class CompareSpecs:
    """A whole run of `facerecon compare`; the keys are those of `configs/compare.yaml`."""

    output: Path
    external: tuple[Path, ...]
    triangles: Path | None
    landmark_vertices: Path | None
    peers: tuple[str, ...]
    truth: Path | None
    images: int | None
    points: int
    regions: bool
    cascade: Path | None
    eos: EosSpec
    model: ModelSpec
    data: DataSpec
    landmarks: LandmarkSourceSpec
    runtime: RuntimeSpec

    def __post_init__(self) -> None:
        unknown = [peer for peer in self.peers if peer not in PEERS]
        if unknown:
            raise ValueError(f"peers must be among {', '.join(PEERS)}; got {', '.join(map(str, unknown))}")
        if self.images is not None:
            require_count("images", self.images, 1)
        require_count("points", self.points, 10)
        system_folders(self.external)


def compare_specs(
    *,
    output: str,
    external: str | Sequence[str] | None,
    triangles: str | None,
    landmark_vertices: str | None,
    peers: Sequence[str],
    truth: str | None,
    images: int | None,
    points: int,
    regions: bool,
    cascade: Mapping[str, str | None],
    eos: EosSpec,
    model: ModelSpec,
    data: DataSpec,
    landmarks: LandmarkSourceSpec,
    runtime: RuntimeSpec,
) -> CompareSpecs:
    """The specs of a run from the keys of `configs/compare.yaml`.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    return CompareSpecs(
        output=Path(output),
        external=system_folders(external),
        triangles=None if triangles is None else Path(triangles),
        landmark_vertices=None if landmark_vertices is None else Path(landmark_vertices),
        peers=tuple(peers),
        truth=None if truth is None else Path(truth),
        images=images,
        points=points,
        regions=regions,
        cascade=None if cascade["path"] is None else Path(cascade["path"]),
        eos=eos,
        model=model,
        data=data,
        landmarks=landmarks,
        runtime=runtime,
    )
