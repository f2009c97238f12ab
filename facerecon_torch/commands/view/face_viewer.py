"""A fitted face in the browser, beside its photograph, with sliders for identity and named expressions."""

from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image

from facerecon_torch.commands.infer.files.mesh_files import FIT
from facerecon_torch.commands.view.face import EditableFace
from facerecon_torch.commands.view.window import PER_MM, Window
from facerecon_torch.images.read import in_bytes

__all__ = ["FaceViewer"]

_MODES, _SPREAD = 12, 3.0  # identity sliders, and standard deviations to either side
_PHOTOGRAPH_PX = 640  # of its larger side
_AROUND = 0.3  # of the face's larger side, shown around it
_GAP = 30.0  # mm between photograph and face


class FaceViewer(Window):
    """Shows a fitted face with sliders for identity and named expressions.

    Args:
        face: the face.
        title, host, port: as of `Window`.

    Example:
        viewer = FaceViewer(read_face(Path("out/photo.json"), model), title="photo")
    """

    def __init__(self, face: EditableFace, *, title: str, host: str = "127.0.0.1", port: int = 8080) -> None:
        super().__init__(title, host=host, port=port)
        self._face, self._lock = face, Lock()
        gui = self.server.gui
        self._textured = gui.add_checkbox("texture", face.texture is not None, disabled=face.texture is None)
        reset = gui.add_button("reset")
        self._rest = gui.add_slider(FIT, 0.0, 1.0, 0.01, 1.0, hint="what the fitted face has beside named expressions")
        self._weights, self._modes = {}, []
        with gui.add_folder("expressions"):
            for name, weight in face.weights.items():
                self._weights[name] = gui.add_slider(name, 0.0, 1.0, 0.01, round(min(max(weight, 0.0), 1.0), 2))
        with gui.add_folder("identity, standard deviations", expand_by_default=False):
            for mode in range(min(_MODES, face.model.n_identity)):
                self._modes.append(gui.add_slider(f"mode {mode + 1}", -_SPREAD, _SPREAD, 0.05, 0.0))
        self._start = [handle.value for handle in self._sliders]
        for handle in (*self._sliders, self._textured):
            handle.on_update(lambda _: self.draw())
        reset.on_click(lambda _: self._reset())
        if face.photograph is not None:
            self._show_photograph()
        self.draw()

    @property
    def _sliders(self) -> list[Any]:
        return [self._rest, *self._weights.values(), *self._modes]

    def draw(self) -> None:
        """Show the face of the sliders."""
        with self._lock:
            identity = torch.tensor([handle.value for handle in self._modes])
            weights = torch.tensor([handle.value for handle in self._weights.values()])
            vertices = self._face.vertices(identity, weights, self._rest.value)
            content = self._face.glb(vertices, texture=self._textured.value)
            self.server.scene.add_glb("/face", content, scale=1000 * PER_MM)

    def _reset(self) -> None:
        for handle, value in zip(self._sliders, self._start, strict=True):
            handle.value = value
        self.draw()

    def _show_photograph(self) -> None:
        """The photograph around the face, at the face's scale, to its left."""
        pixels, camera = self._face.photograph, self._face.values.camera
        assert pixels is not None
        points = self._face.values.projected_2d
        low, high = points.amin(0), points.amax(0)
        margin = _AROUND * float((high - low).max())
        height, width = pixels.shape[-2:]
        left, top = (max(0, int(v - margin)) for v in low.tolist())
        right, bottom = (min(int(v + margin) + 1, n) for v, n in zip(high.tolist(), (width, height)))
        if right <= left or bottom <= top:
            return
        shown = pixels[:, top:bottom, left:right]
        image = Image.fromarray(in_bytes(shown).permute(1, 2, 0).contiguous().numpy())
        image.thumbnail((_PHOTOGRAPH_PX, _PHOTOGRAPH_PX))
        wide, high_mm = ((right - left) / float(camera.scale), (bottom - top) / float(camera.scale))
        vertices = self._face.vertices(torch.zeros(0), torch.zeros(len(self._weights)), 0.0)
        place = float(vertices[:, 0].min()) - _GAP - wide / 2
        self.server.scene.add_image(
            "/photograph", np.asarray(image), render_width=wide * PER_MM, render_height=high_mm * PER_MM,
            wxyz=(0.0, 1.0, 0.0, 0.0), position=(place * PER_MM, 0.0, 0.0), cast_shadow=False, receive_shadow=False,
        )  # fmt: skip
        self.server.initial_camera.position = (place * PER_MM / 2, 0.0, 4.2)
        self.server.initial_camera.look_at = (place * PER_MM / 2, 0.0, 0.0)
