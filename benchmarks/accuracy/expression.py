"""Weights of named expressions at rest and at their peaks, on rendered faces of known weights and on photographs.

    python -m benchmarks.accuracy.expression set=FOLDER,FOLDER cascade=cascade.safetensors
    python -m benchmarks.accuracy.expression photo=FILE,FILE cascade=cascade.safetensors

`set` are rendered sets (`synthetic.dataset.load_set`) of people whom the cascade was not trained on. Their landmarks
are those of `benchmarks.accuracy.rendered`. `cascade` is the shipped one by default.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.named_weights import NEUTRAL
from facerecon_torch.synthetic.dataset import SyntheticSet, load_set

from ..keys import read_keys
from .rendered import reconstruct_set

__all__ = ["main", "measure"]

_KEYS = ("set", "photo", "cascade")
_PEAK, _CLOSE, _SPURIOUS = 0.5, 0.2, 0.1
_LISTED = 3  # names of a photograph


def measure(weights: Float[Tensor, "n names"], truth: Float[Tensor, "n names"]) -> dict[str, float]:
    """The figures of the table: at rest (no true weight), at peaks (true weights of 0.5 and more), and names at more
    than 0.1 whose true weight is 0, per face."""
    rest, peak = (truth == 0).all(dim=1), truth >= _PEAK
    error = (weights[peak] - truth[peak]).abs() / truth[peak]
    return {
        "faces": len(truth),
        "at_rest": int(rest.sum()),
        "rest_largest": float(weights[rest].amax(dim=1).median()) if rest.any() else torch.nan,
        "rest_sum": float(weights[rest].sum(dim=1).median()) if rest.any() else torch.nan,
        "peaks": int(peak.sum()),
        "recovered": float((error <= _CLOSE).double().mean()) if peak.any() else torch.nan,
        "peak_error": float(error.median()) if peak.any() else torch.nan,
        "spurious": float(((weights > _SPURIOUS) & (truth == 0)).sum(dim=1).double().mean()),
    }


def main(words: Sequence[str]) -> int:
    """Print the table.

    Raises:
        ValueError: an unknown key, or neither set nor photo.
    """
    keys = read_keys(words, _KEYS)
    if not (keys.get("set") or keys.get("photo")):
        raise ValueError("set must be a folder of a rendered set, or photo a file; got neither")
    reconstructor = FaceReconstructor.from_pretrained(keys.get("cascade"))
    if reconstructor.naming is None:
        sys.stdout.write("this cascade does not know its errors: beta is named as if it were exact\n")
    for folder in filter(None, keys.get("set", "").split(",")):
        _print_set(folder, load_set(Path(folder)), reconstructor)
    for file in filter(None, keys.get("photo", "").split(",")):
        _print_photo(file, reconstructor)
    return 0


def _print_set(name: str, rendered: SyntheticSet, reconstructor: FaceReconstructor) -> None:
    model = reconstructor.face_model
    columns = [model.expression_names.index(one) for one in rendered.expression_names]
    rendered, faces = reconstruct_set(rendered, reconstructor)
    truth = rendered.expression_weights.to(model.dtype)
    beta = faces.parameters.expression
    rows = {
        "true beta": model.expression_weights(_true_expression(model, truth, columns)),
        "cascade, named as exact": model.expression_weights(beta),
        "cascade, by its errors": None if faces.naming is None else model.expression_weights(beta, faces.naming),
    }
    for label, weights in rows.items():
        if weights is not None:
            figures = measure(weights[:, columns].cpu(), truth)
            sys.stdout.write(f"{name}: {label}\n    {'  '.join(f'{k} {v:.4g}' for k, v in figures.items())}\n")
    sys.stdout.flush()


def _true_expression(
    model: FaceModel, weights: Float[Tensor, "n names"], columns: list[int]
) -> Float[Tensor, "n expressions"]:
    """beta of known weights: the neutral face and so much of every other."""
    others = [name for name in model.expression_names if name != NEUTRAL]
    order = [others.index(model.expression_names[column]) for column in columns]
    return model.named.origin + weights.to(model.device) @ model.named.directions[order]


def _print_photo(file: str, reconstructor: FaceReconstructor) -> None:
    faces = reconstructor.predict(file, faces="largest")[0]
    if not len(faces):
        sys.stdout.write(f"{file}: no face\n")
        return
    weights = {name: float(weight) for name, weight in faces[0].expression_weights.items() if name != NEUTRAL}
    largest = sorted(weights.items(), key=lambda pair: -pair[1])[:_LISTED]
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in largest)
    sys.stdout.write(f"{file}: sum {sum(weights.values()):.2f}; {listed}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
