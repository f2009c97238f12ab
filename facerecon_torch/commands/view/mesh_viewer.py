"""A mesh file in the browser, with a slider for each of its morph targets."""

import io
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from facerecon_torch.commands.view.glb_file import StoredTargets, read_targets
from facerecon_torch.commands.view.window import Window, viser_package
from facerecon_torch.errors import DataFileError

__all__ = ["MeshViewer"]

_GREY = (200, 200, 200, 255)
_ARTICLES = {"obj": "an", "ply": "a", "glb": "a"}
_STEP = 0.001  # of a slider
_WIDTH = 2.5  # of the mesh in the scene, whatever the unit of its file


class MeshViewer(Window):
    """Shows a mesh file, with its texture or grey, at the weights of its morph targets, which sliders change.

    Args:
        path: an OBJ, PLY or GLB file.
        title, host, port: as of `Window`.

    Raises:
        MissingExtraError: viser is not installed.
        DataFileError: the file holds no mesh, or is damaged.

    Example:
        viewer = MeshViewer(Path("out/photo.glb"), title="photo")
    """

    def __init__(self, path: Path, *, title: str, host: str = "127.0.0.1", port: int = 8080) -> None:
        viser_package()
        content = path.read_bytes()
        targets = read_targets(content, path) if path.suffix.lower() == ".glb" else None
        self._mesh, self._lock = _read_mesh(content, path), Lock()
        count = len(self._mesh.vertices)
        if targets is not None and targets.displacements.shape[1] != count:
            targets = None  # the reader left vertices out
        self._targets = targets or StoredTargets([], np.zeros((0, count, 3), np.float32), np.zeros(0))
        super().__init__(title, host=host, port=port)
        gui = self.server.gui
        self._textured = gui.add_checkbox("texture", True)
        reset = gui.add_button("reset", visible=targets is not None)
        self._weights: list[Any] = []
        with gui.add_folder("morph targets", visible=targets is not None):
            for name, weight in zip(self._targets.names, self._stored, strict=True):
                self._weights.append(gui.add_slider(name, min(0.0, weight), max(1.0, weight), _STEP, weight))
        low, high = self.mesh().bounds
        self._scale = _WIDTH / float((high - low).max())
        self._place = tuple(-self._scale * (low + high) / 2)
        for handle in (*self._weights, self._textured):
            handle.on_update(lambda _: self.draw())
        reset.on_click(lambda _: self._reset())
        self.draw()

    @property
    def weights(self) -> dict[str, Any]:
        """The sliders by the names of the morph targets."""
        return dict(zip(self._targets.names, self._weights, strict=True))

    @property
    def _stored(self) -> list[float]:
        """The weights of the file, on the steps of the sliders."""
        return [round(weight, 3) for weight in self._targets.weights.tolist()]

    def mesh(self) -> Any:
        """A copy of the mesh (trimesh) at the weights of the sliders, in the file's unit."""
        mesh = self._mesh.copy()
        if self._weights:
            weights = np.array([handle.value for handle in self._weights], np.float32)
            mesh.vertices = self._mesh.vertices + np.einsum("n,nvc->vc", weights, self._targets.displacements)
            mesh.vertex_normals = _smooth_normals(self._mesh.vertices, mesh)
        return mesh

    def draw(self) -> None:
        """Show the mesh of the sliders."""
        from trimesh.visual import ColorVisuals

        with self._lock:
            mesh = self.mesh()
            if not self._textured.value:
                mesh.visual = ColorVisuals(mesh, face_colors=_GREY)
            self.server.scene.add_mesh_trimesh("/face", mesh, scale=self._scale, position=self._place)

    def _reset(self) -> None:
        for handle, weight in zip(self._weights, self._stored, strict=True):
            handle.value = weight
        self.draw()


def _read_mesh(content: bytes, path: Path) -> Any:
    """The mesh of a file. Raises DataFileError for one without triangles, or with values that are not finite."""
    import trimesh  # viser needs it

    kind = path.suffix[1:].lower()
    files = trimesh.resolvers.FilePathResolver(str(path))  # where textures are looked for
    try:
        mesh = trimesh.load_mesh(io.BytesIO(content), file_type=kind, resolver=files, process=False)
    except Exception as error:  # of any kind, from damage of any kind
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataFileError(f"{path}: expected {_ARTICLES[kind]} {kind.upper()} file; {reason}") from None
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise DataFileError(f"{path}: expected a mesh with triangles; it holds none")
    if bad := int((~np.isfinite(mesh.vertices)).any(1).sum()):
        raise DataFileError(f"{path}: expected finite vertices; {bad} of {len(mesh.vertices)} are not")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise DataFileError(f"{path}: expected triangles of its {len(mesh.vertices)} vertices; some lie outside")
    if not 0 < np.ptp(mesh.vertices, axis=0).max() < np.inf:
        raise DataFileError(f"{path}: expected a mesh of some size; all its vertices are one point")
    return mesh


def _smooth_normals(places: Any, mesh: Any) -> Any:
    """Normals of the vertices, equal at vertices that a seam of the texture divides: those at the same place."""
    import trimesh

    _, first, rows = np.unique(places, axis=0, return_index=True, return_inverse=True)
    rows = rows.reshape(-1)
    return trimesh.Trimesh(mesh.vertices[first], rows[mesh.faces], process=False).vertex_normals[rows]
