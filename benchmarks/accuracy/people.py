"""The identity of people from several photographs: its error over their number, and how well strangers are told.

    python -m benchmarks.accuracy.people set=FOLDER,FOLDER cascade=cascade.safetensors
    python -m benchmarks.accuracy.people choose=FOLDER

`set` are rendered sets (`synthetic.dataset.load_set`) of people whom the cascade was not trained on, all with the same
number of photographs. Errors are those of the face at rest: MAE in mm of the whole face after a similarity. `choose`
prints what the figures of `cascade/joint_identity.py` were read from; its people must be in no reported set.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.cascade import joint_identity
from facerecon_torch.cascade.joint_identity import JointIdentity, join_identities
from facerecon_torch.cascade.observe import look
from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.structures import FaceParameters
from facerecon_torch.synthetic.dataset import SyntheticSet, load_set

from ..keys import read_keys
from .rendered import aligned_error, neutral_faces, part_of, reconstruct_set

__all__ = ["errors_over_pictures", "main", "shuffled"]

_KEYS = ("set", "choose", "cascade")
_NUMBERS = (1, 2, 3, 4, 6, 8)
_SHRINKAGES = (0.0, 0.1, 0.17, 0.25)
_STEEPNESSES = (0.0, 1.0, 2.0, 4.0)
_PENALTIES = (16.0, 64.0, 256.0, 1024.0)
_YAWS = (0.0, 10.0, 20.0, 30.0, 45.0, 60.0)
_QUANTILES = (0.5, 0.95, 0.99, 1.0)


def main(words: Sequence[str]) -> int:
    """Print the tables.

    Raises:
        ValueError: an unknown key, or neither set nor choose.
    """
    keys = read_keys(words, _KEYS)
    if not (keys.get("set") or keys.get("choose")):
        raise ValueError("set or choose must be the folder of a rendered set; got neither")
    reconstructor = FaceReconstructor.from_pretrained(keys.get("cascade"))
    for folder in filter(None, keys.get("set", "").split(",")):
        _print_errors(folder, *_whole_people(load_set(Path(folder)), reconstructor), reconstructor)
    if keys.get("choose"):
        _print_choices(*_whole_people(load_set(Path(keys["choose"])), reconstructor), reconstructor)
    return 0


def _whole_people(rendered: SyntheticSet, reconstructor: FaceReconstructor) -> tuple[SyntheticSet, Reconstruction]:
    """The people whose faces are found in all of their photographs, and those faces."""
    found, faces = reconstruct_set(rendered, reconstructor)
    each = rendered.spec.images_per_subject
    whole = (found.subjects[:, None] == found.subjects).sum(1) == each
    return part_of(found, whole), faces[whole]


def errors_over_pictures(
    rendered: SyntheticSet, faces: Reconstruction, reconstructor: FaceReconstructor
) -> Iterator[tuple[int, dict[str, float]]]:
    """For every number of photographs the mean errors in mm of one photograph, of the averaged alphas, of the joint
    identity, and of the landmark fit alone, single and joint."""
    model, truth = reconstructor.face_model, neutral_faces(rendered)
    each = rendered.spec.images_per_subject
    rest = model.named.origin.expand(len(faces), -1)
    place = torch.arange(len(faces)) % each

    def error(identity: Tensor, rows: Tensor) -> float:
        return float(aligned_error(model, identity, rest[rows], truth[rows]).mean())

    for number in (n for n in _NUMBERS if n <= each):
        rows = torch.nonzero(place < number)[:, 0]
        first = rows[place[rows] == 0]
        part, subject = faces[rows], rendered.subjects[rows]
        mean = part.parameters.identity.reshape(-1, number, model.n_identity).mean(1)
        fitter = reconstructor.solvers.fitter
        joined, _ = reconstructor.join(part, subject)
        yield number, {
            "single": error(part.parameters.identity, rows),
            "averaged": error(mean, first),
            "joint": error(joined.parameters.identity[::number], first),
            "landmarks_single": error(fitter.fit(part.landmarks).parameters.identity, rows),
            "landmarks_joint": error(
                fitter.fit_joint(part.landmarks, subject).parameters.identity[::number], first
            ),
        }  # fmt: skip


def shuffled(subjects: Int[Tensor, "n"], each: int, strangers: int) -> Int[Tensor, "n"]:
    """The subjects with the last `strangers` photographs of every person moved on to the next people; all photographs
    of such a person then show different people where `strangers` is `each`."""
    place = torch.arange(len(subjects)) % each
    shift = torch.where(place >= each - strangers, (place + 1) * each, 0)
    return subjects[(torch.arange(len(subjects)) + shift) % len(subjects)]


def _person(faces: Reconstruction, subject: Tensor, reconstructor: FaceReconstructor) -> JointIdentity:
    return join_identities(faces.parameters.identity, faces.camera.rotation, subject, reconstructor.face_model)


def _print_errors(name: str, rendered: SyntheticSet, faces: Reconstruction, reconstructor: FaceReconstructor) -> None:
    people, each = len(rendered.subjects.unique()), rendered.spec.images_per_subject
    sys.stdout.write(f"{name}: {people} people of {each} photographs\n")
    for number, row in errors_over_pictures(rendered, faces, reconstructor):
        gain = 100 * (1 - row["joint"] / row["single"])
        sys.stdout.write(
            f"  N {number}  " + "  ".join(f"{k} {v:.3f}" for k, v in row.items()) + f"  gain {gain:.1f} %\n"
        )
    joined, _ = reconstructor.join(faces, rendered.subjects)
    posed = [
        float(aligned_error(reconstructor.face_model, *pair, rendered.vertices).mean())
        for pair in ((f.parameters.identity, f.parameters.expression) for f in (faces, joined))
    ]
    sys.stdout.write(f"  photographs with their expression: single {posed[0]:.3f}  joint {posed[1]:.3f}\n")
    _print_strangers(rendered, faces, reconstructor)


def _print_strangers(rendered: SyntheticSet, faces: Reconstruction, reconstructor: FaceReconstructor) -> None:
    each = rendered.spec.images_per_subject
    wanted = torch.tensor(_QUANTILES).double()
    for strangers in (0, 1, each):
        person = _person(faces, shuffled(rendered.subjects, each, strangers), reconstructor)
        known = torch.arange(len(faces)) % each < each - strangers
        spread = torch.quantile(person.spread.double(), wanted).tolist()
        distance = torch.quantile(person.distance.double(), wanted).tolist()
        sys.stdout.write(
            f"  strangers {strangers} of {each}: mixed {float(person.mixed.double().mean()):.4f}, stranger "
            f"{_share(person.stranger[~known])} of theirs, {_share(person.stranger[known])} of the others; quantiles "
            f"of spread {_row(spread)}, of distance {_row(distance)}\n"
        )
    sys.stdout.flush()


def _share(marks: Tensor) -> str:
    return f"{float(marks.double().mean()):.4f}" if len(marks) else "none"


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _print_choices(rendered: SyntheticSet, faces: Reconstruction, reconstructor: FaceReconstructor) -> None:
    """The spreads of alpha, and errors over the figures to choose."""
    model, each = reconstructor.face_model, rendered.spec.images_per_subject
    off = (faces.parameters.identity - model.identity_mean) / model.identity_variance.sqrt()
    people = off.double().reshape(-1, each, model.n_identity)
    apart = (people - people.mean(1, keepdim=True)).square().mean(-1) * (each / (each - 1))
    within = float(apart.mean())
    between = float(people.mean(1).var(0).mean()) - within / each
    sys.stdout.write(f"within {within:.3f}  between {between:.3f}  ratio {within / between:.3f}\n")
    yaw = faces.euler_degrees[:, 0].abs().reshape(-1, each)
    for low, high in pairwise(_YAWS):
        chosen = (yaw >= low) & (yaw < high)
        sys.stdout.write(
            f"yaw {low:g} to {high:g}: {int(chosen.sum())} faces, within {float(apart[chosen].mean()):.3f}\n"
        )
    _print_grid(rendered, faces, reconstructor)
    _print_penalties(rendered, faces, reconstructor)


def _print_grid(rendered: SyntheticSet, faces: Reconstruction, reconstructor: FaceReconstructor) -> None:
    model, truth = reconstructor.face_model, neutral_faces(rendered)
    held = joint_identity.SHRINKAGE, joint_identity.STEEPNESS
    place = torch.arange(len(faces)) % rendered.spec.images_per_subject
    try:
        for shrinkage in _SHRINKAGES:
            for steepness in _STEEPNESSES:
                joint_identity.SHRINKAGE, joint_identity.STEEPNESS = shrinkage, steepness
                errors = []
                for number in (2, 4, rendered.spec.images_per_subject):
                    rows = torch.nonzero(place < number)[:, 0]
                    alpha = _person(faces[rows], rendered.subjects[rows], reconstructor).identity[::number]
                    rest = model.named.origin.expand(len(alpha), -1)
                    errors.append(float(aligned_error(model, alpha, rest, truth[rows[::number]]).mean()))
                sys.stdout.write(f"shrinkage {shrinkage:g}  steepness {steepness:g}  errors {_row(errors)}\n")
    finally:
        joint_identity.SHRINKAGE, joint_identity.STEEPNESS = held


def _print_penalties(rendered: SyntheticSet, faces: Reconstruction, reconstructor: FaceReconstructor) -> None:
    fitter, landmarks = reconstructor.solvers.fitter, faces.landmarks
    alpha = _person(faces, rendered.subjects, reconstructor).identity
    kept = FaceParameters(alpha, faces.parameters.expression)
    camera, _, _ = look(fitter, kept, landmarks, faces.camera)
    betas: dict[str, Float[Tensor, "n expressions"]] = {"kept": kept.expression}
    betas |= {f"penalty {p:g}": fitter.fit_expression(kept, landmarks, camera, p) for p in _PENALTIES}
    for name, beta in betas.items():
        error = aligned_error(reconstructor.face_model, alpha, beta, rendered.vertices)
        sys.stdout.write(f"expression {name}: {float(error.mean()):.4f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
