"""Which vertices of known model topologies are iBUG landmarks: lists by others, each with its source and licence."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

__all__ = ["LandmarkList", "known_landmarks", "landmark_lists"]

_ASSET = Path(__file__).resolve().parents[1] / "assets" / "landmark_vertices.json"


@dataclass(frozen=True, kw_only=True)
class LandmarkList:
    """One list: point of the iBUG 68 scheme (from 0) -> vertex (from 0).

    `verified` says how far the list was checked, `n_vertices` for which mesh it counts.
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
    """The lists for one topology, the preferred one first; all lists without a name."""
    return tuple(found for found in _all_lists() if topology in (None, found.topology))


def known_landmarks(topology: str, n_vertices: int) -> dict[int, int]:
    """iBUG point -> vertex from the lists for `topology`; empty for a topology without a list.

    The preferred list wins, others fill what it lacks. A mesh with fewer vertices than the lists count is taken
    for the first part of the topology, as models are published in both forms: points beyond it are left out.
    Raises ValueError for a mesh with more vertices, to which the indices cannot belong.
    """
    lists = landmark_lists(topology)
    for found in lists:
        if n_vertices > found.n_vertices:
            raise ValueError(
                f"landmark list {topology}/{found.name} counts vertices of a mesh with {found.n_vertices}; "
                f"got a mesh with {n_vertices}"
            )
    merged: dict[int, int] = {}
    for found in reversed(lists):
        merged |= {point: vertex for point, vertex in found.vertices.items() if vertex < n_vertices}
    return dict(sorted(merged.items()))
