"""`FaceReconstructor.forward` as one exported program, for torch without this package."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import GraphModule

from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.geometry.rotation import euler_to_matrix
from facerecon_torch.landmarks.scheme import N_INNER

__all__ = ["MOST_FACES", "CascadeProgram", "export_program", "probe"]

MOST_FACES = 1024  # of one call: crops are described at once, so memory may set a lower bound
# Of every node: three quarters of a file's text, and the paths of the machine that wrote it.
_ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
_PROBE_NOISE = 1.5  # px of the crop


class CascadeProgram(nn.Module):
    """`FaceReconstructor.forward` with a dictionary of tensors as its result, which needs no class of this package.

    Args:
        model: is copied; the program stays on its device and in its dtype.
        vertices: add all vertices of the face model, which costs the file the whole of the model's factors.
    """

    def __init__(self, model: FaceReconstructor, *, vertices: bool = False) -> None:
        super().__init__()
        # One chunk for all faces: a loop over chunks would fix their number in the graph.
        fit = replace(model.spec.fit, chunk=MOST_FACES)
        spec = replace(model.spec, fit=fit, crop_fit=fit)
        self.reconstructor = FaceReconstructor(model.face_model, model.cascade, spec)
        self._vertices = vertices
        _ = self.reconstructor.solvers  # built before the graph is traced, from the whole face model
        if not vertices:  # the file then needs no vertex but those that the solvers hold
            first = torch.zeros(1, dtype=torch.int64, device=model.device)
            self.reconstructor.face_model = model.face_model.restrict(first)

    def forward(
        self, crops: Float[Tensor, "b 3 height width"], landmarks: Float[Tensor, "b 66 2"]
    ) -> dict[str, Tensor]:
        """Named results. Crops are RGB in [0, 1]; landmarks are in crop px, in the paper's order, NaN where missing.
        Camera and `projected_2d` are in crop px too; `landmarks_3d` and `vertices` are in mm in the model frame."""
        faces = self.reconstructor(crops, landmarks)
        named = {
            "identity": faces.parameters.identity,
            "expression": faces.parameters.expression,
            "rotation": faces.camera.rotation,
            "scale": faces.camera.scale,
            "translation": faces.camera.translation,
            "degenerate": faces.camera.degenerate,
            "landmarks_3d": faces.landmarks_3d,
            "projected_2d": faces.projected_2d,
        }
        if self._vertices:
            model = self.reconstructor.face_model
            named["vertices"] = model.vertices(faces.parameters.identity, faces.parameters.expression)
        return named


def probe(
    model: FaceReconstructor, faces: int, *, seed: int = 0
) -> tuple[Float[Tensor, "b 3 size size"], Float[Tensor, "b 66 2"]]:
    """Random inputs of `forward`: noise for crops, the mean face from random views for landmarks. Of three faces or
    more the first has no contour, and the last has landmarks that fix no camera."""
    spec, mean = model.spec.crop, model.solvers.cropper
    generator = torch.Generator().manual_seed(seed)
    crops = torch.rand(faces, 3, spec.size, spec.size, generator=generator)
    yaw, pitch, roll = torch.rand(3, faces, generator=generator) - 0.5
    turned = (mean.landmarks - mean.centre).cpu().float() @ euler_to_matrix(yaw, pitch, roll).mT
    flip = torch.tensor([1.0, -1.0])
    landmarks = (spec.size - 1) / 2 + spec.px_per_mm * flip * turned[..., :2]
    landmarks = landmarks + _PROBE_NOISE * torch.randn(landmarks.shape, generator=generator)
    if faces >= 3:
        landmarks[0, N_INNER:] = torch.nan
        landmarks[-1] = landmarks[-1, :1]
    like = model.face_model.identity_mean
    return crops.to(like), landmarks.to(like)


@torch.no_grad()
def export_program(program: CascadeProgram) -> ExportedProgram:
    """The program as a graph for 1 to MOST_FACES faces a call, without a trace of the machine that made it."""
    batch = Dim("batch", min=1, max=MOST_FACES)
    inputs = probe(program.reconstructor, 2)
    # Strict: len() and chunk bounds of ordinary code stay symbols there; a plain trace would turn them into numbers.
    recorded = export(program, inputs, dynamic_shapes=({0: batch}, {0: batch}), strict=True)
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
