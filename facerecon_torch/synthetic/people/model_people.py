"""People of a face model: shapes and expressions from the model's own statistics, on the rendered head.

The model's mesh is the truth; the head follows it where the default face corresponds with it (`carrying`). Appearance
is drawn as for people of the default face, independently of the shape.
"""

from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.errors import ModelFileError
from facerecon_torch.fitting.contour import ContourLines, build_contour_lines
from facerecon_torch.geometry.projection import project
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.io import load_model
from facerecon_torch.model.linear import LinearModel
from facerecon_torch.registration.topology.correspondence_file import load_correspondence
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.people.carrying import HeadCarrier
from facerecon_torch.synthetic.people.expression_names import unit_names
from facerecon_torch.synthetic.people.head import load_head
from facerecon_torch.synthetic.people.person import PosedPerson
from facerecon_torch.synthetic.people.sampling import Subject, draw_expression, draw_mixture, knows_posed_faces
from facerecon_torch.synthetic.procedural import uniform

__all__ = ["ModelPeople", "ModelPerson", "load_model_people", "people_digest"]

_IDENTITY_LIMIT, _EXPRESSION_LIMIT = 2.5, 2.0  # standard deviations
_STRENGTHS = (0.2, 1.0)  # of expressions without names, as shares of their standard deviations


def people_digest(model: FaceModel) -> str:
    """The hash of all that the people of a model depend on: the model's own, and the names of its expressions, by which
    these are drawn."""
    names = "\n".join(model.expression_names)
    return sha256(f"{model.sha256}\n{names}".encode()).hexdigest() if names else model.sha256


class ModelPeople:
    """The people of a face model.

    Args:
        model: whole, on the CPU, in float32.
        origin: where it comes from, for errors.

    Raises:
        ModelFileError: it has no topology, or the rendered head cannot follow it.

    Example:
        >>> ModelPeople(load_model("face.safetensors"), "face.safetensors").draw(subject, generator).pose(generator)
    """

    def __init__(self, model: BilinearModel | LinearModel, origin: str) -> None:
        if model.topology is None:
            raise ModelFileError(
                f"{origin}: people of a face model need its triangles and landmarks; it has no topology. Import it "
                "with facerecon import-model"
            )
        self.model = model
        self._rest = _neutral_expression(model)
        neutral = model.vertices(model.identity_mean, self._rest)
        try:
            correspondence = load_correspondence(neutral, model.topology, model.sha256)
        except ModelFileError as error:
            raise ModelFileError(f"{origin}: no people can be drawn from this model: {error}") from error
        self.carrier = HeadCarrier(load_head(), correspondence)
        self.candidates: tuple[Int[Tensor, "66"], ContourLines] = (
            model.topology.landmark_vertices,
            build_contour_lines(neutral, model.topology),
        )
        named = tuple(name for k, name in enumerate(model.expression_names) if k != model.named.neutral)
        self._units = unit_names(named)
        self._posed = knows_posed_faces(self._units)
        self.expression_names = named or tuple(f"component_{k}" for k in range(model.n_expression))
        """Names of the expression weights in the truth."""

    def draw(self, subject: Subject, generator: torch.Generator) -> "ModelPerson":
        """A random person with the appearance of `subject`."""
        model = self.model
        scores = torch.randn(model.n_identity, generator=generator).clamp(-_IDENTITY_LIMIT, _IDENTITY_LIMIT)
        return ModelPerson(self, subject, model.identity_mean + scores * model.identity_variance.sqrt())

    def draw_expression(self, generator: torch.Generator) -> tuple[Float[Tensor, "names"], Float[Tensor, "e"]]:
        """Random weights of `expression_names`, and beta.

        Recipes of posed faces where the names have their units, mixtures of the named expressions where they have not,
        and the prior of beta where the model has no names.
        """
        model = self.model
        if not self._units:
            scores = torch.randn(model.n_expression, generator=generator).clamp(-_EXPRESSION_LIMIT, _EXPRESSION_LIMIT)
            strength = uniform(generator, *_STRENGTHS)
            beta = model.expression_mean + strength * scores * model.expression_variance.sqrt()
            return beta, beta
        if self._posed:
            weights = self._closed_over_the_jaw(draw_expression(self._units, generator))
        else:
            weights = draw_mixture(len(self._units), generator)
        return weights, model.named.origin + weights @ model.named.directions

    def _closed_over_the_jaw(self, weights: Float[Tensor, "names"]) -> Float[Tensor, "names"]:
        """The weights with the jaw as far open as the unit mouthClose asks for: it brings the lips over an open jaw
        together."""
        if {"jawOpen", "mouthClose"} <= set(self._units):
            jaw = self._units.index("jawOpen")
            weights[jaw] = torch.maximum(weights[jaw], weights[self._units.index("mouthClose")])
        return weights

    def rest(self) -> Float[Tensor, "e"]:
        """beta of the neutral expression."""
        return self._rest


class ModelPerson:
    """A person of a face model; `identity` is alpha."""

    def __init__(self, people: ModelPeople, drawn: Subject, identity: Float[Tensor, "i"]) -> None:
        self.drawn, self.identity, self._people = drawn, identity, people
        self._design, offset = people.model.expression_design(identity)
        self._offset = offset
        self._neutral = self._design @ people.rest() + offset

    def pose(self, generator: torch.Generator) -> PosedPerson:
        """The person with a random expression."""
        people = self._people
        weights, beta = people.draw_expression(generator)
        face = self._design @ beta + self._offset
        neutral, head = people.carrier.carry(torch.stack([self._neutral, face]))
        alpha, beta = people.model.fix_gauge(self.identity, beta)
        truth = {"expression_weights": weights, "identity": alpha, "expression": beta}
        return PosedPerson(neutral, head, face, face[people.candidates[0]], truth)

    def head_camera(self, camera: Camera) -> Camera:
        """The camera that sees the head as `camera` sees the face: chained with the alignment of both frames."""
        alignment = self._people.carrier.correspondence.alignment
        return replace(
            camera,
            rotation=camera.rotation @ alignment.rotation,
            scale=camera.scale * alignment.scale,
            translation=project(alignment.translation[None], camera)[0],
        )

    def candidates(self) -> tuple[Int[Tensor, "66"], ContourLines]:
        """Those of the model."""
        return self._people.candidates


def _neutral_expression(model: BilinearModel | LinearModel) -> Float[Tensor, "e"]:
    """beta of the neutral face; of a bilinear model without a neutral row, the mean."""
    unnamed = isinstance(model, BilinearModel) and model.named.neutral is None
    return model.expression_mean if unnamed else model.named.origin


@lru_cache(maxsize=1)
def load_model_people(path: Path) -> ModelPeople:
    """The people of a native model file; those of the last file are kept.

    Raises:
        FileNotFoundError, ModelFileError: the file cannot be read, or no people can be drawn from its model.

    Example:
        >>> load_model_people(Path("face.safetensors")).expression_names
    """
    model = load_model(path).float()
    if not isinstance(model, (BilinearModel, LinearModel)):
        raise ModelFileError(f"{path} must hold a bilinear or linear model; got {type(model).__name__}")
    return ModelPeople(model, str(path))
