"""The path from an image to a face: one module that owns the face model, the cascade and the detector."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facerecon_torch.cascade.checkpoint import (
    Checkpoint,
    ReconstructorSpec,
    load_checkpoint,
    pretrained_path,
    save_checkpoint,
)
from facerecon_torch.cascade.crops import ImageCropper, follow_faces
from facerecon_torch.cascade.feature_cache import keeps_crops
from facerecon_torch.cascade.found_faces import faces_at_once, find_faces, in_batches, solve_found, warn_of_impossible
from facerecon_torch.cascade.joint_identity import JOINT_PENALTY, JointIdentity, join_identities
from facerecon_torch.cascade.observe import look
from facerecon_torch.cascade.reconstruction import KnownSize, Reconstruction, at_size, extent, in_image
from facerecon_torch.cascade.stage_module import StageModule, require_stages
from facerecon_torch.cascade.start import mean_face, retraction
from facerecon_torch.checks import require_shape
from facerecon_torch.errors import ModelFileError
from facerecon_torch.features.hog import hog_field
from facerecon_torch.features.joint import joint_feature
from facerecon_torch.fitting.crop import apply_affine, camera_to_crop
from facerecon_torch.fitting.landmark_fit import LandmarkFitter
from facerecon_torch.images.open import MAX_MEGAPIXELS, require_megapixels
from facerecon_torch.images.read import require_unit_range
from facerecon_torch.landmarks.detector import LandmarkDetector
from facerecon_torch.landmarks.registry import (
    build_detector,
    detector_options,
    find_convention,
    require_convention,
)
from facerecon_torch.landmarks.scheme import N_INNER
from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.default_face import load_default_face
from facerecon_torch.model.expression_error import ExpressionError
from facerecon_torch.model.io import load_model
from facerecon_torch.regression.cascade import Cascade
from facerecon_torch.runtime.precision import in_own_precision
from facerecon_torch.runtime.timer import timed
from facerecon_torch.structures import Camera, Crop, FaceParameters, LandmarkFit

__all__ = ["FaceReconstructor"]


@dataclass(frozen=True)
class _Solvers:
    """Tables that follow from the face model, on its device and in its dtype."""

    device: torch.device
    dtype: torch.dtype
    fitter: LandmarkFitter  # of the cascade's start and cameras
    crop_fitter: LandmarkFitter  # that crops follow
    cropper: ImageCropper


class FaceReconstructor(nn.Module):
    """3D faces with expression from images: a face model and the cascade that was trained for it.

    An ordinary module: `.to`, `.eval`, `copy.deepcopy` and `pickle` mean what they mean for any other. `state_dict()`
    holds the stages of the cascade; the face model's tables are buffers outside of it, identified by their hash.

    Args:
        face_model: the face model, bilinear or linear.
        cascade: trained for that model; its `retract` is replaced by the model's gauge.
        spec: landmark fit, crop and features that the cascade was trained with.
        detector: of `predict`: a name of `landmarks.registry.DETECTORS`, or a detector. It is built on first use.
        training: what the cascade was trained on, for people.
        expression_error: of the cascade's estimates of beta, which named expressions are weighed against; None: beta is
            named as if it were exact, and faces at rest have weights.

    Raises:
        ValueError: a stage does not fit the model or the features.

    Example:
        >>> model = FaceReconstructor.from_pretrained().to("cuda")
        >>> faces = model.predict("photo.jpg")[0]
        >>> faces[0].vertices.shape
        torch.Size([3960, 3])
    """

    def __init__(
        self,
        face_model: FaceModel,
        cascade: Cascade,
        spec: ReconstructorSpec,
        *,
        detector: str | LandmarkDetector = "auto",
        training: dict[str, Any] | None = None,
        expression_error: ExpressionError | None = None,
    ) -> None:
        super().__init__()
        require_stages(face_model, cascade, spec)
        self.face_model = face_model
        self.stages = nn.ModuleList(StageModule(stage) for stage in cascade.stages)
        self.spec = spec
        self.detector = detector
        self.training_facts = dict(training or {})
        self.expression_error = expression_error
        self.naming = None if expression_error is None else face_model.named.of_estimates(expression_error)
        self._built: LandmarkDetector | None = None
        self._solvers: _Solvers | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        face_model: FaceModel | str | Path | None = None,
        detector: str | LandmarkDetector = "auto",
    ) -> "FaceReconstructor":
        """The reconstructor of a checkpoint, on the CPU in float32.

        Args:
            path: file that `save_pretrained` or `facerecon train` wrote; None: the cascade that the package ships for
                the landmarks of `detector`.
            face_model: the face model it was trained for, or its file; None: the default face.
            detector: of `predict`.

        Raises:
            FileNotFoundError: no file is there.
            ModelFileError: a damaged file, or a cascade of another face model.

        Example:
            >>> model = FaceReconstructor.from_pretrained("cascade.safetensors", detector="dlib")
        """
        path = pretrained_path(find_convention(detector)) if path is None else Path(path)
        with torch.inference_mode(False):  # ordinary tensors: later calls may ask for gradients
            checkpoint = load_checkpoint(path)
            if face_model is None:
                face_model = load_default_face()
            elif not isinstance(face_model, FaceModel):
                face_model = load_model(face_model)
        if checkpoint.model_sha256 != face_model.sha256:
            raise ModelFileError(
                f"{path}: model_sha256: this cascade was trained for another face model; expected the model with hash "
                f"{checkpoint.model_sha256[:16]}..., got {face_model.sha256[:16]}... The default face of another "
                "version of this package is another model: train the cascade again, or take that version"
            )
        try:
            return cls(
                face_model, checkpoint.cascade, checkpoint.spec, detector=detector, training=checkpoint.training,
                expression_error=checkpoint.expression_error,
            )  # fmt: skip
        except ValueError as error:
            raise ModelFileError(f"{path}: {error}") from error

    def save_pretrained(self, path: str | Path, *, half: bool = False) -> None:
        """Write the cascade, without its face model, to a file for `from_pretrained`.

        Args:
            path: a `.safetensors` file; it is written aside and renamed.
            half: store the weights in float16.
        """
        checkpoint = Checkpoint(
            cascade=self.cascade, spec=self.spec, model_sha256=self.face_model.sha256, training=self.training_facts,
            expression_error=self.expression_error,
        )  # fmt: skip
        save_checkpoint(checkpoint, path, half=half)

    @property
    def device(self) -> torch.device:
        return self.face_model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.face_model.dtype

    @property
    def cascade(self) -> Cascade:
        """The stages, on this module's device, with the gauge of its face model."""
        stages = tuple(module.stage for module in self.stages if isinstance(module, StageModule))
        return Cascade(stages, retraction(self.face_model))

    @property
    def solvers(self) -> _Solvers:
        """Landmark fits and cropper, made anew after a move."""
        model, current = self.face_model, self._solvers
        if current is None or (current.device, current.dtype) != (model.device, model.dtype):
            current = self._build_solvers()
            self._solvers = current
        return current

    @in_own_precision
    def _build_solvers(self) -> _Solvers:
        model, spec = self.face_model, self.spec
        # Ordinary tensors also inside of inference mode: later calls may ask for gradients.
        with torch.inference_mode(False), torch.no_grad():
            fitter = LandmarkFitter(model, spec.fit)
            crop_fitter = fitter if spec.crop_fit == spec.fit else LandmarkFitter(model, spec.crop_fit)
            return _Solvers(model.device, model.dtype, fitter, crop_fitter, ImageCropper(model, spec.crop))

    @in_own_precision
    def forward(self, crops: Tensor, landmarks: Tensor, fit: LandmarkFit | None = None) -> Reconstruction:
        """The faces in canonical crops, in crop px.

        Differentiable in the crops as far as HOG is; the landmark fit is not.

        Args:
            crops: [n, 3, size, size] RGB in [0, 1], as `spec.crop` describes them.
            landmarks: [n, 66, 2] in crop px, paper order; NaN where missing.
            fit: their landmark fit (Eq. 7), where it is known already.

        Raises:
            ValueError: wrong shapes, or crops on the CPU outside [0, 1].

        Example:
            >>> faces = model(crops, landmarks)
        """
        _require_crops(crops, landmarks, self.spec.crop.size)
        return self._solve(crops, landmarks, fit)

    def _solve(self, crops: Tensor, landmarks: Tensor, fit: LandmarkFit | None) -> Reconstruction:
        if landmarks.shape[0] == 0:
            return Reconstruction.empty(self.face_model, self.naming, self.spec.convention)
        model, spec, cascade = self.face_model, self.spec, self.cascade
        fitter, n = self.solvers.fitter, model.n_identity
        with _timed("features"):
            # Where training kept crops instead of maps, the cascade was trained on pixels of 8 bits.
            eight_bits = keeps_crops(spec.features.hog, spec.crop.size, crops.dtype)
            field = hog_field((crops * 255).round() / 255 if eight_bits else crops, spec.features.hog)
        fit = fitter.fit(landmarks) if fit is None else fit
        start = fit.parameters if spec.start == "landmark_fit" else mean_face(model, landmarks.shape[0])

        def observe(x: Float[Tensor, "n p"], k: int) -> Float[Tensor, "n d"]:
            camera, _, projected = look(fitter, FaceParameters.from_flat(x, n), landmarks, fit.camera)
            with _timed("features"):
                return joint_feature(field, landmarks, projected, camera.scale, spec.features)

        with _timed("regress"):
            flat = cascade.run(start.flat, observe)
        parameters = FaceParameters.from_flat(flat, n)
        camera, points, projected = look(fitter, parameters, landmarks, fit.camera)
        apart = points[:, :N_INNER] - fitter.landmarks(fit.parameters, fit.camera)[0][:, :N_INNER]
        return Reconstruction(
            parameters=parameters, camera=camera, landmarks_3d=points, projected_2d=projected,
            size=torch.ones_like(camera.scale), landmarks=landmarks, boxes=extent(landmarks),
            scores=torch.ones_like(camera.scale), disagreement=apart.square().sum(-1).mean(-1).sqrt(),
            face_model=model, naming=self.naming, convention=spec.convention,
        )  # fmt: skip

    @in_own_precision
    def locate(self, landmarks: Float[Tensor, "n 66 2"]) -> tuple[Camera, LandmarkFit]:
        """The cameras that crops follow and the landmark fits, from landmarks in image px."""
        solvers = self.solvers
        return follow_faces(landmarks, solvers.crop_fitter, solvers.cropper)

    @in_own_precision
    def solve_crops(self, crops: Crop, landmarks: Float[Tensor, "n 66 2"], fit: LandmarkFit) -> Reconstruction:
        """`forward` on cut crops, from landmarks and their fit in image px; the faces are in crop px."""
        inside = apply_affine(landmarks, crops.to_crop)
        if self.spec.crop_fit != self.spec.fit:
            return self._solve(crops.image, inside, None)
        # Eq. 7 does not depend on the frame, so the fit of the image serves the crop.
        moved = replace(fit, camera=camera_to_crop(fit.camera, crops.to_crop))
        return self._solve(crops.image, inside, moved)

    def reconstruct(
        self, images: Sequence[Tensor], landmarks: Tensor, *, size: KnownSize | None = None
    ) -> Reconstruction:
        """The faces at known landmarks, one per image, in image px; one batch on this module's device.

        Args:
            images: RGB tensors [3, H, W] of any size, on any device: uint8, or floats in [0, 1].
            landmarks: [n, 66, 2] in px of the images, paper order (`landmarks.points.as_points66`); a missing one is
                NaN and ignored.
            size: size of the faces, where it is known.

        Returns:
            A batch. Faces whose landmarks cannot fix a camera are marked in `camera.degenerate`.

        Raises:
            ValueError: wrong shapes, or not one image per row of landmarks.

        Example:
            >>> faces = model.reconstruct([image], landmarks[None])
        """
        return reconstruct_images(self, images, landmarks, size or KnownSize(), self.locate, self.solve_crops)

    @in_own_precision
    def predict(
        self,
        images: object,
        *,
        landmarks: Sequence[Any] | None = None,
        faces: str | int = "all",
        size: KnownSize | None = None,
        batch: int | None = None,
        on_error: str = "raise",
        max_megapixels: float | int = MAX_MEGAPIXELS,
    ) -> list[Reconstruction]:
        """The faces of one or many images, in image px.

        Args:
            images: one image or a sequence of them: paths, bytes, files, PIL images, arrays or tensors
                (`images.convert.as_pixels`).
            landmarks: where they are known, per image the points of one face or of several, in a layout of
                `landmarks.points.as_points66`; nothing is detected then.
            faces: `all` (the largest detection first), `largest`, or a position; an image without a face there has
                none.
            size: size of the faces, where it is known.
            batch: faces solved together; None: 32 on the CPU, 256 on CUDA.
            on_error: `raise`, or `empty` to log an image that cannot be read, or whose landmark file cannot, and give
                no faces for it.
            max_megapixels: larger files are unreadable; they are refused before they are decoded.

        Returns:
            One batch of faces per image, also for a single image; without faces it has length 0. Detected faces that
            `plausibility.impossible` marks are left out; at given landmarks they stay, and the reason is logged.

        Raises:
            ImageFileError, LandmarkFileError: a file cannot be read, unless `on_error="empty"`.
            DetectorError: the detector cannot run.
            TypeError, ValueError: something that is no image, no landmarks, or no such choice.

        Example:
            >>> one, many = model.predict(["a.jpg", torch.rand(3, 480, 640)])
        """
        if on_error not in ("raise", "empty"):
            raise ValueError(f"on_error must be raise or empty; got {on_error!r}")
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1; got {batch}")
        listed = list(images) if isinstance(images, (list, tuple)) else [images]
        if landmarks is not None and len(landmarks) != len(listed):
            raise ValueError(f"there must be landmarks for every image; got {len(landmarks)} for {len(listed)} images")
        limit = batch or faces_at_once(self.device)
        require_megapixels("max_megapixels", max_megapixels)
        found = find_faces(
            listed,
            landmarks,
            faces,
            lambda: self.landmark_detector,
            skip_unreadable=on_error == "empty",
            max_megapixels=max_megapixels,
            convention=self.spec.convention,
        )
        solve = partial(self.reconstruct, size=size)
        like, keep = self.face_model.identity_mean, landmarks is not None
        solved = [image for batch in in_batches(found, limit) for image in solve_found(batch, solve, limit, like, keep)]
        if keep:
            warn_of_impossible(solved)
        return solved

    @torch.no_grad()
    @in_own_precision
    def join(
        self, faces: Reconstruction, subject: Tensor, *, size: KnownSize | None = None
    ) -> tuple[Reconstruction, JointIdentity]:
        """The faces with one identity per person; all people of a batch together.

        With that identity, the camera of every picture is solved again (Eq. 6), and beta once, close to the cascade's.

        Args:
            faces: of pictures, in any order.
            subject: [n], the number of each picture's person.
            size: of the faces, where it is known.

        Returns:
            The faces, and the identity of each picture's person with how well the picture agrees with the others.

        Raises:
            ValueError: not one subject per face.

        Example:
            >>> faces = Reconstruction.cat(model.predict(photographs, faces="largest"))
            >>> joined, person = model.join(faces, torch.zeros(len(faces), dtype=torch.int64))
        """
        given, camera = faces.parameters, faces.camera
        person = join_identities(given.identity, camera.rotation, subject, self.face_model, ~camera.degenerate)
        if not len(faces):
            return faces, person
        fitter, landmarks = self.solvers.fitter, faces.landmarks
        parameters = FaceParameters(person.identity, given.expression)
        camera, _, _ = look(fitter, parameters, landmarks, camera)
        parameters = replace(parameters, expression=fitter.fit_expression(parameters, landmarks, camera, JOINT_PENALTY))
        camera, points, projected = look(fitter, parameters, landmarks, camera)
        joined = replace(faces, parameters=parameters, camera=camera, landmarks_3d=points, projected_2d=projected)
        return at_size(joined, size or KnownSize()), person

    @property
    def landmark_detector(self) -> LandmarkDetector:
        """The detector of `predict`, built on first use and kept.

        Raises:
            DetectorError: it cannot run, or its landmarks are of another convention than the cascade's.
        """
        if self._built is None:
            self._built = self.detector if not isinstance(self.detector, str) else self._build(self.detector)
            require_convention(self._built, self.spec.convention)
        return self._built

    def _build(self, name: str) -> LandmarkDetector:
        """A detector by name; one that serves several conventions is built for the cascade's."""
        accepted = detector_options(name)
        offered = {"device": str(self.device), "convention": self.spec.convention}
        return build_detector(name, **{key: value for key, value in offered.items() if key in accepted})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_solvers": None, "_built": None}


@torch.no_grad()
@in_own_precision
def reconstruct_images(
    model: FaceReconstructor,
    images: Sequence[Tensor],
    landmarks: Tensor,
    size: KnownSize,
    locate: Callable[[Tensor], tuple[Camera, LandmarkFit]],
    solve_crops: Callable[[Crop, Tensor, LandmarkFit], Reconstruction],
) -> Reconstruction:
    """The faces at known landmarks, by the two steps of `model` or by recordings of them; between the two, crops are
    cut."""
    require_shape("landmarks", landmarks, (66, 2))
    if len(images) != len(landmarks):
        raise ValueError(f"there must be one image per row of landmarks; got {len(images)} and {len(landmarks)}")
    if not len(landmarks):
        return Reconstruction.empty(model.face_model, model.naming, model.spec.convention)
    points = landmarks.to(model.device, model.dtype)
    with timed("fit"):
        camera, fit = locate(points)
    crops = model.solvers.cropper.crop(images, camera)
    with timed("fit"):
        faces = solve_crops(crops, points, fit)
        return in_image(faces, crops.to_crop, points, size)


def _timed(name: str) -> AbstractContextManager[None]:
    return nullcontext() if torch.compiler.is_compiling() else timed(name)


def _require_crops(crops: Tensor, landmarks: Tensor, size: int) -> None:
    if crops.ndim != 4 or tuple(crops.shape[1:]) != (3, size, size) or not crops.is_floating_point():
        raise ValueError(f"crops must be floating point [n, 3, {size}, {size}]; got {crops.dtype} {list(crops.shape)}")
    if landmarks.ndim != 3 or tuple(landmarks.shape[1:]) != (66, 2) or landmarks.shape[0] != crops.shape[0]:
        raise ValueError(
            f"landmarks must be [n, 66, 2] with one row per crop; got {list(landmarks.shape)}, {crops.shape[0]} crops"
        )
    # Values on another device are not read: the host would wait for it in every batch.
    if len(crops) and crops.device.type == "cpu" and not torch.compiler.is_compiling():
        require_unit_range(crops, f"crops {list(crops.shape)}")
