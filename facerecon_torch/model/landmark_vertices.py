"""The vertices of iBUG landmarks on published model topologies, as lists with source and licence."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["LandmarkList", "known_landmarks", "landmark_lists"]

_ASSET = Path(__file__).resolve().parents[1] / "assets" / "landmark_vertices.json"


@dataclass(frozen=True, kw_only=True)
class LandmarkList:
    """One list: iBUG point (0..67) -> vertex (from 0).

    `verified` says how the list was checked; `n_vertices` is the size of the mesh that it belongs to.
    """

    topology: str
    name: str
    n_vertices: int
    source: str
    licence: str
    verified: str
    vertices: dict[int, int]


@lru_cache(maxsize=1)
def _all_lists() -> tuple[LandmarkList, ...]:
    lists = []
    for entry in json.loads(_ASSET.read_text(encoding="utf-8"))["lists"]:
        vertices = dict(zip(entry.pop("ibug"), entry.pop("vertices"), strict=True))
        lists.append(LandmarkList(**entry, vertices=vertices))
    return tuple(lists)


def landmark_lists(topology: str | None = None) -> tuple[LandmarkList, ...]:
    """The lists of one topology, the preferred list first; all lists if `topology` is None."""
    return tuple(entry for entry in _all_lists() if topology in (None, entry.topology))


def known_landmarks(topology: str, n_vertices: int) -> dict[int, int]:
    """iBUG point -> vertex, from the lists of `topology`; empty for a topology without lists.

    The preferred list takes precedence over the others. Some models are published with only the first vertices of
    their topology: points on missing vertices are left out.

    Args:
        topology: Name of the topology.
        n_vertices: Number of vertices of the mesh.

    Raises:
        ValueError: The mesh has more vertices than the lists expect.
    """
    lists = landmark_lists(topology)
    merged: dict[int, int] = {}
    for entry in reversed(lists):
        if n_vertices > entry.n_vertices:
            raise ValueError(
                f"landmark list {topology}/{entry.name} requires a mesh of at most {entry.n_vertices} vertices; "
                f"got {n_vertices}"
            )
        merged |= {point: vertex for point, vertex in entry.vertices.items() if vertex < n_vertices}
    return dict(sorted(merged.items()))
