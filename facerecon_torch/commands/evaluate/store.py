"""Estimates on disk, a file per method and fold, so that a run goes on where it stopped and errors can be measured
again."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facerecon_torch.errors import DataFileError
from facerecon_torch.files import replacing
from facerecon_torch.structures import FaceParameters

__all__ = ["EstimateStore", "FoldEstimates", "digest"]

_KEY = "facerecon"


@dataclass(frozen=True)
class FoldEstimates:
    """The estimates of one method on one fold: `places` are rows of the tested set as it is loaded."""

    parameters: FaceParameters
    places: Int[Tensor, "n"]
    stages: list[dict[str, Any]]
    training: dict[str, int]


def digest(value: Any) -> str:
    """A fingerprint of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class EstimateStore:
    """The folder of the files of one study."""

    folder: Path

    def path(self, method: str, fold: int) -> Path:
        """The file of a method and fold."""
        return self.folder / f"{method}_fold{fold}.safetensors"

    def load(self, method: str, fold: int, fingerprint: str | None) -> FoldEstimates | None:
        """The stored estimates; None where there are none, or those of another configuration than `fingerprint`.

        Args:
            method: its name.
            fold: its number.
            fingerprint: of the configuration; None: whatever it was.

        Raises:
            DataFileError: a damaged file.
        """
        path = self.path(method, fold)
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), framework="pt") as file:
                document = json.loads((file.metadata() or {})[_KEY])
                tensors = {name: file.get_tensor(name) for name in ("identity", "expression", "places")}
        except (SafetensorError, KeyError, ValueError) as error:
            raise DataFileError(f"{path}: expected estimates of facerecon evaluate; {error}") from error
        if fingerprint not in (None, document["fingerprint"]):
            return None
        parameters = FaceParameters(identity=tensors["identity"], expression=tensors["expression"])
        return FoldEstimates(parameters, tensors["places"], document["stages"], document["training"])

    def save(self, method: str, fold: int, estimates: FoldEstimates, fingerprint: str) -> None:
        """Write the estimates aside and rename them."""
        document = {"fingerprint": fingerprint, "stages": estimates.stages, "training": estimates.training}
        tensors = {
            "identity": estimates.parameters.identity,
            "expression": estimates.parameters.expression,
            "places": estimates.places,
        }
        stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with replacing(self.path(method, fold)) as aside:
            save_file(stored, str(aside), metadata={_KEY: json.dumps(document)})

    def folds(self, method: str) -> list[int]:
        """The folds that are stored of a method."""
        names = (path.stem for path in self.folder.glob(f"{method}_fold*.safetensors"))
        return sorted(int(name.removeprefix(f"{method}_fold")) for name in names if name[len(method) + 5 :].isdigit())
