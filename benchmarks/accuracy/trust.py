"""Measures of trust against the true error of the mesh, and the limits that follow from them.

    python -m benchmarks.accuracy.trust set=TEST,SHIFTED noise=0,2 plot=docs/trust.png
    python -m benchmarks.accuracy.trust choose=FOLDER
    python -m benchmarks.accuracy.trust scores=FOLDER detector=mediapipe

`set` are rendered sets (`synthetic.dataset.load_set`); `noise` times the errors of the cascade's noise table are added
to the landmarks of `benchmarks.accuracy.rendered`, each a run of its own. The error is the MAE in mm of the whole face
after a similarity; its rank correlation with every measure has a bootstrap interval over people. `choose` prints the
quantiles and the regression that the figures of `cascade/plausibility.py` were read from; `scores` prints those of a
detector. The people of both must be in no reported set.
"""

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from facerecon_torch.cascade.plausibility import Plausibility
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.images.read import read_image
from facerecon_torch.landmarks.registry import build_detector
from facerecon_torch.synthetic.dataset import SyntheticSet, load_set

from ..keys import read_keys
from .rendered import aligned_error, reconstruct_set

__all__ = ["Measured", "fit_error", "main", "rank_correlation"]

_KEYS = ("set", "choose", "scores", "noise", "plot", "cascade", "detector")
_PREDICTORS = ("residual", "contour_residual", "shape_distance", "view_angle", "disagreement")
_MEASURES = ("predicted_error", "reprojection", "pose_excess", *_PREDICTORS)
_CHOICE_NOISE = (0.0, 1.0, 2.0)  # so that the regression has seen poor landmarks
_QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999, 1.0)
_DRAWS = 200  # of the bootstrap
_BINS = 10  # of the plot


@dataclass(frozen=True)
class Measured:
    """Measures, true errors in mm and people of one run."""

    name: str
    measures: Plausibility
    error: Float[Tensor, "n"]
    subjects: Int[Tensor, "n"]


def main(words: Sequence[str]) -> int:
    """Print the tables and draw the plot.

    Raises:
        ValueError: an unknown key, or neither set nor choose.
    """
    keys = read_keys(words, _KEYS)
    if not (keys.get("set") or keys.get("choose") or keys.get("scores")):
        raise ValueError("set, choose or scores must be the folder of a rendered set; got none")
    if keys.get("scores"):
        _print_scores(load_set(Path(keys["scores"])), keys.get("detector", "mediapipe"))
        if not (keys.get("set") or keys.get("choose")):
            return 0
    reconstructor = FaceReconstructor.from_pretrained(keys.get("cascade"))
    if keys.get("choose"):
        rendered = load_set(Path(keys["choose"]))
        _print_choices([_measured(rendered, reconstructor, noise) for noise in _CHOICE_NOISE])
    runs = []
    for folder in filter(None, keys.get("set", "").split(",")):
        rendered = load_set(Path(folder))
        for noise in map(float, keys.get("noise", "0").split(",")):
            runs.append(_measured(rendered, reconstructor, noise))
            _print_run(runs[-1])
    if runs and keys.get("plot"):
        _draw(runs, Path(keys["plot"]))
    return 0


def rank_correlation(
    measure: Float[Tensor, "n"], error: Float[Tensor, "n"], subjects: Int[Tensor, "n"], generator: torch.Generator
) -> tuple[float, float, float]:
    """Spearman's rank correlation and its 95 % interval over people drawn with replacement."""
    people = [torch.nonzero(subjects == name)[:, 0] for name in subjects.unique()]
    drawn = []
    for _ in range(_DRAWS):
        chosen = torch.randint(len(people), (len(people),), generator=generator).tolist()
        rows = torch.cat([people[k] for k in chosen])
        drawn.append(_spearman(measure[rows], error[rows]))
    low, high = torch.tensor(drawn).double().quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return _spearman(measure, error), low, high


def _spearman(one: Tensor, other: Tensor) -> float:
    if bool((one == one[0]).all()):
        return 0.0  # a measure that does not change tells nothing
    return float(spearmanr(one.numpy(), other.numpy()).statistic)


def fit_error(measures: Mapping[str, Float[Tensor, "n"]], error: Float[Tensor, "n"]) -> dict[str, float]:
    """The least-squares intercept (`at_rest`) and slopes of the logarithm of the error."""
    columns = torch.stack([torch.ones_like(error), *measures.values()], dim=1).double()
    answer = torch.linalg.lstsq(columns, error.double().log()[:, None]).solution[:, 0]
    return dict(zip(("at_rest", *measures), answer.tolist()))


def _measured(rendered: SyntheticSet, reconstructor: FaceReconstructor, noise: float) -> Measured:
    rendered, faces = reconstruct_set(rendered, reconstructor, noise=noise)
    parameters = faces.parameters
    error = aligned_error(reconstructor.face_model, parameters.identity, parameters.expression, rendered.vertices)
    name = f"{rendered.spec.family}, {noise:g} x landmark errors added"
    return Measured(name, faces.plausibility.to(torch.float64), error, rendered.subjects)


def _print_run(run: Measured) -> None:
    marked = ~run.measures.plausible
    trusted, doubted = run.error[~marked].mean(), run.error[marked].mean()
    sys.stdout.write(
        f"{run.name}: {len(run.error)} faces, error {float(run.error.mean()):.3f} mm, predicted "
        f"{float(run.measures.predicted_error.mean()):.3f}; marked {float(marked.double().mean()):.4f}, error of "
        f"trusted faces {float(trusted):.3f}, of marked ones {float(doubted):.3f}\n"
    )
    generator = torch.Generator().manual_seed(0)
    for name in _MEASURES:
        middle, low, high = rank_correlation(getattr(run.measures, name), run.error, run.subjects, generator)
        sys.stdout.write(f"    rank correlation {name:<18} {middle:5.2f} ({low:.2f} to {high:.2f})\n")
    sys.stdout.flush()


def _print_choices(runs: Sequence[Measured]) -> None:
    measures, error = Plausibility.cat([run.measures for run in runs]), torch.cat([run.error for run in runs])
    fitted = fit_error({name: getattr(measures, name) for name in _PREDICTORS}, error)
    sys.stdout.write("log error: " + "  ".join(f"{name} {value:.4g}" for name, value in fitted.items()) + "\n")
    for run in runs:
        sys.stdout.write(f"{run.name}; quantiles {', '.join(f'{q:g}' for q in _QUANTILES)}\n")
        predicted = fitted["at_rest"] + sum(fitted[name] * getattr(run.measures, name) for name in _PREDICTORS)
        for name, values in (
            ("error", run.error),
            ("predicted_error, refitted", torch.as_tensor(predicted).exp()),
            *((name, getattr(run.measures, name)) for name in _MEASURES),
        ):
            listed = torch.quantile(values.double(), torch.tensor(_QUANTILES).double())
            sys.stdout.write(f"    {name:<26}" + "".join(f"{value:9.3g}" for value in listed) + "\n")
    sys.stdout.flush()


def _print_scores(rendered: SyntheticSet, name: str) -> None:
    """Quantiles of the scores of the best detection of each photograph."""
    detector = build_detector(name)
    faces = [detector.detect([read_image(file)])[0] for file in rendered.images]
    scores = torch.tensor([max(face.score for face in found) for found in faces if found]).double()
    listed = torch.quantile(scores, torch.tensor(_QUANTILES).double())
    sys.stdout.write(f"scores of {len(scores)} of {len(faces)}: " + "".join(f"{value:9.3g}" for value in listed) + "\n")


def _draw(runs: Sequence[Measured], path: Path) -> None:
    """The mean true error over the predicted one, by tenths of the faces. Raises ImportError without matplotlib."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(6, 5), layout="constrained")
    plot = figure.add_subplot()
    for run in runs:
        parts = torch.argsort(run.measures.predicted_error).tensor_split(_BINS)
        predicted = [float(run.measures.predicted_error[part].mean()) for part in parts]
        plot.plot(predicted, [float(run.error[part].mean()) for part in parts], marker="o", label=run.name)
    low, high = plot.get_xlim()
    plot.plot([low, high], [low, high], color="grey", linestyle=":", label="predicted = true")
    plot.set_xlabel("predicted error, mm")
    plot.set_ylabel("true error, mm (mean of each tenth)")
    plot.grid(True, alpha=0.3)
    plot.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
