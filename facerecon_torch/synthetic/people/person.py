"""One person to be photographed: a head with an expression, and the true face beside it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facerecon_torch.fitting.contour import ContourLines
from facerecon_torch.structures import Camera
from facerecon_torch.synthetic.people.head import Head, contour_candidates
from facerecon_torch.synthetic.people.sampling import Subject, draw_expression

__all__ = ["DefaultPerson", "Person", "PosedPerson"]


@dataclass(frozen=True)
class PosedPerson:
    """A person with an expression.

    Attributes:
        neutral: the neutral head, mm in the rendered head's frame.
        head: the head with the expression.
        face: the true face, mm in its model's frame.
        framing: points of this face that the camera keeps inside the image.
        truth: further rows of the truth, `expression_weights` among them.
    """

    neutral: Float[Tensor, "s 3"]
    head: Float[Tensor, "s 3"]
    face: Float[Tensor, "v 3"]
    framing: Float[Tensor, "n 3"]
    truth: dict[str, Tensor]


@runtime_checkable
class Person(Protocol):
    """A person whose expressions are drawn."""

    drawn: Subject

    def pose(self, generator: torch.Generator) -> PosedPerson:
        """The person with a random expression."""
        ...

    def head_camera(self, camera: Camera) -> Camera:
        """The camera that sees the head, in the rendered head's frame, as `camera` sees the face in its model's."""
        ...

    def candidates(self) -> tuple[Int[Tensor, "66"], ContourLines]:
        """The landmark vertices of the face, and the lines along which its contour landmarks move."""
        ...


class DefaultPerson:
    """A person of the default face's source."""

    def __init__(self, head: Head, drawn: Subject) -> None:
        self.drawn, self._head = drawn, head
        neutral = head.source.identity_vertices(drawn.sliders[None])
        self._neutral = neutral[0]
        self._basis = head.source.expression_basis(neutral)[0]

    def pose(self, generator: torch.Generator) -> PosedPerson:
        """The person with a random expression."""
        return self.with_expression(draw_expression(self._head.source.expression_names, generator))

    def with_expression(self, weights: Float[Tensor, "exps"]) -> PosedPerson:
        """The person with these weights of the source's expressions."""
        source = self._head.source
        vertices = self._neutral + torch.tensordot(weights, self._basis, 1)
        face = vertices[: source.n_face].contiguous()
        return PosedPerson(self._neutral, vertices, face, face[self._head.marks], {"expression_weights": weights})

    def head_camera(self, camera: Camera) -> Camera:
        """The same camera: the face is a part of the head."""
        return camera

    def candidates(self) -> tuple[Int[Tensor, "66"], ContourLines]:
        """Those of the default face."""
        return contour_candidates()
