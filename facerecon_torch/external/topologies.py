"""The seven alignment points on meshes of published topologies, which are recognised by their number of vertices."""

from functools import lru_cache

from facerecon_torch.metrics.scan import SEVEN_POINTS
from facerecon_torch.model.topology import known_landmarks, landmark_lists

__all__ = ["KnownTopology", "find_topology", "seven_of"]

KnownTopology = tuple[str, tuple[int, ...]]


@lru_cache(maxsize=1)
def _known() -> dict[int, KnownTopology]:
    known: dict[int, KnownTopology] = {}
    for entry in landmark_lists():
        vertices = known_landmarks(entry.topology, entry.n_vertices)
        if entry.n_vertices not in known and all(point in vertices for point in SEVEN_POINTS):
            known[entry.n_vertices] = entry.topology, tuple(vertices[point] for point in SEVEN_POINTS)
    return known


def find_topology(n_vertices: int) -> KnownTopology | None:
    """The name of the published topology with so many vertices and its vertices at `SEVEN_POINTS`; None if unknown.

    Example:
        >>> find_topology(5023)[0]
        'flame_5023'
    """
    return _known().get(n_vertices)


def seven_of(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The vertices of the seven points from those of 7, or of 68 in iBUG order."""
    return numbers if len(numbers) == len(SEVEN_POINTS) else tuple(numbers[point] for point in SEVEN_POINTS)
