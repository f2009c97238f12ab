"""The landmark-given path as one program: crops and landmarks in, parameters, camera and landmarks out.

`CascadeProgram` is what `reconstruct_landmarks` does once the crops are cut, as one module without a choice that
depends on the data; `export_program` records it with torch.export. A file of it needs torch alone to run.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import GraphModule

from facerecon_torch.cascade.checkpoint import FaceCascade
from facerecon_torch.cascade.feature_cache import build_bank
from facerecon_torch.cascade.observe import View, look
from facerecon_torch.cascade.start import mean_face
from facerecon_torch.features.hog import HogMaps, hog_field
from facerecon_torch.features.joint import joint_feature
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.structures import Camera, FaceParameters

__all__ = ["MOST_FACES", "OUTPUTS", "CascadeProgram", "export_program"]

MOST_FACES = 1024  # of one call: crops are described at once, so memory may set a lower bound
OUTPUTS = (
    "identity",
    "expression",
    "rotation",
    "scale",
    "translation",
    "degenerate",
    "landmarks_3d",
    "landmarks_2d",
    "vertices",
)
# Of every node: three quarters of a file's text, and the paths of the machine that wrote it.
_ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
_PROBE_NOISE = 1.5  # px of the crop


class CascadeProgram(nn.Module):
    """The cascade of `face` on ready crops, on the device and in the dtype of `face`; move `face`, not this.

    `vertices=True` adds all vertices of the model, which costs the file the whole of its factors.
    """

    def __init__(self, face: FaceCascade, *, vertices: bool = False) -> None:
        super().__init__()
        self._face = face
        self._fitter = LandmarkFitter(face.model, replace(face.fit, chunk=MOST_FACES))
        self._whole = vertices
        size, model = face.crop.size, face.model
        black = torch.zeros(1, 3, size, size, dtype=model.dtype, device=model.device)
        # Where the cascade keeps crops and not maps, it was trained on, and runs on, pixels of 8 bits.
        self._eight_bits = not isinstance(build_bank(black, face.features.hog, keep=model.dtype).source, HogMaps)

    def forward(
        self, crops: Float[Tensor, "b 3 height width"], landmarks: Float[Tensor, "b 66 2"]
    ) -> dict[str, Tensor]:
        """Named outputs (`OUTPUTS`). Crops are RGB in [0, 1]; landmarks are in crop px, in the paper's order, and so
        are camera and `landmarks_2d`; `landmarks_3d` and `vertices` are in mm in the model frame."""
        face, fitter = self._face, self._fitter
        model, spec = face.model, face.features
        pixels = (crops * 255).round() / 255 if self._eight_bits else crops
        field = hog_field(pixels, spec.hog)
        fit = fitter.fit(landmarks)
        start = fit.parameters if face.start == "landmark_fit" else mean_face(model, landmarks.shape[0])

        def observe(x: Float[Tensor, "b parameters"], stage: int) -> Float[Tensor, "b columns"]:
            seen = self._view(x, landmarks, fit.camera)
            return joint_feature(field, landmarks, seen.projected, seen.camera.scale, spec)

        flat = face.cascade.run(start.flat, observe)
        view, parameters = self._view(flat, landmarks, fit.camera), FaceParameters.from_flat(flat, model.n_identity)
        camera = view.camera
        answer = (camera.rotation, camera.scale, camera.translation, camera.degenerate, view.points, view.projected)
        named = dict(zip(OUTPUTS, (parameters.identity, parameters.expression, *answer)))
        if self._whole:
            named["vertices"] = model.vertices(parameters.identity, parameters.expression)
        return named

    def _view(self, x: Float[Tensor, "b parameters"], landmarks: Float[Tensor, "b 66 2"], camera: Camera) -> View:
        parameters = FaceParameters.from_flat(x, self._face.model.n_identity)
        return look(self._fitter, parameters, landmarks, camera)

    def probe(self, faces: int, *, seed: int = 0) -> tuple[Float[Tensor, "b 3 size size"], Float[Tensor, "b 66 2"]]:
        """Chance inputs to try the program on: noise for crops, the mean face from chance views for landmarks. Of three
        faces or more the last has landmarks that fix no camera."""
        spec, mean = self._face.crop, self._face.cropper
        generator = torch.Generator().manual_seed(seed)
        crops = torch.rand(faces, 3, spec.size, spec.size, generator=generator)
        yaw, pitch, roll = torch.rand(3, faces, generator=generator) - 0.5
        turned = (mean.landmarks - mean.centre).cpu().float() @ euler_to_matrix(yaw, pitch, roll).mT
        flip = torch.tensor([1.0, -1.0])
        landmarks = (spec.size - 1) / 2 + spec.px_per_mm * flip * turned[..., :2]
        landmarks = landmarks + _PROBE_NOISE * torch.randn(landmarks.shape, generator=generator)
        if faces >= 3:
            landmarks[-1] = landmarks[-1, :1]
        like = self._face.model.identity_mean
        return crops.to(like), landmarks.to(like)


@torch.no_grad()
def export_program(program: CascadeProgram) -> ExportedProgram:
    """The program as a graph for 1 to MOST_FACES faces a call, without a trace of the machine that made it."""
    batch = Dim("batch", min=1, max=MOST_FACES)
    # Strict: len() and chunk bounds of ordinary code stay symbols there; a plain trace would turn them into numbers.
    recorded = export(program, program.probe(2), dynamic_shapes=({0: batch}, {0: batch}), strict=True)
    for part in recorded.graph_module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                for key in _ORIGINS:
                    node.meta.pop(key, None)
    for name, value in recorded.constants.items():
        if isinstance(value, Tensor):
            recorded.constants[name] = value.clone()  # a part of a larger array would be stored with the whole of it
    recorded.example_inputs = None
    return recorded
