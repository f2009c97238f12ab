"""Photographs in, results out: JPEG and PNG, one face and many, landmarks given; beside one face at a time in numpy."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from facerecon_torch.cascade.crops import canonical_crops
from facerecon_torch.cascade.cuda_graph import LatencySession
from facerecon_torch.cascade.reconstruction import Reconstruction
from facerecon_torch.cascade.reconstructor import FaceReconstructor
from facerecon_torch.commands.infer.files.overlay import draw_faces as draw_faces_on
from facerecon_torch.commands.infer.options import InferOptions
from facerecon_torch.commands.infer.run import InferReport, infer
from facerecon_torch.landmarks import build_detector
from facerecon_torch.landmarks.scheme import from_paper66
from facerecon_torch.runtime.timer import Timer
from facerecon_torch.structures import Mesh

from ..case import Case, Context, Group
from . import plain_numpy
from .data import Faces, default_model, draw_faces, render

TITLE = "inference with the pretrained cascade, landmarks given; photographs of 448 x 448 px of rendered faces"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"images": 2, "batch": [1], "png": 1, "meshes": 1},
    "quick": {"images": 16, "batch": [], "png": 0, "meshes": 0},
    "small": {"images": 64, "batch": [1, 8, 32], "png": 1, "meshes": 1},
    "full": {"images": 512, "batch": [1, 8, 32, 128, 512], "png": 1, "meshes": 1},
}
_ALL = ("json", "obj", "ply", "glb", "overlay")
_BORDER = 64  # px around the rendered crop
_FEW = 2  # faces that the plain loop treats in a call
_OVERLAY_PX = 640
_DISTINCT = 32  # photographs that are rendered; more files are copies under other names


def groups(context: Context) -> Iterator[Group]:
    """Files, then one face, then scaling over the batch in memory."""
    with tempfile.TemporaryDirectory(prefix="facerecon-bench-") as name:
        studio = _Studio(context, Path(name), int(context.sizes["images"]))
        kinds = ["jpg", *(["png"] if context.sizes["png"] else [])]
        for kind in kinds:
            files = studio.files(kind)
            outs = [("parameters out", ("json",))]
            outs += [("meshes and overlays out", _ALL)] if context.sizes["meshes"] else []
            cases = [_files_case(studio, f"{kind.upper()} files in, {told}", files, formats) for told, formats in outs]
            yield Group(name=f"{len(files)} {kind.upper()} files", cases=cases, rounds=min(context.rounds, 5))
        one = studio.files("jpg")[:1]
        latency = [_files_case(studio, "one JPEG file in, parameters out", one, ("json",), mode="latency"),
                   _memory_case(context, studio, 1, "one face, picture in memory"),
                   _memory_case(context, studio, 1, "one face, a recorded session", session=True)]  # fmt: skip
        yield Group(name="latency", cases=latency)
        yield Group(name="overlay", cases=_overlay_cases(studio))
        yield _against_plain(context, studio)
        for batch in context.list("batch"):
            case = _memory_case(context, studio, batch, "pictures in memory")
            yield Group(name=f"{batch} pictures in memory", cases=[case], axis="batch", x=batch)


class _Studio:
    """The pretrained cascade on the run's device, pictures and their files."""

    def __init__(self, context: Context, folder: Path, images: int) -> None:
        self.context, self.folder, self.images = context, folder, images
        host = default_model(torch.device("cpu"), torch.float32)
        self.drawn: Faces = draw_faces(host, min(images, _DISTINCT), seed=7)
        crops = render(host, self.drawn, slice(0, len(self.drawn.landmarks)))
        self.pictures: Tensor = pad(crops, (_BORDER,) * 4, mode="reflect")
        self.landmarks: Tensor = self.drawn.landmarks + _BORDER
        self.face = FaceReconstructor.from_pretrained().to(context.device, context.dtype)

    def files(self, kind: str) -> list[Path]:
        """The photographs with their landmarks beside them, written on the first call."""
        folder = self.folder / kind
        paths = [folder / f"{k:05d}.{kind}" for k in range(self.images)]
        if folder.exists():
            return paths
        folder.mkdir()
        for k, path in enumerate(paths):
            k %= len(self.pictures)
            pixels = (self.pictures[k] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(path, **({"quality": 95} if kind == "jpg" else {}))
            path.with_suffix(".json").write_text(json.dumps({"points": self.landmarks[k].tolist()}))
        return paths

    def batch(self, size: int) -> tuple[list[Tensor], Tensor]:
        rows = torch.arange(size) % len(self.pictures)
        like = self.face.face_model.identity_mean
        return [self.pictures[k].to(like) for k in rows.tolist()], self.landmarks[rows].to(like)


def _files_case(studio: _Studio, name: str, files: Sequence[Path], formats: Sequence[str], **more: Any) -> Case:
    detector = build_detector("file")
    options = InferOptions(formats=formats, progress=False, **more)
    times: list[Timer] = []

    def run() -> InferReport:
        with tempfile.TemporaryDirectory(dir=studio.folder) as out:
            return infer(files, Path(out), studio.face, detector, options)

    def errors(report: InferReport) -> dict[str, float]:
        # A run of its own: on CUDA, timing the stages makes all of them wait for each other.
        times.append(Timer(studio.context.device))
        with tempfile.TemporaryDirectory(dir=studio.folder) as out:
            infer(files, Path(out), studio.face, detector, options, times=times[-1])
        stages = {f"{stage}, ms a file": 1e3 * s / len(files) for stage, s in times[-1].seconds.items()}
        return {"files without a face": float(report.counts.failures)} | stages

    return Case(name=name, run=run, items=len(files), unit="file", error=errors,
                limits={"files without a face": 0.0})  # fmt: skip


def _memory_case(context: Context, studio: _Studio, batch: int, name: str, *, session: bool = False) -> Case:
    pictures, landmarks = studio.batch(batch)
    call = LatencySession(studio.face, batch=batch) if session else studio.face.reconstruct
    return Case(
        name=name,
        run=lambda: call(pictures, landmarks),
        items=batch,
        unit="face",
        bytes=float(sum(p.numel() * p.element_size() for p in pictures)),
        error=lambda found: _shape_error(studio, found),
        limits={"median off the truth, mm": 10.0},  # the cascade was trained on other pictures
    )


def _overlay_cases(studio: _Studio) -> list[Case]:
    """One face on its photograph of 640 px, whose channels lie together as decoded, or whose planes do."""
    faces = studio.face.reconstruct(*studio.batch(1)).cpu()
    surface = studio.face.face_model.whole_topology("an overlay needs a whole model").to("cpu").surface()
    ratio = _OVERLAY_PX / studio.pictures.shape[-1]
    picture = interpolate(studio.pictures[:1], size=(_OVERLAY_PX, _OVERLAY_PX), mode="bilinear")[0]
    planes = (picture * 255).round().to(torch.uint8).cpu()
    decoded = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    camera = replace(faces.camera, scale=ratio * faces.camera.scale, translation=ratio * faces.camera.translation)
    meshes = [Mesh(vertices=faces.vertices[0].float(), **surface)]
    points = ratio * faces.projected_2d
    shown = [("as decoded", decoded), ("as planes", planes)]
    return [
        Case(
            name=f"one face on a photograph of {_OVERLAY_PX} px {told}",
            run=partial(draw_faces_on, pixels, meshes, camera, list(from_paper66(points)), points),
            unit="photograph",
        )
        for told, pixels in shown
    ]


def _shape_error(studio: _Studio, found: Reconstruction) -> dict[str, float]:
    model = default_model(torch.device("cpu"), torch.float32)
    n = min(len(found.parameters.identity), len(studio.drawn.landmarks), 32)
    own, true = found.parameters[:n].to("cpu", torch.float32), studio.drawn.parameters[:n]
    gap = model.vertices(own.identity, own.expression) - model.vertices(true.identity, true.expression)
    return {"median off the truth, mm": float(torch.linalg.vector_norm(gap, dim=-1).mean(-1).median())}


def _against_plain(context: Context, studio: _Studio) -> Group:
    """The same method in plain numpy, crops given: contour fixed and HOG of patches with their halo on both sides."""
    face = studio.face
    fit = replace(face.spec.fit, contour="fixed")
    exact = replace(face.spec.features, hog=replace(face.spec.features.hog, evaluation="patch_halo"))
    parity = FaceReconstructor(face.face_model, face.cascade, replace(face.spec, fit=fit, features=exact))
    pictures, landmarks = studio.batch(min(_FEW, len(studio.pictures)))
    crops, inside = canonical_crops(pictures, landmarks, face.solvers.crop_fitter, face.solvers.cropper)
    plain = plain_numpy.PlainModel.of(face.face_model)
    # A feature cache keeps the crops that patches are cut from in 8 bits.
    host = [(255 * c).round().permute(1, 2, 0).double().cpu().numpy() / 255 for c in crops.image]
    points = inside.double().cpu().numpy()
    cascade = face.cascade.to("cpu", torch.float64)

    def one_by_one() -> list[plain_numpy.PlainFace]:
        return [plain_numpy.run_cascade(plain, cascade, c, p, fit, exact.hog) for c, p in zip(host, points)]

    known = one_by_one()
    limit = 1e-6 if context.dtype == torch.float64 else 5e-3
    told: dict[str, Any] = {"items": len(host), "unit": "face"}
    cases = [
        _memory_case(context, studio, 32 if context.sizes["images"] >= 32 else len(host), "as users run it, a batch"),
        Case(name="the plain method by ours", run=lambda: parity.reconstruct(pictures, landmarks),
             error=lambda found: {"off plain numpy, standard deviations": _deviation(face, found, known)},
             limits={"off plain numpy, standard deviations": limit}, **told),
    ]  # fmt: skip
    if context.on_cpu:
        cases.append(Case(name="plain numpy, one face at a time, crops given", run=one_by_one, rival=True, **told))
    return Group(name="against plain numpy", cases=cases, rounds=3)


def _deviation(face: FaceReconstructor, found: Reconstruction, known: Sequence[plain_numpy.PlainFace]) -> float:
    worst = 0.0
    for name in ("identity", "expression"):
        own = getattr(found.parameters, name).double().cpu()
        true = torch.from_numpy(np.stack([getattr(one, name) for one in known]))
        variance = getattr(face.face_model, f"{name}_variance").double().cpu()
        # The gauge leaves one direction of almost no variance: measured against the mean variance it is rounding.
        spread = variance.sqrt().clamp_min(1e-2 * float(variance.mean().sqrt()))
        worst = max(worst, float(((own - true) / spread).abs().max()))
    return worst
