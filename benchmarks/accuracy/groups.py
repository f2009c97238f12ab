"""Errors by sex, age and ancestry of rendered people, and how well their alpha tells them apart.

    python -m benchmarks.accuracy.groups set=FOLDER,FOLDER cascade=cascade.safetensors

`set` are rendered sets (`synthetic.dataset.load_set`) of people whom the cascade was not trained on. Errors are MAE in
mm of the whole face after a similarity, with the landmarks of `benchmarks.accuracy.rendered`; `ratio` is the cascade
over the landmark fit with the 95 % interval of a paired bootstrap over people. Ages are thirds of the set; an ancestry
is that of more than half of a person's shares, the others are mixed. AUC is the share of pairs of photographs, one pair
of one person and one of two, of which the first has the larger cosine between standardised alphas.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn.functional import normalize

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.metrics.bootstrap import paired_bootstrap
from facerecon_torch.synthetic.dataset import SyntheticSet, load_set

from ..keys import read_keys
from .baselines import baselines
from .rendered import aligned_error, reconstruct_set

__all__ = ["groups_of", "main", "verification_auc"]

_KEYS = ("set", "cascade")


def main(words: Sequence[str]) -> int:
    """Print the tables.

    Raises:
        ValueError: an unknown key, or no set.
    """
    keys = read_keys(words, _KEYS)
    if not keys.get("set"):
        raise ValueError("set must be the folder of a rendered set; got none")
    reconstructor = FaceReconstructor.from_pretrained(keys.get("cascade"))
    for folder in keys["set"].split(","):
        _print_set(folder, load_set(Path(folder)), reconstructor)
    return 0


def groups_of(macro: Float[Tensor, "n 5"]) -> dict[str, Bool[Tensor, "n"]]:
    """The rows of every group, from gender, age and the shares of ancestries of each row."""
    gender, age = macro[:, 0], macro[:, 1]
    first, second = torch.quantile(age, torch.tensor([1 / 3, 2 / 3])).tolist()
    ancestries = {name: macro[:, 2 + k] > 0.5 for k, name in enumerate(("African", "Asian", "Caucasian"))}
    return {
        "all": torch.ones_like(gender, dtype=torch.bool),
        "female": gender < 0.5,
        "male": gender >= 0.5,
        "youngest third": age <= first,
        "middle third": (age > first) & (age <= second),
        "oldest third": age > second,
        **ancestries,
        "mixed": ~torch.stack(list(ancestries.values())).any(0),
    }


def verification_auc(features: Float[Tensor, "n d"], subjects: Int[Tensor, "n"]) -> float:
    """The area under the ROC curve of the cosine as a test of whether two rows show one person."""
    directions = normalize(features.double(), dim=-1)
    first, second = torch.triu_indices(len(features), len(features), offset=1)
    cosine = (directions @ directions.mT)[first, second]
    same = subjects[first] == subjects[second]
    wins = mannwhitneyu(cosine[same].numpy(), cosine[~same].numpy()).statistic
    return float(wins) / (int(same.sum()) * int((~same).sum()))


def _print_set(name: str, rendered: SyntheticSet, reconstructor: FaceReconstructor) -> None:
    model = reconstructor.face_model
    rendered, faces = reconstruct_set(rendered, reconstructor)
    answers = {**baselines(reconstructor, faces.landmarks), "cascade": faces.parameters}
    errors = {
        method: aligned_error(model, face.identity, face.expression, rendered.vertices)
        for method, face in answers.items()
    }
    people = len(rendered.subjects.unique())
    sys.stdout.write(
        f"{name}: {people} people, {len(rendered)} photographs\n{'':<16}people  {'  '.join(errors)}  ratio\n"
    )
    for group, rows in groups_of(rendered.macro).items():
        if bool(rows.any()):
            part = {method: error[rows] for method, error in errors.items()}
            sys.stdout.write(f"{group:<16}{_line(part, rendered.subjects[rows])}\n")
    deviation = model.identity_variance.sqrt()
    for method in ("landmark fit", "cascade"):
        standardised = (answers[method].identity - model.identity_mean) / deviation
        sys.stdout.write(f"AUC of alpha, {method}: {verification_auc(standardised, rendered.subjects):.4f}\n")
    sys.stdout.flush()


def _line(errors: dict[str, Tensor], subjects: Int[Tensor, "n"]) -> str:
    """Number of people, mean errors, and the ratio of cascade to landmark fit with its interval."""
    generator = torch.Generator().manual_seed(0)
    ratio = paired_bootstrap(errors["cascade"], errors["landmark fit"], subjects, generator, statistic="ratio")
    means = "  ".join(f"{float(error.mean()):>{len(method)}.3f}" for method, error in errors.items())
    interval = " ".join("none" if v is None else f"{v:.3f}" for v in (ratio.mean, ratio.low, ratio.high))
    return f"{len(subjects.unique()):>6}  {means}  {interval}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
